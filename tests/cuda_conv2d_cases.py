"""Convolutions for tests of the CUDA kernels: shapes, arrays, and the three passes by plain loops and by kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import reference


class Case(NamedTuple):
    """x (N, C, H, W), w (O, C/groups, KH, KW), and the geometry as the bindings take it."""

    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def geometry(self) -> tuple[int, ...]:
        return (*self.stride, *self.pads, *self.dilation, self.groups)

    @property
    def options(self) -> dict[str, Any]:
        padding = (self.pads[:2], self.pads[2:])
        return {"stride": self.stride, "padding": padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def y(self) -> tuple[int, int, int, int]:
        out = reference.Convolution(self.x, self.w, **self.options).out
        return (self.x[0], self.w[0], *out)

    def fits(self) -> bool:
        return min(self.y[2:]) > 0


class Arrays(NamedTuple):
    x: np.ndarray
    w: np.ndarray
    bias: np.ndarray
    dy: np.ndarray


def arrays(case: Case, dtype: type, whole: bool = True) -> Arrays:
    """Whole numbers in [-4, 4], whose sums are exact in any order; or numbers from N(0, 1)."""
    random = np.random.default_rng(0)
    shapes = (case.x, case.w, case.w[:1], case.y)
    draw = (lambda shape: random.integers(-4, 5, shape)) if whole else random.standard_normal
    return Arrays(*(draw(shape).astype(dtype) for shape in shapes))


def by_loops(case: Case, a: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    a = Arrays(*(value.astype(np.float64) for value in a))
    return (
        reference.conv2d(a.x, a.w, a.bias, **case.options),
        reference.conv2d_backward_input(a.dy, a.w, case.x, **case.options),
        reference.conv2d_backward_weight(a.x, a.dy, case.w, **case.options),
    )


def by_kernels(device: Any, case: Case, a: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Into arrays of NaN: results are not read before they are written, and all are written."""
    y, dx, dw = (np.full(shape, np.nan, a.x.dtype) for shape in (case.y, case.x, case.w))
    device.conv2d_forward(y, a.x, a.w, a.bias, case.geometry)
    device.conv2d_backward_input(dx, a.dy, a.w, case.geometry)
    device.conv2d_backward_weight(dw, a.x, a.dy, case.geometry)
    return y, dx, dw
