"""Cards: peak rates and bandwidths as their makers publish them, and those of this GPU, measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad_nm import backend
from tinygrad_nm.cli.limits import Limits

# TFLOP/s without tensor cores in float32 and float64, GB/s: NVIDIA's data sheets (T4, A100 SXM 80 GB, H100 SXM), and
# the Ada architecture's white paper (RTX 4090; float64 at a 64th of float32).
CARDS = {
    "T4": (8.1, 0.253, 320),
    "RTX 4090": (82.6, 1.29, 1008),
    "A100": (19.5, 9.7, 2039),
    "H100": (67, 34, 3350),
}


def limits(card: str, dtype: str) -> Limits:
    """The card's limits for a dtype."""
    single, double, bandwidth = CARDS[card]
    arithmetic, memory = 1e12 * (single if dtype == "float32" else double), 1e9 * bandwidth
    ladder = ((0, memory),)
    return Limits(dtype, 1, card, arithmetic, memory, memory, memory, memory, ladder, ladder)


def measured(dtype: str) -> Limits:
    """The limits of the first GPU, by our own kernels that do nothing else: the best of several runs."""
    import cupy

    from engines import cupy as engine

    device, number = backend.device("cuda"), cupy.dtype(dtype)
    kernels, rows, n, repeats, footprint = device.kernels, 4096, 1024, 2000, 2**30
    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()

    def best(run: Callable[[], Any]) -> float:
        run()
        return min(engine.clock(run, 5) / 5 for _ in range(5))

    x = cupy.ones((rows, n), number)
    out = cupy.empty_like(x)
    arithmetic = 2.0 * rows * n * repeats / best(lambda: kernels.peak_arithmetic(out, x, 0.5, 1.0, repeats))
    a, b, c = (cupy.ones(footprint // 3 // number.itemsize, number) for _ in range(3))
    copy = 2 * a.nbytes / best(lambda: kernels.peak_memory(a, b, None, 0.0))
    triad = 3 * a.nbytes / best(lambda: kernels.peak_memory(a, b, c, 3.0))
    update = 3 * a.nbytes / best(lambda: kernels.peak_memory(a, None, b, 1e-3))
    long = b[: rows * (b.size // rows)].reshape(rows, -1)
    sums = cupy.empty(rows, number)
    read = long.nbytes / best(lambda: kernels.peak_read(sums, long))
    ladder, updates = ((0, max(copy, triad)),), ((0, update),)
    return Limits(dtype, 1, name, arithmetic, copy, triad, read, update, ladder, updates)
