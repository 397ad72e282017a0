"""Kill a real process at every boundary between system calls: nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from batchkit import files, journal
from tests.children import in_child
from tests.kernels import CHANGING, Hooked, Killing, installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINES = [f"item {number}" for number in range(7)]


def numbered(line: str) -> dict[str, str]:
    """Return a row that shows its item."""
    return {"item": line, "number": line.split()[1]}


def doubled(line: str) -> Iterator[str]:
    """Yield two results per item."""
    yield line
    yield line.upper()


class Job:
    """A small job that a test runs again and again."""

    def __init__(self, directory: Path, output: str, **options: Any) -> None:
        self.directory = directory
        self.output = directory / output
        self.options = options
        self.source = directory.parent / "items.txt"
        self.source.write_text("".join(line + "\n" for line in LINES))

    def clear(self) -> None:
        """Begin with an empty directory and the first items."""
        files.remove_tree(str(self.directory))
        self.directory.mkdir()
        self.source.write_text("".join(line + "\n" for line in LINES))

    def grow(self) -> None:
        """Append items to the input."""
        with self.source.open("a") as file:
            file.write("item 7\nitem 8\nitem 9\n")

    def run(self, **more: Any) -> batchkit.Result:
        """Run the job, or go on with it."""
        function = numbered if self.output.suffix in {".csv", ".jsonl"} else doubled
        options = {"batch_size": 2, "progress": "none", **self.options, **more}
        state = self.directory / "state"
        return batchkit.process(str(self.source), function, output=self.output, state_dir=state, **options)

    def boundaries(self, **more: Any) -> int:
        """Count the changing calls of a run."""
        with installed(Hooked(CHANGING)) as kernel:
            self.run(**more)
        count: int = kernel.count
        return count

    def killed(self, at: int, *, torn: bool = False, **more: Any) -> bool:
        """Run in a process that is killed before its call `at`; return whether it was."""

        def run() -> None:
            with installed(Killing(at, torn=torn)):
                self.run(**more)

        code = in_child(run)
        assert code in {0, -signal.SIGKILL}
        return code == -signal.SIGKILL

    def check(self, expected: bytes, items: int) -> None:
        """See that the job is whole and left nothing lying about."""
        assert self.output.read_bytes() == expected
        left = {path.name for path in self.directory.rglob("*") if path.is_file()}
        shards = {f"{number:05}.{kind}" for number in (0, 1) for kind in ("jsonl", "lock")}
        known = {self.output.name, "job.json", "plan.json", "lock", "publish.jsonl", "runs.jsonl", *shards}
        assert {name for name in left if ".history-" not in name} <= known
        [found] = batchkit.jobs(self.directory / "state")
        assert (found.status().status, found.status().done) == ("completed", items)


@pytest.fixture
def small_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew journals after every other commit."""
    monkeypatch.setattr(journal, "COMPACT_AT", 500)
    monkeypatch.setattr(journal, "LONG", 300)


@pytest.mark.slow
@pytest.mark.usefixtures("small_journals")
@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("interval", [0, 0.000001, None])
@pytest.mark.parametrize("output", ["out.txt", "out.csv"])
def test_a_kill_at_any_boundary_costs_nothing_and_repeats_nothing(
    tmp_path: Path, output: str, interval: int | None, torn: bool
) -> None:
    """Every changing call of the job, counted, not sampled: killed there, the next run gives the whole output."""
    directory = tmp_path / "work"
    directory.mkdir()
    job = Job(directory, output, sync_interval=interval)
    boundaries = job.boundaries()
    expected = job.output.read_bytes()
    assert boundaries > 40
    at = 1
    while True:
        job.clear()
        if not job.killed(at, torn=torn):
            break
        job.run()
        job.check(expected, len(LINES))
        at += 1
    # In the background, two syncs may become one: then the count is not the same in every run.
    assert at - 1 == boundaries if interval != 0.000001 else abs(at - 1 - boundaries) < 8


@pytest.mark.usefixtures("small_journals")
@pytest.mark.parametrize(
    "step",
    [pytest.param(4, marks=pytest.mark.slow, id="sample"), pytest.param(1, marks=pytest.mark.soak, id="every")],
)
def test_a_kill_during_the_resume_after_a_kill_costs_nothing(tmp_path: Path, step: int) -> None:
    """A resume is itself killed at every boundary, or some, after first kills spread over the whole job."""
    directory = tmp_path / "work"
    directory.mkdir()
    job = Job(directory, "out.csv", sync_interval=0)
    boundaries = job.boundaries()
    expected = job.output.read_bytes()
    for number, first in enumerate(range(3, boundaries, 7)):
        second = 1 + number % step
        while True:
            job.clear()
            job.killed(first)
            if not job.killed(second):
                break
            job.run()
            job.check(expected, len(LINES))
            second += step
        assert second > 3


@pytest.mark.slow
@pytest.mark.usefixtures("small_journals")
@pytest.mark.parametrize("output", ["out.txt", "out.csv"])
def test_a_kill_while_appended_items_are_added_costs_nothing(tmp_path: Path, output: str) -> None:
    """The published output is the old one, whole, or the new one, whole, at every boundary of the second run."""
    directory = tmp_path / "work"
    directory.mkdir()
    job = Job(directory, output, sync_interval=0)
    job.run()
    before = job.output.read_bytes()
    job.grow()
    boundaries = job.boundaries()
    expected = job.output.read_bytes()
    assert expected.startswith(before)
    assert len(expected) > len(before)
    for at in range(1, boundaries + 1):
        job.clear()
        job.run()
        job.grow()
        assert job.killed(at)
        assert job.output.read_bytes() in {before, expected}
        job.run()
        job.check(expected, len(LINES) + 3)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["out.txt", "out.csv"])
def test_a_kill_and_then_an_input_that_grew_give_the_whole_output(tmp_path: Path, output: str) -> None:
    """Killed at every boundary, also between joining and publishing; then more items come; then the next run."""
    directory = tmp_path / "work"
    directory.mkdir()
    job = Job(directory, output, sync_interval=0)
    boundaries = job.boundaries()
    job.grow()
    job.run()
    expected = job.output.read_bytes()
    for at in range(1, boundaries + 1):
        job.clear()
        assert job.killed(at)
        job.grow()
        job.run()
        job.check(expected, len(LINES) + 3)


@pytest.mark.disk
@pytest.mark.slow
def test_a_kill_while_a_job_starts_over_leaves_the_old_output_or_the_new_one(tmp_path: Path) -> None:
    """Until the new output replaces it, readers see the old file; starting over again always works."""
    directory = tmp_path / "work"
    directory.mkdir()
    job = Job(directory, "out.jsonl", sync_interval=0)
    job.run()
    expected = job.output.read_bytes()
    boundaries = job.boundaries(restart=True)
    for at in range(1, boundaries + 1):
        job.clear()
        job.run()
        assert job.killed(at, restart=True)
        assert job.output.read_bytes() == expected
        job.run()
        job.check(expected, len(LINES))


@pytest.mark.usefixtures("small_journals")
@pytest.mark.parametrize("interval", [0, 1, None])
def test_a_renewed_journal_keeps_the_place(tmp_path: Path, interval: int | None) -> None:
    """What a run committed is not done again, however often its journal was renewed on the way or at the stop."""
    source = tmp_path / "items.txt"
    source.write_text("".join(f"{number}\n" for number in range(100)))
    options: dict[str, Any] = {"state_dir": tmp_path / "state", "output": tmp_path / "out.txt", "batch_size": 3}
    for already in range(0, 100, 20):
        result = batchkit.process(source, None, max_items=20, sync_interval=interval, progress="none", **options)
        assert (result.new, result.done) == (20, already + 20)
    assert (tmp_path / "out.txt").read_bytes() == source.read_bytes()


@pytest.mark.disk
def test_a_killed_run_repeats_only_the_batch_in_flight(tmp_path: Path) -> None:
    """The function's side effects: at least once, and twice only for the batch that was not committed."""
    directory = tmp_path / "work"
    directory.mkdir()
    job = Job(directory, "out.txt")
    calls = tmp_path / "calls"

    def noted(line: str) -> str:
        with calls.open("a") as file:
            file.write(line + "\n")
        if line == "item 5" and calls.read_text().count("item 5") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return line

    def run() -> None:
        batchkit.process(
            str(job.source), noted, output=job.output, state_dir=directory / "s", batch_size=2, progress="none"
        )

    assert in_child(run) == -signal.SIGKILL
    run()
    assert calls.read_text().split("\n")[:-1] == [*LINES[:6], *LINES[4:]]
    assert job.output.read_text().split("\n")[:-1] == LINES
