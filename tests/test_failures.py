"""What becomes of items that fail: attempts and waits, narrowing, limits, and what is kept of them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import math
import os
import random
import sys
from collections import Counter
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st

import batchkit
from batchkit.budget import Budget
from batchkit.calling import Caller
from batchkit.current import Identity
from batchkit.errors import ItemError, TooManyFailures, UsageError
from batchkit.failure_file import FailuresInMemory
from batchkit.failures import Attempts, Done, Failed, Policy, Skipped
from batchkit.handling import Handler
from batchkit.limit import Limit
from batchkit.model import Checkpoint
from batchkit.readers.base import IndexBatch
from batchkit.readers.sequence import SequenceReader
from batchkit.writers.base import ResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = pytest.mark.usefixtures("workdir")


class Clock:
    """A clock that only waits move; `naps` holds their lengths, `at` what happens when it reaches a reading."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []
        self.at: list[tuple[float, Callable[[], object]]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds > 0
        self.naps.append(seconds)
        self.now += seconds
        for due in [due for due in self.at if due[0] <= self.now]:
            self.at.remove(due)
            due[1]()


class Bench:
    """A function with a policy, worked with by hand.

    calls: the items of each call, with the clock's reading.
    """

    def __init__(
        self, function: Callable[[Any], Any], *, batched: bool = False, limits: Any = None, **policy: Any
    ) -> None:
        self.clock = Clock()
        self.budget = Budget(clock=self.clock, sleep=self.clock.sleep, divisible=not batched, **(limits or {}))
        self.said: list[str] = []
        self.calls: list[tuple[float, Any]] = []

        def called(argument: Any) -> Any:
            self.calls.append((self.clock.now - 1000.0, argument))
            return function(argument)

        self.caller = Caller(called, batched=batched, identity=Identity("job", "uuid", 0))
        self.attempts = Attempts(self.caller, Policy(**policy), self.budget, self.said.append)
        self.budget.attach(self.caller.cut)

    def pieces(self, items: Sequence[Any], unreadable: dict[int, str] | None = None) -> list[Any]:
        """Return what becomes of a batch, in short: results, `("failed", item, error, attempts)`, or "skipped"."""
        batch = IndexBatch(list(items), 0)
        batch.unreadable = unreadable or {}
        found: list[Any] = []
        at = 0
        for piece in self.attempts.pieces(batch, 1, None):
            assert piece.first == at, "in order, and nothing left out"
            if isinstance(piece, Done):
                found += piece.outcome.results
                at += piece.outcome.done
            elif isinstance(piece, Failed):
                found.append(("failed", items[at], type(piece.error).__name__, piece.attempts))
                at += piece.length
            else:
                assert isinstance(piece, Skipped)
                found.append("skipped")
                at += piece.length
        self.reached = at
        self.caller.close()
        return found

    @property
    def starts(self) -> list[float]:
        """When each call began, in seconds from the beginning."""
        return [when for when, _ in self.calls]


class Moody:
    """Fails a number of times with each item; `math.inf`: always. Others come back."""

    def __init__(self, times: dict[Any, float], error: Callable[[Any], BaseException] = ValueError) -> None:
        self.left = dict(times)
        self.error = error
        self.calls: Counter[Any] = Counter()

    def __call__(self, item: Any) -> Any:
        self.calls[item] += 1
        if self.left.get(item, 0) > 0:
            self.left[item] -= 1
            raise self.error(item)
        return item

    def all(self, items: list[Any]) -> list[Any]:
        """Do it with many: fails if one does."""
        return [self(item) for item in items]


class TestAttempts:
    """How often and when a call is made again."""

    def test_without_retries_a_call_is_made_once(self) -> None:
        """The default."""
        bench = Bench(Moody({2: math.inf}))
        assert bench.pieces([1, 2, 3]) == [1, ("failed", 2, "ValueError", 1), 3]
        assert (len(bench.calls), bench.clock.naps) == (3, [])

    def test_retries_are_further_attempts_and_success_counts(self) -> None:
        """Item 2 succeeds at the third attempt, item 3 never."""
        bench = Bench(Moody({2: 2, 3: math.inf}), retries=2)
        assert bench.pieces([1, 2, 3, 4]) == [1, 2, ("failed", 3, "ValueError", 3), 4]
        assert [item for _, item in bench.calls] == [1, 2, 2, 2, 3, 3, 3, 4]

    def test_waits_double_up_to_a_cap_plus_chance(self) -> None:
        """`retry_wait` times 1, 2, 4 ... plus at most `retry_wait` by chance, never more than `retry_max_wait`."""
        bench = Bench(Moody({1: math.inf}), retries=7, retry_wait=2.0, retry_max_wait=30.0)
        bench.pieces([1])
        waits = [after - before for before, after in zip(bench.starts, bench.starts[1:], strict=False)]
        least = [min(30.0, 2.0 * 2**attempt) for attempt in range(7)]
        assert all(low - 1e-6 <= wait <= min(30.0, low + 2.0) + 1e-6 for low, wait in zip(least, waits, strict=True)), (
            waits
        )
        assert waits[-3:] == pytest.approx([30.0, 30.0, 30.0])

    def test_chance_differs_from_wait_to_wait(self) -> None:
        """Many workers that failed together do not come back together."""
        firsts = set()
        for _ in range(5):
            bench = Bench(Moody({1: math.inf}), retries=1, retry_wait=10.0)
            bench.pieces([1])
            firsts.add(round(bench.starts[1], 3))
        assert len(firsts) > 1

    def test_no_wait_is_no_wait(self) -> None:
        """`retry_wait=0`, or a cap of 0."""
        choices: list[dict[str, Any]] = [{"retry_wait": 0.0}, {"retry_max_wait": 0.0}]
        for options in choices:
            bench = Bench(Moody({1: math.inf}), retries=5, **options)
            assert bench.pieces([1]) == [("failed", 1, "ValueError", 6)]
            assert bench.clock.naps == []

    def test_only_errors_in_retry_on_are_tried_again(self) -> None:
        """Another one is final at once; which one it is may change from attempt to attempt."""
        errors = iter([ConnectionResetError(), TimeoutError(), KeyError("gone")])

        def fail(_: Any) -> None:
            raise next(errors)

        bench = Bench(fail, retries=9, retry_on=(ConnectionError, TimeoutError))
        assert bench.pieces([1]) == [("failed", 1, "KeyError", 3)]

    def test_retry_later_is_tried_again_whatever_retry_on_says(self) -> None:
        """And waits as long as it asks, beyond the cap."""
        bench = Bench(
            Moody({1: 1}, lambda _: batchkit.RetryLater(after=90)), retries=1, retry_on=(KeyError,), retry_max_wait=5.0
        )
        assert (bench.pieces([1]), bench.starts) == ([1], [0.0, pytest.approx(90.0)])

    def test_retry_later_needs_retries(self) -> None:
        """It is a failure like any other without."""
        bench = Bench(Moody({1: 1}, lambda _: batchkit.RetryLater("busy", after=90)))
        assert bench.pieces([1]) == [("failed", 1, "RetryLater", 1)]

    def test_retry_later_without_a_time_waits_as_after_any_error(self) -> None:
        """Exponential backoff."""
        bench = Bench(Moody({1: 1}, lambda _: batchkit.RetryLater()), retries=1, retry_wait=3.0)
        bench.pieces([1])
        assert 3.0 <= bench.starts[1] <= 6.0 + 1e-6

    @pytest.mark.parametrize(("header", "seconds"), [("120", 120.0), (" 7 ", 7.0), ("-5", 0.0), (2.5, 2.5)])
    def test_retry_later_takes_seconds_as_the_header_has_them(self, header: str | float, seconds: float) -> None:
        """`Retry-After` of RFC 9110, passed on as it is."""
        assert batchkit.RetryLater(after=header).after == seconds

    def test_retry_later_takes_dates_as_the_header_has_them(self) -> None:
        """The other form of the header; a moment that has passed is now."""
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        assert batchkit.RetryLater(after=format_datetime(soon, usegmt=True)).after == pytest.approx(3600, abs=5)
        assert batchkit.RetryLater(after="Wed, 21 Oct 2015 07:28:00 GMT").after == 0.0
        with pytest.raises(UsageError, match="'tomorrow'"):
            batchkit.RetryLater(after="tomorrow")

    def test_people_hear_of_long_waits_only(self) -> None:
        """From 5 seconds on, with the error in one line."""
        bench = Bench(Moody({1: 1}, lambda _: batchkit.RetryLater("slow\ndown", after=60)), retries=1)
        bench.pieces([1])
        assert bench.said == ["attempt 1 failed, the next one is in 60 s: 1: RetryLater: slow down"]
        bench = Bench(Moody({1: 1}), retries=1, retry_wait=1.0)
        bench.pieces([1])
        assert bench.said == []

    def test_skip_item_is_never_tried_again(self) -> None:
        """It is what the function wants; after a failed attempt, too."""
        answers = iter([ValueError(), batchkit.SkipItem("not wanted")])

        def answer(_: Any) -> None:
            raise next(answers)

        bench = Bench(answer, retries=5)
        assert (bench.pieces([1]), len(bench.calls)) == (["skipped"], 2)

    def test_unreadable_items_are_not_called(self) -> None:
        """Those around them are, each stretch on its own."""
        bench = Bench(Moody({}).all, batched=True, retries=3)
        found = bench.pieces([None, 1, 2, None, None, 3], {0: "why", 3: "why", 4: "why"})
        bad = ("failed", None, "UnreadableItem", 1)
        assert (found, [items for _, items in bench.calls]) == ([bad, 1, 2, bad, bad, 3], [[1, 2], [3]])

    @pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), StopIteration()], ids=repr)
    def test_what_leaves_quietly_is_a_failure_too(self, error: BaseException) -> None:
        """A function that calls `sys.exit()` does not end the run."""
        bench = Bench(Moody({1: math.inf}, lambda _: error))
        assert bench.pieces([0, 1, 2]) == [0, ("failed", 1, type(error).__name__, 1), 2]


class TestWaits:
    """What ends a wait early."""

    @pytest.mark.parametrize("batched", [False, True])
    def test_a_request_to_stop_ends_a_wait(self, batched: bool) -> None:
        """At once, as people see it; the item is left to the next run."""
        moody = Moody({2: math.inf})
        bench = Bench(moody.all if batched else moody, batched=batched, retries=3, retry_wait=60.0)
        bench.clock.at.append((1010.0, lambda: bench.budget.stop("SIGTERM")))
        assert bench.pieces([2, 3] if batched else [1, 2, 3]) == ([] if batched else [1])
        assert (bench.budget.reason, bench.reached) == ("SIGTERM", 0 if batched else 1)
        assert bench.clock.now - 1010.0 < 0.5
        assert max(bench.clock.naps) <= 0.1 + 1e-9

    def test_a_wait_beyond_the_deadline_is_not_begun(self) -> None:
        """The run stops now rather than wait for nothing."""
        bench = Bench(Moody({2: math.inf}), limits={"max_time": 30.0}, retries=3, retry_wait=60.0)
        assert bench.pieces([1, 2, 3]) == [1]
        assert (bench.budget.reason, bench.clock.naps, bench.reached) == ("wait", [], 1)

    def test_waits_before_the_deadline_are_made(self) -> None:
        """Two fit, the third does not."""
        bench = Bench(
            Moody({1: math.inf}, lambda _: batchkit.RetryLater(after=10)), limits={"max_time": 25.0}, retries=9
        )
        assert (bench.pieces([0, 1]), len(bench.calls), bench.budget.reason) == ([0], 4, "wait")

    def test_an_item_that_a_run_begins_with_has_no_other_run_to_wait_for(self) -> None:
        """Else no run would ever come further: the last attempt before the deadline counts."""
        bench = Bench(
            Moody({1: math.inf}, lambda _: batchkit.RetryLater(after=10)), limits={"max_time": 25.0}, retries=9
        )
        assert (bench.pieces([1, 2]), bench.budget.reason) == ([("failed", 1, "RetryLater", 3), 2], None)

    def test_runs_with_less_time_than_a_wait_come_to_an_end(self) -> None:
        """The first stops before the item, the second begins with it, keeps it as a failure and goes on."""

        def later(item: int) -> int:
            if item == 3:
                raise batchkit.RetryLater(after=3600)
            return item

        options: dict[str, Any] = {"job": "j", "on_error": "skip", "retries": 5, "max_time": 60, "progress": "none"}
        options["batch_size"] = 3  # so that the item begins a batch: what came before counts
        first = batchkit.process(range(6), later, **options)
        assert (first.status, first.done, first.failed) == ("paused", 3, 0)
        assert first.reason == "the next attempt would be beyond the time limit"
        second = batchkit.process(range(6), later, **options)
        assert (second.status, list(second.results())) == ("completed", [0, 1, 2, 4, 5])
        assert [(failure.item, failure.attempts) for failure in second.failures()] == [(3, 1)]

    def test_a_failure_behind_a_request_to_stop_is_left_to_the_next_run(self) -> None:
        """Ctrl-C reached what the function had started, too: the item is not to blame."""

        def interrupted(item: int) -> int:
            if item == 2:
                bench.budget.stop("SIGINT")
                raise OSError("interrupted")
            return item

        bench = Bench(interrupted)
        assert (bench.pieces([1, 2, 3]), bench.reached) == ([1], 1)

    def test_narrowing_ends_at_the_deadline(self) -> None:
        """What was found out by then counts; no half is called behind it."""

        def slow(items: list[int]) -> list[int]:
            bench.clock.now += 10.0
            return Moody({7: math.inf}).all(items)

        bench = Bench(slow, batched=True, limits={"max_time": 25.0})
        assert bench.pieces(range(8)) == [0, 1, 2, 3, 4, 5]
        assert (bench.budget.reason, [items for _, items in bench.calls][1:]) == ("time", [[0, 1, 2, 3], [4, 5]])

    def test_narrowing_ends_at_a_request_to_stop(self) -> None:
        """Within a call of its own; what failed then is not to blame."""

        def interrupted(items: list[int]) -> list[int]:
            if items == [4, 5]:
                bench.budget.stop("SIGTERM")
            return Moody({5: math.inf}).all(items)

        bench = Bench(interrupted, batched=True, retries=1, retry_wait=0.0)
        assert bench.pieces(range(8)) == [0, 1, 2, 3]
        assert (bench.budget.reason, bench.reached) == ("SIGTERM", 4)

    def test_the_run_is_paused_and_goes_on_with_the_item(self) -> None:
        """Through the whole of it: everything before the item is committed."""
        calls: list[str] = []

        def later(item: str) -> str:
            calls.append(item)
            if item == "3" and calls.count("3") == 1:
                raise batchkit.RetryLater(after="3600")
            return item

        Path("items.txt").write_text("1\n2\n3\n4\n")
        options: dict[str, Any] = {"output": "out.txt", "job": "j", "progress": "none", "retries": 5}
        result = batchkit.process("items.txt", later, max_time="10m", **options)
        assert (result.status, result.done, result.failed, result.exit_code) == ("paused", 2, 0, 75)
        assert "the next attempt would be beyond the time limit" in result.summary()
        result = batchkit.process("items.txt", later, **options)
        assert (result.completed, calls) == (True, ["1", "2", "3", "3", "4"])
        assert Path("out.txt").read_text() == "1\n2\n3\n4\n"


def calls_of_one(count: int, bad: int) -> int:
    """Return how many calls it takes to find one bad item among `count`: the whole fails, and so on, by halves."""
    calls, first, stop = 1, 0, count
    while stop - first > 1:
        middle = (first + stop) // 2
        calls += 1  # of the first half
        if bad < middle:
            calls += 1  # of the second, which is good
            stop = middle
        else:
            first = middle  # known to be bad, without a call
    return calls + (calls > 1 and bad == stop - 1 and _alone_by_inference(count, bad))


def _alone_by_inference(count: int, bad: int) -> bool:
    """Tell whether the bad item comes to stand alone as a second half: then it has a call of its own."""
    first, stop = 0, count
    while True:
        middle = (first + stop) // 2
        second = bad >= middle
        first, stop = (middle, stop) if second else (first, middle)
        if stop - first == 1:
            return second


class TestNarrowing:
    """How bad items are found in a batch that failed as a whole."""

    @pytest.mark.parametrize("bad", [0, 1, 2, 499, 500, 501, 750, 998, 999])
    def test_one_bad_item_among_a_thousand_is_found_in_so_many_calls(self, bad: int) -> None:
        """Exactly; twice per halving at most, as the good half has to be called anyway."""
        bench = Bench(Moody({bad: math.inf}).all, batched=True)
        found = bench.pieces(range(1000))
        assert found == [*range(bad), ("failed", bad, "ValueError", 1), *range(bad + 1, 1000)]
        assert len(bench.calls) == calls_of_one(1000, bad) <= 2 * 10 + 1

    @pytest.mark.parametrize(
        "bad",
        [
            (0, 1),
            (0, 999),
            (499, 500),
            (998, 999),
            (123, 124),
            (7, 500),
            (0, 1, 2, 3, 4),
            (0, 250, 500, 750, 999),
            (995, 996, 997, 998, 999),
            (10, 333, 334, 666, 999),
        ],
    )
    def test_several_bad_items_among_a_thousand(self, bad: tuple[int, ...]) -> None:
        """About k log2(n) calls that fail and as many that do not; no good item is lost, called in vain or blamed."""
        moody = Moody(dict.fromkeys(bad, math.inf))
        bench = Bench(moody.all, batched=True)
        found = bench.pieces(range(1000))
        assert found == [("failed", item, "ValueError", 1) if item in bad else item for item in range(1000)]
        assert len(bench.calls) <= 2 * len(bad) * (math.log2(1000) + 1)

    def test_every_item_bad_takes_two_calls_an_item(self) -> None:
        """The most there can be."""
        bench = Bench(Moody(dict.fromkeys(range(64), math.inf)).all, batched=True)
        assert bench.pieces(range(64)) == [("failed", item, "ValueError", 1) for item in range(64)]
        assert len(bench.calls) <= 2 * 64

    @settings(max_examples=150, deadline=None)
    @given(st.integers(1, 70), st.data())
    def test_whatever_is_bad_is_found(self, count: int, data: st.DataObject) -> None:
        """Items that fail, are skipped, or fail a few times only, wherever they stand."""
        fate = data.draw(
            st.dictionaries(st.integers(0, count - 1), st.sampled_from(["bad", "skip", "once"]), max_size=count)
        )
        failed_once: set[int] = set()

        def judge(items: list[int]) -> list[int]:
            for item in items:
                if fate.get(item) == "bad":
                    raise ValueError(item)
                if fate.get(item) == "skip":
                    raise batchkit.SkipItem
                if fate.get(item) == "once" and len(items) == 1 and item not in failed_once:
                    failed_once.add(item)
                    raise ValueError(item)
            return items

        bench = Bench(judge, batched=True, retries=1, retry_wait=0.0)
        expected = [
            {"bad": ("failed", item, "ValueError", 2), "skip": "skipped"}.get(fate.get(item, ""), item)
            for item in range(count)
        ]
        assert bench.pieces(range(count)) == expected

    def test_batch_and_single_items_are_tried_again_but_no_part(self) -> None:
        """`retries=2`: three calls of the whole, one of each part, three of each item alone."""
        bench = Bench(Moody({5: math.inf}).all, batched=True, retries=2, retry_wait=0.0)
        assert bench.pieces(range(8))[5] == ("failed", 5, "ValueError", 3)
        counts = Counter(tuple(items) for _, items in bench.calls)
        assert counts == {
            tuple(range(8)): 3,
            (0, 1, 2, 3): 1,
            (4, 5): 1,
            (4,): 1,
            (5,): 3,
            (6, 7): 1,
        }

    def test_a_batch_that_succeeds_the_second_time_is_not_narrowed(self) -> None:
        """Retries come first."""
        bench = Bench(Moody({5: 1}).all, batched=True, retries=1, retry_wait=0.0)
        assert (bench.pieces(range(8)), len(bench.calls)) == (list(range(8)), 2)

    def test_isolate_none_blames_all(self) -> None:
        """All items of the batch fail with its error, after its attempts; nothing is called in parts."""
        bench = Bench(Moody({5: math.inf}).all, batched=True, retries=1, retry_wait=0.0, isolate="none")
        assert bench.pieces(range(8)) == [("failed", 0, "ValueError", 2)]
        assert (bench.reached, len(bench.calls)) == (8, 2)
        result = batchkit.process(
            range(12), Moody({5: math.inf}).all, batched=True, batch_size=4, isolate="none", on_error="skip"
        )
        assert list(result.results()) == [0, 1, 2, 3, 8, 9, 10, 11]
        assert [failure.item for failure in result.failures()] == [4, 5, 6, 7]
        assert (result.done, result.failed) == (8, 4)

    def test_a_batch_that_fails_only_as_a_whole_gives_all_results(self) -> None:
        """Too much at once for a service: its parts are fine, nobody is blamed."""

        def at_most_three(items: list[int]) -> list[int]:
            if len(items) > 3:
                raise ValueError("too many")
            return [10 * item for item in items]

        result = batchkit.process(range(25), at_most_three, batched=True, batch_size=10)
        assert list(result.results()) == [10 * item for item in range(25)]

    def test_items_that_fail_only_together_are_not_blamed(self) -> None:
        """Items 0 and 9 do not go together, each alone is fine."""

        def odd_pair(items: list[int]) -> list[int]:
            if {0, 9} <= set(items):
                raise ValueError("not these two")
            return items

        result = batchkit.process(range(10), odd_pair, batched=True)
        assert (list(result.results()), result.failed) == (list(range(10)), 0)

    @pytest.mark.parametrize("seed", range(5))
    def test_results_of_another_number_than_items_keep_their_order(self, seed: int) -> None:
        """A batched function that flattens or drops; bad ones at random places."""
        bad = set(random.Random(seed).sample(range(200), 7))

        def spread(items: list[int]) -> Iterator[str]:
            for item in items:
                if item in bad:
                    raise ValueError(item)
                yield from [f"{item}.{part}" for part in range(item % 3)]

        result = batchkit.process(range(200), spread, batched=True, batch_size=50, on_error="skip")
        good = [item for item in range(200) if item not in bad]
        assert list(result.results()) == [f"{item}.{part}" for item in good for part in range(item % 3)]
        assert [failure.item for failure in result.failures()] == sorted(bad)


class TestLimit:
    """How many failures are too many."""

    @pytest.mark.parametrize(
        ("most", "handled", "failed", "raises"),
        [
            (None, 10**6, 10**6, False),
            (0, 1, 0, False),
            (0, 1, 1, True),
            (5, 5, 5, False),
            (5, 6, 6, True),
            ("5", 6, 6, True),
            ("1%", 999, 999, False),  # too early to tell
            ("1%", 1000, 10, False),
            ("1%", 1000, 11, True),
            ("0%", 1000, 1, True),
            ("100%", 1000, 1000, False),
            (" 0.1 %", 10_000, 10, False),
            ("0.1%", 10_000, 11, True),
        ],
    )
    def test_a_count_and_a_share(self, most: int | str | None, handled: int, failed: int, raises: bool) -> None:
        """As many as allowed are fine, one more is not; a share is judged from 1,000 items on."""
        limit = Limit(most, Clock())
        if raises:
            with pytest.raises(TooManyFailures):
                limit.check("job", handled, failed)
        else:
            limit.check("job", handled, failed)

    @pytest.mark.parametrize("percent", range(1, 101))
    def test_a_share_is_exact(self, percent: int) -> None:
        """29 of 100 are 29 %, however fractions are rounded."""
        limit = Limit(f"{percent}%", Clock())
        limit.check("job", 100, percent, final=True)
        with pytest.raises(TooManyFailures):
            limit.check("job", 1000, 10 * percent + 1, final=True)

    def test_a_share_is_judged_after_five_minutes_and_at_the_end(self) -> None:
        """Slow items are not waited for until there are a thousand."""
        clock = Clock()
        limit = Limit("10%", clock)
        limit.check("job", 10, 5)
        clock.now += 299.9
        limit.check("job", 10, 5)
        with pytest.raises(TooManyFailures):
            limit.check("job", 10, 5, final=True)
        clock.now += 0.1
        with pytest.raises(TooManyFailures) as caught:
            limit.check("job", 10, 5)
        assert "5 of 10 items failed" in str(caught.value)
        assert "10%" in str(caught.value)
        assert "batchkit failures job" in str(caught.value)
        assert "batchkit retry job" in str(caught.value)

    @pytest.mark.parametrize("most", [-1, 1.5, "many", "-1%", "101%", "nan", "inf", "%", ""])
    def test_other_limits_are_refused(self, most: Any) -> None:
        """With what was given, and what may be."""
        with pytest.raises(UsageError, match="max_failures"):
            Limit(most)


class TestMaxFailures:
    """Limits in a run."""

    @pytest.mark.parametrize("batched", [False, True])
    def test_too_many_end_the_run_and_what_was_handled_is_committed(self, batched: bool) -> None:
        """The same limit fails at once, without a call; a higher one goes on and publishes."""
        Path("items.txt").write_text("".join(f"{number}\n" for number in range(100)))
        calls: list[str] = []

        def even(item: str) -> str:
            calls.append(item)
            if int(item) % 2:
                raise ValueError(item)
            return item

        def evens(items: list[str]) -> list[str]:
            return [even(item) for item in items]

        def run(most: int | str) -> batchkit.Result:
            options: dict[str, Any] = {"output": "out.txt", "batch_size": 10, "job": "j", "progress": "none"}
            function = evens if batched else even
            return batchkit.process(
                "items.txt", function, batched=batched, on_error="skip", max_failures=most, **options
            )

        with pytest.raises(TooManyFailures, match="15 of 30 items failed, more than max_failures=12"):
            run(12)
        status = batchkit.Job("j").status()
        assert (status.status, status.done, status.failed) == ("failed", 15, 15)
        assert not Path("out.txt").exists()
        before = len(calls)
        with pytest.raises(TooManyFailures):
            run(12)
        assert len(calls) == before
        with pytest.raises(TooManyFailures):
            run("49%")
        assert not Path("out.txt").exists()
        with pytest.raises(TooManyFailures):
            run("49%")
        assert not Path("out.txt").exists()
        result = run(50)
        assert (result.completed, result.done, result.failed, result.exit_code) == (True, 50, 50, 3)
        assert Path("out.txt").read_text() == "".join(f"{number}\n" for number in range(0, 100, 2))
        assert [failure.item for failure in result.failures()] == [str(number) for number in range(1, 100, 2)]

    def test_skipped_items_are_no_failures(self) -> None:
        """They count as handled only."""

        def skip(_: int) -> None:
            raise batchkit.SkipItem

        result = batchkit.process(range(10), skip, on_error="skip", max_failures=0)
        assert (result.done, result.failed, result.skipped, result.exit_code) == (0, 0, 10, 0)

    def test_too_many_in_memory(self) -> None:
        """Without a job, too."""
        with pytest.raises(TooManyFailures):
            batchkit.process(range(10), Moody({1: math.inf, 2: math.inf}), on_error="skip", max_failures=1)

    def test_a_limit_does_not_stop_a_retry(self) -> None:
        """Which can only make it better, and after which the job goes on."""
        Path("items.txt").write_text("1\n2\n3\n")
        options: dict[str, Any] = {"output": "out.txt", "job": "j", "progress": "none", "on_error": "skip"}
        with pytest.raises(TooManyFailures):
            batchkit.process("items.txt", Moody({"1": 9, "2": 9}), max_failures=1, **options)
        retried = batchkit.Job("j").retry(Moody({"1": 9}), progress="none")
        assert (retried.done, retried.failed) == (1, 1)
        result = batchkit.process("items.txt", Moody({}), max_failures=1, **options)
        assert (result.completed, result.failed, Path("out.txt").read_text()) == (True, 1, "2\n3\n")


class TestStopping:
    """`on_error="stop"`."""

    @pytest.mark.parametrize("batched", [False, True])
    @pytest.mark.parametrize("bad", [0, 3, 4, 9])
    def test_everything_before_is_committed_and_the_next_run_begins_there(self, batched: bool, bad: int) -> None:
        """The message names item, place, error and next step; the error is the cause."""
        Path("items.txt").write_text("".join(f"item-{number}\n" for number in range(10)))
        moody = Moody({f"item-{bad}": math.inf})
        options: dict[str, Any] = {"output": "out.txt", "job": "j", "progress": "none", "batch_size": 4}
        function: Any = moody.all if batched else moody
        with pytest.raises(ItemError) as caught:
            batchkit.process("items.txt", function, batched=batched, **options)
        text = str(caught.value)
        assert all(part in text for part in (f"'item-{bad}'", f"line {bad + 1}", "ValueError", "--on-error skip"))
        assert (caught.value.item, type(caught.value.__cause__)) == (f"item-{bad}", ValueError)
        assert f"line {bad + 1}" in str(caught.value.position)
        status = batchkit.Job("j").status()
        assert (status.status, status.done, status.failed) == ("failed", bad, 0)
        assert list(batchkit.Job("j").results()) == [f"item-{number}" for number in range(bad)]
        assert list(batchkit.Job("j").failures()) == []
        moody.left.clear()
        moody.calls.clear()
        result = batchkit.process("items.txt", function, batched=batched, **options)
        assert (result.completed, result.done) == (True, 10)
        assert set(moody.calls) == {f"item-{number}" for number in range(bad, 10)}
        assert Path("out.txt").read_text() == Path("items.txt").read_text()

    def test_attempts_are_named(self) -> None:
        """How often it was tried."""
        with pytest.raises(ItemError, match="in 3 attempts: ValueError: 1"):
            batchkit.process([1], Moody({1: 9}), retries=2, retry_wait=0)

    def test_the_policy_may_change_with_every_run(self) -> None:
        """Stopped at an item, passed over the next time."""
        options: dict[str, Any] = {"job": "j", "progress": "none"}
        with pytest.raises(ItemError):
            batchkit.process(range(5), Moody({2: 9}), **options)
        result = batchkit.process(range(5), Moody({2: 9}), on_error="skip", **options)
        assert (list(result.results()), [failure.run for failure in result.failures()]) == ([0, 1, 3, 4], [2])

    @pytest.mark.parametrize(
        "options",
        [
            {"on_error": "go"},
            {"isolate": "some"},
            {"retries": -1},
            {"retry_on": "ValueError"},
            {"retry_on": (ValueError, 1)},
            {"retry_wait": -1},
            {"retry_max_wait": "soon"},
            {"max_failures": "x"},
        ],
        ids=repr,
    )
    def test_wrong_options_are_refused(self, options: dict[str, Any]) -> None:
        """By name."""
        with pytest.raises(UsageError, match=next(iter(options))):
            batchkit.process([1], **options)


class TestSkipping:
    """`SkipItem`."""

    @pytest.mark.parametrize("batched", [False, True])
    def test_an_item_is_dropped_and_counted_apart(self, batched: bool) -> None:
        """In status, result and summary; also under `on_error="stop"`."""

        def odd(item: str) -> str:
            if int(item) % 2 == 0:
                raise batchkit.SkipItem("even")
            return item

        def odds(items: list[str]) -> list[str]:
            return [odd(item) for item in items]

        Path("items.txt").write_text("1\n2\n3\n4\n5\n")
        result = batchkit.process(
            "items.txt", odds if batched else odd, batched=batched, output="out.txt", job="j", progress="none"
        )
        assert (result.done, result.failed, result.skipped, result.total, result.exit_code) == (3, 0, 2, 5, 0)
        assert "3 items done, 2 skipped" in result.summary()
        status = batchkit.Job("j").status()
        assert (status.done, status.failed, status.skipped, status.total) == (3, 0, 2, 5)
        assert (Path("out.txt").read_text(), list(result.failures())) == ("1\n3\n5\n", [])

    def test_isolate_none_skips_the_batch(self) -> None:
        """There is nobody else to ask which item was meant."""

        def none(items: list[int]) -> list[int]:
            if 2 in items:
                raise batchkit.SkipItem
            return items

        result = batchkit.process(range(6), none, batched=True, batch_size=3, isolate="none")
        assert (list(result.results()), result.skipped, result.failed) == ([3, 4, 5], 3, 0)


def failing_deeply(item: Any) -> Any:
    """Fail in a function of its own."""
    return _fail(item)


async def failing_later(item: Any) -> Any:
    """Fail in an event loop."""
    return _fail(item)


def _fail(item: Any) -> Any:
    raise LookupError(f"nothing known of {item}")


class Wordless(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no words")


class TestWhatIsKept:
    """Of a failure."""

    @pytest.mark.parametrize("job", ["j", None])
    def test_all_that_is_known_of_it(self, job: str | None) -> None:
        """Item, place, error, message, traceback without batchkit's own calls, attempts, run, time."""
        before = datetime.datetime.now(datetime.UTC).timestamp()
        result = batchkit.process(
            [{"id": 1}], failing_deeply, retries=1, retry_wait=0, on_error="skip", job=job, progress="none"
        )
        (failure,) = result.failures()
        assert (failure.item, failure.at, failure.where) == ({"id": 1}, 0, "item 0")
        assert (failure.error, failure.message) == ("LookupError", "nothing known of {'id': 1}")
        assert (failure.attempts, failure.run, failure.unreadable, failure.kept_as_text) == (2, 1, False, False)
        assert before - 1 <= failure.time <= before + 60
        lines = failure.traceback.splitlines()
        assert (lines[0], lines[-1]) == (
            "Traceback (most recent call last):",
            "LookupError: nothing known of {'id': 1}",
        )
        assert [line.split()[-1] for line in lines if line.startswith("  File")] == ["failing_deeply", "_fail"]

    @pytest.mark.parametrize("kind", ["generator", "batched", "generating batch", "async", "async generator", "class"])
    def test_a_traceback_begins_in_the_function(self, kind: str) -> None:
        """However it is called."""

        def generator(item: Any) -> Iterator[Any]:
            yield 1
            yield _fail(item)

        def batch(items: list[Any]) -> Iterator[Any]:
            yield from map(_fail, items)

        async def awaited(item: Any) -> Any:
            return _fail(item)

        async def generated(item: Any) -> Any:
            yield _fail(item)

        class Called:
            def __call__(self, item: Any) -> Any:
                return _fail(item)

        function: Any = {
            "generator": generator,
            "batched": lambda items: [_fail(items[0])],
            "generating batch": batch,
            "async": awaited,
            "async generator": generated,
            "class": Called,
        }[kind]
        result = batchkit.process([1], function, batched="batch" in kind, on_error="skip")
        (failure,) = result.failures()
        files = [line.split('"')[1] for line in failure.traceback.splitlines() if line.startswith("  File")]
        assert files == [__file__, __file__]

    @pytest.mark.slow
    def test_a_traceback_from_a_worker_begins_in_the_function_too(self) -> None:
        """Without the event loop's part."""
        result = batchkit.process([1], failing_later, isolate_process=True, on_error="skip", progress="none")
        (failure,) = result.failures()
        files = [line.split('"')[1] for line in failure.traceback.splitlines() if line.startswith("  File")]
        assert files == [__file__, __file__]

    def test_causes_are_told(self) -> None:
        """As Python tells them."""

        def wrapped(item: int) -> None:
            try:
                _fail(item)
            except LookupError as error:
                raise ValueError("wrapped") from error

        (failure,) = batchkit.process([1], wrapped, on_error="skip").failures()
        assert "LookupError: nothing known of 1" in failure.traceback
        assert "direct cause" in failure.traceback

    def test_long_messages_and_tracebacks_are_cut(self) -> None:
        """To the beginning of the one, the end of the other."""
        result = batchkit.process(["x" * 100_000], failing_deeply, on_error="skip", job="j", progress="none")
        (failure,) = result.failures()
        assert (len(failure.message), len(failure.traceback)) == (4 << 10, 8 << 10)

    def test_an_error_without_words_is_kept_all_the_same(self) -> None:
        """Whatever its `__str__` does: it ends the item, not the run."""

        def wordless(_: int) -> None:
            raise Wordless

        result = batchkit.process([1, 2], wordless, on_error="skip", retries=1, retry_wait=0, job="j", progress="none")
        assert [failure.message for failure in result.failures()] == ["(RuntimeError in its __str__)"] * 2
        with pytest.raises(ItemError, match=r"Wordless: \(RuntimeError in its __str__\)"):
            batchkit.process([1, 2], wordless)

    def test_an_item_that_cannot_be_shown_is_named_by_its_type(self) -> None:
        """Whatever its `__repr__` does."""

        class Silent:
            def __repr__(self) -> str:
                raise RuntimeError("no repr")

        with pytest.raises(ItemError, match=r"a Silent \(RuntimeError in its repr\) at item 0"):
            batchkit.process([Silent()], _fail_plainly)
        (failure,) = batchkit.process([Silent()], _fail_plainly, on_error="skip", job="j", progress="none").failures()
        assert (failure.item, failure.kept_as_text) == ("a Silent (RuntimeError in its repr)", True)

    def test_items_that_no_text_holds_fail_like_others(self) -> None:
        """One that holds itself, one with more digits than Python prints."""
        endless: list[Any] = []
        endless.append(endless)
        result = batchkit.process([endless, 10**5_000], _fail_plainly, on_error="skip", job="j", progress="none")
        first, second = result.failures()
        assert (first.item, first.kept_as_text) == ("[[...]]", True)
        assert (second.item == 10**5_000, second.kept_as_text) == (True, False)
        assert list(batchkit.process([endless, 10**5_000], lambda _: 1).results()) == [1, 1]

    def test_files_with_failures_are_private_and_stand_beside_the_journal(self) -> None:
        """They hold items, which may be anybody's."""
        batchkit.process([1], _fail_plainly, on_error="skip", job="j", progress="none")
        path = Path(".batchkit/j/shards/00000.failures.jsonl")
        assert path.stat().st_mode & 0o777 == 0o600
        header, entry = map(json.loads, path.read_text().splitlines())
        assert (header["format"], header["schema"], entry["item"]) == (1, None, 1)

    def test_no_failures_leave_no_file(self) -> None:
        """Nor any trace."""
        batchkit.process([1], job="j", progress="none")
        assert not Path(".batchkit/j/shards/00000.failures.jsonl").exists()


def _fail_plainly(_: Any) -> None:
    raise ValueError("no")


class TestUnreadable:
    """Items that cannot be read fail; the run goes on."""

    @pytest.mark.parametrize(
        ("name", "content", "options", "good", "bad"),
        [
            ("a.txt", b"one\n\xff\xfe\nthree\n", {}, ["one", "three"], {1: "UTF-8"}),
            ("a.txt", b"\xff\n\xff\n", {}, [], {0: "UTF-8", 1: "UTF-8"}),
            ("a.txt", b"one\n" + b"x" * 200 + b"\nthree\n", {"max_item_bytes": 100}, ["one", "three"], {1: "100"}),
            ("a.jsonl", b'{"a":1}\n{"a":\n[2]\n', {}, [{"a": 1}, [2]], {1: "JSON"}),
            ("a.jsonl", b'{"a":NaN}\n1\n', {}, [1], {0: "JSON"}),
            ("a.csv", b"a,b\n1,2\n3,4,5\n6\n7,8\n", {}, [{"a": "1", "b": "2"}, {"a": "7", "b": "8"}], {1: "", 2: ""}),
        ],
    )
    @pytest.mark.parametrize("batched", [False, True])
    def test_an_unreadable_item_is_kept_and_the_run_goes_on(
        self, name: str, content: bytes, options: dict[str, Any], good: list[Any], bad: dict[int, str], batched: bool
    ) -> None:
        """Its place and the reason are; there is no item."""
        Path(name).write_bytes(content)
        reader: Any = {"txt": batchkit.lines, "jsonl": batchkit.ndjson, "csv": batchkit.csv}[name.split(".")[1]]

        def same(items: Any) -> Any:
            return items if isinstance(items, list) or not batched else items.to_dicts()

        result = batchkit.process(
            reader(name, **options), same, batched=batched, on_error="skip", output="out.jsonl", progress="none"
        )
        assert (list(result.results()), result.failed) == (good, len(bad))
        for failure, (number, why) in zip(result.failures(), bad.items(), strict=True):
            assert (failure.number, failure.item, failure.unreadable) == (number, None, True)
            assert (failure.error, failure.attempts, failure.traceback) == ("UnreadableItem", 1, "")
            assert why in failure.message
            assert name in failure.where

    def test_under_stop_it_ends_the_run(self) -> None:
        """With its place and the reason."""
        Path("a.txt").write_bytes(b"one\n\xff\n")
        with pytest.raises(ItemError, match=r"the item at 'a.txt' line 2 \(byte 4\) cannot be read: .*UTF-8"):
            batchkit.process("a.txt", output="out.txt", job="j", progress="none")
        assert batchkit.Job("j").status().done == 1


class TestRefusedResults:
    """A result that the output cannot hold is that item's failure."""

    @pytest.mark.parametrize(
        ("output", "results", "bad"),
        [
            ("o.txt", ["a", "b\nc", "d", "e\n", "f"], [1, 3]),
            ("o.txt", ["a", "\ud800", "c"], [1]),
            ("o.jsonl", [1, math.nan, 2, [math.inf], {"x": object()}, 3], [1, 3, 4]),
            ("o.jsonl", ["a", "\ud800", {1, 2}], [1, 2]),
            ("o.csv", [{"a": 1}, {"a": 2, "b": 3}, {"a": 4}], [1]),
            ("o.tsv", [{"a": 1, "b": 2}, "text", {"b": 1, "a": 2}], [1]),
            ("o.csv.gz", [{"a": 1}, {"c": 2}, {"a": 2}], [1]),
            ("o.parquet", [{"a": 1}, {"a": "text"}, {"a": 3}, {"b": 1}], [1, 3]),
            ("out/", [{"a": 1}, {"a": [1]}, {"a": 3}], [1]),
        ],
    )
    @pytest.mark.parametrize("kind", ["plain", "generator", "batched", "flattening"])
    @pytest.mark.parametrize("size", [1, 2, 100])
    def test_each_is_found_and_kept(
        self, output: str, results: list[Any], bad: list[int], kind: str, size: int
    ) -> None:
        """Whatever the function is: where results are not one per item, by narrowing."""

        def plain(item: int) -> Any:
            return results[item]

        def generator(item: int) -> Iterator[Any]:
            yield results[item]

        def batched(items: list[int]) -> list[Any]:
            return [results[item] for item in items]

        def flattening(items: list[int]) -> list[Any]:
            return [results[item] for item in items for _ in range(2)]

        function: Any = {"plain": plain, "generator": generator, "batched": batched, "flattening": flattening}[kind]
        result = batchkit.process(
            range(len(results)),
            function,
            batched=function in {batched, flattening},
            batch_size=size,
            output=output,
            on_error="skip",
            progress="none",
        )
        times = 2 if kind == "flattening" else 1
        stored = [results[item] for item in range(len(results)) if item not in bad for _ in range(times)]
        if ".csv" in output or ".tsv" in output:
            stored = [{name: str(value) for name, value in row.items()} for row in stored]
        found = list(result.results())
        if ".csv" in output or ".tsv" in output:
            found = [{name: str(value) for name, value in row.items()} for row in found]
        assert (found, [failure.item for failure in result.failures()]) == (stored, bad)
        assert {failure.error for failure in result.failures()} == {"ResultError"}
        assert {failure.traceback for failure in result.failures()} == {""}
        assert (result.done, result.failed) == (len(results) - len(bad), len(bad))

    def test_under_stop_it_ends_the_run_at_its_item(self) -> None:
        """Which the next run begins with."""
        with pytest.raises(ItemError, match=r"the result of 1 at item 1 .* cannot be stored"):
            batchkit.process([0, 1, 2], ["a", "b\n", "c"].__getitem__, output="o.txt", job="j", progress="none")
        assert (batchkit.Job("j").status().done, list(batchkit.Job("j").results())) == (1, ["a"])
        result = batchkit.process([0, 1, 2], ["a", "b", "c"].__getitem__, output="o.txt", job="j", progress="none")
        assert (result.done, Path("o.txt").read_text()) == (3, "a\nb\nc\n")

    def test_refused_results_are_not_called_again(self) -> None:
        """Where it is known whose they are: a call may have cost something."""
        moody = Moody({})
        result = batchkit.process(
            ["a", "b\n", "c"], moody, output="o.txt", on_error="skip", retries=3, retry_wait=0, progress="none"
        )
        assert (result.failed, moody.calls) == (1, {"a": 1, "b\n": 1, "c": 1})


class TestStops:
    """What ends in time, whatever a function does."""

    def test_a_failure_of_the_last_attempt_behind_a_request_to_stop_is_left_to_the_next_run(self) -> None:
        """As one of the first attempt is."""
        attempts = []

        def interrupted(item: int) -> int:
            attempts.append(item)
            if len(attempts) == 2:
                bench.budget.stop("SIGINT")
            raise OSError(item)

        bench = Bench(interrupted, retries=1, retry_wait=0.0)
        assert (bench.pieces([1]), attempts) == ([], [1, 1])

    def test_results_that_are_refused_are_not_narrowed_beyond_the_deadline(self) -> None:
        """Where nobody knows whose they are, the function is called on ever smaller parts: that can be stopped."""
        clock = Clock()

        def slow(items: list[int]) -> list[str]:
            clock.now += 10.0
            return ["a\nb"] * (2 * len(items))

        budget = Budget(max_time=25.0, clock=clock, sleep=clock.sleep, divisible=False)
        calls: list[int] = []

        class Counting(Caller):
            def __call__(self, batch: Any, seq: int, first: int = 0, stop: int | None = None) -> Any:
                calls.append(first)
                return super().__call__(batch, seq, first, stop)

        batch = IndexBatch(list(range(64)), 0)
        caller = Counting(slow, batched=True, identity=Identity("j", "u", 0))
        policy = Policy(on_error="skip")
        handler = Handler(
            shard=0,
            reader=SequenceReader(range(64)),
            writer=Refusing(),  # type: ignore[arg-type]
            kept=FailuresInMemory(),
            attempts=Attempts(caller, policy, budget, print),
            policy=policy,
        )
        last = Checkpoint(0, 0, 0, 0, 0, 0, None, 1, 0.0, 0.0)
        assert handler.handle(batch, caller(batch, 1), last).reached == 0
        caller.close()
        assert len(calls) < 6


class Refusing:
    """A writer that takes nothing, and cannot say which result it is."""

    def write(self, _results: Any) -> None:
        raise ResultError(None, "it does not fit")


@pytest.mark.slow
class TestDeadlyItems:
    """Items during which the process of the function dies."""

    def test_an_item_is_tried_once_more_and_no_more(self) -> None:
        """Whoever killed the process may have meant another; a second death is the item's, whatever `retries` says."""

        def dies(item: int) -> int:
            with open(f"calls-{item}", "a", encoding="ascii") as file:
                file.write("x")
            if item == 2 or (item == 1 and Path("calls-1").read_text() == "x"):
                os._exit(3)
            return item

        result = batchkit.process(range(4), dies, on_error="skip", isolate_process=True, progress="none")
        assert list(result.results()) == [0, 1, 3]
        (failure,) = result.failures()
        assert (failure.item, failure.error, failure.attempts) == (2, "WorkerDied", 2)
        assert failure.message == "the worker died, exit status 3"
        assert [Path(f"calls-{item}").read_text() for item in range(4)] == ["x", "xx", "xx", "x"]


class TestAsyncFunctions:
    """What an async function raises is its item's, too, and what it leaves behind holds nobody up."""

    def test_exits_fail_the_item(self) -> None:
        """`SystemExit` would end the event loop."""

        async def leaves(item: int) -> int:
            if item == 1:
                sys.exit(3)
            return item

        result = batchkit.process(range(3), leaves, on_error="skip", progress="none")
        assert list(result.results()) == [0, 2]
        assert [failure.error for failure in result.failures()] == ["SystemExit"]

    def test_an_interrupt_ends_the_run(self) -> None:
        """As in a plain function."""

        async def interrupts(_: int) -> int:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            batchkit.process(range(3), interrupts, progress="none")

    def test_tasks_that_will_not_end_do_not_hold_up_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are cancelled, and left alone after some seconds."""
        monkeypatch.setattr("batchkit.awaiting._GRACE", 0.05)
        tasks = []

        async def stubborn() -> None:
            while not done:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.1)

        async def starts(item: int) -> int:
            tasks.append(asyncio.ensure_future(stubborn()))
            return item

        done: list[bool] = []
        assert batchkit.process(range(2), starts, progress="none").done == 2
        done.append(True)

    def test_panics_are_failures(self) -> None:
        """Errors of extensions in Rust are no `Exception`s."""

        class Panic(BaseException):
            pass

        def panics(item: int) -> int:
            if item == 1:
                raise Panic("called `Option::unwrap()` on a `None` value")
            return item

        result = batchkit.process(range(3), panics, on_error="skip", progress="none")
        assert [failure.error for failure in result.failures()] == ["Panic"]
