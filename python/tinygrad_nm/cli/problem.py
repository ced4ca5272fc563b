"""From what was asked for to data, network, loss and recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import tinygrad_nm as nm
from tinygrad_nm import backend
from tinygrad_nm.cli.recipes import (
    CLASSIFICATION,
    DIGIT_MODELS,
    RECIPES,
    REGRESSION,
    TRAINABLE,
    DeepOptions,
    Recipe,
    Task,
    known,
)
from tinygrad_nm.data import DataSet, Split, cache_folder, circle, digits, mnist, peaks
from tinygrad_nm.data._digits import has_mnist

PLANE_PROBLEMS: dict[tuple[str, str], Callable[[], DataSet]] = {
    ("peaks", "classification"): lambda: peaks("classification"),
    ("peaks", "regression"): lambda: peaks("regression"),
    ("circle", "classification"): lambda: circle(),
}


@dataclass(frozen=True)
class Settings:
    """What was asked for. `dataset` None: digits, or peaks for `deep`."""

    model: str
    dataset: str | None = None
    task: str = "classification"
    data: Path | None = None
    validation: int = 0
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    output: Path | None = None
    threads: int | None = None
    deep: DeepOptions = field(default_factory=DeepOptions)

    def described(self) -> dict[str, Any]:
        """For config.json; of `deep`, the shape only where it is used."""
        values = asdict(self)
        shape = values.pop("deep")
        if self.model == "deep":
            values.update(shape)
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


class Problem(NamedTuple):
    """The data of a run and what follows from it. `unit` names an example, `outputs` counts what the net gives."""

    data: DataSet
    task: Task
    recipe: Recipe
    unit: str
    outputs: int

    def network(self, settings: Settings) -> Any:
        """The network on its device, with initial weights that depend on the seed alone."""
        nm.manual_seed(settings.seed)
        if settings.model in DIGIT_MODELS:
            return DIGIT_MODELS[settings.model].build(dtype=settings.dtype).to(settings.device)
        inputs = self.data.train.inputs.shape[1]
        return settings.deep.build(inputs, self.outputs, settings.dtype).to(settings.device)


def problem(settings: Settings) -> Problem:
    """Reads the data. Raises ValueError for settings that do not go together, and what the readers raise."""
    known("train", "model", settings.model, TRAINABLE)
    known("train", "dtype", settings.dtype, ("float32", "float64"))
    backend.device(settings.device)
    dataset = settings.dataset or ("peaks" if settings.model == "deep" else "digits")
    found = _digits(settings) if dataset == "digits" else _plane(settings, dataset)
    return found._replace(data=_map(found.data, lambda array: _cast(array, settings.dtype)))


def _digits(settings: Settings) -> Problem:
    if settings.task != "classification":
        raise ValueError(f"train: digits are classified; --task {settings.task} is for --dataset peaks")
    cache = cache_folder()
    folder = settings.data or (cache if has_mnist(cache) else None)
    recipe = RECIPES[settings.model, "embedded" if folder is None else "mnist"]
    convention = settings.model if settings.model in DIGIT_MODELS else "lenet5"
    data = digits(convention) if folder is None else mnist(folder, convention)
    if settings.model == "deep":
        data = _map(data, lambda array: array.reshape(len(array), -1) if array.ndim == 4 else array)
        return Problem(data, CLASSIFICATION, recipe, "digits", 10)
    return Problem(data, DIGIT_MODELS[settings.model].task, recipe, "digits", 10)


def _plane(settings: Settings, dataset: str) -> Problem:
    if settings.model != "deep":
        raise ValueError(f"train: {settings.model} reads digits; --dataset {dataset} is for `train deep`")
    if settings.data is not None:
        raise ValueError(f"train: --dataset {dataset} is made of a formula; leave out --data")
    if (dataset, settings.task) not in PLANE_PROBLEMS:
        choices = ", ".join(f"{name} ({task})" for name, task in PLANE_PROBLEMS)
        raise ValueError(f"train: no {settings.task} of {dataset}; choose digits (classification), {choices}")
    data = PLANE_PROBLEMS[dataset, settings.task]()
    if settings.task == "regression":
        return Problem(data, REGRESSION, RECIPES["deep", f"{dataset} regression"], "points", 1)
    classes = int(data.train.targets.max()) + 1
    return Problem(data, CLASSIFICATION, RECIPES["deep", dataset], "points", classes)


def _map(data: DataSet, change: Callable[[Any], Any]) -> DataSet:
    """The data set with `change` applied to inputs and targets of both splits."""
    train, test = (Split(change(split.inputs), change(split.targets)) for split in (data.train, data.test))
    return DataSet(train, test, data.name)


def _cast(array: Any, dtype: str) -> Any:
    return array.astype(dtype, copy=False) if array.dtype.kind == "f" else array
