"""A job whose files know less than the database, or more: the database counts."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import batchkit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli
    from tests.tables import Tables


def test_a_journal_that_lacks_what_the_database_has_is_brought_up(workdir: Path) -> None:
    """A crash between the last commit of a shard and its line in the journal: the job is completed all the same."""
    rows = [{"id": number} for number in range(25)]

    def load() -> batchkit.Result:
        return batchkit.process(
            rows, output="sqlite:///a.db?table=users", batch_size=10, job="load", max_items=25, progress="none"
        )

    load()
    journal = workdir / ".batchkit" / "load" / "shards" / "00000.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    (workdir / ".batchkit" / "load" / "publish.jsonl").unlink()
    assert load().status == "completed"
    assert batchkit.Job("load").status().status == "completed"
    assert load().new == 0
    with closing(sqlite3.connect("a.db")) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT id) FROM users").fetchall() == [(25, 25)]


@pytest.mark.slow
def test_rows_whose_table_is_gone_are_missed(workdir: Path, cli: Cli) -> None:
    """The table is not made anew for the rest; and there is a way out."""
    (workdir / "items.jsonl").write_text("".join(f'{{"id": {number}}}\n' for number in range(40)))
    words = ("process", "items.jsonl", "-o", "sqlite:///a.db?table=users", "-b", "5")
    assert cli(*words, "--max-items", "20").code == 75
    with closing(sqlite3.connect("a.db")) as connection:
        connection.execute("DROP TABLE users")
    ended = cli(*words)
    assert ended.code == 5
    assert "'users' is gone" in ended.err
    assert "20 rows" in ended.err
    assert "batchkit rm items" in ended.err
    removed = cli("rm", "items")
    assert "rows stay in the table" in removed.err
    assert cli(*words).code == 0
    assert "--restart" not in cli(*words).err
    with closing(sqlite3.connect("a.db")) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT id) FROM users").fetchall() == [(40, 40)]


def test_an_empty_field_is_null_where_it_is_no_value(workdir: Path, tables: Tables) -> None:
    """As in CSV: in a column of numbers or dates nothing is meant by it; in one of texts it is an empty text."""
    (workdir / "users.csv").write_text("id,score,born,name\n1,,,\n2,1.5,2001-02-03,ann\n")
    tables.run("CREATE TABLE users (id integer, score double precision, born date, name varchar(9))")
    result = batchkit.process("users.csv", output=tables.url(table="users"), progress="none")
    assert (result.done, result.failed) == (2, 0)
    rows = tables.rows("SELECT id, score, born, name FROM users ORDER BY id")
    assert rows[0] == (1, None, None, "")
    assert rows[1][:2] == (2, 1.5)


def test_the_url_of_something_else_is_refused_without_its_password(cli: Cli, workdir: Path) -> None:
    """It is no path of a file, either."""
    (workdir / "items.txt").write_text("a\n")
    for words in (["items.txt", "-o", "mysql://ann:hush@h/db?table=t"], ["https://ann:hush@h/items.txt"]):
        ended = cli("process", *words)
        assert ended.code == 2
        assert "is not known" in ended.err
        assert "hush" not in ended.err


def test_a_backup_from_before_the_newest_publication_is_told(workdir: Path) -> None:
    """Rows that came later, or were stored by a retry, are not in it: no run says that all is done."""
    source = workdir / "ids.txt"
    source.write_text("1\n2\nx\n")

    def ids(line: str) -> dict[str, Any]:
        return {"id": int(line)}

    def load() -> batchkit.Result:
        output = "sqlite:///a.db?table=users"
        return batchkit.process(source, ids, output=output, job="load", on_error="skip", progress="none")

    load()
    shutil.copy("a.db", "backup.db")
    batchkit.Job("load").retry(lambda _: {"id": 3})
    shutil.copy("backup.db", "a.db")
    with pytest.raises(batchkit.BatchkitError, match="does not know"):
        load()
