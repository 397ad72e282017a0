"""Whole processes, measured by the kernel's own accounting, in alternating runs."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

HERE = Path(__file__).parent
PYTHON = sys.executable


class Run(NamedTuple):
    """What one process took: wall and CPU seconds, peak memory in MiB, exit code.

    before, span, after: seconds until the function's first call, from there to the last result stored, and from there
    to the end of the process; 0 where nobody looked.
    """

    wall: float
    cpu: float
    memory: float
    code: int
    before: float = 0.0
    span: float = 0.0
    after: float = 0.0


def run(command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end and return its figures."""
    begun = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment.update(env or {})
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begun
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, process.returncode)


def alternating(candidates: Mapping[str, Callable[[], Run]], runs: int, *, warm_up: int = 1) -> dict[str, list[Run]]:
    """Run the candidates in turn, so that a drift of the machine's speed meets all of them alike.

    Every other time in the other order: what one leaves to be written to the disk slows down the next.
    """
    found: dict[str, list[Run]] = {name: [] for name in candidates}
    for number in range(runs + warm_up):
        for name, once in list(candidates.items())[:: 1 if number % 2 else -1]:
            figures = once()
            if figures.code not in {0, 75}:
                raise SystemExit(f"{name} ended with {figures.code}")
            if number >= warm_up:
                found[name].append(figures)
    return found


def median(runs: Sequence[Run], field: str = "wall") -> float:
    """Return the median of a figure."""
    return statistics.median(float(getattr(one, field)) for one in runs)


def ratio(runs: Sequence[Run], base: Sequence[Run], field: str = "wall") -> float:
    """Return the median of the ratios of neighbouring runs."""
    pairs = zip(runs, base, strict=True)
    return statistics.median(float(getattr(one, field) / getattr(other, field)) for one, other in pairs)


def write_lines(path: Path, count: int) -> None:
    """Write `count` lines of about 60 bytes, the same every time.

    In a process of its own: a child's peak memory, as the kernel counts it, begins with that of its parent.
    """
    subprocess.run([PYTHON, str(HERE / "lines.py"), str(path), str(count)], check=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that Markdown understands."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def machine(*packages: str) -> str:
    """Say what this was measured on."""
    model = platform.processor() or platform.machine()
    for line in (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if os.path.exists("/proc/cpuinfo") else []
    ):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {versions}"
