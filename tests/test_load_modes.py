"""The modes of loading: rows are added, put over those with the same key, or take the place of all others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import batchkit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tables import Tables


def load(tables: Tables, source: Any, mode: str, function: Any = None, **options: Any) -> batchkit.Result:
    """Load into the table `users`, in small batches; by the key `id`."""
    more = {"key": "id"} if mode == "upsert" else {}
    given = {
        "output": tables.url(table="users", mode=mode, **more),
        "batch_size": 10,
        "progress": "none",
        "job": "load",
        **options,
    }
    return batchkit.process(source, function, **given)


def users(tables: Tables) -> list[tuple[Any, ...]]:
    """Return the table's rows."""
    return tables.rows("SELECT id, name FROM users ORDER BY 1, 2")


def numbered(count: int, name: str = "n", start: int = 0) -> list[dict[str, Any]]:
    """Return rows with an id and a name."""
    return [{"id": number, "name": name} for number in range(start, start + count)]


def as_stored(items: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the same as a database gives them."""
    return [(item["id"], item["name"]) for item in items]


def write(path: Path, items: list[dict[str, Any]]) -> Path:
    """Write rows as NDJSON."""
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def left(tables: Tables) -> list[str]:
    """Return the names of all tables but the checkpoints'."""
    query = {
        "sqlite": "SELECT name FROM sqlite_schema WHERE type = 'table'",
        "duckdb": "SELECT table_name FROM duckdb_tables()",
        "postgres": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    }[tables.kind]
    return sorted(name for (name,) in tables.rows(query) if name != "batchkit_checkpoint")


# Append


def test_append_adds_to_what_is_there(tables: Tables) -> None:
    """Whoever has put it there: another job with the same table, too."""
    tables.run("CREATE TABLE users (id bigint, name text)")
    tables.run("INSERT INTO users VALUES (0, 'first')")
    load(tables, numbered(3, start=1), "append")
    load(tables, numbered(3, start=4), "append", job="other")
    assert users(tables) == [(0, "first"), *as_stored(numbered(6, start=1))]


# Upsert


def test_starting_over_is_refused_where_only_the_database_knows_of_rows(tables: Tables, workdir: Path) -> None:
    """A power cut took the journal back, or a kill came before it: the rows would be added once more."""
    load(tables, numbered(25), "append", max_items=20)
    journal = workdir / ".batchkit" / "load" / "shards" / "00000.jsonl"
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(batchkit.UsageError, match="starting over would add them"):
        load(tables, numbered(25), "append", restart=True)


@pytest.mark.everywhere
def test_upsert_puts_rows_over_those_with_the_same_key(tables: Tables) -> None:
    """New ones are added, columns that no row has stay."""
    tables.run("CREATE TABLE users (id bigint PRIMARY KEY, name text, note text DEFAULT 'none')")
    tables.run("INSERT INTO users VALUES (1, 'old', 'kept'), (50, 'stays', 'kept')")
    load(tables, numbered(25), "upsert")
    assert users(tables) == [*as_stored(numbered(25)), (50, "stays")]
    assert tables.rows("SELECT id FROM users WHERE note = 'kept' ORDER BY 1") == [(1,), (50,)]


def test_upsert_makes_a_table_with_its_key(tables: Tables) -> None:
    """The first batch decides the types."""
    load(tables, numbered(25) + numbered(3, "again"), "upsert")
    assert users(tables) == as_stored(numbered(3, "again") + numbered(22, start=3))
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        tables.run("INSERT INTO users VALUES (1, 'twice')")


@pytest.mark.parametrize("form", ["rows", "table"])
def test_of_several_rows_with_one_key_the_last_counts(tables: Tables, workdir: Path, form: str) -> None:
    """Within a batch, and across batches."""
    items = [{"id": number % 7, "name": f"{number}"} for number in range(30)]
    source: Any = items
    if form == "table":
        source = workdir / "users.parquet"
        pl.DataFrame(items).write_parquet(source)
    load(tables, source, "upsert")
    assert users(tables) == sorted((number % 7, f"{number}") for number in range(23, 30))


def test_a_key_may_have_several_columns_and_be_all_there_is(tables: Tables) -> None:
    """Rows that are nothing but keys are there once."""
    rows = [{"a": number % 3, "b": number % 2} for number in range(30)]
    load(tables, rows, "upsert", output=tables.url(table="pairs", mode="upsert", key="a,b"))
    assert tables.rows("SELECT a, b FROM pairs ORDER BY a, b") == [(a, b) for a in range(3) for b in range(2)]


def test_the_names_of_a_key_may_be_in_another_case(tables: Tables) -> None:
    """As those of columns."""
    tables.run("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
    load(tables, numbered(3) + numbered(1, "last"), "upsert", output=tables.url(table="users", mode="upsert", key="ID"))
    assert users(tables) == as_stored(numbered(1, "last") + numbered(2, start=1))


def test_a_key_that_the_table_does_not_have_is_said_at_once(tables: Tables) -> None:
    """It is no failure of an item: none would fare better."""
    tables.run("CREATE TABLE users (number bigint PRIMARY KEY, name text)")
    with pytest.raises(batchkit.BatchkitError, match=r"no column 'id', .*key") as caught:
        load(tables, [{"number": 1, "name": "a"}], "upsert", on_error="skip")
    assert not isinstance(caught.value, batchkit.ItemError)


def test_a_row_without_its_key_is_a_failure(tables: Tables) -> None:
    """Null is no key, and a batch without the column neither."""
    tables.run("CREATE TABLE users (id bigint PRIMARY KEY NOT NULL, name text)")
    result = load(tables, [{"id": 1, "name": "a"}, {"name": "b"}, {"id": 3, "name": "c"}], "upsert", on_error="skip")
    assert (result.failed, users(tables)) == (1, [(1, "a"), (3, "c")])


def test_rows_whose_key_is_null_are_failures_though_the_table_would_take_them(tables: Tables) -> None:
    """A unique index lets any number of nulls in, so that no row could be put over another, and none told apart."""
    tables.run("CREATE TABLE users (id bigint, name text)")
    tables.run("CREATE UNIQUE INDEX of_users ON users (id)")
    rows = [{"id": 1, "name": "a"}, {"id": None, "name": "b"}, {"id": None, "name": "c"}, {"id": 4, "name": "d"}]
    result = load(tables, rows, "upsert", on_error="skip")
    assert (result.failed, users(tables)) == (2, [(1, "a"), (4, "d")])


def test_a_key_that_is_not_unique_is_said_at_once(tables: Tables) -> None:
    """With what to do about it, and not as a failure of each item."""
    tables.run("CREATE TABLE users (id bigint, name text)")
    with pytest.raises(batchkit.BatchkitError, match=r"(?i)unique") as caught:
        load(tables, numbered(25), "upsert", on_error="skip")
    assert not isinstance(caught.value, batchkit.ItemError)
    tables.run("CREATE UNIQUE INDEX users_by_id ON users (id)")
    assert load(tables, numbered(25), "upsert", on_error="skip").completed
    assert users(tables) == as_stored(numbered(25))


@pytest.mark.slow
def test_workers_may_put_rows_over_the_same_keys(tables: Tables, workdir: Path) -> None:
    """Each key is there once, whoever was last; nobody waits for each other for ever."""
    items = [{"id": (number * 7) % 100, "name": f"{number}"} for number in range(4_000)]
    source = write(workdir / "users.jsonl", items)
    assert load(tables, source, "upsert", workers=4, batch_size=100).done == 4_000
    assert [number for number, _ in users(tables)] == list(range(100))


def test_upsert_may_start_over(tables: Tables, workdir: Path) -> None:
    """The same rows once more are the same rows."""
    source = write(workdir / "users.jsonl", numbered(25))
    load(tables, source, "upsert")
    assert load(tables, source, "upsert", restart=True).new == 25
    batchkit.Job("load").reset()
    assert load(tables, source, "upsert").new == 25
    assert users(tables) == as_stored(numbered(25))
    assert tables.rows("SELECT count(DISTINCT job) FROM batchkit_checkpoint") == [(1,)]


# Replace


@pytest.mark.everywhere
def test_replace_takes_the_place_of_all_rows_at_the_end(tables: Tables) -> None:
    """Until then, readers see the old ones."""
    tables.run("CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL)")
    tables.run("INSERT INTO users VALUES (1, 'old'), (99, 'old')")
    for _ in range(2):
        load(tables, numbered(25), "replace", max_items=10)
        assert users(tables) == [(1, "old"), (99, "old")]
    assert load(tables, numbered(25), "replace").completed
    assert users(tables) == as_stored(numbered(25))
    assert left(tables) == ["users"]
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        tables.run("INSERT INTO users VALUES (1, 'twice')")


def test_replace_makes_a_table_that_is_missing(tables: Tables) -> None:
    """It appears when all rows are there."""
    load(tables, numbered(25), "replace", max_items=10)
    assert "users" not in left(tables)
    load(tables, numbered(25), "replace")
    assert users(tables) == as_stored(numbered(25))
    assert left(tables) == ["users"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_replace_works_with_several_workers(tables: Tables, workdir: Path, workers: int) -> None:
    """Their rows gather in one table."""
    tables.run("CREATE TABLE users (id bigint, name text)")
    tables.run("INSERT INTO users VALUES (1, 'old')")
    source = write(workdir / "users.jsonl", numbered(1_000))
    load(tables, source, "replace", workers=workers, batch_size=50)
    assert users(tables) == as_stored(numbered(1_000))
    assert left(tables) == ["users"]


def test_replace_by_nothing_leaves_an_empty_table(tables: Tables) -> None:
    """An input without rows says that there are none."""
    tables.run("CREATE TABLE users (id bigint, name text)")
    tables.run("INSERT INTO users VALUES (1, 'old')")
    assert load(tables, [], "replace").completed
    assert users(tables) == []


def test_rows_that_come_after_a_replacement_are_added(tables: Tables, workdir: Path) -> None:
    """An input that has grown."""
    tables.run("CREATE TABLE users (id bigint, name text)")
    tables.run("INSERT INTO users VALUES (1, 'old')")
    for count in (12, 25):
        load(tables, write(workdir / "users.jsonl", numbered(count)), "replace")
        assert users(tables) == as_stored(numbered(count))
    assert left(tables) == ["users"]


def test_replace_may_start_over(tables: Tables, workdir: Path) -> None:
    """At its end, and in its middle; the table holds one whole load or the other."""
    source = write(workdir / "users.jsonl", numbered(25))
    load(tables, source, "replace")
    load(tables, source, "replace", lambda row: {**row, "name": "new"}, restart=True, max_items=15)
    assert users(tables) == as_stored(numbered(25))
    load(tables, source, "replace", lambda row: {**row, "name": "newer"}, restart=True)
    assert users(tables) == as_stored(numbered(25, "newer"))
    assert left(tables) == ["users"]
    batchkit.Job("load").reset()
    assert users(tables) == as_stored(numbered(25, "newer"))


def test_a_reset_in_the_middle_of_a_replacement_leaves_no_table_behind(tables: Tables, workdir: Path) -> None:
    """What had gathered goes when the job starts over, or is removed."""
    source = write(workdir / "users.jsonl", numbered(25))
    tables.run("CREATE TABLE users (id bigint, name text)")
    load(tables, source, "replace", max_items=10)
    assert len(left(tables)) == 2
    batchkit.Job("load").reset()
    load(tables, source, "replace", max_items=10)
    assert len(left(tables)) == 2
    batchkit.Job("load").remove()
    assert left(tables) == ["users"]
    assert tables.rows("SELECT count(*) FROM batchkit_checkpoint") == [(0,)]


def test_failures_of_a_replacement_gather_with_its_rows(tables: Tables, workdir: Path) -> None:
    """Once that is done, a retry adds to the table."""
    tables.run("CREATE TABLE users (id bigint, name text NOT NULL)")
    items = [{**row, "name": None} if row["id"] % 10 == 3 else row for row in numbered(25)]
    source = write(workdir / "users.jsonl", items)
    assert load(tables, source, "replace", on_error="skip").failed == 3
    good = [row for row in numbered(25) if row["id"] % 10 != 3]
    assert users(tables) == as_stored(good)
    batchkit.Job("load").retry(lambda row: {**row, "name": "n"}, progress="none")
    assert users(tables) == as_stored(numbered(25))


def test_a_replacement_that_was_not_noted_is_not_done_twice(tables: Tables, workdir: Path) -> None:
    """A crash between the database's commit and the job's own note of it: rows that came meanwhile stay."""
    load(tables, write(workdir / "users.jsonl", numbered(25)), "replace")
    tables.run("INSERT INTO users VALUES (77, 'meanwhile')")
    (workdir / ".batchkit" / "load" / "publish.jsonl").unlink()
    assert load(tables, workdir / "users.jsonl", "replace").completed
    assert users(tables) == [*as_stored(numbered(25)), (77, "meanwhile")]
