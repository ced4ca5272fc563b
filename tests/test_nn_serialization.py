"""Saving and loading: bits kept, nothing lost where the disk fills up, nothing altered ever loaded."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import tinygrad_nm as nm
from tinygrad_nm import nn
from tinygrad_nm.nn import serialization

safetensors = pytest.importorskip("safetensors.numpy", reason="weights need safetensors (extra `train`)")


@pytest.fixture
def saved(tmp_path):
    nm.manual_seed(1)
    model = nn.LeNet1989()
    path = tmp_path / "model.safetensors"
    nn.save(model, path)
    return model, path


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(n == m and x.dtype == y.dtype and x.tobytes() == y.tobytes() for (n, x), (m, y) in pairs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_survive(tmp_path, dtype):
    model, other = nn.LeNet1989(dtype=dtype), nn.LeNet1989(dtype=dtype)
    with nm.no_grad():
        model.output.bias[:4] = nm.tensor([np.nan, -0.0, np.inf, 1e-40], dtype=dtype)
    assert not same(model, other)
    path = str(tmp_path / "a")
    nn.save(model, path)
    assert nn.load(other, path) is other
    assert same(model, other)
    assert os.listdir(tmp_path) == ["a"]


def test_weights_that_are_not_contiguous_are_saved_right(tmp_path):
    """safetensors 0.8.0 stores the bytes of such an array in the wrong order."""
    layer = nn.Linear(3, 2)
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    layer.weight.replace_(values.T)
    assert not layer.weight.data.flags.c_contiguous
    nn.save(layer, tmp_path / "a")
    assert np.array_equal(nn.load(nn.Linear(3, 2), tmp_path / "a").weight.numpy(), values.T)


def test_flat_parameters_save_and_load_in_place(tmp_path):
    model = nn.LeNet()
    flat = nn.FlatParameters(model.parameters())
    nn.save(model, tmp_path / "a")
    before = flat.groups[0].data.copy()
    flat.groups[0].data[...] = 0
    nn.load(model, tmp_path / "a")
    assert np.array_equal(flat.groups[0].data, before)


def test_any_safetensors_reader_can_read_the_file(saved):
    model, path = saved
    assert {n: a.shape for n, a in safetensors.load_file(path).items()} == {
        n: p.shape for n, p in model.named_parameters()
    }


def count_calls(monkeypatch, name: str, fail_at: int | None = None, code: int = errno.ENOSPC) -> list[int]:
    """Counts calls of os.<name>; the one numbered `fail_at` raises."""
    real, calls = getattr(os, name), []

    def wrapped(*arguments, **options):
        calls.append(len(calls))
        if calls[-1] == fail_at:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, wrapped)
    return calls


def test_a_disk_full_at_any_write_keeps_the_previous_file(saved, monkeypatch):
    model, path = saved
    before = path.read_bytes()
    monkeypatch.setattr(serialization, "_CHUNK", 1000)
    with monkeypatch.context() as patch:
        calls = count_calls(patch, "write")
        nn.save(model, path)
    writes = len(calls)
    assert writes == -(-len(before) // 1000) > 10
    with nm.no_grad():
        model.output.bias.fill_(3.0)
    for fail_at in range(writes):
        with monkeypatch.context() as patch:
            count_calls(patch, "write", fail_at)
            with pytest.raises(OSError, match=r"could not be written .No space left.*unchanged") as caught:
                nn.save(model, path)
        assert caught.value.errno == errno.ENOSPC
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == [path.name]
    nn.save(model, path)
    assert same(nn.load(nn.LeNet1989(), path), model)


@pytest.mark.parametrize(("name", "code"), [("fsync", errno.EIO), ("replace", errno.EACCES), ("open", errno.EROFS)])
def test_other_failures_keep_the_previous_file(saved, monkeypatch, name, code):
    model, path = saved
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        count_calls(patch, name, 0, code)
        with pytest.raises(OSError, match="could not be written") as caught:
            nn.save(model, path)
    assert caught.value.errno == code
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_short_writes_are_continued(saved, monkeypatch):
    model, path = saved
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:777]))
    nn.save(model, path)
    assert same(nn.load(nn.LeNet1989(), path), model)


def test_a_disk_that_alters_what_it_stores_is_noticed(saved, monkeypatch):
    model, path = saved
    before = path.read_bytes()
    real = os.write

    def flip(handle, data):
        return real(handle, bytes(data[:-1]) + bytes([data[-1] ^ 1]))

    monkeypatch.setattr(os, "write", flip)
    with pytest.raises(OSError, match="reads back differently"):
        nn.save(model, path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_a_library_that_stores_wrong_bytes_is_noticed(saved, monkeypatch):
    model, path = saved
    before = path.read_bytes()
    real = safetensors.save

    def transposed(arrays, metadata):
        wrong = arrays | {"output.weight": arrays["output.weight"].T.copy().reshape(10, 192)}
        return real(wrong, metadata)

    monkeypatch.setattr(safetensors, "save", transposed)
    with pytest.raises(OSError, match=r"safetensors stores output\.weight wrongly"):
        nn.save(model, path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_equal_weights_give_equal_files(saved, tmp_path):
    model, path = saved
    for name in "abcde":
        nn.save(model, tmp_path / name)
        assert (tmp_path / name).read_bytes() == path.read_bytes()


def test_a_disk_that_truncates_is_noticed(saved, monkeypatch):
    model, path = saved
    before = path.read_bytes()
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[: len(data) // 2]) and len(data))
    with pytest.raises(OSError, match="reads back differently"):
        nn.save(model, path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_a_file_cut_anywhere_is_refused(saved):
    model, path = saved
    whole = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, *range(500, len(whole), 997), len(whole) - 1]:
        path.write_bytes(whole[:length])
        before = model.state_dict()
        with pytest.raises(ValueError, match="is not a whole safetensors file"):
            nn.load(model, path)
        assert all(np.array_equal(before[n], a) for n, a in model.state_dict().items())


def test_a_byte_altered_anywhere_is_refused(saved):
    _, path = saved
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    header_end = len(whole[:header].rstrip())  # then come spaces that mean nothing
    target = nn.LeNet1989()
    before = target.state_dict()
    for position in [*range(0, header_end, 7), *range(header, len(whole), 501), len(whole) - 1]:
        altered = bytearray(whole)
        altered[position] ^= 1
        path.write_bytes(bytes(altered))
        with pytest.raises(ValueError, match=r"^load: "):
            nn.load(target, path)
    assert all(np.array_equal(before[n], a) for n, a in target.state_dict().items())


def test_files_of_others_and_of_other_models_are_told_apart(saved, tmp_path):
    model, path = saved
    safetensors.save_file(model.state_dict(), tmp_path / "other")
    with pytest.raises(ValueError, match=r"was not written by nn.save.*load_state_dict"):
        nn.load(model, tmp_path / "other")
    with pytest.raises(ValueError, match=r"load_state_dict: LeNet5 cannot take these: .*h1\.weight is unexpected"):
        nn.load(nn.LeNet5(), path)
    with pytest.raises(ValueError, match=r"is float32 but the model's is float64"):
        nn.load(nn.LeNet1989(dtype="float64"), path)
    with pytest.raises(FileNotFoundError):
        nn.load(model, tmp_path / "none")
    with pytest.raises(OSError, match=r"save: .*none/here could not be written .No such file"):
        nn.save(model, tmp_path / "none" / "here")


def test_links_and_modes_are_kept_as_files_are_usually_made(saved, tmp_path):
    model, path = saved
    link = tmp_path / "latest"
    link.symlink_to(path)
    with nm.no_grad():
        model.output.bias.fill_(2.0)
    nn.save(model, link)
    assert link.is_symlink() and same(nn.load(nn.LeNet1989(), path), model)
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode


def test_the_metadata_names_format_and_checksum(saved):
    _, path = saved
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    ((name, checksum),) = header["__metadata__"].items()
    assert name == "tinygrad_nm 1 sha256" and len(checksum) == 64


def test_without_safetensors_the_install_line_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (nn.save, nn.load):
        with pytest.raises(ImportError, match=r"pip install 'tinygrad-nm\[train\]'"):
            call(nn.LeNet(), tmp_path / "a")


def test_nn_is_imported_without_safetensors():
    code = "import sys, tinygrad_nm.nn; print(sorted(m for m in sys.modules if 'safetensors' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
