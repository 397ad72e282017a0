"""Kill loads into databases, their connections and their server: every row is there once, whatever dies when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchkit.databases.postgres import PostgresSession
from batchkit.errors import StorageError
from tests.children import Nursery
from tests.loads import Duck, Load, Losing, Postgres, Sqlite
from tests.test_failure_crashes import places

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.loads import Place
    from tests.postgres import Database, Server

DATABASES = ["sqlite", "duckdb", "postgresql"]
MODES = ["append", "upsert", "replace"]
SAMPLE = pytest.param(True, marks=pytest.mark.slow, id="sample")
EVERY = pytest.param(False, marks=pytest.mark.soak, id="every")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Give a process whose children may use polars."""
    nursery = Nursery()
    yield nursery
    nursery.close()


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
        for at in places(count, 8, sampled=sampled, seed=torn)[::-1][torn::every]:
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
    for at in places(count, 9, sampled=sampled)[::-1][::every]:
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
    for at in places(count, 6, sampled=sampled, seed=HOW.index(how)):
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
