"""The input of a round: failures of a job, one entry a line; the cursor is `[0, byte offset]` in that file.

An item is what the failed one was. Entries are those of failure files.
"""

from __future__ import annotations

from typing import Any

from batchkit.model import Batch
from batchkit.readers.ndjson import NdjsonReader
from batchkit.tagged import NotKept, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchkit.model import Cursor, Span, Verdict


_TOGETHER = 1_000


class RoundReader(NdjsonReader):
    """Reads the items of a round.

    schema: columns of the items as failure files keep them, `None` if they are no rows of a table.
    batched: whether the function takes batches; then the items of a batch stood side by side, so that it is known where
    all of their results belong. A place in the output that they share is not enough: results of an earlier round may
    stand there between theirs.
    """

    kind = "round"

    def __init__(self, path: str, *, schema: str | None, batched: bool) -> None:
        """Find the file's size."""
        super().__init__([path])
        self.schema = schema
        self._batched = batched

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Compare size, first block, and the block before the cursor.

        Path and time say nothing here: the file is ours, in a directory that may be moved and copied, and a power cut
        keeps the bytes that were synced, but not always their time.
        """
        now = self.fingerprint()
        same = [
            {**was, "path": each["path"], "mtime_ns": each["mtime_ns"]}
            for was, each in zip(fingerprint, now, strict=True)
        ]
        return super().check(same, cursor, proof)

    def read(self, span: Span, batch_size: int) -> Iterator[Batch]:
        """Yield the batches; an item that could not be read, or was kept as a text only, is one of its own."""
        # Splitting costs as much as a batch is long; items that stood side by side are rarely so many.
        for batch in super().read(span, min(batch_size, _TOGETHER) if self._batched else batch_size):
            left = batch
            for count in self._runs(batch.items):
                part, left = left.split(count) if count < len(left.items) else (left, left)
                yield EntryBatch(part, self.schema)

    def _runs(self, entries: Sequence[dict[str, Any]]) -> Iterator[int]:
        """Yield how many entries each belong together."""
        count, before = 0, None
        for index, entry in enumerate(entries):
            key = self._key(entry, index)
            if count and (key is None or key != before):
                yield count
                count = 0
            count, before = count + 1, key
        if count:
            yield count

    def _key(self, entry: dict[str, Any], index: int) -> Any:
        """Return what entries that belong together have in common; `None` for one that stands alone."""
        if entry.get("unreadable") or _lost(entry) is not None:
            return None
        return (entry["shard"], entry["number"] - index) if self._batched else ()


class EntryBatch(Batch):
    """Items that failed; `entries`: what is known of them. Coordinates of items are those in the job's own input."""

    __slots__ = ("_inner", "_schema", "entries")

    def __init__(self, inner: Batch, schema: str | None) -> None:
        """Make the items again."""
        self._inner, self._schema = inner, schema
        self.entries: Sequence[dict[str, Any]] = inner.items
        self.start, self.stop, self.proof = inner.start, inner.stop, inner.proof
        first = self.entries[0]
        lost = _lost(first)
        if first.get("unreadable"):
            self.items, self.unreadable = [None], {0: first.get("message") or "it could not be read when it failed"}
        elif lost is not None:
            self.items, self.unreadable = [None], {0: f"it has no form in JSON, only this text of it was kept: {lost}"}
        else:
            self.items, self.unreadable = self._made(), {}

    def _made(self) -> Sequence[Any]:
        items = [decode(entry["item"]) for entry in self.entries]
        if self._schema is None:
            return items
        from batchkit.frames.arrow import frame_like  # noqa: PLC0415  # loads polars
        from batchkit.frames.rows import whole  # noqa: PLC0415

        return whole(frame_like(self._schema, items))

    def split(self, count: int) -> tuple[Batch, Batch]:
        """Return the first `count` items and the rest."""
        first, rest = self._inner.split(count)
        return EntryBatch(first, self._schema), EntryBatch(rest, self._schema)

    def coordinate(self, index: int) -> Cursor:
        """Return the coordinate of an item in the input of the job, by which calls have the same keys as before."""
        return self.entries[index]["at"]

    def number_of(self, index: int) -> int | None:
        """Return the number of an item in the input of the job, if it was known when it failed."""
        number: int | None = self.entries[index].get("nth")
        return number


def _lost(entry: dict[str, Any]) -> str | None:
    """Return the text of an item that cannot be made again; `None` if it can."""
    try:
        decode(entry["item"])
    except NotKept as error:
        return error.text
    return None
