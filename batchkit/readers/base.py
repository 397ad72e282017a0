"""The seam of the readers: what the rest of batchkit asks of a source of items."""

from __future__ import annotations

import json
from typing import Any, Protocol
from zlib import crc32

from batchkit.model import Batch, Cursor, Item, Span, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Reader(Protocol):
    """A restartable source of items.

    Holds paths or objects, never open handles, so that it may be sent to a worker. Coordinates are JSON values of its
    own; nobody else looks into them.

    name: a short word for default job names and messages.
    unit: what `extent` counts: "B" or "items".
    restartable: whether the same reader can be read from any cursor again; else `read` may be called once.
    durable: whether the source outlives the process, so that a job over it is worth keeping.
    files: the files it reads, which no output may be; none for a source in memory. A reader of files also has
    `patterns`: glob patterns that more files may match.

    A reader may also have `split(span, count) -> list[Span]`: cut a span into at most `count` that together are it, of
    about the same size, each beginning with an item. Without it, one worker reads everything.

    A reader may also have `keep_in(directory: str)`: keep what helps to resume in this directory of the job. It is
    called before `check` and `read`, and what is kept is a cache: it may be lost or removed at any time.
    """

    name: str
    unit: str
    restartable: bool
    durable: bool
    files: Sequence[str]

    def identity(self) -> Any:
        """Return the JSON value by which a job's definition knows this source: paths and options, no content."""

    def fingerprint(self) -> Any:
        """Return a JSON value by which `check` knows the content again. Raises `SourceError`."""

    def whole(self) -> Span:
        """Return the span of all items there are now; `stop=None` if the end is unknown."""

    def read(self, span: Span, batch_size: int) -> Iterator[Batch]:
        """Yield the batches of `span`, each of at most `batch_size` items, in order.

        A batch may be shorter (a byte bound, the end of a file, a fault behind it). Raises `SourceError` where the
        source cannot be read further; all whole items before that place have been yielded.
        """

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Tell whether the source is the one `fingerprint` was taken of and `cursor` was reached in.

        proof: of what was consumed before `cursor`; `None` if nothing was. Costs O(1) in the number of items, where the
        source can be entered anywhere; else a verdict of `same` says in its `why` what it took.
        """

    def extent(self, span: Span) -> int | None:
        """Return the size of a span in `unit`s without reading it; `None` if it cannot be known."""

    def describe(self, cursor: Cursor) -> str:
        """Return a position for people, such as `'items.txt' line 12 (byte 345)`."""


_TOGETHER = 1_000
"""Items that are read at a time where they are only counted."""


def divisible(reader: Reader) -> bool:
    """Tell whether several workers can read a source, each a part of its own."""
    return reader.restartable and hasattr(reader, "split")


def split(reader: Reader, span: Span, count: int) -> list[Span]:
    """Cut a span into at most `count`, each beginning with an item; as it is where its reader cannot."""
    cut = getattr(reader, "split", None)
    return [span] if cut is None or count == 1 else cut(span, count)


def count(reader: Reader, span: Span) -> int:
    """Return the number of items in a span, by reading it."""
    return sum(len(batch.items) for batch in reader.read(span, _TOGETHER))


class IndexBatch(Batch):
    """A batch whose coordinates are the indexes of its items."""

    __slots__ = ()

    def __init__(self, items: Sequence[Item], start: int) -> None:
        """Number the items from `start`."""
        self.items = items
        self.start = start
        self.stop = start + len(items)
        self.proof = proof_of_item(items[-1])
        self.unreadable = {}

    def split(self, count: int) -> tuple[Batch, Batch]:
        """Return the first `count` items and the rest."""
        return IndexBatch(self.items[:count], self.start), IndexBatch(self.items[count:], self.start + count)

    def coordinate(self, index: int) -> int:
        """Return the index of an item in the source."""
        return int(self.start) + index


def proof_of_item(item: Item) -> int:
    """Return a digest of an in-memory item that is the same in every process."""
    try:
        told = json.dumps(item, default=_told, skipkeys=True)
    except (ValueError, RecursionError):  # it holds itself, is nested too deeply, or has more digits than Python prints
        told = type(item).__name__
    return crc32(told.encode())


def _told(value: Any) -> str:
    """Return what tells a value from others in every process: of objects in general, only their type does."""
    known = type(value).__module__ in {"datetime", "decimal", "uuid", "builtins", "fractions", "pathlib"}
    return repr(value) if known and not isinstance(value, set | frozenset) else type(value).__name__
