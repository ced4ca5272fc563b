"""The array type is the device: one table from array type to (kernels, xp), and the rules for what becomes an array."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from . import _cpu
from ._errors import DtypeError

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
        array = np.asarray(data)
        if array.dtype.kind == "O":
            raise ValueError(f"{operation}: the data is ragged or holds objects; give numbers of one rectangular shape")
        if dtype is None and array.dtype.kind in "iuf" and not _holds_arrays(data):
            array = array.astype(_default_dtype)
    return native(np.array(array, dtype=dtype, copy=True, order="C"), operation)


def _holds_arrays(data: Any) -> bool:
    """Whether a list is one of arrays, whose dtype is then kept as an array's would be."""
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, np.ndarray)
