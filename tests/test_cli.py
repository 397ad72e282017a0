"""The command line: exit codes, messages, pipes; every test runs real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import batchkit

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from tests.conftest import Cli, Ended

    Start = Callable[..., subprocess.Popen[str]]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("workdir")]

FUNCTIONS = """
import os, time

def upper(item):
    return item.upper()

def fail(item):
    if item == "c":
        raise ValueError("no c, please")
    return item

def show(item):
    return repr(item)

def together(items):
    return [",".join(items)]

def wait(item):
    # Tell the test that the call is in hand, and go on when the test says so.
    open("reached", "w").close()
    until = time.monotonic() + 30
    while not os.path.exists("go") and time.monotonic() < until:
        time.sleep(0.005)
    return item

class Broken:
    def __init__(self):
        raise OSError("no connection")

    def __call__(self, item):
        return item
"""


@pytest.fixture(autouse=True)
def files(workdir: Path) -> None:  # noqa: ARG001  # works in it
    """Leave four items and some functions."""
    Path("items.txt").write_text("a\nb\nc\nd\n")
    Path("work.py").write_text(FUNCTIONS)


def one_line(ended: Ended) -> str:
    """Return the one line that a command said; anything more, and any traceback, is wrong."""
    assert "Traceback" not in ended.err
    assert ended.err.endswith("\n")
    assert ended.err.count("\n") == 1, ended.err
    return ended.err


def until_there(path: str, process: subprocess.Popen[str]) -> None:
    """Wait for a file that a process makes."""
    deadline = time.monotonic() + 20
    while not Path(path).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def begin(job: str, output: str = "out.txt", **options: Any) -> None:
    """Run a job in this process, where only what comes after it is under test."""
    batchkit.process("items.txt", output=output, job=job, progress="none", **options)


@pytest.fixture
def waiting(start_cli: Start) -> Iterator[subprocess.Popen[str]]:
    """Start a job that holds its first item until the file `go` is there."""
    with start_cli("process", "items.txt", "-f", "work.py:wait", "-o", "out.txt", "--job", "wait") as process:
        try:
            until_there("reached", process)
            yield process
        finally:
            process.kill()


class TestExitCodes:
    """What a script can rely on."""

    def test_completed_is_0(self, cli: Cli) -> None:
        """All done: exit 0, a summary on standard error, nothing on standard output."""
        ended = cli("process", "items.txt", "-f", "work.py:upper", "-o", "out.txt")
        assert (ended.code, ended.out) == (0, "")
        assert "items-upper: completed, 4 items done" in one_line(ended)
        assert Path("out.txt").read_text() == "A\nB\nC\nD\n"

    def test_a_completed_job_says_so_and_how_to_start_over(self, cli: Cli) -> None:
        """Nothing to do is success; nothing is printed again."""
        for expected in ("A\nB\nC\nD\n", ""):
            ended = cli("process", "items.txt", "-f", "work.py:upper")
            assert (ended.code, ended.out) == (0, expected)
        assert "nothing new to do (--restart starts over)" in one_line(ended)

    def test_failed_is_1(self, cli: Cli) -> None:
        """One line with item, place, error and what next; what came before is kept."""
        ended = cli("process", "items.txt", "-f", "work.py:fail", "-o", "out.txt")
        assert ended.code == 1
        line = one_line(ended)
        for part in (
            "batchkit: ",
            "'c'",
            "'items.txt' line 3 (byte 4)",
            "ValueError: no c, please",
            "next run begins with it",
        ):
            assert part in line
        assert json.loads(cli("status", "items-fail", "--json").out)["done"] == 2

    @pytest.mark.parametrize("flag", ["-v", "-qv"])
    def test_verbose_shows_the_traceback(self, cli: Cli, flag: str) -> None:
        """The traceback comes with -v, and the line stays the last."""
        ended = cli("process", "items.txt", "-f", "work.py:fail", "-o", "out.txt", flag)
        assert (ended.code, "Traceback" in ended.err, "work.py" in ended.err) == (1, True, True)
        assert ended.err.splitlines()[-1].startswith("batchkit: the function failed")

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["missing.txt"], ["no file 'missing.txt'"]),
            (["."], ["no .parquet file in '.'", "*"]),
            (["items.txt", "-f", "work.py:nothing"], ["'work.py' has no 'nothing'", "upper"]),
            (["items.txt", "-f", "nowhere.py:f"], ["no file 'nowhere.py'"]),
            (["items.txt", "--job", "../elsewhere"], ["'../elsewhere'", "plain name"]),
            (["items.txt", "-o", "nowhere/out.txt"], ["no directory", "nowhere'", "mkdir -p"]),
            (["items.txt", "-o", "out.xlsx"], [".xlsx", ".jsonl", ".parquet"]),
            (["items.txt", "-o", "work.py"], ["work.py' exists", "--overwrite"]),
            (["items.txt", "--max-time", "soon"], ["max_time", "'soon'", "2h30m"]),
            (["items.txt", "--until", "later"], ["'later'", "06:00"]),
            (["items.txt", "-b", "0"], ["batch_size", "0"]),
            (["items.txt", "--json"], ["--json needs -o"]),
            (["items.txt", "-d", "\\"], ["delimiter"]),
            (["items.txt", "-d", "\\x"], ["delimiter"]),
            (["items.txt", "-"], ["standard input", "alone"]),
        ],
    )
    def test_wrong_usage_is_2(self, cli: Cli, words: list[str], said: list[str]) -> None:
        """One line that says what is wrong and what would be right; nothing is begun."""
        ended = cli("process", *words)
        assert (ended.code, ended.out) == (2, "")
        line = one_line(ended)
        for part in said:
            assert part in line
        assert not list(Path(".batchkit").glob("*/job.json"))

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["process"], "SOURCE"),
            (["process", "items.txt", "--max-items", "many"], "many"),
            (["process", "items.txt", "--max-item-bytes", "big"], "64MB"),
            (["process", "items.txt", "--nonsense"], "--nonsense"),
            (["nonsense"], "nonsense"),
            (["status", "missing"], "no job 'missing'"),
            (["reset", "missing"], "no job 'missing'"),
            (["prune", "--older", "old"], "'old'"),
        ],
    )
    def test_what_the_command_line_itself_refuses_is_2_and_one_line_too(
        self, cli: Cli, words: list[str], said: str
    ) -> None:
        """Every message is one line: what, where, what next."""
        ended = cli(*words)
        assert (ended.code, ended.out) == (2, "")
        assert said in one_line(ended)

    def test_locked_is_4(self, cli: Cli, waiting: subprocess.Popen[str]) -> None:
        """A job in work is refused, naming pid, host and since when; looking at it before changes nothing."""
        assert json.loads(cli("status", "wait", "--json").out)["status"] == "running"
        ended = cli("process", "items.txt", "-f", "work.py:wait", "-o", "out.txt", "--job", "wait")
        assert ended.code == 4
        host = re.escape(os.uname().nodename)
        assert re.search(rf"'wait'.* pid {waiting.pid} on {host} since 20\d\d-\d\d-\d\d \d\d:", one_line(ended))

    def test_a_running_job_is_not_removed(self, cli: Cli, waiting: subprocess.Popen[str]) -> None:
        """`rm` is refused while the job runs."""
        assert cli("rm", "wait").code == 4
        Path("go").touch()
        assert waiting.wait(20) == 0

    def test_a_changed_input_is_5(self, cli: Cli) -> None:
        """One line naming the file, what changed and the ways on."""
        cli("process", "items.txt", "--max-items", "2")
        Path("items.txt").write_text("other\n")
        ended = cli("process", "items.txt")
        assert (ended.code, ended.out) == (5, "")
        for part in ("'items'", "items.txt", "shrank", "--restart", "--on-input-change continue"):
            assert part in one_line(ended)
        assert cli("process", "items.txt", "--on-input-change", "restart").out == "other\n"

    def test_another_definition_is_5(self, cli: Cli) -> None:
        """One line naming what differs and the ways on."""
        cli("process", "items.txt", "--job", "load", "--max-items", "2", "-o", "out.txt")
        ended = cli("process", "items.txt", "--job", "load", "-f", "work.py:upper", "-o", "out.txt")
        assert ended.code == 5
        for part in ("'load'", "another function", "upper", "--job NAME", "--restart"):
            assert part in one_line(ended)

    def test_an_edited_output_is_5(self, cli: Cli) -> None:
        """A published output that somebody edited is not taken for the job's."""
        cli("process", "items.txt", "-o", "out.txt")
        Path("out.txt").write_text("edited\n")
        ended = cli("process", "items.txt", "-o", "out.txt")
        assert ended.code == 5
        assert "out.txt' was changed" in one_line(ended)

    @pytest.mark.parametrize("budget", [["--max-items", "3"], ["--max-batches", "1", "-b", "3"], ["--max-time", "0"]])
    def test_paused_is_75(self, cli: Cli, budget: list[str]) -> None:
        """Stopped cleanly with work left; the line says why, how much is left, and what next."""
        ended = cli("process", "items.txt", "-o", "out.txt", *budget)
        assert (ended.code, Path("out.txt").exists()) == (75, False)
        assert re.search(
            r"items: paused, .*: \d items? done .* left.*; run the same command again to go on", one_line(ended)
        )
        assert cli("process", "items.txt", "-o", "out.txt").code == 0
        assert Path("out.txt").read_text() == "a\nb\nc\nd\n"

    @pytest.mark.parametrize("code", [0, 3])
    def test_the_paused_exit_code_can_be_chosen(self, cli: Cli, code: int) -> None:
        """For schedulers that dislike 75."""
        assert cli("process", "items.txt", "--max-items", "1", "--paused-exit-code", str(code)).code == code

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_one_signal_pauses(self, cli: Cli, waiting: subprocess.Popen[str], number: signal.Signals) -> None:
        """The item in hand is finished and committed, then exit 75."""
        waiting.send_signal(number)
        Path("go").touch()
        _, err = waiting.communicate(timeout=20)
        assert waiting.returncode == 75
        assert f"asked to stop by {number.name}: 1 item done" in err
        assert cli("process", "items.txt", "-f", "work.py:wait", "-o", "out.txt", "--job", "wait").code == 0
        assert Path("out.txt").read_text() == "a\nb\nc\nd\n"

    @pytest.mark.parametrize(
        ("first", "second", "code"), [(signal.SIGINT, signal.SIGTERM, 143), (signal.SIGHUP, signal.SIGINT, 130)]
    )
    def test_a_second_signal_leaves_at_once(
        self, cli: Cli, waiting: subprocess.Popen[str], first: signal.Signals, second: signal.Signals, code: int
    ) -> None:
        """130/143: aborted, which is only a crash; the same command goes on."""
        waiting.send_signal(first)
        waiting.send_signal(second)
        _, err = waiting.communicate(timeout=20)
        assert (waiting.returncode, "Traceback" in err) == (code, False)
        status = json.loads(cli("status", "wait", "--json").out)
        assert (status["status"], status["done"]) == ("new", 0)
        Path("go").touch()
        assert cli("process", "items.txt", "-f", "work.py:wait", "-o", "out.txt", "--job", "wait").code == 0
        assert Path("out.txt").read_text() == "a\nb\nc\nd\n"

    def test_a_class_that_cannot_be_made_is_one_line(self, cli: Cli) -> None:
        """No traceback unless -v, whatever of the user's code fails."""
        ended = cli("process", "items.txt", "-f", "work.py:Broken", "-o", "out.txt")
        assert ended.code == 1
        assert "no connection" in one_line(ended)

    def test_a_state_directory_that_others_may_write_is_refused(self, cli: Cli) -> None:
        """One line with the command that mends it."""
        Path("shared").mkdir()
        Path("shared").chmod(0o777)
        ended = cli("process", "items.txt", "--state-dir", "shared")
        assert ended.code == 1
        assert re.search("others may write .*shared'; run: chmod go-w", one_line(ended))

    def test_a_state_directory_that_is_a_file_is_one_line(self, cli: Cli) -> None:
        """The path and the cause are named."""
        ended = cli("process", "items.txt", "--state-dir", "items.txt")
        assert ended.code == 1
        assert re.search(r"items\.txt", one_line(ended))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read_is_one_line(self, cli: Cli) -> None:
        """The path and the cause are named."""
        Path("items.txt").chmod(0)
        ended = cli("process", "items.txt")
        assert ended.code == 1
        assert "cannot read 'items.txt': Permission denied" in one_line(ended)

    def test_two_jobs_with_one_output_are_refused(self, cli: Cli) -> None:
        """The line names the other job, --overwrite and another -o."""
        cli("process", "items.txt", "-o", "out.txt", "--job", "first", "--max-items", "1")
        ended = cli("process", "items.txt", "-o", "out.txt", "--job", "second")
        assert ended.code == 2
        for part in ("out.txt", "first", "--overwrite"):
            assert part in one_line(ended)


class TestStreams:
    """stdout is data, stderr is talk."""

    def test_results_go_to_standard_output(self, cli: Cli) -> None:
        """Without -o results are printed; with no function items are unchanged, as with xargs."""
        assert cli("process", "items.txt").out == "a\nb\nc\nd\n"
        assert cli("process", "items.txt", "-f", "work:upper").out == "A\nB\nC\nD\n"
        assert cli("process", "items.txt", "-f", "work.py:together", "--batched", "-b", "3").out == "a,b,c\nd\n"

    def test_items_come_from_standard_input(self, cli: Cli) -> None:
        """`-` is standard input."""
        ended = cli("process", "-", "-f", "work.py:upper", stdin="x\ny")
        assert (ended.code, ended.out) == (0, "X\nY\n")
        assert "stdin-upper: completed, 2 items" in one_line(ended)

    def test_an_empty_standard_input_is_success(self, cli: Cli) -> None:
        """Nothing to do is success."""
        assert cli("process", "-", stdin="")[:2] == (0, "")

    def test_a_pipe_is_gone_on_with(self, cli: Cli) -> None:
        """The same input again: what is done is read and passed; more of it is taken; another input is refused."""
        text = "".join(f"line {number}\n" for number in range(50))
        assert cli("process", "-", "-o", "out.txt", "--max-items", "20", stdin=text).code == 75
        assert cli("process", "-", "-o", "out.txt", stdin=text).code == 0
        assert cli("process", "-", "-o", "out.txt", stdin=text + "more\n").code == 0
        assert Path("out.txt").read_text() == text + "more\n"
        for other in ("short\n", "x" * len(text) + "\nmore\nand\n"):
            ended = cli("process", "-", "-o", "out.txt", stdin=other)
            assert ended.code == 5
            one_line(ended)

    def test_nul_and_other_delimiters(self, cli: Cli) -> None:
        """-0 as of find -print0; -d takes escapes for tab, line end and NUL, and any text."""
        for words, text in (
            (["-0"], "a\nb\0c\0"), (["-d", "\\t"], "a\nb\tc"), (["-d", "||"], "a\nb||c||"), (["-d", "§"], "a\nb§c§"),
        ):  # fmt: skip
            ended = cli("process", "-", "-f", "work.py:show", *words, "--restart", stdin=text)
            assert (ended.code, ended.out) == (0, "'a\\nb'\n'c'\n"), words

    def test_head_ends_it_quietly(self, cli: Cli, start_cli: Start) -> None:
        """`| head`: no error and no traceback; what was printed is committed, and the rest comes with the next run."""
        lines = [f"{number:<99}\n" for number in range(5000)]
        Path("items.txt").write_text("".join(lines))
        with start_cli("process", "items.txt") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == lines[0]
            process.stdout.close()
            err = process.stderr.read()
        assert process.returncode == 75
        assert "Traceback" not in err
        assert "Error" not in err
        done = json.loads(cli("status", "items", "--json").out)["done"]
        assert 0 < done < 5000
        assert cli("process", "items.txt").out == "".join(lines[done:])

    def test_a_paused_job_does_not_lose_its_beginning_to_an_empty_file(self, start_cli: Start) -> None:
        """`>` on a resume would lose the first results: exit 2 naming -o, >> and --restart; `>>` works."""
        with (
            Path("out").open("w") as out,
            start_cli("process", "items.txt", "--max-items", "2", stdout=out.fileno()) as process,
        ):
            process.communicate(timeout=20)
        assert process.returncode == 75
        with Path("empty").open("w") as out, start_cli("process", "items.txt", stdout=out.fileno()) as process:
            _, err = process.communicate(timeout=20)
        assert process.returncode == 2
        for part in ("2 items", "-o FILE", ">>", "--restart"):
            assert part in err
        with Path("out").open("a") as out, start_cli("process", "items.txt", stdout=out.fileno()) as process:
            process.communicate(timeout=20)
        assert process.returncode == 0
        assert Path("out").read_text() == "a\nb\nc\nd\n"

    def test_json_says_what_the_run_did(self, cli: Cli) -> None:
        """--json prints one object; the talk stays on standard error."""
        ended = cli("process", "items.txt", "-o", "out.txt", "--max-items", "3", "--json")
        found = json.loads(ended.out)
        assert (found["job"], found["status"], found["done"], found["new"]) == ("items", "paused", 3, 3)
        assert (found["failed"], found["skipped"], found["output"]) == (0, 0, str(Path.cwd() / "out.txt"))
        assert {"reason", "total", "share", "seconds"} <= found.keys()

    def test_quiet_says_nothing_but_errors(self, cli: Cli) -> None:
        """-q: nothing on standard error unless it fails."""
        assert cli("process", "items.txt", "-q") == (0, "a\nb\nc\nd\n", "")
        assert one_line(cli("process", "items.txt", "-q", "-f", "work.py:fail"))

    def test_results_survive_a_locale_without_utf8(self, cli: Cli) -> None:
        """Text is UTF-8, whatever the environment says."""
        Path("items.txt").write_text("é🐎\n")
        env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        ended = cli("process", "items.txt", "-o", "out.txt", env=env)
        assert (ended.code, Path("out.txt").read_text(encoding="utf-8")) == (0, "é🐎\n")


class TestStatus:
    """Looking at jobs."""

    @staticmethod
    def status(cli: Cli, job: str) -> dict[str, Any]:
        """Return what `status --json` says of a job."""
        ended = cli("status", job, "--json")
        assert (ended.code, ended.err) == (0, "")
        found: dict[str, Any] = json.loads(ended.out)
        return found

    def test_it_has_the_fields_it_promises(self, cli: Cli) -> None:
        """An object for one job."""
        begin("items", max_items=3)
        found = self.status(cli, "items")
        assert {"job", "status", "reason", "done", "total", "failed", "skipped", "output"} <= found.keys()
        assert (found["status"], found["done"], found["total"], found["share"]) == ("paused", 3, None, 0.75)
        assert found["output"] == str(Path.cwd() / "out.txt")

    def test_a_job_is_new_before_its_first_commit(self, cli: Cli) -> None:
        """New = no commit yet."""
        begin("items", max_items=0)
        assert self.status(cli, "items")["status"] == "new"

    def test_a_job_that_failed_is_failed_until_it_goes_on(self, cli: Cli) -> None:
        """Failed = not running, and the last run ended by an error, which is the reason."""
        cli("process", "items.txt", "-f", "work.py:fail", "-o", "out.txt")
        found = self.status(cli, "items-fail")
        assert (found["status"], found["done"], "no c, please" in found["reason"]) == ("failed", 2, True)
        Path("work.py").write_text(FUNCTIONS.replace('"c"', '"none"'))  # longer: pyc files go by size
        cli("process", "items.txt", "-f", "work.py:fail", "-o", "out.txt")
        found = self.status(cli, "items-fail")
        assert (found["status"], found["done"], found["total"], found["reason"]) == ("completed", 4, 4, None)

    def test_a_job_is_running_until_it_is_killed(self, cli: Cli, waiting: subprocess.Popen[str]) -> None:
        """A killed process leaves nothing to repair: the lock dies with it."""
        found = self.status(cli, "wait")
        assert (found["status"], f"pid {waiting.pid} " in found["reason"]) == ("running", True)
        assert "wait: running" in cli("status").out
        waiting.kill()
        waiting.wait(20)
        assert self.status(cli, "wait")["status"] == "new"

    def test_without_a_name_it_shows_all(self, cli: Cli) -> None:
        """A line for each job, or a JSON list; none is no error."""
        ended = cli("status")
        assert (ended.code, ended.out) == (0, "")
        assert "no jobs" in one_line(ended)
        assert json.loads(cli("status", "--json").out) == []
        begin("one", "one.txt", max_items=1)
        begin("two")
        first, second = cli("status").out.splitlines()
        assert first.startswith("one: paused, 1 items done (25.0%)")
        assert second.startswith("two: completed, 4 of 4 items done")
        assert second.endswith(str(Path.cwd() / "out.txt"))
        assert [found["job"] for found in json.loads(cli("status", "--json").out)] == ["one", "two"]

    def test_looking_changes_nothing(self, cli: Cli) -> None:
        """`status` writes no file."""
        begin("items", max_items=1)
        before = {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for path in Path(".batchkit").rglob("*")
            if path.is_file()
        }
        cli("status")
        cli("status", "items", "--json")
        after = {
            path: (path.stat().st_mtime_ns, path.read_bytes())
            for path in Path(".batchkit").rglob("*")
            if path.is_file()
        }
        assert after == before

    def test_the_state_directory_can_be_named(self, cli: Cli) -> None:
        """--state-dir or $BATCHKIT_STATE_DIR."""
        begin("items", state_dir="there")
        assert cli("status", "--state-dir", "there").out == cli("status", env={"BATCHKIT_STATE_DIR": "there"}).out != ""


class TestClearing:
    """reset, rm, prune."""

    def test_reset_starts_over(self, cli: Cli) -> None:
        """The next run does everything again."""
        cli("process", "items.txt", "--max-items", "3")
        ended = cli("reset", "items")
        assert (ended.code, ended.out) == (0, "")
        assert "the next run starts over" in one_line(ended)
        assert cli("process", "items.txt").out == "a\nb\nc\nd\n"

    def test_rm_removes_jobs_and_keeps_outputs(self, cli: Cli) -> None:
        """Published outputs stay; unfinished parts go."""
        begin("one")
        begin("two", "half.txt", max_items=1)
        assert cli("rm", "one", "two").code == 0
        assert "no jobs" in cli("status").err
        assert sorted(path.name for path in Path().iterdir() if path.suffix in {".txt", ".parts"}) == [
            "items.txt",
            "out.txt",
        ]

    def test_rm_of_several_removes_none_if_one_is_missing(self, cli: Cli) -> None:
        """Raise early: nothing was done."""
        begin("one")
        assert cli("rm", "one", "missing").code == 2
        assert cli("status", "one").code == 0

    def test_rm_removes_a_damaged_job_as_its_message_says(self, cli: Cli) -> None:
        """A manifest that cannot be read says `batchkit rm`, so that must work."""
        begin("items", max_items=1)
        Path(".batchkit/items/job.json").write_text("{")
        ended = cli("process", "items.txt", "-o", "out.txt")
        assert ended.code == 1
        assert "batchkit rm items" in one_line(ended)
        assert cli("rm", "items").code == 0
        assert "no jobs" in cli("status").err

    def test_prune_removes_completed_jobs_that_are_old(self, cli: Cli) -> None:
        """Only completed ones, only after so long; --dry-run only says so."""
        begin("done")
        begin("half", "half.txt", max_items=1)
        assert "no completed job" in one_line(cli("prune", "--older", "1h"))
        assert "done: would be removed" in one_line(cli("prune", "--older", "0s", "--dry-run"))
        assert "done: removed" in one_line(cli("prune", "--older", "0s"))
        assert cli("status").out.startswith("half: paused")


class TestHelp:
    """What a person finds out alone."""

    def test_the_version_is_told(self, cli: Cli) -> None:
        """--version: name and version."""
        assert cli("--version") == (0, f"batchkit {batchkit.__version__}\n", "")

    @pytest.mark.parametrize("words", [[], ["process"], ["status"], ["reset"], ["rm"], ["prune"]])
    def test_every_command_helps_with_examples_and_explains_its_options(self, cli: Cli, words: list[str]) -> None:
        """Each --help shows a command that can be copied, and no option stands without words."""
        ended = cli(*words, "-h" if not words else "--help")
        assert (ended.code, ended.err) == (0, "")
        assert re.search(rf"Examples?:\n +batchkit {' '.join(words)}", ended.out)
        options = re.split(r"Examples?:|Commands:", ended.out.split("Options:")[1])[0]
        for option in re.split(r"\n  (?=-)", options)[1:]:
            assert len(option.split()) > 2, option

    def test_the_help_names_every_command_and_exit_code(self, cli: Cli) -> None:
        """The first page says what there is."""
        out = cli("--help").out
        for part in ("process", "status", "reset", "rm", "prune", "75", "130/143"):
            assert part in out
