"""THE table: one row an operation exported by the package.

A row says how to call it, on which inputs, what the answer is by plain loops, in which arguments it is linear and
which kernel does the work. `test_operations.py` derives every test from it; an exported operation without a row fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tinygrad_nm as nm

Draw = Callable[[np.random.Generator], tuple[np.ndarray, ...]]
KINK_DISTANCE = 0.6  # the checks move an element by at most 0.5


@dataclass(frozen=True)
class Variant:
    """Inputs to draw, and the options to call with."""

    draw: Draw
    options: dict[str, Any] = field(default_factory=dict)

    def inputs(self, seed: int = 0) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(a) for a in self.draw(np.random.default_rng(seed)))


@dataclass(frozen=True)
class Case:
    """One operation.

    function: called as function(*inputs, **options); by default the exported function of that name.
    reference: the same call in plain loops, on float64 arrays.
    linear: places of the arguments it is linear in. kernel: the binding that computes it ("" for array functions).
    terms: for sums of products, K of the bound 2 sqrt(K) eps (|A||B|), from the inputs and options.
    rounding: for the rest, the float32 error allowed, in eps of 1 + |y|. exact: whole numbers must match bit for bit.
    derivative: False for operations that have none (comparisons, argmax).
    """

    name: str
    reference: Callable[..., np.ndarray]
    variants: Sequence[Variant]
    function: Callable[..., Any] | None = None
    linear: tuple[int, ...] = ()
    kernel: str = ""
    terms: Callable[..., int] | None = None
    rounding: float = 8.0
    exact: bool = False
    derivative: bool = True

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        function = self.function or getattr(nm, self.name)
        return function(*inputs, **options)

    def expected(self, inputs: Sequence[np.ndarray], options: dict[str, Any]) -> np.ndarray:
        """The answer of the plain loops, computed in float64."""
        wide = [np.asarray(a, np.float64) if a.dtype.kind == "f" else a for a in inputs]
        return np.asarray(self.reference(*wide, **options))

    def float32_bound(self, inputs: Sequence[np.ndarray], options: dict[str, Any], expected: np.ndarray) -> np.ndarray:
        """What float32 may differ by, elementwise."""
        eps = np.finfo(np.float32).eps
        if self.terms is None:
            return self.rounding * eps * (1 + np.abs(expected))
        sizes = [np.asarray(np.abs(a)) if a.dtype.kind == "f" else a for a in inputs]
        plain = {key: value for key, value in options.items() if key != "activation"}
        return 2 * np.sqrt(self.terms(*inputs, **options)) * eps * self.expected(sizes, plain)


def normal(*shapes: tuple[int, ...]) -> Draw:
    """Standard normal arrays of these shapes."""
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def away(*shapes: tuple[int, ...], kinks: Sequence[float] = (0.0,), span: float = 2.5) -> Draw:
    """Uniform in (-span, span) + the kinks' range, with every kink further away than the checks move."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        arrays = []
        for shape in shapes:
            x = rng.uniform(min(kinks) - span, max(kinks) + span, shape)
            while (near := np.min(np.abs(x[..., None] - np.asarray(kinks)), axis=-1) < KINK_DISTANCE).any():
                x = np.where(near, rng.uniform(min(kinks) - span, max(kinks) + span, shape), x)
            arrays.append(x)
        return tuple(arrays)

    return draw


def positive(*shapes: tuple[int, ...], low: float = 1.2, high: float = 3.0) -> Draw:
    """Uniform in (low, high)."""
    return lambda rng: tuple(rng.uniform(low, high, shape) for shape in shapes)


def distinct(*shapes: tuple[int, ...]) -> Draw:
    """Elements that differ by 1.25 or more: their order stands while each moves by 0.5."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        sizes = [int(np.prod(shape)) for shape in shapes]
        return tuple(
            1.25 * (rng.permutation(size).reshape(shape) - size // 2) for size, shape in zip(sizes, shapes, strict=True)
        )

    return draw


def apart(*shapes: tuple[int, ...]) -> Draw:
    """Two arrays with no tie within reach between them, broadcasting included."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        left, right = shapes
        first = rng.integers(-2, 3, left) * 2.5
        second = rng.integers(-2, 3, right) * 2.5 + 1.25
        return first, second

    return draw


def whole_like(inputs: Sequence[np.ndarray], dtype: Any, seed: int = 3) -> list[np.ndarray]:
    """Small whole numbers in place of floating-point inputs; labels and masks as they are."""
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.integers(-3, 4, a.shape), dtype) if a.dtype.kind == "f" else a for a in inputs]


SHAPES = ((), (5,), (0, 3), (2, 3, 1, 4))  # of elementwise operations: 0-d, 1-d, empty, N-d
PAIRS = (((), ()), ((3, 4), (3, 4)), ((3, 1), (4,)), ((0, 3), (1,)), ((2, 1, 3), (5, 1)))  # with broadcasting


def each(draw: Callable[..., Draw], shapes: Sequence[Any], **options: Any) -> list[Variant]:
    """One variant for each shape; `options` are those of the operation."""
    return [Variant(draw(shape), options) for shape in shapes]


def each_pair(draw: Callable[..., Draw], pairs: Sequence[Any] = PAIRS) -> list[Variant]:
    return [Variant(draw(left, right)) for left, right in pairs]


def table() -> dict[str, Case]:
    """All rows, by name."""
    import cases_arithmetic
    import cases_networks

    rows = [*cases_arithmetic.ROWS, *cases_networks.ROWS]
    names = [row.name for row in rows]
    assert len(names) == len(set(names)), "two rows for one operation"
    return dict(zip(names, rows, strict=True))
