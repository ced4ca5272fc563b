"""The CUDA kernels of Winograd's convolutions, forced on small shapes: against the definition, in plain sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import cuda_device
from cuda_device import orders
from reference import ACTIVATIONS, PARAMETERS, activation

device = cuda_device.device

DENOMINATORS = 576  # of the transforms, both ways
LARGEST_ERROR = {np.float32: 3e-5, np.float64: 1e-13}  # relative to the largest result: shared/conv2d.h
Draw = Callable[..., np.ndarray]

# N, C, H, W, O, (top, bottom, left, right), groups. Blocks are of 128 tiles of 4x4 results, of 32 x 8 filters
SHAPES = [
    (1, 1, 1, 1, 1, (1, 1, 1, 1), 1),
    (2, 3, 5, 4, 2, (1, 1, 1, 1), 1),  # one more row than a tile
    (1, 4, 3, 6, 6, (2, 0, 1, 3), 2),  # one column less
    (1, 2, 2, 3, 2, (4, 3, 3, 4), 2),  # more zeros than the filter reaches
    (3, 1, 24, 26, 2, (1, 1, 0, 0), 1),  # 108 tiles of results and 126 of inputs: all but a block
    (5, 2, 21, 22, 1, (1, 1, 1, 1), 1),  # 180: the second chunk begins within an image
    (1, 9, 5, 3, 33, (1, 1, 1, 1), 1),  # one more filter, one more channel than a block
    (1, 33, 3, 3, 9, (0, 1, 1, 0), 1),
    (1, 64, 2, 3, 64, (1, 1, 1, 1), 2),  # filters and channels of a group that fill their blocks
]


class Passes:
    """x, w, dy and a bias, what the three passes make of them by the definition, and by a module of kernels."""

    def __init__(self, shape: tuple[Any, ...], draw: Draw, dtype: Any) -> None:
        n, c, h, w, o, (top, bottom, left, right), groups = shape
        self.geometry, self.groups = (1, 1, top, bottom, left, right, 1, 1, groups), groups
        self.x, self.w, self.bias = (draw(*s).astype(dtype) for s in ((n, c, h, w), (o, c // groups, 3, 3), (o,)))
        self.dy = draw(n, o, h + top + bottom - 2, w + left + right - 2).astype(dtype)

    def by_definition(self) -> list[np.ndarray]:
        """y without bias, dx, dw in float64."""
        x, w, dy = (a.astype(np.float64) for a in (self.x, self.w, self.dy))
        (n, c, h, width), o, g = x.shape, len(w), self.groups
        _, _, top, bottom, left, right, *_ = self.geometry
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))).reshape(n, g, c // g, *self.padded_size)
        dpadded, rows, columns = np.zeros_like(padded), dy.shape[2], dy.shape[3]
        y, dw = np.zeros((n, g, o // g, rows, columns)), np.zeros((g, o // g, c // g, 3, 3))
        w, dy = w.reshape(dw.shape), dy.reshape(y.shape)
        for i, j in np.ndindex(3, 3):
            part = np.s_[:, :, :, i : i + rows, j : j + columns]
            y += np.einsum("ngchw,goc->ngohw", padded[part], w[..., i, j])
            dpadded[part] += np.einsum("ngohw,goc->ngchw", dy, w[..., i, j])
            dw[..., i, j] = np.einsum("ngohw,ngchw->goc", dy, padded[part])
        dx = dpadded.reshape(n, c, *self.padded_size)[:, :, top : top + h, left : left + width]
        return [y.reshape(self.dy.shape), dx, dw.reshape(self.w.shape)]

    @property
    def padded_size(self) -> tuple[int, int]:
        return self.dy.shape[2] + 2, self.dy.shape[3] + 2

    def forward(self, kernels: Any, bias: bool = False, *epilogue: Any) -> np.ndarray:
        y = np.full_like(self.dy, np.nan)
        kernels.conv2d_forward(y, self.x, self.w, self.bias if bias else None, self.geometry, *epilogue)
        return y

    def __call__(self, kernels: Any) -> list[np.ndarray]:
        """y without bias, dx, dw."""
        dx, dw = np.full_like(self.x, np.nan), np.full_like(self.w, np.nan)
        kernels.conv2d_backward_input(dx, self.dy, self.w, self.geometry)
        kernels.conv2d_backward_weight(dw, self.x, self.dy, self.geometry)
        return [self.forward(kernels), dx, dw]


@pytest.fixture
def always(device: Any) -> Iterator[Any]:
    """The device, with Winograd's algorithm wherever it can be used: in chunks of 128 tiles."""
    device.set_winograd_always(True)
    yield device
    device.set_winograd_always(False)


def whole(seed: int) -> Draw:
    generator = np.random.default_rng(seed)
    return lambda *shape: generator.integers(-1, 2, shape)


def normal(seed: int) -> Draw:
    generator = np.random.default_rng(seed)
    return lambda *shape: generator.standard_normal(shape)


def launched(kernels: Any) -> int:
    return sum(count for kernel, count in kernels.launches().items() if "winograd_" in kernel)


def check_whole_numbers(kernels: Any, shape: tuple[Any, ...], dtype: Any) -> None:
    passes = Passes(shape, whole(1), dtype)
    passes.w, passes.dy = passes.w * dtype(DENOMINATORS), passes.dy * dtype(DENOMINATORS)
    before = launched(kernels)
    got = passes(kernels)
    # tiles of x and dy, sums and filters: 3 launches a chunk and 1 a pass
    chunks = [-(-a.shape[0] * -(-a.shape[2] // 4) * -(-a.shape[3] // 4) // 128) for a in (passes.dy, passes.x)]
    assert launched(kernels) - before == 2 * chunks[0] + 1 + 2 * chunks[1] + 1 + 2 * chunks[0] + 1
    for name, a, b in zip(("y", "dx", "dw"), got, passes.by_definition(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=f"{name} {shape} {dtype.__name__}")


@pytest.mark.parametrize("shape", SHAPES)
def test_whole_numbers_match_bit_for_bit_in_every_order(always: Any, shape: tuple[Any, ...]) -> None:
    for _ in orders(always):
        check_whole_numbers(always, shape, np.float32)
    check_whole_numbers(always, shape, np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_errors_are_bounded_and_the_same_bits_come_in_every_order(always: Any, dtype: Any) -> None:
    passes = Passes((2, 24, 13, 13, 16, (1, 1, 1, 1), 1), normal(2), dtype)
    answers = [passes(always) for _ in orders(always)]
    for got, expected in zip(answers[0], passes.by_definition(), strict=True):
        assert np.abs(got - expected).max() < LARGEST_ERROR[dtype] * np.abs(expected).max()
    for other in answers[1:]:
        assert [a.tobytes() for a in other] == [a.tobytes() for a in answers[0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bias_and_activation_follow_the_sum(always: Any, dtype: Any) -> None:
    passes = Passes((1, 1, 6, 5, 2, (1, 1, 1, 1), 1), whole(3), dtype)
    passes.w *= DENOMINATORS
    passes.x /= 512  # exactly
    before = passes.by_definition()[0] + passes.bias[:, None, None]
    np.testing.assert_array_equal(passes.forward(always, True), before)
    for kind in ACTIVATIONS:
        parameter = PARAMETERS.get(kind, 0.0)
        expected = activation(before, kind, parameter)
        got = passes.forward(always, True, kind, parameter)
        np.testing.assert_allclose(got, expected, rtol=20 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps, err_msg=kind)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_reach_the_tiles_that_read_them(always: Any, bad: float) -> None:
    """Row 5 is read by tiles that begin at row 4 alone, column 4 by those that begin at 0 and 4."""
    for name in ("x", "dy"):
        passes = Passes((2, 2, 12, 12, 2, (1, 1, 1, 1), 1), normal(4), np.float32)
        getattr(passes, name)[1, 0, 5, 4] = bad
        may, must = np.zeros(passes.x.shape, bool), np.zeros(passes.x.shape, bool)
        may[1, :, 4:8, 0:8] = True
        must[1, :, 4:7, 3:6] = True
        y, dx, dw = passes(always)
        spoiled = ~np.isfinite(y if name == "x" else dx)
        assert (spoiled | may == may).all() and (spoiled & must == must).all()
        of_channel, others = (dw[:, 0], dw[:, 1]) if name == "x" else (dw[0], dw[1])
        assert not np.isfinite(of_channel).any() and np.isfinite(others).all()


def test_used_where_it_pays_and_nowhere_else(device: Any) -> None:
    """128 tiles are enough, and 43 channels and filters where no tile is cut."""
    passes = Passes((8, 43, 16, 16, 43, (1, 1, 1, 1), 1), normal(5), np.float32)
    before = launched(device)
    got, expected = passes.forward(device), passes.by_definition()[0]
    assert launched(device) - before == 3
    assert np.abs(got - expected).max() < LARGEST_ERROR[np.float32] * np.abs(expected).max()

    few = Passes((8, 3, 16, 16, 40, (1, 1, 1, 1), 1), normal(6), np.float32)
    before = launched(device)
    np.testing.assert_allclose(few.forward(device), few.by_definition()[0], rtol=0, atol=1e-5)
    assert launched(device) == before


def test_one_thread_forbids_it_against_any_setting(always: Any) -> None:
    passes = Passes(SHAPES[1], normal(7), np.float64)
    before = launched(always)
    always.forbid_winograd(True)
    try:
        np.testing.assert_allclose(passes.forward(always), passes.by_definition()[0], rtol=0, atol=1e-13)
    finally:
        always.forbid_winograd(False)
    assert launched(always) == before


@pytest.mark.parametrize(
    ("batch", "kernel", "stride", "dilation"),
    [
        (2, (3, 3), (2, 1), (1, 1)),
        (2, (3, 3), (1, 1), (1, 2)),
        (2, (3, 2), (1, 1), (1, 1)),
        (0, (3, 3), (1, 1), (1, 1)),
    ],
)
def test_left_to_the_plain_sum_elsewhere(
    always: Any, batch: int, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> None:
    x, w = np.ones((batch, 2, 9, 9), np.float32), np.ones((3, 2, *kernel), np.float32)
    rows, columns = ((9 - d * (k - 1) - 1) // s + 1 for k, s, d in zip(kernel, stride, dilation, strict=True))
    y, before = np.empty((batch, 3, rows, columns), np.float32), launched(always)
    always.conv2d_forward(y, x, w, None, (*stride, 0, 0, 0, 0, *dilation, 1))
    assert launched(always) == before
    np.testing.assert_array_equal(y, 2.0 * kernel[0] * kernel[1])
