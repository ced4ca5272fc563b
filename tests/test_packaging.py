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


# Stands for pybind11, which the tests of an installed package need not have.
PYBIND11 = {
    "pybind11Config.cmake": """
function(pybind11_add_module name type)
  add_library(${name} MODULE ${ARGN})
endfunction()
""",
    "pybind11ConfigVersion.cmake": "set(PACKAGE_VERSION 3)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n",
}

# Knows what the build asks of nvcc, and compiles nothing.
NVCC = """#!/bin/sh
case "$*" in
*--dryrun*) echo '#$ INCLUDES="-I{folder}"' ;;
*--list-gpu-arch*) printf 'compute_%s\\n' 75 80 86 90 100 121 120 ;;
*--version*) echo 'Cuda compilation tools, release 13.0, V13.0.88' ;;
*) touch try.o ;;
esac
"""

# Like an nvcc beside a g++ that is too new for it.
BROKEN_NVCC = """#!/bin/sh
echo 'In file included from cuda_runtime.h:82,' >&2
echo 'host_config.h:143:2: error: #error -- unsupported GNU version! "gcc" 15 is not supported!' >&2
exit 1
"""


def _run_cmake(folder: Path, *settings: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Configures into `folder/build`."""
    return subprocess.run(
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


def _configure(folder: Path, *settings: str, **environment: str) -> str:
    """Configures, which must fail, and gives the text of the only error in one line."""
    done = _run_cmake(folder, *settings, **environment)
    assert done.returncode != 0, done.stdout
    errors = re.findall(r"CMake Error.*\n((?:  .*\n|\n)+)", done.stderr)
    assert len(errors) == 1, done.stderr
    text = errors[0].partition("Call Stack")[0]
    sentence = " ".join(text.split())
    assert re.fullmatch(r"[A-Zt][^\n]*[a-zA-Z+).]\.", sentence), sentence
    assert ". " not in sentence.replace("e.g. ", ""), f"more than one sentence: {sentence}"
    assert len(done.stdout.splitlines()) < 30, "no compile log"
    return sentence


def _cuda_text(folder: Path, *settings: str, **environment: str) -> str:
    """Configures, which must succeed, and gives what `tinygrad-nm info` will say of CUDA."""
    for name, text in PYBIND11.items():
        (folder / name).write_text(text)
    quick = ("-DTINYGRAD_NM_EMULATED=OFF", "-DTINYGRAD_NM_OPENMP=OFF")
    done = _run_cmake(folder, f"-Dpybind11_DIR={folder}", *quick, *settings, **environment)
    assert done.returncode == 0, done.stderr
    options = (folder / "build/generated/build_options.h").read_text()
    text = re.search(r'\{"cuda", "(.*)"\}', options)[1]
    rules = (folder / "build/build.ninja").read_text()
    assert ("build _cuda: phony" in rules) == text.startswith("in: ")
    return text


def _script(file: Path, text: str) -> str:
    file.write_text(text)
    file.chmod(0o755)
    return str(file)


def _nvcc(folder: Path) -> str:
    for name in ("cuda_runtime.h", "libcudart_static.a"):
        (folder / name).touch()
    return _script(folder / "my-nvcc", NVCC.format(folder=folder))


def _gpus(folder: Path, *capabilities: str) -> dict[str, str]:
    """An environment where nvidia-smi finds these GPUs, or fails if there are none."""
    text = "\n".join(["#!/bin/sh", *[f"echo {capability}" for capability in capabilities], ""])
    _script(folder / "nvidia-smi", text if capabilities else "#!/bin/sh\nexit 9\n")
    return {"PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}


def test_no_compiler(tmp_path: Path) -> None:
    message = _configure(tmp_path, CXX=str(tmp_path / "no-such-compiler"))
    assert "C++20 compiler" in message
    assert "apt install g++" in message


def test_old_compiler(tmp_path: Path) -> None:
    message = _configure(tmp_path, CXX=_script(tmp_path / "old-compiler", OLD_COMPILER))
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


def test_cuda_on_without_nvcc_fails_loudly(tmp_path: Path) -> None:
    places = [Path("/usr/local/cuda/bin"), *[Path(nvcc).parent for nvcc in [shutil.which("nvcc")] if nvcc]]
    ignored = ";".join(map(str, places))
    compiler = {"CXX": shutil.which("g++") or "c++", "CUDA_PATH": "", "CUDA_HOME": ""}
    message = _configure(tmp_path, "-DTINYGRAD_NM_CUDA=ON", f"-DCMAKE_IGNORE_PATH={ignored}", **compiler)
    assert "TINYGRAD_NM_CUDA is ON, but no CUDA compiler works here (no nvcc was found)" in message
    assert "install CUDA 12" in message and "CUDACXX" in message and "AUTO or OFF" in message


def test_cuda_on_with_a_broken_nvcc_fails_loudly(tmp_path: Path) -> None:
    message = _configure(tmp_path, "-DTINYGRAD_NM_CUDA=ON", CUDACXX=_script(tmp_path / "my-nvcc", BROKEN_NVCC))
    assert "TINYGRAD_NM_CUDA is ON" in message
    assert "unsupported GNU version!" in message


def test_cuda_auto_with_a_broken_nvcc_builds_the_rest_and_keeps_the_reason(tmp_path: Path) -> None:
    text = _cuda_text(tmp_path, CUDACXX=_script(tmp_path / "my-nvcc", BROKEN_NVCC))
    assert text.startswith("not in: host_config.h:143:2: error: #error -- unsupported GNU version!")


def test_cuda_auto_with_no_nvcc_at_the_given_place_keeps_the_reason(tmp_path: Path) -> None:
    assert re.match(r"not in: .*no-such-nvcc.*", _cuda_text(tmp_path, CUDACXX=str(tmp_path / "no-such-nvcc")))


def test_cuda_auto_without_a_runtime_keeps_the_reason(tmp_path: Path) -> None:
    nvcc = _nvcc(tmp_path)
    (tmp_path / "libcudart_static.a").unlink()
    ignored = "-DCMAKE_IGNORE_PATH=/usr/local/cuda/lib64;/usr/lib/x86_64-linux-gnu;/usr/lib/aarch64-linux-gnu"
    text = _cuda_text(tmp_path, ignored, CUDACXX=nvcc)
    assert text == f"not in: the CUDA runtime was not found where {nvcc} looks for it"


def test_cuda_off(tmp_path: Path) -> None:
    assert _cuda_text(tmp_path, "-DTINYGRAD_NM_CUDA=OFF", CUDACXX=_nvcc(tmp_path)) == "not in: TINYGRAD_NM_CUDA=OFF"


@pytest.mark.parametrize(
    ("gpus", "settings", "architectures"),
    [
        ([], [], "sm_75, compute_80, compute_121"),
        (["8.6", "9.0", "8.6"], [], "sm_86, sm_90"),
        (["12.9"], [], "compute_121"),  # newer than this nvcc
        (["6.1"], [], "sm_75, compute_80, compute_121"),  # older than the kernels
        (["9.0"], ["-DTINYGRAD_NM_CUDA_ALL_ARCHITECTURES=ON"], "sm_75, sm_80, sm_90, sm_100, sm_120, compute_121"),
    ],
)
def test_cuda_is_built_for_the_gpus_found_or_for_all(
    tmp_path: Path, gpus: list[str], settings: list[str], architectures: str
) -> None:
    text = _cuda_text(tmp_path, *settings, CUDACXX=_nvcc(tmp_path), **_gpus(tmp_path, *gpus))
    assert text == f"in: nvcc V13.0.88, {architectures}"
    rules = (tmp_path / "build/build.ninja").read_text()
    for architecture in architectures.split(", "):
        number = architecture.partition("_")[2]
        assert f"-gencode=arch=compute_{number},code={architecture}" in rules


def test_unknown_cuda_setting(tmp_path: Path) -> None:
    message = _configure(tmp_path, "-DTINYGRAD_NM_CUDA=PERHAPS")
    assert "'PERHAPS'" in message
    assert "AUTO, ON or OFF" in message
