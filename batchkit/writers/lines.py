"""Text, JSONL and CSV files, compressed or not. Exactly once: see `part`."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
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
    from collections.abc import Container, Iterator, Sequence

    from batchkit.model import Mark
    from batchkit.writers.agreement import Agreement, Terms
    from batchkit.writers.base import Header, Joining
    from batchkit.writers.formats import Format

_COPY = 1 << 20
_HEADER = 64 << 10
_SYNC_EVERY = 64 << 20


class LineWriter:
    """Appends the rendered results of a shard to its part file."""

    def __init__(
        self,
        path: str,
        form: Format,
        before: Sequence[str],
        beside: Sequence[str] = (),
        *,
        agreement: Agreement,
        apart: bool = False,
        mode: int = files.SHARED,
    ) -> None:
        """Write to the part at `path`.

        before: files that the part will stand behind: the first of them with results has the header. beside: others
        that tell the columns, with headers of their own. agreement: tells the columns if there is one; the part then
        has no header, unless it stands `apart`.
        """
        self._part = Part(path, mode=mode)
        self._form = form
        self._before = before
        self._beside = beside
        self._agreement = agreement
        self._apart = apart
        self._terms: Terms | None = None
        self.mark = self._part.mark

    def intact(self, marks: Sequence[list[int]]) -> int:
        """Return the index of the last mark that the part covers."""
        return self._part.intact(marks)

    def open(self, mark: list[int] | None) -> None:
        """Cut the part to the mark, and let the format learn from the first file that has something to learn from."""
        self._part.open(mark)
        terms = self._agreement.newest() if self._form.headed else None
        if terms is not None:
            self._agree(terms)
        elif not any(map(self._learned, (*self._before, self._part.path))) and any(map(self._learned, self._beside)):
            self._form.know(self._form.columns, due=True)

    def _agree(self, terms: Terms) -> None:
        """Go by the columns of an agreement, or propose those of the first result where it has none yet."""
        own = self._apart or terms["headed"] == os.path.basename(self._part.path)
        if own and self._learned(self._part.path):
            return
        columns = terms["columns"]
        self._form.know(columns, due=own)
        self._terms = terms if columns is None else None

    def _learned(self, path: str) -> bool:
        with closing(blocks([Piece(path, files.size(path) or 0)], size=_COPY)) as chunks:
            return self._form.resume(self._form.lines(chunks))

    def place(self) -> int:
        """Return the length of the part."""
        return self._part.length

    def write(self, results: Sequence[Any]) -> None:
        """Render and append."""
        results = listed(results)
        data = self._form.render(results)
        if self._terms is not None and self._form.columns is not None:
            data = self._proposed(self._terms, results, data)
        if data:
            self._part.append(data)

    def _proposed(self, terms: Terms, results: Sequence[Any], data: bytes) -> bytes:
        """Propose the columns of the first results; return these as they are to be written by what is agreed on."""
        mine = {**_terms(self._form, self._form.columns, None), "headed": terms["headed"]}
        agreed = self._agreement.propose(mine)
        if agreed is not mine:
            self._agree(agreed)
            return self._form.render(results)
        self._terms = None
        return data

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
        self,
        part: str,
        before: Sequence[str],
        beside: Sequence[str] = (),
        *,
        agreement: Agreement,
        apart: bool = False,
        mode: int = files.SHARED,
    ) -> LineWriter:
        """Return the writer of a part, with a format of its own: what one learns is not for the others."""
        before = () if self._alone else before
        apart = apart or self._alone
        return LineWriter(part, deepcopy(self._form), before, beside, agreement=agreement, apart=apart, mode=mode)

    def terms(self, stored: Sequence[Piece], beside: Sequence[Piece]) -> Terms | None:
        """Return the columns that there are, and which part has the header; `None` for formats without one.

        Where none has it, the first part is to have it: then others can be appended to that, as it is.
        """
        if not self._form.headed:
            return None
        parts = () if self._alone else [piece for piece in stored if not piece.whole]
        first = next(iter(parts), None)
        for piece in (*stored, *beside):
            header = self.header(piece)
            if header is not None:
                headed = first if piece in beside else piece if piece in parts else None
                return _terms(self._form, header.names, headed)
        return _terms(self._form, None, first)

    def lead(self, agreement: Agreement, pieces: Sequence[Piece]) -> tuple[Piece | None, Container[str]]:
        """Return the header that was agreed on, if it stands in no file, and which parts have none."""
        terms = agreement.newest() if self._form.headed else None
        if terms is None:
            return None, ()
        bare = {piece.path for piece in pieces if not piece.whole and os.path.basename(piece.path) != terms["headed"]}
        if terms["columns"] is None or any(self.header(piece) for piece in pieces if piece.path not in bare):
            return None, bare
        header = b64decode(terms["header"])
        return Piece(agreement.path, len(header), stop=len(header), data=header), bare

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
        with closing(blocks([piece._replace(start=0, stop=None)], size=_HEADER)) as chunks:
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


def _terms(form: Format, columns: Sequence[str] | None, headed: Piece | None) -> Terms:
    """Return the terms of lines: columns, `None`: open yet; the header as it stands in the output; the part with it.

    That part has the header whenever there is something in it; it comes before all others that may have results.
    `None`: no part has one.
    """
    header = None if columns is None else b64encode(form.head(columns)).decode()
    name = None if headed is None else os.path.basename(headed.path)
    return {"columns": None if columns is None else list(columns), "header": header, "headed": name}


def _size(piece: Piece) -> int:
    return (piece.length if piece.stop is None else piece.stop) - piece.start
