"""A source of the user's own: anything that can be read from a cursor."""

from __future__ import annotations

import json
from itertools import chain, islice
from typing import Any, Protocol

from batchkit.errors import BatchkitError, SourceError
from batchkit.model import Batch, Cursor, Item, Span, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_PLAIN = (int, str)


class Source(Protocol):
    """What a source of one's own implements: one method.

    It may also have `name` (a word for the job's name, default: the class's), and `fingerprint()`: a JSON value that is
    another when resuming would be wrong; without it, the source is taken to be the same always.
    """

    def read(self, cursor: Any) -> Iterable[tuple[Any, Any]]:
        """Yield `(cursor, item)` for each item behind `cursor`, in an order that never changes.

        cursor: `None` for the beginning, else one that was yielded: a JSON value that says how to go on behind its
        item, such as the item's key (exclusive: keyset pagination) or a page token.
        """


class SourceReader:
    """Reads a source of the user's own. What comes after the last item at a later run is taken for appended."""

    unit = "items"
    restartable = True
    durable = True
    files: Sequence[str] = ()

    def __init__(self, source: Source) -> None:
        """Read nothing yet."""
        self._source = source
        self.name = str(getattr(source, "name", None) or type(source).__name__.lower())
        self._opened: tuple[Cursor, Iterator[tuple[Cursor, Item]]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is open: another process opens its own."""
        return {**self.__dict__, "_opened": None}

    def identity(self) -> Any:
        """Return the name of the class."""
        return {"kind": "source", "class": type(self._source).__qualname__, "name": self.name}

    def fingerprint(self) -> Any:
        """Return what the source says of itself."""
        own = getattr(self._source, "fingerprint", None)
        return None if own is None else own()

    def whole(self) -> Span:
        """Return the span of all items, however many."""
        return Span(None, None)

    def read(self, span: Span, batch_size: int) -> Iterator[Batch]:
        """Read from the span's start on."""
        before = span.start
        pairs: Iterator[tuple[Cursor, Item]] | None = None
        failure: Exception | None = None
        while failure is None:
            chunk: list[tuple[Cursor, Item]] = []
            try:
                if pairs is None:
                    pairs = self._open(before)
                    self._opened = None
                chunk.extend(islice(pairs, batch_size))  # keeps what came before an exception
            except Exception as error:  # noqa: BLE001  # the source is the user's
                failure = error
            if not chunk:
                break
            batch = CursorBatch([item for _, item in chunk], [before, *(cursor for cursor, _ in chunk)])
            yield batch
            before = batch.stop
        if failure is not None:
            if isinstance(failure, BatchkitError):
                raise failure
            why = " ".join(f"{type(failure).__name__}: {failure}".split())
            raise SourceError(f"the source failed behind {self.describe(before)}: {why}; run it again") from failure

    def _open(self, cursor: Cursor) -> Iterator[tuple[Cursor, Item]]:
        """Return the pairs behind a cursor; those that `check` has begun to read, if it has."""
        if self._opened is None or self._opened[0] != cursor:
            self._opened = (cursor, map(_pair, self._source.read(cursor)))
        return self._opened[1]

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Compare what the source says of itself, and look whether more is there."""
        if _as_json(fingerprint) != _as_json(self.fingerprint()):
            return Verdict("changed", f"the source says that it is another: {_as_json(self.fingerprint())}")
        if proof is None:
            return Verdict("same")
        try:
            more = list(islice(self._open(cursor), 1))
        except BatchkitError:
            raise
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise SourceError(f"the source failed behind {self.describe(cursor)}: {why}; run it again") from error
        self._opened = (cursor, chain(more, self._open(cursor)))
        return Verdict("appended", "there is more of it") if more else Verdict("same")

    def extent(self, span: Span) -> None:
        """Return nothing: cursors cannot be counted."""
        del span

    def describe(self, cursor: Cursor) -> str:
        """Return the cursor."""
        return "the beginning" if cursor is None else f"the cursor {_as_json(cursor)}"


class CursorBatch(Batch):
    """Items with their cursors: `cursors[i]` stands before item `i`, `cursors[i + 1]` behind it."""

    __slots__ = ("_cursors",)

    def __init__(self, items: list[Item], cursors: list[Cursor]) -> None:
        """Keep both."""
        self.items = items
        self._cursors = cursors
        self.start = cursors[0]
        self.stop = _checked(cursors[-1])
        self.proof = 0
        self.unreadable: Mapping[int, str] = {}

    def split(self, count: int) -> tuple[Batch, Batch]:
        """Return the first `count` items and the rest."""
        items, cursors = list(self.items), self._cursors
        return CursorBatch(items[:count], cursors[: count + 1]), CursorBatch(items[count:], cursors[count:])

    def coordinate(self, index: int) -> Cursor:
        """Return the cursor before an item: reading from there begins with it."""
        cursor = self._cursors[index]
        return cursor if cursor is None else _checked(cursor)


def _pair(pair: Any) -> tuple[Cursor, Item]:
    try:
        cursor, item = pair
    except (TypeError, ValueError):
        raise SourceError(f"a source yields (cursor, item) pairs; this one yielded {pair!r:.80}") from None
    return cursor, item


def _checked(cursor: Cursor) -> Cursor:
    """Return a cursor as it will be after a journal has kept it. Raises `SourceError`."""
    if isinstance(cursor, _PLAIN):
        return cursor
    try:
        if cursor is not None:
            return json.loads(json.dumps(cursor, allow_nan=False))
    except (TypeError, ValueError):
        pass
    raise SourceError(
        f"the source's cursor {cursor!r:.80} is no JSON value; yield a number, a string or a list of them"
    )


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
