"""batchkit: a long list, a function, and a machine that will not last.

    result = batchkit.process("items.txt", fetch, output="results.jsonl", max_time="55m")

Works through the list in batches and commits a cursor after every batch; the same call again goes on where it was.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "process": "api",
    "command": "commands",
    "csv": "sources",
    "lines": "sources",
    "ndjson": "sources",
    "parquet": "sources",
    "Job": "existing",
    "jobs": "existing",
    "Event": "events",
    "Result": "result",
    "current_batch": "calling",
    "transaction": "transactions",
    "BatchkitError": "errors",
    "ChangedError": "errors",
    "CommandFailed": "errors",
    "DamageError": "errors",
    "Failure": "model",
    "DefinitionChanged": "errors",
    "InputChanged": "errors",
    "ItemError": "errors",
    "JobLocked": "errors",
    "OutputChanged": "errors",
    "RetryLater": "errors",
    "SkipItem": "errors",
    "SourceError": "errors",
    "StorageError": "errors",
    "TooManyFailures": "errors",
    "UnreadableItem": "errors",
    "UsageError": "errors",
    "WorkerDied": "errors",
    "PhaseFailed": "errors",
    "RollbackFailed": "errors",
    "Workflow": "workflow.flow",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  # a list of the keys above

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.api import process as process
    from batchkit.calling import current_batch as current_batch
    from batchkit.commands import command as command
    from batchkit.errors import (
        BatchkitError as BatchkitError,
        ChangedError as ChangedError,
        CommandFailed as CommandFailed,
        DamageError as DamageError,
        DefinitionChanged as DefinitionChanged,
        InputChanged as InputChanged,
        ItemError as ItemError,
        JobLocked as JobLocked,
        OutputChanged as OutputChanged,
        PhaseFailed as PhaseFailed,
        RetryLater as RetryLater,
        RollbackFailed as RollbackFailed,
        SkipItem as SkipItem,
        SourceError as SourceError,
        StorageError as StorageError,
        TooManyFailures as TooManyFailures,
        UnreadableItem as UnreadableItem,
        UsageError as UsageError,
        WorkerDied as WorkerDied,
    )
    from batchkit.events import Event as Event
    from batchkit.existing import Job as Job, jobs as jobs
    from batchkit.model import Failure as Failure
    from batchkit.result import Result as Result
    from batchkit.sources import csv as csv, lines as lines, ndjson as ndjson, parquet as parquet
    from batchkit.transactions import transaction as transaction
    from batchkit.workflow.flow import Workflow as Workflow


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used: `import batchkit` costs a millisecond (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'batchkit' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # see above

    value = getattr(import_module(f"batchkit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return [*globals(), *_HOMES]
