"""Results as the rows of a CSV file."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any

from batchkit.writers.base import ResultError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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
