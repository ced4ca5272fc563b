"""Reductions over axes, and broadcasting, which is the adjoint of summing."""

from __future__ import annotations

from typing import Any

from .. import backend
from .._errors import ShapeError
from ..autodiff import record
from ..tensor import Tensor, value
from .operands import array, axes, broadcast_shape, count, floating
from .shape import reshape


def broadcast_to(x: Any, shape: Any) -> Any:
    """x seen with the given shape, as NumPy broadcasts it (no copy)."""
    data = array("broadcast_to", x)
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if broadcast_shape("broadcast_to", data.shape, shape) != shape:
        raise ShapeError(f"broadcast_to: shape {data.shape} does not broadcast to {shape}")
    return record(broadcast_to_rule, backend.xp(data).broadcast_to(data, shape), (x,), (data.shape,), view_of=x)


def broadcast_to_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (sum_to(dy, saved[0]),)


def sum_to(x: Any, shape: tuple[int, ...]) -> Any:
    """x summed over the axes along which `shape` was broadcast to x's: the adjoint of broadcast_to."""
    if x.shape == shape:
        return x
    extra = x.ndim - len(shape)
    along = tuple(i for i in range(x.ndim) if i < extra or (shape[i - extra] == 1 and x.shape[i] != 1))
    return reshape(sum(x, along), shape)


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The sum over `axis` (None: all, an int, or several)."""
    data = array("sum", x)
    along = axes("sum", axis, data.ndim)
    return record(sum_rule, data.sum(axis=along, keepdims=keepdims), (x,), (data.shape, along))


def sum_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    shape, along = saved
    return (broadcast_to(reshape(dy, _kept_shape(shape, along)), shape),)


def _kept_shape(shape: tuple[int, ...], along: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in along else n for i, n in enumerate(shape))


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean over `axis` (None: all, an int, or several)."""
    data = floating("mean", x)
    along = axes("mean", axis, data.ndim)
    n = count([data.shape[i] for i in along])
    if n == 0:
        raise ShapeError(f"mean: there is nothing to average: shape {data.shape}, axis {axis}")
    return record(mean_rule, data.sum(axis=along, keepdims=keepdims) / n, (x,), (data.shape, along, n))


def mean_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    shape, along, n = saved
    return (broadcast_to(reshape(dy / n, _kept_shape(shape, along)), shape),)


def var(x: Any, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Any:
    """The mean squared distance from the mean, sum((x - mean)^2) / (n - ddof)."""
    shape = array("var", x).shape
    n = count([shape[i] for i in axes("var", axis, len(shape))])
    if n - ddof <= 0:
        raise ShapeError(f"var: {n} values with ddof={ddof} leave nothing to divide by: shape {shape}, axis {axis}")
    x = x if isinstance(x, Tensor) else Tensor(floating("var", x))
    distance = x - mean(x, axis, keepdims=True)
    return sum(distance * distance, axis, keepdims) / (n - ddof)


def _extremum(name: str, x: Any, axis: Any, keepdims: bool, rule: Any) -> Any:
    data = array(name, x)
    along = axes(name, axis, data.ndim)
    if count([data.shape[i] for i in along]) == 0:
        raise ShapeError(f"{name}: there is no value to choose: shape {data.shape}, axis {axis}")
    kept = getattr(data, name)(axis=along, keepdims=True)
    result = kept if keepdims else kept.reshape([n for i, n in enumerate(data.shape) if i not in along])
    kept = backend.xp(data).asarray(kept)
    chosen = (data == kept) | (data != data)
    return record(rule, result, (x,), (chosen, along))


def max(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest value over `axis`; NaN wins; ties share the gradient equally."""
    return _extremum("max", x, axis, keepdims, max_rule)


def max_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    chosen, along = saved
    share = (chosen / chosen.sum(axis=along, keepdims=True)).astype(dy.dtype)
    return (broadcast_to(reshape(dy, _kept_shape(chosen.shape, along)), chosen.shape) * share,)


def min(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The smallest value over `axis`; NaN wins; ties share the gradient equally."""
    return _extremum("min", x, axis, keepdims, min_rule)


def min_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return max_rule(dy, needs, out, saved)


def argmax(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The index (int64) of the first largest value over `axis` (None: of the flattened tensor; several: of those
    axes flattened in order); NaN wins."""
    data = array("argmax", x)
    along = axes("argmax", axis, data.ndim)
    if count([data.shape[i] for i in along]) == 0:
        raise ShapeError(f"argmax: there is no value to choose: shape {data.shape}, axis {axis}")
    rest = tuple(i for i in range(data.ndim) if i not in along)
    flat = data.transpose(rest + along).reshape([data.shape[i] for i in rest] + [-1])
    found = backend.xp(data).asarray(flat.argmax(axis=-1))
    return Tensor(found.reshape(_kept_shape(data.shape, along)) if keepdims else found)


def all(x: Any) -> Tensor:
    """Whether every value is true, as a bool tensor of shape ()."""
    data = array("all", x)
    return Tensor(backend.xp(data).asarray(value(data).all()))


def any(x: Any) -> Tensor:
    """Whether some value is true, as a bool tensor of shape ()."""
    data = array("any", x)
    return Tensor(backend.xp(data).asarray(value(data).any()))
