"""The course's test problems in the plane: peaks, circle and spiral. Seeded, made of a formula.

Source: *Numerical Methods for Deep Learning* (L. Ruthotto, E. Haber). Inputs are points `(N, 2)` float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinygrad_nm.data._sets import Array, DataSet, Split

GRID = 256
BANDS = 5


def peaks_surface(x: Array, y: Array) -> Array:
    """MATLAB's `peaks`:

    3 (1-x)^2 exp(-x^2-(y+1)^2) - 10 (x/5 - x^3 - y^5) exp(-x^2-y^2) - (1/3) exp(-(x+1)^2-y^2)
    """
    heights: Array = (
        3 * (1 - x) ** 2 * np.exp(-(x**2) - (y + 1) ** 2)
        - 10 * (x / 5 - x**3 - y**5) * np.exp(-(x**2) - y**2)
        - np.exp(-((x + 1) ** 2) - y**2) / 3
    )
    return heights


def _peaks_classification(generator: np.random.Generator) -> DataSet:
    axis = np.linspace(-3, 3, GRID)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    values = peaks_surface(points[:, 0], points[:, 1])
    edges = np.linspace(values.min(), values.max(), BANDS + 1)
    band = np.digitize(values, edges[1:-1])
    inputs, labels = points.astype(np.float32), band.astype(np.int64)
    train, test = [], []
    for label in range(BANDS):
        positions = generator.permutation(np.flatnonzero(band == label))
        # Grid points are divided before they are drawn with replacement, so that none is in both sets.
        cut = len(positions) // 5
        test.append(generator.choice(positions[:cut], 400))
        train.append(generator.choice(positions[cut:], 1600))
    in_train, in_test = np.concatenate(train), np.concatenate(test)
    return DataSet(
        Split(inputs[in_train], labels[in_train]),
        Split(inputs[in_test], labels[in_test]),
        "peaks, 5 bands of height: 8000 training points, 2000 held out",
    )


def _peaks_regression(generator: np.random.Generator) -> DataSet:
    points = generator.uniform(-3, 3, (10000, 2))
    inputs = points.astype(np.float32)
    heights = peaks_surface(points[:, :1], points[:, 1:]).astype(np.float32)
    return DataSet(
        Split(inputs[:8000], heights[:8000]),
        Split(inputs[8000:], heights[8000:]),
        "peaks, the height: 8000 training points, 2000 held out",
    )


PEAKS_TASKS: dict[str, Callable[[np.random.Generator], DataSet]] = {
    "classification": _peaks_classification,
    "regression": _peaks_regression,
}


def peaks(task: str = "classification", seed: int = 0) -> DataSet:
    """The surface `peaks_surface` on the square [-3, 3]^2.

    `classification`: which of 5 bands of equal width the height falls into, on a grid of 256 x 256 points;
    1,600 points a class to train and 400 to test, drawn with replacement from disjoint parts of the grid.
    `regression`: the height itself, targets `(N, 1)`, at 8,000 + 2,000 points drawn uniformly.
    """
    if task not in PEAKS_TASKS:
        raise ValueError(f"peaks: unknown task {task!r}; choose one of {', '.join(PEAKS_TASKS)}")
    return PEAKS_TASKS[task](np.random.default_rng(seed))


def _on_curves(radius: Array, angle: Array, generator: np.random.Generator, name: str) -> DataSet:
    """Two classes, rows of `radius` and `angle` `(2, n)`, mixed; the last fifth is held out."""
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    inputs = points.reshape(-1, 2).astype(np.float32)
    labels = np.repeat(np.arange(2, dtype=np.int64), radius.shape[1])
    mixed = generator.permutation(len(labels))
    train, test = np.split(mixed, [len(mixed) - len(mixed) // 5])
    return DataSet(
        Split(inputs[train], labels[train]),
        Split(inputs[test], labels[test]),
        f"{name}: {len(train)} training points, {len(test)} held out",
    )


def circle(examples: int = 2500, seed: int = 0) -> DataSet:
    """A disc inside a ring: radius U(0, 1) for class 0 and 1 + U(0, 1) for class 1, angle U(0, 2 pi).

    `examples` a class; a fifth of all is held out as `test`.
    """
    generator = np.random.default_rng(seed)
    radius = generator.uniform(0, 1, (2, _count("circle", examples))) + np.array([[0], [1]])
    return _on_curves(radius, generator.uniform(0, 2 * np.pi, radius.shape), generator, "circle")


def spiral(examples: int = 2500, seed: int = 0) -> DataSet:
    """The swiss roll, two arms: (r cos t, r sin t) with t ~ U(0, 4 pi), r = t / (4 pi) + 0.2 * class.

    `examples` a class; a fifth of all is held out as `test`.
    """
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, 4 * np.pi, (2, _count("spiral", examples)))
    return _on_curves(angle / (4 * np.pi) + np.array([[0], [0.2]]), angle, generator, "spiral")


def _count(name: str, examples: int) -> int:
    if examples < 3:
        raise ValueError(f"{name}: {examples} examples a class leave a part of the data set empty; ask for 3 or more")
    return examples
