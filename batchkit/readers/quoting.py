"""Bytes into CSV records (RFC 4180), whose quoted fields may hold line ends.

A line with an odd number of quotes, within whose last field Python's `csv` finds itself at the end, opens a record that
runs up to the next line with an odd number of quotes. Every other line is a record. So a record is told by the bytes
from its beginning on, and reading can go on at any record. Counting quotes is one pass over blocks that have any.

What malformed quotes do: a quote in the middle of a field that does not begin with one is a character like any other.
A quote that is opened and not closed, before the end of the file or within the limit for an item, costs the line that
opens it, as an unreadable item; reading goes on with the next line. So a record over several lines that is longer than
the limit is not one item but as many as it has lines: whether it is one record or a stray quote, nobody can tell.
"""

from __future__ import annotations

import csv
from itertools import chain
from operator import itemgetter
from typing import Any

from batchkit.readers.blocks import READ_SIZE
from batchkit.readers.records import Records
from batchkit.readers.splitting import BOM, Splitter, Unread, decode, pass_giant, too_long

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchkit.readers.blocks import Blocks

_MARK = "\ufeff"
_BLANK = ("", "\r")


class CsvSplitter(Splitter):
    """Splits bytes into records, and parses those into rows.

    separator: what is between fields. columns: the names of the fields; set before `batches` is called. pick: the
    indexes of those that are wanted; `None`: all. wanted: their names.
    """

    def __init__(self, separator: str, limit: int) -> None:
        """Keep the rules; the columns come later."""
        super().__init__("\n", skip_blank=True, limit=limit)
        self.separator = separator
        self.columns: Sequence[str] = ()
        self.wanted: Sequence[str] = ()
        self.pick: Sequence[int] | None = None

    def _blocks(self, source: Blocks) -> Iterator[tuple[list[str], bytes, Unread | None]]:
        """Yield `(records, bytes, None)` per block, and `([], last bytes, what it was)` for a line that is none."""
        held: list[bytes] = []  # a line that goes on
        size = 0
        again = _Again(source)
        while block := again.read():
            while size + len(block) > self.limit + len(BOM) + len(b"\r\n") and b"\n" not in block:
                tail, length, block = pass_giant([*held, block], again.read, b"\n")
                held, size = [], 0
                yield [], tail, too_long(length)
            held.append(block)
            size += len(block)
            if b"\n" in block:
                data = b"".join(held)
                records, end = self.split(data)
                if end:
                    yield records, data[:end], None
                rest = data[end:]
                if b"\n" in rest:
                    yield self._finished(rest, again)
                    rest = b""
                held, size = [rest], len(rest)
        for records, data in self._pieces(b"".join(held)):
            yield records, data, None

    def _finished(self, begun: bytes, again: _Again) -> tuple[list[str], bytes, None]:
        """Read on where a quoted field goes on behind a line end: the record, or its first line if it does not end."""
        held, size, quotes = [begun], len(begun), begun.count(b'"')
        closed = False
        while not closed and size <= self.limit:
            block = again.read()
            end = _end_of_record(block, quotes)
            closed = end > 0 or (not block and quotes % 2 == 0)
            if end:
                again.give_back(block[end:])
                block = block[:end]
            held.append(block)
            size += len(block)
            quotes += block.count(b'"')
            if not block:
                break
        data = b"".join(held)
        record = data.removesuffix(b"\n")
        if not closed or len(record) > self.limit:
            record, _, rest = data.partition(b"\n")
            again.give_back(rest)
            data = record + b"\n"
        return [decode(record)], data, None

    def _pieces(self, data: bytes) -> Iterator[tuple[list[str], bytes]]:
        """Yield the records of bytes that nothing follows; a line that opens a quote for good is one by itself."""
        while data:
            records, end = self.split(data if data.endswith(b"\n") else data + b"\n")
            if not end:
                line, _, _ = data.partition(b"\n")
                records, end = [decode(line)], len(line) + 1
            yield records, data[:end]
            data = data[end:]

    def split(self, data: bytes) -> tuple[list[str], int]:
        """Return the whole records at the beginning of `data`, and where they end."""
        end = data.rfind(b"\n") + 1
        text = decode(data[:end])
        lines = text.split("\n")
        lines.pop()
        if '"' not in text:
            return lines, end
        records, count = self._join(lines)
        if count < len(lines):
            end -= len("\n".join(lines[count:]).encode("utf-8", "surrogateescape")) + 1
        return records, end

    def _join(self, lines: list[str]) -> tuple[list[str], int]:
        """Return the records that lines make up, and how many lines those are."""
        odd = [at for at, line in enumerate(lines) if line.count('"') & 1]
        records: list[str] = []
        done = next_odd = 0
        while next_odd < len(odd):
            at = odd[next_odd]
            next_odd += 1
            if not self._opens(lines[at].removeprefix(_MARK)):
                continue
            if next_odd == len(odd):
                return records + lines[done:at], at
            close = odd[next_odd] + 1
            record = "\n".join(lines[at:close])
            if len(record.encode("utf-8", "surrogateescape")) <= self.limit:
                records += lines[done:at]
                records.append(record)
                done = close
                next_odd += 1
        return (records + lines[done:] if done else lines), len(lines)

    def _opens(self, line: str) -> bool:
        """Tell whether a line ends within a quoted field, which takes the next line in."""
        try:
            return len(self.parsed([line, ""])) == 1
        except csv.Error:
            return False

    def parsed(self, lines: list[str]) -> list[list[str]]:
        """Return what `csv` makes of lines. Raises `csv.Error`."""
        if csv.field_size_limit() < self.limit:  # one for the whole process: only ever made larger
            csv.field_size_limit(self.limit)
        return list(csv.reader(lines, delimiter=self.separator))

    def _rows(self, records: list[str]) -> list[list[str]] | None:
        """Return the rows of records; `None` if one of them does not end where it should."""
        try:
            rows = self.parsed([*records, ""])  # a quoted field that is open at the end takes the blank line in
        except csv.Error:
            return None
        return rows[:-1] if len(rows) == len(records) + 1 else None

    def items_of(self, lines: list[str], raw: bytes, *, first: bool) -> tuple[Any, dict[int, str]]:
        """Return the rows of whole records, and why some of them are none."""
        if lines and first and raw.startswith(BOM):
            lines = [lines[0][1:], *lines[1:]]
        records = [line for line in lines if line not in _BLANK]
        sound = len(raw) <= self.limit and _is_utf8(raw)
        rows: Sequence[Sequence[str] | None] | None = self._rows(records) if sound else None
        unreadable: dict[int, str] = {}
        if rows is None or not set(map(len, rows)) <= {len(self.columns)}:  # type: ignore[arg-type]
            found = [self.row(record) for record in records]
            unreadable = {at: row for at, row in enumerate(found) if isinstance(row, str)}
            rows = [None if isinstance(row, str) else row for row in found]
        if self.pick is not None:
            one, take = self.pick[0], itemgetter(*self.pick)
            if len(self.pick) == 1:  # of which itemgetter makes no row
                rows = [None if row is None else (row[one],) for row in rows]
            else:
                rows = [None if row is None else take(row) for row in rows]
        return Records(self.wanted, rows), unreadable

    def row(self, record: str) -> list[str] | str:
        """Return the fields of one record, or why it has none."""
        why = self.why_not(record)
        if why:
            return why
        rows = self._rows([record])
        if rows is None:
            return self._why_no_row(record)
        if len(rows[0]) != len(self.columns):
            found = len(rows[0])
            return f"it has {found:,} field{'' if found == 1 else 's'}, the header has {len(self.columns):,}"
        return rows[0]

    def _why_no_row(self, record: str) -> str:
        try:
            self.parsed([record])
        except csv.Error as error:
            if "new-line character" in str(error):
                return "a line end or carriage return stands outside of quotes"
            return f"not valid CSV: {error}"
        return f"a quote is opened and not closed within {self.limit:,} bytes or before the end of the file"

    def places(self, raw: bytes, *, first: bool) -> Iterator[int]:
        """Yield where in `raw` the items begin; `first`: whether `raw` begins the file."""
        at = 0
        for record in chain.from_iterable(records for records, _ in self._pieces(raw)):
            text = record.removeprefix(_MARK) if first and at == 0 else record
            if text not in _BLANK:
                yield at
            at += len(record.encode("utf-8", "surrogateescape")) + 1


class _Again:
    """The blocks of a source, some of which are read twice."""

    def __init__(self, source: Blocks) -> None:
        self._source = source
        self._back: list[tuple[bytes, int]] = []
        self._ended = False

    def read(self) -> bytes:
        """Return the next block; what was given back comes in small ones, too."""
        while self._back:
            data, at = self._back.pop()
            block = data[at : at + READ_SIZE]
            if block:
                self._back.append((data, at + len(block)))
                return block
        block = b"" if self._ended else self._source.read()
        self._ended = not block
        return block

    def give_back(self, data: bytes) -> None:
        """Let `data`, which was read last, be read again."""
        self._back.append((data, 0))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _end_of_record(block: bytes, quotes: int) -> int:
    """Return where a record ends within a block, behind a line end with an even number of quotes before it; else 0."""
    if b'"' not in block:
        return block.find(b"\n") + 1 if quotes % 2 == 0 else 0
    at = 0
    while (end := block.find(b"\n", at) + 1) > 0:
        quotes += block.count(b'"', at, end)
        if quotes % 2 == 0:
            return end
        at = block.find(b'"', end)  # nothing changes before the next quote
        if at < 0:
            return 0
    return 0
