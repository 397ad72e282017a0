"""The bytes of a file or a pipe, in blocks.

64 KiB at a time: larger blocks are slower (page faults of large allocations), smaller ones cost more system calls.
"""

from __future__ import annotations

import os
from typing import Protocol

from batchkit import files
from batchkit.errors import InputChanged, SourceError
from batchkit.fingerprint import BLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

READ_SIZE = 64 << 10


class Blocks(Protocol):
    """Bytes that come in blocks.

    before: the at most `BLOCK` bytes before the block that was next when the source was opened or went somewhere.
    """

    before: bytes

    def read(self) -> bytes:
        """Return the next block; empty at the end. Raises `SourceError`."""

    def close(self) -> None:
        """Let go of the file. Harmless when repeated."""


class FileBytes:
    """The bytes of one file from `start` to `stop` (`None`: its end), in blocks; see `Blocks`."""

    def __init__(self, path: str, start: int, stop: int | None) -> None:
        """Open the file and go to `start`. Raises `SourceError`."""
        self._path = path
        self._at = start
        self._stop = stop
        self._fd = -1
        try:
            self._fd = os.dup(0) if path == "-" else files.kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.before = b""
            if start:
                self.before = files.kernel.pread(self._fd, min(start, BLOCK), max(0, start - BLOCK))
                os.lseek(self._fd, start, os.SEEK_SET)
        except OSError as error:
            self.close()
            raise self._error(error) from error

    def read(self) -> bytes:
        """Return the next block; empty at the end. Raises `SourceError`."""
        want = READ_SIZE if self._stop is None else min(READ_SIZE, self._stop - self._at)
        if want == 0:
            return b""
        try:
            block = files.kernel.read(self._fd, want)
        except OSError as error:
            raise self._error(error) from error
        if not block and self._stop is not None:
            raise SourceError(f"'{self._path}' shrank while it was read: it ends at byte {self._at:,}")
        self._at += len(block)
        return block

    def _error(self, error: OSError) -> SourceError:
        where = f" at byte {self._at:,}" if self._at else ""
        return SourceError(f"cannot read '{self._path}'{where}: {error.strerror}; run the same command again to go on")

    def close(self) -> None:
        """Close the file. Harmless when repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


class ForwardBytes:
    """Bytes that can be read forwards only: to get to an offset, what comes before it is read and thrown away.

    begun: the offset at which reading began. at: that of the next block.
    """

    def __init__(self, source: Blocks, path: str, at: int = 0) -> None:
        """Read `source`, which stands at `at`, on; `path` is its name for messages."""
        self._source = source
        self._path = path
        self._peeked = b""
        self.begun = self.at = at
        self.before = source.before

    def advance(self, offset: int) -> None:
        """Read up to `offset`. Raises `InputChanged` if there is not so much."""
        while self.at < offset:
            block = self.read()
            if not block:
                raise InputChanged(f"'{self._path}' ends at byte {self.at:,}, before the cursor")
            over = max(0, self.at - offset)
            self.give_back(block[len(block) - over :])
            self.before = (self.before + block[: len(block) - over])[-BLOCK:]

    def peek(self) -> bytes:
        """Return the next block without taking it; empty at the end."""
        block = self.read()
        self.give_back(block)
        return block

    def give_back(self, block: bytes) -> None:
        """Let `block`, which was read last, be the next one again."""
        self._peeked = block + self._peeked
        self.at -= len(block)

    def read(self) -> bytes:
        """Return the next block."""
        block, self._peeked = self._peeked, b""
        if not block:
            block = self._source.read()
        self.at += len(block)
        return block

    def close(self) -> None:
        """Close the source. Harmless when repeated."""
        self._source.close()
