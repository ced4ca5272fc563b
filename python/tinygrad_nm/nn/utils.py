"""Helpers on gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .. import backend
from .._errors import GradientError
from ..autodiff import no_grad
from ..modes import unrepeatable
from ..tensor import Tensor


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scales all gradients so that their joint Euclidean norm is at most `max_norm`; returns the norm before.

    Parameters without a gradient are passed over. Raises ValueError for max_norm <= 0 and GradientError,
    before anything is changed, for gradients that hold NaN or Inf.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm: max_norm is {max_norm}; it must be positive")
    unrepeatable("clip_grad_norm() decides by a value")
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    each = {id(p): p for p in parameters}.values()  # a tied parameter counts once
    gradients = [p.grad for p in each if p.grad is not None]
    squares = [backend.xp(g.data).square(g.data, dtype="float64").sum() for g in gradients]
    norm = math.sqrt(math.fsum(float(s) for s in squares))
    if not math.isfinite(norm):
        shapes = [str(g.shape) for g, s in zip(gradients, squares, strict=True) if not math.isfinite(float(s))]
        raise GradientError(
            f"clip_grad_norm: the norm is {norm}, from gradients of shape {', '.join(shapes)}; see detect_anomaly()"
        )
    if norm > max_norm:
        with no_grad():
            for g in gradients:
                g.mul_(max_norm / norm)
    return norm
