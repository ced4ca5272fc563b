"""Random small shifts, the one augmentation the digit recipes use."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinygrad_nm.data._sets import Array


def random_shift(images: Array, generator: np.random.Generator, pixels: int = 1) -> Array:
    """Moves each image of a batch `(N, C, H, W)` by its own whole number of pixels, up to `pixels` along each
    axis.

    What comes in from outside repeats the edge, which for digits is the background. Returns a new array.
    """
    count, _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, pixels), (pixels, pixels)), mode="edge")
    windows = sliding_window_view(padded, (height, width), axis=(2, 3))
    down, right = generator.integers(0, 2 * pixels + 1, (2, count))
    shifted: Array = windows[np.arange(count), :, down, right]
    return shifted
