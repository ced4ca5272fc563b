"""What a run reports beside the loss: accuracy for a classification, relative error for a regression."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from tinygrad_nm.data._sets import Array


class Measure(NamedTuple):
    """A figure gathered batch by batch: `total(sum of parts, sum of wholes)`, in per cent."""

    name: str
    part: Callable[[Array, Array], float]
    whole: Callable[[Array], float]
    total: Callable[[float, float], float]


def _right(output: Array, labels: Array) -> float:
    return float((output.argmax(axis=1) == labels).sum())


def _squares(values: Array) -> float:
    return float((values.astype("float64") ** 2).sum())


ACCURACY = Measure(
    "accuracy",
    part=_right,
    whole=lambda labels: float(len(labels)),
    total=lambda right, count: 100 * right / count,
)
# |f(x) - y| / |y| over the whole set, in the Euclidean norm.
RELATIVE_ERROR = Measure(
    "relative error",
    part=lambda output, values: _squares(output - values),
    whole=_squares,
    total=lambda error, norm: 100 * math.sqrt(error / norm),
)


class Tally:
    """Sums of one measure and of the loss over the batches seen so far."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.examples = 0
        self._part = self._whole = self._loss = 0.0

    def add(self, output: Array, targets: Array, loss: float = 0.0) -> None:
        """One batch: its outputs, its targets and its mean loss."""
        self.examples += len(targets)
        self._part += self.measure.part(output, targets)
        self._whole += self.measure.whole(targets)
        self._loss += loss * len(targets)

    @property
    def figure(self) -> float:
        """The measure so far, in per cent."""
        return self.measure.total(self._part, self._whole)

    @property
    def loss(self) -> float:
        """The mean loss so far."""
        return self._loss / self.examples
