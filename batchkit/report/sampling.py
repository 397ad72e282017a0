"""A sample of a job's commits: all of them if they are few, else blocks spread evenly over its journals.

Counts in a commit are those since its shard's beginning, so a sample loses nothing of how far the job was when; only
single batches between two blocks are not seen.
"""

from __future__ import annotations

from typing import NamedTuple

from batchkit import history

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchkit.job import JobDirectory, Manifest
    from batchkit.model import Checkpoint

MOST = 4 << 20
"""Bytes of journals that are read, at most: some 20,000 commits."""

_BLOCK = 16 << 10


class Sample(NamedTuple):
    """Commits of a shard, in order. total: how many it has."""

    shard: int
    commits: list[Checkpoint]
    total: int


def sampled(directory: JobDirectory, manifest: Manifest) -> list[Sample]:
    """Return a sample of each shard's commits, in input order. Memory and time are bounded, however many there are."""
    paths = {shard.number: directory.shard_path(shard.number) for shard in manifest.plan} if manifest.ready else {}
    found = {number: history.chapters(path, manifest.job) for number, path in paths.items()}
    size = sum(chapter.end - chapter.begin for chapters in found.values() for chapter in chapters)
    part = min(1.0, MOST / size) if size else 1.0
    samples = []
    for number, chapters in found.items():
        commits = list(_in_order(each for chapter in chapters for each in _of_chapter(chapter, part)))
        samples.append(Sample(number, commits, commits[-1].seq if commits else 0))
    return samples


def _of_chapter(chapter: history.Chapter, part: float) -> Iterator[Checkpoint]:
    """Yield this part of a chapter's commits, its last one among them."""
    if part == 1.0:
        yield from chapter.between(0, chapter.end)
        return
    step = _BLOCK / part
    start = float(chapter.begin)
    while start < chapter.end:
        yield from chapter.between(int(start), int(start) + _BLOCK)
        start += step
    yield from chapter.between(max(chapter.begin, chapter.end - _BLOCK), chapter.end)


def _in_order(commits: Iterator[Checkpoint]) -> Iterator[Checkpoint]:
    """Yield each commit once: blocks may overlap, and a journal begins with the commit that the last one ended with."""
    last = 0
    for commit in commits:
        if commit.seq > last:
            last = commit.seq
            yield commit


def progress(samples: Sequence[Sample]) -> list[tuple[float, int, int]]:
    """Return how far the job was: time, items handled, and of them failed, after each sampled commit."""
    events = sorted((commit.time, sample.shard, commit) for sample in samples for commit in sample.commits)
    handled: dict[int, int] = {}
    failed: dict[int, int] = {}
    points = []
    for time, shard, commit in events:
        handled[shard], failed[shard] = commit.handled, commit.failed
        points.append((time, sum(handled.values()), sum(failed.values())))
    return points


def active(commits: Sequence[Checkpoint], least: float) -> list[tuple[float, float]]:
    """Return when a shard was worked on: from, to; breaks shorter than `least` seconds do not count.

    Between two blocks of a sample it was, if the time there is what the batches there take.
    """
    stretches: list[tuple[float, float]] = []
    before: Checkpoint | None = None
    for commit in commits:
        begun = commit.time - commit.seconds
        if before is not None and commit.run == before.run:
            between = commit.seq - before.seq
            if begun - before.time <= max(least, 2 * (between - 1) * max(commit.seconds, before.seconds)):
                stretches[-1] = stretches[-1][0], commit.time
                before = commit
                continue
        stretches.append((begun, commit.time))
        before = commit
    return stretches
