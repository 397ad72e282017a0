"""Text, JSONL and CSV files, compressed or not. Exactly once: see `part`."""

from __future__ import annotations

import os
from itertools import chain
from typing import Any

from batchkit import files
from batchkit.errors import DamageError
from batchkit.writers.base import Piece
from batchkit.writers.part import Part
from batchkit.writers.values import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchkit.writers.base import Joining
    from batchkit.writers.formats import Format

_COPY = 1 << 20
_SYNC_EVERY = 64 << 20


class LineWriter:
    """Appends the rendered results of a shard to its part file."""

    def __init__(self, path: str, form: Format, earlier: Sequence[str]) -> None:
        """Write to the part at `path`; `earlier`: files of the same output, the first of which decides the header."""
        self._part = Part(path)
        self._form = form
        self._earlier = earlier
        self.mark = self._part.mark

    def intact(self, marks: Sequence[list[int]]) -> int:
        """Return the index of the last mark that the part covers."""
        return self._part.intact(marks)

    def open(self, mark: list[int] | None) -> None:
        """Cut the part to the mark, and let the format learn from the first file that has something to learn from."""
        self._part.open(mark)
        for path in (*self._earlier, self._part.path):
            if self._form.resume(self._form.lines(_chunks(Piece(path, files.size(path) or 0)))):
                break

    def write(self, results: Sequence[Any]) -> None:
        """Render and append."""
        data = self._form.render(listed(results))
        if data:
            self._part.append(data)

    def sync(self) -> None:
        """Make it durable."""
        self._part.sync()

    def close(self) -> None:
        """Close the part."""
        self._part.close()


class LineKind:
    """Files of lines: parts are pieces of the output, so joining them is appending bytes."""

    def __init__(self, form: Format, *, alone: bool = False) -> None:
        """Write in a format; alone: whether each part becomes a file of its own."""
        self._form = form
        self._alone = alone

    def writer(self, part: str, earlier: Sequence[str]) -> LineWriter:
        """Return the writer of a part."""
        return LineWriter(part, self._form, () if self._alone else earlier)

    def join(self, pieces: Sequence[Piece], target: str, joining: Joining) -> Piece | None:
        """Append the pieces to the first, or to a copy of it if it is published; goes on at a synced offset."""
        first = pieces[0]
        begun = 0 if first.whole else first.length
        source, rest = (target, pieces) if first.whole else (first.path, pieces[1:])
        total = begun + sum(piece.length for piece in rest)
        file = files.AppendFile(source, max(begun, joining.offset), mode=files.SHARED)
        try:
            files.sync_directory(os.path.dirname(source))  # an offset in the log is worth nothing without the name
            while file.length < total and joining.keep_going():
                stretch = min(total, file.length + _SYNC_EVERY)
                while file.length < stretch and joining.keep_going():
                    file.append(_at(rest, file.length - begun))
                file.sync()
                joining.note(file.length)
            if not file.length and not total:
                file.append(self._form.empty)
            file.sync()
        finally:
            file.close()
        return Piece(source, file.length, whole=True) if file.length >= total else None

    def results(self, pieces: Sequence[Piece]) -> Iterator[Any]:
        """Yield what the format tells of the lines."""
        if self._alone:  # then each has its own header
            return chain.from_iterable(self._form.parse(self._lines(piece)) for piece in pieces)
        return self._form.parse(line for piece in pieces for line in self._lines(piece))

    def _lines(self, piece: Piece) -> Iterator[str]:
        return self._form.lines(_chunks(piece))


def _chunks(piece: Piece) -> Iterator[bytes]:
    """Yield the bytes of a piece."""
    at = 0
    while at < piece.length:
        chunk = _at([piece], at)
        at += len(chunk)
        yield chunk


def _at(pieces: Sequence[Piece], offset: int) -> bytes:
    """Return a chunk of the concatenated pieces from `offset` on."""
    for path, length, _ in pieces:
        if offset < length:
            with files.naming("read", path):
                fd = files.kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    chunk = files.kernel.pread(fd, min(_COPY, length - offset), offset)
                finally:
                    files.kernel.close(fd)
            if not chunk:
                raise DamageError(
                    f"'{path}' is shorter than the {length:,} bytes it had; the next run goes on from what is there"
                )
            return chunk
        offset -= length
    raise AssertionError("the offset lies behind the last piece")
