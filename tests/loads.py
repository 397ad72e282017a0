"""Small loads into databases, to be struck at any statement and at any call that changes a file.

What they store is looked at by the databases' own drivers, and by nothing of batchkit's.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import duckdb
import psycopg

import batchkit
from batchkit.databases import duck, postgres, sqlite
from batchkit.databases.base import Refused, Session
from tests.kernels import Hooked, Unsynced, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.children import Nursery

ITEMS = 48
BATCH = 5
BROKEN, REFUSED = 7, 3
"""Last digits of the items for which the function raises, and of those whose rows a bad table refuses."""

FILES = ("write", "ftruncate", "replace", "link", "unlink", "mkdir", "rmdir")
"""The calls that change what a killed process leaves on disk; a sync changes nothing of that."""

SESSIONS: tuple[type[Session], ...] = (sqlite.SqliteSession, duck.DuckSession, postgres.PostgresSession)

_READING = ("SELECT", "PRAGMA", "SET", "\n    SELECT")

Row = tuple[Any, ...]


def row(line: str) -> dict[str, Any]:
    """Return the row of an item."""
    return {"id": int(line), "name": f"new {line}"}


def picky(line: str) -> dict[str, Any]:
    """Do the same, but for some items."""
    if line.endswith(str(BROKEN)):
        raise ValueError(line)
    return row(line)


class Place(Protocol):
    """A database of one kind; may be pickled."""

    def url(self, **parameters: str) -> str:
        """Return its address as batchkit takes it."""

    def rows(self, sql: str) -> list[Row]:
        """Return what a query gives, asked of the database by its own driver."""

    def run(self, sql: str) -> None:
        """Execute a statement, and commit."""

    def clear(self) -> None:
        """Remove all tables."""

    def tables(self) -> list[str]:
        """Return the names of all tables, sorted."""


class Sqlite(NamedTuple):
    """A file."""

    path: str

    def url(self, **parameters: str) -> str:
        return f"sqlite:///{self.path}?" + "&".join(f"{name}={value}" for name, value in parameters.items())

    def rows(self, sql: str) -> list[Row]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql).fetchall()

    def run(self, sql: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(sql)

    def clear(self) -> None:
        for path in Path(self.path).parent.glob(Path(self.path).name + "*"):
            path.unlink()

    def tables(self) -> list[str]:
        return [name for (name,) in self.rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]


class Duck(NamedTuple):
    """A file, which one process at a time may open."""

    path: str

    def url(self, **parameters: str) -> str:
        return f"duckdb:///{self.path}?" + "&".join(f"{name}={value}" for name, value in parameters.items())

    def rows(self, sql: str) -> list[Row]:
        with closing(duckdb.connect(self.path)) as connection:
            return connection.execute(sql).fetchall()

    def run(self, sql: str) -> None:
        with closing(duckdb.connect(self.path)) as connection:
            connection.execute(sql)

    def clear(self) -> None:
        for path in Path(self.path).parent.glob(Path(self.path).name + "*"):
            path.unlink()

    def tables(self) -> list[str]:
        return [name for (name,) in self.rows("SELECT table_name FROM duckdb_tables() ORDER BY 1")]


class Postgres(NamedTuple):
    """A database of a server. dsn: for its driver."""

    dsn: str

    def url(self, **parameters: str) -> str:
        return self.dsn + "".join(f"&{name}={value}" for name, value in parameters.items())

    def connect(self) -> psycopg.Connection[Row]:
        """Return a connection that commits at once."""
        return psycopg.connect(self.dsn, autocommit=True)

    def rows(self, sql: str) -> list[Row]:
        with self.connect() as connection:
            return connection.execute(sql.encode()).fetchall()

    def run(self, sql: str) -> None:
        with self.connect() as connection:
            connection.execute(sql.encode())

    def clear(self) -> None:
        self.run("SET client_min_messages = error; DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def tables(self) -> list[str]:
        found = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        return [name for (name,) in found]


class Load(NamedTuple):
    """A load of `ITEMS` items into the table `users`; may be pickled.

    mode: of the output. bad: whether items fail, those of a last digit in the function and those of another in the
    database. options: further ones. state_name: of the state directory.
    """

    directory: str
    place: Place
    mode: str
    bad: bool
    options: tuple[tuple[str, Any], ...] = ()
    state_name: str = "state"

    @property
    def state(self) -> str:
        """The state directory."""
        return os.path.join(self.directory, self.state_name)

    def clear(self) -> None:
        """Begin with nothing but the items, and the table where the mode, or a bad load, needs one."""
        batchkit.files.remove_tree(self.state)
        Path(self.directory, "items.txt").write_text("".join(f"{number}\n" for number in range(ITEMS)))
        lines = (json.dumps(row(str(number))) + "\n" for number in range(ITEMS))
        Path(self.directory, "items.jsonl").write_text("".join(lines))
        self.place.clear()
        if self.bad or self.mode != "append":
            check = f", CHECK (id % 10 <> {REFUSED})" if self.bad else ""
            self.place.run(f"CREATE TABLE users (id bigint PRIMARY KEY, name text{check})")
        if self.old():
            self.place.run("INSERT INTO users VALUES " + ", ".join(map(str, self.old())))  # noqa: S608  # ours

    def old(self) -> list[Row]:
        """Return the rows that are in the table before the load."""
        if self.mode == "append":
            return []
        return [(number, "old") for number in (0, 17, 40, 1001) if not self.bad or number % 10 != REFUSED]

    def failed(self) -> list[int]:
        """Return the items that fail."""
        return [number for number in range(ITEMS) if self.bad and number % 10 in {BROKEN, REFUSED}]

    def mendable(self) -> list[int]:
        """Return those of them that do not fail when they are run again."""
        return [number for number in self.failed() if number % 10 == BROKEN]

    def new(self, mended: Sequence[int] = ()) -> list[Row]:
        """Return the rows that are in the table at the end. mended: items that do not fail any more."""
        failed = set(self.failed()) - set(mended)
        rows = {number: "old" for number, _ in self.old()} if self.mode == "upsert" else {}
        rows |= {number: f"new {number}" for number in range(ITEMS) if number not in failed}
        return sorted(rows.items())

    def run(self, **more: Any) -> batchkit.Result:
        """Run the load, or go on with it."""
        key = {"key": "id"} if self.mode == "upsert" else {}
        source, function = ("items.txt", picky) if self.bad else ("items.jsonl", None)
        options: dict[str, Any] = {"on_error": "skip"} if self.bad else {}
        return batchkit.process(
            os.path.join(self.directory, source),
            function,
            output=self.place.url(table="users", mode=self.mode, **key),
            state_dir=self.state,
            job="load",
            batch_size=BATCH,
            progress="none",
            **{**options, **dict(self.options), **more},
        )

    def retry(self) -> batchkit.Result:
        """Run the failures again, of which those of the function do not fail any more."""
        return batchkit.Job("load", self.state).retry(row, batch_size=2, progress="none")

    def stored(self) -> list[Row]:
        """Return the rows of the table, in order; none if there is no table."""
        return self.place.rows("SELECT id, name FROM users ORDER BY id") if "users" in self.place.tables() else []

    def check(self, mended: Sequence[int] = ()) -> None:
        """See that every row is there once, that failures and counts are exact, and that nothing lies about."""
        assert self.stored() == self.new(mended)
        job = batchkit.Job("load", self.state)
        left = [number for number in self.failed() if number not in mended]
        assert [json.loads(failure.item) for failure in job.failures()] == left
        status = job.status()
        told = (status.status, status.done, status.failed, status.skipped)
        assert told == ("completed", ITEMS - len(left), len(left), 0)
        assert self.place.tables() == ["batchkit_checkpoint", "users"]
        assert not [path for path in Path(self.state).rglob("*") if path.name.endswith((".new", ".broken"))]

    def count(self, nursery: Nursery, step: str = "run") -> int:
        """Count the statements and calls of a step, run to its end."""
        assert nursery.run(_struck, self, step, 1_000_000_000, False) == 0  # noqa: FBT003  # pickled
        return int(Path(self.directory, "count").read_text())

    def killed(self, nursery: Nursery, at: int, step: str = "run", *, torn: bool = False) -> bool:
        """Do a step in a process that is killed before its statement or call `at`; return whether it was."""
        code = nursery.run(_struck, self, step, at, torn)
        assert code in {0, -signal.SIGKILL}
        return code == -signal.SIGKILL


class Striking(Hooked, Unsynced):
    """Kills the process before its n-th change of a file or a database; `torn`: in the middle of it, where it can be.

    Of rows half are stored, of what is written half is, and a server is at COMMIT while its client dies.
    """

    def __init__(self, at: int, *, torn: bool = False) -> None:
        super().__init__(FILES)
        self._at = at
        self._torn = torn
        for kind in SESSIONS:
            for name in ("insert", "upsert"):
                self._wrap(kind, name, getattr(kind, name))
            self._wrap(kind, "run", kind.run)

    def _wrap(self, kind: type[Session], name: str, method: Callable[..., Any]) -> None:
        hooked = self._hooked(name, method)

        def wrapped(session: Session, *args: Any) -> Any:
            reading = name == "run" and args[0].startswith(_READING) and "advisory" not in args[0]
            return method(session, *args) if reading else hooked(session, *args)

        setattr(kind, name, wrapped)

    def around(self, number: int, name: str, call: Callable[..., Any], *args: Any, **extra: Any) -> Any:
        if number == self._at:
            if self._torn:
                _half(name, call, *args)
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **extra)


def _half(name: str, call: Callable[..., Any], *args: Any) -> None:
    """Do a part of what was to be done."""
    if name == "write":
        descriptor, data = args
        call(descriptor, data[: len(data) // 2])
    elif name in {"insert", "upsert"}:
        session, table, rows, *rest = args
        with suppress(Refused):
            call(session, table, rows._replace(frame=rows.frame.head(rows.frame.height // 2)), *rest)
    elif name == "run" and len(args) == 2 and isinstance(args[0], postgres.PostgresSession):
        session, sql = args
        session._connection.pgconn.send_query(sql.encode())
        session._connection.pgconn.flush()


def run_and_stop(load: Load, place: str) -> None:
    """Run a load, and stop this process the fifth time that it is there: "begin" of a transaction, "insert" behind it.

    For a process of its own.
    """
    times = itertools.count(1)
    for kind in SESSIONS:
        method = getattr(kind, place)

        def stopping(session: Session, *args: Any, method: Callable[..., Any] = method) -> None:
            if place != "begin":
                method(session, *args)
            if session.in_transaction == (place != "begin") and next(times) == 5:
                session.settle()  # asleep while it commits it would hold everybody off
                os.kill(os.getpid(), signal.SIGSTOP)
            if place == "begin":
                method(session, *args)

        setattr(kind, place, stopping)
    load.run()


def _struck(load: Load, step: str, at: int, torn: bool) -> None:
    """Do a step and count, or die; in a process of its own, in which the sessions are hooked for good."""
    with installed(Striking(at, torn=torn)) as kernel:
        getattr(load, step)()
    Path(load.directory, "count").write_text(str(kernel.count))


class Losing:
    """Lets the connection to a server be lost at the n-th statement of a session; `at` 0: never.

    how: "ended" by the server before it, "unsent": the line is cut before it, "unheard": after it was executed and
    before its answer is heard. count: statements so far.
    """

    def __init__(self, at: int, how: str, dsn: str) -> None:
        self.count = 0
        self._at = at
        self._how = how
        self._dsn = dsn

    def hooked(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method of a session that counts."""

        def method_or_loss(session: postgres.PostgresSession, *args: Any) -> Any:
            self.count += 1
            if self.count != self._at:
                return method(session, *args)
            if self._how == "ended":
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    pid = session._connection.info.backend_pid
                    connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            elif self._how == "unheard":
                with suppress(Refused):
                    method(session, *args)
            if self._how != "ended":
                with socket.socket(fileno=os.dup(session._connection.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)
            return method(session, *args) if self._how != "unheard" else session.run("SELECT 1")

        return method_or_loss
