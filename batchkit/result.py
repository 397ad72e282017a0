"""What a run gave: counts, why it ended, and the way to the results."""

from __future__ import annotations

from typing import Any, NamedTuple

from batchkit.progress import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXIT_COMPLETED = 0
EXIT_PAUSED = 75
"""`EX_TEMPFAIL` of sysexits.h: stopped cleanly with work left, run again."""

_REASONS = {
    "time": "the time is used up",
    "items": "the number of items asked for is done",
    "batches": "the number of batches asked for is done",
    "output": "nobody reads the output any more",
}


class Result(NamedTuple):
    """What one run did, and where the job stands after it.

    status: "completed", or "paused" with work left; then `reason` says why, for people.
    done, failed, skipped: items of the job in all runs; new: items done in this run.
    total: items of the job; `None` while unknown. share: how much of the input is done, 0 to 1; `None` if unknown.
    seconds: what this run took. output: the file of the results; `None` if they are in memory or were printed.
    read: what `results()` calls.
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

    @property
    def exit_code(self) -> int:
        """What a command that ends with this result exits with."""
        return EXIT_COMPLETED if self.status == "completed" else EXIT_PAUSED

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
            return self.total - self.done
        return round(self.done / self.share - self.done) if self.share else None

    def results(self) -> Iterator[Any]:
        """Yield the results of all runs so far in input order, read from where they are stored.

        Raises `UsageError` if they were printed.
        """
        return self.read()

    def summary(self) -> str:
        """Say in one line what was done and what comes next."""
        name = f"{self.job}: " if self.job else ""
        items = f"{self.done:,} item{'' if self.done == 1 else 's'} done"
        if self.completed and not self.done:
            return f"{name}completed, the input has no items{self._where()}"
        if self.completed and not self.new:
            return f"{name}completed, {items}; nothing new to do (--restart starts over){self._where()}"
        speed = f"{self.new:,} in {duration(self.seconds)}, {self.rate:,.0f}/s"
        if self.completed:
            part = "" if self.new == self.done else f", of which {speed} in this run"
            return f"{name}completed, {items}{part or f' ({speed})'}{self._where()}"
        return f"{name}paused, {self.reason}: {items} ({speed}), {self._left()}; run the same command again to go on"

    def _left(self) -> str:
        if self.left == 0:
            return "the output is still to be written"
        if self.total is not None:
            return f"{self.total - self.done:,} left"
        if self.share is None:
            return "more left"
        about = f", about {self.left:,} items" if self.left else ""
        return f"{1 - self.share:.1%} of the input left{about}"

    def _where(self) -> str:
        return f" → {self.output}" if self.output else ""

    def __repr__(self) -> str:
        """Return the summary, so that a notebook cell or a prompt says what happened."""
        return f"<Result {self.summary()}>"


def reason_for_people(reason: str | None) -> str | None:
    """Return why a run ended, in words."""
    if reason is None:
        return None
    return _REASONS.get(reason, f"asked to stop by {reason}")
