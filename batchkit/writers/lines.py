"""Text, JSONL and CSV files, compressed or not. Exactly once: see `part`."""

from __future__ import annotations

import os
from contextlib import closing
from copy import deepcopy
from typing import Any

from batchkit import files
from batchkit.writers.base import Piece
from batchkit.writers.part import Part
from batchkit.writers.reading import blocks
from batchkit.writers.values import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchkit.model import Mark
    from batchkit.writers.base import Header, Joining
    from batchkit.writers.formats import Format

_COPY = 1 << 20
_HEADER = 64 << 10
_SYNC_EVERY = 64 << 20


class LineWriter:
    """Appends the rendered results of a shard to its part file."""

    def __init__(
        self, path: str, form: Format, before: Sequence[str], beside: Sequence[str] = (), *, mode: int = files.SHARED
    ) -> None:
        """Write to the part at `path`.

        before: files that the part will stand behind: the first of them with results has the header. beside: others
        that tell the columns, with headers of their own.
        """
        self._part = Part(path, mode=mode)
        self._form = form
        self._before = before
        self._beside = beside
        self.mark = self._part.mark

    def intact(self, marks: Sequence[list[int]]) -> int:
        """Return the index of the last mark that the part covers."""
        return self._part.intact(marks)

    def open(self, mark: list[int] | None) -> None:
        """Cut the part to the mark, and let the format learn from the first file that has something to learn from."""
        self._part.open(mark)
        if any(map(self._learned, (*self._before, self._part.path))):
            return
        if any(map(self._learned, self._beside)):
            self._form.renew()

    def _learned(self, path: str) -> bool:
        with closing(blocks([Piece(path, files.size(path) or 0)], size=_COPY)) as chunks:
            return self._form.resume(self._form.lines(chunks))

    def place(self) -> int:
        """Return the length of the part."""
        return self._part.length

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

    def writer(
        self, part: str, before: Sequence[str], beside: Sequence[str] = (), *, mode: int = files.SHARED
    ) -> LineWriter:
        """Return the writer of a part, with a format of its own: what one learns is not for the others."""
        return LineWriter(part, deepcopy(self._form), () if self._alone else before, beside, mode=mode)

    def extent(self, mark: Mark) -> int:
        """Return the bytes of a part."""
        return int(mark[0]) if mark else 0

    def places(self, piece: Piece) -> int:
        """Return the bytes of a file."""
        return piece.length

    def header(self, piece: Piece) -> Header | None:
        """Return the header that a file begins with."""
        if not self._form.headed or not piece.length:
            return None
        with closing(blocks([Piece(piece.path, piece.length)], size=_HEADER)) as chunks:
            return self._form.header(chunks)

    def join(self, pieces: Sequence[Piece], target: str, joining: Joining) -> Piece | None:
        """Append the pieces to the first if it is a part as it is, else copy all; goes on at a synced offset."""
        first = pieces[0]
        copied = first.whole or first.stop is not None
        begun, source, rest = (0, target, pieces) if copied else (first.length, first.path, pieces[1:])
        total = begun + sum(map(_size, rest))
        if copied and joining.offset > (files.size(target) or 0):  # somebody has removed it
            joining.note(0)  # else the next attempt might believe the offset of one that ends unsynced
            joining.offset = 0
        file = files.AppendFile(source, max(begun, joining.offset), mode=files.SHARED)
        try:
            files.sync_directory(os.path.dirname(source))  # an offset in the log is worth nothing without the name
            with closing(blocks(rest, file.length - begun, size=_COPY)) as chunks:
                while file.length < total and joining.keep_going():
                    stretch = min(total, file.length + _SYNC_EVERY)
                    while file.length < stretch and joining.keep_going():
                        file.append(next(chunks))
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
        return self._form.parse(self._form.lines(blocks(pieces, size=_COPY)))


def _size(piece: Piece) -> int:
    return (piece.length if piece.stop is None else piece.stop) - piece.start
