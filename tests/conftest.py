"""Options and fixtures of the whole suite: `--full`, ISA bodies and devices, and the report of which of them ran."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

import tinygrad_nm as nm
from row_checks import ISAS
from tinygrad_nm import _cpu, backend

hypothesis.settings.register_profile(
    "suite", derandomize=True, max_examples=30, deadline=None, print_blob=False, database=None
)
hypothesis.settings.load_profile("suite")

ISA_KEY = pytest.StashKey[dict[str, list[int]]]()
PLACE_KEY = pytest.StashKey[dict[str, list[Any]]]()
PLACES = ("cuda-emulated", "cuda")  # devices beside the CPU


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the full product of every grid instead of a pairwise cover")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ISA_KEY] = {name: [0, 0] for name in ISAS}
    config.stash[PLACE_KEY] = {name: [0, 0, ""] for name in PLACES}


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


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once on each device beside the CPU, the emulated one strict; counts those that are not here."""
    name = request.param
    counts = request.config.stash[PLACE_KEY][name]
    try:
        backend.device(name)
    except nm.DeviceError as error:
        counts[1:] = counts[1] + 1, f" ({error})"
        pytest.skip(str(error))
    counts[0] += 1
    if name != "cuda-emulated":
        yield name
        return
    backend.set_emulation("strict")
    yield name
    backend.set_emulation(os.environ.get("TINYGRAD_NM_EMULATION", "fast"))


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
    terminalreporter.section("devices")
    for name, (ran, not_run, why) in config.stash[PLACE_KEY].items():
        terminalreporter.line(f"{name}: {ran} tests ran, {not_run} not run{why}")
