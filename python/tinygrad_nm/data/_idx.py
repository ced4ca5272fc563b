"""The IDX format of the MNIST distribution: a magic number, the sizes (big-endian), then the bytes."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from tinygrad_nm.data._sets import Array

GZIP_MAGIC = b"\x1f\x8b"


def unpack(path: Path) -> bytes:
    """The content of a file, gzipped or not. Raises ValueError if the gzip stream is cut short or damaged."""
    content = path.read_bytes()
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"read_idx: {path} is truncated or damaged ({error}); fetch it again") from error


def read_idx(path: str | Path) -> Array:
    """Reads an IDX file of unsigned bytes, gzipped or not, as a uint8 array of the shape it declares.

    Raises ValueError when the magic number is not that of unsigned bytes (00 00 08 and the number of axes),
    or when the file holds fewer or more bytes than its sizes ask for.
    """
    path = Path(path)
    return parse_idx(unpack(path), path)


def parse_idx(content: bytes, path: Path) -> Array:
    """The array in the unpacked `content`; `path` is only named in errors."""
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or not 1 <= content[3] <= 4:
        raise ValueError(
            f"read_idx: {path} starts with {content[:4].hex(' ') or 'nothing'}, not with the magic number of"
            f" an IDX"
            " file of unsigned bytes (00 00 08 and the number of axes, 1 to 4)"
        )
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise ValueError(f"read_idx: {path} ends inside its header, after {len(content)} bytes; fetch it again")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", content[3], offset=4))
    if len(content) - header != prod(shape):
        raise ValueError(
            f"read_idx: {path} holds {len(content) - header} bytes but its shape {shape} asks for"
            f" {prod(shape)};"
            " fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
