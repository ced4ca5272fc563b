"""Operations that move values without computing: views, joins, padding and indexing."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import backend
from .._errors import DtypeError, ShapeError
from ..autodiff import record
from ..tensor import Tensor, value
from .operands import array, axes, brought, count, device_like, kept, together


def reshape(x: Any, *shape: Any) -> Any:
    """x with another shape, row by row; one size may be -1. A view where NumPy can give one."""
    data = array("reshape", x)
    wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    try:
        result = data.reshape(wanted)
    except ValueError:
        raise ShapeError(f"reshape: {data.size} values of shape {data.shape} do not fill shape {wanted}") from None
    return record(reshape_rule, result, (x,), (data.shape,), view_of=x)


def reshape_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (reshape(dy, saved[0]),)


def flatten(x: Any, start_axis: int = 0) -> Any:
    """The axes from `start_axis` on as one."""
    data = array("flatten", x)
    if not 0 <= start_axis <= data.ndim:
        raise ShapeError(f"flatten: start_axis {start_axis} is outside 0 .. {data.ndim} of shape {data.shape}")
    return reshape(x, (*data.shape[:start_axis], count(data.shape[start_axis:])))


def transpose(x: Any, *permutation: Any) -> Any:
    """x with its axes permuted (reversed if none is given), a view."""
    data = array("transpose", x)
    order = permutation[0] if len(permutation) == 1 and not isinstance(permutation[0], int) else permutation
    order = tuple(range(data.ndim))[::-1] if not order else tuple(order)
    if len(order) != data.ndim or len(axes("transpose", order, data.ndim)) != data.ndim:
        raise ShapeError(f"transpose: axes {order} are not a permutation of the {data.ndim} axes of shape {data.shape}")
    order = tuple(i % data.ndim for i in order)
    return record(transpose_rule, data.transpose(order), (x,), (order,), view_of=x)


def transpose_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (transpose(dy, tuple(int(i) for i in np.argsort(saved[0]))),) if saved[0] else (dy,)


def swap_last(x: Any) -> Any:
    """The last two axes swapped: the transposed matrices."""
    n = x.ndim
    return transpose(x, (*range(n - 2), n - 1, n - 2))


def squeeze(x: Any, axis: Any = None) -> Any:
    """x without the axes of size 1 (all of them, or those of `axis`, which must be of size 1)."""
    data = array("squeeze", x)
    along = axes("squeeze", axis, data.ndim)
    if axis is None:
        along = tuple(i for i in along if data.shape[i] == 1)
    wrong = [i for i in along if data.shape[i] != 1]
    if wrong:
        raise ShapeError(f"squeeze: axis {wrong[0]} of shape {data.shape} has size {data.shape[wrong[0]]}, not 1")
    return reshape(x, tuple(n for i, n in enumerate(data.shape) if i not in along))


def expand_dims(x: Any, axis: Any) -> Any:
    """x with new axes of size 1 at the positions `axis` of the result."""
    data = array("expand_dims", x)
    new = axis if isinstance(axis, (tuple, list)) else (axis,)
    along = axes("expand_dims", new, data.ndim + len(new))
    old = iter(data.shape)
    return reshape(x, tuple(1 if i in along else next(old) for i in range(data.ndim + len(new))))


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Any:
    """The tensors joined along an axis; all other sizes must agree."""
    tensors = list(tensors)
    parts = _parts("concatenate", tensors)
    if not isinstance(axis, (int, np.integer)):
        raise ShapeError(
            f"concatenate: axis must be an int, not {axis!r}; flatten the tensors first to join all values"
        )
    along = axes("concatenate", axis, parts[0].ndim)[0] if parts[0].ndim else -1
    shapes = [p.shape for p in parts]
    rest = {(*s[:along], *s[along + 1 :]) for s in shapes}
    if along < 0 or len(rest) > 1 or len({len(s) for s in shapes}) > 1:
        told = ", ".join(str(s) for s in shapes)
        raise ShapeError(f"concatenate: shapes {told} differ in more than axis {axis}; use stack for new axes")
    data = backend.xp(parts[0]).concatenate(parts, axis=along)
    return record(concatenate_rule, data, tuple(tensors), (along, [s[along] for s in shapes]))


def concatenate_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    along, sizes = saved
    start = 0
    gradients = []
    for size, need in zip(sizes, needs):
        key = (slice(None),) * along + (slice(start, start + size),)
        gradients.append(getitem(dy, key) if need else None)
        start += size
    return gradients


def stack(tensors: Sequence[Any], axis: int = 0) -> Any:
    """The tensors, all of one shape, joined along a new axis."""
    tensors = list(tensors)
    parts = _parts("stack", tensors)
    if len({p.shape for p in parts}) > 1:
        raise ShapeError(f"stack: shapes {', '.join(str(p.shape) for p in parts)} differ; they must be equal")
    return concatenate([expand_dims(kept(t, part), axis) for t, part in zip(tensors, parts)], axis)


def _parts(operation: str, tensors: Sequence[Any]) -> Sequence[Any]:
    if not tensors:
        raise ShapeError(f"{operation}: there is nothing to join; give at least one tensor")
    parts = together(operation, [array(operation, t) for t in tensors], tensors)
    dtypes = {str(p.dtype) for p in parts}
    if len(dtypes) > 1:
        raise DtypeError(f"{operation}: dtypes {' and '.join(sorted(dtypes))} do not mix; convert with .astype")
    return parts


def pad(x: Any, widths: Any, constant: float = 0.0) -> Any:
    """x with constants around it: widths is an int, or (before, after) for each axis."""
    data = array("pad", x)
    given = [(int(widths),) * 2] * data.ndim if isinstance(widths, (int, np.integer)) else list(widths)
    if not backend.is_float(data) and data.dtype.type(constant) != constant:
        raise DtypeError(f"pad: the constant {constant} does not fit a tensor of {data.dtype}; convert with .astype")
    if len(given) != data.ndim or any(len(w) != 2 or w[0] < 0 or w[1] < 0 for w in given):
        raise ShapeError(f"pad: widths {widths!r} must be (before, after), not negative, for each axis of {data.shape}")
    if not data.ndim:
        return reshape(x, ())
    inside = tuple(slice(before, before + n) for (before, _), n in zip(given, data.shape))
    return record(pad_rule, backend.xp(data).pad(data, given, constant_values=constant), (x,), (inside,))


def pad_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (getitem(dy, saved[0]),)


def _key(x: Any, key: Any) -> tuple[Any, bool]:
    """The index with tensors as arrays and masks as indices, and whether any of it is an array of integers.

    Its arrays are on the device of x. NumPy arrays go there after a check: no device tells of an index out of range.
    """
    given: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)
    parts = tuple([_part(part) for part in given])
    found = [part for part in parts if type(part) in backend.DEVICES]
    if not found:
        return parts, any(isinstance(part, bool) for part in parts)
    data = value(x)
    if any(type(part) is not np.ndarray for part in found):
        parts = tuple(together("getitem", (data, *parts), (x, *given))[1:])
        return _unmasked(backend.xp(data), data.shape, parts), True
    plain = _unmasked(np, data.shape, parts)
    if type(data) is not np.ndarray:
        device_like("getitem", (data, *parts), (x, *given))
        _read(np.broadcast_to(np.zeros((), bool), data.shape), plain)
        plain = tuple(brought("getitem", part, data) if type(part) is np.ndarray else part for part in plain)
    return plain, True


def _unmasked(xp: Any, shape: tuple[int, ...], parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """The index with masks as indices, once their sizes fit their axes: later, a short one would go unnoticed."""
    plain: list[Any] = []
    for part in parts:
        mask = type(part) in backend.DEVICES and part.dtype == bool
        if mask:
            try:
                xp.broadcast_to(xp.zeros((), bool), shape)[parts]
            except IndexError as error:
                raise ShapeError(f"getitem: {error} (shape {shape})") from None
        plain.extend(part.nonzero() if mask else (part,))
    return tuple(plain)


def _part(part: Any) -> Any:
    """One part of an index: a slice, None, ..., an int, a bool, or an array of integers or bool."""
    if isinstance(part, (Tensor, np.ndarray)) or type(part) in backend.DEVICES:
        part = value(part)
        part = (part if type(part) in backend.DEVICES else np.asarray(part)).copy()  # its gradient needs it as it is
    elif isinstance(part, list):
        part = np.asarray(part, dtype=None if part else np.intp)
    if type(part) in backend.DEVICES:
        if part.dtype.kind not in "iub":
            raise DtypeError(f"getitem: an index array must hold integers or bool, not {part.dtype}")
        return part.item() if part.ndim == 0 else part
    if isinstance(part, (slice, bool, np.bool_)) or part is None or part is Ellipsis:
        return bool(part) if isinstance(part, np.bool_) else part
    try:
        return operator.index(part)
    except TypeError:
        raise DtypeError(f"getitem: {part!r} is not an index; use ints, slices or integer arrays") from None


def _read(data: Any, key: tuple[Any, ...]) -> Any:
    try:
        return data[key]
    except IndexError as error:
        raise IndexError(f"getitem: {error} (shape {data.shape})") from None


def getitem(x: Any, key: Any) -> Any:
    """x[key]: ints, slices, None and ... give a view; integer arrays and masks gather."""
    data = array("getitem", x)
    plain, gathers = _key(x, key)
    return record(getitem_rule, _read(data, plain), (x,), (data.shape, plain, gathers), view_of=None if gathers else x)


def getitem_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (put(dy, *saved),)


def put(dy: Any, shape: tuple[int, ...], key: Any, gathers: bool) -> Any:
    """Zeros of `shape` with dy added at `key`: the adjoint of getitem.

    Repeated positions are sorted and summed in segments, in the order of dy: no atomics, the same bits always.
    """
    data = array("getitem", dy)
    if gathers:
        key_xp = backend.xp(next((part for part in key if type(part) in backend.DEVICES), data))
        positions = key_xp.arange(count(shape)).reshape(shape)[key].ravel()
        _, positions = together("getitem", (data, positions), (dy, positions))
        result = backend.DEVICES[type(data)].sum_at(count(shape), positions, data.ravel()).reshape(shape)
    else:
        result = backend.xp(data).zeros(shape, data.dtype)
        result[key] = data
    return record(put_rule, result, (dy,), (key,))


def put_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (getitem(dy, saved[0]),)
