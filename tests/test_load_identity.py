"""Which job the rows of a table belong to: starting over, other tables, databases that are put back."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from tests.tables import DuckTables, SqliteTables

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli
    from tests.tables import Tables

MODES = ["append", "upsert", "replace"]
COUNT = 25


def url(tables: Tables, mode: str, table: str = "users", key: str = "id") -> str:
    """Return the address of a table."""
    return tables.url(table=table, mode=mode, **({"key": key} if mode == "upsert" else {}))


def load(tables: Tables, mode: str, **options: Any) -> batchkit.Result:
    """Load 25 rows in batches of 5."""
    items = [{"id": number, "name": f"n{number}"} for number in range(COUNT)]
    given = {"output": url(tables, mode), "batch_size": 5, "progress": "none", "job": "load", **options}
    return batchkit.process(items, **given)


def ids(tables: Tables) -> list[int]:
    """Return the ids that are stored."""
    return [number for (number,) in tables.rows("SELECT id FROM users ORDER BY 1")]


def names(tables: Tables) -> set[str]:
    """Return the names of all tables."""
    query = {
        "sqlite": "SELECT name FROM sqlite_schema WHERE type = 'table'",
        "duckdb": "SELECT table_name FROM duckdb_tables()",
        "postgres": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
    }[tables.kind]
    return {name for (name,) in tables.rows(query)}


@pytest.fixture
def words(workdir: Path) -> list[str]:
    """Give the beginning of a command that loads 25 rows."""
    text = "".join(f'{{"id": {number}, "name": "n{number}"}}\n' for number in range(COUNT))
    (workdir / "users.jsonl").write_text(text)
    return ["process", "users.jsonl", "--job", "load", "-q", "-b", "5", "-o"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_starting_over_stores_nothing_twice(tables: Tables, cli: Cli, words: list[str], mode: str) -> None:
    """Rows that were added would be there twice: that is refused with a way out, other modes start over."""
    tables.run("CREATE TABLE users (id int PRIMARY KEY, name text)")
    words = [*words, url(tables, mode)]
    assert cli(*words, "--max-items", "10").code == 75
    again = cli(*words, "--restart")
    if mode == "append":
        assert again.code == 2
        assert "mode=replace or mode=upsert" in again.err
        assert "batchkit rm load" in again.err
        assert cli("reset", "load").code == 2
        assert ids(tables) == list(range(10))
        assert cli(*words).code == 0
    else:
        assert again.code == 0, again.err
        assert cli("reset", "load").code == 0
        assert cli(*words).code == 0
    assert ids(tables) == list(range(COUNT))


@pytest.mark.slow
def test_another_table_or_key_is_another_job(tables: Tables, cli: Cli, words: list[str]) -> None:
    """The job is refused, and goes on where it was."""
    assert cli(*words, url(tables, "upsert"), "--max-items", "10").code == 75
    for other in (url(tables, "upsert", "others"), url(tables, "upsert", key="name"), url(tables, "append")):
        ended = cli(*words, other)
        assert ended.code == 5, ended.err
        assert "begun with another output" in ended.err
    assert cli(*words, url(tables, "upsert")).code == 0
    assert ids(tables) == list(range(COUNT))


@pytest.mark.parametrize("stopped", [10, None])
@pytest.mark.parametrize("mode", MODES)
def test_a_job_that_the_database_does_not_know_is_refused(
    tables: Tables, workdir: Path, mode: str, stopped: int
) -> None:
    """Its checkpoint was deleted, in the middle of the load or after it: nobody knows what is stored."""
    del workdir
    load(tables, mode, max_items=stopped)
    tables.run("DELETE FROM batchkit_checkpoint")
    before = names(tables)
    with pytest.raises(batchkit.ChangedError, match="does not know what the job 'load' has stored in 'users'"):
        load(tables, mode)
    assert names(tables) == before


def test_results_are_where_they_were_stored(tables: Tables, workdir: Path) -> None:
    """The job says so."""
    del workdir
    load(tables, "append")
    with pytest.raises(batchkit.UsageError, match="users"):
        list(batchkit.Job("load").results())


@pytest.mark.slow
def test_removing_a_paused_replacement_removes_what_it_gathered(tables: Tables, cli: Cli, words: list[str]) -> None:
    """And its checkpoints; the table stays as it was."""
    tables.run("CREATE TABLE users (id int, name text)")
    tables.run("INSERT INTO users VALUES (77, 'old')")
    assert cli(*words, url(tables, "replace"), "--max-items", "10").code == 75
    assert len(names(tables)) == 3
    assert cli("rm", "load").code == 0
    assert names(tables) == {"users", "batchkit_checkpoint"}
    assert tables.rows("SELECT count(*) FROM batchkit_checkpoint") == [(0,)]
    assert ids(tables) == [77]


@pytest.mark.parametrize("mode", MODES)
def test_a_publication_that_was_not_noted_is_not_done_twice(tables: Tables, workdir: Path, mode: str) -> None:
    """A crash between the database's last commit and the job's own log."""
    load(tables, mode)
    (workdir / ".batchkit" / "load" / "publish.jsonl").unlink()
    assert load(tables, mode).new == 0
    assert ids(tables) == list(range(COUNT))
    assert names(tables) == {"users", "batchkit_checkpoint"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("duckdb", marks=pytest.mark.slow)])
def test_a_database_put_back_from_a_backup_gets_what_it_lacks(workdir: Path, kind: str, mode: str) -> None:
    """A file as it was after the first run, of a job that had gone on since."""
    tables = (SqliteTables if kind == "sqlite" else DuckTables)(workdir / "data")
    load(tables, mode, max_items=10)
    shutil.copy(tables.path, workdir / "backup")
    load(tables, mode, max_items=10)
    shutil.copy(workdir / "backup", tables.path)
    load(tables, mode)
    assert ids(tables) == list(range(COUNT))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_slices_load_each_row_once(tables: Tables, cli: Cli, words: list[str], mode: str) -> None:
    """One after the other, in any order."""
    for part in ("2/2", "1/2"):
        ended = cli(*words, url(tables, mode), "--shard", part)
        assert ended.code in {0, 75}, ended.err
    assert ids(tables) == list(range(COUNT))


@pytest.mark.slow
def test_workers_end_after_some_items_or_some_time(tables: Tables, cli: Cli, words: list[str]) -> None:
    """The next run goes on."""
    assert cli(*words, url(tables, "append"), "--max-items", "10", "-w", "2").code == 75
    assert len(ids(tables)) == 10
    assert cli(*words, url(tables, "append"), "--max-time", "0.000001").code == 75
    assert cli(*words, url(tables, "append"), "--max-time", "1h").code == 0
    assert ids(tables) == list(range(COUNT))
