"""Turns at a database that one process at a time may have open."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import duckdb
import pytest

from batchkit.databases import duck, holding
from batchkit.databases.address import Place
from batchkit.databases.base import Conflict
from batchkit.databases.connecting import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TAKE = """
import os, sys
from batchkit.databases import holding
assert holding.take(sys.argv[1], shared=sys.argv[2] == "shared")
"""
"""A program that takes a turn, as a process of its own."""

WAIT = """
print("taken", flush=True)
sys.stdin.read()
"""


@contextmanager
def another(path: object, *, shared: bool = False, then: str = WAIT) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has a turn at a database, until the end of the block."""
    words = [sys.executable, "-c", TAKE + then, str(path), "shared" if shared else "alone"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        yield process
        process.stdin.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Make a DuckDB file, for which nobody waits long."""
    monkeypatch.setattr(duck, "_PATIENCE", 0.1)
    path = tmp_path / "file.duckdb"
    duckdb.connect(str(path)).close()
    return Place("duckdb", str(path))


@pytest.mark.parametrize("reading", [True, False])
def test_nobody_opens_a_file_before_who_writes_has_closed_it(place: Place, reading: bool) -> None:
    """DuckDB's own lock does not tell: it reads a header before it asks for that."""
    with another(place.path), pytest.raises(Conflict, match="another process"):
        connect(place, reading=reading)
    connect(place, reading=reading).close()


def test_several_processes_read_at_once(place: Place) -> None:
    """And none writes meanwhile; nor does one that reads itself."""
    with another(place.path, shared=True):
        with closing(connect(place, reading=True)):
            assert not holding.take(str(place.path))
        with pytest.raises(Conflict):
            connect(place)
    connect(place).close()


def test_a_file_has_its_turns_whatever_it_is_called(place: Place, tmp_path: Path) -> None:
    """As through a link."""
    link = tmp_path / "link.duckdb"
    link.symlink_to(str(place.path))
    with another(link), pytest.raises(Conflict, match="another process"):
        connect(place)


def test_a_process_has_turns_within_its_turn(place: Place) -> None:
    """Others have theirs after the last of them."""
    with closing(connect(place)):
        connect(place).close()
        held = [sys.executable, "-c", TAKE, str(place.path), "alone"]
        assert subprocess.run(held, check=False, capture_output=True).returncode == 1
    assert subprocess.run(held, check=False, capture_output=True).returncode == 0


def test_a_turn_ends_with_its_process(place: Place) -> None:
    """Even if that has forked another, which lives on."""
    fork = """
ready, done = os.pipe()
if not os.fork():
    os.write(done, b"1")
    sys.stdin.read()
    os._exit(0)
os.read(ready, 1)
"""
    with another(place.path, then=fork + WAIT) as process:
        assert not holding.take(str(place.path))
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        connect(place).close()
