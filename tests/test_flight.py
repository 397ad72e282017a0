"""Calls in flight: they overlap, what they give is committed in input order, and stops are as exact as without."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings, strategies as st

import batchkit
from batchkit.errors import ItemError, RetryLater, SkipItem, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("workdir")

PATIENCE = 20.0
"""Seconds after which what should have happened counts as not happening."""


def values(result: batchkit.Result) -> list[Any]:
    """Return the results of a run."""
    return list(result.results())


class Meeting:
    """A function whose calls wait until so many of them are there at once."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=PATIENCE)

    def __call__(self, item: Any) -> Any:
        self.barrier.wait()
        return item


def tripled(item: int) -> int:
    """Return three times the number."""
    return 3 * item


def where(item: int) -> tuple[int, int]:
    """Return the process of a call."""
    time.sleep(0.01)
    return item, os.getpid()


class TestOverlap:
    """Calls are in flight together."""

    def test_plain_functions_are_called_in_threads(self) -> None:
        """Four calls meet, which none of them could do alone."""
        assert values(batchkit.process(range(12), Meeting(4).__call__, batch_size=4, concurrency=4)) == [*range(12)]

    def test_calls_of_several_batches_overlap(self) -> None:
        """With a batch for each item, four batches are in flight."""
        assert values(batchkit.process(range(12), Meeting(4).__call__, batch_size=1, concurrency=4)) == [*range(12)]

    def test_batched_functions_have_batches_in_flight(self) -> None:
        """The unit of a batched function is the batch."""
        result = batchkit.process(range(12), Meeting(4).__call__, batched=True, batch_size=1, concurrency=4)
        assert values(result) == [*range(12)]

    def test_async_functions_share_one_event_loop(self) -> None:
        """Calls are tasks of one loop; four of them meet."""
        loops = set()
        here: list[int] = []

        async def meet(item: int) -> int:
            loops.add(asyncio.get_running_loop())
            here.append(item)
            together = (len(here) + 3) // 4 * 4
            while len(here) < together:  # noqa: ASYNC110  # an event would have to know the last one
                await asyncio.sleep(0.001)
            return item

        assert values(batchkit.process(range(12), meet, batch_size=5, concurrency=4)) == [*range(12)]
        assert len(loops) == 1

    @pytest.mark.slow
    def test_isolated_functions_have_a_process_each(self) -> None:
        """Each slot has a child of its own."""
        result = batchkit.process(range(30), where, concurrency=3, isolate_process=True, batch_size=4)
        items, processes = zip(*values(result), strict=True)
        assert items == tuple(range(30))
        assert len({*processes} - {os.getpid()}) == 3

    def test_a_class_is_made_once_for_all_threads(self) -> None:
        """All slots share the instance; it is closed at the end, when no call is in flight."""
        made: list[Any] = []

        class Client:
            def __init__(self) -> None:
                made.append(self)
                self.closed = False

            def __call__(self, item: int) -> int:
                assert not self.closed
                return item

            def close(self) -> None:
                self.closed = True

        assert values(batchkit.process(range(50), Client, concurrency=4, batch_size=7)) == [*range(50)]
        assert [client.closed for client in made] == [True]

    def test_a_slow_item_stalls_only_its_own_slot(self) -> None:
        """While the first item is in flight, all of those in the window are called."""
        slow, called = threading.Event(), []

        def call(item: int) -> int:
            if item == 0:
                assert slow.wait(PATIENCE)
            called.append(item)
            if len(called) == 20:
                slow.set()
            return item

        assert values(batchkit.process(range(40), call, batch_size=5, concurrency=4)) == [*range(40)]
        assert called.index(0) >= 20

    @pytest.mark.slow
    def test_the_window_is_bounded(self) -> None:
        """However slow an item is, only so much is read and called ahead of it."""
        slow = threading.Event()
        called: list[tuple[int, int]] = []
        read: list[int] = []

        def source() -> Iterator[int]:
            for item in range(1000):
                read.append(item)
                yield item

        def call(item: int) -> int:
            if item == 0:
                slow.wait(1.0)
                called.append((len(read), len(called)))
            else:
                called.append((0, 0))
            return item

        assert values(batchkit.process(source(), call, batch_size=5, concurrency=2)) == [*range(1000)]
        ahead = next(each for each in called if each[0])
        assert 10 <= ahead[1] < ahead[0] <= 5 + 8 * 2 + 5

    def test_current_batch_is_that_of_each_slot(self) -> None:
        """Number, key and item keys are those of the item in hand, the same as without calls in flight."""

        def told(item: int) -> list[Any]:
            time.sleep(0.0005)
            batch = batchkit.current_batch()
            return [
                item,
                batch.number,
                batch.cursor,
                batch.key.split(":")[1],
                [k.split(":")[1] for k in batch.item_keys],
            ]

        async def atold(item: int) -> list[Any]:
            await asyncio.sleep(0.0005)
            return told(item)

        alone = values(batchkit.process(range(30), told, batch_size=7))
        assert [each[1] for each in alone] == [*range(1, 31)]
        for function in (told, atold):
            assert values(batchkit.process(range(30), function, batch_size=7, concurrency=5)) == alone

    def test_generators_give_their_results_in_order(self) -> None:
        """Of generator functions, plain and async, each yielded value is a result."""

        def times(item: int) -> Iterator[int]:
            for _ in range(item % 4):
                time.sleep(0.0002)
                yield item

        async def atimes(item: int) -> Any:
            for each in times(item):
                await asyncio.sleep(0)
                yield each

        expected = [item for item in range(40) for _ in range(item % 4)]
        for function in (times, atimes):
            assert values(batchkit.process(range(40), function, batch_size=6, concurrency=4)) == expected


class TestStops:
    """Budgets and requests to stop."""

    @pytest.mark.parametrize("batched", [False, True])
    def test_item_budgets_are_exact(self, batched: bool) -> None:
        """What was begun is what was committed."""
        calls: list[Any] = []

        def call(item: Any) -> Any:
            calls.extend(item if batched else [item])
            return item

        done = 0
        for count in (13, 1, 40, 7):
            result = batchkit.process(
                range(100), call, batched=batched, batch_size=9, concurrency=4, max_items=count, job="budget"
            )
            done += count
            assert (result.done, result.reason, len(calls)) == (done, "the number of items asked for is done", done)
        result = batchkit.process(range(100), call, batched=batched, batch_size=9, concurrency=4, job="budget")
        assert result.completed
        assert Counter(calls) == Counter(range(100))
        assert values(result) == [*range(100)]

    def test_batch_budgets_are_exact(self) -> None:
        """So many batches are begun, and committed."""
        calls: list[int] = []
        result = batchkit.process(range(100), calls.append, batch_size=5, concurrency=4, max_batches=3, job="batches")
        assert (result.done, len(calls)) == (15, 15)

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_a_request_to_stop_commits_all_that_has_begun(self, asynchronous: bool) -> None:
        """Nothing more begins; what is in flight ends and is committed, in the middle of a batch too."""
        begun: list[int] = []

        def begin(item: int) -> None:
            begun.append(item)
            if item == 17:
                os.kill(os.getpid(), signal.SIGTERM)

        def call(item: int) -> int:
            begin(item)
            time.sleep(0.002)
            return item

        async def acall(item: int) -> int:
            begin(item)
            await asyncio.sleep(0.002)
            return item

        function = acall if asynchronous else call
        result = batchkit.process(range(1000), function, batch_size=10, concurrency=4, job="stop")
        assert result.reason is not None
        assert "SIGTERM" in result.reason
        assert sorted(begun) == [*range(result.done)]
        result = batchkit.process(range(1000), function, batch_size=10, concurrency=4, job="stop")
        assert sorted(begun) == [*range(1000)]
        assert values(result) == [*range(1000)]

    def test_a_slow_batch_is_committed_as_far_as_it_is_done(self) -> None:
        """After `batch_seconds` what came before the slow item is committed; its calls stay in flight, each once."""
        journal = Path(".batchkit/hasty/shards/00000.jsonl")
        calls: list[int] = []

        def call(item: int) -> int:
            calls.append(item)
            deadline = time.monotonic() + PATIENCE
            while item == 7 and not (journal.exists() and '"done":7' in journal.read_text().replace(" ", "")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return item

        result = batchkit.process(range(30), call, batch_size=10, concurrency=3, batch_seconds=0.1, job="hasty")
        assert values(result) == [*range(30)]
        assert Counter(calls) == Counter(range(30))

    def test_the_deadline_lets_nothing_begin(self) -> None:
        """Behind `max_time` nothing begins, and all that had begun is committed."""
        begun: list[int] = []

        def call(item: int) -> int:
            begun.append(item)
            time.sleep(0.02)
            return item

        result = batchkit.process(range(10_000), call, concurrency=4, max_time=0.3, job="late")
        assert not result.completed
        assert sorted(begun) == [*range(result.done)]

    def test_keyboard_interrupt_of_a_function_ends_the_run(self) -> None:
        """As without calls in flight, what came before it is committed."""

        def call(item: int) -> int:
            if item == 25:
                raise KeyboardInterrupt
            return item

        with pytest.raises(KeyboardInterrupt):
            batchkit.process(range(100), call, batch_size=10, concurrency=4, job="interrupted")
        assert batchkit.Job("interrupted").status().done == 25

    def test_a_broken_source_is_told_behind_what_came_before(self) -> None:
        """What was read is committed before the source's error ends the run."""

        def source() -> Iterator[int]:
            yield from range(25)
            raise OSError("gone")

        with pytest.raises(batchkit.BatchkitError, match="gone"):
            batchkit.process(source(), tripled, batch_size=10, concurrency=4, job="broken")
        assert batchkit.Job("broken").status().done >= 20

    def test_a_wait_is_ended_by_a_request_to_stop(self) -> None:
        """An item that waits for its next attempt is left to the next run."""

        def call(item: int) -> int:
            if item == 3:
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
                raise RetryLater(after=600)
            return item

        begun = time.monotonic()
        result = batchkit.process(range(10), call, concurrency=2, retries=1, job="waiting")
        assert time.monotonic() - begun < PATIENCE
        assert (result.status, result.done) == ("paused", 3)


class TestFailures:
    """What fails, fails as without calls in flight."""

    def test_further_attempts_of_items_overlap(self) -> None:
        """Items that wait for their next attempt hold up no other, nor each other."""
        tries: Counter[int] = Counter()
        meeting = threading.Barrier(4, timeout=PATIENCE)

        def call(item: int) -> int:
            tries[item] += 1
            if item < 4 and tries[item] == 1:
                raise OSError("not yet")
            if item < 4:
                meeting.wait()
            return item

        result = batchkit.process(range(12), call, concurrency=4, retries=1, retry_wait=0.01)
        assert values(result) == [*range(12)]
        assert tries == {item: 2 if item < 4 else 1 for item in range(12)}

    @pytest.mark.parametrize("concurrency", [1, 4])
    def test_failures_are_kept_with_attempts_and_tracebacks(self, concurrency: int) -> None:
        """The same as without calls in flight: in order, with item, error, attempts and the function's traceback."""

        def call(item: int) -> int:
            if item % 7 == 3:
                raise ValueError(f"bad {item}")
            if item % 7 == 5:
                raise SkipItem
            return item

        result = batchkit.process(
            range(40), call, batch_size=9, concurrency=concurrency, on_error="skip", retries=2, retry_wait=0.001
        )
        assert values(result) == [item for item in range(40) if item % 7 not in {3, 5}]
        kept = [(each.item, each.message, each.attempts) for each in result.failures()]
        assert kept == [(item, f"bad {item}", 3) for item in range(3, 40, 7)]
        assert all("in call" in each.traceback and "slots.py" not in each.traceback for each in result.failures())
        assert result.skipped == 5

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_the_first_failure_in_input_order_ends_the_run(self, asynchronous: bool) -> None:
        """Whatever fails first in time; what comes before it is committed."""
        late = threading.Event()

        def call(item: int) -> int:
            if item == 14:
                late.wait(0.2)
                raise ValueError("first")
            if item == 16:
                late.set()
                raise ValueError("second")
            return item

        async def acall(item: int) -> int:
            if item == 14:
                await asyncio.sleep(0.05)
            return call(item)

        function = acall if asynchronous else call
        with pytest.raises(ItemError, match="first") as caught:
            batchkit.process(range(1000), function, batch_size=5, concurrency=4, job="first")
        assert caught.value.item == 14
        assert batchkit.Job("first").status().done == 14

    def test_batches_that_fail_are_narrowed_down(self) -> None:
        """Bad items of batched functions stand alone in the end, while other batches are in flight."""

        def call(items: list[int]) -> list[int]:
            if {13, 14, 77} & {*items}:
                raise ValueError("bad")
            return [3 * item for item in items]

        result = batchkit.process(range(100), call, batched=True, batch_size=10, concurrency=4, on_error="skip")
        assert values(result) == [3 * item for item in range(100) if item not in {13, 14, 77}]
        assert [(each.item, each.attempts) for each in result.failures()] == [(13, 1), (14, 1), (77, 1)]

    def test_items_that_cannot_be_read_are_not_called(self) -> None:
        """They fail in their place."""
        Path("in.txt").write_bytes(b"a\nb\n\xff\nc\n\xfe\n")
        result = batchkit.process("in.txt", str.upper, concurrency=3, on_error="skip")
        assert values(result) == ["A", "B", "C"]
        assert [each.unreadable for each in result.failures()] == [True, True]

    def test_refused_results_are_failures_of_their_items(self) -> None:
        """With the attempts that they took."""
        tries: Counter[int] = Counter()

        def call(item: int) -> Any:
            tries[item] += 1
            if item == 4 and tries[item] == 1:
                raise OSError("again")
            return float("nan") if item == 4 else item

        result = batchkit.process(
            range(9), call, concurrency=3, on_error="skip", retries=1, retry_wait=0.001, output="out.jsonl"
        )
        assert [(each.item, each.attempts) for each in result.failures()] == [(4, 2)]

    @pytest.mark.slow
    def test_an_isolated_function_that_dies_or_hangs_costs_one_item(self) -> None:
        """Deaths count twice before they are the item's, time limits at once; the other slots go on."""

        def call(item: int) -> int:
            if item == 5:
                os._exit(3)
            if item == 8:
                time.sleep(60)
            return item

        result = batchkit.process(range(20), call, concurrency=3, timeout=1.0, on_error="skip", batch_size=6)
        assert values(result) == [item for item in range(20) if item not in {5, 8}]
        assert [(each.item, each.error, each.attempts) for each in result.failures()] == [
            (5, "WorkerDied", 2),
            (8, "TimeoutError", 1),
        ]

    def test_retry_has_calls_in_flight_as_the_last_run_had(self) -> None:
        """Its options are those of the run unless given."""
        batchkit.process(range(10), _odd_fail, concurrency=4, on_error="skip", job="again", output="again.jsonl")
        result = batchkit.Job("again").retry(tripled)
        assert (result.done, result.left) == (5, 0)
        assert [json.loads(line) for line in Path("again.jsonl").read_text().splitlines()] == [
            3 * item if item % 2 else item for item in range(10)
        ]

    def test_a_number_of_calls_below_one_is_refused(self) -> None:
        """There is always one."""
        with pytest.raises(UsageError, match="concurrency"):
            batchkit.process([1], tripled, concurrency=0)


def _odd_fail(item: int) -> int:
    if item % 2:
        raise ValueError("odd")
    return item


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_fails_or_is_cut_the_output_is_that_of_a_serial_run(data: st.DataObject) -> None:
    """Sizes, slots, failures and budgets change nothing."""
    count = data.draw(st.integers(0, 60))
    bad = data.draw(st.sets(st.integers(0, 60), max_size=6))
    batched = data.draw(st.booleans())
    retries = data.draw(st.integers(0, 1))
    name = f"job-{time.monotonic_ns()}"
    tries: Counter[int] = Counter()

    def one(item: int) -> int:
        tries[item] += 1
        if item in bad and (item % 2 or tries[item] == 1):
            raise ValueError(item)
        return 3 * item

    def whole(items: list[int]) -> list[int]:
        if bad & {*items}:
            raise ValueError
        return [3 * item for item in items]

    for _ in range(100):
        result = batchkit.process(
            range(count),
            whole if batched else one,
            batched=batched,
            batch_size=data.draw(st.integers(1, 20)),
            concurrency=data.draw(st.integers(2, 6)),
            max_items=data.draw(st.none() | st.integers(1, 30)),
            on_error="skip",
            retries=retries,
            retry_wait=0.0,
            job=name,
        )
        if result.completed:
            break
    lost = {item for item in bad if batched or item % 2 or not retries}
    assert values(result) == [3 * item for item in range(count) if item not in lost]
    assert [each.item for each in result.failures()] == sorted(item for item in lost if item < count)


_KILLED = """
    import asyncio, random, sys, time
    import batchkit
    def call(line):
        time.sleep(random.random() / 200)
        return line.upper()
    async def acall(line):
        await asyncio.sleep(random.random() / 200)
        return line.upper()
    batchkit.process(
        "in.txt", acall if sys.argv[1] == "async" else call, output="out.txt", batch_size=7, concurrency=8,
        progress="none", job="killed",
    )
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_killed_run_goes_on_with_the_same_output(kind: str, workdir: Path) -> None:
    """Kill -9 in the middle, again and again: the output is that of an uninterrupted run."""
    lines = [f"item {number}" for number in range(1500)]
    Path("in.txt").write_text("\n".join(lines) + "\n")
    Path("run.py").write_text(textwrap.dedent(_KILLED))
    kills = 0
    for delay in (0.4, 0.5, 0.6, 0.7, 60.0):
        with subprocess.Popen([sys.executable, "run.py", kind], cwd=workdir) as process:
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
    assert kills
    assert Path("out.txt").read_text().splitlines() == [line.upper() for line in lines]


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(start_cli: Callable[..., subprocess.Popen[str]]) -> None:
    """However long the calls in flight would take."""
    Path("long.py").write_text("import os, time\ndef call(line):\n    os.write(1, b'in\\n')\n    time.sleep(60)\n")
    Path("in.txt").write_text("a\nb\nc\n")
    with start_cli("process", "in.txt", "-f", "long.py:call", "-c", "2", "-o", "out.txt") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "second signal" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM


def test_more_calls_than_there_can_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with the threads that did start ended."""
    before, start = threading.active_count(), threading.Thread.start
    started: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("batchkit-call") and len(started) > 3:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(UsageError, match="cannot have 100 calls in flight"):
        batchkit.process(range(10), str, concurrency=100, progress="none")
    assert threading.active_count() == before
