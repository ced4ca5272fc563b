"""What this machine can do at most: peak arithmetic and memory bandwidth, measured, and what follows for an operation.

The roofline model (Williams, Waterman, Patterson 2009): an operation of F operations that moves B bytes takes at least
max(F / peak, B / bandwidth) seconds. Needs NumPy and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_nm as nm
from tinygrad_nm import _cpu, backend

READ_ROWS = 64  # tasks among which reading is shared
ROW = 192  # numbers: whole registers of every instruction set, twelve times
LAST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
FOOTPRINTS = tuple(2**k for k in range(20, 29, 2))  # bytes: 1 to 256 MiB, and then memory far beyond the last cache


@dataclass(frozen=True)
class Limits:
    """Peaks of one dtype with so many threads.

    arithmetic: additions and multiplications a second, by chains of fma in registers. copy, triad, read: bytes a
    second of out = x, out = x + s z and a sum, on arrays far beyond the last cache; update: of out += s z, which
    fetches nothing only to overwrite it. bandwidths: (bytes touched, bytes a second of the faster of copy and
    triad), rising in size, since what fits into a cache moves faster; updates: the same of update.
    """

    dtype: str
    threads: int
    isa: str
    arithmetic: float
    copy: float
    triad: float
    read: float
    update: float
    bandwidths: tuple[tuple[int, float], ...]
    updates: tuple[tuple[int, float], ...]

    @property
    def memory(self) -> float:
        """Bytes a second from and to memory: the faster of copy and triad."""
        return max(self.copy, self.triad)

    def bandwidth(self, moved: float, in_place: bool = False) -> float:
        """Bytes a second for an operation that touches `moved` bytes: that of the largest size measured up to it."""
        ladder = self.updates if in_place else self.bandwidths
        fitting = [rate for size, rate in ladder if size <= moved]
        return fitting[-1] if fitting else ladder[0][1]

    def seconds(self, flops: float, moved: float, in_place: bool = False) -> float:
        """The least time of `flops` operations on `moved` bytes."""
        return max(flops / self.arithmetic, moved / self.bandwidth(moved, in_place))

    def bound(self, flops: float, moved: float, in_place: bool = False) -> str:
        """What that time is bound by: "arithmetic" or "memory"."""
        arithmetic = flops / self.arithmetic >= moved / self.bandwidth(moved, in_place)
        return "arithmetic" if arithmetic else "memory"

    def or_higher(self, again: Limits) -> Limits:
        """The higher of two measurements of each figure: what disturbs one only makes it lower."""
        higher: dict[str, Any] = {}
        for name in ("arithmetic", "copy", "triad", "read", "update"):
            higher[name] = max(getattr(self, name), getattr(again, name))
        for name in ("bandwidths", "updates"):
            pairs = zip(getattr(self, name), getattr(again, name))
            higher[name] = tuple((size, max(a, b)) for (size, a), (_, b) in pairs)
        return replace(self, **higher)

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers and lists, for JSON."""
        return asdict(self) | {"memory": self.memory}

    def __str__(self) -> str:
        return (
            f"{self.isa}, {self.dtype}, {self.threads} thread{'s' * (self.threads > 1)}:"
            f" {self.arithmetic / 1e9:.1f} GFLOP/s in registers;"
            f" memory: copy {self.copy / 1e9:.1f}, triad {self.triad / 1e9:.1f},"
            f" update {self.update / 1e9:.1f}, read {self.read / 1e9:.1f} GB/s"
        )


def measure(dtype: str = "float32", threads: int | None = None, seconds: float = 0.1) -> Limits:
    """The limits here and now; each figure is the best of runs that take about `seconds` together."""
    with threads_set(threads):
        count = nm.get_num_threads()
        element = np.dtype(dtype)
        far = far_footprint()
        kinds = ("copy", "triad", "update")
        ladder = [(size, {kind: _rate(kind, size, element, seconds) for kind in kinds}) for size in FOOTPRINTS]
        ladder.append((far, {kind: _rate(kind, far, element, 3 * seconds) for kind in kinds}))
        return Limits(
            dtype=str(element),
            threads=count,
            isa=_cpu.isa(),
            arithmetic=_arithmetic(element, count, seconds),
            read=_rate("read", far, element, 3 * seconds),
            **ladder[-1][1],
            bandwidths=tuple((size, max(rates["copy"], rates["triad"])) for size, rates in ladder),
            updates=tuple((size, rates["update"]) for size, rates in ladder),
        )


@contextlib.contextmanager
def threads_set(threads: int | None) -> Iterator[None]:
    """Within it the kernels use at most so many threads (None: as many as before)."""
    before = nm.get_num_threads()
    if threads is not None:
        backend.set_num_threads(threads)
    try:
        yield
    finally:
        backend.set_num_threads(before)


def far_footprint() -> int:
    """Bytes far beyond the last cache: four times its size, at least 512 MiB, at most a quarter of the memory."""
    try:
        text = LAST_CACHE.read_text().strip()
        cache = int(text.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1)
    except (OSError, ValueError):
        cache = 0
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(FOOTPRINTS[-1], min(max(2**29, 4 * cache), memory // 4))


def best_seconds(run: Callable[[], Any], seconds: float, least: int = 10) -> float:
    """The shortest of the runs that fit into `seconds`, of at least `least`, after one that is not counted."""
    run()
    best, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < least or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
        runs += 1
    return best


def _arithmetic(dtype: np.dtype, threads: int, seconds: float) -> float:
    rows, repeats = 4 * threads, 40_000
    x = np.ones((rows, ROW), dtype)
    out = np.empty_like(x)
    taken = best_seconds(lambda: _cpu.peak_arithmetic(out, x, 0.5, 1.0, repeats), seconds)
    return 2.0 * rows * ROW * repeats / taken


def _rate(kind: str, footprint: int, dtype: np.dtype, seconds: float) -> float:
    """Bytes a second of copy, triad, update or read on arrays of `footprint` bytes together."""
    arrays = {"copy": 2, "triad": 3, "update": 2, "read": 1}[kind]
    n = footprint // arrays // dtype.itemsize
    x, out = np.ones(n, dtype), np.zeros(n, dtype) if kind != "read" else np.zeros(READ_ROWS, dtype)
    z = np.ones(n, dtype) if kind == "triad" else None
    run = {
        "copy": lambda: _cpu.peak_memory(out, x, None, 0.0),
        "triad": lambda: _cpu.peak_memory(out, x, z, 3.0),
        "update": lambda: _cpu.peak_memory(out, None, x, 1e-3),
        "read": lambda: _cpu.peak_read(out, x.reshape(READ_ROWS, -1)),
    }[kind]
    passes = 3 if kind == "update" else arrays  # out is read and written
    return passes * n * dtype.itemsize / best_seconds(run, seconds)
