"""Live progress on a terminal, plain lines anywhere else."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tinygrad_nm.cli.training import Progress as Step


class Display(AbstractContextManager["Display"]):
    """Shows the steps of `fit`: on a terminal a bar with loss, accuracy, images/s and time left, and a line
    an epoch.

    Without a terminal there are the lines alone.
    """

    def __init__(self, console: Console, measure: str, unit: str) -> None:
        self.console, self.measure, self.unit = console, measure, unit
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[text]}"),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=None, text="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, line: str) -> None:
        """A line that stays, exactly as it is."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def step(self, step: Step) -> None:
        """After every batch."""
        if self._bar is not None:
            self._bar.update(
                self._task,
                description=f"epoch {step.epoch}/{step.epochs}",
                completed=step.batch,
                total=step.batches,
                text=self._figures(step),
            )

    def epoch(self, step: Step, validation: float | None) -> None:
        """After the last batch of an epoch."""
        held = "" if validation is None else f"  validation {validation:.2f} %"
        self.say(f"epoch {step.epoch}/{step.epochs}  {self._figures(step)}{held}")

    def _figures(self, step: Step) -> str:
        minutes, seconds = divmod(round(step.seconds_left), 60)
        return (
            f"loss {step.loss:.4f}  training {self.measure} {step.figure:.2f} %"
            f"  {step.examples_per_second:.0f} {self.unit}/s  {minutes}:{seconds:02d} left"
        )
