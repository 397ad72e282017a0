"""The account of a run: how far its job is, as people see it, as the limit of failures judges it, and summed up."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from batchkit.errors import DamageError, StorageError
from batchkit.events import NO_HOOKS, Event
from batchkit.progress import Progress, sayer
from batchkit.result import Result, reason_for_people

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchkit.model import Checkpoint, Failure, Mark
    from batchkit.tally import Tally
    from batchkit.work import Work


class Account:
    """Counts, shows and judges what is committed.

    tally: the counts.
    """

    def __init__(
        self, work: Work, name: str | None, tally: Tally, kept: Callable[[int, Mark, Mark], Iterator[Failure]]
    ) -> None:
        """Show progress; name: of the job, `None` if it has no directory; tally: where it stands.

        kept: yields the failures of a shard between two marks.
        """
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
        self._kept = kept
        self._told = {shard.number: tally.point(shard.number) for shard in tally.plan}
        if work.hooks is not NO_HOOKS:
            work.hooks.now = self._event
            self._tell("start")

    def close(self) -> None:
        """Leave the progress bar as it stands."""
        self._progress.close()

    def tell(self, number: int, point: Checkpoint) -> float:
        """Take the newest checkpoint of a shard, tell the hooks, and show it, if it is time to.

        Returns when it will be time again: at the next commit, if there are hooks.
        """
        due = self.look(number, point)
        if not self._work.hooks.hears("batch", "failure"):
            return due
        before = self._told.get(number)
        if point.handled > (0 if before is None else before.handled):
            self._told[number] = point
            self._tell("batch")
            if point.failed > (0 if before is None else before.failed):
                self._tell_failures(number, None if before is None else before.kept, point.kept)
        return 0.0

    def look(self, number: int, point: Checkpoint) -> float:
        """Take the newest checkpoint of a shard and show it, if it is time to; return when it will be again."""
        self.tally.put(number, point)
        return self.show()

    def _tell(self, kind: str, failure: Failure | None = None) -> None:
        hooks = self._work.hooks
        if hooks.hears(kind):
            hooks.tell(self._event(kind)._replace(failure=failure), sayer(self._work.progress))

    def _event(self, kind: str) -> Event:
        work, tally = self._work, self.tally
        return Event(
            kind=kind,
            job=self._name,
            status="running",
            reason=None,
            done=tally.done,
            failed=tally.failed,
            skipped=tally.skipped,
            new=tally.handled - self._before,
            share=tally.share,
            seconds=time.monotonic() - work.begun,
            time=time.time(),
        )

    def _tell_failures(self, number: int, start: Mark, stop: Mark) -> None:
        if self._work.hooks.hears("failure"):
            with suppress(DamageError, StorageError):  # whoever reads them later is told
                for failure in self._kept(number, start, stop):
                    self._tell("failure", failure)

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
