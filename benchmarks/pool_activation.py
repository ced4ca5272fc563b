"""What moves memory: activations, pooling, loss, normalisation, the SGD update."""

from __future__ import annotations

import sys

import targets
from command import Benchmark, asked

PEERS = ("torch", "jax", "numpy")


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    given = asked(__doc__ or "", PEERS, arguments)
    return Benchmark("pool_activation", targets.pool_activation(given.dtypes), given).run()


if __name__ == "__main__":
    sys.exit(main())
