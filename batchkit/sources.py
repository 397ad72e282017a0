"""Which reader a source gets: by what it is, a path by its suffix."""

from __future__ import annotations

import glob
import os
from typing import Any

from batchkit.databases.address import is_address, refuse_unknown
from batchkit.errors import UsageError
from batchkit.readers.lines import MAX_ITEM_BYTES, LineReader
from batchkit.readers.paths import unpacked
from batchkit.readers.sequence import SequenceReader, as_sequence
from batchkit.readers.stream import StreamReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.readers.base import Reader
    from batchkit.readers.database import DatabaseReader
    from batchkit.readers.delimited import CsvReader
    from batchkit.readers.ndjson import NdjsonReader
    from batchkit.readers.parquet import ParquetReader

    Path = str | os.PathLike[str]

FORMATS = ("lines", "csv", "tsv", "ndjson", "parquet")
_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "ndjson",
    ".ndjson": "ndjson",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_OPTIONS = {
    "lines": {"delimiter", "skip_blank", "max_item_bytes"},
    "csv": {"separator", "header", "columns", "max_item_bytes"},
    "tsv": {"header", "columns", "max_item_bytes"},
    "ndjson": {"max_item_bytes"},
    "parquet": {"columns"},
}


def lines(
    *sources: Path, delimiter: str = "\n", skip_blank: bool = False, max_item_bytes: int = MAX_ITEM_BYTES
) -> LineReader:
    """Return a reader of the lines of several files or glob patterns, as one list in the order given.

    Files that end in .gz, .zst, .bz2 or .xz are unpacked; "-" alone is standard input.
    delimiter: what ends a line. skip_blank: whether lines of white space only are no items.
    max_item_bytes: a longer line fails as an item; also bounds the bytes of a batch, and so the memory.
    """
    return LineReader(sources, delimiter=delimiter, skip_blank=skip_blank, max_item_bytes=max_item_bytes)


def csv(
    *sources: Path,
    separator: str = ",",
    header: bool = True,
    columns: Sequence[str] | None = None,
    max_item_bytes: int = MAX_ITEM_BYTES,
) -> CsvReader:
    """Return a reader of the rows of CSV files, compressed or not, as dicts of strings; an empty field is "".

    Line breaks in quotes are right. Blank lines are no items; a row with more or fewer fields than the header fails as
    an item. All files must have the same header, without duplicates.
    separator: one character. header: whether each file begins with one; else columns are column_1, column_2, ….
    columns: those to keep, in this order; `None`: all. max_item_bytes: a longer row fails as an item.
    """
    from batchkit.readers.delimited import CsvReader  # noqa: PLC0415  # only who reads CSV pays for it

    return CsvReader(sources, separator=separator, header=header, columns=columns, max_item_bytes=max_item_bytes)


def ndjson(*sources: Path, max_item_bytes: int = MAX_ITEM_BYTES) -> NdjsonReader:
    """Return a reader of files with a JSON value a line (.jsonl, .ndjson), compressed or not.

    Blank lines are no items; a line that is not JSON, or longer than max_item_bytes, fails as an item.
    """
    from batchkit.readers.ndjson import NdjsonReader  # noqa: PLC0415  # as above

    return NdjsonReader(sources, max_item_bytes=max_item_bytes)


def parquet(*sources: Path, columns: Sequence[str] | None = None) -> ParquetReader:
    """Return a reader of the rows of Parquet files, patterns and directories, as dicts.

    Directories named key=value, below the source or in it, are columns, too, unless the files have them.
    columns: those to read, in this order; `None`: all, which must be the same in all files.
    """
    from batchkit.readers.parquet import ParquetReader  # noqa: PLC0415  # loads polars

    return ParquetReader(sources, columns=columns)


def of_paths(*sources: Path, input_format: str | None = None, **options: Any) -> Reader:
    """Return the reader of files, by `input_format`, or by their suffix if that is `None`; or of a database's address.

    options: those of the reader; one that is `None` counts as not given. Raises `UsageError`.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for source in sources:
        refuse_unknown(source)
    if any(map(is_address, sources)):
        return _of_address(sources, [*given, *(["input_format"] if input_format is not None else [])])
    if input_format is not None and input_format not in FORMATS:
        raise UsageError(f"input_format is {input_format!r}; give one of {', '.join(FORMATS)}")
    found = {_format_of(os.fspath(source)) for source in sources} if input_format is None else {input_format}
    if len(found) > 1:
        raise UsageError(f"the sources are {' and '.join(sorted(found))}; give one kind, or say which: --input-format")
    kind = found.pop() if found else "lines"
    for name in given.keys() - _OPTIONS[kind]:
        fitting = " or ".join(each for each in FORMATS if name in _OPTIONS[each])
        raise UsageError(f"{name} is for {fitting}, and the source is read as {kind}; leave it out, or --input-format")
    if kind == "tsv":
        return csv(*sources, separator="\t", **given)
    makers: dict[str, Any] = {"lines": lines, "csv": csv, "ndjson": ndjson, "parquet": parquet}
    reader: Reader = makers[kind](*sources, **given)
    return reader


def of_identity(identity: Any) -> Reader | None:
    """Return the reader of files that a job's definition knows by this; `None` for other sources, and pipes."""
    kind, sources = identity.get("kind"), identity.get("sources", ["-"])
    if kind not in FORMATS or "-" in sources:
        return None
    options = {name: value for name, value in identity.items() if name in _OPTIONS[kind]}
    return of_paths(*sources, input_format=kind, **options)


def _of_address(sources: Sequence[Path], options: Sequence[str]) -> DatabaseReader:
    from batchkit.readers.database import DatabaseReader  # noqa: PLC0415  # as above

    if len(sources) > 1:
        raise UsageError("a database is a source of its own; give its address alone, one table or query")
    if options:
        raise UsageError(
            f"{options[0]} is for files, and the source is a database; leave it out, and let a query choose and name "
            "columns: ?query=SELECT...&cursor=id"
        )
    return DatabaseReader(str(sources[0]))


def _format_of(source: str) -> str:
    if os.path.isdir(source):
        return "parquet"
    name = source if os.path.lexists(source) or not glob.has_magic(source) else source.rstrip("*")
    return _BY_SUFFIX.get(os.path.splitext(unpacked(name).lower())[1], "lines")


def reader_of(source: Any, *, input_format: str | None = None, columns: Sequence[str] | None = None) -> Reader:
    """Return the reader for whatever `process` was given. Raises `UsageError`."""
    if isinstance(source, str | os.PathLike):
        return of_paths(source, input_format=input_format, columns=columns)
    if input_format is not None or columns is not None:
        raise UsageError("input_format and columns are for paths; make a reader instead, such as batchkit.csv(...)")
    if hasattr(source, "fingerprint") and hasattr(source, "whole"):
        return source  # type: ignore[no-any-return]
    if hasattr(source, "collect_schema") or (hasattr(source, "__arrow_c_stream__") and hasattr(source, "columns")):
        return _of_table(source)
    if hasattr(source, "read") and not hasattr(source, "__iter__"):
        from batchkit.readers.custom import SourceReader  # noqa: PLC0415  # as above

        return SourceReader(source)
    sequence = as_sequence(source)
    if sequence is not None:
        return SequenceReader(sequence)
    if hasattr(source, "__iter__") and not isinstance(source, bytes):
        return StreamReader(source)
    raise UsageError(f"the source is a {type(source).__name__}; give a path, a list, an iterable or a reader")


def _of_table(table: Any) -> Reader:
    from batchkit.frames.queries import is_query  # noqa: PLC0415  # loads polars
    from batchkit.frames.rows import table_of, whole  # noqa: PLC0415
    from batchkit.readers.query import QueryReader  # noqa: PLC0415

    return QueryReader(table) if is_query(table) else SequenceReader(whole(table_of(table)))
