"""Device "cuda-emulated": the CUDA kernels on this machine's processor, and arrays that behave like CuPy's.

What is wrong with CuPy is wrong here, too: an array of the device does not become a NumPy array unless asked, does not
meet one (as an index neither, where CuPy would take it), and knows only functions that CuPy has. Its memory is the
host's, so that no GPU is needed.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from . import _cpu
from ._errors import DeviceError
from .device import Device, Kernels, number_of, sum_on_device

NAME = "cuda-emulated"
ALIGNMENT = 256  # bytes: cudaMalloc's
DLPACK = 12  # the type of device that DLPack keeps for extensions
MODES = {"fast": "._cuda_emulated", "strict": "._cuda_emulated_strict"}
VARIABLE = "TINYGRAD_NM_EMULATION"

# Functions of NumPy's that CuPy has as well: tests/test_emulated_array.py asks CuPy.
FUNCTIONS = (
    "all any arange argmax argmin array_equal ascontiguousarray broadcast_to concatenate empty_like flatnonzero full "
    "full_like indices max mean min ndim nonzero ones ones_like pad prod reshape shape size stack sum take transpose "
    "where zeros zeros_like"
)
UFUNCS = (
    "abs absolute add bitwise_and bitwise_or bitwise_xor cos divide equal exp floor_divide greater greater_equal "
    "invert isfinite isinf isnan less less_equal log logical_and logical_not logical_or maximum minimum multiply "
    "negative not_equal positive power remainder sign sin sqrt square subtract tanh true_divide"
)
_UFUNCS = frozenset(UFUNCS.split())
# Methods, with the keyword arguments that CuPy's take.
METHODS: dict[str, tuple[str, ...]] = {
    "all": ("axis", "out", "keepdims"),
    "any": ("axis", "out", "keepdims"),
    "argmax": ("axis", "out", "keepdims"),
    "argmin": ("axis", "out", "keepdims"),
    "astype": ("dtype", "order", "copy"),
    "copy": ("order",),
    "fill": ("value",),
    "max": ("axis", "out", "keepdims"),
    "mean": ("axis", "dtype", "out", "keepdims"),
    "min": ("axis", "out", "keepdims"),
    "nonzero": (),
    "prod": ("axis", "dtype", "out", "keepdims"),
    "ravel": ("order",),
    "reshape": ("order",),
    "squeeze": ("axis",),
    "sum": ("axis", "dtype", "out", "keepdims"),
    "swapaxes": (),
    "take": ("axis",),
    "transpose": (),
    "view": ("dtype",),
}
_SCALARS = (bool, int, float, complex, np.generic)


class EmulatedArray(NDArrayOperatorsMixin):
    """An array of the device. base: the array that owns the memory of a view; None for one that owns it itself."""

    __slots__ = ("_values", "base")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: np.ndarray, base: EmulatedArray | None = None) -> None:
        self._values, self.base = values, base

    shape = property(lambda self: self._values.shape)
    strides = property(lambda self: self._values.strides)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    nbytes = property(lambda self: self._values.nbytes)
    itemsize = property(lambda self: self._values.itemsize)
    flags = property(lambda self: self._values.flags)
    T = property(lambda self: _on_device(self._values.T, [self]))

    def get(self) -> np.ndarray:
        """The values, copied to the host."""
        return self._values.copy()

    def set(self, values: np.ndarray) -> None:
        """Copies values of the same shape and dtype from the host."""
        if values.shape != self.shape or values.dtype != self.dtype:
            raise ValueError(f"set: {values.dtype} {values.shape} does not fit an array of {self.dtype} {self.shape}")
        self._values[...] = values

    def item(self) -> Any:
        """The one value as a Python number."""
        return self._values.item()

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self._values.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        raise TypeError(
            f"an array on {NAME} does not become a NumPy array implicitly; call .get() (of a tensor: .numpy())"
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        if not all(isinstance(x, (EmulatedArray, np.ndarray, *_SCALARS)) for x in inputs):
            return NotImplemented  # the other operand knows what to do
        if method != "__call__" or ufunc.__name__ not in _UFUNCS:
            raise TypeError(f"{NAME}: numpy.{ufunc.__name__} (method {method}) is not one of its functions")
        return _run(ufunc, (*inputs, *out), options)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        return getattr(xp, function.__name__)(*arguments, **options)

    def __getitem__(self, key: Any) -> Any:
        key = _index(key, self.shape)
        values = self._values[key]
        if isinstance(values, np.generic):  # of full indices CuPy gives a view as well
            everything = (*key, ...)
            values = self._values[everything]
        return _on_device(values, [self])

    def __setitem__(self, key: Any, new: Any) -> None:
        with np.errstate(all="ignore"):
            self._values[_index(key, self.shape)] = _values_of(new, [])

    def __iter__(self) -> Iterator[Any]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __len__(self) -> int:
        return len(self._values)

    def __bool__(self) -> bool:
        return bool(self._values)

    def __int__(self) -> int:
        return int(self._values)

    def __float__(self) -> float:
        return float(self._values)

    def __index__(self) -> int:
        return self._values.__index__()

    def __repr__(self) -> str:
        return repr(self._values)

    def __str__(self) -> str:
        return str(self._values)

    def __reduce__(self) -> Any:
        return asarray, (self.get(),)

    def __dlpack_device__(self) -> tuple[int, int]:
        return DLPACK, 0

    def __dlpack__(self, *, dl_device: Any = None, copy: Any = None, **options: Any) -> Any:
        """A copy on the host for who asks for that; nobody else knows this device."""
        if dl_device != (1, 0) or copy is False:
            raise BufferError(f"no other library knows the device {NAME}; call .get() for a copy on the host")
        return self.get().__dlpack__(dl_device=dl_device, copy=copy, **options)


def empty(shape: Any, dtype: Any = float) -> EmulatedArray:
    """Memory of the device. All its bytes are ones: numbers that nobody wrote are NaN or -1."""
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    size = math.prod(shape) * dtype.itemsize
    if size >= 2**62:
        raise OverflowError(f"{size} bytes are more than any memory")
    memory = _cpu.empty((size + ALIGNMENT,), np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    memory[start : start + size] = 0xFF
    return EmulatedArray(memory[start : start + size].view(dtype).reshape(shape))


def asarray(a: Any, dtype: Any = None) -> EmulatedArray:
    """The array itself if it is one of the device, else a copy of what NumPy makes of it."""
    if isinstance(a, EmulatedArray):
        return a if dtype is None or a.dtype == dtype else _run(np.ndarray.astype, (a, dtype), {})
    return _on_device(np.asarray(a, dtype), [])


def _values_of(x: Any, met: list[EmulatedArray]) -> Any:
    """What NumPy takes for an argument; arrays of the device are added to `met`."""
    if isinstance(x, EmulatedArray):
        met.append(x)
        return x._values
    if isinstance(x, np.ndarray):
        raise TypeError(
            f"a numpy.ndarray and an EmulatedArray do not mix; bring it to {NAME} with asarray of its functions"
        )
    if isinstance(x, (tuple, list)):
        return type(x)([_values_of(item, met) for item in x])
    return x


def _index(key: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """What NumPy takes for an index. As in CuPy, positions in arrays go around: after the last comes the first."""
    parts = list(_values_of(key if isinstance(key, tuple) else (key,), []))
    taken = [_axes_of(part) for part in parts]
    axis = 0
    for i, part in enumerate(parts):
        if isinstance(part, np.ndarray) and part.dtype != bool and axis < len(shape) and shape[axis]:
            parts[i] = part % shape[axis]
        axis += len(shape) - sum(taken) if part is ... else taken[i]
    return tuple(parts)


def _axes_of(part: Any) -> int:
    """How many axes a part of an index stands for; what `...` stands for depends on the others."""
    if isinstance(part, np.ndarray) and part.dtype == bool:
        return part.ndim
    return 0 if part is None or part is ... or isinstance(part, (bool, np.bool_)) else 1


def _owner(values: Any) -> Any:
    while isinstance(values.base, np.ndarray):
        values = values.base
    return values


def _on_device(result: Any, met: list[EmulatedArray]) -> Any:
    """A result of NumPy's as CuPy would give it: a view of what it shares memory with, else in memory of the device."""
    if isinstance(result, (tuple, list)):
        return type(result)([_on_device(item, met) for item in result])
    if not isinstance(result, (np.ndarray, np.generic, bool)):
        return result
    values = np.asarray(result)
    for x in met:
        if x._values is values:
            return x
        if _owner(x._values) is _owner(values):
            return EmulatedArray(values, x if x.base is None else x.base)
    made = empty(values.shape, values.dtype)
    made._values[...] = values
    return made


def _run(function: Callable[..., Any], arguments: Any, options: dict[str, Any]) -> Any:
    """A function of NumPy's on arrays of the device, which warns of nothing."""
    met: list[EmulatedArray] = []
    values = [_values_of(x, met) for x in arguments]
    named = {name: _values_of(x, met) for name, x in options.items()}
    with np.errstate(all="ignore"):
        return _on_device(function(*values, **named), met)


def _method(name: str, known: tuple[str, ...]) -> Callable[..., Any]:
    function = getattr(np.ndarray, name)

    def method(self: EmulatedArray, *arguments: Any, **options: Any) -> Any:
        for option in options:
            if option not in known:
                raise TypeError(f"{name}: CuPy's has no argument {option!r}")
        return _run(function, (self, *arguments), options)

    method.__name__ = name
    return method


for _name, _known in METHODS.items():
    setattr(EmulatedArray, _name, _method(_name, _known))


class _Functions:
    """`xp` of the device: NumPy's functions, as far as CuPy has them too, for its arrays."""

    def __init__(self) -> None:
        for name in (*FUNCTIONS.split(), *_UFUNCS):
            setattr(self, name, self._function(getattr(np, name)))
        self.empty, self.asarray = empty, asarray
        self.argsort = self._function(functools.partial(np.argsort, kind="stable"))  # as CuPy's always is

    @staticmethod
    def _function(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: _run(function, arguments, options)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{NAME} has no function {name!r}: see FUNCTIONS in tinygrad_nm/emulated.py")


xp = _Functions()


def _prepare(name: str, arguments: tuple[Any, ...], strided: bool) -> Sequence[Any]:
    """The memory of arrays of the device, and of no others; contiguous, but for the first: what is written to stays."""
    made = []
    for i, x in enumerate(arguments):
        if isinstance(x, EmulatedArray):
            x = (x if strided or i == 0 or x.flags.c_contiguous else xp.ascontiguousarray(x))._values
        elif isinstance(x, np.ndarray):
            raise TypeError(f"{name}: argument {i} is a numpy.ndarray, not an EmulatedArray in the memory of {NAME}")
        made.append(x)
    return made


def _module(mode: str) -> Any:
    if mode not in MODES:
        raise ValueError(f"set_emulation: {mode!r} is not known ({VARIABLE}, where it is set); use 'fast' or 'strict'")
    try:
        return importlib.import_module(MODES[mode], __package__)
    except ImportError as error:
        raise DeviceError(
            f"device '{NAME}' is not available: this installation was built without it ({error}); install again from "
            "the source folder: CMAKE_ARGS=-DTINYGRAD_NM_EMULATED=ON pip install --force-reinstall --no-deps ."
        ) from None


@functools.cache
def _kernels() -> Kernels:
    return Kernels(_module(os.environ.get(VARIABLE, "fast")), _prepare)


def switch(mode: str) -> None:
    """See backend.set_emulation."""
    _kernels().switch(_module(mode))


def _select(index: int) -> None:
    """There is one."""


def load() -> tuple[type, Device]:
    """The row of backend.DEVICES."""
    return EmulatedArray, Device(
        name=NAME,
        kernels=_kernels(),
        xp=xp,
        empty=empty,
        read=EmulatedArray.get,
        write=EmulatedArray.set,
        scalar=number_of,
        sum_at=functools.partial(sum_on_device, xp),
        address=lambda array: array._values.__array_interface__["data"][0],
        name_of=lambda array: NAME,
        select=_select,
        share=asarray,
    )
