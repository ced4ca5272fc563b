"""What `_cuda` asks of CUDA around its kernels, on a runtime of two GPUs that only tells what it was asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("tests/cuda/fake_runtime.cpp", "csrc/cuda/runtime.cpp", "csrc/cuda/device_call.cpp")
NVCC = shutil.which("nvcc")

pytestmark = [
    pytest.mark.skipif(NVCC is None, reason="nvcc is not installed: its headers are needed"),
    pytest.mark.skipif(not (ROOT / SOURCES[1]).exists(), reason="the tests are not in a source tree"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """Runs a scenario of fake_runtime.cpp and gives the lines it prints."""
    program = tmp_path_factory.mktemp("runtime") / "fake_runtime"
    flags = ("-std=c++20", "-Xcompiler", "-Wall,-Wextra", f"-I{ROOT / 'csrc'}", "-cudart", "none")
    command = [str(NVCC), *flags, "-o", str(program), *(str(ROOT / source) for source in SOURCES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr

    def run(scenario: str, **environment: str) -> list[str]:
        done = subprocess.run(
            [program, scenario], env=os.environ | environment, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.splitlines()

    return run


def test_a_call_on_the_current_stream_and_device_asks_for_nothing(told):
    assert told("same stream") == ["launch on stream 1 of device 0", "device 0, error 0"]


def test_other_streams_are_ordered_by_events_before_and_after_on_the_device_of_the_arrays(told):
    def ordered(event: int, earlier: int, later: int) -> list[str]:
        return [
            f"create event {event}",
            f"record event {event} on stream {earlier}",
            f"wait of stream {later} for event {event}",
            f"destroy event {event}",
        ]

    assert told("other streams") == [
        "set device 1",
        *ordered(1, 70, 50),
        *ordered(2, 2, 50),
        "launch on stream 50 of device 1",
        *ordered(3, 50, 70),
        *ordered(4, 50, 2),
        "set device 0",
        "device 0, error 0",
    ]


def test_no_scenario_waits_on_the_host(told):
    for scenario in ("same stream", "other streams", "scratch", "shared", "no array"):
        assert "synchronize" not in told(scenario)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (
            "two devices",
            "ValueError: gemm: out lies on cuda:1, but a on cuda:0, copy one of them to the other's device",
        ),
        ("host memory", "ValueError: gemm: a does not lie in a GPU's memory, copy it there with cupy.asarray"),
        ("null", "ValueError: gemm: a does not lie in a GPU's memory, copy it there with cupy.asarray"),
    ],
)
def test_arrays_that_are_not_on_one_gpu_are_refused_before_anything_is_done(told, scenario, message):
    assert told(scenario) == [message, "device 0, error 0"]


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("failed launch", "RuntimeError: gemm: launch of tiles: CUDA says: it failed"),
        ("failed wait", "RuntimeError: gemm: the order of the arrays' streams: CUDA says: it failed"),
    ],
)
def test_failures_say_the_operation_and_leave_no_error_for_the_next_call(told, scenario, message):
    assert told(scenario)[-2:] == [message, "device 0, error 0"]


def test_scratch_memory_is_allocated_on_the_current_stream_and_its_pool_keeps_it(told):
    used = ["allocate 100 bytes on stream 50", "free 1024 on stream 50"]
    kept = "keep up to ffffffffffffffff bytes"
    of_device_1 = ["pool of device 1", kept, *used]
    assert told("scratch")[:-1] == ["pool of device 0", kept, *used, *used, *of_device_1]


def test_no_scratch_memory_is_a_memory_error(told):
    assert told("no memory")[-2].startswith("MemoryError: conv2d: 100 bytes of scratch memory on the GPU")


def test_dynamic_shared_memory_is_allowed_once_for_each_kernel_and_device(told):
    """All that static shared memory (1000 bytes) leaves of 65536."""
    assert told("shared")[:-1] == [f"allow kernel {kernel} 64536 bytes" for kernel in (1, 1, 2)]


def test_each_thread_has_its_stream_and_0_is_the_legacy_default_stream(told):
    assert told("streams of threads")[:-1] == ["1", "50", "1"]


def test_devices_are_told_and_unknown_ones_refused(told):
    lines = told("devices")
    assert "GPU 1 8.8" in lines
    assert "ValueError: device_name: there is no device 2, use a number from 0 to 1" in lines


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ("no driver", "device_count: there is no CUDA driver (libcuda.so.1), install"),
        ("old driver", "gemm: a: the CUDA driver knows CUDA 12.2, but this module was built with CUDA"),
        ("no device", "device_count: the CUDA driver finds no GPU (CUDA_VISIBLE_DEVICES is '3')"),
    ],
)
def test_what_is_missing_is_said(told, scenario, words):
    error = told(scenario, CUDA_VISIBLE_DEVICES="3")[-2]
    assert error.startswith(f"RuntimeError: {words}")
