"""Steering a run at work from another process: stop, stop now, more time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import batchkit
from batchkit.budget import Budget
from batchkit.job import JobDirectory
from batchkit.steering import Listener
from tests.test_cli import one_line, until_there

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli

    Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.usefixtures("workdir")

SLOW = """
import os, time
from pathlib import Path

def slow(item):
    Path("reached").touch()
    with open("called", "a") as file:
        file.write(item + "\\n")
    time.sleep(0.05)
    return item

def held(item):
    Path("reached").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    time.sleep(0.05)  # else all is done before the request is heard
    return item
"""


@pytest.fixture(autouse=True)
def items(workdir: Path) -> None:
    """Leave a list that takes minutes, and functions."""
    (workdir / "items.txt").write_text("".join(f"{number}\n" for number in range(5000)))
    (workdir / "slow.py").write_text(SLOW)


def running(start_cli: Start, *words: str, function: str = "slow") -> subprocess.Popen[str]:
    """Start a run, and return when it calls the function."""
    process = start_cli("process", "items.txt", "-f", f"slow.py:{function}", "-o", "o.txt", "--job", "j", *words)
    until_there("reached", process)
    return process


@pytest.mark.slow
class TestStop:
    """`batchkit stop` and `Job.stop()`."""

    @pytest.mark.parametrize("words", [(), ("-w", "2"), ("-c", "4"), ("--rate", "2/s", "-b", "1"), ("--shard", "1/2")])
    def test_a_run_stops_cleanly(self, start_cli: Start, cli: Cli, words: tuple[str, ...]) -> None:
        """Exit 75, with the reason; what was called is committed, and the next run goes on behind it."""
        with running(start_cli, *words) as process:
            ended = cli("stop", "j", "--wait")
            assert (ended.code, one_line(ended)) == (0, "j: stopped; run the same command again to go on\n")
            assert process.wait(20) == 75
        status = batchkit.Job("j").status()
        assert status.status == "paused"
        assert status.reason == "somebody asked it to stop"
        if "-c" not in words:
            assert status.done == len(Path("called").read_text().splitlines())

    def test_the_item_in_hand_is_let_finish(self, start_cli: Start, cli: Cli) -> None:
        """And committed."""
        with running(start_cli, function="held") as process:
            assert cli("stop", "j").code == 0
            Path("go").touch()
            assert process.wait(20) == 75
        assert batchkit.Job("j").status().done > 0

    @pytest.mark.parametrize("words", [(), ("-w", "2")])
    def test_now_does_not_wait_for_it(self, start_cli: Start, cli: Cli, words: tuple[str, ...]) -> None:
        """As a second signal: exit 143, and the next run begins with that item."""
        with running(start_cli, *words, function="held") as process:
            assert cli("stop", "j", "--now").code == 0
            assert process.wait(20) == 143
        assert batchkit.Job("j").status().done == 0

    def test_a_run_that_waits_for_its_input_stops(self, cli: Cli) -> None:
        """Of a pipe into which nobody writes."""
        with subprocess.Popen(
            [sys.executable, "-m", "batchkit", "process", "-", "-o", "o.txt", "--job", "p", "-b", "1"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            process.stdin.write("a\n")
            process.stdin.flush()
            until_there(".batchkit/p/runs.jsonl", process)
            assert cli("stop", "p").code == 0
            assert process.wait(20) == 75

    def test_a_run_in_a_thread_stops(self) -> None:
        """Where no signal reaches it."""
        begun, results = threading.Event(), []

        def function(item: int) -> int:
            begun.set()
            return item

        def run() -> None:
            results.append(batchkit.process(range(10**9), function, job="t", batch_size=10))

        thread = threading.Thread(target=run)
        thread.start()
        assert begun.wait(20)
        batchkit.Job("t").stop()
        thread.join(20)
        assert (results[0].status, results[0].reason) == ("paused", "somebody asked it to stop")

    def test_a_retry_stops(self, start_cli: Start, cli: Cli) -> None:
        """It is a run, too."""
        Path("fail.py").write_text("def fail(item):\n    raise ValueError(item)\n")
        cli("process", "items.txt", "-f", "fail.py:fail", "-o", "o.txt", "--job", "j", "--on-error", "skip")
        with start_cli("retry", "j", "-f", "slow.py:slow") as process:
            until_there("reached", process)
            assert cli("stop", "j").code == 0
            assert process.wait(20) == 75


class TestNobodyThere:
    """Requests that nobody is to hear."""

    def test_what_does_not_run_cannot_be_stopped(self, cli: Cli) -> None:
        """Exit 2, and nothing is left that would stop the next run."""
        batchkit.process(["a"], str, job="j")
        ended = cli("extend", "j", "--max-time", "30m")
        assert (ended.code, "+30m" in one_line(ended)) == (2, True)
        for words in (["stop", "j"], ["extend", "j", "--max-time", "+30m"]):
            ended = cli(*words)
            assert ended.code == 2
            assert "is not running" in one_line(ended)
        assert not Path(".batchkit/j/request.json").exists()
        assert cli("stop", "unknown").code == 2

    def test_a_request_for_another_run_is_ignored(self) -> None:
        """One that came too late, and one that is not readable."""
        for text in (json.dumps({"claim": "of another", "stop": "now", "extra": 0.0}), "{", "[]", "null"):
            batchkit.process(range(3), str, job="j", max_items=1)
            Path(".batchkit/j/request.json").write_text(text)
            Listener(JobDirectory(".batchkit", "j"), b"", Budget()).listen()
            assert batchkit.process(range(3), str, job="j", restart=True).completed

    def test_a_request_that_cannot_be_read_ends_no_run(self) -> None:
        """Nor does one that cannot be removed: here it is a directory."""
        batchkit.process(range(3), str, job="j", max_items=1)
        Path(".batchkit/j/request.json").mkdir()
        Listener(JobDirectory(".batchkit", "j"), b"", Budget()).listen()
        assert batchkit.process(range(3), str, job="j").completed


@pytest.mark.slow
class TestExtend:
    """`batchkit extend`."""

    @pytest.mark.parametrize("words", [(), ("-w", "2")])
    def test_a_run_gets_more_time(self, start_cli: Start, cli: Cli, words: tuple[str, ...]) -> None:
        """It goes on beyond its limit, until it is stopped."""
        with running(start_cli, "--max-time", "6s", *words) as process:
            assert cli("extend", "j", "--max-time", "+1h").code == 0
            assert batchkit.Job("j").overview().runs[-1].limit == 3606.0
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(8)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 75
        assert batchkit.Job("j").status().reason == "asked to stop by SIGTERM"

    def test_a_run_without_a_limit_has_nothing_to_extend(self, start_cli: Start, cli: Cli) -> None:
        """Exit 2."""
        with running(start_cli) as process:
            ended = cli("extend", "j", "--max-time", "+1h")
            process.kill()
        assert ended.code == 2
        assert "no time limit" in one_line(ended)
