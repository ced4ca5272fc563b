"""One run of `tinygrad-nm train`: the loop with its screen, its files and Ctrl-C."""

from __future__ import annotations

import resource
import sys
from contextlib import closing
from dataclasses import asdict
from typing import Any

from rich.console import Console

import tinygrad_nm as nm
from tinygrad_nm.cli.display import Display
from tinygrad_nm.cli.interrupt import interruption
from tinygrad_nm.cli.problem import Settings, problem
from tinygrad_nm.cli.run_folder import RunFolder
from tinygrad_nm.cli.training import Progress, Training, evaluate
from tinygrad_nm.data import held_out

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def peak_memory() -> str:
    """What this process held at the most, and its large results since the peak was last reset."""
    units = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * units
    return f"{process / 2**20:.0f} MiB, {nm.memory_stats()['peak'] / 2**20:.0f} MiB of it large results"


class Session:
    """A run that is ready to start: data read, network built, folder made, settings written down.

    With `settings.validation` so many training examples are held out, and the figures are theirs: the test
    set is left alone, which is how hyperparameters are chosen. `options` stand in for the recipe's numbers
    where not None.
    """

    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        self.problem = problem(settings)
        self.recipe = self.problem.recipe.with_options(**options)
        if self.recipe.shift and self.problem.data.train.inputs.ndim != 4:
            raise ValueError(f"train: {settings.model} reads no images, which --shift would move; leave it out")
        if self.recipe.shift and self.recipe.shift >= min(self.problem.data.train.inputs.shape[2:]):
            raise ValueError(
                f"train: --shift {self.recipe.shift} would move the digits out of their images; take a few"
            )
        if settings.threads is not None:
            nm.set_num_threads(settings.threads)
        self.model = self.problem.network(settings)
        train, self.held, self.held_name = self.problem.data.train, self.problem.data.test, "test"
        if settings.validation:
            train, self.held = held_out(train, settings.validation)
            self.held_name = "validation"
        self.training = Training(self.model, self.problem.task, train, self.recipe, settings.seed)
        self.folder = RunFolder(settings.output, settings.model)
        self.display = Display(Console(), self.problem.task.measure.name, self.problem.unit)
        self._describe(settings)

    def _describe(self, settings: Settings) -> None:
        config = {"version": nm.__version__, **settings.described(), **asdict(self.recipe)}
        self.folder.write_config({**config, "data": self.problem.data.name})
        parameters = sum(parameter.size for parameter in self.model.parameters())
        self.display.say(f"data: {self.problem.data.name}")
        self.display.say(f"{settings.model}: {parameters} parameters, seed {settings.seed}, {self.recipe}")
        self.display.say(f"writing to {self.folder.path}")

    def run(self) -> int:
        """Trains, saves and reports. The exit status: 0, or 130 after Ctrl-C."""
        nm.reset_peak_memory()
        steps = self.training.steps()
        with interruption() as interrupted:
            with self.display, closing(steps):
                for step in steps:
                    self.display.step(step)
                    if step.epoch_done:
                        self._end_epoch(step)
                    if interrupted():
                        break
            # There is a last step: a data set has a batch, and a recipe an epoch.
            finished = step.epoch_done and step.epoch == step.epochs
            return self._finish(step) if finished else self._stop(step)

    def _end_epoch(self, step: Progress) -> None:
        validation = self._held_figure() if self.held_name == "validation" else None
        self.display.epoch(step, validation)
        self.folder.add_metrics(
            epoch=step.epoch,
            loss=step.loss,
            training=step.figure,
            **({} if validation is None else {"validation": validation}),
            lr=step.lr,
            examples_per_second=step.examples_per_second,
            seconds=step.seconds,
        )
        self.folder.save_model(self.model)

    def _held_figure(self) -> float:
        return evaluate(self.model, self.problem.task, self.held)

    def _finish(self, step: Progress) -> int:
        figure = self._held_figure()
        self.folder.add_metrics(**{self.held_name: figure, "examples": len(self.held.targets)})
        self._draw()
        measure = self.problem.task.measure.name
        self.display.say(f"peak memory: {peak_memory()}")
        self.display.say(f"trained in {step.seconds:.1f} s; weights, metrics and curves are in {self.folder.path}")
        self.display.say(f"{self.held_name} {measure}: {figure:.2f} % ({len(self.held.targets)} {self.problem.unit})")
        return 0

    def _stop(self, step: Progress) -> int:
        self.folder.save_model(self.model)
        self.folder.add_metrics(interrupted=True, in_epoch=step.epoch, batch=step.batch)
        self._draw()
        self.display.say(
            f"stopped by Ctrl-C in epoch {step.epoch}, after {step.batch} of its {step.batches} batches;"
            f" the weights are saved in {self.folder.path}"
        )
        return INTERRUPTED

    def _draw(self) -> None:
        self.folder.draw_curves(f"{self.folder.path.name}: {self.problem.data.name}", self.problem.task.measure.name)
