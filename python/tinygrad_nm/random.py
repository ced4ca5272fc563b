"""One seed per thread: a NumPy generator for initial weights and data, numbered Philox streams for dropout.

A dropout bit is a function of (seed, stream, example, element) alone (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"), so that a resumed run draws the same once `set_state` has restored the stream.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from .modes import unrepeatable


class _Randomness(threading.local):
    def __init__(self) -> None:
        self.seed(0)

    def seed(self, seed: int) -> None:
        self.key = int(seed)
        self.stream = 0
        self.generator = np.random.Generator(np.random.Philox(self.key))


_randomness = _Randomness()


def manual_seed(seed: int) -> None:
    """Seeds this thread: initial weights, data generators and dropout (0 <= seed < 2**64)."""
    if not 0 <= int(seed) < 2**64:
        raise ValueError(f"manual_seed: {seed} is outside 0 .. 2**64 - 1")
    unrepeatable("manual_seed() is called")
    _randomness.seed(seed)


def generator() -> np.random.Generator:
    """This thread's NumPy generator, seeded by `manual_seed` (0 at the start)."""
    unrepeatable("random.generator() draws anew at each call")
    return _randomness.generator


def next_stream() -> tuple[int, int]:
    """(seed, number) of the next dropout stream of this thread."""
    unrepeatable("dropout draws anew at each call")
    stream = _randomness.stream
    _randomness.stream = stream + 1
    return _randomness.key, stream


def get_state() -> dict[str, Any]:
    """This thread's seed, next dropout stream and generator state, to resume a run from."""
    r = _randomness
    return {"seed": r.key, "stream": r.stream, "generator": r.generator.bit_generator.state}


def set_state(state: dict[str, Any]) -> None:
    """Restores what `get_state` gave."""
    unrepeatable("random.set_state() is called")
    _randomness.seed(state["seed"])
    _randomness.stream = state["stream"]
    _randomness.generator.bit_generator.state = state["generator"]
