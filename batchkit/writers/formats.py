"""How results become the bytes of a line-based file: text, JSONL, CSV. Nothing here touches a disk."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import decimal
import io
import json
import os
import uuid
from typing import Any, Protocol

from batchkit.errors import UsageError
from batchkit.writers.base import ResultError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Format(Protocol):
    """Renders the results of a batch; every record ends with LF. A `None` renders to nothing."""

    def render(self, results: Sequence[Any]) -> bytes:
        """Return the bytes of the results. Raises `ResultError`."""

    def resume(self, head: bytes) -> None:
        """Learn from the beginning of the output what earlier runs decided; `b""` if nothing is written yet."""

    def header_length(self, head: bytes) -> int:
        """Return how many bytes at the beginning of a part are not to be repeated when parts are joined."""

    def parse(self, lines: Iterator[str]) -> Iterator[Any]:
        """Yield the results that stand in the lines of one part or output, as far as the format tells them."""


class _Plain:
    """A format without header."""

    def resume(self, head: bytes) -> None:
        """Learn nothing."""

    def header_length(self, head: bytes) -> int:  # noqa: ARG002  # the seam's
        """Return 0."""
        return 0


class Text(_Plain):
    """Strings as they are, one a line; anything else as JSON."""

    def render(self, results: Sequence[Any]) -> bytes:
        """Return the lines."""
        try:
            text = "\n".join(results)
        except TypeError:
            return _each(results, _text_line)
        if not results:
            return b""
        try:
            lines = text.encode()
        except UnicodeEncodeError:
            return _each(results, _text_line)
        if text.count("\n") != len(results) - 1:
            return _each(results, _text_line)
        return lines + b"\n"

    def parse(self, lines: Iterator[str]) -> Iterator[Any]:
        """Yield strings."""
        return (line.removesuffix("\n") for line in lines)


class Jsonl(_Plain):
    """One JSON value a line, UTF-8. Dates, decimals, UUIDs, paths and dataclasses become what JSON has for them."""

    def render(self, results: Sequence[Any]) -> bytes:
        """Return the lines."""
        return _each(results, _json_line)

    def parse(self, lines: Iterator[str]) -> Iterator[Any]:
        """Yield JSON values."""
        return map(json.loads, lines)


class Csv:
    """Comma-separated (RFC 4180, but LF) with a header.

    The first result decides the columns: the keys of a dict, else `column_1` … of a list or tuple, else `result`.
    A missing key or `None` is an empty field; a key that is no column is that result's failure.
    """

    def __init__(self, delimiter: str = ",") -> None:
        """Know no columns yet."""
        self._delimiter = delimiter
        self._columns: list[str] | None = None

    def render(self, results: Sequence[Any]) -> bytes:
        """Return the rows, and the header before the first of all."""
        columns = self._columns
        rows: list[Sequence[Any]] = []
        for index, result in enumerate(results):
            if result is None:
                continue
            row = dataclasses.asdict(result) if dataclasses.is_dataclass(result) else result
            if columns is None:
                columns = _columns_of(row)
                rows.append(columns)
            rows.append(_row(index, row, columns))
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerows(rows)
        try:
            data = text.getvalue().encode()
        except UnicodeEncodeError:
            bad = next(i for i, row in enumerate(results) if not _encodable(row))
            raise ResultError(bad, "its text cannot be encoded as UTF-8") from None
        self._columns = columns
        return data

    def resume(self, head: bytes) -> None:
        """Take the columns from the header that stands there."""
        self._columns = self._header(head)

    def header_length(self, head: bytes) -> int:
        """Return the length of the header."""
        columns = self._header(head)
        if columns is None:
            return 0
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerow(columns)
        return len(text.getvalue().encode())

    def parse(self, lines: Iterator[str]) -> Iterator[Any]:
        """Yield a dict of strings per row."""
        return csv.DictReader(lines, delimiter=self._delimiter)

    def _header(self, head: bytes) -> list[str] | None:
        rows = csv.reader(io.StringIO(head.decode("utf-8", "replace"), newline=""), delimiter=self._delimiter)
        return next(rows, None)


def for_path(path: str) -> Format:
    """Return the format that a path's suffix asks for. Raises `UsageError` for one that cannot be written."""
    suffix = os.path.splitext(path)[1].lower()
    known: dict[str, Callable[[], Format]] = {
        ".jsonl": Jsonl,
        ".ndjson": Jsonl,
        ".csv": Csv,
        ".tsv": lambda: Csv("\t"),
    }
    if suffix in {".json", ".parquet", ".gz", ".zst", ".bz2", ".xz", ".zip", ".xlsx", ".db", ".sqlite", ".duckdb"}:
        raise UsageError(f"cannot write '{suffix}' files: give an output that ends in .txt, .jsonl, .csv or .tsv")
    return known.get(suffix, Text)()


def _each(results: Sequence[Any], line: Callable[[Any], str]) -> bytes:
    """Render result by result, so that the one that fails is known."""
    lines = []
    for index, result in enumerate(results):
        if result is not None:
            try:
                lines.append(line(result).encode())
            except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError is a ValueError
                raise ResultError(index, str(error)) from error
    return b"\n".join([*lines, b""])


def _text_line(result: Any) -> str:
    text = result if isinstance(result, str) else _json_line(result)
    if "\n" in text:
        raise ValueError("it holds a line break, which a text file cannot; use a .jsonl output")
    return text


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID | os.PathLike):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "item") and hasattr(value, "dtype"):  # a scalar of an array library
        return value.item()
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


_json_line = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_json_value).encode


def _columns_of(row: Any) -> list[str]:
    if isinstance(row, dict):
        return [str(key) for key in row]
    if isinstance(row, list | tuple):
        return [f"column_{number}" for number in range(1, len(row) + 1)]
    return ["result"]


def _row(index: int, row: Any, columns: list[str]) -> Sequence[Any]:
    if isinstance(row, dict):
        unknown = [key for key in row if str(key) not in columns]
        if unknown:
            raise ResultError(index, f"the output has no column {unknown[0]!r}; it has {', '.join(columns)}")
        return [row.get(column) for column in columns]
    fields = list(row) if isinstance(row, list | tuple) else [row]
    if len(fields) != len(columns):
        raise ResultError(index, f"it has {len(fields)} fields and the output {len(columns)} columns")
    return fields


def _encodable(row: Any) -> bool:
    try:
        str(row.values() if isinstance(row, dict) else row).encode()
    except UnicodeEncodeError:
        return False
    return True
