"""Every row of cases.py: values, derivatives, adjoints, layouts, instruction sets, precision, whole numbers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from cases import Case, Variant, table, whole_like
from cases_networks import GRIDS
from pairwise import full_product, pairwise
from row_checks import ISAS, adjoint_faults, bound_call, data_of, derivative_faults, placed, value_faults
from tinygrad_nm import _cpu, autodiff, check

CASES = table()
# Exported functions that are not operations on tensors: they make tensors, set modes, or transform functions.
NOT_OPERATIONS = {
    "compile",
    "tensor",
    "from_numpy",
    "zeros",
    "ones",
    "grad",
    "value_and_grad",
    "manual_seed",
    "set_default_dtype",
    "get_default_dtype",
    "set_num_threads",
    "get_winograd",
    "set_winograd",
    "get_num_threads",
    "detect_anomaly",
    "empty_cache",
    "memory_stats",
    "reset_peak_memory",
    "set_memory_limit",
    "set_emulation",
    "from_dlpack",
}


OPERATORS = {"getitem"}  # operations without an exported name


def variants(where: Callable[[Case], bool] = lambda _: True) -> list[Any]:
    """(row, variant) for the rows that hold `where`."""
    return [
        pytest.param(case, variant, id=f"{case.name}-{i}")
        for case in CASES.values()
        if where(case)
        for i, variant in enumerate(case.variants)
    ]


def differentiable(case: Case) -> bool:
    return case.derivative


def has_kernel(case: Case) -> bool:
    return case.kernel != ""


def exported_operations() -> set[str]:
    """The functions the package exports, but for those named above."""
    functions = {name for name in nm.__all__ if inspect.isroutine(getattr(nm, name))}
    assert functions >= NOT_OPERATIONS, f"not exported: {NOT_OPERATIONS - functions}"
    return functions - NOT_OPERATIONS


def test_every_exported_operation_has_a_row_and_every_row_an_operation() -> None:
    assert exported_operations() == set(CASES) - OPERATORS


@pytest.mark.parametrize(("case", "variant"), variants())
def test_value(case: Case, variant: Variant) -> None:
    assert value_faults(case, variant) == []


@pytest.mark.parametrize(("case", "variant"), variants(differentiable))
def test_first_and_second_derivatives(case: Case, variant: Variant) -> None:
    faults = derivative_faults(case, variant)
    assert faults == [], "\n".join(faults)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CASES.values() if c.derivative])
def test_third_derivatives(case: Case) -> None:
    variant = case.variants[-1]
    report = check.derivatives(bound_call(case, variant), *variant.inputs(), order=3)
    assert "gradient, order 3" in report.taylor
    assert report.ok, str(report)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CASES.values() if c.derivative])
def test_linear_arguments_are_those_the_row_names(case: Case) -> None:
    for variant in case.variants:
        arrays = variant.inputs()
        if all(a.size for a in arrays) and case.linear:
            report = check.adjoint(bound_call(case, variant), *arrays, argnums=case.linear)
            assert [a.method for a in report.arguments] == ["linear"] * len(case.linear), str(report)


@pytest.mark.parametrize(("case", "variant"), variants(differentiable))
def test_adjoint_in_float32(case: Case, variant: Variant) -> None:
    assert adjoint_faults(case, variant, np.float32) == []


@pytest.mark.parametrize(("case", "variant"), variants())
def test_float32_within_its_bound(case: Case, variant: Variant) -> None:
    assert value_faults(case, variant, np.float32) == []


@pytest.mark.parametrize(("case", "variant"), variants())
def test_inputs_are_left_alone_and_a_second_call_gives_the_same(case: Case, variant: Variant) -> None:
    inputs = variant.inputs()
    before = [a.tobytes() for a in inputs]
    tensors = [nm.from_numpy(a, requires_grad=a.dtype.kind == "f" and case.derivative) for a in inputs]
    results = []
    for _ in range(2):
        y = case(*tensors, **variant.options)
        floats = [t for t in tensors if t.requires_grad]
        gradients = autodiff.grad(y, floats, nm.tensor(np.ones(y.shape))) if y.requires_grad else []
        results.append([data_of(t).tobytes() for t in (y, *gradients)])
    assert results[0] == results[1]
    assert [a.tobytes() for a in inputs] == before


# ---- the grids ------------------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Grids: a pairwise cover on every instruction set; under --full all the rest as well, on the default one."""
    if "grid_case" not in metafunc.fixturenames:
        return
    rows = []
    for name, (factors, fits, variant) in GRIDS.items():
        cover = pairwise(factors, fits)
        chosen = [(c, isa) for c in cover for isa in ISAS]
        if metafunc.config.getoption("--full"):
            chosen += [(c, _cpu.isa()) for c in full_product(factors, fits) if c not in cover]
        for c, isa in chosen:
            rows.append(
                pytest.param((CASES[name], variant(c)), isa, id=f"{name}-{'-'.join(map(str, c.values()))}-{isa}")
            )
    metafunc.parametrize(("grid_case", "isa"), rows, indirect=["isa"])


def test_grid_values_and_adjoints_on_every_instruction_set(grid_case: tuple[Case, Variant], isa: str) -> None:
    case, variant = grid_case
    faults = value_faults(case, variant) + value_faults(case, variant, np.float32)
    faults += adjoint_faults(case, variant, np.float64) + adjoint_faults(case, variant, np.float32)
    faults += whole_number_faults(case, variant)
    assert faults == []


# ---- instruction sets and whole numbers -----------------------------------------------------------------------


def whole_number_faults(case: Case, variant: Variant, device: str = "cpu") -> list[str]:
    """Small whole numbers must come out bit for bit in both precisions."""
    if not case.exact or "activation" in variant.options:
        return []
    faults = []
    for dtype in (np.float32, np.float64):
        inputs = whole_like(variant.inputs(), dtype)
        found = data_of(case(*placed(inputs, device), **variant.options)).astype(np.float64)
        if not np.array_equal(found, case.expected(inputs, variant.options)):
            faults.append(f"{case.name} {variant.options}: whole numbers differ in {np.dtype(dtype)}")
    return faults


@pytest.mark.parametrize(("case", "variant"), variants(lambda c: c.exact))
def test_small_whole_numbers_bit_for_bit(case: Case, variant: Variant) -> None:
    assert whole_number_faults(case, variant) == []


@pytest.mark.parametrize(("case", "variant"), variants(has_kernel))
def test_kernels_on_every_instruction_set(case: Case, variant: Variant, isa: str) -> None:
    faults = value_faults(case, variant) + value_faults(case, variant, np.float32) + whole_number_faults(case, variant)
    faults += adjoint_faults(case, variant, np.float64) + adjoint_faults(case, variant, np.float32)
    assert faults == []


# ---- memory layouts -------------------------------------------------------------------------------------------


def read_only(a: np.ndarray) -> np.ndarray:
    b = a.copy()
    b.flags.writeable = False
    return b


def misaligned(a: np.ndarray) -> np.ndarray:
    room = np.empty(a.nbytes + 1, np.uint8)
    b = room[1:].view(a.dtype).reshape(a.shape) if a.size else a.copy()
    b[...] = a
    return b


def big_endian(a: np.ndarray) -> np.ndarray:
    return a.astype(a.dtype.newbyteorder(">"))


def zero_strided(a: np.ndarray) -> np.ndarray:
    """The last entry along the last axis, repeated: other values than a's."""
    return np.broadcast_to(a[..., -1:], a.shape) if a.ndim and a.size else a


def negative_strided(a: np.ndarray) -> np.ndarray:
    backwards = tuple(slice(None, None, -1) for _ in a.shape)
    return np.asarray(np.asarray(a[backwards]).copy()[backwards])


def column_major(a: np.ndarray) -> np.ndarray:
    return np.asarray(a, order="F").copy(order="F")


def every_second(a: np.ndarray) -> np.ndarray:
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]) if a.ndim else (), 77, a.dtype)
    part = wide[..., ::2] if a.ndim else wide
    part[...] = a
    return part


LAYOUTS = [read_only, misaligned, big_endian, zero_strided, negative_strided, column_major, every_second]


def value_and_gradients(case: Case, variant: Variant, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The value from plain arrays, and value and gradients from tensors on that very memory where it can be shared."""
    plain = data_of(case(*arrays, **variant.options))
    share = [nm.from_numpy if a.dtype.isnative else nm.tensor for a in arrays]
    tensors = [
        make(a, requires_grad=a.dtype.kind == "f" and case.derivative) for make, a in zip(share, arrays, strict=True)
    ]
    y = case(*tensors, **variant.options)
    if not y.requires_grad:
        return [plain, data_of(y)]
    u = nm.tensor(np.asarray(np.random.default_rng(1).standard_normal(y.shape)))
    floats = [t for t in tensors if t.requires_grad]
    return [plain, data_of(y), *[data_of(g) for g in autodiff.grad(y, floats, u)]]


@pytest.mark.parametrize("layout", [pytest.param(f, id=f.__name__) for f in LAYOUTS])
@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CASES.values()])
def test_every_memory_layout(case: Case, layout: Callable[[np.ndarray], np.ndarray]) -> None:
    for variant in case.variants:
        arrays = [layout(a) for a in variant.inputs()]
        plain = [np.array(a, a.dtype.newbyteorder("="), order="C") for a in arrays]
        before = [a.tobytes() for a in arrays]
        found = value_and_gradients(case, variant, arrays)
        expected = value_and_gradients(case, variant, plain)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13, strict=True)
        assert [a.tobytes() for a in arrays] == before
