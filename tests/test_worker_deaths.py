"""Workers that die: they are replaced, and what kills them again and again is one failing item."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from tests.test_workers import ITEMS, numbers, run, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Cli


@pytest.fixture(autouse=True)
def _items(workdir: Path) -> None:
    """Give items to work on."""
    write(workdir, ITEMS)


def killing(*deadly: int, seconds: float = 0.0) -> Callable[[str], str]:
    """Return a function that dies of some items, and writes down what it was called with."""

    def dies(item: str) -> str:
        with open("calls", "a") as file:
            file.write(f"{item} {os.getpid()}\n")
        if int(item) in deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds)
        return item

    return dies


def calls_of(directory: Path, item: int) -> int:
    """Return how often an item was begun."""
    return len(re.findall(rf"^{item} ", (directory / "calls").read_text(), re.MULTILINE))


@pytest.mark.slow
def test_a_worker_that_dies_once_is_replaced(workdir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its shard goes on from its last commit: no result is lost and none is there twice."""

    def dies_once(item: str) -> str:
        if int(item) % 100 == 57 and not os.path.exists(f"died{item}"):
            with open(f"died{item}", "w"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    result = run(dies_once, batch_size=3, progress="log")
    assert (result.status, result.done, result.failed) == ("completed", ITEMS, 0)
    assert numbers(workdir) == list(range(ITEMS))
    told = capfd.readouterr().err
    assert told.count("a worker process died, signal 9; another one takes its place") == 4


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_an_item_that_always_kills_is_a_failure_where_failures_are_kept(workdir: Path, workers: int) -> None:
    """Exactly that item; all others are done once, and it is called a few times only."""
    deadly = 123
    result = run(killing(deadly), on_error="skip", workers=workers)
    assert (result.status, result.done, result.failed) == ("completed", ITEMS - 1, 1)
    [failure] = result.failures()
    assert (failure.item, failure.error) == (str(deadly), "WorkerDied")
    assert numbers(workdir) == [n for n in range(ITEMS) if n != deadly]
    assert calls_of(workdir, deadly) <= 6
    assert not list((workdir / ".batchkit/job/shards").glob("*.wanted"))


@pytest.mark.slow
def test_many_items_that_kill_are_as_many_failures(workdir: Path) -> None:
    """However many there are: that workers die is no reason to give up, as long as the job goes on."""
    deadly = range(4, ITEMS, 9)
    result = run(killing(*deadly, seconds=0.001), on_error="skip", workers=4, batch_size=5)
    assert (result.status, result.failed) == ("completed", len(deadly))
    assert [int(each.item) for each in result.failures()] == list(deadly)
    assert numbers(workdir) == [n for n in range(ITEMS) if n not in deadly]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_deaths_while_others_are_idle_are_told_from_those_at_the_start(workdir: Path, seed: int) -> None:
    """Another worker may have taken the dead one's shard before anybody asked who held it."""
    write(workdir, 24)
    deadly = range(2 + seed % 2, 24, 2)
    result = run(killing(*deadly, seconds=0.03), on_error="skip", workers=8, batch_size=2)
    assert (result.status, result.failed) == ("completed", len(deadly))


@pytest.mark.slow
def test_deaths_of_batches_are_failures_of_their_deadly_items(workdir: Path) -> None:
    """A batched function: what dies is narrowed down as any failure is."""

    def dies(items: list[str]) -> list[str]:
        if "77" in items:
            os.kill(os.getpid(), signal.SIGKILL)
        return items

    result = run(dies, batched=True, on_error="skip", batch_size=16)
    assert [failure.item for failure in result.failures()] == ["77"]
    assert numbers(workdir) == [n for n in range(ITEMS) if n != 77]


@pytest.mark.slow
def test_an_item_that_always_kills_ends_a_run_that_stops_at_errors(workdir: Path, cli: Cli) -> None:
    """It is named, and what came before it in its shard is kept."""
    with pytest.raises(batchkit.ItemError, match=r"'123' at .*line 124"):
        run(killing(123))
    done = batchkit.Job("job").status().done
    assert 0 < done < ITEMS
    (workdir / "work.py").write_text(
        "import os\n\ndef work(line):\n    if line == '42':\n        os.kill(os.getpid(), 9)\n    return line\n"
    )
    ended = cli("process", "items.txt", "-f", "work.py:work", "-o", "b.txt", "-w", "3", "-q")
    assert ended.code == 1
    assert "line 43" in ended.err.splitlines()[-1]


DEADLY = """
import os

if b"batchkit.worker" in open("/proc/self/cmdline", "rb").read():
    os.kill(os.getpid(), 9)
"""
IMPORTING = "import deadly\n\ndef work(line):\n    return deadly and line\n"
MADE = """
import os

class work:
    def __init__(self):
        os.kill(os.getpid(), 9)

    def __call__(self, line):
        return line
"""


@pytest.mark.slow
@pytest.mark.parametrize("function", [IMPORTING, MADE], ids=["import", "class"])
def test_a_function_that_kills_while_it_is_made_is_one_clear_error(workdir: Path, cli: Cli, function: str) -> None:
    """It would kill each worker in turn: there is an end to that."""
    (workdir / "deadly.py").write_text(DEADLY)
    (workdir / "work.py").write_text(function)
    path = {"PYTHONPATH": f"{workdir}:{os.environ.get('PYTHONPATH', '')}"}
    words = ["items.txt", "-f", "work.py:work", "-o", "b.txt", "-w", "4", "--progress", "log"]
    ended = cli("process", *words, env=path)
    assert ended.code == 1
    assert "worker process" in ended.err.splitlines()[-1]
    assert ended.err.count("another one takes its place") <= 16
    assert batchkit.Job("items-work").status().done == 0


@pytest.mark.slow
def test_budgets_hold_although_workers_die(workdir: Path) -> None:
    """Items that a dead worker had done and not committed are done again, and counted once."""

    def dies_often(item: str) -> str:
        time.sleep(0.001)
        if int(item) % 30 == 7 and not os.path.exists(f"died{item}"):
            with open(f"died{item}", "w"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    options: dict[str, Any] = {"batch_size": 4}
    for most in (101, 57, 133):
        result = run(dies_often, max_items=most, **options)
        assert (result.status, result.new) == ("paused", most)
    assert run(dies_often, **options).status == "completed"
    assert numbers(workdir) == list(range(ITEMS))
