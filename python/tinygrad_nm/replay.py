"""compile: a function's kernel calls, recorded once and run again without the Python between them.

The tape finds out anew at each call what is to be computed; for a small network that takes longer than the arithmetic.
Two calls are recorded: which kernels ran, on which memory (recording.py). Where both did the same, the third runs just
these kernels.
"""

from __future__ import annotations

import functools
import threading
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import _cpu, backend
from .modes import attributes_set, thread
from .recording import Recording, data_of, equal, name_of, recorded, root_of
from .tensor import Tensor

MOST_PLANS = 16  # of one compiled function: shapes of its arguments


class Plan:
    """A recording that can be replayed, and what must hold before."""

    def __init__(self, recording: Recording, rebuild: Callable[[list[Any]], Any], zeroed_outside: bool) -> None:
        self.places, self.steps, self.rebuild = recording.places, recording.steps, rebuild
        self.outputs = [data_of(x) for x in recording.outputs]
        self.gradients = [(leaf, leaf.grad, leaf.gradient_buffer) for leaf in recording.leaves]
        self.zeroed_outside = zeroed_outside  # gradients were None already when the function was called
        self.tensors = [t for t in recording.tensors.values() if id(root_of(t[1])) in recording.state]
        self.attributes = recording.attributes
        self.lock = threading.Lock()

    def holds(self) -> bool:
        """Whether the tensors are still on their memory, and no module was changed."""
        if self.attributes != attributes_set[0]:
            return False
        for tensor, data, node in self.tensors:
            if tensor.data is not data or tensor.node is not node:
                return False
        return not self.zeroed_outside or all(leaf.grad is None for leaf, _, _ in self.gradients)

    def run(self, arrays: Sequence[Any]) -> Any:
        """The function's result for these arrays, of the recorded shapes and dtypes."""
        with self.lock:
            for place, given in zip(self.places, arrays):
                place[...] = given
            for function, arguments in self.steps:
                function(*arguments)
            for leaf, gradient, buffer in self.gradients:
                leaf.grad = gradient if gradient is None or gradient.data is buffer else Tensor(buffer)
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
        kinds: list[Any] = [modes.recording, _cpu.isa()]
        arrays: list[Any] = []
        for place, x in enumerate(arguments):
            data = x.data if isinstance(x, Tensor) else x
            if type(data) in backend.DEVICES and data.flags.c_contiguous:
                arrays.append(data)
            elif isinstance(data, np.ndarray) or type(data) in backend.DEVICES:
                return self.function(*arguments)  # a copy is not laid out as it is, and sums go by the layout
            kinds.append(_kind(place, x, data))
        key = tuple(kinds)
        known = self._plans.get(key)
        if isinstance(known, str):
            self.why_not = known
            return self.function(*arguments)
        if isinstance(known, Plan):
            if known.holds():
                return known.run(arrays)
            known = None
        return self._record(key, known, arguments, arrays)

    def _record(self, key: Any, before: Recording | None, arguments: tuple[Any, ...], arrays: list[Any]) -> Any:
        """Calls the function, and makes a plan if the call before was recorded, too."""
        recording = Recording([a.copy() for a in arrays], before)
        places = iter(recording.places)
        stand_ins = [
            Tensor(next(places)) if isinstance(x, Tensor) else next(places) if type(x) in backend.DEVICES else x
            for x in arguments
        ]
        zeroed_outside = before is not None and any(leaf.grad is None for leaf in before.leaves)
        with recorded(recording):
            result = self.function(*stand_ins)
        outputs, rebuild = _taken_apart(result)
        recording.returned(outputs)
        for given, place in zip(arrays, recording.places):
            if recording.why is not None and not equal(given, place):
                given[...] = place  # the function writes to its argument
        why = recording.why if before is None or recording.moved else recording.difference(before)
        recording.before = None
        comparable = before is not None and not recording.moved
        self._keep(key, why or (Plan(recording, rebuild, zeroed_outside) if comparable else recording))
        return result if why is not None else rebuild([data_of(x).copy() for x in outputs])

    def _keep(self, key: Any, known: Plan | Recording | str) -> None:
        if len(self._plans) >= MOST_PLANS and key not in self._plans:
            self._plans.pop(next(iter(self._plans)), None)
        self._plans[key] = known
        self.why_not = known if isinstance(known, str) else None
        if self.why_not is not None and not self.quiet:
            told = f"compile: {name_of(self.function)} is run as it is: {self.why_not}"
            warnings.warn(told, RuntimeWarning, stacklevel=4)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __getstate__(self) -> dict[str, Any]:
        """A copy records for itself."""
        return vars(self) | {"_plans": {}}


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
    RuntimeWarning unless `quiet`; `why_not` keeps the reason. Not found out: what leaves no trace between the kernels,
    such as appending to a list, an exception caught inside, or a list of layers changed in place between calls.
    All memory of a call is kept for the next one, and written to again: keep results, not arrays from inside.
    Raises TypeError for an argument that is neither an array nor hashable.
    """
    return Compiled(function, quiet)


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
    if isinstance(x, tuple):
        return (tuple, *[_kind(place, item, item) for item in x])
    return type(x), repr(x) if isinstance(x, float) else x  # 0.0 and -0.0 are equal


def _taken_apart(result: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The tensors of a result, and what puts such a result together from new arrays."""
    if result is None:
        return [], lambda arrays: None
    kind: Any = type(result)
    several = kind in (dict, tuple, list)
    values = list(result.values() if kind is dict else result) if several else [result]
    tensors = [isinstance(x, Tensor) for x in values]

    def rebuild(arrays: list[Any]) -> Any:
        new = [Tensor(a) if is_tensor else a for is_tensor, a in zip(tensors, arrays, strict=True)]
        return kind(zip(result, new, strict=True) if kind is dict else new) if several else new[0]

    return values, rebuild
