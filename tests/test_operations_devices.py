"""Every row of cases.py on each device beside the CPU: values, whole numbers bit for bit, first and second derivatives.

On the emulated device every access of memory is watched, and values come from the kernels of each architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cases import Case, Variant
from cases_networks import GRIDS
from pairwise import pairwise
from row_checks import derivative_faults, value_faults
from test_operations import CASES, differentiable, variants, whole_number_faults
from tinygrad_nm import backend


def architectures(place: str) -> Iterator[str]:
    """Once for each of the device's code paths that can run here."""
    kernels = backend.device(place).kernels
    before = kernels.isa()
    try:
        for name, available, _ in kernels.isas():
            if available:
                kernels.set_isa(name)
                yield name
    finally:
        kernels.set_isa(before)


def all_value_faults(case: Case, variant: Variant, place: str) -> list[str]:
    faults = []
    for _ in architectures(place):
        for dtype in (np.float64, np.float32):
            faults += value_faults(case, variant, dtype, place)
        faults += whole_number_faults(case, variant, place)
    return faults


def grids() -> list[Any]:
    """(row, variant) of a pairwise cover of the configurations of convolution and pooling."""
    return [
        pytest.param(CASES[name], variant(c), id=f"{name}-{'-'.join(map(str, c.values()))}")
        for name, (factors, fits, variant) in GRIDS.items()
        for c in pairwise(factors, fits)
    ]


@pytest.mark.parametrize(("case", "variant"), [*variants(), *grids()])
def test_values(case: Case, variant: Variant, place: str) -> None:
    assert all_value_faults(case, variant, place) == []


@pytest.mark.parametrize(("case", "variant"), variants(differentiable))
def test_first_and_second_derivatives(case: Case, variant: Variant, place: str) -> None:
    faults = derivative_faults(case, variant, device=place)
    assert faults == [], "\n".join(faults)
