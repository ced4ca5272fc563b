"""Arrays at chosen places in memory, for kernels that load vectors where they may."""

from __future__ import annotations

import itertools

import numpy as np

FLOATS = (np.float32, np.float64)
TILE = 1024  # numbers that a block of an elementwise kernel takes at a time
LENGTHS = (0, 1, 3, 4, 5, TILE - 1, TILE, TILE + 1, 2 * TILE + 7)


def placed(values: np.ndarray, offset: int) -> np.ndarray:
    """A copy of `values` that begins `offset` elements behind a multiple of 16 bytes."""
    room = np.empty(values.nbytes + 16 + offset * values.itemsize, np.uint8)
    start = -room.ctypes.data % 16 + offset * values.itemsize
    copy = room[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def offsets(arrays: int) -> list[tuple[int, ...]]:
    """All on 16 bytes, each one off them alone, and all off them."""
    alone = [tuple(int(i == k) for i in range(arrays)) for k in range(arrays)]
    return [(0,) * arrays, *alone, (1,) * arrays]


def places(arrays: int) -> list[tuple[int, tuple[int, ...]]]:
    """(length, offsets) for every length and every choice of offsets."""
    return list(itertools.product(LENGTHS, offsets(arrays)))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
