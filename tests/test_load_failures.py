"""Rows that a database does not take: each is the failure of its item, in the database's own words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import batchkit

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from tests.tables import Tables

BROKEN: dict[str, tuple[str, dict[str, Any], str]] = {
    "not null": ("name text NOT NULL", {"name": None}, "(?i)null"),
    "check": ("age int CHECK (age < 100)", {"age": 100}, "(?i)check"),
    "unique": ("name text UNIQUE", {"name": "n0"}, "(?i)unique|duplicate"),
    "type": ("age int", {"age": "old"}, "(?i)old|text value"),
    "key that is not there": ("friend int REFERENCES others (id)", {"friend": 7}, "(?i)foreign key"),
}
"""What a table asks for, a row that does not have it, and what the database says."""


def make(tables: Tables, column: str) -> None:
    """Make the table `users` with an id and one more column."""
    strict = " STRICT" if tables.kind == "sqlite" else ""
    tables.run("CREATE TABLE others (id int PRIMARY KEY)")
    tables.run(f"CREATE TABLE users (id bigint, {column})".replace("bigint", "int") + strict)


def rows(count: int, bad: Collection[int], wrong: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows with an id, of which some are wrong besides."""
    [name] = wrong
    return [
        {"id": number, name: {"name": f"n{number}", "age": number % 100}.get(name), **(wrong if number in bad else {})}
        for number in range(count)
    ]


def load(tables: Tables, source: Any, function: Any = None, **options: Any) -> batchkit.Result:
    """Load into the table `users`."""
    given = {"output": tables.url(table="users"), "batch_size": 1_000, "progress": "none", "job": "load", **options}
    return batchkit.process(source, function, **given)


def ids(tables: Tables) -> list[int]:
    """Return the ids that are in the table."""
    return [number for (number,) in tables.rows("SELECT id FROM users ORDER BY 1")]


@pytest.mark.parametrize("what", [name for name in BROKEN if name != "key that is not there"])
@pytest.mark.parametrize("source", ["rows", "table"])
def test_rows_that_do_not_fit_are_failures_and_the_others_are_stored(
    tables: Tables, workdir: Path, what: str, source: str
) -> None:
    """Several in a batch of 1,000, at its edges too; each kept with the database's message."""
    column, wrong, said = BROKEN[what]
    make(tables, column)
    bad = {1, 2, 500, 999, 1_000, 1_499}
    items: Any = rows(1_500, bad, wrong)
    if what == "type" and source == "table":
        items = [{**row, "age": str(row["age"])} for row in items]
    if source == "table":
        pl.DataFrame(items).write_parquet(workdir / "users.parquet")
        items = workdir / "users.parquet"
    result = load(tables, items, on_error="skip")
    assert (result.done, result.failed) == (1_494, 6)
    assert ids(tables) == [number for number in range(1_500) if number not in bad]
    failures = list(batchkit.Job("load").failures())
    assert [failure.item["id"] for failure in failures] == sorted(bad)
    assert all(pl.Series([failure.message]).str.contains(said)[0] for failure in failures), failures[0].message


@pytest.mark.parametrize("what", BROKEN)
def test_a_row_that_does_not_fit_stops_a_run_that_is_to_stop(tables: Tables, what: str) -> None:
    """Everything before it is kept; the next run begins with it, and again says why."""
    if what == "key that is not there" and tables.kind == "sqlite":
        pytest.skip("SQLite looks at foreign keys only where a connection asks for that")
    column, wrong, said = BROKEN[what]
    make(tables, column)
    for _ in range(2):
        with pytest.raises(batchkit.ItemError, match=said) as caught:
            load(tables, rows(1_500, {1_234}, wrong))
        assert "'id': 1234" in str(caught.value)
        assert "item 1,234" in str(caught.value)
        assert ids(tables) == list(range(1_234))
    load(tables, rows(1_500, {1_234}, wrong), on_error="skip")
    assert ids(tables) == [number for number in range(1_500) if number != 1_234]


@pytest.mark.everywhere
@pytest.mark.parametrize("bad", [range(10), range(25)])
def test_the_first_batch_may_be_bad_or_all(tables: Tables, bad: range) -> None:
    """What fits is there."""
    make(tables, "age int CHECK (age < 100)")
    result = load(tables, rows(25, bad, {"age": 100}), batch_size=10, on_error="skip")
    assert (result.done, result.failed) == (25 - len(bad), len(bad))
    assert ids(tables) == list(range(len(bad), 25))


def test_rows_of_a_function_that_makes_several_stand_and_fall_with_their_item(tables: Tables) -> None:
    """None of a failed item's rows is stored."""
    make(tables, "age int CHECK (age < 100)")

    def three(number: int) -> Any:
        yield from ({"id": 3 * number + more, "age": 100 if (number, more) == (4, 2) else 1} for more in range(3))

    result = load(tables, list(range(10)), three, on_error="skip")
    assert result.failed == 1
    assert ids(tables) == [number for number in range(30) if number not in {12, 13, 14}]


@pytest.mark.parametrize("form", ["dicts", "frame", "fewer"])
def test_batched_functions_are_called_again_with_less_until_the_bad_items_are_found(
    tables: Tables, workdir: Path, form: str
) -> None:
    """Also where nobody knows which of their results are whose."""
    make(tables, "age int CHECK (age < 100)")
    pl.DataFrame(rows(300, {5, 77, 299}, {"age": 100})).write_parquet(workdir / "users.parquet")

    def change(frame: pl.DataFrame) -> Any:
        if form == "fewer":
            return frame.filter(pl.col("id") != 3)
        return frame.to_dicts() if form == "dicts" else frame

    result = load(tables, workdir / "users.parquet", change, batched=True, batch_size=100, on_error="skip")
    assert result.failed == 3
    left_out = {5, 77, 299} | ({3} if form == "fewer" else set())
    assert ids(tables) == [number for number in range(300) if number not in left_out]


def test_columns_that_the_table_does_not_have_are_a_failure_that_names_those_it_has(tables: Tables) -> None:
    """Of the first row with such a column."""
    make(tables, "name text")
    items = [{"id": 1, "name": "a"}, {"id": 2, "name": "b", "mail": "b@example.com"}, {"id": 3, "name": "c"}]
    result = load(tables, items, on_error="skip")
    assert (result.failed, ids(tables)) == (1, [1, 3])
    [failure] = batchkit.Job("load").failures()
    assert failure.message == "the table 'users' has no column 'mail'; it has id, name"


def test_rows_with_too_few_or_too_many_fields_are_failures(tables: Tables) -> None:
    """Where they are told by their places."""
    make(tables, "name text")
    result = load(tables, [(1, "a"), (2,), (3, "b", 5), 4], on_error="skip")
    assert (result.failed, ids(tables)) == (3, [1])


def test_texts_with_nul_are_failures_where_the_database_has_no_place_for_them(tables: Tables) -> None:
    """PostgreSQL has none."""
    make(tables, "name text")
    result = load(tables, [{"id": 1, "name": "a"}, {"id": 2, "name": "b\x00c"}], on_error="skip")
    assert result.failed == (1 if tables.kind == "postgres" else 0)
    assert ids(tables) == ([1] if result.failed else [1, 2])


def test_texts_with_half_of_a_surrogate_pair_are_failures(tables: Tables) -> None:
    """UTF-8 has no form for them."""
    make(tables, "name text")
    values = ["a", "\ud800", "b", None, "\udfff"]
    result = load(tables, list(range(5)), lambda number: {"id": number, "name": values[number]}, on_error="skip")
    assert (result.failed, ids(tables)) == (2, [0, 2, 3])
    assert next(iter(batchkit.Job("load").failures())).message == (
        "its column 'name' is text with half of a surrogate pair, which no column can hold"
    )


def test_values_without_any_form_are_failures(tables: Tables) -> None:
    """An object, NaN within JSON, half of a surrogate pair."""
    nested = {"sqlite": "text", "duckdb": "json", "postgres": "jsonb"}[tables.kind]
    make(tables, f"name {nested}")
    values: list[Any] = [{"a": 1}, {"a": float("nan")}, {"a": object()}, ["x"], {"\ud800": 1}]
    result = load(tables, list(range(5)), lambda number: {"id": number, "name": values[number]}, on_error="skip")
    assert (result.failed, ids(tables)) == (3, [0, 3])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_failures_are_stored_by_a_retry_once_the_table_was_mended(tables: Tables, workdir: Path, workers: int) -> None:
    """Each once, whoever found them."""
    make(tables, "age int CHECK (age < 100)")
    bad = set(range(0, 400, 7))
    (workdir / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(400, bad, {"age": 100})))
    load(tables, workdir / "users.jsonl", batch_size=20, on_error="skip", workers=workers)
    assert ids(tables) == [number for number in range(400) if number not in bad]
    job = batchkit.Job("load")
    assert job.retry(progress="none").failed == len(bad)
    tables.run("ALTER TABLE users RENAME TO strict")
    tables.run("CREATE TABLE users (id int, age int)")
    tables.run("INSERT INTO users SELECT id, age FROM strict")
    assert job.retry(progress="none").completed
    assert ids(tables) == list(range(400))
    assert list(job.failures()) == []
    assert load(tables, workdir / "users.jsonl", batch_size=20, on_error="skip").new == 0
    assert ids(tables) == list(range(400))


def test_retries_can_be_stopped_and_go_on(tables: Tables) -> None:
    """Item by item, each is stored once."""
    make(tables, "age int CHECK (age < 100)")
    items = rows(20, range(0, 20, 2), {"age": 100})
    load(tables, items, on_error="skip")
    job = batchkit.Job("load")

    def mend(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "age": 1}

    assert not job.retry(mend, max_items=3, batch_size=2, progress="none").completed
    assert len(ids(tables)) == 13
    job.retry(mend, progress="none")
    assert ids(tables) == list(range(20))
