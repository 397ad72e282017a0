"""When a job will be done: a pure function of its runs."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from batchkit.cli.status import told
from batchkit.forecast import Past, forecast

HOUR, DAY = 3600.0, 86400.0
NIGHTS = [Past(0.0, HOUR, 0.2, HOUR), Past(DAY, HOUR, 0.2, HOUR), Past(2 * DAY, HOUR, 0.2, HOUR)]

PASTS = st.lists(
    st.builds(
        Past,
        start=st.floats(0, 1e6),
        seconds=st.floats(0.001, 1e5),
        gained=st.floats(0, 0.2),
        limit=st.none() | st.floats(1, 1e5),
    ),
    max_size=12,
).map(lambda runs: sorted(runs, key=lambda run: run.start))


def test_runs_of_each_night_are_continued() -> None:
    """Two more hours' work, one a night: done at the end of the second night from now."""
    guess = forecast(0.6, NIGHTS, now=2 * DAY + HOUR, running=False)
    assert guess is not None
    assert guess.runs.likely == 2
    assert guess.run_seconds == HOUR
    assert guess.at.likely == pytest.approx(4 * DAY + HOUR)
    assert guess.seconds.likely == pytest.approx(2 * HOUR)


def test_a_run_without_a_limit_does_all_of_it() -> None:
    """The one at work, from now on."""
    guess = forecast(0.5, [Past(0.0, 100.0, 0.5, None)], now=100.0, running=True)
    assert guess is not None
    assert (guess.runs.likely, guess.run_seconds) == (0, None)
    assert guess.at.likely == pytest.approx(200.0)
    assert guess.at.low < 200.0 < guess.at.high


def test_the_run_at_work_does_what_its_limit_allows() -> None:
    """The rest is for the next one."""
    guess = forecast(0.5, [Past(0.0, 100.0, 0.5, 150.0)], now=100.0, running=True)
    assert guess is not None
    assert guess.runs.likely == 1


def test_a_run_that_was_stopped_early_may_be_followed_at_once() -> None:
    """Its limit says how long the next one may be, not when it begins."""
    guess = forecast(0.5, [Past(0.0, 3.0, 0.5, 300.0)], now=10.0, running=False)
    assert guess is not None
    assert guess.at.likely == pytest.approx(13.0)


def test_the_spread_is_that_of_the_runs() -> None:
    """The slowest and the fastest of a few."""
    guess = forecast(0.5, [Past(0.0, 10.0, 0.1, None), Past(10.0, 10.0, 0.4, None)], now=20.0, running=False)
    assert guess is not None
    assert guess.seconds == pytest.approx((12.5, 20.0, 50.0))


def test_a_run_of_a_moment_says_little() -> None:
    """Two seconds that brought next to nothing, beside hours that went evenly."""
    even = [Past(at * DAY, HOUR, 0.05, HOUR) for at in range(7)]
    guess = forecast(0.35, [*even, Past(7 * DAY, 2.0, 1e-6, HOUR)], now=8 * DAY, running=False)
    assert guess is not None
    assert (guess.runs.low, guess.runs.likely, guess.runs.high) == (12, 14, 15)


def test_runs_that_went_alike_leave_some_doubt() -> None:
    """The fewer they are, the more; nothing to come is certain."""
    spreads = []
    for count in (1, 2, 6):
        runs = [Past(at * HOUR, HOUR, 0.05, None) for at in range(count)]
        guess = forecast(0.3, runs, now=10 * HOUR, running=False)
        assert guess is not None
        assert guess.seconds.low < guess.seconds.likely < guess.seconds.high
        spreads.append(guess.seconds.high / guess.seconds.low)
    assert spreads == sorted(spreads, reverse=True)


@pytest.mark.parametrize(("share", "runs"), [(None, NIGHTS), (0.5, []), (0.0, [Past(0.0, 10.0, 0.0, None)])])
def test_nothing_is_guessed_from_nothing(share: float | None, runs: list[Past]) -> None:
    """An unknown share, no run, or none that brought anything."""
    assert forecast(share, runs, now=1e6, running=False) is None
    assert told(None, 0.0) is None


@given(share=st.floats(0, 1), runs=PASTS, later=st.floats(0, 1e6), running=st.booleans())
def test_a_forecast_makes_sense(share: float, runs: list[Past], later: float, running: bool) -> None:
    """Ordered, never in the past; it can be told."""
    now = (runs[-1].start if runs else 0.0) + later
    guess = forecast(share, runs, now=now, running=running)
    if guess is None:
        return
    assert 0 <= guess.seconds.low <= guess.seconds.likely * (1 + 1e-9)
    assert guess.seconds.likely <= guess.seconds.high * (1 + 1e-9)
    assert guess.runs.low <= guess.runs.likely <= guess.runs.high
    assert now <= guess.at.low
    assert guess.at.low <= guess.at.high * (1 + 1e-9)
    assert 1 <= guess.sample <= len(runs)


def test_it_is_told_with_its_spread() -> None:
    """And what it is guessed from."""
    guess = forecast(0.6, NIGHTS, now=2 * DAY + HOUR, running=False)
    text = told(guess, 2 * DAY + HOUR)
    assert text is not None
    assert text.startswith("about 2 more runs of 1h 00m, done around ")
    assert text.endswith("; from 3 runs)")
