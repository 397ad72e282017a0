"""Migrate a PostgreSQL database: look, back up, apply scripts in order, check; if a check fails, all is as before.

    batchkit workflow run examples/migrate_database.py --param database=shop --param scripts=examples/migrations
    batchkit workflow rollback examples/migrate_database.py

The first command again goes on where it was: behind a kill, or a script that was mended. How to connect is libpq's
business (PGHOST, PGUSER, PGPASSWORD or ~/.pgpass …), so no password gets into the state; pg_dump and psql are to be on
the PATH. Each script is one transaction, without a COMMIT of its own. The scripts here are for a table
customers(id bigint PRIMARY KEY, name text). Let nobody else write meanwhile: a rollback brings back what was dumped.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

import batchkit

if TYPE_CHECKING:
    from batchkit.workflow.context import Context

flow = batchkit.Workflow(
    "migrate-database",
    params={"database": "shop", "scripts": "examples/migrations", "ask": False},
    workspace="migration",
)

EMPTY = """
DO $$ DECLARE each text; BEGIN
    FOR each IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', each);
    END LOOP;
END $$;
CREATE SCHEMA public AUTHORIZATION pg_database_owner;
GRANT USAGE ON SCHEMA public TO PUBLIC;
"""
"""Leaves a database as a new one is (of PostgreSQL 15 and later): also what the scripts added is gone."""


def connect(ctx: Context) -> psycopg.Connection[Any]:
    """Connect to the database; as a context manager it is one transaction, committed at the end."""
    return psycopg.connect(dbname=ctx.params["database"])


@flow.phase
def look(ctx: Context) -> dict[str, Any]:
    """See that the server answers, and that there is room for a dump: it is hardly larger than the database."""
    with connect(ctx) as connection:
        [(version, size)] = connection.execute("SELECT version(), pg_database_size(current_database())").fetchall()
    free = shutil.disk_usage(ctx.workspace).free
    if size > free:
        raise RuntimeError(f"the database has {size:,} bytes, and '{ctx.workspace}' has room for {free:,}")
    return {"version": version, "bytes": size}


@flow.phase(snapshot=True)  # so a rollback goes to before the backup, and the next run makes a new one
def backup(ctx: Context) -> str:
    """Dump the database into the workspace."""
    dump = ctx.workspace / "before.sql"
    ctx.run(["pg_dump", "--dbname", ctx.params["database"]], output=dump)
    return str(dump)


@backup.verify
def backup_is_whole(ctx: Context) -> bool:
    """Look at the end of the dump."""
    with open(ctx["backup"], "rb") as dump:
        dump.seek(max(0, Path(dump.name).stat().st_size - 1000))
        return b"PostgreSQL database dump complete" in dump.read()


flow.gate("approve", "The backup is there. Migrate now?", when=lambda ctx: ctx.params["ask"])


@flow.phase(items=lambda ctx: sorted(Path(ctx.params["scripts"]).glob("*.sql")), batch_size=1)
def migrate(ctx: Context, script: Path) -> None:
    """Apply a script, and note that in the same transaction: exactly once, whoever is killed or cut off when."""
    with connect(ctx) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('schema_migrations'))")  # one at a time
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (script text PRIMARY KEY, at timestamptz DEFAULT now())"
        )
        note = "INSERT INTO schema_migrations (script) VALUES (%s) ON CONFLICT DO NOTHING"
        if connection.execute(note, [script.name]).rowcount:
            connection.execute(script.read_bytes())


@migrate.undo
def restore(ctx: Context) -> None:
    """Put the dump in the place of all that is there, in one transaction: others see the one or the other."""
    psql = ["psql", "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]
    ctx.run([*psql, "--dbname", ctx.params["database"], "--command", EMPTY, "--file", ctx["backup"]])


@flow.phase(on_failure="rollback", rollback_to=backup)
def validate(ctx: Context) -> dict[str, Any]:
    """Run the checks: queries for what is wrong. One that finds something ends all this, and so does having none."""
    checks = sorted(Path(ctx.params["scripts"], "checks").glob("*.sql"))
    if not checks:
        raise RuntimeError(f"there are no checks in '{ctx.params['scripts']}/checks'")
    with connect(ctx) as connection:
        for check in checks:
            wrong = connection.execute(check.read_bytes()).fetchmany(3)
            if wrong:
                raise RuntimeError(f"{check.stem}: not so for {', '.join(map(str, wrong))}")
        applied = connection.execute("SELECT script FROM schema_migrations ORDER BY script").fetchall()
    return {"checks": [check.stem for check in checks], "scripts": [script for (script,) in applied]}
