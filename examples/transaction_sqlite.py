"""Store rows in SQLite, exactly once: the statements and what they are for are committed together.

    batchkit process users.csv -f examples/transaction_sqlite.py:Load --batched --batch-size 1000

users.csv has the columns id and name; USERS_DB names the database (users.db). Stop it or kill it, run it again.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

import batchkit

if TYPE_CHECKING:
    import polars as pl


class Load:
    """Made once per worker."""

    def __init__(self) -> None:
        """Connect; a minute is enough for other workers to commit."""
        self.connection = sqlite3.connect(os.environ.get("USERS_DB", "users.db"), timeout=60)
        self.connection.execute("CREATE TABLE IF NOT EXISTS users (id INTEGER NOT NULL, name TEXT)")

    def __call__(self, rows: pl.DataFrame) -> None:
        """Store the rows of a batch; a row whose id is no number fails alone."""
        with batchkit.transaction(self.connection):
            self.connection.executemany(
                "INSERT INTO users VALUES (?, ?)", [(int(key), name) for key, name in rows.rows()]
            )

    def close(self) -> None:
        """Disconnect."""
        self.connection.close()
