"""First and second derivatives of every argument at once: what a test of a new operation or layer calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import without_winograd
from ._adjoint import AdjointReport, adjoint_of_argument
from ._problem import Differentiable, GradientMap, Problem, evaluate, random_cotangents
from ._taylor import TaylorReport, draw_directions, taylor_of_problem


@dataclass(frozen=True)
class DerivativesReport:
    """The Taylor tests and the adjoint test of a function or model.

    Attributes:
        taylor: the Taylor tests by name: one for each argument; "all" (with E2, where second order was asked for);
            "gradient" and so on, the test of the gradient map as a function of the arguments and of u.
        adjoint: the adjoint test of each argument.
        orders: the observed orders of E1 of each Taylor test, by its name.
    """

    title: str
    taylor: dict[str, TaylorReport]
    adjoint: AdjointReport

    @property
    def ok(self) -> bool:
        return self.adjoint.ok and all(report.ok for report in self.taylor.values())

    @property
    def orders(self) -> dict[str, np.ndarray]:
        return {name: report.orders for name, report in self.taylor.items()}

    def __str__(self) -> str:
        lines = [f"derivatives of {self.title}: {'ok' if self.ok else 'FAILED'}"]
        lines += [report.verdict() if report.ok else str(report) for report in self.taylor.values()]
        return "\n".join([*lines, str(self.adjoint)])


@without_winograd()
def derivatives(
    function: Callable[..., Any],
    *inputs: Any,
    order: int = 2,
    argnums: int | Sequence[int] | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> DerivativesReport:
    """Tests every derivative of a function, or of a model with respect to its inputs and parameters, in float64.

    One Taylor test for each argument and one along all of them together; the adjoint test for each argument; and for
    each order above the first the Taylor test of the map (x, u) -> J(x)^T u, as `create_graph` computes it, and for
    the second order the remainder E2 as well. `taylor` and `adjoint` state the rules.

    Args:
        function: takes tensors and returns a tensor or a tuple of tensors; or a model.
        inputs: arrays or tensors; integer ones are constants. Kinks must lie outside the segments: see `taylor`.
        order: the highest order of derivatives to test, 1 or more.
        argnums: the arguments to test, all floating-point ones by default.
        scale: multiplies the directions of the Taylor tests.
        seed: of all random directions.
    """
    problem = Problem(function, inputs, argnums)
    rng = np.random.default_rng(seed)
    tests = {}
    for k, name in enumerate(problem.names):
        moves = draw_directions(problem.values, rng, scale, only=k)
        tests[name] = taylor_of_problem(problem, f"{problem.title} / {name}", moves, rng)
    moves = draw_directions(problem.values, rng, scale)
    tests["all"] = taylor_of_problem(problem, f"{problem.title} / all", moves, rng, order=min(order, 2))
    mapped: Differentiable = problem
    for n in range(2, order + 1):
        mapped = GradientMap(mapped, random_cotangents(evaluate(mapped, mapped.values), rng))
        name = "gradient" if n == 2 else f"gradient, order {n}"
        moves = draw_directions(mapped.values, rng, scale)
        tests[name] = taylor_of_problem(mapped, f"{problem.title} / {name}", moves, rng)
    arguments = tuple(adjoint_of_argument(problem, problem, k, seed) for k in range(len(problem.values)))
    return DerivativesReport(problem.title, tests, AdjointReport(problem.title, arguments))


def assert_derivatives(function: Callable[..., Any], *inputs: Any, **options: Any) -> DerivativesReport:
    """`derivatives`, as an assertion: raises AssertionError with the tables of what failed; for tests of your own."""
    report = derivatives(function, *inputs, **options)
    if not report.ok:
        raise AssertionError(str(report))
    return report
