"""PyTorch on a GPU: cuBLAS and cuDNN, without TF32. The work is that of engines/torch.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from engines import Work, rotated
from engines import torch as host
from workloads import Case

NAME = "torch_cuda"


def start(threads: int) -> str:
    """Chooses the GPU, and float32 that is float32; the version."""
    host.DEVICE = "cuda"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    return f"{host.start(threads)}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def prepare(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    """All variants of the work."""
    return rotated(host.prepare, case, inputs)


def clock(run: Callable[[], Any], calls: int) -> float:
    """Seconds between two events around so many calls."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return 1e-3 * begin.elapsed_time(end)
