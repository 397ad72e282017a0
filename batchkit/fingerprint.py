"""Is this file still the same? Answered in O(1): size, times, the first block, the block before the cursor.

A file is known by `{"path", "size", "mtime_ns", "head": [length, crc]}`. At the same length, any later modification
time is a change. A longer file is taken for an appended one by its first block and the block before the cursor: what
this cannot see is an edit between those two in a file that also grew.
"""

from __future__ import annotations

import os
import time
from typing import Any
from zlib import crc32

from batchkit import files
from batchkit.errors import SourceError
from batchkit.model import Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = 4096
"""Bytes of the first block."""

BLOCK = 512
"""Bytes of a proof: the CRC of at most so much input before the cursor. 4 KiB would cost 3 % of a run."""


def describe(path: str, facts: os.stat_result) -> dict[str, Any]:
    """Return what a file was known by when `facts` were taken. Raises `SourceError` if it cannot be read."""
    try:
        head = block(path, 0, min(HEAD, facts.st_size))
    except OSError as error:
        raise SourceError(f"cannot read '{path}': {error.strerror}") from error
    return {
        "path": path,
        "size": facts.st_size,
        "mtime_ns": facts.st_mtime_ns,
        "head": [len(head), crc32(head)],
    }


def block(path: str, start: int, stop: int) -> bytes:
    """Return the bytes `[start, stop)` of a file."""
    fd = files.kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return files.kernel.pread(fd, stop - start, start)
    finally:
        files.kernel.close(fd)


def proof_of(tail: bytes) -> int:
    """Return the proof of what was consumed, given at least its last `BLOCK` bytes."""
    return crc32(tail[-BLOCK:])


def before(path: str, offset: int) -> bytes:
    """Return the at most `BLOCK` bytes of a file before `offset`."""
    return block(path, max(0, offset - BLOCK), offset)


def foot(path: str) -> int:
    """Return the CRC-32 of the at most `HEAD` last bytes of a file. Raises `SourceError`."""
    try:
        size = os.stat(path).st_size
        return crc32(block(path, max(0, size - HEAD), size))
    except OSError as error:
        raise SourceError(f"cannot read '{path}': {error.strerror}") from error


def fewer(was: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> Verdict:
    """Return the verdict on a list of files that has become shorter."""
    moved = any(one["path"] != other["path"] for one, other in zip(was, now, strict=False))
    return Verdict("changed", f"there are {len(now)} files where there were {len(was)}", moved=moved)


def compare(was: dict[str, Any], now: dict[str, Any]) -> Verdict:
    """Tell whether a file is the same, appended to, or changed since `was` was taken."""
    path = now["path"]
    if was["path"] != path:
        return Verdict("changed", f"'{was['path']}' was in the place of '{path}'", moved=True)
    if now["size"] < was["size"]:
        return Verdict("changed", f"'{path}' shrank from {was['size']:,} to {now['size']:,} bytes")
    length, crc = was["head"]
    if crc32(block(path, 0, length)) != crc:
        return Verdict("changed", f"the first {length:,} bytes of '{path}' are not what they were")
    if now["size"] > was["size"]:
        return Verdict("appended", f"'{path}' grew from {was['size']:,} to {now['size']:,} bytes")
    if now["mtime_ns"] != was["mtime_ns"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now["mtime_ns"] / 1e9))
        return Verdict("changed", f"'{path}' was written again at {when}, at the same length")
    return Verdict("same")
