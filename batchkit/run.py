"""One run of a job, from opening to publishing."""

from __future__ import annotations

import os
import platform
import time
from contextlib import closing
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from batchkit import __version__, files
from batchkit.account import Account
from batchkit.budget import Interrupted
from batchkit.destination import MemoryDestination, leave_output, refuse_lost_beginning, stored, stored_in
from batchkit.failure_file import FailuresInMemory, entries, failure_of, path_beside
from batchkit.job import JobDirectory
from batchkit.journal import NoJournal
from batchkit.model import Shard
from batchkit.plan import Place
from batchkit.progress import sayer
from batchkit.readers.base import divisible
from batchkit.result import OTHERS_LEFT, Result, reason_for_people
from batchkit.resume import Outputs, Wishes, open_job
from batchkit.rounds import ended, merged_by, proved, resolved_by, rounds_of, settled, still_failed, stored_beside
from batchkit.shards import Shards, Streams
from batchkit.steering import listening
from batchkit.tally import Tally
from batchkit.writers.memory import MemoryOutput
from batchkit.writers.printed import PrintedOutput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.budget import Budget
    from batchkit.job import Manifest
    from batchkit.model import Checkpoint, Failure, Mark
    from batchkit.resume import OpenJob
    from batchkit.rounds import RoundState
    from batchkit.work import Work
    from batchkit.writers.base import Output


def in_memory(work: Work) -> Result:
    """Run without leaving anything on disk."""
    output = MemoryOutput()
    shard = Shard(0, work.reader.whole(), 0)
    kept = FailuresInMemory()
    account = Account(work, None, Tally(work.reader, [shard], [None]), lambda _number, *marks: kept.between(*marks))
    shards = Shards(work, None, 1, account)
    with closing(account), closing(shards.caller("memory")) as caller:
        last = shards.work(shard, None, Streams(output.writer(0, frozen=0), kept, NoJournal()), caller)
        account.check(final=last.end)
    failures = partial(map, failure_of, kept.kept)
    return account.result(None, lambda: iter(output.results), failures, completed=last.end)


def in_memory_of_workers(work: Work) -> Result:
    """Run with several workers, and bring back what they stored. A run that is killed leaves a temporary directory."""
    with TemporaryDirectory(prefix="batchkit-") as directory:
        job = JobDirectory(directory, "memory")
        result = as_job(work._replace(destination=MemoryDestination()), job, Wishes())
        manifest = job.load()
        assert manifest is not None, "the run has made it"
        results = list(stored_in(MemoryDestination().make(job, manifest.job), job, manifest))
        failures = list(result.failures())
    return result._replace(job=None, output=None, read=lambda: iter(results), read_failures=lambda: iter(failures))


def as_job(work: Work, job: JobDirectory, wishes: Wishes) -> Result:
    """Run under the job's lock, and record the run's beginning and end."""
    job.make()
    with job.locked(), listening(job, work.budget):
        try:
            opened = _open(work, job, wishes)
        except Interrupted:  # while a pipe was read up to the cursor
            return _interrupted(work, job)
        return _recorded(work, job, opened, _work)


def as_slice(work: Work, job: JobDirectory, wishes: Wishes) -> Result:
    """Run a slice of a job under its own lease; the job's lock is held only while the job is begun and published."""
    job.make()
    with job.slice_locked(work.budget.lose, sayer(work.progress)) as left, listening(job, work.budget):
        with job.locked():
            opened = _open(work, job, wishes)
            none = [None for _ in opened.order]  # the first slice does this, before any has stored something
            opened.output.share(none, frozen=opened.frozen, rounds=(), order=opened.order)
        if left:
            _take_over(job, opened)
        return _recorded(work, job, opened, _work_on_slice)


def _take_over(job: JobDirectory, opened: OpenJob) -> None:
    """Leave what the last run of a slice had open behind: its host may be asleep, and wake up while this one works."""
    detach = getattr(opened.output, "detach", None)
    for state in opened.shards:
        if not state.ended:
            files.detach(path_beside(job.shard_path(state.number)))
            if detach is not None:
                detach(state.number)


def _recorded(
    work: Work, job: JobDirectory, opened: OpenJob, run: Callable[[Work, JobDirectory, OpenJob, int], Result]
) -> Result:
    """Record the beginning and the end of a run."""
    number = sum("start" in entry for entry in job.runs()) + 1
    job.record_run({"run": number, **_beginning(work, opened)})
    end: dict[str, Any] = {"status": "failed", "reason": "interrupted"}
    try:
        result = run(work, job, opened, number)
        counts = {name: getattr(result, name) for name in ("done", "failed", "skipped", "new", "share")}
        end = {"status": result.status, "reason": result.reason, **counts}
    except Exception as error:
        end = {"status": "failed", "reason": str(error) or type(error).__name__}
        raise
    finally:
        seconds = round(time.monotonic() - work.begun, 3)
        job.record_run({"run": number, "end": time.time(), **end, "seconds": seconds})
    return result


def _beginning(work: Work, opened: OpenJob) -> dict[str, Any]:
    """Return what is recorded of a run when it begins: when and where, how it works, and how far the job is."""
    tally = _tally(work, opened, (0, 0))
    options = ("workers", "concurrency", "batch_size", "rate")
    return {
        "start": time.time(),
        "pid": os.getpid(),
        "host": platform.node(),
        "python": platform.python_version(),
        "batchkit": __version__,
        **{name: getattr(work, name) for name in options},
        **work.budget.limits,
        "from": {"items": tally.handled, "share": tally.share},
    }


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
            outputs=Outputs(partial(work.make_output, job), partial(leave_output, job)),
            wishes=wishes,
            options=work.options,
            say=say,
        )
    done = sum(shard.base.done for shard in opened.shards if shard.base is not None)
    refuse_lost_beginning(opened, done)
    return opened


def _work(work: Work, job: JobDirectory, opened: OpenJob, number: int) -> Result:
    manifest = opened.manifest
    rounds = settled(job, manifest.job)
    account = _account(work, job, opened, resolved_by(ended(rounds)))
    with closing(account):
        completed = _shards_done(work, job, opened, number, account, rounds)
        manifest = manifest._replace(plan=account.tally.plan)
        completed = completed and publish(job, opened.output, manifest, account.tally.points, rounds, work.budget)
    failures = partial(failures_of, job, manifest)
    return account.result(opened.output.path, partial(stored, job), failures, completed=completed)


def _work_on_slice(work: Work, job: JobDirectory, opened: OpenJob, number: int) -> Result:
    """Work on the shards of a slice; if all others are at their end, too, publish."""
    account = _account(work, job, opened, (0, 0))
    with closing(account):
        completed, published = _shards_done(work, job, opened, number, account, ()), False
        if completed:
            with job.locked():
                manifest = job.load() or opened.manifest
                points = job.commits(manifest)
                if all(point is not None and point.end for point in points):
                    rounds = settled(job, manifest.job)
                    completed = published = publish(job, opened.output, manifest, points, rounds, work.budget)
    path = opened.output.path if published else None
    failures = partial(failures_of, job, opened.manifest)
    result = account.result(path, partial(stored, job), failures, completed=completed)
    reason = OTHERS_LEFT if completed and not published else result.reason
    return result._replace(part=str(job.part), reason=reason)


def _account(work: Work, job: JobDirectory, opened: OpenJob, resolved: tuple[int, int]) -> Account:
    def kept(number: int, start: Mark, stop: Mark) -> Iterator[Failure]:
        return map(failure_of, entries(path_beside(job.shard_path(number)), stop, start))

    return Account(work, job.name, _tally(work, opened, resolved), kept)


def _tally(work: Work, opened: OpenJob, resolved: tuple[int, int]) -> Tally:
    plan, points = [state.shard for state in opened.shards], [state.base for state in opened.shards]
    return Tally(work.reader, plan, points, resolved)


def _shards_done(
    work: Work, job: JobDirectory, opened: OpenJob, number: int, account: Account, rounds: Sequence[RoundState]
) -> bool:
    """Work on the shards of this run; tell if all are at their end."""
    manifest = opened.manifest
    account.check(final=account.tally.ended)
    beside = stored_beside(rounds, job.publish_log(manifest.job), manifest.plan)
    place = Place(job, manifest.job, manifest.slices, opened.output, opened.frozen, beside)
    printed = isinstance(opened.output, PrintedOutput)  # which the parent of workers does
    if (work.workers > 1 or printed) and _can_be_shared(work):
        from batchkit.pool import work_in_parallel  # noqa: PLC0415  # most runs need no other process

        completed = work_in_parallel(work, place, opened.shards, number, account)
    else:
        completed = Shards(work, job.name, number, account).work_in_order(place, opened.order, opened.shards)
    account.check(final=completed)
    return completed


def _can_be_shared(work: Work) -> bool:
    """Tell whether several workers can read the source; else say so."""
    if divisible(work.reader):
        return True
    sayer(work.progress)("the input can only be read from its beginning on, so one worker does it all")
    return False


def publish(
    job: JobDirectory,
    output: Output,
    manifest: Manifest,
    points: Sequence[Checkpoint | None],
    rounds: Sequence[RoundState],
    budget: Budget,
) -> bool:
    """Make the output of a job appear, with what rounds brought, when all shards are at their ends; tell if it has."""
    log = job.publish_log(manifest.job)
    marks = [point.mark for point in points if point is not None]
    brought = merged_by(rounds, manifest.plan)
    order = [shard.number for shard in manifest.plan]
    if not output.publish(marks, log, budget.go_on, replace=manifest.replace, rounds=brought, order=order):
        return False
    output.remove_parts()  # which a run that was killed behind the renames left
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
    again = (0, 0) if manifest is None or not known else resolved_by(ended(rounds_of(job, manifest.job)))
    return Result(
        job=job.name,
        status="paused",
        reason=reason_for_people(work.budget.reason),
        done=sum(point.done for point in known) + again[0],
        failed=sum(point.failed for point in known) - sum(again),
        skipped=sum(point.skipped for point in known) + again[1],
        total=None,
        share=None,
        new=0,
        seconds=time.monotonic() - work.begun,
        output=None if manifest is None else manifest.output,
        read=partial(stored, job),
        read_failures=lambda: iter(()) if manifest is None else failures_of(job, manifest),
    )


def failures_of(job: JobDirectory, manifest: Manifest) -> Iterator[Failure]:
    """Yield the failures of a job that no round has resolved, in input order."""
    points = proved(job, manifest) if manifest.ready else []
    plan = manifest.plan if points else []
    return map(failure_of, still_failed(job, plan, points, ended(rounds_of(job, manifest.job))))
