"""Training on the emulated device: the steps of the CPU, through CUDA kernels."""

from __future__ import annotations

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import backend

STEPS, BATCH = 20, 16
RELATIVE = 1e-5


def losses(model: str, device: str) -> list[float]:
    """Of the first steps on random images, float32."""
    nm.manual_seed(0)
    network = getattr(nm.nn, model)().to(device)
    optimizer = nm.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(STEPS):
        images = rng.standard_normal((BATCH, *network.input_shape)).astype(np.float32)
        loss = nm.cross_entropy(network(nm.tensor(images, device=device)), rng.integers(0, 10, BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("model", ["LeNet", "LeNet5"])
def test_losses_agree_with_those_of_the_cpu(model: str) -> None:
    kernels = backend.device("cuda-emulated").kernels
    before = sum(kernels.launches().values())
    found = losses(model, "cuda-emulated")
    launched = sum(kernels.launches().values()) - before
    assert launched >= 20 * STEPS  # forward, backward and update are kernels of the device
    np.testing.assert_allclose(found, losses(model, "cpu"), rtol=RELATIVE)
