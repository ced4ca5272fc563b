"""The training loop: nothing here knows of files, screens or signals."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import tinygrad_nm as nm
from tinygrad_nm.cli.measures import Tally
from tinygrad_nm.cli.recipes import SCHEDULES, Recipe, Task
from tinygrad_nm.data import Loader, Split, random_shift
from tinygrad_nm.data._sets import Array
from tinygrad_nm.recording import repeated

EVALUATION_BATCH = 250


class Progress(NamedTuple):
    """Where a run stands after a batch. `loss` and `figure` (per cent) are means over the epoch so far."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    figure: float
    lr: float
    examples_per_second: float
    seconds: float
    seconds_left: float

    @property
    def epoch_done(self) -> bool:
        """Whether this was the epoch's last batch."""
        return self.batch == self.batches


def evaluate(model: Any, task: Task, split: Split) -> float:
    """The task's measure on a whole split, in per cent, in evaluation mode."""
    tally = Tally(task.measure)
    model.eval()
    with nm.no_grad():
        for inputs, targets in Loader(split, EVALUATION_BATCH, shuffle=False):
            tally.add(model(inputs).numpy(), targets)
    model.train()
    return tally.figure


class Training:
    """A run of one network over one training set. The same seed gives the same bits, with any number of
    threads.

    Raises ValueError for a batch, step size, momentum or seed that make no sense.
    """

    def __init__(self, model: Any, task: Task, train: Split, recipe: Recipe, seed: int) -> None:
        self.model, self.task, self.recipe = model, task, recipe
        shift = partial(random_shift, pixels=recipe.shift) if recipe.shift else None
        self.loader = Loader(train, recipe.batch, seed=seed, transform=shift)
        self.optimizer = nm.optim.SGD(model.parameters(), recipe.lr, recipe.momentum)
        self.total = recipe.epochs * len(self.loader)
        self.schedule = SCHEDULES[recipe.schedule](self.optimizer, self.total)
        self.place = ""  # of the present step, for messages
        self._compiled = nm.compile(self._step, quiet=True)  # lenet1989's subsampling, say, runs as it is

    def steps(self) -> Generator[Progress, None, None]:
        """Trains the model in place and yields after every batch; leaving the loop ends the run.

        Raises FloatingPointError when the loss is no longer a finite number.
        """
        begun = time.perf_counter()
        for epoch in range(1, self.recipe.epochs + 1):
            tally, epoch_begun = Tally(self.task.measure), time.perf_counter()
            for batch, (inputs, targets) in enumerate(self.loader, 1):
                lr = self.optimizer.lr
                self.place = f"epoch {epoch}, batch {batch}"
                with np.errstate(over="ignore", invalid="ignore"):  # told by _refuse_infinite, once and with its place
                    output, loss = self._compiled(inputs, targets)
                self.schedule.step()
                tally.add(output.detach().numpy(), targets, loss.item())
                now = time.perf_counter()
                done = (epoch - 1) * len(self.loader) + batch
                yield Progress(
                    epoch,
                    self.recipe.epochs,
                    batch,
                    len(self.loader),
                    tally.loss,
                    tally.figure,
                    lr,
                    tally.examples / (now - epoch_begun),
                    now - begun,
                    (now - begun) / done * (self.total - done),
                )

    def _step(self, inputs: Array, targets: Array) -> tuple[Any, Any]:
        """One step of SGD: the output and the loss before it. A loss that is not finite leaves the weights alone."""
        output = self.model(inputs)
        loss = self.task.loss(output, targets)
        repeated(self._refuse_infinite, loss.data, written=())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return output, loss

    def _refuse_infinite(self, loss: Array) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(f"train: the loss is {loss.item()} in {self.place}; lower --lr")
