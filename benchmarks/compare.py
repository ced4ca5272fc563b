"""Answers are compared before anything is timed: an engine that computes something else is no peer."""

from __future__ import annotations

from typing import Any

import numpy as np

# Of the largest magnitude of an array, by kind of work: what two correct engines may differ by. They sum in other
# orders, and ours convolves with Winograd; a training step adds the errors of all layers, and where two inputs of a
# maximum almost tie, or one of a ReLU is almost zero, rounding decides which of them gets the gradient.
#
# So a step in float32 is allowed 1e-2, by measurement on AlexNet at batch 32 with the same weights and images: the
# worst gradients of PyTorch and of ours in float64 differ by 2e-15 (`train.py --dtype float64 --peers torch --only
# "alexnet batch 32"` compares them). Against those, float32 is off by 2.8e-3 in PyTorch, 1.2e-6 in ours without
# Winograd, and 6.1e-3 with it: rounding errors alone would be near 1e-6; that a few choices decided otherwise are the
# rest is likely, but their number was not counted.
TOLERANCES = {
    "gemm": {"float32": 1e-5, "float64": 1e-13},
    "conv2d": {"float32": 1e-4, "float64": 1e-12},
    "activation": {"float32": 1e-6, "float64": 1e-14},
    "pool": {"float32": 1e-6, "float64": 1e-14},
    "cross_entropy": {"float32": 1e-5, "float64": 1e-13},
    "lrn": {"float32": 1e-5, "float64": 1e-13},
    "sgd": {"float32": 1e-6, "float64": 1e-14},
    "train": {"float32": 1e-2, "float64": 1e-12},
    "epoch": {"float32": 1e-2, "float64": 1e-12},
    "infer": {"float32": 1e-3, "float64": 1e-11},
    "overhead": {"float32": 1e-4, "float64": 1e-12},
}

Answer = dict[str, dict[str, Any]]


def difference(ours: Answer, theirs: Answer, tolerance: float) -> str | None:
    """None if the answers agree, else one line that says where they do not."""
    if ours.keys() != theirs.keys():
        return f"it answers with {sorted(theirs)} instead of {sorted(ours)}"
    for name, own in ours.items():
        other = theirs[name]
        if tuple(own["shape"]) != tuple(other["shape"]):
            return f"{name} has shape {tuple(other['shape'])} instead of {tuple(own['shape'])}"
        scale = max(own["largest"], other["largest"])
        gaps = np.abs(own["sample"] - other["sample"])
        worst = float(gaps.max()) if gaps.size else 0.0
        if not worst <= tolerance * scale:  # also if it is NaN
            return f"{name} differs by {worst:.2g}, more than {tolerance:g} of its largest number {scale:.2g}"
    return None
