"""`process()` and `Job`: what wires reader, function, writer and job together."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from batchkit.budget import seconds_of, stopping_on_signals
from batchkit.calling import check
from batchkit.destination import STDOUT, Destination, leave_output, output_of, stored
from batchkit.errors import DamageError, UsageError
from batchkit.job import JobDirectory, Status, names
from batchkit.limit import Limit
from batchkit.loading import load_errors
from batchkit.options import (
    DEFAULTS,
    batched_of,
    budget_of,
    check_batch_format,
    check_choice,
    check_flight,
    check_numbers,
    check_slice,
    check_workers,
    function_of,
    is_numbered,
    options_of,
    policy_of,
    slice_of,
    timeout_of,
    within,
)
from batchkit.progress import MODES, sayer
from batchkit.readers.share import share_done
from batchkit.resume import Wishes, refuse_to_repeat
from batchkit.rounds import ended, resolved_by, rounds_of, unfinished_options
from batchkit.run import as_job, as_slice, failures_of, in_memory, in_memory_of_workers
from batchkit.sources import reader_of
from batchkit.work import Work
from batchkit.writers.printed import is_printed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor

    from batchkit.budget import Duration
    from batchkit.job import Manifest
    from batchkit.model import Failure
    from batchkit.result import Result
    from batchkit.rounds import RoundState
    from batchkit.writers.custom import Target

STATE_DIR = ".batchkit"


def process(  # noqa: PLR0913  # every option of a run is a keyword here
    source: Any,
    function: Callable[..., Any] | None = None,
    *,
    batched: bool = False,
    batch_size: int = 100,
    batch_format: str | None = None,
    input_format: str | None = None,
    columns: Sequence[str] | None = None,
    output: str | os.PathLike[str] | Target | None = None,
    output_format: str | None = None,
    schema: Mapping[str, Any] | str | None = None,
    batch_seconds: Duration | None = 30.0,
    sync_interval: Duration | None = 1.0,
    on_error: str = "stop",
    retries: int = 0,
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    retry_wait: Duration = 1.0,
    retry_max_wait: Duration = 60.0,
    max_failures: int | str | None = None,
    isolate: str = "bisect",
    timeout: Duration | None = None,
    isolate_process: bool = False,
    workers: int = 1,
    shard: str | tuple[int, int] | None = None,
    executor: Executor | None = None,
    concurrency: int = 1,
    rate: str | None = None,
    max_time: Duration | None = None,
    until: str | datetime.datetime | None = None,
    max_items: int | None = None,
    max_batches: int | None = None,
    job: str | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    restart: bool = False,
    overwrite: bool = False,
    on_input_change: str = "stop",
    progress: str = "auto",
    abort: Callable[[int], None] | None = None,
) -> Result:
    """Call a function on every item of a source, batch by batch, committing a cursor after each batch.

    Run and resume are the same call: what an earlier run of the job committed is not done again. Each result is stored
    exactly once in a file; the function's own side effects happen at least once.

    source: a path or glob pattern, "-" (standard input), a reader such as `batchkit.lines(...)`, `csv`, `ndjson` or
        `parquet`; the address of a table or query of a database, with a unique column to go by, such as
        `postgresql://host/shop?table=orders&cursor=id` (also `sqlite:///...`, `duckdb:///...`, `query=SELECT ...`); a
        list, tuple, range or dict, a polars DataFrame or LazyFrame; an object with `read(cursor)` (see
        `readers.custom.Source`); or any iterable (a resume reads past what is done).
    function: called with an item: a line, or a dict for a row; with a list of items if `batched`, a polars.DataFrame
        for rows of a table; `None`: items are their own results. A result of `None` stores nothing; of a generator
        function each yielded value is a result. A batched function may return a table: each row is a result. A class
        whose instances can be called is made once, and closed at the end. `batchkit.command(...)` runs a program.
    batch_size: items per batch, at most. batch_format: "polars", "arrow" or "dicts", for `batched`.
    input_format: "lines", "csv", "tsv", "ndjson" or "parquet"; `None`: by the path's suffix. columns: those of a table
        to read; `None`: all.
    output: a .txt, .jsonl, .csv, .tsv (each also with .gz or .zst behind it) or .parquet file, which appears whole when
        the job is completed; a directory, with "/" at its end, keeps a file per shard; "-": standard output (at least
        once); "postgresql://host/db?table=t", "sqlite:///..." or "duckdb:///...": a table, see `databases.address`;
        `None`: results are kept in the job's directory, or in memory for a source in memory without `job`; an object
        with `writer(shard)`: an output of one's own, see `writers.custom.Target`.
    output_format: "text", "jsonl", "csv", "tsv" or "parquet"; `None`: by the suffix, Parquet for a directory without.
    schema: columns and types of a Parquet output, or of a table that is made: a mapping of names to polars types,
        Python types or names, or text such as "id=int, tags=list[str]"; `None`: the first results decide, and one that
        does not fit is an error.
    batch_seconds: a batch of single calls is committed early after so long; `None`: never.
    sync_interval: seconds between syncs, which bound what a power cut can undo; 0: every batch; `None`: only at stops.
    on_error: "stop" the run at an item that fails for good, or "skip": keep it as a failure and go on.
    retries: further attempts at a call that raised one of the exceptions `retry_on`, `retry_wait` seconds later, then
        twice that and so on, plus chance, at most `retry_max_wait`; `RetryLater` says itself when.
    max_failures: more failures of the job, a number or a share such as "1%", end the run by `TooManyFailures`. Judged
        after each batch; a share only from 1,000 items or 5 minutes on, and at the end. `None`: any number is fine.
    isolate: "bisect": a batch that fails as a whole is halved until the failing items stand alone; "none": all fail.
    timeout: seconds that one call may take; `None`: no limit. A plain function then has a process of its own, too; of a
        command the whole process group is ended.
    isolate_process: call the function in a process of its own, which may die without harm: an item during which it died
        twice is a failure.
    workers: processes that work at once, each on a part of the input of its own; any number in any run of a job. The
        function is sent to them by cloudpickle. executor: what runs them instead, with the face of
        `concurrent.futures.Executor`, on hosts that share the job's directory and the files.
    shard: work only on this slice of the job, such as "3/8"; other hosts may work on the others at once, in a state
        directory and with an output that they share. "slurm": of the array job that this is a task of. The number of
        slices is chosen by the first run, and whichever ends last makes the output appear. `None`: on the whole job.
    concurrency: calls in flight, for functions that wait: in threads, which share what is made of a class; async ones
        in one event loop; with `isolate_process`, or a `timeout` for a plain function, in so many processes; of
        batched functions, so many batches. What is further on may be called again after an error or a crash.
    rate: calls that may begin, further attempts included: "10/s", "600/m" or "1000/h"; `None`: as many as can.
    max_time, until, max_items, max_batches: end this run cleanly; `None`: no limit. Durations are seconds, "55m" or
        a timedelta; `until` is "06:00", an ISO timestamp or a datetime.
    job: the job's name; `None`: made of source and function. state_dir: `None`: $BATCHKIT_STATE_DIR, or `.batchkit`.
    restart: forget what was done. overwrite: allow an output that exists and is not this job's.
    on_input_change: "stop", "restart" or "continue" where the input is not the one the job began with.
    progress: "auto", "bar", "log" or "none".
    abort: called with the number of a second stop signal; `None`: raise `KeyboardInterrupt`.

    In the main thread SIGINT, SIGTERM, SIGHUP and SIGUSR1 end the run as a budget does: at the end of the item in
    hand, committed. Raises `ItemError` if the function fails (what came before is committed), `TooManyFailures`,
    `UsageError`, `SourceError`, `StorageError`, `JobLocked`, `ChangedError`, `DamageError`.
    """
    begun = time.monotonic()
    check_numbers(batch_size=(batch_size, 1), max_items=(max_items, 0), max_batches=(max_batches, 0))
    check_workers(workers, executor)
    check_choice("progress", progress, MODES)
    check(function)
    batched = batched_of(function, batched=batched, batch_format=batch_format)
    check_flight(concurrency, rate)
    check_batch_format(batch_format, batched=batched)
    check_choice("on_input_change", on_input_change, ("stop", "restart", "continue"))
    limit = Limit(max_failures)
    if max_failures is not None and on_error == "stop":
        raise UsageError("max_failures is for runs that go on behind failures; give on_error='skip' (--on-error skip)")
    policy = policy_of(on_error, retries, retry_on, retry_wait, retry_max_wait, isolate)
    seconds = timeout_of(timeout, function)
    budget = budget_of(max_time, until, max_items, max_batches, batch_seconds, batched=batched)
    work = Work(
        reader=reader_of(source, input_format=input_format, columns=columns),
        function=within(function, seconds),
        batched=batched,
        batch_size=batch_size,
        destination=_destination(output, output_format, schema)._replace(several=workers > 1 or shard is not None),
        sync_interval=seconds_of(sync_interval, "sync_interval"),
        budget=budget,
        progress=progress,
        begun=begun,
        batch_format=batch_format,
        policy=policy,
        limit=limit,
        timeout=seconds,
        isolated=isolate_process,
        numbered=is_numbered(function),
        workers=workers,
        executor=executor,
        concurrency=concurrency,
        rate=rate,
    )
    work = work._replace(options={**options_of(work, limit), **work.destination.options()})
    name = work.default_name() if job is None else job
    part = slice_of(shard)
    check_slice(part, work, restart=restart)
    with stopping_on_signals(budget, _interrupt if abort is None else abort, sayer(progress)):
        if name is None:
            return in_memory_of_workers(work) if workers > 1 else in_memory(work)
        directory = JobDirectory(state_directory(state_dir), name, part)
        wishes = Wishes(restart, overwrite, on_input_change, work.numbered)
        return as_job(work, directory, wishes) if part is None else as_slice(work, directory, wishes)


def _destination(output: Any, output_format: str | None, schema: Any) -> Destination:
    if output is None or isinstance(output, str | os.PathLike):
        return Destination(None if output is None else os.fspath(output), output_format, schema)
    if not hasattr(output, "writer"):
        raise UsageError(f"the output is a {type(output).__name__}; give a path, '-', or an object with writer(shard)")
    if output_format is not None or schema is not None:
        raise UsageError("output_format and schema are for paths; leave them out, the output is an object")
    return Destination(None, own=output)


def _interrupt(_number: int) -> None:
    raise KeyboardInterrupt


def state_directory(given: str | os.PathLike[str] | None) -> str:
    """Return the state directory: the one given, $BATCHKIT_STATE_DIR, or `.batchkit` here."""
    return os.path.abspath(given or os.environ.get("BATCHKIT_STATE_DIR") or STATE_DIR)


class Job:
    """A job that exists, by name."""

    def __init__(self, name: str, state_dir: str | os.PathLike[str] | None = None) -> None:
        """Find it. Raises `UsageError` if there is none of that name."""
        self._directory = JobDirectory(state_directory(state_dir), name)
        if not os.path.exists(os.path.join(self._directory.path, "job.json")):
            known = ", ".join(names(self._directory.state_dir)) or "none"
            raise UsageError(f"there is no job '{name}' in '{self._directory.state_dir}'; jobs there: {known}")

    @property
    def name(self) -> str:
        """The job's name."""
        return self._directory.name

    def __repr__(self) -> str:
        """Return name and status."""
        status = self.status()
        return f"<Job {status.job}: {status.status}, {status.done:,} done>"

    def _manifest(self) -> Manifest:
        manifest = self._directory.load()
        if manifest is None:
            raise UsageError(f"the job '{self.name}' was removed")
        return manifest

    def status(self) -> Status:
        """Return how the job stands, derived from its files; changes nothing."""
        directory, manifest = self._directory, self._manifest()
        points = directory.commits(manifest) if manifest.ready else [None] * len(manifest.plan)
        known = [point for point in points if point is not None]
        runs = directory.runs()
        ends = [entry for entry in runs if "end" in entry]
        last = ends[-1] if ends and ends[-1]["run"] == runs[-1]["run"] else None
        done_entry = directory.publish_log(manifest.job).done()
        rounds = rounds_of(directory, manifest.job) if manifest.ready else []
        ended_rounds = len(ended(rounds))
        printed = manifest.definition["output"] == STDOUT and not is_printed(directory.path, manifest.job)
        published = printed or (
            done_entry is not None
            and (done_entry["shards"], done_entry.get("rounds", 0)) == (len(points), ended_rounds)
        )
        at_end = bool(points) and all(point is not None and point.end for point in points)
        again_points = [point for state in rounds for point in state.points if point is not None]
        again = resolved_by(ended(rounds))
        done = sum(point.done for point in known) + again[0]
        skipped = sum(point.skipped for point in known) + again[1]
        failed = sum(point.failed for point in known) - sum(again)
        status = _status_of(
            running=directory.running(),
            completed=at_end and published,
            broken=last is not None and last["status"] == "failed",
            begun=bool(known),
        )
        cursors = [
            shard.span.start if point is None else point.stop
            for shard, point in zip(manifest.plan, points, strict=True)
        ]
        spans = [shard.span for shard in manifest.plan]
        share = share_done(manifest.definition["source"]["kind"], manifest.fingerprint, spans, cursors)
        return Status(
            job=self.name,
            status=status,
            reason=_reason_of(status, directory.holder(), last)
            or _unfinished(self.name, rounds, merged=not at_end or published),
            done=done,
            failed=failed,
            skipped=skipped,
            total=done + failed + skipped if at_end else None,
            output=manifest.output,
            updated=max((point.time for point in (*known, *again_points)), default=None),
            runs=sum("start" in entry for entry in runs),
            share=1.0 if status == "completed" else share,
        )

    def results(self) -> Iterator[Any]:
        """Yield the results stored so far, in input order. Raises `UsageError` if they were printed."""
        return stored(self._directory)

    def failures(self) -> Iterator[Failure]:
        """Yield the items that failed for good and were not run again with success since, in input order."""
        return failures_of(self._directory, self._manifest())

    def retry(  # noqa: PLR0913  # every option of a run is a keyword here
        self,
        function: Callable[..., Any] | None = None,
        *,
        batch_size: int | None = None,
        batch_format: str | None = None,
        retries: int | None = None,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] | None = None,
        retry_wait: Duration | None = None,
        retry_max_wait: Duration | None = None,
        isolate: str | None = None,
        timeout: Duration | None = None,
        isolate_process: bool | None = None,
        concurrency: int | None = None,
        rate: str | None = None,
        max_failures: int | str | None = None,
        batch_seconds: Duration | None = 30.0,
        sync_interval: Duration | None = 1.0,
        max_time: Duration | None = None,
        until: str | datetime.datetime | None = None,
        max_items: int | None = None,
        max_batches: int | None = None,
        progress: str = "auto",
        abort: Callable[[int], None] | None = None,
    ) -> Result:
        """Run the items that failed again, and put the results in their place in the output; what fails again is kept.

        It is committed batch by batch as every run is, and goes on where it was when it is called again. The output
        is written anew, whole, when all items were tried; of a job that is not completed, when that is.

        function: `None`: the one of the last run, if it can be imported. The other options are those of `process`;
        `None` for those up to `max_failures`: as in the last run. A retry that goes on takes all of these from the call
        that began it. Results: `done` and `skipped` count the failures that are none any more, `failed` those that are
        left. Raises what `process` raises; `UsageError` for a job whose output cannot be amended: one printed, or
        written to an output of one's own.
        """
        from batchkit.retrying import Again, retry  # noqa: PLC0415  # 6 ms that only retries need

        begun = time.monotonic()
        manifest = self._manifest()
        known = {**DEFAULTS, **(manifest.options or {}), **unfinished_options(self._directory, manifest.job)}
        given = {
            "batch_size": batch_size,
            "batch_format": batch_format,
            "retries": retries,
            "retry_on": retry_on,
            "retry_wait": retry_wait,
            "retry_max_wait": retry_max_wait,
            "isolate": isolate,
            "timeout": timeout,
            "isolate_process": isolate_process,
            "max_failures": max_failures,
            "concurrency": concurrency,
            "rate": rate,
        }
        chosen = {**known, **{name: value for name, value in given.items() if value is not None}}
        batched = bool(manifest.definition["batched"])
        if function is None:
            function = function_of(manifest, known)
        check(function)
        if batched_of(function, batched=batched, batch_format=chosen["batch_format"]) != batched:
            raise UsageError(f"the job '{self.name}' runs for single items; give a command without batch=True (-x)")
        check_numbers(batch_size=(chosen["batch_size"], 1), max_items=(max_items, 0), max_batches=(max_batches, 0))
        check_flight(chosen["concurrency"], chosen["rate"])
        check_batch_format(chosen["batch_format"], batched=batched)
        check_choice("progress", progress, MODES)
        if retry_on is None:
            chosen["retry_on"] = load_errors(known["retry_on"])
        names = ("retries", "retry_on", "retry_wait", "retry_max_wait", "isolate")
        policy = policy_of("skip", *(chosen[name] for name in names))
        budget = budget_of(max_time, until, max_items, max_batches, batch_seconds, batched=batched)
        seconds = timeout_of(chosen["timeout"], function)
        again = Again(
            function=within(function, seconds),
            batched=batched,
            batch_size=chosen["batch_size"],
            batch_format=chosen["batch_format"],
            policy=policy,
            timeout=seconds,
            isolated=chosen["isolate_process"],
            sync_interval=seconds_of(sync_interval, "sync_interval"),
            budget=budget,
            progress=progress,
            begun=begun,
            concurrency=chosen["concurrency"],
            rate=chosen["rate"],
        )
        limit = Limit(chosen["max_failures"])
        with stopping_on_signals(budget, _interrupt if abort is None else abort, sayer(progress)):
            return retry(self._directory, again, limit, options_of(again, limit))

    def reset(self) -> None:
        """Forget what was done: the next run starts over. A published output stays until the new one replaces it."""
        with self._directory.locked():
            manifest = self._manifest()
            refuse_to_repeat(self._directory, manifest, output_of(self._directory, manifest))
            self._directory.reset(manifest)

    def remove(self) -> None:
        """Remove the job and what it has not published; a published output outside of its directory stays."""
        with self._directory.locked():
            with suppress(DamageError):  # whose output it was is not known any more; the job itself can go
                leave_output(self._directory, self._manifest())
            self._directory.remove()


def jobs(state_dir: str | os.PathLike[str] | None = None) -> list[Job]:
    """Return the jobs in a state directory, by name."""
    directory = state_directory(state_dir)
    return [Job(name, directory) for name in names(directory)]


def _reason_of(status: str, holder: str, last: dict[str, Any] | None) -> str | None:
    if status == "running":
        return f"by {holder}"
    return None if status == "completed" or last is None else last["reason"]


def _unfinished(name: str, rounds: Sequence[RoundState], *, merged: bool) -> str | None:
    if not rounds or (rounds[-1].ended and merged):
        return None
    what = "still to be written to the output" if rounds[-1].ended else "unfinished"
    return f"a retry of failures is {what}, go on with: batchkit retry {name}"


def _status_of(*, running: bool, completed: bool, broken: bool, begun: bool) -> str:
    if running:
        return "running"
    if completed:
        return "completed"
    if broken:
        return "failed"
    return "paused" if begun else "new"
