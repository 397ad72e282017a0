"""Calls in a process of their own: what a function may do to its process, and what that costs."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import batchkit
from batchkit import wire
from batchkit.calling import Caller
from batchkit.current import Identity
from batchkit.errors import BatchkitError, UsageError, WorkerDied
from batchkit.frames.rows import whole
from batchkit.isolation import IsolatedCaller
from batchkit.loading import load
from batchkit.model import Outcome
from batchkit.readers.base import IndexBatch
from batchkit.readers.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.model import Batch

HERE = Identity("job", "uuid", 7)
LONG = 60.0
"""Seconds that a test waits for what should be there at once."""


def connections() -> set[str]:
    """Return this process's pipes, sockets and shared memory."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # that of the listing
            continue
        if target.startswith(("pipe:", "socket:", "/memfd:batchkit")):
            found.add(target)
    return found


@pytest.fixture(autouse=True)
def nothing_left(workdir: Path) -> Iterator[None]:
    """After each test, there is no child, no zombie and no open descriptor that was not there before."""
    assert workdir
    before = connections()
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert connections() <= before


def isolated(function: Callable[..., Any] | None, *, batched: bool = False, **options: Any) -> closing[IsolatedCaller]:
    """Return a caller to use in a `with` block."""
    return closing(IsolatedCaller(function, batched=batched, identity=HERE, **options))


def numbers(count: int, start: int = 0) -> IndexBatch:
    """Return a batch of so many numbers from 0, whose coordinates begin with `start`."""
    return IndexBatch(list(range(count)), start)


def gone(pid: int) -> bool:
    """Tell whether a process has ended, whether or not somebody has taken note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(what: Callable[[], bool]) -> None:
    """Wait for something that is to happen soon."""
    deadline = time.monotonic() + LONG
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def double(item: int) -> int:
    """Return twice the item."""
    return 2 * item


def die_once(item: int, deadly: Sequence[int], how: Callable[[], object]) -> int:
    """Return twice the item; die of the deadly ones at their first try."""
    if item in deadly and not os.path.exists(f"died{item}"):
        Path(f"died{item}").touch()
        how()
    return 2 * item


DEATHS: dict[str, tuple[Callable[[], object], str]] = {
    "exit": (lambda: os._exit(3), "the worker died, exit status 3"),
    "exit 0": (lambda: os._exit(0), "the worker died, exit status 0"),
    "kill": (lambda: os.kill(os.getpid(), signal.SIGKILL), "the worker died, signal 9"),
    "segfault": (lambda: ctypes.string_at(0), "the worker died, signal 11"),
    "abort": (os.abort, "the worker died, signal 6"),
}


class TestPlainCalls:
    """Where nothing bad happens, it is like any caller."""

    def test_results_come_in_order(self) -> None:
        """One call per item, in a process other than this one."""
        with isolated(lambda item: (2 * item, os.getpid())) as caller:
            outcome = caller(numbers(4), 1)
            assert [result for result, _ in outcome.results] == [0, 2, 4, 6]
            assert os.getpid() not in {pid for _, pid in outcome.results}
            assert (outcome.done, outcome.error, outcome.sizes, outcome.one_each) == (4, None, None, True)
            assert caller.batch is None
            assert caller(numbers(4), 1, 1, 3).results[1][0] == 4

    def test_without_a_function_there_is_no_child(self) -> None:
        """Items are their own results."""
        with isolated(None) as caller:
            assert caller(numbers(3), 1) == Outcome([0, 1, 2], 3, None)
            caller.cut()
            with pytest.raises(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)

    @pytest.mark.parametrize("batched", [False, True])
    def test_an_empty_stretch_is_done(self, batched: bool) -> None:
        """Nothing is called."""
        with isolated(lambda _: os._exit(1), batched=batched) as caller:
            outcome = caller(numbers(3), 1, 2, 2)
            assert (list(outcome.results), outcome.done, outcome.error) == ([], 0, None)

    def test_functions_of_all_kinds_are_sent(self) -> None:
        """Imported ones, lambdas, closures, builtins, methods and objects."""
        number = 10

        class Adder:
            def __call__(self, item: int) -> int:
                return item + number

        for function in (double, lambda item: 2 * item, lambda item: item + number, Adder(), str, Adder):
            here = Caller(function, batched=False, identity=HERE)
            with isolated(function) as caller:
                assert caller(numbers(3), 1) == here(numbers(3), 1)
            here.close()

    def test_a_generator_function_gives_many_results(self) -> None:
        """Results of an item come whole or not at all; the sizes say whose they are."""

        def repeat(item: int) -> Iterator[int]:
            yield from [item] * item
            if item == 3 and not os.path.exists("again"):
                Path("again").touch()
                os._exit(1)

        with isolated(repeat) as caller:
            outcome = caller(numbers(5), 1)
            assert (outcome.results, outcome.done, outcome.sizes) == ([1, 2, 2], 3, [0, 1, 2])
            assert isinstance(outcome.error, WorkerDied)
            assert caller.again() == Outcome([3, 3, 3], 1, None, [3])
            assert caller.go_on() == Outcome([4, 4, 4, 4], 1, None, [4])
            assert caller(numbers(5), 1, 2, 2) == Outcome([], 0, None, [])

    def test_async_functions_are_awaited(self) -> None:
        """Coroutine functions and async generators, in a loop that lives on between calls."""

        async def loop(item: int) -> tuple[int, int]:
            await asyncio.sleep(0)
            return item, id(asyncio.get_running_loop())

        async def stream(item: int) -> Any:
            yield item
            yield -item

        with isolated(loop) as caller:
            results = caller(numbers(2), 1).results + caller(numbers(2), 2).results
            assert [item for item, _ in results] == [0, 1, 0, 1]
            assert len({each for _, each in results}) == 1
        with isolated(stream) as caller:
            assert caller(numbers(2), 1) == Outcome([0, 0, 1, -1], 2, None, [2, 2])

    def test_a_class_is_made_once_per_child_and_closed(self) -> None:
        """Made in the child, once again in its replacement, closed at the end."""

        class Noting:
            def __init__(self) -> None:
                self.note("made")

            def note(self, what: str) -> None:
                with open("notes", "a", encoding="utf-8") as file:
                    file.write(f"{what} ")

            def __call__(self, item: int) -> int:
                if item == 2:
                    os._exit(1)
                return item

            def close(self) -> None:
                self.note("closed")

        with isolated(Noting) as caller:
            caller(numbers(2), 1)
            caller(numbers(2), 2)
            assert Path("notes").read_text() == "made "
            assert caller(numbers(4), 3).done == 2
            assert caller.go_on().results == [3]
        assert Path("notes").read_text() == "made made closed "

    def test_prints_go_where_they_went(self) -> None:
        """Standard output and error are those of the parent; input is empty; a death keeps what was printed before."""
        script = """
            import os, sys
            from batchkit.current import Identity
            from batchkit.isolation import IsolatedCaller
            from batchkit.readers.base import IndexBatch

            class Item:
                pass

            def function(item):
                print("out", sys.stdin.read() == "")
                print("err", file=sys.stderr)
                if item == 1:
                    os._exit(1)
                return type(item)

            caller = IsolatedCaller(function, batched=False, identity=Identity("", "", 0))
            caller(IndexBatch([0, 1], 0), 1)
            print(caller(IndexBatch([Item()], 0), 2).results == [Item])
            caller.close()
        """
        Path("script.py").write_text(textwrap.dedent(script))
        done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True, input="x")
        assert done.stdout == "out True\n" * 3 + "True\n"
        assert done.stderr == "err\n" * 3

    def test_close_can_be_repeated(self) -> None:
        """And a cut afterwards does nothing."""
        with isolated(double) as caller:
            caller.close()
            caller.close()
            caller.cut()

    def test_what_was_started_lives_on_after_a_normal_end(self) -> None:
        """Only a death or a timeout takes the function's own processes with it."""

        def start(_item: int) -> int:
            return subprocess.Popen(["sleep", "600"]).pid  # noqa: S607

        with isolated(start) as caller:
            (pid,) = caller(numbers(1), 1).results
        assert not gone(pid)
        os.kill(pid, signal.SIGKILL)

    def test_a_fork_of_the_functions_own_is_no_second_worker(self) -> None:
        """A forked process that comes back from the function ends, and cannot speak for the worker."""

        def fork(item: int) -> int:
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
            return item

        with isolated(fork) as caller:
            assert caller(numbers(3), 1).results == [0, 1, 2]

    def test_items_and_results_may_be_large(self) -> None:
        """10 MB each way pass without a deadlock, many at a time."""
        items = [bytes([number]) * 10_000_000 for number in range(3)]
        for batched in (False, True):
            with isolated(lambda item: item, batched=batched) as caller:
                batch = IndexBatch(["a"] * 3, 0)
                batch.items = items
                assert caller(batch, 1).results == items

    def test_a_stop_signal_to_every_process_ends_no_call(self) -> None:
        """A service manager may signal all at once: what happens then is for the parent to say."""

        def signalled(item: int) -> int:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(os.getpid(), number)
            return item

        with isolated(signalled) as caller:
            assert caller(numbers(2), 1).results == [0, 1]


@pytest.mark.slow
class TestDeaths:
    """A function that takes its process down costs one item."""

    @pytest.mark.parametrize("kind", DEATHS)
    def test_every_kind_of_death_is_named(self, kind: str) -> None:
        """What came before is kept, the item in hand has the error, and the next call has a new child."""
        how, words = DEATHS[kind]
        with isolated(lambda item: die_once(item, [1], how)) as caller:
            outcome = caller(numbers(3), 1)
            assert (outcome.results, outcome.done, str(outcome.error)) == ([0], 1, words)
            assert type(outcome.error) is batchkit.WorkerDied
            assert caller(numbers(3), 1).results == [0, 2, 4]

    @pytest.mark.parametrize("place", [0, 2, 4])
    @pytest.mark.parametrize("retried", [False, True])
    def test_a_stretch_goes_on_behind_the_dead_item(self, place: int, retried: bool) -> None:
        """The first, one in the middle and the last; tried again before or not."""
        with isolated(lambda item: die_once(item, [place], DEATHS["kill"][0])) as caller:
            outcome = caller(numbers(6), 1, 0, 5)
            assert (outcome.results, outcome.done) == ([2 * item for item in range(place)], place)
            assert isinstance(outcome.error, WorkerDied)
            if retried:
                assert caller.again() == Outcome([2 * place], 1, None)
            outcome = caller.go_on()
            assert outcome.results == [2 * item for item in range(place + 1, 5)]
            assert (outcome.done, outcome.error) == (4 - place, None)

    def test_again_may_die_again(self) -> None:
        """However often; what is behind the item is not touched."""

        def deadly(item: int) -> int:
            if item == 1:
                os._exit(4)
            return item

        with isolated(deadly) as caller:
            caller(numbers(3), 1)
            for _ in range(3):
                outcome = caller.again()
                assert (outcome.done, str(outcome.error)) == (0, "the worker died, exit status 4")
            assert caller.go_on().results == [2]

    def test_deaths_in_a_row(self) -> None:
        """Each costs its own item."""
        with isolated(lambda item: die_once(item, [1, 2, 4], DEATHS["kill"][0])) as caller:
            outcomes = [caller(numbers(6), 1), *[caller.go_on() for _ in range(3)]]
            assert [outcome.results for outcome in outcomes] == [[0], [], [6], [10]]
            assert [type(outcome.error) for outcome in outcomes] == [WorkerDied] * 3 + [type(None)]

    def test_a_batched_call_fails_whole(self) -> None:
        """Nobody knows which item it was."""

        def function(items: list[int]) -> list[int]:
            return [die_once(item, [1], DEATHS["kill"][0]) for item in items]

        with isolated(function, batched=True) as caller:
            outcome = caller(numbers(3), 1)
            assert (outcome.results, outcome.done, outcome.one_each) == ([], 0, False)
            assert isinstance(outcome.error, WorkerDied)
            assert caller.again() == Outcome([0, 2, 4], 3, None)
            assert caller.go_on() == Outcome([], 0, None)

    def test_a_death_between_calls_is_nobodys_fault(self) -> None:
        """A child that is gone when the next batch comes is replaced."""
        with isolated(lambda _item: os.getpid()) as caller:
            pid = caller(numbers(1), 1).results[0]
            os.kill(pid, signal.SIGKILL)
            until(lambda: gone(pid))
            outcome = caller(numbers(1), 2)
            assert outcome.error is None
            assert outcome.results != [pid]
            os.kill(outcome.results[0], signal.SIGKILL)
            until(lambda: gone(outcome.results[0]))

    def test_what_a_dead_worker_had_started_dies_too(self) -> None:
        """Nobody would look after it; and it does not hide the death by holding the connection open."""

        def function(_item: int) -> None:
            pid = os.fork()
            if pid:
                Path("pid").write_text(str(pid))
                os._exit(1)
            time.sleep(600)

        with isolated(function) as caller:
            assert isinstance(caller(numbers(1), 1).error, WorkerDied)
            until(lambda: gone(int(Path("pid").read_text())))

    def test_a_worker_that_closes_its_connection_counts_as_dead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is killed."""
        monkeypatch.setattr("batchkit.child._GRACE", 0.2)

        def function(_item: int) -> None:
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            time.sleep(600)

        with isolated(function) as caller:
            assert str(caller(numbers(1), 1).error) == "the worker died, signal 9"

    def test_items_that_kill_their_reader_are_nobodys_but_theirs(self) -> None:
        """The stretch with an item whose unpickling kills fails at its first item; the parent lives."""

        class Deadly:
            def __reduce__(self) -> tuple[Any, ...]:
                return os._exit, (5,)

        with isolated(lambda _: None) as caller:
            batch = IndexBatch([0], 0)
            batch.items = [Deadly()]
            outcome = caller(batch, 1)
            assert (outcome.done, str(outcome.error)) == (0, "the worker died, exit status 5")


@pytest.mark.slow
class TestTimeouts:
    """A call that does not come back is ended."""

    def test_a_late_call_costs_its_item(self) -> None:
        """In the middle of a batch; the rest follows in a new child, and what the function started is gone."""

        def function(item: int) -> int:
            if item == 1:
                Path("pid").write_text(str(subprocess.Popen(["sleep", "600"]).pid))  # noqa: S607
                time.sleep(600)
            return item

        with isolated(function, timeout=0.3) as caller:
            outcome = caller(numbers(4), 1)
            assert (outcome.results, outcome.done) == ([0], 1)
            assert type(outcome.error) is TimeoutError
            assert str(outcome.error) == "the call took longer than 0.3 s"
            until(lambda: gone(int(Path("pid").read_text())))
            assert type(caller.again().error) is TimeoutError
            assert caller.go_on().results == [2, 3]

    def test_each_call_has_the_whole_time(self) -> None:
        """The limit is for a call, not for a stretch; starting, importing and making do not count."""

        class Slow:
            def __init__(self) -> None:
                time.sleep(1.5)

            def __call__(self, item: int) -> int:
                time.sleep(0.3)
                return item

        with isolated(Slow, timeout=1.2) as caller:
            assert caller(numbers(6), 1).results == list(range(6))

    def test_nothing_that_a_function_does_saves_it(self) -> None:
        """It may catch everything, block all signals, be stuck in C, or be a generator that never ends."""

        def catching(_item: int) -> None:
            while True:
                with suppress(BaseException):
                    time.sleep(600)

        def blocking(_item: int) -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(600)

        def stuck(_item: int) -> Any:
            return re.match(r"(a+)+$", "a" * 64 + "b")  # holds the interpreter's lock for years

        def endless(item: int) -> Iterator[int]:
            while True:
                yield from [item] * 0

        for function in (catching, blocking, stuck, endless):
            with isolated(function, timeout=0.2) as caller:
                outcome = caller(numbers(1), 1)
                assert (outcome.done, type(outcome.error)) == (0, TimeoutError)

    def test_async_functions_have_a_limit_too(self) -> None:
        """A late call is cancelled, and its process goes on; one that will not be cancelled is killed with it."""

        async def late(item: int) -> int:
            if item == 1:
                await asyncio.sleep(600)
            return os.getpid()

        async def stubborn(_item: int) -> None:
            while True:
                time.sleep(600)  # noqa: ASYNC251  # the mistake in question

        with isolated(late, timeout=0.2) as caller:
            outcome = caller(numbers(3), 1)
            assert (outcome.done, type(outcome.error)) == (1, TimeoutError)
            assert str(outcome.error) == "the call took longer than 0.2 s"
            assert caller.go_on().results == outcome.results
        with isolated(stubborn, timeout=0.2) as caller:
            assert str(caller(numbers(1), 1).error) == "the call took longer than 0.2 s"

    def test_a_late_batch_fails_whole(self) -> None:
        """For a batched function the limit is for the batch."""
        with isolated(lambda _: time.sleep(600), batched=True, timeout=0.2) as caller:
            outcome = caller(numbers(3), 1)
            assert (outcome.done, outcome.results, type(outcome.error)) == (0, [], TimeoutError)


class TestErrors:
    """What a function raises is the item's failure, here as in any caller."""

    def test_an_exception_comes_with_its_traceback(self) -> None:
        """The exception itself, and the text of where it was raised; the function is called on in the same child."""

        def function(item: int) -> int:
            if item == 1:
                raise KeyError("missing")
            return os.getpid()

        with isolated(function) as caller:
            outcome = caller(numbers(3), 1)
            assert outcome.done == 1
            assert repr(outcome.error) == "KeyError('missing')"
            trace = outcome.error.__batchkit_traceback__  # type: ignore[union-attr]
            assert 'raise KeyError("missing")' in trace
            assert trace.endswith("KeyError: 'missing'\n")
            assert "calling.py" not in trace
            assert isinstance(caller.again().error, KeyError)
            assert caller.go_on().results == outcome.results

    def test_a_traceback_of_a_scripts_function_begins_with_it(self) -> None:
        """Wherever the function is defined, what is left out is batchkit's own."""
        script = """
            from batchkit.current import Identity
            from batchkit.isolation import IsolatedCaller
            from batchkit.readers.base import IndexBatch

            def function(item):
                return 1 / item

            caller = IsolatedCaller(function, batched=False, identity=Identity("", "", 0))
            print(caller(IndexBatch([0], 0), 1).error.__batchkit_traceback__)
            caller.close()
        """
        Path("script.py").write_text(textwrap.dedent(script))
        done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True)
        assert done.stdout.count("File ") == 1
        assert "in function\n    return 1 / item\n" in done.stdout

    def test_a_long_traceback_keeps_its_end(self) -> None:
        """8 KB of it."""

        def function(_item: int) -> None:
            raise ValueError("é" * 100_000 + "end")

        with isolated(function) as caller:
            trace = caller(numbers(1), 1).error.__batchkit_traceback__  # type: ignore[union-attr]
            assert trace.endswith("éend\n")
            assert len(trace.encode()) <= 8192

    def test_exceptions_that_do_not_survive_pickling_have_a_stand_in(self) -> None:
        """Of the same name and text, which can itself be pickled."""

        class NeedsTwo(Exception):
            def __init__(self, code: int, why: str) -> None:
                super().__init__(f"{code}: {why}")

        class HoldsLock(Exception):
            def __init__(self) -> None:
                super().__init__("locked")
                self.lock = threading.Lock()

        def function(item: int) -> None:
            raise [NeedsTwo(5, "no"), HoldsLock()][item]

        with isolated(function) as caller:
            for outcome, name, text in (
                (caller(numbers(2), 1), "NeedsTwo", "5: no"),
                (caller.go_on(), "HoldsLock", "locked"),
            ):
                error = outcome.error
                assert (type(error).__name__, str(error)) == (name, text)
                assert text in error.__batchkit_traceback__  # type: ignore[union-attr]
                copy = pickle.loads(pickle.dumps(error))  # noqa: S301
                assert (type(copy).__name__, str(copy)) == (name, text)
                assert copy.__batchkit_traceback__ == error.__batchkit_traceback__  # type: ignore[union-attr]

    def test_a_required_argument_that_pickles_keeps_the_type(self) -> None:
        """Exceptions of the package and of Python keep their types."""

        def function(item: int) -> None:
            if item == 0:
                raise batchkit.ItemError("bad", item=5, position="line 3")
            b"\xff".decode()

        with isolated(function) as caller:
            first, second = caller(numbers(2), 1).error, caller.go_on().error
            assert isinstance(first, batchkit.ItemError)
            assert (first.item, first.position) == (5, "line 3")
            assert isinstance(second, UnicodeDecodeError)

    @pytest.mark.parametrize("error", [SystemExit(3), StopIteration(), GeneratorExit(), RecursionError()])
    def test_any_error_fails_the_item_in_hand(self, error: BaseException) -> None:
        """Whatever is raised, also `SystemExit`."""

        def function(item: int) -> int:
            if item == 1:
                raise error
            return item

        with isolated(function) as caller:
            outcome = caller(numbers(3), 1)
            assert (outcome.done, type(outcome.error)) == (1, type(error))
            assert caller.go_on().results == [2]

    def test_a_keyboard_interrupt_is_not_the_items_failure(self) -> None:
        """It is raised, and leaves no child."""

        def function(_item: int) -> None:
            raise KeyboardInterrupt

        with isolated(function) as caller, pytest.raises(KeyboardInterrupt):
            caller(numbers(1), 1)

    def test_a_result_that_cannot_be_pickled_is_its_items_error(self) -> None:
        """The rest goes on in the same child."""
        with isolated(lambda item: threading.Lock() if item == 1 else os.getpid()) as caller:
            outcome = caller(numbers(3), 1)
            assert (outcome.done, type(outcome.error)) == (1, TypeError)
            assert "the result cannot be pickled" in str(outcome.error)
            assert caller.go_on().results == outcome.results
        with isolated(lambda items: [threading.Lock() for _ in items], batched=True) as caller:
            assert "the result cannot be pickled" in str(caller(numbers(3), 1).error)

    def test_a_result_that_cannot_be_read_back_is_its_items_error(self) -> None:
        """What follows is called again, in a new child."""

        class Poison:
            def __reduce__(self) -> tuple[Any, ...]:
                return int, ("x",)

        with isolated(lambda item: Poison() if item == 1 else item) as caller:
            outcome = caller(numbers(3), 1)
            assert (outcome.results, outcome.done, type(outcome.error)) == ([0], 1, TypeError)
            assert "cannot be read back" in str(outcome.error)
            assert caller.go_on().results == [2]

    @pytest.mark.parametrize("batched", [False, True])
    def test_an_item_that_cannot_be_sent_is_its_own_error(self, batched: bool) -> None:
        """Whether it cannot be pickled here or not be read there; the others are called."""

        class Poison:
            def __reduce__(self) -> tuple[Any, ...]:
                return int, ("x",)

        for bad, words in ((threading.Lock(), "cannot be sent"), (Poison(), "cannot read the item")):
            batch = IndexBatch([0] * 3, 0)
            batch.items = [0, bad, 2]
            with isolated(lambda item: item, batched=batched) as caller:
                outcome = caller(batch, 1)
                assert (outcome.done, type(outcome.error)) == (0 if batched else 1, TypeError)
                assert words in str(outcome.error)
                assert caller.go_on().results == ([] if batched else [2])

    def test_a_function_that_cannot_be_pickled_is_refused(self) -> None:
        """The message says why and what to do."""
        lock = threading.Lock()
        with pytest.raises(UsageError, match=r"function .* cannot be sent to a worker process: .*lock.*__init__"):
            IsolatedCaller(lambda _item: lock, batched=False, identity=HERE)

    def test_without_cloudpickle_the_message_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is needed only here."""
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
        with pytest.raises(UsageError, match="pip install cloudpickle"):
            IsolatedCaller(double, batched=False, identity=HERE)

    def test_what_cannot_be_called_is_refused(self) -> None:
        """As by any caller."""
        with pytest.raises(UsageError, match="cannot be called"):
            IsolatedCaller(5, batched=False, identity=HERE)  # type: ignore[arg-type]

    def test_a_class_that_cannot_be_made_is_no_items_failure(self) -> None:
        """Making it is part of the start."""

        class Broken:
            def __init__(self) -> None:
                raise OSError("no connection")

            def __call__(self, item: int) -> int:
                return item

        with pytest.raises(BatchkitError, match=r"cannot make a .*Broken: OSError: no connection"):
            IsolatedCaller(Broken, batched=False, identity=HERE)

    def test_a_function_that_cannot_be_loaded_is_no_items_failure(self) -> None:
        """Nor is what its module raises in the child."""
        Path("only_once.py").write_text(
            "import os\nif os.path.exists('once'): raise OSError('twice')\nopen('once', 'w').close()\n"
            "def function(item): return item\n"
        )
        function = load("only_once.py:function")
        with pytest.raises(BatchkitError, match="cannot load the function: OSError: twice"):
            IsolatedCaller(function, batched=False, identity=HERE)

    def test_a_child_that_dies_as_it_starts_is_no_items_failure(self) -> None:
        """Nor is it one in the middle of a run."""

        class Deadly:
            def __init__(self) -> None:
                if os.path.exists("second"):
                    os.kill(os.getpid(), signal.SIGKILL)
                Path("second").touch()

            def __call__(self, _item: int) -> None:
                os._exit(1)

        with isolated(Deadly) as caller:
            assert isinstance(caller(numbers(2), 1).error, WorkerDied)
            with pytest.raises(BatchkitError, match=r"the worker process died as it started \(signal 9\)"):
                caller.go_on()

    def test_an_error_in_closing_is_told(self) -> None:
        """Also if the child dies of it."""

        class Closing:
            def __call__(self, item: int) -> int:
                return item

            def close(self) -> None:
                if os.path.exists("deadly"):
                    os._exit(3)
                raise OSError("disk full")

        caller = IsolatedCaller(Closing, batched=False, identity=HERE)
        with pytest.raises(BatchkitError, match="closing the function failed: OSError: disk full"):
            caller.close()
        caller.close()
        Path("deadly").touch()
        caller = IsolatedCaller(Closing, batched=False, identity=HERE)
        with pytest.raises(BatchkitError, match="closing the function failed: the worker died, exit status 3"):
            caller.close()

    def test_a_child_that_does_not_end_is_killed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Closing waits some seconds at most."""
        monkeypatch.setattr("batchkit.child._GRACE", 0.2)

        class Lingering:
            def __call__(self, _item: int) -> int:
                threading.Thread(target=time.sleep, args=(600,)).start()
                return os.getpid()

        with isolated(Lingering) as caller:
            (pid,) = caller(numbers(1), 1).results
        until(lambda: gone(pid))


@pytest.mark.slow
class TestImports:
    """The child imports what the parent did."""

    def test_a_function_of_a_file_may_import_its_neighbours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Given by path, wherever the file is; also under a name that another module has, and its classes come back."""
        monkeypatch.setattr(sys, "path", [*sys.path])
        Path("tools").mkdir()
        Path("tools/neighbour_of_isolated.py").write_text("def add(item): return str(item) + '!'\n")
        Path("tools/textwrap.py").write_text(
            "from neighbour_of_isolated import add\n"
            "class Result:\n    def __init__(self, item): self.text = add(item)\n"
            "class Bad(Exception): pass\n"
            "def function(item):\n    if item == 2: raise Bad(item)\n    return Result(item)\n"
        )
        function = load("tools/textwrap.py:function")
        monkeypatch.setitem(sys.modules, function.__module__, sys.modules[function.__module__])  # gone afterwards
        with isolated(function) as caller:
            outcome = caller(numbers(3), 1)
            assert [result.text for result in outcome.results] == ["0!", "1!"]
            assert type(outcome.results[0]) is function.__globals__["Result"]
            assert type(outcome.error) is function.__globals__["Bad"]

    def test_a_module_on_a_path_of_the_parents_own_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`sys.path` goes first; the child's environment is the parent's."""
        Path("elsewhere").mkdir()
        Path("elsewhere/only_there_isolated.py").write_text(
            "import os\ndef f(_): return os.environ.get('PYTHONPATH')\n"
        )
        monkeypatch.setattr(sys, "path", [*sys.path, os.path.abspath("elsewhere")])
        function = load("only_there_isolated:f")
        for value in ("somewhere", None):
            if value is None:
                monkeypatch.delenv("PYTHONPATH", raising=False)
            else:
                monkeypatch.setenv("PYTHONPATH", value)
            with isolated(function) as caller:
                assert caller(numbers(1), 1).results == [value]


def look(items: Any) -> list[Any]:
    """Return all that `current_batch()` tells."""
    now = batchkit.current_batch()
    return [items, now.job, now.shard, now.seq, now.key, now.item_keys, now.cursor]


class Places(IndexBatch):
    """Items with coordinates as of several files."""

    __slots__ = ()

    def coordinate(self, index: int) -> Any:
        return [index % 2, 10 * index]


class TestCurrentBatch:
    """The function knows as much about its call as in any caller."""

    @pytest.mark.slow
    @pytest.mark.parametrize("batched", [False, True])
    def test_keys_are_those_of_other_callers(self, batched: bool) -> None:
        """Job, shard, number, keys and cursor, of whole batches, stretches and after failures."""
        for batch in (IndexBatch(["a", "b", "c", "d"], 3), Places(["a", "b", "c", "d"], 3)):
            here = Caller(look, batched=batched, identity=HERE)
            with isolated(look, batched=batched) as caller:
                assert caller(batch, 5) == here(batch, 5)
                assert caller(batch, 6, 1, 3) == here(batch, 6, 1, 3)
                caller.identity = here.identity = Identity("other", "id", 9)
                assert caller(batch, 7) == here(batch, 7)
            here.close()

    def test_keys_stay_right_after_a_failure(self) -> None:
        """Of the items behind it, and of the item itself, in the same child and in a new one."""

        def function(item: int) -> str:
            if item in {1, 3} and not os.path.exists(f"tried{item}"):
                Path(f"tried{item}").touch()
                if item == 1:
                    raise ValueError(item)
                os._exit(1)
            return batchkit.current_batch().key

        with isolated(function) as caller:
            keys = caller(numbers(9, 10), 1, 1, 6)
            assert keys.done == 0
            assert caller.again().results == ["uuid:11"]
            assert caller.go_on().results == ["uuid:12"]
            assert caller.again().results == ["uuid:13"]
            assert caller.go_on().results == ["uuid:14", "uuid:15"]

    def test_a_thread_with_the_calls_context_may_ask(self) -> None:
        """An async function's tasks, which run beside each other, each get their answer."""

        async def function(_item: int) -> list[str]:
            return await asyncio.gather(*[asyncio.to_thread(lambda: batchkit.current_batch().key) for _ in range(20)])

        with isolated(function) as caller:
            assert caller(numbers(2), 1).results == [["uuid:0"] * 20, ["uuid:1"] * 20]

    def test_a_thread_that_outlives_its_call_gets_no_answer(self) -> None:
        """It is told so, and does not get between the worker and its parent; so is a process that was forked."""
        import contextvars  # noqa: PLC0415

        def function(item: int) -> str:
            now = batchkit.current_batch()
            if item == 0:
                event = threading.Event()

                def ask() -> None:
                    event.wait()
                    try:
                        Path("told").write_text(now.key)
                    except UsageError as error:
                        Path("told").write_text(str(error))

                thread = threading.Thread(target=contextvars.copy_context().run, args=(ask,))
                thread.start()
                function.left = (event, thread)  # type: ignore[attr-defined]
            elif item == 1:
                pid = os.fork()
                if not pid:
                    try:
                        now.key  # noqa: B018
                    except UsageError as error:
                        Path("forked").write_text(str(error))
                    os._exit(0)
                os.waitpid(pid, 0)
            return now.key

        class Late:
            def __call__(self, item: int) -> str:
                return function(item)

            def close(self) -> None:
                event, thread = function.left  # type: ignore[attr-defined]
                event.set()
                thread.join()

        with isolated(Late) as caller:
            assert caller(numbers(3), 1).results == ["uuid:0", "uuid:1", "uuid:2"]
        assert Path("told").read_text() == "current_batch() was asked after its call had ended"
        assert Path("forked").read_text() == "current_batch() does not reach into a process that the function forked"


def table(count: int = 4) -> pl.DataFrame:
    """Return rows."""
    return pl.DataFrame({"number": range(count), "text": [f"row {number}" for number in range(count)]})


def told(items: Any) -> list[Any]:
    """Return the type of what was given, and its rows."""
    rows = (
        items.to_dicts()
        if isinstance(items, pl.DataFrame)
        else items.to_pylist()
        if hasattr(items, "to_pylist")
        else items
    )
    return [f"{type(items).__module__}.{type(items).__name__}", rows]


@pytest.mark.slow
class TestTables:
    """Rows arrive as any caller gives them."""

    def batches(self) -> list[Batch]:
        """Return batches of rows, of a part of a larger block, and of records."""
        rows = whole(table(100))[10:14]
        records = Records(["a", "b"], [["1", "2"], ["3", "4"], ["5", "6"], ["7", "8"]])
        batches: list[Batch] = []
        for items in (rows, records):
            batch = IndexBatch([0, 0, 0, 0], 0)
            batch.items = items
            batches.append(batch)
        return batches

    @pytest.mark.parametrize("batch_format", [None, "polars", "arrow", "dicts"])
    def test_batched_functions_get_their_format(self, batch_format: str | None) -> None:
        """Frames, Arrow tables or dicts, of whole batches and of stretches."""
        if batch_format == "arrow":
            pytest.importorskip("pyarrow")
        here = Caller(told, batched=True, identity=HERE, batch_format=batch_format)
        with isolated(told, batched=True, batch_format=batch_format) as caller:
            for batch in self.batches():
                assert caller(batch, 1) == here(batch, 1)
                assert caller(batch, 1, 1, 3) == here(batch, 1, 1, 3)
        here.close()

    def test_functions_of_items_get_dicts(self) -> None:
        """One for each row."""
        here = Caller(told, batched=False, identity=HERE)
        with isolated(told) as caller:
            for batch in self.batches():
                assert caller(batch, 1) == here(batch, 1)
        here.close()

    def test_a_table_may_come_back(self) -> None:
        """As a frame, whose rows are the results."""
        with isolated(lambda frame: frame.filter(pl.col("number") > 11), batched=True) as caller:
            outcome: Outcome = caller(self.batches()[0], 1)
            assert outcome.results.equals(table(100)[12:14])
            assert (outcome.done, outcome.one_each) == (4, False)

    def test_pickled_rows_are_no_more_than_these(self) -> None:
        """Not the whole block that they are of."""
        rows = whole(table(100_000))
        assert len(pickle.dumps(rows[5:7])) < 10_000
        assert list(pickle.loads(pickle.dumps(rows[5:7]))) == list(rows[5:7])  # noqa: S301


@pytest.mark.slow
class TestCutting:
    """A stretch of single items ends where it is asked to."""

    def test_a_cut_ends_the_stretch_after_the_item_in_hand(self) -> None:
        """From another thread; what is done is kept, that is no error, and the next stretch is whole."""
        os.mkfifo("reached")
        os.mkfifo("go")

        def function(item: int) -> int:
            if item == 2:
                Path("reached").write_text("x")
                Path("go").read_text()
            return item

        with isolated(function) as caller:

            def cut() -> None:
                Path("reached").read_text()
                caller.cut()
                Path("go").write_text("x")

            thread = threading.Thread(target=cut)
            thread.start()
            outcome = caller(numbers(6), 1)
            thread.join()
            assert outcome == Outcome([0, 1, 2], 3, None)
            assert caller(numbers(6), 2, 3, 6).results == [3, 4, 5]

    def test_a_late_cut_hurts_nothing(self) -> None:
        """Between batches it is nobody's."""
        with isolated(double) as caller:
            for number in range(3):
                caller.cut()
                assert caller(numbers(3), number).done == 3

    def test_a_batched_call_is_never_cut(self) -> None:
        """It is whole or nothing."""
        with isolated(lambda items: items, batched=True) as caller:
            caller.cut()
            assert caller(numbers(3), 1).done == 3

    def test_a_cut_from_a_signal_handler(self) -> None:
        """The parent's handlers run while it waits, and the wait goes on."""
        parent = os.getpid()

        def function(item: int) -> int:
            if item == 1:
                os.mkfifo("handled")
                os.kill(parent, signal.SIGUSR1)
                Path("handled").read_text()
            return item

        with isolated(function) as caller:

            def handle(_number: int, _frame: object) -> None:
                caller.cut()
                Path("handled").write_text("x")

            earlier = signal.signal(signal.SIGUSR1, handle)
            try:
                assert caller(numbers(4), 1).results == [0, 1]
            finally:
                signal.signal(signal.SIGUSR1, earlier)


@pytest.mark.slow
class TestOrphans:
    """No child outlives its parent, and none is left behind."""

    def test_a_keyboard_interrupt_leaves_no_child(self) -> None:
        """Raised by the parent's handler in the middle of a call."""
        parent = os.getpid()

        def function(_item: int) -> None:
            Path("pid").write_text(str(os.getpid()))
            os.kill(parent, signal.SIGINT)
            time.sleep(60)

        # Whoever starts the tests in the background may have them ignore the signal.
        earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with isolated(function) as caller:
                with pytest.raises(KeyboardInterrupt):
                    caller(numbers(1), 1)
                until(lambda: gone(int(Path("pid").read_text())))
        finally:
            signal.signal(signal.SIGINT, earlier)

    @pytest.mark.parametrize(
        "call",
        [
            "time.sleep(600)",
            "re.match('(a+)+$', 'a' * 64 + 'b')",
            "signal.pthread_sigmask(0, range(1, 64)), time.sleep(600)",
        ],
    )
    def test_a_killed_parent_takes_its_child_along(self, call: str) -> None:
        """Also in the middle of a call that is stuck in C, and with what the function started."""
        script = f"""
            import os, re, signal, subprocess, time
            from batchkit.current import Identity
            from batchkit.isolation import IsolatedCaller
            from batchkit.readers.base import IndexBatch

            def function(item):
                print(os.getpid(), subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL).pid)
                {call}

            IsolatedCaller(function, batched=False, identity=Identity("", "", 0))(IndexBatch([0], 0), 1)
        """
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
        ) as parent:
            assert parent.stdout is not None
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == 2
            parent.kill()
        for pid in pids:
            until(lambda pid=pid: gone(pid))  # type: ignore[misc]

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # polars has threads here
    def test_a_process_that_the_parent_forked_keeps_no_child_alive(self) -> None:
        """It inherits what the parent holds open, and lets go of it; the parent's caller works on."""
        with isolated(lambda item: os._exit(1) if item else os.getpid()) as caller:
            reading, writing = os.pipe()
            fork = os.fork()
            if not fork:
                try:
                    os.close(writing)
                    os.read(reading, 1)
                    caller.close()
                finally:
                    os._exit(0)
            os.close(reading)
            (pid,) = caller(numbers(1), 1).results
            child = caller._child
            assert child is not None
            child._lifeline.close()
            until(lambda: gone(pid))
            os.close(writing)
            os.waitpid(fork, 0)
            assert caller(numbers(1), 1).error is None

    def test_a_caller_that_nobody_closes_leaves_no_child(self) -> None:
        """The parent ends, and so does it."""
        script = """
            import os
            from batchkit.current import Identity
            from batchkit.isolation import IsolatedCaller
            from batchkit.readers.base import IndexBatch

            caller = IsolatedCaller(lambda item: os.getpid(), batched=False, identity=Identity("", "", 0))
            print(*caller(IndexBatch([0], 0), 1).results, flush=True)
            os._exit(0)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, check=True
        )
        until(lambda: gone(int(done.stdout)))

    def test_two_callers_do_not_keep_each_other_alive(self) -> None:
        """The child of one holds nothing open of the other."""
        with isolated(lambda item: os._exit(1) if item else os.getpid()) as one:
            with isolated(lambda _: os.getpid()) as two:
                two(numbers(1), 1)
                assert isinstance(one(numbers(2), 1).error, WorkerDied)
                assert two(numbers(1), 1).error is None
            assert one(numbers(1), 1).error is None


def test_messages_arrive_in_pieces_and_several_at_once() -> None:
    """However the bytes are cut, the messages are the same."""
    import socket  # noqa: PLC0415

    left, right = socket.socketpair()
    talk = wire.Wire(right)
    sender = wire.Wire(left)

    def received() -> tuple[Any, ...]:
        return tuple(talk.receive() or ())

    sender.send(wire.GO, b"one")
    sender.send(wire.DONE)
    thread = threading.Thread(target=sender.send, args=(wire.GO, b"x" * 1_000_000))
    thread.start()
    assert received() == (wire.GO, b"one")
    assert received() == (wire.DONE, b"")
    assert received() == (wire.GO, b"x" * 1_000_000)
    thread.join()
    sender.close()
    assert talk.receive() is None
    talk.close()
