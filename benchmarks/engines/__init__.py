"""One module an engine. Each lives in a worker process of its own and gives for a case what it can run.

A module has `NAME`, `start(threads) -> version` and `prepare(case, inputs) -> {variant: Work or reason}`: the ways in
which this engine can do the work (memory formats, compilers), of which the fastest counts. A reason says why a variant
cannot run here. `Unsupported` says that the engine has no such work at all. A module of a device may have
`clock(run, calls) -> seconds`, by the device's own events.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Unsupported(Exception):
    """The engine does not do this kind of work."""


class Work(NamedTuple):
    """run: one call, as it is timed. answer: what it computes, by name, from the initial state; called once, first.

    enter: called before a turn, to bring the engine into the variant's state (its number of threads).
    """

    run: Callable[[], Any]
    answer: Callable[[], dict[str, np.ndarray]]
    enter: Callable[[], Any] | None = None


Prepare = Callable[[Any, dict[str, np.ndarray]], dict[str, Work | str]]


COPIES_BYTES = 256e6  # beyond the second-level cache of every card


def rotated(prepare: Prepare, case: Any, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    """A kernel's work on copies of its inputs in turn, as many as no cache holds (at most 16); others as they are."""
    copies = 1 if case.moved == 0 else max(1, min(16, int(COPIES_BYTES / case.moved)))
    made = [prepare(case, inputs) for _ in range(copies)]
    return {name: _in_turn([works[name] for works in made]) for name in made[0]}


def _in_turn(works: list[Work | str]) -> Work | str:
    first, runs = works[0], itertools.cycle([work.run for work in works if isinstance(work, Work)])
    return first._replace(run=lambda: next(runs)()) if isinstance(first, Work) else first


PEERS = ("torch", "jax", "numpy", "onnxruntime")
PACKAGES = {"ours": "tinygrad_nm", "ours_cuda": "tinygrad_nm", "torch_cuda": "torch"}


def package(engine: str) -> str:
    """The package that an engine needs."""
    return PACKAGES.get(engine, engine)
