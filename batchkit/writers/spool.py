"""The parts of a Parquet output: results as Arrow frames, appended batch by batch. Exactly once: see `part`.

A frame holds the results of a batch, in the schema of the output as far as it was known then: a column of nulls alone
has the type Null until a value comes up. So the last frame of a part tells all that is known. The mark is that of a
part, with the rows so far behind it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Any

from batchkit import files
from batchkit.errors import BatchkitError, DamageError
from batchkit.frames import arrow
from batchkit.frames.columns import NO_COLUMN, Mismatch
from batchkit.frames.fitting import MISSING, Fitting
from batchkit.frames.rows import frame_of_schema, is_table, joined, table_of
from batchkit.writers.base import ResultError, result_error
from batchkit.writers.part import Part
from batchkit.writers.values import as_row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from batchkit.frames.rows import Table
    from batchkit.frames.schemas import Schema
    from batchkit.writers.agreement import Agreement, Terms


_ROWS = 3


class SpoolWriter:
    """Appends the results of a shard to its part as frames."""

    def __init__(
        self,
        path: str,
        schema: Schema | None,
        known: Callable[[], Schema | None],
        *,
        agreement: Agreement,
        mode: int = files.SHARED,
    ) -> None:
        """Write to the part at `path`.

        schema: fixed in advance, or `None`; known: tells what the output holds before this part. agreement: tells that
        instead, if there is one.
        """
        self._part = Part(path, mode=mode)
        self._fitting = Fitting(schema, self._agreed)
        self._agreement = agreement
        self._agreeing = False
        self._encoder = arrow.Encoder()
        self._known = known
        self._rows = 0

    def intact(self, marks: Sequence[list[int]]) -> int:
        """Return the index of the last mark that the part covers."""
        return self._part.intact(marks)

    def open(self, mark: list[int] | None) -> None:
        """Cut the part to the mark, and learn the schema from what stands before it."""
        self._part.open(mark)
        length = mark[0] if mark else 0
        self._rows = rows_at(mark)
        if length and not self._rows:
            self._rows = sum(rows for _, rows in extents(self._part.path, length))
        if self._fitting.fixed:
            return
        terms = self._agreement.newest()
        self._agreeing = terms is not None
        schema = (last_schema(self._part.path, length) or self._known()) if terms is None else schema_in(terms)
        if schema is not None:
            self._fitting.learn(schema)

    def _agreed(self, schema: Schema) -> Schema:
        """Propose a schema that results change; return what is agreed on."""
        if not self._agreeing:
            return schema
        mine = terms_of(schema)
        terms = self._agreement.propose(mine)
        return schema if terms is mine else schema_in(terms) or schema

    def write(self, results: Sequence[Any]) -> None:
        """Append the results as a frame; of a result that is a table, each row is one."""
        whole = getattr(results, "frame", results)
        table = self._of_table(table_of(whole), None) if is_table(whole) else self._of_list(results)
        if table is not None:
            with self._encoder.encoded(table) as data:
                self._part.append(data)
            self._rows += table.height

    def mark(self) -> list[int]:
        """Return what the mark of a part holds, and the rows so far."""
        return [*self._part.mark(), self._rows]

    def place(self) -> int:
        """Return the rows so far."""
        return self._rows

    def _of_list(self, results: Sequence[Any]) -> Table | None:
        there = [(index, result) for index, result in enumerate(results) if result is not None]
        if any(is_table(result) for _, result in there):
            tables = [self._of_result(index, result) for index, result in there]
            return joined([table for table in tables if table is not None])
        return self._of_rows([index for index, _ in there], [as_row(result) for _, result in there])

    def _of_result(self, index: int, result: Any) -> Table | None:
        if is_table(result):
            return self._of_table(table_of(result), index)
        return self._of_rows([index], [as_row(result)])

    def _of_rows(self, indexes: Sequence[int], rows: Sequence[dict[str, Any]]) -> Table | None:
        if not rows:
            return None
        try:
            return self._fitting.of_rows(rows)
        except BatchkitError:
            raise
        except Mismatch as error:
            raise self._refusal(error, None if error.index is None else indexes[error.index]) from error
        except Exception as error:  # whatever polars makes of a value
            raise result_error(indexes[0] if len(indexes) == 1 else None, error) from error

    def _of_table(self, table: Table, index: int | None) -> Table | None:
        if not table.height:
            return None
        try:
            return self._fitting.of_table(table)
        except BatchkitError:
            raise
        except Mismatch as error:
            raise self._refusal(error, error.index if index is None else index) from error
        except Exception as error:  # as above
            raise result_error(self._first_to_fail(table) if index is None else index, error) from error

    def _first_to_fail(self, table: Table) -> int:
        """Return the index of the first row that does not fit."""
        low, high = 0, table.height  # the first `low` rows fit, the first `high` do not
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self._fitting.of_table(table.head(middle))
            except BatchkitError:
                raise
            except Exception:  # noqa: BLE001  # as above
                high = middle
            else:
                low = middle
        return high - 1

    def _refusal(self, error: Mismatch, index: int | None) -> ResultError:
        name = error.column
        if error.wanted == NO_COLUMN:
            where = f"its column '{name}' is {error.found}" if name else f"it is {error.found}"
            return ResultError(index, f"{where}, which a Parquet file cannot hold")
        given = self._fitting.fixed
        if error.found == MISSING:
            what = f"its column '{name}' ({error.wanted}) is missing here"
        elif error.wanted == MISSING:
            there = ", ".join(self._fitting.schema or ())
            what = f"the {'schema' if given else 'output'} has no column '{name}' ({error.found} here); it has {there}"
        else:
            wanted = f"the schema says {error.wanted}" if given else f"{error.wanted} before"
            what = f"its column '{name}' is {error.found} here and {wanted}"
        return ResultError(index, what if given else f"{what}; schema= (--schema) fixes columns and types in advance")

    def sync(self) -> None:
        """Make it durable."""
        self._part.sync()

    def close(self) -> None:
        """Close the part."""
        self._part.close()


def terms_of(schema: Schema | None) -> Terms:
    """Return the terms of an agreement on a schema; `None`: it is open yet."""
    return {"schema": schema and arrow.schema_text(frame_of_schema(schema))}


def schema_in(terms: Terms) -> Schema | None:
    """Return the schema that was agreed on; `None`: it is open yet."""
    return dict(arrow.frame_like(terms["schema"], []).schema) if terms["schema"] else None


def rows_at(mark: Sequence[int] | None) -> int:
    """Return the rows up to a mark; 0 also for the marks of older versions, which did not count them."""
    return mark[_ROWS] if mark and len(mark) > _ROWS else 0


def last_schema(path: str, length: int) -> Schema | None:
    """Return the schema of the last of the frames in the first `length` bytes of a part; `None` if there is none."""
    if not length:
        return None
    with _reading(path) as read:
        size = arrow.length_of(read(length - arrow.TAIL, arrow.TAIL))
        return arrow.schema_of(read(length - arrow.TAIL - size, size))


def frames(path: str, length: int) -> Generator[tuple[int, Callable[[], Table]]]:
    """Yield rows of each of the frames in the first `length` bytes of a part, and what reads it until the next."""
    with _reading(path) as read:
        for at, size, rows in _extents(read, length):
            yield rows, lambda at=at, size=size: arrow.decode(read(at, size))  # type: ignore[misc]


def extents(path: str, length: int) -> list[tuple[int, int]]:
    """Return bytes and rows of each of the frames in the first `length` bytes of a part."""
    with _reading(path) as read:
        return [(size, rows) for _, size, rows in _extents(read, length)]


def _extents(read: Callable[[int, int], bytes], length: int) -> Iterator[tuple[int, int, int]]:
    at = 0
    while at < length:
        size, rows = arrow.extent_of(read(at, arrow.HEAD))
        yield at + arrow.HEAD, size, rows
        at += arrow.HEAD + size + arrow.TAIL


@contextmanager
def _reading(path: str) -> Iterator[Callable[[int, int], bytes]]:
    """Give a function that returns so many bytes from an offset on."""
    with files.naming("read", path):
        fd = files.kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(offset: int, length: int) -> bytes:
        data = b""
        with files.naming("read", path):
            while len(data) < length:  # a call returns 2 GiB at most
                chunk = files.kernel.pread(fd, length - len(data), offset + len(data))
                if not chunk:
                    raise DamageError(
                        f"'{path}' is shorter than the results it had; the next run goes on from what is there"
                    )
                data += chunk
        return data

    try:
        yield read
    finally:
        with files.naming("close", path):
            files.kernel.close(fd)
