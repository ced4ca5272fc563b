"""The CUDA kernels of convolution: three passes against the definition, over strides, pads, dilations and groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import cuda_device
from cuda_device import orders
from reference import ACTIVATIONS, PARAMETERS, activation

device = cuda_device.device

FLOATS = (np.float32, np.float64)


class Shape(NamedTuple):
    """x (N, C, H, W), filters O of (KH, KW), and how they meet."""

    n: int
    c: int
    h: int
    w: int
    o: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def geometry(self) -> tuple[int, ...]:
        return (*self.stride, *self.pads, *self.dilation, self.groups)


SHAPES = [
    Shape(1, 1, 1, 1, 1, (1, 1)),
    Shape(2, 1, 12, 11, 4, (5, 5)),  # few channels: the first layers of LeNet and LeNet-5
    Shape(2, 1, 9, 10, 6, (5, 5), pads=(2, 2, 2, 2)),
    Shape(1, 3, 23, 21, 5, (11, 11), (4, 4)),  # of AlexNet
    Shape(2, 4, 9, 8, 12, (5, 5)),
    Shape(1, 2, 7, 9, 3, (2, 3), (2, 1), (1, 0, 0, 2)),
    Shape(3, 6, 5, 7, 4, (3, 2), (1, 2), (0, 1, 1, 0), (2, 1), 2),
    Shape(1, 8, 6, 6, 8, (3, 3), pads=(1, 1, 1, 1), groups=8),  # each channel by itself
    Shape(1, 16, 7, 7, 17, pads=(1, 1, 1, 1)),  # one more filter than the smallest tile
    Shape(2, 17, 6, 5, 33, (1, 1)),
    Shape(1, 20, 8, 9, 16, (3, 3), (3, 2), (1, 1, 2, 0)),
    Shape(1, 12, 12, 12, 10, (3, 3), (2, 2), (2, 2, 2, 2), (2, 2), 2),  # taps that no phase meets
    Shape(1, 9, 4, 4, 65, (3, 3), (5, 5), (2, 2, 2, 2)),  # places that no window meets
    Shape(1, 10, 10, 13, 8, (1, 3), (3, 4)),
    Shape(2, 32, 6, 6, 40, (3, 3), pads=(1, 1, 1, 1), groups=2),
    Shape(1, 24, 3, 50, 64, (3, 3), pads=(1, 1, 1, 1)),
    Shape(1, 96, 3, 3, 130, (3, 3), pads=(1, 1, 1, 1)),  # long sums: in parts
    Shape(4, 5, 16, 16, 3, (3, 3)),  # many positions: in parts, in the gradient of w
    Shape(1, 2, 3, 4, 2, (4, 4), pads=(3, 2, 3, 3)),  # more zeros than numbers
]


class Passes:
    """The arrays, and the three passes: by the definition in float64, and by a module of kernels."""

    def __init__(self, shape: Shape, dtype: Any, whole: bool = True) -> None:
        rng = np.random.default_rng([len(shape), *shape[:5]])
        s = self.shape = shape
        self.out = tuple(
            (size + sum(pads) - d * (k - 1) - 1) // stride + 1
            for size, pads, d, k, stride in zip(
                (s.h, s.w), (s.pads[:2], s.pads[2:]), s.dilation, s.kernel, s.stride, strict=True
            )
        )

        def draw(*sizes: int) -> np.ndarray:
            numbers = rng.integers(-3, 4, sizes) if whole else rng.standard_normal(sizes)
            return numbers.astype(dtype)

        self.x, self.w = draw(s.n, s.c, s.h, s.w), draw(s.o, s.c // s.groups, *s.kernel)
        self.bias, self.dy = draw(s.o), draw(s.n, s.o, *self.out)

    def taps(self, padded: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        """For each tap (i, j) the view (..., OH, OW) of what it meets."""
        s = self.shape
        for i, j in np.ndindex(*s.kernel):
            rows = slice(i * s.dilation[0], i * s.dilation[0] + (self.out[0] - 1) * s.stride[0] + 1, s.stride[0])
            columns = slice(j * s.dilation[1], j * s.dilation[1] + (self.out[1] - 1) * s.stride[1] + 1, s.stride[1])
            yield i, j, padded[..., rows, columns]

    def by_definition(self) -> list[np.ndarray]:
        """y without bias, dx, dw."""
        s, g = self.shape, self.shape.groups
        x, w, dy = (a.astype(np.float64) for a in (self.x, self.w, self.dy))
        top, bottom, left, right = s.pads
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        padded = padded.reshape(s.n, g, s.c // g, *padded.shape[2:])
        w, dy = w.reshape(g, s.o // g, s.c // g, *s.kernel), dy.reshape(s.n, g, s.o // g, *self.out)
        y, dpadded, dw = np.zeros_like(dy), np.zeros_like(padded), np.zeros_like(w)
        for (i, j, part), (_, _, into) in zip(self.taps(padded), self.taps(dpadded), strict=True):
            y += np.einsum("ngchw,goc->ngohw", part, w[..., i, j])
            into += np.einsum("ngohw,goc->ngchw", dy, w[..., i, j])
            dw[..., i, j] = np.einsum("ngohw,ngchw->goc", dy, part)
        dx = dpadded.reshape(s.n, s.c, *padded.shape[3:])[..., top : top + s.h, left : left + s.w]
        return [y.reshape(self.dy.shape), dx, dw.reshape(self.w.shape)]

    def by_kernels(self, kernels: Any) -> list[np.ndarray]:
        """The same; nothing that was not written stays unnoticed."""
        y, dx, dw = (np.full_like(a, np.nan) for a in (self.dy, self.x, self.w))
        kernels.conv2d_forward(y, self.x, self.w, None, self.shape.geometry)
        kernels.conv2d_backward_input(dx, self.dy, self.w, self.shape.geometry)
        kernels.conv2d_backward_weight(dw, self.x, self.dy, self.shape.geometry)
        return [y, dx, dw]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_whole_numbers_match_bit_for_bit(device: Any, shape: Shape, dtype: type) -> None:
    passes = Passes(shape, dtype)
    for found, expected in zip(passes.by_kernels(device), passes.by_definition(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_within_its_bound(device: Any, shape: Shape) -> None:
    passes = Passes(shape, np.float32, whole=False)
    for found, expected in zip(passes.by_kernels(device), passes.by_definition(), strict=True):
        assert np.abs(found - expected).max() <= 5e-6 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_order_of_blocks_and_threads_gives_the_same_bits(device: Any, dtype: type) -> None:
    for shape in (SHAPES[1], SHAPES[6], SHAPES[16], SHAPES[17]):
        passes = Passes(shape, dtype, whole=False)
        results = [b"".join(a.tobytes() for a in passes.by_kernels(device)) for _ in orders(device)]
        assert len(results) == 3 and len(set(results)) == 1, shape


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_bias_and_activation(device: Any, kind: str, dtype: type) -> None:
    """One image channel; tiles; a sum in parts."""
    for shape in (Shape(1, 1, 6, 7, 3), Shape(1, 8, 4, 5, 9), Shape(1, 96, 3, 3, 5)):
        passes, parameter = Passes(shape, dtype, whole=False), PARAMETERS.get(kind, 0.0)
        passes.w /= np.sqrt(shape.c * 9).astype(dtype)
        y = np.full_like(passes.dy, np.nan)
        device.conv2d_forward(y, passes.x, passes.w, passes.bias, shape.geometry, kind, parameter)
        plain = passes.by_definition()[0] + passes.bias.astype(np.float64)[:, None, None]
        expected = activation(plain, kind, parameter)
        error = np.abs(y - expected) / (1 + np.abs(expected))
        assert error.max() <= (1e-12 if dtype is np.float64 else 1e-5), (kind, shape)


def test_an_empty_batch(device: Any) -> None:
    passes = Passes(Shape(0, 2, 5, 5, 3), np.float32)
    y, dx, dw = passes.by_kernels(device)
    assert y.size == dx.size == 0
    np.testing.assert_array_equal(dw, np.zeros_like(passes.w))


@pytest.mark.parametrize("channels", [1, 20])  # by the direct kernel, and by tiles
def test_an_infinite_weight_over_the_padding_gives_nan(device: Any, channels: int) -> None:
    """The zeros of the padding are values like any other: shared/conv2d_shape.h."""
    passes = Passes(Shape(1, channels, 4, 4, 2, pads=(1, 0, 0, 0)), np.float32)
    passes.w[1, 0, 0, 1] = np.inf
    y = np.full_like(passes.dy, np.nan)
    device.conv2d_forward(y, np.ones_like(passes.x), passes.w, None, passes.shape.geometry)
    assert np.isnan(y[0, 1, 0]).all()
    assert (y[0, 1, 1:] == np.inf).all()
    assert np.isfinite(y[0, 0]).all()


def test_there_is_no_fused_kernel_with_pooling(device: Any) -> None:
    """So the operation calls convolution, activation and pooling one after the other."""
    x, w = np.ones((2, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    assert device.conv2d_pool2d_kept(x, w, (1, 1, 0, 0, 0, 0, 1, 1, 1), "relu", 0.0, ("max", 2, 2)) == 0
