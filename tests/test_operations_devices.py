"""Every row of cases.py on every device beside the CPU: values, first and second derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from cases import Case, Variant
from row_checks import derivative_faults, value_faults
from test_operations import differentiable, variants


@pytest.mark.parametrize(("case", "variant"), variants())
def test_value(case: Case, variant: Variant, place: str) -> None:
    assert value_faults(case, variant, np.float64, place) + value_faults(case, variant, np.float32, place) == []


@pytest.mark.parametrize(("case", "variant"), variants(differentiable))
def test_first_and_second_derivatives(case: Case, variant: Variant, place: str) -> None:
    faults = derivative_faults(case, variant, device=place)
    assert faults == [], "\n".join(faults)
