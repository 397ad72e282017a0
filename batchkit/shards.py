"""The shards of a job, as one process works on them: each is opened, worked through and closed."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from typing import NamedTuple

from batchkit.calling import Caller, command_of, is_async
from batchkit.current import Identity
from batchkit.failures import Attempts
from batchkit.handling import Handler, RoundHandler
from batchkit.ledger import Key, Ledger
from batchkit.model import Checkpoint, Shard
from batchkit.processor import Processor
from batchkit.progress import sayer
from batchkit.readers.base import divisible
from batchkit.resume import ShardState, failure_file, reopen
from batchkit.writers.stdout import OutputClosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.account import Account
    from batchkit.failure_file import FailureFile, FailuresInMemory
    from batchkit.flight import Flight
    from batchkit.isolation import IsolatedCaller
    from batchkit.journal import Journal, NoJournal
    from batchkit.pace import Pace
    from batchkit.plan import Place
    from batchkit.sharing import Sharing
    from batchkit.work import Work
    from batchkit.writers.base import Writer


class Streams(NamedTuple):
    """What a shard is written to."""

    writer: Writer
    kept: FailureFile | FailuresInMemory
    journal: Journal | NoJournal


class Shards:
    """Works on shards, one after the other."""

    def __init__(self, work: Work, name: str | None, run: int, account: Account | None) -> None:
        """Work for the run with this number; account: hears of all that is committed; `None`: nobody does.

        name: of the job, `None` if it has no directory.
        """
        self._work = work
        self._name = name
        self._run = run
        self._account = account
        self._uuid = ""

    def caller(self, uuid: str, pace: str | None = None, *, isolated: bool = False) -> Caller | IsolatedCaller | Flight:
        """Make the function ready, in a process of its own if that is asked for or a time limit needs it.

        pace: the file in which all workers of the run share their rate; `None`: there are no others.
        """
        work, self._uuid = self._work, uuid
        identity = Identity(self._name or "memory", work.round_of or uuid, 0)
        made: type[Caller | IsolatedCaller] = Caller
        wanted = work.isolated or (work.timeout is not None and not is_async(work.function))
        apart = isolated or (wanted and command_of(work.function) is None)  # a command has a process as it is
        if work.function is not None and apart:
            from batchkit.isolation import IsolatedCaller  # noqa: PLC0415  # most runs need no other process

            made = IsolatedCaller
        make = partial(
            made,
            work.function,
            batched=work.batched,
            identity=identity,
            batch_format=work.batch_format,
            timeout=work.timeout,
        )
        if work.function is None or (work.concurrency == 1 and work.rate is None):
            return make()
        from batchkit.flight import Flight  # noqa: PLC0415  # most runs make one call after the other

        return Flight(
            make,
            count=work.concurrency,
            budget=work.budget,
            policy=work.policy,
            say=sayer(work.progress),
            pace=None if work.rate is None else _pace(work.rate, pace),
        )

    def work_in_order(self, place: Place, order: Sequence[int], states: Sequence[ShardState]) -> bool:
        """Work through the unfinished shards in input order; return whether all are at their end.

        order: numbers of all shards of the job.
        """
        left = [state for state in states if not state.ended]
        if not left:
            return True
        before: Checkpoint | None = None
        with closing(self.caller(place.uuid, place.job.own("rate"))) as caller:
            for state in states:
                if not state.ended:
                    with place.job.shard_locked(state.number):
                        last = self.work_on(place, state, order, caller, 0 if before is None else before.proof)
                    if not last.end:
                        return False
                    before = last
                else:
                    before = state.base
        return True

    def work_on(  # what a shard has
        self,
        place: Place,
        state: ShardState,
        order: Sequence[int],
        caller: Caller | IsolatedCaller | Flight,
        proof: int = 0,
        sharing: Sharing | None = None,
    ) -> Checkpoint:
        """Work on a shard whose lock is held, until its end or the budget's; return its newest commit.

        order: numbers of all shards, in input order. proof: of the input before the shard, 0 if it was not read.
        sharing: gives the rest of it to others; `None`: nobody else is there.
        """
        with ExitStack() as stack:
            number = state.number
            writer = place.output.writer(number, frozen=place.frozen, rounds=place.rounds, order=order)
            stack.callback(writer.close)
            kept = failure_file(place.job, number, place.uuid)
            stack.callback(kept.close)
            journal, base = reopen(place.job, state, place.uuid, writer, kept)
            stack.callback(journal.close)
            last = self.work(state.shard, base, Streams(writer, kept, journal), caller, proof, sharing)
            if journal.long:
                journal.renew(writer.mark(), kept.mark())  # so that the next run need not read what this one committed
            return last

    def work(
        self,
        shard: Shard,
        base: Checkpoint | None,
        streams: Streams,
        caller: Caller | IsolatedCaller | Flight,
        proof: int = 0,
        sharing: Sharing | None = None,
    ) -> Checkpoint:
        """Run the loop over one shard; return its newest commit."""
        work, account, number = self._work, self._account, shard.number
        start = base or Checkpoint(0, shard.span.start, 0, 0, 0, proof, None, 0, 0.0, 0.0)
        caller.identity = caller.identity._replace(shard=number)
        writer, kept, journal = streams
        attempts = Attempts(caller, work.policy, work.budget, sayer(work.progress))
        handler = (Handler if work.round_of is None else RoundHandler)(
            shard=number, reader=work.reader, writer=writer, kept=kept, attempts=attempts, policy=work.policy
        )
        judged = account is not None and work.limit.most is not None
        processor = Processor(
            reader=work.reader,
            span=shard.span,
            base=start._replace(run=self._run),
            batch_size=work.batch_size,
            first=shard.first,
            caller=caller,
            writer=writer,
            kept=kept,
            handler=handler,
            journal=journal,
            budget=work.budget,
            tell=_never if account is None else lambda point: account.tell(number, point),
            judge=(lambda point: account.judge(number, point)) if account is not None and judged else None,
            share=None if sharing is None else sharing.give,
            sync_interval=work.sync_interval,
        )

        if isinstance(caller, Caller) and self._name is not None:
            of = None if work.round_of is None else f"{work.round_of}:function"
            key = Key(f"{self._uuid}:function", of, number, self._name)
            caller.ledger = Ledger(
                key,
                ordered=divisible(work.reader),
                start=shard.span.start,
                point=lambda: processor.last,
                sync=processor.sync,
            )

        def tick() -> None:
            if account is not None:
                account.look(number, processor.last)
            if sharing is not None and sharing.wanted():
                processor.ask_to_share()

        try:
            with work.budget.watched(tick):
                processor.run()
        except OutputClosed:
            work.budget.stop("output")
            processor.sync()
        finally:
            if account is not None:
                account.tally.put(number, processor.last)
        return processor.last


def _pace(rate: str, path: str | None) -> Pace:
    from batchkit.pace import Pace, limit_of  # noqa: PLC0415  # loads pyrate-limiter

    return Pace(*limit_of(rate), path)


def _never(_point: Checkpoint) -> float:
    return float("inf")
