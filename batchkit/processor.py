"""THE LOOP over one shard: ask, read, call, write, commit, sync, tell."""

from __future__ import annotations

import math
import time
from typing import Any

from batchkit.budget import Interrupted
from batchkit.errors import ItemError
from batchkit.model import Checkpoint
from batchkit.writers.base import ResultError

_SHOWN = 80
"""Characters of an item that a message shows."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchkit.budget import Budget
    from batchkit.calling import Caller
    from batchkit.journal import Journal, NoJournal
    from batchkit.model import Batch, Cursor, Outcome, Span
    from batchkit.readers.base import Reader
    from batchkit.writers.base import Writer


class Feed:
    """The batches of a span from the cursor on; what was taken and not done is given back."""

    def __init__(self, reader: Reader, span: Span, batch_size: int) -> None:
        """Read nothing yet."""
        self._batches: Iterator[Batch] = reader.read(span, batch_size)
        self._rests: list[Batch] = []

    def take(self, room: int) -> Batch | None:
        """Return the next batch, of at most `room` items; `None` at the end."""
        batch = self._rests.pop() if self._rests else next(self._batches, None)
        if batch is not None and len(batch.items) > room:
            batch, rest = batch.split(room)
            self._rests.append(rest)
        return batch

    def give_back(self, rest: Batch) -> None:
        """Take this before anything else next time."""
        self._rests.append(rest)


class Processor:
    """Works through one shard, one commit per batch."""

    def __init__(  # noqa: PLR0913  # the one place where all parts of a job meet
        self,
        *,
        reader: Reader,
        span: Span,
        base: Checkpoint,
        batch_size: int,
        caller: Caller,
        writer: Writer,
        journal: Journal | NoJournal,
        budget: Budget,
        tell: Callable[[Checkpoint], None],
        sync_interval: float | None,
    ) -> None:
        """Go on behind `base`, the last commit of the shard (its `run` is this run's); `sync_interval`: seconds."""
        self._reader = reader
        self._stop = span.stop
        self._feed = Feed(reader, span._replace(start=base.stop), batch_size)
        self._last = base
        self._batch_size = batch_size
        self._caller = caller
        self._writer = writer
        self._journal = journal
        self._budget = budget
        self._tell = tell
        self._sync_interval = math.inf if sync_interval is None else sync_interval
        self._synced_at = time.monotonic()

    def run(self) -> Checkpoint:
        """Work until the span's end (then the checkpoint says `end`), a budget or a request to stop.

        Everything committed is durable on return, and also when this raises `ItemError` or `SourceError`.
        """
        self._budget.attach(self._caller.cut)
        begun = time.monotonic()
        while not self._last.end:
            batch = None
            if self._last.stop != self._stop:
                room = self._budget.room(self._batch_size, begun)
                batch = self._next(room) if room else None
                if batch is None and self._budget.reason is not None:
                    break
            if batch is None:
                self._end(begun)
                break
            items = self._handle(batch, begun)
            now = time.monotonic()
            self._budget.spend(items, now - begun)
            begun = now
        self.sync()
        return self._last

    def _next(self, room: int) -> Batch | None:
        """Read a batch; `None` at the end of the span, or when a request to stop ended the wait for input."""
        self._budget.waiting = True
        try:
            return self._feed.take(room)
        except Interrupted:
            return None
        except Exception:
            self.sync()
            raise
        finally:
            self._budget.waiting = False

    def _handle(self, batch: Batch, begun: float) -> int:
        """Call, write, commit; return the number of items done. What a cut left of the batch is given back."""
        outcome = self._write(self._caller(batch, self._last.seq + 1))
        done, rest = _parted(batch, outcome.count)
        if done is not None:
            self._commit(done.start, done.stop, done.proof, len(done.items), begun)
        if rest is not None and outcome.error is not None:
            self.sync()
            raise self._item_error(rest, outcome.error) from outcome.error
        if rest is not None:
            self._feed.give_back(rest)
        return outcome.count

    def _write(self, outcome: Outcome) -> Outcome:
        """Write the results; those before one that cannot be stored, if there is one."""
        try:
            self._writer.write(outcome.results)
        except ResultError as error:
            outcome = outcome.before(outcome.item_of(error.index) or 0, error)
            self._writer.write(outcome.results)
        return outcome

    def _commit(self, start: Cursor, stop: Cursor, proof: int, items: int, begun: float, *, end: bool = False) -> None:
        """Make the checkpoint of cursor, counts and mark, and append it: the one line that moves progress."""
        now = time.monotonic()
        due = now - self._synced_at >= self._sync_interval
        if due:
            self._writer.sync()
        last = self._last
        point = Checkpoint(
            last.seq + 1,
            start,
            stop,
            last.done + items,
            last.failed,
            last.skipped,
            proof,
            self._writer.mark(),
            last.run,
            time.time(),
            now - begun,
            end,
        )
        self._journal.append(point)
        self._last = point
        if due:
            self._journal.sync()
            self._synced_at = time.monotonic()
        if self._journal.full:
            self._writer.sync()
            self._journal.renew()
        self._tell(point)

    def _end(self, begun: float) -> None:
        """Commit that nothing is left."""
        last = self._last
        stop = last.stop if self._stop is None else self._stop
        self._writer.sync()
        self._commit(last.stop, stop, last.proof, 0, begun, end=True)

    def sync(self) -> None:
        """Make everything committed durable."""
        self._writer.sync()
        self._journal.sync()

    def _item_error(self, rest: Batch, error: BaseException) -> ItemError:
        """Name the item that `rest` begins with, its position and the error, in one line."""
        where = self._reader.describe(rest.coordinate(0))
        item = rest.items[0]
        if 0 in rest.unreadable:
            what = f"the item at {where} cannot be read: {rest.unreadable[0]}"
        elif isinstance(error, ResultError):
            what = f"the result of {_short(item)} at {where} cannot be stored: {error.why}"
        else:
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            many = f"a batch of {len(rest.items):,} items from " if self._caller.batched else ""
            what = f"the function failed on {many}{_short(item)} at {where}: {' '.join(why.split())}"
        message = f"{what}; everything before it is kept, the next run begins with it"
        return ItemError(message, item=item, position=where)


def _parted(batch: Batch, count: int) -> tuple[Batch | None, Batch | None]:
    """Return the first `count` items and the rest; `None` for what is empty."""
    if count >= len(batch.items):
        return batch, None
    return batch.split(count) if count else (None, batch)


def _short(item: Any) -> str:
    text = repr(item)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
