"""Step-size schedules: `lr(k)` is the step size after k calls of `step`, a function of k alone."""

from __future__ import annotations

import math
from typing import Any


class Schedule:
    """Sets an optimiser's `lr` to `lr(k)`, where k counts the calls of `step`; base_lr is the optimiser's lr
    now.

    `step()` is called once an iteration or once an epoch, as the numbers given to the schedule mean it.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.base_lr = float(optimizer.lr)
        self.k = 0

    def lr(self, k: int) -> float:
        """The step size after k calls of `step`. Raises NotImplementedError where a subclass defines none."""
        raise NotImplementedError(f"{type(self).__name__}: lr is not defined; define it in the subclass")

    def step(self) -> None:
        """Counts one call and sets the optimiser's lr."""
        self.k += 1
        self.optimizer.lr = self.lr(self.k)

    def state_dict(self) -> dict[str, Any]:
        """The count and the step size it started from."""
        return {"k": self.k, "base_lr": self.base_lr}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave; sets the optimiser's lr. Raises KeyError for anything else."""
        k, base_lr = int(saved["k"]), float(saved["base_lr"])
        self.k, self.base_lr = k, base_lr
        self.optimizer.lr = self.lr(k)


class Constant(Schedule):
    """lr(k) = base_lr."""

    def lr(self, k: int) -> float:
        """base_lr."""
        return self.base_lr


class Step(Schedule):
    """lr(k) = base_lr factor^(k // every): AlexNet's, with factor 0.1.

    Raises ValueError unless every >= 1 and factor > 0.
    """

    def __init__(self, optimizer: Any, every: int, factor: float = 0.1) -> None:
        super().__init__(optimizer)
        if every < 1 or not factor > 0:
            raise ValueError(f"Step: every is {every} and factor {factor}; every must be at least 1, factor above 0")
        self.every, self.factor = every, factor

    def lr(self, k: int) -> float:
        """base_lr factor^(k // every)."""
        return self.base_lr * self.factor ** (k // self.every)


class InverseTime(Schedule):
    """lr(k) = base_lr / (1 + k / halfway): steps of order 1/k, whose sum diverges and whose squares' sum
    converges.

    These are the conditions of Robbins and Monro (1951). After `halfway` calls lr is half of base_lr;
    halfway=1 is base_lr / (1 + k). Raises ValueError unless halfway > 0.
    """

    def __init__(self, optimizer: Any, halfway: float = 1.0) -> None:
        super().__init__(optimizer)
        if not halfway > 0:
            raise ValueError(f"InverseTime: halfway is {halfway}; it must be above 0")
        self.halfway = halfway

    def lr(self, k: int) -> float:
        """base_lr / (1 + k / halfway)."""
        return self.base_lr / (1.0 + k / self.halfway)


class Cosine(Schedule):
    """lr(k) falls from base_lr to `final` along half a cosine in `total` calls and stays there.

    Source: Loshchilov and Hutter (2017), equation 5, without restarts. Raises ValueError unless total >= 1
    and final >= 0.
    """

    def __init__(self, optimizer: Any, total: int, final: float = 0.0) -> None:
        super().__init__(optimizer)
        if total < 1 or not final >= 0:
            raise ValueError(f"Cosine: total is {total} and final {final}; total must be at least 1, final at least 0")
        self.total, self.final = total, final

    def lr(self, k: int) -> float:
        """final + (base_lr - final) (1 + cos(pi k / total)) / 2."""
        angle = math.pi * min(k, self.total) / self.total
        return self.final + (self.base_lr - self.final) * (1.0 + math.cos(angle)) / 2.0
