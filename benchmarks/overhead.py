"""What the tape costs an operation: forward and backward of a chain of 1,000 small ones."""

from __future__ import annotations

import sys

import targets
from command import Benchmark, asked

PEERS = ("torch",)


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    given = asked(__doc__ or "", PEERS, arguments)
    return Benchmark("overhead", targets.overhead(given.dtypes), given).run()


if __name__ == "__main__":
    sys.exit(main())
