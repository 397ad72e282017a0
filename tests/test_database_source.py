"""Tables and queries of databases as sources: SQLite, DuckDB and PostgreSQL, the same for all."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import pickle
import signal
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlencode

import duckdb
import psycopg
import pytest

import batchkit
from batchkit.databases.address import query as query_of
from batchkit.databases.connecting import connect
from batchkit.databases.keyset import Keyset, columns_of
from batchkit.model import Span
from batchkit.readers.database import DatabaseReader
from batchkit.sources import of_paths, reader_of
from tests.postgres import Server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

    from tests.conftest import Cli
    from tests.postgres import Database

PASSWORD = "s3cret-w0rd"  # noqa: S105  # of nobody

pytestmark = pytest.mark.usefixtures("workdir")


class Place(Protocol):
    """An empty database, which a test fills."""

    kind: str

    def url(self, **parameters: str) -> str:
        """Return its address with these parameters."""

    def run(self, sql: str, rows: Sequence[Sequence[Any]] | None = None) -> None:
        """Execute a statement, once for each row of values `?` if there are any, and commit."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what a query gives."""


class Sqlite:
    """An SQLite file."""

    kind = "sqlite"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "shop.db"

    def url(self, **parameters: str) -> str:
        return f"sqlite:///{self.path}?{urlencode(parameters)}"

    def run(self, sql: str, rows: Sequence[Sequence[Any]] | None = None) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(sql) if rows is None else connection.executemany(sql, rows)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql).fetchall()


class Duck:
    """A DuckDB file."""

    kind = "duckdb"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "shop.duckdb"

    def url(self, **parameters: str) -> str:
        return f"duckdb:///{self.path}?{urlencode(parameters)}"

    def run(self, sql: str, rows: Sequence[Sequence[Any]] | None = None) -> None:
        with duckdb.connect(self.path) as connection:
            if rows is None:
                connection.execute(sql)
                return
            for start in range(0, len(rows), 1_000):  # one statement for many: executemany takes a second for 1,000
                part = rows[start : start + 1_000]
                marks = ", ".join("(" + ", ".join("?" * len(row)) + ")" for row in part)
                connection.execute(sql.partition("(")[0] + marks, [value for row in part for value in row])

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(self.path) as connection:
            return connection.execute(sql).fetchall()


class Postgres:
    """A database of a PostgreSQL server."""

    kind = "postgres"

    def __init__(self, database: Database) -> None:
        self.database = database

    def url(self, **parameters: str) -> str:
        return self.database.url(**parameters)

    def run(self, sql: str, rows: Sequence[Sequence[Any]] | None = None) -> None:
        with self.database.connect() as connection:
            if rows is None:
                connection.execute(sql.encode())
            else:
                connection.cursor().executemany(sql.replace("?", "%s").encode(), rows)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.database.rows(sql)


@pytest.fixture(params=["sqlite", "duckdb", "postgres"])
def place(request: pytest.FixtureRequest, workdir: Path) -> Place:
    """Give an empty database of each kind."""
    if request.param == "postgres":
        return Postgres(request.getfixturevalue("postgres"))
    return Sqlite(workdir) if request.param == "sqlite" else Duck(workdir)


def fill(place: Place, ids: Sequence[int], *, make: bool = True) -> None:
    """Put rows into the table `users`, which is made with its key."""
    if make:
        place.run("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
    place.run("INSERT INTO users VALUES (?, ?)", [(number, f"n{number}") for number in ids])


def users(ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return these rows as items."""
    return [{"id": number, "name": f"n{number}"} for number in ids]


def run(source: Any, function: Any = None, **options: Any) -> batchkit.Result:
    """Run a job that says nothing."""
    return batchkit.process(source, function, **{"job": "job", "progress": "none", **options})


def items_of(path: str = "out.jsonl") -> list[Any]:
    """Return the values of a file of JSON lines."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# Reading -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [700, 9_000])
def test_all_rows_come_in_the_order_of_the_key_however_many_pages_they_are(place: Place, size: int) -> None:
    """Pages end where batches end, or not: no row is missing or there twice, and no batch is larger than asked."""
    ids = list(range(-5_000, 20_000, 3))
    fill(place, ids[::2])
    fill(place, ids[1::2], make=False)
    seen: list[Any] = []
    sizes: list[int] = []

    def note(rows: list[Any]) -> None:
        seen.extend(rows)
        sizes.append(len(rows))

    result = run(place.url(table="users", cursor="id"), note, batched=True, batch_size=size)
    assert (result.status, result.done) == ("completed", len(ids))
    assert seen == users(ids)
    assert max(sizes) <= size


def test_a_query_chooses_rows_and_columns_and_may_have_any_text(place: Place) -> None:
    """Signs that drivers take for places of values are nothing but text in a query, and so is a comment at its end."""
    fill(place, range(300))
    query = "SELECT id AS key, '100%s ? $1 :x' AS note FROM users WHERE name LIKE 'n1%' -- those with one; "
    run(place.url(query=query, cursor="key"), output="out.jsonl", batch_size=40)
    ids = [number for number in range(300) if str(number).startswith("1")]
    assert items_of() == [{"key": number, "note": "100%s ? $1 :x"} for number in ids]


_DAY = datetime.datetime(2026, 3, 29, 1, 30, 0, 123_456)  # noqa: DTZ001  # as in a column without a zone


class Kind(NamedTuple):
    """A type of keys: as databases name it, and values of it in their order."""

    type: str
    keys: list[Any]
    kinds: tuple[str, ...] = ("sqlite", "duckdb", "postgres")


KINDS = {
    "integer": Kind("bigint", [-(2**63), -1, 0, 1, 2**53 + 1, 2**63 - 1]),
    "text": Kind("text", ["", " ", "A", "a", "a'b\"", "z\\", "é", "🐎"]),
    "float": Kind("double precision", [-1e300, -0.5, 0.1, 0.2, 1.5, 1e300]),
    "decimal": Kind(
        "numeric(20,5)",
        [decimal.Decimal(text) for text in ("-7.00001", "0.1", "1234567890123.5")],
        ("duckdb", "postgres"),
    ),
    "date": Kind(
        "date",
        [datetime.date(1, 1, 1) + datetime.timedelta(days) for days in range(0, 700_000, 99_999)],
        ("duckdb", "postgres"),
    ),
    "timestamp": Kind(
        "timestamp", [_DAY + datetime.timedelta(microseconds=n) for n in range(5)], ("duckdb", "postgres")
    ),
    "timestamptz": Kind(
        "timestamptz",
        [(_DAY + datetime.timedelta(minutes=n)).replace(tzinfo=datetime.UTC) for n in range(5)],
        ("postgres",),
    ),
    "uuid": Kind(
        "uuid", sorted(uuid.UUID(int=n * 0x123456789ABCDEF0123456789ABCDE) for n in range(9)), ("duckdb", "postgres")
    ),
    "bytes": Kind("bytea", [b"", b"\0", b"\0\xff", b"a", b"\xff"], ("postgres",)),
    "blob": Kind("blob", [b"", b"\0", b"\0\xff", b"a", b"\xff"], ("sqlite", "duckdb")),
}


@pytest.mark.parametrize("name", KINDS)
def test_keys_of_every_type_lead_to_the_rest_of_the_rows(place: Place, name: str) -> None:
    """A cursor that went through JSON, a pickled reader: exactly what is behind it; spans are cut between rows."""
    kind = KINDS[name]
    if place.kind not in kind.kinds:
        pytest.skip("has no such type")
    place.run(f'CREATE TABLE "odd "" table" ("the key" {kind.type} PRIMARY KEY, n int)')
    place.run('INSERT INTO "odd "" table" VALUES (?, ?)', [(key, n) for n, key in enumerate(kind.keys)])
    source = place.url(table='"odd "" table"', cursor="the key")
    reader = pickle.loads(pickle.dumps(reader_of(source)))  # noqa: S301  # our own
    whole = Span(*json.loads(json.dumps(reader.whole())))
    batches = list(reader.read(whole, 2))
    assert [item["the key"] for batch in batches for item in batch.items] == kind.keys
    for batch in batches:
        for index in range(len(batch.items) + 1):
            cursor = json.loads(json.dumps(batch.coordinate(index)))
            rest = [item["n"] for each in reader.read(Span(cursor, whole.stop), 100) for item in each.items]
            assert rest == list(range(batch.items[0]["n"] + index, len(kind.keys)))
    fingerprint = json.loads(json.dumps(reader.fingerprint()))
    assert (
        reader_of(source).check(fingerprint, json.loads(json.dumps(batches[0].stop)), batches[0].proof).kind == "same"
    )
    for count in (2, 3, 50):
        spans = reader.split(whole, count)
        assert 1 < len(spans) <= count or name == "integer"  # of which nearly all lie at one place
        assert [span.start for span in spans[1:]] == [span.stop for span in spans[:-1]]
        parts = [[item["n"] for each in reader.read(span, 100) for item in each.items] for span in spans]
        assert sum(parts, []) == list(range(len(kind.keys)))  # noqa: RUF017
        assert all(parts)


def test_a_page_is_one_query_that_an_index_answers(place: Place) -> None:
    """Wherever the cursor is: the plan goes to the key, and neither scans the table nor sorts."""
    if place.kind == "duckdb":
        pytest.skip("scans what its statistics do not rule out")
    fill(place, range(20_000))
    if place.kind == "postgres":
        place.run("ANALYZE users")
    for parameters in ({"table": "users"}, {"query": "SELECT id, name FROM users WHERE name <> 'n7'"}):
        asked = query_of(place.url(**parameters, cursor="id"))
        with closing(connect(asked.place, reading=True)) as session:
            keys = Keyset(session, asked.sql, columns_of(session, asked.sql, asked.cursor))
            sql, values = keys.page_query(15_000, 19_999, 100)
            explain = "EXPLAIN QUERY PLAN " if place.kind == "sqlite" else "EXPLAIN "
            plan = " ".join(str(row) for row in session.select(explain + sql, values)[1])
            assert "USING INTEGER PRIMARY KEY" in plan or "USING INDEX" in plan or "Index Scan" in plan, plan
            assert not any(word in plan for word in ("Seq Scan", "Sort", "TEMP B-TREE", "SCAN users")), plan
            assert [row[0] for row in keys.page(15_000, 19_999, 3)] == [15_001, 15_002, 15_003]


# Stopping, going on, growing -----------------------------------------------------------------------------------------


@pytest.mark.everywhere
def test_runs_of_some_items_each_see_every_row_once(place: Place) -> None:
    """Each run goes on behind the last key."""
    fill(place, range(0, 2_500, 5))
    seen: list[Any] = []
    result = run(place.url(table="users", cursor="ID"), seen.append, batch_size=30, max_items=77)
    while not result.completed:
        assert result.new == 77
        result = run(place.url(table="users", cursor="ID"), seen.append, batch_size=30, max_items=77)
    assert seen == users(range(0, 2_500, 5))


def test_rows_that_come_behind_the_end_are_taken_when_the_job_is_run_again(place: Place) -> None:
    """Also those that come while a run is at work: by the next one. No writer has to wait for the reader."""
    fill(place, range(10))
    source = place.url(table="users", cursor="id")

    def grow(item: dict[str, Any]) -> dict[str, Any]:
        if item["id"] == 5 and not Path("grown").exists():
            Path("grown").touch()
            fill(place, [100, 101], make=False)
        return item

    assert run(source, grow, output="out.jsonl", batch_size=3).done == 10
    for number in (200, 300):
        fill(place, [number], make=False)
        assert run(source, grow, output="out.jsonl", batch_size=3, max_items=1).new == 1
        assert run(source, grow, output="out.jsonl", batch_size=3).completed
    assert items_of() == users([*range(10), 100, 101, 200, 300])
    assert run(source, grow, output="out.jsonl").new == 0


@pytest.mark.slow
def test_an_empty_table_is_nothing_to_do_until_it_has_rows(place: Place) -> None:
    """Success, on several workers, too."""
    fill(place, [])
    source = place.url(table="users", cursor="id")
    for workers in (1, 2):
        assert (run(source, output="out.jsonl", workers=workers).status, items_of()) == ("completed", [])
    fill(place, [3, 4], make=False)
    run(source, output="out.jsonl", workers=2)
    assert items_of() == users([3, 4])


def test_a_job_tells_a_table_that_is_another_and_goes_on_where_done_rows_are_gone(place: Place) -> None:
    """Refused: the row done last has other values; other columns; only smaller keys. Not refused: done rows deleted."""
    fill(place, range(10))
    source = place.url(table="users", cursor="id")
    seen: list[Any] = []
    run(source, seen.append, max_items=4)
    place.run("UPDATE users SET name = 'else' WHERE id = 3")
    with pytest.raises(batchkit.InputChanged, match="behind which to go on, id 3, is not what it was") as caught:
        run(source, seen.append)
    assert "\n" not in str(caught.value)
    place.run("DELETE FROM users WHERE id <= 3")
    run(source, seen.append, max_items=2)
    assert seen == users(range(6))
    place.run("DELETE FROM users WHERE id > 3")
    assert run(source, seen.append).completed, "nothing is left of it"
    fill(place, [1, 2], make=False)
    with pytest.raises(batchkit.InputChanged, match="has only rows before the one done last, id 5"):
        run(source, seen.append)
    place.run("ALTER TABLE users ADD COLUMN age int")
    with pytest.raises(batchkit.InputChanged, match="has the columns id, name, age and had id, name"):
        run(source, seen.append)
    assert seen == users(range(6))


@pytest.mark.slow
def test_results_go_into_the_database_that_the_rows_come_from(place: Place) -> None:
    """Reader and writer of one file do not lock each other out; nor do those of several processes."""
    fill(place, range(500))
    for workers in (1, 2):
        target = place.url(table=f"copy{workers}")
        source = place.url(table="users", cursor="id")
        result = run(source, output=target, batch_size=50, workers=workers, job=f"job{workers}")
        assert (result.status, result.done) == ("completed", 500)
        copied = place.rows(f"SELECT count(*), count(DISTINCT id), sum(id), min(name) FROM copy{workers}")  # noqa: S608  # ours
        assert copied == [(500, 500, 124_750, "n0")]


@pytest.mark.slow
@pytest.mark.parametrize("key", ["id", "name"])
def test_several_workers_read_parts_of_their_own(place: Place, key: str) -> None:
    """All rows once, in order, however the keys lie."""
    ids = [*range(3_000), *range(10**12, 10**12 + 3_000)]
    fill(place, ids)
    place.run("CREATE UNIQUE INDEX by_name ON users (name)")
    result = run(place.url(table="users", cursor=key), output="out.jsonl", workers=3)
    assert (result.status, result.done) == ("completed", 6_000)
    assert items_of() == (users(ids) if key == "id" else sorted(users(ids), key=lambda item: str(item["name"])))


KILLED = """
import os, signal, pathlib

def note(item):
    mark = pathlib.Path("killed-at-%s" % item["id"])
    if item["id"] in {1234, 2345, 3456} and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item["id"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_job_goes_on_and_has_each_row_once(
    place: Place, workers: str, start_cli: Callable[..., subprocess.Popen[str]]
) -> None:
    """A SIGKILL of the process that reads, three times; with several workers it is one of them, and the run goes on."""
    fill(place, range(5_000))
    Path("work.py").write_text(KILLED)
    words = (
        "process",
        place.url(table="users", cursor="id"),
        "-f",
        "work.py:note",
        "-o",
        "out.txt",
        "-w",
        workers,
        "-q",
    )
    codes: list[int] = []
    while not codes or codes[-1] != 0:
        with start_cli(*words) as process:
            _, err = process.communicate(timeout=60)
        codes.append(process.returncode)
        assert codes[-1] in {0, -signal.SIGKILL}, err
    assert len(codes) == (4 if workers == "1" else 1)
    assert len(list(Path().glob("killed-at-*"))) == 3
    assert Path("out.txt").read_text().split() == [str(number) for number in range(5_000)]


# What is wrong -------------------------------------------------------------------------------------------------------


def refused(source: str, kind: type[Exception] = batchkit.SourceError) -> str:
    """Return the one line in which a source is refused, by a run that does nothing."""
    with pytest.raises(kind) as caught:
        run(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_keys_that_are_not_unique_are_an_error_that_names_one(place: Place) -> None:
    """In a page, across the border of two, at the end: what is before them is done and kept, they are not lost.

    The largest key is looked at before anything begins.
    """
    place.run("CREATE TABLE users (id bigint, name text)")
    for twice in (0, 50, 98, 99, 100, 699, 599):
        place.run("DELETE FROM users")
        fill(place, [*range(700), twice], make=False)
        seen: list[Any] = []
        with pytest.raises(batchkit.SourceError, match=f"several rows of 'users' in .* have the id {twice}, so none"):
            run(place.url(table="users", cursor="id"), seen.append, restart=True)
        assert seen == users(range(0 if twice == 699 else twice))
    place.run("DELETE FROM users")
    fill(place, range(700), make=False)
    assert run(place.url(table="users", cursor="id"), seen.append).completed
    assert seen == users(range(700))


def test_texts_that_the_database_takes_for_the_same_are_an_error(place: Place) -> None:
    """Whichever of the two comes first: behind it the other one would be passed over."""
    if place.kind == "postgres":
        pytest.skip("compares so only with ICU, which not every server has")
    place.run("CREATE TABLE users (id text COLLATE NOCASE, name text)")
    place.run("INSERT INTO users VALUES (?, ?)", [(f"k{number:05}", "") for number in range(200)])
    place.run("INSERT INTO users VALUES ('K00042', '')")
    assert "00042', so none" in refused(place.url(table="users", cursor="id"))


def test_rows_without_a_key_are_an_error(place: Place) -> None:
    """They would be passed over; a query without them is taken."""
    place.run("CREATE TABLE users (id bigint, name text)")
    fill(place, range(5), make=False)
    place.run("INSERT INTO users VALUES (NULL, 'nobody')")
    assert "have no 'id'" in refused(place.url(table="users", cursor="id"))
    query = "SELECT * FROM users WHERE id IS NOT NULL"
    assert run(place.url(query=query, cursor="id")).done == 5


def test_columns_tables_and_queries_that_are_not_there_are_named(place: Place) -> None:
    """What is wrong, in the database's words where it is its to say."""
    fill(place, range(5))
    missing = refused(place.url(table="users", cursor="key"), batchkit.UsageError)
    assert "no column 'key'" in missing
    assert "id, name" in missing
    assert "nobody" in refused(place.url(table="nobody", cursor="id"))
    assert "syntax" in refused(place.url(query="SELECT FROM WHERE", cursor="id"))
    refused(place.url(query="DELETE FROM users RETURNING id", cursor="id"))
    assert len(place.rows("SELECT id FROM users")) == 5
    assert "no table or a query" not in refused(place.url(cursor="id"), batchkit.UsageError)
    assert "&cursor=id" in refused(place.url(table="users"), batchkit.UsageError)


def test_a_query_that_fails_in_the_middle_keeps_what_was_done(workdir: Path) -> None:
    """The database's own words, and the job can go on when that is mended."""
    place = Sqlite(workdir)
    fill(place, range(1_000))
    place.run(
        "CREATE VIEW risky AS "
        "SELECT id, CASE WHEN id = 500 THEN json_extract('{', '$') ELSE name END AS name FROM users"
    )
    seen: list[Any] = []
    with pytest.raises(batchkit.SourceError, match="malformed JSON"):
        run(place.url(table="risky", cursor="id"), seen.append)
    assert seen == users(range(len(seen)))
    assert 0 < len(seen) <= 500
    place.run("DROP VIEW risky")
    place.run("CREATE VIEW risky AS SELECT id, name FROM users")
    assert run(place.url(table="risky", cursor="id"), seen.append).completed
    assert seen == users(range(1_000))


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_missing_file_is_not_made(kind: str, workdir: Path) -> None:
    """Not even empty."""
    assert "there is no file" in refused(f"{kind}:///gone.db?table=users&cursor=id", batchkit.UsageError)
    assert list(workdir.iterdir()) == []


def test_a_database_stands_alone_and_takes_no_options_of_files(place: Place) -> None:
    """Several addresses, or files beside them, and what only files have."""
    fill(place, range(5))
    source = place.url(table="users", cursor="id")
    for sources in ((source, source), (source, "items.txt")):
        with pytest.raises(batchkit.UsageError, match="alone"):
            of_paths(*sources)
    for options in ({"columns": ["id"]}, {"separator": ";"}, {"input_format": "csv"}, {"skip_blank": True}):
        with pytest.raises(batchkit.UsageError, match=f"{next(iter(options))} is for files"):
            of_paths(source, **options)


def test_a_time_finer_than_python_knows_is_refused(workdir: Path) -> None:
    """Going by it would pass over rows, or give them twice."""
    place = Duck(workdir)
    place.run("CREATE TABLE users AS SELECT TIMESTAMP_NS '2026-01-01 00:00:00.123456789' AS at")
    assert "is finer than a datetime" in refused(place.url(table="users", cursor="at"))


# Command line, credentials, servers ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_line_takes_an_address(place: Place, cli: Cli) -> None:
    """Rows of a query to standard output; the default name of the job is the table's."""
    fill(place, range(3))
    done = cli("process", place.url(table="users", cursor="id"), "-q")
    assert (done.code, [json.loads(line) for line in done.out.splitlines()]) == (0, users(range(3)))
    assert os.listdir(".batchkit") == ["users"]
    wrong = cli("process", place.url(table="users", cursor="id"), "--columns", "id", "-q")
    assert (wrong.code, "columns is for files" in wrong.err) == (2, True)


@pytest.mark.slow
def test_credentials_are_in_no_file_and_no_message(postgres: Database, cli: Cli) -> None:
    """Neither after success nor after errors; and who connects does not define the job."""
    place = Postgres(postgres)
    fill(place, range(200))
    postgres.run(f"CREATE ROLE somebody_{postgres.name} LOGIN SUPERUSER")
    address = place.url(table="users", cursor="id")
    secret = address.replace("postgres@/", f"somebody_{postgres.name}:{PASSWORD}@/")
    assert secret != address
    Path("work.py").write_text("def fail(item):\n    return 1 / (item['id'] - 150)\n")
    runs = (
        ("--max-items", "50"),
        ("-w", "2"),
        ("-w", "2", "--on-error", "skip"),
        ("--on-error", "skip", "--restart", "-v"),
    )
    job = ("process", secret, "-f", "work.py:fail", "-o", "out.txt", "--job", "job")
    said = [cli(*job, *words) for words in runs]
    said.append(cli("process", secret.replace("table=users", "table=gone"), "-v"))
    said.append(cli("process", secret.replace("host=", "host=/nowhere"), "-v"))
    said.append(cli("status", "job"))
    said.append(cli("failures", "job"))
    assert [ended.code for ended in said] == [75, 1, 3, 3, 1, 1, 0, 0], said
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]
    assert not [ended for ended in said if PASSWORD in ended.out + ended.err]
    assert f"somebody_{postgres.name}" not in Path(".batchkit/job/job.json").read_text()
    assert PASSWORD not in repr(DatabaseReader(secret))
    again = cli("process", address, "-f", "work.py:fail", "-o", "out.txt", "--on-error", "skip", "--job", "job")
    assert again.code == 3, again.err


@pytest.mark.slow
def test_a_lost_connection_is_had_again(postgres: Database) -> None:
    """The page is read again: every row is there once."""
    place = Postgres(postgres)
    fill(place, range(0, 60_000, 4))
    seen: list[Any] = []
    lost = 0

    def note(rows: list[dict[str, Any]]) -> None:
        nonlocal lost
        seen.extend(rows)
        lost += len(
            postgres.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'batchkit' "
                "AND datname = current_database()"
            )
        )

    run(place.url(table="users", cursor="id"), note, batched=True, batch_size=1_000)
    assert seen == users(range(0, 60_000, 4))
    assert lost == 4  # pages: one of a batch, and three of five, the last one smaller


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_is_waited_for(workdir: Path) -> None:
    """In the middle of a run."""
    del workdir
    server = Server()
    try:
        server.start()
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE users AS SELECT n AS id, 'n' || n AS name FROM generate_series(0, 9999) n")
        seen: list[Any] = []

        def note(rows: list[dict[str, Any]]) -> None:
            seen.extend(rows)
            if len(seen) == 1_000:
                server.kill()
                server.start()

        run(server.url("postgres", table="users", cursor="id"), note, batched=True, batch_size=1_000)
        assert seen == users(range(10_000))
    finally:
        server.stop()


def test_a_server_that_is_not_there_is_an_error_at_once(workdir: Path) -> None:
    """With a word about where it should be."""
    message = refused(f"postgresql://somebody:{PASSWORD}@/db?host={workdir}&table=users&cursor=id")
    assert str(workdir) in message
    assert PASSWORD not in message
