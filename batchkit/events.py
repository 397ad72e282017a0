"""What a run tells those who listen: that it began, each batch, each failure, and how it ended."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from batchkit.errors import BatchkitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.model import Failure
    from batchkit.result import Result


class Event(NamedTuple):
    """Something that happened in a run.

    kind: "start", "batch", "failure", "stop" or "complete". job: its name; `None` if nothing of it is kept. done,
    failed, skipped: items of the job in all runs; new: items done, failed or skipped in this run. share: how much of
    the input is done, 0 to 1; `None` if unknown. seconds: since the run began. time: seconds since the epoch.
    status, reason: how the run ended and why; of a start and a batch "running". output: where the results are, `None`
    as in `Result`. failure: what failed, of a failure.
    """

    kind: str
    job: str | None
    status: str
    reason: str | None
    done: int
    failed: int
    skipped: int
    new: int
    share: float | None
    seconds: float
    time: float
    output: str | None = None
    failure: Failure | None = None

    @property
    def summary(self) -> str:
        """What happened, in a line for people."""
        counts = [f"{self.done:,} items done"]
        counts += [f"{n:,} {name}" for n, name in ((self.failed, "failed"), (self.skipped, "skipped")) if n]
        parts = [f"{self.job or 'batchkit'}: {self.status}", *counts]
        return ", ".join([*parts, self.reason] if self.reason else parts)


class Hooks:
    """What to call with which event. Called in the process and thread that `process()` was called in.

    What a hook raises is said, and the run goes on: who watches a job must not be able to end it.

    now: makes an event of a kind from how far the run is; `None`: it has not begun.
    """

    def __init__(self, **hooks: Callable[[Event], Any] | None) -> None:
        """Take what is called by kind: `start`, `batch`, `failure`, `stop`, `complete`; `None`: nothing."""
        self._hooks = hooks
        self.now: Callable[[str], Event] | None = None

    def hears(self, *kinds: str) -> bool:
        """Tell whether somebody listens to one of these kinds."""
        return any(self._hooks.get(kind) is not None for kind in kinds)

    def tell(self, event: Event, say: Callable[[str], None]) -> None:
        """Tell of an event. say: tells people that a hook failed."""
        hook = self._hooks.get(event.kind)
        if hook is None:
            return
        try:
            hook(event)
        except Exception as error:  # noqa: BLE001  # see above
            kind = "" if isinstance(error, BatchkitError) else f"{type(error).__name__}: "
            what = " ".join(f"{kind}{error}".split())
            say(f"the hook on_{event.kind} failed ({what}); for the run that changes nothing")

    def tell_result(self, result: Result, say: Callable[[str], None]) -> None:
        """Tell how a run ended."""
        names = ("job", "status", "reason", "done", "failed", "skipped", "new", "share", "seconds", "output")
        facts = {name: getattr(result, name) for name in names}
        self.tell(Event(kind="complete" if result.completed else "stop", time=time.time(), **facts), say)

    def tell_error(self, error: Exception, job: str | None, seconds: float, say: Callable[[str], None]) -> None:
        """Tell that a run ended by an error. seconds: since it began."""
        now = Event("stop", job, "", None, 0, 0, 0, 0, None, 0.0, 0.0) if self.now is None else self.now("stop")
        reason = " ".join(str(error).split()) or type(error).__name__
        self.tell(now._replace(status="failed", reason=reason, seconds=seconds, time=time.time()), say)


NO_HOOKS = Hooks()
