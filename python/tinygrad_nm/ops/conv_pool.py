"""Convolution, activation and pooling in one call, for small images: what lies between them never leaves the cache."""

from __future__ import annotations

import functools
from typing import Any

from .. import backend
from .._errors import ShapeError
from ..autodiff import place, pull_back, record
from ..modes import thread
from ..tensor import Tensor
from . import pool as pooling
from .activation import ACTIVATIONS, resolve
from .conv import Geometry, _check, _conv2d, _forward, _geometry
from .operands import kept, pair, same_float

Windows = tuple[str, int, int]  # "avg" or "max", height, width: as the kernels take it


def conv2d_pool2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: Any = None,
    *,
    pool: str = "avg",
    pool_size: Any = 2,
) -> Any:
    """pool(sigma(w * x + b)) in windows of `pool_size` side by side: `conv2d`, then `avg_pool2d` or `max_pool2d`.

    Arguments and errors as theirs; pool: "avg" or "max". One kernel each way where that is faster (small images,
    several of them, stride 1), else the two operations; the values are the same.
    """
    if pool not in ("avg", "max"):
        raise ValueError(f"conv2d_pool2d: pool {pool!r} is not known; use 'avg' or 'max'")
    geometry = _geometry("conv2d", stride, padding, dilation, groups)
    windows = (pool, *pair("conv2d_pool2d", "pool_size", pool_size))
    return _conv2d_pool2d(x, weight, bias, geometry, windows, *resolve("conv2d", activation))


def _conv2d_pool2d(
    x: Any, weight: Any, bias: Any, geometry: Geometry, windows: Windows, kind: str, parameter: float
) -> Any:
    x_data, w, b = arrays = same_float("conv2d", input=x, weight=weight, bias=bias)
    height, width = _check("conv2d", x_data.shape, w.shape, geometry)
    _, window_h, window_w = windows
    size = 0
    if window_h <= height and window_w <= width and (kind == "identity" or ACTIVATIONS[kind].from_output):
        size = backend.kernels(x_data).conv2d_pool2d_kept(x_data, w, geometry, kind, parameter, windows)
    if size == 0:
        return _pooled(_forward((x, weight, bias), arrays, (height, width), geometry, kind, parameter), windows)
    if b is not None and b.shape != w.shape[:1]:
        raise ShapeError(f"conv2d: bias has shape {b.shape}, but weight {w.shape} expects {w.shape[:1]}")
    needed = thread.modes.recording and any(isinstance(t, Tensor) and t.node is not None for t in (x, weight, bias))
    y = backend.empty("conv2d_pool2d", w, (size,)) if needed else None
    out = backend.empty("conv2d_pool2d", w, (x_data.shape[0], w.shape[0], height // window_h, width // window_w))
    backend.kernels(out).conv2d_pool2d_forward(out, y, x_data, w, b, geometry, kind, parameter, windows)
    saved = (kept(x, x_data), kept(weight, w), bias, y, (geometry, kind, parameter, windows))
    return record(conv2d_pool2d_rule, out, (x, weight, bias), saved)


def conv2d_pool2d_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    """With dz = sigma'(z) times dy spread over the windows: dx, dw as in conv2d, db = the sum of dz over n, i, j."""
    x, weight, bias, y, options = saved
    if isinstance(dy, Tensor):

        def definition(x: Any, weight: Any, bias: Any) -> Any:
            geometry, kind, parameter, windows = options
            return conv2d_pool2d_definition(x, weight, bias, geometry, windows, kind, parameter)

        return pull_back(definition, (x, weight, bias), dy, needs)
    gradients = [place(need, "conv2d_pool2d", array) for array, need in zip((x, weight, bias), needs)]
    zeros_stay = thread.modes.selecting
    backend.kernels(x).conv2d_pool2d_backward(*gradients, dy, y, x, weight, *options, zeros_stay)
    return tuple(gradients)


def conv2d_pool2d_definition(
    x: Any, weight: Any, bias: Any, geometry: Geometry, windows: Windows, kind: str, parameter: float
) -> Any:
    """The three operations one after another: the kernels' oracle and their second derivatives."""
    return _pooled(_conv2d(x, weight, bias, geometry, kind, parameter), windows)


def _pooled(y: Any, windows: Windows) -> Any:
    tiles = _tiles(windows)
    return pooling._max(y, tiles) if windows[0] == "max" else pooling._mean(y, tiles, True)


@functools.lru_cache(maxsize=256)
def _tiles(windows: Windows) -> pooling.Geometry:
    return pooling._geometry(f"{windows[0]}_pool2d", windows[1:], None, 0, 1, False)
