"""What a run is given, checked and made into what it works with; and what of that a later `retry` is to know."""

from __future__ import annotations

import datetime
import os
import re
from typing import Any

from batchkit.budget import Budget, seconds_of, seconds_until
from batchkit.calling import command_of, name_of
from batchkit.errors import UsageError
from batchkit.failures import Policy
from batchkit.job import Slice
from batchkit.loading import load, names_of, spec_of
from batchkit.readers.base import divisible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from batchkit.budget import Duration
    from batchkit.job import Manifest
    from batchkit.limit import Limit
    from batchkit.retrying import Again
    from batchkit.work import Work


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise `UsageError` for a value that is none of the choices."""
    if value not in choices:
        raise UsageError(f"{name} is {value!r}; give {', '.join(choices[:-1])} or {choices[-1]}")


def check_numbers(**given: tuple[int | None, int]) -> None:
    """Raise `UsageError` for what is no number, or below the least; given as `name=(number, least)`; `None` is fine."""
    for name, (value, least) in given.items():
        if value is not None and (not hasattr(value, "__index__") or value < least):
            raise UsageError(f"{name} is {value!r}; give a whole number of at least {least}")


def check_batch_format(batch_format: str | None, *, batched: bool) -> None:
    """Raise `UsageError` for a form in which no batched function gets its batches."""
    if batch_format is not None:
        check_choice("batch_format", batch_format, ("polars", "arrow", "dicts"))
        if not batched:
            raise UsageError("batch_format is for batched functions; give batched=True (--batched), or leave it out")


def batched_of(function: Callable[..., Any] | None, *, batched: bool, batch_format: str | None) -> bool:
    """Return whether a function takes batches; of a command, it knows. Raises `UsageError` for a contradiction."""
    command = command_of(function)
    if command is None:
        return batched
    if batch_format is not None:
        raise UsageError("batch_format is for functions; a command gets an item a line, rows as JSON")
    if batched and not command.batch:
        raise UsageError(f"{command!r} takes single items; for whole batches give batch=True (--exec-batch)")
    return bool(command.batch)


def policy_of(on_error: str, retries: int, retry_on: Any, retry_wait: Any, retry_max_wait: Any, isolate: str) -> Policy:
    """Return what is done about failures; durations as `seconds_of` takes them. Raises `UsageError`."""
    check_choice("on_error", on_error, ("stop", "skip"))
    check_choice("isolate", isolate, ("bisect", "none"))
    check_numbers(retries=(retries, 0))
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise UsageError(f"retry_on is {retry_on!r}; give a type of exception, or a tuple of such")
    wait = seconds_of(retry_wait, "retry_wait") or 0.0
    return Policy(on_error, retries, kinds, wait, seconds_of(retry_max_wait, "retry_max_wait") or 0.0, isolate)


def timeout_of(timeout: Duration | None, function: Callable[..., Any] | None) -> float | None:
    """Return the seconds that a call may take; `None`: no limit, or nothing is called. Raises `UsageError`."""
    seconds = seconds_of(timeout, "timeout")
    if seconds == 0:
        raise UsageError("timeout is 0; give the seconds that a call may take, or leave it out")
    return None if function is None else seconds


def check_flight(concurrency: int, rate: str | None) -> None:
    """Raise `UsageError` for calls in flight that cannot be had."""
    if concurrency is None:
        raise UsageError("concurrency is None; give a whole number of at least 1")
    check_numbers(concurrency=(concurrency, 1))
    if rate is not None:
        from batchkit.pace import limit_of  # noqa: PLC0415  # loads pyrate-limiter, or says that it is missing

        limit_of(rate)


def slice_of(shard: str | tuple[int, int] | None) -> Slice | None:
    """Return the slice that a run is for: "3/8", (3, 8), or "slurm" in a task of an array job. Raises `UsageError`."""
    if shard is None:
        return None
    if shard == "slurm":
        return _slice_of_slurm()
    found = re.fullmatch(r"(\d+)/(\d+)", shard.strip()) if isinstance(shard, str) else None
    number, of = (int(found[1]), int(found[2])) if found else shard if isinstance(shard, tuple) else (0, 0)
    if not 1 <= number <= of:
        raise UsageError(f"shard is {shard!r}; give a slice such as '3/8' (from 1/8 to 8/8), or 'slurm'")
    return Slice(number, of)


def _slice_of_slurm() -> Slice:
    """Return the slice of this task of a Slurm array job (sbatch(1), "OUTPUT ENVIRONMENT VARIABLES")."""
    given = [os.environ.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("ID", "MIN", "MAX", "COUNT")]
    if not all(each.isdigit() for each in given):
        raise UsageError("shard is 'slurm', and this is no task of a Slurm array job; give a slice such as '3/8'")
    at, first, last, of = map(int, given)
    step = (last - first) // (of - 1) if of > 1 else 1
    if not step or at not in range(first, last + 1, step) or first + step * (of - 1) != last:
        raise UsageError("the tasks of this array job are not evenly numbered; give --shard I/N yourself")
    return Slice((at - first) // step + 1, of)


def check_workers(workers: int, executor: Any) -> None:
    """Raise `UsageError` for workers that cannot be had."""
    if workers is None:
        raise UsageError("workers is None; give a whole number of at least 1")
    check_numbers(workers=(workers, 1))
    if executor is not None and (isinstance(executor, type) or not hasattr(executor, "submit")):
        raise UsageError(f"executor is {executor!r}; give an instance with submit(), as concurrent.futures has them")
    if executor is not None and workers == 1:
        raise UsageError("executor is for several workers; say how many, or leave it out")


def check_slice(part: Slice | None, work: Work, *, restart: bool) -> None:
    """Raise `UsageError` where a slice cannot be worked on alone."""
    if part is None:
        return
    if restart:
        raise UsageError("a slice cannot start over for the others; run batchkit reset first, or leave out --shard")
    if not work.reader.durable or not divisible(work.reader):
        raise UsageError("shard is for files that can be read from anywhere; leave it out")
    if not work.destination.in_parts:
        raise UsageError("shard needs an output that all slices can write parts of; give -o FILE, or leave it out")


def within(function: Callable[..., Any] | None, seconds: float | None) -> Callable[..., Any] | None:
    """Return a command with the time limit of the run, if there is one; any other function as it is."""
    command = command_of(function)
    return function if command is None else command.within(seconds)


def is_numbered(function: Callable[..., Any] | None) -> bool:
    """Tell whether a function asks for the numbers of its items, for which they must be counted."""
    command = command_of(function)
    return command is not None and command.numbered


DEFAULTS: dict[str, Any] = {
    "function": None,
    "command": None,
    "batch_size": 100,
    "batch_format": None,
    "retries": 0,
    "retry_on": "Exception",
    "retry_wait": 1.0,
    "retry_max_wait": 60.0,
    "isolate": "bisect",
    "timeout": None,
    "isolate_process": False,
    "max_failures": None,
    "concurrency": 1,
    "rate": None,
}
"""What `retry` assumes of a job whose last run left no word of it."""


def options_of(work: Work | Again, limit: Limit) -> dict[str, Any]:
    """Return what a `retry` is to do as this run did, or as the retry that it goes on with did."""
    policy = work.policy
    command = command_of(work.function)
    return {
        "function": spec_of(work.function),
        "function_name": name_of(work.function),
        "command": None if command is None else command.recipe(),
        "batch_size": work.batch_size,
        "batch_format": work.batch_format,
        "retries": policy.retries,
        "retry_on": names_of(policy.retry_on),
        "retry_wait": policy.retry_wait,
        "retry_max_wait": policy.retry_max_wait,
        "isolate": policy.isolate,
        "timeout": work.timeout,
        "isolate_process": work.isolated,
        "max_failures": limit.most,
        "concurrency": work.concurrency,
        "rate": work.rate,
    }


def budget_of(
    max_time: Any, until: Any, max_items: int | None, max_batches: int | None, batch_seconds: Any, *, batched: bool
) -> Budget:
    """Return the limits of a run that begins now. Raises `UsageError`."""
    return Budget(
        max_time=_earlier(seconds_of(max_time, "max_time"), seconds_until(until, datetime.datetime.now(datetime.UTC))),
        max_items=max_items,
        max_batches=max_batches,
        batch_seconds=seconds_of(batch_seconds, "batch_seconds"),
        divisible=not batched,
    )


def function_of(manifest: Manifest, known: Mapping[str, Any]) -> Callable[..., Any] | None:
    """Return the function of a job's last run, or of the retry that is to go on; known: what `options_of` gave for it.

    Raises `UsageError` if it cannot be found again by a name.
    """
    if known["command"] is not None:
        from batchkit.commands import command  # noqa: PLC0415  # loads subprocess

        return command(**known["command"])
    name = known.get("function_name", manifest.definition["function"])
    spec = known["function"]
    if name is not None and spec is None:
        raise UsageError(
            f"the function '{name}' of the job '{manifest.name}' cannot be imported by its name; give it: "
            "Job(...).retry(function), or -f path.py:name"
        )
    return None if spec is None else load(spec)


def _earlier(first: float | None, second: float | None) -> float | None:
    known = [seconds for seconds in (first, second) if seconds is not None]
    return min(known) if known else None


def interrupt(_number: int) -> None:
    """Leave at once, as a second stop signal asks for, where nobody says how."""
    raise KeyboardInterrupt
