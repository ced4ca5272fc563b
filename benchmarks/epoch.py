"""An epoch of LeNet-5 on digits, batch 64, with each engine's own loading of data, shuffled."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import targets
from command import Benchmark, options, parser, say
from tinygrad_nm import data

PEERS = ("torch",)


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    made = parser(__doc__ or "", PEERS)
    made.add_argument("--data", type=Path, help="folder with MNIST's four files; without it, the 5,000 embedded digits")
    given = options(made.parse_args(arguments), made.error)
    try:
        found = data.digits() if given.data is None else data.mnist(given.data)
    except (OSError, ValueError, ImportError) as error:
        made.error(str(error))
    say(found.name)
    x, labels = found.train
    with tempfile.TemporaryDirectory(prefix="benchmarks-epoch-") as folder:
        file = Path(folder, "digits.npz")
        np.savez(file, x=x, labels=labels)
        return Benchmark("epoch", targets.epoch(given.dtypes, len(x), str(file)), given).run()


if __name__ == "__main__":
    sys.exit(main())
