"""A process with one engine: `python worker.py ENGINE THREADS`, driven by pickled requests on its standard input.

A request is (method, arguments), a reply ("ok", result) or (kind of error, text). What an engine prints goes to the
standard error: the standard output carries replies alone.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from engines import Unsupported, Work
from workloads import Case

WAKE = 0.01  # seconds of calls before those that count: threads that slept take some milliseconds to run on all cores
SLOW = 0.1  # seconds of a call beside which that is nothing
SAMPLE = 4096  # numbers of each array of an answer that are compared


class Engine:
    """What a request can ask for."""

    def __init__(self, name: str, threads: int) -> None:
        self.module = importlib.import_module(f"engines.{name}")
        self.version = self.module.start(threads)
        self.clock = getattr(self.module, "clock", host_clock)
        self.works: dict[str, Work] = {}
        self.last: dict[str, float] = {}  # seconds of a call, by variant

    def prepare(self, case: Case) -> dict[str, str | None]:
        """Makes the case's work ready: for each variant None, or the reason why it cannot run."""
        self.works.clear()
        self.last.clear()
        gc.collect()
        made = self.module.prepare(case, case.inputs())
        self.works = {name: work for name, work in made.items() if isinstance(work, Work)}
        return {name: None if isinstance(work, Work) else work for name, work in made.items()}

    def answer(self, variant: str) -> dict[str, dict[str, Any]]:
        """A sample of what the variant computes."""
        work = self.works[variant]
        if work.enter is not None:
            work.enter()
        return {name: digest(array) for name, array in work.answer().items()}

    def keep(self, variants: list[str]) -> None:
        """Forgets all other variants of the case."""
        self.works = {name: work for name, work in self.works.items() if name in variants}

    def time(self, variant: str, calls: int) -> float:
        """Seconds of so many calls, after some that do not count, without Python's garbage collector."""
        work = self.works[variant]
        if work.enter is not None:
            work.enter()
        run = work.run
        gc.disable()
        awake = time.perf_counter() + WAKE
        while self.last.get(variant, 0.0) < SLOW and time.perf_counter() < awake:
            run()
        seconds = self.clock(run, calls)
        gc.enable()
        self.last[variant] = seconds / calls
        return seconds

    def peak_memory(self) -> int:
        """The most bytes that the process has had in memory (VmHWM)."""
        with open("/proc/self/status", encoding="ascii") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


def host_clock(run: Callable[[], Any], calls: int) -> float:
    """Seconds of so many calls, by the host's clock."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - start


def digest(array: np.ndarray) -> dict[str, Any]:
    """The shape of an array, its largest magnitude, and numbers of it at places that follow from the shape alone."""
    array = np.asarray(array)
    flat = np.ascontiguousarray(array).reshape(-1)
    places = np.unique(np.linspace(0, flat.size - 1, min(SAMPLE, flat.size)).astype(np.int64))
    largest = max(abs(float(flat.max())), abs(float(flat.min()))) if flat.size else 0.0
    return {"shape": array.shape, "largest": largest, "sample": flat[places].astype(np.float64)}


def serve(engine: str, threads: int) -> None:
    """Answers requests until the standard input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def reply(kind: str, value: Any) -> None:
        pickle.dump((kind, value), replies)
        replies.flush()

    try:
        served = Engine(engine, threads)
    except Exception as error:
        reply("error", f"{type(error).__name__}: {error}")
        return
    reply("ok", served.version)
    while True:
        try:
            method, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply("ok", getattr(served, method)(*arguments))
        except Unsupported as reason:
            reply("unsupported", str(reason))
        except Exception as error:
            reply("error", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
