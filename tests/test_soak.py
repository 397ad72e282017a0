"""The long kill series: a larger job, killed at random moments, again and again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import polars as pl
import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LINES = 300_000
ROWS = 1_000_000


def kill_series(directory: Path, kills: int, seed: int) -> int:
    """Kill runs of jobs at random moments, `kills` times in all; return how many jobs came to their end."""
    pick = random.Random(seed)
    source, output = directory / "items.txt", directory / "out.txt"
    source.write_text("".join(f"item {number} {'x' * pick.randint(0, 60)}\n" for number in range(LINES)))
    (directory / "shout.py").write_text("def shout(line):\n    return line.upper()\n")
    expected = source.read_text().upper()
    completed = killed = 0
    while killed < kills or not completed:
        shutil.rmtree(directory / ".batchkit", ignore_errors=True)
        output.unlink(missing_ok=True)
        while not output.exists():
            options = [
                "-b",
                str(pick.choice([1, 7, 100, 1000])),
                "--sync-interval",
                pick.choice(["0.01", "0.1", "never"]),
            ]
            command = [
                sys.executable,
                "-m",
                "batchkit",
                "process",
                "items.txt",
                "-f",
                "shout.py:shout",
                "-o",
                "out.txt",
            ]
            process = subprocess.Popen([*command, *options, "-q"], cwd=directory)
            try:
                process.wait(timeout=pick.uniform(0.1, 0.7) if killed < kills else 300)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
            else:
                assert process.returncode == 0
        assert output.read_text() == expected
        completed += 1
    return completed


@pytest.mark.disk
@pytest.mark.slow
def test_ten_random_kills_cost_nothing(tmp_path: Path) -> None:
    """A seeded sample of the series below."""
    assert kill_series(tmp_path, kills=10, seed=1) >= 1


@pytest.mark.soak
def test_two_hundred_random_kills_cost_nothing(tmp_path: Path) -> None:
    """Whatever the moment, batch size and sync interval: nothing lost, nothing twice."""
    begun = time.monotonic()
    completed = kill_series(tmp_path, kills=200, seed=2)
    sys.stdout.write(f"200 kills over {completed} jobs in {time.monotonic() - begun:.0f} s\n")


FUNCTION = """
import polars as pl

def widened(rows):
    return rows.with_columns(double=pl.col("id") * 2, text=pl.col("text").str.to_uppercase(), late=None)
"""


def run_for(
    directory: Path, words: Sequence[str], seconds: float | None, env: Mapping[str, str] | None = None
) -> int | None:
    """Run the command line; kill it after so many seconds. Return its exit code, `None` if it was killed."""
    command = [sys.executable, "-m", "batchkit", *words, "-q"]
    process = subprocess.Popen(command, cwd=directory, env={**os.environ, **(env or {})})
    try:
        return process.wait(timeout=300 if seconds is None else seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return None


def phase(directory: Path) -> str:
    """Tell what a killed run was at."""
    if not (directory / "out.parquet.parts").exists():
        return "beginning"
    return "merge" if (directory / "out.parquet.parts" / "joined").exists() else "work"


def parquet_kill_series(directory: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill runs of Parquet jobs at random moments, `kills` times in all; return how many were in which phase."""
    pick = random.Random(seed)
    rows = pl.DataFrame(
        {"id": range(ROWS), "text": [f"row {number} {number * 7919 % 104729}" for number in range(ROWS)]}
    )
    rows.write_parquet(directory / "in.parquet", row_group_size=70_000)
    (directory / "widen.py").write_text(FUNCTION)
    words = ["process", "in.parquet", "-f", "widen.py:widened", "--batched", "-o", "out.parquet"]
    assert run_for(directory, [*words, "-b", "20000"], None) == 0
    expected = pl.read_parquet(directory / "out.parquet")
    assert expected["double"].to_list() == list(range(0, 2 * ROWS, 2))
    found = {"beginning": 0, "work": 0, "merge": 0}
    while sum(found.values()) < kills:
        shutil.rmtree(directory / ".batchkit", ignore_errors=True)
        (directory / "out.parquet").unlink(missing_ok=True)
        shutil.rmtree(directory / "out.parquet.parts", ignore_errors=True)
        code: int | None = None
        for attempt in range(1000):
            size, interval = pick.choice(["999", "5000", "20000"]), pick.choice(["0", "0.05", "never"])
            options = ["-b", size, "--sync-interval", interval]
            ending = attempt > 12 or sum(found.values()) >= kills  # often killed while it starts, it would not end
            code = run_for(directory, [*words, *options], None if ending else pick.uniform(0.2, 1.6))
            if code is not None:
                break
            found[phase(directory)] += 1
        assert code == 0
        assert pl.read_parquet(directory / "out.parquet").equals(expected)
    return found


@pytest.mark.disk
@pytest.mark.slow
def test_ten_random_kills_of_a_parquet_job_cost_nothing(tmp_path: Path) -> None:
    """A seeded sample of the series below."""
    assert sum(parquet_kill_series(tmp_path, kills=10, seed=3).values()) >= 10


@pytest.mark.soak
def test_two_hundred_random_kills_of_a_parquet_job_cost_nothing(tmp_path: Path) -> None:
    """Whatever the moment, batch size and sync interval: the same rows in the same order, from any phase."""
    begun = time.monotonic()
    found = parquet_kill_series(tmp_path, kills=200, seed=4)
    sys.stdout.write(f"200 kills ({found}) in {time.monotonic() - begun:.0f} s\n")
    assert min(found.values()) > 0
