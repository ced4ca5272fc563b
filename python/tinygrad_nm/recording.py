"""What one call of a compiled function does: its kernels, on which memory. See replay.py for what that is good for.

Which of NumPy's computations stand between the kernels cannot be seen, but what they leave behind can. Each array that
a recorded step reads must be an argument, or written by an earlier step, or the same memory in both recordings, which
keep alive what they saw: a parameter, a velocity. It must hold what was seen there last, too, so that a write past the
steps shows. Whatever else would not happen again says so itself, through `unrepeatable`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import backend
from .modes import attributes_set, thread
from .tensor import Node, Tensor

# The places of what a kernel writes.
WRITTEN: dict[str, tuple[int, ...]] = {
    "activation_backward": (0,),
    "activation_forward": (0,),
    "avg_pool2d_backward": (0,),
    "avg_pool2d_forward": (0,),
    "bias_backward": (0,),
    "conv2d_backward_input": (0,),
    "conv2d_backward_weight": (0,),
    "conv2d_forward": (0,),
    "conv2d_pool2d_backward": (0, 1, 2),
    "conv2d_pool2d_forward": (0, 1),
    "dropout": (0,),
    "gemm": (0,),  # operations call it with beta = 0: what was there is not read
    "local_response_norm_backward": (0,),
    "local_response_norm_forward": (0,),
    "max_pool2d_backward": (0,),
    "max_pool2d_forward": (0, 1),
    "max_pool2d_gather": (0,),
    "softmax_cross_entropy_backward": (0,),
    "softmax_cross_entropy_forward": (0,),
}
FREE = {"conv2d_pool2d_kept"}  # functions of the extension that compute nothing from numbers


def repeated(function: Callable[..., Any], *arguments: Any, written: tuple[int, ...] = (0,)) -> None:
    """Calls function(*arguments), and lets a compiled function call it again. written: places of arrays it fills."""
    recording = thread.modes.recording_of
    if recording is None:
        function(*arguments)
    else:
        recording.step(written, function, *arguments)


class Recording:
    """What one call of a function did. Made from the arrays that stand for its arguments, and the recording before."""

    def __init__(self, places: Sequence[Any], before: Recording | None) -> None:
        self.places = places
        self.steps: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.kept: dict[int, Any] = {}  # id -> array that owns its memory: alive, so that no id is used again
        self.order: dict[int, int] = {}  # id -> order of appearance
        self.contents: dict[int, Any] = {}  # id -> what it held when a step last wrote or first read it
        self.state: dict[int, str] = {}  # ids of those read before any step wrote them -> what read them
        self.leaves: list[Tensor] = []
        self.tensors: dict[int, tuple[Tensor, Any, Node | None]] = {}
        self.outputs: list[Any] = []
        self.why: str | None = None
        self.changed: set[int] = set()  # ids of state that was written to since the recording before
        self.within = False  # a step: what it calls belongs to it
        self.before = before
        self.attributes = attributes_set[0]
        for place in places:
            self._meet(root_of(place))

    def step(self, written: tuple[int, ...], function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a step and notes it. One without arrays changes state: the update, say."""
        if self.within or self.why is not None:
            return function(*arguments)
        arrays = [(i, root_of(x)) for i, x in enumerate(arguments) if type(x) in backend.DEVICES]
        for i, root in arrays:
            new = id(root) not in self.kept
            if new:
                self._meet(root)
                if i not in written:
                    self._read_state(root, f"{name_of(function)} reads an array of shape {arguments[i].shape}")
            elif i not in written and not equal(root, self.contents[id(root)]):
                self.refuse(f"{name_of(function)} reads an array of shape {arguments[i].shape} that no kernel wrote to")
        self.within = True
        try:
            result = function(*arguments)
        finally:
            self.within = False
        for root in [root for i, root in arrays if i in written] if arrays else self.kept.values():
            self.contents[id(root)] = root.copy()
        self.steps.append((function, arguments))
        return result

    def _meet(self, root: Any) -> None:
        self.order[id(root)] = len(self.kept)
        self.kept[id(root)] = root
        self.contents[id(root)] = root.copy()

    def _read_state(self, root: Any, how: str) -> None:
        self.state[id(root)] = how
        earlier = None if self.before is None else self.before.contents.get(id(root))
        if earlier is not None and not equal(root, earlier):
            self.changed.add(id(root))

    @property
    def moved(self) -> bool:
        """Whether an array that is no tensor's was written to between the calls, or in this one before it was read.

        Then the two calls say nothing of one another. Writes to tensors within a call are noticed where they happen.
        """
        return bool(self.changed - {id(root_of(data)) for _, data, _ in self.tensors.values()})

    def refuse(self, why: str) -> None:
        """Notes the first reason why this cannot be replayed."""
        if self.why is None and not self.within:
            self.why = why

    def used(self, operands: Sequence[Any]) -> None:
        """Notes tensors that an operation took: they must be the same ones, on the same memory, in a replay."""
        for x in operands:
            if isinstance(x, Tensor):
                self.tensors[id(x)] = (x, x.data, x.node)

    def accumulated(self, leaf: Tensor, gradient: Any) -> None:
        """Notes a gradient that is to become a leaf's. It must have been written where it stays."""
        if leaf.grad is not None:
            self.refuse(
                f"a gradient of shape {leaf.shape} is added to an earlier one; call zero_grad() in the function"
            )
        elif getattr(leaf, "gradient_buffer", None) is not gradient:
            self.refuse(f"a gradient of shape {leaf.shape} is copied to its leaf; give its parameter to an optimiser")
        self.leaves.append(leaf)

    def returned(self, outputs: list[Any]) -> None:
        """Notes what the function gave, and looks once more at all that it touched."""
        self.outputs = outputs
        for x in outputs:
            node = x.node if isinstance(x, Tensor) else None
            if node is not None and node.rule is not None and node.saved is not None:
                self.refuse("a result still needs its graph; call backward() in the function, or use no_grad()")
            elif not isinstance(x, (Tensor, *backend.DEVICES)):
                self.refuse(f"it returns {type(x).__name__}, not a tensor")
            elif id(root_of(data_of(x))) not in self.kept:
                self.refuse(f"no kernel wrote the result of shape {data_of(x).shape}")
        if attributes_set[0] != self.attributes:
            self.refuse("an attribute of a module is set in the function, or a parameter moved")
        for key, root in self.kept.items():
            if self.why is None and not equal(root, self.contents[key]):
                self.refuse(f"an array of shape {root.shape} is written to, but by no kernel")
        for leaf in self.leaves:
            if leaf.grad is not None and leaf.grad.data is not getattr(leaf, "gradient_buffer", None):
                self.refuse(f"the gradient of shape {leaf.shape} is replaced")

    def difference(self, other: Recording) -> str | None:
        """Why this call, the later one, cannot stand for all that follow; None if it can."""
        if self.why is not None:
            return self.why
        for root in self.state.keys() - other.state.keys():
            return f"{self.state[root]}, which is new at each call: no kernel wrote it"
        if len(self.steps) != len(other.steps) or len(self.leaves) != len(other.leaves):
            return f"it ran {len(other.steps)} kernels at first and then {len(self.steps)}"
        for (function, arguments), (before, earlier) in zip(self.steps, other.steps, strict=True):
            if function != before or len(arguments) != len(earlier):
                return f"it ran {name_of(before)} at first and then {name_of(function)}"
            for x, y in zip(arguments, earlier, strict=True):
                if not self._same(x, y, other):
                    return f"{name_of(function)} is called with other arguments at each call"
        if any(a is not b for a, b in zip(self.leaves, other.leaves, strict=True)):
            return "it gives other parameters a gradient at each call"
        if any(not self._same(data_of(x), data_of(y), other) for x, y in zip(self.outputs, other.outputs, strict=True)):
            return "it returns another result at each call"
        return None

    def _same(self, x: Any, y: Any, other: Recording) -> bool:
        if type(x) is not type(y):
            return False
        if type(x) not in backend.DEVICES:
            return bool(x == y)
        a, b = root_of(x), root_of(y)
        if id(a) in self.state or id(b) in other.state:
            return a is b and _layout(x, a) == _layout(y, b)
        return self.order.get(id(a)) == other.order.get(id(b)) and _layout(x, a) == _layout(y, b)


class _Kernels:
    """A module of kernels while some thread records: they are steps of that thread's recording."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        function, recording = getattr(self.module, name), thread.modes.recording_of
        if recording is None or name in FREE:
            return function
        if name not in WRITTEN:
            recording.refuse(f"{name} is called")
            return function
        return functools.partial(recording.step, WRITTEN[name], function)


class recorded:
    """Within it the kernels that this thread calls are steps of the recording."""

    lock = threading.Lock()
    threads = 0  # that record

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    def __enter__(self) -> None:
        with recorded.lock:
            recorded.threads += 1
            if recorded.threads == 1:
                for device in list(backend.DEVICES.values()):
                    device.kernels = _Kernels(device.kernels)
        thread.modes.recording_of, thread.modes.special = self.recording, True

    def __exit__(self, *exc: Any) -> None:
        thread.modes.recording_of, thread.modes.special = None, thread.modes.in_rule or thread.modes.anomaly
        with recorded.lock:
            recorded.threads -= 1
            if recorded.threads == 0:
                for device in list(backend.DEVICES.values()):
                    if isinstance(device.kernels, _Kernels):  # a device may have joined in between
                        device.kernels = device.kernels.module


def root_of(x: Any) -> Any:
    """The array that owns the memory of a view, as far as arrays go."""
    while isinstance(x.base, np.ndarray) or type(x.base) in backend.DEVICES:
        x = x.base
    return x


def _layout(x: Any, root: Any) -> tuple[Any, ...]:
    start, origin = (backend.DEVICES[type(a)].address(a) for a in (x, root))
    return x.dtype, x.shape, x.strides, start - origin


def data_of(x: Any) -> Any:
    return x.data if isinstance(x, Tensor) else x


def name_of(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__).lstrip("_")


def equal(a: Any, b: Any) -> bool:
    return bool(backend.xp(a).array_equal(a, b, equal_nan=True))
