"""Importing the package is quick and brings nothing but NumPy."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 0.1  # what importing may cost over importing NumPy
RUNS = 7

# CPU seconds: an import does not wait for anything, and other programs on the machine do not count.
TIMED = """
import time
start = time.process_time()
import {module}
print(time.process_time() - start)
"""

# Names of the modules that came from files outside the standard library, NumPy and the package itself.
FOREIGN = """
import sys
started = set(sys.modules)
import sysconfig
from pathlib import Path
import numpy
import tinygrad_nm
ours = [Path(module.__file__).parent for module in (numpy, tinygrad_nm)]
libraries = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
for name, module in sys.modules.items():
    file = getattr(module, "__file__", None)
    if file and name not in started:
        parents = Path(file).parents
        standard = any(p in parents for p in libraries) and "site-packages" not in file
        if not standard and not any(p in parents for p in ours):
            print(name)
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


def _run(program: str, **environment: str) -> str:
    """Runs a program without coverage, which would be imported and would slow it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=inherited | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_costs_little_over_numpy(tmp_path: Path) -> None:
    """Interleaved, so that a busy machine slows both. The first pair fills the cache of compiled modules."""
    cache = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    pairs = [
        [float(_run(TIMED.format(module=module), **cache)) for module in ("numpy", "tinygrad_nm")]
        for _ in range(RUNS + 1)
    ][1:]
    cost = statistics.median(ours - numpy for numpy, ours in pairs)
    print(f"import tinygrad_nm: {cost * 1e3:.0f} ms of CPU time over NumPy (median of {RUNS})")
    assert cost < SECONDS


def test_import_brings_no_third_party_module_but_numpy() -> None:
    assert _run(FOREIGN).split() == []


def test_import_brings_no_optional_part() -> None:
    brought = _run("import sys, tinygrad_nm; print(*sys.modules)").split()
    assert "tinygrad_nm._cpu" in brought
    assert not [name for name in brought if name.startswith(("tinygrad_nm._cuda", "tinygrad_nm.cli"))]


@pytest.mark.parametrize("order", ["torch first", "tinygrad_nm first"])
def test_import_beside_torch(order: str) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed (extra `oracle`)")
    first, second = ("torch", "tinygrad_nm") if order == "torch first" else ("tinygrad_nm", "torch")
    assert _run(WITH_TORCH.format(first=first, second=second)).endswith("both right")
