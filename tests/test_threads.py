"""The same bits for any number of threads: every kernel, and a whole training run from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bindings_cases import KERNELS, STRIDE_2, Kernel, fused_backward, fused_forward
from tinygrad_nm import _cpu

THREADS = (1, 2, 3, 8)
CONV = (1, 1, 2, 2, 2, 2, 1, 1, 2)
WINOGRAD = (1, 1, 1, 1, 1, 1, 1, 1, 2)
FUSED = (np.empty((260, 4, 14, 13)), np.empty((16, 4, 5, 5)), (1, 1, 2, 2, 2, 2, 1, 1, 1), "tanh", 0.0, ("max", 2, 3))
POOL = (3, 3, 2, 2, 1, 1, 1, 1, 1, 1, False)

Numbers = Callable[..., np.ndarray]


def _labels(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 10, shape)


def _positions(z: Numbers) -> np.ndarray:
    positions = np.empty((32, 48, 14, 14), np.uint8)
    _cpu.max_pool2d_forward(z(32, 48, 14, 14), positions, z(32, 48, 28, 28), POOL)
    return positions


# Shapes that give every kernel at least eight tasks and enough work to wake eight threads.
LARGE = [
    Kernel(
        "max_pool2d_forward-stride-2",
        "max_pool2d_forward",
        lambda z: [z(32, 48, 13, 13), np.empty((32, 48, 13, 13), np.uint8), z(32, 48, 28, 28), STRIDE_2],
        written=(0, 1),
    ),
    Kernel(
        "max_pool2d_backward-stride-2",
        "max_pool2d_backward",
        lambda z: [z(32, 48, 28, 28), z(32, 48, 13, 13), np.full((32, 48, 13, 13), 4, np.uint8), STRIDE_2],
    ),
    Kernel(
        "avg_pool2d_forward-stride-2",
        "avg_pool2d_forward",
        lambda z: [z(32, 48, 13, 13), z(32, 48, 28, 28), STRIDE_2, True],
    ),
    Kernel(
        "avg_pool2d_backward-stride-2",
        "avg_pool2d_backward",
        lambda z: [z(32, 48, 28, 28), z(32, 48, 13, 13), STRIDE_2, True],
    ),
    Kernel(
        "softmax_cross_entropy_forward-rows",
        "softmax_cross_entropy_forward",
        lambda z: [z(9000, 1), z(9000, 10, 1), _labels(9000, 1), -100],
    ),
    Kernel(
        "softmax_cross_entropy_backward-rows",
        "softmax_cross_entropy_backward",
        lambda z: [z(9000, 10, 1), z(9000, 1), z(9000, 10, 1), _labels(9000, 1), -100],
    ),
    Kernel("gemm", "gemm", lambda z: [z(520, 700), z(520, 600), z(600, 700), 0.5, 0.25, z(700), "tanh"]),
    Kernel("gemm-narrow", "gemm", lambda z: [z(16, 6000), z(16, 900), z(900, 6000)]),
    Kernel("gemm-deep", "gemm", lambda z: [z(40, 1600), z(40, 5000), z(5000, 1600)]),
    Kernel("gemm-batched", "gemm", lambda z: [z(24, 50, 60), z(24, 50, 70), z(1, 70, 60)]),
    Kernel(
        "conv2d_forward",
        "conv2d_forward",
        lambda z: [z(16, 24, 28, 28), z(16, 12, 28, 28), z(24, 6, 5, 5), z(24), CONV, "tanh"],
    ),
    Kernel(
        "conv2d_backward_input",
        "conv2d_backward_input",
        lambda z: [z(16, 12, 28, 28), z(16, 24, 28, 28), z(24, 6, 5, 5), CONV],
    ),
    Kernel(
        "conv2d_backward_weight",
        "conv2d_backward_weight",
        lambda z: [z(64, 32, 5, 5), z(8, 64, 14, 14), z(8, 64, 14, 14), CONV],
    ),
    Kernel("conv2d_pool2d_forward", "conv2d_pool2d_forward", lambda z: fused_forward(z, *FUSED), written=(0, 1)),
    Kernel("conv2d_pool2d_backward", "conv2d_pool2d_backward", lambda z: fused_backward(z, *FUSED), written=(0, 1, 2)),
    Kernel(
        "conv2d_forward-winograd",
        "conv2d_forward",
        lambda z: [z(16, 64, 27, 27), z(16, 64, 27, 27), z(64, 32, 3, 3), z(64), WINOGRAD, "tanh"],
    ),
    Kernel(
        "conv2d_backward_input-winograd",
        "conv2d_backward_input",
        lambda z: [z(16, 64, 27, 27), z(16, 64, 27, 27), z(64, 32, 3, 3), WINOGRAD],
    ),
    Kernel(
        "conv2d_backward_weight-winograd",
        "conv2d_backward_weight",
        lambda z: [z(64, 32, 3, 3), z(16, 64, 27, 27), z(16, 64, 27, 27), WINOGRAD],
    ),
    Kernel(
        "max_pool2d_forward",
        "max_pool2d_forward",
        lambda z: [z(32, 48, 14, 14), np.empty((32, 48, 14, 14), np.uint8), z(32, 48, 28, 28), POOL],
        written=(0, 1),
    ),
    Kernel(
        "max_pool2d_backward",
        "max_pool2d_backward",
        lambda z: [z(32, 48, 28, 28), z(32, 48, 14, 14), _positions(z), POOL],
    ),
    Kernel(
        "max_pool2d_gather",
        "max_pool2d_gather",
        lambda z: [z(32, 48, 14, 14), z(32, 48, 28, 28), _positions(z), POOL],
    ),
    Kernel(
        "avg_pool2d_forward",
        "avg_pool2d_forward",
        lambda z: [z(32, 48, 14, 14), z(32, 48, 28, 28), POOL, True],
    ),
    Kernel(
        "avg_pool2d_backward",
        "avg_pool2d_backward",
        lambda z: [z(32, 48, 28, 28), z(32, 48, 14, 14), POOL, False],
    ),
    Kernel(
        "local_response_norm_forward",
        "local_response_norm_forward",
        lambda z: [z(16, 24, 28, 28), z(16, 24, 28, 28), 5, 0.5, 0.75, 2.0, True, 2],
    ),
    Kernel(
        "local_response_norm_backward",
        "local_response_norm_backward",
        lambda z: [z(16, 24, 28, 28), z(16, 24, 28, 28), z(16, 24, 28, 28), 5, 0.5, 0.75, 2.0, True, 2],
    ),
    Kernel(
        "softmax_cross_entropy_forward",
        "softmax_cross_entropy_forward",
        lambda z: [z(64, 900), z(64, 10, 900), _labels(64, 900), -100],
    ),
    Kernel(
        "softmax_cross_entropy_backward",
        "softmax_cross_entropy_backward",
        lambda z: [z(64, 10, 900), z(64, 900), z(64, 10, 900), _labels(64, 900), -100],
    ),
    Kernel("activation_forward", "activation_forward", lambda z: [z(300_000), z(300_000), "gelu", 0.0]),
    Kernel(
        "activation_backward",
        "activation_backward",
        lambda z: [z(300_000), z(300_000), z(300_000), "tanh", 0.0],
    ),
    Kernel("bias_backward", "bias_backward", lambda z: [z(24), z(256, 24, 20, 21)]),
    Kernel("bias_backward-rows", "bias_backward", lambda z: [z(1000), z(600, 1000)]),
    Kernel("dropout", "dropout", lambda z: [z(128, 4096), z(128, 4096), 0.5, 42, 3, 0]),
    Kernel(
        "sgd_update",
        "sgd_update",
        lambda z: [z(500_000), z(500_000), z(500_000), 0.1, 0.9, 5e-4, False, True],
        written=(0, 2),
    ),
    Kernel("peak_arithmetic", "peak_arithmetic", lambda z: [z(16, 192), z(16, 192), 0.5, 1.0, 2000]),
    Kernel("peak_memory", "peak_memory", lambda z: [z(500_000), z(500_000), z(500_000), 3.0]),
    Kernel("peak_read", "peak_read", lambda z: [z(16), z(16, 30_000)]),
]


@pytest.fixture
def threads_restored() -> Iterator[None]:
    before = _cpu.max_threads()
    yield
    _cpu.set_max_threads(before)


def test_every_kernel_has_a_large_row() -> None:
    assert {kernel.name for kernel in LARGE} == {kernel.name for kernel in KERNELS}


@pytest.mark.parametrize("kernel", LARGE, ids=lambda k: k.id)
def test_same_bits_with_any_number_of_threads(kernel: Kernel, isa: str, threads_restored: None) -> None:
    rng = np.random.default_rng(5)
    original = kernel.make(lambda *shape: rng.standard_normal(shape, np.float32))
    answers = {}
    for threads in THREADS:
        arguments = [a.copy() if isinstance(a, np.ndarray) else a for a in original]
        _cpu.set_max_threads(threads)
        answers[threads] = [result.tobytes() for result in kernel(arguments)]
        assert _cpu.threads_used() == threads, f"the shapes of this row are too small for {threads} threads"
    assert all(answer == answers[1] for answer in answers.values()), isa


@pytest.mark.parametrize("batch", [3, 16])  # images in strips, a block of images with several tasks
def test_same_bits_where_few_images_are_cut(batch: int, isa: str, threads_restored: None) -> None:
    few = (
        np.empty((batch, 6, 14, 14)),
        np.empty((16, 6, 5, 5)),
        (1, 1, 2, 2, 2, 2, 1, 1, 1),
        "tanh",
        0.0,
        ("avg", 2, 2),
    )
    rng = np.random.default_rng(5)
    for kernel, make, written in (
        (_cpu.conv2d_pool2d_forward, fused_forward, (0, 1)),
        (_cpu.conv2d_pool2d_backward, fused_backward, (0, 1, 2)),
    ):
        arguments = make(lambda *shape: rng.standard_normal(shape, np.float32), *few)
        answers = set()
        for threads in THREADS:
            _cpu.set_max_threads(threads)
            for place in written:
                arguments[place][...] = np.nan
            kernel(*arguments)
            assert _cpu.threads_used() >= min(2, threads)
            answers.add(b"".join(arguments[place].tobytes() for place in written))
        assert len(answers) == 1, isa


def test_small_work_stays_on_one_thread(threads_restored: None) -> None:
    _cpu.set_max_threads(8)
    _cpu.activation_forward(np.zeros(16), np.zeros(16), "relu", 0.0)
    assert _cpu.threads_used() == 1


def test_number_of_threads_must_be_positive() -> None:
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            _cpu.set_max_threads(wrong)


def test_variable_and_affinity_set_the_default() -> None:
    program = "from tinygrad_nm import _cpu; print(_cpu.max_threads())"
    for threads in ("1", "5"):
        assert _python(program, OMP_NUM_THREADS=threads) == threads
    pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + program
    assert _python(pinned) == "1"


# Runs the command line and prints, for each kernel, the most threads that a call of it used.
COUNTED = """
import json, sys
from tinygrad_nm import _cpu
from tinygrad_nm.cli import main

used = {}

def counted(name, kernel):
    def call(*arguments):
        kernel(*arguments)
        used[name] = max(used.get(name, 0), _cpu.threads_used())
    return call

for name in sys.argv.pop(1).split(","):
    setattr(_cpu, name, counted(name, getattr(_cpu, name)))
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(used))
"""
PARALLEL = ("conv2d_forward", "conv2d_backward_input")  # the largest shapes of lenet5


def _train(folder: Path, threads: int) -> tuple[bytes, list[object]]:
    """Trains lenet5 with so many threads, and gives its weights and the losses and accuracies of the run."""
    command = ["train", "lenet5", "--epochs", "1", "--batch", "100", "--shift", "2", "--seed", "3"]
    command += ["--validation", "3000"]  # leaves 1,000 to train on
    command += ["--threads", str(threads), "--output", str(folder)]
    used = json.loads(_python(COUNTED, ",".join(PARALLEL), *command).splitlines()[-1])
    assert used == dict.fromkeys(PARALLEL, threads), "the shapes are too small for so many threads"
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    metrics = [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines]
    return (folder / "model.safetensors").read_bytes(), [metrics]


def test_training_gives_the_same_bits_twice_and_with_any_number_of_threads(tmp_path: Path) -> None:
    expected = _train(tmp_path / "first", 2)
    assert len(expected[0]) > 61_706 * 4
    for threads in (2, 1, 3, 8):
        assert _train(tmp_path / f"threads-{threads}", threads) == expected, f"{threads} threads"


def _python(program: str, *arguments: str, **environment: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
