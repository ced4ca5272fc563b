"""Tensor, a value, and Node, its history.

They are two objects because a rule often needs less than the values it came from: what no rule saved is freed as
soon as the caller drops it, not when the backward sweep passes.
One clock orders nodes (a node is younger than all it came from, so sorting by time is a topological order, without
recursion) and counts writes (a saved tensor written to after its node's time is an error).
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backend
from ._errors import DtypeError, GradientError, ShapeError
from .modes import unrepeatable

clock = itertools.count(1).__next__


class Node:
    """What a tensor came from: the rule, its inputs' nodes, what the rule needs. A leaf has no rule.

    out, version: the result and its count of writes, where the rule needs it. leaf: a weak reference.
    """

    __slots__ = ("__weakref__", "inputs", "leaf", "out", "rule", "saved", "time", "version", "where")

    def __init__(self, rule: Any, inputs: Sequence[Node | None], saved: Any, leaf: Any = None) -> None:
        self.rule = rule
        self.inputs = inputs
        self.saved = saved
        self.time = clock()
        self.leaf = leaf
        self.out: Any = None
        self.version: list[int] | None = None
        self.where = ""

    @property
    def operation(self) -> str:
        return self.rule.__name__.removesuffix("_rule") if self.rule else "leaf"


class Tensor:
    """An array and, if it requires a gradient, the node of the tape it came from.

    Made by `tensor` (copies) and `from_numpy` (shares). Arithmetic, comparison, indexing and the methods below are
    the package's functions of the same names. `data` is the array itself: reading it is free, writing to it goes
    unnoticed by the tape; write through `t += x`, `t[...] = x`, `copy_`, `zero_` under `no_grad()` instead.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "version")
    gradient_buffer: Any = None  # a Parameter may name the array its gradient is to be written to

    def __init__(self, data: Any, requires_grad: bool = False, version: list[int] | None = None) -> None:
        self.data = data
        self.node: Node | None = None
        self.grad: Tensor | None = None
        self.version = [0] if version is None else version
        if requires_grad:
            self.requires_grad_()

    if TYPE_CHECKING:  # attached by ops.methods, so that the tape knows no operation

        def __getattr__(self, name: str) -> Any: ...
        def _binary(self, other: Any) -> Tensor: ...

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _binary
        __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __lt__ = __le__ = __gt__ = __ge__ = _binary

        def __neg__(self) -> Tensor: ...
        def __getitem__(self, key: Any) -> Tensor: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, value: bool = True) -> Tensor:
        """Makes this leaf require a gradient, or no longer; floats only."""
        if not self.is_leaf:
            raise GradientError("requires_grad_: this tensor is the result of an operation; use detach() to get a leaf")
        if value and not backend.is_float(self.data):
            raise DtypeError(f"requires_grad_: only floats carry gradients, this tensor is {self.dtype}; use .astype")
        if not value:
            self.node = None
        elif self.node is None:
            self.node = Node(None, (), (), weakref.ref(self))
        return self

    @property
    def is_leaf(self) -> bool:
        return self.node is None or self.node.rule is None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def device(self) -> str:
        return backend.device_of(self.data)

    def __len__(self) -> int:
        if not self.data.ndim:
            raise TypeError("len: a tensor of shape () has no length")
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        unrepeatable("a tensor is turned into text")
        text = np.array2string(backend.host(self.data), separator=", ", prefix="tensor(", threshold=100)
        extra = f", dtype={self.dtype}" if self.dtype != backend.get_default_dtype() else ""
        if self.device != "cpu":
            extra += f", device={self.device!r}"
        if self.node is not None:
            extra += ", requires_grad=True" if self.is_leaf else f", operation={self.node.operation}"
        return f"tensor({text}{extra})"

    def __reduce__(self) -> Any:
        if not self.is_leaf:
            raise GradientError(
                "copy: the result of an operation cannot be copied with its history; use detach() first"
            )
        return _rebuild, (self.data.copy(), self.requires_grad)

    def detach(self) -> Tensor:
        """The same values (memory shared), without history."""
        return Tensor(self.data, version=self.version)

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        if self.data.size != 1:
            raise ShapeError(f"item: a tensor of shape {self.shape} holds {self.size} values, not one; use numpy()")
        unrepeatable("item() reads a value into Python")
        return self.data.item()

    def numpy(self) -> np.ndarray:
        """The values: a read-only view of them on the CPU, a copy from any other device.

        Gradients do not flow through it; `detach()` is not needed first.
        """
        unrepeatable("numpy() reads values into Python")
        view = backend.host(self.data).view()
        view.flags.writeable = False
        return view

    def cpu(self) -> Tensor:
        """The tensor on the CPU, itself if it is there; its gradient goes back to where it came from."""
        moved: Tensor = self.to("cpu")
        return moved

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, index = self.data.__dlpack_device__()
        return kind, index

    def __dlpack__(self, **options: Any) -> Any:
        """The memory itself, for another library: what that writes goes unnoticed by the tape."""
        unrepeatable("__dlpack__() hands memory to another library")
        if self.node is not None:
            raise GradientError("dlpack: a tensor that requires a gradient would leave the tape; use detach()")
        return self.data.__dlpack__(**options)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        unrepeatable("numpy.array() reads values into Python")
        if self.device != "cpu":
            raise TypeError(f"numpy: a tensor on {self.device} is not copied to the host implicitly; use numpy()")
        if self.node is not None:
            raise GradientError(
                "numpy: a tensor that requires a gradient would leave the tape; use detach() or numpy()"
            )
        if dtype is not None and np.dtype(dtype) != self.data.dtype:
            if copy is False:
                raise ValueError(f"numpy: {self.dtype} cannot become {np.dtype(dtype)} without a copy")
            return self.data.astype(dtype)
        return self.data.copy() if copy else self.numpy()

    def mark_written(self) -> None:
        """Counts a write, so that a rule that saved the old values refuses to use the new ones."""
        unrepeatable(f"a tensor of shape {self.shape} is written to in place")
        self.version[0] = clock()

    def backward(self, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False) -> None:
        """Adds d self / d leaf, times `gradient` (ones for a scalar), to `.grad` of every leaf that requires one.

        The graph is freed as the sweep passes unless `retain_graph`; with `create_graph` the gradients are on the
        tape themselves and can be differentiated again (and the graph is retained).
        """
        from . import autodiff  # which imports this module

        autodiff.backward(self, gradient, retain_graph, create_graph)


def _rebuild(data: Any, requires_grad: bool) -> Tensor:
    return Tensor(data, requires_grad)


def tensor(data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of `data`.

    Arrays and tensors keep their dtype; Python numbers and lists become `get_default_dtype()` (float32 at the
    start), lists of bool stay bool. device: "cpu", "cuda" (the first GPU), "cuda:1" and so on, "cuda-emulated"; None is
    the data's own, the CPU for what is on none. Raises DtypeError for dtypes other than float32, float64, integers and
    bool, DeviceError with what is missing for a device that cannot be had.
    """
    if isinstance(data, Tensor):
        data = data.data
    elif isinstance(data, (list, tuple)) and data and all(isinstance(item, Tensor) for item in data):
        device = data[0].device if device is None else device
        data = [backend.host(item.data) for item in data]
    array = backend.from_data(data, dtype, "tensor")
    return Tensor(array if device is None else backend.put("tensor", array, device), requires_grad)


def from_numpy(array: np.ndarray, requires_grad: bool = False) -> Tensor:
    """A tensor on the memory of `array` itself.

    Writes to the array are seen by the tensor but not by the tape: what changes between forward and backward
    gives wrong gradients without an error. Big-endian arrays cannot be shared and raise DtypeError.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(array).__name__}; use tensor() to copy")
    if not array.dtype.isnative:
        raise DtypeError(f"from_numpy: {array.dtype} is not in native byte order and cannot be shared; use tensor()")
    return Tensor(backend.native(array, "from_numpy"), requires_grad)


def from_dlpack(x: Any, requires_grad: bool = False) -> Tensor:
    """A tensor on the memory of another library's array, on the device where that is; see `from_numpy` for writes.

    Raises TypeError for what has no `__dlpack__`, DeviceError for devices that are not known here.
    """
    return Tensor(backend.share(x.data if isinstance(x, Tensor) else x), requires_grad)


def zeros(shape: Any, dtype: Any = None, requires_grad: bool = False, device: str = "cpu") -> Tensor:
    """A new tensor of zeros, of the default dtype unless told otherwise. device: as for `tensor`."""
    array = backend.device(device).xp.zeros(shape, dtype or backend.get_default_dtype())
    return Tensor(backend.native(array, "zeros"), requires_grad)


def ones(shape: Any, dtype: Any = None, requires_grad: bool = False, device: str = "cpu") -> Tensor:
    """A new tensor of ones, of the default dtype unless told otherwise. device: as for `tensor`."""
    array = backend.device(device).xp.ones(shape, dtype or backend.get_default_dtype())
    return Tensor(backend.native(array, "ones"), requires_grad)


def value(x: Any) -> Any:
    """The array behind a tensor; anything else as it is."""
    return x.data if isinstance(x, Tensor) else x
