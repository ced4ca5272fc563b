"""Products are ours: with NumPy's made to raise, LeNet still trains; and no source line asks for one."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

import tinygrad_nm as nm

PRODUCTS = ("matmul", "dot", "vdot", "inner", "outer", "einsum", "tensordot", "kron", "convolve", "correlate")


@pytest.fixture
def no_products(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError("a product by NumPy")

    for name in PRODUCTS:
        monkeypatch.setattr(np, name, refuse)
    for name, function in vars(np.linalg).items():
        if inspect.isroutine(function):
            monkeypatch.setattr(np.linalg, name, refuse)


@pytest.mark.usefixtures("no_products")
def test_lenet_trains_without_numpys_products() -> None:
    with pytest.raises(AssertionError, match="a product by NumPy"):
        np.matmul(np.ones((2, 2)), np.ones((2, 2)))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 16)
    images = rng.standard_normal((16, 1, 28, 28)).astype(np.float32) * 0.3
    images[np.arange(16), 0, labels * 2 + 3] += 2.0  # a bright row tells the class
    for model in (nm.nn.LeNet(), nm.nn.LeNet5()):
        optimiser = nm.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        losses = []
        for _ in range(15):
            loss = nm.cross_entropy(model(nm.tensor(images)), labels)
            model.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0], losses


def test_no_source_line_multiplies_matrices_of_numpy() -> None:
    """`a @ b` of two arrays goes past the names above, so the sources are read as well."""
    package = Path(nm.__file__).parent
    found = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            matrix_product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
            method = isinstance(node, ast.Attribute) and node.attr in {"dot", "einsum", "tensordot", "linalg", "vdot"}
            if matrix_product or method:
                found.append(f"{path.relative_to(package)}:{node.lineno}")
    assert found == []
