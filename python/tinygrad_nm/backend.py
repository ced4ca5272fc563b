"""The array type is the device: one table from array type to (kernels, xp), and the rules for what becomes an array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from . import _cpu
from ._errors import DtypeError, ShapeError
from .modes import attributes_set, unrepeatable

Array = Any  # numpy.ndarray today; the table below says which types count

# array type -> (device name, module of kernels, module of array functions)
DEVICES: dict[type, tuple[str, Any, ModuleType]] = {np.ndarray: ("cpu", _cpu, np)}

SCALARS = (bool, int, float, np.generic)
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_default_dtype = FLOATS[0]


def kernels(array: Array) -> Any:
    """The module of kernels for this array's device."""
    return DEVICES[type(array)][1]


def xp(array: Array) -> Any:
    """The module of array functions (numpy, or one with its names) for this array's device."""
    return DEVICES[type(array)][2]


def empty(operation: str, like: Array, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """Memory for a result on the device of `like`, its values undefined: the one place where results are allocated."""
    try:
        return DEVICES[type(like)][1].empty(shape, like.dtype if dtype is None else dtype)
    except (OverflowError, ValueError):
        raise ShapeError(f"{operation}: the result's shape {shape} is larger than any memory") from None
    except MemoryError:
        raise MemoryError(
            f"{operation}: there is no memory for a result of shape {shape}; use smaller batches"
        ) from None


def set_num_threads(n: int) -> None:
    """Limits the kernels to n threads (at least 1) for the whole process; results do not depend on it."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= 1024:
        raise ValueError(f"set_num_threads: {n!r} is not a number of threads; use an int from 1 to 1024")
    _cpu.set_max_threads(int(n))


def get_num_threads() -> int:
    """The most threads that a kernel uses: OMP_NUM_THREADS, else the processors of the affinity mask, at the start."""
    return _cpu.max_threads()


def empty_cache() -> None:
    """Gives the memory that lies idle for the next large results back to the system."""
    _cpu.empty_cache()


def set_memory_limit(n: int) -> None:
    """Sets the most bytes (at least 0; 2 GiB at the start) that are kept idle for the next large results."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 0 <= n < 2**63:
        raise ValueError(f"set_memory_limit: {n!r} is not a number of bytes; use an int of at least 0")
    _cpu.set_memory_limit(int(n))


def memory_stats() -> dict[str, int]:
    """The memory of large results (from 64 KiB), in bytes and blocks, for the whole process.

    used: in arrays that live. peak: the most that ever was, since `reset_peak_memory`. idle: kept for the next ones,
    at most `limit`. reused, allocated: how many blocks came from there, how many from the system.
    """
    return _cpu.memory_stats()


def reset_peak_memory() -> None:
    """Starts the peak of `memory_stats` again, from what is in use now."""
    _cpu.reset_peak_memory()


def set_winograd(enabled: bool, dtype: Any = np.float32) -> None:
    """Whether convolutions of this dtype may run by Winograd's algorithm: float32 at the start, float64 not.

    Filters of 3x3 and 5x5 at stride 1, of enough channels, then take 2.25 to 4 times fewer multiplications. Errors are
    some ten times those of the plain sum, and one NaN or infinity reaches the other results of its 4x4 or 2x2 tile:
    csrc/shared/conv2d.h has the figures. For the whole process; the functions of `check` never use it.
    """
    if not isinstance(enabled, (bool, np.bool_)):
        raise ValueError(f"set_winograd: {enabled!r} is not True or False")
    _cpu.set_winograd(bool(enabled), _float_name("set_winograd", dtype))
    attributes_set[0] += 1


def get_winograd(dtype: Any = np.float32) -> bool:
    """Whether convolutions of this dtype may run by Winograd's algorithm."""
    return _cpu.get_winograd(_float_name("get_winograd", dtype))


def _float_name(operation: str, dtype: Any) -> str:
    if np.dtype(dtype) not in FLOATS:
        raise DtypeError(f"{operation}: {np.dtype(dtype)} is not supported; use float32 or float64")
    return np.dtype(dtype).name


@contextmanager
def without_winograd() -> Iterator[None]:
    """No convolution of this thread runs by Winograd's algorithm within it, whatever `set_winograd` says."""
    unrepeatable("without_winograd() holds for this call alone")
    _cpu.forbid_winograd(True)
    try:
        yield
    finally:
        _cpu.forbid_winograd(False)


def device_of(array: Array) -> str:
    return DEVICES[type(array)][0]


def check_device(device: str) -> None:
    known = [name for name, _, _ in DEVICES.values()]
    if device not in known:
        reason = _cpu.build_options().get("cuda", "this build has no CUDA kernels")
        raise ValueError(f"device {device!r} is not available ({reason}); use one of {', '.join(known)}")


def set_default_dtype(dtype: Any) -> None:
    """Sets the dtype of tensors made from Python numbers and lists: float32 (at the start) or float64."""
    global _default_dtype
    dtype = np.dtype(dtype)
    if dtype not in FLOATS:
        raise DtypeError(f"set_default_dtype: {dtype} is not supported; use float32 or float64")
    _default_dtype = dtype


def get_default_dtype() -> np.dtype:
    """The dtype of tensors made from Python numbers and lists."""
    return _default_dtype


def is_float(array: Array) -> bool:
    return array.dtype.kind == "f"


def native(array: np.ndarray, operation: str) -> np.ndarray:
    """`array` in native byte order, of a dtype that tensors have (float32, float64, integers, bool)."""
    dtype = array.dtype
    if dtype.kind not in "fiub" or (dtype.kind == "f" and dtype.itemsize not in (4, 8)):
        raise DtypeError(
            f"{operation}: dtype {dtype} is not supported; convert with .astype to float32, float64, an integer or bool"
        )
    if type(array) is not np.ndarray:
        array = np.asarray(array)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def from_data(data: Any, dtype: Any, operation: str) -> np.ndarray:
    """A new array of `data`: arrays keep their dtype, Python numbers and lists take the default one."""
    if isinstance(data, np.ndarray):
        array = native(data, operation)
    else:
        try:
            array = np.asarray(data)
        except ValueError:
            raise ShapeError(f"{operation}: the data is ragged; give numbers of one rectangular shape") from None
        if array.dtype.kind == "O":
            raise ValueError(f"{operation}: the data holds objects; give numbers")
        if dtype is None and array.dtype.kind in "iuf" and not _holds_arrays(data):
            array = array.astype(_default_dtype)
    return native(np.array(array, dtype=dtype, copy=True, order="C"), operation)


def _holds_arrays(data: Any) -> bool:
    """Whether a list is one of arrays, whose dtype is then kept as an array's would be."""
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, np.ndarray)
