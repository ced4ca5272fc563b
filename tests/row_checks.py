"""What every row of cases.py has to pass, as functions that say what is wrong: also used by the mutation tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import tinygrad_nm as nm
from cases import Case, Variant
from tinygrad_nm import _cpu, autodiff, backend, check

# the bodies of the kernels: whether this processor can run each, and why or why not
ISAS = {name: (available, why) for name, available, why in _cpu.isas()}
TIGHT = 1e-12  # float64, relative to 1 + |y|: the sums of these cases are short


def data_of(result: Any) -> np.ndarray:
    return backend.host(result.data)


def placed(arrays: Iterable[np.ndarray], device: str) -> list[Any]:
    """Floats as arrays of the device; labels and masks are constants, which NumPy's arrays may be anywhere."""
    return [backend.put("placed", a, device) if a.dtype.kind == "f" else a for a in arrays]


def value_faults(case: Case, variant: Variant, dtype: Any = np.float64, device: str = "cpu") -> list[str]:
    """The value against plain loops: in float64 to rounding, in float32 to the bound of the row."""
    inputs = [np.asarray(a, dtype) if a.dtype.kind == "f" else a for a in variant.inputs()]
    result = case(*placed(inputs, device), **variant.options)
    if result.device != device:
        return [f"{case.name}: the result is on {result.device}, expected {device}"]
    found = data_of(result)
    expected = case.expected(inputs, variant.options)
    if found.shape != expected.shape:
        return [f"{case.name}: shape {found.shape}, expected {expected.shape}"]
    if expected.dtype.kind == "f" and case.derivative and found.dtype != dtype:
        return [f"{case.name}: dtype {found.dtype}, expected {np.dtype(dtype)}"]
    if dtype == np.float64:
        bound = TIGHT * (1 + np.abs(expected))
    else:
        bound = case.float32_bound(inputs, variant.options, expected)
    error = np.abs(found.astype(np.float64) - expected)
    if np.all(error <= bound):
        return []
    worst = int(np.argmax(error - bound))
    return [
        f"{case.name} {variant.options} {np.dtype(dtype)}: element {worst} is {found.flat[worst]}, expected "
        f"{expected.flat[worst]} within {np.broadcast_to(bound, error.shape).flat[worst]:.1e}"
    ]


def bound_call(case: Case, variant: Variant) -> Callable[..., Any]:
    """The operation with its options, as a function of its arrays that carries its name."""

    def call(*arrays: Any) -> Any:
        return case(*arrays, **variant.options)

    call.__name__ = case.name
    return call


def derivative_faults(case: Case, variant: Variant, order: int = 2, device: str = "cpu") -> list[str]:
    """First and second derivatives, and the adjoint identity, in float64."""
    report = check.derivatives(bound_call(case, variant), *placed(variant.inputs(), device), order=order)
    faults = [] if report.ok else [str(report)]
    return faults + kernel_against_definition(case, variant, device)


def kernel_against_definition(case: Case, variant: Variant, device: str = "cpu") -> list[str]:
    """The first-order gradient (kernels) against the one `create_graph` records (definitions)."""
    operands = [
        nm.tensor(a, requires_grad=True) if a.dtype.kind == "f" else a for a in placed(variant.inputs(), device)
    ]
    variables = [t for t in operands if isinstance(t, nm.Tensor)]
    output = case(*operands, **variant.options)
    if not output.requires_grad:
        return []
    u = nm.tensor(np.asarray(np.random.default_rng(5).standard_normal(output.shape)), device=device)
    twice = [data_of(g) for g in autodiff.grad(output, variables, u, create_graph=True)]
    once = [data_of(g) for g in autodiff.grad(output, variables, u)]
    scale = max((float(np.max(np.abs(g), initial=0.0)) for g in twice), default=0.0) + 1
    gaps = [float(np.max(np.abs(a - b), initial=0.0)) for a, b in zip(once, twice, strict=True)]
    return [f"{case.name}: kernel and definition differ by {max(gaps):.1e}"] if max(gaps) > TIGHT * scale else []


def adjoint_faults(case: Case, variant: Variant, dtype: Any) -> list[str]:
    """The adjoint identity with gradients in `dtype`, and that the row declares the linear arguments right."""
    report = check.adjoint(bound_call(case, variant), *variant.inputs(), dtype=dtype)
    return [] if report.ok else [str(report)]


def row_faults(case: Case) -> list[str]:
    """All that values and derivatives of a row tell, over its variants."""
    faults = []
    for variant in case.variants:
        faults += value_faults(case, variant)
        if case.derivative:
            faults += derivative_faults(case, variant)
    return faults
