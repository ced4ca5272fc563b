"""The adjoint test u.(J v) = v.(J^T u), where J v never comes from the rule under test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import without_winograd
from ._problem import Arrays, Problem, difference, dot, evaluate, gradients, moved, norm, random_directions
from ._taylor import observed_orders

TOLERANCE = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 1e-5}
WIDEST_BOUND = 1e-8  # finite differences whose own bound is wider than this decide nothing
LEVELS = 12  # central differences at h = 2^-2 ... 2^-13 at most, extrapolated
NARROW_BOUND = 1e-10  # relative: once reached, after LEAST_LEVELS, no further level is needed
LEAST_LEVELS = 7


@dataclass(frozen=True)
class ArgumentAdjoint:
    """The adjoint test of one argument.

    Attributes:
        error: |u.(J v) - v.(J^T u)| / (|u| |J v|).
        method: "linear" (J v = f(v)) or "differences" (extrapolated central differences).
        bound: the bound of the error of J v itself, relative to |J v|; 0 for a linear argument.
        tolerance: what `error` may reach beyond `bound`.
        orders: observed orders of the plain central differences (about 2); empty for a linear argument.
    """

    name: str
    method: str
    error: float
    bound: float
    tolerance: float
    orders: np.ndarray

    @property
    def ok(self) -> bool:
        return self.bound <= max(WIDEST_BOUND, self.tolerance) and self.error <= self.tolerance + self.bound


@dataclass(frozen=True)
class AdjointReport:
    """One `ArgumentAdjoint` for each argument (and parameter); `orders` by name."""

    title: str
    arguments: tuple[ArgumentAdjoint, ...]

    @property
    def ok(self) -> bool:
        return all(argument.ok for argument in self.arguments)

    @property
    def orders(self) -> dict[str, np.ndarray]:
        return {argument.name: argument.orders for argument in self.arguments}

    def __str__(self) -> str:
        width = max(len(argument.name) for argument in self.arguments)
        lines = [f"adjoint {self.title}: {'ok' if self.ok else 'FAILED'}"]
        lines.append(f"  {'argument':{max(width, 8)}}  {'J v by':11}  {'error':>9}  {'its bound':>9}  tolerance")
        for a in self.arguments:
            lines.append(
                f"  {a.name:{max(width, 8)}}  {a.method:11}  {a.error:9.2e}  {a.bound:9.2e}  {a.tolerance:9.0e}"
                + ("" if a.ok else "  FAILED")
            )
        return "\n".join(lines)


def _replaced(values: Arrays, k: int, value: np.ndarray) -> Arrays:
    return [*values[:k], value, *values[k + 1 :]]


def is_linear(problem: Problem, k: int, v: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether f is linear in its k-th variable, as far as f(-v), f(2v - 3w) and f(x + v) tell, to rounding."""
    x = problem.values[k]
    w = rng.standard_normal(x.shape)

    def f(z: np.ndarray) -> Arrays:
        return evaluate(problem, _replaced(problem.values, k, z))

    with np.errstate(all="ignore"):  # arguments such as log(-v) are tried on purpose
        fv, fw, fx = f(v), f(w), f(x)
        size = norm(fx) + 5 * norm(fv) + 5 * norm(fw)
        gaps = (
            [a + b for a, b in zip(f(-v), fv, strict=True)],
            [a - 2 * b + 3 * c for a, b, c in zip(f(2 * v - 3 * w), fv, fw, strict=True)],
            [a - b - c for a, b, c in zip(f(x + v), fx, fv, strict=True)],
        )
        return bool(np.isfinite(size)) and all(norm(g) <= 1e3 * np.finfo(np.float64).eps * size for g in gaps)


def central_differences(problem: Problem, directions: Arrays) -> tuple[Arrays, float, np.ndarray]:
    """J v by central differences, extrapolated to h = 0.

    Returns:
        J v; the bound of its error, absolute; the observed orders of the plain differences.

    Source: Ridders, "Accurate computation of F'(x) and F'(x)F''(x)" (1982): Neville's table in h^2, the entry with
    the smallest difference from its two neighbours, that difference being the bound, plus the rounding of f.
    """
    best: Arrays = []
    bound = np.inf
    plain: list[Arrays] = []
    row: list[Arrays] = []
    for level in range(LEVELS):
        if level >= LEAST_LEVELS and bound <= NARROW_BOUND * norm(best):
            break
        h = 0.25 * 0.5**level
        ahead = evaluate(problem, moved(problem.values, directions, h))
        behind = evaluate(problem, moved(problem.values, directions, -h))
        rounding = np.finfo(np.float64).eps * max(norm(ahead), norm(behind)) / h
        above, row = row, [[d / (2 * h) for d in difference(ahead, behind)]]
        plain.append(row[0])
        for k in range(1, level + 1):
            factor = 4.0**k
            row.append([(factor * a - b) / (factor - 1) for a, b in zip(row[k - 1], above[k - 1], strict=True)])
            gap = max(norm(difference(row[k], row[k - 1])), norm(difference(row[k], above[k - 1])))
            if gap + 4 * rounding < bound:
                best, bound = row[k], gap + 4 * rounding
    changes = np.array([norm(difference(a, b)) for a, b in itertools.pairwise(plain)])
    return best, bound, observed_orders(changes)


def _rounded(a: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    return np.asarray(np.asarray(a, dtype), np.float64)


def adjoint_of_argument(exact: Problem, tested: Problem, k: int, seed: int) -> ArgumentAdjoint:
    """The adjoint test of variable k: J v from the float64 problem `exact`, J^T u from the rules of `tested`."""
    rng = np.random.default_rng([seed, k])
    v = _rounded(random_directions([exact.values[k]], rng)[0], tested.dtype)
    orders = np.array([])
    if is_linear(exact, k, v, rng):
        method, bound = "linear", 0.0
        jv = evaluate(exact, _replaced(exact.values, k, v))
    else:
        method = "differences"
        still = [np.zeros_like(a) for a in exact.values]
        jv, bound, orders = central_differences(exact, _replaced(still, k, v))
    u = [_rounded(rng.standard_normal(a.shape), tested.dtype) for a in jv]
    jtu = gradients(tested, tested.values, [np.asarray(a, tested.dtype) for a in u])[k]
    scale = norm(u) * norm(jv)
    gap = abs(dot(u, jv) - dot([v], [jtu]))
    tolerance = TOLERANCE[tested.dtype]
    if scale == 0:  # f does not depend on this argument: J^T u has to vanish too
        return ArgumentAdjoint(exact.names[k], method, gap, 0.0, tolerance, orders)
    return ArgumentAdjoint(exact.names[k], method, gap / scale, bound / norm(jv), tolerance, orders)


@without_winograd()
def adjoint(
    function: Callable[..., Any],
    *inputs: Any,
    argnums: int | Sequence[int] | None = None,
    dtype: Any = np.float64,
    seed: int = 0,
) -> AdjointReport:
    """Tests u.(J v) = v.(J^T u) for each argument of a function, or each input and parameter of a model.

    J^T u comes from the tape in `dtype`. J v never does: where f is linear in the argument (found by trying), J v is
    f(v); elsewhere it is taken from extrapolated central differences of f in float64, whose own error bound is part
    of the report. The error relative to |u| |J v| must be below 1e-10 in float64 and 1e-5 in float32 (beyond that
    bound, which must itself be below 1e-8, or it decides nothing).

    Args:
        function: takes tensors and returns a tensor or a tuple of tensors; or a model.
        inputs: arrays or tensors; integer ones are constants. Kinks must lie further from them than v/4, |v| <= 1.
        argnums: the arguments to test, all floating-point ones by default.
        dtype: float64 or float32, of the gradient under test.
        seed: of u and v.

    Source: Ruthotto and Haber, "Numerical Methods for Deep Learning", adjoint test.
    """
    tested = Problem(function, inputs, argnums, dtype)
    exact = Problem(function, inputs, argnums)
    exact.values = [a.astype(np.float64) for a in tested.values]
    return AdjointReport(
        exact.title, tuple(adjoint_of_argument(exact, tested, k, seed) for k in range(len(exact.values)))
    )
