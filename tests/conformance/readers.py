"""Every kind of source there is, one entry each: `READERS`. A new reader is one more entry.

A source is made of rows, plain strings; what item a row becomes is the entry's to say.
"""

from __future__ import annotations

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
import os
import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

import batchkit
from batchkit import compression
from batchkit.sources import reader_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from batchkit.readers.base import Reader

    Rows = Sequence[str]
    Put = Callable[[Path, Rows], None]
    """Make the source hold exactly these rows."""
    Open = Callable[[Path, Rows], Any]
    """Return what `process` takes for the source that holds these rows: a new object each time."""
    Add = Callable[[Path, Rows, Rows], None]
    """Let a source that holds some rows grow by more."""
    Items = Callable[[Rows], list[Any]]


class ReaderCase(NamedTuple):
    """A kind of source. See above for put, source and add; items: the rows as items; add: `None` if it cannot grow."""

    name: str
    put: Put
    source: Open
    items: Items
    add: Add | None

    def reader(self, directory: Path, rows: Rows) -> Reader:
        """Return a new reader of the source."""
        return reader_of(self.source(directory, rows))


def _nothing(*_: object) -> None:
    """Do nothing: the source is in memory."""


def _plain(rows: Rows) -> list[Any]:
    return list(rows)


# Lines ---------------------------------------------------------------------------------------------------------------

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: compression.compress(".zst", data),
}


def _written(path: Path, data: bytes, *, behind: bool = False) -> None:
    with path.open("ab" if behind else "wb") as file:
        file.write(data)


def _file(name: str, encode: Callable[[Rows, int], bytes], begin: bytes = b"") -> tuple[Put, Add]:
    """Return how a file is written and appended to; encode: rows and the number of the first → bytes."""
    pack = COMPRESS.get(os.path.splitext(name)[1], bytes)

    def put(directory: Path, rows: Rows) -> None:
        _written(directory / name, pack(begin + encode(rows, 0)))

    def add(directory: Path, rows: Rows, more: Rows) -> None:
        _written(directory / name, pack(encode(more, len(rows))), behind=True)

    return put, add


def _joined(end: str) -> Callable[[Rows, int], bytes]:
    return lambda rows, _: "".join(row + end for row in rows).encode()


def _line_case(name: str, file: str, end: str = "\n", **options: Any) -> ReaderCase:
    put, add = _file(file, _joined(end))
    return ReaderCase(name, put, lambda directory, _: batchkit.lines(directory / file, **options), _plain, add)


def _put_unended(directory: Path, rows: Rows) -> None:
    _written(directory / "items.txt", "\n".join(rows).encode())


def _put_several(directory: Path, rows: Rows) -> None:
    """Three files and an empty one between them."""
    thirds = [rows[: len(rows) // 3], rows[len(rows) // 3 : len(rows) // 2], [], rows[len(rows) // 2 :]]
    for path in directory.glob("part-*"):
        path.unlink()
    for number, third in enumerate(thirds):
        _written(directory / f"part-{number}.txt", _joined("\n")(third, 0))


def _add_file(directory: Path, rows: Rows, more: Rows) -> None:
    _written(directory / f"part-9{len(rows):05}.txt", _joined("\n")(more, 0))


def _add_to_last(directory: Path, _: Rows, more: Rows) -> None:
    _written(directory / "part-3.txt", _joined("\n")(more, 0), behind=True)


def _pipe(_: Path, rows: Rows) -> Any:
    """Return standard input, of which the rows come."""
    reading, writing = os.pipe()
    os.write(writing, _joined("\n")(rows, 0))
    os.close(writing)
    os.dup2(reading, 0)
    os.close(reading)
    return batchkit.lines("-")


# Tables of text ------------------------------------------------------------------------------------------------------


def _texts(rows: Rows, first: int = 0) -> list[Any]:
    """Return rows with separators, quotes and a line end in a field."""
    return [{"id": str(number), "text": row, "note": f'"{row}",\t\nnext'} for number, row in enumerate(rows, first)]


def _csv(separator: str) -> Callable[[Rows, int], bytes]:
    def encode(rows: Rows, first: int) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, delimiter=separator, lineterminator="\n")
        writer.writerows(list(item.values()) for item in _texts(rows, first))
        return text.getvalue().encode()

    return encode


def _csv_case(name: str, file: str, separator: str = ",", **options: Any) -> ReaderCase:
    put, add = _file(file, _csv(separator), separator.join(["id", "text", "note"]).encode() + b"\n")
    return ReaderCase(name, put, lambda directory, _: _table(directory / file, **options), _texts, add)


def _two_columns(rows: Rows) -> list[Any]:
    return [{"note": item["note"], "id": item["id"]} for item in _texts(rows)]


def _put_bare(directory: Path, rows: Rows) -> None:
    _written(directory / "bare.csv", _csv(";")(rows, 0))


def _add_bare(directory: Path, rows: Rows, more: Rows) -> None:
    _written(directory / "bare.csv", _csv(";")(more, len(rows)), behind=True)


def _numbered_columns(rows: Rows) -> list[Any]:
    return [{f"column_{at}": value for at, value in enumerate(item.values(), 1)} for item in _texts(rows)]


def _table(path: Path, **options: Any) -> Any:
    return batchkit.csv(path, separator="\t" if ".tsv" in path.name else ",", **options)


def _values(rows: Rows, first: int = 0) -> list[Any]:
    """Return values of every kind that JSON has."""
    kinds: list[Any] = [{"a": [1, {"b": None}]}, None, [1.5, True], "text", {}]
    return [{"id": number, "text": row, "value": kinds[number % 5]} for number, row in enumerate(rows, first)]


def _json_lines(rows: Rows, first: int) -> bytes:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in _values(rows, first)).encode()


def _ndjson_case(name: str, file: str) -> ReaderCase:
    put, add = _file(file, _json_lines)
    return ReaderCase(name, put, lambda directory, _: batchkit.ndjson(directory / file), _values, add)


# Tables --------------------------------------------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {
    "id": pl.Int64,
    "text": pl.String,
    "maybe": pl.Float64,
    "tags": pl.List(pl.String),
    "place": pl.Struct({"x": pl.Int32, "names": pl.List(pl.String)}),
    "day": pl.Date,
    "at": pl.Datetime("us", "Europe/Vienna"),
    "price": pl.Decimal(20, 3),
    "yes": pl.Boolean,
    "raw": pl.Binary,
}
_NOON = datetime.datetime(2026, 3, 29, 12, tzinfo=datetime.UTC)


def frame(rows: Rows, first: int = 0) -> pl.DataFrame:
    """Return rows as a table with columns of many types, and nulls in each."""
    numbers = range(first, first + len(rows))

    def known(values: Iterable[Any], every: int) -> list[Any]:
        return [None if number % every == every - 1 else value for number, value in zip(numbers, values, strict=True)]

    return pl.DataFrame(
        {
            "id": list(numbers),
            "text": list(rows),
            "maybe": known([number / 4 for number in numbers], 2),
            "tags": known([[row, None] * (number % 3) for number, row in zip(numbers, rows, strict=True)], 4),
            "place": known([{"x": -number, "names": [row]} for number, row in zip(numbers, rows, strict=True)], 3),
            "day": known([_NOON.date() + datetime.timedelta(number) for number in numbers], 5),
            "at": known([_NOON + datetime.timedelta(hours=number) for number in numbers], 6),
            "price": known([decimal.Decimal(number) / 8 for number in numbers], 3),
            "yes": known([number % 2 == 0 for number in numbers], 4),
            "raw": known([row.encode() + b"\0\xff" for row in rows], 5),
        },
        schema=SCHEMA,
    )


def _dicts(rows: Rows) -> list[Any]:
    return frame(rows).to_dicts()


def _put_groups(directory: Path, rows: Rows) -> None:
    frame(rows).write_parquet(directory / "items.parquet", row_group_size=3)


def _put_files(directory: Path, rows: Rows) -> None:
    half = len(rows) // 2
    for path in directory.glob("t-*"):
        path.unlink()
    for number, start, stop in ((0, 0, half), (1, half, half), (2, half, len(rows))):
        frame(rows[start:stop], start).write_parquet(directory / f"t-{number}.parquet", row_group_size=2)


def _add_table(directory: Path, rows: Rows, more: Rows) -> None:
    frame(more, len(rows)).write_parquet(directory / f"t-9{len(rows):05}.parquet")


def _partition(number: int) -> int:
    """Return in which partition a row lies."""
    return 1 + (number > 3) + (number > 6)  # rows that are appended lie in the last one


def _put_hive(directory: Path, rows: Rows) -> None:
    for old in directory.glob("hive/*/*"):
        old.unlink()
    for part, start, stop in ((1, 0, 4), (2, 4, 7), (3, 7, len(rows))):
        if part < 3 or rows[start:stop]:
            _write_partition(directory, part, frame(rows[start:stop], start), "data")


def _write_partition(directory: Path, part: int, rows: pl.DataFrame, name: str) -> None:
    path = directory / "hive" / f"part={part}"
    path.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path / f"{name}.parquet")


def _add_partition(directory: Path, rows: Rows, more: Rows) -> None:
    _write_partition(directory, 3, frame(more, len(rows)), f"more-{len(rows):05}")


def _hive_items(rows: Rows) -> list[Any]:
    return [{**item, "part": _partition(number)} for number, item in enumerate(_dicts(rows))]


def _tables(directory: Path, _: Rows) -> Any:
    return batchkit.parquet(directory / "t-*.parquet")


def _hive(directory: Path, _: Rows) -> Any:
    return batchkit.parquet(directory / "hive")


def _some_columns(rows: Rows) -> list[Any]:
    return [{"place": item["place"], "id": item["id"]} for item in _dicts(rows)]


# Memory and sources of one's own -------------------------------------------------------------------------------------


class Keyset:
    """Rows of an SQLite table, by their key."""

    name = "keyset"

    def __init__(self, path: Path) -> None:
        self._path = path

    def fingerprint(self) -> Any:
        """Return the first row."""
        return next(iter(self.read(None)), None)

    def read(self, cursor: int | None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows behind a key."""
        connection = sqlite3.connect(self._path)
        try:
            for key, text in connection.execute(
                "SELECT key, text FROM rows WHERE key > ? ORDER BY key", (-1 if cursor is None else cursor,)
            ):
                yield key, {"key": key, "text": text}
        finally:
            connection.close()


def _put_database(directory: Path, rows: Rows) -> None:
    (directory / "rows.db").unlink(missing_ok=True)
    _add_to_database(directory, [], rows)


def _add_to_database(directory: Path, rows: Rows, more: Rows) -> None:
    connection = sqlite3.connect(directory / "rows.db")
    with connection:
        connection.execute("CREATE TABLE IF NOT EXISTS rows (key INTEGER PRIMARY KEY, text TEXT)")
        numbered = [(number * 10, row) for number, row in enumerate(more, len(rows))]
        connection.executemany("INSERT INTO rows VALUES (?, ?)", numbered)
    connection.close()


class Pages:
    """Rows with a cursor of one's own making; make: number of the item → cursor."""

    def __init__(self, rows: Rows, make: Callable[[int], Any]) -> None:
        self._rows = rows
        self._make = make

    def fingerprint(self) -> Any:
        """Return the first row."""
        return self._rows[0] if self._rows else ""

    def read(self, cursor: Any) -> Iterator[tuple[Any, str]]:
        """Yield what is behind a cursor."""
        cursors = [self._make(number) for number in range(len(self._rows))]
        start = 0 if cursor is None else cursors.index(cursor) + 1
        yield from zip(cursors[start:], self._rows[start:], strict=True)


def _token(number: int) -> str:
    return f"page-{number}é"


def _nested(number: int) -> list[Any]:
    return [number // 2, {"in": f"{number % 2}"}]


def _in_memory(name: str, source: Callable[[Rows], Any], items: Items = _plain) -> ReaderCase:
    return ReaderCase(name, _nothing, lambda _, rows: source(rows), items, _nothing)


READERS = [
    _line_case("lines", "items.txt"),
    _line_case("lines-crlf", "items.txt", "\r\n"),
    _line_case("lines-nul", "items.txt", "\0", delimiter="\0"),
    _line_case("lines-long-delimiter", "items.txt", "<|>", delimiter="<|>"),
    _line_case("lines-gz", "items.txt.gz"),
    _line_case("lines-bz2", "items.txt.bz2"),
    _line_case("lines-xz", "items.txt.xz"),
    _line_case("lines-zst", "items.txt.zst"),
    ReaderCase(
        "lines-unended", _put_unended, lambda directory, _: batchkit.lines(directory / "items.txt"), _plain, None
    ),
    ReaderCase(
        "lines-files", _put_several, lambda directory, _: batchkit.lines(directory / "part-*.txt"), _plain, _add_file
    ),
    ReaderCase(
        "lines-last-grows",
        _put_several,
        lambda directory, _: batchkit.lines(directory / "part-*.txt"),
        _plain,
        _add_to_last,
    ),
    ReaderCase("stdin", _nothing, _pipe, _plain, _nothing),
    _csv_case("csv", "items.csv"),
    _csv_case("csv-gz", "items.csv.gz"),
    _csv_case("csv-columns", "items.csv", columns=["note", "id"])._replace(items=_two_columns),
    ReaderCase(
        "csv-no-header",
        _put_bare,
        lambda directory, _: batchkit.csv(directory / "bare.csv", separator=";", header=False),
        _numbered_columns,
        _add_bare,
    ),
    _csv_case("tsv", "items.tsv", "\t"),
    _ndjson_case("ndjson", "items.jsonl"),
    _ndjson_case("ndjson-zst", "items.jsonl.zst"),
    ReaderCase(
        "parquet", _put_groups, lambda directory, _: batchkit.parquet(directory / "items.parquet"), _dicts, None
    ),
    ReaderCase(
        "parquet-columns",
        _put_groups,
        lambda directory, _: batchkit.parquet(directory / "items.parquet", columns=["place", "id"]),
        _some_columns,
        None,
    ),
    ReaderCase("parquet-files", _put_files, _tables, _dicts, _add_table),
    ReaderCase("parquet-hive", _put_hive, _hive, _hive_items, _add_partition),
    _in_memory("list", list),
    _in_memory("tuple", tuple),
    _in_memory(
        "range",
        lambda rows: range(ord(rows[0][0]), ord(rows[0][0]) + len(rows)) if rows else range(0),
        lambda rows: [ord(rows[0][0]) + number for number in range(len(rows))],
    ),
    _in_memory(
        "dict",
        lambda rows: {f"{number} {row}": row for number, row in enumerate(rows)},
        lambda rows: [(f"{number} {row}", row) for number, row in enumerate(rows)],
    ),
    _in_memory("frame", frame, _dicts),
    _in_memory("query", lambda rows: frame(rows).lazy(), _dicts),
    ReaderCase(
        "query-of-parquet",
        _put_files,
        lambda directory, _: pl.scan_parquet(directory / "t-*.parquet"),
        _dicts,
        _add_table,
    ),
    _in_memory("generator", lambda rows: (row for row in rows)),
    ReaderCase(
        "keyset",
        _put_database,
        lambda directory, _: Keyset(directory / "rows.db"),
        lambda rows: [{"key": number * 10, "text": row} for number, row in enumerate(rows)],
        _add_to_database,
    ),
    ReaderCase(
        "table",
        _put_database,
        lambda directory, _: f"sqlite:///{directory}/rows.db?table=rows&cursor=key",
        lambda rows: [{"key": number * 10, "text": row} for number, row in enumerate(rows)],
        _add_to_database,
    ),
    _in_memory("text-cursors", lambda rows: Pages(rows, _token)),
    _in_memory("nested-cursors", lambda rows: Pages(rows, _nested)),
]
