"""Candidates side by side: each in a directory of its own, from scratch in every run, timed in its parts."""

from __future__ import annotations

import filecmp
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from operator import le
from typing import TYPE_CHECKING, NamedTuple

from measuring import Run, alternating, median, ratio, run, table, write_lines

from batchkit import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path


class Target(NamedTuple):
    """What a ratio must not exceed, or must reach."""

    holds: Callable[[float, float], bool]
    limit: float

    def __str__(self) -> str:
        """Return it as it stands in the table."""
        return f"{'≤' if self.holds is le else '≥'} {self.limit:.2f}"


@dataclass(frozen=True)
class Bench:
    """Where things are written, how often each candidate runs, and whether on a small sample only."""

    directory: Path
    runs: int
    quick: bool

    def lines(self, count: int) -> Path:
        """Return the path of a file of so many lines."""
        path = self.directory / f"lines-{count}.txt"
        if not path.exists():
            write_lines(path, count)
        return path

    def home(self, name: str) -> Path:
        """Return the directory in which a candidate works."""
        return self.directory / name.replace("/", "-").replace(" ", "_")

    def once(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> Run:
        """Run a candidate from scratch in its own directory, which it leaves as it is: `result.txt` or `result/`."""
        home = self.home(name)
        shutil.rmtree(home, ignore_errors=True)
        (home / "stamps").mkdir(parents=True)
        os.sync()  # else its own syncs wait for what the one before has written
        begun = time.time()
        figures = run(command, home, {**(env or {}), "STAMPS": str(home / "stamps")})
        stamps = [float(path.read_text(encoding="ascii")) for path in home.glob("stamps/first-*")]
        if figures.code or not stamps:
            return figures
        first, last = min(stamps), last_stored(home)
        if last < first:
            raise SystemExit(f"{name}: nothing tells when its last result was stored")
        return figures._replace(before=first - begun, span=last - first, after=begun + figures.wall - last)

    def alternating(
        self, commands: Mapping[str, Sequence[str]], env: Mapping[str, str] | None = None
    ) -> dict[str, list[Run]]:
        """Run the candidates in turn."""
        return alternating({name: partial(self.once, name, each, env) for name, each in commands.items()}, self.runs)


def last_stored(home: Path) -> float:
    """Return when the last batch was committed; of a peer: when it had written its last result."""
    shards = home.glob("state/*/shards/*.jsonl")
    journals = [str(path) for path in shards if path.stem.isdigit() or ".history-" in path.stem]
    if not journals:
        return float((home / "stamps" / "last").read_text(encoding="ascii"))
    return max(last_batch(path) for path in journals)


def last_batch(path: str) -> float:
    """Return when the last batch in a journal was committed; 0 if it has none.

    The record of a shard's end is no batch: it comes later, after a sync, and is all that a renewed journal keeps.
    """
    past = journal.read(path)
    return next((past[at].time for at in reversed(range(len(past))) if not past[at].end), 0.0)


def show(
    found: Mapping[str, Sequence[Run]], count: int, base: Sequence[Run], targets: Mapping[str, Target], field: str
) -> None:
    """Print the candidates' medians, their ratios to the base, and which targets are met."""
    split = field == "span"
    rows = []
    for name, figures in found.items():
        taken, target = median(figures, field), targets.get(name)
        times = taken / median(base, field)
        rows.append(
            [
                name,
                f"{taken:.3f}",
                f"{count / taken:,.0f}",
                f"{times:.2f}",
                f"{ratio(figures, base, field):.2f}",
                str(target or ""),
                "" if target is None else "yes" if target.holds(times, target.limit) else "NO",
                *([f"{median(figures, each):.2f}" for each in ("before", "after", "wall")] if split else []),
                f"{median(figures, 'cpu'):.2f}",
            ]
        )
    parts = ["start-up s", "publishing s", "whole s"] if split else []
    table(["who", "s", "items/s", "ratio", "neighbours", "target", "met", *parts, "CPU s"], rows)


def check_same(bench: Bench, names: Iterable[str]) -> None:
    """Refuse results of candidates that differ in more than their order."""
    wanted: Counter[str] | None = None
    for name in names:
        home = bench.home(name)
        found: Counter[str] = Counter()  # the lines repeat: this stays small
        for path in [*home.glob("result/*.txt"), *home.glob("result.txt")]:
            with open(path, encoding="utf-8") as file:
                found.update(file)
        wanted = found if wanted is None else wanted
        if found != wanted:
            raise SystemExit(f"the results of '{name}' differ")


def check_order(paths: Iterable[Path]) -> None:
    """Refuse files that are not the same byte for byte."""
    first, *others = paths
    for path in others:
        if not filecmp.cmp(first, path, shallow=False):
            raise SystemExit(f"'{path}' and '{first}' differ")
