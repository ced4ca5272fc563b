"""Named cards: peak rates and bandwidths as their makers publish them, in the form that the roofline takes."""

from __future__ import annotations

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
