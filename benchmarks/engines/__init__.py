"""One module an engine. Each lives in a worker process of its own and gives for a case what it can run.

A module has `NAME`, `start(threads) -> version` and `prepare(case, inputs) -> {variant: Work or reason}`: the ways in
which this engine can do the work (memory formats, compilers), of which the fastest counts. A reason says why a variant
cannot run here. `Unsupported` says that the engine has no such work at all.
"""

from __future__ import annotations

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


PEERS = ("torch", "jax", "numpy", "onnxruntime")
PACKAGES = {"ours": "tinygrad_nm", "onnxruntime": "onnxruntime"}


def package(engine: str) -> str:
    """The package that an engine needs."""
    return PACKAGES.get(engine, engine)
