"""What nvcc makes of the kernels: registers, shared memory, spills and theoretical occupancy, as a table.

python tests/cuda_compiler.py            prints the table
python tests/cuda_compiler.py --write    writes it to tests/cuda_resources.txt, which test_cuda_compiler.py reads
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "csrc/cuda").glob("*.cu"))
TABLE = ROOT / "tests/cuda_resources.txt"
FLAGS = ("-std=c++20", "-fmad=false", f"-I{ROOT / 'csrc'}", "-Xcompiler", "-Wall,-Wextra")
NVCC = shutil.which("nvcc")


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of a compute capability: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"."""

    threads: int
    blocks: int
    shared: int  # bytes
    registers: int = 65536
    reserved: int = 0  # bytes of shared memory that the system takes of each block


MULTIPROCESSORS = {
    75: Multiprocessor(1024, 16, 65536),
    80: Multiprocessor(2048, 32, 167936, reserved=1024),
    90: Multiprocessor(2048, 32, 233472, reserved=1024),
}


@dataclass(frozen=True)
class Kernel:
    """What the compiler's report says of one kernel on one architecture. threads: of a block, by its launch bounds."""

    name: str
    architecture: int
    threads: int
    registers: int
    shared: int
    spilled: int  # bytes stored and loaded

    @property
    def blocks(self) -> int:
        """Blocks that a multiprocessor can hold at once.

        Registers are given to warps in units of 256, and warps to the four parts of a multiprocessor, each with a
        quarter of the registers.
        """
        m = MULTIPROCESSORS[self.architecture]
        warps = -(-self.threads // 32)
        of_a_warp = -(-self.registers * 32 // 256) * 256
        by_registers = m.registers // 4 // of_a_warp * 4 // warps
        by_shared = m.shared // (self.shared + m.reserved) if self.shared + m.reserved else m.blocks
        return min(m.blocks, m.threads // (32 * warps), by_registers, by_shared)

    @property
    def occupancy(self) -> float:
        """Of the multiprocessor's threads, the share that these blocks fill."""
        return self.blocks * self.threads / MULTIPROCESSORS[self.architecture].threads

    @property
    def key(self) -> tuple[str, int]:
        return self.name, self.architecture


class CompilerFault(Exception):
    """nvcc failed, or warned."""


def nvcc(*arguments: str | Path) -> str:
    """What nvcc says. CompilerFault if it fails or warns."""
    assert NVCC is not None
    done = subprocess.run([NVCC, *map(str, arguments)], capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode or re.search(r"\bwarning\b", said):
        raise CompilerFault(f"nvcc {' '.join(map(str, arguments))}\n{said}")
    return said


def newer_architectures() -> list[int]:
    """The first of each generation of GPUs that this nvcc knows and MULTIPROCESSORS does not."""
    if NVCC is None:
        return []
    known = sorted(int(number) for number in re.findall(r"compute_(\d+)", nvcc("--list-gpu-arch")))
    generations = {number // 10: number for number in reversed(known)}
    return sorted(number for number in generations.values() if number > max(MULTIPROCESSORS))


def to_ptx(source: Path, architecture: int, folder: Path) -> Path:
    """The PTX of one .cu file."""
    made = folder / f"{source.stem}.{architecture}.ptx"
    nvcc(*FLAGS, f"-arch=compute_{architecture}", "-ptx", source, "-o", made)
    return made


def to_cubin(ptx: Path, architecture: int) -> tuple[Path, str]:
    """The machine code of a PTX file, and the assembler's report."""
    made = ptx.with_suffix(".cubin")
    return made, nvcc(f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v", ptx, "-o", made)


ENTRY = re.compile(
    r"Compiling entry function '(?P<symbol>\w+)'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.S,
)


def kernels(source: Path, architecture: int, folder: Path) -> list[Kernel]:
    """Every kernel of one .cu file."""
    ptx = to_ptx(source, architecture, folder)
    _, report = to_cubin(ptx, architecture)
    threads = dict(re.findall(r"\.entry (\w+)\(.*?\n\.maxntid (\d+)", ptx.read_text(), re.S))
    found = []
    for entry in ENTRY.finditer(report):
        shared = re.search(r"(\d+) bytes smem", entry["rest"])
        found.append(
            Kernel(
                entry["symbol"],
                architecture,
                int(threads.get(entry["symbol"], 0)),
                int(entry["registers"]),
                int(shared[1]) if shared else 0,
                int(entry["stores"]) + int(entry["loads"]),
            )
        )
    return [replace(k, name=name) for name, k in zip(readable([k.name for k in found]), found, strict=True)]


def readable(symbols: list[str]) -> list[str]:
    """C++ names as in the source: without namespaces and arguments."""
    done = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True)
    names = []
    for line in done.stdout.split("\n")[: len(symbols)]:
        name = re.sub(r"^void ", "", line.replace("(anonymous namespace)::", ""))
        name = re.sub(r"tinygrad_nm::|cuda::|_GLOBAL__N__\w+::", "", name)
        names.append(_without_arguments(re.sub(r"\(\w+\)(?=[\w-])", "", name)))
    return names


def _without_arguments(name: str) -> str:
    """`f<A<(int)1>, B>` of `f<A<(int)1>, B>(X)`: what comes before the parenthesis outside of every <>."""
    depth = 0
    for position, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            return name[:position]
    return name


def measured(architectures: Iterable[int], sources: Iterable[Path] = SOURCES) -> list[Kernel]:
    """Every kernel on each architecture."""
    with tempfile.TemporaryDirectory() as folder:
        return [k for a in architectures for source in sources for k in kernels(source, a, Path(folder))]


HEAD = ("architecture", "registers", "shared", "spilled", "threads", "blocks", "occupancy", "kernel")


def text(found: Iterable[Kernel]) -> str:
    """The table, one line a kernel."""
    rows = [
        (f"sm_{k.architecture}", k.registers, k.shared, k.spilled, k.threads, k.blocks, f"{k.occupancy:.0%}", k.name)
        for k in sorted(found, key=lambda k: (k.architecture, k.name))
    ]
    lines = ["  ".join(str(c).rjust(w) for c, w in zip(r[:-1], map(len, HEAD))) + f"  {r[-1]}" for r in (HEAD, *rows)]
    return "\n".join(lines) + "\n"


def recorded() -> dict[tuple[str, int], dict[str, int]]:
    """The table in the repository: registers, blocks and spilled bytes by kernel and architecture."""
    found = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]:
        architecture, registers, _, spilled, _, blocks, _, name = line.split(maxsplit=7)
        found[name, int(architecture.removeprefix("sm_"))] = {
            "registers": int(registers),
            "spilled": int(spilled),
            "blocks": int(blocks),
        }
    return found


def main() -> None:
    """Prints or writes the table of all architectures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help=f"to {TABLE.relative_to(ROOT)}")
    write = parser.parse_args().write
    if NVCC is None:
        sys.exit("nvcc is not on the path: install CUDA's compiler")
    table = text(measured(MULTIPROCESSORS))
    if write:
        TABLE.write_text(table, encoding="utf-8")
    print(table, end="")


if __name__ == "__main__":
    main()
