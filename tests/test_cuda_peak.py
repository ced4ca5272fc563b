"""The loops that measure a card's ceilings compute what their formulas say: whole numbers, so that sums are exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cuda_device
from cuda_arrays import FLOATS, offsets, placed, places
from cuda_device import orders

device = cuda_device.device
floats = pytest.mark.parametrize("dtype", FLOATS)
CHUNK = 16 * 1024  # numbers of a row that a block adds up


def whole(n: int, dtype: type) -> np.ndarray:
    return (np.arange(n) * 7 % 11 - 5).astype(dtype)


@floats
@pytest.mark.parametrize("repeats", [0, 1, 9, 63, 64, 65, 130])
def test_arithmetic_is_its_recurrence(device: Any, repeats: int, dtype: type) -> None:
    for n in (0, 1, 5, 341, 342):
        x = whole(3 * n, dtype).reshape(3, n)
        expected = x.copy()
        for _ in range(repeats):
            expected = -expected + 3
        for at_out, at_x in offsets(2):
            out = placed(np.zeros_like(x), at_out)
            device.peak_arithmetic(out, placed(x, at_x), -1.0, 3.0, repeats)
            np.testing.assert_array_equal(out, expected)


@floats
def test_arithmetic_is_fused(device: Any, dtype: type) -> None:
    """scale y - 1 for the y and scale whose product rounds to 1: 0 if it is rounded before the sum."""
    step = np.finfo(dtype).eps
    x, out = np.full((1, 1), 1 + step, dtype), np.zeros((1, 1), dtype)
    device.peak_arithmetic(out, x, 1 - step, -1.0, 1)
    assert out[0, 0] == -(step**2)


@floats
@pytest.mark.parametrize("form", ["copy", "triad", "update"])
def test_memory_is_its_sum(device: Any, form: str, dtype: type) -> None:
    for n, (at_out, at_x, at_z) in places(3):
        x, z, before = whole(n, dtype), whole(n + 3, dtype)[3:], whole(n + 5, dtype)[5:]
        out = placed(before, at_out)
        device.peak_memory(
            out,
            None if form == "update" else placed(x, at_x),
            None if form == "copy" else placed(z, at_z),
            3.0,
        )
        expected = {"copy": x, "triad": x + 3 * z, "update": before + 3 * z}[form]
        np.testing.assert_array_equal(out, expected)


@floats
@pytest.mark.parametrize("n", [0, 1, 7, 1024, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1030])
def test_read_adds_rows(device: Any, n: int, dtype: type) -> None:
    for rows in (0, 1, 3):
        x = whole(rows * n, dtype).reshape(rows, n)
        for _ in orders(device):
            for offset in (0, 1):
                out = np.zeros(rows, dtype)
                device.peak_read(out, placed(x, offset))
                np.testing.assert_array_equal(out, x.sum(axis=1))


def test_read_adds_in_the_same_order_always(device: Any) -> None:
    x = np.sin(np.arange(3 * CHUNK)).astype(np.float32).reshape(1, -1)
    sums = set()
    for _ in orders(device):
        out = np.zeros(1, np.float32)
        device.peak_read(out, x)
        sums.add(out.tobytes())
    assert len(sums) == 1
    assert abs(out[0] - x.astype(float).sum()) < 1e-4
