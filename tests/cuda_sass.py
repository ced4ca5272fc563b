"""Counts in the disassembly of a cubin: how much of a product's inner loop is multiply-adds.

Reads what `nvdisasm FILE.cubin` prints, or `cuobjdump -sass FILE`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

_IN_WHEELS = (tool for folder in sys.path for tool in Path(folder).glob("nvidia/*/bin/nvdisasm"))
NVDISASM = shutil.which("nvdisasm") or next(map(str, _IN_WHEELS), None)  # of the wheel nvidia-cuda-nvdisasm

_KERNEL = re.compile(r"^\s*(?:\.section\s+\.text\.([^,\s]+)|Function : (\S+))")
_LABEL = re.compile(r"^(\.L\w+):")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+([^;]*?)\s*;")
_ADDRESS = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/")
_BRANCH = re.compile(r"\bBRA\b[^`]*?(?:`\((\.L\w+)\)|\b(0x[0-9a-f]+)\b)")
_MULTIPLY_ADD = re.compile(r"^(?:@!?U?P\w+\s+)?[FD]FMA\b")
_BARRIER = re.compile(r"\bBAR\b")


def disassembly(cubin: Path) -> str:
    assert NVDISASM
    return subprocess.run([NVDISASM, str(cubin)], capture_output=True, text=True, check=True).stdout


def kernels(text: str) -> dict[str, list[tuple[str, int | None]]]:
    """The instructions of each kernel by its mangled name, each with the index that it branches to, if it branches."""
    found: dict[str, tuple[list[str], dict[str, int]]] = {}
    code: list[str] = []
    places: dict[str, int] = {}
    for line in text.splitlines():
        if kernel := _KERNEL.match(line):
            code, places = found.setdefault(kernel[1] or kernel[2], ([], {}))
        elif label := _LABEL.match(line):
            places[label[1]] = len(code)
        elif instruction := _INSTRUCTION.match(line):
            address = _ADDRESS.match(line)
            assert address
            places[f"{int(address[1], 16):#x}"] = len(code)
            code.append(instruction[1])
    return {name: [(i, _target(i, places)) for i in code] for name, (code, places) in found.items()}


def _target(instruction: str, places: dict[str, int]) -> int | None:
    branch = _BRANCH.search(instruction)
    return places.get(branch[1] or f"{int(branch[2], 16):#x}") if branch else None


def main_loop(text: str, kernel: str) -> tuple[int, int]:
    """(multiply-adds, all instructions) from the target of the main loop's branch to the branch.

    That is the loop with a barrier and without a loop in it; the one with most multiply-adds, were there several.
    """
    code = kernels(text)[kernel]
    loops = [(target, at) for at, (_, target) in enumerate(code) if target is not None and target <= at]
    inner = [(a, b) for a, b in loops if not any((a, b) != (c, d) and a <= c and d <= b for c, d in loops)]
    bodies = [[instruction for instruction, _ in code[a : b + 1]] for a, b in inner]
    counts = [
        (sum(bool(_MULTIPLY_ADD.match(i)) for i in body), len(body))
        for body in bodies
        if any(_BARRIER.search(i) for i in body)
    ]
    if not counts:
        raise ValueError(f"{kernel} has no loop with a barrier")
    return max(counts)
