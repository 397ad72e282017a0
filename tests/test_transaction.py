"""Functions that write to a database themselves: every statement once, wherever the process is killed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pytest

import batchkit
from tests.children import in_child
from tests.kernels import CHANGING, Hooked, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Cli
    from tests.postgres import Database

EXAMPLES = Path(__file__).parent.parent / "examples"
ITEMS = list(range(23))
BAD = [4, 11, 12]
GOOD = [item for item in ITEMS if item not in BAD]


class Countdown:
    """Kills the process at its n-th boundary: before or behind a statement, or before a change of the disk."""

    left = -1

    @classmethod
    def step(cls) -> None:
        cls.left -= 1
        if cls.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Kernel(Hooked):
    """Makes each changing call of batchkit a boundary."""

    def around(self, number: int, name: str, call: Callable[..., Any], *args: Any, **extra: Any) -> Any:
        del number, name
        Countdown.step()
        return call(*args, **extra)


class SqliteCursor(sqlite3.Cursor):
    """Makes each statement two boundaries."""

    def execute(self, *args: Any) -> Any:
        Countdown.step()
        try:
            return super().execute(*args)
        finally:
            Countdown.step()


class SqliteConnection(sqlite3.Connection):
    """Gives such cursors."""

    def cursor(self, *_: Any) -> Any:
        return super().cursor(SqliteCursor)


class PostgresCursor(psycopg.Cursor[Any]):
    """Makes each statement two boundaries."""

    def execute(self, *args: Any, **more: Any) -> Any:
        Countdown.step()
        try:
            return super().execute(*args, **more)
        finally:
            Countdown.step()


class PostgresConnection(psycopg.Connection[Any]):
    """Makes each commit two boundaries."""

    def commit(self) -> None:
        Countdown.step()
        super().commit()
        Countdown.step()


def sqlite() -> sqlite3.Connection:
    """Connect as most do; without waiting for the disk, since only processes are killed."""
    connection = sqlite3.connect("store.db", factory=SqliteConnection, timeout=60)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


def sqlite_plain() -> sqlite3.Connection:
    """Connect without the driver's own transactions."""
    return sqlite3.connect("store.db", isolation_level=None, timeout=60)


def duck() -> Any:
    """Connect to DuckDB."""
    return duckdb.connect("store.duckdb")


class Postgres:
    """Connects; a value that can be sent to workers."""

    def __init__(self, dsn: str, *, autocommit: bool) -> None:
        self.dsn, self.autocommit = dsn, autocommit

    def __call__(self) -> Any:
        made = PostgresConnection.connect(self.dsn, autocommit=self.autocommit)
        made.cursor_factory = PostgresCursor
        return made


Connect = Any
KINDS = ["sqlite", "sqlite_plain", "duckdb", "psycopg", "psycopg_autocommit"]


def connecting(kind: str, request: pytest.FixtureRequest) -> Connect:
    """Return what connects to an empty database."""
    if kind.startswith("psycopg"):
        server: Database = request.getfixturevalue("postgres")
        return Postgres(server.server.dsn(server.name), autocommit="auto" in kind)
    return {"sqlite": sqlite, "sqlite_plain": sqlite_plain, "duckdb": duck}[kind]


def stored(connect: Connect) -> list[int]:
    """Return what the table holds."""
    with closing(connect()) as connection:
        return [row[0] for row in connection.execute("SELECT item FROM stored ORDER BY item").fetchall()]


def make(connect: Connect) -> None:
    """Make the table, and the notes of other jobs go."""
    with closing(connect()) as connection:
        for statement in (
            "DROP TABLE IF EXISTS stored",
            "DROP TABLE IF EXISTS batchkit_checkpoint",
            "CREATE TABLE stored (item integer)",
        ):
            connection.execute(statement)
            connection.commit()


def storing(connect: Connect, bad: list[int] = BAD) -> Callable[[list[int]], None]:
    """Return a function that stores a batch, one item after the other, and fails behind a bad one."""

    def store(items: list[int]) -> None:
        with closing(connect()) as connection, batchkit.transaction(connection):
            for item in items:
                connection.execute(f"INSERT INTO stored VALUES ({int(item)})")  # noqa: S608  # the same for all drivers
                if item in bad:
                    raise ValueError(f"bad {item}")

    return store


def run(connect: Connect, size: int = 5, **more: Any) -> batchkit.Result:
    """Run the job, or go on with it."""
    options = {"job": "j", "batched": True, "on_error": "skip", "progress": "none", **more}
    function = options.pop("function", None) or storing(connect)
    return batchkit.process(options.pop("source", ITEMS), function, batch_size=size, **options)


def killed(at: int, do: Callable[[], object]) -> bool:
    """Do it in a process that is killed at its n-th boundary; return whether it was."""

    def armed() -> None:
        Countdown.left = at
        with installed(Kernel(CHANGING)):
            do()

    code = in_child(armed)
    assert code in {0, -signal.SIGKILL}
    return code == -signal.SIGKILL


def failed() -> list[int]:
    """Return the items that failed for good."""
    return sorted(failure.item for failure in batchkit.Job("j").failures())


def afresh(connect: Connect) -> None:
    """Begin with nothing."""
    shutil.rmtree(".batchkit", ignore_errors=True)
    make(connect)


@pytest.mark.parametrize("kind", KINDS)
def test_statements_are_stored_and_bad_items_fail_alone(
    workdir: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """Without a crash: what is good is there once, what is bad is a failure and left nothing; twice is once."""
    del workdir
    connect = connecting(kind, request)
    make(connect)
    for _ in range(2):
        assert run(connect).status == "completed"
        assert (stored(connect), failed()) == (GOOD, BAD)
    result = batchkit.Job("j").retry(storing(connect, bad=[4]))
    assert (result.done, result.failed) == (2, 1)
    assert stored(connect) == [item for item in ITEMS if item != 4]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "step"), [("sqlite", 7), ("psycopg", 19), ("psycopg_autocommit", 23)])
@pytest.mark.parametrize("batched", [True, False])
def test_a_kill_at_any_boundary_stores_nothing_twice(
    workdir: Path, request: pytest.FixtureRequest, kind: str, step: int, batched: bool
) -> None:
    """Before and behind each statement, each commit, each write of the journal; the next run has another batch size."""
    del workdir
    connect = connecting(kind, request)
    store = storing(connect)
    function = store if batched else (lambda item: store([item]))
    at = 1
    while True:
        afresh(connect)
        if not killed(at, lambda: run(connect, 6, batched=batched, function=function)):
            break
        killed(at // 3 + 1, lambda: run(connect, 4, batched=batched, function=function))
        run(connect, 9, batched=batched, function=function)
        assert (stored(connect), failed()) == (GOOD, BAD), at
        at += step
    assert at > 100


class Counting:
    """A source that only one worker can read, with cursors in no order."""

    def read(self, cursor: Any) -> Iterator[tuple[int, int]]:
        for item in ITEMS[0 if cursor is None else -cursor :]:
            yield -(item + 1), item


@pytest.mark.slow
def test_items_without_an_order_of_cursors_are_known_by_their_number(workdir: Path) -> None:
    """A source of one's own may have any cursors."""
    del workdir
    at, kills = 1, 0
    while True:
        afresh(sqlite)
        if not killed(at, lambda: run(sqlite, 6, source=Counting())):
            break
        kills += 1
        run(sqlite, 4, source=Counting())
        assert (stored(sqlite), failed()) == (GOOD, BAD), at
        at += 5
    assert kills > 20


@pytest.mark.slow
def test_a_round_that_is_killed_stores_nothing_twice(workdir: Path) -> None:
    """The failures of a job are other calls than those in which they failed, and as exact."""
    del workdir
    at, kills, good = 1, 0, storing(sqlite, bad=[11])
    while True:
        afresh(sqlite)
        run(sqlite)
        if not killed(at, lambda: batchkit.Job("j").retry(good)):
            break
        kills += 1
        batchkit.Job("j").retry(good)
        assert (stored(sqlite), failed()) == ([item for item in ITEMS if item != 11], [11]), at
        at += 2
    assert kills > 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "psycopg"])
def test_what_was_in_flight_may_be_divided_among_workers(
    workdir: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    """One worker is killed between the commits of database and journal; two divide what the journal has left."""
    del workdir
    connect = connecting(kind, request)
    make(connect)

    def store(items: list[int]) -> None:
        storing(connect)(items)
        os.kill(os.getpid(), signal.SIGKILL)

    store.__qualname__ = storing(connect).__qualname__  # the same job
    assert in_child(lambda: run(connect, 23, function=store, on_error="stop", source=GOOD)) == -signal.SIGKILL
    assert stored(connect) == GOOD
    assert run(connect, 3, workers=2, on_error="stop", source=GOOD).done == len(GOOD)
    assert stored(connect) == GOOD


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "psycopg"])
def test_workers_that_die_store_nothing_twice(workdir: Path, request: pytest.FixtureRequest, kind: str) -> None:
    """Each of two workers is killed once behind a transaction."""
    connect = connecting(kind, request)
    make(connect)

    def store(items: list[int]) -> None:
        storing(connect)(items)
        try:
            (workdir / f"died {items[0] // 12}").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    assert run(connect, 3, workers=2, function=store).status == "completed"
    assert len(list(workdir.glob("died *"))) == 2
    assert (stored(connect), failed()) == (GOOD, BAD)


@pytest.mark.parametrize("size", [2, 5, 23])
def test_a_power_cut_takes_back_the_journal_and_not_the_database(workdir: Path, size: int) -> None:
    """An older state of the job's directory, as a power cut leaves it: what the database has is not done again."""
    make(sqlite)
    good: dict[str, Any] = {"source": GOOD, "sync_interval": None}
    run(sqlite, 3, max_items=3, **good)
    shutil.copytree(".batchkit", workdir / "older")
    run(sqlite, 3, max_items=9, **good)
    shutil.rmtree(".batchkit")
    shutil.copytree(workdir / "older", ".batchkit")
    assert run(sqlite, size, **good).done == len(GOOD)
    assert stored(sqlite) == GOOD


def test_failures_are_durable_before_the_next_transaction(workdir: Path) -> None:
    """Whoever has the database's newest commit has the failures before it, though nothing else is synced."""
    make(sqlite)
    copies = []

    class Noting(Hooked):
        def around(self, number: int, name: str, call: Callable[..., Any], *args: Any, **extra: Any) -> Any:
            copies.append((name, number))
            return call(*args, **extra)

    seen: list[int] = []

    def store(items: list[int]) -> None:
        seen.append(sum(name == "fdatasync" for name, _ in copies))
        storing(sqlite, bad=[4])(items)

    with installed(Noting(("fdatasync",))):
        run(sqlite, 5, function=store, sync_interval=None)
    del workdir
    assert seen[0] == seen[1] < seen[-1]
    assert seen[-1] - seen[0] == 3  # results, failures and journal, once


def test_failures_before_the_first_transaction_of_a_run_are_durable_before_it(workdir: Path) -> None:
    """A power cut behind it may take back the newest of the journal, but no failures that the database counts on."""
    make(sqlite)
    copies: list[str] = []

    class Noting(Hooked):
        def around(self, number: int, name: str, call: Callable[..., Any], *args: Any, **extra: Any) -> Any:
            del number
            copies.append(name)
            return call(*args, **extra)

    before: list[int] = []

    def store(items: list[int]) -> None:
        if items[0] < 5:
            before.append(len(copies))
            raise OSError("no transaction yet")
        storing(sqlite, bad=[])(items)
        if items[0] == 5:
            before.append(len(copies))

    with installed(Noting(("fdatasync",))):
        assert run(sqlite, 5, function=store, sync_interval=None).failed == 5
    del workdir
    assert before[-1] - before[-2] == 2  # failures and journal


def test_an_item_that_is_done_but_kept_as_a_failure_is_not_stored_by_a_retry(workdir: Path) -> None:
    """Killed behind the database's commit, then nothing works for a while: the retry finds them done."""
    del workdir
    make(sqlite)

    def store(items: list[int]) -> None:
        storing(sqlite)(items)
        os.kill(os.getpid(), signal.SIGKILL)

    def works_again(items: list[int]) -> None:
        if items[-1] < 10:
            raise OSError("no way to the database")
        storing(sqlite, bad=[])(items)

    works_again.__qualname__ = store.__qualname__
    assert in_child(lambda: run(sqlite, 4, function=store)) == -signal.SIGKILL
    assert run(sqlite, 4, function=works_again).failed == 8
    batchkit.Job("j").retry(storing(sqlite, bad=[]))
    assert (stored(sqlite), failed()) == (ITEMS, [])


def test_a_commit_by_the_function_ends_the_run(workdir: Path) -> None:
    """Even if it begins another transaction behind it."""
    del workdir
    make(sqlite)

    def store(items: list[int]) -> None:
        with closing(sqlite()) as connection, batchkit.transaction(connection):
            connection.execute("INSERT INTO stored VALUES (1)")
            connection.commit()
            if len(items) == 3:
                connection.execute("INSERT INTO stored VALUES (2)")

    for size in (2, 3):
        with pytest.raises(batchkit.UsageError, match="committed or rolled back inside"):
            run(sqlite, size, function=store)
    assert stored(sqlite) == [1, 1]


def _nested(connection: Any) -> None:
    with batchkit.transaction(connection), batchkit.transaction(connection):
        pass


def _twice(connection: Any) -> None:
    for _ in range(2):
        with batchkit.transaction(connection):
            pass


def _open(connection: Any) -> None:
    connection.execute("INSERT INTO stored VALUES (1)")
    with batchkit.transaction(connection):
        pass


def _late(connection: Any) -> None:
    with batchkit.transaction(connection):
        pass
    raise ValueError("too late")


def _answering(connection: Any) -> list[int]:
    with batchkit.transaction(connection):
        pass
    return [1]


def _foreign(_: Any) -> None:
    with batchkit.transaction(object()):
        pass


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_nested, "one transaction"),
        (_twice, "one transaction"),
        (_open, "open transaction already"),
        (_late, "raised ValueError behind its transaction"),
        (_answering, "returned results"),
        (_foreign, "sqlite3, psycopg or duckdb, not a builtins.object"),
    ],
)
def test_what_cannot_be_exact_ends_the_run(
    workdir: Path, function: Callable[[Any], Any], words: str, batched: bool
) -> None:
    """It is no item's failure, whatever is done about these."""
    del workdir
    make(sqlite)

    def store(_: Any) -> Any:
        with closing(sqlite()) as connection:
            return function(connection)

    with pytest.raises(batchkit.BatchkitError, match=words):
        run(sqlite, function=store, batched=batched)
    assert failed() == []


@pytest.mark.parametrize("options", [{"concurrency": 2}, {"timeout": 5}, {"isolate_process": True}, {"job": None}])
def test_calls_that_have_no_transactions_are_refused(workdir: Path, options: dict[str, Any]) -> None:
    """Several in flight, in other processes, or of a job that cannot be resumed."""
    del workdir
    make(sqlite)
    with pytest.raises(batchkit.UsageError, match="plain calls in the run's own process"):
        run(sqlite, **options)
    assert stored(sqlite) == []


def test_there_is_no_transaction_outside_of_a_call() -> None:
    """Nobody knows what it would be for."""
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(batchkit.UsageError, match="only inside"):
        _nested(connection)


USERS = "id,name\n" + "".join(f"{number},n{number}\n" for number in range(1000)) + "odd,one\n"


@pytest.mark.slow
def test_the_example_for_sqlite_runs(workdir: Path, cli: Cli) -> None:
    """It stops, goes on with another batch size and another number of workers, and stores each row once."""
    (workdir / "users.csv").write_text(USERS)
    words = ["process", "users.csv", "-f", f"{EXAMPLES}/transaction_sqlite.py:Load", "--batched", "--on-error", "skip"]
    assert cli(*words, "-b", "100", "--max-items", "300").code == 75
    assert cli(*words, "-b", "70", "--workers", "2").code == 3
    with closing(sqlite3.connect("users.db")) as users:
        assert users.execute("SELECT count(*), sum(id), max(name) FROM users").fetchall() == [(1000, 499500, "n999")]


@pytest.mark.slow
def test_the_example_for_postgresql_runs(workdir: Path, cli: Cli, postgres: Database) -> None:
    """Do the same on a server."""
    postgres.run("CREATE TABLE users (id bigint, name text)")
    env = {"USERS_DSN": postgres.server.dsn(postgres.name)}
    (workdir / "users.csv").write_text(USERS)
    words = [
        "process",
        "users.csv",
        "-f",
        f"{EXAMPLES}/transaction_postgres.py:Load",
        "--batched",
        "--on-error",
        "skip",
    ]
    assert cli(*words, "-b", "100", "--max-items", "300", env=env).code == 75
    assert cli(*words, "-b", "70", "--workers", "2", env=env).code == 3
    assert postgres.rows("SELECT count(*), sum(id), max(name) FROM users") == [(1000, 499500, "n999")]
