"""One run of a job, from opening to publishing."""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Any, NamedTuple

from batchkit import files
from batchkit.budget import Interrupted
from batchkit.calling import Caller, Identity, is_async, name_of
from batchkit.destination import leave_output, refuse_lost_beginning, stored
from batchkit.failure_file import FailuresInMemory, failure_of
from batchkit.failures import Attempts, Limit, Policy
from batchkit.handling import Handler, RoundHandler
from batchkit.journal import NoJournal
from batchkit.model import Checkpoint
from batchkit.processor import Processor
from batchkit.progress import Progress
from batchkit.result import Result, reason_for_people
from batchkit.resume import Outputs, ShardState, failure_file, open_job, reopen
from batchkit.rounds import merged_by, not_merged, proved, rounds_of, settled, still_failed
from batchkit.tally import Tally
from batchkit.writers.memory import MemoryOutput
from batchkit.writers.stdout import OutputClosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.budget import Budget
    from batchkit.destination import Destination, RoundDestination
    from batchkit.failure_file import FailureFile
    from batchkit.isolation import IsolatedCaller
    from batchkit.job import JobDirectory, Manifest
    from batchkit.journal import Journal
    from batchkit.model import Failure, Span
    from batchkit.readers.base import Reader
    from batchkit.resume import OpenJob, Wishes
    from batchkit.rounds import RoundState
    from batchkit.writers.base import Output, Round, Writer


class Work(NamedTuple):
    """What is to be done, and how: the caller's part of a run.

    sync_interval: seconds or `None`. batch_format: see `Caller`. timeout: seconds per call, `None`: no limit.
    isolated: whether the function is called in a process of its own. options: what `retry` is to know of the call,
    JSON values. round_of: uuid of the job whose failures these items are; `None`: they are not.
    """

    reader: Reader
    function: Callable[..., Any] | None
    batched: bool
    batch_size: int
    destination: Destination | RoundDestination
    sync_interval: float | None
    budget: Budget
    progress: str
    begun: float
    batch_format: str | None = None
    policy: Policy = Policy()
    limit: Limit = Limit(None)  # it has no state
    timeout: float | None = None
    isolated: bool = False
    options: dict[str, Any] | None = None
    round_of: str | None = None

    def definition(self, job: JobDirectory) -> dict[str, Any]:
        """Return what may not change between the runs of the job."""
        if self.round_of is not None:
            return {"round_of": self.round_of, "output": None}
        identity = self.reader.identity()
        function = {"function": name_of(self.function), "batched": self.batched}
        return {"source": identity, **function, **self.destination.definition(job)}

    def default_name(self) -> str | None:
        """Return `stem-function`; `None` for a source in memory whose results stay there too."""
        if not self.reader.durable and not self.destination.kept:
            return None
        parts = [self.reader.name, name_of(self.function)]
        name = re.sub(r"[^\w.-]+", "-", "-".join(part for part in parts if part)).strip("-.")
        return name or "job"


def in_memory(work: Work) -> Result:
    """Run without leaving anything on disk."""
    output = MemoryOutput()
    span = work.reader.whole()
    run = _Run(work, "memory", 1, Tally(work.reader, [span], [None]))
    kept = FailuresInMemory()
    with closing(run), closing(run.caller("memory")) as caller:
        ended = run.work(0, span, None, Streams(output.writer(0, frozen=0), kept, NoJournal()), caller)
        run.judge(final=ended)
    failures = lambda: map(failure_of, kept.kept)  # noqa: E731  # a name for what the next line passes on
    return run.result(None, output, lambda: iter(output.results), failures, completed=ended)


def as_job(work: Work, job: JobDirectory, wishes: Wishes) -> Result:
    """Run under the job's lock, and record the run's beginning and end."""
    job.make()
    with job.locked():
        try:
            opened = _open(work, job, wishes)
        except Interrupted:  # while a pipe was read up to the cursor
            return _interrupted(work, job)
        number = sum("start" in entry for entry in job.runs()) + 1
        job.record_run({"run": number, "start": time.time(), "pid": os.getpid()})
        end: dict[str, Any] = {"status": "failed", "reason": "interrupted"}
        try:
            result = _work(work, job, opened, number)
            counts = {name: getattr(result, name) for name in ("done", "failed", "skipped", "new")}
            end = {"status": result.status, "reason": result.reason, **counts}
        except Exception as error:
            end = {"status": "failed", "reason": str(error) or type(error).__name__}
            raise
        finally:
            seconds = round(time.monotonic() - work.begun, 3)
            job.record_run({"run": number, "end": time.time(), **end, "seconds": seconds})
        return result


def _open(work: Work, job: JobDirectory, wishes: Wishes) -> OpenJob:
    """Begin the job or find where it stands; what is refused here leaves it as it was."""
    definition = work.definition(job)
    work.destination.refuse_input(job, work.reader.files, getattr(work.reader, "patterns", ()))
    if hasattr(work.reader, "keep_in"):
        work.reader.keep_in(job.path)
    say = sayer(work.progress)
    with work.budget.watched(), work.budget.waiting_for(far=work.reader.whole().stop is None):
        opened = open_job(
            job,
            reader=work.reader,
            definition=definition,
            outputs=Outputs(partial(work.destination.make, job), partial(leave_output, job)),
            wishes=wishes,
            options=work.options,
            say=say,
        )
    done = sum(shard.base.done for shard in opened.shards if shard.base is not None)
    refuse_lost_beginning(opened, done)
    return opened


def _work(work: Work, job: JobDirectory, opened: OpenJob, number: int) -> Result:
    shards = opened.shards
    rounds = settled(job, opened.manifest.job)
    resolved = sum(state.done for state in rounds), sum(state.skipped for state in rounds)
    tally = Tally(work.reader, [s.span for s in shards], [s.base for s in shards], resolved)
    run = _Run(work, job.name, number, tally)
    with closing(run):
        run.judge(final=all(shard.ended for shard in shards))
        completed = run.work_on(job, opened, not_merged(rounds, job.publish_log(opened.manifest.job)))
        run.judge(final=completed)
        completed = completed and publish(job, opened, tally.points, rounds, work.budget)
    failures = lambda: map(failure_of, still_failed(job, tally.points, rounds))  # noqa: E731  # as above
    return run.result(job.name, opened.output, lambda: stored(job), failures, completed=completed)


def publish(
    job: JobDirectory,
    opened: OpenJob,
    points: Sequence[Checkpoint | None],
    rounds: Sequence[RoundState],
    budget: Budget,
) -> bool:
    """Make the output of a job appear, with what rounds brought, when all shards are at their ends; tell if it has."""
    log = job.publish_log(opened.manifest.job)
    marks = [point.mark for point in points if point is not None]
    brought = merged_by(rounds)
    if not opened.output.publish(marks, log, budget.go_on, replace=opened.manifest.replace, rounds=brought):
        return False
    for each in brought:
        files.remove(each.path)
    for state in rounds:
        state.directory.clean()  # one that is at its end is not opened again
    return True


def _interrupted(work: Work, job: JobDirectory) -> Result:
    """Return the result of a run that was asked to stop before it had found where the job stands."""
    manifest = job.load()
    points = job.commits(manifest) if manifest is not None and manifest.ready else []
    known = [point for point in points if point is not None]
    return Result(
        job=job.name,
        status="paused",
        reason=reason_for_people(work.budget.reason),
        done=sum(point.done for point in known),
        failed=sum(point.failed for point in known),
        skipped=sum(point.skipped for point in known),
        total=None,
        share=None,
        new=0,
        seconds=time.monotonic() - work.begun,
        output=None if manifest is None else manifest.output,
        read=lambda: stored(job),
        read_failures=lambda: iter(()) if manifest is None else failures_of(job, manifest),
    )


def failures_of(job: JobDirectory, manifest: Manifest) -> Iterator[Failure]:
    """Yield the failures of a job that no round has resolved, in input order."""
    points = proved(job, manifest) if manifest.ready else []
    return map(failure_of, still_failed(job, points, rounds_of(job, manifest.job)))


def sayer(progress: str) -> Callable[[str], None]:
    """Return what tells people something: on standard error, or nowhere where progress is off."""
    return _say_nothing if progress == "none" else _say


def _say(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # nobody may listen
        sys.stderr.write(f"batchkit: {text}\n")
        sys.stderr.flush()


def _say_nothing(_text: str) -> None:
    pass


class Streams(NamedTuple):
    """What a shard is written to."""

    writer: Writer
    kept: FailureFile | FailuresInMemory
    journal: Journal | NoJournal


class _Run:
    """The loop over the shards, with what they share."""

    def __init__(self, work: Work, name: str, number: int, tally: Tally) -> None:
        self._work = work
        self._name = name
        self._number = number
        self._tally = tally
        self.before = tally.handled
        self._progress = Progress(
            work.progress,
            name=name,
            unit=work.reader.unit,
            total=tally.total,
            at=tally.at,
            items=tally.handled,
        )

    def close(self) -> None:
        """Leave the progress bar as it stands."""
        self._progress.close()

    def caller(self, uuid: str) -> Caller | IsolatedCaller:
        """Make the function ready, in a process of its own if that is asked for or a time limit needs it."""
        work = self._work
        identity = Identity(self._name, work.round_of or uuid, 0)
        made: type[Caller | IsolatedCaller] = Caller
        if work.function is not None and (work.isolated or (work.timeout is not None and not is_async(work.function))):
            from batchkit.isolation import IsolatedCaller  # noqa: PLC0415  # most runs need no other process

            made = IsolatedCaller
        return made(
            work.function,
            batched=work.batched,
            identity=identity,
            batch_format=work.batch_format,
            timeout=work.timeout,
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
        with closing(self.caller(opened.manifest.job)) as caller:
            return all(self._work_on_shard(job, opened, rounds, shard, caller) for shard in left)

    def _work_on_shard(
        self,
        job: JobDirectory,
        opened: OpenJob,
        rounds: Sequence[Round],
        shard: ShardState,
        caller: Caller | IsolatedCaller,
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
        caller: Caller | IsolatedCaller,
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
