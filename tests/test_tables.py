"""Tables as input and output: what Parquet files hold comes back as it was, or one clear error says why not."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import math
import os
import tempfile
import uuid
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

import batchkit
from tests.kernels import Unsynced, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.conftest import Cli


@pytest.fixture(autouse=True)
def _unsynced(workdir: Path) -> Iterator[None]:
    """Work in a directory of one's own, without syncs."""
    del workdir
    with installed(Unsynced()):
        yield


def run(results: Sequence[Any], *, job: str = "job", **options: Any) -> batchkit.Result:
    """Run a job over the numbers of these results, which its function returns."""

    def result_of(number: int) -> Any:
        return results[number]

    options = {"batch_size": 3, "progress": "none", "sync_interval": None, "output": "out.parquet", **options}
    return batchkit.process(range(len(results)), result_of, job=job, **options)


def refused(results: Sequence[Any], **options: Any) -> batchkit.ItemError:
    """Return the error that a run ends with, of an item, in one line."""
    with pytest.raises(batchkit.ItemError) as caught:
        run(results, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def kept() -> list[Any]:
    """Return what the job has stored so far."""
    return list(batchkit.Job("job").results())


def found(path: str = "out.parquet") -> list[dict[str, Any]]:
    """Return the rows of a Parquet file, as polars reads them."""
    return pl.read_parquet(path).to_dicts()


class TestRefusals:
    """A result that does not fit is its item's error, and the job goes on from there once it is mended."""

    def test_of_two_results_that_do_not_fit_the_first_is_named(self) -> None:
        """Also where the one that is found first stands behind the other."""
        error = refused([{"a": None}, {"a": False}, {"a": []}, {"b": None}], batch_size=4)
        assert (error.item, kept()) == (2, [{"a": None}, {"a": False}])
        assert "its column 'a' is List here and Boolean before" in str(error)

    @pytest.mark.parametrize("value", [{}, [{}], {"x": {}}])
    def test_an_empty_dict_is_refused_at_once_and_not_when_all_is_done(self, value: Any) -> None:
        """Parquet has no place for a struct without fields; the results before it are kept."""
        error = refused([{"a": None}, {"a": None}, {"a": value}], batch_size=3)
        assert "its column 'a' is an empty dict, which a Parquet file cannot hold" in str(error)
        assert kept() == [{"a": None}, {"a": None}]
        run([{"a": None}, {"a": None}, {"a": 1}])
        assert found() == [{"a": None}, {"a": None}, {"a": 1}]

    def test_an_empty_row_is_refused_where_no_column_is_known(self) -> None:
        """It would be lost without a word; later on it is a row of nulls."""
        assert "it is an empty row, which a Parquet file cannot hold" in str(refused([{}, {}]))
        run([{"a": 1}, {}, {}, {}], job="other", output="other.parquet")
        assert found("other.parquet") == [{"a": 1}, {"a": None}, {"a": None}, {"a": None}]

    def test_a_column_without_a_name_keeps_its_name(self) -> None:
        """Polars would call it column_0."""
        run([{"": 1, "b": 2}, {"": 3}])
        assert found() == [{"": 1, "b": 2}, {"": 3, "b": None}]

    @pytest.mark.parametrize(
        ("value", "what"),
        [
            (decimal.Decimal("NaN"), "the decimal NaN"),
            (decimal.Decimal("-Infinity"), "the decimal -Infinity"),
            (datetime.time(1, 2, tzinfo=datetime.UTC), "a time with a zone"),
            ({1, 2}, "a set"),
            pytest.param(object(), "an object", id="object"),
            ([{1}], "a set"),
        ],
        ids=str,
    )
    def test_a_value_that_no_column_holds_is_refused(self, value: Any, what: str) -> None:
        """Polars would panic about some, and drop a part of others; the results before it are kept."""
        error = refused([{"a": None}, {"a": None}, {"a": value}], batch_size=2)
        assert f"is {what}, which a Parquet file cannot hold" in str(error)
        assert kept() == [{"a": None}, {"a": None}]

    @pytest.mark.parametrize(
        "series",
        [
            pl.Series("a", [object()], dtype=pl.Object),
            pl.Series("a", [[]], dtype=pl.Array(pl.Int8, 0)),
            pl.Series("a", [{}]),
        ],
        ids=lambda series: str(series.dtype),
    )
    def test_a_table_with_a_column_that_parquet_does_not_know_is_refused(self, series: pl.Series) -> None:
        """Python objects, for one, would be stored as their addresses in memory."""
        error = refused([{"a": None}, pl.DataFrame([series])], batch_size=1)
        assert "which a Parquet file cannot hold" in str(error)
        assert kept() == [{"a": None}]

    def test_datetimes_with_and_without_a_zone_are_not_mixed(self) -> None:
        """Not even within a batch, where polars would take the ones for the others."""
        at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        error = refused([{"a": at.replace(tzinfo=None)}, {"a": at}])
        assert error.item == 1
        assert "its column 'a' is Datetime with a zone here and Datetime without one before" in str(error)
        error = refused([{"a": at}, {"a": at.replace(tzinfo=None)}], job="other", output="other.parquet")
        assert error.item == 1

    def test_a_duration_keeps_its_microseconds_or_is_refused(self) -> None:
        """Polars would cut one that is very long to milliseconds."""
        run([{"a": datetime.timedelta(days=100_000_000, microseconds=1)}])
        assert found() == [{"a": datetime.timedelta(days=100_000_000, microseconds=1)}]
        assert refused([{"a": datetime.timedelta.max}], job="other", output="other.parquet").item == 0


@dataclasses.dataclass
class City:
    """A result that is a dataclass."""

    name: str
    people: int | None = None


class TestSchemas:
    """The first results decide columns and types, nulls wait for a value, and nothing is converted with a loss."""

    def test_a_schema_that_changes_midway_is_one_error_and_a_mended_function_goes_on(self) -> None:
        """The error names column, both types and the batch; what came before is kept, and nothing is done again."""
        rows: list[Any] = [{"id": number, "size": number} for number in range(9)]
        rows[7] = {"id": 7, "size": "large"}
        error = refused(rows)
        assert "its column 'size' is String here and Int64 before" in str(error)
        assert "(batch " in str(error)
        assert "--schema" in str(error)
        assert (error.item, kept()) == (7, rows[:7])
        rows[7] = {"id": 7, "size": 70}
        assert run(rows).new == 2
        assert found() == rows

    @pytest.mark.parametrize("nulls", [1, 3, 4])
    def test_a_column_of_nulls_waits_for_a_value(self, nulls: int) -> None:
        """The first one decides, in the same batch or in a later one; another type is refused then."""
        rows: list[Any] = [*[{"a": None}] * nulls, {"a": 1}, {"a": None}, {"a": "text"}]
        error = refused(rows)
        assert "its column 'a' is String here and Int64 before" in str(error)
        assert error.item == len(rows) - 1
        rows[-1] = {"a": 2}
        run(rows)
        assert found() == rows
        assert pl.read_parquet_schema("out.parquet") == {"a": pl.Int64}

    def test_a_column_of_nulls_to_the_end_is_a_column_of_nulls(self) -> None:
        """And stays one when more of them come."""
        run([{"a": None, "b": 1}] * 4)
        run([{"a": None, "b": 1}] * 7)
        assert found() == [{"a": None, "b": 1}] * 7

    def test_a_value_may_come_after_a_column_of_nulls_was_published(self) -> None:
        """The published file and the new results become one of the new type."""
        run([{"a": None, "b": [None]}] * 4)
        rows = [{"a": None, "b": [None]}] * 4 + [{"a": "x", "b": [{"c": 1}]}]
        run(rows)
        assert found() == rows

    def test_whole_numbers_go_into_a_column_of_floats_and_not_the_other_way(self) -> None:
        """Unless they are too large for that."""
        run([{"a": 0.5}, {"a": 1}, {"a": None}, {"a": 2}])
        assert [row["a"] for row in found()] == [0.5, 1.0, None, 2.0]
        error = refused([{"a": 1}, {"a": 2}, {"a": 3}, {"a": 0.5}], job="other", output="other.parquet")
        assert "its column 'a' is Float64 here and Int64 before" in str(error)
        assert refused([{"a": 0.5}] * 3 + [{"a": 2**53 + 1}], job="third", output="third.parquet").item == 3
        assert refused([{"a": 0.5}, {"a": 2**53 + 1}], job="fourth", output="fourth.parquet").item == 1

    def test_a_missing_key_is_null_and_a_new_one_is_refused(self) -> None:
        """A new column would be missing in what is stored."""
        rows = [{"a": 1, "b": 2}, {"b": 3}, {"a": 4}, {"b": 5}]
        run(rows)
        assert found() == [{"a": row.get("a"), "b": row.get("b")} for row in rows]
        error = refused([*rows, {"a": 6, "c": 7}])
        assert "the output has no column 'c' (Int64 here); it has a, b" in str(error)
        assert len(kept()) == 4

    def test_keys_of_the_first_batch_may_come_up_one_by_one(self) -> None:
        """All of them are columns, in the order in which they came."""
        run([{"a": 1}, {"b": 2}, {"c": 3, "a": 4}])
        assert pl.read_parquet("out.parquet").columns == ["a", "b", "c"]

    def test_a_schema_given_in_advance_decides(self) -> None:
        """Columns, their order and types; numbers and text are converted where nothing is lost."""
        schema = {
            "id": pl.Int32,
            "price": "decimal(10,2)",
            "day": datetime.date,
            "tags": "list[str]",
            "yes": bool,
            "x": float,
        }
        run(
            [
                {"x": 1, "id": "7", "price": decimal.Decimal("1.5"), "day": "2026-03-01", "tags": [], "yes": "TRUE"},
                {"id": 8.0, "price": None, "tags": ["a", None]},
            ],
            schema=schema,
        )
        day = datetime.date(2026, 3, 1)
        assert found() == [
            {"id": 7, "price": decimal.Decimal("1.50"), "day": day, "tags": [], "yes": True, "x": 1.0},
            {"id": 8, "price": None, "day": None, "tags": ["a", None], "yes": None, "x": None},
        ]
        assert pl.read_parquet_schema("out.parquet")["id"] == pl.Int32

    @pytest.mark.parametrize(
        ("schema", "row"),
        [
            ("a=int", {"a": 1.5}),
            ("a=int", {"a": "x"}),
            ("a=int8", {"a": 1000}),
            ("a=str", {"a": 1}),
            ("a=float32", {"a": 1e40}),
            ("a=date", {"a": "tomorrow"}),
            ("a=bool", {"a": "yes"}),
            ("a=decimal(5,1)", {"a": decimal.Decimal("1.25")}),
            ("a=int", {"b": 1}),
            ("a=list[int]", {"a": [1.5]}),
        ],
    )
    def test_what_would_lose_something_in_a_given_schema_is_refused(self, schema: str, row: dict[str, Any]) -> None:
        """One error of the item; a result that fits is stored before it."""
        error = refused([{"a": None}, row], schema=schema)
        assert (error.item, kept()) == (1, [{"a": None}])
        assert "column '" in str(error)

    def test_a_schema_without_any_result_is_that_of_the_file(self) -> None:
        """An empty table with its columns."""
        run([], schema="id=int, at=datetime[UTC]")
        assert pl.read_parquet_schema("out.parquet") == {"id": pl.Int64, "at": pl.Datetime("us", "UTC")}
        assert found() == []

    def test_another_schema_is_another_job(self) -> None:
        """The definition changed: exit 5."""
        run([{"a": 1}] * 4, schema="a=int", max_items=2)
        with pytest.raises(batchkit.DefinitionChanged):
            run([{"a": 1}] * 4, schema="a=float")

    @pytest.mark.parametrize("schema", ["a", "a=what", "=int", {"a": "what"}, {"a": 5}, "a=decimal(x)"])
    def test_a_schema_that_is_none_is_refused_before_anything_is_done(self, schema: Any) -> None:
        """Wrong usage, in one line."""
        with pytest.raises(batchkit.UsageError) as caught:
            run([{"a": 1}], schema=schema)
        assert "\n" not in str(caught.value)


class TestResults:
    """What a function may return for a Parquet file."""

    @pytest.mark.parametrize(
        ("results", "rows"),
        [
            ([1, None, 3], [{"result": 1}, {"result": 3}]),
            (["a", "b"], [{"result": "a"}, {"result": "b"}]),
            ([b"\0", b"\xff"], [{"result": b"\0"}, {"result": b"\xff"}]),
            ([(1, "a"), [2, "b"]], [{"column_1": 1, "column_2": "a"}, {"column_1": 2, "column_2": "b"}]),
            ([City("Wien", 2), City("Graz")], [{"name": "Wien", "people": 2}, {"name": "Graz", "people": None}]),
            ([{"in": City("Wien")}], [{"in": {"name": "Wien", "people": None}}]),
            ([uuid.UUID(int=1)], [{"result": "00000000-0000-0000-0000-000000000001"}]),
            ([PurePosixPath("/a")], [{"result": "/a"}]),
            (
                [pl.DataFrame({"a": [1, 2]}), None, pl.DataFrame({"a": []}), {"a": 3}, pl.DataFrame({"a": [4]}).lazy()],
                [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}],
            ),
        ],
    )
    def test_a_result_is_a_row_or_a_table_of_rows(self, results: list[Any], rows: list[Any]) -> None:
        """Dicts, dataclasses, tuples, single values, tables; stopped after the first, and in one run."""
        run(results, max_items=1)
        run(results, batch_size=2)
        assert found() == rows
        run(results, job="other", output="other.parquet")
        assert found("other.parquet") == rows

    @pytest.mark.parametrize("make", [pl.DataFrame, lambda rows: pl.DataFrame(rows).lazy(), list, iter])
    def test_a_batched_function_returns_a_table_or_a_list(self, make: Callable[[list[Any]], Any]) -> None:
        """With fewer rows than items, or with more, or none."""

        def some(numbers: list[int]) -> Any:
            return make([{"n": number} for number in numbers for _ in range(number % 4)])

        options: dict[str, Any] = {"batched": True, "batch_size": 5, "output": "out.parquet", "job": "job"}
        batchkit.process(range(20), some, max_items=7, **options, progress="none")
        batchkit.process(range(20), some, **options, progress="none")
        assert [row["n"] for row in found()] == [number for number in range(20) for _ in range(number % 4)]

    def test_an_arrow_table_is_a_table(self) -> None:
        """As a result, and as what the function is called with."""
        arrow = pytest.importorskip("pyarrow")
        pl.DataFrame({"a": range(10)}).write_parquet("in.parquet")

        def double(table: Any) -> Any:
            assert isinstance(table, arrow.Table)
            return arrow.table({"b": [2 * value for value in table.column("a").to_pylist()]})

        options: dict[str, Any] = {"batched": True, "batch_size": 3, "output": "out.parquet", "progress": "none"}
        batchkit.process("in.parquet", double, batch_format="arrow", max_items=4, **options)
        batchkit.process("in.parquet", double, batch_format="arrow", **options)
        assert [row["b"] for row in found()] == list(range(0, 20, 2))

    @pytest.mark.parametrize(
        ("batch_format", "kind"), [(None, pl.DataFrame), ("polars", pl.DataFrame), ("dicts", list)]
    )
    @pytest.mark.parametrize("source", ["in.parquet", "in.csv", "in.jsonl"])
    def test_a_batch_of_rows_comes_in_the_format_asked_for(
        self, source: str, batch_format: str | None, kind: type
    ) -> None:
        """Parquet and CSV are tables unless dicts are asked for; JSON lines are dicts unless a table is."""
        frame = pl.DataFrame({"a": ["1", "2", "3"], "b": ["x", None, "z"]})
        frame.write_parquet("in.parquet")
        frame.write_csv("in.csv")
        frame.write_ndjson("in.jsonl")
        seen = []

        def look(batch: Any) -> Any:
            seen.append(batch)
            return batch

        options: dict[str, Any] = {"batched": True, "batch_size": 2, "output": "out.parquet", "progress": "none"}
        batchkit.process(source, look, batch_format=batch_format, **options)
        wanted = list if source == "in.jsonl" and batch_format is None else kind
        assert [type(batch) for batch in seen] == [wanted, wanted]
        assert [row["a"] for row in found()] == ["1", "2", "3"]


NAMES = st.sampled_from(["a", "b", "", "x.y"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
NUMBERS = st.integers(-5, 5) | st.sampled_from([2**53 + 1, 2**63, -(2**63), 2**64, 2**70])
SCALARS = st.none() | st.booleans() | NUMBERS | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
COLUMNS = st.recursive(
    st.sampled_from([NUMBERS, st.floats() | st.integers(0, 5), TEXTS, st.booleans(), SCALARS]),
    lambda kinds: (
        kinds.map(lambda kind: st.lists(kind | st.none(), max_size=3))
        | st.dictionaries(NAMES, kinds, min_size=1, max_size=3).map(
            lambda kind: st.fixed_dictionaries({}, optional=kind)
        )
    ),
    max_leaves=4,
)


def regular(columns: dict[str, Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return rows whose columns have something in common."""
    row = st.fixed_dictionaries({}, optional={name: kind | st.none() for name, kind in columns.items()})
    return st.lists(row, min_size=1, max_size=6)


ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=3), min_size=1, max_size=6) | st.dictionaries(
    NAMES, COLUMNS, min_size=1, max_size=3
).flatmap(regular)


def same(got: Any, put: Any) -> bool:
    """Tell whether a value is what was stored: whole numbers may be floats, and missing keys null."""
    if isinstance(put, dict):
        return isinstance(got, dict) and put.keys() <= got.keys() and all(same(got[key], put.get(key)) for key in got)
    if isinstance(put, list):
        return isinstance(got, list) and len(got) == len(put) and all(map(same, got, put))
    if isinstance(put, float):
        return isinstance(got, float) and (got == put or (math.isnan(got) and math.isnan(put)))
    if type(put) is int:
        return type(got) in {int, float} and got == put
    return type(got) is type(put) and got == put


def check_rows(rows: list[dict[str, Any]], size: int, stop: int) -> None:
    """Store rows in two runs; see that all come back, or that one is refused and those before it are kept."""
    with tempfile.TemporaryDirectory() as directory:
        options: dict[str, Any] = {
            "output": f"{directory}/out.parquet",
            "state_dir": f"{directory}/state",
            "batch_size": size,
        }
        try:
            run(rows, max_items=stop, **options)
            run(rows, **options)
        except batchkit.ItemError:
            job = batchkit.Job("job", f"{directory}/state")
            rows = rows[: job.status().done]
            stored = list(job.results())
        else:
            stored = found(f"{directory}/out.parquet")
        assert len(stored) == len(rows)
        assert all(map(same, stored, rows)), (stored, rows)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, size=st.integers(1, 7), stop=st.integers(1, 6))
def test_any_rows_come_back_as_they_were_or_are_refused(rows: list[dict[str, Any]], size: int, stop: int) -> None:
    """Nothing is lost, rounded or taken for something else without a word, whatever the rows and batches."""
    check_rows(rows, size, stop)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(rows=ROWS, size=st.integers(1, 7), stop=st.integers(1, 6))
def test_more_rows_come_back_as_they_were_or_are_refused(rows: list[dict[str, Any]], size: int, stop: int) -> None:
    """The same with more examples."""
    check_rows(rows, size, stop)


@pytest.mark.soak
@settings(max_examples=700, deadline=None)
@given(rows=ROWS, size=st.integers(1, 7), stop=st.integers(1, 6))
def test_many_more_rows_come_back_as_they_were_or_are_refused(rows: list[dict[str, Any]], size: int, stop: int) -> None:
    """And with many more."""
    check_rows(rows, size, stop)


FRAME = pl.DataFrame({"id": range(10), "text": [f"row {number}" for number in range(10)], "size": [0.5] * 10})


class TestInputs:
    """Parquet files as input: what is checked before anything is done, and what a damaged one costs."""

    def test_a_file_that_was_replaced_is_another_input(self) -> None:
        """Also by one of the same length and number of rows; exit 5."""
        FRAME.write_parquet("in.parquet")
        batchkit.process("in.parquet", max_items=4, output="out.parquet", progress="none")
        FRAME.with_columns(id=pl.col("id").reverse()).write_parquet("in.parquet")
        with pytest.raises(batchkit.InputChanged, match=r"in\.parquet"):
            batchkit.process("in.parquet", output="out.parquet", progress="none")
        FRAME.head(3).write_parquet("in.parquet")
        with pytest.raises(batchkit.InputChanged):
            batchkit.process("in.parquet", output="out.parquet", progress="none")

    @pytest.mark.parametrize("done", [4, 25, None])
    def test_a_file_behind_the_others_is_more_input_and_one_before_them_is_another(self, done: int | None) -> None:
        """The cursor counts files in the order of their names."""
        for name in ("b", "c"):
            FRAME.with_columns(file=pl.lit(name)).write_parquet(f"{name}.parquet")
        options: dict[str, Any] = {"output": "out.parquet", "progress": "none", "job": "job"}
        batchkit.process(batchkit.parquet("*.parquet"), max_items=done, **{**options, "output": "kept/"})
        FRAME.with_columns(file=pl.lit("d")).write_parquet("d.parquet")
        assert batchkit.process(batchkit.parquet("*.parquet"), **{**options, "output": "kept/"}).done == 30
        assert pl.read_parquet("kept/*.parquet")["file"].to_list() == ["b"] * 10 + ["c"] * 10 + ["d"] * 10
        FRAME.with_columns(file=pl.lit("a")).write_parquet("a.parquet")
        with pytest.raises(batchkit.InputChanged, match="was in the place of"):
            batchkit.process(batchkit.parquet("*.parquet"), **{**options, "output": "kept/"})

    def test_files_with_other_columns_or_types_are_refused_at_once(self) -> None:
        """The error names the column, both types and both files."""
        FRAME.write_parquet("a.parquet")
        FRAME.with_columns(id=pl.col("id").cast(pl.String)).write_parquet("b.parquet")
        with pytest.raises(batchkit.SourceError) as caught:
            batchkit.process("*.parquet", progress="none")
        assert str(caught.value).startswith("the column 'id' is String in 'b.parquet' and Int64 in 'a.parquet'")
        FRAME.drop("size").write_parquet("b.parquet")
        with pytest.raises(batchkit.SourceError, match=r"'size' is missing in 'b\.parquet'"):
            batchkit.process("*.parquet", progress="none")
        result = batchkit.process("*.parquet", columns=["text", "id"], output="kept/", progress="none")
        assert result.done == 20

    def test_a_column_that_is_not_there_is_wrong_usage(self) -> None:
        """The error names those that are."""
        FRAME.write_parquet("in.parquet")
        with pytest.raises(batchkit.UsageError, match="has no column 'name'; it has id, text, size"):
            batchkit.process("in.parquet", columns=["name"], progress="none")

    def test_directories_named_for_values_are_columns(self) -> None:
        """Whole numbers and dates have their types, everything else is text, and one name is null."""
        for year, day, word in ((2025, "2025-12-31", "a%2Fb"), (2026, "2026-01-01", "__HIVE_DEFAULT_PARTITION__")):
            path = Path(f"in/year={year}/day={day}/word={word}")
            path.mkdir(parents=True)
            FRAME.head(2).write_parquet(path / "part.parquet")
        result = batchkit.process("in", output="out.parquet", batch_size=3, progress="none")
        assert result.done == 4
        assert pl.read_parquet_schema("out.parquet") == {
            **FRAME.schema, "year": pl.Int64, "day": pl.Date, "word": pl.String,
        }  # fmt: skip
        assert [row["word"] for row in found()] == ["a/b", "a/b", None, None]
        assert [row["day"] for row in found()][1:3] == [datetime.date(2025, 12, 31), datetime.date(2026, 1, 1)]

    @pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1 is how it begins" * 9, b"no table at all\n" * 99])
    def test_a_file_that_is_no_parquet_is_refused_by_name(self, data: bytes) -> None:
        """One line."""
        Path("in.parquet").write_bytes(data)
        with pytest.raises(batchkit.SourceError, match=r"cannot read 'in\.parquet' as Parquet") as caught:
            batchkit.process("in.parquet", progress="none")
        assert "\n" not in str(caught.value)

    def test_a_truncated_file_is_refused_by_name(self) -> None:
        """Its footer is missing."""
        FRAME.write_parquet("in.parquet")
        data = Path("in.parquet").read_bytes()
        Path("in.parquet").write_bytes(data[:-20])
        with pytest.raises(batchkit.SourceError, match=r"cannot read 'in\.parquet' as Parquet"):
            batchkit.process("in.parquet", progress="none")

    @pytest.mark.parametrize("size", [7, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 100, 5000))])
    def test_a_damaged_row_group_costs_only_what_comes_behind_it(self, size: int) -> None:
        """All rows before it are committed, the error names file and row, and a mended file goes on there."""
        rows = pl.DataFrame({"text": [f"{number * 7919 % 104729:010}" for number in range(10_000)]})
        rows.write_parquet("in.parquet", row_group_size=1000, compression="zstd", statistics=False)
        whole = Path("in.parquet").read_bytes()
        facts = Path("in.parquet").stat()
        damaged = bytearray(whole)
        at = len(whole) * 65 // 100
        damaged[at : at + 2000] = bytes(2000)
        Path("in.parquet").write_bytes(damaged)
        options: dict[str, Any] = {"output": "out.parquet", "batch_size": size, "progress": "none"}
        with pytest.raises(batchkit.SourceError) as caught:
            batchkit.process("in.parquet", **options)
        assert "\n" not in str(caught.value)
        status = batchkit.Job("in").status()
        assert status.done == 7000
        assert f"'in.parquet' from row {status.done + 1:,} on" in str(caught.value)
        assert [row["text"] for row in batchkit.Job("in").results()] == rows["text"].to_list()[: status.done]
        Path("in.parquet").write_bytes(whole)
        os.utime("in.parquet", ns=(facts.st_atime_ns, facts.st_mtime_ns))
        result = batchkit.process("in.parquet", on_input_change="continue", **options)
        assert (result.completed, result.done) == (True, 10_000)
        assert pl.read_parquet("out.parquet").equals(rows)


class TestCommandLine:
    """The options for tables, as they are typed."""

    @pytest.fixture(autouse=True)
    def _inputs(self) -> None:
        Path("cities.csv").write_text('name;people\nWien;2\n"Gr;az";\n')
        Path("bare.csv").write_text("Wien,2\nGraz,0\n")
        FRAME.write_parquet("in.parquet")
        Path("functions.py").write_text(
            "def size(rows):\n"
            "    kind = type(rows)\n"
            "    return [{'kind': kind.__module__.split('.')[0] + '.' + kind.__name__, 'rows': len(rows)}]\n"
        )

    def test_separator_header_and_columns_say_how_csv_is_read(self, cli: Cli) -> None:
        """`--separator`, `--no-header`, `--columns`."""
        ended = cli("process", "cities.csv", "--separator", ";", "--columns", "people, name", "-o", "a.jsonl")
        assert (ended.code, Path("a.jsonl").read_text()) == (
            0, '{"people": "2", "name": "Wien"}\n{"people": "", "name": "Gr;az"}\n',
        )  # fmt: skip
        ended = cli("process", "bare.csv", "--no-header", "-o", "b.jsonl")
        assert (ended.code, Path("b.jsonl").read_text().splitlines()[0]) == (
            0, '{"column_1": "Wien", "column_2": "2"}',
        )  # fmt: skip

    def test_formats_are_found_by_suffix_or_given_by_name(self, cli: Cli) -> None:
        """`--input-format`, `--output-format`."""
        os.rename("in.parquet", "in.data")
        ended = cli("process", "in.data", "--input-format", "parquet", "--columns", "id", "-o", "out.data",
                    "--output-format", "parquet")  # fmt: skip
        assert (ended.code, found("out.data")) == (0, [{"id": number} for number in range(10)])
        ended = cli("process", "cities.csv", "--input-format", "lines", "-o", "out.txt")
        assert Path("out.txt").read_text() == Path("cities.csv").read_text()

    @pytest.mark.parametrize(
        ("words", "kind"),
        [((), "polars.DataFrame"), (("--batch-format", "polars"), "polars.DataFrame"),
         (("--batch-format", "dicts"), "builtins.list")],
    )  # fmt: skip
    def test_a_batched_function_gets_the_batch_format_asked_for(
        self, cli: Cli, words: tuple[str, ...], kind: str
    ) -> None:
        """`--batch-format`, with `--batched` and batches of the size given."""
        ended = cli(
            "process", "in.parquet", "-f", "functions.py:size", "--batched", "-b", "4", *words, "-o", "o.parquet"
        )
        assert (ended.code, found("o.parquet")) == (0, [{"kind": kind, "rows": rows} for rows in (4, 4, 2)])

    def test_a_schema_can_be_typed(self, cli: Cli) -> None:
        """`--schema` reads text into types; what does not fit is exit 1, and is named."""
        words = ("process", "cities.csv", "--separator", ";", "-o", "out.parquet")
        ended = cli(*words, "--schema", "name=str, people=int")
        assert (ended.code, found()) == (0, [{"name": "Wien", "people": 2}, {"name": "Gr;az", "people": None}])
        ended = cli(*words, "--restart", "--schema", "name=date, people=int")
        assert (ended.code, ended.err.count("\n")) == (1, 1)
        assert "Wien" in ended.err
        assert found()[0]["name"] == "Wien"

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "words",
        [
            ("in.parquet", "--separator", ";"),
            ("in.parquet", "--no-header"),
            ("in.parquet", "-0"),
            ("in.parquet", "--columns", "none"),
            ("in.parquet", "--batch-format", "polars"),
            ("in.parquet", "--output-format", "xml"),
            ("in.parquet", "--schema", "id=int"),
            ("in.parquet", "cities.csv"),
            ("bare.csv", "--columns", "Wien,Wien"),
            ("nowhere.parquet",),
        ],
        ids=" ".join,
    )
    def test_options_that_do_not_go_together_are_wrong_usage(self, cli: Cli, words: tuple[str, ...]) -> None:
        """Exit 2 with one line, and nothing is begun."""
        ended = cli("process", *words, "-o", "out.jsonl")
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
        assert not list(Path(".batchkit").rglob("job.json"))


UTC = datetime.UTC


class TestTextsReadByASchema:
    """A text is read exactly, or its item is refused at once: nothing is committed that no merge could take."""

    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            ("datetime", "2026-11-23T06:00:00Z"),
            ("datetime", "2026-11-23T06:00:00+01:00"),
            ("datetime[UTC]", "2026-11-23T06:00:00"),
            ("datetime", "2026-11-23T06:00:00.1234567"),
            ("datetime[UTC]", "2026-11-23T06:00:00.123456789Z"),
            ("datetime", "2026-11-23T06:00:00,1234567"),
            ("datetime", "23.11.2026 06:00"),
            ("time", "06:00:00.1234567"),
            ("time", "6 am"),
            ("date", "01/02/2024"),
            ("date", "2024-02-30"),
            ("date", "1.2.2024"),
            ("decimal(10,2)", "1.239"),
            ("decimal(10,2)", "123456789.00"),
            ("decimal(10,2)", "NaN"),
            ("decimal(10,2)", "1,50"),
            ("decimal(10,2)", " 1"),
            ("decimal(10,2)", "1_0"),
            ("float", "1e400"),
            ("float", "-1e400"),
            ("float", "1_000.5"),
            ("float32", "1e39"),
            ("int", "1.0"),
            ("int", " 1"),
            ("int", "1_000"),
            ("int8", "128"),
            ("uint8", "-1"),
            ("bool", "1"),
            ("list[int]", ["1", "x"]),
        ],
    )
    def test_a_text_that_does_not_say_exactly_a_value_is_refused_at_its_item(self, kind: str, text: Any) -> None:
        """What came before is kept, the error names column and item, and a mended text goes on to a whole file."""
        rows: list[Any] = [{"a": None}, {"a": text}, {"a": None}]
        error = refused(rows, schema=f"a={kind}")
        assert (error.item, kept()) == (1, [{"a": None}])
        assert "column 'a" in str(error)
        rows[1] = {"a": None}
        assert run(rows, schema=f"a={kind}").completed
        assert found() == [{"a": None}] * 3

    @pytest.mark.parametrize(
        ("kind", "text", "value"),
        [
            ("datetime", "2026-11-23T06:00:00.123456", datetime.datetime(2026, 11, 23, 6, 0, 0, 123456)),  # noqa: DTZ001
            ("datetime", "2026-11-23 06:00", datetime.datetime(2026, 11, 23, 6)),  # noqa: DTZ001
            ("datetime[UTC]", "2026-11-23T06:00:00Z", datetime.datetime(2026, 11, 23, 6, tzinfo=UTC)),
            ("datetime[UTC]", "2026-11-23T06:00:00+01:00", datetime.datetime(2026, 11, 23, 5, tzinfo=UTC)),
            ("date", "2026-11-23", datetime.date(2026, 11, 23)),
            ("time", "06:00:01.5", datetime.time(6, 0, 1, 500_000)),
            ("decimal(10,2)", "1.5", decimal.Decimal("1.50")),
            ("decimal(10,2)", "1.230", decimal.Decimal("1.23")),
            ("decimal(10,2)", "-99999999.99", decimal.Decimal("-99999999.99")),
            ("float", "1e300", 1e300),
            ("float", "inf", math.inf),
            ("float", "-7", -7.0),
            ("int", "-9223372036854775808", -(2**63)),
            ("uint64", "18446744073709551615", 2**64 - 1),
            ("bool", "False", False),
            ("str", "01/02/2024", "01/02/2024"),
        ],
    )
    def test_a_text_that_says_a_value_is_read_and_an_empty_one_is_null(self, kind: str, text: Any, value: Any) -> None:
        """The first batch and the last, and what is merged of both."""
        rows = [{"a": text}, {"a": None}, {"a": ""}, {"a": text}]
        run(rows, schema=f"a={kind}", batch_size=1, max_items=2)
        run(rows, schema=f"a={kind}", batch_size=1)
        empty = "" if kind == "str" else None
        assert [row["a"] for row in found()] == [value, None, empty, value]

    def test_texts_in_a_list_are_read_as_texts_in_a_column(self) -> None:
        """Each of them exactly; lists that are null or empty stay so."""
        rows: list[Any] = [{"a": ["1", "", "0.5"]}, {"a": []}, {"a": None}, {"a": [None]}, {"a": ["2"]}]
        run(rows, schema="a=list[float]", batch_size=2)
        assert [row["a"] for row in found()] == [[1.0, None, 0.5], [], None, [None], [2.0]]
        days = [{"a": ["2026-01-01"]}, {"a": ["2026-01-01", "01/02/2026"]}]
        assert refused(days, schema="a=list[date]", job="other", output="other.parquet").item == 1

    def test_a_text_in_a_table_is_read_as_one_in_a_dict(self) -> None:
        """A batched function that returns a frame of texts, as CSV has them."""
        error = refused([pl.DataFrame({"a": ["2026-01-01T00:00:00", "2026-01-01T00:00:00Z"]})], schema="a=datetime")
        assert "'2026-01-01T00:00:00Z'" in str(error)
        run([pl.DataFrame({"a": ["2026-01-01", ""]})], schema="a=date", job="other", output="other.parquet")
        assert found("other.parquet") == [{"a": datetime.date(2026, 1, 1)}, {"a": None}]

    @pytest.mark.parametrize("unit", ["ns", "us", "ms"])
    @pytest.mark.parametrize("kind", [pl.Datetime, pl.Duration])
    def test_times_of_a_table_are_converted_where_nothing_is_lost(self, unit: Any, kind: Any) -> None:
        """Whole microseconds of any unit; nanoseconds between them are refused with the batch before them kept."""
        schema = f"a={kind.__name__.lower()}"
        fine, whole = (pl.DataFrame({"a": pl.Series([count], dtype=kind(unit))}) for count in (1500, 2000))
        if unit == "ns":
            assert "'a'" in str(refused([whole, fine], schema=schema, batch_size=1))
            assert len(kept()) == 1
        run([whole, whole], schema=schema, batch_size=1)
        assert pl.read_parquet("out.parquet")["a"].to_list() == whole["a"].to_list() * 2


def test_array_scalars_of_time_keep_microseconds_and_finer_ones_are_refused() -> None:
    """As plain numbers, which they become when asked for a Python value, they would mean nothing."""
    numpy = pytest.importorskip("numpy")
    exact = numpy.datetime64("2026-11-23T06:00:00.123456789", "ns")
    error = refused([{"a": None}, {"a": exact}], batch_size=2)
    assert error.item == 1
    assert "finer than microseconds" in str(error)
    assert kept() == [{"a": None}]
    at = datetime.datetime(2026, 11, 23, 6, 0, 0, 123456)  # noqa: DTZ001
    rows = [
        {"a": numpy.datetime64(at, "us"), "b": numpy.timedelta64(5, "s")},
        {"a": numpy.datetime64(at, "us").astype("M8[ns]"), "b": numpy.timedelta64(7, "us")},
        {"a": numpy.datetime64("NaT", "us"), "b": numpy.timedelta64("NaT", "us")},
    ]
    run(rows, job="other", output="other.parquet")
    delta = datetime.timedelta
    assert found("other.parquet") == [
        {"a": at, "b": delta(seconds=5)}, {"a": at, "b": delta(microseconds=7)}, {"a": None, "b": None},
    ]  # fmt: skip


class Place(NamedTuple):
    """A result that is a named tuple."""

    name: str
    people: int


def test_a_named_tuple_keeps_its_names_in_parquet() -> None:
    """Its fields are the columns; one within a column is a struct of them."""
    run([Place("Wien", 2), Place("Graz", 0)])
    assert found() == [{"name": "Wien", "people": 2}, {"name": "Graz", "people": 0}]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)),
        (datetime.datetime(2026, 1, 1, tzinfo=UTC), datetime.datetime(2026, 1, 1, 1, tzinfo=UTC)),
        (datetime.time(1), datetime.time(2)),
        (datetime.timedelta(1), datetime.timedelta(2)),
        (decimal.Decimal("1.5"), decimal.Decimal("2.5")),
        (b"a", b"b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_frame_whose_values_have_no_form_in_json_is_another_where_they_differ(was: Any, now: Any) -> None:
    """Of a frame in memory the first row and the one before the cursor are looked at, whatever their types."""
    options: dict[str, Any] = {"job": "job", "output": "out.parquet", "batch_size": 2, "progress": "none"}
    batchkit.process(pl.DataFrame({"a": [was] * 6}), max_items=3, **options)
    with pytest.raises(batchkit.InputChanged):
        batchkit.process(pl.DataFrame({"a": [now] * 6}), **options)
    with pytest.raises(batchkit.InputChanged):
        batchkit.process(pl.DataFrame({"a": [was, was, now, was, was, was]}), **options)
    assert batchkit.process(pl.DataFrame({"a": [was] * 6}), **options).completed
    assert found() == [{"a": was}] * 6


class TestPartitions:
    """Directories named `key=value`."""

    @staticmethod
    def put(directory: str, *numbers: int, **columns: Any) -> None:
        """Write a file of numbers into a directory."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"n": numbers, **columns}).write_parquet(f"{directory}/part.parquet")

    def test_a_new_directory_that_makes_partitions_of_another_type_is_a_change(self) -> None:
        """What was a whole number would be a text from here on: that is no input that only grew."""
        self.put("in/k=1", 1, 2)
        self.put("in/k=2", 3)
        assert batchkit.process("in", output="kept/", job="job").done == 3
        self.put("in/k=3", 4)
        assert batchkit.process("in", output="kept/", job="job").new == 1
        self.put("in/k=x", 5)
        with pytest.raises(batchkit.InputChanged, match="partitions"):
            batchkit.process("in", output="kept/", job="job")

    def test_a_column_of_the_file_goes_before_the_partition_of_the_same_name(self) -> None:
        """Many files hold the key, too, and in its own type."""
        self.put("in/k=1", 1, k=["one"])
        self.put("in/k=2", 2, k=["two"])
        batchkit.process("in", output="out.parquet", batch_size=1, progress="none")
        assert found() == [{"n": 1, "k": "one"}, {"n": 2, "k": "two"}]

    @pytest.mark.parametrize("source", ["in/k=2/*.parquet", "in/k=2", "in/k=2/", "in/k=*/*.parquet"])
    def test_a_partition_that_the_source_names_itself_is_a_column(self, source: str) -> None:
        """A part of the whole has the columns of the whole."""
        self.put("in/k=2", 1)
        batchkit.process(source, output="out.parquet", job="job")
        assert found() == [{"n": 1, "k": 2}]

    def test_a_number_that_no_column_of_numbers_holds_is_a_text(self) -> None:
        """As other names that are no numbers."""
        self.put(f"in/k={2**64}", 1)
        batchkit.process("in", output="out.parquet", job="job")
        assert found() == [{"n": 1, "k": str(2**64)}]


@pytest.mark.parametrize("columns", [[], ["id", "id"]])
def test_a_choice_of_columns_that_makes_no_row_is_wrong_usage(columns: list[str]) -> None:
    """At least one column, none twice."""
    FRAME.write_parquet("in.parquet")
    with pytest.raises(batchkit.UsageError, match="columns"):
        batchkit.process("in.parquet", columns=columns, progress="none")


@pytest.mark.parametrize("batched", [False, True])
def test_chosen_columns_come_in_the_order_asked_for(batched: bool) -> None:
    """Whatever their order in the file, which partitions are behind; as dicts, and as a table."""
    Path("in/k=1").mkdir(parents=True)
    FRAME.write_parquet("in/k=1/part.parquet")
    seen = []

    def look(rows: Any) -> Any:
        seen.append(list(rows.columns if batched else rows))
        return rows

    batchkit.process(
        "in", look, batched=batched, columns=["size", "k", "id"], output="out.parquet", job="job", max_items=4
    )
    batchkit.process("in", look, batched=batched, columns=["size", "k", "id"], output="out.parquet", job="job")
    assert {tuple(names) for names in seen} == {("size", "k", "id")}
    assert pl.read_parquet("out.parquet").columns == ["size", "k", "id"]
    with pytest.raises(batchkit.DefinitionChanged):
        batchkit.process("in", look, batched=batched, columns=["id", "k", "size"], output="out.parquet", job="job")


def test_the_end_of_a_parquet_file_is_compared_where_all_else_is_equal() -> None:
    """Same size, time and first block, another footer: another file."""
    big = pl.DataFrame({"n": range(3000)})
    big.write_parquet("in.parquet", compression="uncompressed", metadata={"made": "once"})
    facts, before = os.stat("in.parquet"), Path("in.parquet").read_bytes()
    batchkit.process("in.parquet", output="out.parquet", job="job", max_items=10)
    big.write_parquet("in.parquet", compression="uncompressed", metadata={"made": "anew"})
    after = Path("in.parquet").read_bytes()
    assert (len(after), after[:4096]) == (len(before), before[:4096])
    assert after != before
    os.utime("in.parquet", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(batchkit.InputChanged, match="last 4,096 bytes"):
        batchkit.process("in.parquet", output="out.parquet", job="job")
