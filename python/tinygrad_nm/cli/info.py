"""What `tinygrad-nm info` prints: how this installation was built and what it uses here."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

import tinygrad_nm as nm
from tinygrad_nm import DeviceError, _cpu, backend

T = TypeVar("T")


def report() -> str:
    """Version, build options, CUDA, devices and why not, instruction sets, threads. Needs NumPy and nothing else."""
    options = _cpu.build_options()
    cuda = options.pop("cuda")
    devices = [(name, _device_state(name)) for name in (backend.CPU.name, *backend.LOADERS)]
    lines = [
        f"tinygrad_nm {nm.__version__}",
        f"running on    Python {platform.python_version()}, NumPy {np.__version__}, {platform.platform()}",
        *(f"{'built with' if first else '':14}{name}: {options[name]}" for first, name in _firsts(options)),
        f"CUDA          {cuda}",
        *(f"{'devices' if first else '':14}{name}: {state}" for first, (name, state) in _firsts(devices)),
        *(
            f"{'instructions' if first else '':14}{name}: {_state(name, available, why)}"
            for first, (name, available, why) in _firsts(_cpu.isas())
        ),
        f"threads       {_cpu.max_threads()} (processors this process may use:"
        f" {len(os.sched_getaffinity(0))},"
        f" OMP_NUM_THREADS: {os.environ.get('OMP_NUM_THREADS', 'not set')})",
    ]
    return "\n".join(lines)


def _firsts(items: Iterable[T]) -> Iterator[tuple[bool, T]]:
    """Each item, and whether it is the first."""
    return ((position == 0, item) for position, item in enumerate(items))


def _device_state(name: str) -> str:
    try:
        backend.device(name)
    except DeviceError as error:
        return str(error).removeprefix(f"device {name!r} is ")
    return "available"


def _state(name: str, available: bool, why: str) -> str:
    if name == _cpu.isa():
        forced = os.environ.get("TINYGRAD_NM_ISA")
        return "in use (forced by TINYGRAD_NM_ISA)" if forced else "in use (the best here)"
    return f"{'available' if available else 'not available'} ({why})"
