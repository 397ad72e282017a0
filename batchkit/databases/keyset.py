"""Rows in the order of a unique column, a page at a time: `WHERE key > ? ORDER BY key LIMIT n`, never OFFSET.

With an index on the column each of these queries costs O(log n), wherever in the table it is, but for those that say
otherwise. Ends of ranges are keys: the first is not in the range (`None`: from the beginning), the last one is (`None`:
to the end). Rows without a key are in no range.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from batchkit.databases.address import quoted
from batchkit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchkit.databases.base import Session

    Key = Any
    Row = tuple[Any, ...]


class Columns(NamedTuple):
    """What a source has: names of its columns, in order, and which of them is the key."""

    names: list[str]
    key: int

    @property
    def key_name(self) -> str:
        """The key's name, as the source has it."""
        return self.names[self.key]


def columns_of(session: Session, source: str, cursor: str) -> Columns:
    """Return the columns of a source. Raises `UsageError` where none, or more than one, is the cursor.

    source: what stands behind FROM. Asked first: SQLite would take the name of a missing column for a text.
    """
    names, _ = session.select(f"SELECT * FROM {source} LIMIT 0")  # noqa: S608  # the query is the user's own
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"the query gives two columns '{twice}'; give each a name of its own: ... AS name")
    found = [name for name in names if name == cursor] or [name for name in names if name.lower() == cursor.lower()]
    if len(found) != 1:
        raise UsageError(f"there is no column '{cursor}' to go by; give one of {', '.join(names)} as &cursor=NAME")
    return Columns(names, names.index(found[0]))


class Keyset:
    """A source of rows, asked over an open connection. Errors as of `Session.talking`."""

    def __init__(self, session: Session, source: str, columns: Columns) -> None:
        """Ask nothing yet; source: what stands behind FROM."""
        self._session = session
        self._source = source
        self._columns = columns
        self._key = quoted(columns.key_name)

    def page(self, after: Key, upto: Key, count: int) -> list[Row]:
        """Return the first `count` rows of a range."""
        sql, values = self.page_query(after, upto, count)
        return self._session.select(sql, values)[1]

    def page_query(self, after: Key, upto: Key, count: int) -> tuple[str, list[Key]]:
        """Return the query for them, and its values."""
        where, values = self._range(after, upto)
        names = ", ".join(map(quoted, self._columns.names))  # so that a column that comes later is not in the items
        return f"SELECT {names} FROM {self._source} WHERE {where} ORDER BY {self._key} LIMIT {count}", values  # noqa: S608

    def first(self) -> Key | None:
        """Return the smallest key; `None` if there is no row."""
        return self._one(None, None, f"ORDER BY {self._key} LIMIT 1")

    def last(self, after: Key = None, upto: Key = None) -> Key | None:
        """Return the largest key of a range; `None` if there is no row in it."""
        return self._one(after, upto, f"ORDER BY {self._key} DESC LIMIT 1")

    def nth(self, after: Key, upto: Key, number: int) -> Key | None:
        """Return the key of the row of a range with this number, from 0. Costs O(number)."""
        return self._one(after, upto, f"ORDER BY {self._key} LIMIT 1 OFFSET {number}")

    def count(self, after: Key, upto: Key) -> int:
        """Return how many rows a range has. Costs O(that)."""
        where, values = self._range(after, upto)
        return int(self._session.select(f"SELECT count(*) FROM {self._source} WHERE {where}", values)[1][0][0])  # noqa: S608

    def borders(self, after: Key, upto: Key, count: int) -> Iterator[Key]:
        """Yield at most `count - 1` keys of rows of a range, in order, between which lie about as many rows each.

        Whole numbers are taken to lie evenly, which costs O(log n); of other keys the rows are counted, O(n).
        """
        first = self.first() if after is None else after
        last = self.last() if upto is None else upto
        if first is None or last is None:
            return
        whole = type(first) is int and type(last) is int
        rows = 0 if whole else self.count(after, last)
        before = after
        for part in range(1, count):
            if whole:
                border = self.last(before, first + (last - first) * part // count)
            else:
                behind = rows * part // count
                border = self.nth(after, last, behind - 1) if behind else None
            if border is not None and border not in {before, last}:
                before = border
                yield border

    def at(self, key: Key) -> list[Row]:
        """Return the row with a key, if it is there; two, if the key is not unique."""
        names = ", ".join(map(quoted, self._columns.names))
        sql = f"SELECT {names} FROM {self._source} WHERE {self._key} = {self._session.value(1)} LIMIT 2"  # noqa: S608
        return self._session.select(sql, [key])[1]

    def twice(self, after: Key, upto: Key) -> Key | None:
        """Return a key of a range that two rows have, as the database compares; `None`: none. Costs O(the range)."""
        return self._one(after, upto, f"GROUP BY {self._key} HAVING count(*) > 1 LIMIT 1")

    def has_rows_without_key(self) -> bool:
        """Tell whether there are any. Costs O(n) where the index does not have them."""
        sql = f"SELECT 1 FROM {self._source} WHERE {self._key} IS NULL LIMIT 1"  # noqa: S608
        return bool(self._session.select(sql)[1])

    def _one(self, after: Key, upto: Key, rest: str) -> Key | None:
        where, values = self._range(after, upto)
        found = self._session.select(f"SELECT {self._key} FROM {self._source} WHERE {where} {rest}", values)[1]  # noqa: S608
        return found[0][0] if found else None

    def _range(self, after: Key, upto: Key) -> tuple[str, list[Key]]:
        ends = [(">", after), ("<=", upto)]
        given = [(sign, key) for sign, key in ends if key is not None]
        tests = [f"{self._key} {sign} {self._session.value(number)}" for number, (sign, _) in enumerate(given, 1)]
        return " AND ".join(tests) or f"{self._key} IS NOT NULL", [key for _, key in given]
