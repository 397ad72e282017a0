"""What a person sees while a job works."""

from __future__ import annotations

import io

import pytest

import batchkit
from batchkit.errors import UsageError
from batchkit.progress import Progress, duration


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        """Begin at some reading that is not 0."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def progress(
    mode: str,
    stream: io.StringIO,
    clock: Clock,
    *,
    total: int | None = 1000,
    at: int = 0,
    items: int = 0,
    unit: str = "B",
) -> Progress:
    """Return the progress of a job named `load`."""
    return Progress(mode, name="load", unit=unit, total=total, at=at, items=items, stream=stream, clock=clock)


class TestLog:
    """Now and then a line."""

    def test_the_first_line_comes_after_five_seconds_and_the_next_after_thirty_more(self) -> None:
        """Short runs say nothing; long ones a line each half minute."""
        clock, stream = Clock(), io.StringIO()
        shown = progress("log", stream, clock)
        lines = []
        for _ in range(70):
            clock.now += 1
            shown.show(int(clock.now) - 1000, int(clock.now) - 1000)
            lines.append(stream.getvalue().count("\n"))
        assert [lines[3], lines[4], lines[33], lines[34], lines[63], lines[64]] == [0, 1, 1, 2, 2, 3]

    def test_show_answers_when_it_wants_to_hear_again(self) -> None:
        """So that the loop need not ask at every batch."""
        clock = Clock()
        shown = progress("log", io.StringIO(), clock)
        assert shown.show(1, 1) == 1005
        clock.now = 1007
        assert shown.show(2, 2) == 1037

    def test_a_line_says_share_items_rate_and_time_left(self) -> None:
        """What, how fast, how long."""
        clock, stream = Clock(), io.StringIO()
        shown = progress("log", stream, clock)
        clock.now += 10
        shown.show(250, 5000)
        assert stream.getvalue() == "load: 25%, 5,000 items done, 500/s, about 30.0s left\n"

    def test_a_resumed_run_starts_where_the_job_is_and_counts_its_own_rate(self) -> None:
        """The share is the job's, rate and time left are this run's."""
        clock, stream = Clock(), io.StringIO()
        shown = progress("log", stream, clock, at=500, items=10_000)
        clock.now += 10
        shown.show(750, 10_100)
        assert stream.getvalue() == "load: 75%, 10,100 items done, 10/s, about 10.0s left\n"

    @pytest.mark.parametrize("total", [None, 0])
    def test_without_a_known_end_there_is_no_share(self, total: int | None) -> None:
        """A pipe has neither share nor time left."""
        clock, stream = Clock(), io.StringIO()
        shown = progress("log", stream, clock, total=total)
        clock.now += 10
        shown.show(0, 20)
        assert stream.getvalue() == "load: 20 items done, 2/s\n"

    def test_nothing_new_in_a_run_leaves_no_time_to_guess(self) -> None:
        """Without any progress no time left is claimed."""
        clock, stream = Clock(), io.StringIO()
        shown = progress("log", stream, clock, at=500, items=5)
        clock.now += 10
        shown.show(500, 5)
        assert stream.getvalue() == "load: 50%, 5 items done, 0/s\n"


class TestBar:
    """A bar on a terminal."""

    def test_a_short_run_shows_no_bar(self) -> None:
        """Within the first moments nothing is shown."""
        clock, stream = Clock(), Terminal()
        shown = progress("bar", stream, clock)
        clock.now += 0.3
        shown.show(500, 5)
        shown.close()
        assert stream.getvalue() == ""

    def test_a_resumed_bar_starts_where_the_job_is(self) -> None:
        """75 % of the job, at the rate of this run."""
        clock, stream = Clock(), Terminal()
        shown = progress("bar", stream, clock, at=500, items=10_000)
        clock.now += 10
        shown.show(750, 10_100)
        shown.close()
        assert "load:  75%" in stream.getvalue()
        assert "10,100 items, 10/s" in stream.getvalue()
        assert "0%|" not in stream.getvalue().replace("50%|", "")

    def test_a_bar_is_drawn_ten_times_a_second_at_most(self) -> None:
        """More would be work for nobody's eyes."""
        clock, stream = Clock(), Terminal()
        shown = progress("bar", stream, clock)
        clock.now += 1
        assert shown.show(100, 100) == pytest.approx(1001.1)
        drawn = stream.getvalue()
        clock.now += 0.05
        shown.show(900, 900)
        assert stream.getvalue() == drawn
        clock.now += 0.06
        shown.show(950, 950)
        shown.close()
        assert "95%" in stream.getvalue()

    def test_without_a_known_end_the_bar_counts(self) -> None:
        """A pipe shows what is done."""
        clock, stream = Clock(), Terminal()
        shown = progress("bar", stream, clock, total=None)
        clock.now += 1
        shown.show(2000, 20)
        shown.close()
        assert "20 items, 20/s" in stream.getvalue()
        assert "%" not in stream.getvalue()

    def test_closing_twice_or_without_a_bar_is_harmless(self) -> None:
        """Whoever closes need not know."""
        shown = progress("bar", Terminal(), Clock())
        shown.close()
        shown.close()


class TestChoice:
    """Which of them."""

    def test_auto_is_a_bar_on_a_terminal_and_lines_elsewhere(self) -> None:
        """A log file gets no bar."""
        clock = Clock()
        terminal, file = Terminal(), io.StringIO()
        shown = [progress("auto", terminal, clock), progress("auto", file, clock)]
        clock.now += 6
        for one in shown:
            one.show(100, 100)
            one.close()
        assert "%|" in terminal.getvalue()
        assert file.getvalue().startswith("load: 10%, 100 items done")

    def test_none_shows_nothing(self) -> None:
        """Neither bar nor line, and it never wants to hear again."""
        clock, stream = Clock(), Terminal()
        shown = progress("none", stream, clock)
        clock.now += 1e6
        assert shown.show(100, 100) == float("inf")
        shown.close()
        assert stream.getvalue() == ""

    def test_an_unknown_mode_is_refused(self) -> None:
        """The message names the modes."""
        with pytest.raises(UsageError, match="auto, bar, log, json or none"):
            batchkit.process([1], progress="loud")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (4.24, "4.2s"), (59.94, "59.9s"), (59.99, "1m 00s"), (60, "1m 00s"), (185, "3m 05s"),
     (7800, "2h 10m"),
     (3599.7, "1h 00m"), (100 * 3600, "100h 00m")],
)  # fmt: skip
def test_durations_are_written_as_people_write_them(seconds: float, text: str) -> None:
    """Seconds with a tenth, then minutes, then hours."""
    assert duration(seconds) == text
