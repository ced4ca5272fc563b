"""Options and fixtures of the whole suite: `--full`, the ISA bodies, and the report of which of them ran."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

import tinygrad_nm as nm
from row_checks import ISAS
from tinygrad_nm import _cpu

hypothesis.settings.register_profile(
    "suite", derandomize=True, max_examples=30, deadline=None, print_blob=False, database=None
)
hypothesis.settings.load_profile("suite")

ISA_KEY = pytest.StashKey[dict[str, list[int]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the full product of every grid instead of a pairwise cover")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ISA_KEY] = {name: [0, 0] for name in ISAS}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `isa` runs once on each; the grids of test_operations.py choose for themselves."""
    if "isa" in metafunc.fixturenames and "grid_case" not in metafunc.fixturenames:
        metafunc.parametrize("isa", list(ISAS), indirect=True)


@pytest.fixture
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once on each body of the kernels; counts those that this processor cannot run."""
    name = request.param
    counts = request.config.stash[ISA_KEY][name]
    available, why = ISAS[name]
    if not available:
        counts[1] += 1
        pytest.skip(f"{name}: {why}")
    before = _cpu.isa()
    _cpu.set_isa(name)
    counts[0] += 1
    yield name
    _cpu.set_isa(before)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from seed 0, step 0 and float32, on its own thread's tape."""
    nm.manual_seed(0)
    nm.autodiff.thread.modes.step = 0
    nm.set_default_dtype("float32")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    terminalreporter.section("kernel paths")
    terminalreporter.line(f"default: {_cpu.isa()}, {_cpu.max_threads()} threads")
    for name, (ran, not_run) in config.stash[ISA_KEY].items():
        why = "" if ISAS[name][0] else f" ({ISAS[name][1]})"
        terminalreporter.line(f"{name}: {ran} tests ran, {not_run} not run{why}")
