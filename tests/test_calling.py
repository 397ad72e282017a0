"""How the user's function is called, and what it may know about the call."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from batchkit.calling import Caller, name_of
from batchkit.current import Identity
from batchkit.errors import ItemError, UsageError
from batchkit.loading import load
from batchkit.readers.base import IndexBatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import TracebackType

HERE = Identity("job", "uuid", 0)

pytestmark = pytest.mark.usefixtures("workdir")


def results(items: list[Any], function: Callable[..., Any], **options: Any) -> list[Any]:
    """Return what a job over `items` that leaves nothing on disk gives."""
    return list(batchkit.process(items, function, **options).results())


def double(item: int) -> int:
    """Return twice the item."""
    return 2 * item


class Multiplier:
    """A class whose instances are called; notes what happens to it."""

    events: list[str] = []  # noqa: RUF012  # shared on purpose

    def __init__(self) -> None:
        """Note it."""
        self.events.append("made")

    def __call__(self, item: int) -> int:
        """Return ten times the item."""
        return 10 * item

    def close(self) -> None:
        """Note it."""
        self.events.append("closed")


class Session:
    """A context manager whose `__enter__` gives what is called."""

    events: list[str] = []  # noqa: RUF012  # shared on purpose

    def __enter__(self) -> Callable[[int], int]:
        """Give a function."""
        self.events.append("entered")
        return double

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Note it."""
        self.events.append("left")

    def __call__(self, item: int) -> int:
        """Never called: `__enter__` gives something better."""
        raise AssertionError(item)


class TestKindsOfFunctions:
    """What may be a function."""

    def test_a_plain_function_is_called_with_each_item(self) -> None:
        """One call per item, results in input order, `None` stores nothing."""
        assert results([1, 2, 3], double) == [2, 4, 6]
        assert results([1, 2, 3], lambda item: item if item != 2 else None) == [1, 3]

    def test_without_a_function_items_are_their_own_results(self) -> None:
        """`None` passes items through."""
        assert list(batchkit.process([1, "a", [2]]).results()) == [1, "a", [2]]

    def test_each_value_of_a_generator_function_is_a_result(self) -> None:
        """A generator function gives any number of results per item."""

        def count(item: int) -> Iterator[int]:
            yield from range(item)

        assert results([2, 0, 3], count) == [0, 1, 0, 1, 2]

    def test_a_partial_of_a_generator_function_generates_too(self) -> None:
        """`functools.partial` changes nothing."""

        def repeat(times: int, item: str) -> Iterator[str]:
            yield from [item] * times

        assert results(["a", "b"], functools.partial(repeat, 2)) == ["a", "a", "b", "b"]

    def test_a_method_and_an_instance_are_called_as_they_are(self) -> None:
        """Bound methods and objects with `__call__` are functions like any other."""

        class Adder:
            def __init__(self, number: int) -> None:
                self.number = number

            def __call__(self, item: int) -> int:
                return item + self.number

            def generate(self, item: int) -> Iterator[int]:
                yield item
                yield self.number

        assert results([1, 2], Adder(10)) == [11, 12]
        assert results([1, 2], Adder(5).generate) == [1, 5, 2, 5]

    def test_an_instance_whose_call_generates_gives_many_results(self) -> None:
        """A generator `__call__` counts as a generator function."""

        class Twice:
            def __call__(self, item: int) -> Iterator[int]:
                yield item
                yield item

        assert results([1, 2], Twice()) == results([1, 2], Twice) == [1, 1, 2, 2]

    def test_a_builtin_type_is_itself_the_function(self) -> None:
        """`int` is called with an item; it is no class of callables."""
        assert results(["1", "2"], int) == [1, 2]
        assert results(["a", "b"], str.upper) == ["A", "B"]
        assert results([3, -3], abs) == [3, 3]

    def test_a_class_of_callables_is_made_once_and_closed(self) -> None:
        """A class whose instances can be called is made once per run and closed at its end."""
        Multiplier.events = []
        assert results([1, 2, 3], Multiplier, batch_size=1) == [10, 20, 30]
        assert Multiplier.events == ["made", "closed"]

    def test_a_class_is_closed_when_its_call_fails(self) -> None:
        """`close()` comes also after an error."""

        class Failing(Multiplier):
            events: list[str] = []  # noqa: RUF012

            def __call__(self, item: int) -> int:
                raise ValueError(item)

        with pytest.raises(ItemError):
            results([1], Failing)
        assert Failing.events == ["made", "closed"]

    def test_a_context_manager_is_entered_and_left(self) -> None:
        """A class that is a context manager is entered; if that gives something callable, that is called."""
        Session.events = []
        assert results([1, 2], Session) == [2, 4]
        assert Session.events == ["entered", "left"]

    def test_a_made_object_without_close_is_fine(self) -> None:
        """Nothing has to be closed."""

        class Plain:
            def __call__(self, item: int) -> int:
                return -item

        assert results([1, 2], Plain) == [-1, -2]

    def test_a_class_that_cannot_be_made_is_an_error_of_batchkits_tree(self) -> None:
        """What the constructor raises is told like any other failure of the function: in one line."""

        class Broken:
            def __init__(self) -> None:
                raise OSError("no connection")

            def __call__(self, item: int) -> int:
                return item

        with pytest.raises(batchkit.BatchkitError, match="no connection"):
            results([1], Broken)

    @pytest.mark.parametrize("function", [5, "text", [double]])
    def test_what_cannot_be_called_is_refused(self, function: Any) -> None:
        """A function can be called."""
        with pytest.raises(UsageError, match="cannot be called"):
            results([1], function)

    def test_async_functions_are_awaited(self) -> None:
        """Coroutine functions, async generators and async `__call__`, in an event loop that lives through the run."""
        loops = set()

        async def fetch(item: int) -> int:
            loops.add(asyncio.get_running_loop())
            await asyncio.sleep(0)
            return item * 10

        async def stream(item: int) -> AsyncIterator[int]:
            for value in range(item):
                yield value

        class Fetcher:
            async def __call__(self, _item: int) -> str:
                return batchkit.current_batch().key

        assert results([1, 2], fetch) == [10, 20]
        assert len(loops) == 1
        assert results([2, 0, 1], stream) == [0, 1, 0]
        assert [key.rpartition(":")[2] for key in results([5, 6], Fetcher)] == ["0", "1"]

    def test_an_async_call_may_take_its_time_and_no_more(self) -> None:
        """After the timeout the call is cancelled and fails; the next one is not harmed."""
        cancelled = []

        async def wait(item: int) -> int:
            try:
                await asyncio.sleep(60 if item == 1 else 0)
            except asyncio.CancelledError:
                cancelled.append(item)
                raise
            return item

        result = batchkit.process(range(3), wait, timeout=0.05, on_error="skip", progress="none")
        assert list(result.results()) == [0, 2]
        (failure,) = result.failures()
        assert (failure.item, failure.error, failure.message) == (1, "TimeoutError", "the call took longer than 0.05 s")
        assert cancelled == [1]

    @pytest.mark.parametrize("function", [5, "text"])
    def test_a_refused_function_leaves_no_job_behind(self, function: Any) -> None:
        """`UsageError`: nothing was done, so the corrected call with the same output begins anew."""
        Path("items.txt").write_text("1\n2\n")
        with pytest.raises(UsageError):
            batchkit.process("items.txt", function, output="out.txt")
        assert batchkit.jobs() == []
        assert batchkit.process("items.txt", int, output="out.txt").completed

    def test_names_are_those_people_gave(self) -> None:
        """The name of a function is its qualified name, of an object that of its class."""
        assert name_of(double) == "double"
        assert name_of(functools.partial(functools.partial(double))) == "double"
        assert name_of(Multiplier()) == name_of(Multiplier) == "Multiplier"
        assert name_of(None) is None


class TestErrors:
    """What a function raises is the item's failure."""

    @pytest.mark.parametrize(
        "error", [ValueError("bad"), StopIteration(), SystemExit(3), KeyError("k"), RecursionError()]
    )
    def test_any_error_fails_the_item_in_hand(self, error: BaseException) -> None:
        """Whatever is raised, also `StopIteration` and `SystemExit`, fails that item; the original is the cause."""

        def function(item: int) -> int:
            if item == 3:
                raise error
            return item

        with pytest.raises(ItemError, match="item 2") as caught:
            results([1, 2, 3, 4], function)
        assert caught.value.item == 3
        assert caught.value.__cause__ is not None
        if not isinstance(error, StopIteration):
            assert caught.value.__cause__ is error

    @pytest.mark.parametrize("place", [0, 4])
    def test_stop_iteration_fails_the_first_and_the_last_item_too(self, place: int) -> None:
        """An item is never taken as done because its call ended the iteration."""

        def function(item: int) -> int:
            if item == place:
                raise StopIteration
            return item

        for batch_size in (1, 5, 100):
            with pytest.raises(ItemError, match="StopIteration") as caught:
                results(list(range(5)), function, batch_size=batch_size)
            assert caught.value.item == place

    def test_an_error_in_a_generator_keeps_no_result_of_its_item(self) -> None:
        """Results of an item are stored whole or not at all."""

        def function(item: int) -> Iterator[int]:
            yield item
            if item == 2:
                raise ValueError("later")
            yield -item

        with pytest.raises(ItemError):
            batchkit.process([1, 2], function, job="pairs")
        assert list(batchkit.Job("pairs").results()) == [1, -1]

    def test_a_message_of_several_lines_becomes_one(self) -> None:
        """Every message is one line."""

        def function(_item: int) -> int:
            raise ValueError("first\nsecond")

        with pytest.raises(ItemError) as caught:
            results([1], function)
        assert "\n" not in str(caught.value)
        assert "ValueError: first second" in str(caught.value)

    def test_a_long_item_is_shortened_in_the_message(self) -> None:
        """A message shows the beginning of an item."""
        with pytest.raises(ItemError) as caught:
            results(["x" * 10_000], int)
        assert len(str(caught.value)) < 500
        assert caught.value.item == "x" * 10_000

    def test_keyboard_interrupt_is_not_the_items_failure(self) -> None:
        """Leaving at once is for the person at the keyboard."""

        def function(_item: int) -> int:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            results([1], function)


class TestBatched:
    """A batched function gets lists."""

    def test_it_is_called_with_lists(self) -> None:
        """With `batched` the function gets all items of a batch and gives any number of results."""
        assert results([1, 2, 3], lambda items: [sum(items)], batched=True, batch_size=2) == [3, 3]
        assert results([1, 2, 3], lambda items: (2 * item for item in items), batched=True) == [2, 4, 6]
        assert results([1, 2], lambda _items: None, batched=True) == []

    def test_a_generator_function_may_be_batched(self) -> None:
        """What a batched generator function yields are the results."""

        def function(items: list[int]) -> Iterator[int]:
            for item in items:
                yield item
                yield item

        assert results([1, 2], function, batched=True) == [1, 1, 2, 2]

    def test_the_list_is_the_functions_own(self) -> None:
        """What the function does to its list does not change what is counted and committed."""

        def function(items: list[int]) -> list[int]:
            taken = list(items)
            items.clear()
            return taken

        result = batchkit.process([1, 2, 3], function, batched=True)
        assert (result.done, list(result.results())) == (3, [1, 2, 3])

    @pytest.mark.parametrize("wrong", ["text", b"bytes", {"a": 1}, 5])
    def test_a_wrong_kind_of_results_fails_the_batch(self, wrong: object) -> None:
        """A string, bytes, a dict or a number is no list of results."""
        with pytest.raises(ItemError, match="TypeError") as caught:
            results([1, 2], lambda _items: wrong, batched=True)
        assert isinstance(caught.value.__cause__, TypeError)

    def test_a_failing_batch_names_the_batch_and_no_item(self) -> None:
        """Not narrowed, nobody knows which item it was, and `ItemError.item` is `None`; else the first one is named."""

        def function(_items: list[int]) -> list[int]:
            raise ValueError("no")

        with pytest.raises(ItemError, match=r"a batch of 2 items .*item 0") as caught:
            results([7, 8], function, batched=True, isolate="none")
        assert caught.value.item is None
        with pytest.raises(ItemError, match="failed on 7 at item 0"):
            results([7, 8], function, batched=True)

    def test_a_result_that_cannot_be_stored_names_its_item_if_there_is_one_each(self) -> None:
        """With one result per item, a bad result is that item's failure and those before it are kept."""
        with pytest.raises(ItemError) as caught:
            batchkit.process([1, 2, 3], lambda _items: [1, {2}, 3], batched=True, job="sets")
        assert caught.value.item == 2
        assert list(batchkit.Job("sets").results()) == [1]


class TestCurrentBatch:
    """What a function may know about its call."""

    def test_outside_of_a_call_there_is_none(self) -> None:
        """`current_batch()` works only inside a function that batchkit is calling."""
        with pytest.raises(UsageError, match="current_batch"):
            batchkit.current_batch()
        results([1], double)
        with pytest.raises(UsageError, match="current_batch"):
            batchkit.current_batch()

    def test_it_names_job_and_cursor(self) -> None:
        """Job, shard, number of the commit, and the coordinate of the item in hand."""
        Path("items.txt").write_text("a\nbb\nc\n")

        def look(_item: str) -> list[Any]:
            now = batchkit.current_batch()
            return [now.job, now.shard, now.seq, now.cursor]

        found = list(batchkit.process("items.txt", look, batch_size=2, job="look").results())
        assert found == [["look", 0, 1, [0, 0]], ["look", 0, 1, [0, 2]], ["look", 0, 2, [0, 5]]]

    @pytest.mark.parametrize("isolate_process", [False, True])
    def test_a_function_can_see_the_number_of_its_item(self, *, isolate_process: bool) -> None:
        """Items are numbered from 1 over the whole input, in every run, batch size and process, and when retried."""
        Path("items.txt").write_text("".join(f"{number}\n" for number in range(1, 10)))
        Path("failing").touch()

        def look(item: str) -> str:
            if item in {"3", "8"} and Path("failing").exists():
                raise ValueError(item)
            return f"{item}={batchkit.current_batch().number}"

        def run(**options: Any) -> batchkit.Result:
            return batchkit.process(
                "items.txt", look, job="numbers", on_error="skip", isolate_process=isolate_process, **options
            )

        run(batch_size=2, max_items=5)
        run(batch_size=3)
        Path("failing").unlink()
        batchkit.Job("numbers").retry(look)
        assert list(batchkit.Job("numbers").results()) == [f"{number}={number}" for number in range(1, 10)]

    def test_the_key_of_an_item_is_the_same_in_every_run_and_batch_size(self) -> None:
        """Keys name uuid and coordinates, never a batch: an item keeps its key over failures, runs and sizes."""
        Path("items.txt").write_text("".join(f"{number}\n" for number in range(12)))
        seen: dict[str, set[str]] = {}
        failing = {"3", "7"}

        def look(item: str) -> str:
            now = batchkit.current_batch()
            assert now.item_keys == [now.key]
            seen.setdefault(item, set()).add(now.key)
            if item in failing:
                failing.remove(item)
                raise ValueError(item)
            return item

        for batch_size in (5, 3, 4):
            try:
                batchkit.process("items.txt", look, batch_size=batch_size, job="keys")
            except ItemError:
                continue
        assert [len(keys) for keys in seen.values()] == [1] * 12
        assert len(set.union(*seen.values())) == 12

    def test_the_key_of_a_batch_is_of_its_first_and_last_item(self) -> None:
        """The same items give the same key again; other items another; restarting gives new ones."""
        Path("items.txt").write_text("a\nb\nc\n")
        seen: list[tuple[str, list[str]]] = []
        fail = [True]

        def look(_items: list[str]) -> list[str]:
            now = batchkit.current_batch()
            seen.append((now.key, now.item_keys))
            if fail.pop() if fail else False:
                raise ValueError
            return []

        with pytest.raises(ItemError):
            batchkit.process("items.txt", look, batched=True, batch_size=2, job="keys", isolate="none")
        batchkit.process("items.txt", look, batched=True, batch_size=2, job="keys")
        batchkit.process("items.txt", look, batched=True, batch_size=2, job="keys", restart=True)
        (first, again, last, restarted, _) = seen
        assert first == again
        assert first[0].startswith(first[1][0])
        assert [len(keys) for _, keys in seen] == [2, 2, 1, 2, 1]
        assert not set(first[1]) & {*last[1], *restarted[1]}

    def test_the_key_is_of_the_items_that_the_function_really_got(self) -> None:
        """Where an unreadable item ends a batched call early, key and item_keys are of this call's items only."""
        Path("items.txt").write_bytes(b"a\nb\n\xff\nc\n")
        seen: list[tuple[list[str], str, list[str]]] = []

        def look(items: list[str]) -> list[str]:
            now = batchkit.current_batch()
            seen.append((items, now.key, now.item_keys))
            return items

        with pytest.raises(ItemError):
            batchkit.process("items.txt", look, batched=True, job="keys")
        ((items, key, item_keys),) = seen
        assert items == ["a", "b"]
        assert len(item_keys) == 2
        assert key.endswith(":0.0-0.2")

    def test_items_cut_off_a_batch_keep_their_keys(self) -> None:
        """A batch that was split names its items as the whole did."""
        batch = IndexBatch([10, 11, 12, 13], 5)
        keys: list[str] = []

        def look(_item: int) -> None:
            keys.append(batchkit.current_batch().key)

        caller = Caller(look, batched=False, identity=HERE)
        caller(batch, 1)
        for part in batch.split(3):
            caller(part, 1)
        caller.close()
        assert keys == ["uuid:5", "uuid:6", "uuid:7", "uuid:8"] * 2

    def test_a_thread_of_the_functions_own_is_outside(self) -> None:
        """`current_batch()` is of the calling context; another thread has none."""
        seen: list[type[BaseException]] = []

        def look() -> None:
            try:
                batchkit.current_batch()
            except UsageError as error:
                seen.append(type(error))

        def function(item: int) -> int:
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            return item

        results([1], function)
        assert seen == [UsageError]


class TestCutting:
    """A batch of single items can be cut at an item's end."""

    def test_a_cut_ends_the_batch_after_the_item_in_hand(self) -> None:
        """The results up to and with the item in hand are kept, and that is no error."""

        def function(item: int) -> int:
            if item == 2:
                caller.cut()
            return item

        caller = Caller(function, batched=False, identity=HERE)
        outcome = caller(IndexBatch([1, 2, 3, 4], 0), 1)
        caller.close()
        assert (outcome.results, outcome.done, outcome.error) == ([1, 2], 2, None)

    def test_a_cut_at_the_last_item_changes_nothing(self) -> None:
        """The batch was done anyway."""

        def function(item: int) -> Iterator[int]:
            if item == 2:
                caller.cut()
            yield item
            yield item

        caller = Caller(function, batched=False, identity=HERE)
        outcome = caller(IndexBatch([1, 2], 0), 1)
        caller.close()
        assert (outcome.results, outcome.done, outcome.sizes) == ([1, 1, 2, 2], 2, [2, 2])


class TestLoading:
    """`pkg.module:name` and `path.py:name`."""

    def test_a_function_of_a_module_is_found(self) -> None:
        """Dotted names reach into classes."""
        assert load("json:dumps")(1) == "1"
        assert load("json.encoder:JSONEncoder.encode").__name__ == "encode"

    def test_a_function_of_a_file_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A path to a .py file is run as a module, and may import its neighbours."""
        monkeypatch.setattr(sys, "path", [*sys.path])
        Path("tools").mkdir()
        Path("tools/neighbour_of_mine.py").write_text("def add(item): return item + '!'\n")
        Path("tools/file_of_mine.py").write_text("from neighbour_of_mine import add\n__all__ = ['add']\n")
        assert load("tools/file_of_mine.py:add")("a") == "a!"

    def test_a_module_here_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The working directory is searched, as with `python -m`."""
        monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
        Path("module_right_here.py").write_text("def one(item): return 1\n")
        assert load("module_right_here:one")("a") == 1

    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            ("json", "pkg.module:name or path.py:name"),
            ("json:", "pkg.module:name or path.py:name"),
            (":dumps", "pkg.module:name or path.py:name"),
            ("", "pkg.module:name or path.py:name"),
            ("json:nothing", "has no 'nothing'"),
            ("json:dumps.nothing", "has no"),
            ("json:__doc__", "cannot be called"),
            ("no_such_module_at_all:f", "cannot import 'no_such_module_at_all'"),
            ("nowhere.py:f", "there is no file 'nowhere.py'"),
            ("broken.py:f", "cannot import 'broken.py': SyntaxError"),
            ("exits.py:f", "cannot import 'exits.py': SystemExit"),
            ("fine.py:g", "it has f"),
        ],
    )
    def test_what_cannot_be_loaded_is_told_in_one_line(
        self, monkeypatch: pytest.MonkeyPatch, spec: str, words: str
    ) -> None:
        """Each mistake is a `UsageError` that says what is missing and what there is."""
        monkeypatch.setattr(sys, "path", [*sys.path])
        Path("broken.py").write_text("def f(:\n")
        Path("exits.py").write_text("raise SystemExit(3)\n")
        Path("fine.py").write_text("def f(item): return item\n")
        with pytest.raises(UsageError) as caught:
            load(spec)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_that_changes_often_is_run_as_it_is_now(workdir: Path) -> None:
    """Also when a function is asked for again after the second version: never one of the first."""
    path = workdir / "changing_work.py"
    for number in (1, 22, 333):
        path.write_text(f"def number(_item):\n    return {number}\n")
        for _ in range(2):
            assert load(f"{path}:number")(None) == number
