"""Activations: one table, a kernel for the value and the first derivative, a formula for all further derivatives.

The formula is written in the output y where y determines the derivative (then x need not be kept), else in x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import backend
from ..autodiff import record
from ..modes import thread
from ..tensor import Tensor, value
from .arithmetic import abs, product, where, xp_of
from .operands import array, floating, kept


@dataclass(frozen=True)
class Activation:
    """derivative(s, p): of the saved value s (y if from_output, else x) and the parameter p."""

    derivative: Callable[[Any, float], Any]
    from_output: bool
    parameter: float = 0.0
    least: float = -math.inf  # the parameter must be larger


def _relu_slope(y: Any, p: float) -> Any:
    return _step(y, 0.0)


def _leaky_slope(y: Any, p: float) -> Any:
    return _step(y, p)


def _step(y: Any, below: float) -> Any:
    """1 above 0, `below` elsewhere, NaN at NaN: constant, so that its own derivative is 0."""
    y = value(y)
    xp = xp_of(y)
    return xp.where(xp.isnan(y), y, xp.where(y > 0, 1.0, below).astype(y.dtype))


def _elu_slope(y: Any, p: float) -> Any:
    return where(value(y) > 0, 1.0, y + p)


def _softsign_slope(y: Any, p: float) -> Any:
    left = 1.0 - abs(y)
    return left * left


def _gelu_slope(x: Any, p: float) -> Any:
    """Phi(x) + x phi(x), where Phi' = phi, the normal density."""
    return normal_distribution(x) + x * _density(x)


def _density(x: Any) -> Any:
    return exp(x * x * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))


def _smooth_relu_slope(x: Any, eta: float) -> Any:
    inside = xp_of(value(x)).abs(value(x)) <= eta
    return where(inside, x * (0.5 / eta) + 0.5, _step(x, 0.0))


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(_relu_slope, True),
    "leaky_relu": Activation(_leaky_slope, True, 0.01, 0.0),
    "tanh": Activation(lambda y, p: 1.0 - y * y, True),
    "scaled_tanh": Activation(lambda y, p: (2.0 / 3.0) * (1.7159 - y * y * (1.0 / 1.7159)), True),
    "sigmoid": Activation(lambda y, p: y * (1.0 - y), True),
    "softsign": Activation(_softsign_slope, True),
    "softplus": Activation(lambda x, p: sigmoid(x), False),
    "elu": Activation(_elu_slope, True, 1.0, 0.0),
    "gelu": Activation(_gelu_slope, False),
    "sin": Activation(lambda x, p: cos(x), False),
    "smooth_relu": Activation(_smooth_relu_slope, False, 0.1, 0.0),
    "exp": Activation(lambda y, p: y, True),
}


def resolve(operation: str, activation: Any) -> tuple[str, float]:
    """(name, parameter) of None, a name, (name, parameter), or one of the functions below."""
    if activation is None:
        return "identity", 0.0
    if callable(activation):
        activation = activation.__name__
    name, parameter = activation if isinstance(activation, tuple) else (activation, None)
    if name == "identity":
        return name, 0.0
    if name not in ACTIVATIONS:
        known = ", ".join(["identity", *ACTIVATIONS])
        raise ValueError(f"{operation}: activation {name!r} is not known; use one of {known}")
    row = ACTIVATIONS[name]
    parameter = row.parameter if parameter is None else float(parameter)
    if not parameter > row.least:
        raise ValueError(f"{operation}: the parameter of {name} is {parameter}, but must be larger than {row.least:g}")
    return name, parameter


def activate(x: Any, kind: str, parameter: float | None = None) -> Any:
    """The activation `kind` of x, by its kernel."""
    kind, parameter = resolve(kind, (kind, parameter))
    return x if kind == "identity" else _activate(x, kind, parameter)


def _activate(x: Any, kind: str, parameter: float = 0.0) -> Any:
    data = floating(kind, x)
    out = backend.empty(kind, data, data.shape)
    backend.kernels(data).activation_forward(out, data, kind, parameter)
    rule, from_output = RULES[kind]
    return record(rule, out, (x,), (None if from_output else kept(x, data), kind, parameter), from_output)


def activation_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    x, kind, parameter = saved
    return (activation_backward(dy, out if x is None else x, kind, parameter),)


def _rule_of(kind: str) -> Callable[..., Any]:
    """activation_rule under the name of one activation, for messages."""

    def rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
        return activation_rule(dy, needs, out, saved)

    rule.__name__ = f"{kind}_rule"
    return rule


RULES = {kind: (_rule_of(kind), row.from_output) for kind, row in ACTIVATIONS.items()}


def activation_backward(dy: Any, s: Any, kind: str, parameter: float) -> Any:
    """dy * derivative, from the saved value s: one kernel on arrays, the table's formula on tensors."""
    if isinstance(dy, Tensor) or isinstance(s, Tensor):
        return product(dy, ACTIVATIONS[kind].derivative(s, parameter))
    out = backend.empty(kind, s, s.shape)
    backend.kernels(s).activation_backward(out, dy, s, kind, parameter)
    return where(dy == 0, 0.0, out) if thread.modes.selecting else out


def relu(x: Any) -> Any:
    """max(x, 0), any shape; relu'(0) = 0; NaN stays NaN."""
    return _activate(x, "relu")


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """x for x > 0, else negative_slope * x; the derivative at 0 is negative_slope (> 0)."""
    return activate(x, "leaky_relu", negative_slope)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return _activate(x, "tanh")


def scaled_tanh(x: Any) -> Any:
    """1.7159 tanh(2 x / 3), so that f(1) = 1 and f(-1) = -1 nearly (LeCun et al. 1998, appendix A)."""
    return _activate(x, "scaled_tanh")


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return _activate(x, "sigmoid")


def softsign(x: Any) -> Any:
    """x / (1 + |x|) (Glorot and Bengio 2010)."""
    return _activate(x, "softsign")


def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return _activate(x, "softplus")


def elu(x: Any, alpha: float = 1.0) -> Any:
    """x for x > 0, else alpha (exp(x) - 1), alpha > 0."""
    return activate(x, "elu", alpha)


def gelu(x: Any) -> Any:
    """x Phi(x) with the normal distribution Phi(x) = (1 + erf(x / sqrt 2)) / 2, exact."""
    return _activate(x, "gelu")


def sin(x: Any) -> Any:
    """The sine."""
    return _activate(x, "sin")


def cos(x: Any) -> Any:
    """The cosine."""
    data = floating("cos", x)
    return record(cos_rule, xp_of(data).cos(data), (x,), (kept(x, data),))


def cos_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (product(dy, -sin(saved[0])),)


def smooth_relu(x: Any, eta: float = 0.1) -> Any:
    """x^2 / (4 eta) + x / 2 + eta / 4 for |x| <= eta, else max(x, 0) (the course's smooth ReLU; eta > 0)."""
    return activate(x, "smooth_relu", eta)


def exp(x: Any) -> Any:
    """The exponential."""
    return _activate(x, "exp")


def identity(x: Any) -> Any:
    """x itself, as a tensor."""
    return x if isinstance(x, Tensor) else Tensor(array("identity", x))


def normal_distribution(x: Any) -> Any:
    """Phi(x), elementwise: the part of gelu's derivative that no other operation gives."""
    data = array("gelu", x)
    # gelu'(x) = Phi(x) + x phi(x): the kernel gives the left side, with less rounding than gelu(x) / x
    xp = xp_of(data)
    slope = backend.empty("gelu", data, data.shape)
    backend.kernels(data).activation_backward(slope, xp.ones_like(data), data, "gelu", 0.0)
    density = xp.exp(data * data * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))
    return record(normal_distribution_rule, slope - data * density, (x,), (kept(x, data),))


def normal_distribution_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    return (product(dy, _density(saved[0])),)
