"""`batchkit.process` and `batchkit.Job`: the promises of the Python interface."""

from __future__ import annotations

import os
import pickle
import signal
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import batchkit
from batchkit import errors
from batchkit.errors import ItemError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

pytestmark = pytest.mark.usefixtures("workdir")


def write_numbers(count: int, path: str = "items.txt") -> None:
    """Write a file of numbered lines."""
    Path(path).write_text("".join(f"{number}\n" for number in range(count)))


def double(item: str | int) -> int:
    """Return twice the number."""
    return 2 * int(item)


def numbers(count: int) -> Iterator[int]:
    """Yield numbers."""
    yield from range(count)


class TestSources:
    """What a list can be."""

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ([1, "a", None, 2.5], [1, "a", 2.5]),
            ((1, 2), [1, 2]),
            (range(3, 0, -1), [3, 2, 1]),
            ({"a": 1, "b": 2}, [("a", 1), ("b", 2)]),
            (OrderedDict(a=1), [("a", 1)]),
            ([], []),
            ({}, []),
            (range(0), []),
        ],
    )
    def test_what_can_be_indexed_is_read_by_index(self, source: Any, expected: list[Any]) -> None:
        """Lists, tuples, ranges and the pairs of a dict, in order."""
        result = batchkit.process(source, batch_size=2)
        assert (list(result.results()), result.done, result.total) == (expected, len(source), len(source))

    @pytest.mark.parametrize("make", [lambda: numbers(5), lambda: map(int, "01234"), lambda: iter([0, 1, 2, 3, 4])])
    def test_any_iterable_is_read_forwards(self, make: Callable[[], Iterable[int]]) -> None:
        """A generator, a map object, an iterator."""
        result = batchkit.process(make(), batch_size=2)
        assert (list(result.results()), result.completed) == ([0, 1, 2, 3, 4], True)

    @pytest.mark.parametrize("path", ["items.txt", Path("items.txt"), "it*.txt"])
    def test_a_path_is_its_lines(self, path: str | Path) -> None:
        """A string or path names a file, or several by a pattern."""
        write_numbers(3)
        assert list(batchkit.process(path, double).results()) == [0, 2, 4]

    @pytest.mark.parametrize("source", [{1, 2}, frozenset("ab")])
    def test_a_set_is_refused(self, source: object) -> None:
        """A set has no order to resume in; the message says what to pass."""
        with pytest.raises(UsageError, match="sorted"):
            batchkit.process(source)

    @pytest.mark.parametrize("source", [5, b"bytes", None, 1.5])
    def test_what_is_no_list_is_refused(self, source: object) -> None:
        """The message names the kind of thing it was."""
        with pytest.raises(UsageError, match=type(source).__name__):
            batchkit.process(source)

    @pytest.mark.parametrize("make", [lambda: list(range(10)), lambda: range(10), lambda: numbers(10)])
    def test_a_named_job_over_a_source_in_memory_resumes(self, make: Callable[[], Any]) -> None:
        """With a name, a list or generator made again goes on where it was; nothing done is done again."""
        seen: list[int] = []

        def function(item: int) -> int:
            seen.append(item)
            return item * item

        first = batchkit.process(make(), function, job="squares", max_items=4, batch_size=3)
        assert (first.status, first.done, list(first.results())) == ("paused", 4, [0, 1, 4, 9])
        second = batchkit.process(make(), function, job="squares", batch_size=5)
        assert (second.status, second.done, second.new) == ("completed", 10, 6)
        assert list(second.results()) == [item * item for item in range(10)]
        assert seen == list(range(10))

    def test_items_that_json_does_not_know_can_be_resumed(self) -> None:
        """Items of memory may be anything; only results must fit the output."""
        items = [object(), {1: {2}}, (3, b"x"), float("nan"), "\ud800"]
        batchkit.process(items, lambda _item: "ok", job="odd", max_items=2)
        assert batchkit.process(items, lambda _item: "ok", job="odd").done == 5


class TestResults:
    """Where results go without an output, and how they come back."""

    def test_a_job_in_memory_leaves_nothing_on_disk(self, workdir: Path) -> None:
        """A source in memory without a name keeps its results in memory."""
        result = batchkit.process([1, 2, 3], double)
        assert (result.job, result.output, list(result.results())) == (None, None, [2, 4, 6])
        assert list(workdir.iterdir()) == []

    def test_a_job_without_output_keeps_its_results_in_its_directory(self, workdir: Path) -> None:
        """Whenever there is a job, its results are kept there."""
        write_numbers(3)
        result = batchkit.process("items.txt", double)
        assert result.job == "items-double"
        assert result.output is not None
        assert Path(result.output) == workdir / ".batchkit/items-double/results.jsonl"
        assert Path(result.output).read_text() == "0\n2\n4\n"

    def test_results_of_several_runs_come_in_input_order(self) -> None:
        """`results()` yields what all runs so far have stored, whether completed or not."""
        write_numbers(7)
        for done in (3, 6, 7):
            result = batchkit.process("items.txt", double, job="load", max_items=3, batch_size=2)
            assert list(result.results()) == list(batchkit.Job("load").results()) == [2 * n for n in range(done)]

    def test_results_can_be_read_twice(self) -> None:
        """Each call reads them again."""
        result = batchkit.process([1, 2])
        assert list(result.results()) == list(result.results()) == [1, 2]

    def test_an_output_appears_whole_when_the_job_completes(self) -> None:
        """Until then its name is not there."""
        write_numbers(4)
        batchkit.process("items.txt", double, output="out.jsonl", max_items=3)
        assert not Path("out.jsonl").exists()
        batchkit.process("items.txt", double, output="out.jsonl")
        assert Path("out.jsonl").read_text() == "0\n2\n4\n6\n"
        assert not Path("out.jsonl.parts").exists()

    def test_an_empty_input_gives_an_empty_output(self) -> None:
        """Nothing to do is success."""
        Path("items.txt").write_bytes(b"")
        result = batchkit.process("items.txt", double, output="out.jsonl")
        assert (result.status, result.done, result.exit_code) == ("completed", 0, 0)
        assert Path("out.jsonl").read_bytes() == b""
        assert batchkit.Job("items-double").status().status == "completed"

    def test_lines_appended_after_completion_are_all_that_is_done(self) -> None:
        """Only appended: resume and take the new items too."""
        write_numbers(3)
        seen: list[str] = []

        def function(item: str) -> str:
            seen.append(item)
            return item

        for number in range(3, 6):
            batchkit.process("items.txt", function, output="out.txt")
            with Path("items.txt").open("a") as file:
                file.write(f"{number}\n")
        assert batchkit.process("items.txt", function, output="out.txt").new == 1
        assert seen == [str(number) for number in range(6)]
        assert Path("out.txt").read_text() == Path("items.txt").read_text()

    @pytest.mark.parametrize("make", [list, iter])
    def test_items_appended_to_a_list_are_all_that_is_done(self, make: Callable[[Iterable[int]], Any]) -> None:
        """The same for lists and iterables."""
        assert batchkit.process(make(range(3)), double, job="grow").new == 3
        result = batchkit.process(make(range(5)), double, job="grow")
        assert (result.new, list(result.results())) == (2, [0, 2, 4, 6, 8])
        assert batchkit.process(make(range(5)), double, job="grow").new == 0

    def test_what_the_function_appends_to_its_input_is_the_next_runs(self) -> None:
        """The end is fixed at the start of a run; the tail is done by the next one."""
        write_numbers(2)

        def function(item: str) -> str:
            with Path("items.txt").open("a") as file:
                file.write(f"more{item}\n")
            return item

        assert batchkit.process("items.txt", function, job="feed").done == 2
        second = batchkit.process("items.txt", function, job="feed")
        assert list(second.results()) == ["0", "1", "more0", "more1"]

    def test_what_is_appended_between_reader_and_run_is_not_lost(self) -> None:
        """A line appended after the reader took its bound is the next run's, never nobody's."""
        write_numbers(2)
        reader = batchkit.lines("items.txt")
        with Path("items.txt").open("a") as file:
            file.write("2\n")
        assert batchkit.process(reader, double, job="race").done == 2
        assert list(batchkit.process("items.txt", double, job="race").results()) == [0, 2, 4]


class TestFaces:
    """What a result and a job say of themselves."""

    def test_a_result_says_what_happened(self) -> None:
        """Its representation is a sentence with status, counts and what comes next."""
        write_numbers(4)
        paused = batchkit.process("items.txt", double, max_items=1)
        assert repr(paused).startswith(
            "<Result items-double: paused, the number of items asked for is done: 1 item done"
        )
        assert "run the same command again" in repr(paused)
        assert (paused.exit_code, paused.completed, paused.new, paused.left) == (75, False, 1, 3)
        completed = batchkit.process("items.txt", double)
        assert repr(completed).startswith("<Result items-double: completed, 4 items done")
        assert (completed.exit_code, completed.completed, completed.new, completed.left) == (0, True, 3, 0)
        again = batchkit.process("items.txt", double)
        assert "nothing new to do" in repr(again)
        assert "--restart" in repr(again)

    def test_a_job_says_how_it_stands(self) -> None:
        """Name, status and count."""
        write_numbers(4)
        batchkit.process("items.txt", double, job="load", max_items=3)
        assert repr(batchkit.Job("load")) == "<Job load: paused, 3 done>"
        assert [job.name for job in batchkit.jobs()] == ["load"]

    def test_status_is_derived(self) -> None:
        """paused, failed and completed, with counts, reason and runs."""
        write_numbers(4)
        fail = [True]

        def function(item: str) -> str:
            if fail and item == "2":
                raise ValueError(fail.pop())
            return item

        batchkit.process("items.txt", function, job="load", max_items=1)
        status = batchkit.Job("load").status()
        assert (status.status, status.done, status.total, status.runs) == ("paused", 1, None, 1)
        assert status.share == 0.25
        with pytest.raises(ItemError):
            batchkit.process("items.txt", function, job="load")
        status = batchkit.Job("load").status()
        assert (status.status, status.done, status.runs) == ("failed", 2, 2)
        assert "items.txt' line 3" in str(status.reason)
        batchkit.process("items.txt", function, job="load")
        status = batchkit.Job("load").status()
        assert (status.status, status.done, status.total, status.reason) == ("completed", 4, 4, None)

    def test_a_job_is_running_while_it_runs(self) -> None:
        """`running` = the job's lock is held; looking takes nothing away from it."""
        write_numbers(2)

        def function(_item: str) -> list[Any]:
            status = batchkit.Job("load").status()
            return [status.status, f"pid {os.getpid()} " in str(status.reason)]

        assert list(batchkit.process("items.txt", function, job="load").results()) == [["running", True]] * 2

    def test_a_job_that_runs_is_locked(self) -> None:
        """A second run of the same job is refused with the holder's pid."""
        write_numbers(1)

        def function(item: str) -> str:
            with pytest.raises(batchkit.JobLocked, match=f"pid {os.getpid()} on .* since 20"):
                batchkit.process("items.txt", function, job="load")
            return item

        assert batchkit.process("items.txt", function, job="load").completed

    def test_an_unknown_job_is_refused_with_the_known_ones(self) -> None:
        """`Job` finds what exists."""
        batchkit.process([1], job="one")
        with pytest.raises(UsageError, match=r"no job 'two' .*one"):
            batchkit.Job("two")

    @pytest.mark.parametrize(
        "name", ["", "../up", "a/b", "/abs", ".hidden", "-flag", "nul\0", "line\nbreak", "x" * 300]
    )
    def test_a_name_that_leads_elsewhere_is_refused(self, workdir: Path, name: str) -> None:
        """No separators, `..`, leading `-`, NUL."""
        with pytest.raises(UsageError, match="job name"):
            batchkit.process([1], job=name)
        assert list(workdir.iterdir()) == []

    @pytest.mark.parametrize(
        "wrong",
        [
            {"batch_size": 0}, {"max_items": -1}, {"max_batches": -1}, {"on_input_change": "ask"}, {"max_time": "soon"},
            {"batch_seconds": "x"}, {"sync_interval": -1}, {"until": "later"}, {"progress": "loud"},
            {"output": "out.json"}, {"output": "out.xz"}, {"output_format": "xml", "output": "x"}, {"schema": "a=int"},
            {"output": "missing/out.txt"}, {"batch_format": "polars"}, {"input_format": "xml"}, {"columns": ["a"]},
        ],
    )  # fmt: skip
    def test_a_wrong_option_is_refused_and_nothing_is_done(self, wrong: dict[str, Any]) -> None:
        """`UsageError`: an argument is wrong; nothing was done, no job exists."""
        write_numbers(2)
        with pytest.raises(UsageError):
            batchkit.process("items.txt", double, **wrong)
        assert batchkit.jobs() == []

    def test_every_public_name_is_there(self) -> None:
        """All names that the package promises can be had, and nothing else."""
        for name in batchkit.__all__:
            assert getattr(batchkit, name).__name__ == name
        with pytest.raises(AttributeError, match="nonsense"):
            batchkit.nonsense  # noqa: B018
        assert set(batchkit.__all__) <= set(dir(batchkit))


class TestErrors:
    """Every error is of one tree and travels."""

    @pytest.mark.parametrize(
        "kind", [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
    )
    def test_errors_survive_pickling(self, kind: type[errors.BatchkitError]) -> None:
        """Each error class keeps message and attributes, and belongs to the tree."""
        error = ItemError("no", item={"a": 1}, position="line 3") if kind is ItemError else kind("no")
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
        assert (type(copy), str(copy), copy.__dict__, copy.exit_code) == (kind, "no", error.__dict__, error.exit_code)
        assert isinstance(copy, errors.BatchkitError)

    def test_an_item_error_names_item_position_and_cause(self) -> None:
        """What, where, what next."""
        write_numbers(3)
        with pytest.raises(ItemError) as caught:
            batchkit.process("items.txt", lambda item: 1 // (1 - int(item)), job="divide")
        error = caught.value
        assert (error.item, error.position) == ("1", "'items.txt' line 2 (byte 2)")
        assert isinstance(error.__cause__, ZeroDivisionError)
        for part in ("'1'", "line 2", "ZeroDivisionError", "everything before it is kept, the next run begins with it"):
            assert part in str(error)

    def test_usage_errors_are_value_errors(self) -> None:
        """Whoever catches `ValueError` catches a wrong argument."""
        assert issubclass(UsageError, ValueError)


class TestStopping:
    """Stop requests end a run at an item's end."""

    @pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
    def test_a_signal_cuts_the_batch_at_the_item_in_hand(self, name: str) -> None:
        """The first signal finishes the item and commits it; the next run goes on, doing nothing twice."""
        write_numbers(10)
        seen: list[str] = []

        def function(item: str) -> str:
            seen.append(item)
            if len(seen) == 4:
                os.kill(os.getpid(), getattr(signal, name))
            return item

        before = signal.getsignal(getattr(signal, name))
        result = batchkit.process("items.txt", function, output="out.txt")
        assert (result.status, result.done, result.reason) == ("paused", 4, f"asked to stop by {name}")
        assert signal.getsignal(getattr(signal, name)) == before
        assert batchkit.process("items.txt", function, output="out.txt").completed
        assert seen == [str(number) for number in range(10)]
        assert Path("out.txt").read_text() == Path("items.txt").read_text()

    def test_a_batched_call_is_finished(self) -> None:
        """A batched function is never cut: the whole batch is committed."""
        write_numbers(10)

        def function(items: list[str]) -> list[str]:
            os.kill(os.getpid(), signal.SIGTERM)
            return items

        result = batchkit.process("items.txt", function, batched=True, batch_size=4)
        assert (result.status, result.done) == ("paused", 4)

    def test_a_stop_at_the_very_last_item_completes(self) -> None:
        """If nothing is left, there is nothing to go on with but publishing, which obeys the request."""
        write_numbers(3)

        def function(item: str) -> str:
            if item == "2":
                os.kill(os.getpid(), signal.SIGTERM)
            return item

        result = batchkit.process("items.txt", function, output="out.txt")
        assert result.done == 3
        assert batchkit.process("items.txt", function, output="out.txt").completed
        assert Path("out.txt").read_text() == "0\n1\n2\n"

    def test_a_second_signal_leaves_at_once_and_loses_nothing(self) -> None:
        """A second signal is only a crash: the next run does the item in hand again and each result is stored once."""
        write_numbers(6)
        seen: list[str] = []

        def function(item: str) -> str:
            seen.append(item)
            if len(seen) == 4:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return item

        with pytest.raises(KeyboardInterrupt):
            batchkit.process("items.txt", function, output="out.txt", batch_size=3)
        assert (
            batchkit.Job("items-" + "TestStopping.test_a_second_signal_leaves_at_once_and_loses_nothing.function")
            .status()
            .done
            == 3
        )
        assert batchkit.process("items.txt", function, output="out.txt", batch_size=3).completed
        assert Path("out.txt").read_text() == Path("items.txt").read_text()
        assert seen == ["0", "1", "2", "3", "3", "4", "5"]

    def test_abort_is_called_at_a_second_signal(self) -> None:
        """`abort` gets the number of the second signal."""
        numbers_seen: list[int] = []

        def function(item: int) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            return item

        batchkit.process([1, 2], function, abort=numbers_seen.append)
        assert numbers_seen == [signal.SIGINT]

    def test_a_deadline_that_has_passed_does_nothing(self) -> None:
        """`max_time=0` and an `until` in the past pause before the first item; so do 0 items and 0 batches."""
        write_numbers(3)
        limits: list[dict[str, Any]] = [{"max_time": 0}, {"until": "2020-01-01"}, {"max_items": 0}, {"max_batches": 0}]
        for limit in limits:
            result = batchkit.process("items.txt", double, **limit)
            assert (result.status, result.done) == ("paused", 0)
        assert batchkit.Job("items-double").status().status == "new"

    def test_exactly_as_many_items_as_asked_for_complete_a_job(self) -> None:
        """A limit that is never passed does not pause."""
        write_numbers(6)
        assert batchkit.process("items.txt", double, max_items=6, max_batches=2, batch_size=3).completed


class TestNested:
    """A function may itself process a list."""

    def test_a_run_within_a_run_is_its_own(self) -> None:
        """`current_batch()` is that of the innermost run, and the outer one's again behind it."""

        def inner(item: int) -> list[Any]:
            return [item, batchkit.current_batch().job]

        def outer(item: int) -> list[Any]:
            found = list(batchkit.process([item, -item], inner, job=f"inner{item}").results())
            return [*found, batchkit.current_batch().job, batchkit.current_batch().cursor]

        assert list(batchkit.process([1, 2], outer, job="outer").results()) == [
            [[1, "inner1"], [-1, "inner1"], "outer", 0],
            [[2, "inner2"], [-2, "inner2"], "outer", 1],
        ]

    def test_a_failing_inner_run_fails_the_outer_item(self) -> None:
        """The inner error is the cause, and the outer run's call is its own again."""

        def outer(item: int) -> int:
            try:
                batchkit.process([0], lambda item: 1 // item)
            except ItemError:
                assert batchkit.current_batch().cursor == 0
                raise
            return item

        with pytest.raises(ItemError) as caught:
            batchkit.process([1], outer)
        assert isinstance(caught.value.__cause__, ItemError)

    def test_a_signal_during_the_inner_run_stops_the_outer_one_too(self) -> None:
        """A stop request is the process's: it ends every run in it at the item in hand."""

        def inner(item: int) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return item

        def outer(item: int) -> int:
            return batchkit.process([item, item], inner).done

        result = batchkit.process([1, 2, 3], outer)
        assert (result.status, list(result.results())) == ("paused", [1])


class TestStartingOver:
    """restart, overwrite, reset, remove."""

    def test_restart_forgets_what_was_done(self) -> None:
        """All items are done again and the output is replaced; until then the old one stands."""
        write_numbers(3)
        batchkit.process("items.txt", None, output="out.txt")
        write_numbers(4)
        paused = batchkit.process("items.txt", None, output="out.txt", restart=True, max_items=1)
        assert (paused.done, Path("out.txt").read_text()) == (1, "0\n1\n2\n")
        assert batchkit.process("items.txt", None, output="out.txt").done == 4
        assert Path("out.txt").read_text() == "0\n1\n2\n3\n"

    def test_restart_of_a_new_job_is_a_start(self) -> None:
        """There is nothing to forget."""
        write_numbers(2)
        assert batchkit.process("items.txt", double, output="out.txt", restart=True).completed

    def test_restart_does_not_overwrite_a_file_of_somebody_else(self) -> None:
        """An output that exists and is not this job's is refused, also with `restart`."""
        write_numbers(2)
        batchkit.process("items.txt", double, output="out.txt", job="load", max_items=1)
        Path("precious.txt").write_text("precious")
        with pytest.raises(UsageError, match="--overwrite"):
            batchkit.process("items.txt", double, output="precious.txt", job="load", restart=True)
        assert Path("precious.txt").read_text() == "precious"
        assert batchkit.process("items.txt", double, output="out.txt", job="load").done == 2

    def test_an_output_that_exists_is_refused_unless_told(self) -> None:
        """`overwrite` replaces it whole when the job completes."""
        write_numbers(2)
        Path("out.txt").write_text("old")
        with pytest.raises(UsageError, match="--overwrite"):
            batchkit.process("items.txt", double, output="out.txt")
        batchkit.process("items.txt", double, output="out.txt", overwrite=True, max_items=1)
        assert Path("out.txt").read_text() == "old"
        batchkit.process("items.txt", double, output="out.txt")
        assert Path("out.txt").read_text() == "0\n2\n"

    def test_two_jobs_cannot_share_an_output(self) -> None:
        """The output of a paused job is refused to another, naming the owner."""
        write_numbers(2)
        batchkit.process("items.txt", double, output="out.txt", job="first", max_items=1)
        with pytest.raises(UsageError, match="first"):
            batchkit.process("items.txt", double, output="out.txt", job="second")
        assert batchkit.process("items.txt", double, output="out.txt", job="first").completed

    def test_a_job_whose_output_was_taken_over_does_not_write_into_the_others(self) -> None:
        """Every part says whose it is, so the parts of one job are never mistaken for another's."""
        write_numbers(6)
        batchkit.process("items.txt", double, output="out.txt", job="first", max_items=2)
        batchkit.process(
            "items.txt", lambda item: f"second {item}", output="out.txt", job="second", overwrite=True, max_items=3
        )
        with pytest.raises(batchkit.BatchkitError):
            batchkit.process("items.txt", double, output="out.txt", job="first")
        assert batchkit.process("items.txt", lambda item: f"second {item}", output="out.txt", job="second").completed
        assert Path("out.txt").read_text() == "".join(f"second {number}\n" for number in range(6))

    def test_a_directory_of_the_users_is_not_taken_for_parts(self) -> None:
        """What batchkit did not make it does not remove."""
        write_numbers(2)
        Path("out.txt.parts").mkdir()
        Path("out.txt.parts/precious").write_text("mine")
        with pytest.raises(batchkit.BatchkitError, match=r"out\.txt\.parts"):
            batchkit.process("items.txt", double, output="out.txt")
        assert Path("out.txt.parts/precious").read_text() == "mine"

    def test_an_output_through_a_link_is_written_where_it_leads(self) -> None:
        """A link stays a link: the output path is resolved at the start."""
        write_numbers(2)
        Path("real").mkdir()
        Path("link.txt").symlink_to("real/out.txt")
        batchkit.process("items.txt", double, output="link.txt")
        assert Path("link.txt").is_symlink()
        assert Path("real/out.txt").read_text() == "0\n2\n"

    def test_reset_starts_over_with_the_next_run(self) -> None:
        """A published output stays until the new one replaces it."""
        write_numbers(2)
        batchkit.process("items.txt", None, output="out.txt", job="load")
        batchkit.Job("load").reset()
        status = batchkit.Job("load").status()
        assert (status.status, status.done) == ("new", 0)
        assert Path("out.txt").read_text() == "0\n1\n"
        result = batchkit.process("items.txt", None, output="out.txt", job="load")
        assert (result.new, Path("out.txt").read_text()) == (2, "0\n1\n")

    def test_remove_leaves_the_published_output(self, workdir: Path) -> None:
        """The job and what it has not published are gone."""
        write_numbers(2)
        batchkit.process("items.txt", None, output="out.txt", job="load")
        batchkit.process("items.txt", None, output="half.txt", job="half", max_items=1)
        for job in batchkit.jobs():
            job.remove()
        assert batchkit.jobs() == []
        assert sorted(path.name for path in workdir.iterdir()) == [".batchkit", "items.txt", "out.txt"]

    @pytest.mark.parametrize("interval", [0, None, 1e-9, "1ms"])
    def test_any_sync_interval_gives_the_same_results(self, interval: Any) -> None:
        """Syncing bounds what a power cut undoes, never what is stored."""
        write_numbers(50)
        while not batchkit.process(
            "items.txt", None, output="out.txt", sync_interval=interval, batch_size=3, max_batches=6
        ).completed:
            pass
        assert Path("out.txt").read_text() == Path("items.txt").read_text()

    def test_state_goes_where_it_is_told(self, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`state_dir`, else $BATCHKIT_STATE_DIR, else .batchkit here."""
        batchkit.process([1], job="here")
        monkeypatch.setenv("BATCHKIT_STATE_DIR", "there")
        batchkit.process([1], job="there")
        batchkit.process([1], job="given", state_dir="given")
        assert [path.parent.name for path in sorted(workdir.glob("*/*/job.json"))] == ["here", "given", "there"]

    def test_state_is_private_and_outputs_follow_the_umask(self) -> None:
        """State directory 0700, state files 0600; they may quote the input."""
        write_numbers(2)
        before = os.umask(0o022)
        try:
            batchkit.process("items.txt", None, output="out.txt")
        finally:
            os.umask(before)
        assert Path(".batchkit").stat().st_mode & 0o777 == 0o700
        state = [path for path in Path(".batchkit").rglob("*") if path.is_file()]
        assert {path.stat().st_mode & 0o777 for path in state} == {0o600}
        assert Path("out.txt").stat().st_mode & 0o777 == 0o644

    def test_a_state_directory_that_others_may_write_is_refused(self) -> None:
        """Others could change what a job does."""
        Path(".batchkit").mkdir()
        Path(".batchkit").chmod(0o777)
        with pytest.raises(batchkit.StorageError, match="chmod go-w"):
            batchkit.process([1], job="load")


LINES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=6) | st.just("x" * 3000),
    max_size=25,
)
RUNS = st.lists(
    st.tuples(st.integers(1, 9), st.none() | st.integers(0, 7), st.none() | st.integers(0, 3), st.booleans()),
    max_size=8,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lines=LINES,
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
    last=st.booleans(),
    runs=RUNS,
    kind=st.sampled_from(["txt", "jsonl", "csv"]),
)
def test_every_split_into_runs_gives_the_same_bytes(  # hypothesis gives them
    lines: list[str],
    end: str,
    mark: bool,
    last: bool,
    runs: list[tuple[int, int | None, int | None, bool]],
    kind: str,
) -> None:
    """However a job is cut into runs of whatever batch sizes, its output is that of one uninterrupted run."""
    data = ("\ufeff" if mark else "") + end.join(lines) + (end if last and lines else "")

    def single(item: str) -> Any:
        return None if item.startswith("0") else [item, len(item)] if kind == "csv" else item

    with tempfile.TemporaryDirectory() as directory:
        source, state = Path(directory, "items.txt"), Path(directory, "state")
        source.write_bytes(data.encode())
        whole = batchkit.process(
            source, single, output=Path(directory, f"whole.{kind}"), job="whole", state_dir=state, sync_interval=None
        )
        output = Path(directory, f"pieces.{kind}")

        def run(batch_size: int, items: int | None, batches: int | None, restart: bool) -> batchkit.Result:
            return batchkit.process(
                source, single, output=output, job="pieces", state_dir=state, sync_interval=None,
                batch_size=batch_size, max_items=items, max_batches=batches, restart=restart,
            )  # fmt: skip

        for batch_size, items, batches, restart in runs:
            part = run(batch_size, items, batches, restart and batch_size == 9)
            assert part.done <= whole.done
            assert items is None or part.new <= items
        final = run(4, None, None, restart=False)
        assert (final.completed, final.done) == (True, whole.done)
        assert output.read_bytes() == Path(directory, f"whole.{kind}").read_bytes()
        assert list(final.results()) == list(whole.results())
