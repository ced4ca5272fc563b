"""Inference."""

from __future__ import annotations

import sys

import targets
from command import Benchmark, asked

PEERS = ("torch", "onnxruntime", "jax")


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    given = asked(__doc__ or "", PEERS, arguments)
    return Benchmark("infer", targets.infer(given.dtypes), given).run()


if __name__ == "__main__":
    sys.exit(main())
