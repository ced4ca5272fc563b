"""The CUDA kernels of convolution: three passes against the definition, over strides, pads, dilations and groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuda_device
from cuda_conv2d_cases import Case, arrays, by_kernels, by_loops
from cuda_device import orders
from reference import ACTIVATIONS, PARAMETERS, activation

device = cuda_device.device

FLOATS = (np.float32, np.float64)

CASES = [
    Case((1, 1, 1, 1), (1, 1, 1, 1)),
    Case((2, 1, 12, 11), (4, 1, 5, 5)),  # few channels: the first layers of LeNet and LeNet-5
    Case((2, 1, 9, 10), (6, 1, 5, 5), pads=(2, 2, 2, 2)),
    Case((1, 3, 23, 21), (5, 3, 11, 11), stride=(4, 4)),  # of AlexNet
    Case((2, 4, 9, 8), (12, 4, 5, 5)),
    Case((1, 2, 7, 9), (3, 2, 2, 3), stride=(2, 1), pads=(1, 0, 0, 2)),
    Case((3, 6, 5, 7), (4, 3, 3, 2), stride=(1, 2), pads=(0, 1, 1, 0), dilation=(2, 1), groups=2),
    Case((1, 8, 6, 6), (8, 1, 3, 3), pads=(1, 1, 1, 1), groups=8),  # each channel by itself
    Case((1, 16, 7, 7), (17, 16, 3, 3), pads=(1, 1, 1, 1)),  # one more filter than the smallest tile
    Case((2, 17, 6, 5), (33, 17, 1, 1)),
    Case((1, 20, 8, 9), (16, 20, 3, 3), stride=(3, 2), pads=(1, 1, 2, 0)),
    # taps that no phase meets
    Case((1, 12, 12, 12), (10, 6, 3, 3), stride=(2, 2), pads=(2, 2, 2, 2), dilation=(2, 2), groups=2),
    Case((1, 9, 4, 4), (65, 9, 3, 3), stride=(5, 5), pads=(2, 2, 2, 2)),  # places that no window meets
    Case((1, 10, 10, 13), (8, 10, 1, 3), stride=(3, 4)),
    Case((2, 32, 6, 6), (40, 16, 3, 3), pads=(1, 1, 1, 1), groups=2),
    Case((1, 24, 3, 50), (64, 24, 3, 3), pads=(1, 1, 1, 1)),
    Case((1, 96, 3, 3), (130, 96, 3, 3), pads=(1, 1, 1, 1)),  # long sums: in parts
    Case((4, 5, 16, 16), (3, 5, 3, 3)),  # many positions: in parts, in the gradient of w
    Case((1, 2, 3, 4), (2, 2, 4, 4), pads=(3, 2, 3, 3)),  # more zeros than numbers
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", CASES)
def test_whole_numbers_match_bit_for_bit(device: Any, case: Case, dtype: type) -> None:
    a = arrays(case, dtype)
    for found, expected in zip(by_kernels(device, case, a), by_loops(case, a), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", CASES)
def test_float32_within_its_bound(device: Any, case: Case) -> None:
    a = arrays(case, np.float32, whole=False)
    for found, expected in zip(by_kernels(device, case, a), by_loops(case, a), strict=True):
        assert np.abs(found - expected).max() <= 5e-6 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_order_of_blocks_and_threads_gives_the_same_bits(device: Any, dtype: type) -> None:
    for case in (CASES[1], CASES[6], CASES[16], CASES[17]):
        a = arrays(case, dtype, whole=False)
        results = [b"".join(out.tobytes() for out in by_kernels(device, case, a)) for _ in orders(device)]
        assert len(results) == 3 and len(set(results)) == 1, case


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_bias_and_activation(device: Any, kind: str, dtype: type) -> None:
    """One image channel; tiles; a sum in parts."""
    cases = (Case((1, 1, 6, 7), (3, 1, 3, 3)), Case((1, 8, 4, 5), (9, 8, 3, 3)), Case((1, 96, 3, 3), (5, 96, 3, 3)))
    for case in cases:
        a, parameter = arrays(case, dtype, whole=False), PARAMETERS.get(kind, 0.0)
        a.w[...] /= np.sqrt(9 * case.x[1]).astype(dtype)
        y = np.full_like(a.dy, np.nan)
        device.conv2d_forward(y, a.x, a.w, a.bias, case.geometry, kind, parameter)
        expected = activation(by_loops(case, a)[0], kind, parameter)
        error = np.abs(y - expected) / (1 + np.abs(expected))
        assert error.max() <= (1e-12 if dtype is np.float64 else 1e-5), (kind, case)


def test_an_empty_batch(device: Any) -> None:
    case = Case((0, 2, 5, 5), (3, 2, 3, 3))
    a = arrays(case, np.float32)
    y, dx, dw = by_kernels(device, case, a)
    assert y.size == dx.size == 0
    np.testing.assert_array_equal(dw, np.zeros_like(a.w))


@pytest.mark.parametrize("channels", [1, 20])  # by the direct kernel, and by tiles
def test_an_infinite_weight_over_the_padding_gives_nan(device: Any, channels: int) -> None:
    """The zeros of the padding are values like any other: shared/conv2d_shape.h."""
    case = Case((1, channels, 4, 4), (2, channels, 3, 3), pads=(1, 0, 0, 0))
    a = arrays(case, np.float32)
    a.w[1, 0, 0, 1] = np.inf
    y = np.full_like(a.dy, np.nan)
    device.conv2d_forward(y, np.ones_like(a.x), a.w, None, case.geometry)
    assert np.isnan(y[0, 1, 0]).all()
    assert (y[0, 1, 1:] == np.inf).all()
    assert np.isfinite(y[0, 0]).all()


def test_there_is_no_fused_kernel_with_pooling(device: Any) -> None:
    """So the operation calls convolution, activation and pooling one after the other."""
    x, w = np.ones((2, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    assert device.conv2d_pool2d_kept(x, w, (1, 1, 0, 0, 0, 0, 1, 1, 1), "relu", 0.0, ("max", 2, 2)) == 0
