"""The shards of a job in one run: each is opened, worked through and closed, in order."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, NamedTuple

from batchkit.calling import Caller, is_async
from batchkit.current import Identity
from batchkit.failures import Attempts
from batchkit.handling import Handler, RoundHandler
from batchkit.model import Checkpoint
from batchkit.processor import Processor
from batchkit.progress import Progress, sayer
from batchkit.result import Result, reason_for_people
from batchkit.resume import failure_file, reopen
from batchkit.writers.stdout import OutputClosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.failure_file import FailureFile, FailuresInMemory
    from batchkit.flight import Flight
    from batchkit.isolation import IsolatedCaller
    from batchkit.job import JobDirectory
    from batchkit.journal import Journal, NoJournal
    from batchkit.model import Failure, Span
    from batchkit.pace import Pace
    from batchkit.resume import OpenJob, ShardState
    from batchkit.tally import Tally
    from batchkit.work import Work
    from batchkit.writers.base import Output, Round, Writer


class Streams(NamedTuple):
    """What a shard is written to."""

    writer: Writer
    kept: FailureFile | FailuresInMemory
    journal: Journal | NoJournal


class Shards:
    """The loop over the shards, with what they share."""

    def __init__(self, work: Work, name: str | None, number: int, tally: Tally) -> None:
        """Show progress; name: of the job, `None` if it has no directory; number: of the run; tally: of the shards."""
        self._work = work
        self._name = name
        self._number = number
        self._tally = tally
        self.before = tally.handled
        self._progress = Progress(
            work.progress,
            name=name or "memory",
            unit=work.reader.unit,
            total=tally.total,
            at=tally.at,
            items=tally.handled,
        )

    def close(self) -> None:
        """Leave the progress bar as it stands."""
        self._progress.close()

    def caller(self, uuid: str, directory: str | None = None) -> Caller | IsolatedCaller | Flight:
        """Make the function ready, in a process of its own if that is asked for or a time limit needs it.

        directory: of the job, in which its processes share their rate.
        """
        work = self._work
        identity = Identity(self._name or "memory", work.round_of or uuid, 0)
        made: type[Caller | IsolatedCaller] = Caller
        if work.function is not None and (work.isolated or (work.timeout is not None and not is_async(work.function))):
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
            pace=None if work.rate is None else _pace(work.rate, directory),
        )

    def judge(self, *, final: bool = False) -> None:
        """Raise `TooManyFailures` if there are too many."""
        tally = self._tally
        self._work.limit.check(self._name, tally.handled, tally.failed, final=final)

    def work_on(self, job: JobDirectory, opened: OpenJob, rounds: Sequence[Round]) -> bool:
        """Work through the unfinished shards in order; return whether all are at their end.

        rounds: those whose results are not in the published output yet.
        """
        left = [shard for shard in opened.shards if not shard.ended]
        if not left:
            return True
        with closing(self.caller(opened.manifest.job, job.path)) as caller:
            return all(self._work_on_shard(job, opened, rounds, shard, caller) for shard in left)

    def _work_on_shard(
        self,
        job: JobDirectory,
        opened: OpenJob,
        rounds: Sequence[Round],
        shard: ShardState,
        caller: Caller | IsolatedCaller | Flight,
    ) -> bool:
        with ExitStack() as stack:
            stack.enter_context(job.shard_locked(shard.number))
            writer = opened.output.writer(shard.number, frozen=opened.frozen, rounds=rounds)
            stack.callback(writer.close)
            kept = failure_file(job, shard.number, opened.manifest.job)
            stack.callback(kept.close)
            journal, base = reopen(job, shard, opened.manifest.job, writer, kept)
            stack.callback(journal.close)
            ended = self.work(shard.number, shard.span, base, Streams(writer, kept, journal), caller)
            if journal.long:
                journal.renew(writer.mark(), kept.mark())  # so that the next run need not read what this one committed
            return ended

    def work(
        self,
        shard: int,
        span: Span,
        base: Checkpoint | None,
        streams: Streams,
        caller: Caller | IsolatedCaller | Flight,
    ) -> bool:
        """Run the loop over one shard; return whether it is at its end."""
        work, tally, progress = self._work, self._tally, self._progress

        def tell(point: Checkpoint) -> float:
            tally.put(shard, point)
            return progress.show(tally.at, tally.handled, tally.failed)

        def judge(point: Checkpoint) -> None:
            tally.put(shard, point)
            self.judge()

        before = tally.points[shard - 1] if shard else None
        proof = 0 if before is None else before.proof
        start = base or Checkpoint(0, span.start, 0, 0, 0, proof, None, 0, 0.0, 0.0)
        caller.identity = caller.identity._replace(shard=shard)
        writer, kept, journal = streams
        attempts = Attempts(caller, work.policy, work.budget, sayer(work.progress))
        handler = (Handler if work.round_of is None else RoundHandler)(
            shard=shard, reader=work.reader, writer=writer, kept=kept, attempts=attempts, policy=work.policy
        )
        processor = Processor(
            reader=work.reader,
            span=span,
            base=start._replace(run=self._number),
            batch_size=work.batch_size,
            first=None if shard else 0,
            caller=caller,
            writer=writer,
            kept=kept,
            handler=handler,
            journal=journal,
            budget=work.budget,
            tell=tell,
            judge=None if work.limit.most is None else judge,
            sync_interval=work.sync_interval,
        )
        try:
            with work.budget.watched(lambda: tell(processor.last)):
                processor.run()
        except OutputClosed:
            work.budget.stop("output")
            processor.sync()
        tally.put(shard, processor.last)
        return processor.last.end

    def result(
        self,
        name: str | None,
        output: Output,
        read: Callable[[], Iterator[Any]],
        read_failures: Callable[[], Iterator[Failure]],
        *,
        completed: bool,
    ) -> Result:
        """Sum up."""
        tally, work = self._tally, self._work
        counted = tally.total if work.reader.unit == "items" else None
        return Result(
            job=name,
            status="completed" if completed else "paused",
            reason=None if completed else reason_for_people(work.budget.reason),
            done=tally.done,
            failed=tally.failed,
            skipped=tally.skipped,
            total=tally.handled if completed else counted,
            share=1.0 if completed else tally.share,
            new=tally.handled - self.before,
            seconds=time.monotonic() - work.begun,
            output=output.path,
            read=read,
            read_failures=read_failures,
        )


def _pace(rate: str, directory: str | None) -> Pace:
    from batchkit.pace import Pace, limit_of  # noqa: PLC0415  # loads pyrate-limiter

    return Pace(*limit_of(rate), None if directory is None else os.path.join(directory, "rate"))
