"""Break runs in which items fail, and rounds over the failures, at every call: results and failures each exactly once.

The series are sampled, by a seed, where they are long; the full counts are for `make soak`.
"""

from __future__ import annotations

import glob
import itertools
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import batchkit
from batchkit import files, journal
from batchkit.result import EXIT_FAILURES, EXIT_PAUSED
from tests.failing_jobs import (
    BROKEN,
    DROPPED,
    FIRST,
    ITEMS,
    PAUSED,
    PROCESS,
    SECOND,
    UNREADABLE,
    FailingJob,
    Step,
    Told,
    numbers,
)
from tests.kernels import Failing, Recording, materialize
from tests.test_faults import FAULTS, descriptors
from tests.test_soak import run_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.children import Nursery

SAMPLE = pytest.param(True, marks=pytest.mark.slow, id="sample")
EVERY = pytest.param(False, marks=pytest.mark.soak, id="every")
OUTPUTS = ["out.txt", "out.csv", "out.parquet", "out/"]
BACKGROUND = 0.000001


class Scenario(NamedTuple):
    """Steps that are run in peace, the one that is struck, and those by which the job goes on."""

    before: Sequence[Step]
    struck: Step
    after: Sequence[Step]


SCENARIOS = {
    "process": Scenario((), PROCESS, (PROCESS,)),
    "retry": Scenario((PROCESS,), FIRST, (FIRST,)),
    "retry-then-process": Scenario((PROCESS,), FIRST, (PROCESS, FIRST)),
    "retry-while-paused": Scenario((PAUSED,), FIRST, (FIRST, PROCESS)),
    "retry-while-paused-then-process": Scenario((PAUSED,), FIRST, (PROCESS, FIRST)),
    "rest-after-a-retry": Scenario((PAUSED, FIRST), PROCESS, (PROCESS,)),
    "second-retry": Scenario((PROCESS, FIRST), SECOND, (SECOND,)),
}
RETRIES = [name for name in SCENARIOS if name != "process"]


class Series:
    """A scenario of a job, to be played again and again."""

    def __init__(self, tmp_path: Path, output: str, scenario: str, **options: Any) -> None:
        """Play it undisturbed, in the orders that may come up."""
        self.before, self.struck, self.after = SCENARIOS[scenario]
        self.job = FailingJob(tmp_path / "work", output, **options)
        # A round that was not begun when the job went on is over the failures that there are then.
        self._late = self._played([*self.before, *self.after])
        self.expected = self._played([*self.before, self.struck, *self.after])
        self.job.clear()
        self.job.run_all(self.before)
        self.job.save()

    def _played(self, steps: Sequence[Step]) -> Told:
        self.job.clear()
        self.job.finish(steps)
        return self.job.told()

    def count(self) -> int:
        """Count the changing calls of the step that is struck."""
        count = self.job.count(self.struck)
        self.job.restore()
        return count

    def go_on(self) -> None:
        """Bring the job to its end after the strike and see that nothing is lost and nothing there twice."""
        self.job.look()
        late = self.after[0] is PROCESS and self.struck is not PROCESS and not self.job.began(self.struck)
        self.job.finish(self.after)
        self.job.check(self._late if late else self.expected)


def places(count: int, most: int, *, sampled: bool, seed: int = 0) -> list[int]:
    """Return the calls to strike at: all, or so many, one of each stretch, and always the last ones."""
    if not sampled or count <= most:
        return list(range(1, count + 1))
    pick = random.Random(f"{seed} {count}")
    edges = [1 + count * index // (most - 2) for index in range(most - 1)]
    return [*(pick.randrange(start, stop) for start, stop in itertools.pairwise(edges)), count - 1, count]


@pytest.fixture(autouse=True)
def _journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the limits back that a job with small journals sets."""
    monkeypatch.setattr(journal, "COMPACT_AT", journal.COMPACT_AT)
    monkeypatch.setattr(journal, "LONG", journal.LONG)


@pytest.mark.parametrize("output", ["out.txt", "out.csv", pytest.param("out.parquet", marks=pytest.mark.slow)])
def test_the_job_of_these_tests_tells_what_it_should(tmp_path: Path, output: str) -> None:
    """What all series compare with is right by itself: results in input order, failures, counts."""
    job = FailingJob(tmp_path / "work", output)
    for step, attempts in ((PROCESS, 1), (FIRST, 2), (SECOND, 3)):
        job.run(step)
        told = job.told()
        good, failed = numbers(BROKEN[step.what]), sorted({UNREADABLE, *BROKEN[step.what]})
        assert [failure[3] for failure in told.failures] == failed
        assert {failure[6] for failure in told.failures} == {attempts}
        assert told.counts == ("completed", ITEMS - len(DROPPED) - len(failed), len(failed), len(DROPPED))
        if output == "out.txt":
            assert told.results.decode().split("\n") == [
                *(f"{n} {word}" for n in good for word in ("begun", "done")),
                "",
            ]
        elif output == "out.csv":
            assert told.results.decode().split("\n") == [
                "number,text,late",
                *(f'{n},"é,""{n}""",{"" if n < 7 else 1}' for n in good),
                "",
            ]
        else:
            assert [row["number"] for row in told.results] == good


# Kills


def kill_series(series: Series, nursery: Nursery, at: Sequence[int], *, torn: bool) -> int:
    """Kill the step that is struck at these calls; return how often it was killed."""
    kills = 0
    for place in at:
        series.job.restore()
        if not series.job.killed(nursery, series.struck, place, torn=torn):
            continue  # in the background, two syncs may become one
        series.go_on()
        kills += 1
    return kills


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("interval", [0, BACKGROUND, None])
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_kill_at_any_call_of_a_run_with_failures_loses_and_doubles_nothing(
    tmp_path: Path, nursery: Nursery, output: str, interval: float | None, sampled: bool
) -> None:
    """Killed before it or in the middle of a write, the next run gives the same output and the same failures."""
    series = Series(tmp_path, output, "process", small_journals=True, sync_interval=interval)
    count = series.count()
    for torn in (False, True):
        at = places(count, 4, sampled=sampled, seed=torn)
        assert kill_series(series, nursery, at, torn=torn) >= len(at) - 8


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("scenario", RETRIES)
@pytest.mark.parametrize(
    ("output", "interval", "torn"),
    [("out.txt", 0, True), ("out.csv", None, False), ("out.parquet", BACKGROUND, True), ("out/", 0, False)],
)
def test_a_kill_at_any_call_of_a_retry_loses_and_doubles_nothing(
    tmp_path: Path, nursery: Nursery, output: str, interval: float | None, torn: bool, scenario: str, sampled: bool
) -> None:
    """In its round or while that is merged: going on gives each result in its place, and the failures that are left."""
    series = Series(tmp_path, output, scenario, small_journals=True, sync_interval=interval)
    at = places(series.count(), 8, sampled=sampled)
    assert kill_series(series, nursery, at, torn=torn) >= len(at) - 8


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
def test_a_kill_during_the_resume_after_a_kill_loses_and_doubles_nothing(
    tmp_path: Path, nursery: Nursery, output: str, scenario: str, sampled: bool
) -> None:
    """Going on is itself killed, at another call."""
    series = Series(tmp_path, output, scenario, small_journals=True, sync_interval=None)
    count = series.count()
    job, pick = series.job, random.Random(f"{output} {scenario}")
    kills = 0
    for _ in range(5 if sampled else 150):
        first, second = pick.randint(1, count), pick.randint(1, pick.choice((15, 100)))
        job.restore()
        assert job.killed(nursery, series.struck, first, torn=True)
        if not job.ended(series.after[0]):
            kills += job.killed(nursery, series.after[0], second, torn=bool(second % 2))
        series.go_on()
    assert kills > (0 if sampled else 30)


# Power cuts


def cut_series(series: Series, first: Sequence[int], then: Sequence[int | None] = ()) -> int:
    """Cut the power at these calls of the step that is struck; return how many disk states that left.

    then: instead, the process is killed there, and the power cut at one of these calls of going on; `None`: after it.
    """
    job, states = series.job, 0
    for place in first:
        for later in then or [None]:
            job.restore()
            kernel = Recording(job.directory)
            kernel.adopt()
            if not job.cut(kernel, series.struck, place):
                continue
            if then:
                step = series.after[0]
                job.cut(kernel, PROCESS if job.ended(step) else step, later)
            for what, state in kernel.distinct_states(seed=place):
                materialize(job.directory, state)
                try:
                    series.go_on()
                except Exception as error:
                    raise AssertionError(f"struck at call {place}, then {later}, {what}: {error}") from error
                states += 1
    return states


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(("output", "interval"), [("out.csv", None), ("out.parquet", 0), ("out.txt", BACKGROUND)])
def test_every_disk_state_after_a_power_cut_gives_the_exact_output_and_failures(
    tmp_path: Path, output: str, interval: float | None, scenario: str, sampled: bool
) -> None:
    """Unsynced writes lost, torn or in zeros, unsynced names lost: results and failures go on as one."""
    series = Series(tmp_path, output, scenario, small_journals=True, sync_interval=interval)
    at = places(series.count(), 5, sampled=sampled)
    assert cut_series(series, at) > len(at)


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
def test_a_power_cut_after_a_kill_gives_the_exact_output_and_failures(
    tmp_path: Path, output: str, scenario: str, sampled: bool
) -> None:
    """What the next run finds, of rounds too, may be only in the page cache: it builds on what the disk has."""
    series = Series(tmp_path, output, scenario, sync_interval=None)
    count = series.count()
    at = places(count, 3, sampled=True) if sampled else list(range(1, count + 1, 7))
    assert cut_series(series, at, [4, 19] if sampled else [2, 5, 9, 14, 20, 31, 44, None]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["retry", "retry-while-paused"])
def test_the_end_of_a_round_is_on_the_disk_before_anything_is_built_on_it(tmp_path: Path, scenario: str) -> None:
    """Killed right after the round's last commit; the next run merges it, or begins another; then the power goes."""
    series = Series(tmp_path, "out.csv", scenario, sync_interval=None)
    count = series.count()
    assert cut_series(series, range(count // 2, count), [None]) > 0


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
def test_no_power_cut_takes_a_job_back_behind_failures_that_a_round_worked_through(
    tmp_path: Path, output: str, sampled: bool
) -> None:
    """A job is killed with nothing synced, its failures are retried, the power goes: no item is done twice."""
    job = FailingJob(tmp_path / "work", output, sync_interval=None)
    job.run_all([PROCESS, FIRST, SECOND])
    expected = job.told()
    job.clear()
    count = job.count(PROCESS)
    states = 0
    for place in range(count // 3, count, 17 if sampled else 1):
        for later in [60] if sampled else [20, 35, 50, 65, 80, 95, None]:
            job.clear()
            kernel = Recording(job.directory)
            assert job.cut(kernel, PROCESS, place)
            job.cut(kernel, FIRST, later)
            for what, state in kernel.distinct_states(seed=place):
                materialize(job.directory, state)
                try:
                    job.run_all([FIRST, PROCESS, SECOND, SECOND])
                    told = job.told()
                    assert (told.results, told.counts) == (expected.results, expected.counts)
                    # Not the attempts: how often an item was tried depends on when it came to be a failure.
                    assert [each[:5] for each in told.failures] == [each[:5] for each in expected.failures]
                except Exception as error:
                    raise AssertionError(f"killed at call {place}, cut at {later}, {what}: {error}") from error
                states += 1
    assert states > 10


# Disk faults


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("output", ["out.csv", pytest.param("out.parquet", marks=pytest.mark.soak)])
def test_a_fault_at_any_call_is_one_clear_error_and_going_on_is_exact(
    tmp_path: Path, output: str, scenario: str, lasting: bool, sampled: bool
) -> None:
    """Of the disk, never of an item: no failure is kept for it, and nothing is lost or doubled by what comes next."""
    series = Series(tmp_path, output, scenario, small_journals=True, sync_interval=0)
    job, opened = series.job, None
    for names, error in FAULTS:
        count = job.count(series.struck, names)
        opened = opened or descriptors()
        for place in places(count, 3, sampled=sampled, seed=error):
            job.restore()
            failure = job.refused(series.struck, Failing(names, place, error, lasting=lasting))
            at = f"{names} {os.strerror(error)} at call {place}"
            needed = lasting or names[0] in {"write", "fsync"}  # else it may be a call that nothing depends on
            assert failure is not None or not needed, f"{at}: unnoticed"
            if failure is not None:
                assert failure.exit_code == 1, f"{at}: {failure!r}"
                assert os.strerror(error) in str(failure), at
                assert "\n" not in str(failure)
            try:
                series.go_on()
            except Exception as what:
                raise AssertionError(f"{at}: {what}") from what
        job.restore()
    assert descriptors() == opened


# Kills at random moments


class Random:
    """Jobs of the command line that are run and retried in turn and killed at random moments.

    isolated: whether the function has a process of its own, which bad items then kill.
    """

    def __init__(self, directory: Path, seed: str, *, items: int, grown: int, isolated: bool = False) -> None:
        """Write the functions."""
        self.kills = self.jobs = 0
        self._directory = directory
        self._pick = random.Random(seed)
        self._items = items
        self._grown = grown
        self._isolated = isolated
        self._total = 0
        # Every process of a job has this in its environment, however it was started.
        self._mark = {"BATCHKIT_TEST_MARK": f"{os.getpid()}-{directory}"}
        (directory / "work.py").write_text(WORK.format(fail=DIE if isolated else RAISE))

    def play(self, kills: int, each: int, seconds: float) -> None:
        """Kill runs until there were so many kills, at most `each` of a job, after at most so many seconds."""
        while self.kills < kills:
            files.remove_tree(str(self._directory / ".batchkit"))
            (self._directory / "items.txt").write_text("")
            files.remove(str(self._directory / "out.txt"))
            self._total = 0
            self._grow(self._items)
            until = min(kills, self.kills + each)
            while self.kills < until:
                self._strike(self._pick.uniform(0.15, seconds))
            self._bring_to_its_end()
            self.jobs += 1

    def _grow(self, items: int) -> None:
        with (self._directory / "items.txt").open("a") as file:
            file.write("".join(f"{number}\n" for number in range(self._total, self._total + items)))
        self._total += items

    def _process(self, seconds: float | None) -> int | None:
        size, interval = self._pick.choice(["3", "10", "100"]), self._pick.choice(["0", "0.05", "never"])
        words = ["process", "items.txt", "-f", "work.py:work", "-o", "out.txt", "--on-error", "skip", "--job", "job"]
        words += ["--isolate-process"] if self._isolated else []
        return run_for(self._directory, [*words, "-b", size, "--sync-interval", interval], seconds, self._mark)

    def _retry(self, seconds: float | None) -> int | None:
        interval = self._pick.choice(["0", "0.05", "never"])
        words = ["retry", "job", "-f", "work.py:mended", "--sync-interval", interval]
        return run_for(self._directory, words, seconds, self._mark)

    def _strike(self, seconds: float) -> None:
        if self._pick.random() < 0.1:
            self._grow(self._grown)
        ready = (self._directory / ".batchkit/job/job.json").exists()
        code = (self._retry if ready and self._pick.random() < 0.5 else self._process)(seconds)
        assert code in {None, 0, EXIT_FAILURES, EXIT_PAUSED}, "75: a retry that was not killed, of a job with work left"
        self.kills += code is None

    def _bring_to_its_end(self) -> None:
        for run in (self._process, self._retry, self._retry):  # a retry that was killed is gone on with first
            assert run(None) in {0, EXIT_FAILURES}
        bad = [number for number in range(self._total) if number % 40 == 7]
        good = [number for number in range(self._total) if number % 40 != 7]
        assert (self._directory / "out.txt").read_text() == "".join(f"{number}\n" for number in good)
        job = batchkit.Job("job", self._directory / ".batchkit")
        failures = list(job.failures())
        assert [int(failure.item) for failure in failures] == bad
        assert len({(failure.shard, failure.number) for failure in failures}) == len(bad)
        assert {failure.error for failure in failures} == {"WorkerDied" if self._isolated else "ValueError"}
        status = job.status()
        assert (status.status, status.done, status.failed) == ("completed", len(good), len(bad))
        assert not (self._directory / "out.txt.parts").exists()
        assert not self._left()

    def _left(self) -> list[str]:
        """Return the processes of the job that live on; they have some seconds to end."""
        mark = "=".join(*self._mark.items()).encode()
        deadline = time.monotonic() + 10
        while True:
            left = [path for path in glob.glob("/proc/[0-9]*/environ") if mark in _environment(path)]
            if not left or time.monotonic() > deadline:
                return left


def _environment(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:  # it ended, or is another user's
        return b""


WORK = """
import os, signal

def work(line):
    if int(line) % 20 == 7:
        {fail}
    return line

def mended(line):
    if int(line) % 40 == 7:
        {fail}
    return line
"""
RAISE, DIE = "raise ValueError(line)", "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.slow
def test_six_random_kills_of_runs_and_retries_lose_and_double_nothing(tmp_path: Path) -> None:
    """A seeded sample of the series below."""
    series = Random(tmp_path, "sample", items=3_000, grown=500)
    series.play(kills=6, each=6, seconds=0.6)


@pytest.mark.soak
def test_two_hundred_random_kills_of_runs_and_retries_lose_and_double_nothing(tmp_path: Path) -> None:
    """Runs and retries by turns, over an input that grows, from small batches to large ones."""
    begun = time.monotonic()
    series = Random(tmp_path, "soak", items=10_000, grown=2_000)
    series.play(kills=200, each=12, seconds=0.9)
    sys.stdout.write(f"{series.kills} kills over {series.jobs} jobs in {time.monotonic() - begun:.0f} s\n")


@pytest.mark.slow
def test_killed_runs_of_items_that_kill_their_own_process_leave_no_orphans(tmp_path: Path) -> None:
    """A seeded sample of the series below."""
    Random(tmp_path, "isolated", items=60, grown=20, isolated=True).play(kills=4, each=4, seconds=1.5)


@pytest.mark.soak
def test_forty_killed_runs_of_items_that_kill_their_own_process_leave_no_orphans(tmp_path: Path) -> None:
    """The deadly items are failures, each once, whoever else died on the way."""
    series = Random(tmp_path, "isolated soak", items=200, grown=40, isolated=True)
    series.play(kills=40, each=8, seconds=3.0)
