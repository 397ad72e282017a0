"""When a run stops: limits of time, items and batches, and how people write them."""

from __future__ import annotations

import datetime
import math
import threading

import pytest
from hypothesis import given, settings, strategies as st

from batchkit.budget import Budget, part_of, seconds_of, seconds_until, stopping_on_signals
from batchkit.errors import UsageError

QUICK = settings(max_examples=60, deadline=None)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        """Begin at some reading that is not 0."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


class Cuts:
    """Counts how often a batch was cut."""

    def __init__(self) -> None:
        """Begin at none."""
        self.count = 0

    def __call__(self) -> None:
        """Count one."""
        self.count += 1


class TestRoom:
    """Between batches the budget says how many items the next one may have."""

    def test_without_limits_every_batch_is_whole(self) -> None:
        """`None` means no limit."""
        budget = Budget(clock=Clock())
        assert budget.room(100, 1e9) == 100
        budget.spend(100, 1e9)
        assert (budget.room(7, 2e9), budget.reason) == (7, None)

    def test_max_items_is_exact(self) -> None:
        """The last batch is as short as the number of items left asks for, then the reason is `items`."""
        budget = Budget(max_items=250, clock=Clock())
        rooms = []
        while room := budget.room(100, 0.0):
            rooms.append(room)
            budget.spend(room, 0.0)
        assert (rooms, budget.reason) == ([100, 100, 50], "items")

    def test_max_batches_counts_commits(self) -> None:
        """After so many batches the reason is `batches`."""
        budget = Budget(max_batches=2, clock=Clock())
        for _ in range(2):
            assert budget.room(100, 0.0) == 100
            budget.spend(1, 0.0)
        assert (budget.room(100, 0.0), budget.reason) == (0, "batches")

    @pytest.mark.parametrize(
        ("limit", "reason"), [("max_items", "items"), ("max_batches", "batches"), ("max_time", "time")]
    )
    def test_a_limit_of_nothing_does_nothing(self, limit: str, reason: str) -> None:
        """0 is a limit, not the absence of one."""
        clock = Clock()
        budget = Budget(**{limit: 0}, clock=clock)  # type: ignore[arg-type]
        assert (budget.room(100, clock.now), budget.reason) == (0, reason)

    def test_a_stop_request_comes_before_everything(self) -> None:
        """Once asked to stop, no batch is begun, and the first reason stays."""
        budget = Budget(clock=Clock())
        budget.stop("SIGTERM")
        budget.stop("SIGINT")
        assert (budget.room(100, 0.0), budget.reason) == (0, "SIGTERM")

    @QUICK
    @given(limit=st.integers(0, 1000), sizes=st.lists(st.integers(1, 50), min_size=1, max_size=40))
    def test_no_sequence_of_batches_passes_the_limit(self, limit: int, sizes: list[int]) -> None:
        """Whatever the batch sizes, `max_items` is never passed, and it is reached if there are enough."""
        budget = Budget(max_items=limit, clock=Clock())
        done = 0
        for size in sizes:
            room = budget.room(size, 0.0)
            assert 0 <= room <= size
            done += room
            if not room:
                break
            budget.spend(room, 0.0)
        assert done == min(limit, sum(sizes))


class TestTime:
    """The deadline is kept by guessing from the slowest recent batch."""

    def test_the_first_batch_is_whole_if_any_time_is_left(self) -> None:
        """Nothing is known yet, so nothing is held back."""
        clock = Clock()
        budget = Budget(max_time=1, clock=clock)
        assert budget.room(100, clock.now) == 100

    def test_at_the_deadline_nothing_is_begun(self) -> None:
        """Exactly at the deadline the time is used up."""
        clock = Clock()
        budget = Budget(max_time=10, clock=clock)
        assert (budget.room(100, clock.now + 10), budget.reason) == (0, "time")

    def test_a_batched_call_that_would_not_end_in_time_is_not_begun(self) -> None:
        """A batch takes as long as the slowest recent one: with less time left the run ends before the deadline."""
        clock = Clock()
        budget = Budget(max_time=10, divisible=False, clock=clock)
        for seconds in (3.0, 4.0):
            assert budget.room(100, clock.now) == 100
            clock.now += seconds
            budget.spend(100, seconds)
        assert (budget.room(100, clock.now), budget.reason) == (0, "time")

    def test_a_batched_call_that_fits_exactly_is_begun(self) -> None:
        """What probably ends at the deadline still fits."""
        clock = Clock()
        budget = Budget(max_time=10, divisible=False, clock=clock)
        budget.room(100, clock.now)
        budget.spend(100, 5.0)
        assert budget.room(100, clock.now + 5) == 100

    def test_a_batch_of_single_items_is_as_long_as_the_time_left(self) -> None:
        """Single items are cut to what the slowest recent item speed allows."""
        clock = Clock()
        budget = Budget(max_time=10, clock=clock)
        budget.room(100, clock.now)
        budget.spend(100, 5.0)
        budget.room(10, clock.now)
        budget.spend(10, 1.0)
        assert budget.room(100, clock.now + 6) == 40

    def test_single_items_that_take_no_time_fill_the_batch(self) -> None:
        """A batch that the clock could not measure holds nothing back."""
        clock = Clock()
        budget = Budget(max_time=10, clock=clock)
        budget.room(100, clock.now)
        budget.spend(100, 0.0)
        assert budget.room(100, clock.now + 9.9) == 100

    def test_only_recent_batches_count(self) -> None:
        """One slow batch long ago is forgotten after eight quicker ones."""
        clock = Clock()
        budget = Budget(max_time=100, divisible=False, clock=clock)
        budget.spend(100, 60.0)
        assert budget.room(100, clock.now + 50) == 0
        budget = Budget(max_time=100, divisible=False, clock=clock)
        budget.spend(100, 60.0)
        for _ in range(8):
            budget.spend(100, 0.1)
        assert budget.room(100, clock.now + 50) == 100

    def test_work_without_items_goes_on_until_the_deadline(self) -> None:
        """Publishing obeys the budget and stop requests."""
        clock = Clock()
        budget = Budget(max_time=10, clock=clock)
        assert budget.go_on()
        clock.now += 10
        assert (budget.go_on(), budget.reason) == (False, "time")
        asked = Budget(clock=clock)
        asked.stop("SIGINT")
        assert not asked.go_on()


class TestCutting:
    """A batch of single items is cut at an item's end; a batched call never is."""

    def test_looking_cuts_at_the_deadline(self) -> None:
        """The batch in hand is cut when the deadline comes, not before."""
        clock, cuts = Clock(), Cuts()
        budget = Budget(max_time=10, batch_seconds=30, clock=clock)
        budget.attach(cuts)
        budget.room(100, clock.now)
        clock.now += 9.9
        budget.look()
        assert cuts.count == 0
        clock.now += 0.2
        budget.look()
        assert cuts.count == 1

    def test_looking_cuts_once_after_batch_seconds(self) -> None:
        """After `batch_seconds` the batch is cut once, and the next one has its own time; the run goes on."""
        clock, cuts = Clock(), Cuts()
        budget = Budget(batch_seconds=30, clock=clock)
        budget.attach(cuts)
        for number in (1, 2):
            assert budget.room(100, clock.now) == 100
            clock.now += 29
            budget.look()
            assert cuts.count == number - 1
            clock.now += 1
            budget.look()
            budget.look()
            assert cuts.count == number
            budget.spend(10, 30.0)
        assert budget.reason is None

    def test_looking_between_batches_cuts_nothing(self) -> None:
        """Before the first batch and after a commit there is nothing to cut."""
        clock, cuts = Clock(), Cuts()
        budget = Budget(batch_seconds=30, clock=clock)
        budget.attach(cuts)
        clock.now += 100
        budget.look()
        budget.room(100, clock.now)
        budget.spend(100, 1.0)
        clock.now += 100
        budget.look()
        assert cuts.count == 0

    def test_a_stop_request_cuts_at_once(self) -> None:
        """A request to stop ends the batch at the item in hand."""
        cuts = Cuts()
        budget = Budget(clock=Clock())
        budget.attach(cuts)
        budget.room(100, 0.0)
        budget.stop("SIGTERM")
        assert cuts.count == 1

    def test_a_stop_request_that_comes_before_the_call_cuts_it_too(self) -> None:
        """Asked to stop after the batch was granted and before its call began, the watch cuts the call all the same."""
        clock, cuts = Clock(), Cuts()
        budget = Budget(clock=clock)
        budget.attach(cuts)
        budget.room(100, clock.now)
        budget.stop("SIGTERM")  # cuts nothing: the call has not begun
        cuts.count = 0
        clock.now += 0.2
        budget.look()
        assert cuts.count == 1

    def test_a_batched_call_is_never_cut(self) -> None:
        """Neither a request, nor the deadline, nor `batch_seconds` cuts a batched call."""
        clock, cuts = Clock(), Cuts()
        budget = Budget(max_time=10, batch_seconds=5, divisible=False, clock=clock)
        budget.attach(cuts)
        budget.room(100, clock.now)
        clock.now += 20
        budget.look()
        budget.stop("SIGTERM")
        assert cuts.count == 0


class TestDurations:
    """How people write durations."""

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            (None, None), ("90", 90), ("90s", 90), ("10m", 600), ("2h30m", 9000), ("1d", 86400), ("500ms", 0.5),
            ("1.5h", 5400), ("0", 0), (" 10M ", 600), ("1h1m1s", 3661), (90, 90), (1.5, 1.5), (0, 0),
            (datetime.timedelta(minutes=55), 3300),
        ],
    )  # fmt: skip
    def test_durations_are_seconds(self, text: str | float | datetime.timedelta | None, seconds: float | None) -> None:
        """Durations are `90`, `90s`, `10m`, `2h30m`, seconds or a timedelta; `None` stays."""
        assert seconds_of(text, "max_time") == seconds

    @pytest.mark.parametrize(
        "text",
        ["", "s", "ten", "-5", "5x", "1h-2m", "10 minutes", "1e3", "1..5s", "5s!", -1, -0.5, math.nan, math.inf,
         datetime.timedelta(seconds=-1), "9" * 400],
    )  # fmt: skip
    def test_anything_else_is_refused_by_name(self, text: str | float | datetime.timedelta) -> None:
        """What is no duration of at least 0 is refused, naming the option."""
        with pytest.raises(UsageError, match="max_time"):
            seconds_of(text, "max_time")

    @QUICK
    @given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
    def test_parts_add_up(self, hours: int, minutes: int, seconds: int) -> None:
        """The parts of a duration are added."""
        assert seconds_of(f"{hours}h{minutes}m{seconds}s", "x") == hours * 3600 + minutes * 60 + seconds

    @QUICK
    @given(st.text(max_size=12))
    def test_any_text_is_a_duration_or_refused(self, text: str) -> None:
        """No text leads to another error than `UsageError`."""
        try:
            seconds = seconds_of(text, "x")
        except UsageError:
            return
        assert seconds is not None
        assert 0 <= seconds < math.inf


class TestPartOf:
    """Runs that are part of another one, in threads of their own."""

    def test_a_part_stops_with_the_whole_and_its_batch_is_cut(self) -> None:
        """A request to stop the whole reaches each part that is at work, and those that begin later."""
        whole, part, later = Budget(), Budget(), Budget()
        cuts = Cuts()
        part.attach(cuts)
        whole.adopt(part)
        whole.stop("SIGTERM")
        whole.adopt(later)
        assert (part.reason, later.reason, cuts.count) == ("SIGTERM", "SIGTERM", 1)

    def test_a_part_that_has_ended_hears_no_more(self) -> None:
        """What has been let go is not stopped."""
        whole, part = Budget(), Budget()
        whole.adopt(part)
        whole.release(part)
        whole.stop("SIGTERM")
        assert part.reason is None

    @pytest.mark.parametrize(
        ("whole_time", "part_time", "room"), [(5, 50, 0), (50, 5, 0), (50, None, 10), (None, None, 10)]
    )
    def test_a_part_ends_at_the_earlier_of_both_deadlines(
        self, whole_time: float | None, part_time: float | None, room: int
    ) -> None:
        """It never outlives the whole, and may end before it."""
        clock = Clock()
        whole, part = Budget(max_time=whole_time, clock=clock), Budget(max_time=part_time, clock=clock)
        whole.adopt(part)
        clock.now += 6
        assert part.room(10, clock.now) == room

    def test_runs_in_a_thread_are_parts_while_the_block_runs(self) -> None:
        """Those that begin there are adopted, those of other threads and later ones are not."""
        whole, inside, after, elsewhere = Budget(), Budget(), Budget(), Budget()

        def run(budget: Budget) -> None:
            with stopping_on_signals(budget, abort=lambda _: None):
                whole.stop("SIGTERM")

        def thread() -> None:
            with part_of(whole) as begun:
                run(inside)
                assert begun == [inside]
            run(after)

        for target in (thread, lambda: run(elsewhere)):
            one = threading.Thread(target=target)
            one.start()
            one.join()
        assert (inside.reason, after.reason, elsewhere.reason) == ("SIGTERM", None, None)


class TestUntil:
    """How people write moments."""

    @staticmethod
    def local(hour: int, minute: int = 0) -> datetime.datetime:
        """Return a moment of one winter's day in local time."""
        return datetime.datetime(2026, 1, 15, hour, minute).astimezone()

    @pytest.mark.parametrize(
        ("text", "hours"),
        [("06:00", 1), ("6:00", 1), ("06:00:00", 1), ("05:30:00", 0.5), ("04:00", 23), ("05:00", 24), (" 23:00 ", 18)],
    )
    def test_a_time_of_day_is_the_next_one(self, text: str, hours: float) -> None:
        """At 05:00, `06:00` is in an hour, and `04:00` tomorrow."""
        assert seconds_until(text, self.local(5)) == hours * 3600

    def test_timestamps_without_zone_are_local(self) -> None:
        """An ISO timestamp is taken as it is, local if it names no zone."""
        assert seconds_until("2026-01-15T07:00", self.local(5)) == 7200
        assert seconds_until(datetime.datetime(2026, 1, 15, 7), self.local(5)) == 7200  # noqa: DTZ001  # the point
        noon = datetime.datetime(2026, 1, 15, 12, tzinfo=datetime.UTC)
        assert seconds_until("2026-01-15T15:00+02:00", noon) == 3600
        assert seconds_until("2026-01-15T13:00Z", noon) == 3600

    def test_the_past_leaves_no_time(self) -> None:
        """A moment in the past gives 0."""
        assert seconds_until("2020-01-01", self.local(5)) == 0

    def test_no_moment_is_no_limit(self) -> None:
        """`None` stays."""
        assert seconds_until(None, self.local(5)) is None

    @pytest.mark.parametrize("text", ["", "noon", "25:00", "06:60", "2026-13-01", "6", "06:00pm", "1h"])
    def test_anything_else_is_refused(self, text: str) -> None:
        """What is no time is refused, with an example."""
        with pytest.raises(UsageError, match="06:00"):
            seconds_until(text, self.local(5))
