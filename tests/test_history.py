"""The past of a shard, found without reading all of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from batchkit import history, journal
from batchkit.errors import DamageError
from batchkit.model import Checkpoint, Span

if TYPE_CHECKING:
    from pathlib import Path

JOB = "0" * 32


def commit(seq: int, stop: int) -> Checkpoint:
    """Return a commit that ends at `stop`."""
    return Checkpoint(seq, stop, stop, 0, 0, 7, [stop, 1, 0], 1, 1000.0 + seq, 0.5, end=False, kept=None)


def shard(directory: Path, stops: list[int], sizes: list[int]) -> str:
    """Write a shard's past: chapters of so many commits, the last of which is the journal with all that is left."""
    path = str(directory / "00000.jsonl")
    header = journal.Header(JOB, 0, Span(0, None))
    commits = [commit(seq, stop) for seq, stop in enumerate(stops, 1)]
    for size in sizes:
        now, commits = commits[:size], commits[size:]
        if now:
            name = path.replace(".jsonl", f".history-{now[0].seq}.jsonl")
            (directory / os.path.basename(name)).write_bytes(
                header.line() + b"".join(map(journal._encode_checkpoint, now))
            )
    (directory / "00000.jsonl").write_bytes(header.line() + b"".join(map(journal._encode_checkpoint, commits)))
    return path


@settings(deadline=None)
@given(
    steps=st.lists(st.integers(1, 10**9), max_size=60),
    sizes=st.lists(st.integers(1, 20), max_size=5),
    wanted=st.integers(0, 10**10),
)
def test_the_first_commit_behind_a_place_is_found(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], sizes: list[int], wanted: int
) -> None:
    """The same one as by reading all, however the past is divided."""
    stops = [sum(steps[: index + 1]) for index in range(len(steps))]
    path = shard(tmp_path_factory.mktemp("shard"), stops, sizes)
    found = history.first_where(history.chapters(path, JOB), lambda point: point.stop > wanted)
    assert (found and found.stop) == next((stop for stop in stops if stop > wanted), None)


def test_all_commits_are_there_in_order(tmp_path: Path) -> None:
    """Chapter by chapter, by whatever bytes one asks for them; what is being written is not there yet."""
    path = shard(tmp_path, list(range(1, 31)), [4, 11])
    with open(path, "ab") as file:
        file.write(journal._encode_checkpoint(commit(31, 31))[:-5])
    seen = []
    for chapter in history.chapters(path, JOB):
        middle = (chapter.begin + chapter.end) // 2
        seen += [point.seq for point in chapter.between(0, middle)]
        seen += [point.seq for point in chapter.between(middle, chapter.end)]
    assert seen == list(range(1, 31))


def test_what_is_of_an_earlier_start_is_passed_over(tmp_path: Path) -> None:
    """By the uuid in the header."""
    path = shard(tmp_path, [1, 2, 3], [2])
    assert history.chapters(path, "1" * 32) == []
    assert len(history.chapters(path, JOB)) == 2


def test_a_journal_without_a_header_is_damage(tmp_path: Path) -> None:
    """And says which."""
    (tmp_path / "00000.jsonl").write_bytes(b"nonsense\n")
    with pytest.raises(DamageError, match=r"00000.jsonl"):
        history.chapters(str(tmp_path / "00000.jsonl"), JOB)
