"""Loads from the command line: what is wrong is said in one line, and no password is said or kept anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.postgres import Database, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Cli
    from tests.tables import Tables

SECRET = "hush-7%1"  # noqa: S105  # of a server that ends with the tests
"""A password that must be quoted in an address."""


@pytest.fixture
def items(workdir: Path) -> str:
    """Write a source of rows, of which three have no name."""
    rows = [{"id": number, "name": None if number in {3, 30, 31} else f"n{number}"} for number in range(40)]
    (workdir / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "users.jsonl"


@pytest.fixture
def locked_server() -> Iterator[Server]:
    """Run a server that asks the user `loader` for a password."""
    server = Server()
    server.start()
    database = Database(server, "guarded")
    database.run(f"CREATE ROLE loader LOGIN PASSWORD '{SECRET}'")
    database.run("GRANT ALL ON SCHEMA public TO loader")
    [(path,)] = database.rows("SHOW hba_file")
    with open(path, encoding="utf-8") as file:
        rules = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write("local all loader scram-sha-256\n" + rules)
    database.run("SELECT pg_reload_conf()")
    yield server
    server.stop()


def no_traces(directory: Path, *texts: str) -> None:
    """See that a password stands in no file of a directory and in no text, quoted or not."""
    for path in directory.rglob("*"):
        if path.is_file():
            texts += (path.read_bytes().decode(errors="replace"),)
    assert len(texts) > 3, "there is something to look at"
    for text in texts:
        assert SECRET not in text
        assert quote(SECRET) not in text
        assert "hush" not in text


@pytest.mark.slow
def test_a_load_says_where_the_rows_are_and_how_many(tables: Tables, cli: Cli, items: str) -> None:
    """In a sentence, as JSON, and later."""
    url = tables.url(table="users")
    ended = cli("process", items, "-o", url, "-b", "7", "--job", "load", "--max-items", "20")
    assert (ended.code, tables.rows("SELECT count(*) FROM users")) == (75, [(20,)])
    ended = cli("process", items, "-o", url, "-b", "7", "--job", "load", "--json")
    assert ended.code == 0
    told = json.loads(ended.out)
    assert (told["done"], told["status"]) == (40, "completed")
    assert "table=users" in told["output"]
    assert "load" in cli("status").out
    assert tables.rows("SELECT count(*), count(name) FROM users") == [(40, 37)]


@pytest.mark.slow
def test_failures_are_listed_and_retried(tables: Tables, cli: Cli, workdir: Path, items: str) -> None:
    """Exit code 3, the database's words, and 0 when all is mended."""
    tables.run("CREATE TABLE users (id bigint, name text NOT NULL)")
    ended = cli("process", items, "-o", tables.url(table="users"), "--job", "load", "--on-error", "skip", "-w", "2")
    assert ended.code == 3
    listed = cli("failures", "load")
    assert "3 failures" in listed.out
    assert "null" in cli("failures", "load", "--json").out.lower()
    assert cli("retry", "load").code == 3
    (workdir / "mend.py").write_text("def mend(row):\n    return {**row, 'name': 'mended'}\n")
    assert cli("retry", "load", "-f", "mend.py:mend").code == 0
    assert tables.rows("SELECT count(*), count(DISTINCT id) FROM users") == [(40, 40)]


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("sqlite:///x.db", 2, "add ?table=NAME"),
        ("sqlite:///x.db?table=t&mode=insert", 2, "append, replace, upsert"),
        ("sqlite:///x.db?table=t&mode=upsert", 2, "&key=id"),
        ("sqlite:///x.db?table=t&key=id", 2, "mode=upsert"),
        ("sqlite:///x.db?table=t&speed=1", 2, "'speed'"),
        ("sqlite://x.db?table=t", 2, "three slashes"),
        ("sqlite:///?table=t", 2, "names no file"),
        ("duckdb:///:memory:?table=t", 2, "names no file"),
        ("sqlite:///x.db?table=a.b.c", 2, "SCHEMA.NAME"),
        ("sqlite:////no/such/directory/x.db?table=t", 1, "/no/such/directory/x.db"),
        ("duckdb:////no/such/directory/x.duckdb?table=t", 1, "/no/such/directory/x.duckdb"),
        ("sqlite:///users.jsonl?table=t", 1, "not a database"),
        ("duckdb:///users.jsonl?table=t", 1, "users.jsonl"),
        pytest.param("postgresql://u:hush-7%251@localhost:1/db?table=t", 1, "localhost", marks=pytest.mark.slow),
        pytest.param(
            "postgresql://u:hush-7%251@/db?host=/no/such/socket&table=t", 1, "/no/such/socket", marks=pytest.mark.slow
        ),
        pytest.param(
            "postgresql://u:hush-7%251@localhost:port/db?table=t", 2, "cannot be read", marks=pytest.mark.slow
        ),
        pytest.param("postgresql://u:hush-7%251@localhost/db?table=t&sslmod=no", 1, "sslmod", marks=pytest.mark.slow),
        pytest.param(
            "postgresql://u@localhost/db?password=hush-7%251&table=t&sslmod=no", 1, "sslmod", marks=pytest.mark.slow
        ),
    ],
)
def test_an_address_that_is_wrong_is_said_in_one_line(
    cli: Cli, workdir: Path, items: str, url: str, code: int, said: str
) -> None:
    """Without the password, and nothing is begun."""
    ended = cli("process", items, "-o", url)
    assert ended.code == code, ended.err
    [line] = ended.err.strip().splitlines()
    assert said in line
    assert "Traceback" not in line
    assert "hush" not in line
    if "hush" in url:
        assert "hush" not in cli("process", items, "-o", url, "-v").err, "not in a traceback either"
    assert not list((workdir / ".batchkit").glob("*/job.json"))


def test_a_format_is_for_files(cli: Cli, items: str) -> None:
    """Wrong usage."""
    ended = cli("process", items, "-o", "sqlite:///x.db?table=t", "--output-format", "csv")
    assert ended.code == 2
    assert "table of a database" in ended.err


@pytest.mark.parametrize(("module", "url"), [("psycopg", "postgresql:///db"), ("duckdb", "duckdb:///x.duckdb")])
def test_a_driver_that_is_missing_is_named_with_what_installs_it(
    workdir: Path, items: str, module: str, url: str
) -> None:
    """SQLite needs none."""
    hide = f"import sys; sys.modules['{module}'] = None; sys.argv[0] = 'batchkit'"
    run = f"{hide}; from batchkit.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", run, "process", items, "-o", f"{url}?table=t"]
    ended = subprocess.run(command, cwd=workdir, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "pip install 'batchkit[" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_password_stands_nowhere_whatever_happens(cli: Cli, workdir: Path, items: str, locked_server: Server) -> None:
    """A run that fails, one with failures, retries, workers; wrong passwords neither."""
    database = Database(locked_server, "secrets")
    database.run("CREATE TABLE users (id bigint, name text NOT NULL)")
    database.run("GRANT ALL ON ALL TABLES IN SCHEMA public TO loader")
    database.run("GRANT ALL ON SCHEMA public TO loader")
    where = f"/secrets?host={locked_server.home}&table=users"
    url = f"postgresql://loader:{quote(SECRET)}@{where}"
    job = ["--job", "load", "-v", "-b", "5"]
    said = []
    for code, words in [
        (1, ["process", items, "-o", url.replace("hush", "hushed"), *job]),
        (1, ["process", items, "-o", url, *job]),
        (3, ["process", items, "-o", url, *job, "--on-error", "skip", "-w", "2"]),
        (5, ["process", items, "-o", f"{url}&mode=replace", *job]),
        (2, ["process", items, "-o", url, *job, "--restart"]),
    ]:
        ended = cli(*words)
        assert ended.code == code, ended.err
        said += [ended.out, ended.err]
    assert database.rows("SELECT count(*) FROM users") == [(37,)]
    ended = cli("retry", "load")
    assert ended.code == 1, "the password is not known"
    assert "password" in ended.err
    said += [ended.out, ended.err]
    ended = cli("retry", "load", env={"PGPASSWORD": SECRET})
    assert ended.code == 3, ended.err
    for words in (["failures", "load", "--json"], ["status"], ["failures", "load", "--last", "3"]):
        shown = cli(*words)
        said += [shown.out, shown.err]
    no_traces(workdir, *said, ended.out, ended.err)
    env = {"PGUSER": "loader", "PGPASSWORD": SECRET}
    assert cli("process", items, "-o", f"postgresql://{where}", *job, "--on-error", "skip", env=env).code == 3


@pytest.mark.slow
def test_passwords_come_from_the_environment_and_from_a_file(
    cli: Cli, workdir: Path, items: str, locked_server: Server
) -> None:
    """As for psql; of several workers, each finds it."""
    url = f"postgresql://loader@/guarded?host={locked_server.home}&table=users"
    passfile = workdir / "pgpass"
    passfile.write_text(f"*:*:*:loader:{SECRET}\n")
    passfile.chmod(0o600)
    ways = [{"PGPASSWORD": SECRET}, {"PGPASSFILE": str(passfile)}]
    for number, env in enumerate(ways):
        assert cli("process", items, "-o", url, "--job", f"load{number}", "-w", "2", env=env).code == 0
    passfile.unlink()
    no_traces(workdir)


@pytest.mark.slow
def test_other_addresses_of_a_table_are_the_same_job(cli: Cli, workdir: Path, items: str, postgres: Database) -> None:
    """Who connects, and how a path is written, does not matter."""
    postgres.run("CREATE ROLE other SUPERUSER LOGIN")
    urls = [postgres.url(table="users"), postgres.url(table="users").replace("postgres@", "other:secret@")]
    assert cli("process", items, "-o", urls[0], "--max-items", "10").code == 75
    assert cli("process", items, "-o", urls[1]).code == 0
    assert cli("process", items, "-o", urls[1], "--restart").code == 2
    assert postgres.rows("SELECT count(*) FROM users") == [(40,)]
    (workdir / "data").mkdir()
    paths = [f"sqlite:///{workdir}/data/x.db?table=users", "sqlite:///data/../data/x.db?table=users"]
    assert cli("process", items, "-o", paths[0], "--job", "files", "--max-items", "10").code == 75
    assert cli("process", items, "-o", paths[1], "--job", "files").code == 0
