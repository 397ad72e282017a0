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
