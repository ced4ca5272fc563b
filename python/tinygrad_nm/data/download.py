"""Fetches MNIST. Imported by `tinygrad-nm data mnist` and by nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tinygrad_nm.data._digits import MNIST_FILES, cache_folder, checked_mnist_file

MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
TIMEOUT_SECONDS = 60


def download_mnist(
    folder: str | Path | None = None,
    mirrors: tuple[str, ...] = MIRRORS,
    report: Callable[[str], None] = print,
) -> Path:
    """Puts the four files of MNIST into `folder` (default: `cache_folder()`) and returns it.

    Files already there are checked and kept. A file takes its name only when its content has been checked, so
    an interrupted download leaves nothing that looks complete. Raises ConnectionError when no mirror answers
    with the right content.
    """
    folder = cache_folder() if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in MNIST_FILES:
        target = folder / f"{name}.gz"
        if target.is_file():
            checked_mnist_file(target, name)
            report(f"{target} is there already, and checked")
        else:
            _fetch(name, target, mirrors)
            report(f"{target} fetched and checked")
    return folder


def _fetch(name: str, target: Path, mirrors: tuple[str, ...]) -> None:
    problems = []
    for mirror in mirrors:
        handle, part = tempfile.mkstemp(prefix=f".{name}.", dir=target.parent)
        try:
            with (
                os.fdopen(handle, "wb") as out,
                urlopen(f"{mirror}{name}.gz", timeout=TIMEOUT_SECONDS) as answer,
            ):
                while block := answer.read(1 << 16):
                    out.write(block)
            checked_mnist_file(Path(part), name)
            os.replace(part, target)
            return
        except (URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as problem:
            problems.append(f"{mirror}: {problem}")
        finally:
            Path(part).unlink(missing_ok=True)
    raise ConnectionError(
        f"download: no mirror gave a good {name}.gz ({'; '.join(problems)}); copy MNIST's four files into"
        f" {target.parent} by hand, or try again later"
    )
