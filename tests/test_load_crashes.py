"""Kill loads into databases, their connections and their server: every row is there once, whatever dies when."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import batchkit
from batchkit.databases.postgres import PostgresSession
from batchkit.errors import StorageError
from tests.children import ROOT, Nursery
from tests.conftest import PATIENCE
from tests.loads import ITEMS, Duck, Load, Losing, Postgres, Sqlite
from tests.test_failure_crashes import places

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.loads import Place
    from tests.postgres import Database, Server

DATABASES = ["sqlite", "duckdb", "postgresql"]
MODES = ["append", "upsert", "replace"]
SAMPLE = pytest.param(True, marks=pytest.mark.slow, id="sample")
EVERY = pytest.param(False, marks=pytest.mark.soak, id="every")


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Give an empty database of the kind that the test names."""
    kind = request.param
    if kind == "sqlite":
        return Sqlite(str(tmp_path / "base.db"))
    if kind == "duckdb":
        return Duck(str(tmp_path / "base.duckdb"))
    database = request.getfixturevalue("postgres")
    server: Server = database.server
    return Postgres(server.dsn(database.name))


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("bad", [False, True], ids=["clean", "bad"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", DATABASES, indirect=True)
def test_a_kill_at_any_statement_or_call_of_a_load_costs_nothing(
    tmp_path: Path, nursery: Nursery, place: Place, mode: str, bad: bool, sampled: bool
) -> None:
    """Before it and in the middle of it; the next run completes the load. Readers of `replace` see old or new rows."""
    load = Load(str(tmp_path), place, mode, bad)
    load.clear()
    count = load.count(nursery)
    load.check()
    assert count > 60
    every = 4 if isinstance(place, Duck) else 1  # opening it takes long
    for torn in (False, True):
        for at in places(count, 5, sampled=sampled, seed=torn)[::-1][torn::every]:
            load.clear()
            assert load.killed(nursery, at, torn=torn)
            if mode == "replace":
                assert load.stored() in (load.old(), load.new())
            load.run()
            load.check()


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("place", DATABASES, indirect=True)
def test_a_kill_during_the_resume_after_a_kill_of_a_load_costs_nothing(
    tmp_path: Path, nursery: Nursery, place: Place, sampled: bool
) -> None:
    """First kills all over the load, second ones all over what was left of it."""
    load = Load(str(tmp_path), place, "replace", bad=True)
    load.clear()
    count = load.count(nursery)
    for number, first in enumerate(places(count, 6 if sampled else 30, sampled=True)):
        load.clear()
        assert load.killed(nursery, first)
        second = 3 + 7 * number % max(1, count - first)
        load.killed(nursery, second, torn=second % 2 == 0)
        assert load.stored() in (load.old(), load.new())
        load.run()
        load.check()


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", DATABASES, indirect=True)
def test_a_kill_while_failures_are_run_again_costs_nothing(
    tmp_path: Path, nursery: Nursery, place: Place, mode: str, sampled: bool
) -> None:
    """The next retry goes on with it, whether the job was run in between or not."""
    load = Load(str(tmp_path), place, mode, bad=True)
    load.clear()
    load.run()
    count = load.count(nursery, "retry")
    load.check(load.mendable())
    assert count > 20
    every = 3 if isinstance(place, Duck) else 1
    for at in places(count, 6, sampled=sampled)[::-1][::every]:
        load.clear()
        load.run()
        assert load.killed(nursery, at, "retry", torn=at % 2 == 0)
        if at % 3:
            load.run()
        load.retry()
        load.check(load.mendable())


# Lost connections

HOW = ["ended", "unsent", "unheard"]
PATIENT = (("retries", 3), ("retry_wait", 0.001))


def lose(monkeypatch: pytest.MonkeyPatch, place: Postgres, at: int = 0, how: str = "") -> Losing:
    """Let a statement of the process lose its connection."""
    losing = Losing(at, how, place.dsn)
    monkeypatch.undo()
    for name in ("run", "insert", "upsert"):
        monkeypatch.setattr(PostgresSession, name, losing.hooked(getattr(PostgresSession, name)))
    return losing


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", MODES)
def test_a_connection_lost_at_any_statement_is_had_again(
    tmp_path: Path, postgres: Database, monkeypatch: pytest.MonkeyPatch, mode: str, how: str, sampled: bool
) -> None:
    """By a run that may try again; without, it ends with one line, and the next one goes on. Nothing is twice."""
    place = Postgres(postgres.server.dsn(postgres.name))
    load = Load(str(tmp_path), place, mode, bad=True)
    load.clear()
    losing = lose(monkeypatch, place)
    load.run()
    load.check()
    count = losing.count
    assert count > 100
    for at in places(count, 4, sampled=sampled, seed=HOW.index(how)):
        load.clear()
        losing = lose(monkeypatch, place, at, how)
        load.run(**dict(PATIENT))
        assert losing.count > at
        load.check()
        load.clear()
        lose(monkeypatch, place, at, how)
        with pytest.raises(StorageError, match=r"\Athe connection to '[^\n]*' was lost: [^\n]*\Z"):
            load.run()
        load.run()
        load.check()


def waits_for_lock(database: Database) -> int:
    """Wait until a connection of batchkit waits for another one; return its process."""
    waiting = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'batchkit%' AND wait_event_type = 'Lock'"
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for (pid,) in database.rows(waiting):
            return int(pid)
        time.sleep(0.005)
    raise AssertionError("nobody waits")


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 3])
def test_a_connection_that_ends_in_the_middle_of_a_statement_is_lost(
    workdir: Path, postgres: Database, start_cli: Callable[..., subprocess.Popen[str]], retries: int
) -> None:
    """The server's last words are no other error; without retries the run ends with one line, and the next goes on."""
    postgres.run("CREATE TABLE users (id bigint, name text)")
    load = Load(str(workdir), Postgres(postgres.server.dsn(postgres.name)), "append", bad=False)
    (workdir / "items.jsonl").write_text("".join(f'{{"id": {n}, "name": "new {n}"}}\n' for n in range(ITEMS)))
    words = ["process", "items.jsonl", "-o", postgres.url(table="users"), "--job", "load", "--state-dir", "state", "-q"]
    words += ["-b", "5", "--retries", str(retries), "--retry-wait", "0.01"]
    with postgres.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE users")
        process = start_cli(*words)
        pid = waits_for_lock(postgres)
        postgres.run(f"SELECT pg_terminate_backend({pid}, 5000)")
    _, err = process.communicate(timeout=PATIENCE)
    if retries:
        assert process.returncode == 0, err
    else:
        assert process.returncode == 1
        assert re.fullmatch(r"[^\n]*the connection to '[^\n]*' was lost: terminating connection[^\n]*\n", err)
        again = start_cli(*words)
        assert (again.communicate(timeout=PATIENCE)[1], again.returncode) == ("", 0)
    load.check()


@pytest.mark.slow
def test_a_deadlock_is_tried_again(tmp_path: Path, postgres: Database) -> None:
    """The writer that the server picks begins its transaction anew, without any retries being asked for."""
    load = Load(str(tmp_path), Postgres(postgres.server.dsn(postgres.name)), "upsert", bad=False)
    load.clear()
    postgres.run("INSERT INTO users VALUES (18, 'old')")
    with ThreadPoolExecutor() as pool, postgres.connect() as other:
        other.execute("SET deadlock_timeout = '1min'")  # it is the load that finds out
        with other.transaction():
            other.execute("UPDATE users SET name = 'other' WHERE id = 18")
            running = pool.submit(load.run)
            waits_for_lock(postgres)
            other.execute("UPDATE users SET name = 'other' WHERE id = 17")  # which the load has changed: a circle
        running.result(timeout=PATIENCE)
    load.check()


# Who was overtaken

STOPPED = "from tests.loads import *; run_and_stop({load!r}, {where!r})"


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize(
    ("place", "where"), [("sqlite", "begin"), ("postgresql", "begin"), ("postgresql", "insert")], indirect=["place"]
)
def test_an_old_writer_that_wakes_up_stores_nothing(tmp_path: Path, place: Place, where: str, retries: int) -> None:
    """It was asleep in a batch, on a host whose locks are not seen, while another run completed the load."""
    options = (("retries", retries), ("retry_wait", 0.01))
    load = Load(str(tmp_path), place, "append", bad=False, options=options)
    load.clear()
    code = STOPPED.format(load=load, where=where)
    with (
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True) as old,
        ExitStack() as stack,
    ):
        stack.callback(old.kill)
        _, status = os.waitpid(old.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        shutil.copytree(load.state, tmp_path / "other")  # without its locks
        other = load._replace(state_name="other")
        result = other.run()
        assert 0 < result.new < ITEMS
        other.check()
        old.send_signal(signal.SIGCONT)
        _, err = old.communicate(timeout=PATIENCE)
        assert old.returncode == 1
        assert ("another run has stored rows" if retries or isinstance(place, Sqlite) else "was lost") in err
    other.check()
    load.run()  # the old place finds the load complete, too
    load.check()


def half_open(database: Database, job: batchkit.Job, shard: int, statement: str) -> psycopg.Connection[Any]:
    """Return a connection as a writer has it, left behind in a transaction."""
    connection = database.connect()
    uuid = job._manifest().job
    connection.execute("SELECT set_config('application_name', %s, false)", [f"batchkit {uuid[:8]}/{shard}"])
    connection.execute("BEGIN")
    connection.execute(statement.encode())
    return connection


def test_a_connection_left_behind_in_a_transaction_is_ended(tmp_path: Path, postgres: Database) -> None:
    """It holds the checkpoint, and rows: the next run does not wait for it."""
    load = Load(str(tmp_path), Postgres(postgres.server.dsn(postgres.name)), "upsert", bad=False)
    load.clear()
    load.run(max_items=10)
    hold = "SELECT * FROM batchkit_checkpoint FOR UPDATE; UPDATE users SET name = 'lost' WHERE id > 10"
    with closing(half_open(postgres, batchkit.Job("load", load.state), 0, hold)) as left:
        begun = time.monotonic()
        load.run()
        assert time.monotonic() - begun < 10
        with pytest.raises(psycopg.OperationalError):
            left.execute("COMMIT")
    load.check()


@pytest.mark.slow
def test_a_table_that_is_held_by_what_is_left_of_the_job_is_freed_when_it_appears(
    tmp_path: Path, postgres: Database, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all shards are at their end, and only the swap is left."""
    monkeypatch.setattr("batchkit.databases.postgres._PATIENCE", "100ms")
    load = Load(str(tmp_path), Postgres(postgres.server.dsn(postgres.name)), "replace", bad=False)
    load.clear()
    at = load.count(nursery)
    load.clear()
    while load.killed(nursery, at) and load.stored() != load.old():  # back to where the swap was not committed
        at -= 1
        load.clear()
    assert batchkit.Job("load", load.state).status().done == ITEMS
    with closing(half_open(postgres, batchkit.Job("load", load.state), 0, "LOCK TABLE users IN SHARE MODE")):
        load.run()
    load.check()


@pytest.mark.slow
def test_a_table_that_others_hold_is_waited_for_a_while(
    tmp_path: Path, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's connection is ended but ours: the run says what is in the way, and can be gone on with."""
    monkeypatch.setattr("batchkit.databases.postgres._PATIENCE", "10ms")
    load = Load(str(tmp_path), Postgres(postgres.server.dsn(postgres.name)), "upsert", bad=False)
    load.clear()
    load.run(max_items=10)
    with postgres.connect() as other:
        with other.transaction():
            other.execute("SELECT * FROM batchkit_checkpoint FOR UPDATE")
            with pytest.raises(StorageError, match="canceling statement due to lock timeout"):
                load.run()
        load.run()
    load.check()
