"""Jobs that exist: found by name, looked at, acted on."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from batchkit.budget import seconds_of, stopping_on_signals
from batchkit.calling import check
from batchkit.destination import leave_output, output_of, stored
from batchkit.display import card
from batchkit.errors import DamageError, UsageError
from batchkit.job import JobDirectory, names, state_directory
from batchkit.limit import Limit
from batchkit.loading import load_errors
from batchkit.locating import located, numbers_of
from batchkit.options import (
    DEFAULTS,
    batched_of,
    budget_of,
    check_batch_format,
    check_choice,
    check_flight,
    check_numbers,
    function_of,
    interrupt,
    options_of,
    policy_of,
    timeout_of,
    within,
)
from batchkit.overview import overview_of
from batchkit.progress import MODES, sayer
from batchkit.resume import refuse_to_repeat, would_repeat
from batchkit.rounds import unfinished_options
from batchkit.run import failures_of
from batchkit.status import status_of
from batchkit.steering import ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterator

    from batchkit.budget import Duration
    from batchkit.job import Manifest, Status
    from batchkit.locating import Located
    from batchkit.model import Failure
    from batchkit.overview import Overview
    from batchkit.result import Result


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

    def _repr_html_(self) -> str:
        """Return the same for a notebook, as a card."""
        status = self.status()
        facts = {
            "done": f"{status.done:,}" + (f" of {status.total:,}" if status.total not in {None, status.done} else ""),
            "failed": f"{status.failed:,}" if status.failed else None,
            "skipped": f"{status.skipped:,}" if status.skipped else None,
            "runs": status.runs,
            "why": status.reason,
            "output": status.output,
        }
        return card(self.name, status.status, status.share, facts)

    def _manifest(self) -> Manifest:
        manifest = self._directory.load()
        if manifest is None:
            raise UsageError(f"the job '{self.name}' was removed")
        return manifest

    def parts(self) -> tuple[JobDirectory, Manifest, int]:
        """Return its directory, its manifest and the number of its newest run: for those who look at its files."""
        return self._directory, self._manifest(), sum("start" in entry for entry in self._directory.runs())

    def status(self) -> Status:
        """Return how the job stands, derived from its files; changes nothing."""
        return status_of(self._directory, self._manifest())

    def overview(self) -> Overview:
        """Return the same and more: its runs and shards, its speed, when it will be done, what comes next."""
        return overview_of(self._directory, self._manifest())

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write a page about its past to a file, which appears whole. Needs `pip install 'batchkit[report]'`."""
        from batchkit.report.page import write_report  # noqa: PLC0415  # not needed otherwise

        write_report(self._directory, self._manifest(), path)

    def results(self) -> Iterator[Any]:
        """Yield the results stored so far, in input order. Raises `UsageError` if they were printed."""
        return stored(self._directory)

    def failures(self) -> Iterator[Failure]:
        """Yield the items that failed for good and were not run again with success since, in input order."""
        return failures_of(self._directory, self._manifest())

    def locate(self, number: int) -> Located:
        """Return where the item with this number, from 1, was handled, and with what outcome.

        The input is not read. Raises `UsageError` if the job has no such item, or cannot know which it is: when shards
        before it are unfinished.
        """
        return located(self._directory, self._manifest(), number)

    def find(self, item: str) -> Iterator[int]:
        """Yield the numbers of the items that are this one, by reading the files of the input.

        item: the text of a line; of rows `column=value`, or a row as JSON. Raises `UsageError` for an input that is no
        file, `InputChanged` if it is another one now.
        """
        return numbers_of(self._directory, self._manifest(), item)

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
        with stopping_on_signals(budget, interrupt if abort is None else abort, sayer(progress)):
            return retry(self._directory, again, limit, options_of(again, limit))

    def stop(self, *, now: bool = False) -> None:
        """Ask the run at work, in whatever process and on whatever host, to stop; returns at once.

        It ends at the end of the item in hand, committed, in a second or two; `now`: as by a second stop signal, and
        what is in hand runs again. Raises `UsageError` where nothing runs.
        """
        ask(self._directory, stop="now" if now else "soon")

    def extend(self, more: Duration) -> None:
        """Give the run at work more time: "30m", seconds or a timedelta. Raises `UsageError` where it has no limit."""
        runs = self._directory.runs()
        if runs and "start" in runs[-1] and runs[-1].get("max_time") is None and self._directory.running():
            raise UsageError(f"the run of the job '{self.name}' has no time limit; there is nothing to extend")
        ask(self._directory, extra=seconds_of(more, "max_time") or 0.0)

    def would_repeat(self) -> bool:
        """Tell whether starting over would add rows to a table once more that are there already."""
        manifest = self._manifest()
        return would_repeat(manifest, output_of(self._directory, manifest))

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
