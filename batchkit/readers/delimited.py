"""CSV and TSV files: an item is a row as a dict of strings; the cursor is `[file index, byte offset]` of a record."""

from __future__ import annotations

import csv
from typing import Any, NamedTuple

from batchkit.errors import SourceError, UsageError
from batchkit.readers.cutting import behind_batch
from batchkit.readers.lines import MAX_ITEM_BYTES, SplitReader, at_least_one
from batchkit.readers.quoting import CsvSplitter
from batchkit.readers.splitting import BOM

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from batchkit.model import Batch, Cursor, Span, Verdict
    from batchkit.readers.blocks import Blocks
    from batchkit.readers.cutting import Stretch

HEADER_BYTES = 1 << 20
"""A header that is longer is none."""

_STEP = 100
_NEAR = 64 << 10
"""Where a file is to be cut, it is read so many records at a time; one by one where that is within so many bytes."""


class _Head(NamedTuple):
    """The first record of a file: its fields, and where the record behind it begins."""

    fields: list[str]
    end: int


class CsvReader(SplitReader):
    """Reads the rows of one or more CSV files as one list of dicts, with the values of `csv.DictReader`.

    sources: as for `LineReader`, compressed files too.
    separator: the character between fields. header: whether the first record of each file names the columns, the same
    in every file; else they are column_1, column_2, ... columns: keeps only these, in this order; `None`: all.
    max_item_bytes: a longer record fails as an item.

    An empty field is "". Fields may be quoted and then hold separators, line ends and doubled quotes (RFC 4180); lines
    end at LF or CRLF. A blank line is no item. A row with more or fewer fields than the header fails as an item. What
    malformed quotes do, `quoting` says. `items` of a batch are `Records`.

    Resuming seeks to the record; the header is read again. Where records begin can only be told from the beginning of
    another one, so that a file is read once to be cut for several workers.
    """

    kind = "csv"
    _splitter: CsvSplitter

    def __init__(
        self,
        sources: Iterable[str | os.PathLike[str]],
        *,
        separator: str = ",",
        header: bool = True,
        columns: Sequence[str] | None = None,
        max_item_bytes: int = MAX_ITEM_BYTES,
    ) -> None:
        """Find the files, their sizes and columns. Raises `UsageError`; `SourceError` for a header that is none."""
        if len(separator) != 1 or separator in '"\r\n':
            raise UsageError(f"the separator is {separator!r}; give one character, no quote and no line end")
        if columns is not None and (not columns or len(set(columns)) < len(columns)):
            raise UsageError(f"columns is {list(columns)!r}; give at least one name, and none twice")
        super().__init__(sources, CsvSplitter(separator, at_least_one(max_item_bytes)))
        self._header = header
        self._chosen = None if columns is None else list(columns)
        self._heads: dict[int, _Head | None] = {}
        self._named_by = -1
        if self.restartable:
            self._find_columns()

    def options(self) -> dict[str, Any]:
        """Return separator, header and the columns asked for."""
        return {"separator": self._splitter.separator, "header": self._header, "columns": self._chosen}

    def read(self, span: Span, batch_size: int) -> Iterator[Batch]:
        """Find the columns and read as every reader does."""
        self._find_columns()
        return super().read(span, batch_size)

    def _border(self, stretch: Stretch, offset: int) -> int | None:
        """Read up to there: a line end may stand in quotes."""
        index, start, stop = stretch
        source = self._listing.open(index, start, stop)
        size = 1 if offset - start < _NEAR else _STEP
        try:
            return behind_batch(self._splitter.batches(source, index, start, size), stretch, offset)
        finally:
            source.close()

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Find the columns, in a pipe before it is read up to the cursor, and compare as every reader does."""
        self._find_columns()
        return super().check(fingerprint, cursor, proof)

    def _find_columns(self) -> None:
        """Take the columns of the first file that holds anything."""
        files = range(len(self._listing.paths))
        if self._named_by >= 0 or (index := next((index for index in files if self._head(index)), None)) is None:
            return
        head = self._head(index)
        assert head is not None
        names = head.fields if self._header else [f"column_{at}" for at, _ in enumerate(head.fields, 1)]
        if self._header:
            self._refuse_bad_names(index, names)
        splitter = self._splitter
        splitter.columns = splitter.wanted = names
        if self._chosen is not None:
            for name in self._chosen:
                if name not in names:
                    raise UsageError(f"there is no column '{name}'; there are {', '.join(names)}")
            splitter.wanted = self._chosen
            splitter.pick = [names.index(name) for name in self._chosen]
        self._named_by = index

    def _refuse_bad_names(self, index: int, names: list[str]) -> None:
        for at, name in enumerate(names):
            if not name or name in names[:at]:
                what = f"the name '{name}' twice" if name else f"no name for column {at + 1}"
                raise SourceError(
                    f"the header of '{self._listing.paths[index]}' has {what}: {_row(names)}; mend it, or read the "
                    "file as one without a header"
                )

    def _first(self, index: int) -> int:
        """Return where the rows of a file begin. Raises `SourceError` if its header is another one."""
        if not self._header:
            return 0
        head = self._head(index)
        if head is None:
            return 0
        if head.fields != list(self._splitter.columns):
            paths = self._listing.paths
            raise SourceError(
                f"the header of '{paths[index]}' is {_row(head.fields)}, that of '{paths[self._named_by]}' is "
                f"{_row(self._splitter.columns)}; give files with the same columns"
            )
        return head.end

    def _head(self, index: int) -> _Head | None:
        """Return the first record of a file; `None` if it holds nothing."""
        if index not in self._heads:
            if self.restartable:
                source = self._listing.begin(index)
                try:
                    self._heads[index] = self._head_of(source, index)[0]
                finally:
                    source.close()
            else:
                source = self._listing.pipe()
                self._heads[index], seen = self._head_of(source, index)
                source.give_back(seen)
        return self._heads[index]

    def _head_of(self, source: Blocks, index: int) -> tuple[_Head | None, bytes]:
        """Read up to the end of the first record; return it, and everything that was read."""
        path = self._listing.paths[index]
        data, whole = b"", False
        while not whole and (block := source.read()):
            data += block
            head = self._head_in(data, path)
            if head is not None:
                return head, data
            if len(data) > HEADER_BYTES:
                raise SourceError(f"the header of '{path}' does not end within {HEADER_BYTES:,} bytes; is it CSV?")
        head = self._head_in(data + b"\n", path)
        if head is None and data.strip().removeprefix(BOM):
            raise SourceError(f"the header of '{path}' opens a quote and does not close it; mend the file")
        return None if head is None else head._replace(end=min(head.end, len(data))), data

    def _head_in(self, data: bytes, path: str) -> _Head | None:
        """Return the first record of a file that begins with `data`; `None` if it does not end there."""
        mark = len(BOM) if data.startswith(BOM) else 0
        records, _ = self._splitter.split(data[mark:])
        at = mark
        for record in records:
            at += len(record.encode("utf-8", "surrogateescape")) + 1
            if record.rstrip("\r"):
                return _Head(self._fields(record, path), at)
        return None

    def _fields(self, record: str, path: str) -> list[str]:
        try:
            record.encode()
            return self._splitter.parsed([record])[0]
        except UnicodeEncodeError:
            raise SourceError(f"the header of '{path}' is not valid UTF-8; convert the file") from None
        except csv.Error as error:
            raise SourceError(f"the header of '{path}' is not CSV: {error}") from error


def _row(names: Sequence[str]) -> str:
    return repr(",".join(names))
