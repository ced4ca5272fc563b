"""The operations as methods and operators of Tensor, its in-place writes, and its answers to NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import backend
from .._errors import DtypeError, GradientError, ShapeError
from ..modes import thread
from ..tensor import Tensor
from . import activation, arithmetic, normalisation, product, reduction, shape
from .dtype import astype, to
from .operands import arrays, broadcast_shape

METHODS: dict[str, Callable[..., Any]] = {
    "astype": astype,
    "to": to,
    **{f.__name__: f for f in (arithmetic.abs, arithmetic.sqrt, arithmetic.log, arithmetic.clip)},
    **{name: getattr(reduction, name) for name in ("sum", "mean", "max", "min", "var", "argmax", "all", "any")},
    **{name: getattr(shape, name) for name in ("reshape", "flatten", "transpose", "squeeze", "expand_dims")},
    **{name: getattr(activation, name) for name in ("relu", "tanh", "sigmoid", "exp", "sin", "cos")},
    **{name: getattr(normalisation, name) for name in ("softmax", "log_softmax", "logsumexp")},
}

BINARY: dict[str, Callable[..., Any]] = {
    "add": arithmetic.add,
    "sub": arithmetic.subtract,
    "mul": arithmetic.multiply,
    "truediv": arithmetic.divide,
    "pow": arithmetic.power,
    "matmul": product.matmul,
}

COMPARISONS = {
    "eq": arithmetic.equal,
    "ne": arithmetic.not_equal,
    "lt": arithmetic.less,
    "le": arithmetic.less_equal,
    "gt": arithmetic.greater,
    "ge": arithmetic.greater_equal,
}

# what NumPy calls for `array + tensor` and the like
UFUNCS = {
    np.add: arithmetic.add,
    np.subtract: arithmetic.subtract,
    np.multiply: arithmetic.multiply,
    np.true_divide: arithmetic.divide,
    np.power: arithmetic.power,
    np.matmul: product.matmul,
    np.equal: arithmetic.equal,
    np.not_equal: arithmetic.not_equal,
    np.less: arithmetic.less,
    np.less_equal: arithmetic.less_equal,
    np.greater: arithmetic.greater,
    np.greater_equal: arithmetic.greater_equal,
}

_COMMON = frozenset((Tensor, float, int, np.ndarray))  # asked for first
_OPERANDS = (Tensor, np.ndarray, list, tuple, *backend.SCALARS)


def _operator(function: Callable[..., Any], swapped: bool) -> Callable[..., Any]:
    def apply(self: Tensor, other: Any) -> Any:
        if type(other) in _COMMON or isinstance(other, _OPERANDS) or type(other) in backend.DEVICES:
            return function(other, self) if swapped else function(self, other)
        return NotImplemented

    return apply


def _refuse(name: str) -> TypeError:
    import tinygrad_nm

    ours = {"true_divide": "divide", "absolute": "abs"}.get(name, name)
    mend = f"use tinygrad_nm.{ours}" if ours in tinygrad_nm.__all__ else "use the tensor's numpy() for plain values"
    return TypeError(f"numpy.{name} would take a tensor off the tape; {mend}")


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """`array + tensor` stays on the tape; np.exp(tensor) and the like are refused."""
    on_behalf_of_array = any(not isinstance(x, Tensor) for x in inputs)
    if method != "__call__" or kwargs or ufunc not in UFUNCS or not on_behalf_of_array:
        raise _refuse(ufunc.__name__)
    return UFUNCS[ufunc](*inputs)


def _array_function(self: Tensor, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    raise _refuse(function.__name__)


def _written(self: Tensor, operation: str) -> None:
    """Refuses a write that the tape would not see, and counts the others."""
    if thread.modes.recording and self.node is not None:
        raise GradientError(
            f"{operation}: this tensor requires a gradient; write to it under no_grad(), or compute a new tensor"
        )
    self.mark_written()


def _check_fits(self: Tensor, operation: str, data: Any) -> None:
    if (data.dtype if hasattr(data, "dtype") else np.result_type(data)).kind == "f" and self.dtype.kind != "f":
        raise DtypeError(f"{operation}: floats do not fit a tensor of {self.dtype}; convert with .astype")


def _store(self: Tensor, operation: str, result: Any) -> Tensor:
    """Writes `result` over the values of self."""
    if isinstance(result, Tensor) and result.node is not None and thread.modes.recording:
        raise GradientError(f"{operation}: the value has a gradient that a write would lose; use no_grad() or detach()")
    _, data = arrays(operation, self, result)
    _check_fits(self, operation, data)
    if broadcast_shape(operation, self.shape, arithmetic.shape_of(data)) != self.shape:
        raise ShapeError(f"{operation}: values of shape {data.shape} do not fit a tensor of shape {self.shape}")
    _written(self, operation)
    self.data[...] = data
    return self


def _in_place(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def write(self: Tensor, other: Any) -> Tensor:
        if thread.modes.recording and self.node is not None:
            _written(self, name)
        return _store(self, name, function(self, other))

    write.__name__ = name
    write.__doc__ = f"Writes {function.__name__}(self, other) over self, under no_grad() if self requires a gradient."
    return write


def _augmented(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`t += x`: in place; a new tensor if x carries a gradient, so that `total += loss` stays on the tape."""
    write = _in_place(f"{name}_", function)

    def apply(self: Tensor, other: Any) -> Any:
        if not (isinstance(other, _OPERANDS) or type(other) in backend.DEVICES):
            return NotImplemented
        on_tape = self.node is not None or (isinstance(other, Tensor) and other.node is not None)
        if thread.modes.recording and on_tape and not (self.is_leaf and self.requires_grad):
            return function(self, other)
        return write(self, other)

    return apply


def _setitem(self: Tensor, key: Any, new: Any) -> None:
    plain, _ = shape._key(self, key)
    if isinstance(new, Tensor) and new.node is not None and thread.modes.recording:
        raise GradientError("setitem: the value has a gradient that a write would lose; use no_grad() or detach()")
    _, data = arrays("setitem", self, new)
    _check_fits(self, "setitem", data)
    _written(self, "setitem")
    try:
        self.data[plain] = data
    except ValueError as error:
        raise ShapeError(f"setitem: {error}") from None


def _iterate(self: Tensor) -> Any:
    return (self[i] for i in range(len(self)))


def attach() -> None:
    for name, function in METHODS.items():
        setattr(Tensor, name, function)
    for name, function in BINARY.items():
        setattr(Tensor, f"__{name}__", _operator(function, False))
        setattr(Tensor, f"__r{name}__", _operator(function, True))
    for name, function in COMPARISONS.items():
        setattr(Tensor, f"__{name}__", _operator(function, False))
    for name in ("add", "sub", "mul", "truediv", "pow"):
        setattr(Tensor, f"__i{name}__", _augmented(name, BINARY[name]))
    for name, method in (("add", "add_"), ("sub", "sub_"), ("mul", "mul_"), ("truediv", "div_")):
        setattr(Tensor, method, _in_place(method, BINARY[name]))
    special: dict[str, Any] = {
        "__neg__": arithmetic.negative,
        "__abs__": arithmetic.abs,
        "__getitem__": shape.getitem,
        "__setitem__": _setitem,
        "__iter__": _iterate,
        "__array_ufunc__": _array_ufunc,
        "__array_function__": _array_function,
        "copy_": lambda self, other: _store(self, "copy_", other),
        "fill_": lambda self, number: _store(self, "fill_", number),
        "zero_": lambda self: _store(self, "zero_", 0),
        "T": property(lambda self: shape.transpose(self), doc="The tensor with its axes reversed."),
    }
    for name, function in special.items():
        setattr(Tensor, name, function)
