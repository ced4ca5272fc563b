"""What is timed: a case is plain data that every engine understands, with inputs that follow from it alone."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from networks import NETWORKS, Conv, Linear

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "MiB": 2.0**-20}


@dataclass(frozen=True)
class Case:
    """One row of a benchmark.

    name: benchmark, then model as on the command line or layer, then pass. shape: what distinguishes rows of one name.
    kind: what the engines know it by; options: its numbers. per: a figure is divided by this (images of a batch,
    operations of a chain). flops, moved: the least a call does, in operations and bytes; 0 where that says nothing.
    in_place: what is written was read before. variant: the only one that an engine need prepare, if not all.
    """

    name: str
    shape: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    unit: str = "us"
    per: int = 1
    flops: float = 0.0
    moved: float = 0.0
    in_place: bool = False
    variant: str | None = None

    @property
    def key(self) -> str:
        """Name, shape and dtype: no two rows share them."""
        return f"{self.name} {self.shape} {self.dtype}"

    def figure(self, value: float) -> float:
        """Seconds (or bytes) of a call in the unit of the row."""
        return value * UNITS[self.unit.split("/")[0]] / self.per

    def inputs(self) -> dict[str, np.ndarray]:
        """The same arrays in every process."""
        generator = np.random.default_rng(zlib.crc32(self.key.encode()))
        return INPUTS[self.kind](generator, np.dtype(self.dtype), **self.options)


def _numbers(z: Any, shape: Any, dtype: Any) -> np.ndarray:
    """Of mean 0 and variance 1; uniform, which is four times faster to draw than normal."""
    found: np.ndarray = z.random(shape, dtype)
    found -= 0.5
    found *= np.sqrt(12).astype(dtype)
    return found


def _gemm(z: Any, dtype: Any, m: int, n: int, k: int, turned: str) -> dict[str, np.ndarray]:
    """a (m, k) and b (k, n); an operand in `turned` lies in memory as its transpose and is handed over as a view."""
    a, b = ((k, m) if "a" in turned else (m, k)), ((n, k) if "b" in turned else (k, n))
    return {"a": _numbers(z, a, dtype), "b": _numbers(z, b, dtype)}


def _conv2d(z: Any, dtype: Any, batch: int, size: int, layer: tuple[Any, ...], sweep: str) -> dict[str, np.ndarray]:
    c = Conv(*layer)
    out = (size + 2 * c.padding - c.kernel) // c.stride + 1
    return {
        "x": _numbers(z, (batch, c.inputs, size, size), dtype),
        "w": _numbers(z, (c.outputs, c.inputs // c.groups, c.kernel, c.kernel), dtype),
        "dy": _numbers(z, (batch, c.outputs, out, out), dtype),
    }


def _activation(z: Any, dtype: Any, shape: tuple[int, ...], function: str, sweep: str) -> dict[str, np.ndarray]:
    return {"x": 2 * _numbers(z, shape, dtype), "dy": _numbers(z, shape, dtype)}


def _pool(z: Any, dtype: Any, shape: tuple[int, ...], function: str, kernel: int, stride: int, sweep: str) -> Any:
    out = tuple((n - kernel) // stride + 1 for n in shape[2:])
    return {"x": _numbers(z, shape, dtype), "dy": _numbers(z, (*shape[:2], *out), dtype)}


def _cross_entropy(z: Any, dtype: Any, rows: int, classes: int, sweep: str) -> dict[str, np.ndarray]:
    return {"x": _numbers(z, (rows, classes), dtype), "labels": z.integers(0, classes, rows)}


def _lrn(z: Any, dtype: Any, shape: tuple[int, ...], sweep: str) -> dict[str, np.ndarray]:
    return {"x": _numbers(z, shape, dtype), "dy": _numbers(z, shape, dtype)}


def _sgd(z: Any, dtype: Any, n: int) -> dict[str, np.ndarray]:
    return {"w": _numbers(z, n, dtype), "g": _numbers(z, n, dtype)}


def _network(z: Any, dtype: Any, model: str, batch: int) -> dict[str, np.ndarray]:
    network = NETWORKS[model]
    return {
        "x": _numbers(z, (batch, *network.input_shape), dtype),
        "labels": z.integers(0, network.classes, batch),
    }


def _epoch(z: Any, dtype: Any, model: str, batch: int, file: str) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return {"x": arrays["x"].astype(dtype), "labels": arrays["labels"]}


def _overhead(z: Any, dtype: Any, operation: str, chain: int) -> dict[str, np.ndarray]:
    return {"t": z.uniform(0.5, 1.0, 16).astype(dtype)}


INPUTS = {
    "gemm": _gemm,
    "conv2d": _conv2d,
    "activation": _activation,
    "pool": _pool,
    "cross_entropy": _cross_entropy,
    "lrn": _lrn,
    "sgd": _sgd,
    "train": _network,
    "infer": _network,
    "epoch": _epoch,
    "overhead": _overhead,
}

SGD_NUMBERS = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
LRN_NUMBERS = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}


def itemsize(dtype: str) -> int:
    """Bytes of a number."""
    return np.dtype(dtype).itemsize


def gemm_case(name: str, m: int, n: int, k: int, dtype: str, turned: str = "") -> Case:
    """c (m, n) = a (m, k) b (k, n)."""
    options = {"m": m, "n": n, "k": k, "turned": turned}
    moved = float(itemsize(dtype)) * (m * k + k * n + m * n)
    return Case(name, f"{m}x{k} {k}x{n}", "gemm", options, dtype, flops=2.0 * m * n * k, moved=moved)


def layer_sizes(model: str) -> dict[str, tuple[Any, int]]:
    """Each layer with weights by name, and the side of its input images (0: it takes vectors)."""
    network = NETWORKS[model]
    size, found = network.input_shape[1], {}
    for layer in network.layers:
        if isinstance(layer, Conv):
            found[layer.name] = (layer, size)
            size = (size + 2 * layer.padding - layer.kernel) // layer.stride + 1
        elif hasattr(layer, "stride"):
            size = (size - layer.kernel) // layer.stride + 1
        elif isinstance(layer, Linear):
            found[layer.name] = (layer, 0)
    return found


def conv2d_case(model: str, name: str, batch: int, sweep: str, dtype: str) -> Case:
    """A layer's convolution without bias and activation. sweep "backward": every gradient that the network asks for."""
    layer, size = layer_sizes(model)[name]
    arrays = _conv2d(np.random.default_rng(0), np.dtype("float32"), 1, size, tuple(layer), sweep)
    x, w, y = (arrays[key].size for key in ("x", "w", "dy"))
    first = name == "conv1"
    sweeps = 2 if sweep == "backward" and not first else 1
    moved = {
        "forward": batch * x + w + batch * y,
        "backward_input": batch * y + w + batch * x,
        "backward_weight": batch * (x + y) + w,
        "backward": batch * (x + y) + w * (1 if first else 2) + (0 if first else batch * x),
    }[sweep]
    asked = "backward_weight" if first and sweep == "backward" else sweep
    options = {"batch": batch, "size": size, "layer": tuple(layer), "sweep": asked}
    window = f"{layer.outputs}x{layer.inputs // layer.groups}x{layer.kernel}x{layer.kernel}"
    flops = 2.0 * sweeps * batch * y * (layer.inputs // layer.groups) * layer.kernel**2
    return Case(
        f"conv2d {model}.{name} {sweep}",
        f"{batch}x{layer.inputs}x{size}x{size} {window}",
        "conv2d",
        options,
        dtype,
        flops=flops,
        moved=float(itemsize(dtype)) * moved,
    )
