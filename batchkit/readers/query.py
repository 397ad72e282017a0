"""Rows of a polars query (a LazyFrame); the cursor is the number of a row of its result."""

from __future__ import annotations

from typing import Any

from batchkit.errors import SourceError
from batchkit.frames import parquet
from batchkit.frames.queries import row_and_next, rows_from
from batchkit.frames.rows import whole
from batchkit.frames.schemas import names
from batchkit.model import Cursor, Span, Verdict
from batchkit.readers.base import IndexBatch, proof_of_item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchkit.frames.queries import Query
    from batchkit.model import Batch


class QueryReader:
    """Reads what a query gives, as a stream. It must give the same rows in the same order each time it is run.

    A resume runs `query.slice(cursor)`, of which polars skips what it can: of a plain scan of Parquet files whole row
    groups, of a sort or a group_by nothing. After a stop, polars may still be at work on what was asked for; where that
    is a Python function inside of the query, a process that ends meanwhile may abort (what is committed stays).
    """

    name = "query"
    unit = "items"
    restartable = True
    durable = False
    files: Sequence[str] = ()

    def __init__(self, query: Query) -> None:
        """Run nothing yet."""
        self._query = query

    def identity(self) -> Any:
        """Return the kind of source."""
        return {"kind": "query"}

    def fingerprint(self) -> Any:
        """Return the columns and their types: more would need a run of the query."""
        return {"columns": names(dict(self._query.collect_schema()))}

    def whole(self) -> Span:
        """Return the span of all rows, however many."""
        return Span(0, None)

    def read(self, span: Span, batch_size: int) -> Iterator[Batch]:
        """Run the query from the span's start on and yield its batches."""
        start = span.start
        blocks = rows_from(self._query, start, span.stop, batch_size)
        while True:
            try:
                block = next(blocks, None)
            except parquet.ERRORS as error:
                raise SourceError(f"the query failed behind row {start:,}: {error}") from error
            if block is None:
                return
            for at in range(0, block.height, batch_size):
                rows = whole(block.slice(at, batch_size))
                yield IndexBatch(rows, start)
                start += len(rows)

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Compare the columns, and the row before the cursor."""
        if fingerprint != self.fingerprint():
            return Verdict("changed", "the query has other columns than it had")
        if proof is None:
            return Verdict("same")
        done = min(1, cursor)  # a job that is completed over no rows has none to compare
        rows = row_and_next(self._query, cursor - done)
        if done and (not rows or proof_of_item(rows[0]) != proof):
            return Verdict("changed", f"row {cursor - 1:,}, the last one done, is not what it was")
        return Verdict("appended", "it gives more rows") if len(rows) > done else Verdict("same")

    def extent(self, span: Span) -> int | None:
        """Return the number of rows in a span; `None` if its end is unknown."""
        return None if span.stop is None else int(span.stop) - int(span.start)

    def describe(self, cursor: Cursor) -> str:
        """Return the number of a row, from 0."""
        return f"row {cursor:,}"
