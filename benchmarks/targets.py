"""What each benchmark must show: its rows, and the target of each. The one place that knows either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from networks import NETWORKS
from workloads import Case, conv2d_case, gemm_case, itemsize, layer_sizes

SLACK = 0.97  # a row passes from so much of its target,
ROOFLINE = 0.85  # or at so much of its measured roofline, where that is lower

SQUARES = (64, 96, 128, 192, 256, 512, 1024, 2048)
PASSES = ("forward", "backward_input", "backward_weight")
BOTH = ("forward", "backward")


class Target(NamedTuple):
    """value: the ratio to the best peer (above 1 = ours is faster), or for kind "at most" our own figure.

    share: of the measured roofline, demanded besides.
    """

    value: float
    share: float | None = None
    kind: str = "ratio"


Row = tuple[Case, Target]


def passes(target: Target, ours: float | None, ratio: float | None, share: float | None) -> bool:
    """Whether a measured row reaches its target; what could not be measured does not."""
    if ours is None:
        return False
    if target.kind == "at most":
        return ours <= target.value / SLACK
    reached = (ratio is not None and ratio >= SLACK * target.value) or (share is not None and share >= ROOFLINE)
    return reached and (target.share is None or (share is not None and share >= SLACK * target.share))


def gemm(dtypes: tuple[str, ...]) -> Iterator[Row]:
    """Square products, and every product of the fully connected layers: batch 32 and 128, three passes."""
    for dtype in dtypes:
        for n in SQUARES:
            target = Target(1.2) if n <= 192 else Target(1.0, 0.9 if n >= 1024 else None)
            yield gemm_case("gemm square", n, n, n, dtype), target
        for model in ("lenet5", "alexnet"):
            for name, (layer, size) in layer_sizes(model).items():
                if size:
                    continue
                for batch in (32, 128):
                    i, o = layer.inputs, layer.outputs
                    products = {
                        "forward": (batch, o, i, "b"),  # y = x K^T
                        "backward_input": (batch, i, o, ""),  # dx = dy K
                        "backward_weight": (o, i, batch, "a"),  # dK = dy^T x
                    }
                    for sweep, (m, n, k, turned) in products.items():
                        yield gemm_case(f"gemm {model}.{name} {sweep}", m, n, k, dtype, turned), Target(1.0)


ALEXNET_CONV = {"conv1": 1.3, "conv2": 1.3, "conv3": 1.6, "conv4": 1.6, "conv5": 1.6}
LENET5_CONV = {("conv1", "forward"): 3.0, ("conv1", "backward"): 5.0} | {
    ("conv2", "forward"): 1.7,
    ("conv2", "backward"): 2.0,
}


def conv2d(dtypes: tuple[str, ...]) -> Iterator[Row]:
    """AlexNet's layers at batch 32, three passes each; LeNet-5's first two at batch 256, forward and backward."""
    for dtype in dtypes:
        for name, value in ALEXNET_CONV.items():
            for sweep in PASSES:
                yield conv2d_case("alexnet", name, 32, sweep, dtype), Target(value)
        for (name, sweep), value in LENET5_CONV.items():
            yield conv2d_case("lenet5", name, 256, sweep, dtype), Target(value)


LARGE, SMALL = (32, 96, 55, 55), (256, 6, 28, 28)  # outputs of the first layers of AlexNet and LeNet-5
POOLS = (("max", LARGE, 3, 2), ("avg", SMALL, 2, 2))
ALEXNET_PARAMETERS = 60_965_224


def pool_activation(dtypes: tuple[str, ...]) -> Iterator[Row]:
    """Elementwise functions, pooling, softmax-cross-entropy, local response normalisation, the SGD update."""
    for dtype in dtypes:
        for case, target in _elementwise():
            yield replace(case, dtype=dtype, moved=case.moved * itemsize(dtype)), target


def _elementwise() -> Iterator[Row]:
    """`moved` counts numbers here."""
    memory = Target(1.0, 0.8)
    for sweep, arrays in (("forward", 2), ("backward", 3)):
        for function, shape, target in (
            ("relu", LARGE, memory),
            ("tanh", SMALL, Target(1.5)),
            ("sigmoid", SMALL, Target(1.5)),
        ):
            options = {"shape": shape, "function": function, "sweep": sweep}
            name = f"pool_activation {function} {sweep}"
            yield Case(name, _text(shape), "activation", options, moved=arrays * _size(shape)), target
        for kind, shape, kernel, stride in POOLS:
            options = {"shape": shape, "function": kind, "kernel": kernel, "stride": stride, "sweep": sweep}
            moved = _size(shape) * (1 + 1 / stride**2)
            name = f"pool_activation {kind}_pool2d {sweep}"
            yield Case(name, f"{_text(shape)} {kernel}/{stride}", "pool", options, moved=moved), Target(1.5)
        for rows, classes in ((128, 1000), (256, 10)):
            options = {"rows": rows, "classes": classes, "sweep": sweep}
            moved = float((arrays - 1) * rows * classes + rows)
            name = f"pool_activation cross_entropy {sweep}"
            yield Case(name, f"{rows}x{classes}", "cross_entropy", options, moved=moved), Target(1.5)
        for shape in (LARGE, (32, 256, 27, 27)):
            name = f"pool_activation local_response_norm {sweep}"
            options = {"shape": shape, "sweep": sweep}
            yield Case(name, _text(shape), "lrn", options, moved=arrays * _size(shape)), Target(4.0)
    n = ALEXNET_PARAMETERS
    how = {"moved": 5.0 * n, "in_place": True, "unit": "ms"}
    yield Case("pool_activation sgd_update", f"{n} alexnet", "sgd", {"n": n}, **how), memory


TRAIN = {
    "lenet": {1: 7.0, 16: 7.0, 64: 6.0, 256: 6.0, 1024: 6.0},
    "lenet5": {1: 7.0, 16: 7.0, 64: 4.0, 256: 4.0, 1024: 4.0},
    "alexnet": {32: 2.3, 128: 2.8},
}
INFER = {
    "lenet": {1: 1.0, 16: 3.0, 256: 3.0},
    "lenet5": {1: 1.0, 16: 2.3, 256: 2.3},
    "alexnet": {32: 1.5},
}


def _networks(kind: str, table: dict[str, dict[int, float]], dtypes: tuple[str, ...]) -> Iterator[Row]:
    for dtype in dtypes:
        for model, batches in table.items():
            unit = "ms/image" if model == "alexnet" else "us/image"
            for batch, value in batches.items():
                options = {"model": model, "batch": batch}
                case = Case(f"{kind} {model}", f"batch {batch}", kind, options, dtype, unit, per=batch)
                yield case, Target(value)


def train(dtypes: tuple[str, ...]) -> Iterator[Row]:
    """Training steps: forward, loss, backward, update, without data loading."""
    return _networks("train", TRAIN, dtypes)


def infer(dtypes: tuple[str, ...]) -> Iterator[Row]:
    """Inference: scores of a batch."""
    return _networks("infer", INFER, dtypes)


CUDA_TRAIN = {"lenet": {64: 3.0, 1024: 3.0}, "lenet5": {64: 3.0, 1024: 3.0}, "alexnet": {32: 1.0, 128: 1.0}}


def cpu_vs_gpu(dtypes: tuple[str, ...]) -> Iterator[Row]:
    """Every kernel and the training steps on a GPU; targets are ratios to the best of its libraries there."""
    for dtype in dtypes:
        for n in (512, 2048, 4096):
            yield gemm_case("gemm square", n, n, n, dtype), Target(0.95)
        yield gemm_case("gemm alexnet.fc6 forward", 128, 4096, 9216, dtype, "b"), Target(0.95)
    for case, _ in (*conv2d(dtypes), *pool_activation(dtypes)):
        yield case, Target(1.0)
    yield from _networks("train", CUDA_TRAIN, dtypes)


def overhead(dtypes: tuple[str, ...]) -> Iterator[Row]:
    """One operation on 16 numbers with its gradient, in a chain of 1,000; a kernel activation likewise."""
    for dtype in dtypes:
        for operation, microseconds in (("t * c", 3.0), ("t + t", 3.0), ("tanh", 4.0)):
            options = {"operation": operation, "chain": 1000}
            case = Case(f"overhead {operation}", "chain of 1000", "overhead", options, dtype, "us/operation", 1000)
            yield case, Target(microseconds, kind="at most")


def memory(dtypes: tuple[str, ...]) -> Iterator[Row]:
    """Peak memory of a process that trains AlexNet at batch 128: 0.65 of PyTorch's."""
    for dtype in dtypes:
        options = {"model": "alexnet", "batch": 128}
        yield Case("memory alexnet", "batch 128", "train", options, dtype, "MiB"), Target(1 / 0.65)


def epoch(dtypes: tuple[str, ...], examples: int, file: str) -> Iterator[Row]:
    """An epoch of LeNet-5 at batch 64 on `examples` digits in `file`."""
    for dtype in dtypes:
        options = {"model": "lenet5", "batch": 64, "file": file}
        yield Case("epoch lenet5", f"{examples} digits, batch 64", "epoch", options, dtype, "s"), Target(5.0)


def _size(shape: tuple[int, ...]) -> float:
    size = 1.0
    for n in shape:
        size *= n
    return size


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


assert set(TRAIN) == set(INFER) == set(NETWORKS)
