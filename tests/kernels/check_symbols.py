"""Fails if an instruction set's object file defines a weak symbol.

The linker keeps one copy of a weak (inline or template) function for the whole library: it could be the one that
was compiled for AVX-512, and older processors would crash in it.

    python check_symbols.py OBJECT...    the release objects of csrc/cpu/isa/*.cpp
"""

import subprocess
import sys

# A pointer to the C++ runtime's own function, in every object that unwinds; not code.
HARMLESS = {"DW.ref.__gxx_personality_v0"}
WEAK = set("WVu")  # defined weak functions and objects, unique globals; nm prints undefined ones in lower case


def weak_symbols(path: str) -> list[str]:
    """Names of the weak symbols that the object file at `path` defines."""
    table = subprocess.run(["nm", "--format=posix", path], check=True, capture_output=True, text=True).stdout
    symbols = [line.split()[:2] for line in table.splitlines()]
    return [name for name, kind in symbols if kind in WEAK and name not in HARMLESS]


def main(paths: list[str]) -> int:
    found = {path: weak_symbols(path) for path in paths}
    for path, names in found.items():
        for name in names:
            plain = subprocess.run(["c++filt", name], check=True, capture_output=True, text=True).stdout.strip()
            print(f"{path}: weak symbol {plain}")
    wrong = sum(map(len, found.values()))
    print(f"{len(paths)} object files, {wrong} weak symbols")
    return 1 if wrong or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
