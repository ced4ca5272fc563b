"""Batches of a data set, shuffled by (seed, epoch) and assembled one ahead in the background."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tinygrad_nm.data._sets import Array

Transform = Callable[[Array, np.random.Generator], Array]


class Loader:
    """Iterates over a data set in batches: tuples with one new array for each of `arrays`.

    Each `for` loop is one epoch. Order and transform depend on `(seed, epoch)` alone (a Philox generator with
    that key), so epoch 7 of a resumed run (`loader.epoch = 7`) has the batches that epoch 7 of an
    uninterrupted run has. While the consumer works on a batch, one background thread assembles the next; the
    thread ends with the loop, also when the loop is left early, and its exceptions are raised in the
    consumer. In a child forked in the middle of an epoch, where the thread does not exist, batches are
    assembled in the loop itself.

    Args:
        arrays: arrays of equal length N, such as a `Split`; the first axis counts examples.
        batch_size: examples a batch. The last one is smaller if N is not a multiple of it.
        shuffle: a new order each epoch; otherwise the order of `arrays`.
        seed: any integer from 0 to 2^64 - 1.
        drop_last: leave out a smaller last batch.
        transform: called as `transform(batch_of_first_array, generator)` in the background thread.

    Raises:
        ValueError: the data set is empty, lengths differ, `batch_size` < 1, or no batch is left by
        `drop_last`.
    """

    epoch: int

    def __init__(
        self,
        arrays: Sequence[Array],
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        transform: Transform | None = None,
    ) -> None:
        lengths = [len(array) for array in arrays]
        if not any(lengths):
            raise ValueError("Loader: the data set is empty; pass arrays with at least one example")
        if len(set(lengths)) > 1:
            raise ValueError(f"Loader: arrays have {lengths} examples; pass arrays of equal length")
        if batch_size < 1:
            raise ValueError(f"Loader: batch_size is {batch_size}; pass 1 or more")
        if drop_last and batch_size > lengths[0]:
            raise ValueError(
                f"Loader: drop_last leaves no batch of {batch_size} in {lengths[0]} examples; lower batch_size"
            )
        self.arrays = tuple(arrays)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.transform = transform
        self.epoch = 0
        self._examples = lengths[0] - lengths[0] % batch_size if drop_last else lengths[0]

    @property
    def examples(self) -> int:
        """Examples an epoch."""
        return self._examples

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-self._examples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, ...]]:
        epoch = self.epoch
        self.epoch += 1
        return self._batches(epoch)

    def _generator(self, epoch: int, stream: int) -> np.random.Generator:
        # The counter's highest word separates the streams of an epoch: 0 orders the examples, b + 1
        # transforms batch b.
        bits = np.random.Philox(key=[self.seed, epoch], counter=[0, 0, 0, stream])
        return np.random.Generator(bits)

    def _order(self, epoch: int) -> Array:
        count = len(self.arrays[0])
        return self._generator(epoch, 0).permutation(count) if self.shuffle else np.arange(count)

    def _assemble(self, order: Array, epoch: int, batch: int) -> tuple[Array, ...]:
        # np.take is one call an array and releases the GIL while it copies; with `out=` it would copy twice.
        chosen = order[batch * self.batch_size : min((batch + 1) * self.batch_size, self._examples)]
        first, *others = (np.take(array, chosen, axis=0) for array in self.arrays)
        if self.transform is not None:
            first = self.transform(first, self._generator(epoch, batch + 1))
        return first, *others

    def _batches(self, epoch: int) -> Iterator[tuple[Array, ...]]:
        # Imported here: it would be a tenth of the package's import time.
        from concurrent.futures import ThreadPoolExecutor

        order, home = self._order(epoch), os.getpid()
        with ThreadPoolExecutor(1, "tinygrad-nm-loader") as worker:
            ahead = worker.submit(self._assemble, order, epoch, 0)
            for batch in range(len(self)):
                if os.getpid() != home:
                    yield self._assemble(order, epoch, batch)
                    continue
                ready = ahead.result()
                if batch + 1 < len(self):
                    ahead = worker.submit(self._assemble, order, epoch, batch + 1)
                yield ready
