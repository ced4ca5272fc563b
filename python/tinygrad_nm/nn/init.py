"""Initial weights. Every function fills a parameter in place, under no graph, and returns it.

The draws are made in float64 and rounded to the parameter's dtype, so that a float32 and a float64 model of
one seed start from the same weights. They come from this thread's generator (`manual_seed`) or from
`generator=`.

`fans=(fan_in, fan_out)` overrides what the shape says: (out, in) or (out, in, KH, KW) of one group. A fan may
be an array that broadcasts to the weight, for layers whose units have different numbers of inputs.

Sources: Glorot and Bengio (2010), equations 1 and 16; He, Zhang, Ren and Sun (2015), equation 10; LeCun,
Bottou, Orr and Müller (1998), section 4.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import random
from .._errors import ShapeError
from ..autodiff import no_grad
from ..tensor import Tensor

Fans = tuple[Any, Any]
Initialiser = Callable[..., Tensor]

# standard gains by activation: sqrt(1 / E[f(x)^2]) for the rectifiers (He et al. 2015), 5/3 for tanh (LeCun
# 1998's
# argument for a tanh of unit variance as PyTorch has it), 1 where the activation is the identity around 0
_GAINS: dict[str, Callable[[float | None], float]] = {
    "identity": lambda _: 1.0,
    "sigmoid": lambda _: 1.0,
    "softsign": lambda _: 1.0,
    "scaled_tanh": lambda _: 1.0,
    "sin": lambda _: 1.0,
    "tanh": lambda _: 5.0 / 3.0,
    "relu": lambda _: math.sqrt(2.0),
    "smooth_relu": lambda _: math.sqrt(2.0),
    "leaky_relu": lambda slope: math.sqrt(2.0 / (1.0 + (0.01 if slope is None else slope) ** 2)),
}


def gain(activation: str, parameter: float | None = None) -> float:
    """The factor on the standard deviation that suits an activation; `parameter` is the slope of leaky_relu.

    Raises ValueError for an activation without a known gain.
    """
    if activation not in _GAINS:
        raise ValueError(f"gain: no gain is known for {activation!r}; give a number, or one of {', '.join(_GAINS)}")
    return _GAINS[activation](parameter)


def fans_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in) or (out, in, KH, KW). Raises ShapeError for fewer axes."""
    if len(shape) < 2:
        raise ShapeError(f"init: shape {tuple(shape)} has no fan-in; give fans=(fan_in, fan_out) or a weight of 2 axes")
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def _fill(weight: Tensor, values: np.ndarray) -> Tensor:
    with no_grad():
        weight.copy_(values.astype(weight.dtype, copy=False))
    return weight


def _scaled(weight: Tensor, draws: np.ndarray, std: Any, mean: float = 0.0) -> Tensor:
    """mean + std draws, in the memory of the draws: these may be hundreds of megabytes."""
    draws *= std
    draws += mean
    return _fill(weight, draws)


def _generator(generator: np.random.Generator | None) -> np.random.Generator:
    return random.generator() if generator is None else generator


def constant_(weight: Tensor, value: float) -> Tensor:
    """Every entry becomes `value`."""
    return _fill(weight, np.full(weight.shape, float(value)))


def zeros_(weight: Tensor) -> Tensor:
    """Every entry becomes 0."""
    return constant_(weight, 0.0)


def uniform_(
    weight: Tensor, low: float = 0.0, high: float = 1.0, *, generator: np.random.Generator | None = None
) -> Tensor:
    """U[low, high). Raises ValueError where low > high."""
    if not low <= high:
        raise ValueError(f"uniform_: low {low} is above high {high}")
    return _fill(weight, _generator(generator).uniform(low, high, weight.shape))


def normal_(
    weight: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: np.random.Generator | None = None
) -> Tensor:
    """N(mean, std^2). Raises ValueError where std < 0."""
    if not std >= 0:
        raise ValueError(f"normal_: std {std} is negative")
    return _scaled(weight, _generator(generator).standard_normal(weight.shape), std, mean)


def _by_variance(variance: Callable[[Any, Any], Any], shape: str, doc: str) -> Initialiser:
    """An initialiser of mean 0 and variance gain^2 * variance(fan_in, fan_out)."""

    def initialise(
        weight: Tensor,
        gain: float = 1.0,
        *,
        fans: Fans | None = None,
        generator: np.random.Generator | None = None,
    ) -> Tensor:
        fan_in, fan_out = fans_of(weight.shape) if fans is None else fans
        std = gain * np.sqrt(variance(np.asarray(fan_in, float), np.asarray(fan_out, float)))
        draw = _generator(generator)
        if shape == "uniform":
            return _scaled(weight, draw.uniform(-1.0, 1.0, weight.shape), math.sqrt(3.0) * std)
        return _scaled(weight, draw.standard_normal(weight.shape), std)

    initialise.__doc__ = doc
    return initialise


def _named(name: str, function: Initialiser) -> Initialiser:
    function.__name__ = function.__qualname__ = name
    return function


def _glorot(fan_in: Any, fan_out: Any) -> Any:
    return 2.0 / (fan_in + fan_out)


glorot_uniform_ = _named(
    "glorot_uniform_",
    _by_variance(_glorot, "uniform", "U[-a, a], a = gain sqrt(6 / (fan_in + fan_out)): Glorot's normalised form."),
)
glorot_normal_ = _named(
    "glorot_normal_",
    _by_variance(_glorot, "normal", "N(0, gain^2 2 / (fan_in + fan_out)): Glorot's variance."),
)
he_uniform_ = _named(
    "he_uniform_",
    _by_variance(lambda n, _: 2.0 / n, "uniform", "U[-a, a], a = gain sqrt(6 / fan_in): He's, for rectifiers."),
)
he_normal_ = _named(
    "he_normal_",
    _by_variance(lambda n, _: 2.0 / n, "normal", "N(0, gain^2 2 / fan_in): He's, for rectifiers."),
)
lecun_uniform_ = _named(
    "lecun_uniform_", _by_variance(lambda n, _: 1.0 / n, "uniform", "U[-a, a], a = gain sqrt(3 / fan_in).")
)
lecun_normal_ = _named("lecun_normal_", _by_variance(lambda n, _: 1.0 / n, "normal", "N(0, gain^2 / fan_in)."))
standard_ = _named(
    "standard_",
    _by_variance(
        lambda n, _: 1.0 / (3.0 * n),
        "uniform",
        'U[-a, a], a = gain / sqrt(fan_in): Glorot\'s "standard", n Var W = 1/3.',
    ),
)
xavier_uniform_, xavier_normal_ = glorot_uniform_, glorot_normal_
kaiming_uniform_, kaiming_normal_ = he_uniform_, he_normal_
