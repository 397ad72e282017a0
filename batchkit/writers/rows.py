"""Results as the rows of a CSV file."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any

from batchkit.plain import plain
from batchkit.writers.base import Header, ResultError, result_error
from batchkit.writers.formats import Uncompressed
from batchkit.writers.values import json_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Csv(Uncompressed):
    """Comma-separated (RFC 4180, but LF) with a header, which stands once, before the first result of all.

    The first result decides the columns: the keys of a dict, else `column_1` … of a list or tuple, else `result`.
    A missing key or `None` is an empty field, a nested value is JSON; a key that is no column, and a value that even
    JSON has no form for, is that result's failure.
    """

    headed = True

    def __init__(self, delimiter: str = ",") -> None:
        """Know no columns yet."""
        self._delimiter = delimiter
        self._columns: list[str] | None = None
        self._due = True

    def render(self, results: Sequence[Any]) -> bytes:
        """Return the rows, and the header before the first of all."""
        return b"".join(self.rendered(results))

    def rendered(self, results: Sequence[Any]) -> tuple[bytes, bytes]:
        """Return the header, if there are rows and it is due, and the rows."""
        columns = self._columns
        rows: list[Sequence[Any]] = []
        for index, result in enumerate(results):
            if result is not None:
                row = _plain(result)
                if columns is None:
                    columns = _columns_of(row)
                rows.append(_row(index, row, columns))
        try:
            header = self._lines([columns or []]) if self._due and rows else b""
            data = self._lines(rows)
        except Exception as error:  # whatever a value raises when it becomes text is its result's failure
            raise self._blamed(results, columns or []) from error
        self._columns = columns
        self._due = self._due and not rows
        return header, data

    def _lines(self, rows: Sequence[Sequence[Any]]) -> bytes:
        text = io.StringIO()
        rows = [[_field(value) for value in row] for row in rows]
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerows(rows)
        if "\r" in text.getvalue():  # which the writer leaves unquoted, and readers take for a line end
            text = io.StringIO()
            csv.writer(text, delimiter=self._delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
        return text.getvalue().encode()

    def _blamed(self, results: Sequence[Any], columns: list[str]) -> ResultError:
        """Return the error of the first result that cannot be written."""
        for index, result in enumerate(results):
            try:
                if result is not None:
                    self._lines([columns, _row(index, _plain(result), columns)])
            except Exception as error:  # noqa: BLE001  # as above
                return result_error(index, error)
        raise AssertionError("one of the results could not be written")

    def resume(self, lines: Iterator[str]) -> bool:
        """Take the columns from the header, if it stands there."""
        self._columns = next(csv.reader(lines, delimiter=self._delimiter), None)
        self._due = self._columns is None
        return not self._due

    def renew(self) -> None:
        """Write the header again, with the columns that are known."""
        self._due = True

    def header(self, chunks: Iterator[bytes]) -> Header | None:
        """Return the names of the columns, and the bytes they take."""
        taken = 0

        def counted() -> Iterator[str]:
            nonlocal taken
            for line in self.lines(chunks):
                taken += len(line.encode())
                yield line

        names = next(csv.reader(counted(), delimiter=self._delimiter), None)
        return None if names is None else Header(taken, tuple(names))

    def parse(self, lines: Iterator[str]) -> Iterator[Any]:
        """Yield a dict of strings per row."""
        return csv.DictReader(lines, delimiter=self._delimiter)


_AS_IT_IS = {str, int, float, bool, type(None)}


def _field(value: Any) -> Any:
    if type(value) in _AS_IT_IS:
        return value
    if isinstance(value, dict | list | tuple):
        return json_line(value)
    return value if isinstance(value, str | int | float) else plain(value)


def _plain(row: Any) -> Any:
    if hasattr(row, "_asdict"):  # a named tuple
        return row._asdict()
    return dataclasses.asdict(row) if dataclasses.is_dataclass(row) and not isinstance(row, type) else row


def _columns_of(row: Any) -> list[str]:
    if isinstance(row, dict):
        return [str(key) for key in row]
    if isinstance(row, list | tuple):
        return [f"column_{number}" for number in range(1, len(row) + 1)]
    return ["result"]


def _row(index: int, row: Any, columns: list[str]) -> Sequence[Any]:
    if isinstance(row, dict):
        named = {str(key): value for key, value in row.items()}
        unknown = [key for key in named if key not in columns]
        if unknown:
            raise ResultError(index, f"the output has no column {unknown[0]!r}; it has {', '.join(columns)}")
        return [named.get(column) for column in columns]
    fields = list(row) if isinstance(row, list | tuple) else [row]
    if len(fields) != len(columns):
        raise ResultError(index, f"it has {len(fields)} fields and the output {len(columns)} columns")
    return fields
