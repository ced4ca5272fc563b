"""Training steps: forward, loss, backward, update, without data loading."""

from __future__ import annotations

import sys

import targets
from command import Benchmark, asked

PEERS = ("torch", "jax")


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    given = asked(__doc__ or "", PEERS, arguments)
    return Benchmark("train", targets.train(given.dtypes), given).run()


if __name__ == "__main__":
    sys.exit(main())
