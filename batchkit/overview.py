"""A job at a glance: how it stands, its runs, its shards, when it will be done, what comes next."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from batchkit.errors import DamageError
from batchkit.forecast import Past, forecast
from batchkit.readers.share import share_done
from batchkit.status import status_of
from batchkit.steering import granted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.forecast import Forecast
    from batchkit.job import JobDirectory, Manifest, Status


class RunFacts(NamedTuple):
    """One run: seconds since the epoch, and what came of it.

    end, status, reason: `None` for one at work, or one that was killed. new: items done, failed or skipped in it;
    `None` for one that was killed. limit: the seconds that it was given. part: its slice, such as "3/8".
    """

    run: int
    start: float
    end: float | None
    seconds: float | None
    status: str | None
    reason: str | None
    new: int | None
    limit: float | None
    workers: int | None
    host: str | None
    part: str | None


class ShardFacts(NamedTuple):
    """One shard. share: done of it, 0 to 1, `None` if unknown. updated: of its last commit, seconds since the epoch.

    worker: the process that works on it; `None`: none does.
    """

    shard: int
    start: Any
    stop: Any
    at: Any
    share: float | None
    done: int
    failed: int
    skipped: int
    commits: int
    updated: float | None
    ended: bool
    worker: int | None


class Overview(NamedTuple):
    """A job at a glance.

    left: items left, estimated; `None`: unknown. seconds: used by all runs. rate: items a second of the run at work, or
    else of the last one; `None`: there was none. forecast: `None` where there is nothing to go by, or to do. next: a
    command to type, or to run again; `None`: there is nothing to do.
    """

    status: Status
    left: int | None
    seconds: float
    rate: float | None
    forecast: Forecast | None
    next: str | None
    runs: list[RunFacts]
    shards: list[ShardFacts]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, the fields of the status first."""
        guess = self.forecast
        return {
            **self.status._asdict(),
            "left": self.left,
            "seconds": self.seconds,
            "rate": self.rate,
            "forecast": None
            if guess is None
            else {name: v._asdict() if hasattr(v, "_asdict") else v for name, v in guess._asdict().items()},
            "next": self.next,
            "history": [run._asdict() for run in self.runs],
            "shards": [shard._asdict() for shard in self.shards],
        }


def overview_of(directory: JobDirectory, manifest: Manifest) -> Overview:
    """Return a job at a glance; changes nothing. Reads the end of each journal, however long they are."""
    status, now = status_of(directory, manifest), time.time()
    running = status.status == "running"
    entries = _extended(directory) if running else directory.runs()
    runs = _runs(entries)
    handled = status.done + status.failed + status.skipped
    left = round(handled / status.share - handled) if status.share else None
    used = sum(run.seconds or 0.0 for run in runs)
    if runs and runs[-1].end is None:  # at work, or killed behind the last commit
        used += max(0.0, (now if running else status.updated or 0.0) - runs[-1].start)
    guess = None
    if status.status in {"running", "paused", "failed"} and runs:
        past = _past(entries, status, running=running, now=now)
        guess = forecast(status.share, past, now=now, running=running) if past else None
    return Overview(
        status=status,
        left=0 if status.status == "completed" else left,
        seconds=round(used, 3),
        rate=_rate(runs, entries, handled, status.updated, running=running),
        forecast=guess,
        next=_next(status),
        runs=runs,
        shards=_shards(directory, manifest, running=running) if manifest.ready else [],
    )


def _extended(directory: JobDirectory) -> list[dict[str, Any]]:
    """Return the entries of the runs, with the limit of the one at work as it is now."""
    entries = directory.runs()
    limit = entries[-1].get("max_time") if entries else None
    return entries if limit is None else [*entries[:-1], {**entries[-1], "max_time": limit + granted(directory)}]


def _runs(entries: list[dict[str, Any]]) -> list[RunFacts]:
    """Return the runs, oldest first: the line of a run's beginning and that of its end go together."""
    ends = {(entry.get("slice"), entry["run"]): entry for entry in entries if "end" in entry}
    found = []
    for entry in entries:
        if "start" in entry:
            end = ends.get((entry.get("slice"), entry["run"]), {})
            found.append(
                RunFacts(
                    run=entry["run"],
                    start=entry["start"],
                    **{name: end.get(name) for name in ("end", "seconds", "status", "reason", "new")},
                    limit=entry.get("max_time"),
                    workers=entry.get("workers"),
                    host=entry.get("host"),
                    part=entry.get("slice"),
                )
            )
    return found


def _past(entries: list[dict[str, Any]], status: Status, *, running: bool, now: float) -> list[Past]:
    """Return the runs as a forecast takes them.

    Where a run ended is where the next one began, for one that failed or was killed does not say; of the last one it is
    where the job is. A run that was killed has worked until the last commit, if it is the last one; of others nobody
    knows how long they did.
    """
    ends = {(entry.get("slice"), entry["run"]): entry for entry in entries if "end" in entry}
    starts = [entry for entry in entries if "start" in entry]
    shares = [(entry.get("from") or {}).get("share") for entry in starts]
    found = []
    for entry, begun, reached in zip(starts, shares, [*shares[1:], status.share], strict=True):
        seconds = ends.get((entry.get("slice"), entry["run"]), {}).get("seconds")
        if seconds is None and entry is starts[-1]:
            seconds = (now if running else status.updated or 0.0) - entry["start"]
        gained = 0.0 if begun is None or reached is None else reached - begun
        found.append(Past(entry["start"], max(0.0, seconds or 0.0), max(0.0, gained), entry.get("max_time")))
    return found


def _rate(
    runs: list[RunFacts], entries: list[dict[str, Any]], handled: int, updated: float | None, *, running: bool
) -> float | None:
    if running and runs and runs[-1].end is None and updated is not None:
        begun = next(entry for entry in reversed(entries) if "start" in entry)
        items = handled - (begun.get("from") or {}).get("items", handled)
        return items / (updated - begun["start"]) if updated > begun["start"] else None
    known = [run for run in runs if run.seconds and run.new is not None]
    return known[-1].new / known[-1].seconds if known and known[-1].new and known[-1].seconds else None


def _next(status: Status) -> str | None:
    name = status.job
    if status.status == "running":
        return f"batchkit stop {name}"
    if status.status == "completed":
        return f"batchkit failures {name}" if status.failed else None
    return "run the same command again"


def _shards(directory: JobDirectory, manifest: Manifest, *, running: bool) -> list[ShardFacts]:
    kind = manifest.definition["source"]["kind"]
    found = []
    for shard, point in zip(manifest.plan, directory.commits(manifest), strict=True):
        at = shard.span.start if point is None else point.stop
        ended = point is not None and point.end
        share = 1.0 if ended else share_done(kind, manifest.fingerprint, [shard.span], [at])
        counts = (0, 0, 0) if point is None else (point.done, point.failed, point.skipped)
        found.append(
            ShardFacts(
                shard.number,
                *shard.span,
                at,
                share,
                *counts,
                commits=0 if point is None else point.seq,
                updated=None if point is None else point.time,
                ended=ended,
                worker=_worker(directory, shard.number) if running and not ended else None,
            )
        )
    return found


def _worker(directory: JobDirectory, shard: int) -> int | None:
    try:
        return directory.worker_of(shard)
    except DamageError:
        return None
