"""Convolutions of AlexNet and LeNet-5; the peer's memory format is named."""

from __future__ import annotations

import sys

import targets
from command import Benchmark, asked

PEERS = ("torch", "jax")


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    given = asked(__doc__ or "", PEERS, arguments)
    return Benchmark("conv2d", targets.conv2d(given.dtypes), given).run()


if __name__ == "__main__":
    sys.exit(main())
