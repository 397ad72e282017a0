"""How long `status` and `report` take, and how much memory, on jobs of 1,000 to 1,000,000 commits.

The job is real, but for its journals: a run of one batch, and then its history is written as so many commits would
have left it. Prints a table; whole processes, the best of three.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import batchkit
from batchkit import journal
from batchkit.job import JobDirectory
from batchkit.model import Checkpoint

COUNTS = (1_000, 100_000, 1_000_000)
CHAPTER = 40_000
"""Commits of a history file: about 8 MiB."""


def job(count: int) -> None:
    """Leave a job of so many commits of one item each, in the directory we are in."""
    batchkit.process(range(count), str, job="j", max_items=0, progress="none")
    directory = JobDirectory(".batchkit", "j")
    manifest = directory.load()
    assert manifest is not None
    path = Path(directory.shard_path(0))
    header = journal.read(str(path)).header.line()
    base = Checkpoint(0, 0, 0, 0, 0, 7, [0, 0, 0], 1, time.time() - count * 0.01, 0.01, end=False, kept=None)
    for first in range(1, count + 1, CHAPTER):
        last = min(first + CHAPTER, count + 1)
        lines = [
            journal._encode_checkpoint(  # noqa: SLF001  # the format's own writer
                base._replace(seq=seq, stop=seq, done=seq, time=base.time + seq * 0.01, mark=[seq * 2, 1, 0])
            )
            for seq in range(first, last)
        ]
        name = path if last > count else path.with_name(f"00000.history-{first}.jsonl")
        name.write_bytes(header + b"".join(lines))


def measured(*words: str) -> tuple[float, float]:
    """Return the seconds and the MiB that a command takes."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "batchkit", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return time.perf_counter() - begun, usage.ru_maxrss / scale


def main() -> None:
    """Print the table."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("| commits | command | seconds | MiB |\n|---|---|---|---|")
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as directory:
            os.chdir(directory)
            job(count)
            for words in (("status", "j"), ("report", "j", "-o", "r.html")):
                seconds, memory = min(measured(*words) for _ in range(3))
                print(f"| {count:,} | {words[0]} | {seconds:.2f} | {memory:.0f} |", flush=True)
            os.chdir("/")


if __name__ == "__main__":
    main()
