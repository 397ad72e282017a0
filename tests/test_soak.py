"""The long kill series: a larger job, killed at random moments, again and again."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

LINES = 300_000


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
