"""The bulk paths of loads: what they render, and how many rows they take at once, changes no value."""

from __future__ import annotations

import datetime
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from batchkit.databases.address import Place
from batchkit.databases.sqlite import SqliteSession

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Database

TEXTS = ["plain", "a\ttab", "two\nlines", "a\rreturn", "back\\slash", "\\N", "\\.", "", None, '"quoted", é']


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_arrives_in_postgresql_as_it_is(workdir: Path, postgres: Database, text: str | None) -> None:
    """One odd text among plain ones and nulls is escaped, and the others are not changed by that."""
    del workdir
    rows = [{"id": number, "text": text if number == 7 else "plain", "other": None} for number in range(20)]
    batchkit.process(rows, output=postgres.url(table="texts"), progress="none")
    assert postgres.rows("SELECT text FROM texts ORDER BY id") == [(row["text"],) for row in rows]


def test_all_types_arrive_in_postgresql_beside_each_other(workdir: Path, postgres: Database) -> None:
    """Bytes, times with and without a zone, durations, lists and numbers share a row with texts."""
    del workdir
    utc = datetime.UTC
    values: dict[str, Any] = {
        "self": "a column's name is nobody's argument",
        "bytes": b"\\\x00\t",
        "naive": datetime.datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
        "aware": datetime.datetime(2026, 1, 2, 3, 4, 5, 6, utc),
        "span": datetime.timedelta(days=1, microseconds=1),
        "number": 0.1,
        "yes": True,
        "nested": {"a": "t\tt\\"},
    }
    batchkit.process([values, dict.fromkeys(values)], output=postgres.url(table="kinds"), progress="none")
    assert postgres.rows("SELECT * FROM kinds") == [tuple(values.values()), (None,) * len(values)]


@pytest.mark.parametrize("count", [1, 49, 50, 51, 123])
@pytest.mark.parametrize("mode", ["", "&mode=upsert&key=id"])
def test_sqlite_stores_every_row_of_any_batch(workdir: Path, count: int, mode: str) -> None:
    """Rows are stored in groups, those left over one by one; none is lost or moved at the seams."""
    rows = [{"id": number, "text": f"n{number}"} for number in range(count)]
    batchkit.process(rows, output=f"sqlite:///out.db?table=t{mode}", batch_size=1000, progress="none")
    with closing(sqlite3.connect(workdir / "out.db")) as connection:
        assert connection.execute("SELECT id, text FROM t ORDER BY rowid").fetchall() == [
            tuple(row.values()) for row in rows
        ]


def test_sqlite_keeps_the_last_of_several_rows_with_one_key(workdir: Path) -> None:
    """In one group as in several."""
    rows = [{"id": number % 7, "text": f"n{number}"} for number in range(123)]
    batchkit.process(rows, output="sqlite:///out.db?table=t&mode=upsert&key=id", batch_size=1000, progress="none")
    with closing(sqlite3.connect(workdir / "out.db")) as connection:
        found = dict(connection.execute("SELECT id, text FROM t"))
    assert found == {number % 7: f"n{number}" for number in range(123)}


def test_a_commit_that_is_refused_is_not_blamed_on_the_next_rows(workdir: Path) -> None:
    """It is made in a thread: the next statement tells, and that is the end of the run, not an item's failure."""
    session = SqliteSession(Place("sqlite", str(workdir / "a.db")))
    session.run("PRAGMA foreign_keys = ON")
    session.run("CREATE TABLE users (id INTEGER PRIMARY KEY)")
    session.run("CREATE TABLE orders (user INTEGER REFERENCES users DEFERRABLE INITIALLY DEFERRED)")
    session.begin()
    session.run("INSERT INTO orders VALUES (7)")
    session.commit_later()
    with pytest.raises(batchkit.StorageError, match="refuses to commit"):
        session.run("INSERT INTO users VALUES (8)")
    session.close()
