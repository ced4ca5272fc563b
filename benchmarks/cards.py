"""Named cards: peak rates and bandwidths as their makers publish them, and the least time of a work on each."""

from __future__ import annotations

import tinygrad_nm as nm
from tinygrad_nm.cli.limits import Limits
from tinygrad_nm.cli.roofline import step_seconds
from workloads import Case

MODELS = {"lenet": nm.nn.LeNet, "lenet5": nm.nn.LeNet5, "alexnet": nm.nn.AlexNet}

# TFLOP/s without tensor cores in float32 and float64, GB/s: NVIDIA's data sheets (T4, A100 SXM 80 GB, H100 SXM), and
# the Ada architecture's white paper (RTX 4090; float64 at a 64th of float32).
CARDS = {
    "T4": (8.1, 0.253, 320),
    "RTX 4090": (82.6, 1.29, 1008),
    "A100": (19.5, 9.7, 2039),
    "H100": (67, 34, 3350),
}


def limits(card: str, dtype: str) -> Limits:
    """The card's limits in the form that the roofline takes."""
    single, double, bandwidth = CARDS[card]
    arithmetic, memory = 1e12 * (single if dtype == "float32" else double), 1e9 * bandwidth
    ladder = ((0, memory),)
    return Limits(dtype, 1, card, arithmetic, memory, memory, memory, memory, ladder, ladder)


def least_seconds(case: Case, of: Limits) -> float | None:
    """The least time of a case by these limits; None where operations and bytes say nothing."""
    if case.kind in ("train", "infer"):
        model = MODELS[case.options["model"]](dtype=case.dtype)
        return step_seconds(model, case.options["batch"], of, case.kind == "train")
    return None if case.moved == 0 else of.seconds(case.flops, case.moved, case.in_place)
