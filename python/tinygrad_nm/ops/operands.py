"""What operations accept: tensors, plain arrays as constants, and weak scalars."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .. import backend
from .._errors import DeviceError, DtypeError, ShapeError
from ..modes import thread
from ..recording import repeated
from ..tensor import Tensor


def array(operation: str, x: Any) -> Any:
    """The array of one operand: of a tensor, of a constant, or of Python numbers (in the default dtype)."""
    if isinstance(x, Tensor):
        return x.data
    if type(x) in backend.DEVICES:
        return x if x.dtype in backend.FLOATS else backend.native(x, operation)
    if isinstance(x, np.ndarray):
        return backend.native(x, operation)
    if isinstance(x, np.floating) and thread.modes.sweeping:  # what a rule makes of 0-d arrays: its dtype counts
        return backend.native(np.asarray(x), operation)
    if isinstance(x, (list, tuple, *backend.SCALARS)):
        return backend.from_data(x, None, operation)
    raise DtypeError(f"{operation}: expected a tensor, an array or a number, got {type(x).__name__}")


def floating(operation: str, x: Any) -> Any:
    """The array of one operand; integers and bool become the default dtype."""
    if isinstance(x, Tensor) and x.data.dtype.kind == "f":
        return x.data
    a = array(operation, x)
    return a if backend.is_float(a) else a.astype(backend.get_default_dtype())


def device_like(operation: str, given: Sequence[Any], operands: Sequence[Any]) -> Any:
    """One of the arrays `given` of `operands`, on the device of them all; None where NumPy's alone is asked for.

    That is where the tensors and the arrays of other devices are: NumPy arrays are constants, and go there. Raises
    DeviceError where two devices meet.
    """
    like, name = None, ""
    for x, operand in zip(given, operands):
        if type(x) in backend.DEVICES and (type(x) is not np.ndarray or isinstance(operand, Tensor)):
            found = backend.device_of(x)
            if like is None:
                like, name = x, found
            elif found != name:
                raise two_devices(operation, name, found)
    return None if type(like) is np.ndarray else like


def two_devices(operation: str, a: str, b: str) -> DeviceError:
    return DeviceError(f"{operation}: operands on {a} and {b} do not mix; bring one over with .to({a!r}) or .to({b!r})")


def together(operation: str, given: Sequence[Any], operands: Sequence[Any]) -> Sequence[Any]:
    """The arrays `given` of `operands`, all on one device (see `device_like`); whatever is no array stays."""
    if len(backend.DEVICES) == 1:
        return given
    like = device_like(operation, given, operands)
    if like is None:
        return given
    return [brought(operation, x, like) if type(x) is np.ndarray else x for x in given]


def brought(operation: str, x: np.ndarray, like: Any) -> Any:
    """A copy of x on the device of `like`, which a compiled function can make again."""
    out = backend.empty(operation, like, x.shape, x.dtype)
    repeated(backend.transfer, out, x)
    return out


def arrays(operation: str, *operands: Any) -> tuple[Any, ...]:
    """The arrays of operands that meet in one operation, on one device (see `together`).

    Python and NumPy scalars are weak: they stay Python numbers and take the arrays' dtype. Integer arrays take
    the dtype of a float one; float32 and float64 do not mix.
    """
    given: Sequence[Any] = [x.item() if isinstance(x, np.generic) else x for x in operands]
    given = [x if isinstance(x, (bool, int, float)) else array(operation, x) for x in given]
    given = together(operation, given, operands)
    dtypes = [x.dtype for x in given if hasattr(x, "dtype")]
    if not dtypes:
        dtype = next((x.dtype for x in operands if isinstance(x, np.floating)), None) if thread.modes.sweeping else None
        return tuple(backend.from_data(x, dtype, operation) for x in given)
    if all(d is dtypes[0] for d in dtypes) and dtypes[0].kind == "f":
        return tuple(given)
    floats = {d for d in dtypes if d.kind == "f"}
    if len(floats) > 1:
        names = " and ".join(sorted(str(d) for d in floats))
        raise DtypeError(f"{operation}: operands of {names} do not mix; convert one with .astype")
    if floats or any(isinstance(x, float) for x in given):
        target = floats.pop() if floats else backend.get_default_dtype()
        given = [x.astype(target) if hasattr(x, "dtype") and x.dtype != target else x for x in given]
    return tuple(given)


def same_float(operation: str, **operands: Any) -> tuple[Any, ...]:
    """The arrays of a kernel's operands (None stays None): all float32 or all float64, on one device."""
    plain = _plain_floats(operands.values())
    if plain is not None:
        return plain
    given = [None if x is None else array(operation, x) for x in operands.values()]
    found = dict(zip(operands, together(operation, given, [*operands.values()])))
    dtypes = {name: a.dtype for name, a in found.items() if a is not None}
    if len(set(dtypes.values())) > 1 or not all(d in backend.FLOATS for d in dtypes.values()):
        told = ", ".join(f"{name} is {d}" for name, d in dtypes.items())
        raise DtypeError(f"{operation}: {told}; all must be float32 or all float64: convert with .astype")
    return tuple(found.values())


def _plain_floats(operands: Iterable[Any]) -> tuple[Any, ...] | None:
    """The arrays of operands that need neither conversion nor a message, as nearly all do; else None."""
    found = []
    kind = dtype = None
    for x in operands:
        data = x.data if isinstance(x, Tensor) else x
        if data is not None:
            if dtype is None:
                kind, dtype = type(data), data.dtype
            elif type(data) is not kind or data.dtype is not dtype:
                return None
        found.append(data)
    return tuple(found) if dtype in backend.FLOATS and kind in backend.DEVICES else None


def kept(x: Any, data: Any) -> Any:
    """What a rule saves of an operand: the tensor with its history, or the constant as it was used."""
    return x if isinstance(x, Tensor) and x.data is data else data


def axes(operation: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """`axis` (None, an int or a sequence) as sorted non-negative axes."""
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    found = []
    for a in given:
        if not hasattr(a, "__index__"):
            raise DtypeError(f"{operation}: axis must be None, an int or several ints, not {axis!r}")
        a = operator.index(a)
        if not -ndim <= a < ndim:
            raise ShapeError(f"{operation}: axis {a} is out of range for {ndim} dimensions")
        found.append(a % ndim)
    if len(set(found)) != len(found):
        raise ShapeError(f"{operation}: axis {tuple(given)} names one axis twice")
    return tuple(sorted(found))


def broadcast_shape(operation: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        told = " and ".join(str(s) for s in shapes)
        raise ShapeError(f"{operation}: shapes {told} do not broadcast: sizes must be equal or 1") from None


def pair(operation: str, name: str, given: Any, least: int = 1) -> tuple[int, int]:
    """An int or a pair of ints (rows, columns), each at least `least`."""
    values = given if isinstance(given, (tuple, list)) else (given, given)
    try:
        found = tuple(operator.index(v) for v in values)
    except TypeError:
        raise DtypeError(f"{operation}: {name} must be an int or a pair of ints, not {given!r}") from None
    if len(found) != 2 or min(found) < least or max(found) >= 2**63:
        raise ShapeError(f"{operation}: {name} must be an int or a pair of ints of at least {least}, not {given!r}")
    return found[0], found[1]


def padding(operation: str, given: Any) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) from an int, a pair, or ((top, bottom), (left, right))."""
    if isinstance(given, (tuple, list)) and len(given) == 2 and any(isinstance(g, (tuple, list)) for g in given):
        return (*pair(operation, "padding", given[0], 0), *pair(operation, "padding", given[1], 0))
    rows, columns = pair(operation, "padding", given, 0)
    return rows, rows, columns, columns


def image(operation: str, name: str, shape: Sequence[int]) -> None:
    if len(shape) != 4:
        raise ShapeError(f"{operation}: {name} has shape {tuple(shape)}, but (N, C, H, W) is needed; use reshape")


def count(shape: Sequence[int]) -> int:
    return math.prod(shape)
