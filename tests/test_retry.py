"""Running the failures of a job again: each result comes to stand where its item stood, whatever the output is."""

from __future__ import annotations

import datetime
import functools
import json
import os
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars
import pytest
from hypothesis import example, given, settings, strategies as st

import batchkit
from batchkit.errors import ItemError, TooManyFailures, UsageError
from batchkit.loading import load, load_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = pytest.mark.usefixtures("workdir")

OUTPUTS = ["o.txt", "o.jsonl", "o.csv", "o.tsv", "o.csv.gz", "o.jsonl.zst", "o.parquet", "out/", "jsonl/", None]
KINDS = ["plain", "generator", "batched", "side by side", "nothing"]


class World:
    """What makes items fail: those in `bad` do; `calls` are the items of each call."""

    bad: set[int] = set()  # noqa: RUF012  # shared on purpose
    calls: list[list[int]] = []  # noqa: RUF012
    keys: list[str] = []  # noqa: RUF012


@pytest.fixture(autouse=True)
def _peace() -> None:
    World.bad = set()
    World.calls = []
    World.keys = []


def _row(number: int, part: int = 0) -> dict[str, int]:
    return {"number": number, "part": part}


def _judged(numbers: list[int]) -> None:
    World.calls.append(numbers)
    World.keys += batchkit.current_batch().item_keys
    if World.bad & set(numbers):
        raise ValueError(f"bad: {sorted(World.bad & set(numbers))}")


def plain(item: Any) -> Any:
    """One result."""
    _judged([int(item)])
    return _row(int(item))


def generator(item: Any) -> Iterator[Any]:
    """0, 1 or 2 results."""
    _judged([int(item)])
    for part in range(int(item) % 3):
        yield _row(int(item), part)


def batched(items: list[Any]) -> list[Any]:
    """One result per item."""
    _judged([int(item) for item in items])
    return [_row(int(item)) for item in items]


def flattening(items: list[Any]) -> list[Any]:
    """0, 1 or 2 results per item, and nobody knows which is whose."""
    _judged([int(item) for item in items])
    return [_row(int(item), part) for item in items for part in range(int(item) % 3)]


def nothing(item: Any) -> Any:
    """A result only for every other item."""
    _judged([int(item)])
    return _row(int(item)) if int(item) % 2 else None


FUNCTIONS: dict[str, Any] = {
    "plain": plain,
    "generator": generator,
    "batched": batched,
    "side by side": flattening,
    "nothing": nothing,
}


def expected(kind: str, numbers: Sequence[int]) -> list[Any]:
    """Return the results of items that are fine."""
    if kind in {"generator", "side by side"}:
        return [_row(number, part) for number in numbers for part in range(number % 3)]
    return [_row(number) for number in numbers if kind != "nothing" or number % 2]


def write_items(numbers: Sequence[int], *, more: bool = False) -> None:
    """Write the items, or append some."""
    with Path("items.txt").open("a" if more else "w", encoding="utf-8") as file:
        file.writelines(f"{number}\n" for number in numbers)


def run(kind: str, output: str | None, **options: Any) -> batchkit.Result:
    """Run the job."""
    return batchkit.process(
        "items.txt",
        FUNCTIONS[kind],
        batched=kind in {"batched", "side by side"},
        output=output,
        output_format="jsonl" if output == "jsonl/" else None,
        **{"batch_size": 10, "job": "j", "progress": "none", "on_error": "skip", **options},
    )


def again(function: Callable[..., Any] | None = None, **options: Any) -> batchkit.Result:
    """Run its failures again."""
    return batchkit.Job("j").retry(function, progress="none", **options)


def results_of(found: Iterator[Any]) -> list[Any]:
    """Return results as what they were before an output made text of them."""
    rows = [json.loads(row) if isinstance(row, str) else row for row in found]
    return [{name: int(value) for name, value in row.items()} for row in rows]


def published(output: str | None) -> list[Any]:
    """Return what stands in the output itself, read by others."""
    if output is None:
        return results_of(batchkit.Job("j").results())
    paths = sorted(Path(output).iterdir()) if output.endswith("/") else [Path(output)]
    rows: list[Any] = []
    for path in paths:
        name = path.name.removesuffix(".gz").removesuffix(".zst")
        if name.endswith(".parquet"):
            rows += polars.read_parquet(path).to_dicts()
        elif name.endswith((".csv", ".tsv")):
            frame = polars.read_csv(path, separator="\t" if name.endswith(".tsv") else ",")
            rows += frame.to_dicts()
        else:
            rows += batchkit.process(batchkit.lines(path), job="reading", restart=True, progress="none").results()
    return results_of(iter(rows))


class TestPlaces:
    """Where results of a retry come to stand."""

    @pytest.mark.parametrize("output", OUTPUTS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_results_stand_in_input_order(self, output: str | None, kind: str) -> None:
        """First, last, side by side, over the border of a batch, alone; in two rounds."""
        bad = {0, 1, 2, 7, 9, 10, 11, 25, 33, 34}
        write_items(range(35))
        World.bad = set(bad)
        result = run(kind, output)
        good = [number for number in range(35) if number not in bad]
        assert (result.done, result.failed, published(output)) == (25, 10, expected(kind, good))
        World.bad, World.calls = {1, 10, 34}, []
        retried = again()
        assert (retried.status, retried.done, retried.failed, retried.total) == ("completed", 7, 3, 10)
        assert set().union(*World.calls) == bad, "only failures are called"
        good = [number for number in range(35) if number not in World.bad]
        assert published(output) == results_of(retried.results()) == expected(kind, good)
        assert [failure.item for failure in retried.failures()] == ["1", "10", "34"]
        assert [failure.attempts for failure in batchkit.Job("j").failures()] == [2, 2, 2]
        World.bad = set()
        retried = again()
        assert (retried.done, retried.failed, retried.exit_code) == (3, 0, 0)
        assert published(output) == results_of(batchkit.Job("j").results()) == expected(kind, range(35))
        status = batchkit.Job("j").status()
        assert (status.status, status.done, status.failed, status.total) == ("completed", 35, 0, 35)
        result = run(kind, output)
        assert (result.completed, result.done, result.failed, result.new) == (True, 35, 0, 0)
        assert published(output) == expected(kind, range(35))

    @pytest.mark.parametrize("output", OUTPUTS)
    def test_every_item_failed_at_first(self, output: str | None) -> None:
        """The output was empty, so the header is the retry's."""
        write_items(range(12))
        World.bad = set(range(12))
        assert (run("plain", output).done, run("plain", output).failed) == (0, 12)
        World.bad = {3}
        again()
        assert published(output) == expected("plain", [number for number in range(12) if number != 3])

    def test_items_side_by_side_are_called_together_and_others_alone(self) -> None:
        """For a batched function: it is not known which of its results are whose."""
        write_items(range(20))
        World.bad = {2, 4, 5, 7, 9, 10, 13}
        run("side by side", "o.jsonl")
        World.bad, World.calls = set(), []
        again()
        assert World.calls == [[2], [4, 5], [7], [9, 10], [13]]
        assert published("o.jsonl") == expected("side by side", range(20))

    @pytest.mark.parametrize("kind", ["batched", "side by side"])
    def test_several_items_at_one_place_are_narrowed_again(self, kind: str) -> None:
        """When one of them fails again."""
        write_items(range(20))
        World.bad = set(range(3, 12))
        run(kind, "o.jsonl", batch_size=20)
        World.bad = {5, 11}
        retried = again()
        assert (retried.done, retried.failed) == (7, 2)
        assert published("o.jsonl") == expected(kind, [number for number in range(20) if number not in World.bad])
        World.bad = set()
        again()
        assert published("o.jsonl") == expected(kind, range(20))

    @pytest.mark.parametrize("kind", KINDS)
    def test_keys_of_items_are_the_same_as_in_the_run(self, kind: str) -> None:
        """So that requests stay idempotent."""
        write_items(range(10))
        World.bad = {3, 4, 8}
        run(kind, "o.jsonl")
        keys = set(World.keys)
        assert len(keys) == 10
        World.bad, World.keys = set(), []
        again()
        assert len(set(World.keys)) == 3
        assert set(World.keys) < keys


class TestRounds:
    """Rounds that stop, and jobs that move meanwhile."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("output", ["o.jsonl", "o.csv", "o.parquet", "out/"])
    def test_a_paused_round_goes_on(self, kind: str, output: str) -> None:
        """Only what is left is called; the output stays as it was until all were tried."""
        write_items(range(30))
        World.bad = set(range(5, 25))
        run(kind, output)
        before = published(output)
        World.bad, World.calls = {9}, []
        retried = again(max_items=7)
        assert (retried.status, retried.done, retried.failed, retried.exit_code) == ("paused", 6, 14, 75)
        assert "go on with: batchkit retry j" in retried.summary()
        assert published(output) == before
        assert batchkit.Job("j").status().failed == 20, "what the output does not have yet"
        assert [int(failure.item) for failure in batchkit.Job("j").failures()] == [*range(5, 25)]
        called = set().union(*World.calls)
        World.calls = []
        retried = again()
        assert (retried.status, retried.done, retried.failed) == ("completed", 13, 1)
        assert not called & set().union(*World.calls)
        assert published(output) == expected(kind, [number for number in range(30) if number != 9])
        World.bad = set()
        again()
        assert published(output) == expected(kind, range(30))

    def test_a_run_between_the_halves_of_a_round_changes_nothing(self) -> None:
        """The round is not merged by it."""
        write_items(range(10))
        World.bad = {2, 3, 4}
        run("plain", "o.jsonl")
        World.bad = set()
        again(max_items=1)
        result = run("plain", "o.jsonl")
        assert (result.completed, result.done, result.failed) == (True, 7, 3), "as the output"
        assert again().failed == 0
        assert published("o.jsonl") == expected("plain", range(10))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("output", ["o.jsonl", "o.csv.gz", "o.parquet", "out/", None])
    def test_a_round_while_the_job_is_paused(self, kind: str, output: str | None) -> None:
        """Its results are merged when the job completes; failures that come later are the next round's."""
        write_items(range(30))
        World.bad = {3, 4, 15, 25}
        result = run(kind, output, max_items=20)
        assert (result.status, result.failed) == ("paused", 3)
        World.bad = {4, 25}
        retried = again()
        assert (retried.done, retried.failed) == (2, 1)
        good = [number for number in range(20) if number != 4]
        assert results_of(batchkit.Job("j").results()) == expected(kind, good)
        result = run(kind, output)
        assert (result.completed, result.done, result.failed) == (True, 28, 2)
        assert published(output) == expected(kind, [number for number in range(30) if number not in {4, 25}])
        World.bad = set()
        assert again().done == 2
        assert published(output) == expected(kind, range(30))

    @pytest.mark.parametrize("output", ["o.txt", "o.jsonl", "o.csv", "o.csv.gz", "o.parquet", "out/", None])
    def test_the_input_grows_after_a_round(self, output: str | None) -> None:
        """New items, new failures, another round over old and new."""
        write_items(range(10))
        World.bad = {0, 5, 9, 12, 19}
        run("plain", output)
        World.bad = {5, 12, 19}
        again()
        write_items(range(10, 20), more=True)
        result = run("plain", output)
        assert (result.done, result.failed) == (17, 3)
        assert published(output) == expected("plain", [number for number in range(20) if number not in World.bad])
        World.bad = set()
        assert again().done == 3
        assert published(output) == expected("plain", range(20))
        write_items([20], more=True)
        assert run("plain", output).done == 21
        assert published(output) == expected("plain", range(21))

    @pytest.mark.parametrize("output", ["o.jsonl", "o.parquet", None])
    def test_a_restart_after_a_round_begins_with_nothing(self, output: str | None) -> None:
        """Rounds of the earlier start do not count, a paused one neither."""
        write_items(range(10))
        World.bad = {2, 3, 8}
        run("plain", output)
        World.bad = {3}
        again(max_items=2)
        World.bad = {3, 5}
        result = run("plain", output, restart=True)
        assert (result.done, result.failed) == (8, 2)
        assert published(output) == expected("plain", [0, 1, 2, 4, 6, 7, 8, 9])
        World.bad = set()
        assert (again().done, published(output)) == (2, expected("plain", range(10)))

    def test_a_retry_without_failures_does_nothing(self) -> None:
        """And says so."""
        write_items(range(3))
        run("plain", "o.jsonl")
        facts = Path("o.jsonl").stat().st_mtime_ns
        World.calls = []
        retried = again()
        assert (retried.status, retried.total, retried.exit_code, World.calls) == ("completed", 0, 0, [])
        assert "no failures to run again" in retried.summary()
        assert Path("o.jsonl").stat().st_mtime_ns == facts

    def test_ten_rounds(self) -> None:
        """One item is mended in each."""
        write_items(range(30))
        World.bad = set(range(10, 20))
        run("side by side", "o.csv")
        while World.bad:
            World.bad.pop()
            again()
            assert published("o.csv") == expected("side by side", sorted(set(range(30)) - World.bad))
        assert [path.name for path in Path(".batchkit/j/retries").iterdir() if (path / "part").exists()] == []

    def test_items_that_are_skipped_in_a_round_are_no_failures_any_more(self) -> None:
        """They are counted as skipped."""
        write_items(range(6))
        World.bad = {1, 4}
        run("plain", "o.jsonl")

        def skip(_: Any) -> None:
            raise batchkit.SkipItem

        retried = again(skip)
        assert (retried.done, retried.skipped, retried.failed) == (0, 2, 0)
        status = batchkit.Job("j").status()
        assert (status.done, status.skipped, status.failed, status.total) == (4, 2, 0, 6)
        assert published("o.jsonl") == expected("plain", [0, 2, 3, 5])

    @pytest.mark.parametrize("output", ["o.txt", "o.csv", "o.parquet"])
    def test_results_that_the_output_refuses_in_a_round_fail_again(self, output: str) -> None:
        """The others of the round are stored."""
        write_items(range(9))
        World.bad = {1, 2, 3, 7}
        run("plain", output)

        def odd(item: Any) -> Any:
            return {"other": object()} if item == "2" else _row(int(item))

        retried = again(odd)
        assert (retried.done, retried.failed) == (3, 1)
        (failure,) = retried.failures()
        assert (failure.item, failure.error, failure.attempts) == ("2", "ResultError", 2)
        assert published(output) == expected("plain", [0, 1, 3, 4, 5, 6, 7, 8])

    def test_failures_tell_how_the_last_attempt_went(self) -> None:
        """Error, message and traceback of the round, attempts of all, the place of the input."""
        write_items(range(3))
        World.bad = {1}
        run("plain", "o.jsonl", retries=1, retry_wait=0)
        (first,) = batchkit.Job("j").failures()

        def other(_: Any) -> None:
            raise KeyError("other")

        again(other, retries=2, retry_wait=0)
        (second,) = batchkit.Job("j").failures()
        assert (first.attempts, first.error, second.attempts, second.error) == (2, "ValueError", 5, "KeyError")
        assert (first.where, first.at, first.number) == (second.where, second.at, second.number)
        assert "KeyError: 'other'" in second.traceback

    def test_unreadable_items_stay_failures_with_their_reason(self) -> None:
        """Nothing can be called with them; why they could not be read is still the point."""
        Path("items.txt").write_bytes(b"1\n\xff\n3\n4\n")
        World.bad = {3}
        run("plain", "o.jsonl")
        reason = next(batchkit.Job("j").failures()).message
        assert "UTF-8" in reason
        World.bad = set()
        for _ in range(2):
            retried = again()
            (failure,) = retried.failures()
            assert (failure.unreadable, failure.error, failure.item) == (True, "UnreadableItem", None)
            assert reason in failure.message
        assert published("o.jsonl") == expected("plain", [1, 3, 4])


class TestSources:
    """Items come back as what they were."""

    ITEMS: tuple[list[Any], ...] = (
        [(1, "a"), (2, ("b", None)), (3, [4])],
        [datetime.date(2026, 1, day) for day in range(1, 6)],
        [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), Decimal("1.10"), b"\x00\xff", 2.5, True],
        [Path("a/b"), Path("c")],
        [{"$": 1}, {"a": {"b": (1,)}}, {1: 2}],
        ["", " ", "\ud800", None],
        [float("inf"), 10**30, frozenset([1])],
    )

    @pytest.mark.parametrize("items", ITEMS, ids=lambda items: type(items[0]).__name__)
    @pytest.mark.parametrize("together", [False, True])
    def test_of_a_list(self, items: list[Any], together: bool) -> None:
        """Tuples, dates, paths, dicts of any keys."""
        seen: list[Any] = []

        def fail(_: Any) -> None:
            raise ValueError

        def note(item: Any) -> Any:
            seen.extend(item if together else [item])
            return [1] * len(item) if together else 1

        result = batchkit.process(items, fail, batched=together, job="j", on_error="skip", progress="none")
        assert result.failed == len(items)
        assert again(note).done == len(items)
        assert (seen, [type(item) for item in seen]) == (items, [type(item) for item in items])

    def test_of_a_dict(self) -> None:
        """Its pairs."""
        seen: list[Any] = []
        batchkit.process({"a": 1, "b": (2,)}, _no, job="j", on_error="skip", progress="none")
        again(seen.append)
        assert seen == [("a", 1), ("b", (2,))]

    def test_an_item_that_is_kept_as_a_text_fails_again(self) -> None:
        """With the reason; others of its round are called."""
        batchkit.process([1, object(), 3], _no, job="j", on_error="skip", progress="none")
        retried = again(lambda item: item)
        assert (retried.done, retried.failed, list(retried.results())) == (2, 1, [1, 3])
        (failure,) = retried.failures()
        assert failure.kept_as_text
        assert "no form in JSON" in failure.message

    FRAME = polars.DataFrame(
        {
            "number": range(12),
            "day": [datetime.date(2026, 1, 1 + number) for number in range(12)],
            "when": [datetime.datetime(2026, 1, 1, number, tzinfo=datetime.UTC) for number in range(12)],
            "price": [Decimal(number) / 100 for number in range(12)],
            "tags": [["a", None], [], None, *[["b"]] * 9],
            "nested": [{"x": number, "y": None} for number in range(12)],
            "raw": [bytes([number]) for number in range(12)],
            "text": [None, "", *["x"] * 10],
            "small": polars.Series(range(12), dtype=polars.UInt8),
            "kind": polars.Series(["u", "v"] * 6, dtype=polars.Categorical),
            "share": [float("nan"), None, *[0.5] * 10],
            "took": [datetime.timedelta(seconds=number) for number in range(12)],
        }
    )

    @pytest.mark.parametrize("source", ["parquet", "frame"])
    @pytest.mark.parametrize("batch_format", ["polars", "arrow", "dicts", None])
    def test_rows_of_a_table(self, source: str, batch_format: str | None) -> None:
        """Dates, decimals, nested values and nulls; batches have the schema of the first time."""
        self.FRAME.write_parquet("items.parquet")
        made: Any = "items.parquet" if source == "parquet" else self.FRAME
        seen: list[Any] = []

        def together(batch: Any, *, fail: bool) -> Any:
            if batch_format == "dicts":
                seen.append(batch)
                numbers = [row["number"] for row in batch]
            else:
                frame = polars.from_arrow(batch) if batch_format == "arrow" else batch
                assert isinstance(frame, polars.DataFrame)
                seen.append((frame.schema, frame.to_dicts()))
                numbers = frame["number"].to_list()
            if fail and {0, 1, 2, 8} & set(numbers):
                raise ValueError(numbers)
            return [{"number": number} for number in numbers]

        batchkit.process(
            made,
            functools.partial(together, fail=True),
            batched=True,
            batch_size=4,
            batch_format=batch_format,
            output="o.jsonl",
            job="j",
            on_error="skip",
            progress="none",
        )
        alone = [one for one in seen if len(one if batch_format == "dicts" else one[1]) == 1]
        seen.clear()
        assert again(functools.partial(together, fail=False)).done == 4
        assert [row["number"] for row in batchkit.Job("j").results()] == list(range(12))
        rows = [row for one in seen for row in (one if batch_format == "dicts" else one[1])]
        wanted = [self.FRAME.row(number, named=True) for number in (0, 1, 2, 8)]
        assert repr(rows) == repr(wanted)
        if batch_format != "dicts":
            assert {tuple(one[0].items()) for one in seen} == {tuple(one[0].items()) for one in alone}

    def test_rows_of_a_table_one_by_one(self) -> None:
        """As dicts."""
        self.FRAME.write_parquet("items.parquet")
        batchkit.process("items.parquet", _no, output="o.jsonl", job="j", on_error="skip", progress="none")
        seen: list[Any] = []
        again(seen.append)
        assert repr(seen) == repr(self.FRAME.to_dicts())

    def test_rows_of_csv(self) -> None:
        """Strings, and those with a fault among them."""
        Path("items.csv").write_text('a,b\n1,2,3\n3,\n"5\n",ü\n7,8\n')
        schemas: list[Any] = []

        def together(frame: polars.DataFrame) -> polars.DataFrame:
            schemas.append(frame.schema)
            return frame

        batchkit.process("items.csv", _no, batched=True, output="o.jsonl", job="j", on_error="skip", progress="none")
        assert again(together).done == 3
        assert list(batchkit.Job("j").results()) == [
            {"a": "3", "b": ""},
            {"a": "5\n", "b": "ü"},
            {"a": "7", "b": "8"},
        ]
        assert set(map(tuple, (schema.items() for schema in schemas))) == {
            (("a", polars.String()), ("b", polars.String()))
        }

    def test_values_of_json_lines(self) -> None:
        """Of any kind, those that look like tags, too."""
        values = [{"$": "float", "v": "nan"}, [1, {"a": None}], "text", 1.5, None, {"$": 1}, 2**70]
        Path("items.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
        batchkit.process("items.jsonl", _no, output="o.jsonl", job="j", on_error="skip", progress="none")
        seen: list[Any] = []

        def note(item: Any) -> Any:
            seen.append(item)
            return [item]

        again(note)
        assert seen == values
        assert [result for (result,) in batchkit.Job("j").results()] == values

    def test_items_of_an_iterable(self) -> None:
        """Which need not be there any more."""
        batchkit.process(iter([1, 2, 3]), _no, job="j", on_error="skip", progress="none")
        again(lambda item: item)
        assert list(batchkit.Job("j").results()) == [1, 2, 3]

    def test_the_input_may_be_gone(self) -> None:
        """Failures are kept with the job."""
        write_items(range(5))
        World.bad = {2}
        run("plain", "o.jsonl")
        os.remove("items.txt")
        World.bad = set()
        again()
        assert published("o.jsonl") == expected("plain", range(5))


def _no(_: Any) -> Any:
    raise ValueError("no")


class TestOptions:
    """The function and how it is called."""

    def test_function_and_options_are_those_of_the_last_run(self) -> None:
        """Unless others are given."""
        write_items(range(4))
        World.bad = {1, 2}
        run("plain", "o.jsonl", retries=2, retry_wait=0, retry_on=(ValueError, KeyError))
        assert World.calls.count([1]) == 3
        World.calls = []
        again()
        assert World.calls == [[1]] * 3 + [[2]] * 3
        World.calls = []
        again(retries=0)
        assert World.calls == [[1], [2]]
        World.calls = []
        again(retries=5, retry_on=KeyError)
        assert World.calls == [[1], [2]]
        assert [failure.attempts for failure in batchkit.Job("j").failures()] == [8, 8]

    def test_batch_size_is_that_of_the_last_run(self) -> None:
        """Or the one given."""
        write_items(range(8))
        World.bad = set(range(8))
        run("batched", "o.jsonl", batch_size=8)
        run("batched", "o.jsonl", batch_size=4)
        World.bad, World.calls = set(), []
        again(max_batches=1)
        again(batch_size=2)
        assert World.calls == [[0, 1, 2, 3], [4, 5], [6, 7]]

    def test_a_function_without_a_name_is_to_be_given(self) -> None:
        """The message says how."""
        write_items(range(3))
        result = batchkit.process("items.txt", lambda _: 1 / 0, job="j", on_error="skip", progress="none")
        assert result.failed == 3
        with pytest.raises(UsageError, match=r"<lambda>' of the job 'j' cannot be imported .*retry\(function\), or -f"):
            again()
        assert again(lambda _: 1).done == 3

    def test_a_function_that_is_gone_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As for any function that cannot be found."""
        write_items(range(3))
        World.bad = {1}
        run("plain", "o.jsonl")
        monkeypatch.delattr("tests.test_retry.plain")
        with pytest.raises(UsageError, match="'plain'"):
            again()

    def test_a_job_that_passes_items_through(self) -> None:
        """Has no function; only what could not be stored or read can fail."""
        batchkit.process(["a", "b\n", "c"], output="o.txt", job="j", on_error="skip", progress="none")
        assert again().failed == 1
        assert again(str.strip).done == 1
        assert Path("o.txt").read_text() == "a\nb\nc\n"

    def test_a_job_whose_results_were_printed_is_refused(self, capfd: pytest.CaptureFixture[str]) -> None:
        """With the way out."""
        write_items(range(3))
        World.bad = {1}
        run("plain", "-")
        capfd.readouterr()
        with pytest.raises(UsageError, match=r"were printed.*failures j --items \| batchkit process -"):
            again()

    def test_a_job_with_an_output_of_ones_own_is_refused(self) -> None:
        """Nothing can be put in between there."""

        class Store:
            inline = True
            stored = 0

            def intact(self, marks: Sequence[Any]) -> int:
                return len(marks) - 1

            def open(self, mark: Any) -> None:
                self.stored = mark or 0

            def write(self, results: Sequence[Any]) -> None:
                self.stored += len(results)

            def mark(self) -> int:
                return self.stored

            def sync(self) -> None:
                pass

            def close(self) -> None:
                pass

        class Own:
            def writer(self, shard: int) -> Store:
                assert shard == 0
                return Store()

        write_items(range(3))
        World.bad = {1}
        result = batchkit.process("items.txt", plain, output=Own(), job="j", on_error="skip", progress="none")
        assert (result.done, result.failed) == (2, 1)
        with pytest.raises(UsageError, match=r"went to an output of your own.*failures j --items") as caught:
            again()
        assert caught.value.exit_code == 2

    def test_a_removed_job_is_none(self) -> None:
        """There is nothing to run."""
        write_items(range(3))
        run("plain", "o.jsonl")
        job = batchkit.Job("j")
        job.remove()
        with pytest.raises(UsageError, match="'j'"):
            job.retry(plain)
        with pytest.raises(UsageError, match="no job 'j'"):
            batchkit.Job("j")

    def test_a_job_that_ended_by_an_error_can_be_retried(self) -> None:
        """Its failures so far, and then it goes on."""
        write_items(range(10))
        World.bad = {1, 2, 3}
        with pytest.raises(TooManyFailures):
            run("plain", "o.jsonl", max_failures=1, batch_size=2)
        World.bad = {7}
        retried = again()
        assert (retried.done, retried.failed) == (3, 0)
        with pytest.raises(ItemError):
            run("plain", "o.jsonl", on_error="stop")
        World.bad = set()
        assert run("plain", "o.jsonl").done == 10
        assert published("o.jsonl") == expected("plain", range(10))

    @pytest.mark.parametrize(
        "options", [{"batch_size": 0}, {"retries": -1}, {"isolate": "x"}, {"batch_format": "dicts"}, {"progress": "x"}]
    )
    def test_wrong_options_are_refused(self, options: dict[str, Any]) -> None:
        """By name."""
        write_items(range(3))
        run("plain", "o.jsonl")
        with pytest.raises(UsageError, match=next(iter(options))):
            batchkit.Job("j").retry(**{"progress": "none", **options})

    def test_a_changed_output_is_refused(self) -> None:
        """It is not replaced."""
        write_items(range(3))
        World.bad = {1}
        run("plain", "o.jsonl")
        Path("o.jsonl").write_text("mine\n")
        World.bad = set()
        with pytest.raises(batchkit.errors.OutputChanged):
            again()
        assert Path("o.jsonl").read_text() == "mine\n"
        assert batchkit.Job("j").status().failed == 1


class Fate(NamedTuple):
    """What becomes of an item: `fails` calls fail (`None`: all); then it is skipped, or gives so many results.

    mended: before which of the last rounds it is; `None`: never.
    """

    fails: int | None = 0
    skipped: bool = False
    unreadable: bool = False
    results: int = 1
    mended: int | None = None


RESULTS = st.sampled_from([0, 1, 2, 2, 3])
MENDED = st.tuples(RESULTS, st.sampled_from([0, 1, 1, 2, None])).map(
    lambda both: Fate(fails=None, results=both[0], mended=both[1])
)
FATES = st.one_of(
    RESULTS.map(lambda results: Fate(results=results)),
    st.tuples(st.integers(1, 3), RESULTS).map(lambda both: Fate(fails=both[0], results=both[1])),
    MENDED,
    st.just(Fate(skipped=True)),
    st.just(Fate(unreadable=True)),
)
SOME = st.one_of(st.none(), st.integers(0, 9))
ACTIONS = st.one_of(
    st.tuples(st.just("run"), SOME, st.sampled_from(["skip", "skip", "stop"])),
    st.tuples(st.just("retry"), SOME, st.booleans()),
    st.tuples(st.just("mend"), st.integers(0, 24), st.just(None)),
    st.tuples(st.just("grow"), st.integers(1, 10), st.just(None)),
)


class Simulation:
    """A job over items with fates, and what its results and failures ought to be."""

    def __init__(self, where: str, fates: list[Fate], kind: str, output: str | None, size: int, retries: int) -> None:
        self.fates = fates
        self.kind = kind
        self.left = {number: fate.fails for number, fate in enumerate(fates) if fate.fails != 0}
        self.input = Path(where, "items.txt")
        self.input.touch()
        self.written = 0
        self.options: dict[str, Any] = {"batch_size": size, "retries": retries, "retry_wait": 0, "progress": "none"}
        self.output = None if output is None else f"{where}/{output}"
        self.state = f"{where}/state"

    def one(self, item: str) -> Iterator[Any]:
        """Do what the fate of an item wants."""
        number = int(item)
        left = self.left.get(number, 0)
        if left != 0:
            self.left[number] = None if left is None else left - 1
            raise ValueError(number)
        if self.fates[number].skipped:
            raise batchkit.SkipItem
        for part in range(self.fates[number].results):
            yield _row(number, part)

    def single(self, item: str) -> Any:
        """Do it for a function that gives one result, or none."""
        return next(self.one(item), None)

    def many(self, items: list[str]) -> list[Any]:
        """Do it for a batched function whose results are not one per item."""
        return [result for item in items for result in self.one(item)]

    def side(self, items: list[str]) -> list[Any]:
        """Do it for a batched function whose results are."""
        return [next(self.one(item), None) for item in items]

    @property
    def function(self) -> Any:
        """The function of the job."""
        return {"plain": self.single, "generator": self.one, "flat": self.many, "batched": self.side}[self.kind]

    @property
    def job(self) -> batchkit.Job:
        """The job."""
        return batchkit.Job("j", self.state)

    def grow(self, count: int) -> None:
        """Append items to the input."""
        with self.input.open("ab") as file:
            for number in range(self.written, min(self.written + count, len(self.fates))):
                file.write(b"\xff\n" if self.fates[number].unreadable else b"%d\n" % number)
                self.written = number + 1

    def run(self, most: int | None = None, on_error: str = "skip") -> batchkit.Result | None:
        """Run the job; `None`: it ended by an error."""
        try:
            return batchkit.process(
                batchkit.lines(self.input),
                self.function,
                batched=self.kind in {"flat", "batched"},
                output=self.output,
                job="j",
                state_dir=self.state,
                on_error=on_error,
                max_items=most,
                **self.options,
            )
        except ItemError:
            return None

    def retry(self, most: int | None = None) -> batchkit.Result:
        """Run a round."""
        return self.job.retry(self.function, max_items=most, retry_wait=0, progress="none")

    def check(self, *, merged: bool) -> list[int]:
        """Compare what is stored with what is known; return the failures. merged: whether no round is unfinished."""
        status = self.job.status()
        handled = status.done + status.failed + status.skipped
        numbers = [failure.number for failure in self.numbered()]
        assert numbers == sorted(set(numbers)), "each once, in input order"
        assert len(numbers) == status.failed
        skipped = sum(fate.skipped for fate in self.fates[:handled])
        assert status.skipped == skipped
        if merged:
            good = [number for number in range(handled) if number not in numbers]
            assert results_of(self.job.results()) == self.results(good)
        return numbers

    def numbered(self) -> list[Any]:
        """Return the failures, numbered through all shards by what they are: unreadable ones by their place."""
        lines = {}
        at = 0
        for number, line in enumerate(self.input.read_bytes().split(b"\n")):
            lines[at] = number
            at += len(line) + 1
        return [failure._replace(number=lines[failure.at[1]]) for failure in self.job.failures()]

    def results(self, numbers: list[int]) -> list[Any]:
        """Return the results of items that are fine."""
        most = 1 if self.kind in {"plain", "batched"} else 3
        return [
            _row(number, part)
            for number in numbers
            if not self.fates[number].skipped
            for part in range(min(most, self.fates[number].results))
        ]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    fates=st.one_of(st.lists(FATES, min_size=1, max_size=20), st.lists(MENDED, min_size=8, max_size=15)),
    kind=st.sampled_from(["plain", "generator", "flat", "flat", "batched"]),
    output=st.sampled_from(["o.jsonl", "o.txt", "o.csv", "o.parquet", "o.csv.gz", "out/", None]),
    size=st.integers(1, 8),
    retries=st.integers(0, 2),
    first=st.integers(0, 25),
    actions=st.lists(ACTIONS, max_size=8),
)
@example(  # results of an earlier round stand between those of two items that are called together
    fates=[Fate(fails=None, mended=mended, results=2) for mended in (1, 0, 1)],
    kind="flat",
    output="o.jsonl",
    size=3,
    retries=0,
    first=3,
    actions=[],
)
def test_in_the_end_all_is_as_if_nothing_had_happened(
    fates: list[Fate],
    kind: str,
    output: str | None,
    size: int,
    retries: int,
    first: int,
    actions: list[tuple[str, Any, Any]],
) -> None:
    """Runs that stop anywhere, rounds in between, items that are mended, an input that grows.

    After each step failures are kept once and in order, and results stand in theirs; in the end there are those of all
    items but of those that never were fine.
    """
    with tempfile.TemporaryDirectory() as where:
        world = Simulation(where, fates, kind, output, size, retries)
        world.grow(first)
        merged = True
        begun = False
        for action, what, how in actions:
            if action == "grow":
                world.grow(what)
            elif action == "mend":
                world.left.pop(what, None)
            elif action == "run":
                world.run(what, how)
                begun = True
            elif begun:
                merged = world.retry(what).completed
            if begun and action in {"run", "retry"}:
                world.check(merged=merged)
        world.grow(len(fates))
        result = world.run()
        assert result is not None
        assert result.completed
        world.left = {number: None for number, left in world.left.items() if left is None}
        assert world.retry().completed  # which may only end what was paused
        world.check(merged=True)
        for wave in range(3):
            world.left = {number: None for number in world.left if fates[number].mended != wave}
            assert world.retry().completed
            world.check(merged=True)
        never = [number for number, fate in enumerate(fates) if fate.unreadable or number in world.left]
        assert world.check(merged=True) == never
        status = world.job.status()
        assert (status.status, status.failed) == ("completed", len(never))
        assert status.done == len(fates) - len(never) - status.skipped
        if output == "o.txt":
            rows = [json.loads(line) for line in Path(where, output).read_text().splitlines()]
            assert rows == world.results([number for number in range(len(fates)) if number not in never])


def test_a_reset_job_has_no_counts_of_its_rounds() -> None:
    """`reset` forgets what was done, and that failures were run again, too."""
    write_items(range(10))
    World.bad = {2, 3, 4}
    run("plain", "o.jsonl")
    World.bad = {4}
    again()
    batchkit.Job("j").reset()
    status = batchkit.Job("j").status()
    assert (status.status, status.done, status.failed, status.skipped) == ("new", 0, 0, 0)
    assert list(batchkit.Job("j").failures()) == []
    result = run("plain", "o.jsonl")
    assert (result.done, result.failed) == (9, 1)
    World.bad = set()
    assert again().done == 1
    assert published("o.jsonl") == expected("plain", range(10))


@pytest.mark.parametrize(("output", "kind"), [("o.parquet", "price"), ("o.csv", "column")])
def test_half_a_round_fixes_the_columns_for_the_rest_of_the_job(output: str, kind: str) -> None:
    """Results of other columns or types that come between its halves are failures, and the job comes to its end."""

    def first(item: str) -> dict[str, Any]:
        if World.bad:
            raise ValueError(item)
        return {"price": int(item)}

    def other(item: str) -> dict[str, Any]:
        return {"price": 0.5} if kind == "price" else {"other": int(item)}

    Path("items.txt").write_text("1\n2\n3\n4\n")
    World.bad = {1}
    options: dict[str, Any] = {"output": output, "job": "j", "on_error": "skip", "progress": "none", "batch_size": 1}
    other.__qualname__ = first.__qualname__
    assert batchkit.process("items.txt", first, max_items=3, **options).failed == 3
    World.bad = set()
    job = batchkit.Job("j")
    assert job.retry(first, max_items=1, progress="none").status == "paused"
    result = batchkit.process("items.txt", other, **options)
    assert (result.completed, result.done, result.failed) == (True, 0, 4)
    assert job.retry(first, progress="none").completed
    assert job.retry(first, progress="none").exit_code == 0
    assert [int(row["price"]) for row in job.results()] == [1, 2, 3, 4]


def test_exceptions_of_the_functions_own_file_are_retried() -> None:
    """`--retry-on fetch.py:Busy` is the class that the function of the same file raises; in a later retry, too."""
    Path("fetch.py").write_text(
        "class Busy(Exception): pass\n"
        "calls = []\n"
        "def fetch(item):\n"
        "    calls.append(item)\n"
        "    if len(calls) % 3: raise Busy(item)\n"
        "    return item\n"
    )
    Path("items.txt").write_text("a\nb\n")
    function, errors = load("fetch.py:fetch"), load_errors("fetch.py:Busy")
    options: dict[str, Any] = {"on_error": "skip", "job": "j", "retry_wait": 0, "progress": "none"}
    result = batchkit.process("items.txt", function, output="o.txt", retries=1, retry_on=errors, **options)
    assert result.failed == 1
    assert batchkit.Job("j").retry(retries=2, progress="none").failed == 0
    assert sorted(Path("o.txt").read_text().split()) == ["a", "b"]
