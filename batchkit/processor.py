"""THE LOOP over one shard: ask, read, call, write, commit, sync, tell."""

from __future__ import annotations

import math
import time

from batchkit.budget import Interrupted
from batchkit.errors import StorageError, TooManyFailures
from batchkit.handling import item_error
from batchkit.model import Checkpoint, Span
from batchkit.syncing import Syncer
from batchkit.writers.base import ResultError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchkit.budget import Budget
    from batchkit.calling import Caller
    from batchkit.failure_file import FailureFile, FailuresInMemory
    from batchkit.flight import Flight, Window
    from batchkit.handling import Handler
    from batchkit.isolation import IsolatedCaller
    from batchkit.journal import Journal, NoJournal
    from batchkit.model import Batch, Cursor, Outcome
    from batchkit.readers.base import Reader
    from batchkit.writers.base import Writer


class Feed:
    """The batches of a span from the cursor on; what was taken and not done is given back."""

    def __init__(self, reader: Reader, span: Span, batch_size: int, budget: Budget, number: int | None) -> None:
        """Read nothing yet. number: of the span's first item in the whole input, from 1; `None`: nobody has counted.

        far: whether reading may wait for others to write. ended: whether everything there is was given.
        """
        self.ended = False
        self.far = span.stop is None
        self._number = number
        self._batches: Iterator[Batch] = reader.read(span, batch_size)
        self._rests: list[Batch] = []
        self._budget = budget
        self._drained = False

    def drain(self) -> None:
        """Give no more; from any thread."""
        self._drained = True

    def next(self, size: int, begun: float) -> Batch | None:
        """Return the next batch, of at most `size` items; `None`: there is none, or the budget has a reason to stop.

        begun: when the work on it begins, a reading of `time.monotonic`.
        """
        room = 0 if self._drained else self._budget.room(size, begun)
        return self.take(room) if room else None

    def take(self, room: int) -> Batch | None:
        """Return the next batch, of at most `room` items.

        `None` at the end, and when a request to stop ended the wait for input: then the budget has a reason.
        """
        if self._rests:
            batch: Batch | None = self._rests.pop()
        else:
            self._budget.waiting = True
            try:
                batch = next(self._batches, None)
            except Interrupted:
                return None
            finally:
                self._budget.waiting = False
            self.ended = batch is None
        if batch is not None and len(batch.items) > room:
            batch, rest = batch.split(room)
            self._rests.append(rest)
        if batch is not None:
            batch.number = self._number
            if self._number is not None:
                self._number += len(batch.items)
        return batch

    def close(self) -> None:
        """Let go of the source, if its iterator can."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()

    def give_back(self, rest: Batch) -> None:
        """Take this before anything else next time."""
        self._rests.append(rest)
        if self._number is not None:
            self._number -= len(rest.items)


class Processor:
    """Works through one shard, one commit per batch.

    last: the newest commit.
    """

    def __init__(  # noqa: PLR0913  # the one place where all parts of a job meet
        self,
        *,
        reader: Reader,
        span: Span,
        base: Checkpoint,
        batch_size: int,
        first: int | None,
        caller: Caller | IsolatedCaller | Flight,
        writer: Writer,
        kept: FailureFile | FailuresInMemory,
        handler: Handler,
        journal: Journal | NoJournal,
        budget: Budget,
        tell: Callable[[Checkpoint], float],
        judge: Callable[[Checkpoint], None] | None,
        share: Callable[[Checkpoint], Cursor | None] | None,
        sync_interval: float | None,
    ) -> None:
        """Go on behind `base`, the last commit of the shard, with this run's number in it.

        sync_interval: seconds; `None`: sync at stops only. tell: hears of a checkpoint, and answers with the reading of
        `time.monotonic` from which on it wants to hear of another. judge: hears of each checkpoint of a shard with
        failures, and raises if they are too many; `None`: any number is fine. kept: what the handler keeps. first: how
        many items of the input come before the shard; `None`: nobody has counted. share: gives away what it can of what
        follows a commit, and returns where the shard ends from then on, `None` if nothing was given away.
        """
        self._reader = reader
        self._stop = span.stop
        self._first = first
        self.last = base
        self._batch_size = batch_size
        self._caller = caller
        self._writer = writer
        self._kept = kept
        self._handler = handler
        self._plain = handler.at_once is None
        self._judge = judge
        self._journal = journal
        self._commit_results: Callable[[Checkpoint], None] | None = getattr(writer, "commit", None)
        self._budget = budget
        self._feed = self._feeding()
        self._share = share
        self._share_asked = self._share_due = False
        self._tell = tell
        self._tell_due = -math.inf
        self._sync_interval = math.inf if sync_interval is None else sync_interval
        self._sync_due = time.monotonic() + self._sync_interval
        self._syncer = Syncer(writer, kept, journal)

    def run(self) -> None:
        """Work until the span's end (then `last` says `end`), a budget or a request to stop.

        Everything committed is durable on return, and also when this raises `ItemError`, `TooManyFailures` or
        `SourceError`.
        """
        try:
            self._loop()
        finally:
            self._feed.close()

    def _feeding(self) -> Feed | Window:
        """Return what feeds the loop behind the newest commit."""
        number = None if self._first is None else self._first + self.last.handled + 1
        feed = Feed(self._reader, Span(self.last.stop, self._stop), self._batch_size, self._budget, number)
        # Calls in flight begin before their batch is due: where there are any, they stand between the reader and us.
        return self._caller.window(feed, self.last.seq + 1) if hasattr(self._caller, "window") else feed

    def ask_to_share(self) -> None:
        """Ask for the rest of the shard to be given away, when what has begun is done; from any thread."""
        self._share_asked = True
        self._caller.cut()

    def _give_away(self) -> None:
        """Give away what can be given of the rest, and go on with what is left."""
        assert self._share is not None, "nobody else asks"
        if self._budget.lost:
            raise _taken_over()
        stop = self._share(self.last)
        self._stop = self._stop if stop is None else stop
        self._feed.close()
        self._feed = self._feeding()
        self._share_asked = self._share_due = False

    def _loop(self) -> None:
        budget = self._budget
        budget.attach(self._caller.cut)
        begun = time.monotonic()
        while not self.last.end and not self._at_stop():
            if self._share_asked and not self._share_due:
                self._share_due = True
                self._feed.drain()
            try:
                batch = self._feed.next(self._batch_size, begun)
            except Exception:  # the source cannot be read further: what is committed stays
                self.sync()
                raise
            if batch is None and self._share_due:
                self._give_away()
                continue
            if batch is None:
                break
            items = self._handle(batch, begun)
            batch = None
            now = time.monotonic()
            if budget.limited:
                budget.spend(items, now - begun)
            begun = now
        if not self.last.end and (self._feed.ended or self._at_stop()):
            self._end()
        assert self.last.end or budget.reason is not None, "whatever ends the loop early has a reason"
        self.sync()

    def _at_stop(self) -> bool:
        return self._stop is not None and bool(self.last.stop == self._stop)

    def _handle(self, batch: Batch, begun: float) -> int:
        """Call, write, commit; return the number of items handled."""
        outcome = None
        if not batch.unreadable:
            outcome = self._caller(batch, self.last.seq + 1)
            if outcome.error is None and self._plain and outcome.done == len(batch.items):
                try:
                    self._writer.write(outcome.results)
                except ResultError:
                    pass
                else:
                    self._commit(batch, begun)
                    return outcome.done
        return self._handle_item_by_item(batch, outcome, begun)

    def _handle_item_by_item(self, batch: Batch, outcome: Outcome | None, begun: float) -> int:
        """Do the same where something fails, or the batch was cut: what is left of it is given back."""
        number = self.last.seq + 1
        count, failed, skipped, fault = self._handler.handle(batch, outcome, self.last)
        if count == len(batch.items):
            self._commit_settled(batch, begun, failed, skipped)
            return count
        done, rest = batch.split(count) if count else (None, batch)
        if done is not None:
            self._commit_settled(done, begun, failed, skipped)
        if fault is not None:
            self.sync()
            raise item_error(batch, fault, number, self._reader.describe) from fault.error
        self._feed.give_back(rest)
        return count

    def _commit_settled(self, batch: Batch, begun: float, failed: int, skipped: int) -> None:
        """Commit; where the function's own transactions count on it, failures are durable before the next of them."""
        self._commit(batch, begun, failed, skipped)
        ledger = getattr(self._caller, "ledger", None)
        if (failed or skipped) and ledger is not None and ledger.used:
            self.sync()

    def _commit(self, batch: Batch, begun: float, failed: int = 0, skipped: int = 0) -> None:
        """Make the checkpoint of cursor, counts and marks, and append it: the one line that moves progress."""
        if self._budget.lost:
            raise _taken_over()
        if self._syncer.error is not None:
            self._syncer.wait()  # which raises it: a sync error is final, and nothing more is committed
        if self._sync_interval == 0 or self._commit_results is not None:
            self._writer.sync()
            self._kept.sync()  # a database is to know only of failures that are durable
        now = time.monotonic()
        last = self.last
        point = Checkpoint(
            last.seq + 1,
            batch.stop,
            last.done + len(batch.items) - failed - skipped,
            last.failed + failed,
            last.skipped + skipped,
            batch.proof,
            self._writer.mark(),
            last.run,
            time.time(),
            now - begun,
            False,  # noqa: FBT003  # a keyword costs a tenth of a microsecond
            self._kept.mark(),
        )
        self._store(point)
        self.last = point
        if now >= self._sync_due:
            self._sync_now_or_later(now)
        if self._journal.full:
            self.sync()
            self._journal.renew(self._writer.mark(), self._kept.mark())
        if now >= self._tell_due:
            self._tell_due = self._tell(point)
        if point.failed and self._judge is not None:
            self._judge_now(point)

    def _judge_now(self, point: Checkpoint) -> None:
        assert self._judge is not None, "asked before"
        try:
            self._judge(point)
        except TooManyFailures:
            self.sync()
            raise

    def _sync_now_or_later(self, now: float) -> None:
        self._sync_due = now + self._sync_interval
        if self._sync_interval == 0 or getattr(self._writer, "inline", False):
            self.sync()
        else:
            self._syncer.begin()

    def _end(self) -> None:
        """Commit that nothing is left of the span."""
        self.sync()
        last = self.last
        # The cursor stays where the last item ended, for which the proof is: empty files may follow in the span.
        end = last._replace(seq=last.seq + 1, mark=self._writer.mark(), kept=self._kept.mark(), end=True)
        self._store(end._replace(time=time.time(), seconds=0.0))
        self.last = end

    def _store(self, point: Checkpoint) -> None:
        """Append a commit to the journal; of a writer that commits checkpoints itself, behind that."""
        if self._commit_results is not None:
            self._commit_results(point)
        self._journal.append(point)

    def sync(self) -> None:
        """Make everything committed durable."""
        self._syncer.now()


def _taken_over() -> StorageError:
    return StorageError("another host has taken over this slice of the job, which was not heard of for too long")
