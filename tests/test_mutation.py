"""Wrong on purpose: every rule and every kernel with a sign, a factor, a transposed argument or its groups ignored.

Each injected fault must make the checks of its row fail; a check that cannot fail would show here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from cases import Case, Variant, normal, table
from cases_networks import ASYMMETRIC, backward_input_variant, backward_weight_variant, conv2d_variant
from row_checks import derivative_faults, value_faults
from test_operations import exported_operations
from tinygrad_nm import _cpu, ops
from tinygrad_nm.ops.dtype import move

CASES = table()
MODULES = [importlib.import_module(f"{ops.__name__}.{info.name}") for info in pkgutil.iter_modules(ops.__path__)]

# the row that exercises each gradient rule, where it is not the row of the same name
ROW_OF_RULE = {
    "activation_rule": "tanh",
    "normal_distribution_rule": "gelu",
    "max_pool2d_scatter_rule": "max_pool2d",
    "max_pool2d_gather_rule": "max_pool2d",
    "avg_pool2d_spread_rule": "avg_pool2d",
    "put_rule": "getitem",
    "cross_entropy_rule": "cross_entropy",
    "scale_rule": "smooth_relu",
}
ROW_OF_KERNEL = {
    "gemm": "matmul",
    "conv2d_forward": "conv2d",
    "conv2d_backward_input": "conv2d_backward_input",
    "conv2d_backward_weight": "conv2d_backward_weight",
    "conv2d_pool2d_forward": "conv2d_pool2d",
    "conv2d_pool2d_backward": "conv2d_pool2d",
    "max_pool2d_forward": "max_pool2d",
    "max_pool2d_backward": "max_pool2d",
    "max_pool2d_gather": "max_pool2d",
    "avg_pool2d_forward": "avg_pool2d",
    "avg_pool2d_backward": "avg_pool2d",
    "local_response_norm_forward": "local_response_norm",
    "local_response_norm_backward": "local_response_norm",
    "softmax_cross_entropy_forward": "cross_entropy",
    "softmax_cross_entropy_backward": "cross_entropy",
    "activation_forward": "sigmoid",
    "activation_backward": "sigmoid",
    "bias_backward": "linear",
    "dropout": "dropout",
}
NO_ROW = {
    "set_winograd",
    "get_winograd",
    "forbid_winograd",
    "set_winograd_always",
    "conv2d_pool2d_kept",
    "sgd_update",
    "isa",
    "isas",
    "set_isa",
    "max_threads",
    "set_max_threads",
    "threads_used",
    "arena_bytes",
    "empty",
    "empty_cache",
    "set_memory_limit",
    "memory_stats",
    "reset_peak_memory",
    "peak_arithmetic",
    "peak_memory",
    "peak_read",
}
# Tensor.to another device has no row; a copy on the same one has the same rule.
WITHOUT_ROW = {"move_rule": Case("move", lambda x: x, [Variant(normal((3, 2)))], lambda x: move(x, "cpu"))}
FACTORS = {"sign": -1.0, "factor 1.01": 1.01}


def rules() -> dict[str, ModuleType]:
    """Every gradient rule, by name, with the module whose global it is."""
    return {
        name: module
        for module in MODULES
        for name, function in vars(module).items()
        if name.endswith("_rule") and callable(function) and function.__module__ == module.__name__
    }


def fails(case: Case) -> bool:
    """Whether some variant of the row has a fault."""
    return any(value_faults(case, v) or derivative_faults(case, v) for v in case.variants)


@pytest.mark.parametrize("mutation", FACTORS)
@pytest.mark.parametrize("name", rules())
def test_a_wrong_rule_makes_its_row_fail(name: str, mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = rules()[name]
    right = getattr(module, name)

    def wrong(dy: Any, needs: Any, out: Any, saved: Any) -> Any:
        return tuple(None if g is None else g * FACTORS[mutation] for g in right(dy, needs, out, saved))

    wrong.__name__ = name
    case = WITHOUT_ROW.get(name) or CASES[ROW_OF_RULE.get(name, name.removesuffix("_rule"))]
    if name == "astype_rule":  # its row converts to the dtype it has
        assert not fails(case)
    monkeypatch.setattr(module, name, wrong)
    assert fails(case)


def mutate_kernel(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[..., None]) -> None:
    """Calls `change(right, *arguments)` instead of the kernel."""
    right = getattr(_cpu, name)

    def wrong(*arguments: Any) -> None:
        change(right, *arguments)

    monkeypatch.setattr(_cpu, name, wrong)


def test_every_kernel_has_a_row() -> None:
    kernels = {name for name in dir(_cpu) if not name.startswith("_") and callable(getattr(_cpu, name))}
    assert kernels - NO_ROW - {"build_options"} == set(ROW_OF_KERNEL)


@pytest.mark.parametrize("mutation", FACTORS)
@pytest.mark.parametrize("name", ROW_OF_KERNEL)
def test_a_wrong_kernel_makes_its_row_fail(name: str, mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(right: Callable[..., None], out: np.ndarray, *arguments: Any) -> None:
        right(out, *arguments)
        out *= FACTORS[mutation]

    mutate_kernel(monkeypatch, name, change)
    assert fails(CASES[ROW_OF_KERNEL[name]])


def test_an_exported_operation_without_a_row_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nm, "novelty", lambda x: x, raising=False)
    monkeypatch.setattr(nm, "__all__", [*nm.__all__, "novelty"])
    assert exported_operations() - set(CASES) == {"novelty"}


# ---- transposed arguments -------------------------------------------------------------------------------------


def transposed(place: int) -> Callable[..., None]:
    """Hands the kernel argument `place` with its last two axes swapped."""

    def change(right: Callable[..., None], *arguments: Any) -> None:
        changed = list(arguments)
        changed[place] = np.swapaxes(arguments[place], -1, -2)
        right(*changed)

    return change


SQUARE = {"groups": 1, "stride": 1, "padding": 1, "dilation": 1, "size": 5, "kernel": 3}


def square(variant: Variant, *shapes: tuple[int, ...]) -> Variant:
    """The variant with inputs of these shapes, whose last two axes are equal."""
    options = dict(variant.options)
    options.update({"input_shape": (2, 4, 5, 5)} if "input_shape" in options else {})
    return Variant(normal(*shapes), options)


X, W, Y = (2, 4, 5, 5), (2, 4, 3, 3), (2, 2, 5, 5)
TRANSPOSED = [
    ("gemm", 1, "matmul", Variant(normal((3, 3), (3, 3)))),
    ("gemm", 2, "matmul", Variant(normal((3, 3), (3, 3)))),
    ("gemm", 2, "linear", Variant(normal((3, 3), (3, 3), (3,)))),
    ("conv2d_forward", 1, "conv2d", square(conv2d_variant(SQUARE), X, W)),
    ("conv2d_forward", 2, "conv2d", square(conv2d_variant(SQUARE), X, W)),
    ("conv2d_backward_input", 1, "conv2d_backward_input", square(backward_input_variant(SQUARE), Y, W)),
    ("conv2d_backward_input", 2, "conv2d_backward_input", square(backward_input_variant(SQUARE), Y, W)),
    ("conv2d_backward_weight", 1, "conv2d_backward_weight", square(backward_weight_variant(SQUARE), X, Y)),
    ("conv2d_backward_weight", 2, "conv2d_backward_weight", square(backward_weight_variant(SQUARE), X, Y)),
]


@pytest.mark.parametrize(("kernel", "place", "row", "variant"), TRANSPOSED)
def test_a_transposed_argument_is_found_by_value_and_by_derivative(
    kernel: str, place: int, row: str, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert value_faults(CASES[row], variant) == [] == derivative_faults(CASES[row], variant)
    mutate_kernel(monkeypatch, kernel, transposed(place))
    assert value_faults(CASES[row], variant) != []
    assert derivative_faults(CASES[row], variant) != []


# ---- groups ignored -------------------------------------------------------------------------------------------


def _one_group(geometry: Any) -> Any:
    return (*geometry[:8], 1)


def _all_channels(w: np.ndarray, geometry: Any) -> np.ndarray:
    return np.tile(w, (1, geometry[8], 1, 1))


def forward_without_groups(right: Any, out: Any, x: Any, w: Any, bias: Any, geometry: Any, *rest: Any) -> None:
    right(out, x, _all_channels(w, geometry), bias, _one_group(geometry), *rest)


def backward_input_without_groups(right: Any, out: Any, dy: Any, w: Any, geometry: Any) -> None:
    right(out, dy, _all_channels(w, geometry), _one_group(geometry))


def backward_weight_without_groups(right: Any, out: Any, x: Any, dy: Any, geometry: Any) -> None:
    full = np.empty((out.shape[0], x.shape[1], *out.shape[2:]), out.dtype)
    right(full, x, dy, _one_group(geometry))
    out[...] = full[:, : out.shape[1]]


def norm_without_groups(right: Any, *arguments: Any) -> None:
    right(*arguments[:-1], 1)


GROUPED = {"groups": 2, "stride": 2, "padding": ASYMMETRIC, "dilation": 1, "size": 7, "kernel": 3}
WITHOUT_GROUPS = [
    ("conv2d_forward", forward_without_groups, "conv2d", conv2d_variant(GROUPED)),
    ("conv2d_backward_input", backward_input_without_groups, "conv2d", conv2d_variant(GROUPED)),
    ("conv2d_backward_weight", backward_weight_without_groups, "conv2d", conv2d_variant(GROUPED)),
    ("local_response_norm_forward", norm_without_groups, "local_response_norm", None),
    ("local_response_norm_backward", norm_without_groups, "local_response_norm", None),
]


@pytest.mark.parametrize(("kernel", "change", "row", "variant"), WITHOUT_GROUPS)
def test_ignored_groups_are_found(
    kernel: str, change: Any, row: str, variant: Variant | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[row]
    grouped = variant or next(v for v in case.variants if v.options.get("groups", 1) > 1)
    assert value_faults(case, grouped) == [] == derivative_faults(case, grouped, order=1)
    mutate_kernel(monkeypatch, kernel, change)
    assert value_faults(case, grouped) + derivative_faults(case, grouped, order=1) != []
