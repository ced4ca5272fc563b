"""The Taylor test of a gradient rule: how fast the remainder falls as the step is halved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backend import without_winograd
from ._problem import (
    Arrays,
    Differentiable,
    GradientMap,
    Problem,
    difference,
    dot,
    evaluate,
    gradients,
    moved,
    norm,
    random_cotangents,
    random_directions,
    steepest,
)

HALVINGS = 30
STEPS = 0.5 ** np.arange(1, HALVINGS + 1)
EXACT = 1e3 * np.finfo(np.float64).eps  # a remainder below this times |f| is rounding
MEDIAN_STEPS = slice(21, 26)  # j = 22 .. 26
MEDIAN_LIMIT = 1e-6
DRAWS = 8  # random directions, of which the one with the largest |J v| is taken


def observed_orders(errors: np.ndarray) -> np.ndarray:
    """log2 of each error over the next one; NaN where one of them is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((errors[:-1] > 0) & (errors[1:] > 0), errors[:-1] / errors[1:], np.nan)
    return np.log2(ratio)


@dataclass(frozen=True)
class TaylorReport:
    """The remainders E0, E1 (and E2) of u.f along one direction v, for h = 2^-1 ... 2^-30, and the verdict.

    Attributes:
        ok: whether every remainder asked for passed its rule.
        orders: observed orders of E1, one a halving (29 of them).
        orders2: observed orders of E2, or None where only first order was asked for.
        median: the median over j = 22 .. 26 of E1 / (h |J v|).
        size: |f|, the largest seen on the segment.
    """

    title: str
    h: np.ndarray
    e0: np.ndarray
    e1: np.ndarray
    e2: np.ndarray | None
    derivative: float
    size: float
    orders: np.ndarray = field(init=False)
    orders2: np.ndarray | None = field(init=False)
    median: float = field(init=False)

    def __post_init__(self) -> None:
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = self.e1 / (self.h * abs(self.derivative))
        object.__setattr__(self, "orders", observed_orders(self.e1))
        object.__setattr__(self, "orders2", None if self.e2 is None else observed_orders(self.e2))
        object.__setattr__(self, "median", float(np.median(relative[MEDIAN_STEPS])))

    @property
    def linear(self) -> bool:
        """Whether E1 is rounding for every h: f is linear along v, and its derivative right."""
        return bool(np.all(self.e1 <= EXACT * self.size))

    @property
    def quadratic(self) -> bool:
        """Whether E2 is rounding for every h."""
        return self.e2 is not None and bool(np.all(self.e2 <= EXACT * self.size))

    @property
    def first_ok(self) -> bool:
        return self.linear or (int(np.sum(self.orders >= 1.9)) > 3 and self.median < MEDIAN_LIMIT)

    @property
    def second_ok(self) -> bool:
        return self.orders2 is None or self.quadratic or int(np.sum(self.orders2 >= 2.9)) > 3

    @property
    def ok(self) -> bool:
        return self.first_ok and self.second_ok

    def verdict(self) -> str:
        """One line: what was seen, and whether that passes."""
        text = (
            "E1 is rounding (linear)"
            if self.linear
            else (
                f"E1 has order >= 1.9 on {int(np.sum(self.orders >= 1.9))} halvings (more than 3 needed), "
                f"median E1/(h|Jv|) {self.median:.1e} (below {MEDIAN_LIMIT:.0e} needed)"
            )
        )
        if self.orders2 is not None:
            text += (
                "; E2 is rounding (quadratic)"
                if self.quadratic
                else (f"; E2 has order >= 2.9 on {int(np.sum(self.orders2 >= 2.9))} halvings (more than 3 needed)")
            )
        return f"taylor {self.title}: {'ok' if self.ok else 'FAILED'}: {text}"

    def __str__(self) -> str:
        columns = [("E0", self.e0), ("E1", self.e1)] + ([] if self.e2 is None else [("E2", self.e2)])
        lines = [self.verdict(), "   j         h" + "".join(f"{name:>12} order" for name, _ in columns)]
        orders = [np.concatenate([[np.nan], observed_orders(e)]) for _, e in columns]
        for j in range(len(self.h)):
            cells = "".join(f"{e[j]:12.3e} {o[j]:5.2f}" for (_, e), o in zip(columns, orders, strict=True))
            lines.append(f"{j + 1:4d} {self.h[j]:9.2e}{cells}".replace("  nan", "    -"))
        return "\n".join(lines)


def taylor_of_problem(
    problem: Differentiable, title: str, candidates: list[Arrays], rng: np.random.Generator, order: int = 1
) -> TaylorReport:
    """The Taylor test of `problem` along the steepest candidate, its outputs projected on a random u of norm 1."""
    f0 = evaluate(problem, problem.values)
    u = random_cotangents(f0, rng)
    gradient = gradients(problem, problem.values, u)
    v = steepest(candidates, gradient)
    derivative, curvature = dot(gradient, v), 0.0
    if order == 2:
        # v.Hv: the gradient of x -> J(x)^T u, contracted with v on both sides while u stands still
        twice = gradients(GradientMap(problem, u), list(problem.values) + u, v)
        curvature = dot(twice[: len(v)], v)
    e0, e1, e2, size = [], [], [], norm(f0)
    for h in STEPS:
        f1 = evaluate(problem, moved(problem.values, v, h))
        change = dot(u, difference(f1, f0))
        size = max(size, norm(f1))
        e0.append(abs(change))
        e1.append(abs(change - h * derivative))
        e2.append(abs(change - h * derivative - h * h / 2 * curvature))
    second = np.array(e2) if order == 2 else None
    return TaylorReport(title, STEPS, np.array(e0), np.array(e1), second, derivative, size)


def draw_directions(
    values: Arrays, rng: np.random.Generator, scale: float = 1.0, only: int | None = None
) -> list[Arrays]:
    """A few random directions for `taylor_of_problem` to choose from, all zero but in array `only` if one is named."""
    return [
        [scale * v if only in (None, i) else np.zeros_like(v) for i, v in enumerate(random_directions(values, rng))]
        for _ in range(DRAWS)
    ]


@without_winograd()
def taylor(
    function: Callable[..., Any],
    *inputs: Any,
    order: int = 1,
    argnums: int | Sequence[int] | None = None,
    directions: Sequence[Any] | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> TaylorReport:
    """Tests the gradient of a function or model along a random direction of all its arguments, in float64.

    With u a random vector of norm 1 and J^T u by the tape, E1(h) = |u.(f(x + h v) - f(x)) - h (J^T u).v| for
    h = 2^-j, j = 1 .. 30. It passes if E1 <= 1e3 eps |f| throughout (f is linear along v), or if E1 has order at
    least 1.9 on more than 3 halvings **and** the median over j = 22 .. 26 of E1 / (h |u.J v|) is below 1e-6. (The
    order alone would pass a derivative that is wrong by 1%.) With `order=2` the remainder E2 after the Hessian
    term must be rounding as well, or have order at least 2.9 on more than 3 halvings.

    Args:
        function: takes tensors and returns a tensor or a tuple of tensors; or a model, whose parameters are then
            moved as well (of a float64 copy; the model itself is left alone).
        inputs: arrays or tensors; integer ones are constants.
        argnums: the arguments to move, all floating-point ones by default.
        directions: v, one array for each moved argument (and parameter); by default
            random entries of size 0.5 to 1 (of a few draws the one with the largest |J v|).
        scale: multiplies v. A kink (relu, abs, a tie) must lie outside the segment from x to x + v/2: if a correct
            function fails, take a smaller scale.
        seed: of u and v.

    Source: Ruthotto and Haber, "Numerical Methods for Deep Learning", derivative check.
    """
    problem = Problem(function, inputs, argnums)
    rng = np.random.default_rng(seed)
    if directions is None:
        candidates = draw_directions(problem.values, rng, scale)
    else:
        given = zip(directions, problem.values, strict=True)
        candidates = [[scale * np.broadcast_to(np.asarray(v, np.float64), a.shape) for v, a in given]]
    return taylor_of_problem(problem, problem.title, candidates, rng, order)
