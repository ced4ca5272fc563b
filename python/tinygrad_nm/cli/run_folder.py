"""What a run leaves behind: config.json, metrics.jsonl, model.safetensors, curves.png."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import tinygrad_nm as nm


class RunFolder:
    """A new folder. An existing run is never written over.

    Without `output` the folder is the first free one of runs/NAME-001, runs/NAME-002 ... Raises
    FileExistsError when `output` is a folder that is not empty.
    """

    def __init__(self, output: Path | None, name: str) -> None:
        self.path = _numbered(Path("runs"), name) if output is None else _empty(output)
        self._history: list[dict[str, Any]] = []

    def write_config(self, config: dict[str, Any]) -> None:
        """All settings of the run."""
        (self.path / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    def add_metrics(self, **values: Any) -> None:
        """One line of metrics.jsonl, on the disk when this returns."""
        self._history.append(values)
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")

    def save_model(self, model: Any) -> None:
        """The weights, whole or not at all: an earlier file stays if this fails."""
        nm.nn.save(model, self.path / "model.safetensors")

    def draw_curves(self, title: str, measure: str) -> None:
        """Loss and measure of every epoch in the metrics so far; nothing if no epoch was finished."""
        epochs = [line for line in self._history if "epoch" in line]
        if not epochs:
            return
        # Imported here: it takes a second, and a run that fails early does not need it.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.6), layout="constrained")
        figure.suptitle(title)
        left, right = figure.subplots(1, 2)
        numbers = [line["epoch"] for line in epochs]
        left.semilogy(numbers, [line["loss"] for line in epochs], "o-", markersize=3)
        left.set(xlabel="epoch", ylabel="mean training loss")
        for key, label in (("training", "training"), ("validation", "validation")):
            if key in epochs[0]:
                right.plot(numbers, [line[key] for line in epochs], "o-", markersize=3, label=label)
        for line in self._history:
            if "test" in line:
                right.axhline(line["test"], color="black", linestyle=":", label=f"test: {line['test']:.2f} %")
        right.set(xlabel="epoch", ylabel=f"{measure} (%)")
        right.legend()
        for axes in (left, right):
            axes.grid(alpha=0.3)
        figure.savefig(self.path / "curves.png", dpi=110)


def _numbered(parent: Path, name: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = parent / f"{name}-{number:03d}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("the count of folders never ends")


def _empty(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise FileExistsError(f"train: {path} is not empty, and nothing is written over; name another --output")
    return path
