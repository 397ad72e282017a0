"""When a job will be done, guessed from its runs: how fast they were, how long they last, how often they come."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import median
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_RECENT = 8
"""Runs that count: what was long ago says little of today's speed."""

_LEAST = 1e-12
"""A run that did less of the job than that did nothing: dividing by it means nothing."""

_ALONE = 0.7, 1.5
"""How far the speed of what is to come may be from that of a single run, as factors: nobody has seen it vary."""

_TAIL = 0.05
"""Share of the time at work that counts as out of the ordinary, at either end."""


class Past(NamedTuple):
    """A run as a forecast sees it: seconds since the epoch, seconds at work, the share of the job that it did.

    limit: the seconds that it was given; `None`: as long as it takes.
    """

    start: float
    seconds: float
    gained: float
    limit: float | None


class Range(NamedTuple):
    """A guess: the likely value, and what it may well be instead."""

    low: float
    likely: float
    high: float


class Forecast(NamedTuple):
    """When a job will be done.

    seconds: at work from now on. runs: further ones that begin; 0: the one at work does it. run_seconds: how
    long one of them lasts; `None`: until it is done. at: seconds since the epoch. sample: runs that this is guessed
    from.
    """

    seconds: Range
    runs: Range
    run_seconds: float | None
    at: Range
    sample: int


def forecast(share: float | None, runs: Sequence[Past], *, now: float, running: bool) -> Forecast | None:
    """Return when a job will be done; `None` where there is nothing to go by.

    share: of the job done, 0 to 1. runs: oldest first; if `running`, the last one is at work. The spread is that of
    the runs' speeds, see `_spread`; runs that come by the clock are taken to go on as often as they came.
    """
    useful = [run for run in runs[-_RECENT:] if run.gained > _LEAST and run.seconds > 0]
    if share is None or not useful:
        return None
    left = max(0.0, 1.0 - share)
    likely = sum(run.gained for run in useful) / sum(run.seconds for run in useful)
    slow, fast = _spread(useful, likely)
    seconds = Range(left / fast, left / likely, left / slow)
    length, rhythm = _length(runs), _rhythm(runs)
    ends = [_end(each, runs, length, rhythm, now=now, running=running) for each in seconds]
    return Forecast(
        seconds=seconds,
        runs=Range(*(float(count) for count, _ in ends)),
        run_seconds=length,
        at=Range(*(at for _, at in ends)),
        sample=len(useful),
    )


def _spread(runs: Sequence[Past], likely: float) -> tuple[float, float]:
    """Return the slowest and the fastest that is to be reckoned with: what nine tenths of the time at work were like.

    Runs count by their seconds, so that one of a moment, which is mostly start-up, says little. Few runs have not seen
    much: the spread is then no less than `_ALONE` says of one, shrinking with the root of their number.
    """
    whole = sum(run.seconds for run in runs)
    ordered = sorted((run.gained / run.seconds, run.seconds) for run in runs)
    slow, fast = _quantile(ordered, whole * _TAIL), _quantile(ordered, whole * (1 - _TAIL))
    least = [factor ** (1 / math.sqrt(len(runs))) for factor in _ALONE]
    return min(slow, likely * least[0]), max(fast, likely * least[1])


def _quantile(ordered: Sequence[tuple[float, float]], seconds: float) -> float:
    """Return the speed below which so many seconds of work were done. ordered: speeds, slowest first, and seconds."""
    for speed, took in ordered:
        seconds -= took
        if seconds <= 0:
            return speed
    return ordered[-1][0]


def _length(runs: Sequence[Past]) -> float | None:
    """Return how long a run is at work; `None`: until all is done, for the last one had no limit."""
    return runs[-1].limit or None


def _rhythm(runs: Sequence[Past]) -> float:
    """Return the seconds from one run's start to the next one's; 0: they come one after the other."""
    starts = [run.start for run in runs[-_RECENT:] if run.limit is not None]
    return median(later - earlier for earlier, later in pairwise(starts)) if len(starts) > 1 else 0.0


def _end(
    seconds: float, runs: Sequence[Past], length: float | None, rhythm: float, *, now: float, running: bool
) -> tuple[int, float]:
    """Return how many more runs have to begin for so many seconds of work, and when the last of them is done."""
    last = runs[-1]
    if seconds <= 0:
        return 0, now
    if running:
        here = math.inf if length is None else max(0.0, last.start + length - now)
        if seconds <= here:
            return 0, now + seconds
        seconds -= here
    if length is None:
        return 1, now + seconds
    more = math.ceil(seconds / length)
    every = max(rhythm, length)
    first = max(now, last.start + (every if running else rhythm))
    return more, first + (more - 1) * every + (seconds - (more - 1) * length)
