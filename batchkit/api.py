"""`process()` and `Job`: what wires reader, function, writer and job together."""

from __future__ import annotations

import os
import time
from typing import Any

from batchkit.budget import seconds_of, stopping_on_signals
from batchkit.calling import check
from batchkit.destination import Destination
from batchkit.errors import UsageError
from batchkit.events import NO_HOOKS, Hooks
from batchkit.job import JobDirectory, state_directory
from batchkit.limit import Limit
from batchkit.options import (
    batched_of,
    budget_of,
    check_batch_format,
    check_choice,
    check_flight,
    check_numbers,
    check_slice,
    check_workers,
    interrupt,
    is_numbered,
    options_of,
    policy_of,
    slice_of,
    timeout_of,
    within,
)
from batchkit.progress import MODES, sayer
from batchkit.resume import Wishes
from batchkit.run import as_job, as_slice, in_memory, in_memory_of_workers
from batchkit.sources import reader_of
from batchkit.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from batchkit.budget import Duration
    from batchkit.events import Event
    from batchkit.result import Result
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
    on_start: Callable[[Event], Any] | None = None,
    on_batch: Callable[[Event], Any] | None = None,
    on_failure: Callable[[Event], Any] | None = None,
    on_stop: Callable[[Event], Any] | None = None,
    on_complete: Callable[[Event], Any] | None = None,
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
    progress: "auto", "bar", "log", "json" (lines of JSON) or "none".
    on_start, on_batch, on_failure, on_stop, on_complete: called here, in this thread, with an `Event`: when work
        begins; behind a commit (with workers, several may be told at once); for each item that failed for good, behind
        the commit that keeps it; when the run ends with work left or by an error; when the job is completed. Nothing is
        told twice by one run, and what a killed run did not tell is not told later. What they raise is said, and the
        run goes on.
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
        hooks=_hooks(start=on_start, batch=on_batch, failure=on_failure, stop=on_stop, complete=on_complete),
    )
    work = work._replace(options={**options_of(work, limit), **work.destination.options()})
    name = work.default_name() if job is None else job
    part = slice_of(shard)
    check_slice(part, work, restart=restart)
    wishes = Wishes(restart, overwrite, on_input_change, work.numbered)
    directory = None if name is None else JobDirectory(state_directory(state_dir), name, part)
    with stopping_on_signals(budget, interrupt if abort is None else abort, sayer(progress)):
        try:
            result = _run(work, directory, wishes)
        except Exception as error:
            work.hooks.tell_error(error, name, time.monotonic() - begun, sayer(progress))
            raise
        work.hooks.tell_result(result, sayer(progress))
    return result


def _hooks(**hooks: Callable[[Event], Any] | None) -> Hooks:
    return Hooks(**hooks) if any(hooks.values()) else NO_HOOKS


def _run(work: Work, directory: JobDirectory | None, wishes: Wishes) -> Result:
    if directory is None:
        return in_memory_of_workers(work) if work.workers > 1 else in_memory(work)
    return as_job(work, directory, wishes) if directory.part is None else as_slice(work, directory, wishes)


def _destination(output: Any, output_format: str | None, schema: Any) -> Destination:
    if output is None or isinstance(output, str | os.PathLike):
        return Destination(None if output is None else os.fspath(output), output_format, schema)
    if not hasattr(output, "writer"):
        raise UsageError(f"the output is a {type(output).__name__}; give a path, '-', or an object with writer(shard)")
    if output_format is not None or schema is not None:
        raise UsageError("output_format and schema are for paths; leave them out, the output is an object")
    return Destination(None, own=output)
