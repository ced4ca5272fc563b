"""The array type is the device: one table from array type to what the engine needs of it, and what becomes an array."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import _cpu
from ._errors import DeviceError, DtypeError, ShapeError
from .device import Array, Device, sum_on_host
from .modes import attributes_set, unrepeatable


def _select_cpu(index: int) -> None:
    """There is one."""


CPU = Device(
    name="cpu",
    kernels=_cpu,
    xp=np,
    empty=_cpu.empty,
    read=lambda array: array,
    write=lambda out, values: out.__setitem__(..., values),
    scalar=np.asarray,  # NumPy is quicker with the number as an array
    sum_at=sum_on_host,
    address=lambda array: array.__array_interface__["data"][0],
    name_of=lambda array: "cpu",
    select=_select_cpu,
    share=np.from_dlpack,
)
DEVICES: dict[type, Device] = {np.ndarray: CPU}  # by array type; the others join when they are first named
LOADERS = {"cuda": ".cuda", "cuda-emulated": ".emulated"}  # modules whose `load` gives (array type, device)
_DLPACK = {1: "cpu", 2: "cuda", 3: "cpu", 12: "cuda-emulated", 13: "cuda"}  # by DLPack's number of a type of device
_loading = threading.Lock()

SCALARS = (bool, int, float, np.generic)
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_default_dtype = FLOATS[0]


def device(name: str) -> Device:
    """The device of this name ("cpu", "cuda", "cuda:1", "cuda-emulated"), loaded if it has not been, and current.

    Raises ValueError for an unknown name, and DeviceError with what is missing for one that cannot be had here.
    """
    kind, numbered, index = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind not in (CPU.name, *LOADERS) or (numbered and not (kind == "cuda" and index.isdecimal())):
        known = ", ".join([CPU.name, *LOADERS])
        raise DeviceError(f"device {name!r} is not available: it is not known; use one of {known}, or cuda:1 and so on")
    row = next((row for row in list(DEVICES.values()) if row.name == kind), None) or _load(kind)
    row.select(int(index or 0))
    return row


def _load(kind: str) -> Device:
    with _loading:
        for row in DEVICES.values():  # another thread may have been here
            if row.name == kind:
                return row
        array_type, row = importlib.import_module(LOADERS[kind], __package__).load()
        for dtype in FLOATS:
            row.kernels.set_winograd(_cpu.get_winograd(dtype.name), dtype.name)
        for told in _forbidding.blocks:
            _forbid_winograd(told, row.kernels)
        DEVICES[array_type] = row
        return row


def kernels(array: Array) -> Any:
    """The module of kernels for this array's device."""
    return DEVICES[type(array)].kernels


def xp(array: Array) -> Any:
    """The module of array functions (numpy, or one with its names) for this array's device."""
    return DEVICES[type(array)].xp


def empty(operation: str, like: Array, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """Memory for a result on the device of `like`, its values undefined: the one place where results are allocated."""
    try:
        return DEVICES[type(like)].empty(shape, like.dtype if dtype is None else dtype)
    except (OverflowError, ValueError, MemoryError) as error:
        raise _too_large(operation, shape, error) from None


def _too_large(operation: str, shape: tuple[int, ...], error: Exception) -> Exception:
    if isinstance(error, MemoryError):
        return MemoryError(f"{operation}: there is no memory for a result of shape {shape}; use smaller batches")
    return ShapeError(f"{operation}: the result's shape {shape} is larger than any memory")


def device_of(array: Array) -> str:
    """The name of the device that an array lies on."""
    return DEVICES[type(array)].name_of(array)


def host(array: Array) -> np.ndarray:
    """The values on the host: the array itself if it is there, else a copy."""
    return DEVICES[type(array)].read(array) if type(array) in DEVICES else np.asarray(array)


def transfer(out: Array, x: Array) -> None:
    """Copies x into `out`, a new array of its shape and dtype, whatever devices they are on."""
    DEVICES[type(out)].write(out, DEVICES[type(x)].read(x))


def empty_on(operation: str, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """The same on the device of that name."""
    row = device(name)
    try:
        return row.empty(shape, dtype)
    except (OverflowError, ValueError, MemoryError) as error:
        raise _too_large(operation, shape, error) from None


def is_on(array: Array, name: str) -> bool:
    """Whether an array lies on the device of that name: "cuda:0" is "cuda"."""
    row = device(name)
    return row is DEVICES[type(array)] and row.name_of(array) == name.removesuffix(":0")


def put(operation: str, array: Array, name: str) -> Array:
    """The array itself if it is on the device of that name, else a copy there."""
    if is_on(array, name):
        return array
    out = empty_on(operation, name, array.shape, array.dtype)
    transfer(out, array)
    return out


def share(x: Any) -> Array:
    """An array on the memory of `x`, which any library may have allocated that speaks DLPack."""
    try:
        kind, index = x.__dlpack_device__()
    except AttributeError:
        raise TypeError(f"from_dlpack: a {type(x).__name__} has no __dlpack__; use tensor() to copy") from None
    if int(kind) not in _DLPACK:
        raise DeviceError(f"from_dlpack: DLPack's device type {int(kind)} is not known here; copy to the host first")
    name = _DLPACK[int(kind)]
    return native(device(f"cuda:{index}" if name == "cuda" else name).share(x), "from_dlpack")


def set_emulation(mode: str) -> None:
    """Which build of the kernels the device "cuda-emulated" runs from now on: "fast", or "strict", ten times slower.

    The strict one watches every access of memory (bounds, alignment, what was never written, races) and raises
    RuntimeError with kernel, block, thread and source line. The environment variable TINYGRAD_NM_EMULATION says which
    it is at first, "fast" if it is not set. For the whole process.
    """
    from . import emulated

    emulated.switch(mode)
    attributes_set[0] += 1


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
    name = _float_name("set_winograd", dtype)
    for row in list(DEVICES.values()):
        row.kernels.set_winograd(bool(enabled), name)
    attributes_set[0] += 1


def get_winograd(dtype: Any = np.float32) -> bool:
    """Whether convolutions of this dtype may run by Winograd's algorithm."""
    return _cpu.get_winograd(_float_name("get_winograd", dtype))


def _float_name(operation: str, dtype: Any) -> str:
    if np.dtype(dtype) not in FLOATS:
        raise DtypeError(f"{operation}: {np.dtype(dtype)} is not supported; use float32 or float64")
    return np.dtype(dtype).name


class _Forbidding(threading.local):
    def __init__(self) -> None:
        self.blocks: list[list[Any]] = []  # for each `without_winograd` this thread is in, the kernels it told


_forbidding = _Forbidding()


def _forbid_winograd(told: list[Any], kernels: Any) -> None:
    kernels.forbid_winograd(True)
    told.append(kernels)


@contextmanager
def without_winograd() -> Iterator[None]:
    """No convolution of this thread runs by Winograd's algorithm within it, whatever `set_winograd` says."""
    unrepeatable("without_winograd() holds for this call alone")
    told: list[Any] = []
    for row in list(DEVICES.values()):
        _forbid_winograd(told, row.kernels)
    _forbidding.blocks.append(told)
    try:
        yield
    finally:
        _forbidding.blocks.pop()
        for each in told:
            each.forbid_winograd(False)


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


def native(array: Array, operation: str) -> Array:
    """`array` in native byte order, of a dtype that tensors have (float32, float64, integers, bool)."""
    dtype = array.dtype
    if dtype.kind not in "fiub" or (dtype.kind == "f" and dtype.itemsize not in (4, 8)):
        raise DtypeError(
            f"{operation}: dtype {dtype} is not supported; convert with .astype to float32, float64, an integer or bool"
        )
    if type(array) not in DEVICES:
        array = np.asarray(array)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def from_data(data: Any, dtype: Any, operation: str) -> Array:
    """A new array of `data`: arrays keep dtype and device, Python numbers and lists take the default dtype."""
    if type(data) in DEVICES and type(data) is not np.ndarray:
        return native(native(data, operation).astype(data.dtype if dtype is None else dtype, order="C"), operation)
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
