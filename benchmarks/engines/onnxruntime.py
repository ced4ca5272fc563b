"""ONNX Runtime: inference of models exported from PyTorch, with all graph optimisations."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from engines import Unsupported, Work
from workloads import Case

NAME = "onnxruntime"
SMALL = 16  # examples: up to here one thread may be faster than several
_threads = 1
_folder = tempfile.TemporaryDirectory(prefix="benchmarks-onnx-")


def start(threads: int) -> str:
    """Sets the number of threads; the version."""
    global _threads
    _threads = threads
    onnxruntime.set_default_logger_severity(3)
    return f"onnxruntime {onnxruntime.__version__}"


def prepare(case: Case, inputs: dict[str, np.ndarray]) -> dict[str, Work | str]:
    """Sessions with all threads and, for small batches, with one. Idle sessions do not spin: threads may in a run."""
    if case.kind != "infer":
        raise Unsupported("onnxruntime is compared in inference alone")
    file = exported(case, inputs["x"])
    counts = {_threads, 1} if case.options["batch"] <= SMALL else {_threads}
    return {f"{n} thread{'s' * (n > 1)}": _session(file, n, inputs["x"]) for n in sorted(counts, reverse=True)}


def _session(file: Path, threads: int, x: np.ndarray) -> Work:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run() -> Any:
        return session.run(None, {"x": x})

    return Work(run, lambda: {"scores": run()[0]})


def exported(case: Case, x: np.ndarray) -> Path:
    """The model as an ONNX file, exported once."""
    file = Path(_folder.name, f"{case.options['model']}-{case.options['batch']}-{case.dtype}.onnx")
    if file.exists():
        return file
    try:
        import torch

        from engines.torch import Net
    except ImportError as error:
        raise Unsupported(f"the models are exported from PyTorch: {error}") from error
    network = Net(case.options["model"], case.dtype).eval()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.from_numpy(x),),
            str(file),
            input_names=["x"],
            output_names=["scores"],
            dynamo=True,
            verbose=False,
        )
    return file
