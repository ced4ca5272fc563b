"""tests/cuda_coverage.py reads kernels and gcov's reports as they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cuda_coverage as coverage


def test_every_kernel_of_the_sources_is_found() -> None:
    found = 0
    for path in coverage.kernel_files():
        text = "".join(line.split("//")[0] for line in path.read_text(encoding="utf-8").splitlines(keepends=True))
        names = coverage.kernels_in(text)
        assert len(names) == text.count("__global__"), path.name
        found += len(names)
    assert found >= 30


@pytest.mark.parametrize(
    ("demangled", "name"),
    [
        (
            "void tinygrad_nm::sm_80::(anonymous namespace)::gemm_tiles<float, Tile<8, 8>, (R)1>(Task)",
            "gemm_tiles",
        ),
        ("tinygrad_nm::sm_75::(anonymous namespace)::peak(float*)", "peak"),
        ("double tinygrad_nm::sm_75::fma_of<double>(double, double)", "fma_of"),
    ],
)
def test_a_function_is_known_by_its_plain_name(demangled: str, name: str) -> None:
    assert coverage.function_name(demangled) == name


def report(path: Path, launches: int, second_line: int) -> dict:
    """What gcov says of a file with one kernel of two lines."""
    return {
        "current_working_directory": "/",
        "files": [
            {
                "file": str(path),
                "lines": [{"line_number": 1, "count": 1}, {"line_number": 2, "count": second_line}],
                "functions": [{"demangled_name": "void f<float>(int)", "execution_count": launches}],
            }
        ],
    }


def test_what_never_ran_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    source = tmp_path / "f.cu"
    source.write_text("__global__ void f(int a) {\n    work(a);\n}\n__global__ void __launch_bounds__(g(3)) h() {}\n")
    monkeypatch.setattr(coverage, "KERNEL_FILES", tmp_path)
    monkeypatch.setattr(coverage, "reports", lambda _: [json.loads(json.dumps(report(source, 1, 0)))])
    assert coverage.main(tmp_path) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "f.cu: h was never launched",
        "f.cu:2: never executed: work(a);",
        "1 of 2 kernels launched, 1 of 2 lines executed",
    ]


def test_counts_of_several_objects_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "f.cu"
    source.write_text("__global__ void f(int a) {\n    work(a);\n}\n")
    monkeypatch.setattr(coverage, "KERNEL_FILES", tmp_path)
    monkeypatch.setattr(coverage, "reports", lambda _: [report(source, 0, 3), report(source, 1, 0)])
    assert coverage.main(tmp_path) == 0


def test_a_build_without_counters_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no _cuda_emulated_strict that was built with TINYGRAD_NM_COVERAGE=ON"):
        coverage.main(tmp_path)
