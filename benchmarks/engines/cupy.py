"""CuPy: cuBLAS for products, without TF32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from engines import Unsupported, Work, rotated
from workloads import Case

NAME = "cupy"


def start(threads: int) -> str:
    """The version."""
    return f"cupy {cupy.__version__}, CUDA {cupy.cuda.runtime.runtimeGetVersion()}"


def prepare(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    """Products alone: the rest of CuPy calls no library of kernels."""
    if case.kind != "gemm":
        raise Unsupported(f"cupy: no {case.kind}")
    return rotated(_gemm, case, inputs)


def _gemm(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    arrays = {name: cupy.asarray(array) for name, array in inputs.items()}
    a, b = (arrays[name].T if name in case.options["turned"] else arrays[name] for name in "ab")
    out = cupy.empty((case.options["m"], case.options["n"]), case.dtype)

    def answer() -> dict[str, np.ndarray]:
        cupy.matmul(a, b, out=out)
        return {"c": out.get()}

    return {"out=": Work(lambda: cupy.matmul(a, b, out=out), answer)}


def clock(run: Callable[[], Any], calls: int) -> float:
    """Seconds between two events around so many calls."""
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return 1e-3 * cupy.cuda.get_elapsed_time(begin, end)
