"""Results in tables of databases: SQLite, DuckDB and PostgreSQL, the same for all."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pytest

import batchkit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.tables import Tables


def load(tables: Tables, source: Any, function: Any = None, **options: Any) -> batchkit.Result:
    """Load into the table `users`, in small batches."""
    given = {"output": tables.url(table="users"), "batch_size": 10, "progress": "none", **options}
    return batchkit.process(source, function, **given)


def users(tables: Tables, columns: str = "id, name") -> list[tuple[Any, ...]]:
    """Return the table's rows."""
    return tables.rows(f"SELECT {columns} FROM users ORDER BY 1")  # noqa: S608  # of tests


def numbered(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return rows with an id and a name."""
    return [{"id": number, "name": f"n{number}"} for number in range(start, start + count)]


def named(count: int) -> list[tuple[Any, ...]]:
    """Return the same as a database gives them."""
    return [(number, f"n{number}") for number in range(count)]


@pytest.mark.everywhere
def test_rows_land_in_a_table_that_is_made_for_them(tables: Tables) -> None:
    """The first batch decides columns and types."""
    result = load(tables, numbered(25))
    assert (result.status, result.done) == ("completed", 25)
    assert users(tables) == named(25)


def test_a_job_that_is_done_loads_nothing_once_more(tables: Tables) -> None:
    """The same command again says that all is there."""
    load(tables, numbered(25))
    assert load(tables, numbered(25)).new == 0
    assert users(tables) == named(25)


@pytest.mark.everywhere
def test_a_load_that_stops_goes_on_behind_its_last_commit(tables: Tables) -> None:
    """What is committed can be read at once, and stays as it is."""
    for done in (7, 14, 21):
        load(tables, numbered(25), max_items=7)
        assert users(tables) == named(done)
    load(tables, numbered(25))
    assert users(tables) == named(25)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_files_load_without_a_function(tables: Tables, workdir: Path, suffix: str) -> None:
    """Parquet, CSV and NDJSON; strings of a CSV file become what the columns of a table that is there are."""
    frame = pl.DataFrame(numbered(25))
    path = workdir / f"users.{suffix}"
    write: dict[str, Callable[[Path], None]] = {
        "parquet": frame.write_parquet,
        "csv": frame.write_csv,
        "jsonl": frame.write_ndjson,
    }
    write[suffix](path)
    tables.run("CREATE TABLE users (id bigint, name text)")
    load(tables, path)
    assert users(tables) == named(25)


def test_a_csv_file_makes_a_table_of_texts(tables: Tables, workdir: Path) -> None:
    """Nothing is guessed; an empty field is an empty text."""
    (workdir / "users.csv").write_text("id,name\n1,a\n2,\n")
    load(tables, workdir / "users.csv")
    assert users(tables) == [("1", "a"), ("2", "")]


def test_lines_of_text_land_in_a_table_of_one_column(tables: Tables, workdir: Path) -> None:
    """It is called `result`, or whatever the one column of a table that is there is."""
    (workdir / "words.txt").write_text("b\na\n")
    load(tables, workdir / "words.txt")
    assert users(tables, "result") == [("a",), ("b",)]
    tables.run("CREATE TABLE words (word text)")
    load(tables, workdir / "words.txt", output=tables.url(table="words"), job="words-again")
    assert tables.rows("SELECT word FROM words ORDER BY 1") == [("a",), ("b",)]


@dataclasses.dataclass
class User:
    """A user."""

    id: int
    name: str


class Named(NamedTuple):
    """A user, too."""

    id: int
    name: str


def generated(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return each row twice."""
    yield row
    yield {"id": row["id"] + 100, "name": row["name"]}


FORMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dict": lambda row: row,
    "tuple": lambda row: (row["id"], row["name"]),
    "list": lambda row: [row["id"], row["name"]],
    "named tuple": lambda row: Named(**row),
    "dataclass": lambda row: User(**row),
    "table": lambda row: pl.DataFrame([row]),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_row_may_be_returned_in_any_form(tables: Tables, form: str) -> None:
    """By its names, or by its fields in the order of the table's columns."""
    tables.run("CREATE TABLE users (id bigint, name text)")
    load(tables, numbered(25), FORMS[form])
    assert users(tables) == named(25)


def test_results_that_are_none_store_nothing(tables: Tables) -> None:
    """The items count as done all the same."""
    result = load(tables, numbered(25), lambda row: row if row["id"] % 2 else None)
    assert result.done == 25
    assert users(tables) == named(25)[1::2]


def test_a_load_without_any_row_makes_no_table(tables: Tables) -> None:
    """It completes."""
    assert load(tables, numbered(25), lambda _: None).completed
    assert load(tables, [], job="empty").completed
    with pytest.raises(Exception, match="users"):
        users(tables)


def test_a_generator_function_stores_each_row_that_it_yields(tables: Tables) -> None:
    """Two for each item here."""
    load(tables, numbered(25), generated)
    assert users(tables, "count(*), sum(id)") == [(50, sum(range(25)) + sum(range(100, 125)))]


@pytest.mark.parametrize("form", ["frame", "dicts", "arrow"])
def test_batched_functions_may_return_tables(tables: Tables, workdir: Path, form: str) -> None:
    """Frames, Arrow tables and lists of dicts."""
    pl.DataFrame(numbered(25)).write_parquet(workdir / "users.parquet")

    def change(rows: pl.DataFrame) -> Any:
        frame = rows.with_columns(name=pl.col("name").str.to_uppercase())
        return {"frame": frame, "dicts": frame.to_dicts(), "arrow": frame.to_arrow() if form == "arrow" else None}[form]

    load(tables, workdir / "users.parquet", change, batched=True)
    assert users(tables) == [(number, name.upper()) for number, name in named(25)]


def test_columns_are_found_by_their_names(tables: Tables) -> None:
    """Whatever their order, and in either case where nothing else fits."""
    tables.run("CREATE TABLE users (name text, id bigint)")
    load(tables, [{"ID": 1, "Name": "a"}])
    assert users(tables) == [(1, "a")]


def test_columns_that_no_row_has_get_their_defaults(tables: Tables) -> None:
    """A row that lacks a column that others of its batch have gets null there."""
    tables.run("CREATE TABLE users (id bigint, name text DEFAULT 'nobody', age bigint)")
    load(tables, [{"id": 1}, {"id": 2, "age": 5}])
    assert users(tables, "id, name, age") == [(1, "nobody", None), (2, "nobody", 5)]


@pytest.mark.slow
def test_several_workers_load_each_row_once(tables: Tables, workdir: Path) -> None:
    """Each has a connection of its own; the table is made once."""
    pl.DataFrame(numbered(2_000)).write_parquet(workdir / "users.parquet", row_group_size=250)
    result = load(tables, workdir / "users.parquet", workers=4, batch_size=50)
    assert result.done == 2_000
    assert users(tables) == named(2_000)


def test_rows_that_come_later_are_added(tables: Tables, workdir: Path) -> None:
    """An input that has grown is loaded from where it ended."""
    path = workdir / "users.jsonl"
    for count in (12, 25):
        pl.DataFrame(numbered(count)).write_ndjson(path)
        load(tables, path)
        assert users(tables) == named(count)


def test_tables_may_have_any_name(tables: Tables) -> None:
    """Names in quotes, with dots, quotes and what is a word of SQL; so may columns."""
    rows = [{"select": 1, 'a "b" c': "x", "ü?%s": 2.5}]
    for number, name in enumerate(['"odd.name"', "order", 'say "hi"'.replace('"', "'"), "Ünï"]):
        load(tables, rows, output=tables.url(table=name), job=f"j{number}")
        plain = name.strip('"')
        assert tables.rows(f'SELECT "select", "a ""b"" c", "ü?%s" FROM "{plain}"') == [(1, "x", 2.5)]  # noqa: S608


def test_the_schema_may_be_named(tables: Tables) -> None:
    """`main` is that of files, `public` a server's first."""
    schema = "public" if tables.kind == "postgres" else "main"
    load(tables, numbered(3), output=tables.url(table=f"{schema}.users"))
    assert users(tables) == named(3)


def test_types_of_a_table_that_is_made_may_be_given(tables: Tables) -> None:
    """As for Parquet outputs."""
    load(tables, [{"id": "1", "price": "2.50", "day": "2026-01-31"}], schema="id=int, price=float, day=date")
    assert tables.rows("SELECT id + 1, price * 2, CAST(day AS text) FROM users") == [(2, 5.0, "2026-01-31")]
