"""Arrays of the device "cuda-emulated" behave like CuPy's, and what the package asks of CuPy is there."""

from __future__ import annotations

import ast
import copy
import importlib.util
import inspect
import operator
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import emulated
from tinygrad_nm.device import sum_on_device, sum_on_host
from tinygrad_nm.emulated import EmulatedArray, xp
from tinygrad_nm.ops import methods

PACKAGE = Path(nm.__file__).parent


def on_device(*shape: int, dtype: Any = np.float32) -> EmulatedArray:
    """Small whole numbers."""
    return xp.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype))


# ---- nothing becomes a NumPy array by itself ------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        np.array,
        np.ascontiguousarray,
        lambda x: np.array([x, x]),
        lambda x: np.frombuffer(x, np.float32),
        lambda x: np.ones(3) + np.asarray(x),
        memoryview,
        np.from_dlpack,
    ],
)
def test_conversion_must_be_asked_for(convert: Callable[[Any], Any]) -> None:
    with pytest.raises((TypeError, BufferError)):
        convert(on_device(3))


def test_the_refusal_says_what_to_use() -> None:
    with pytest.raises(TypeError, match=r"cuda-emulated does not become a NumPy array implicitly; call \.get\(\)"):
        np.asarray(on_device(3))
    with pytest.raises(BufferError, match=r"no other library knows the device cuda-emulated; call \.get\(\)"):
        np.from_dlpack(on_device(3))


def test_asked_for_it_is_a_copy() -> None:
    x = on_device(2, 3)
    copied = x.get()
    copied[0, 0] = 9.0
    assert type(copied) is np.ndarray and x.get()[0, 0] == 0.0
    host = np.from_dlpack(x, device="cpu")
    assert not np.shares_memory(host, x._values) and host.tolist() == x.tolist()


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
@pytest.mark.parametrize("meet", [operator.add, operator.mul, operator.eq, operator.iadd, operator.pow])
def test_plain_arrays_do_not_mix(shape: tuple[int, ...], meet: Callable[[Any, Any], Any]) -> None:
    plain = np.ones(shape, np.float32)
    for pair in ((on_device(3), plain), (plain, on_device(3))):
        with pytest.raises(TypeError, match=r"numpy\.ndarray and an EmulatedArray do not mix"):
            meet(*pair)


def test_plain_arrays_are_neither_values_nor_indices_nor_arguments() -> None:
    x = on_device(3)
    for use in (
        lambda: x.__setitem__(0, np.ones(())),
        lambda: x.__setitem__(slice(None), np.ones(3, np.float32)),
        lambda: x[np.array([0, 1])],
        lambda: xp.where(np.ones(3, bool), x, x),
        lambda: xp.concatenate([x, np.ones(3, np.float32)]),
        lambda: x.sum(out=np.ones(())),
    ):
        with pytest.raises(TypeError, match="do not mix"):
            use()


def test_numbers_of_python_and_numpy_mix() -> None:
    x = on_device(3)
    for y in (x + 1, 1 + x, x + 1.0, np.float32(1) + x, x + np.float32(1), np.int64(1) + x):
        assert type(y) is EmulatedArray and y.tolist() == [1.0, 2.0, 3.0]
    assert (x + 1.0).dtype == np.float32 and (x + np.float64(1)).dtype == np.float64


def test_strangers_get_their_turn() -> None:
    class Stranger:
        __array_ufunc__ = None

        def __radd__(self, other: Any) -> str:
            return "mine"

    assert on_device(2) + Stranger() == "mine"
    t = nm.tensor([1.0, 2.0], device="cuda-emulated")
    assert isinstance(on_device(2) + t, nm.Tensor) and isinstance(t + on_device(2), nm.Tensor)
    with pytest.raises(TypeError):
        on_device(2) + "text"


# ---- results are arrays of the device ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sum", "max", "min", "mean", "argmax", "all", "any", "prod"])
def test_reductions_give_arrays_without_axes(name: str) -> None:
    y = getattr(on_device(2, 3), name)()
    assert type(y) is EmulatedArray and y.shape == ()


def test_one_element_is_a_view() -> None:
    x = on_device(2, 3)
    element = x[1, 2]
    assert type(element) is EmulatedArray and element.shape == () and element.base is x
    element[...] = 7.0
    assert x[1][2].item() == 7.0
    (row,) = x[1:]
    assert row.shape == (3,) and float(row[2]) == 7.0 and int(x[0, 1]) == 1 and bool(x[1, 0])


def test_index_arrays_go_around_and_numbers_do_not() -> None:
    x, around = on_device(2, 3), xp.asarray(np.array([0, 3, -1, -4]))
    assert x[0, around].tolist() == [0.0, 0.0, 2.0, 2.0] == x[..., around][0].tolist()
    assert x[None, around - 1, 1].tolist() == [[4.0, 1.0, 1.0, 4.0]] and x[xp.asarray([True, False]), around].shape == (
        4,
    )
    x[xp.asarray([5]), 2] = 9.0
    assert x[1, 2].item() == 9.0 and x[:, xp.asarray(np.ones((2, 2), int))].shape == (2, 2, 2)
    for wrong in (2, (0, 3), (0, 0, 0), (around, around, around)):
        with pytest.raises(IndexError):
            x[wrong]


def test_iteration_and_length() -> None:
    assert [x.item() for x in on_device(3)] == [0.0, 1.0, 2.0] and len(on_device(3, 2)) == 3
    for wrong in (iter, len):
        with pytest.raises(TypeError):
            wrong(xp.zeros(()))
    assert list(range(5))[on_device(2, dtype=np.int64)[1]] == 1


def test_views_know_their_base_and_copies_have_none() -> None:
    x = on_device(2, 3)
    for view in (x.T, x[0], x.reshape(6), x.view(), x.reshape(6)[1:3], xp.broadcast_to(x, (4, 2, 3)), x.ravel()):
        assert view.base is x
    for made in (x.T.reshape(6), x + 0, x.copy(), x.astype(np.float32), xp.concatenate([x, x]), x[x > 1]):
        assert made.base is None
    assert x.astype(np.float32, copy=False) is x and xp.asarray(x) is x
    assert xp.asarray(x, np.float64).dtype == np.float64


def test_in_place_arithmetic_writes_to_the_array() -> None:
    x = on_device(4)
    view, same = x[1:3], x
    view += 10
    x *= 2.0
    assert x is same and x.tolist() == [0.0, 22.0, 24.0, 6.0]
    out = xp.zeros(4, np.float32)
    assert xp.divide(x, xp.full((), 2.0, np.float32), out) is out and out.tolist() == [0.0, 11.0, 12.0, 3.0]


def test_memory_is_aligned_and_starts_as_numbers_that_show() -> None:
    for made in (xp.empty(3), xp.zeros((2, 5), np.uint8), on_device(3) + 1, xp.asarray([1.0])):
        assert made._values.__array_interface__["data"][0] % emulated.ALIGNMENT == 0
    assert np.isnan(xp.empty((2, 2), np.float32).get()).all() and xp.empty(2, np.int64).tolist() == [-1, -1]
    with pytest.raises(OverflowError):
        xp.empty((2**40, 2**40))


def test_nothing_is_warned_of() -> None:
    x = xp.asarray(np.array([0.0, -1.0, np.inf], np.float32))
    assert np.isnan(xp.log(x).get()[1]) and np.isinf((1.0 / x).get()[0])
    x[0] = 1e300  # overflows


def test_text_pickles_and_copies() -> None:
    x = on_device(2, 2)
    assert repr(x) == repr(x.get()) and str(x) == str(x.get())
    for same in (pickle.loads(pickle.dumps(x)), copy.copy(x), copy.deepcopy(x)):
        assert type(same) is EmulatedArray and same.tolist() == x.tolist() and same._values is not x._values
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)


def test_set_takes_what_fits() -> None:
    x = on_device(2)
    x.set(np.array([5, 6], np.float32))
    assert x.tolist() == [5.0, 6.0]
    for wrong in (np.ones(3, np.float32), np.ones(2)):
        with pytest.raises(ValueError, match=r"set: float.* does not fit"):
            x.set(wrong)


# ---- functions -----------------------------------------------------------------------------------------------


def test_functions_that_cupy_lacks_are_not_there() -> None:
    for name in ("errstate", "nditer", "memmap", "matmul", "dot"):
        with pytest.raises(AttributeError, match=f"cuda-emulated has no function '{name}'"):
            getattr(xp, name)
    for call in (lambda: np.matmul(on_device(2, 2), on_device(2, 2)), lambda: np.add.reduce(on_device(2))):
        with pytest.raises(TypeError, match="is not one of its functions"):
            call()
    with pytest.raises(TypeError, match="max: CuPy's has no argument 'initial'"):
        on_device(2).max(initial=0.0)
    with pytest.raises(AttributeError):
        on_device(2).ctypes  # noqa: B018
    with pytest.raises(AttributeError):
        np.einsum("i,i", on_device(2), on_device(2))


def test_numpys_functions_are_handed_on() -> None:
    x = on_device(2, 3)
    assert type(np.exp(x)) is EmulatedArray and type(np.concatenate([x, x])) is EmulatedArray
    assert np.shape(x) == (2, 3) and type(np.sum(x)) is EmulatedArray and type(np.array_equal(x, x)) is EmulatedArray


def test_sorting_is_stable() -> None:
    keys = xp.asarray(np.random.default_rng(0).integers(0, 3, 200))
    assert xp.argsort(keys).tolist() == np.argsort(keys.get(), kind="stable").tolist()


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64, 1000])
def test_sums_at_repeated_positions(count: int) -> None:
    """As by the CPU's, and the same bits again: also where one position takes all, and beside what is not finite."""
    rng = np.random.default_rng(count)
    for most in (1, 5, 5000):
        positions, values = rng.integers(0, most, count), rng.standard_normal(count)
        if count > 10:
            values[3] = np.nan if most > 5 else 1e30
        here = sum_on_host(5001, positions, values)
        there = [sum_on_device(xp, 5001, xp.asarray(positions), xp.asarray(values)) for _ in range(2)]
        bound = 1e-13 * sum_on_host(5001, positions, abs(values))
        assert np.all((abs(there[0].get() - here) <= bound) | np.isnan(bound))
        assert np.array_equal(np.isnan(here), np.isnan(there[0].get()))
        assert there[0].get().tobytes() == there[1].get().tobytes() and there[0].shape == (5001,)


# ---- kernels -------------------------------------------------------------------------------------------------


def test_kernels_take_memory_of_the_device_alone() -> None:
    kernels = nm.backend.device("cuda-emulated").kernels
    out, a = xp.empty((2, 2), np.float32), on_device(2, 2)
    with pytest.raises(TypeError, match=r"gemm: argument 1 is a numpy\.ndarray, not an EmulatedArray"):
        kernels.gemm(out, np.ones((2, 2), np.float32), a)
    kernels.gemm(out, a, a.T)
    assert out.tolist() == [[1.0, 3.0], [3.0, 13.0]] and kernels.gemm is kernels.gemm
    with pytest.raises(ValueError, match="out is not C-contiguous"):
        kernels.gemm(xp.empty((2, 2), np.float32).T, a, a)


# ---- CuPy itself, which can be asked without a driver -----------------------------------------------------------


@pytest.fixture(scope="module")
def cupy() -> Any:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed: pip install cupy-cuda13x, which needs neither a driver nor a GPU for this")
    return importlib.import_module("cupy")


def is_xp(node: ast.AST) -> bool:
    """Whether this is `xp`, `some_xp`, `device.xp`, `backend.xp(...)`, `xp_of(...)` or `cupy`."""
    node = node.func if isinstance(node, ast.Call) else node
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name in ("xp", "xp_of", "cupy") or name.endswith("_xp")


def used_functions() -> Iterator[tuple[str, ast.Call | None]]:
    """Each name that the package takes from such an object, with its call."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_xp(node.value):
                yield node.attr, calls.get(id(node))


def test_the_emulated_functions_are_enough() -> None:
    names = {name for name, _ in used_functions()} - {"cuda", "ndarray", "from_dlpack"}  # of cupy alone: see cuda.py
    assert {"where", "concatenate", "argsort", "isfinite", "true_divide", "arange", "square", "zeros_like"} <= names
    assert [name for name in names if not hasattr(xp, name)] == []


def test_cupy_has_every_function_that_the_package_uses(cupy: Any) -> None:
    faults = []
    compared = [(function.__name__, None) for function in methods.COMPARISONS.values()]  # by getattr
    for name, call in (*used_functions(), *compared):
        function = getattr(cupy, name, None)
        if function is None:
            faults.append(f"cupy.{name} is missing")
        elif call is not None and inspect.isfunction(function):
            try:
                inspect.signature(function).bind(*call.args, **{k.arg: 0 for k in call.keywords if k.arg})
            except TypeError as error:
                faults.append(f"cupy.{name}: {error}")
    assert faults == []


def test_the_emulated_device_has_no_function_that_cupy_lacks(cupy: Any) -> None:
    names = [*vars(xp), *emulated.FUNCTIONS.split(), *emulated.UFUNCS.split()]
    assert [name for name in names if not hasattr(cupy, name)] == []
    names = [name for name in vars(EmulatedArray) if not name.startswith("_")]
    assert len(names) > 20 and [name for name in names if not hasattr(cupy.ndarray, name)] == []


def test_methods_take_no_argument_that_cupys_do_not(cupy: Any) -> None:
    faults = []
    for name, options in emulated.METHODS.items():
        signature = str(getattr(cupy.ndarray, name).__doc__).split("\n")[0]  # Cython writes it there
        known = re.findall(r"(\w+)(?:=|,|\))", signature)
        assert known or "(self)" in signature, signature
        faults += [f"{name}({option}=)" for option in options if option not in known]
    assert faults == []
