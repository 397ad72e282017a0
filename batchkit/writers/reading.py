"""The bytes of pieces of files, one behind the other, in blocks of a good size."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing

from batchkit import files
from batchkit.errors import DamageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from batchkit.writers.base import Piece

_OPEN = 16
"""Files that are open at a time: one published file or part, and some rounds between whose results it goes on."""


def blocks(pieces: Sequence[Piece], offset: int = 0, *, size: int) -> Generator[bytes]:
    """Yield the bytes of the pieces from `offset` on, in blocks of `size`, small pieces together. Raises `DamageError`.

    Linear in pieces and bytes: there may be a hundred thousand small pieces of a few files.
    """
    held: list[bytes] = []
    weight = 0
    with closing(_Readers()) as readers:
        for piece in pieces:
            stop = piece.length if piece.stop is None else piece.stop
            at = min(stop, piece.start + offset)
            offset -= at - piece.start
            while at < stop:
                wanted = min(size - weight, stop - at)
                chunk = readers.read(piece, at, wanted) if piece.data is None else piece.data[at : at + wanted]
                held.append(chunk)
                at += len(chunk)
                weight += len(chunk)
                if weight == size:
                    yield b"".join(held)
                    held, weight = [], 0
        if held:
            yield b"".join(held)


class _Readers:
    """Files that are open for reading."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def read(self, piece: Piece, at: int, size: int) -> bytes:
        """Return some of the bytes of a file from `at` on: at most `size`, at least one."""
        with files.naming("read", piece.path):
            fd = self._open.get(piece.path)
            if fd is None:
                if len(self._open) == _OPEN:
                    files.kernel.close(self._open.pop(next(iter(self._open))))
                fd = files.kernel.open(piece.path, os.O_RDONLY | os.O_CLOEXEC)
                self._open[piece.path] = fd
            chunk = files.kernel.pread(fd, size, at)
        if not chunk:
            raise DamageError(
                f"'{piece.path}' is shorter than the {piece.length:,} bytes it had; "
                "the next run goes on from what is there"
            )
        return chunk

    def close(self) -> None:
        """Close all, whatever closing one of them says."""
        with ExitStack() as stack:
            for path, fd in self._open.items():
                stack.callback(_close, path, fd)


def _close(path: str, fd: int) -> None:
    with files.naming("read", path):
        files.kernel.close(fd)
