"""The workflows in `examples/` do what they say, from the command line."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batchkit.result import EXIT_PAUSED
from batchkit.workflow.outcome import EXIT_WAITING
from tests.children import ROOT
from tests.migration import EXAMPLE, NAMES, Migration

if TYPE_CHECKING:
    from tests.conftest import Cli, Ended
    from tests.postgres import Server

EXIT_FAILED = 1
ETL = f"{ROOT}/examples/etl.py"
WIZARD = f"{ROOT}/examples/wizard.py"

_numbers = count()


def state_of(name: str) -> dict[str, Any]:
    """Return the state file of a workflow."""
    state: dict[str, Any] = json.loads(Path(".batchkit", name, "workflow.json").read_text())
    return state


def statuses(name: str) -> dict[str, str]:
    """Return phase → status."""
    return {phase: each["status"] for phase, each in state_of(name)["phases"].items()}


# The migration


class Shop:
    """The migration, run from the command line."""

    def __init__(self, migration: Migration, cli: Cli) -> None:
        self.migration = migration
        self.scripts = migration.directory / "scripts"
        self._cli = cli

    def run(self, **params: str) -> Ended:
        """Run it, or go on with it."""
        given = {**self.migration.params, **params}
        words = [word for name, value in given.items() for word in ("--param", f"{name}={value}")]
        return self.workflow("run", EXAMPLE, *words)

    def workflow(self, *words: str) -> Ended:
        """Call `batchkit workflow WORDS...` where the server is known."""
        return self._cli("workflow", *words, env=self.migration.env)

    def applied(self) -> list[str]:
        """Return the scripts that the database notes as applied."""
        return [script for (script,) in self.migration.rows("SELECT script FROM schema_migrations ORDER BY at")]


@pytest.fixture
def shop(postgres_server: Server, workdir: Path, cli: Cli) -> Shop:
    """Give a database to migrate; the working directory has the scripts."""
    return Shop(Migration(postgres_server, workdir, f"shop_{next(_numbers)}"), cli)


@pytest.mark.slow
def test_the_migration_applies_each_script_once_and_keeps_no_password(shop: Shop) -> None:
    """A second run finds all done; what is on disk does not say how to get into the database."""
    ended = shop.run()
    assert ended.code == 0, ended.err
    assert shop.applied() == NAMES
    assert shop.migration.rows("SELECT sum(cents), count(*) FROM accounts") == [(2500, 5)]
    assert state_of("migrate-database")["phases"]["validate"]["result"]["scripts"] == NAMES
    before = shop.migration.content()
    assert shop.run().code == 0
    assert shop.migration.content() == before
    files = [path for path in shop.migration.directory.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not any(b"sesame" in path.read_bytes() for path in files)


@pytest.mark.slow
def test_a_script_that_failed_is_applied_when_it_is_mended_and_those_before_it_are_not_again(shop: Shop) -> None:
    """What it did before its error is undone; the end is as if it had never failed."""
    script = shop.scripts / NAMES[2]
    good = script.read_text()
    script.write_text(good + "TABLE nowhere;")
    for _ in range(2):
        ended = shop.run()
        assert ended.code == EXIT_FAILED
        assert 'relation "nowhere" does not exist' in ended.err
        assert shop.applied() == NAMES[:2]
        assert shop.migration.rows("SELECT sum(cents) FROM accounts") == [(0,)]
    assert statuses("migrate-database")["migrate"] == "failed"
    script.write_text(good)
    assert shop.run().code == 0
    assert shop.applied() == NAMES
    assert shop.migration.rows("SELECT sum(cents), min(cents) FROM accounts") == [(2500, 500)]


@pytest.mark.slow
def test_a_migration_that_is_not_valid_is_rolled_back(shop: Shop) -> None:
    """The database is as it was, what the scripts made is gone; the next run makes all of it anew."""
    before = shop.migration.content()
    check = shop.scripts / "checks" / "nobody_has_money.sql"
    check.write_text("SELECT id FROM accounts WHERE cents > 0 ORDER BY id")
    ended = shop.run()
    assert ended.code == EXIT_FAILED
    assert "nobody_has_money: not so for (1,), (2,), (3,)" in ended.err
    assert "rolled back to before 'backup'" in ended.err
    assert shop.migration.content() == before
    assert list(Path("migration").iterdir()) == []
    assert set(statuses("migrate-database").values()) == {"completed", "pending"}
    check.unlink()
    assert shop.run().code == 0
    assert shop.applied() == NAMES


@pytest.mark.slow
def test_a_validation_without_checks_is_none(shop: Shop) -> None:
    """It fails, instead of finding nothing wrong."""
    before = shop.migration.content()
    for check in (shop.scripts / "checks").glob("*.sql"):
        check.unlink()
    ended = shop.run()
    assert ended.code == EXIT_FAILED
    assert "there are no checks" in ended.err
    assert shop.migration.content() == before


@pytest.mark.slow
def test_the_migration_can_be_rolled_back_by_command_and_run_again(shop: Shop) -> None:
    """The plan says what will be done; the database is as before, and then as after."""
    before = shop.migration.content()
    assert shop.run().code == 0
    after = shop.migration.content()
    plan = shop.workflow("rollback", EXAMPLE, "backup", "--plan").out
    assert plan.splitlines() == [
        "undo     validate  (nothing undoes it)",
        "undo     migrate",
        "undo     approve",
        "undo     backup  (nothing undoes it)",
        "restore  the workspace from the snapshot 'backup'",
    ]
    assert shop.migration.content() == after
    ended = shop.workflow("rollback", EXAMPLE, "backup")
    assert ended.code == 0, ended.err
    assert shop.migration.content() == before
    assert shop.run().code == 0
    assert shop.migration.content() == after


@pytest.mark.slow
def test_the_migration_asks_first_if_it_is_to(shop: Shop) -> None:
    """With the backup made and nothing changed; "no" leaves it so."""
    before = shop.migration.content()
    assert shop.run(ask="true").code == EXIT_WAITING
    assert shop.workflow("answer", "migrate-database", "approve", "no").code == 0
    assert shop.run(ask="true").code == EXIT_FAILED
    assert shop.migration.content() == before
    assert shop.workflow("answer", "migrate-database", "approve", "yes").code == 0
    assert shop.run(ask="true").code == 0
    assert shop.applied() == NAMES


# Extract, transform, load


def orders(day: str) -> tuple[Any, ...]:
    """Return number and sum of the orders of a day in the database."""
    with closing(sqlite3.connect("etl/orders.db")) as database:
        query = "SELECT count(*), count(DISTINCT id), sum(cents) FROM orders WHERE day = ?"
        found: tuple[Any, ...] = database.execute(query, [day]).fetchone()
    return found


def report(day: str) -> dict[str, Any]:
    """Return the report of a day."""
    found: dict[str, Any] = json.loads(Path("etl", f"report-{day}.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("workdir")
def test_the_etl_loads_every_order_once_however_often_it_is_stopped(cli: Cli) -> None:
    """One day phase by phase, another one at once: the reports have the same sums, and either can be taken back."""
    days = {"tue": ["--step"], "wed": []}
    for day, words in days.items():
        code = EXIT_PAUSED
        while code == EXIT_PAUSED:
            code, _, err = cli("workflow", "run", ETL, "--key", day, "--param", f"day={day}", *words)
            assert code in {0, EXIT_PAUSED}, err
    for day in days:
        assert orders(day) == (1080, 1080, report(day)["cents"])
        assert sum(shop["cents"] for shop in report(day)["shops"].values()) == report(day)["cents"]
        assert {**report(day), "day": "tue"} == report("tue")
        assert report(day)["extracted"] == 1200
    assert cli("workflow", "rollback", ETL, "load", "--key", "tue").code == 0
    assert orders("tue") == (0, 0, None)
    assert orders("wed") == (1080, 1080, report("wed")["cents"])


@pytest.mark.slow
@pytest.mark.usefixtures("workdir")
def test_the_etl_publishes_nothing_that_does_not_fit(cli: Cli) -> None:
    """A row that got lost is found by the validation; loaded again, all is well."""
    assert cli("workflow", "run", ETL, "--until", "load").code == EXIT_PAUSED
    with closing(sqlite3.connect("etl/orders.db")) as database, database:
        database.execute("DELETE FROM orders WHERE rowid = 7")
    ended = cli("workflow", "run", ETL)
    assert ended.code == EXIT_FAILED
    assert "'loaded': 1079" in ended.err
    assert list(Path("etl").glob("report*")) == []
    assert cli("workflow", "rollback", ETL, "load").code == 0
    assert cli("workflow", "run", ETL).code == 0
    assert orders("2026-11-23")[0] == report("2026-11-23")["loaded"] == 1080


# The wizard


@pytest.mark.slow
@pytest.mark.parametrize(
    ("often", "third", "wrong", "answer", "line"),
    [
        ("daily", "hour", "24", "6", "0 6 * * * make report\n"),
        ("hourly", "minute", "6", "45", "45 * * * * make report\n"),
    ],
)
def test_the_wizard_asks_one_question_after_the_other(
    workdir: Path, cli: Cli, often: str, third: str, wrong: str, answer: str, line: str
) -> None:
    """It ends with 6 before each answer; the third question is another after another answer."""
    for key, text in (("command", "make report"), ("how-often", often), (third, answer)):
        ended = cli("workflow", "run", WIZARD)
        assert ended.code == EXIT_WAITING
        assert f"{key}: " in ended.err
        if key == third:
            assert cli("workflow", "answer", "wizard", key, wrong).code == 2
        assert cli("workflow", "answer", "wizard", key, text, "--by", "Ada").code == 0
    assert not (workdir / "crontab.txt").exists()
    assert cli("workflow", "run", WIZARD).code == 0
    assert (workdir / "crontab.txt").read_text() == line
    asked = state_of("wizard")["questions"]
    assert {key: (each["answer"], each["by"]) for key, each in asked.items()} == {
        "command": ("make report", "Ada"), "how-often": (often, "Ada"), third: (answer, "Ada"),
    }  # fmt: skip
