"""What a data set is, and how a part of one is held out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Split(NamedTuple):
    """Inputs `(N, ...)` float32 and targets: labels `(N,)` int64, or values `(N, outputs)` float32."""

    inputs: Array
    targets: Array

    def __str__(self) -> str:
        return f"{len(self.targets)} examples of shape {self.inputs.shape[1:]}"


class DataSet(NamedTuple):
    """A training set, a test set, and one line saying where they come from."""

    train: Split
    test: Split
    name: str


def split_by_class(labels: Array, count: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Positions `(rest, held)`: `held` has `count` of them, shared among the classes as evenly as their sizes
    allow.

    Each class gives `count * size / total` examples, rounded down; what rounding leaves is taken one each
    from the classes with the largest remainder.
    """
    if not 0 < count < len(labels):
        raise ValueError(
            f"held_out: cannot hold out {count} of {len(labels)} examples; ask for fewer, and at least one"
        )
    classes, sizes = np.unique(labels, return_counts=True)
    share = sizes * count / len(labels)
    quota = share.astype(np.int64)
    quota[np.argsort(quota - share, kind="stable")[: count - quota.sum()]] += 1
    mixed = [generator.permutation(np.flatnonzero(labels == label)) for label in classes]
    held = np.concatenate([positions[:n] for positions, n in zip(mixed, quota, strict=False)])
    rest = np.concatenate([positions[n:] for positions, n in zip(mixed, quota, strict=False)])
    return np.sort(rest), np.sort(held)


def held_out(split: Split, count: int, seed: int = 0) -> tuple[Split, Split]:
    """Divides a split in two, `(rest, held)`, with `count` examples held out: the same ones for the same
    seed.

    Labels are divided by class (stratified); regression targets at random. Raises ValueError unless
    `0 < count < len(split.targets)`.
    """
    labels = split.targets if split.targets.ndim == 1 else np.zeros(len(split.targets), np.int64)
    rest, held = split_by_class(labels, count, np.random.default_rng(seed))
    return Split(split.inputs[rest], split.targets[rest]), Split(split.inputs[held], split.targets[held])
