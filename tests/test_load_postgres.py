"""Loads into tables of PostgreSQL that have what only PostgreSQL has: types, constraints, identities, views, parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import batchkit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Database

pytestmark = pytest.mark.usefixtures("workdir")

TYPES: dict[str, tuple[list[str], str, str]] = {
    "date": (["2024-02-29", "0001-01-01"], "2023-02-29", "2024-02-29 0001-01-01"),
    "timestamptz": (["2026-01-31 12:00:00+02", "2026-01-31T10:00:00.5Z"], "noon", "2026-01-31 10:00:00+00"),
    "uuid": (["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"], "a0eebc99", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "jsonb": (
        ['{"a": [1, "x\\ty\\n"], "b": null}', '"\\"\\\\"', "null"],
        "{'a': 1}",
        '{"a": [1, "x\\ty\\n"], "b": null}',
    ),
    "numeric(30,2)": (["1234567890123456789012345678.90", "-0.01"], "1,5", "1234567890123456789012345678.90 -0.01"),
    "mood": (["ok", "sad day"], "bad", "ok sad day"),
}
"""Of types: texts that they take, one that they do not, and how what was stored begins as text."""


def load(database: Database, source: Any, table: str = "users", function: Any = None, **options: Any) -> Any:
    """Load into a table, in small batches; `mode` and `key` as in addresses."""
    words = {name: options.pop(name) for name in ("mode", "key") if name in options}
    given = {"output": database.url(table=table, **words), "batch_size": 10, "progress": "none", "job": "load"}
    return batchkit.process(source, function, **{**given, **options})


def numbered(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return rows with an id and a name."""
    return [{"id": number, "name": f"n{number}"} for number in range(start, start + count)]


def ids(database: Database, table: str = "users") -> list[int]:
    """Return the ids that are in a table."""
    return [number for (number,) in database.rows(f"SELECT id FROM {table} ORDER BY 1")]  # noqa: S608  # of tests


# Types


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("name", TYPES)
def test_texts_become_what_the_column_is(postgres: Database, workdir: Path, name: str, suffix: str, mode: str) -> None:
    """As the database reads them; the text that it does not take is the failure of its item."""
    good, bad, stored = TYPES[name]
    postgres.run("CREATE TYPE mood AS ENUM ('ok', 'sad day')")
    postgres.run(f"CREATE TABLE users (id int PRIMARY KEY, value {name})")
    frame = pl.DataFrame({"id": range(len(good) + 1), "value": [*good, bad]}).with_columns(pl.col("id").cast(pl.String))
    path = workdir / f"users.{suffix}"
    getattr(frame, f"write_{suffix}")(path)
    result = (
        load(postgres, path, mode=mode, key="id", on_error="skip")
        if mode == "upsert"
        else load(postgres, path, on_error="skip")
    )
    assert (result.done, result.failed) == (len(good), 1)
    texts = "SET timezone = 'UTC'; SELECT string_agg(value::text, ' ' ORDER BY id) FROM users"
    [(text,)] = (
        postgres.rows(texts.split("; ")[1])
        if name != "timestamptz"
        else postgres.rows("SELECT string_agg((value AT TIME ZONE 'UTC')::text || '+00', ' ' ORDER BY id) FROM users")
    )
    assert text.startswith(stored)
    [failure] = batchkit.Job("load").failures()
    assert failure.item["value"] == bad
    assert bad in failure.message or "json" in failure.message


@pytest.mark.parametrize("form", ["literal", "json", "lists"])
def test_arrays_come_from_lists_from_json_and_from_what_the_database_writes_itself(
    postgres: Database, workdir: Path, form: str
) -> None:
    """Each text may be one or the other; what is neither is the failure of its item."""
    postgres.run("CREATE TABLE users (id int, numbers integer[], texts text[])")
    numbers: list[Any] = [[1, None], [], None]
    texts: list[Any] = [['a,"\\', "", "NULL"], [], None]
    if form == "json":
        numbers, texts = ["[1, null]", "[]", None, "[1"], ['["a,\\"\\\\", "", "NULL"]', "[]", None, "[]"]
    if form == "literal":
        numbers, texts = ["{1,NULL}", "{}", None, "{1"], ['{"a,\\"\\\\","","NULL"}', "{}", None, "{}"]
    frame = pl.DataFrame({"id": range(len(numbers)), "numbers": numbers, "texts": texts})
    frame.write_parquet(workdir / "users.parquet")
    result = load(postgres, workdir / "users.parquet", on_error="skip")
    assert result.failed == len(numbers) - 3
    assert postgres.rows("SELECT numbers, texts FROM users ORDER BY id") == [
        ([1, None], ['a,"\\', "", "NULL"]),
        ([], []),
        (None, None),
    ]


def test_whole_floats_fit_no_column_of_integers(postgres: Database) -> None:
    """That is the database's word: it reads 3.0 as no integer. A column of numeric takes them."""
    postgres.run("CREATE TABLE users (id int, amount numeric)")
    result = load(postgres, pl.DataFrame({"id": [1.0, 2.0], "amount": [3.0, 4.0]}).to_dicts(), on_error="skip")
    assert (result.done, result.failed) == (0, 2)
    assert 'invalid input syntax for type integer: "1.0"' in next(iter(batchkit.Job("load").failures())).message
    load(postgres, [{"id": 1, "amount": 3.0}], job="other")
    assert postgres.rows("SELECT id, amount FROM users") == [(1, 3)]


# Columns that the database fills


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
@pytest.mark.parametrize("what", ["serial", "int GENERATED BY DEFAULT AS IDENTITY", "int GENERATED ALWAYS AS IDENTITY"])
def test_numbers_that_the_database_counts_may_be_given(postgres: Database, what: str, mode: str) -> None:
    """They are stored as they are."""
    postgres.run(
        f"CREATE TABLE users (id {what} PRIMARY KEY, name text, size int GENERATED ALWAYS AS (length(name)) STORED)"
    )
    key = {"key": "id"} if mode == "upsert" else {}
    load(postgres, numbered(25, start=100), mode=mode, **key)
    assert ids(postgres) == list(range(100, 125))
    assert postgres.rows("SELECT DISTINCT size FROM users") == [(4,)]


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("what", ["serial", "int GENERATED BY DEFAULT AS IDENTITY", "int GENERATED ALWAYS AS IDENTITY"])
def test_numbers_that_no_row_has_are_counted_on(postgres: Database, what: str, mode: str) -> None:
    """By the table's own counter, so that rows that others add later get further ones."""
    postgres.run(f"CREATE TABLE users (id {what} PRIMARY KEY, name text)")
    postgres.run("INSERT INTO users (name) VALUES ('old'), ('old')")
    load(postgres, [{"name": row["name"]} for row in numbered(25)], mode=mode)
    for _ in range(2):
        postgres.run("INSERT INTO users (name) VALUES ('new')")
    assert postgres.rows("SELECT count(*), count(DISTINCT id) FROM users WHERE name <> 'old'") == [(27, 27)]


def test_a_value_for_a_generated_column_is_a_failure(postgres: Database) -> None:
    """That says so."""
    postgres.run("CREATE TABLE users (id int, twice int GENERATED ALWAYS AS (id * 2) STORED)")
    assert load(postgres, [{"id": 1}, {"id": 2, "twice": 4}], on_error="skip").failed == 1
    [failure] = batchkit.Job("load").failures()
    assert "computes its column 'twice'" in failure.message


# Constraints that wait


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize("what", ["unique", "foreign"])
def test_rows_against_constraints_that_wait_are_failures(postgres: Database, what: str, mode: str) -> None:
    """Though the database would say so only at the end of the transaction."""
    postgres.run("CREATE TABLE others (id int PRIMARY KEY)")
    postgres.run("INSERT INTO others SELECT generate_series(0, 29)")
    waits = "DEFERRABLE INITIALLY DEFERRED"
    other = f"int UNIQUE {waits}" if what == "unique" else f"int REFERENCES others {waits}"
    postgres.run(f"CREATE TABLE users (id int PRIMARY KEY, other {other})")
    wrong = 3 if what == "unique" else 77
    items = [{"id": number, "other": wrong if number in {5, 9, 17} else number} for number in range(25)]
    key = {"key": "id"} if mode == "upsert" else {}
    result = load(postgres, items, mode=mode, on_error="skip", **key)
    assert result.failed == 3
    assert ids(postgres) == [number for number in range(25) if number not in {5, 9, 17}]


# What stands around a table

AROUND = """
    CREATE ROLE reader_{name}; CREATE ROLE owner_{name};
    CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL);
    CREATE INDEX by_name ON users (name);
    COMMENT ON TABLE users IS 'all of them'; COMMENT ON COLUMN users.name IS 'in full';
    CREATE VIEW named AS SELECT name FROM users;
    GRANT SELECT ON users TO reader_{name};
    ALTER TABLE users OWNER TO owner_{name};
    CREATE TABLE cars (owner int REFERENCES users DEFERRABLE INITIALLY DEFERRED);
    CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.name := upper(NEW.name); RETURN NEW; END $$;
    CREATE TRIGGER loud BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION loud();
    INSERT INTO users VALUES (1, 'old'), (99, 'old'); INSERT INTO cars VALUES (1)
"""
KEPT = """
    SELECT c.oid, pg_get_userbyid(relowner), relacl::text, obj_description(c.oid), col_description(c.oid, 2),
        ARRAY(SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = c.oid ORDER BY 1),
        ARRAY(SELECT conname::text FROM pg_constraint WHERE confrelid = c.oid),
        ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal)
    FROM pg_class c WHERE oid = 'users'::regclass
"""


def test_replace_keeps_what_stands_around_the_table(postgres: Database) -> None:
    """Views, rights, the owner, indexes, comments, triggers, keys of others that point at it."""
    postgres.run(AROUND.format(name=postgres.name))
    before = postgres.rows(KEPT)
    load(postgres, numbered(25), mode="replace")
    assert postgres.rows(KEPT) == before
    assert all(before[0])
    assert postgres.rows("SELECT name FROM named ORDER BY 1 LIMIT 2") == [("N0",), ("N1",)]
    assert ids(postgres) == list(range(25))
    assert postgres.rows("SELECT owner FROM cars") == [(1,)]


def test_a_replacement_against_a_key_that_points_at_the_table_changes_nothing(postgres: Database) -> None:
    """The old rows stay, the run says what the database said; mended, the next one completes it."""
    postgres.run("CREATE TABLE users (id int PRIMARY KEY, name text)")
    postgres.run("CREATE TABLE cars (owner int REFERENCES users DEFERRABLE INITIALLY DEFERRED)")
    postgres.run("INSERT INTO users VALUES (99, 'old'); INSERT INTO cars VALUES (99)")
    for _ in range(2):
        with pytest.raises(batchkit.StorageError, match="foreign key") as caught:
            load(postgres, numbered(25), mode="replace")
        assert "\n" not in str(caught.value)
        assert ids(postgres) == [99]
    postgres.run("DELETE FROM cars")
    load(postgres, numbered(25), mode="replace")
    assert ids(postgres) == list(range(25))


# Other forms of tables


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_rows_find_the_parts_of_a_partitioned_table(postgres: Database, mode: str) -> None:
    """A row that no part takes is a failure, in `replace` of the whole at its end only."""
    postgres.run("CREATE TABLE users (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)")
    postgres.run("CREATE TABLE low PARTITION OF users FOR VALUES FROM (0) TO (20)")
    postgres.run("CREATE TABLE high PARTITION OF users FOR VALUES FROM (20) TO (40)")
    items = numbered(30) if mode == "replace" else [*numbered(30), {"id": 77, "name": "nowhere"}]
    key = {"key": "id"} if mode == "upsert" else {}
    result = load(postgres, items, mode=mode, on_error="skip", **key)
    assert result.failed == len(items) - 30
    assert (ids(postgres, "low"), ids(postgres, "high")) == (list(range(20)), list(range(20, 30)))


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
@pytest.mark.parametrize("name", ["User Table", 'a"b', "select", "größe", "%s", "a'b;--"])
def test_tables_and_their_schemas_may_have_any_name(postgres: Database, name: str, mode: str) -> None:
    """Their columns, too."""
    quoted = '"' + name.replace('"', '""') + '"'
    postgres.run(f"CREATE SCHEMA {quoted}")
    postgres.run(f"CREATE TABLE {quoted}.{quoted} ({quoted} int PRIMARY KEY)")
    key = {"key": name} if mode == "upsert" else {}
    load(postgres, [{name: number} for number in range(25)], f"{quoted}.{quoted}", mode=mode, **key)
    assert postgres.rows(f"SELECT count(*), max({quoted}) FROM {quoted}.{quoted}") == [(25, 24)]  # noqa: S608


def test_a_view_that_can_be_changed_takes_rows(postgres: Database) -> None:
    """Which land in its table; one that its check does not let in is a failure."""
    postgres.run("CREATE TABLE people (id int, name text)")
    postgres.run("CREATE VIEW users AS SELECT id, name FROM people WHERE id < 20 WITH CHECK OPTION")
    assert load(postgres, numbered(25), on_error="skip").failed == 5
    assert ids(postgres, "people") == list(range(20))


def test_rows_of_other_tables_do_not_go_with_those_that_are_replaced(workdir: Path, postgres: Database) -> None:
    """A foreign key that deletes with them is refused, before anything is begun."""
    del workdir
    postgres.run("CREATE TABLE users (id bigint PRIMARY KEY)")
    postgres.run("INSERT INTO users VALUES (7)")
    postgres.run("CREATE TABLE orders (user_id bigint REFERENCES users ON DELETE CASCADE)")
    postgres.run("INSERT INTO orders VALUES (7)")
    with pytest.raises(batchkit.StorageError, match="'orders'"):
        batchkit.process([{"id": 7}], output=postgres.url(table="users", mode="replace"), job="load", progress="none")
    assert postgres.rows("SELECT * FROM orders") == [(7,)]
