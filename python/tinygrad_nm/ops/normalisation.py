"""Local response normalisation (Krizhevsky, Sutskever, Hinton 2012, section 3.3), softmax and logsumexp."""

from __future__ import annotations

from typing import Any

from .. import backend
from .._errors import ShapeError
from ..autodiff import pull_back, record
from ..tensor import Tensor
from .activation import exp
from .arithmetic import log, power
from .operands import array, axes, floating, image, kept, same_float
from .reduction import sum
from .shape import pad, reshape


def local_response_norm(
    x: Any,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    divide_by_size: bool = True,
    groups: int = 1,
) -> Any:
    """y_c = x_c / (k + alpha' S_c)^beta, with S_c the sum of x^2 over `size` neighbouring channels, x (N, C, H, W).

    The window of channel c goes from c - size // 2 to c + (size - 1) // 2, within its group of C / groups channels
    (2012: two groups, one on each GPU). alpha' = alpha / size as in PyTorch and Caffe, or alpha as in the paper
    with divide_by_size=False.
    """
    data = floating("local_response_norm", x)
    image("local_response_norm", "input", data.shape)
    for name, n in (("size", size), ("groups", groups)):
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n < 2**63:
            raise ShapeError(f"local_response_norm: {name} must be a positive int, not {n!r}")
    if data.shape[1] % groups:
        raise ShapeError(f"local_response_norm: {data.shape[1]} channels do not divide into {groups} groups")
    options = (size, float(alpha), float(beta), float(k), bool(divide_by_size), groups)
    out = backend.empty("local_response_norm", data, data.shape)
    backend.kernels(data).local_response_norm_forward(out, data, *options)
    return record(local_response_norm_rule, out, (x,), (kept(x, data), options))


def local_response_norm_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    x, options = saved
    if isinstance(dy, Tensor):
        return pull_back(lambda v: local_response_norm_definition(v, *options), (x,), dy, needs)
    dx = backend.empty("local_response_norm", x, x.shape)
    backend.kernels(x).local_response_norm_backward(dx, *same_float("local_response_norm", dy=dy), x, *options)
    return (dx,)


def local_response_norm_definition(
    x: Any, size: int, alpha: float, beta: float, k: float, divide_by_size: bool, groups: int
) -> Any:
    """local_response_norm in plain differentiable operations: the kernel's oracle and its second derivatives."""
    n, c, h, w = x.shape
    grouped = reshape(x, (n, groups, c // groups, h, w))
    squares = pad(grouped * grouped, [(0, 0), (0, 0), (size // 2, (size - 1) // 2), (0, 0), (0, 0)])
    total = squares[:, :, : c // groups]
    for shift in range(1, size):
        total = total + squares[:, :, shift : shift + c // groups]
    scale = alpha / size if divide_by_size else alpha
    return reshape(grouped * power(k + scale * total, -beta), (n, c, h, w))


def _largest(x: Any, axis: Any) -> Any:
    """The largest value over the axis, kept; 0 where it is not finite: shifting by it changes no softmax."""
    data = array("softmax", x)
    xp = backend.xp(data)
    if not data.size:  # which has no largest value
        return xp.zeros([1 if i in axis else n for i, n in enumerate(data.shape)], data.dtype)
    top = data.max(axis=axis, keepdims=True)
    return xp.where(xp.isfinite(top), top, 0).astype(data.dtype)


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over `axis`, without overflow; infinities give infinities."""
    x = x if isinstance(x, Tensor) and backend.is_float(x.data) else Tensor(floating("logsumexp", x))
    along = axes("logsumexp", axis, x.ndim)
    top = _largest(x, along)
    total = log(sum(exp(x - top), along, keepdims=True)) + top
    return total if keepdims else reshape(total, tuple(n for i, n in enumerate(x.shape) if i not in along))


def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) / sum(exp(x)) over `axis`."""
    data = floating("softmax", x)
    along = axes("softmax", axis, data.ndim)
    xp = backend.xp(data)
    powers = xp.exp(data - _largest(data, along))
    return record(softmax_rule, powers / powers.sum(axis=along, keepdims=True), (x,), (along,), save_out=True)


def softmax_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    """dx = y (dy - sum(y dy))."""
    return (out * (dy - sum(out * dy, saved[0], keepdims=True)),)


def log_softmax(x: Any, axis: int = -1) -> Any:
    """log(softmax(x)) over `axis`, without loss of small probabilities."""
    x = x if isinstance(x, Tensor) and backend.is_float(x.data) else Tensor(floating("log_softmax", x))
    along = axes("log_softmax", axis, x.ndim)
    shifted = x - _largest(x, along)
    return shifted - log(sum(exp(shifted), along, keepdims=True))
