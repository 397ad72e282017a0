"""Every error that batchkit raises on purpose, in one tree.

    BatchkitError               exit 1   something failed; the message says what, where and what next
    ├── UsageError              exit 2   an argument is wrong; also a ValueError
    ├── SourceError             exit 1   the input cannot be read
    ├── ItemError               exit 1   the function failed on an item, or its result cannot be stored
    ├── TooManyFailures         exit 1   more items failed than `max_failures` allows
    ├── WorkerDied                       the process in which the function was called is gone
    ├── CommandFailed                    a command ended with a status other than 0; raised by `batchkit.command`
    ├── UnreadableItem                   why an item could not be read; also a ValueError
    ├── PhaseFailed             exit 1   a phase of a workflow failed, or cannot begin
    ├── RollbackFailed          exit 1   what undoes a phase of a workflow failed
    ├── StorageError            exit 1   the disk refused to open, write, sync or rename
    ├── DamageError             exit 1   what batchkit stored earlier is unreadable or gone
    ├── JobLocked               exit 4   another run holds the job
    ├── ChangedError            exit 5   resuming would mix two different jobs
    │   ├── InputChanged                 the input is not the one the job began with
    │   ├── DefinitionChanged            the job is defined otherwise than in this call
    │   └── OutputChanged                the published output is not as batchkit left it
    ├── SkipItem                         raised by functions: drop this item on purpose
    └── RetryLater                       raised by functions: call again, but not before some time

Each takes its message first and everything else by keyword with a default, so that each survives pickling.
"""

from __future__ import annotations

import math


class BatchkitError(Exception):
    """Base of all errors; `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(BatchkitError, ValueError):
    """An argument or option is wrong; nothing was done."""

    exit_code = 2


class SourceError(BatchkitError):
    """The input cannot be read; everything before the place named is committed."""


class ItemError(BatchkitError):
    """The function failed on `item`, or its result could not be stored.

    item: the item itself (`None` where it could not be read, or where a whole batch failed).
    position: where it stands in the input, for people.
    All items before it are committed; the next run begins with it. The original exception is the `__cause__`.
    """

    def __init__(self, message: str, *, item: object = None, position: str | None = None) -> None:
        """Keep the item and its position beside the message."""
        super().__init__(message)
        self.item = item
        self.position = position

    @property
    def what(self) -> str:
        """What happened, without what comes next: that is another thing where no job was at work."""
        return str(self).rpartition("; everything before it")[0] or str(self)


class TooManyFailures(BatchkitError):
    """More items failed than `max_failures` allows; everything handled so far is committed."""


class PhaseFailed(BatchkitError):
    """A phase of a workflow failed, or cannot begin; those at work beside it came to their ends.

    phases: name → what went wrong, for each that failed.
    """

    def __init__(self, message: str, *, phases: dict[str, str] | None = None) -> None:
        """Keep the phases beside the message."""
        super().__init__(message)
        self.phases = phases or {}


class RollbackFailed(BatchkitError):
    """What undoes a phase failed; the rollback is unfinished and goes on there when it is run again."""


class WorkerDied(BatchkitError):
    """The process in which the function was called died in the middle of a call."""


class CommandFailed(BatchkitError):
    """A command ended with a status other than 0, or its output cannot be a result.

    status: the exit status; negative: the number of the signal that killed it; `None`: it was ended from here.
    stderr: the end of what it wrote to standard error, at most about 8 KB.
    """

    def __init__(self, message: str = "the command failed", *, status: int | None = None, stderr: str = "") -> None:
        """Keep the status, and the text as a note that tracebacks show."""
        super().__init__(message)
        self.status = status
        self.stderr = stderr
        if stderr.strip():
            self.add_note(stderr.rstrip())

    @property
    def __batchkit_traceback__(self) -> str:
        """What is kept of it as the traceback of a failure."""
        return f"{self.stderr.rstrip()}\n{type(self).__name__}: {self}" if self.stderr.strip() else ""


class UnreadableItem(BatchkitError, ValueError):
    """An item that could not be read, such as invalid UTF-8 or a line that is no JSON."""


class StorageError(BatchkitError):
    """The disk refused; the last commit before it stands, and the next run goes on from there."""


class DamageError(BatchkitError):
    """What batchkit stored earlier is unreadable, of an unknown format, or gone; nothing was changed."""


class JobLocked(BatchkitError):
    """Another run holds the job."""

    exit_code = 4


class ChangedError(BatchkitError):
    """Resuming would mix two different jobs; nothing was changed."""

    exit_code = 5


class InputChanged(ChangedError):
    """The input is not the one that the job began with."""


class DefinitionChanged(ChangedError):
    """The job of this name was started with another source, function or output."""


class OutputChanged(ChangedError):
    """The published output is not as batchkit left it."""


class SkipItem(BatchkitError):
    """A function raises it to drop an item on purpose: no result, no failure, counted apart."""


class RetryLater(BatchkitError):
    """A function raises it to be called again later with the same item, for which `retries` are needed.

    after: seconds to wait at least, as a number or as the value of an HTTP `Retry-After` header (seconds or a date,
    RFC 9110, 10.2.3); `None`: as after any other error.
    """

    def __init__(self, message: str = "asked to be called again later", *, after: float | str | None = None) -> None:
        """Keep the time to wait. Raises `UsageError` for one that cannot be understood."""
        super().__init__(message)
        self.after = None if after is None else _seconds(after)


def _seconds(after: float | str) -> float:
    try:
        seconds = float(after)
    except ValueError:
        return _seconds_until(after)
    if not math.isfinite(seconds):
        raise UsageError(f"after is {after!r}; give seconds or an HTTP date")
    return max(0.0, seconds)


def _seconds_until(date: float | str) -> float:
    from datetime import UTC, datetime  # noqa: PLC0415  # dates are rare, and these imports are not cheap
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    try:
        moment = parsedate_to_datetime(str(date))
    except ValueError:
        raise UsageError(f"after is {date!r}; give seconds or an HTTP date") from None
    if moment.tzinfo is None:  # "-0000": UTC, of a clock whose zone is unknown
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
