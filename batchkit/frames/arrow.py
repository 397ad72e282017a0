"""Frames as bytes, one behind the other: the Arrow spool.

A frame is `LENGTH ROWS stream LENGTH`: an Arrow IPC stream (https://arrow.apache.org/docs/format/Columnar.html) between
its length in bytes, twice, so that frames can be read forwards, and the last one found. All numbers have eight bytes,
little-endian.
"""

from __future__ import annotations

import base64
import io
import struct
from contextlib import contextmanager

import polars as pl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH = struct.Struct("<Q")
_HEAD = struct.Struct("<QQ")
HEAD, TAIL = _HEAD.size, _LENGTH.size
"""Bytes before and after a stream."""


class Encoder:
    """Makes frames into bytes, in one buffer that it keeps: a new one for each frame would cost more than copying."""

    def __init__(self) -> None:
        """Begin with an empty buffer."""
        self._buffer = io.BytesIO()

    @contextmanager
    def encoded(self, frame: pl.DataFrame) -> Iterator[memoryview]:
        """Give a frame as bytes, which are gone when the block ends."""
        buffer = self._buffer
        buffer.seek(HEAD)
        frame.write_ipc_stream(buffer)
        length = buffer.tell() - HEAD
        buffer.write(_LENGTH.pack(length))
        stop = buffer.tell()
        buffer.seek(0)
        buffer.write(_HEAD.pack(length, frame.height))
        with buffer.getbuffer() as whole, whole[:stop] as data:
            yield data


def extent_of(head: bytes) -> tuple[int, int]:
    """Return length and rows of a stream from the bytes before it."""
    length, rows = _HEAD.unpack(head)
    return int(length), int(rows)


def length_of(tail: bytes) -> int:
    """Return the length of a stream from the bytes after it."""
    return int(_LENGTH.unpack(tail)[0])


def decode(stream: bytes) -> pl.DataFrame:
    """Return the frame of a stream."""
    return pl.read_ipc_stream(io.BytesIO(stream))


def schema_of(stream: bytes) -> dict[str, pl.DataType]:
    """Return the schema of a stream."""
    return dict(pl.read_ipc_stream(io.BytesIO(stream), n_rows=0).schema)


def schema_text(frame: pl.DataFrame) -> str:
    """Return the columns and types of a frame as text: an empty stream in base64."""
    stream = io.BytesIO()
    frame.clear().write_ipc_stream(stream)
    return base64.b64encode(stream.getvalue()).decode()


def frame_like(text: str, rows: list[dict[str, object]]) -> pl.DataFrame:
    """Return rows as a frame with the columns and types that `schema_text` was given."""
    return pl.DataFrame(rows, schema=schema_of(base64.b64decode(text)), orient="row")
