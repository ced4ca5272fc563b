"""The stubs of the extensions list exactly their names, arguments and defaults."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import tinygrad_nm

PACKAGE = Path(tinygrad_nm.__file__).parent
MODULES = ("_cpu", "_cuda", "_cuda_emulated", "_cuda_emulated_strict")


def _nodes(module: str) -> dict[str, ast.stmt]:
    """What a stub declares, by name: its own, and that of the stubs whose names it takes over."""
    nodes: dict[str, ast.stmt] = {}
    for node in ast.parse((PACKAGE / f"{module}.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and [alias.name for alias in node.names] == ["*"]:
            nodes |= _nodes(str(node.module))
        elif isinstance(node, ast.FunctionDef):
            nodes[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            nodes[ast.unparse(node.target)] = node
    return nodes


FUNCTIONS = [
    (m, name) for m in MODULES for name, node in sorted(_nodes(m).items()) if isinstance(node, ast.FunctionDef)
]


def _extension(name: str) -> Any:
    if importlib.util.find_spec(f"tinygrad_nm.{name}") is None:
        pytest.skip(f"{name} is not part of this build")
    return importlib.import_module(f"tinygrad_nm.{name}")


def _parameters(source: str) -> list[tuple[str, object]]:
    """(name, default) of each parameter of a `def` line; the default is ... where there is none."""
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    defaults = [ast.literal_eval(d) for d in function.args.defaults]
    return list(zip(names, [...] * (len(names) - len(defaults)) + defaults, strict=True))


@pytest.mark.parametrize("module", MODULES)
def test_stub_lists_exactly_the_names_of_the_module(module: str) -> None:
    assert {name for name in dir(_extension(module)) if not name.startswith("_")} == set(_nodes(module))


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_stub_has_the_arguments_of_the_function(module: str, name: str) -> None:
    documented = re.match(r"\w+\(.*\) -> [^\n]+", getattr(_extension(module), name).__doc__)
    assert documented, "pybind11 writes the signature into the first line of the docstring"
    assert _parameters(f"def {documented[0]}: ...") == _parameters(ast.unparse(_nodes(module)[name]))


def test_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
