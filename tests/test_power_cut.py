"""Cut the power at every boundary: each disk state that may be left gives the exact output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchkit import files, journal
from tests.kernels import PowerCut, Recording, installed, materialize
from tests.test_crash import LINES, Job

if TYPE_CHECKING:
    from pathlib import Path


def cut(job: Job, kernel: Recording, at: int | None) -> bool:
    """Run until the power goes off before changing call `at`; return whether it did."""
    kernel.cut_at = at
    try:
        with installed(kernel):
            job.run()
    except PowerCut:
        return True
    return False


def check_states(job: Job, kernel: Recording, expected: bytes, seed: int, items: int = len(LINES)) -> int:
    """Resume from every state that the cut may have left; return how many there were."""
    count = 0
    for what, state in kernel.distinct_states(seed):
        materialize(job.directory, state)
        try:
            job.run()
            job.check(expected, items)
        except Exception as error:
            raise AssertionError(f"cut before call {kernel.cut_at}, {what}: {error}") from error
        count += 1
    return count


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Return a small job that renews its journal now and then."""
    monkeypatch.setattr(journal, "COMPACT_AT", 900)
    directory = tmp_path / "work"
    directory.mkdir()
    return Job(directory, "out.csv")


@pytest.mark.slow
@pytest.mark.parametrize("interval", [0, 0.000001, None])
def test_every_disk_state_after_a_power_cut_gives_the_exact_output(job: Job, interval: float | None) -> None:
    """Unsynced writes lost, torn or in zeros, unsynced names lost: the job goes on and its output is whole."""
    job.options["sync_interval"] = interval
    job.run()
    expected = job.output.read_bytes()
    states = at = 0
    while True:
        at += 1
        job.clear()
        kernel = Recording(job.directory)
        if not cut(job, kernel, at):
            break
        states += check_states(job, kernel, expected, seed=at)
    assert states > 300


@pytest.mark.slow
def test_a_power_cut_during_the_resume_after_a_kill_gives_the_exact_output(job: Job) -> None:
    """What a resume finds may be only in the page cache: cut its first steps, too."""
    job.options["sync_interval"] = None
    job.run()
    expected = job.output.read_bytes()
    states = 0
    for first in range(20, 60, 3):
        for second in range(1, 20, 2):
            job.clear()
            kernel = Recording(job.directory)
            if not cut(job, kernel, first):
                break
            kernel.cut_at = None
            kernel.changes = 0
            if cut(job, kernel, second):
                states += check_states(job, kernel, expected, seed=100 * first + second)
    assert states > 500


@pytest.mark.slow
def test_a_power_cut_after_a_killed_publication_was_completed_gives_the_exact_output(job: Job) -> None:
    """The killed run's rename may be only in the page cache, and the next run finds it done."""
    job.options["sync_interval"] = 0
    job.output = job.directory / "results" / "out.csv"  # a directory that nothing else has reason to sync
    job.output.parent.mkdir()
    boundaries = job.boundaries()
    expected = job.output.read_bytes()
    for first in range(boundaries - 20, boundaries):
        job.clear()
        job.output.parent.mkdir()
        kernel = Recording(job.directory)
        kernel.adopt()
        assert cut(job, kernel, first)
        assert not cut(job, kernel, None)
        kernel.cut_at = first
        check_states(job, kernel, expected, seed=first)


@pytest.mark.slow
def test_a_power_cut_while_appended_items_are_added_gives_the_exact_output(job: Job) -> None:
    """The published output, its copy with the new part behind it, and the rename that replaces the one by the other."""
    job.options["sync_interval"] = 0
    job.run()
    job.grow()
    job.run()
    expected = job.output.read_bytes()
    states = at = 0
    while True:
        at += 1
        job.clear()
        kernel = Recording(job.directory)
        assert not cut(job, kernel, None)
        kernel.settle()
        kernel.changes = 0
        job.grow()
        if not cut(job, kernel, at):
            break
        states += check_states(job, kernel, expected, seed=at, items=len(LINES) + 3)
    assert states > 300


def test_the_model_of_a_power_cut_loses_what_was_not_synced(tmp_path: Path) -> None:
    """The test's own instrument: without syncs, states differ; after syncs, all are the same."""
    directory = tmp_path / "work"
    directory.mkdir()
    path = str(directory / "file")
    with installed(Recording(directory)) as kernel:
        file = files.AppendFile(path)
        file.append(b"0123456789")
        before = [(state.get(path) or (None,))[0] for _, state in kernel.states(seed=1)]
        file.sync()
        files.sync_directory(str(directory))
        after = [(state.get(path) or (None,))[0] for _, state in kernel.states(seed=1)]
        file.close()
    assert {b"0123456789", b"", None, bytes(10), b"01234"} <= set(before)
    assert set(after) == {b"0123456789"}
