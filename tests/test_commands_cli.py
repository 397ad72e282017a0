"""Commands on the command line: `-x`, `--exec-batch`; every test runs real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.test_cli import one_line, until_there
from tests.test_commands import HANGING, is_gone, number_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli

    Start = Callable[..., subprocess.Popen[str]]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("workdir")]

WAITING = "sh -c 'echo $$ > pid; touch reached; until [ -e go ]; do sleep 0.01; done; echo $1 >> ran; echo $1' -- {}"
"""A command that tells the test that it runs, and goes on when the test says so."""


@pytest.fixture(autouse=True)
def items(workdir: Path) -> None:
    """Leave four items."""
    (workdir / "items.txt").write_text("d\nb\na a\nc\n")


class TestRunning:
    """What is run, and what comes of it."""

    def test_a_command_is_run_for_each_item(self, cli: Cli) -> None:
        """`{#}` numbers them; the results are in order."""
        Path("out").mkdir()
        ended = cli(
            "process", "items.txt", "-x", "sh -c 'printf %s \"$1\" > $2; echo did $1' -- {} out/{#}", "-o", "o.txt"
        )
        assert ended.code == 0
        assert "items-sh: completed, 4 items done" in one_line(ended)
        assert Path("o.txt").read_text() == "did d\ndid b\ndid a a\ndid c\n"
        assert [Path(f"out/{number}").read_text() for number in range(1, 5)] == ["d", "b", "a a", "c"]

    def test_several_workers_number_the_items_of_the_whole_input(self, cli: Cli) -> None:
        """Each item has the same number as with one."""
        Path("items.txt").write_text("".join(f"item {number}\n" for number in range(1, 301)))
        ended = cli("process", "items.txt", "-x", "echo {#} {}", "-o", "o.txt", "-w", "3", "-b", "7")
        assert ended.code == 0, ended.err
        assert Path("o.txt").read_text() == "".join(f"{number} item {number}\n" for number in range(1, 301))

    def test_a_command_without_output_stores_nothing(self, cli: Cli) -> None:
        """The output is there, and empty."""
        ended = cli("process", "items.txt", "-x", "true {}", "-o", "log.jsonl")
        assert (ended.code, Path("log.jsonl").read_text()) == (0, "")

    def test_a_batch_goes_to_one_process(self, cli: Cli) -> None:
        """And its lines are the results; without -o they are printed."""
        ended = cli("process", "items.txt", "--exec-batch", "sort", "-b", "3")
        assert (ended.code, ended.out) == (0, "a a\nb\nd\nc\n")

    def test_columns_of_rows_are_arguments(self, cli: Cli) -> None:
        """By their names."""
        Path("rows.csv").write_text('id,name\n1,"a, b"\n2,-c\n')
        ended = cli("process", "rows.csv", "-x", "printf '%s=%s' {id} x{name}")
        assert (ended.code, ended.out) == (0, "1=xa, b\n2=x-c\n")

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["-x", "cat", "--exec-batch", "cat"], "give one of them"),
            (["-x", "cat", "-f", "os.path:basename"], "give one of them"),
            (["-x", "no-such-program {}"], "no program 'no-such-program'"),
            (["-x", "cat", "--batched"], "--exec-batch"),
            (["--exec-batch", "echo {}"], "standard input"),
            (["-x", "echo {} > {}.txt"], "sh -c"),
        ],
    )
    def test_wrong_usage_is_2(self, cli: Cli, words: list[str], said: str) -> None:
        """One line, before anything runs; no job is left."""
        ended = cli("process", "items.txt", "-o", "o.txt", *words)
        assert ended.code == 2
        assert said in one_line(ended)
        assert not Path(".batchkit").exists()

    def test_another_command_is_another_job(self, cli: Cli) -> None:
        """Exit 5, with both; the time limit may change."""
        for words in (["-x", "echo 1 {}"], ["-x", "echo 1 {}", "--timeout", "10s"]):
            assert cli("process", "items.txt", "-o", "o.txt", *words).code == 0
        ended = cli("process", "items.txt", "-o", "o.txt", "-x", "echo 2 {}")
        assert ended.code == 5
        assert "echo 1 {}, now command echo 2 {}" in one_line(ended)


class TestFailing:
    """A status other than zero, or too much time."""

    FAILING = "sh -c 'echo first >&2; [ \"$1\" != b ] || [ -e good ] || { echo no b >&2; exit 3; }; echo $1' -- {}"

    def test_a_failure_ends_the_run_with_its_status_and_stderr(self, cli: Cli) -> None:
        """In one line; all of it with -v."""
        ended = cli("process", "items.txt", "-x", self.FAILING, "-o", "o.txt")
        assert ended.code == 1
        assert "'b' at 'items.txt' line 2 (byte 2): CommandFailed: exit status 3: no b;" in one_line(ended)
        ended = cli("process", "items.txt", "-x", self.FAILING, "-o", "o.txt", "-v")
        assert "first\nno b\n" in ended.err

    def test_failures_are_kept_shown_and_run_again_by_the_same_command(self, cli: Cli) -> None:
        """`retry` needs no -x."""
        ended = cli("process", "items.txt", "-x", self.FAILING, "-o", "o.txt", "--on-error", "skip")
        assert ended.code == 3
        [failure] = json.loads(cli("failures", "items-sh", "--json").out)
        assert (failure["item"], failure["error"]) == ("b", "CommandFailed")
        assert failure["message"] == "exit status 3: no b"
        assert failure["traceback"] == "first\nno b\nCommandFailed: exit status 3: no b"
        assert "  first\n  no b\n" in cli("failures", "items-sh", "--last", "1").out
        assert cli("retry", "items-sh").code == 3
        Path("good").touch()
        assert cli("retry", "items-sh").code == 0
        assert Path("o.txt").read_text() == "d\nb\na a\nc\n"

    def test_failures_are_run_again_by_another_command(self, cli: Cli) -> None:
        """With -x; single items stay single."""
        cli("process", "items.txt", "-x", self.FAILING, "-o", "o.txt", "--on-error", "skip")
        assert cli("retry", "items-sh", "-x", "false {}").code == 3
        assert json.loads(cli("failures", "items-sh", "--json").out)[0]["message"] == "exit status 1"
        assert cli("retry", "items-sh", "--exec-batch", "cat").code == 2
        assert cli("retry", "items-sh", "-x", "echo now {}").code == 0
        assert Path("o.txt").read_text() == "d\nnow b\na a\nc\n"

    def test_a_command_that_takes_too_long_is_ended_with_all_it_started(self, cli: Cli) -> None:
        """And is a failure."""
        Path("items.txt").write_text("x\n")
        ended = cli("process", "items.txt", "-x", HANGING, "--timeout", "0.3s", "--on-error", "skip", "-o", "o.txt")
        assert ended.code == 3
        assert is_gone(number_in("pid"))
        [failure] = json.loads(cli("failures", "items-sh", "--json").out)
        assert (failure["error"], failure["message"]) == ("TimeoutError", "the command took longer than 0.3 s")


class TestStopping:
    """The command in hand is let finish, or ended."""

    def stop_when_it_runs(self, process: subprocess.Popen[str], *numbers: int) -> int:
        """Send signals once a command runs; return its process id."""
        until_there("reached", process)
        pid = number_in("pid")
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.2)  # two signals at once may be heard as one
        return pid

    def test_a_stop_lets_the_command_finish(self, start_cli: Start, cli: Cli) -> None:
        """Its result is committed; exit 75, and the next run goes on behind it."""
        words = "process", "items.txt", "-x", WAITING, "-o", "o.txt"
        with start_cli(*words) as process:
            self.stop_when_it_runs(process, signal.SIGTERM)
            assert process.poll() is None
            Path("go").touch()
            assert process.wait(20) == 75
        assert json.loads(cli("status", "items-sh", "--json").out)["done"] == 1
        assert cli(*words).code == 0
        assert Path("ran").read_text() == Path("o.txt").read_text() == "d\nb\na a\nc\n"

    def test_a_command_that_is_stopped_along_with_batchkit_has_not_failed(self, start_cli: Start, cli: Cli) -> None:
        """As by a service manager, which signals all processes; the next run begins with its item."""
        words = "process", "items.txt", "-x", WAITING, "-o", "o.txt", "--on-error", "skip"
        with start_cli(*words) as process:
            os.kill(self.stop_when_it_runs(process, signal.SIGTERM), signal.SIGTERM)
            assert process.wait(20) == 75
        status = json.loads(cli("status", "items-sh", "--json").out)
        assert (status["done"], status["failed"]) == (0, 0)

    def test_ctrl_c_at_the_terminal_reaches_batchkit_only(self) -> None:
        """The terminal sends it to batchkit's whole process group, in which the command is not."""
        words = "process", "items.txt", "-x", WAITING, "-o", "o.txt"
        with subprocess.Popen(
            [sys.executable, "-m", "batchkit", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            until_there("reached", process)
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.2)
            Path("go").touch()
            assert process.wait(20) == 75
        assert Path("ran").read_text() == "d\n"

    def test_a_second_signal_ends_the_command_too(self, start_cli: Start, cli: Cli) -> None:
        """At once, with what it started; the next run begins with its item."""
        hanging = "sh -c 'sleep 60 & echo $! > pid; touch reached; wait' -- {}"
        words = "process", "items.txt", "-x", hanging, "-o", "o.txt", "--job", "j"
        with start_cli(*words) as process:
            pid = self.stop_when_it_runs(process, signal.SIGTERM, signal.SIGTERM)
            assert process.wait(20) == 143
        assert is_gone(pid)
        assert json.loads(cli("status", "j", "--json").out)["done"] == 0

    def test_no_command_of_a_worker_is_left(self, start_cli: Start) -> None:
        """Whether the run is killed or aborted."""
        # It tells its number a little later: in the moment of its start, nobody has a hold on it yet.
        hanging = "sh -c 'sleep 60 & sleep 0.3; echo $! > pid{#}; wait' -- {}"
        for numbers in ([signal.SIGKILL], [signal.SIGTERM, signal.SIGTERM]):
            with start_cli("process", "items.txt", "-x", hanging, "-o", "o.txt", "-w", "2", "--job", "j") as process:
                pid = number_in("pid1")
                for number in numbers:
                    process.send_signal(number)
                    time.sleep(0.2)
                assert process.wait(20) in {-9, 143}
            assert is_gone(pid)
            Path("pid1").unlink()

    def test_a_killed_run_is_gone_on_with(self, start_cli: Start, cli: Cli) -> None:
        """What was committed is not run again; the command in hand dies with the run, and cannot go on beside."""
        words = "process", "items.txt", "-b", "1", "-o", "o.txt"
        wait = "sleep 60 & sleep 0.3; echo $! > pid; wait; exec sleep 60"  # a group need not die all at once
        held = f"sh -c '[ \"$1\" != b ] || [ -e go ] || {{ {wait}; }}; echo $1 >> ran; echo $1' -- {{}}"
        with start_cli(*words, "-x", held) as process:
            pid = number_in("pid")
            process.kill()
        assert is_gone(pid)
        assert Path("ran").read_text() == "d\n"
        Path("go").touch()
        ended = cli(*words, "-x", held)
        assert (ended.code, Path("o.txt").read_text()) == (0, "d\nb\na a\nc\n")
        assert Path("ran").read_text() == "d\nb\na a\nc\n"
