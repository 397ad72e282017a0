"""Running the failures of a job again: a round over them, and the output written anew with what that brought."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any, NamedTuple

from batchkit.destination import STDOUT, RoundDestination, leave_output, output_of, stored
from batchkit.errors import TooManyFailures, UsageError
from batchkit.failure_file import failure_of
from batchkit.progress import sayer
from batchkit.readers.round import RoundReader
from batchkit.result import JOB_LEFT, Retried, reason_for_people
from batchkit.resume import OpenJob, Outputs, Wishes, failure_file, found, reopen
from batchkit.rounds import (
    RoundState,
    begin,
    hold,
    items_of,
    not_merged,
    part_of,
    resolved_by,
    rounds_of,
    schema_for,
    settled,
    still_failed,
)
from batchkit.run import as_job, publish
from batchkit.steering import listening
from batchkit.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.budget import Budget
    from batchkit.failures import Policy
    from batchkit.job import JobDirectory, Manifest
    from batchkit.limit import Limit
    from batchkit.writers.base import Amendable


class Again(NamedTuple):
    """How failures are to be run again; see `work.Work`."""

    function: Callable[..., Any] | None
    batched: bool
    batch_size: int
    batch_format: str | None
    policy: Policy
    timeout: float | None
    isolated: bool
    sync_interval: float | None
    budget: Budget
    progress: str
    begun: float
    concurrency: int = 1
    rate: str | None = None


def retry(job: JobDirectory, again: Again, limit: Limit, options: dict[str, Any]) -> Retried:
    """Work through the failures of a job, or go on with that, and merge the results when the job is at its end.

    options: what a call that goes on with this one is to know. Raises `UsageError` where the output cannot be amended,
    `TooManyFailures` if too many are left for it to appear.
    """
    with job.locked(), listening(job, again.budget):
        job.clean()
        manifest = job.load()
        if manifest is None:
            raise UsageError(f"the job '{job.name}' was removed")
        output = _amendable(job, manifest)
        if not manifest.ready:
            return _result(job, manifest, again, None, 0, completed=True)
        say = sayer(again.progress)
        rounds = settled(job, manifest.job)
        unmerged = bool(
            not_merged(rounds, job.publish_log(manifest.job), manifest.plan)
        )  # until the next line, perhaps
        opened = found(job, manifest, Outputs(lambda _: output, lambda each: leave_output(job, each)), say)
        manifest = opened.manifest
        _make_durable(job, opened)
        left = still_failed(job, manifest.plan, _points(opened), rounds)
        failed, resolved = sum(1 for _ in left), resolved_by(rounds)
        completed, all_ended = True, all(shard.ended for shard in opened.shards)
        # A retry that was cut short while it merged is only brought to its end: items that have just failed again
        # would be called once more, and a merge for which there is never time enough would begin anew each time.
        only_merge = all_ended and unmerged and failed == rounds[-1].failed and not rounds[-1].held
        if not all(state.ended for state in rounds) or (failed and not only_merge):
            completed = _run_round(job, opened, output, rounds, again, options)
            rounds = rounds_of(job, manifest.job)
        done, skipped = (now - then for now, then in zip(resolved_by(rounds), resolved, strict=True))
        if completed and all_ended:
            handled = sum(point.handled for point in _points(opened) if point is not None)
            try:
                limit.check(job.name, handled, failed - done - skipped, final=True)
            except TooManyFailures:
                if rounds:
                    hold(rounds[-1])
                raise
            completed = publish(job, opened.output, manifest, _points(opened), rounds, again.budget)
        result = _result(job, manifest, again, opened, failed, done=done, skipped=skipped, completed=completed)
        if all_ended or not completed:
            return result
        return result._replace(status="paused", reason=JOB_LEFT, output=None)


def _amendable(job: JobDirectory, manifest: Manifest) -> Amendable:
    output = output_of(job, manifest)
    if output is None:
        where = "were printed" if manifest.definition["output"] == STDOUT else "went to an output of your own"
        raise UsageError(
            f"the results of the job '{job.name}' {where}, where nothing can be put in its place; "
            f"run the items as a job of their own: batchkit failures {job.name} --items | batchkit process - ..."
        )
    return output


def _points(opened: OpenJob) -> list[Any]:
    return [shard.base for shard in opened.shards]


def _make_durable(job: JobDirectory, opened: OpenJob) -> None:
    """Let no power cut take back a commit of which failures are run again: its items would be done twice."""
    for shard in opened.shards:
        if not shard.ended and shard.base is not None:
            kept = failure_file(job, shard.number, opened.manifest.job)
            writer = opened.output.writer(shard.number, frozen=opened.frozen, order=opened.order)
            with job.shard_locked(shard.number), closing(kept), closing(writer):
                reopen(job, shard, opened.manifest.job, writer, kept)[0].close()


def _run_round(  # what `retry` has at hand
    job: JobDirectory,
    opened: OpenJob,
    output: Amendable,
    rounds: list[RoundState],
    again: Again,
    options: dict[str, Any],
) -> bool:
    """Go on with the unfinished round, or begin one over all failures there are; tell if it is at its end."""
    if rounds and not rounds[-1].ended:
        *rounds, unfinished = rounds
        directory = unfinished.directory
    else:
        directory = begin(job, still_failed(job, opened.manifest.plan, _points(opened), rounds))
    uuid, plan, part = opened.manifest.job, opened.manifest.plan, part_of(directory)
    unmerged = not_merged(rounds, job.publish_log(uuid), plan)
    schema = schema_for(job, plan, _points(opened))
    work = Work(
        reader=RoundReader(items_of(directory), schema=schema, batched=again.batched),
        destination=RoundDestination(
            lambda round_uuid: output.round_output(
                round_uuid, part, frozen=opened.frozen, order=opened.order, rounds=unmerged
            )
        ),
        round_of=uuid,
        options=options,
        **again._asdict(),
    )
    return as_job(work, directory, Wishes()).completed


def _result(  # noqa: PLR0913  # keyword-only counts of one value
    job: JobDirectory,
    manifest: Manifest,
    again: Again,
    opened: OpenJob | None,
    failed: int,
    *,
    completed: bool,
    done: int = 0,
    skipped: int = 0,
) -> Retried:
    points = [None] * len(manifest.plan) if opened is None else _points(opened)
    return Retried(
        job=job.name,
        status="completed" if completed else "paused",
        reason=None if completed else reason_for_people(again.budget.reason),
        done=done,
        failed=failed - done - skipped,
        skipped=skipped,
        total=failed,
        share=None,
        new=done + skipped,
        seconds=time.monotonic() - again.begun,
        output=manifest.output,
        read=lambda: stored(job),
        read_failures=lambda: map(failure_of, still_failed(job, manifest.plan, points, rounds_of(job, manifest.job))),
    )
