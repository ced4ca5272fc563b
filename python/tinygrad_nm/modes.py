"""What the tape does at present, of each thread: one object, so that an operation looks its thread up once."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any


class Modes:
    """The modes of one thread."""

    __slots__ = (
        "anomaly",
        "in_rule",
        "layers",
        "placed",
        "recording",
        "recording_of",
        "selecting",
        "special",
        "step",
        "sweeping",
    )

    def __init__(self) -> None:
        self.recording = True  # False under no_grad
        self.in_rule = False  # a first-order rule is running: operations take and give plain arrays
        self.anomaly = False
        self.recording_of: Any = None  # a compiled function's call: see replay.py
        self.special = False  # any of the three: what a plain forward operation need not ask for thrice
        self.selecting = False  # a `where` rule ran in this sweep: see ops.arithmetic.product
        self.sweeping = False  # rules are running: a fault is theirs, not that of the operations they use
        self.placed: set[Any] | None = None  # leaves whose gradient buffer this sweep has given to a rule
        self.step = 0  # optimiser steps of this thread, for messages
        self.layers: list[Any] = []  # modules being called, outermost first


class _Thread(threading.local):
    def __init__(self) -> None:
        self.modes = Modes()


thread = _Thread()
# How often an attribute of any module was set to something else, a parameter moved, or Winograd was switched.
attributes_set = [0]


def unrepeatable(why: str) -> None:
    """Tells a compiled function that is being recorded (replay.py) that what happens now would not happen again."""
    if thread.modes.recording_of is not None:
        thread.modes.recording_of.refuse(why)


class Sweeping:
    """A backward sweep: within it rules run. placing: gradients may be written to the buffers of leaves."""

    __slots__ = ("before", "create_graph", "modes", "placing")

    def __init__(self, create_graph: bool, placing: bool) -> None:
        self.create_graph, self.placing = create_graph, placing and not create_graph

    def __enter__(self) -> Modes:
        m = self.modes = thread.modes
        self.before = m.recording, m.in_rule, m.special, m.selecting, m.sweeping, m.placed
        m.recording, m.in_rule = self.create_graph, not self.create_graph
        m.special = m.in_rule or m.anomaly or m.recording_of is not None
        m.selecting, m.sweeping, m.placed = False, True, set() if self.placing else None
        return m

    def __exit__(self, *exc: Any) -> None:
        m = self.modes
        m.recording, m.in_rule, m.special, m.selecting, m.sweeping, m.placed = self.before


class _mode(contextlib.ContextDecorator):
    recording: bool

    def __init__(self) -> None:
        self.before: list[bool] = []

    def _recreate_cm(self) -> _mode:
        return type(self)()  # a decorated function may run in several threads at once

    def __enter__(self) -> None:
        modes = thread.modes
        self.before.append(modes.recording)
        modes.recording = self.recording

    def __exit__(self, *exc: Any) -> None:
        thread.modes.recording = self.before.pop()


class no_grad(_mode):
    """Within it (a `with` block or a decorated function, this thread only) nothing is recorded."""

    recording = False


class enable_grad(_mode):
    """Within it (this thread only) operations are recorded again, also inside `no_grad()`."""

    recording = True


@contextlib.contextmanager
def detect_anomaly() -> Iterator[None]:
    """Within it the first operation to give NaN or Inf, forward or backward, raises AnomalyError and is named,
    with the layer's path and the optimiser's step. Every result is looked at: for finding a fault, not for speed."""
    unrepeatable("detect_anomaly() looks at every result")
    modes = thread.modes
    before = modes.anomaly, modes.special
    modes.anomaly = modes.special = True
    try:
        yield
    finally:
        modes.anomaly, modes.special = before


def layer_path() -> str:
    """The path of the layer being called, as in `LeNet5.conv1`; empty outside of a model."""
    stack = thread.modes.layers
    names = [type(module).__name__ for module in stack[:1]]
    for parent, child in itertools.pairwise(stack):
        names.append(next((name for name, m in parent.named_children() if m is child), type(child).__name__))
    return ".".join(names)
