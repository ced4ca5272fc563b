"""Products of matrices: matmul, and the fully connected layer sigma(x K^T + b). All by our own GEMM."""

from __future__ import annotations

from typing import Any

from .. import backend
from .._errors import ShapeError
from ..autodiff import place, record
from ..tensor import Tensor
from .activation import ACTIVATIONS, activate, activation_backward, resolve
from .operands import array, broadcast_shape, count, kept, same_float
from .reduction import sum, sum_to
from .shape import reshape, swap_last


def matmul(a: Any, b: Any) -> Any:
    """The matrix product over the last two axes, as `a @ b`: (..., M, K) and (..., K, N) give (..., M, N).

    A 1-D operand is a row (left) or a column (right), and its axis is dropped from the result; the other axes
    broadcast. Raises ShapeError where the inner sizes differ.
    """
    xa, xb = same_float("matmul", a=a, b=b)
    a, b = kept(a, xa), kept(b, xb)
    if xa.ndim == 0 or xb.ndim == 0:
        raise ShapeError(f"matmul: shapes {xa.shape} and {xb.shape} need at least one axis each; use multiply")
    inner = xb.shape[-2] if xb.ndim > 1 else xb.shape[0]
    if xa.shape[-1] != inner:
        raise ShapeError(f"matmul: shapes {xa.shape} and {xb.shape} have inner sizes {xa.shape[-1]} and {inner}")
    batch = broadcast_shape("matmul", xa.shape[:-2], xb.shape[:-2])
    left = reshape(a, (1, *xa.shape)) if xa.ndim == 1 else a
    right = reshape(b, (*xb.shape, 1)) if xb.ndim == 1 else b
    if left.ndim > 2 and right.ndim == 2:  # one product of many rows instead of many products
        left = reshape(left, (count(left.shape[:-1]), inner))
    result = _batched(left, right)
    rows = xa.shape[-2:-1] if xa.ndim > 1 else ()
    columns = xb.shape[-1:] if xb.ndim > 1 else ()
    shape = (*batch, *rows, *columns)
    return result if result.shape == shape else reshape(result, shape)


def _batched(a: Any, b: Any) -> Any:
    xa, xb = array("matmul", a), array("matmul", b)
    batch = broadcast_shape("matmul", xa.shape[:-2], xb.shape[:-2])
    xp = backend.xp(xa)
    out = backend.empty("matmul", xa, (*batch, xa.shape[-2], xb.shape[-1]))
    stacked = (count(batch), *out.shape[-2:])
    backend.kernels(out).gemm(out.reshape(stacked), _stack(xp, xa, batch), _stack(xp, xb, batch))
    return record(matmul_rule, out, (a, b), (a, b, xa.shape, xb.shape))


def _stack(xp: Any, x: Any, batch: tuple[int, ...]) -> Any:
    """(B, rows, columns), or (1, rows, columns) if one matrix serves the whole batch."""
    if count(x.shape[:-2]) == 1:
        return x.reshape((1, *x.shape[-2:]))
    return xp.broadcast_to(x, (*batch, *x.shape[-2:])).reshape((count(batch), *x.shape[-2:]))


def matmul_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    """da = dy b^T, db = a^T dy."""
    a, b, shape_a, shape_b = saved
    da = sum_to(_batched(dy, swap_last(b)), shape_a) if needs[0] else None
    return da, sum_to(_batched(swap_last(a), dy), shape_b) if needs[1] else None


def linear(x: Any, weight: Any, bias: Any = None, activation: Any = None) -> Any:
    """A layer sigma(x K^T + b) in one call: x (..., in), weight K (out, in), bias (out,) -> (..., out).

    activation: None, a name such as "tanh", (name, parameter), or the function. The course's y = sigma(K y + b), with
    examples as rows. Raises ShapeError where the sizes do not fit.
    """
    return _linear(x, weight, bias, *resolve("linear", activation))


def _linear(x: Any, weight: Any, bias: Any, kind: str = "identity", parameter: float = 0.0) -> Any:
    x_data, w, b = same_float("linear", input=x, weight=weight, bias=bias)
    if w.ndim != 2:
        raise ShapeError(f"linear: weight has shape {w.shape}, but (out, in) is needed")
    if not x_data.ndim or x_data.shape[-1] != w.shape[1]:
        raise ShapeError(f"linear: input of shape {x_data.shape} has not the {w.shape[1]} features of weight {w.shape}")
    if b is not None and b.shape != w.shape[:1]:
        raise ShapeError(f"linear: bias has shape {b.shape}, but weight {w.shape} expects {w.shape[:1]}")
    if x_data.ndim != 2:
        flat = reshape(kept(x, x_data), (count(x_data.shape[:-1]), w.shape[1]))
        return reshape(_linear(flat, weight, bias, kind, parameter), (*x_data.shape[:-1], w.shape[0]))
    if kind != "identity" and not ACTIVATIONS[kind].from_output:
        return activate(_linear(x, weight, bias), kind, parameter)
    out = backend.empty("linear", w, (x_data.shape[0], w.shape[0]))
    backend.kernels(out).gemm(out, x_data, w.T, 1.0, 0.0, b, kind, parameter)
    saved = (kept(x, x_data), kept(weight, w), kind, parameter)
    return record(linear_rule, out, (x, weight, bias), saved, save_out=kind != "identity")


def linear_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    """With dz = dy sigma'(z): dx = dz K, dK = dz^T x, db = the sum of dz over the examples."""
    x, weight, kind, parameter = saved
    dz = dy if kind == "identity" else activation_backward(dy, out, kind, parameter)
    if isinstance(dz, Tensor):
        products = _batched(dz, weight) if needs[0] else None, _batched(swap_last(dz), x) if needs[1] else None
    else:
        products = _product(needs[0], dz, weight), _product(needs[1], dz.T, x)
    return *products, bias_gradient(needs[2], dz)


def bias_gradient(need: Any, dz: Any) -> Any:
    """dz (N, O, ...) summed over all axes but the second, the gradient of a bias, in the place that `need` offers."""
    if need is None:
        return None
    if isinstance(dz, Tensor):
        return sum(dz, (0, *range(2, dz.ndim)))
    out = place(need, "bias", dz, dz.shape[1:2])
    backend.kernels(dz).bias_backward(out, dz)
    return out


def _product(need: Any, a: Any, b: Any) -> Any:
    """The matrix a b, plain arrays, in the place that `need` offers (autodiff.place)."""
    out = place(need, "linear", a, (a.shape[0], b.shape[1]))
    if out is not None:
        backend.kernels(out).gemm(out, a, b)
    return out
