"""The account of a run: how far its job is, as people see it, as the limit of failures judges it, and summed up."""

from __future__ import annotations

import time
from typing import Any

from batchkit.progress import Progress
from batchkit.result import Result, reason_for_people

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchkit.model import Checkpoint, Failure
    from batchkit.tally import Tally
    from batchkit.work import Work


class Account:
    """Counts, shows and judges what is committed.

    tally: the counts.
    """

    def __init__(self, work: Work, name: str | None, tally: Tally) -> None:
        """Show progress; name: of the job, `None` if it has no directory; tally: where it stands."""
        self._work = work
        self._name = name
        self.tally = tally
        self._before = tally.handled
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

    def tell(self, number: int, point: Checkpoint) -> float:
        """Take the newest checkpoint of a shard and show it, if it is time to; return when it will be again."""
        self.tally.put(number, point)
        return self.show()

    def show(self) -> float:
        """Show how far the job is, if it is time to; return when it will be again, see `Progress.show`."""
        tally = self.tally
        return self._progress.show(tally.at, tally.handled, tally.failed)

    def judge(self, number: int, point: Checkpoint) -> None:
        """Take the newest checkpoint of a shard. Raises `TooManyFailures`."""
        self.tally.put(number, point)
        self.check()

    def check(self, *, final: bool = False) -> None:
        """Raise `TooManyFailures` if there are too many; final: nothing is left to do."""
        self._work.limit.check(self._name, self.tally.handled, self.tally.failed, final=final)

    def result(
        self,
        output: str | None,
        read: Callable[[], Iterator[Any]],
        read_failures: Callable[[], Iterator[Failure]],
        *,
        completed: bool,
    ) -> Result:
        """Sum up; output: where the results stand, `None` if they do not in a file."""
        tally, work = self.tally, self._work
        counted = tally.total if work.reader.unit == "items" else None
        return Result(
            job=self._name,
            status="completed" if completed else "paused",
            reason=None if completed else reason_for_people(work.budget.reason),
            done=tally.done,
            failed=tally.failed,
            skipped=tally.skipped,
            total=tally.handled if completed else counted,
            share=1.0 if completed else tally.share,
            new=tally.handled - self._before,
            seconds=time.monotonic() - work.begun,
            output=output,
            read=read,
            read_failures=read_failures,
        )
