"""Where an item of a job was handled: which shard, batch and run, and with what outcome.

Told from the counts in the commits, found by bisection, and from the kept failures: the input is not needed. Only to
find an item by what it is, the input is read.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from batchkit import failure_file, history
from batchkit.errors import InputChanged, UsageError
from batchkit.rounds import rounds_of
from batchkit.sources import of_identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchkit.job import JobDirectory, Manifest
    from batchkit.model import Checkpoint, Failure, Shard

_TOGETHER = 10_000
"""Items that are compared at a time."""

_DONE_OR_SKIPPED = "done or skipped"
"""Of an item in a batch of which some were skipped: which ones is not kept."""


class Located(NamedTuple):
    """Where an item was handled.

    number: of the item in the whole input, from 1. status: "done", "failed", "skipped", "done or skipped" (of a batch
    in which some were skipped, which is not kept of each), or "to do". shard, batch: where, `None` if it is to do;
    batches count from 1 in their shard. items: in the batch. run: that committed it; time: when, seconds since the
    epoch; seconds: what the batch took. failure: what failed, also if a retry did it later. retry: number of the retry
    that it was last part of; `None`: of none.
    """

    number: int
    status: str
    shard: int | None = None
    batch: int | None = None
    items: int | None = None
    run: int | None = None
    time: float | None = None
    seconds: float | None = None
    failure: Failure | None = None
    retry: int | None = None


def located(job: JobDirectory, manifest: Manifest, number: int) -> Located:
    """Return where the item with this number was handled. Raises `UsageError` where the job has none, or cannot know.

    Costs some reads per shard, and one pass over the failures.
    """
    if number < 1:
        raise UsageError(f"items are counted from 1; there is no item {number}")
    points = job.commits(manifest) if manifest.ready else [None for _ in manifest.plan]
    before: int | None = 0
    for shard, point in zip(manifest.plan, points, strict=True):
        before = shard.first if shard.first is not None else before
        handled = 0 if point is None else point.handled
        ended = point is not None and point.end
        if before is None:
            continue
        if before < number <= before + handled:
            return _in_shard(job, manifest, shard, number, number - before, point)
        before = before + handled if ended else None
    if before is not None:
        raise UsageError(f"the job '{job.name}' has {before:,} items; there is no item {number:,}")
    if len(manifest.plan) > 1 and any(point is not None and not point.end for point in points[:-1]):
        raise UsageError(
            f"item {number:,} of the job '{job.name}' cannot be told yet: it stands behind what is unfinished, and "
            "nobody has counted what is between; ask again when the job is completed"
        )
    return Located(number, "to do")


def _in_shard(
    job: JobDirectory, manifest: Manifest, shard: Shard, number: int, nth: int, newest: Checkpoint | None
) -> Located:
    """Return where the nth item of a shard, from 1, was handled."""
    chapters = history.chapters(job.shard_path(shard.number), manifest.job)
    point = history.first_where(chapters, lambda each: each.handled >= nth)
    assert point is not None, "the newest commit has handled it"
    last = history.first_where(chapters, lambda each: each.seq >= point.seq - 1) if point.seq > 1 else None
    counts = [getattr(point, name) - (0 if last is None else getattr(last, name)) for name in ("failed", "skipped")]
    items = point.handled - (0 if last is None else last.handled)
    found = Located(
        number,
        _status_in(items, *counts),
        shard=shard.number,
        batch=point.seq,
        items=items,
        run=point.run,
        time=point.time,
        seconds=point.seconds,
    )
    path = failure_file.path_beside(job.shard_path(shard.number))
    kept = failure_file.entries(path, None if newest is None else newest.kept)
    entry = next((each for each in kept if each["number"] == nth - 1), None) if counts[0] else None
    return found if entry is None else _after_retries(job, manifest, found, entry)


def _status_in(items: int, failed: int, skipped: int) -> str:
    """Return how an item of a batch ended that is not kept as a failure."""
    if not skipped:
        return "done"
    return "skipped" if failed + skipped == items else _DONE_OR_SKIPPED


def _after_retries(job: JobDirectory, manifest: Manifest, found: Located, entry: dict[str, Any]) -> Located:
    """Return what became of an item that failed: retries may have done it."""
    found = found._replace(status="failed", failure=failure_file.failure_of(entry))
    key = entry["shard"], entry["number"]
    for number, state in enumerate(rounds_of(job, manifest.job), start=1):
        newer = next((each for each in state.entries() if (each["shard"], each["number"]) == key), None)
        if newer is not None:
            status = "failed" if "error" in newer else "skipped" if newer.get("skipped") else "done"
            failure = failure_file.failure_of(newer) if "error" in newer else found.failure
            found = found._replace(status=status, failure=failure, retry=number)
    return found


def numbers_of(job: JobDirectory, manifest: Manifest, item: str) -> Iterator[int]:
    """Yield the numbers of the items that are this one, by reading the input from its beginning.

    item: the text of a line; of rows `column=value`, or a row as JSON; of other values JSON. Raises `UsageError` for
    an input that cannot be read again, and `InputChanged` if it is another one now.
    """
    reader = of_identity(manifest.definition["source"])
    if reader is None:
        raise UsageError(f"the input of the job '{job.name}' cannot be read from here; give a number: --line N")
    whole = reader.whole()
    verdict = reader.check(manifest.fingerprint, whole.start, None)
    if verdict.kind == "changed":
        raise InputChanged(f"the input of the job '{job.name}' has changed ({verdict.why}); give a number: --line N")
    same, number = _matching(item), 1
    for batch in reader.read(whole, _TOGETHER):
        for index, each in enumerate(batch.items):
            if index not in batch.unreadable and same(each):
                yield number + index
        number += len(batch.items)


def _matching(text: str) -> Callable[[Any], bool]:
    """Return what tells whether an item is the one that this text means."""
    column, _, value = text.partition("=")
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = text

    def same(item: Any) -> bool:
        if isinstance(item, str):
            return item == text
        if isinstance(item, dict) and column in item and "=" in text:
            return str(item[column]) == value
        return bool(item == parsed)

    return same
