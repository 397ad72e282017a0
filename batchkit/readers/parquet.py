"""Rows of Parquet files; the cursor is `[file index, row]`."""

from __future__ import annotations

import glob
import os
from typing import Any, NamedTuple

from batchkit.errors import SourceError, UsageError
from batchkit.fingerprint import HEAD, compare, describe, fewer, foot
from batchkit.frames import parquet
from batchkit.frames.rows import Block, Rows, type_of
from batchkit.model import Batch, Cursor, Span, Verdict
from batchkit.readers.cutting import cut
from batchkit.readers.hive import partitions
from batchkit.readers.paths import is_pattern, name_of, patterns_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from batchkit.frames.rows import Table


class _File(NamedTuple):
    """A file as it was found: where, below which root, and what its footer says."""

    path: str
    root: str
    facts: os.stat_result
    rows: int
    schema: dict[str, Any]


class ParquetReader:
    """Reads the rows of one or more Parquet files as one list: an item is a dict, a batch a polars.DataFrame.

    sources: paths, glob patterns and directories (all *.parquet files in them), in order; a pattern's and a
        directory's files are sorted. `key=value` directories below a pattern's or directory's root are columns, too.
    columns: the columns to read, in this order; `None`: all.

    Resuming skips the row groups before the cursor. In memory are a few blocks and the row groups that polars decodes
    ahead, of a huge row group at most the rows of some 64 MiB. Reading ahead goes on while the function works.
    All files must have the same columns; what a file's footer says is read when the reader is made.
    """

    unit = "items"
    restartable = True
    durable = True

    def __init__(self, sources: Iterable[str | os.PathLike[str]], *, columns: Sequence[str] | None = None) -> None:
        """Find the files and read their footers. Raises `UsageError`, `SourceError`."""
        self._patterns = [os.fspath(source) for source in sources]
        found = [pair for pattern in self._patterns for pair in _matches(pattern)]
        if not found:
            raise UsageError("no input: give a Parquet file, a pattern, or a directory")
        self._files = [_file(path, root) for path, root in found]
        self._partitions = [
            {name: value for name, value in constants.items() if name not in each.schema}  # which many files keep, too
            for each, constants in zip(self._files, partitions([pair[:2] for pair in self._files]), strict=True)
        ]
        self._columns = _columns(self._files, self._partitions, columns)
        self._wanted = None if columns is None else list(columns)
        self.name = name_of(self._patterns[0])
        self.patterns = patterns_of(self._patterns)
        self.files: Sequence[str] = [each.path for each in self._files]

    def identity(self) -> Any:
        """Return paths and columns."""
        sources = [os.path.abspath(pattern) for pattern in self._patterns]
        return {"kind": "parquet", "sources": sources, "columns": self._wanted}

    def fingerprint(self) -> Any:
        """Return size, time, first and last block, and number of rows of each file."""
        return [
            {
                **describe(os.path.abspath(each.path), each.facts),
                "foot": foot(each.path),
                "rows": each.rows,
                "partitions": {name: type_of(value) for name, value in constants.items()},
            }
            for each, constants in zip(self._files, self._partitions, strict=True)
        ]

    def whole(self) -> Span:
        """Return the span of all rows there are now."""
        return Span([0, 0], self._end())

    def _end(self) -> list[int]:
        return [len(self._files) - 1, self._files[-1].rows]

    def read(self, span: Span, batch_size: int) -> Iterator[Batch]:
        """Go to the span's start by the footers and yield its batches."""
        first, offset = span.start
        last, end = self._end() if span.stop is None else span.stop
        for index in range(first, last + 1):
            start = offset if index == first else 0
            stop = end if index == last else self._files[index].rows
            foot_crc = foot(self._files[index].path)
            for frame in self._blocks(index, start, stop, batch_size):
                block = Block(frame)
                for at in range(0, block.height, batch_size):
                    rows = Rows(block, at, min(batch_size, block.height - at))
                    yield RowBatch(rows, index, start, foot_crc)
                    start += len(rows)

    def _blocks(self, index: int, start: int, stop: int, batch_size: int) -> Iterator[Table]:
        path = self._files[index].path
        scan = parquet.scan(path, self._columns, self._partitions[index])
        blocks = parquet.blocks(scan, start, stop, batch_size)
        while start < stop:
            try:
                block = next(blocks, None)
            except parquet.ERRORS as error:
                raise SourceError(
                    f"cannot read '{path}' from row {start + 1:,} on: {parquet.line_of(error)}"
                ) from error
            if block is None:
                raise SourceError(f"'{path}' ends at row {start:,}, where it had {stop:,} rows")
            start += block.height
            yield block

    def split(self, span: Span, count: int) -> list[Span]:
        """Cut a span into at most `count` of about the same number of rows."""
        (first, offset), (last, end) = span.start, self._end() if span.stop is None else span.stop
        stretches = []
        for index in range(first, last + 1):
            start, stop = offset if index == first else 0, end if index == last else self._files[index].rows
            if start < stop:
                stretches.append(((index, start, stop), stop - start))
        return cut(span, count, stretches, lambda _, row: row)

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Compare size, times, first and last block of each file: a Parquet file is never appended to."""
        del cursor, proof  # whatever changes a row changes the footer or the time
        now = self.fingerprint()
        if len(now) < len(fingerprint):
            return fewer(fingerprint, now)
        for was, file in zip(fingerprint, now, strict=False):
            try:
                verdict = compare(was, file)
            except OSError as error:
                raise SourceError(f"cannot read '{file['path']}': {error.strerror}") from error
            if verdict.kind == "same" and was["foot"] != file["foot"]:
                verdict = Verdict("changed", f"the last {HEAD:,} bytes of '{file['path']}' are not what they were")
            if verdict.kind == "same" and was["partitions"] != file["partitions"]:
                verdict = Verdict("changed", f"the partitions are {file['partitions']} and were {was['partitions']}")
            if verdict.kind != "same":
                return verdict._replace(kind="changed")
        if len(now) > len(fingerprint):
            return Verdict("appended", f"'{now[len(fingerprint)]['path']}' is new")
        return Verdict("same")

    def extent(self, span: Span) -> int:
        """Return the number of rows of a span."""
        first, start = span.start
        last, stop = self._end() if span.stop is None else span.stop
        if last >= len(self._files):
            raise IndexError(last)
        return sum(each.rows for each in self._files[first:last]) - int(start) + int(stop)

    def describe(self, cursor: Cursor) -> str:
        """Return file and row, from 1."""
        index, row = cursor
        return f"'{self._files[index].path}' row {row + 1:,}"


class RowBatch(Batch):
    """Consecutive rows of a file."""

    __slots__ = ("_index", "_row")

    items: Rows

    def __init__(self, items: Rows, index: int, row: int, proof: int) -> None:
        """Number the rows of the file with this index from `row`."""
        self.items = items
        self._index, self._row = index, row
        self.start = [index, row]
        self.stop = [index, row + len(items)]
        self.proof = proof
        self.unreadable = {}

    def split(self, count: int) -> tuple[Batch, Batch]:
        """Return the first `count` rows and the rest."""
        head, rest = self.items[:count], self.items[count:]
        return (
            RowBatch(head, self._index, self._row, self.proof),
            RowBatch(rest, self._index, self._row + count, self.proof),
        )

    def coordinate(self, index: int) -> list[int]:
        """Return file index and row."""
        return [self._index, self._row + index]


def _matches(pattern: str) -> list[tuple[str, str]]:
    """Return the files that a source names, each with the root below which directories may be partitions."""
    if os.path.isdir(pattern):
        root = _above_partitions(pattern.rstrip(os.sep))
        paths = glob.glob(os.path.join(glob.escape(pattern), "**", "*.parquet"), recursive=True)
        paths = [path for path in paths if not _hidden(os.path.relpath(path, pattern))]
    elif not is_pattern(pattern):
        return [(pattern, os.path.dirname(pattern))]
    else:
        root = os.path.dirname(pattern)
        while glob.has_magic(root):
            root = os.path.dirname(root)
        root = _above_partitions(root)
        paths = glob.glob(pattern, recursive=True)
    files = sorted(path for path in paths if not os.path.isdir(path))
    if not files and os.path.isdir(pattern):
        raise UsageError(
            f"there is no .parquet file in '{pattern}'; give other files as '{os.path.join(pattern, '*')}'"
        )
    if not files:
        raise UsageError(f"no file matches '{pattern}'")
    return [(path, root) for path in files]


def _above_partitions(directory: str) -> str:
    """Return the directory above partitions that a source itself names: `year=2026/*.parquet` has the column, too."""
    while "=" in os.path.basename(directory):
        directory = os.path.dirname(directory)
    return directory


def _hidden(path: str) -> bool:
    """Tell what other programs put beside their data: names with `_` or `.` in front."""
    return any(part[0] in "._" for part in path.split(os.sep))


def _file(path: str, root: str) -> _File:
    if path == "-":
        raise UsageError("Parquet cannot be read from standard input, only from its end: give a file")
    if not os.path.exists(path):
        raise UsageError(f"there is no file '{path}'")
    try:
        return _File(path, root, os.stat(path), parquet.rows_of(path), parquet.schema_of(path))
    except parquet.ERRORS as error:
        raise SourceError(f"cannot read '{path}' as Parquet (cut off or damaged?): {parquet.line_of(error)}") from error


def _columns(
    files: Sequence[_File], constants: Sequence[dict[str, Any]], wanted: Sequence[str] | None
) -> list[str] | None:
    """Return the columns to read of each file, and see that all files have them, of the same types."""
    first = files[0]
    known = [*first.schema, *(name for name in constants[0] if name not in first.schema)]
    if wanted is not None and (not wanted or len(set(wanted)) < len(wanted)):
        raise UsageError(f"columns is {list(wanted)}; give each column once, and at least one")
    for name in wanted or ():
        if name not in known:
            raise UsageError(f"'{first.path}' has no column '{name}'; it has {', '.join(known)}")
    for each in files:
        for name in wanted or {**first.schema, **each.schema}:
            here, there = each.schema.get(name), first.schema.get(name)
            if here != there:
                raise SourceError(
                    f"the column '{name}' is {here or 'missing'} in '{each.path}' and {there or 'missing'} in "
                    f"'{first.path}'; give columns= (--columns) without it"
                )
    return list(wanted or known)
