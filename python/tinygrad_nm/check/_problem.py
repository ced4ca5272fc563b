"""What is checked: a map from named arrays to arrays, with its gradient by the tape.

A `Problem` is a function of its floating-point inputs, or a model as a function of its inputs and its parameters. A
`GradientMap` is the map (x, u) -> J(x)^T u of a problem, itself a problem: its derivative is the second derivative.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from .. import autodiff
from ..backend import DEVICES, device_of, host
from ..tensor import Tensor, tensor, zeros

Arrays = list[np.ndarray]


class Differentiable(Protocol):
    """Named arrays `values`, and `run`, which makes tensors of such arrays and returns them with the outputs."""

    names: list[str]
    values: Arrays

    def run(self, values: Arrays) -> tuple[list[Any], list[Any]]: ...


def _as_array(value: Any) -> np.ndarray:
    return np.array(host(value.data if isinstance(value, Tensor) else value))


def _device_of(values: Sequence[Any]) -> str:
    """The first device but the CPU among those of tensors and arrays; else the CPU."""
    arrays = [value.data if isinstance(value, Tensor) else value for value in values]
    found = (device_of(a) for a in arrays if type(a) in DEVICES)
    return next((name for name in found if name != "cpu"), "cpu")


def _argument_names(function: Callable[..., Any], count: int) -> list[str]:
    """The names of the first `count` positional parameters, or x0, x1 ... where they have none."""
    try:
        parameters = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in kinds]
    return [names[i] if i < len(names) else f"x{i}" for i in range(count)]


class Problem:
    """`function(*inputs)` as a map of its floating-point inputs (and, for a model, of its parameters) in `dtype`.

    Integer and bool inputs, and those that `argnums` leaves out, are constants. It runs on the device of its inputs or
    parameters.

    Raises:
        ValueError: there is nothing to differentiate, or two calls with the same inputs differ.
        TypeError: the function returned something other than tensors of `dtype`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        argnums: int | Sequence[int] | None = None,
        dtype: Any = np.float64,
    ) -> None:
        self.dtype = np.dtype(dtype)
        parameters = function.parameters() if hasattr(function, "parameters") else ()
        self.device = _device_of([*inputs, *parameters])
        self.title = getattr(function, "__name__", type(function).__name__)
        self.inputs = [_as_array(value) for value in inputs]
        self.inputs = [a.astype(self.dtype) if a.dtype.kind == "f" else a for a in self.inputs]
        floating = [i for i, a in enumerate(self.inputs) if a.dtype.kind == "f"]
        if argnums is None:
            self.argnums = floating
        else:
            self.argnums = [argnums] if isinstance(argnums, int) else list(argnums)
        for i in self.argnums:
            if i not in floating:
                raise ValueError(
                    f"check: argument {i} of {self.title} is not one of its floating-point inputs {floating}"
                )
        names = _argument_names(function, len(self.inputs))
        self.names = [names[i] for i in self.argnums]
        self.values = [self.inputs[i] for i in self.argnums]
        self.parameters: list[Any] = []
        self.function = function
        if hasattr(function, "named_parameters"):
            model: Any = copy.deepcopy(function)
            self.function = model.to(self.dtype)
            for name, parameter in model.named_parameters():
                self.names.append(name)
                self.values.append(_as_array(parameter))
                self.parameters.append(parameter)
        if not self.values:
            raise ValueError(f"check: {self.title} has no floating-point input to differentiate with respect to")
        first, second = evaluate(self, self.values), evaluate(self, self.values)
        if not all(np.isfinite(y).all() for y in first):
            raise ValueError(f"check: {self.title} gives NaN or Inf at these inputs, where it has no derivative")
        if not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)):
            raise ValueError(
                f"check: two calls of {self.title} differ; fix its seed, or call eval() on a model with dropout"
            )

    def run(self, values: Arrays) -> tuple[list[Any], list[Any]]:
        arguments: list[Any] = list(self.inputs)
        tensors = []
        for i, value in zip(self.argnums, values[: len(self.argnums)], strict=True):
            arguments[i] = tensor(np.asarray(value), device=self.device, requires_grad=True)
            tensors.append(arguments[i])
        with autodiff.no_grad():
            for parameter, value in zip(self.parameters, values[len(self.argnums) :], strict=True):
                parameter.copy_(value)
        result = self.function(*arguments)
        outputs = list(result) if isinstance(result, (tuple, list)) else [result]
        for output in outputs:
            if not isinstance(output, Tensor) or output.dtype != self.dtype:
                found = output.dtype if isinstance(output, Tensor) else type(output).__name__
                raise TypeError(f"check: {self.title} returned {found} where a tensor of {self.dtype} is needed")
        return tensors + self.parameters, outputs


class GradientMap:
    """The map (x, u) -> J(x)^T u of a problem, by its gradient rules under `create_graph`."""

    def __init__(self, problem: Differentiable, cotangents: Arrays) -> None:
        self.problem = problem
        self.names = list(problem.names) + [f"cotangent {i}" for i in range(len(cotangents))]
        self.values = list(problem.values) + list(cotangents)

    def run(self, values: Arrays) -> tuple[list[Any], list[Any]]:
        count = len(self.problem.values)
        tensors, outputs = self.problem.run(values[:count])
        cotangents = [_beside(y, u, requires_grad=True) for y, u in zip(outputs, values[count:], strict=True)]
        return tensors + cotangents, tape_gradients(outputs, tensors, cotangents, create_graph=True)


def _beside(y: Tensor, u: np.ndarray, requires_grad: bool = False) -> Tensor:
    """u as a tensor on the device of y."""
    return tensor(np.asarray(u), device=y.device, requires_grad=requires_grad)


def tape_gradients(outputs: list[Any], tensors: list[Any], cotangents: list[Any], create_graph: bool) -> list[Any]:
    """J^T u by the rules under test, one tensor for each of `tensors`."""
    pairs = [(y, u) for y, u in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not pairs:
        return [zeros(t.shape, t.dtype, device=t.device) for t in tensors]
    return list(autodiff.grad([y for y, _ in pairs], tensors, [u for _, u in pairs], create_graph=create_graph))


def evaluate(problem: Differentiable, values: Arrays) -> Arrays:
    """The outputs at `values`, as arrays of their own."""
    return [_as_array(y) for y in problem.run(values)[1]]


def gradients(problem: Differentiable, values: Arrays, cotangents: Arrays) -> Arrays:
    """J^T u at `values` by the rules under test, as arrays of their own."""
    tensors, outputs = problem.run(values)
    us = [_beside(y, u) for y, u in zip(outputs, cotangents, strict=True)]
    return [_as_array(g) for g in tape_gradients(outputs, tensors, us, create_graph=False)]


def moved(values: Arrays, directions: Arrays, h: float) -> Arrays:
    return [value + h * v for value, v in zip(values, directions, strict=True)]


def dot(left: Arrays, right: Arrays) -> float:
    """The inner product over all arrays, summed in float64 by NumPy's pairwise sum (no BLAS)."""
    return float(sum(np.sum(np.multiply(a, b, dtype=np.float64)) for a, b in zip(left, right, strict=True)))


def norm(arrays: Arrays) -> float:
    return float(np.sqrt(dot(arrays, arrays)))


def difference(left: Arrays, right: Arrays) -> Arrays:
    return [a - b for a, b in zip(left, right, strict=True)]


def random_cotangents(outputs: Arrays, rng: np.random.Generator) -> Arrays:
    """Normal, of norm 1 over all outputs together."""
    drawn = [rng.standard_normal(y.shape) for y in outputs]
    length = norm(drawn)
    return [u / length if length > 0 else u for u in drawn]


def random_directions(values: Arrays, rng: np.random.Generator) -> Arrays:
    """Entries of size 0.5 to 1 and either sign: bounded, so that a segment of known length misses every kink."""
    return [rng.uniform(0.5, 1.0, a.shape) * rng.choice([-1.0, 1.0], a.shape) for a in values]


def steepest(candidates: list[Arrays], gradient: Arrays) -> Arrays:
    """The direction along which f changes most: where the terms of J v cancel, rounding would drown the remainder."""
    return max(candidates, key=lambda v: abs(dot(gradient, v)))
