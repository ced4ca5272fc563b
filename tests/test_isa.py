"""The instruction set: chosen by the processor, forced by a variable, never leaked by the linker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tinygrad_nm import _cpu

ALL = [name for name, _, _ in _cpu.isas()]
AVAILABLE = [name for name, available, _ in _cpu.isas() if available]
PROGRAM = "from tinygrad_nm import _cpu; print(_cpu.isa())"


def _start(**environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k != "TINYGRAD_NM_ISA"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_set_says_whether_it_is_available_and_why() -> None:
    assert {"generic", "wide"} <= set(AVAILABLE)
    assert len(ALL) == len(set(ALL))
    for name, available, why in _cpu.isas():
        assert re.fullmatch(r"[a-z0-9]+", name)
        assert available or len(why) > 5, "an unavailable set says what the processor lacks"
    print("instruction sets run:", *AVAILABLE)
    print("not run:", *[f"{name} ({why})" for name, available, why in _cpu.isas() if not available])


def test_best_set_is_chosen_by_default() -> None:
    done = _start()
    assert done.returncode == 0, done.stderr
    best = [name for name in ("avx512", "avx2", "wide", "generic") if name in AVAILABLE]
    assert done.stdout.strip() in ({"avx512", "avx2"} & set(best) or best)
    if "avx512" in AVAILABLE:
        assert done.stdout.strip() == "avx512"


@pytest.mark.parametrize("name", AVAILABLE)
def test_variable_forces(name: str) -> None:
    done = _start(TINYGRAD_NM_ISA=name)
    assert (done.returncode, done.stdout.strip()) == (0, name), done.stderr


def test_unknown_set_is_an_error() -> None:
    done = _start(TINYGRAD_NM_ISA="sse9")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0
    assert "TINYGRAD_NM_ISA" in last
    assert "sse9" in last
    assert all(name in last for name in ALL), "the message lists what may be asked for"


@pytest.mark.parametrize("name", [name for name in ALL if name not in AVAILABLE])
def test_set_that_the_processor_lacks_is_an_error(name: str) -> None:
    done = _start(TINYGRAD_NM_ISA=name)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0
    assert name in last
    assert "TINYGRAD_NM_ISA" in last
    with pytest.raises((RuntimeError, ValueError), match=name):
        _cpu.set_isa(name)


def test_set_isa_refuses_unknown_names_and_keeps_the_choice() -> None:
    before = _cpu.isa()
    with pytest.raises(ValueError, match="mmx"):
        _cpu.set_isa("mmx")
    assert _cpu.isa() == before


@pytest.mark.parametrize("name", AVAILABLE)
def test_set_isa_switches(name: str) -> None:
    before = _cpu.isa()
    try:
        _cpu.set_isa(name)
        assert _cpu.isa() == name
        out = np.empty((40, 50), np.float32)
        _cpu.gemm(out, np.ones((40, 60), np.float32), np.ones((60, 50), np.float32))
        np.testing.assert_array_equal(out, np.full((40, 50), 60, np.float32))
    finally:
        _cpu.set_isa(before)


def test_extension_exports_nothing_but_its_entry_point() -> None:
    """Hidden symbols: no other library can take over a kernel, and no kernel another library's function."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not installed")
    lines = subprocess.run(
        [nm, "-D", "--defined-only", _cpu.__file__], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    names = {line.split()[-1] for line in lines}
    assert "PyInit__cpu" in names
    assert not [name for name in names if "tinygrad_nm" in name]
