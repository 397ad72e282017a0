"""Results in tables of databases: SQLite, DuckDB and PostgreSQL, the same for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import batchkit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Database


def test_rows_land_in_a_table_that_is_made_for_them(workdir: Path, postgres: Database) -> None:
    """The first batch decides columns and types."""
    del workdir
    rows = [{"id": number, "name": f"n{number}"} for number in range(250)]
    result = batchkit.process(rows, output=postgres.url(table="users"), progress="none")
    assert (result.status, result.done) == ("completed", 250)
    assert postgres.rows("SELECT count(*), sum(id), max(name) FROM users") == [(250, 31125, "n99")]
