"""Products of matrices, into out= on both sides, against the BLAS of the peers."""

from __future__ import annotations

import sys

import targets
from command import Benchmark, asked

PEERS = ("torch", "numpy", "jax")


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    given = asked(__doc__ or "", PEERS, arguments, "float32,float64")
    return Benchmark("gemm", targets.gemm(given.dtypes), given).run()


if __name__ == "__main__":
    sys.exit(main())
