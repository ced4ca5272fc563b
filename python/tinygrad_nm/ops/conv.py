"""2-D convolution: three functions that are each other's gradients.

With zero padding, stride s and dilation d on each axis, and G groups of channels (o in group g sees the channels
c of g only):

    conv2d:                  y[n,o,i,j]  = b[o] + sum over c,k,l of w[o,c,k,l] x[n, c, i s - p + k d, j s - p + l d]
    conv2d_backward_input:   dx[n,c,u,v] = the sum of w[o,c,k,l] dy[n,o,i,j] over all that used x[n,c,u,v]
    conv2d_backward_weight:  dw[o,c,k,l] = the sum of dy[n,o,i,j] x[...] over all that used w[o,c,k,l]

The sum without flipping the filter, as in every network ("cross-correlation").
"""

from __future__ import annotations

import functools
from typing import Any

from .. import backend
from .._errors import ShapeError
from ..autodiff import place, record
from ..tensor import Tensor
from .activation import ACTIVATIONS, activate, activation_backward, resolve
from .operands import image, kept, pair, same_float
from .operands import padding as padding_of
from .product import bias_gradient

Geometry = tuple[int, ...]  # stride (2), padding top bottom left right, dilation (2), groups: as the kernels take it


def _geometry(operation: str, stride: Any, padding: Any, dilation: Any, groups: Any) -> Geometry:
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise ShapeError(f"{operation}: groups must be a positive int, not {groups!r}")
    return (
        *pair(operation, "stride", stride),
        *padding_of(operation, padding),
        *pair(operation, "dilation", dilation),
        groups,
    )


@functools.lru_cache(maxsize=1024)
def _check(operation: str, x: tuple[int, ...], w: tuple[int, ...], geometry: Geometry) -> tuple[int, int]:
    """(OH, OW), after a check of the shapes against one another."""
    image(operation, "input", x)
    groups = geometry[8]
    if len(w) != 4 or min(w) < 1:
        raise ShapeError(f"{operation}: weight has shape {w}, but (O, C / groups, KH, KW), none empty, is needed")
    if x[1] != w[1] * groups:
        raise ShapeError(
            f"{operation}: input has {x[1]} channels, shape {x}, but weight {w} expects {w[1] * groups} "
            f"(groups={groups})"
        )
    if w[0] % groups:
        raise ShapeError(f"{operation}: the {w[0]} filters of weight {w} do not divide into {groups} groups")
    sizes = []
    for axis in (0, 1):
        before, after = geometry[2 + 2 * axis : 4 + 2 * axis]
        padded = x[2 + axis] + before + after
        extent = geometry[6 + axis] * (w[2 + axis] - 1) + 1
        if extent > padded:
            raise ShapeError(
                f"{operation}: kernel {w[2:]} with dilation {geometry[6:8]} is larger than its padded input: "
                f"{extent} > {padded} on axis {2 + axis} of {x}; add padding or use a smaller kernel"
            )
        sizes.append((padded - extent) // geometry[axis] + 1)
    return sizes[0], sizes[1]


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: Any = None,
) -> Any:
    """sigma(w * x + b) for x (N, C, H, W), weight (O, C / groups, KH, KW), bias (O,) -> (N, O, OH, OW).

    stride, dilation: an int or (rows, columns). padding: an int, (rows, columns), or ((top, bottom), (left, right)),
    filled with zeros. OH = (H + top + bottom - dilation (KH - 1) - 1) // stride + 1. activation: as in `linear`.
    Raises ShapeError where the shapes do not fit, DtypeError where float32 and float64 meet.
    """
    geometry = _geometry("conv2d", stride, padding, dilation, groups)
    return _conv2d(x, weight, bias, geometry, *resolve("conv2d", activation))


def _conv2d(x: Any, weight: Any, bias: Any, geometry: Geometry, kind: str = "identity", parameter: float = 0.0) -> Any:
    arrays = same_float("conv2d", input=x, weight=weight, bias=bias)
    size = _check("conv2d", arrays[0].shape, arrays[1].shape, geometry)
    return _forward((x, weight, bias), arrays, size, geometry, kind, parameter)


def _forward(
    operands: tuple[Any, Any, Any],
    arrays: tuple[Any, ...],
    size: tuple[int, int],
    geometry: Geometry,
    kind: str,
    parameter: float,
) -> Any:
    """conv2d of input, weight and bias whose shapes are checked but for the bias; size: (OH, OW)."""
    x_data, w, b = arrays
    if b is not None and b.shape != w.shape[:1]:
        raise ShapeError(f"conv2d: bias has shape {b.shape}, but weight {w.shape} expects {w.shape[:1]}")
    if kind != "identity" and not ACTIVATIONS[kind].from_output:
        return activate(_forward(operands, arrays, size, geometry, "identity", 0.0), kind, parameter)
    out = backend.empty("conv2d", w, (x_data.shape[0], w.shape[0], *size))
    backend.kernels(out).conv2d_forward(out, x_data, w, b, geometry, kind, parameter)
    saved = (kept(operands[0], x_data), kept(operands[1], w), (geometry, kind, parameter))
    return record(conv2d_rule, out, operands, saved, kind != "identity")


def conv2d_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    """With dz = dy sigma'(z): the two functions below, and db[o] = the sum of dz over n, i, j."""
    x, weight, (geometry, kind, parameter) = saved
    dz = dy if kind == "identity" else activation_backward(dy, out, kind, parameter)
    if isinstance(dz, Tensor):
        dx = _backward_input(dz, weight, x.shape, geometry) if needs[0] else None
        dw = _backward_weight(x, dz, weight.shape, geometry) if needs[1] else None
    else:
        dx, dw = place(needs[0], "conv2d", x), place(needs[1], "conv2d", weight)
        if dx is not None:
            backend.kernels(x).conv2d_backward_input(dx, dz, weight, geometry)
        if dw is not None:
            backend.kernels(x).conv2d_backward_weight(dw, x, dz, geometry)
    return dx, dw, bias_gradient(needs[2], dz)


def conv2d_backward_input(
    dy: Any, weight: Any, input_shape: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """The gradient of conv2d in its input (also called transposed convolution): dy (N, O, OH, OW) -> input_shape."""
    geometry = _geometry("conv2d_backward_input", stride, padding, dilation, groups)
    return _backward_input(dy, weight, tuple(input_shape), geometry)


def _backward_input(dy: Any, weight: Any, shape: tuple[int, ...], geometry: Geometry) -> Any:
    name = "conv2d_backward_input"
    dy_data, w = same_float(name, dy=dy, weight=weight)
    size = _check(name, shape, w.shape, geometry)
    _check_dy(name, dy_data.shape, (shape[0], w.shape[0], *size))
    out = backend.empty(name, w, shape)
    backend.kernels(out).conv2d_backward_input(out, dy_data, w, geometry)
    saved = (kept(dy, dy_data), kept(weight, w), geometry)
    return record(conv2d_backward_input_rule, out, (dy, weight), saved)


def conv2d_backward_input_rule(ddx: Any, needs: Any, out: Any, saved: Any) -> Any:
    dy, weight, geometry = saved
    return (
        _conv2d(ddx, weight, None, geometry) if needs[0] else None,
        _backward_weight(ddx, dy, weight.shape, geometry) if needs[1] else None,
    )


def conv2d_backward_weight(
    x: Any, dy: Any, weight_shape: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """The gradient of conv2d in its weight: x (N, C, H, W), dy (N, O, OH, OW) -> weight_shape."""
    geometry = _geometry("conv2d_backward_weight", stride, padding, dilation, groups)
    return _backward_weight(x, dy, tuple(weight_shape), geometry)


def _backward_weight(x: Any, dy: Any, shape: tuple[int, ...], geometry: Geometry) -> Any:
    name = "conv2d_backward_weight"
    x_data, dy_data = same_float(name, input=x, dy=dy)
    size = _check(name, x_data.shape, shape, geometry)
    _check_dy(name, dy_data.shape, (x_data.shape[0], shape[0], *size))
    out = backend.empty(name, x_data, shape)
    backend.kernels(out).conv2d_backward_weight(out, x_data, dy_data, geometry)
    saved = (kept(x, x_data), kept(dy, dy_data), geometry)
    return record(conv2d_backward_weight_rule, out, (x, dy), saved)


def conv2d_backward_weight_rule(ddw: Any, needs: Any, out: Any, saved: Any) -> Any:
    x, dy, geometry = saved
    return (
        _backward_input(dy, ddw, x.shape, geometry) if needs[0] else None,
        _conv2d(x, ddw, None, geometry) if needs[1] else None,
    )


def _check_dy(operation: str, given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if given != expected:
        raise ShapeError(f"{operation}: dy has shape {given}, but the convolution's output is {expected}")
