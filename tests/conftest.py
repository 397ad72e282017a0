"""What several test files share: a directory of one's own, and the real command line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pytest

from tests.children import Nursery
from tests.kernels import Unsynced, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.postgres import Database, Server
    from tests.tables import Tables

PATIENCE = 30.0
"""Seconds after which a command that should have ended counts as hanging."""


IN_MEMORY = "/dev/shm"
"""Where Linux keeps files in memory."""

ROOM = 1 << 30
"""Bytes that must be free there: containers have 64 MB, which some tests would fill."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Cli(Protocol):
    """Runs `batchkit WORDS...` to its end."""

    def __call__(self, *words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Ended:
        """Return exit code, standard output and standard error."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with a DuckDB file as slow, which takes 30 ms to open, where they run for the other databases anyway.

    Those with the marker `everywhere` stay quick.
    """
    for item in items:
        given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if "duckdb" in (given.get("tables"), given.get("place")) and item.get_closest_marker("everywhere") is None:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="session")
def _signals() -> None:
    """Let signals do what they usually do: under `nohup` SIGHUP would be ignored, by us and by what tests start."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _on_disk(request: pytest.FixtureRequest) -> bool:
    return any(request.node.get_closest_marker(name) for name in ("disk", "soak"))


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Give a directory in memory, where there is one: syncs, most of the time of a small job, cost nothing there.

    The full series, and tests with the marker `disk`, have one on the disk.
    """
    if _on_disk(request) or not os.access(IN_MEMORY, os.W_OK) or shutil.disk_usage(IN_MEMORY).free < ROOM:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=IN_MEMORY, prefix="batchkit-") as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def _unsynced(request: pytest.FixtureRequest) -> Iterator[None]:
    """Do without syncs in this process where they would cost something all the same; those it starts make them."""
    if _on_disk(request):
        yield
        return
    with installed(Unsynced()):
        yield


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Give a process whose children may use polars."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory, with the default state directory in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BATCHKIT_STATE_DIR", raising=False)
    return tmp_path


@pytest.fixture
def start_cli(workdir: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start `batchkit WORDS...` as a real process in the working directory."""

    def start(
        *words: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "batchkit", *words],
            cwd=workdir,
            env={**os.environ, **(env or {})},
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def cli(start_cli: Callable[..., subprocess.Popen[str]]) -> Cli:
    """Run the real command line."""

    def run(*words: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Ended:
        with start_cli(*words, stdin=subprocess.PIPE, env=env) as process:
            out, err = process.communicate(stdin, timeout=PATIENCE)
        return Ended(process.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """Run a server while tests want one. Nobody may kill it: who wants to starts one of their own."""
    from tests.postgres import Server  # noqa: PLC0415  # loads drivers

    server = Server()
    server.start()
    yield server
    server.stop()


_numbers = count()


@pytest.fixture
def postgres(postgres_server: Server) -> Database:
    """Give an empty database of a running server."""
    from tests.postgres import Database  # noqa: PLC0415  # as above

    return Database(postgres_server, f"test_{next(_numbers)}")


@pytest.fixture(params=["sqlite", "duckdb", "postgres"])
def tables(request: pytest.FixtureRequest, workdir: Path) -> Tables:
    """Give an empty database of each kind."""
    from tests.tables import DuckTables, SqliteTables  # noqa: PLC0415  # as above

    if request.param == "postgres":
        database: Database = request.getfixturevalue("postgres")
        return database
    kind = SqliteTables if request.param == "sqlite" else DuckTables
    return kind(workdir / f"data.{request.param}")
