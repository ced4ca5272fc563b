"""compile: a function's kernel calls, recorded once and run again without the Python between them.

The tape finds out anew at each call what is to be computed; for a small network that takes longer than the arithmetic.
Two calls are recorded: which kernels ran, on which memory. Where both did the same, the third runs just these kernels.

Which of NumPy's computations stand between the kernels cannot be seen, but what they leave behind can. Each array that
a recorded step reads must be an argument, or written by an earlier step, or the same memory in both recordings, which
keep alive what they saw: a parameter, a velocity. Anything else would not be computed again, and so forbids replaying,
as do a value read into Python, a write past the kernels and a number that differs (the stream of a dropout).
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import backend
from .modes import attributes_set, thread
from .tensor import Node, Tensor

MOST_PLANS = 16  # of one compiled function: shapes of its arguments

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
FREE = {"conv2d_pool2d_kept", "empty"}  # functions of the extension that compute nothing from numbers


def unrepeatable(why: str) -> None:
    """Tells a recording in progress that what happens now would not happen again."""
    if thread.modes.recording_of is not None:
        thread.modes.recording_of.refuse(why)


def repeated(function: Callable[..., Any], *arguments: Any, written: tuple[int, ...] = (0,)) -> None:
    """Calls function(*arguments), and lets a compiled function call it again. written: places of arrays it fills."""
    recording = thread.modes.recording_of
    if recording is None:
        function(*arguments)
    else:
        recording.step(written, function, *arguments)


class Recording:
    """What one call of a function did. Made from the arrays that stand for its arguments."""

    def __init__(self, places: Sequence[Any]) -> None:
        self.places = places
        self.steps: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.roots: dict[int, int] = {id(_root(p)): i for i, p in enumerate(places)}  # id -> order of appearance
        self.kept: list[Any] = [_root(p) for p in places]  # alive, so that no id is used again
        self.state: dict[int, str] = {}  # roots that were read before any step wrote them -> what read them
        self.leaves: list[Tensor] = []
        self.tensors: dict[int, tuple[Tensor, Any, Node | None]] = {}
        self.outputs: list[Any] = []
        self.why: str | None = None
        self.within = False  # a step: what it calls belongs to it
        self.attributes = attributes_set[0]

    def step(self, written: tuple[int, ...], function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a step and notes it."""
        if self.within:
            return function(*arguments)
        self.within = True
        try:
            result = function(*arguments)
        finally:
            self.within = False
        for place, x in enumerate(arguments):
            if type(x) in backend.DEVICES:
                root = _root(x)
                if id(root) not in self.roots:
                    self.roots[id(root)] = len(self.kept)
                    self.kept.append(root)
                    if place not in written:
                        self.state[id(root)] = f"{_name(function)} reads an array of shape {x.shape}"
        self.steps.append((function, arguments))
        return result

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
        """Notes what the function gave."""
        self.outputs = outputs
        for x in outputs:
            node = x.node if isinstance(x, Tensor) else None
            if node is not None and node.rule is not None and node.saved is not None:
                self.refuse("a result still needs its graph; call backward() in the function, or use no_grad()")
            elif not isinstance(x, (Tensor, *backend.DEVICES)):
                self.refuse(f"it returns {type(x).__name__}, not a tensor")
            elif id(_root(_data(x))) not in self.roots:
                self.refuse(f"no kernel wrote the result of shape {_data(x).shape}")
        if attributes_set[0] != self.attributes:
            self.refuse("an attribute of a module is set in the function")

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
                return f"it ran {_name(before)} at first and then {_name(function)}"
            for x, y in zip(arguments, earlier, strict=True):
                if not self._same(x, y, other):
                    return f"{_name(function)} is called with other arguments at each call"
        if any(a is not b for a, b in zip(self.leaves, other.leaves, strict=True)):
            return "it gives other parameters a gradient at each call"
        if any(not self._same(_data(x), _data(y), other) for x, y in zip(self.outputs, other.outputs, strict=True)):
            return "it returns another result at each call"
        return None

    def _same(self, x: Any, y: Any, other: Recording) -> bool:
        if type(x) is not type(y):
            return False
        if type(x) not in backend.DEVICES:
            return bool(x == y)
        a, b = _root(x), _root(y)
        if id(a) in self.state or id(b) in other.state:
            return a is b and _layout(x, a) == _layout(y, b)
        return self.roots.get(id(a)) == other.roots.get(id(b)) and _layout(x, a) == _layout(y, b)


class Plan:
    """A recording that can be replayed, and what must hold before."""

    def __init__(self, recording: Recording, rebuild: Callable[[list[Any]], Any], zeroed_outside: bool) -> None:
        self.places, self.steps, self.rebuild = recording.places, recording.steps, rebuild
        self.outputs = [_data(x) for x in recording.outputs]
        self.gradients = [(leaf, leaf.grad) for leaf in recording.leaves]
        self.zeroed_outside = zeroed_outside  # gradients were None already when the function was called
        self.tensors = [t for t in recording.tensors.values() if id(_root(t[1])) in recording.state]
        self.attributes = recording.attributes
        self.lock = threading.Lock()

    def holds(self) -> bool:
        """Whether the tensors are still on their memory, and no module was changed."""
        if self.attributes != attributes_set[0]:
            return False
        for tensor, data, node in self.tensors:
            if tensor.data is not data or tensor.node is not node:
                return False
        return not self.zeroed_outside or all(leaf.grad is None for leaf, _ in self.gradients)

    def run(self, arrays: Sequence[Any]) -> Any:
        """The function's result for these arrays, of the recorded shapes and dtypes."""
        with self.lock:
            for place, given in zip(self.places, arrays):
                place[...] = given
            for function, arguments in self.steps:
                function(*arguments)
            for leaf, gradient in self.gradients:
                leaf.grad = gradient
            return self.rebuild([x.copy() for x in self.outputs])


class Compiled:
    """See `compile`. why_not: why the last arguments' shapes are not replayed; None where they are, or will be."""

    def __init__(self, function: Callable[..., Any], quiet: bool) -> None:
        functools.update_wrapper(self, function)
        self.function, self.quiet = function, quiet
        self.why_not: str | None = None
        self._plans: dict[Any, Plan | Recording | str] = {}

    def __call__(self, *arguments: Any) -> Any:
        modes = thread.modes
        if modes.recording_of is not None or modes.sweeping or modes.anomaly:
            return self.function(*arguments)
        arrays = [x.data if isinstance(x, Tensor) else x for x in arguments]
        key = (modes.recording, *map(_kind, range(len(arrays)), arguments, arrays))
        known = self._plans.get(key)
        if isinstance(known, str):
            self.why_not = known
            return self.function(*arguments)
        arrays = [a for a in arrays if type(a) in backend.DEVICES]
        if isinstance(known, Plan):
            if known.holds():
                return known.run(arrays)
            known = None
        return self._record(key, known, arguments, arrays)

    def _record(self, key: Any, before: Recording | None, arguments: tuple[Any, ...], arrays: list[Any]) -> Any:
        """Calls the function, and makes a plan if the call before was recorded, too."""
        recording = Recording([a.copy() for a in arrays])
        places = iter(recording.places)
        stand_ins = [
            Tensor(next(places)) if isinstance(x, Tensor) else next(places) if type(x) in backend.DEVICES else x
            for x in arguments
        ]
        zeroed_outside = before is not None and any(leaf.grad is None for leaf in before.leaves)
        with _recorded(recording):
            result = self.function(*stand_ins)
        outputs, rebuild = _taken_apart(result)
        recording.returned(outputs)
        why = recording.why if before is None else recording.difference(before)
        if len(self._plans) >= MOST_PLANS and key not in self._plans:
            self._plans.pop(next(iter(self._plans)))
        self.why_not = why
        if why is not None:
            self._plans[key] = why
            if not self.quiet:
                warnings.warn(f"compile: {_name(self.function)} is run as it is: {why}", RuntimeWarning, stacklevel=3)
        else:
            self._plans[key] = recording if before is None else Plan(recording, rebuild, zeroed_outside)
        if why is not None or recording.why is not None:
            return result
        return rebuild([_data(x).copy() for x in outputs])


def compile(function: Callable[..., Any], *, quiet: bool = False) -> Compiled:
    """`function` without the tape's share of its time: from the third call on only its kernels run.

    For a whole training step or an inference of a small network, where Python takes longer than the arithmetic:

        @nm.compile
        def step(x, labels):
            loss = nm.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

    The same kernels run on the same numbers, so the results are the same bits. Arguments: arrays and tensors, which are
    copied, and plain values; for each set of shapes, dtypes and plain values two calls are recorded. It gives copies
    without history. The gradients and updates made inside remain; the optimiser's lr may change between calls.
    What Python decides in it is decided when it is recorded, and what NumPy computes there is not repeated: a function
    that needs it (dropout, values read by `item`, arithmetic by operators) is found out and runs as it is, with a
    RuntimeWarning unless `quiet`; `why_not` keeps the reason. All memory of a call is kept for the next one.
    Raises TypeError for an argument that is neither an array nor hashable.
    """
    return Compiled(function, quiet)


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


class _recorded:
    """Within it the kernels that this thread calls are steps of the recording."""

    lock = threading.Lock()
    threads = 0  # that record

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    def __enter__(self) -> None:
        with _recorded.lock:
            _recorded.threads += 1
            if _recorded.threads == 1:
                for kind, (name, module, xp) in backend.DEVICES.items():
                    backend.DEVICES[kind] = name, _Kernels(module), xp
        thread.modes.recording_of, thread.modes.special = self.recording, True

    def __exit__(self, *exc: Any) -> None:
        thread.modes.recording_of, thread.modes.special = None, thread.modes.in_rule or thread.modes.anomaly
        with _recorded.lock:
            _recorded.threads -= 1
            if _recorded.threads == 0:
                for kind, (name, kernels, xp) in backend.DEVICES.items():
                    backend.DEVICES[kind] = name, kernels.module, xp


def _root(x: Any) -> Any:
    """The array that owns the memory of a view, as far as arrays go."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return x


def _layout(x: Any, root: Any) -> tuple[Any, ...]:
    start, origin = (a.__array_interface__["data"][0] for a in (x, root))
    return x.dtype, x.shape, x.strides, start - origin


def _data(x: Any) -> Any:
    return x.data if isinstance(x, Tensor) else x


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__).lstrip("_")


def _kind(place: int, x: Any, data: Any) -> Any:
    """What of an argument decides whether a plan fits."""
    if type(data) in backend.DEVICES:
        if x is not data and x.node is not None:
            raise TypeError(
                f"compile: argument {place} requires a gradient, which would not flow back; give x.detach(), or the "
                "array, and call backward() inside"
            )
        return type(x), data.dtype.char if data.dtype.isnative else data.dtype, data.shape  # hashing a dtype is slow
    try:
        hash(x)
    except TypeError:
        raise TypeError(f"compile: argument {place} is a {type(x).__name__}; give an array or a plain value") from None
    return type(x), x


def _taken_apart(result: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The tensors of a result, and what puts such a result together from new arrays."""

    def again(x: Any) -> Callable[[Any], Any]:
        return Tensor if isinstance(x, Tensor) else lambda data: data

    if result is None:
        return [], lambda arrays: None
    if isinstance(result, dict):
        names, values = list(result), list(result.values())
        made = [again(x) for x in values]
        return values, lambda arrays: {n: make(a) for n, make, a in zip(names, made, arrays, strict=True)}
    if isinstance(result, (tuple, list)):
        kind, made = type(result), [again(x) for x in result]
        return list(result), lambda arrays: kind([make(a) for make, a in zip(made, arrays, strict=True)])
    make = again(result)
    return [result], lambda arrays: make(arrays[0])
