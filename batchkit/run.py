"""One run of a job, from opening to publishing."""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Any, NamedTuple

from batchkit.budget import Interrupted
from batchkit.calling import Caller, Identity, name_of
from batchkit.destination import leave_output, refuse_lost_beginning, stored
from batchkit.journal import NoJournal
from batchkit.model import Checkpoint
from batchkit.processor import Processor
from batchkit.progress import Progress
from batchkit.result import Result, reason_for_people
from batchkit.resume import Outputs, ShardState, open_job, reopen
from batchkit.tally import Tally
from batchkit.writers.memory import MemoryOutput
from batchkit.writers.stdout import OutputClosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchkit.budget import Budget
    from batchkit.destination import Destination
    from batchkit.job import JobDirectory
    from batchkit.journal import Journal
    from batchkit.model import Span
    from batchkit.readers.base import Reader
    from batchkit.resume import OpenJob, Wishes
    from batchkit.writers.base import Output, Writer


class Work(NamedTuple):
    """What is to be done, and how: the caller's part of a run.

    sync_interval: seconds or `None`. batch_format: see `Caller`.
    """

    reader: Reader
    function: Callable[..., Any] | None
    batched: bool
    batch_size: int
    destination: Destination
    sync_interval: float | None
    budget: Budget
    progress: str
    begun: float
    batch_format: str | None = None

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
    with closing(run), closing(run.caller("memory")) as caller:
        ended = run.work(0, span, None, output.writer(0, frozen=0), NoJournal(), caller)
    return run.result(None, output, lambda: iter(output.results), completed=ended)


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
            end = {"status": result.status, "reason": result.reason, "done": result.done, "new": result.new}
        except Exception as error:
            end = {"status": "failed", "reason": str(error) or type(error).__name__}
            raise
        finally:
            seconds = round(time.monotonic() - work.begun, 3)
            job.record_run({"run": number, "end": time.time(), **end, "seconds": seconds})
        return result


def _open(work: Work, job: JobDirectory, wishes: Wishes) -> OpenJob:
    """Begin the job or find where it stands; what is refused here leaves it as it was."""
    identity = work.reader.identity()
    work.destination.refuse_input(job, work.reader.files, getattr(work.reader, "patterns", ()))
    definition = {
        "source": identity,
        "function": name_of(work.function),
        "batched": work.batched,
        **work.destination.definition(job),
    }
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
            say=say,
        )
    done = sum(shard.base.done for shard in opened.shards if shard.base is not None)
    refuse_lost_beginning(opened, done)
    return opened


def _work(work: Work, job: JobDirectory, opened: OpenJob, number: int) -> Result:
    shards = opened.shards
    run = _Run(work, job.name, number, Tally(work.reader, [s.span for s in shards], [s.base for s in shards]))
    with closing(run):
        completed = run.work_on(job, opened) and run.publish(job, opened)
    return run.result(job.name, opened.output, lambda: stored(job), completed=completed)


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
    )


def sayer(progress: str) -> Callable[[str], None]:
    """Return what tells people something: on standard error, or nowhere where progress is off."""
    return _say_nothing if progress == "none" else _say


def _say(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # nobody may listen
        sys.stderr.write(f"batchkit: {text}\n")
        sys.stderr.flush()


def _say_nothing(_text: str) -> None:
    pass


class _Run:
    """The loop over the shards, with what they share."""

    def __init__(self, work: Work, name: str, number: int, tally: Tally) -> None:
        self._work = work
        self._name = name
        self._number = number
        self._tally = tally
        self.before = tally.done
        self._progress = Progress(
            work.progress,
            name=name,
            unit=work.reader.unit,
            total=tally.total,
            at=tally.at,
            items=tally.done,
        )

    def close(self) -> None:
        """Leave the progress bar as it stands."""
        self._progress.close()

    def caller(self, uuid: str) -> Caller:
        """Make the function ready."""
        work = self._work
        identity = Identity(self._name, uuid, 0)
        return Caller(work.function, batched=work.batched, identity=identity, batch_format=work.batch_format)

    def work_on(self, job: JobDirectory, opened: OpenJob) -> bool:
        """Work through the unfinished shards in order; return whether all are at their end."""
        left = [shard for shard in opened.shards if not shard.ended]
        if not left:
            return True
        with closing(self.caller(opened.manifest.job)) as caller:
            return all(self._work_on_shard(job, opened, shard, caller) for shard in left)

    def _work_on_shard(self, job: JobDirectory, opened: OpenJob, shard: ShardState, caller: Caller) -> bool:
        with ExitStack() as stack:
            stack.enter_context(job.shard_locked(shard.number))
            writer = opened.output.writer(shard.number, frozen=opened.frozen)
            stack.callback(writer.close)
            journal, base = reopen(job, shard, opened.manifest.job, writer)
            stack.callback(journal.close)
            ended = self.work(shard.number, shard.span, base, writer, journal, caller)
            if journal.long:
                journal.renew(writer.mark())  # so that the next run need not read what this one committed
            return ended

    def work(
        self,
        shard: int,
        span: Span,
        base: Checkpoint | None,
        writer: Writer,
        journal: Journal | NoJournal,
        caller: Caller,
    ) -> bool:
        """Run the loop over one shard; return whether it is at its end."""
        work, tally, progress = self._work, self._tally, self._progress

        def tell(point: Checkpoint) -> float:
            tally.put(shard, point)
            return progress.show(tally.at, tally.done)

        before = tally.points[shard - 1] if shard else None
        proof = 0 if before is None else before.proof
        start = base or Checkpoint(0, span.start, 0, 0, 0, proof, None, 0, 0.0, 0.0)
        caller.identity = caller.identity._replace(shard=shard)
        processor = Processor(
            reader=work.reader,
            span=span,
            base=start._replace(run=self._number),
            batch_size=work.batch_size,
            caller=caller,
            writer=writer,
            journal=journal,
            budget=work.budget,
            tell=tell,
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

    def publish(self, job: JobDirectory, opened: OpenJob) -> bool:
        """Make the output appear; return whether it has."""
        log = job.publish_log(opened.manifest.job)
        marks = [point.mark for point in self._tally.points if point is not None]
        replace = opened.manifest.replace
        return opened.output.publish(marks, log, self._work.budget.go_on, replace=replace)

    def result(self, name: str | None, output: Output, read: Callable[[], Iterator[Any]], *, completed: bool) -> Result:
        """Sum up."""
        tally, work = self._tally, self._work
        items = tally.done + tally.failed + tally.skipped
        counted = tally.total if work.reader.unit == "items" else None
        return Result(
            job=name,
            status="completed" if completed else "paused",
            reason=None if completed else reason_for_people(work.budget.reason),
            done=tally.done,
            failed=tally.failed,
            skipped=tally.skipped,
            total=items if completed else counted,
            share=1.0 if completed else tally.share,
            new=tally.done - self.before,
            seconds=time.monotonic() - work.begun,
            output=output.path,
            read=read,
        )
