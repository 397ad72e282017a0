"""Kill runs of several workers: the parent, workers, both, at random moments and at every step of dividing a shard."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import batchkit
from batchkit import files, plan
from batchkit.result import EXIT_FAILURES, EXIT_PAUSED
from tests.children import in_child
from tests.kernels import Hooked, Killing, installed
from tests.test_failure_crashes import _environment, places
from tests.test_workers import children_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OUTPUTS = ["out.txt", "out.jsonl.gz", "out.parquet", "out/"]
WORKERS = (1, 4, 2, 3)
BAD = 40
"""One item of so many fails; when it is tried again, one of twice as many does."""

WORK = """
import time

def work(line):
    time.sleep(0.0003)
    if int(line) % {bad} == 7:
        raise ValueError(line)
    return {result}

def mended(line):
    if int(line) % {again} == 7:
        raise ValueError(line)
    return {result}
"""


class Series:
    """Jobs of the command line with failures and a growing input, run with another number of workers each time."""

    def __init__(self, directory: Path, output: str, seed: str, items: int) -> None:
        """Write the functions."""
        self.kills = self.jobs = self.counted = 0
        self._directory = directory
        self._output = output
        self._pick = random.Random(seed)
        self._items = items
        self._total = 0
        self._mark = {"BATCHKIT_TEST_MARK": f"{os.getpid()}-{directory}"}  # in all that a run starts
        result = "line" if output == "out.txt" else "{'n': int(line), 'text': line * 2}"
        (directory / "work.py").write_text(WORK.format(bad=BAD, again=2 * BAD, result=result))

    def play(self, kills: int, each: int, seconds: float) -> None:
        """Kill until there were so many kills, about `each` of a job, each after at most so many seconds."""
        while self.kills < kills:
            self._clear()
            self._grow(self._items)
            until = min(kills, self.kills + each)
            for workers in itertools.cycle(WORKERS):
                if self._pick.random() < 0.15:
                    self._grow(self._items // 5)
                if self._pick.random() < 0.2:
                    self._budgeted(workers, seconds)
                else:
                    self._strike(workers, seconds)
                if self.kills >= until:
                    break
            self._bring_to_its_end()
            self.jobs += 1

    def _clear(self) -> None:
        shutil.rmtree(self._directory / ".batchkit", ignore_errors=True)
        for name in (self._output.rstrip("/"), f"{self._output.rstrip('/')}.parts"):
            path = self._directory / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (self._directory / "items.txt").write_text("")
        self._total = 0

    def _grow(self, items: int) -> None:
        with (self._directory / "items.txt").open("a") as file:
            file.write("".join(f"{number}\n" for number in range(self._total, self._total + items)))
        self._total += items

    def _start(self, workers: int, *more: str) -> subprocess.Popen[bytes]:
        size, interval = self._pick.choice(["3", "10", "100"]), self._pick.choice(["0", "0.05", "never"])
        words = ["process", "items.txt", "-f", "work.py:work", "-o", self._output, "--on-error", "skip", "--job", "job"]
        words += ["-q", "-w", str(workers), "-b", size, "--sync-interval", interval, *more]
        words += ["--schema", "n=int, text=str"] if self._output in {"out.parquet", "out/"} else []
        command = [sys.executable, "-m", "batchkit", *words]
        return subprocess.Popen(command, cwd=self._directory, env={**os.environ, **self._mark})

    def _strike(self, workers: int, seconds: float) -> None:
        """Kill the parent, or workers and then the parent, or all at once, if the run does not end before."""
        process = self._start(workers)
        victims = self._pick.choice(["parent", "workers", "both"])
        while process.returncode is None:
            try:
                process.wait(timeout=self._pick.uniform(0.2, seconds))
            except subprocess.TimeoutExpired:
                found = children_of(process.pid)
                if victims == "workers" and found:
                    kill(self._pick.choice(found))
                    self.kills += 1
                    victims = self._pick.choice(["parent", "workers"])
                    continue
                for pid in [process.pid, *(found if victims == "both" else ())]:
                    kill(pid)
                process.wait()
                self.kills += 1
        assert process.returncode in {0, EXIT_FAILURES, -signal.SIGKILL}
        assert not self._left(), "nothing lives on"

    def _budgeted(self, workers: int, seconds: float) -> None:
        """Kill workers of a run of so many items: it does so many exactly."""
        before = self._handled()
        most = self._pick.randint(1, 800)
        process = self._start(workers, "--max-items", str(most))
        for _ in range(4):  # the fifth in a row that had not begun would end the run
            try:
                process.wait(timeout=self._pick.uniform(0.2, seconds))
                break
            except subprocess.TimeoutExpired:
                found = children_of(process.pid)
                if found and workers > 1:
                    kill(self._pick.choice(found))
                    self.kills += 1
        code = process.wait(timeout=60)
        assert code in {0, EXIT_FAILURES, EXIT_PAUSED}
        assert self._handled() - before == min(most, self._total - before)
        self.counted += 1

    def _handled(self) -> int:
        if not (self._directory / ".batchkit/job/job.json").exists():
            return 0
        status = batchkit.Job("job", self._directory / ".batchkit").status()
        return status.done + status.failed + status.skipped

    def _left(self) -> list[str]:
        mark = "=".join(*self._mark.items()).encode()
        deadline = time.monotonic() + 10
        while True:
            left = [
                pid for pid in os.listdir("/proc") if pid.isdigit() and mark in _environment(f"/proc/{pid}/environ")
            ]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.02)

    def _bring_to_its_end(self) -> None:
        assert self._start(4).wait(timeout=300) == EXIT_FAILURES
        job = batchkit.Job("job", self._directory / ".batchkit")
        bad = [n for n in range(self._total) if n % BAD == 7]
        self._check(job, bad)
        command = [sys.executable, "-m", "batchkit", "retry", "job", "-f", "work.py:mended", "-q"]
        assert subprocess.run(command, cwd=self._directory, check=False).returncode == EXIT_FAILURES
        self._check(job, [n for n in bad if n % (2 * BAD) == 7])
        left = [path.name for path in (self._directory / ".batchkit/job/shards").iterdir()]
        assert not [name for name in left if name.endswith((".wanted", ".deadly", ".new", ".broken"))]

    def _check(self, job: batchkit.Job, bad: Sequence[int]) -> None:
        failures = list(job.failures())
        assert [int(failure.item) for failure in failures] == bad
        assert len({(failure.shard, failure.number) for failure in failures}) == len(bad)
        status = job.status()
        assert (status.status, status.done, status.failed) == ("completed", self._total - len(bad), len(bad))
        failed = set(bad)
        good = [n for n in range(self._total) if n not in failed]
        assert self._results() == good

    def _results(self) -> list[int]:
        path = self._directory / self._output
        if self._output == "out.txt":
            return [int(line) for line in path.read_text().split()]
        if self._output == "out.jsonl.gz":
            with gzip.open(path, "rt") as file:
                rows = [json.loads(line) for line in file]
        elif self._output == "out.parquet":
            rows = pl.read_parquet(path).to_dicts()
        else:
            rows = [row for part in sorted(path.iterdir()) for row in pl.read_parquet(part).to_dicts()]
        assert all(row["text"] == 2 * str(row["n"]) for row in rows)
        return [row["n"] for row in rows]


def kill(pid: int) -> None:
    """Kill a process, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.disk
@pytest.mark.slow
@pytest.mark.parametrize("output", OUTPUTS)
def test_ten_random_kills_of_runs_with_several_workers_cost_nothing(tmp_path: Path, output: str) -> None:
    """A seeded sample of the series below."""
    series = Series(tmp_path, output, f"sample {output}", items=4_000)
    series.play(kills=10, each=10, seconds=0.9)


@pytest.mark.soak
@pytest.mark.parametrize("output", OUTPUTS)
def test_two_hundred_random_kills_of_runs_with_several_workers_cost_nothing(tmp_path: Path, output: str) -> None:
    """Whatever the moment, the number of workers and who dies: nothing lost, nothing twice, everything in order."""
    begun = time.monotonic()
    series = Series(tmp_path, output, f"soak {output}", items=8_000)
    series.play(kills=200, each=15, seconds=1.2)
    assert series.counted > 5
    sys.stdout.write(
        f"{series.kills} kills over {series.jobs} jobs, {series.counted} budgets, in {time.monotonic() - begun:.0f} s\n"
    )


# At every call while a shard is divided

SAMPLE = pytest.param(True, marks=pytest.mark.slow, id="sample")
EVERY = pytest.param(False, marks=pytest.mark.soak, id="every")
ITEMS = 60

STRIKING = """
import glob, os, signal, time

import batchkit.sharing
from tests.kernels import Killing, installed

give = batchkit.sharing.Sharing.give

def struck(self, point):
    try:
        os.rename("strike", f"struck{{os.getpid()}}")
    except FileNotFoundError:
        return give(self, point)
    with open(f"struck{{os.getpid()}}") as file:
        at, who = file.read().split()
    with installed(Killing(int(at), torn=int(at) % 2 == 1)) as kernel:
        if who == "both":
            kernel.around = parent_first(kernel.around, int(at))
        try:
            return give(self, point)
        finally:
            with open("count", "w") as file:
                file.write(str(kernel.count))

def parent_first(around, at):
    def both(number, *rest, **extra):
        if number == at:
            os.kill(os.getppid(), signal.SIGKILL)
        return around(number, *rest, **extra)
    return both

batchkit.sharing.Sharing.give = struck

def work(line):
    if line == "2":
        for _ in range(1000):
            if glob.glob(".batchkit/job/shards/00000.wanted") or not os.path.exists("strike"):
                break
            time.sleep(0.005)
        time.sleep(0.25)
    if int(line) % 10 == 7:
        raise ValueError(line)
    return line
"""


def divided(directory: Path, at: int, who: str) -> int | None:
    """Run a job in which a shard is divided, and kill who divides it before this call of it; return its exit code."""
    for name in ("strike", "count"):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / ".batchkit", ignore_errors=True)
    shutil.rmtree(directory / "out.txt.parts", ignore_errors=True)
    (directory / "out.txt").unlink(missing_ok=True)
    (directory / "strike").write_text(f"{at} {who}")
    return process(directory, 2)


def process(directory: Path, workers: int) -> int:
    """Run the job."""
    words = ["process", "items.txt", "-f", "work.py:work", "-o", "out.txt", "--job", "job", "--on-error", "skip", "-q"]
    command = [sys.executable, "-m", "batchkit", *words, "-w", str(workers), "-b", "4"]
    return subprocess.run(command, cwd=directory, check=False, timeout=120).returncode


def check(directory: Path) -> None:
    """See that all results and failures are there once, in input order."""
    assert (directory / "out.txt").read_text().split() == [str(n) for n in range(ITEMS) if n % 10 != 7]
    failures = batchkit.Job("job", directory / ".batchkit").failures()
    assert [int(each.item) for each in failures] == [n for n in range(ITEMS) if n % 10 == 7]


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("who", ["worker", "both"])
def test_a_kill_at_any_call_of_dividing_a_live_shard_costs_nothing(tmp_path: Path, who: str, *, sampled: bool) -> None:
    """Whoever takes the shard then finds all of it, or what was kept of it, and the rest in the plan."""
    (tmp_path / "work.py").write_text(STRIKING.format())
    (tmp_path / "items.txt").write_text("".join(f"{n}\n" for n in range(ITEMS)))
    assert divided(tmp_path, 1_000_000, who) == EXIT_FAILURES
    check(tmp_path)
    count = int((tmp_path / "count").read_text())
    assert count > 10
    for at in places(count, 6, sampled=sampled):
        code = divided(tmp_path, at, who)
        assert not (tmp_path / "count").exists(), "it was killed"
        assert code == (EXIT_FAILURES if who == "worker" else -signal.SIGKILL)
        if who == "both":
            assert process(tmp_path, (1, 4, 2, 3)[at % 4]) == EXIT_FAILURES
        check(tmp_path)


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
def test_a_kill_at_any_call_of_dividing_a_job_for_workers_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, sampled: bool
) -> None:
    """Before anybody works: the next run makes a plan of its own, over what a dead one left."""
    work, saved = tmp_path / "work", tmp_path / "saved"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "items.txt").write_text("".join(f"{n}\n" for n in range(ITEMS)))
    divide = plan.for_workers

    def run(workers: int, most: int | None = None) -> None:
        def picky(item: str) -> str:
            if int(item) % 10 == 7:
                raise ValueError(item)
            return item

        options: dict[str, Any] = {"job": "job", "output": "out.txt", "on_error": "skip", "progress": "none"}
        batchkit.process("items.txt", picky, workers=workers, batch_size=4, max_items=most, **options)

    def killed(kernel: Hooked) -> int:
        """Divide what is left among four, in a process that is killed while it does."""

        def strike(*words: Any, **options: Any) -> None:
            with installed(kernel):
                divide(*words, **options)
            (tmp_path / "count").write_text(str(kernel.count))
            os._exit(0)

        def attempt() -> None:
            plan.for_workers = strike
            run(4)

        return in_child(attempt)

    run(2, 17)
    shutil.copytree(work, saved)
    assert killed(Killing(1_000_000)) == 0
    count = int((tmp_path / "count").read_text())
    assert count > 10
    for at in places(count, 6, sampled=sampled):
        for left in work.iterdir():  # but not itself: we are in it
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        shutil.copytree(saved, work, dirs_exist_ok=True)
        assert killed(Killing(at, torn=at % 2 == 1)) == -signal.SIGKILL
        run((3, 1, 4, 2)[at % 4])
        check(work)
        assert files.size(str(work / "out.txt.parts")) is None
