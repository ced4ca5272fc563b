"""What nvcc says of the kernels, where there is nvcc: no warning, no spill, as many blocks as recorded, plain PTX."""

from __future__ import annotations

from pathlib import Path

import pytest

import cuda_compiler as compiler

pytestmark = pytest.mark.skipif(compiler.NVCC is None, reason="nvcc is not on the path")
SOURCES = [pytest.param(source, id=source.name) for source in compiler.SOURCES]
FIRST = 80  # of the architectures, the one that every run compiles for; --full adds the others


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every kernel file on the first architecture; under --full on all."""
    full = metafunc.config.getoption("--full")
    if "newer" in metafunc.fixturenames:
        metafunc.parametrize("newer", compiler.newer_architectures() if full else [])
    if "report" in metafunc.fixturenames:
        wanted = compiler.MULTIPROCESSORS if full else [FIRST]
        metafunc.parametrize(
            "report",
            [pytest.param((s, a), id=f"{s.name}-sm_{a}") for a in wanted for s in compiler.SOURCES],
            indirect=True,
            scope="module",
        )


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[compiler.Kernel]:
    """The kernels of one file on one architecture; that they compile without a warning is part of it."""
    source, architecture = request.param
    return compiler.kernels(source, architecture, tmp_path_factory.mktemp("cubin"))


def test_kernels_are_as_recorded(report: list[compiler.Kernel]) -> None:
    """python tests/cuda_compiler.py --write records what is meant to change."""
    recorded = compiler.recorded()
    for kernel in report:
        assert kernel.threads > 0, f"{kernel.name} has no __launch_bounds__"
        assert kernel.key in recorded, f"{kernel.key} is not in {compiler.TABLE.name}"
        before = recorded[kernel.key]
        assert kernel.spilled <= before["spilled"], f"{kernel} spills"
        assert kernel.blocks >= before["blocks"], f"{kernel} has lost a block: {kernel.blocks} < {before['blocks']}"


def test_recorded_kernels_of_float32_spill_nothing() -> None:
    spilled = {key: row["spilled"] for key, row in compiler.recorded().items() if "float" in key[0]}
    assert spilled
    assert not {key: count for key, count in spilled.items() if count}


@pytest.mark.parametrize("source", SOURCES)
def test_each_file_compiles_alone_to_ptx_for_the_oldest_architecture(source: Path, tmp_path: Path) -> None:
    made = compiler.to_ptx(source, 75, tmp_path)
    ptx = made.read_text()
    assert ".target sm_75" in ptx
    assert ptx.count(".entry") == len(compiler.ENTRY.findall(compiler.to_cubin(made, 75)[1]))


@pytest.mark.parametrize("source", SOURCES)
def test_each_file_compiles_without_a_warning_for_every_newer_generation(
    source: Path, newer: int, tmp_path: Path
) -> None:
    """--full; those before are in the table."""
    assert f".target sm_{newer}" in compiler.to_ptx(source, newer, tmp_path).read_text()


@pytest.mark.parametrize(
    ("kernel", "blocks"),
    [
        (compiler.Kernel("", 80, 256, 128, 16896, 0), 2),  # by registers: 2 * 8 warps * 32 * 128 fill the file
        (compiler.Kernel("", 80, 1024, 32, 0, 0), 2),  # by threads
        (compiler.Kernel("", 75, 1024, 32, 0, 0), 1),
        (compiler.Kernel("", 75, 64, 16, 0, 0), 16),  # by blocks
        (compiler.Kernel("", 80, 32, 16, 49152, 0), 3),  # by shared memory: 164 KiB, and 1 KiB a block is reserved
    ],
)
def test_occupancy(kernel: compiler.Kernel, blocks: int) -> None:
    assert kernel.blocks == blocks
