"""Every error that batchkit raises on purpose, in one tree.

    BatchkitError               exit 1   something failed; the message says what, where and what next
    ├── UsageError              exit 2   an argument is wrong; also a ValueError
    ├── SourceError             exit 1   the input cannot be read
    ├── ItemError               exit 1   the function failed on an item, or its result cannot be stored
    ├── WorkerDied              exit 1   the worker process died during the call
    ├── StorageError            exit 1   the disk refused to open, write, sync or rename
    ├── DamageError             exit 1   what batchkit stored earlier is unreadable or gone
    ├── JobLocked               exit 4   another run holds the job
    └── ChangedError            exit 5   resuming would mix two different jobs
        ├── InputChanged                 the input is not the one the job began with
        ├── DefinitionChanged            the job is defined otherwise than in this call
        └── OutputChanged                the published output is not as batchkit left it

Each takes its message first and everything else by keyword with a default, so that each survives pickling.
"""

from __future__ import annotations


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


class WorkerDied(BatchkitError):
    """The process that called the function died during the call: killed, crashed, out of memory, or left."""


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
