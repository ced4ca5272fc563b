"""Max- and mean-pooling of (N, C, H, W) in windows that may overlap."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import backend
from .._errors import ShapeError
from ..autodiff import record
from .operands import floating, image, pair
from .operands import padding as padding_of

Geometry = tuple[Any, ...]  # kernel (2), stride (2), padding top bottom left right, dilation (2), ceil_mode


def _geometry(operation: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Geometry:
    kernel = pair(operation, "kernel_size", kernel_size)
    steps = kernel if stride is None else pair(operation, "stride", stride)
    pads = padding_of(operation, padding)
    return (*kernel, *steps, *pads, *pair(operation, "dilation", dilation), bool(ceil_mode))


@functools.lru_cache(maxsize=1024)
def _output(operation: str, shape: tuple[int, ...], g: Geometry) -> tuple[int, ...]:
    """(N, C, OH, OW). In ceil mode the last window must start within the input or the padding before it."""
    image(operation, "input", shape)
    sizes = []
    for axis in (0, 1):
        size, kernel, stride, dilation = shape[2 + axis], g[axis], g[2 + axis], g[8 + axis]
        before, after = g[4 + 2 * axis], g[5 + 2 * axis]
        extent = dilation * (kernel - 1) + 1
        if extent > size + before + after:
            padded = tuple(shape[2 + i] + g[4 + 2 * i] + g[5 + 2 * i] for i in (0, 1))
            raise ShapeError(
                f"{operation}: kernel {g[:2]} with dilation {g[8:10]} is larger than the padded input {padded}; "
                "add padding or use a smaller kernel"
            )
        free = size + before + after - extent
        n = -(-free // stride) + 1 if g[10] else free // stride + 1
        if g[10] and (n - 1) * stride >= size + before:
            n -= 1
        sizes.append(n)
    return (*shape[:2], *sizes)


def max_pool2d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    """The largest value in each window of x (N, C, H, W); the first one wins a tie, NaN wins always.

    kernel_size, stride (the kernel size if None), dilation: an int or (rows, columns). padding: an int, a pair, or
    ((top, bottom), (left, right)); padding never wins. ceil_mode: the output size is rounded up, as in PyTorch.
    """
    return _max(x, _geometry("max_pool2d", kernel_size, stride, padding, dilation, ceil_mode))


def _max(x: Any, geometry: Geometry) -> Any:
    data = floating("max_pool2d", x)
    shape = _output("max_pool2d", data.shape, geometry)
    out = backend.empty("max_pool2d", data, shape)
    positions = backend.empty("max_pool2d", data, shape, np.uint8 if geometry[0] * geometry[1] <= 256 else np.int32)
    backend.kernels(data).max_pool2d_forward(out, positions, data, geometry)
    return record(max_pool2d_rule, out, (x,), (positions, geometry, data.shape))


def max_pool2d_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (_scatter(dy, *saved),)


def _scatter(dy: Any, positions: Any, geometry: Geometry, shape: tuple[int, ...]) -> Any:
    """dx of max_pool2d: dy added at the positions of the maxima."""
    data = floating("max_pool2d", dy)
    out = backend.empty("max_pool2d", data, shape)
    backend.kernels(data).max_pool2d_backward(out, data, positions, geometry)
    return record(max_pool2d_scatter_rule, out, (dy,), (positions, geometry, shape))


def max_pool2d_scatter_rule(ddx: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (_gather(ddx, *saved),)


def _gather(x: Any, positions: Any, geometry: Geometry, shape: tuple[int, ...]) -> Any:
    """x at the positions of the maxima: max_pool2d with its choice held fixed."""
    data = floating("max_pool2d", x)
    out = backend.empty("max_pool2d", data, positions.shape)
    backend.kernels(data).max_pool2d_gather(out, data, positions, geometry)
    return record(max_pool2d_rule, out, (x,), (positions, geometry, shape))


def avg_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """The mean of each window of x (N, C, H, W). Arguments as in max_pool2d.

    count_include_pad: padding counts as zeros in the mean; else only the input's own values do.
    """
    geometry = _geometry("avg_pool2d", kernel_size, stride, padding, 1, ceil_mode)
    return _mean(x, geometry, bool(count_include_pad))


def _mean(x: Any, geometry: Geometry, count_include_pad: bool) -> Any:
    data = floating("avg_pool2d", x)
    out = backend.empty("avg_pool2d", data, _output("avg_pool2d", data.shape, geometry))
    backend.kernels(data).avg_pool2d_forward(out, data, geometry, count_include_pad)
    return record(avg_pool2d_rule, out, (x,), (data.shape, geometry, count_include_pad))


def avg_pool2d_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (_spread(dy, *saved),)


def _spread(dy: Any, shape: tuple[int, ...], geometry: Geometry, count_include_pad: bool) -> Any:
    """dx of avg_pool2d: each dy shared among its window."""
    data = floating("avg_pool2d", dy)
    out = backend.empty("avg_pool2d", data, shape)
    backend.kernels(data).avg_pool2d_backward(out, data, geometry, count_include_pad)
    return record(avg_pool2d_spread_rule, out, (dy,), (geometry, count_include_pad))


def avg_pool2d_spread_rule(ddx: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (_mean(ddx, *saved),)
