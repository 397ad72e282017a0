"""Long series of kills of loads of 200,000 rows, and of the server that takes them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import polars as pl
import pytest

import batchkit
from batchkit import files
from tests.loads import Duck, Postgres, Sqlite
from tests.postgres import Server
from tests.test_workers import children_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.loads import Place

ROWS, SAMPLE = 200_000, 40_000
BATCH = 1_000


class Series:
    """Loads by the command line, one after the other, each killed again and again until it is complete.

    kills: of live processes, servers: of the server. phases: how often the load had stored nothing yet, a part, all.
    """

    def __init__(
        self, directory: Path, place: Place, workers: int, rows: int, seed: str, server: Server | None
    ) -> None:
        """Write the rows. server: of the place, if it is to be killed, too."""
        self.kills = self.servers = self.loads = 0
        self.phases: Counter[str] = Counter()
        self.victims: Counter[str] = Counter()
        self._directory = directory
        self._place = place
        self._workers = workers
        self._rows = rows
        self._server = server
        self._pick = random.Random(seed)
        self._seconds = 0.0  # that a load takes which nobody kills
        numbers = pl.Series("id", range(rows))
        pl.DataFrame({"id": numbers, "name": numbers.cast(pl.String), "half": numbers / 2}).write_parquet(
            directory / "rows.parquet", row_group_size=rows // 10
        )

    def play(self, kills: int, servers: int = 0) -> None:
        """Kill until there were so many kills of processes, and of the server; each load is brought to its end."""
        begun = time.monotonic()
        self._begin()
        self._run_to_the_end(self._start())
        self._seconds = time.monotonic() - begun
        while self.kills < kills or self.servers < servers:
            self._begin()
            complete = False
            while not complete and (self.kills < kills or self.servers < servers):
                due = self.servers < servers * self.kills / kills or self.kills >= kills
                complete = self._strike_server() if due else self._strike()
            if not complete:
                self._run_to_the_end(self._start())
            self._check()

    def told(self) -> str:
        """Return the counts for people."""
        kills = f"{self.kills} kills {dict(self.victims)} {dict(self.phases)}, {self.servers} of the server"
        return f"{kills}, over {self.loads} loads of {self._seconds:.1f} s"

    def _begin(self) -> None:
        files.remove_tree(str(self._directory / "state"))
        self._place.clear()
        self._place.run("CREATE TABLE users (id bigint, name text, half double precision)")  # which takes any row twice
        self.loads += 1

    def _start(self) -> subprocess.Popen[bytes]:
        words = ["process", "rows.parquet", "-o", self._place.url(table="users"), "--job", "load"]
        words += ["-b", str(BATCH * self._rows // ROWS), "--state-dir", "state", "-q", "-w", str(self._workers)]
        words += ["--retries", "50", "--retry-wait", "0.05", "--retry-max-wait", "0.5"] if self._server else []
        with (self._directory / "err").open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "batchkit", *words], cwd=self._directory, stderr=err, start_new_session=True
            )

    def _run_to_the_end(self, process: subprocess.Popen[bytes]) -> None:
        assert process.wait(timeout=120) == 0, (self._directory / "err").read_text()

    def _ends_within(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        """Tell whether it comes to its end, and not to another one."""
        with suppress(subprocess.TimeoutExpired):
            assert process.wait(timeout=seconds) == 0, (self._directory / "err").read_text()
            return True
        return False

    def _strike(self) -> bool:
        """Run the load and kill it some time; tell whether it was complete before."""
        process = self._start()
        left = self._pick.randrange(4)  # the fifth in a row that had not begun would end the run
        while True:
            if self._pick.random() < 0.8:  # else wherever it is: while it starts, mostly
                self._await_progress(process)
            if self._ends_within(process, self._pick.uniform(0.0, min(1.0, self._seconds / 2))):
                return True
            workers = children_of(process.pid)
            left -= 1
            victim = "worker" if workers and left >= 0 else self._pick.choice(["all", "parent"])
            self.phases[self._phase()] += 1
            if victim == "worker":  # another one takes its place
                killed = _kill(self._pick.choice(workers))
            else:
                killed = process.poll() is None
                _kill(process.pid)
                if victim == "all":
                    for pid in workers:
                        _kill(pid)
            self.kills += killed
            self.victims[victim] += killed
            if victim != "worker":
                return process.wait() == 0

    def _await_progress(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until something more is committed, or the process is gone: kills of what only starts show little."""
        before = self._done()
        until = time.monotonic() + 60
        while process.poll() is None and self._done() == before:
            assert time.monotonic() < until, "nothing goes on"
            time.sleep(0.005)

    def _done(self) -> int:
        found = list(batchkit.jobs(self._directory / "state"))
        return found[0].status().done if found else 0

    def _strike_server(self) -> bool:
        """Kill the server under the load, which waits for it and goes on by itself."""
        assert self._server is not None
        process = self._start()
        if self._ends_within(process, self._pick.uniform(0.3, self._seconds)):
            return True
        self._server.kill()
        self.servers += 1
        self._server.start()
        self._run_to_the_end(process)
        return True

    def _phase(self) -> str:
        done = self._done()
        return "work" if 0 < done < self._rows else "end" if done else "start"

    def _check(self) -> None:
        found = self._place.rows("SELECT count(*), count(DISTINCT id), min(id), max(id), sum(half) FROM users")
        rows = self._rows
        assert found == [(rows, rows, 0, rows - 1, rows * (rows - 1) / 4)]
        status = batchkit.Job("load", self._directory / "state").status()
        assert (status.status, status.done, status.failed) == ("completed", rows, 0)
        assert self._place.tables() == ["batchkit_checkpoint", "users"]


def _kill(pid: int) -> bool:
    """Kill a process; tell whether it was still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@pytest.fixture
def server() -> Iterator[Server]:
    """Give a server that may be killed."""
    server = Server()
    server.start()
    yield server
    server.stop()


def play(
    request: pytest.FixtureRequest, directory: Path, database: str, workers: int, rows: int, counts: tuple[int, int]
) -> None:
    """Play a series of so many kills of processes and of the server, if there is one, and print what it did."""
    begun = time.monotonic()
    server: Server | None = None
    place: Place
    if database == "postgresql":
        server = request.getfixturevalue("server")
        place = Postgres(server.dsn())
    else:
        place = Sqlite(str(directory / "base.db")) if database == "sqlite" else Duck(str(directory / "base.duckdb"))
    kills, servers = counts[0], counts[1] if server is not None else 0
    series = Series(directory, place, workers, rows, f"{database} {workers} {kills}", server)
    series.play(kills, servers)
    assert (series.kills, series.servers) >= (kills, servers)
    sys.stdout.write(f"{database}, {workers} workers: {series.told()}, in {time.monotonic() - begun:.0f} s\n")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("database", ["sqlite", "duckdb", "postgresql"])
def test_a_few_random_kills_during_a_long_load_cost_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, database: str, workers: int
) -> None:
    """A seeded sample of the series below, over fewer rows in as many batches."""
    play(request, tmp_path, database, workers, SAMPLE, (5, 2))


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("database", ["sqlite", "duckdb", "postgresql"])
def test_two_hundred_random_kills_during_long_loads_cost_nothing(
    request: pytest.FixtureRequest, tmp_path: Path, database: str, workers: int
) -> None:
    """And twenty of the server: 200,000 rows in each table, none twice, whoever dies when."""
    play(request, tmp_path, database, workers, ROWS, (200, 20))
