"""The stub of the extension lists exactly its names, arguments and defaults."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import tinygrad_nm
from tinygrad_nm import _cpu

PACKAGE = Path(tinygrad_nm.__file__).parent
STUB = ast.parse((PACKAGE / "_cpu.pyi").read_text(encoding="utf-8"))
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}


def _parameters(source: str) -> list[tuple[str, object]]:
    """(name, default) of each parameter of a `def` line; the default is ... where there is none."""
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    defaults = [ast.literal_eval(d) for d in function.args.defaults]
    return list(zip(names, [...] * (len(names) - len(defaults)) + defaults, strict=True))


def test_stub_lists_exactly_the_names_of_the_module() -> None:
    assert {name for name in dir(_cpu) if not name.startswith("_")} == set(FUNCTIONS)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_stub_has_the_arguments_of_the_function(name: str) -> None:
    documented = re.match(r"\w+\(.*\) -> [^\n]+", getattr(_cpu, name).__doc__)
    assert documented, "pybind11 writes the signature into the first line of the docstring"
    assert _parameters(f"def {documented[0]}: ...") == _parameters(ast.unparse(FUNCTIONS[name]))


def test_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
