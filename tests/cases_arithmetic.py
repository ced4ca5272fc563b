"""Rows of cases.py: arithmetic, comparisons, reductions, products and shapes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

import reference as ref
import tinygrad_nm as nm
from cases import PAIRS, SHAPES, Case, Draw, Variant, apart, away, distinct, each, each_pair, normal, positive


def scalar(formula: Callable[..., Any]) -> Callable[..., np.ndarray]:
    return lambda *arrays: ref.elementwise(formula, *arrays)


def compared(formula: Callable[[float, float], bool]) -> Callable[..., np.ndarray]:
    return lambda a, b: ref.elementwise(formula, a, b) != 0


def mixed(*draws: Draw) -> Draw:
    """The arrays of several draws, one after the other."""
    return lambda rng: tuple(array for draw in draws for array in draw(rng))


def masked(*shapes: tuple[int, ...]) -> Draw:
    """A bool mask and two normal arrays."""
    mask, left, right = shapes
    return lambda rng: (rng.random(mask) < 0.5, rng.standard_normal(left), rng.standard_normal(right))


def reductions(draw: Callable[..., Draw]) -> list[Variant]:
    x = draw((2, 3, 4))
    return [
        Variant(draw(())),
        Variant(x),
        Variant(x, {"axis": 1}),
        Variant(x, {"axis": (0, -1), "keepdims": True}),
        Variant(x, {"axis": -1, "keepdims": True}),
    ]


def reduced(f: Callable[[list[float]], float]) -> Callable[..., np.ndarray]:
    return lambda x, axis=None, keepdims=False: ref.reduce_axes(f, x, axis, keepdims)


def comparison(name: str, formula: Callable[[float, float], bool]) -> Case:
    return Case(name, compared(formula), each_pair(_ties), derivative=False, exact=True)


def _ties(*shapes: tuple[int, ...]) -> Draw:
    return lambda rng: tuple(rng.integers(-1, 2, shape).astype(np.float64) for shape in shapes)


def _joined(function: str) -> Callable[..., Any]:
    return lambda *arrays, axis=0: getattr(nm, function)(list(arrays), axis=axis)


def _pad(x: np.ndarray, widths: Any, constant: float = 0.0) -> np.ndarray:
    y = np.full([n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)], constant)
    y[tuple(slice(a, a + n) for n, (a, _) in zip(x.shape, widths, strict=True))] = x
    return y


def _concatenate(*arrays: np.ndarray, axis: int = 0) -> np.ndarray:
    shape = list(arrays[0].shape)
    shape[axis] = sum(a.shape[axis] for a in arrays)
    y, start = np.empty(shape), 0
    for a in arrays:
        where: list[Any] = [slice(None)] * y.ndim
        where[axis] = slice(start, start + a.shape[axis])
        y[tuple(where)] = a
        start += a.shape[axis]
    return y


def _stack(*arrays: np.ndarray, axis: int = 0) -> np.ndarray:
    ndim = arrays[0].ndim + 1
    shape = list(arrays[0].shape)
    shape.insert(axis % ndim, 1)
    return _concatenate(*[a.reshape(shape) for a in arrays], axis=axis % ndim)


def _transpose(x: np.ndarray, axes: Any = None) -> np.ndarray:
    order = range(x.ndim)[::-1] if axes is None else axes
    y = np.empty([x.shape[a] for a in order])
    for index in np.ndindex(*x.shape):
        y[tuple(index[a] for a in order)] = x[index]
    return y


def _var(x: np.ndarray, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> np.ndarray:
    return ref.reduce_axes(ref.variance(ddof), x, axis, keepdims)


def _flatten(x: np.ndarray, start_axis: int = 0) -> np.ndarray:
    return x.reshape(*x.shape[:start_axis], -1)


PRODUCTS = (
    ((4,), (4,)),
    ((4,), (4, 3)),
    ((5, 4), (4,)),
    ((5, 4), (4, 3)),
    ((2, 3, 4), (4, 5)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((4,), (2, 4, 3)),
    ((3, 4), (2, 4, 5)),
    ((3, 0), (0, 2)),
    ((0, 4), (4, 2)),
    ((17, 33), (33, 19)),
)

ROWS = [
    Case("add", scalar(operator.add), each_pair(normal), exact=True),
    Case("subtract", scalar(operator.sub), each_pair(normal), exact=True),
    Case("multiply", scalar(operator.mul), each_pair(normal), linear=(0, 1), exact=True),
    Case(
        "divide",
        scalar(operator.truediv),
        [Variant(mixed(normal(a), positive(b))) for a, b in PAIRS],
        linear=(0,),
    ),
    Case("negative", scalar(operator.neg), each(normal, SHAPES), linear=(0,), exact=True),
    Case("power", scalar(math.pow), [Variant(mixed(positive(a), normal(b))) for a, b in PAIRS], rounding=64),
    Case("log", scalar(math.log), each(positive, SHAPES)),
    Case("sqrt", scalar(math.sqrt), each(positive, SHAPES)),
    Case("abs", scalar(abs), each(away, SHAPES), exact=True),
    Case("cos", scalar(math.cos), each(normal, SHAPES)),
    Case("maximum", ref.maximum, each_pair(apart), exact=True),
    Case("minimum", ref.minimum, each_pair(apart), exact=True),
    Case(
        "where",
        scalar(lambda m, a, b: a if m else b),
        [Variant(masked(*shapes)) for shapes in (((3, 4), (3, 4), (3, 4)), ((3, 1), (4,), ()), ((0,), (0,), (0,)))],
        exact=True,
    ),
    Case(
        "clip",
        ref.clip,
        [
            Variant(away((4, 5), kinks=(-2.0, 2.0)), {"low": -2.0, "high": 2.0}),
            Variant(away((), kinks=(1.0,)), {"low": 1.0, "high": None}),
            Variant(away((0, 2), kinks=(1.0,)), {"low": None, "high": 1.0}),
        ],
        function=lambda x, low, high: nm.clip(x, low, high),
        exact=True,
    ),
    comparison("equal", operator.eq),
    comparison("not_equal", operator.ne),
    comparison("less", operator.lt),
    comparison("less_equal", operator.le),
    comparison("greater", operator.gt),
    comparison("greater_equal", operator.ge),
    Case("sum", reduced(math.fsum), [*reductions(normal), *each(normal, [(0, 3)])], linear=(0,), exact=True),
    Case("mean", reduced(ref.mean), reductions(normal), linear=(0,)),
    Case("max", reduced(ref.largest), reductions(distinct), exact=True),
    Case("min", reduced(ref.smallest), reductions(distinct), exact=True),
    Case(
        "var",
        _var,
        [
            Variant(normal((2, 3, 4))),
            Variant(normal((2, 3, 4)), {"axis": 1, "ddof": 1}),
            Variant(normal((2, 3, 4)), {"axis": (0, -1), "keepdims": True}),
        ],
        rounding=32,
    ),
    Case("logsumexp", reduced(ref.logsumexp), reductions(normal)),
    Case(
        "argmax",
        lambda x, axis=None: ref.reduce_axes(ref.first_of_largest, x, axis),
        [Variant(_ties((2, 3, 4))), Variant(_ties((2, 3, 4)), {"axis": 1}), Variant(_ties((5,)), {"axis": -1})],
        derivative=False,
        exact=True,
    ),
    Case(
        "all",
        lambda x: np.array(all(v != 0 for v in x.flat)),
        [Variant(_ties((5,))), Variant(positive((2, 3))), Variant(normal((0,)))],
        derivative=False,
    ),
    Case(
        "any",
        lambda x: np.array(any(v != 0 for v in x.flat)),
        [Variant(_ties((5,))), Variant(lambda rng: (np.zeros((2, 3)),)), Variant(normal((0,)))],
        derivative=False,
    ),
    Case(
        "astype",  # to the dtype it has: a copy; conversions are in test_tape_dtypes.py
        lambda x: x,
        each(normal, SHAPES),
        function=lambda x: nm.astype(x, x.dtype.newbyteorder("=")),
        linear=(0,),
        exact=True,
    ),
    Case(
        "matmul",
        ref.matmul,
        each_pair(normal, PRODUCTS),
        linear=(0, 1),
        kernel="gemm",
        terms=lambda a, b: max(1, a.shape[-1]),
        exact=True,
    ),
    Case(
        "reshape",
        lambda x, shape: np.array(list(x.flat)).reshape(shape),
        function=lambda x, shape: nm.reshape(x, shape),
        variants=[Variant(normal((2, 6)), {"shape": (3, 4)}), Variant(normal((2, 6)), {"shape": (-1,)})],
        linear=(0,),
        exact=True,
    ),
    Case(
        "transpose",
        _transpose,
        function=lambda x, axes=(): nm.transpose(x, *axes),
        variants=[Variant(normal((2, 3, 4))), Variant(normal((2, 3, 4)), {"axes": (1, 2, 0)}), Variant(normal((3,)))],
        linear=(0,),
        exact=True,
    ),
    Case(
        "squeeze",
        lambda x, axis=None: x.reshape([n for i, n in enumerate(x.shape) if n != 1 or (axis not in (None, i))]),
        [Variant(normal((2, 1, 3, 1))), Variant(normal((2, 1, 3, 1)), {"axis": 1})],
        linear=(0,),
        exact=True,
    ),
    Case(
        "expand_dims",
        lambda x, axis: x.reshape(*x.shape[:axis], 1, *x.shape[axis:]),
        [Variant(normal((2, 3)), {"axis": 1}), Variant(normal(()), {"axis": 0})],
        linear=(0,),
        exact=True,
    ),
    Case(
        "broadcast_to",
        lambda x, shape: x + np.zeros(shape),
        [Variant(normal((3, 1)), {"shape": (2, 3, 4)}), Variant(normal(()), {"shape": (2,)})],
        linear=(0,),
        exact=True,
    ),
    Case(
        "concatenate",
        _concatenate,
        [Variant(normal((2, 3), (2, 1)), {"axis": 1}), Variant(normal((2, 3), (4, 3), (0, 3)))],
        function=_joined("concatenate"),
        exact=True,
    ),
    Case(
        "stack",
        _stack,
        [Variant(normal((2, 3), (2, 3))), Variant(normal((2, 3), (2, 3)), {"axis": 1}), Variant(normal((), ()))],
        function=_joined("stack"),
        exact=True,
    ),
    Case(
        "pad",
        _pad,
        [
            Variant(normal((2, 3)), {"widths": ((1, 2), (0, 3))}),
            Variant(normal((0,)), {"widths": ((2, 0),)}),
        ],
        linear=(0,),
        exact=True,
    ),
    Case(
        "getitem",  # the index operator: x[key]
        lambda x, key: x[key],
        [
            Variant(normal((4, 5)), {"key": (slice(None, None, -2), 1)}),
            Variant(normal((4, 5)), {"key": (Ellipsis, None, slice(1, 3))}),
            Variant(normal((4, 5)), {"key": np.array([[0, 3, 0], [1, 1, -1]])}),
            Variant(normal((4, 5)), {"key": (np.array([2, 0, 2]), np.array([1, 4, 1]))}),
            Variant(normal((3,)), {"key": np.array([True, False, True])}),
            Variant(normal((3,)), {"key": 1}),
        ],
        function=lambda x, key: nm.identity(x)[key],
        linear=(0,),
        exact=True,
    ),
    Case(
        "flatten",
        _flatten,
        [Variant(normal((2, 3, 4))), Variant(normal((2, 3, 4)), {"start_axis": 1})],
        linear=(0,),
        exact=True,
    ),
]
