"""What a device is to the engine: one row of backend.py's table. And what devices with memory of their own share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # a numpy.ndarray, a cupy.ndarray or an EmulatedArray


@dataclass(slots=True, eq=False)
class Device:
    """Kernels, array functions and memory for one type of arrays.

    name: "cpu", "cuda" or "cuda-emulated"; name_of: of an array, which may be "cuda:1". xp: array functions under
    NumPy's names. empty: memory for a result, its values undefined. read: the values on the host, shared on the CPU,
    else copied. write: fills a contiguous array from one on the host. scalar: a number as arithmetic with arrays of a
    dtype takes it best. sum_at: see below. address: of the first element. select: makes the device of this number the
    current one. share: an array on the memory of another library's, by DLPack.
    """

    name: str
    kernels: Any
    xp: Any
    empty: Callable[[tuple[int, ...], Any], Array]
    read: Callable[[Array], np.ndarray]
    write: Callable[[Array, np.ndarray], None]
    scalar: Callable[[float, np.dtype], Any]
    sum_at: Callable[[int, Array, Array], Array]
    address: Callable[[Array], int]
    name_of: Callable[[Array], str]
    select: Callable[[int], None]
    share: Callable[[Any], Array]


STRIDED = {"gemm"}  # kernels that take their operands as they lie


class Kernels:
    """A module of kernels whose arguments `prepare(name, arguments, strided)` makes ready; strided: as they lie."""

    def __init__(self, module: Any, prepare: Callable[[str, tuple[Any, ...], bool], Sequence[Any]]) -> None:
        self.module, self._prepare = module, prepare

    def __getattr__(self, name: str) -> Any:
        function, prepare, strided = getattr(self.module, name), self._prepare, name in STRIDED

        def kernel(*arguments: Any) -> Any:
            return function(*prepare(name, arguments, strided))

        kernel.__name__ = name
        vars(self)[name] = kernel
        return kernel

    def switch(self, module: Any) -> None:
        """Another module of the same names from now on."""
        prepare = self._prepare
        vars(self).clear()
        self.module, self._prepare = module, prepare


def number_of(number: float, dtype: np.dtype) -> Any:
    """A number for arithmetic with arrays of a dtype, which travels with the launch of a kernel."""
    return dtype.type(number)


def sum_on_host(size: int, positions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Zeros (size,) with each of the values (n,) added at its position (n,): the adjoint of result[positions].

    Values that share a position are summed in their order.
    """
    result = np.zeros(size, values.dtype)
    if values.size:
        order = np.argsort(positions, kind="stable")
        positions = positions[order]
        starts = np.flatnonzero(np.concatenate([np.ones(1, bool), positions[1:] != positions[:-1]]))
        result[positions[starts]] = np.add.reduceat(values[order], starts)
    return result


def sum_on_device(xp: Any, size: int, positions: Array, values: Array) -> Array:
    """The same by functions that CuPy has: no atomics, whose order varies, and no waiting for the device.

    Once sorted, values that share a position are neighbours. Each is added to the one 1, 2, 4 ... places further on
    that shares its position, so that the last of them ends with their sum; the others go to one place too many. (CuPy's
    add.reduceat subtracts sums of all that came before, and loses what is small beside them.)
    """
    order = xp.argsort(positions)  # CuPy's is always stable
    positions, sums = positions[order], values[order]
    distance = 1
    while distance < sums.size:
        same = positions[distance:] == positions[:-distance]
        sums[distance:] += xp.where(same, sums[:-distance], 0)
        distance *= 2
    last = xp.concatenate([positions[1:] != positions[:-1], xp.ones(min(1, positions.size), bool)])
    result = xp.zeros(size + 1, values.dtype)
    result[xp.where(last, positions, size)] = sums
    return result[:-1]
