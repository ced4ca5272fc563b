"""The gradient of a bias on the emulated CUDA device against plain sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuda_device
from cuda_device import orders

device = cuda_device.device

# Both ways of summing (columns below 32 numbers a plane), one part and several, tiles cut by the end.
SHAPES = [
    (1, 1, 1),
    (1, 33, 1),
    (7, 31, 1),
    (9, 32, 1),
    (300, 3, 1),
    (5, 3, 2),
    (17, 5, 31),
    (520, 2, 7),
    (3, 5, 32),
    (4, 3, 33),
    (6, 2, 63),
    (6, 2, 64),
    (5, 1, 65),
    (2, 3, 300),
    (1, 2, 4095),
    (1, 2, 4096),
    (3, 1, 4097),
    (2, 1, 12290),
]


def whole_numbers(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return (np.arange(np.prod(shape)) * 37 % 101 % 9 - 4).reshape(shape).astype(dtype)


def gradient(device: Any, dy: np.ndarray) -> np.ndarray:
    out = np.full(dy.shape[1], 77, dy.dtype)
    device.bias_backward(out, dy)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whole_numbers_are_summed_exactly(device: Any, shape: tuple[int, ...], dtype: Any) -> None:
    dy = whole_numbers(shape, dtype)
    np.testing.assert_array_equal(gradient(device, dy), dy.astype(np.float64).sum((0, 2)))


@pytest.mark.parametrize("shape", [(520, 3, 1), (300, 2, 5), (5, 3, 4097)], ids=str)
def test_any_order_of_blocks_and_threads_gives_the_same_bits(device: Any, shape: tuple[int, ...]) -> None:
    dy = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    results = [gradient(device, dy) for _ in orders(device)]
    assert len(results) == 3
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    bound = 1e-6 * np.abs(dy.astype(np.float64)).sum((0, 2))
    assert (np.abs(results[0] - dy.astype(np.float64).sum((0, 2))) <= bound).all()


def test_long_sums_keep_their_digits(device: Any) -> None:
    for shape in [(16, 2, 4000), (4000, 4, 1)]:
        dy = (1 + 0.5 * np.sin(np.arange(np.prod(shape)))).astype(np.float32).reshape(shape)
        exact = dy.astype(np.float64).sum((0, 2))
        assert (np.abs(gradient(device, dy) - exact) <= 1e-6 * exact).all()


@pytest.mark.parametrize("plane", [1, 3, 40])
def test_nan_and_infinity_stay_in_their_channel(device: Any, plane: int) -> None:
    dy = np.ones((5, 4, plane), np.float32)
    dy[3, 1, plane // 2] = np.nan
    dy[0, 2, 0] = np.inf
    np.testing.assert_array_equal(gradient(device, dy), [5 * plane, np.nan, np.inf, 5 * plane])


@pytest.mark.parametrize("plane", [1, 40])
def test_a_sum_of_negative_zeros_is_zero(device: Any, plane: int) -> None:
    assert not np.signbit(gradient(device, np.full((1, 2, plane), -0.0, np.float32))).any()


@pytest.mark.parametrize("shape", [(0, 3, 1), (0, 3, 50), (2, 3, 0), (2, 0, 1), (2, 0, 40)], ids=str)
def test_nothing_to_sum_gives_zeros(device: Any, shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(gradient(device, np.ones(shape, np.float32)), np.zeros(shape[1]))


def test_few_channels_are_cut_into_parts(device: Any) -> None:
    before = device.launches()
    gradient(device, whole_numbers((520, 2, 1), np.float32))
    gradient(device, whole_numbers((1, 1, 20_000), np.float32))
    after = device.launches()
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)} == {
        "bias_of_columns": 1,
        "bias_of_planes": 1,
        "bias_of_parts": 2,
    }
