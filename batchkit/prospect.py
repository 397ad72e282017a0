"""What a job would be, before it runs: how many items, in how many shards, and how long a sample of them takes."""

from __future__ import annotations

import math
import time
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from batchkit import api, history, journal
from batchkit.errors import BatchkitError, ItemError, UsageError
from batchkit.existing import Job
from batchkit.forecast import Forecast, Past, Range, forecast
from batchkit.model import Span
from batchkit.options import budget_of
from batchkit.readers.base import count, divisible, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.model import Checkpoint
    from batchkit.readers.base import Reader
    from batchkit.result import Result

_PLACES = 16
"""Where a text is looked at to guess how long its lines are, spread over all of it."""

_LINES, _LOOK = 10_000, 64 << 10
"""Items, or bytes, that are read at each, whichever is less."""

_SMALL = 1 << 20
"""Bytes of a text that is counted: that takes milliseconds."""

_ONE_PLACE = 0.2
"""What the items per byte may differ from those at one place, as a share: nobody has seen them vary."""

_EVENLY = {"lines", "ndjson"}
"""Kinds of source that can be entered anywhere; to enter a CSV file it is read from its beginning."""

_OF_THE_JOB = {
    "job", "state_dir", "output", "output_format", "schema", "shard", "workers", "restart", "overwrite",
    "on_input_change", "max_items", "max_batches", "max_time", "until",
}  # fmt: skip
"""Options that a sample has of its own: it is no part of the job."""


class Prospect(NamedTuple):
    """What a job would be.

    items: how many, `None` if that cannot be known without counting; exact: whether they are counted, and not guessed.
    extent, unit: size of the input, `None` if unknown, in "B" or "items". shards: pieces that workers would begin with.
    sampled: items of the sample, seconds: what they took. kept: whether their results are the job's. guess: when the
    rest would be done if it began now; `None` where there is nothing to go by.
    """

    items: Range | None
    exact: bool
    extent: int | None
    unit: str
    shards: int
    workers: int
    sampled: int
    seconds: float
    kept: bool
    guess: Forecast | None


def prospect(
    reader: Reader, function: Callable[..., Any] | None, sample: int, *, keep: bool, **options: Any
) -> Prospect:
    """Try a job on its first items, `sample` of them, and tell what all of it would be.

    keep: whether that is the job's first run; else the results are thrown away (what the function itself does is done).
    options: those of `process`. Raises what `process` raises; `UsageError` for standard input.
    """
    if "-" in reader.files or not reader.restartable:
        raise UsageError("standard input can be read once, by the run itself; plan with files")
    items, exact = items_in(reader)
    workers = int(options.get("workers", 1))
    shards = min(workers, math.ceil(items.high) if items is not None else workers) if divisible(reader) else 1
    tried = _kept if keep else _thrown_away
    handled, seconds, result = tried(reader, function, sample, options)
    share = None if items is None or not items.likely else min(1.0, handled / items.likely)
    done = result.share if keep else 0.0
    guess = None
    if share and done is not None and done < 1.0:
        at_once = shards if not keep else 1  # a run that was kept had its workers
        past = Past(time.time(), seconds / at_once, share, _limit(options))
        guess = forecast(done, [past], now=time.time(), running=False)
    extent = reader.extent(reader.whole())
    return Prospect(items, exact, extent, reader.unit, max(1, shards), workers, handled, seconds, keep, guess)


def _limit(options: dict[str, Any]) -> float | None:
    """Return the seconds that a run would have; `None`: as many as it takes."""
    budget = budget_of(options.get("max_time"), options.get("until"), None, None, None, batched=False)
    return budget.limits["max_time"]


def _thrown_away(
    reader: Reader, function: Callable[..., Any] | None, sample: int, options: dict[str, Any]
) -> tuple[int, float, Result]:
    """Work through a sample as a job of its own that leaves nothing; return its items, seconds and result."""
    of_its_own = {name: value for name, value in options.items() if name not in _OF_THE_JOB}
    with TemporaryDirectory(prefix="batchkit-") as directory:
        given: dict[str, Any] = {**of_its_own, "job": "sample", "state_dir": directory, "progress": "none"}
        try:
            result = api.process(reader, function, max_items=sample, **given)
        except ItemError as error:
            raise BatchkitError(f"{error.what}; mend it, or plan with on_error='skip' (--on-error skip)") from error
        return *_worked(Job("sample", directory)), result


def _kept(
    reader: Reader, function: Callable[..., Any] | None, sample: int, options: dict[str, Any]
) -> tuple[int, float, Result]:
    """Do the same as a run of the job."""
    most = options.get("max_items")
    result = api.process(reader, function, **{**options, "max_items": sample if most is None else min(sample, most)})
    if result.job is None:
        raise UsageError("results in memory cannot be kept; give the job a name, or an output")
    if not result.new:
        return 0, 0.0, result
    return *_worked(Job(result.job, options.get("state_dir"))), result


def _worked(job: Job) -> tuple[int, float]:
    """Return how many items the newest run of a job handled, and the seconds from its first batch to its last commit.

    A process that starts, and a function that loads a model, are not counted: they happen once.
    """
    directory, manifest, run = job.parts()
    items, starts, ends = 0, [], []
    for shard in manifest.plan:
        chapters = history.chapters(directory.shard_path(shard.number), manifest.job)
        first = history.first_where(chapters, lambda point: point.run >= run)
        newest = journal.newest(directory.shard_path(shard.number))
        if first is None or newest is None:
            continue
        before = _before(chapters, first)
        items += newest.handled - (0 if before is None else before.handled)
        starts.append(first.time - first.seconds)
        ends.append(newest.time)
    return items, max(ends) - min(starts) if starts else 0.0


def _before(chapters: list[history.Chapter], point: Checkpoint) -> Checkpoint | None:
    """Return the commit before one; `None`: it is the first."""
    return history.first_where(chapters, lambda each: each.seq >= point.seq - 1) if point.seq > 1 else None


def items_in(reader: Reader) -> tuple[Range | None, bool]:
    """Return how many items a source has, and whether that is exact; `None`: it cannot be known without counting.

    A small text is counted; of a large one a few places are read, evenly spread, and the items per byte of each stand
    for what is around it. The spread is two standard errors of their mean.
    """
    whole = reader.whole()
    extent = None if whole.stop is None else reader.extent(whole)
    if extent is None:
        return None, False
    if reader.unit == "items" or extent <= _SMALL:
        items = extent if reader.unit == "items" else count(reader, whole)
        return Range(items, items, items), True
    if reader.identity().get("kind") not in _EVENLY:
        density = _density(reader, whole)
        return Range(*(extent * density * factor for factor in (1 - _ONE_PLACE, 1.0, 1 + _ONE_PLACE))), False
    seen = [_density(reader, span) for span in split(reader, whole, 2 * _PLACES)[1::2]]  # in the middle of each part
    if not seen:  # lines as long as that
        return None, False
    error = 2 * stdev(seen) / math.sqrt(len(seen)) if len(seen) > 1 else _ONE_PLACE * seen[0]
    return Range(*(extent * max(0.0, fmean(seen) + by) for by in (-error, 0.0, error))), False


def _density(reader: Reader, span: Span) -> float:
    """Return the items per byte at the beginning of a span."""
    items = size = 0
    batches = reader.read(span, _LINES)
    for batch in batches:
        items, size = items + len(batch.items), reader.extent(Span(span.start, batch.stop)) or 0
        if size >= _LOOK or items >= _LINES:
            break
    close = getattr(batches, "close", None)
    if close is not None:
        close()
    return items / size if size else 0.0
