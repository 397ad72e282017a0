"""Rows of a table, or of a query, of a database; the cursor is the key of the last row done, exclusive.

A key is kept as tagged JSON: dates, decimals, UUIDs and bytes come back as they were. `None` is the beginning.
"""

from __future__ import annotations

import datetime
import itertools
import os
import uuid
from contextlib import closing
from decimal import Decimal
from typing import Any, NamedTuple

from batchkit.databases.address import query as query_of
from batchkit.databases.asking import Asking
from batchkit.databases.keyset import Columns, Keyset, columns_of
from batchkit.errors import SourceError, UsageError
from batchkit.model import Batch, Cursor, Span, Verdict
from batchkit.readers.base import proof_of_item
from batchkit.tagged import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.databases.base import Session

_PAGE = 5_000
"""Rows of a page, which one query gives."""

_LONG_PAGE = 20_000
"""The same where each query needs a connection of its own."""

_PAGE_BYTES = 16 << 20
"""About how much of texts and bytes a page may hold; how many rows that is, the page before tells."""

_SAMPLE = 100

_KINDS = {int, float, str, bytes, Decimal, uuid.UUID, datetime.date, datetime.datetime, datetime.time}
"""What a key may be: what has an order in databases and a form in JSON."""


class _Survey(NamedTuple):
    """What a source is when a run begins; last: its largest key, `None` if it has no rows."""

    columns: Columns
    last: Any


class DatabaseReader:
    """Reads rows as dicts, in the order of a unique column, a page at a time: a page is one short query.

    url: `sqlite:///file.db?table=NAME&cursor=id`, `duckdb:///…`, `postgresql://…`; or `query=SELECT…` for `table=`.

    The end is the largest key when a run begins: rows that come behind it are appended, and taken by the next run. Rows
    that come before the cursor later are not seen. In memory is a page: at most some thousand rows, or about 16 MiB
    of what they hold (the first page, of which that is not known: a batch).
    """

    unit = "items"
    restartable = True
    durable = True
    files: Sequence[str] = ()

    def __init__(self, url: str) -> None:
        """Look at the address only, and whether its file is there. Raises `UsageError`."""
        self._query = query_of(url)
        place = self._query.place
        if place.path is not None and not os.path.isfile(place.path):
            raise UsageError(f"there is no file '{place.path}' to read from")
        self.name = self._query.table.name if self._query.table is not None else "query"
        self._shown = f"'{place.shown}'" if self._query.table is None else f"'{self._query.table}' in '{place.shown}'"
        self._found: _Survey | None = None

    def __repr__(self) -> str:
        """Return what it reads, without what is secret."""
        return f"<DatabaseReader of {self._shown}>"

    def identity(self) -> Any:
        """Return database, table or query, and column; not who connects."""
        return {"kind": "database", **self._query.identity()}

    def fingerprint(self) -> Any:
        """Return the names of the columns and the largest key."""
        found = self._survey()
        return {"columns": found.columns.names, "last": _kept(found.last)}

    def whole(self) -> Span:
        """Return the span up to the largest key."""
        return Span(None, _kept(self._survey().last))

    def _survey(self) -> _Survey:
        """Return what is there now; the same for everybody who asks this reader, as what it plans hangs together."""
        if self._found is None:
            with closing(Asking(self._query.place)) as asking:
                columns = asking(lambda session: columns_of(session, self._query.sql, self._query.cursor))
                self._found = asking(lambda session: self._surveyed(session, columns))
        return self._found

    def _surveyed(self, session: Session, columns: Columns) -> _Survey:
        keys, name = Keyset(session, self._query.sql, columns), columns.key_name
        if keys.has_rows_without_key():
            raise SourceError(
                f"rows of {self._shown} have no '{name}', by which they are read; give &cursor= another column, or a "
                f"query without them: ?query=SELECT ... WHERE {name} IS NOT NULL"
            )
        last = keys.last()
        if last is not None:
            rows = keys.at(decode(_kept(last)))
            if not rows:
                raise SourceError(
                    f"the '{name}' of {self._shown} is finer than a {type(last).__name__}, so that no row is found by "
                    "it; give a query that makes a text of it, and that as &cursor="
                )
            if len(rows) > 1:
                raise self._twice(name, last)
        return _Survey(columns, last)

    def _twice(self, name: str, key: Any) -> SourceError:
        return SourceError(
            f"several rows of {self._shown} have the {name} {_text_of(key)}, so none could be told from another; give "
            "a column that is unique as &cursor=, or a query without such rows"
        )

    def _ask(self, question: Callable[[Keyset], Any]) -> Any:
        """Ask one thing, over a connection of its own."""
        columns = self._survey().columns
        with closing(Asking(self._query.place)) as asking:
            return asking(lambda session: question(Keyset(session, self._query.sql, columns)))

    def read(self, span: Span, batch_size: int) -> Iterator[Batch]:
        """Yield the batches of a span: slices of pages."""
        columns = self._survey().columns
        before, upto, count = decode(span.start), decode(span.stop), max(_SAMPLE, batch_size)
        with closing(Asking(self._query.place)) as asking:
            while True:
                # One row more than is taken, so that none with the same key can hide behind the border.
                rows, longest = asking(lambda session: self._page(session, before, upto, count + 1))  # noqa: B023
                alike = _alike([before, *(row[columns.key] for row in rows)])
                page = rows[: count if alike is None else alike]
                for start in range(0, len(page), batch_size):
                    batch = RowsBatch(columns, page[start : start + batch_size], before)
                    yield batch
                    before = batch.last
                if alike is not None:
                    raise self._twice(columns.key_name, rows[alike][columns.key])
                if len(rows) <= count:
                    return
                count = _next_count(page, longest, batch_size)

    def _page(self, session: Session, after: Any, upto: Any, count: int) -> tuple[list[tuple[Any, ...]], int]:
        """Return rows, and how many there may be in the next page."""
        columns = self._survey().columns
        keys = Keyset(session, self._query.sql, columns)
        rows = keys.page(after, upto, count)
        if rows and isinstance(rows[-1][columns.key], str):  # 'a' and 'A' may be the same to the database
            twice = keys.twice(after, rows[-1][columns.key])
            if twice is not None and [row[columns.key] for row in rows].count(twice) < 2:  # noqa: PLR2004  # which `read` sees
                raise self._twice(columns.key_name, twice)
        return rows, _LONG_PAGE if session.exclusive else _PAGE

    def split(self, span: Span, count: int) -> list[Span]:
        """Cut a span at real keys: see `Keyset.borders`."""
        low, high = decode(span.start), decode(span.stop)
        borders: list[Any] = self._ask(lambda keys: list(keys.borders(low, high, count)))
        ends = [span.start, *map(_kept, borders), span.stop]
        return [Span(start, stop) for start, stop in itertools.pairwise(ends)]

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Compare the columns and the row done last, and look for rows behind the end that was planned.

        A row that is gone since it was done is no change, unless there are only rows before it now.
        """
        found = self._survey()
        if fingerprint["columns"] != found.columns.names:
            was, now = (", ".join(names) for names in (fingerprint["columns"], found.columns.names))
            return Verdict("changed", f"{self._shown} has the columns {now} and had {was}")
        why = (
            None if proof is None or cursor is None else self._ask(lambda keys: self._why_changed(keys, cursor, proof))
        )
        if why is not None:
            return Verdict("changed", why)
        end = decode(fingerprint["last"])
        more = found.last is not None and (end is None or self._ask(lambda keys: keys.last(end)) is not None)
        return Verdict("appended", f"{self._shown} has more rows") if more else Verdict("same")

    def _why_changed(self, keys: Keyset, cursor: Cursor, proof: int) -> str | None:
        """Return why the row done last is another one; `None` if it is not."""
        key = decode(cursor)
        rows = keys.at(key)
        if rows and _proof_of(self._survey().columns.names, rows[0]) != proof:
            return (
                f"the row behind which to go on, {self._named(cursor)}, is not what it was (where it is the function "
                "that changes rows, --on-input-change continue is right)"
            )
        if not rows and self._survey().last is not None and keys.last(key) is None:
            return f"{self._shown} has only rows before the one done last, {self._named(cursor)}"
        return None

    def extent(self, span: Span) -> None:
        """Return nothing: rows are not counted."""
        del span

    def describe(self, cursor: Cursor) -> str:
        """Return the key behind which a position is."""
        return f"{self._shown} {'at the beginning' if cursor is None else 'behind ' + self._named(cursor)}"

    def _named(self, cursor: Cursor) -> str:
        return f"{self._query.cursor} {_text_of(decode(cursor))}"


class RowsBatch(Batch):
    """Consecutive rows. before: the key in front of the first, `None` at the beginning; last: that of the last."""

    __slots__ = ("_before", "_columns", "_rows", "last")

    def __init__(self, columns: Columns, rows: Sequence[tuple[Any, ...]], before: Any) -> None:
        """Make the items."""
        self._columns, self._rows, self._before = columns, rows, before
        names = columns.names
        self.items = [dict(zip(names, row, strict=True)) for row in rows]
        self.last = rows[-1][columns.key]
        self.start, self.stop = _kept(before), _kept(self.last)
        self.proof = _proof_of(names, rows[-1])
        self.unreadable = {}

    def split(self, count: int) -> tuple[Batch, Batch]:
        """Return the first `count` rows and the rest."""
        border = self._rows[count - 1][self._columns.key]
        return (
            RowsBatch(self._columns, self._rows[:count], self._before),
            RowsBatch(self._columns, self._rows[count:], border),
        )

    def coordinate(self, index: int) -> Cursor:
        """Return the key before a row: reading from there begins with it."""
        return _kept(self._rows[index - 1][self._columns.key]) if index else self.start


def _kept(key: Any) -> Cursor:
    """Return a key as a cursor. Raises `SourceError` where it cannot be one."""
    if key is None:
        return None
    if type(key) not in _KINDS:
        raise SourceError(
            f"a key that is a {type(key).__name__} cannot be kept; give another column as &cursor=, or a query that "
            "makes a text of it"
        )
    if type(key) is datetime.datetime and key.tzinfo is not None:
        key = key.astimezone(datetime.UTC)  # the zone is that of the connection, and may be another one next time
    return encode(key)


def _proof_of(names: Sequence[str], row: Sequence[Any]) -> int:
    """Return a digest of a row that is the same over every connection."""
    return proof_of_item(
        {
            name: value.astimezone(datetime.UTC) if isinstance(value, datetime.datetime) and value.tzinfo else value
            for name, value in zip(names, row, strict=True)
        }
    )


def _text_of(key: Any) -> str:
    return f"'{key}'" if not isinstance(key, int | float | Decimal) else str(key)


def _alike(keys: Sequence[Any]) -> int | None:
    """Return the index of the first key that is the same as the one before it or behind it, less one; `None`: none.

    The first of `keys` is not of a row, but stands before the rows.
    """
    for index, (one, other) in enumerate(itertools.pairwise(keys)):
        if one == other:
            return max(0, index - 1)
    return None


def _next_count(page: Sequence[Sequence[Any]], longest: int, batch_size: int) -> int:
    """Return how many rows the next page may have: whole batches, if they fit."""
    sample = page[:: max(1, len(page) // _SAMPLE)]
    held = sum(len(value) if isinstance(value, str | bytes) else 8 for row in sample for value in row)
    fitting = min(max(longest, batch_size), max(1, _PAGE_BYTES * len(sample) // max(1, held)))
    return fitting - fitting % batch_size if fitting > batch_size else fitting
