"""How often calls may begin: evenly, exactly, in all processes together."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from pyrate_limiter import AbstractClock

import batchkit
from batchkit.budget import Budget
from batchkit.errors import UsageError
from batchkit.pace import Pace, limit_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("workdir")


class Clock(AbstractClock):
    """A clock that only waits move; in seconds when it is called, in milliseconds for the library."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> int:
        return int(self.seconds * 1000)

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


def begins(limit: int, seconds: int, count: int, path: str | None = None) -> list[float]:
    """Return when so many calls begin that all want to at once."""
    clock = Clock()
    pace, budget = Pace(limit, seconds, path, clock), Budget(clock=clock, sleep=clock.sleep)
    found = []
    for _ in range(count):
        assert pace.wait(budget)
        found.append(clock() - 1000)
    pace.close()
    return found


@pytest.mark.parametrize(("limit", "seconds"), [(10, 1), (100, 1), (1000, 1), (600, 60), (5000, 60), (1000, 3600)])
def test_no_period_has_more_calls_than_are_allowed(limit: int, seconds: int) -> None:
    """In any second, minute or hour; and at least 99 in a hundred of those do begin."""
    found = begins(limit, seconds, 3 * limit)
    assert all(later - earlier >= seconds - 0.002 for earlier, later in zip(found, found[limit:], strict=False))
    assert found[-1] <= 3 * seconds * 1.011


def test_calls_are_spread_evenly() -> None:
    """600 in a minute are one every tenth of a second, but for a few that may make up for lost time."""
    found = begins(600, 60, 100)
    assert found[1] - found[0] >= 0.0999
    assert found[-1] == pytest.approx(9.9, rel=0.02)


@pytest.mark.parametrize("text", ["10", "0/s", "ten/s", "10/d", "-1/s", "1.5/s", "", "10/"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    """The message says how one looks."""
    with pytest.raises(UsageError, match="10/s, 600/m or 1000/h"):
        batchkit.process([1], str, rate=text)


def test_rates_are_per_second_minute_or_hour() -> None:
    """Blanks do not matter."""
    assert [limit_of(text) for text in ("10/s", "600 / m", "1000/h")] == [(10, 1), (600, 60), (1000, 3600)]


def test_processes_share_a_rate_by_a_file() -> None:
    """Two that use it take turns of the same rate; what is left there by a clock that was ahead means nothing."""
    clock = Clock()
    first, second = (Pace(10, 1, "rate", clock) for _ in range(2))
    assert [first.due(), second.due(), first.due()] == [0, 0.1, 0.1]
    clock.sleep(0.1)
    assert [second.due(), first.due()] == [0, 0.1]
    clock.seconds = 5.0
    assert first.due() == 0
    first.close()
    second.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "async", "batched"])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_calls_of_a_run_begin_at_the_rate(kind: str, concurrency: int) -> None:
    """Whatever is called, and with one call after the other, too."""
    begun: list[float] = []

    def call(item: Any) -> Any:
        begun.append(time.monotonic())
        return item

    async def acall(item: Any) -> Any:
        await asyncio.sleep(0)
        return call(item)

    result = batchkit.process(
        range(12),
        acall if kind == "async" else call,
        batched=kind == "batched",
        batch_size=1 if kind == "batched" else 5,
        rate="50/s",
        concurrency=concurrency,
    )
    assert list(result.results()) == [*range(12)]
    assert begun[-1] - begun[0] >= 11 * 0.02 - 0.01


def test_further_attempts_keep_the_rate() -> None:
    """Each of them is a call."""
    begun: list[float] = []

    def call(_: int) -> None:
        begun.append(time.monotonic())
        raise ValueError

    batchkit.process([1, 2], call, rate="50/s", retries=2, retry_wait=0.0, on_error="skip", concurrency=2)
    assert len(begun) == 6
    assert begun[-1] - begun[0] >= 5 * 0.02 - 0.01


@pytest.mark.parametrize("limits", [{}, {"max_time": 0.5}])
def test_waiting_for_a_turn_ends_with_the_run(limits: dict[str, Any]) -> None:
    """A request to stop ends it, and what lies beyond the time limit is not waited for."""
    if not limits:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    begun = time.monotonic()
    result = batchkit.process(range(10), str, rate="1/h", concurrency=2, job="slow", **limits)
    assert (result.status, result.done) == ("paused", 1)
    assert time.monotonic() - begun < 10


@pytest.mark.slow
def test_a_turn_is_not_waited_for_within_the_time_limit_of_a_call() -> None:
    """The clock of a call runs when it has begun."""
    result = batchkit.process(range(3), _echo, rate="2/s", timeout=0.4)
    assert list(result.results()) == [0, 1, 2]


def _echo(item: int) -> int:
    return item


_TAKER = """
    import sys, time
    from batchkit.budget import Budget
    from batchkit.pace import Pace
    pace, budget = Pace(200, 1, "rate"), Budget()
    for _ in range(60):
        pace.wait(budget)
        print(time.monotonic())
"""


@pytest.mark.slow
def test_real_processes_keep_the_rate_together(workdir: Path) -> None:
    """Three of them, 60 calls each at 200 a second: 180 take no less than 0.9 s."""
    script = textwrap.dedent(_TAKER)
    takers = [
        subprocess.Popen([sys.executable, "-c", script], cwd=workdir, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    found = sorted(float(line) for taker in takers for line in taker.communicate(timeout=30)[0].splitlines())
    assert len(found) == 180
    assert found[-1] - found[0] >= 0.85
