"""Which CUDA kernels, and which of their lines, a test run has never executed.

    pip install . -C build-dir=build -C cmake.define.TINYGRAD_NM_COVERAGE=ON
    python -m pytest tests/test_cuda_*.py
    python tests/cuda_coverage.py build

The counts are summed over architectures, types and tiles. Exit status 1: something was left out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

KERNEL_FILES = Path(__file__).resolve().parent.parent / "csrc" / "cuda"


def kernel_files() -> list[Path]:
    return sorted(path for pattern in ("*.cu", "*.cuh") for path in KERNEL_FILES.glob(pattern))


def kernels_in(source: str) -> set[str]:
    """The names of the __global__ functions."""
    without_comments = re.sub(r"//[^\n]*", "", source)
    nested = r"(?:[^()]|\([^()]*\))*"
    return set(re.findall(rf"__global__\s+void\s+(?:__launch_bounds__\s*\({nested}\)\s*)?(\w+)\s*\(", without_comments))


def function_name(demangled: str) -> str:
    """Without namespace, template arguments and parameters."""
    plain = demangled.replace("(anonymous namespace)::", "")
    while plain != (shorter := re.sub(r"<[^<>]*>", "", plain)):
        plain = shorter
    return plain.split("(")[0].split()[-1].split("::")[-1]


def reports(build: Path) -> list[dict]:
    """What gcov says of each object of kernels, executed or not."""
    notes = sorted(build.glob("**/_cuda_emulated_strict_*.dir/**/*.gcno"))
    if not notes:
        sys.exit(f"{build} has no _cuda_emulated_strict that was built with TINYGRAD_NM_COVERAGE=ON")
    gcov = os.environ.get("GCOV", "gcov")
    found = []
    for note in notes:
        command = [gcov, "--json-format", "--stdout", "--demangled-names", str(note)]
        said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=build)
        found += [json.loads(line) for line in said.stdout.splitlines() if line.startswith("{")]
    return found


def main(build: Path) -> int:
    lines: dict[Path, Counter[int]] = defaultdict(Counter)
    launched: Counter[str] = Counter()
    for report in reports(build):
        for file in report["files"]:
            path = Path(report["current_working_directory"], file["file"]).resolve()
            if path.parent != KERNEL_FILES or path.suffix not in {".cu", ".cuh"}:
                continue
            for line in file["lines"]:
                lines[path][line["line_number"]] += line["count"]
            for function in file["functions"]:
                launched[function_name(function["demangled_name"])] += function["execution_count"]

    kernels = {name: path for path in kernel_files() for name in kernels_in(path.read_text(encoding="utf-8"))}
    never = sorted(name for name in kernels if not launched[name])
    for name in never:
        print(f"{kernels[name].name}: {name} was never launched")
    missed = 0
    for path in kernel_files():
        text = path.read_text(encoding="utf-8").splitlines()
        for number in sorted(number for number, count in lines[path].items() if count == 0):
            missed += 1
            print(f"{path.name}:{number}: never executed: {text[number - 1].strip()}")
    counted = sum(map(len, lines.values()))
    print(f"{len(kernels) - len(never)} of {len(kernels)} kernels launched", end=", ")
    print(f"{counted - missed} of {counted} lines executed")
    return 1 if never or missed or not kernels else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
