"""Elementwise arithmetic with broadcasting. Each operation stands above its gradient rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import backend
from .._errors import GradientError
from ..autodiff import record
from ..modes import thread
from ..tensor import Tensor, value
from .operands import array, arrays, broadcast_shape, floating, kept, together
from .reduction import sum_to

xp_of = backend.xp


def shape_of(x: Any) -> tuple[int, ...]:
    return x.shape if hasattr(x, "shape") else ()


def product(dy: Any, derivative: Any) -> Any:
    """dy * derivative; once a `where` lies above in the sweep, an infinite derivative counts as 0 where dy is 0.

    The branch of a `where` that was not taken gets dy = 0, and 0 * inf would leak NaN out of it. dy itself stays a
    factor: it may be 0 by chance, and its own derivative is not.
    """
    if not thread.modes.selecting or not hasattr(derivative, "dtype"):
        return dy * derivative
    slope = value(derivative)
    finite = slope - slope == 0
    return dy * where((value(dy) != 0) | finite, derivative, 0.0)


Shapes = tuple[tuple[int, ...], tuple[int, ...]] | None  # of two operands; None where nothing is broadcast


def _operands(operation: str, a: Any, b: Any) -> tuple[Any, Any, Shapes]:
    """The arrays of two operands, and the shapes that their gradients are summed to."""
    if isinstance(a, Tensor):  # the common pairs at once: tensors of one float dtype and shape, a tensor and a float
        xa = a.data
        if isinstance(b, Tensor):
            xb = b.data
            dtype = xa.dtype
            alike = dtype is xb.dtype and type(xa) is type(xb) and xa.shape == xb.shape and dtype.kind == "f"
            if alike and (type(xa) is np.ndarray or backend.device_of(xa) == backend.device_of(xb)):
                return xa, xb, None
        elif type(b) is float and xa.dtype.kind == "f":
            return xa, b, None
    xa, xb = arrays(operation, a, b)
    shape_a, shape_b = shape_of(xa), shape_of(xb)
    if shape_a == shape_b:
        return xa, xb, None
    broadcast_shape(operation, shape_a, shape_b)
    return xa, xb, (shape_a, shape_b)


def _summed(shapes: Shapes, da: Any, db: Any) -> tuple[Any, Any]:
    """The gradients summed over the axes along which the operands were broadcast."""
    if shapes is None:
        return da, db
    return None if da is None else sum_to(da, shapes[0]), None if db is None else sum_to(db, shapes[1])


def _needs(x: Any) -> bool:
    return isinstance(x, Tensor) and x.node is not None


def add(a: Any, b: Any) -> Any:
    """a + b, elementwise with broadcasting."""
    xa, xb, shapes = _operands("add", a, b)
    return record(add_rule, xa + xb, (a, b), (shapes,))


def add_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    da, db = dy if needs[0] else None, dy if needs[1] else None
    return (da, db) if saved[0] is None else _summed(saved[0], da, db)


def subtract(a: Any, b: Any) -> Any:
    """a - b, elementwise with broadcasting."""
    xa, xb, shapes = _operands("subtract", a, b)
    if _is_bool(xa) and _is_bool(xb):
        xa = xa.astype(int)
    return record(subtract_rule, xa - xb, (a, b), (shapes,))


def _is_bool(x: Any) -> bool:
    return hasattr(x, "dtype") and x.dtype.kind == "b"


def subtract_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return _summed(saved[0], dy if needs[0] else None, -dy if needs[1] else None)


def multiply(a: Any, b: Any) -> Any:
    """a * b, elementwise with broadcasting."""
    if type(a) is float:
        a, b = b, a
    if type(b) is float and isinstance(a, Tensor) and math.isfinite(b):
        data = a.data  # most products are
        if data.dtype.kind == "f":
            factor = backend.DEVICES[type(data)].scalar(b, data.dtype)
            return record(scale_rule, data * factor, (a,), (factor,))
    xa, xb, shapes = _operands("multiply", a, b)
    saved = (kept(a, xa) if _needs(b) else None, kept(b, xb) if _needs(a) else None, shapes)
    return record(multiply_rule, xa * xb, (a, b), saved)


def multiply_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    a, b, shapes = saved
    return _summed(shapes, product(dy, b) if needs[0] else None, product(dy, a) if needs[1] else None)


def scale_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (dy * saved[0],)  # no `product`: the factor is finite


def divide(a: Any, b: Any) -> Any:
    """a / b, elementwise with broadcasting; integers divide in the default dtype."""
    xa, xb, shapes = _operands("divide", a, b)
    if not (backend.is_float(xa) if hasattr(xa, "dtype") else backend.is_float(xb)):
        xa = floating("divide", xa)
        xb = floating("divide", xb) if hasattr(xb, "dtype") else xb
    xp = xp_of(xa if hasattr(xa, "dtype") else xb)
    if not hasattr(xb, "dtype"):
        xb = xp.asarray(xb, dtype=xa.dtype)  # the rule divides by it in this precision
    with _quiet():
        data = xp.true_divide(xa, xb)
    return record(divide_rule, data, (a, b), (kept(b, xb), shapes), save_out=_needs(b))


def divide_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    """d(a/b) = dy / b, -(dy / b) (a / b)."""
    b, shapes = saved
    da = product(dy, divide(1.0, b))
    return _summed(shapes, da if needs[0] else None, product(-da, out) if needs[1] else None)


def negative(x: Any) -> Any:
    """-x."""
    return record(negative_rule, -array("negative", x), (x,))


def negative_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (-dy,)


def power(a: Any, b: Any) -> Any:
    """a ** b, elementwise with broadcasting. The derivative in b is 0 where a is 0 (for a < 0 it is NaN)."""
    xa, xb, shapes = _operands("power", a, b)
    if hasattr(xa, "dtype") and not backend.is_float(xa) and not hasattr(xb, "dtype") and xb < 0:
        xa = floating("power", xa)
    if not hasattr(xa, "dtype"):
        xa = xp_of(xb).asarray(xa, dtype=xb.dtype)
    with _quiet():
        data = xa**xb
    saved = (kept(a, xa), kept(b, xb), shapes)
    return record(power_rule, data, (a, b), saved, save_out=_needs(b))


def power_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    """d(a^b) = dy b a^(b-1), dy a^b log a; an exponent of 0 gives 0, also at a = 0."""
    a, b, shapes = saved
    da = db = None
    if needs[0]:
        flat = value(b) == 0
        if isinstance(flat, bool):
            slope = a * 0.0 if flat else b * power(a, b - 1)
        else:
            slope = b * power(a, where(flat, 1.0, b - 1))
        da = product(dy, slope)
    if needs[1]:
        db = product(dy, out * log(where(value(a) == 0, 1.0, a)))
    return _summed(shapes, da, db)


def log(x: Any) -> Any:
    """The natural logarithm."""
    data = floating("log", x)
    with _quiet():
        return record(log_rule, xp_of(data).log(data), (x,), (kept(x, data),))


def log_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (product(dy, divide(1.0, saved[0])),)


def sqrt(x: Any) -> Any:
    """The square root; its derivative at 0 is infinite."""
    data = floating("sqrt", x)
    with _quiet():
        return record(sqrt_rule, xp_of(data).sqrt(data), (x,), save_out=True)


def sqrt_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (product(dy, divide(0.5, out)),)


def abs(x: Any) -> Any:
    """|x|; abs'(0) = 0."""
    data = array("abs", x)
    xp = xp_of(data)
    return record(abs_rule, xp.abs(data), (x,), (kept(x, data),))


def abs_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    x = value(saved[0])
    return (product(dy, xp_of(x).sign(x)),)


def maximum(a: Any, b: Any) -> Any:
    """The larger of a and b, elementwise with broadcasting; NaN wins; a tie gives each one half of the gradient."""
    xa, xb, shapes = _operands("maximum", a, b)
    data = xp_of(xa if hasattr(xa, "dtype") else xb).maximum(xa, xb)
    return record(maximum_rule, data, (a, b), (kept(a, xa), kept(b, xb), shapes))


def maximum_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    a, b, shapes = saved
    return _shares(dy, needs, value(a), value(b), shapes)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of a and b, elementwise with broadcasting; NaN wins; a tie gives each one half of the gradient."""
    xa, xb, shapes = _operands("minimum", a, b)
    data = xp_of(xa if hasattr(xa, "dtype") else xb).minimum(xa, xb)
    return record(minimum_rule, data, (a, b), (kept(a, xa), kept(b, xb), shapes))


def minimum_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    a, b, shapes = saved
    return _shares(dy, needs, -value(a), -value(b), shapes)


def _shares(dy: Any, needs: Any, a: Any, b: Any, shapes: Shapes) -> Any:
    """dy for the larger one, half of it for each at a tie."""
    dtype = dy.dtype
    tie = 0.5 * (a == b)
    da = dy * ((a > b) + tie).astype(dtype) if needs[0] else None
    return _summed(shapes, da, dy * ((b > a) + tie).astype(dtype) if needs[1] else None)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b, with broadcasting.

    The gradient of the branch not taken is exactly 0, and stays 0 through elementwise operations below it even
    where their derivatives are infinite or NaN.
    """
    chosen = array("where", condition)
    if chosen.dtype != bool:
        chosen = chosen != 0
    elif not isinstance(condition, Tensor):
        chosen = chosen.copy()  # the caller may change it before the gradient is taken
    xa, xb = arrays("where", a, b)
    if not hasattr(xa, "dtype") and not hasattr(xb, "dtype"):
        xa = array("where", xa)
    if len(backend.DEVICES) > 1:
        chosen, xa, xb = together("where", (chosen, xa, xb), (condition, a, b))
    broadcast_shape("where", chosen.shape, shape_of(xa), shape_of(xb))
    data = xp_of(chosen).where(chosen, xa, xb)
    return record(where_rule, data, (a, b), (kept(condition, chosen), shape_of(xa), shape_of(xb)))


def where_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    chosen, shape_a, shape_b = saved
    thread.modes.selecting = True
    da = sum_to(where(chosen, dy, 0.0), shape_a) if needs[0] else None
    return da, sum_to(where(chosen, 0.0, dy), shape_b) if needs[1] else None


def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    """x limited to low <= x <= high (numbers, arrays or None); NaN stays; the derivative is 1 on the bounds."""
    if any(isinstance(bound, Tensor) and bound.node is not None for bound in (low, high)):
        raise GradientError("clip: the bounds are constants; use minimum(maximum(x, low), high) for their gradients")
    given = [b for b in (low, high) if b is not None]
    data, *bounds = arrays("clip", x, *given)
    inside = data == data
    limited = data
    xp = xp_of(data)
    if low is not None:
        limited = xp.maximum(limited, bounds[0])
        inside = inside & (data >= bounds[0])
    if high is not None:
        limited = xp.minimum(limited, bounds[-1])
        inside = inside & (data <= bounds[-1])
    limited = limited.copy() if limited is data else limited
    return record(clip_rule, limited, (x,), (inside, data.shape))


def clip_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    inside, shape = saved
    return (sum_to(where(inside, dy, 0.0), shape),)


def _comparison(operation: str, symbol: str) -> Any:
    def compare(a: Any, b: Any) -> Any:
        xa, xb, _ = _operands(operation, a, b)
        xp = xp_of(xa if hasattr(xa, "dtype") else xb)
        return Tensor(xp.asarray(getattr(xp, operation)(xa, xb)))

    compare.__name__ = compare.__qualname__ = operation
    compare.__doc__ = f"a {symbol} b, elementwise with broadcasting, as a bool tensor."
    return compare


equal = _comparison("equal", "==")
not_equal = _comparison("not_equal", "!=")
less = _comparison("less", "<")
less_equal = _comparison("less_equal", "<=")
greater = _comparison("greater", ">")
greater_equal = _comparison("greater_equal", ">=")


def _quiet() -> Any:
    """IEEE arithmetic without warnings of NumPy's: infinities and NaN are answers here, `detect_anomaly` finds them."""
    return np.errstate(divide="ignore", invalid="ignore", over="ignore")
