"""NumPy with its BLAS: products and elementwise functions into `out=`."""

from __future__ import annotations

from typing import Any

import numpy as np

from engines import Unsupported, Work
from workloads import Case

NAME = "numpy"


def start(threads: int) -> str:
    """The version, with that of the BLAS. Its threads come from the environment of the worker."""
    blas: Any = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index]
    return f"numpy {np.__version__} ({blas['name']} {blas['version']})"


def prepare(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    """GEMM, relu and tanh."""
    if case.kind == "gemm":
        a, b = (inputs[name].T if name in case.options["turned"] else inputs[name] for name in "ab")
        out = np.empty((case.options["m"], case.options["n"]), case.dtype)
        return _one(lambda: np.matmul(a, b, out=out), c=out)
    if case.kind == "activation" and case.options["sweep"] == "forward":
        x, out = inputs["x"], np.empty_like(inputs["x"])
        functions = {"relu": lambda: np.maximum(x, 0, out=out), "tanh": lambda: np.tanh(x, out=out)}
        if case.options["function"] in functions:
            return _one(functions[case.options["function"]], y=out)
    raise Unsupported("numpy has no such function")


def _one(run: Any, **results: np.ndarray) -> dict[str, Work | str]:
    def answer() -> dict[str, np.ndarray]:
        run()
        return results

    return {"": Work(run, answer)}
