"""What a run gave: counts, why it ended, and the way to the results."""

from __future__ import annotations

from typing import Any, NamedTuple

from batchkit.display import card
from batchkit.progress import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchkit.frames.columns import Frame
    from batchkit.model import Failure

EXIT_COMPLETED = 0
EXIT_FAILURES = 3
"""Completed, but some items failed and were kept."""

EXIT_PAUSED = 75
"""`EX_TEMPFAIL` of sysexits.h: stopped cleanly with work left, run again."""

JOB_LEFT = "the job itself has work left: run it again, and what this brought comes into its output"
"""Why a retry is not the end, though all failures were tried."""

OTHERS_LEFT = "the output appears when all slices are done"
"""What is left to say of a slice that is done before others."""

_REASONS = {
    "lease": "another host took this slice over",
    "time": "the time is used up",
    "wait": "the next attempt would be beyond the time limit",
    "items": "the number of items asked for is done",
    "batches": "the number of batches asked for is done",
    "output": "nobody reads the output any more",
    "request": "somebody asked it to stop",
}


class Result(NamedTuple):
    """What one run did, and where the job stands after it.

    status: "completed", or "paused" with work left; then `reason` says why, for people. done, failed, skipped: items of
    the job in all runs; new: items done, failed or skipped in this run. total: items of the job; `None` while unknown.
    share: how much of the input is done, 0 to 1; `None` if unknown. seconds: what this run took. output: the file of
    the results; `None` if they are in memory or were printed. part: the slice of the job that it was about, such as
    "3/8"; `None`: the whole. read, read_failures: what `results()` and `failures()` call.
    """

    job: str | None
    status: str
    reason: str | None
    done: int
    failed: int
    skipped: int
    total: int | None
    share: float | None
    new: int
    seconds: float
    output: str | None
    read: Callable[[], Iterator[Any]]
    read_failures: Callable[[], Iterator[Failure]]
    part: str | None = None

    @property
    def exit_code(self) -> int:
        """What a command that ends with this result exits with."""
        if self.status != "completed":
            return EXIT_PAUSED
        return EXIT_FAILURES if self.failed else EXIT_COMPLETED

    @property
    def handled(self) -> int:
        """Items of the job done, failed or skipped."""
        return self.done + self.failed + self.skipped

    @property
    def completed(self) -> bool:
        """Whether nothing is left to do."""
        return self.status == "completed"

    @property
    def rate(self) -> float:
        """Items per second in this run."""
        return self.new / self.seconds if self.seconds > 0 else 0.0

    @property
    def left(self) -> int | None:
        """Items left to do, estimated from the share done where they were not counted; `None` if unknown."""
        if self.completed:
            return 0
        if self.total is not None:
            return self.total - self.handled
        return round(self.handled / self.share - self.handled) if self.share else None

    def results(self) -> Iterator[Any]:
        """Yield the results of all runs so far in input order, read from where they are stored.

        Raises `UsageError` if they were printed.
        """
        return self.read()

    def failures(self) -> Iterator[Failure]:
        """Yield the items that failed for good in any run, and were not run again since, in input order."""
        return self.read_failures()

    def to_polars(self) -> Frame:
        """Return `results()` as a table, in memory: dicts as rows, anything else in one column, "result".

        Raises `UsageError` where the results are not kept, and `polars.exceptions.PolarsError` for values that have no
        common type.
        """
        from batchkit.frames.columns import frame_of_results  # noqa: PLC0415  # polars takes 150 ms

        return frame_of_results(list(self.results()))

    def summary(self) -> str:
        """Say in one line what was done and what comes next."""
        part = f" (slice {self.part})" if self.part else ""
        name = f"{self.job}{part}: " if self.job else ""
        items = f"{self.done:,} item{'' if self.done == 1 else 's'} done{self._others()}"
        if self.completed and not self.handled:
            return f"{name}completed, the input has no items{self._where()}"
        if self.completed and not self.new:
            table = "://" in (self.output or "")  # to which starting over might add the same rows once more
            over = "" if self.part or table else " (--restart starts over)"
            return f"{name}completed, {items}; nothing new to do{over}{self._where()}{self._next()}"
        speed = f"{self.new:,} in {duration(self.seconds)}, {self.rate:,.0f}/s"
        if self.completed:
            new = "" if self.new == self.handled else f", of which {speed} in this run"
            left = f"; {self.reason}" if self.reason else ""
            return f"{name}completed, {items}{new or f' ({speed})'}{self._where()}{left}{self._next()}"
        return f"{name}paused, {self.reason}: {items} ({speed}), {self._left()}; run the same command again to go on"

    def _others(self) -> str:
        counts = ((self.failed, "failed"), (self.skipped, "skipped"))
        return "".join(f", {count:,} {name}" for count, name in counts if count)

    def _next(self) -> str:
        """Say what to do about failures."""
        if not self.failed or self.job is None:
            return ""
        return f"; see: batchkit failures {self.job}, run them again: batchkit retry {self.job}"

    def _left(self) -> str:
        if self.left == 0:
            return "the output is still to be written"
        if self.total is not None:
            return f"{self.total - self.handled:,} left"
        if self.share is None:
            return "more left"
        about = f", about {self.left:,} items" if self.left else ""
        return f"{1 - self.share:.1%} of the input left{about}"

    def _where(self) -> str:
        return f" → {self.output}" if self.output else ""

    def __repr__(self) -> str:
        """Return the summary, so that a notebook cell or a prompt says what happened."""
        return f"<Result {self.summary()}>"

    def _repr_html_(self) -> str:
        """Return the same for a notebook, as a card."""
        facts = {
            "done": f"{self.done:,}" + (f" of {self.total:,}" if self.total not in {None, self.done} else ""),
            "failed": f"{self.failed:,}" if self.failed else None,
            "skipped": f"{self.skipped:,}" if self.skipped else None,
            "left": f"{self.left:,}" if self.left else None,
            "this run": f"{self.new:,} in {duration(self.seconds)}, {self.rate:,.0f}/s",
            "why": self.reason,
            "output": self.output,
            "next": self._to_do(),
        }
        return card(self.job or "in memory", self.status, self.share, facts)

    def _to_do(self) -> str | None:
        if not self.completed:
            return "run it again to go on"
        return "look at .failures()" if self.failed else None


class Retried(Result):
    """What running failures again did.

    done, skipped: of them; failed: what is left of the job's failures; total: those there were before. output: `None`
    where the job itself is not completed.
    """

    __slots__ = ()

    def summary(self) -> str:
        """Say in one line what became of the failures and what comes next."""
        if self.completed and not self.total:
            return f"{self.job}: no failures to run again{self._where()}"
        of = f"of {self.total:,} failure{'' if self.total == 1 else 's'} {self.done:,} done"
        skipped = f", {self.skipped:,} skipped" if self.skipped else ""
        if self.completed or self.reason == JOB_LEFT:
            left = f", {self.failed:,} left" if self.failed else ""
            what = f"{self.job}: {of}{skipped}{left} (in {duration(self.seconds)}){self._where()}"
            return what + (self._next() if self.completed else f"; {self.reason}")
        left = f"{self.failed:,} failed again or still to do"
        return f"{self.job}: paused, {self.reason}: {of}{skipped}, {left}; go on with: batchkit retry {self.job}"


def reason_for_people(reason: str | None) -> str | None:
    """Return why a run ended, in words."""
    if reason is None:
        return None
    return _REASONS.get(reason, f"asked to stop by {reason}")
