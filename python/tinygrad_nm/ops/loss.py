"""Losses: cross entropy, negative log likelihood, mean squared error, binary cross entropy; dropout beside them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import backend, random
from .._errors import DtypeError, ShapeError
from ..autodiff import pull_back, record
from ..recording import repeated
from ..tensor import Tensor
from .activation import softplus
from .arithmetic import shape_of, where, xp_of
from .normalisation import log_softmax
from .operands import array, arrays, count, floating, kept, two_devices
from .reduction import mean, sum
from .shape import getitem, reshape


def _reduced(operation: str, loss: Any, reduction: str, counted: Any = None) -> Any:
    """The loss values as they are ("none"), their sum, or their mean over the values (or those counted)."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return sum(loss)
    if reduction == "mean":
        return mean(loss) if counted is None else sum(loss) / counted
    raise _unknown(operation, reduction)


def _unknown(operation: str, reduction: str) -> ValueError:
    return ValueError(f"{operation}: reduction {reduction!r} is not known; use 'mean', 'sum' or 'none'")


def cross_entropy(logits: Any, target: Any, reduction: str = "mean", ignore_index: int = -100) -> Any:
    """-log softmax(logits)[target], over the classes on axis 1 of logits (N, C) or (N, C, ...), or axis 0 of (C,).

    target: class indices of any integer type, of the shape of logits without the class axis, of which
    `ignore_index` marks those that do not count; or probabilities of the shape of logits. reduction: "mean" (over
    the targets that count), "sum" or "none". Raises IndexError for a label outside 0 .. C - 1.
    """
    if reduction not in ("mean", "sum", "none"):
        raise _unknown("cross_entropy", reduction)
    data = floating("cross_entropy", logits)
    labels = np.asarray(target) if isinstance(target, (list, tuple)) else array("cross_entropy", target)
    _check_classes("cross_entropy", data.shape)
    if labels.dtype.kind == "f":
        return _with_probabilities(logits, target, labels, data, reduction)
    labels, divisor = _labels("cross_entropy", target, labels, data, ignore_index, reduction)
    return _softmax_cross_entropy(logits, data, labels, ignore_index, reduction, divisor)


def _with_probabilities(logits: Any, target: Any, probabilities: Any, data: Any, reduction: str) -> Any:
    if probabilities.shape != data.shape:
        raise ShapeError(
            f"cross_entropy: probabilities have shape {probabilities.shape}, but logits {data.shape}; "
            "for class indices use an integer dtype"
        )
    axis = 0 if data.ndim == 1 else 1
    target = target if isinstance(target, Tensor) else probabilities
    loss = -sum(log_softmax(logits, axis) * target, axis)
    return _reduced("cross_entropy", loss, reduction, max(1, count(data.shape) // data.shape[axis]))


def _check_classes(operation: str, shape: tuple[int, ...]) -> None:
    if not shape or shape[1 if len(shape) > 1 else 0] < 1:
        raise ShapeError(f"{operation}: input of shape {shape} needs a class axis: (C,), (N, C) or (N, C, ...)")


def _without_classes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:1], *shape[2:]) if len(shape) > 1 else ()


def _stacked(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(N, C, S) of logits: what the kernels take."""
    return (shape[0], shape[1], count(shape[2:])) if len(shape) > 1 else (1, shape[0], 1)


def _labels(operation: str, target: Any, labels: Any, x: Any, ignore_index: int, reduction: str) -> tuple[Any, Any]:
    """int64 labels (N, S) of `target`, each a class or `ignore_index`; by what the reduction of `x` divides."""
    shape = x.shape
    if type(labels) is not type(x) and (type(labels) is not np.ndarray or isinstance(target, Tensor)):
        raise two_devices(operation, backend.device_of(x), backend.device_of(labels))
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"{operation}: labels are {labels.dtype}, but integers are needed; convert with .astype")
    if labels.shape != _without_classes(shape):
        raise ShapeError(
            f"{operation}: labels have shape {labels.shape}, but input of shape {shape} needs {_without_classes(shape)}"
        )
    n, classes, inner = _stacked(shape)
    found = backend.empty(operation, x, (n, inner), np.int64)
    divisor = backend.empty(operation, x, ())
    repeated(_take_labels, found, divisor, labels, classes, ignore_index, operation, reduction, written=(0, 1))
    return found, divisor


def _take_labels(
    out: Any, divisor: Any, labels: Any, classes: int, ignore_index: int, operation: str, reduction: str
) -> None:
    """out (N, S) = the labels; divisor () = how many count for a mean, 1 for the other reductions.

    Labels in NumPy arrays and tensors on the CPU are checked. Others would have to be waited for: there a wrong one
    gives NaN, and so does a mean of none.
    """
    if type(labels) is not np.ndarray:
        out[...] = labels.reshape(out.shape)
        divisor[...] = (out != ignore_index).sum() if reduction == "mean" else 1
        return
    found = out if type(out) is np.ndarray else np.empty(out.shape, out.dtype)
    found[...] = labels.reshape(found.shape)
    counted = found.size
    classes_only = counted and np.maximum.reduce(found.view(np.uint64), None) < classes  # negative ones are large
    if not classes_only:
        _refuse(operation, labels, ((labels < 0) | (labels >= classes)) & (labels != ignore_index), classes)
    if not classes_only or ignore_index >= 0:
        counted = int(np.count_nonzero(found != ignore_index))
    if found is not out:
        backend.transfer(out, found)
    divisor.fill(_positive(operation, counted) if reduction == "mean" else 1)


def _refuse(operation: str, labels: Any, wrong: Any, classes: int) -> None:
    """Raises IndexError for the first label that is wrong, if one is."""
    for place in np.argwhere(wrong)[:1].tolist():
        place = tuple(place)
        raise IndexError(
            f"{operation}: label {labels[place]} at {place} is outside 0 .. {classes - 1}: there are {classes} classes"
        )


def _positive(operation: str, counted: int) -> int:
    if counted == 0:
        raise ValueError(f"{operation}: no label counts (the batch is empty or all are ignored): there is no mean")
    return counted


def _softmax_cross_entropy(logits: Any, data: Any, labels: Any, ignore_index: int, reduction: str, divisor: Any) -> Any:
    """Loss and reduction as one operation; labels are int64 (N, S), ignored ones give 0."""
    stacked = data.reshape(_stacked(data.shape))
    losses = backend.empty("cross_entropy", data, labels.shape)
    backend.kernels(data).softmax_cross_entropy_forward(losses, stacked, labels, ignore_index)
    if reduction == "none":
        out = losses.reshape(_without_classes(data.shape))
    else:
        out = backend.empty("cross_entropy", data, ())
        backend.kernels(data).bias_backward(out.reshape(1), losses.reshape(1, 1, -1))  # the sum of all
        repeated(_divide, out, out, divisor)
    saved = (kept(logits, data), labels, ignore_index, reduction, divisor)
    return record(cross_entropy_rule, out, (logits,), saved)


def _divide(out: Any, x: Any, divisor: Any) -> None:
    """out = x / divisor, x () everywhere."""
    xp_of(out).divide(x, divisor, out)


def cross_entropy_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    """dx = dy (softmax(x) - onehot(label)), dy shared among the labels that count."""
    logits, labels, ignore_index, reduction, divisor = saved
    if isinstance(dy, Tensor):
        definition = functools.partial(
            cross_entropy_definition,
            labels=labels,
            ignore_index=ignore_index,
            reduction=reduction,
            divisor=divisor,
        )
        return pull_back(definition, (logits,), dy, needs)
    if reduction == "none":
        dloss = dy.reshape(labels.shape)
    else:
        dloss = backend.empty("cross_entropy", logits, labels.shape)
        repeated(_divide, dloss, dy, divisor)
    dx = backend.empty("cross_entropy", logits, logits.shape)
    stacked = _stacked(logits.shape)
    options = (dloss, logits.reshape(stacked), labels, ignore_index)
    backend.kernels(logits).softmax_cross_entropy_backward(dx.reshape(stacked), *options)
    return (dx,)


def cross_entropy_definition(logits: Any, labels: Any, ignore_index: int, reduction: str, divisor: Any) -> Any:
    """The kernel's oracle and its second derivatives."""
    shape = logits.shape
    losses = _picked(log_softmax(reshape(logits, _stacked(shape)), 1), labels, ignore_index)
    return reshape(losses, _without_classes(shape)) if reduction == "none" else sum(losses) / divisor


def _picked(log_probabilities: Any, labels: Any, ignore_index: int) -> Any:
    """-x[n, label, s], 0 where ignored."""
    xp = xp_of(labels)
    rows, columns = xp.indices(labels.shape)
    counts = labels != ignore_index
    picked = getitem(log_probabilities, (rows, xp.where(counts, labels, 0), columns))
    return where(counts, -picked, 0.0)


def nll_loss(log_probabilities: Any, target: Any, reduction: str = "mean", ignore_index: int = -100) -> Any:
    """-log_probabilities[target], classes on axis 1 (axis 0 of a 1-D input); arguments as in cross_entropy."""
    data = floating("nll_loss", log_probabilities)
    labels = np.asarray(target) if isinstance(target, (list, tuple)) else array("nll_loss", target)
    _check_classes("nll_loss", data.shape)
    labels, divisor = _labels("nll_loss", target, labels, data, ignore_index, reduction)
    x = log_probabilities if isinstance(log_probabilities, Tensor) else Tensor(data)
    loss = reshape(_picked(reshape(x, _stacked(data.shape)), labels, ignore_index), _without_classes(data.shape))
    return _reduced("nll_loss", loss, reduction, divisor)


def _same_shape(operation: str, a: Any, b: Any) -> None:
    if shape_of(a) != shape_of(b):
        raise ShapeError(f"{operation}: input has shape {shape_of(a)}, but target {shape_of(b)}; they must be equal")


def mse_loss(x: Any, target: Any, reduction: str = "mean") -> Any:
    """(x - target)^2, of equal shapes; reduction: "mean" over all values, "sum" or "none"."""
    x_data, t = arrays("mse_loss", x, target)
    _same_shape("mse_loss", x_data, t)
    x = x if isinstance(x, Tensor) else Tensor(floating("mse_loss", x_data))
    distance = x - (target if isinstance(target, Tensor) else t)
    return _reduced("mse_loss", distance * distance, reduction)


def binary_cross_entropy_with_logits(x: Any, target: Any, reduction: str = "mean") -> Any:
    """-(t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))) = softplus(x) - x t, of equal shapes, without overflow."""
    name = "binary_cross_entropy_with_logits"
    x_data, t = arrays(name, kept(x, floating(name, x)), target)
    _same_shape(name, x_data, t)
    x = x if isinstance(x, Tensor) else Tensor(x_data)
    target = target if isinstance(target, Tensor) else t
    return _reduced(name, softplus(x) - x * target, reduction)


def dropout(x: Any, p: float = 0.5, training: bool = True) -> Any:
    """x with each value dropped (0) with probability p and the others times 1 / (1 - p); x itself if not training.

    The first axis of x is the example. The choice is a function of `manual_seed`, the number of the dropout call in
    this thread, the example and the element alone.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p is {p}, but a probability from 0 to 1 is needed")
    if not training or p == 0.0:
        return x if isinstance(x, Tensor) else Tensor(floating("dropout", x))
    return _dropout(x, float(p), *random.next_stream())


def _dropout(x: Any, p: float, seed: int, stream: int) -> Any:
    data = floating("dropout", x)
    examples = data.shape[0] if data.ndim else 1
    out = backend.empty("dropout", data, data.shape)
    rows = (examples, count(data.shape[1:]))
    backend.kernels(data).dropout(out.reshape(rows), data.reshape(rows), p, seed, stream, 0)
    return record(dropout_rule, out, (x,), (p, seed, stream))


def dropout_rule(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
    """The same mask again."""
    return (_dropout(dy, *saved),)
