"""Dropout of the emulated device: the CPU's stream and its bits, whatever the shape and the place in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuda_device
import reference
from cuda_arrays import FLOATS, offsets, placed, same_bits
from cuda_device import orders
from tinygrad_nm import _cpu

device = cuda_device.device
floats = pytest.mark.parametrize("dtype", FLOATS)
SEED, STREAM = 0x123456789ABCDEF0, 0xFEDCBA9876543210


def numbers(examples: int, elements: int, dtype: type) -> np.ndarray:
    return (1 + np.sin(np.arange(examples * elements)) / 2).astype(dtype).reshape(examples, elements)


def run(module: Any, x: np.ndarray, p: float, seed: int = SEED, stream: int = STREAM, first: int = 0) -> np.ndarray:
    out = np.empty_like(x)
    module.dropout(out, x, p, seed, stream, first)
    return out


@floats
def test_definition(device: Any, dtype: type) -> None:
    x = numbers(3, 17, dtype)
    for p in (0.0, 0.25, 0.5):
        expected = reference.dropout(x.astype(float), p, SEED, STREAM)
        np.testing.assert_allclose(run(device, x, p), expected, rtol=4 * np.finfo(dtype).eps)


@floats
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.99, 1 - 2.0**-24, 1 - 2.0**-30, 1.0])
def test_bits_of_the_cpu(device: Any, p: float, dtype: type) -> None:
    """One quad and its parts, one block of quads and one more, rows that begin anywhere on a quad."""
    for examples, elements in [(0, 4), (4, 0), (1, 1), (3, 1), (1, 3), (3, 4), (5, 7), (2, 1023), (1, 1025), (3, 1028)]:
        x = numbers(examples, elements, dtype)
        assert same_bits(run(device, x, p), run(_cpu, x, p)), (examples, elements)


@floats
def test_order_and_place_do_not_matter(device: Any, dtype: type) -> None:
    for shape in [(3, 700), (2, 5), (1, 1030)]:
        x = numbers(*shape, dtype)
        expected = run(_cpu, x, 0.3)
        for _ in orders(device):
            for at_out, at_x in offsets(2):
                out = placed(np.zeros(shape, dtype), at_out)
                device.dropout(out, placed(x, at_x), 0.3, SEED, STREAM, 0)
                assert same_bits(out, expected), (shape, at_out, at_x)


def test_all_of_seed_stream_and_example_count(device: Any) -> None:
    x = np.ones((1, 256), np.float32)
    base = run(device, x, 0.5)
    assert abs(base.sum() / 2 - 128) < 5 * 8  # five standard deviations
    top = 2**32 - 1
    for change in [(SEED ^ 1,), (SEED ^ 1 << 40,), (SEED, STREAM ^ 1), (SEED, STREAM ^ 1 << 40), (SEED, STREAM, top)]:
        other = run(device, x, 0.5, *change)
        assert not same_bits(other, base)
        assert same_bits(other, run(_cpu, x, 0.5, *change))


def test_a_part_of_the_examples_draws_the_same(device: Any) -> None:
    x = numbers(7, 503, np.float32)
    assert same_bits(run(device, x[3:5].copy(), 0.3, first=3), run(device, x, 0.3)[3:5])


@floats
def test_what_is_dropped_is_zero_whatever_it_was(device: Any, dtype: type) -> None:
    kept = run(device, np.ones((2, 100), dtype), 0.5) != 0
    for value in (np.nan, np.inf):
        out = run(device, np.full((2, 100), value, dtype), 0.5)
        np.testing.assert_array_equal(out[~kept], 0)
        np.testing.assert_array_equal(out[kept], np.full(kept.sum(), value))
        np.testing.assert_array_equal(run(device, np.full((2, 100), value, dtype), 1.0), 0)
