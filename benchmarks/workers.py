"""The parent's side of worker.py: processes with one engine each, and their variants as contestants of the timer.

BENCHMARKS_DEBUG=1 in the environment shows what the engines themselves print.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from engines import Unsupported, package
from workloads import Case

HERE = Path(__file__).resolve().parent


# What keeps each engine from instructions beyond AVX2, so that a newer processor shows what an older one would do.
# ONNX Runtime chooses by the processor alone.
AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
ONLY_AVX2 = {
    "TINYGRAD_NM_ISA": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": AVX512,
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}
UNLIMITED = ("onnxruntime",)


class Failed(Exception):
    """A worker could not do what it was asked for."""


class Worker:
    """A process with one engine, limited to so many processors and threads, and to AVX2 where asked for."""

    def __init__(self, engine: str, threads: int, avx2: bool = False) -> None:
        self.engine = engine
        allowed = sorted(os.sched_getaffinity(0))[:threads]
        environment = os.environ | dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"), str(threads)
        )
        environment |= {"PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu", "TORCH_LOGS": "-all"}
        environment |= ONLY_AVX2 if avx2 else {}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), engine, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCHMARKS_DEBUG") else subprocess.DEVNULL,
            env=environment,
        )
        os.sched_setaffinity(self.process.pid, allowed)  # JAX takes as many threads as there are processors
        self.clock = (~self.process.pid << 3) | 2  # the processor time of all threads of that process, in ns
        try:
            self.version: str = self._reply()
        except Failed:
            self.close()
            raise

    def ask(self, method: str, *arguments: Any) -> Any:
        """The engine's reply. Raises Unsupported for work that it does not know, Failed for anything else."""
        assert self.process.stdin is not None
        try:
            pickle.dump((method, arguments), self.process.stdin)
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._reply()

    def _reply(self) -> Any:
        assert self.process.stdout is not None
        try:
            kind, value = pickle.load(self.process.stdout)
        except EOFError:
            raise self._ended() from None
        if kind == "ok":
            return value
        raise Unsupported(value) if kind == "unsupported" else Failed(f"{self.engine}: {value}")

    def _ended(self) -> Failed:
        return Failed(f"{self.engine}: the worker ended with status {self.process.wait()}")

    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far; of one that has ended, as if it slept."""
        try:
            return time.clock_gettime(self.clock)
        except OSError:
            return 0.0

    def close(self) -> None:
        """Ends the process."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Variant(NamedTuple):
    """One way in which a worker does the case: what the timer times."""

    worker: Worker
    name: str

    def time(self, calls: int) -> float:
        """Seconds of so many calls."""
        return self.worker.ask("time", self.name, calls)

    def cpu_seconds(self) -> float:
        """Processor time of the worker."""
        return self.worker.cpu_seconds()

    @property
    def key(self) -> str:
        """`torch: channels_last`."""
        return f"{self.worker.engine}: {self.name}" if self.name else self.worker.engine


def missing(engine: str) -> str | None:
    """One line if the engine's package is not installed."""
    if find_spec(package(engine)) is not None:
        return None
    return f"{engine} is not installed and not compared: pip install 'tinygrad-nm[bench]'"


def started(engines: list[str], threads: int, avx2: bool, say: Any) -> dict[str, Worker]:
    """A worker for each engine that is there; for each that is not, a line that says so."""
    workers: dict[str, Worker] = {}
    for engine in engines:
        line = missing(engine)
        if line is not None:
            say(line)
            continue
        if avx2 and engine in UNLIMITED:
            say(f"{engine} cannot be kept to AVX2: it uses all that the processor has")
        try:
            workers[engine] = Worker(engine, threads, avx2)
        except Failed as error:
            say(f"{engine} cannot start and is not compared: {error}")
    return workers


def prepared(worker: Worker, case: Case, say: Any) -> list[Variant]:
    """The variants that can run; for each that cannot, a line that says why."""
    variants = []
    for name, reason in worker.ask("prepare", case).items():
        if reason is None:
            variants.append(Variant(worker, name))
        else:
            say(f"{case.key}: {worker.engine}: {name}: {reason}")
    return variants
