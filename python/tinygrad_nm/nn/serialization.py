"""Saving and loading weights as safetensors. Nothing is lost where saving fails, nothing altered is loaded.

A file holds the arrays of `state_dict` and one piece of metadata (several would be stored in no fixed order, and
equal weights should give equal files): a checksum over names, dtypes, shapes and bytes. safetensors is imported on
use only (the extra `train`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from .module import Module

FORMAT = "tinygrad_nm 1 sha256"
_CHUNK = 1 << 24  # bytes a write call; a disk may fill up at any of them


def save(model: Module, path: str | os.PathLike[str]) -> None:
    """Writes the model's parameters to `path`, whole or not at all.

    The file is written under another name in the same folder, read back, compared bit for bit, flushed to the
    disk and only then renamed. Raises OSError where that fails; a file that was at `path` before is then
    still there, unchanged. Raises ImportError without safetensors.
    """
    safetensors = _safetensors("save")
    arrays = {name: np.ascontiguousarray(array) for name, array in model.state_dict().items()}
    content = safetensors.save(arrays, metadata={FORMAT: _checksum(arrays)})
    target = os.path.realpath(path)
    temporary = f"{target}.{secrets.token_hex(4)}.tmp"
    try:
        _write(temporary, content)
        _verify(safetensors, temporary, content, arrays)
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(
            error.errno,
            f"save: {os.fspath(path)} could not be written ({error.strerror or error}); what was there is unchanged",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # there is none after renaming; else the first error is the one to tell
            os.unlink(temporary)
    _sync_folder(os.path.dirname(target))


def load(model: Module, path: str | os.PathLike[str]) -> Module:
    """Reads parameters that `save` wrote into the model, and returns it.

    Raises OSError where the file cannot be read; ValueError for a file that is truncated, altered or not
    ours, and for parameters that do not fit (see `Module.load_state_dict`). The model is then unchanged.
    Raises ImportError without safetensors.
    """
    safetensors = _safetensors("load")
    with open(path, "rb") as file:
        content = file.read()
    try:
        arrays = safetensors.load(content)
        metadata = _metadata(content)
    except Exception as error:  # safetensors, json and NumPy each have their own for bytes that make no sense
        raise ValueError(
            f"load: {os.fspath(path)} is not a whole safetensors file ({error}); it was cut or altered"
        ) from error
    if FORMAT not in metadata:
        raise ValueError(
            f"load: {os.fspath(path)} was not written by nn.save of this version; "
            "read it with safetensors.numpy.load_file and give the arrays to load_state_dict"
        )
    if metadata[FORMAT] != _checksum(arrays):
        raise ValueError(f"load: {os.fspath(path)} was altered after it was saved: its checksum does not fit")
    model.load_state_dict(arrays)
    return model


def _safetensors(operation: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            f"{operation}: weights are stored with safetensors, which is not installed: pip install "
            "'tinygrad-nm[train]'"
        ) from error
    return safetensors.numpy


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: 8 bytes of length, little-endian, and as many bytes of JSON."""
    import json

    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length]).get("__metadata__", {}))


def _write(path: str, content: bytes) -> None:
    """A new file, on the disk when this returns."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest[:_CHUNK]) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _verify(safetensors: Any, path: str, content: bytes, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises OSError unless the file holds this content, and the content these very arrays."""
    with open(path, "rb") as file:
        if file.read() != content:
            raise OSError(errno.EIO, "it reads back differently from what was written")
    stored = safetensors.load(content)
    for name, array in arrays.items():
        if name not in stored or stored[name].dtype != array.dtype or stored[name].tobytes() != array.tobytes():
            raise OSError(errno.EIO, f"safetensors stores {name} wrongly")


def _sync_folder(folder: str) -> None:
    """Puts the renaming itself on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
