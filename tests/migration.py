"""The example of a migration, with a database to migrate on a real server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from tests.children import ROOT

if TYPE_CHECKING:
    from tests.postgres import Server

EXAMPLE = os.path.join(ROOT, "examples", "migrate_database.py")
SCRIPTS = Path(ROOT, "examples", "migrations")
NAMES = ["001_split_names.sql", "002_accounts.sql", "003_welcome.sql"]

_COLUMNS = """
    SELECT table_name, column_name, data_type, column_default, is_identity FROM information_schema.columns
    WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY table_name, column_name
"""
_RIGHTS = "SELECT nspname, nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1"


class Migration:
    """A database `shop` as it was, which the example is to migrate.

    directory: where the workflow is run; `scripts` in it are copies of the example's.
    """

    def __init__(self, server: Server, directory: Path, name: str) -> None:
        """Make the database, and a copy to make it from again."""
        self._server = server
        self.directory = directory
        self.name = name
        self._copy = f"{name}_as_it_was"
        server.create(self._copy)
        with psycopg.connect(server.dsn(self._copy)) as connection:
            connection.execute("CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL)")
            connection.execute("INSERT INTO customers SELECT n, 'Ada ' || 'L' || n FROM generate_series(1, 5) n")
        self.begin()

    def begin(self) -> None:
        """Let all be as at the beginning."""
        self.copy(self._copy, self.name)
        for each in self.directory.iterdir():
            shutil.rmtree(each)
        shutil.copytree(SCRIPTS, self.directory / "scripts")

    def copy(self, source: str, target: str) -> None:
        """Make a database the same as another one."""
        with psycopg.connect(self._server.dsn(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{target}" WITH (FORCE)'.encode())
            connection.execute(f'CREATE DATABASE "{target}" TEMPLATE "{source}"'.encode())

    @property
    def env(self) -> dict[str, str]:
        """The environment that leads to the server, and to its programs."""
        programs = str(self._server.program("psql").parent)
        return {
            "PGHOST": str(self._server.home),
            "PGUSER": "postgres",
            "PGPASSWORD": "open sesame",
            "PATH": os.pathsep.join([programs, os.environ["PATH"]]),
        }

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the workflow."""
        return {"database": self.name, "scripts": "scripts"}

    def content(self) -> dict[str, list[Any]]:
        """Return what is in the database: the rows of all tables, apart from times, and what the tables are."""
        with psycopg.connect(self._server.dsn(self.name)) as connection:
            columns = connection.execute(_COLUMNS).fetchall()
            found = {"columns": columns, "rights": connection.execute(_RIGHTS).fetchall()}
            for table in sorted({column[0] for column in columns}):
                sql = f"SELECT (to_jsonb(t) - 'at')::text FROM \"{table}\" t ORDER BY 1"  # noqa: S608  # our own
                found[table] = connection.execute(sql.encode()).fetchall()
        return found

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what a query gives."""
        with psycopg.connect(self._server.dsn(self.name)) as connection:
            return connection.execute(sql.encode()).fetchall()
