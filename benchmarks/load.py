r"""What does a load cost that can be killed anywhere? batchkit against the databases' own bulk loads, side by side.

Into PostgreSQL against `psql \copy` and polars' `write_database` (ADBC), into SQLite against `.import` of its shell,
into DuckDB against its own COPY, from CSV and from Parquet. Rows of six columns: an int, two texts, a float, a bool and
a timestamp. batchkit reads Parquet and commits a checkpoint every 10,000 rows; none of the others has any, all of them
commit once. The peers read the same rows from a CSV file, or from the Parquet file where that is said.

Whole processes in alternating runs; ratio: to the database's own tool, of the medians and of neighbouring runs. Every
run begins with an empty table, the same for all, and afterwards all rows are read back and compared. The server runs
with its default settings, fsync among them, on a socket of its own. CPU: of the client's processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from functools import partial
from operator import le
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb
from measuring import HERE, PYTHON, Run, alternating, machine, run
from side_by_side import Target, show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SCRIPT = str(Path(PYTHON).with_name("batchkit"))
TABLE = str(HERE / "load_table.py")
TYPES = {
    "postgres": "id bigint, name text, note text, value double precision, flag boolean, made timestamp",
    "sqlite": "id INTEGER, name TEXT, note TEXT, value REAL, flag INTEGER, made TEXT",
    "duckdb": "id BIGINT, name VARCHAR, note VARCHAR, value DOUBLE, flag BOOLEAN, made TIMESTAMP",
}
TARGET = Target(le, 1.25)
"""At least 0.8 times the speed of the database's own tool."""


class Bench(NamedTuple):
    """Where the files are, how many rows they have, and how often each candidate runs."""

    directory: Path
    rows: int
    runs: int

    def compare(
        self, kind: str, place: str, empty: Callable[[], None], commands: Mapping[str, Sequence[str]]
    ) -> dict[str, list[Run]]:
        """Run the candidates in turn, each into a table that `empty` makes."""
        once = {name: partial(self._once, name, each, kind, place, empty) for name, each in commands.items()}
        return alternating(once, self.runs)

    def _once(self, name: str, command: Sequence[str], kind: str, place: str, empty: Callable[[], None]) -> Run:
        shutil.rmtree(self.directory / "state", ignore_errors=True)
        empty()
        os.sync()  # else its own syncs wait for what the one before has written
        figures = run(command, self.directory)
        if subprocess.run([PYTHON, TABLE, "same", kind, place], cwd=self.directory, check=False).returncode:
            raise SystemExit(f"{name}: the table has other rows than the file (it ended with {figures.code})")
        return figures


def batchkit(address: str, workers: int) -> list[str]:
    """Return the command line of a load with a checkpoint every 10,000 rows."""
    options = ["-b", "10000", "-w", str(workers), "--state-dir", "state", "-q"]
    return [SCRIPT, "process", "load.parquet", "-o", address, *options]


def postgres(bench: Bench) -> None:
    """Load into PostgreSQL."""
    server = server_with_defaults()
    server.start()
    try:
        dsn, address = server.dsn(), server.url("postgres", table="t")
        psql = [str(server.program("psql")), "-q", "-d", dsn]
        empty = f"DROP TABLE IF EXISTS t, batchkit_checkpoint; CREATE TABLE t ({TYPES['postgres']})"
        refill = [*psql, "-c", "SET client_min_messages = error", "-c", empty, "-c", "CHECKPOINT"]
        candidates = {
            r"psql \copy from CSV": [*psql, "-c", r"\copy t from load.csv csv"],
            "polars write_database, ADBC": [PYTHON, TABLE, "polars", dsn],
            "batchkit, 1 worker": batchkit(address, 1),
            "batchkit, 2 workers": batchkit(address, 2),
        }
        version = subprocess.run(
            [*psql, "-At", "-c", "SHOW server_version"], capture_output=True, text=True, check=True
        ).stdout.strip()
        found = bench.compare("postgres", dsn, lambda: _done(refill), candidates)
        report(f"PostgreSQL {version}", found, bench)
    finally:
        server.stop()


def sqlite(bench: Bench) -> None:
    """Load into SQLite."""
    shell = shutil.which("sqlite3")
    if shell is None:
        print("\nSQLite: its shell is not installed and this is left out: apt-get install sqlite3")
        return
    file = "load.db"

    def empty() -> None:
        _remove(bench.directory, file)
        with sqlite3.connect(bench.directory / file) as connection:
            connection.execute(f"CREATE TABLE t ({TYPES['sqlite']}) STRICT")
        connection.close()

    candidates = {
        "sqlite3 .import from CSV": [shell, file, ".import --csv load.csv t"],
        "batchkit, 1 worker": batchkit(f"sqlite:///{file}?table=t", 1),
        "batchkit, 2 workers": batchkit(f"sqlite:///{file}?table=t", 2),
    }
    version = subprocess.run([shell, "--version"], capture_output=True, text=True, check=True).stdout.split()[0]
    report(
        f"SQLite {version} (shell), {sqlite3.sqlite_version} (Python)",
        bench.compare("sqlite", file, empty, candidates),
        bench,
    )


def duck(bench: Bench) -> None:
    """Load into DuckDB."""
    file = "load.duckdb"

    def empty() -> None:
        _remove(bench.directory, file)
        with duckdb.connect(bench.directory / file) as connection:
            connection.execute(f"CREATE TABLE t ({TYPES['duckdb']})")

    candidates = {
        "DuckDB COPY from CSV": [PYTHON, TABLE, "duckdb", "csv"],
        "DuckDB COPY from Parquet": [PYTHON, TABLE, "duckdb", "parquet"],
        "batchkit, 1 worker": batchkit(f"duckdb:///{file}?table=t", 1),
        "batchkit, 2 workers": batchkit(f"duckdb:///{file}?table=t", 2),
    }
    report(f"DuckDB {duckdb.__version__}", bench.compare("duckdb", file, empty, candidates), bench, targets=False)


def report(what: str, found: Mapping[str, Sequence[Run]], bench: Bench, *, targets: bool = True) -> None:
    """Print the figures; the first candidate is the database's own tool."""
    own = next(iter(found))
    limits = {"batchkit, 1 worker": TARGET} if targets else {}
    print(f"\n{bench.rows:,} rows into {what}; ratio: to {own}; all rows compared: the same\n")
    show(found, bench.rows, found[own], limits, "wall")


def server_with_defaults() -> Any:
    """Return the server that the tests have, with the settings of a server."""
    sys.path.append(str(HERE.parent))
    from tests.postgres import Server  # noqa: PLC0415  # of the checkout, beside this directory

    return Server(settings=("listen_addresses=",))


def _done(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _remove(directory: Path, file: str) -> None:
    for path in directory.glob(f"{file}*"):  # with its journal
        path.unlink()


SECTIONS = {"postgres": postgres, "sqlite": sqlite, "duckdb": duck}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--directory", help="where to write; default: a temporary directory here")
    arguments = parser.parse_args()
    print(machine("adbc-driver-postgresql", "duckdb", "polars", "psycopg"), flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.directory or Path.cwd()) as name:
        bench = Bench(Path(name).resolve(), arguments.rows, arguments.runs)
        subprocess.run([PYTHON, TABLE, "make", str(bench.rows)], cwd=bench.directory, check=True)
        sizes = [(bench.directory / path).stat().st_size / 1e6 for path in ("load.parquet", "load.csv")]
        print(f"Parquet {sizes[0]:.0f} MB, CSV {sizes[1]:.0f} MB; {bench.runs} alternating runs, medians")
        for section in arguments.only:
            SECTIONS[section](bench)


if __name__ == "__main__":
    main()
