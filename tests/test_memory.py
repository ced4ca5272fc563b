"""Training does not grow: 1,000 steps with the garbage collector off."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np

import tinygrad_nm as nm

STEPS = 1000
WARM_UP = 100


def resident_bytes() -> int:
    """The memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_training_steps_grow_memory_by_less_than_a_megabyte() -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, 1, 10, 10)).astype(np.float32)
    labels = rng.integers(0, 10, 4)
    model = nm.nn.Sequential(
        nm.nn.Conv2d(1, 3, 3, activation="tanh"),
        nm.nn.MaxPool2d(2),
        nm.nn.Conv2d(3, 4, 3, activation="relu"),
        nm.nn.LocalResponseNorm(3),
        nm.nn.AvgPool2d(2),
        nm.nn.Flatten(),
        nm.nn.Dropout(0.1),
        nm.nn.Linear(4, 10),
    )
    optimiser = nm.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step() -> None:
        loss = nm.cross_entropy(model(nm.tensor(images)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    for _ in range(WARM_UP):
        step()
    gc.collect()
    gc.disable()
    try:
        before = resident_bytes()
        for _ in range(STEPS):
            step()
        grown = resident_bytes() - before
        assert gc.collect() < 100, "the steps left cycles for the collector"
    finally:
        gc.enable()
    assert grown < 2**20, f"{grown} bytes more after {STEPS} steps"
