"""What stops a build is told in one sentence that says how to mend it: CMake is run with faked machines."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CMAKE = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
NINJA = shutil.which("ninja", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))

pytestmark = [
    pytest.mark.skipif(not (ROOT / "CMakeLists.txt").exists(), reason="the tests are not in a source tree"),
    pytest.mark.skipif(CMAKE is None or NINJA is None, reason="cmake or ninja is not installed"),
]

# A compiler that says it is g++ 9.
OLD_COMPILER = """#!/bin/sh
exec g++ -U__GNUC__ -D__GNUC__=9 "$@"
"""

# Python without its headers.
NO_HEADERS = """
import sysconfig
path = sysconfig.get_path
sysconfig.get_path = lambda name, *more, **kw: "/nowhere" if name == "include" else path(name, *more, **kw)
"""


def _configure(folder: Path, *settings: str, **environment: str) -> str:
    """Configures into `folder/build`, which must fail, and gives the text of its only error in one line."""
    done = subprocess.run(
        [
            str(CMAKE),
            f"-S{ROOT}",
            f"-B{folder / 'build'}",
            "-GNinja",
            f"-DCMAKE_MAKE_PROGRAM={NINJA}",
            f"-DPython_EXECUTABLE={sys.executable}",
            *settings,
        ],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0, done.stdout
    errors = re.findall(r"CMake Error.*\n((?:  .*\n|\n)+)", done.stderr)
    assert len(errors) == 1, done.stderr
    text = errors[0].partition("Call Stack")[0]
    sentence = " ".join(text.split())
    assert re.fullmatch(r"[A-Zt][^\n]*[a-zA-Z+).]\.", sentence), sentence
    assert ". " not in sentence.replace("e.g. ", ""), f"more than one sentence: {sentence}"
    assert len(done.stdout.splitlines()) < 30, "no compile log"
    return sentence


def test_no_compiler(tmp_path: Path) -> None:
    message = _configure(tmp_path, CXX=str(tmp_path / "no-such-compiler"))
    assert "C++20 compiler" in message
    assert "apt install g++" in message


def test_old_compiler(tmp_path: Path) -> None:
    compiler = tmp_path / "old-compiler"
    compiler.write_text(OLD_COMPILER)
    compiler.chmod(0o755)
    message = _configure(tmp_path, CXX=str(compiler))
    assert re.search(r"GNU 9\.\d", message)
    assert "g++ 11 or newer" in message


def test_no_python_headers(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_HEADERS)
    message = _configure(tmp_path, PYTHONPATH=str(tmp_path))
    assert "headers of Python" in message
    assert "apt install python3-dev" in message


@pytest.mark.parametrize(("system", "processor"), [("FreeBSD", "amd64"), ("Linux", "riscv64"), ("Linux", "i686")])
def test_unsupported_system(tmp_path: Path, system: str, processor: str) -> None:
    settings = (f"-DCMAKE_SYSTEM_NAME={system}", f"-DCMAKE_SYSTEM_PROCESSOR={processor}")
    message = _configure(tmp_path, *settings)
    assert f"not on {system} on {processor}" in message
    assert "64-bit Linux" in message


def test_cuda_on_without_cuda_fails_loudly(tmp_path: Path) -> None:
    message = _configure(tmp_path, "-DTINYGRAD_NM_CUDA=ON")
    assert "TINYGRAD_NM_CUDA is ON" in message
    assert "AUTO or OFF" in message


def test_unknown_cuda_setting(tmp_path: Path) -> None:
    message = _configure(tmp_path, "-DTINYGRAD_NM_CUDA=PERHAPS")
    assert "'PERHAPS'" in message
    assert "AUTO, ON or OFF" in message
