"""tinygrad_nm on a GPU. The work is that of engines/ours.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engines import Work, ours, rotated
from tinygrad_nm import backend
from workloads import Case

NAME = "ours_cuda"


def start(threads: int) -> str:
    """Chooses the GPU; the version."""
    ours.DEVICE = "cuda"
    backend.device(ours.DEVICE)
    return f"{ours.start(threads)} on {ours.DEVICE}"


def prepare(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    """All variants of the work."""
    return rotated(ours.prepare, case, inputs)


def clock(run: Callable[[], Any], calls: int) -> float:
    """Seconds between two events around so many calls."""
    from engines import cupy

    return cupy.clock(run, calls)
