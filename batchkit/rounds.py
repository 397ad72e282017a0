"""Rounds: the failures of a job, worked through again. A round is a job itself, in the directory of the one it serves.

    <job>/retries/NNNNN/items.jsonl    the failures it is to work through, as they stand in failure files; the input
    <job>/retries/NNNNN/part           the results, until they are merged into the job's output
    <job>/retries/NNNNN/job.json …     as of every job, see `job`; its failure files say what became of each item

Only the last round may be unfinished. One of an earlier start of the job (with another uuid) does not count. What
rounds have resolved is derived from their journals, as everything is.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from batchkit import failure_file, files, journal
from batchkit.errors import DamageError
from batchkit.job import JobDirectory
from batchkit.writers.base import Insert, Round
from batchkit.writers.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.job import Manifest
    from batchkit.model import Checkpoint, Shard
    from batchkit.writers.base import PublishLog

_KEPT = ("shard", "number", "nth", "at", "where", "place", "item", "attempts", "unreadable", "message")
"""What of a failure a round needs to know; the message: why an item could not be read."""


class RoundState(NamedTuple):
    """A round as its files tell it.

    points: the newest commit of each shard that is really there; none before it was begun.
    """

    directory: JobDirectory
    manifest: Manifest
    points: Sequence[Checkpoint | None]

    @property
    def ended(self) -> bool:
        """Whether nothing is left of it to do."""
        return bool(self.points) and all(point is not None and point.end for point in self.points)

    @property
    def done(self) -> int:
        """Items that did not fail again."""
        return sum(point.done for point in self.points if point is not None)

    @property
    def failed(self) -> int:
        """Items that failed again."""
        return sum(point.failed for point in self.points if point is not None)

    @property
    def skipped(self) -> int:
        """Items that were dropped on purpose."""
        return sum(point.skipped for point in self.points if point is not None)

    @property
    def held(self) -> bool:
        """Whether it ended with too many failures for the output to be written; see `hold`."""
        last = self.directory.publish_log(self.manifest.job).last()
        return last is not None and last["state"] == "held"

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield what became of its items, in order, as far as it is committed."""
        yield from entries_of(self.directory, self.manifest.plan, self.points)


def directory_of(job: JobDirectory, number: int) -> JobDirectory:
    """Return the directory of a round, by its number from 1."""
    directory = JobDirectory(os.path.join(job.path, "retries"), f"{number:05d}")
    directory.name = f"{job.name} (retry {number})"
    return directory


def _numbers(job: JobDirectory) -> list[int]:
    above = os.path.join(job.path, "retries")
    names = os.listdir(above) if os.path.isdir(above) else []
    return sorted(int(name) for name in names if name.isdigit())


def part_of(directory: JobDirectory) -> str:
    """Return the path of a round's results."""
    return os.path.join(directory.path, "part")


def items_of(directory: JobDirectory) -> str:
    """Return the path of a round's input."""
    return os.path.join(directory.path, "items.jsonl")


def entries_of(
    job: JobDirectory, plan: Sequence[Shard], points: Sequence[Checkpoint | None]
) -> Iterator[dict[str, Any]]:
    """Yield what the failure files of a job hold up to these commits of its shards, in input order."""
    for shard, point in zip(plan, points, strict=True):
        if point is not None:
            yield from failure_file.entries(failure_file.path_beside(job.shard_path(shard.number)), point.kept)


def rounds_of(job: JobDirectory, uuid: str) -> list[RoundState]:
    """Return the rounds of the job with this uuid, in order."""
    states = []
    for number in _numbers(job):
        directory = directory_of(job, number)
        manifest = directory.load()
        if manifest is not None and manifest.definition.get("round_of") == uuid:
            state = RoundState(directory, manifest, directory.commits(manifest) if manifest.ready else [])
            if not state.ended and manifest.ready:  # before its end is committed, all else is synced
                part = part_of(directory)  # results that went into a database have none
                state = state._replace(points=proved(directory, manifest, part if os.path.exists(part) else None))
            states.append(state)
    return states


def settled(job: JobDirectory, uuid: str) -> list[RoundState]:
    """Return the same to a run that builds on it: that a round ended is durable on return.

    Its end, as a killed run left it, may be only in the page cache. If a power cut took it back once its part is merged
    and removed, or once a further round is begun, the round could neither go on nor be merged.
    """
    rounds = rounds_of(job, uuid)
    for state in rounds:
        if state.ended:
            for shard in state.manifest.plan:
                files.sync_file(state.directory.shard_path(shard.number))
            files.sync_directory(os.path.dirname(state.directory.shard_path(0)))
    return rounds


def proved(job: JobDirectory, manifest: Manifest, part: str | None = None) -> list[Checkpoint | None]:
    """Return the newest commit of each shard whose failures are really there, and whose results in `part`, if given.

    A power cut may leave the records of later ones.
    """
    points = []
    for shard in manifest.plan:
        path = job.shard_path(shard.number)
        past = journal.read(path)
        kept = failure_file.FailureFile(failure_file.path_beside(path), manifest.job, shard.number)
        chosen = kept.intact(past.marks("kept"))
        if part is not None:
            chosen = min(chosen, Part(part).intact(past.marks("mark")))
        points.append(past[chosen] if chosen >= 0 else None)
    return points


def merged_by(rounds: Sequence[RoundState], plan: Sequence[Shard]) -> list[Round]:
    """Return what the ended rounds bring to the output of the job with this plan, in order."""
    places = _places(plan)
    brought = []
    for state in rounds:
        if state.ended:
            inserts = [
                Insert(places[entry["shard"]], entry["number"], entry["place"], entry["start"], entry["stop"])
                for entry in state.entries()
                if "start" in entry
            ]
            point = state.points[0]
            brought.append(Round(part_of(state.directory), None if point is None else point.mark, inserts))
    return brought


def ended(rounds: Sequence[RoundState]) -> list[RoundState]:
    """Return the rounds that are at their end: what an unfinished one has done is not in the output before that."""
    return [state for state in rounds if state.ended]


def resolved_by(rounds: Sequence[RoundState]) -> tuple[int, int]:
    """Return how many failures were done and how many skipped when they were run again."""
    return sum(state.done for state in rounds), sum(state.skipped for state in rounds)


def _places(plan: Sequence[Shard]) -> dict[int, int]:
    """Return which shard each one is in input order, by number."""
    return {shard.number: place for place, shard in enumerate(plan)}


def not_merged(rounds: Sequence[RoundState], log: PublishLog, plan: Sequence[Shard]) -> list[Round]:
    """Return what ended rounds bring that the published output does not have yet."""
    published = log.done() or {}
    return merged_by(rounds, plan)[published.get("rounds", 0) :]


def stored_beside(rounds: Sequence[RoundState], log: PublishLog, plan: Sequence[Shard]) -> list[Round]:
    """Return what is stored beside the output, so that what is stored next has the same columns and types.

    That is what `not_merged` gives, and the part of an unfinished round, which is cut here to what is committed: a run
    that goes on with the round does the same.
    """
    beside = not_merged(rounds, log, plan)
    for state in rounds:
        point = state.points[0] if state.points else None
        of_rows = point is not None and isinstance(point.mark, int)  # in a database, which knows them itself
        if not state.ended and point is not None and point.mark and not of_rows:
            part = part_of(state.directory)
            files.AppendFile(part, point.mark[0]).close()
            beside.append(Round(part, point.mark, ()))
    return beside


def still_failed(
    job: JobDirectory, plan: Sequence[Shard], points: Sequence[Checkpoint | None], rounds: Sequence[RoundState]
) -> Iterator[dict[str, Any]]:
    """Yield the failures that no round has resolved, in input order, each as the last attempt left it."""
    places = _places(plan)

    def key(entry: dict[str, Any]) -> tuple[int, int]:
        return places[entry["shard"]], entry["number"]

    later = [_Ahead(state.entries(), key) for state in rounds]
    for entry in entries_of(job, plan, points):
        newest = entry
        for each in later:
            newest = each.at(key(entry)) or newest
        if "error" in newest:
            yield newest


class _Ahead:
    """Entries in the order of their items, looked up in that order: in memory is one of them."""

    def __init__(self, entries: Iterator[dict[str, Any]], key: Callable[[dict[str, Any]], tuple[int, int]]) -> None:
        self._entries = entries
        self._key = key
        self._next = next(entries, None)

    def at(self, key: tuple[int, int]) -> dict[str, Any] | None:
        """Return the entry of an item; `None` if there is none."""
        while self._next is not None and self._key(self._next) < key:
            self._next = next(self._entries, None)
        return self._next if self._next is not None and self._key(self._next) == key else None


def unfinished_options(job: JobDirectory, uuid: str) -> dict[str, Any]:
    """Return how the unfinished round of the job with this uuid was called; nothing if there is none."""
    rounds = rounds_of(job, uuid)
    if not rounds or rounds[-1].ended:
        return {}
    return rounds[-1].manifest.options or {}


def hold(state: RoundState) -> None:
    """Note that the output was not written, since too many items failed in this round; durable on return."""
    state.directory.publish_log(state.manifest.job).write({"state": "held"})


def begin(job: JobDirectory, entries: Iterator[dict[str, Any]]) -> JobDirectory:
    """Write the input of a further round; durable on return. It counts as a round once it is begun as a job."""
    above = os.path.join(job.path, "retries")
    files.make_directory(above, 0o700)
    begun = [number for number in _numbers(job) if directory_of(job, number).load() is not None]
    directory = directory_of(job, max(begun, default=0) + 1)
    directory.make()
    path = items_of(directory)
    file = files.AppendFile(path + ".new")
    try:
        for entry in entries:
            file.append(json.dumps({name: entry[name] for name in _KEPT if name in entry}).encode() + b"\n")
        file.sync()
    finally:
        file.close()
    files.rename(path + ".new", path)
    return directory


def schema_for(job: JobDirectory, plan: Sequence[Shard], points: Sequence[Checkpoint | None]) -> str | None:
    """Return the columns of a job's failed items as their first failure file has them; `None`: they are no rows."""
    for shard, point in zip(plan, points, strict=True):
        if point is not None and point.kept is not None:
            schema: str | None = failure_file.header(failure_file.path_beside(job.shard_path(shard.number)))["schema"]
            return schema
    raise DamageError(f"the job '{job.name}' has no failures that were kept")
