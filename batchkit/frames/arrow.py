"""Frames as bytes, one behind the other: the Arrow spool.

A frame is `LENGTH stream LENGTH`: an Arrow IPC stream (https://arrow.apache.org/docs/format/Columnar.html) between its
length in bytes, twice, as eight bytes little-endian: so that frames can be read forwards, and the last one found.
"""

from __future__ import annotations

import io
import struct

import polars as pl

_LENGTH = struct.Struct("<Q")
MARK = _LENGTH.size
"""Bytes of a length."""


def encode(frame: pl.DataFrame) -> bytes:
    """Return a frame as bytes."""
    stream = io.BytesIO(_LENGTH.pack(0))
    stream.seek(0, io.SEEK_END)
    frame.write_ipc_stream(stream)
    length = _LENGTH.pack(stream.tell() - _LENGTH.size)
    stream.write(length)
    stream.seek(0)
    stream.write(length)
    return stream.getvalue()


def length_of(mark: bytes) -> int:
    """Return the length of a stream from the eight bytes before or after it."""
    return int(_LENGTH.unpack(mark)[0])


def decode(stream: bytes) -> pl.DataFrame:
    """Return the frame of a stream."""
    return pl.read_ipc_stream(io.BytesIO(stream))


def schema_of(stream: bytes) -> dict[str, pl.DataType]:
    """Return the schema of a stream."""
    return dict(pl.read_ipc_stream(io.BytesIO(stream), n_rows=0).schema)
