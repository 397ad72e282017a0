"""One part file: the stored results of one shard, appended batch by batch and cut back on resume.

Its mark begins with `[offset, crc, synced]`: the length after a batch, the CRC-32 of the bytes added since the mark
before, and the length known to be on disk. Exactly once, under a kill at any instruction and a power cut at any moment:
a commit counts only if the bytes it covers are there and have its CRC.
"""

from __future__ import annotations

import os
from zlib import crc32

from batchkit import files
from batchkit.errors import DamageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_CHUNK = 1 << 20


class Part:
    """An appendable file with marks."""

    def __init__(self, path: str, *, mode: int = files.SHARED) -> None:
        """Name the file; `open` makes it."""
        self.path = path
        self._mode = mode
        self._file: files.AppendFile | None = None
        self._crc = 0

    def intact(self, marks: Sequence[list[int]]) -> int:
        """Return the index of the last mark that is covered by the file; reads only what was not synced."""
        if not marks:
            return -1
        newest = len(marks) - 1
        synced = marks[newest][2]
        if (files.size(self.path) or 0) < synced:
            raise DamageError(f"'{self.path}' is shorter than the {synced:,} bytes it had; --restart starts over")
        first = newest + 1
        while first > 0 and marks[first - 1][0] > synced:
            first -= 1
        start = marks[first - 1][0] if first else 0
        for index in range(first, newest + 1):
            offset, crc = marks[index][:2]
            if _crc_of(self.path, start, offset) != crc:
                return index - 1
            start = offset
        return newest

    def open(self, mark: list[int] | None) -> None:
        """Cut the file to the mark and make that durable."""
        length = 0 if mark is None else mark[0]
        if not os.path.isdir(os.path.dirname(self.path)):
            raise DamageError(f"'{os.path.dirname(self.path)}' is gone; put it back, or start over with --restart")
        self._file = files.AppendFile(self.path, length, mode=self._mode)
        self._file.synced = 0 if mark is None else min(mark[2], length)
        self._file.sync(found=True)
        files.sync_directory(os.path.dirname(self.path))

    @property
    def length(self) -> int:
        """Bytes so far."""
        assert self._file is not None, "open() comes first"
        return self._file.length

    def append(self, data: bytes | memoryview) -> None:
        """Write the bytes of a batch."""
        assert self._file is not None, "open() comes first"
        self._crc = crc32(data, self._crc)
        self._file.append(data)

    def mark(self) -> list[int]:
        """Return offset, CRC since the last call, and synced offset."""
        assert self._file is not None, "open() comes first"
        crc, self._crc = self._crc, 0
        return [self._file.length, crc, self._file.synced]

    def sync(self) -> None:
        """Make it durable."""
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _crc_of(path: str, start: int, stop: int) -> int | None:
    """Return the CRC of `[start, stop)`; `None` if the file ends before."""
    crc = 0
    if start == stop:
        return crc
    with files.naming("read", path):
        try:
            fd = files.kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            while start < stop:
                chunk = files.kernel.pread(fd, min(_CHUNK, stop - start), start)
                if not chunk:
                    return None
                crc = crc32(chunk, crc)
                start += len(chunk)
        finally:
            files.kernel.close(fd)
    return crc
