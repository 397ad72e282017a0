"""What becomes of a batch in which something fails: good results are stored, failures kept, each in its place."""

from __future__ import annotations

import os
import time
import traceback
from contextlib import closing
from typing import Any, NamedTuple

from batchkit.errors import ItemError
from batchkit.failures import Done, Failed, Skipped, short, text_of
from batchkit.writers.base import ResultError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from batchkit.failure_file import FailureFile, FailuresInMemory
    from batchkit.failures import Attempts, Policy
    from batchkit.model import Batch, Checkpoint, Outcome
    from batchkit.readers.base import Reader
    from batchkit.writers.base import Writer

_TRACEBACK = 8 << 10
_MESSAGE = 4 << 10
"""Characters of a traceback, of which the end tells most, and of a message that are kept."""

_LIBRARY = os.path.dirname(os.__file__)
_OURS = (
    os.path.dirname(os.path.abspath(__file__)) + os.sep,
    os.path.join(_LIBRARY, "asyncio", ""),
    os.path.join(_LIBRARY, "concurrent", ""),
)
"""Where the code is that stands between the loop and the function."""


class Handled(NamedTuple):
    """What became of the first `reached` items of a batch.

    failed, skipped: how many of them. fault: the failure behind them that is to end the run; `None`: none is.
    """

    reached: int
    failed: int
    skipped: int
    fault: Failed | None


class Handler:
    """Handles the batches of a shard in which something fails.

    Everything it writes is behind the newest commit: a crash before the next one undoes it.
    """

    at_once: int | None = None
    """Results of how many items are written at once; `None`: as many as there are."""

    def __init__(  # keyword-only parts of a shard
        self,
        *,
        shard: int,
        reader: Reader,
        writer: Writer,
        kept: FailureFile | FailuresInMemory,
        attempts: Attempts,
        policy: Policy,
    ) -> None:
        """Store in `writer`, keep in `kept`."""
        self._shard = shard
        self._reader = reader
        self._writer = writer
        self._kept = kept
        self._attempts = attempts
        self._policy = policy
        self._last: Checkpoint

    def handle(self, batch: Batch, outcome: Outcome | None, last: Checkpoint) -> Handled:
        """Work through a batch, whose first outcome may be known already; `last`: the commit before it.

        Raises `StorageError`.
        """
        self._last = last
        count = failed = skipped = 0
        with closing(self._verdicts(batch, last.seq + 1, outcome)) as verdicts:
            for verdict in verdicts:
                if isinstance(verdict, Failed):
                    if self._policy.on_error == "stop":
                        return Handled(verdict.first, failed, skipped, verdict)
                    for index in range(verdict.first, verdict.first + verdict.length):
                        self._keep(batch, index, verdict)
                    failed += verdict.length
                    count = verdict.first + verdict.length
                elif isinstance(verdict, Skipped):
                    for index in range(verdict.first, verdict.first + verdict.length):
                        self._skip(batch, index)
                    skipped += verdict.length
                    count = verdict.first + verdict.length
                else:
                    count = verdict.first + verdict.outcome.done
        return Handled(count, failed, skipped, None)

    def _verdicts(self, batch: Batch, seq: int, outcome: Outcome | None) -> Generator[Done | Failed | Skipped]:
        """Yield what became of the items, in order; what is `Done` is stored by then."""
        with closing(self._attempts.pieces(batch, seq, outcome)) as pieces:
            for piece in pieces:
                if isinstance(piece, Done):
                    reached = yield from self._stored(batch, seq, piece)
                    if reached < piece.first + piece.outcome.done:
                        return
                else:
                    yield piece

    def _stored(self, batch: Batch, seq: int, done: Done) -> Generator[Done | Failed | Skipped, None, int]:
        """Store results, but those that the output refuses; return the index up to which this was done.

        After a refusal the next stretch is only as long as the one before it was, and then longer and longer: so many
        refusals cost a few times what one pass costs, rather than a pass each.
        """
        first, outcome = done.first, done.outcome
        known = outcome.one_each or outcome.sizes is not None
        at, length = 0, outcome.done if self.at_once is None or not known else self.at_once
        refused: tuple[int, ResultError] | None = None
        while at < outcome.done:
            if refused is not None and refused[0] == at:
                attempts = done.attempts if outcome.tries is None else outcome.tries.get(at, 1)
                yield Failed(first + at, 1, refused[1], attempts)
                at, refused = at + 1, None
                continue
            stop = min(at + length, outcome.done)
            part = outcome if stop - at == outcome.done else outcome.part(at, stop)
            refusal = self._write(batch, first + at, part)
            if refusal is None:
                yield Done(first + at, part)
                at, length = stop, length if self.at_once is not None else 2 * length
                continue
            index = 0 if part.done == 1 else None if refusal.index is None else part.item_of(refusal.index)
            if index is not None:
                refused, length = (at + index, refusal), max(index, 1)
            elif known:
                length = part.done // 2
            else:
                return (yield from self._narrowed(batch, seq, done, refusal))
        return first + outcome.done

    def _narrowed(
        self, batch: Batch, seq: int, done: Done, refusal: ResultError
    ) -> Generator[Done | Failed | Skipped, None, int]:
        """Find the items whose results are refused, where nobody knows which results are whose."""
        stop = done.first + done.outcome.done
        if self._policy.isolate == "none":
            yield Failed(done.first, done.outcome.done, refusal, done.attempts)
            return stop
        middle = (done.first + stop) // 2
        for start, end in ((done.first, middle), (middle, stop)):
            if not self._attempts.go_on():
                return start
            reached = start
            for piece in self._attempts.stretch(batch, seq, start, end):
                if isinstance(piece, Done):
                    reached = yield from self._stored(batch, seq, piece)
                else:
                    yield piece
                    reached = piece.first + piece.length
            if reached < end:
                return reached
        return stop

    def _write(self, batch: Batch, first: int, outcome: Outcome) -> ResultError | None:
        """Store the results of consecutive items; return why the output refuses one of them, and then none is."""
        del batch, first
        try:
            self._writer.write(outcome.results)
        except ResultError as error:
            return error
        return None

    def _skip(self, batch: Batch, index: int) -> None:
        """Take note of an item that was dropped on purpose: it is only counted."""

    def _keep(self, batch: Batch, index: int, failed: Failed) -> None:
        """Keep a failure."""
        from batchkit.tagged import encode  # noqa: PLC0415  # 10 ms of imports that few runs need

        at = batch.coordinate(index)
        entry = {
            "shard": self._shard,
            "number": self._last.handled + index,
            "at": at,
            "where": self._reader.describe(at),
            "place": self._writer.place(),
            "item": encode(batch.items[index]),
            **self._facts(failed),
        }
        if (nth := batch.number_of(index)) is not None:
            entry["nth"] = nth
        if index in batch.unreadable:
            entry["unreadable"] = True
        self._kept.keep(entry, lambda: schema_of(batch.items))

    def _facts(self, failed: Failed) -> dict[str, Any]:
        error = failed.error
        return {
            "error": type(error).__name__,
            "message": _message_of(error)[:_MESSAGE],
            "traceback": _traceback_of(error)[-_TRACEBACK:],
            "attempts": failed.attempts,
            "run": self._last.run,
            "time": round(time.time(), 3),
        }


class RoundHandler(Handler):
    """Handles the items of a round: where the results of each belong is known, and what became of each is kept."""

    at_once = 1

    def _write(self, batch: Batch, first: int, outcome: Outcome) -> ResultError | None:
        start = self._writer.place()
        refusal = super()._write(batch, first, outcome)
        if refusal is None:
            stop = self._writer.place()
            for index in range(first, first + outcome.done):  # several only if they belong at one place
                entry = self._entry(batch, index)
                self._kept.keep({**_who(entry), "place": entry["place"], "start": start, "stop": stop}, self._schema)
                start = stop
        return refusal

    def _skip(self, batch: Batch, index: int) -> None:
        self._kept.keep({**_who(self._entry(batch, index)), "skipped": True}, self._schema)

    def _keep(self, batch: Batch, index: int, failed: Failed) -> None:
        entry, facts = self._entry(batch, index), self._facts(failed)
        facts["attempts"] += entry["attempts"]
        self._kept.keep({**entry, **facts}, self._schema)

    def _entry(self, batch: Batch, index: int) -> dict[str, Any]:
        return batch.entries[index]  # type: ignore[attr-defined,no-any-return]  # a `RoundReader` gives such batches

    def _schema(self) -> str | None:
        return self._reader.schema  # type: ignore[attr-defined,no-any-return]  # as above


def _who(entry: dict[str, Any]) -> dict[str, Any]:
    return {"shard": entry["shard"], "number": entry["number"]}


def schema_of(items: Any) -> str | None:
    """Return the columns of items that are rows of a table, as text; `None` for others."""
    if not hasattr(items, "frame"):
        return None
    from batchkit.frames.arrow import schema_text  # noqa: PLC0415  # loads polars, which such items have loaded

    return schema_text(items[:0].frame)


def _message_of(error: BaseException) -> str:
    return error.why if isinstance(error, ResultError) else text_of(error)


def _traceback_of(error: BaseException) -> str:
    """Return the traceback of what the function raised, without the calls that led there; "" if there is nothing else.

    Those are batchkit's own, and for an async function also the event loop's.
    """
    known = getattr(error, "__batchkit_traceback__", None)  # of another process
    if known is not None:
        return str(known)
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    if frames is None:
        return ""
    return "".join(traceback.format_exception(type(error), error, frames))


def item_error(batch: Batch, fault: Failed, number: int, describe: Callable[[Any], str]) -> ItemError:
    """Name an item that ends the run, its place, the number of its batch, the error and the next step, in one line."""
    first, error = fault.first, fault.error
    item, where = batch.items[first], describe(batch.coordinate(first))
    who = short(item) if fault.length == 1 else f"a batch of {fault.length:,} items from {short(item)}"
    tries = f" in {fault.attempts} attempts" if fault.attempts > 1 else ""
    if first in batch.unreadable:
        what = f"the item at {where} cannot be read: {batch.unreadable[first]}"
    elif isinstance(error, ResultError):
        what = f"the result of {who} at {where} (batch {number:,}) cannot be stored: {error.why}"
    else:
        text = text_of(error)
        why = f"{type(error).__name__}: {text}" if text else type(error).__name__
        what = f"the function failed on {who} at {where}{tries}: {why}"
    message = (
        f"{' '.join(what.split())}; everything before it is kept, the next run begins with it, "
        "or passes it over with --on-error skip"
    )
    return ItemError(message, item=item if fault.length == 1 else None, position=where)
