"""`tinygrad-nm roofline`: each layer's time against the limits of this machine, as a table and as a picture."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_nm as nm
from tinygrad_nm.cli.limits import Limits, measure, threads_set
from tinygrad_nm.nn.summary import Row as Layer

FREE = ("Flatten",)  # these move nothing
NOTE = (
    "arithmetic: products of the direct sums, elsewhere one operation a number; bytes: each array once. A fast"
    " algorithm (Winograd) does fewer operations, a cache moves fewer bytes: then a share can exceed 100 %."
)


@dataclass(frozen=True)
class Cost:
    """What a pass must do at least: arithmetic operations, and bytes of its inputs and results, each once.

    in_place: what is written was read before.
    """

    flops: float
    moved: float
    in_place: bool = False

    def seconds(self, limits: Limits) -> float:
        """The least time."""
        return limits.seconds(self.flops, self.moved, self.in_place)


@dataclass(frozen=True)
class Piece:
    """A layer, or a layer with its pooling in one call. `first`: nobody asks for the gradient of its input."""

    name: str
    layers: tuple[str, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    first: bool
    forward: Cost
    backward: Cost


@dataclass(frozen=True)
class Point:
    """One layer and pass, measured: `share` is that of the attainable limit, 1 = reached."""

    layer: str
    sweep: str
    seconds: float
    flops: float
    moved: float
    share: float
    bound: str

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.flops / self.seconds

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.moved

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, for JSON."""
        derived = {"gflops": self.rate / 1e9, "gbs": self.moved / self.seconds / 1e9, "intensity": self.intensity}
        return asdict(self) | derived


def pieces(model: Any, batch: int) -> list[Piece]:
    """The calls that a Sequential model makes, and what each must do at least on `batch` examples."""
    rows = nm.nn.summary(model).rows
    children = dict(model.named_children())
    itemsize = next(model.parameters()).dtype.itemsize
    found: list[Piece] = []
    shape, position = model.input_shape, 0
    while position < len(rows):
        taken = [rows[position]]
        if position + 1 < len(rows):
            following = rows[position + 1]
            if children[taken[0].name].pooled_by(children[following.name]) is not None:
                taken.append(following)
        if taken[0].kind not in FREE:
            found.append(_piece(taken, shape, not found, batch, itemsize))
        shape = taken[-1].output_shape
        position += len(taken)
    return found


def _piece(layers: list[Layer], shape: tuple[int, ...], first: bool, batch: int, itemsize: int) -> Piece:
    x, y = batch * int(np.prod(shape)), batch * int(np.prod(layers[-1].output_shape))
    weights = sum(layer.parameters for layer in layers)
    products = 2.0 * batch * sum(layer.multiply_adds for layer in layers)
    numbers = float(sum(batch * int(np.prod(layer.output_shape)) for layer in layers))
    forward = Cost(products + numbers, float(itemsize) * (x + weights + y))
    # dw takes as many products as y, dx again as many; x, y, dy and w are read, dx and dw written
    sweeps, dx = (1, 0) if first else (2, x)
    backward = Cost(sweeps * products + numbers, float(itemsize) * (x + 2 * y + dx + 2 * weights))
    return Piece(
        "+".join(layer.name for layer in layers),
        tuple(layer.name for layer in layers),
        tuple(shape),
        layers[-1].output_shape,
        first,
        forward,
        backward,
    )


def update_cost(parameters: int, itemsize: int) -> Cost:
    """SGD with momentum: w and v are read and written, the gradient read."""
    return Cost(4.0 * parameters, 5.0 * itemsize * parameters, in_place=True)


def loss_costs(batch: int, outputs: int, itemsize: int) -> tuple[Cost, Cost]:
    """Cross entropy forward (read the scores) and backward (read them, write their gradient)."""
    n = float(batch * outputs)
    return Cost(n, itemsize * (n + batch)), Cost(n, itemsize * (2 * n + batch))


def step_seconds(model: Any, batch: int, limits: Limits, training: bool = True) -> float:
    """The least time of a training step (or of inference alone) of a Sequential model, by the limits."""
    costs: list[Cost] = []
    itemsize = np.dtype(limits.dtype).itemsize
    for piece in pieces(model, batch):
        costs += [piece.forward, piece.backward] if training else [piece.forward]
    if training:
        outputs = nm.nn.summary(model).rows[-1].output_shape[0]
        parameters = sum(p.size for p in model.parameters())
        costs += [*loss_costs(batch, outputs, itemsize), update_cost(parameters, itemsize)]
    return sum(cost.seconds(limits) for cost in costs)


def median_seconds(run: Callable[[], Callable[[], Any]], budget: float) -> float:
    """The median time of what `run` gives, as often as fits into `budget` seconds (3 to 200), after one warm-up.

    What `run` itself does is not counted: it makes ready what the measured part uses up.
    """
    run()()
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 200):
        ready = run()
        start = time.perf_counter()
        ready()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def points(model: Any, batch: int, limits: Limits, budget: float = 0.3) -> Iterator[Point]:
    """Each layer's passes, the loss, the update and the whole step, measured for about `budget` seconds each."""
    generator = np.random.default_rng(0)
    dtype = np.dtype(limits.dtype)
    children = dict(model.named_children())
    model.train()

    def numbers(*shape: int) -> Any:
        return generator.standard_normal(shape, dtype)

    def point(name: str, sweep: str, cost: Cost, run: Callable[[], Callable[[], Any]]) -> Point:
        seconds = median_seconds(run, budget)
        bound = limits.bound(cost.flops, cost.moved, cost.in_place)
        return Point(name, sweep, seconds, cost.flops, cost.moved, cost.seconds(limits) / seconds, bound)

    for piece in pieces(model, batch):
        layer = nm.nn.Sequential(**{name: children[name] for name in piece.layers})
        x = nm.tensor(numbers(batch, *piece.input_shape), requires_grad=not piece.first)
        dy = numbers(batch, *piece.output_shape)
        yield point(piece.name, "forward", piece.forward, partial(_forward, layer, x))
        yield point(piece.name, "backward", piece.backward, partial(_backward, layer, x, dy))
        model.zero_grad()
    yield from _ends(model, batch, point, numbers)


def _forward(layer: Any, x: Any) -> Callable[[], Any]:
    return lambda: layer(x)


def _backward(layer: Any, x: Any, dy: Any) -> Callable[[], Any]:
    layer.zero_grad()
    x.grad = None
    y = layer(x)
    return lambda: y.backward(dy)


def _ends(model: Any, batch: int, point: Callable[..., Point], numbers: Callable[..., Any]) -> Iterator[Point]:
    """The loss, the update, and the whole step, whose cost is the sum of all others."""
    outputs = nm.nn.summary(model).rows[-1].output_shape[0]
    itemsize = next(model.parameters()).dtype.itemsize
    labels = np.arange(batch) % outputs
    scores = nm.tensor(numbers(batch, outputs), requires_grad=True)
    forward, backward = loss_costs(batch, outputs, itemsize)

    def loss_backward() -> Callable[[], Any]:
        scores.grad = None
        return nm.cross_entropy(scores, labels).backward

    yield point("loss", "forward", forward, lambda: lambda: nm.cross_entropy(scores, labels))
    yield point("loss", "backward", backward, loss_backward)
    optimizer = nm.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    images = numbers(batch, *model.input_shape)

    def step() -> None:
        loss = nm.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    update = update_cost(sum(p.size for p in model.parameters()), itemsize)
    yield point("update", "SGD", update, lambda: optimizer.step)
    costs = [cost for piece in pieces(model, batch) for cost in (piece.forward, piece.backward)]
    costs += [forward, backward, update]
    whole = Cost(sum(c.flops for c in costs), sum(c.moved for c in costs))
    yield point("whole step", "", whole, lambda: step)


def roofline(
    build: Callable[..., Any], name: str, batch: int, dtype: str, threads: int | None, budget: float
) -> tuple[Limits, list[Point]]:
    """The limits, and the points of the model that `build(dtype=...)` gives.

    The whole step's share is the sum of its parts' least times over its time: its layers are not bound alike.
    """
    with threads_set(threads):
        limits = measure(dtype)
        model = build(dtype=dtype)
        found = list(points(model, batch, limits, budget))
        least = step_seconds(model, batch, limits)
    found[-1] = replace(found[-1], share=least / found[-1].seconds, bound="both")
    return limits, found


def table(found: list[Point]) -> Any:
    """The points as a table of rich."""
    from rich.table import Table

    result = Table(caption=NOTE, caption_justify="left")
    heads = ("layer", "pass", "ms", "GFLOP/s", "GB/s", "FLOP/byte", "share of limit", "bound by")
    for position, head in enumerate(heads):
        result.add_column(head, justify="left" if position < 2 or head == "bound by" else "right", no_wrap=True)
    for p in found:
        moved = p.moved / p.seconds / 1e9
        figures = (f"{p.seconds * 1e3:.3f}", f"{p.rate / 1e9:.1f}", f"{moved:.1f}", f"{p.intensity:.2f}")
        result.add_row(p.layer, p.sweep, *figures, f"{100 * p.share:.0f} %", p.bound)
    return result


def save_json(path: Path, model: str, batch: int, limits: Limits, found: list[Point]) -> None:
    """Limits and points as one JSON object."""
    content = {"model": model, "batch": batch, "limits": limits.to_dict(), "points": [p.to_dict() for p in found]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save_picture(path: Path, model: str, batch: int, limits: Limits, found: list[Point]) -> None:
    """The roofline on logarithmic axes: operations a second over operations a byte, a point for each layer and pass."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    left, right = min(p.intensity for p in found) / 2, max(p.intensity for p in found) * 2
    x = np.geomspace(left, right, 200)
    cache = limits.bandwidths[0][1]
    for rate, what in ((limits.memory, "memory"), (cache, "cache")):
        label = f"{what}: {rate / 1e9:.0f} GB/s"
        axes.loglog(x, np.minimum(limits.arithmetic, rate * x) / 1e9, "-" if what == "memory" else ":", label=label)
    for sweep, marker in (("forward", "o"), ("backward", "s"), ("SGD", "^")):
        chosen = [p for p in found if p.sweep == sweep]
        axes.loglog([p.intensity for p in chosen], [p.rate / 1e9 for p in chosen], marker, label=sweep)
        for p in chosen:
            axes.annotate(p.layer, (p.intensity, p.rate / 1e9), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel("operations a byte")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"{model}, batch {batch}, {limits.dtype}, {limits.threads} threads, {limits.isa}")
    axes.legend()
    figure.savefig(path, dpi=150)
