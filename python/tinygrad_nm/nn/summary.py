"""What a model consists of: shapes, parameters, connections, multiply-adds and units, layer by layer."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._errors import ShapeError
from ..autodiff import no_grad
from ..tensor import zeros
from .module import Counts, Module


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of a summary; shapes are those of one example."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    connections: int
    multiply_adds: int
    units: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a model and its totals; printing it gives a table."""

    model: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Trained numbers; a tied parameter counts once."""
        return sum(row.parameters for row in self.rows)

    @property
    def connections(self) -> int:
        """Connections of one example, with those to the bias unit."""
        return sum(row.connections for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of convolutions and linear layers on one example, without biases."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def units(self) -> int:
        """Inputs, outputs of all layers with weights, and one bias unit, as LeCun (1989) counts."""
        inputs = 1
        for n in self.input_shape:
            inputs *= n
        return inputs + sum(row.units for row in self.rows) + 1

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dictionaries, lists and numbers, for JSON."""
        totals = {name: getattr(self, name) for name in ("parameters", "connections", "multiply_adds", "units")}
        rows = [dataclasses.asdict(row) | {"output_shape": list(row.output_shape)} for row in self.rows]
        return {"model": self.model, "input_shape": list(self.input_shape), "layers": rows, "totals": totals}

    def __str__(self) -> str:
        head = ("layer", "kind", "output shape", "parameters", "connections", "multiply-adds", "units")
        body = [(r.name, r.kind, _shape(r.output_shape), *_numbers(r)) for r in self.rows]
        table = [
            head,
            ("input", "", _shape(self.input_shape), "", "", "", ""),
            *body,
            ("total", "", "", *_numbers(self)),
        ]
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = [
            "  ".join(t.ljust(w) if i < 3 else t.rjust(w) for i, (t, w) in enumerate(zip(line, widths, strict=True)))
            for line in table
        ]
        rule = "-" * len(lines[0])
        text = [self.model, lines[0], rule, *lines[1:-1], rule, lines[-1]]
        note = "units: inputs, outputs of layers with weights, and one bias unit; multiply-adds: without biases"
        return "\n".join(line.rstrip() for line in [*text, note])


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _numbers(row: Any) -> tuple[str, ...]:
    return tuple(f"{getattr(row, name):,}" for name in ("parameters", "connections", "multiply_adds", "units"))


def summary(model: Module, input_shape: Sequence[int] | None = None) -> Summary:
    """The layers of a model, from one evaluation on zeros.

    input_shape: that of one example, as (1, 28, 28); by default the model's own `input_shape`. A layer that
    is called twice has two rows, its parameters counted in the first. Raises ShapeError where no shape is
    known or the model does not take it.
    """
    shape = getattr(model, "input_shape", None) if input_shape is None else input_shape
    if shape is None:
        raise ShapeError(f"summary: the input shape of {type(model).__name__} is not known; give that of one example")
    shape = tuple(int(n) for n in shape)
    kinds = {(p.dtype, p.device) for p in model.parameters()}
    dtype, device = kinds.pop() if len(kinds) == 1 else (np.float32, "cpu")
    x = zeros((1, *shape), dtype, device=device)
    rows: list[Row] = []
    with _watching(model, rows), _evaluating(model), no_grad():
        model(x)
    return Summary(type(model).__name__, shape, tuple(rows))


@contextlib.contextmanager
def _watching(model: Module, rows: list[Row]) -> Iterator[None]:
    """Within it every call of a layer adds a row: of a module that has parameters of its own or holds no
    other.

    Layers that were never called come last, so that their parameters are counted.
    """
    layers = [(name or "model", m) for name, m in model.named_modules() if _is_layer(m)]
    counted: set[int] = set()
    called: set[int] = set()

    def add(name: str, layer: Module, output_shape: tuple[int, ...], counts: Counts) -> None:
        own = [p for _, p in layer.own_parameters() if id(p) not in counted]
        counted.update(id(p) for p in own)
        kind = type(layer).__name__
        rows.append(Row(name, kind, output_shape, sum(p.size for p in own), **dataclasses.asdict(counts)))

    def watched(name: str, layer: Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any) -> Any:
            y = forward(*inputs)
            called.add(id(layer))
            add(name, layer, y.shape[1:], layer.counts(inputs[0].shape[1:], y.shape[1:]))
            return y

        return call

    for name, layer in layers:
        layer.forward = watched(name, layer, layer.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for _, layer in layers:
            del layer.forward
    for name, layer in layers:
        if id(layer) not in called:
            add(name, layer, (), Counts())


def _is_layer(module: Module) -> bool:
    return next(module.own_parameters(), None) is not None or next(module.named_children(), None) is None


@contextlib.contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode within, the modes there were after."""
    before = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
