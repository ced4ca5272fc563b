"""The emulated CUDA device for tests: every access of memory watched, each architecture, each order of execution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tinygrad_nm import _cuda_emulated_strict as strict

ARCHITECTURES = [name for name, _, _ in strict.isas()]
ORDERS = (("forward", 0), ("reverse", 0), ("shuffled", 5))


@pytest.fixture(params=ARCHITECTURES)
def device(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The strict module of kernels, with the code paths of one architecture."""
    before = strict.isa()
    strict.set_isa(request.param)
    yield strict
    strict.set_isa(before)


def orders(device: Any) -> Iterator[str]:
    """Once for each order in which blocks, and threads between barriers, may run; the last leaves it as it was."""
    try:
        for order, seed in ORDERS:
            device.set_order(order, seed)
            yield order
    finally:
        device.set_order("forward")
