"""Pooling on the emulated CUDA device against plain loops over the windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import cuda_device
from cuda_device import orders
from tinygrad_nm import _cpu

device = cuda_device.device

Tap = tuple[int, int, int]  # number in the window, row, column


@dataclasses.dataclass(frozen=True)
class Pool:
    x: tuple[int, int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    dilation: tuple[int, int] = (1, 1)
    ceil: bool = False

    @property
    def geometry(self) -> tuple[int, ...]:
        return (*self.kernel, *self.stride, *self.pad, *self.dilation, int(self.ceil))

    def count(self, axis: int) -> int:
        """Windows along an axis: PyTorch's rule."""
        before, after = self.pad[2 * axis : 2 * axis + 2]
        size, stride = self.x[2 + axis], self.stride[axis]
        room = size + before + after - self.dilation[axis] * (self.kernel[axis] - 1) - 1
        count = room // stride + 1
        if self.ceil and room % stride:
            count += count * stride < size + before
        return count

    @property
    def y(self) -> tuple[int, int, int, int]:
        return (*self.x[:2], self.count(0), self.count(1))

    @property
    def tap_type(self) -> Any:
        return np.uint8 if self.kernel[0] * self.kernel[1] <= 256 else np.int32

    def windows(self) -> Iterator[tuple[int, int, list[Tap], int]]:
        """Row and column of each window, its taps inside, and how many lie before the end of the padding."""
        (height, width), (top, bottom, left, right) = self.x[2:], self.pad
        for oh, ow in np.ndindex(*self.y[2:]):
            taps, counted = [], 0
            for i, j in np.ndindex(*self.kernel):
                h = oh * self.stride[0] - top + i * self.dilation[0]
                w = ow * self.stride[1] - left + j * self.dilation[1]
                counted += h < height + bottom and w < width + right
                if 0 <= h < height and 0 <= w < width:
                    taps.append((i * self.kernel[1] + j, h, w))
            yield oh, ow, taps, counted

    def max_forward(self, device: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out, taps = np.full(self.y, 77, x.dtype), np.full(self.y, 77, self.tap_type)
        device.max_pool2d_forward(out, taps, x, self.geometry)
        return out, taps

    def max_backward(self, device: Any, dy: np.ndarray, taps: np.ndarray) -> np.ndarray:
        out = np.full(self.x, 77, dy.dtype)
        device.max_pool2d_backward(out, dy, taps, self.geometry)
        return out

    def gather(self, device: Any, x: np.ndarray, taps: np.ndarray) -> np.ndarray:
        out = np.full(self.y, 77, x.dtype)
        device.max_pool2d_gather(out, x, taps, self.geometry)
        return out

    def avg_forward(self, device: Any, x: np.ndarray, include_pad: bool) -> np.ndarray:
        out = np.full(self.y, 77, x.dtype)
        device.avg_pool2d_forward(out, x, self.geometry, include_pad)
        return out

    def avg_backward(self, device: Any, dy: np.ndarray, include_pad: bool) -> np.ndarray:
        out = np.full(self.x, 77, dy.dtype)
        device.avg_pool2d_backward(out, dy, self.geometry, include_pad)
        return out

    def max_by_loops(self, x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y, taps, dx = np.empty(self.y, x.dtype), np.empty(self.y, self.tap_type), np.zeros_like(x)
        for oh, ow, window, _ in self.windows():
            for n, c in np.ndindex(*self.x[:2]):
                best, *others = window
                for tap in others:
                    value, top = x[n, c, tap[1], tap[2]], x[n, c, best[1], best[2]]
                    if value > top or (np.isnan(value) and not np.isnan(top)):
                        best = tap
                taps[n, c, oh, ow], h, w = best
                y[n, c, oh, ow] = x[n, c, h, w]
                dx[n, c, h, w] += dy[n, c, oh, ow]
        return y, taps, dx

    def avg_values(self, x: np.ndarray, include_pad: bool) -> np.ndarray:
        y = np.zeros(self.y, x.dtype)
        for oh, ow, window, counted in self.windows():
            for _, h, w in window:
                y[..., oh, ow] += x[..., h, w]
            y[..., oh, ow] /= x.dtype.type(counted if include_pad else len(window))
        return y

    def avg_gradient(self, dy: np.ndarray, include_pad: bool) -> np.ndarray:
        dx = np.zeros(self.x, dy.dtype)
        for oh, ow, window, counted in self.windows():
            for _, h, w in window:
                dx[..., h, w] += dy[..., oh, ow] / dy.dtype.type(counted if include_pad else len(window))
        return dx


def whole_numbers(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """-4 to 4, with many ties."""
    return np.random.default_rng(sum(shape)).integers(-4, 5, shape).astype(dtype)


# The windows of the networks, which have kernels of their own, at all parities, padded and cut by the end; then any.
POOLS = [
    Pool((2, 3, 8, 8), (2, 2), (2, 2)),
    Pool((1, 2, 7, 9), (2, 2), (2, 2)),
    Pool((1, 2, 7, 9), (2, 2), (2, 2), ceil=True),
    Pool((1, 2, 6, 5), (2, 2), (2, 2), (1, 0, 0, 1)),
    Pool((2, 2, 2, 2), (2, 2), (2, 2)),
    Pool((1, 1, 2, 9), (2, 2), (2, 2)),
    Pool((2, 3, 13, 13), (3, 3), (2, 2)),
    Pool((1, 2, 8, 6), (3, 3), (2, 2)),
    Pool((1, 2, 8, 6), (3, 3), (2, 2), ceil=True),
    Pool((1, 2, 8, 7), (3, 3), (2, 2), (1, 1, 1, 1)),
    Pool((1, 2, 7, 8), (3, 3), (2, 2), (0, 1, 2, 0)),
    Pool((1, 2, 4, 4), (3, 3), (2, 2), (1, 1, 1, 1), ceil=True),
    Pool((2, 1, 3, 3), (3, 3), (2, 2)),
    Pool((1, 1, 1, 1), (1, 1)),
    Pool((2, 2, 5, 6), (3, 3), (1, 1), (1, 1, 1, 1)),
    Pool((1, 2, 6, 7), (2, 3), (1, 2), (1, 0, 0, 2)),
    Pool((1, 2, 9, 8), (2, 2), (3, 4)),  # numbers between the windows
    Pool((1, 2, 10, 11), (2, 2), (3, 4), (1, 0, 1, 1), ceil=True),
    Pool((1, 2, 9, 10), (3, 2), (1, 1), (2, 2, 1, 1), (2, 3)),
    Pool((1, 2, 9, 10), (3, 3), (2, 2), (1, 2, 2, 0), (2, 2), ceil=True),
    Pool((1, 2, 12, 9), (2, 4), (3, 1), (0, 1, 3, 3), (4, 2)),
    Pool((1, 3, 7, 7), (7, 7)),
    Pool((1, 1, 20, 19), (16, 16), (3, 2)),  # 256 taps: bytes still
    Pool((1, 1, 20, 22), (16, 17), (3, 2), (2, 1, 3, 0), ceil=True),
    Pool((1, 1, 3, 300), (1, 300), (1, 7), (0, 0, 9, 9)),
    Pool((70, 1, 3, 3), (2, 2)),  # more planes than a block has
    Pool((1, 2, 3, 257), (2, 2), (2, 2)),  # rows of more threads than a block has
    Pool((1, 1, 4, 256), (3, 3), (1, 1), (1, 1, 1, 1)),
    Pool((1, 1, 2, 515), (1, 2), (1, 2)),
    Pool((1, 1, 300, 1), (2, 1), (2, 1)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_maximum_of_whole_numbers_is_that_of_loops(device: Any, pool: Pool, dtype: Any) -> None:
    x, dy = whole_numbers(pool.x, dtype), whole_numbers(pool.y, dtype)
    y, taps, dx = pool.max_by_loops(x, dy)
    for got, expected in zip(pool.max_forward(device, x), (y, taps), strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(pool.max_backward(device, dy, taps), dx)
    np.testing.assert_array_equal(pool.gather(device, x, taps), y)


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_mean_has_the_bits_of_loops(device: Any, pool: Pool, dtype: Any, include_pad: bool) -> None:
    x = np.random.default_rng(3).standard_normal(pool.x).astype(dtype)
    np.testing.assert_array_equal(pool.avg_forward(device, x, include_pad), pool.avg_values(x, include_pad))


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_gradient_of_the_mean_is_that_of_loops(device: Any, pool: Pool, include_pad: bool) -> None:
    # multiples of all divisors of small windows: then every share and sum is a whole number
    small = pool.kernel[0] * pool.kernel[1] <= 9
    dy = 5040 * whole_numbers(pool.y) if small else np.random.default_rng(4).standard_normal(pool.y)
    dy = dy.astype(np.float32)
    exact = pool.avg_gradient(dy.astype(np.float64), include_pad)
    size = pool.avg_gradient(np.abs(dy).astype(np.float64), include_pad)
    terms = min(pool.kernel[0] * pool.kernel[1], pool.y[2] * pool.y[3])
    bound = 0 if small else (1 + terms / 4) * np.finfo(np.float32).eps * size
    assert (np.abs(pool.avg_backward(device, dy, include_pad) - exact) <= bound).all()
    bound = (1 + terms / 4) * np.finfo(np.float64).eps * size
    assert (np.abs(pool.avg_backward(device, dy.astype(np.float64), include_pad) - exact) <= bound).all()


@pytest.mark.parametrize(
    "pool",
    [
        Pool((2, 3, 8, 7), (3, 3), (2, 2), (1, 1, 1, 1)),
        Pool((2, 3, 6, 7), (2, 2), (2, 2)),
        Pool((1, 2, 9, 10), (3, 2), (1, 1), (2, 2, 1, 1), (2, 3)),
    ],
    ids=str,
)
def test_any_order_of_blocks_and_threads_gives_the_bits_of_sums_in_the_order_of_dy(device: Any, pool: Pool) -> None:
    rng = np.random.default_rng(5)
    x, dy = whole_numbers(pool.x), rng.standard_normal(pool.y).astype(np.float32)
    y, taps, dx = pool.max_by_loops(x, dy)
    means = [pool.avg_forward(device, x, True), pool.avg_backward(device, dy, True)]
    ran = 0
    for _ in orders(device):
        for got, expected in zip(pool.max_forward(device, x), (y, taps), strict=True):
            np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(pool.max_backward(device, dy, taps), dx)
        np.testing.assert_array_equal(pool.gather(device, x, taps), y)
        np.testing.assert_array_equal(pool.avg_forward(device, x, True), means[0])
        np.testing.assert_array_equal(pool.avg_backward(device, dy, True), means[1])
        ran += 1
    assert ran == 3


# Kernels of their own, with and without padding, and any.
KINDS = [
    Pool((1, 2, 6, 6), (2, 2), (2, 2)),
    Pool((1, 2, 7, 7), (3, 3), (2, 2)),
    Pool((1, 2, 8, 7), (3, 3), (2, 2), (1, 1, 1, 1)),
    Pool((1, 2, 7, 6), (3, 2), (1, 2), (1, 1, 0, 1)),
    Pool((1, 2, 8, 9), (2, 3), (1, 2), (1, 1, 2, 1), (2, 2)),
    Pool((1, 1, 20, 22), (16, 17), (3, 2), (2, 1, 3, 0)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pool", KINDS, ids=str)
def test_nan_infinity_and_signed_zeros_as_on_the_cpu(device: Any, pool: Pool, dtype: Any) -> None:
    values = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0], dtype)
    draws = [values, values[2:], values[3:6], values[4:6], values[3:4], values[:1]]
    for seed, choice in enumerate(draws):
        x = np.random.default_rng(seed).choice(choice, pool.x)
        dy = np.random.default_rng(seed).choice(choice, pool.y)
        y, taps = pool.max_forward(_cpu, x)
        got_y, got_taps = pool.max_forward(device, x)
        np.testing.assert_array_equal(got_taps, taps)
        assert got_y.tobytes() == y.tobytes()
        assert pool.gather(device, x, taps).tobytes() == y.tobytes()
        pairs = [(pool.max_backward(d, dy, taps), pool.avg_forward(d, x, True)) for d in (device, _cpu)]
        for got, expected in zip(*pairs, strict=True):
            np.testing.assert_array_equal(got, expected)
            np.testing.assert_array_equal(np.signbit(got) & (got == 0), np.signbit(expected) & (expected == 0))
        got, expected = (pool.avg_backward(d, dy, False) for d in (device, _cpu))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", KINDS, ids=str)
def test_a_wrong_tap_gives_nan_where_it_leads_and_nowhere_else(device: Any, pool: Pool) -> None:
    x, dy = whole_numbers(pool.x), whole_numbers(pool.y)
    _, right = pool.max_forward(device, x)
    y, dx = pool.gather(device, x, right), pool.max_backward(device, dy, right)
    every = pool.kernel[0] * pool.kernel[1]
    limits = np.iinfo(pool.tap_type)
    beyond = [limits.max, min(every, limits.max)] + [limits.min, -1] * (limits.min < 0)
    for oh, ow, window, _ in list(pool.windows())[:: max(1, pool.y[2] * pool.y[3] // 12)]:
        padding = sorted(set(range(every)) - {tap for tap, *_ in window})
        for wrong in [*beyond, *padding[:1], *padding[-1:]]:
            taps = right.copy()
            taps[0, -1, oh, ow] = wrong
            expected_y, expected_dx = y.copy(), dx.copy()
            expected_y[0, -1, oh, ow] = np.nan
            for _, h, w in window:
                expected_dx[0, -1, h, w] = np.nan
            np.testing.assert_array_equal(pool.gather(device, x, taps), expected_y)
            np.testing.assert_array_equal(pool.max_backward(device, dy, taps), expected_dx)


@pytest.mark.parametrize(
    "shape",
    [(64 * 4096 + 1, 1, 1, 1), (1, 1, 2049, 257), (1, 1, 1, 256 * 4096 + 1)],
    ids=["planes", "rows", "columns"],
)
def test_blocks_go_on_where_there_are_more_places_than_blocks(device: Any, shape: tuple[int, ...]) -> None:
    pool, x = Pool(shape, (1, 1)), np.arange(np.prod(shape)).reshape(shape).astype(np.float32)
    np.testing.assert_array_equal(pool.avg_forward(device, x, False), x)


def test_a_mean_over_taps_that_are_almost_all_padding_does_not_visit_them(device: Any) -> None:
    far = 1 << 40
    pool = Pool((1, 1, 2, 3), (far, 1), pad=(far - 2, 0, 0, 0))
    x = np.arange(6, dtype=np.float64).reshape(pool.x)
    out = np.full((1, 1, 1, 3), 77.0)
    device.avg_pool2d_forward(out, x, pool.geometry, False)
    np.testing.assert_array_equal(out, x.mean(2, keepdims=True))
    device.avg_pool2d_forward(out, x, pool.geometry, True)
    np.testing.assert_array_equal(out, x.sum(2, keepdims=True) / far)
    dx = np.full(pool.x, 77.0)
    device.avg_pool2d_backward(dx, out, pool.geometry, False)
    np.testing.assert_array_equal(dx, np.repeat(out / 2, 2, axis=2))


def test_an_empty_batch_writes_nothing(device: Any) -> None:
    pool = Pool((0, 2, 5, 5), (2, 2), (2, 2))
    x, dy = np.empty(pool.x, np.float32), np.empty(pool.y, np.float32)
    _, taps = pool.max_forward(device, x)
    assert pool.max_backward(device, dy, taps).size == pool.gather(device, x, taps).size == 0
    assert pool.avg_forward(device, x, True).size == pool.avg_backward(device, dy, True).size == 0
