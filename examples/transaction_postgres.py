"""Store rows in PostgreSQL, exactly once: the statements and what they are for are committed together.

    batchkit process users.csv -f examples/transaction_postgres.py:Load --batched --batch-size 1000 --workers 4

users.csv has the columns id and name; there is a table users(id bigint, name text). USERS_DSN says how to connect, or
libpq's environment (PGHOST, PGDATABASE ...). Stop it or kill it, run it again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psycopg

import batchkit

if TYPE_CHECKING:
    import polars as pl


class Load:
    """Made once per worker, so each has a connection of its own."""

    def __init__(self) -> None:
        """Connect."""
        self.connection = psycopg.connect(os.environ.get("USERS_DSN", ""))

    def __call__(self, rows: pl.DataFrame) -> None:
        """Store the rows of a batch by COPY; a row whose id is no number fails alone."""
        with (
            batchkit.transaction(self.connection),
            self.connection.cursor().copy("COPY users (id, name) FROM STDIN") as copy,
        ):
            for row in rows.rows():
                copy.write_row(row)

    def close(self) -> None:
        """Disconnect."""
        self.connection.close()
