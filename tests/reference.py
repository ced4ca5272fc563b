"""Every operation once more, in plain loops over scalars and windows: the independent answer the tests compare with.

No BLAS and none of the package: elementwise formulas from `math`, sums and products as explicit loops. Arrays are
float64; shapes and argument names are those of the operations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Pads = tuple[tuple[int, int], tuple[int, int]]


def elementwise(formula: Callable[..., float], *arrays: Any) -> np.ndarray:
    """The scalar formula at each element of the arrays, broadcast."""
    together = np.broadcast(*[np.asarray(a) for a in arrays])
    flat = [formula(*(v.item() if isinstance(v, np.generic) else v for v in row)) for row in together]
    return np.array(flat, dtype=np.float64).reshape(together.shape)


def _greater(a: float, b: float) -> float:
    return math.nan if math.isnan(a) or math.isnan(b) else (a if a > b else b)


def _smaller(a: float, b: float) -> float:
    return -_greater(-a, -b)


def smooth_relu(x: float, eta: float) -> float:
    return x * x / (4 * eta) + x / 2 + eta / 4 if abs(x) <= eta else max(x, 0.0)


ACTIVATIONS: dict[str, Callable[[float, float], float]] = {
    "identity": lambda x, _: x,
    "relu": lambda x, _: x if x > 0 or math.isnan(x) else 0.0,
    "leaky_relu": lambda x, slope: x if x > 0 else slope * x,
    "tanh": lambda x, _: math.tanh(x),
    "scaled_tanh": lambda x, _: 1.7159 * math.tanh(2 * x / 3),
    "sigmoid": lambda x, _: 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x)),
    "softsign": lambda x, _: x / (1 + abs(x)),
    "softplus": lambda x, _: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    "elu": lambda x, alpha: x if x > 0 else alpha * math.expm1(x),
    "gelu": lambda x, _: x / 2 * (1 + math.erf(x / math.sqrt(2))),
    "sin": lambda x, _: math.sin(x),
    "smooth_relu": smooth_relu,
    "exp": lambda x, _: math.exp(x),
}
PARAMETERS = {"leaky_relu": 0.01, "elu": 1.0, "smooth_relu": 0.1}


def activation(x: Any, kind: str | tuple[str, float] | None, parameter: float | None = None) -> np.ndarray:
    if isinstance(kind, tuple):
        kind, parameter = kind
    kind = kind or "identity"
    value = PARAMETERS.get(kind, 0.0) if parameter is None else parameter
    return elementwise(lambda t: ACTIVATIONS[kind](t, value), x)


def maximum(a: Any, b: Any) -> np.ndarray:
    return elementwise(_greater, a, b)


def minimum(a: Any, b: Any) -> np.ndarray:
    return elementwise(_smaller, a, b)


def clip(x: Any, low: float | None = None, high: float | None = None) -> np.ndarray:
    y = np.array(x) if low is None else maximum(x, low)
    return y if high is None else minimum(y, high)


# ---- reductions -----------------------------------------------------------------------------------------------


def reduce_axes(
    f: Callable[[list[float]], float], x: np.ndarray, axis: Any = None, keepdims: bool = False
) -> np.ndarray:
    """f of the list of elements over the axes, in C order, at each index of the other axes."""
    axes = tuple(range(x.ndim)) if axis is None else tuple(a % x.ndim for a in np.atleast_1d(axis))
    kept = [a for a in range(x.ndim) if a not in axes]
    shape = [x.shape[a] for a in kept]
    y = np.empty(shape)
    for index in np.ndindex(*shape):
        where: list[Any] = [slice(None)] * x.ndim
        for a, i in zip(kept, index, strict=True):
            where[a] = i
        y[index] = f([float(v) for v in np.asarray(x[tuple(where)]).ravel()])
    full = [1 if a in axes else x.shape[a] for a in range(x.ndim)]
    return y.reshape(full) if keepdims else y


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def variance(ddof: int) -> Callable[[list[float]], float]:
    def of(values: list[float]) -> float:
        centre = mean(values)
        return math.fsum((v - centre) ** 2 for v in values) / (len(values) - ddof)

    return of


def logsumexp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(v - top) for v in values))


def largest(values: list[float]) -> float:
    return math.nan if any(math.isnan(v) for v in values) else max(values)


def smallest(values: list[float]) -> float:
    return math.nan if any(math.isnan(v) for v in values) else min(values)


def first_of_largest(values: list[float]) -> float:
    return next((i for i, v in enumerate(values) if math.isnan(v)), values.index(max(values)))


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(x) - reduce_axes(logsumexp, np.asarray(x), axis, keepdims=True)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return elementwise(math.exp, log_softmax(x, axis))


# ---- products -------------------------------------------------------------------------------------------------


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a @ b` for 1-D to N-D, each sum in order of k."""
    left = a[None] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, batch + left.shape[-2:])
    right = np.broadcast_to(right, batch + right.shape[-2:])
    y = np.zeros((*batch, left.shape[-2], right.shape[-1]))
    for k in range(left.shape[-1]):
        y += left[..., :, k, None] * right[..., None, k, :]
    y = y[..., 0, :] if a.ndim == 1 else y
    return y[..., 0] if b.ndim == 1 else y


def linear(x: np.ndarray, w: np.ndarray, b: Any = None, activation: Any = None) -> np.ndarray:
    y = matmul(x, np.swapaxes(w, 0, 1)) + (0.0 if b is None else b)
    return _activated(y, activation)


def _activated(y: np.ndarray, kind: Any) -> np.ndarray:
    return y if kind is None else activation(y, kind)


# ---- windows --------------------------------------------------------------------------------------------------


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def pads(padding: Any) -> Pads:
    """((top, bottom), (left, right)) of an int, a pair, or that form itself."""
    vertical, horizontal = (padding, padding) if isinstance(padding, int) else padding
    return pair(vertical), pair(horizontal)


def padded(x: np.ndarray, padding: Any, value: float = 0.0) -> np.ndarray:
    (top, bottom), (left, right) = pads(padding)
    y = np.full((*x.shape[:2], x.shape[2] + top + bottom, x.shape[3] + left + right), value)
    y[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return y


def output_size(
    size: int, kernel: int, stride: int, pad: tuple[int, int], dilation: int, ceil_mode: bool = False
) -> int:
    """PyTorch's rule: in ceil mode the last window must start inside the input or its leading padding."""
    room = size + pad[0] + pad[1] - dilation * (kernel - 1) - 1
    if room < 0:
        return 0
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + pad[0]:
        count -= 1
    return count


class Convolution:
    """The index arithmetic of one convolution: (output channel, input channel, filter cell, window) in loops."""

    def __init__(
        self, x_shape: Any, w_shape: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
    ) -> None:
        self.x_shape, self.w_shape, self.groups = tuple(x_shape), tuple(w_shape), groups
        self.stride, self.padding, self.dilation = pair(stride), pads(padding), pair(dilation)
        self.out = tuple(
            output_size(x_shape[2 + i], w_shape[2 + i], self.stride[i], self.padding[i], self.dilation[i])
            for i in range(2)
        )

    def padded_shape(self) -> tuple[int, ...]:
        (top, bottom), (left, right) = self.padding
        return (*self.x_shape[:2], self.x_shape[2] + top + bottom, self.x_shape[3] + left + right)

    def cells(self) -> Iterator[tuple[int, int, int, int, int, Any, Any]]:
        """o, channel within the group, channel of the input, kh, kw, and the rows and columns they meet."""
        outputs, per_group, kernel_h, kernel_w = self.w_shape
        for o, c, kh, kw in itertools.product(*map(range, (outputs, per_group, kernel_h, kernel_w))):
            channel = o // (outputs // self.groups) * per_group + c
            yield o, c, channel, kh, kw, self.line(0, kh), self.line(1, kw)

    def line(self, axis: int, k: int) -> slice:
        """The padded rows (axis 0) or columns (axis 1) that filter cell k meets, one for each output."""
        first, step = k * self.dilation[axis], self.stride[axis]
        return slice(first, first + (self.out[axis] - 1) * step + 1, step)


def conv2d(x: np.ndarray, w: np.ndarray, b: Any = None, activation: Any = None, **geometry: Any) -> np.ndarray:
    shape = Convolution(x.shape, w.shape, **geometry)
    wide = padded(x, shape.padding)
    y = np.zeros((x.shape[0], w.shape[0], *shape.out))
    for o, c, channel, kh, kw, rows, columns in shape.cells():
        y[:, o] += w[o, c, kh, kw] * wide[:, channel, rows, columns]
    return _activated(y if b is None else y + np.asarray(b)[:, None, None], activation)


def conv2d_backward_input(dy: np.ndarray, w: np.ndarray, input_shape: Any, **geometry: Any) -> np.ndarray:
    shape = Convolution(input_shape, w.shape, **geometry)
    wide = np.zeros(shape.padded_shape())
    for o, c, channel, kh, kw, rows, columns in shape.cells():
        wide[:, channel, rows, columns] += w[o, c, kh, kw] * dy[:, o]
    (top, _), (left, _) = shape.padding
    return wide[:, :, top : top + input_shape[2], left : left + input_shape[3]]


def conv2d_backward_weight(x: np.ndarray, dy: np.ndarray, weight_shape: Any, **geometry: Any) -> np.ndarray:
    shape = Convolution(x.shape, weight_shape, **geometry)
    wide = padded(x, shape.padding)
    dw = np.zeros(weight_shape)
    for o, c, channel, kh, kw, rows, columns in shape.cells():
        dw[o, c, kh, kw] = math.fsum((wide[:, channel, rows, columns] * dy[:, o]).ravel())
    return dw


def windows(
    x: np.ndarray, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Iterator[tuple[tuple[int, int], list[tuple[int, int]], int]]:
    """Each pooling window: its place in the output, the input cells it holds, and its size with the padding counted."""
    kernel, pad, step = pair(kernel_size), pads(padding), pair(dilation)
    jump = kernel if stride is None else pair(stride)
    out = [output_size(x.shape[2 + i], kernel[i], jump[i], pad[i], step[i], ceil_mode) for i in range(2)]
    for place in itertools.product(*map(range, out)):
        lines = [[place[i] * jump[i] - pad[i][0] + k * step[i] for k in range(kernel[i])] for i in range(2)]
        within = [[v for v in lines[i] if v < x.shape[2 + i] + pad[i][1]] for i in range(2)]
        inside = [[v for v in lines[i] if 0 <= v < x.shape[2 + i]] for i in range(2)]
        yield place, list(itertools.product(*inside)), len(within[0]) * len(within[1])


def _pool(x: np.ndarray, value: Callable[[np.ndarray, int], np.ndarray], geometry: Any) -> np.ndarray:
    cells = list(windows(x, *geometry))
    out = (max(p[0] for p, _, _ in cells) + 1, max(p[1] for p, _, _ in cells) + 1)
    y = np.empty((*x.shape[:2], *out))
    for (i, j), inside, size in cells:
        y[:, :, i, j] = value(np.stack([x[:, :, r, c] for r, c in inside]), size)
    return y


def max_pool2d(
    x: np.ndarray, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> np.ndarray:
    return _pool(x, lambda v, _: np.max(v, axis=0), (kernel_size, stride, padding, dilation, ceil_mode))


def avg_pool2d(
    x: np.ndarray,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> np.ndarray:
    def value(v: np.ndarray, size: int) -> np.ndarray:
        total = np.zeros(v.shape[1:])
        for part in v:
            total += part
        return total / (size if count_include_pad else len(v))

    return _pool(x, value, (kernel_size, stride, padding, 1, ceil_mode))


def conv2d_pool2d(
    x: np.ndarray, w: np.ndarray, b: Any = None, pool: str = "avg", pool_size: Any = 2, **options: Any
) -> np.ndarray:
    y = conv2d(x, w, b, **options)
    return {"avg": avg_pool2d, "max": max_pool2d}[pool](y, pool_size)


def local_response_norm(
    x: np.ndarray,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    divide_by_size: bool = True,
    groups: int = 1,
) -> np.ndarray:
    """b_c = a_c / (k + alpha (/ size) * sum of a^2 over the window)^beta; size // 2 channels lie before c."""
    y = np.empty_like(x)
    channels = x.shape[1]
    per_group = channels // groups
    for c in range(channels):
        first = c // per_group * per_group
        total = np.zeros_like(x[:, 0])
        for near in range(c - size // 2, c - size // 2 + size):
            if first <= near < first + per_group:
                total += x[:, near] ** 2
        y[:, c] = x[:, c] / (k + alpha / (size if divide_by_size else 1) * total) ** beta
    return y


# ---- losses ---------------------------------------------------------------------------------------------------


def reduced(loss: np.ndarray, reduction: str, weight: float | None = None) -> np.ndarray:
    if reduction == "none":
        return loss
    total = math.fsum(loss.ravel())
    return np.array(total if reduction == "sum" else total / (loss.size if weight is None else weight))


def nll_loss(log_p: np.ndarray, labels: np.ndarray, reduction: str = "mean", ignore_index: int = -100) -> np.ndarray:
    loss = np.zeros(labels.shape)
    for place in np.ndindex(*labels.shape):
        if labels[place] != ignore_index:
            loss[place] = -log_p[(*place[:1], labels[place], *place[1:])]
    return reduced(loss, reduction, float(np.sum(labels != ignore_index)))


def cross_entropy(
    logits: np.ndarray, target: np.ndarray, reduction: str = "mean", ignore_index: int = -100
) -> np.ndarray:
    log_p = log_softmax(logits, 1)
    if target.dtype.kind in "iu":
        return nll_loss(log_p, target, reduction, ignore_index)
    loss = reduce_axes(math.fsum, -target * log_p, 1)
    return reduced(loss, reduction, float(loss.size))


def mse_loss(x: np.ndarray, y: np.ndarray, reduction: str = "mean") -> np.ndarray:
    return reduced(elementwise(lambda a, b: (a - b) ** 2, x, y), reduction)


def binary_cross_entropy_with_logits(x: np.ndarray, y: np.ndarray, reduction: str = "mean") -> np.ndarray:
    loss = elementwise(lambda a, t: max(a, 0.0) - a * t + math.log1p(math.exp(-abs(a))), x, y)
    return reduced(loss, reduction)


# ---- dropout --------------------------------------------------------------------------------------------------

_PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_KEYS = (0x9E3779B9, 0xBB67AE85)


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): four 32-bit words of a counter under a key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = c0 * _PHILOX_MULTIPLIERS[0], c2 * _PHILOX_MULTIPLIERS[1]
        c0, c1, c2, c3 = (second >> 32) ^ c1 ^ k0, second & 0xFFFFFFFF, (first >> 32) ^ c3 ^ k1, first & 0xFFFFFFFF
        k0, k1 = (k0 + _PHILOX_KEYS[0]) & 0xFFFFFFFF, (k1 + _PHILOX_KEYS[1]) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def dropout(x: np.ndarray, p: float, seed: int, stream: int) -> np.ndarray:
    """x / (1 - p) where the uniform number of (seed, stream, example, element) is at least p, else 0."""
    rows = x.reshape(x.shape[0], -1)
    y = np.empty_like(rows)
    for example, element in np.ndindex(*rows.shape):
        counter = (element // 4, example, stream & 0xFFFFFFFF, stream >> 32)
        word = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))[element % 4]
        y[example, element] = rows[example, element] / (1 - p) if word / 2**32 >= p else 0.0
    return y.reshape(x.shape)
