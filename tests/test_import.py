"""Importing the package is quick and brings nothing but NumPy."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys

import pytest

SECONDS = 0.1  # what importing may cost over importing NumPy
RUNS = 7

TIMED = """
import time
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""

MODULES = """
import json, sys
import numpy
before = set(sys.modules)
import tinygrad_nm
print(json.dumps(sorted(set(sys.modules) - before)))
"""

WITH_TORCH = """
import {first}
import {second}
import numpy as np, torch
import tinygrad_nm as nm
x = np.arange(6.0).reshape(2, 3)
ours = nm.matmul(nm.tensor(x), nm.tensor(x.T)).numpy()
theirs = (torch.tensor(x) @ torch.tensor(x.T)).numpy()
assert (ours == theirs).all()
big = np.ones((400, 400))
assert (nm.matmul(nm.tensor(big), nm.tensor(big)).numpy() == 400).all()
assert (torch.tensor(big) @ torch.tensor(big) == 400).all()
print("both right")
"""


def _run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_costs_little_over_numpy() -> None:
    """Interleaved, so that a busy machine slows both; the first pair only warms the file cache."""
    pairs = [
        tuple(float(_run(TIMED.format(module=module))) for module in ("numpy", "tinygrad_nm"))
        for _ in range(RUNS + 1)
    ][1:]
    cost = statistics.median(ours - numpy for numpy, ours in pairs)
    print(f"import tinygrad_nm: {cost * 1e3:.0f} ms over NumPy (median of {RUNS})")
    assert cost < SECONDS


def test_import_brings_no_third_party_module_but_numpy() -> None:
    brought = json.loads(_run(MODULES))
    tops = {name.partition(".")[0] for name in brought}
    foreign = tops - set(sys.stdlib_module_names) - {"numpy", "tinygrad_nm"}
    assert "tinygrad_nm" in tops
    assert not {name for name in foreign if not name.startswith(("_distutils", "__"))}, foreign


def test_import_touches_no_accelerator_and_no_optional_part() -> None:
    brought = set(json.loads(_run(MODULES)))
    optional = ("tinygrad_nm._cuda", "tinygrad_nm.cli", "tinygrad_nm.data.download")
    assert not brought & set(optional)


@pytest.mark.parametrize("order", ["torch first", "tinygrad_nm first"])
def test_import_beside_torch(order: str) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed (extra `oracle`)")
    first, second = ("torch", "tinygrad_nm") if order == "torch first" else ("tinygrad_nm", "torch")
    assert _run(WITH_TORCH.format(first=first, second=second)).endswith("both right")
