"""Failures on the command line: what runs do with them, exit codes, `status`, `failures` and `retry`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import batchkit
from batchkit.cli import main
from tests.conftest import Ended

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli

    Command = Callable[..., Ended]

pytestmark = pytest.mark.usefixtures("workdir")

FOREVER = math.inf


class Fates:
    """What happens to items: how often they fail, or how else they are special. `calls`: every item of every call."""

    left: dict[str, Any] = {}  # noqa: RUF012  # shared on purpose
    calls: list[str] = []  # noqa: RUF012


@pytest.fixture(autouse=True)
def _peace() -> None:
    Fates.left = {}
    Fates.calls = []


class Temporary(Exception):
    """What goes away by itself."""


def one(item: str) -> Any:
    """Give the item in capitals, unless its fate is another."""
    Fates.calls.append(item)
    fate = Fates.left.get(item, 0)
    if fate == "skip":
        raise batchkit.SkipItem
    if fate == "fatal":
        raise KeyError(item)
    if fate == "unfit":
        return f"{item}\n{item}"
    if fate:
        Fates.left[item] = fate - 1
        raise Temporary(f"no {item} now")
    return item.upper()


def many(items: list[str]) -> list[Any]:
    """Do it with a list."""
    return list(map(one, items))


def flat(items: list[str]) -> list[Any]:
    """Do it with a list, and tell nobody which result is whose."""
    return [result for item in items for result in [one(item)] * 2]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process, where the functions of this file are."""

    def run(*words: str) -> Ended:
        capsys.readouterr()
        code: Any = 0
        try:
            main.main(list(words), prog_name="batchkit")
        except SystemExit as error:
            code = error.code
        return Ended(code or 0, *capsys.readouterr())

    return run


def one_line(ended: Ended) -> str:
    """Return the one line that a command said on standard error."""
    assert "Traceback" not in ended.err
    assert ended.err.count("\n") == 1, ended.err
    return ended.err


class Row(NamedTuple):
    """A case of the table.

    fates: of some of the items a, b, c ... options: of `process`. output: of the run; `None`: not published.
    failures: item and attempts. status, done, failed, skipped: as `status` shows them. code: of the run.
    said: what the message says. next_code, next_output: of the same command again, when `mended` are fine.
    """

    case: str
    items: str
    fates: dict[str, Any]
    options: str
    output: str | None
    failures: list[tuple[str, int]]
    status: tuple[str, int, int, int]
    code: int
    said: str
    mended: str = ""
    next_code: int | None = None
    next_output: str | None = None


SKIP = "--on-error skip "
TABLE = [
    Row("all good", "abcdefg", {}, "", "ABCDEFG", [], ("completed", 7, 0, 0), 0, "completed, 7 items done"),
    Row("no items", "", {}, "", "", [], ("completed", 0, 0, 0), 0, "the input has no items"),
    Row(
        "fail at an item and resume",
        "abcdefg",
        {"e": FOREVER},
        "",
        None,
        [],
        ("failed", 4, 0, 0),
        1,
        "the function failed on 'e' at 'items.txt' line 5 (byte 8): Temporary: no e now; everything before it is kept, "
        "the next run begins with it, or passes it over with --on-error skip",
        "e",
        0,
        "ABCDEFG",
    ),
    Row(
        "fail at the first item",
        "abc",
        {"a": FOREVER},
        "",
        None,
        [],
        ("failed", 0, 0, 0),
        1,
        "failed on 'a'",
        "a",
        0,
        "ABC",
    ),
    Row(
        "fail again at the same item",
        "abcdefg",
        {"e": FOREVER},
        "",
        None,
        [],
        ("failed", 4, 0, 0),
        1,
        "failed on 'e'",
        "",
        1,
        None,
    ),
    Row(
        "skip one",
        "abcdefg",
        {"c": FOREVER},
        SKIP,
        "ABDEFG",
        [("c", 1)],
        ("completed", 6, 1, 0),
        3,
        "completed, 6 items done, 1 failed",
        "c",
        3,
        "ABDEFG",
    ),
    Row(
        "skip limit not reached",
        "abcdefg",
        {"b": FOREVER, "f": FOREVER},
        SKIP + "--max-failures 2",
        "ACDEG",
        [("b", 1), ("f", 1)],
        ("completed", 5, 2, 0),
        3,
        "see: batchkit failures j, run them again: batchkit retry j",
    ),
    Row(
        "skip limit reached",
        "abcdefghi",
        {"b": FOREVER, "c": FOREVER, "e": FOREVER},
        SKIP + "--max-failures 2",
        None,
        [("b", 1), ("c", 1), ("e", 1)],
        ("failed", 3, 3, 0),
        1,
        "3 of 6 items failed, more than max_failures=2 allows",
        "bce",
        1,
        None,
    ),
    Row(
        "share limit reached at the end",
        "abcdefghij",
        {"b": FOREVER, "c": FOREVER},
        SKIP + "--max-failures 19%",
        None,
        [("b", 1), ("c", 1)],
        ("failed", 8, 2, 0),
        1,
        "2 of 10 items failed, more than max_failures=19% allows",
        "bc",
        1,
        None,
    ),
    Row(
        "share limit not reached",
        "abcdefghij",
        {"b": FOREVER, "c": FOREVER},
        SKIP + "--max-failures 20%",
        "ADEFGHIJ",
        [("b", 1), ("c", 1)],
        ("completed", 8, 2, 0),
        3,
        "2 failed",
    ),
    Row(
        "success at the third attempt",
        "abcde",
        {"d": 2},
        "--retries 2 --retry-wait 0",
        "ABCDE",
        [],
        ("completed", 5, 0, 0),
        0,
        "5 items done",
    ),
    Row(
        "too few attempts",
        "abcde",
        {"d": FOREVER},
        "--retries 2 --retry-wait 0",
        None,
        [],
        ("failed", 3, 0, 0),
        1,
        "in 3 attempts: Temporary",
        "d",
        0,
        "ABCDE",
    ),
    Row(
        "retries and skip",
        "abcde",
        {"b": FOREVER, "d": 1},
        SKIP + "--retries 2 --retry-wait 0",
        "ACDE",
        [("b", 3)],
        ("completed", 4, 1, 0),
        3,
        "1 failed",
    ),
    Row(
        "an error that is not tried again",
        "abcde",
        {"b": "fatal", "c": 1},
        SKIP + "--retries 2 --retry-wait 0 --retry-on tests.test_failure_cli:Temporary,OSError",
        "ACDE",
        [("b", 1)],
        ("completed", 4, 1, 0),
        3,
        "1 failed",
    ),
    Row(
        "failure in the last, partial batch",
        "abcdefg",
        {"g": FOREVER},
        SKIP,
        "ABCDEF",
        [("g", 1)],
        ("completed", 6, 1, 0),
        3,
        "1 failed",
    ),
    Row(
        "stop in the last, partial batch",
        "abcdefg",
        {"g": FOREVER},
        "",
        None,
        [],
        ("failed", 6, 0, 0),
        1,
        "failed on 'g'",
        "g",
        0,
        "ABCDEFG",
    ),
    Row(
        "two bad items next to each other",
        "abcdefg",
        {"b": FOREVER, "c": FOREVER},
        SKIP,
        "ADEFG",
        [("b", 1), ("c", 1)],
        ("completed", 5, 2, 0),
        3,
        "2 failed",
    ),
    Row(
        "two bad items over the border of a batch",
        "abcdefg",
        {"c": FOREVER, "d": FOREVER},
        SKIP,
        "ABEFG",
        [("c", 1), ("d", 1)],
        ("completed", 5, 2, 0),
        3,
        "2 failed",
    ),
    Row(
        "every item bad",
        "abcdefg",
        dict.fromkeys("abcdefg", FOREVER),
        SKIP,
        "",
        [(item, 1) for item in "abcdefg"],
        ("completed", 0, 7, 0),
        3,
        "completed, 0 items done, 7 failed",
    ),
    Row(
        "failure while writing",
        "abcdefg",
        {"d": "unfit"},
        SKIP,
        "ABCEFG",
        [("d", 1)],
        ("completed", 6, 1, 0),
        3,
        "1 failed",
    ),
    Row(
        "stop at a failure while writing",
        "abcdefg",
        {"d": "unfit"},
        "",
        None,
        [],
        ("failed", 3, 0, 0),
        1,
        "the result of 'd' at 'items.txt' line 4 (byte 6) (batch 2) cannot be stored",
        "d",
        0,
        "ABCDEFG",
    ),
    Row(
        "dropped on purpose",
        "abcdefg",
        {"b": "skip", "g": "skip"},
        "",
        "ACDEF",
        [],
        ("completed", 5, 0, 2),
        0,
        "5 items done, 2 skipped",
    ),
    Row(
        "one of each",
        "abcdefg",
        {"a": "skip", "b": FOREVER, "c": "unfit", "d": "fatal", "e": 1},
        SKIP + "--retries 1 --retry-wait 0",
        "EFG",
        [("b", 2), ("c", 1), ("d", 2)],
        ("completed", 3, 3, 1),
        3,
        "3 items done, 3 failed, 1 skipped",
    ),
    Row(
        "paused with a failure",
        "abcdefg",
        {"b": FOREVER},
        SKIP + "--max-items 3",
        None,
        [("b", 1)],
        ("paused", 2, 1, 0),
        75,
        "paused, the number of items asked for is done: 2 items done, 1 failed",
        "",
        75,
        None,
    ),
]


class TestTable:
    """Restart, skip and retry, case by case."""

    @pytest.mark.parametrize("row", TABLE, ids=[row.case for row in TABLE])
    @pytest.mark.parametrize("function", ["one", "many", "flat"])
    def test_what_becomes_of_a_job(self, row: Row, function: str, command: Command) -> None:
        """The run, what is kept of it, and the same command again."""
        Path("items.txt").write_text("".join(f"{item}\n" for item in row.items))
        Fates.left = dict(row.fates)
        words = ["process", "items.txt", "-f", f"tests.test_failure_cli:{function}", "--job", "j", "-b", "3"]
        words += ["-o", "out.txt", *row.options.split(), *(["--batched"] if function != "one" else [])]
        ended = command(*words)
        said = one_line(ended)
        if not (function == "flat" and "(batch 2)" in row.said):
            assert row.said in said
        assert (ended.code, ended.out) == (row.code, "")
        assert self.output(function) == row.output
        status = json.loads(command("status", "j", "--json").out)
        assert (status["status"], status["done"], status["failed"], status["skipped"]) == row.status
        line = command("status", "j").out.splitlines()[0]
        assert (f"{row.status[2]} failed" in line, f"{row.status[3]} skipped" in line) == (
            row.status[2] > 0,
            row.status[3] > 0,
        )
        kept = json.loads(command("failures", "j", "--json").out)
        assert [(failure["item"], failure["attempts"]) for failure in kept] == row.failures
        assert command("failures", "j", "--items").out == "".join(f"{item}\n" for item, _ in row.failures)
        if row.next_code is not None:
            Fates.calls = []
            for item in row.mended:
                del Fates.left[item]
            ended = command(*words)
            assert (ended.code, self.output(function)) == (row.next_code, row.next_output), ended.err
            handled = sum(row.status[1:])
            assert set(Fates.calls) <= set(row.items[handled:]), "nothing that was handled is called again"

    @staticmethod
    def output(function: str) -> str | None:
        """Return the results in one line; `None`: there is no output."""
        path = Path("out.txt")
        if not path.exists():
            return None
        lines = path.read_text().splitlines()
        if function == "flat":
            assert lines[::2] == lines[1::2]
            lines = lines[::2]
        return "".join(lines)


def begin(command: Command, *options: str, items: str = "abcdefg", function: str = "one") -> Ended:
    """Run a job of which b, c and f fail."""
    Path("items.txt").write_text("".join(f"{item}\n" for item in items))
    Fates.left = dict.fromkeys("bcf", FOREVER)
    spec = f"tests.test_failure_cli:{function}"
    return command(
        "process", "items.txt", "-f", spec, "-o", "out.txt", "--job", "j", "--on-error", "skip", "-q", *options
    )


class TestLooking:
    """`failures`."""

    def test_the_table_groups_by_error(self, command: Command) -> None:
        """Numbers and quoted parts of messages make no groups of their own; the first item and place are named."""
        begin(command)
        ended = command("failures", "j")
        lines = ended.out.splitlines()
        assert (ended.code, lines[0]) == (0, "j: 3 failures")
        assert lines[2].split() == ["ITEMS", "ERROR", "MESSAGE", "(OF", "THE", "FIRST)", "FIRST", "ITEM", "WHERE"]
        assert "Temporary" in lines[3]
        assert "no b now" in lines[3]
        assert lines[3].endswith("'items.txt' line 2")
        assert lines[-1] == "Run them again: batchkit retry j. In full: batchkit failures j --last 3, or --json."
        assert all(len(line) <= 100 for line in lines)

    def test_no_failures_are_said(self, command: Command) -> None:
        """In each form."""
        Path("items.txt").write_text("x\n")
        command("process", "items.txt", "-o", "out.txt", "--job", "j")
        assert command("failures", "j").out == "j: no failures\n"
        assert command("failures", "j", "--json").out == "[]\n"
        assert command("failures", "j", "--items").out == ""
        assert command("failures", "j", "--last", "2").out == ""

    def test_json_has_all(self, command: Command) -> None:
        """A list, with everything that is known."""
        begin(command, "--retries", "1", "--retry-wait", "0")
        first, *_ = json.loads(command("failures", "j", "--json").out)
        assert {name: first[name] for name in ("item", "error", "message", "attempts", "run", "number", "where")} == {
            "item": "b",
            "error": "Temporary",
            "message": "no b now",
            "attempts": 2,
            "run": 1,
            "number": 1,
            "where": "'items.txt' line 2 (byte 2)",
        }
        assert "test_failure_cli.py" in first["traceback"]
        assert "batchkit/calling.py" not in first["traceback"]

    def test_last_shows_the_newest_in_full(self, command: Command) -> None:
        """Newest first, with tracebacks."""
        begin(command)
        out = command("failures", "j", "--last", "2").out
        assert [line for line in out.splitlines() if line and not line.startswith(" ")] == ["f", "c"]
        assert out.count("Traceback (most recent call last):") == 2
        assert "  at 'items.txt' line 6 (byte 10), 1 attempt, run 1, 20" in out

    def test_two_forms_at_once_are_refused(self, command: Command) -> None:
        """Exit 2."""
        begin(command)
        assert command("failures", "j", "--json", "--items").code == 2
        assert command("failures", "nosuch").code == 2

    def test_looking_changes_nothing(self, command: Command) -> None:
        """Not one file."""
        begin(command)
        facts = {path: path.stat().st_mtime_ns for path in Path(".batchkit").rglob("*")}
        for words in (["--json"], ["--items"], ["--last", "1"], []):
            command("failures", "j", *words)
        command("status", "j")
        assert {path: path.stat().st_mtime_ns for path in Path(".batchkit").rglob("*")} == facts

    def test_what_could_not_be_read_is_counted_with_the_items(self, command: Command) -> None:
        """There is nothing to print of it."""
        Path("items.txt").write_bytes(b"a\n\xff\nc\n")
        Fates.left = {"c": FOREVER}
        spec = "tests.test_failure_cli:one"
        command("process", "items.txt", "-f", spec, "-o", "out.txt", "--job", "j", "--on-error", "skip")
        ended = command("failures", "j", "--items")
        assert ended.out == "c\n"
        assert "1 more could not be read" in one_line(ended)
        assert "(not readable)" in command("failures", "j").out
        assert "(not readable)" in command("failures", "j", "--last", "9").out

    @pytest.mark.parametrize("form", [[], ["--items"], ["--last", "3"], ["--json"]], ids=str)
    def test_halves_of_characters_are_shown_as_escapes(self, form: list[str], command: Command) -> None:
        """JSON may hold them; in items they are JSON again."""
        Path("items.jsonl").write_text('{"a":"\\ud800"}\n["ü\\udfff"]\n')
        spec = "tests.test_failure_cli:repeat"
        command("process", "items.jsonl", "-f", spec, "-o", "out.jsonl", "--job", "j", "--on-error", "skip")
        ended = command("failures", "j", *form)
        assert (ended.code, ended.err) == (0, "")
        assert "\\ud800" in ended.out
        if form == ["--items"]:
            assert list(map(json.loads, ended.out.splitlines())) == [{"a": "\ud800"}, ["ü\udfff"]]


def repeat(item: Any) -> None:
    """Fail with the item as message."""
    raise ValueError("".join(item.values() if isinstance(item, dict) else item))


class TestRetry:
    """`retry`."""

    @pytest.mark.parametrize("function", ["one", "many", "flat"])
    def test_results_come_into_their_place(self, function: str, command: Command) -> None:
        """Exit 3 while some are left, 0 at the end; messages name the next step."""
        begin(command, *(["--batched"] if function != "one" else []), function=function)
        Fates.left = {"c": FOREVER}
        ended = command("retry", "j")
        assert (ended.code, ended.out) == (3, "")
        said = one_line(ended)
        assert "j: of 3 failures 2 done, 1 left" in said
        assert "see: batchkit failures j, run them again: batchkit retry j" in said
        times = 2 if function == "flat" else 1
        assert Path("out.txt").read_text() == "".join(f"{item}\n" * times for item in "ABDEFG")
        Fates.left = {}
        ended = command("retry", "j", "--json")
        assert (ended.code, json.loads(ended.out)["done"], json.loads(ended.out)["failed"]) == (0, 1, 0)
        assert Path("out.txt").read_text() == "".join(f"{item}\n" * times for item in "ABCDEFG")
        ended = command("retry", "j")
        assert (ended.code, "no failures to run again" in ended.err) == (0, True)
        assert "completed, 7 of 7 items done" in command("status", "j").out

    def test_a_paused_round_exits_with_75_or_as_asked(self, command: Command) -> None:
        """And goes on with the same command."""
        begin(command)
        Fates.left = {}
        ended = command("retry", "j", "--max-items", "1")
        assert ended.code == 75
        assert "go on with: batchkit retry j" in one_line(ended)
        assert command("retry", "j", "--max-items", "1", "--paused-exit-code", "0").code == 0
        assert command("retry", "j", "-q").code == 0
        assert Path("out.txt").read_text() == "A\nB\nC\nD\nE\nF\nG\n"

    def test_options_are_those_of_the_run_unless_given(self, command: Command) -> None:
        """Retries, errors, function."""
        begin(command, "--retries", "1", "--retry-wait", "0", "--retry-on", "tests.test_failure_cli:Temporary")
        Fates.calls = []
        assert command("retry", "j").code == 3
        assert Fates.calls == list("bbccff")
        Fates.calls = []
        assert command("retry", "j", "--retries", "2", "--retry-on", "KeyError").code == 3
        assert Fates.calls == list("bcf")
        assert command("retry", "j", "-f", "tests.test_failure_cli:length").code == 0
        assert Path("out.txt").read_text() == "A\n1\n1\nD\nE\n1\nG\n"

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["nosuch"], "no job 'nosuch'"),
            (["j", "-f", "nosuch:f"], "cannot import 'nosuch'"),
            (["j", "-f", "tests.test_failure_cli:nosuch"], "has no 'nosuch'"),
            (["j", "--retry-on", "Nosuch"], "'Nosuch' is no type of exception"),
            (["j", "--batch-format", "dicts"], "batch_format"),
            (["j", "--retry-wait", "soon"], "retry_wait"),
        ],
    )
    def test_wrong_use_is_exit_2(self, words: list[str], says: str, command: Command) -> None:
        """In one line that says what."""
        begin(command)
        ended = command("retry", *words)
        assert ended.code == 2
        assert says in one_line(ended)


def length(item: str) -> int:
    """Return it."""
    return len(item)


WORK = """
import os

def one(item):
    if item in "bcf" and not os.path.exists("mended"):
        raise ValueError(f"no {item} now")
    return item.upper()
"""


@pytest.mark.slow
class TestProcesses:
    """The same with real processes and pipes."""

    def test_a_function_of_a_file_is_found_again_by_its_path(self, cli: Cli, tmp_path: Path) -> None:
        """Without being given once more."""
        Path("work.py").write_text(WORK)
        Path("items.txt").write_text("a\nb\nc\nd\n")
        words = ["-f", "work.py:one", "-o", "out.txt", "--job", "j", "--on-error", "skip"]
        assert cli("process", "items.txt", *words).code == 3
        Path("mended").touch()
        assert cli("retry", "j").code == 0
        assert (tmp_path / "out.txt").read_text() == "A\nB\nC\nD\n"

    def test_failed_items_feed_another_job(self, cli: Cli) -> None:
        """`batchkit failures j --items | batchkit process -`."""
        Path("work.py").write_text(WORK)
        Path("items.txt").write_text("a\nb\nc\nd\n")
        printed = cli("process", "items.txt", "-f", "work.py:one", "--job", "j", "--on-error", "skip")
        assert (printed.code, printed.out) == (3, "A\nD\n")
        refused = cli("retry", "j")
        assert refused.code == 2
        assert "batchkit failures j --items | batchkit process -" in one_line(refused)
        items = cli("failures", "j", "--items").out
        Path("mended").touch()
        assert cli("process", "-", "-f", "work.py:one", "--job", "k", stdin=items).out == "B\nC\n"

    def test_failed_rows_feed_another_job_as_json_lines(self, cli: Cli) -> None:
        """They are dicts again."""
        Path("work.py").write_text("def one(row):\n    raise ValueError(row)\n")
        Path("items.csv").write_text('a,b\n1,"x\ny"\n2,ü\n')
        assert cli("process", "items.csv", "-f", "work.py:one", "--job", "j", "--on-error", "skip").code == 3
        items = cli("failures", "j", "--items").out
        ended = cli("process", "-", "--input-format", "ndjson", "-o", "out.jsonl", "--job", "k", stdin=items)
        assert ended.code == 0
        assert list(map(json.loads, Path("out.jsonl").read_text().splitlines())) == [
            {"a": "1", "b": "x\ny"},
            {"a": "2", "b": "ü"},
        ]

    def test_halves_of_characters_do_not_break_a_pipe(self, cli: Cli) -> None:
        """Nor does a terminal of another encoding."""
        Path("work.py").write_text("def one(row):\n    raise ValueError(row['a'])\n")
        Path("items.jsonl").write_text('{"a":"\\ud800 ü"}\n')
        words = ["-f", "work.py:one", "-o", "out.jsonl", "--job", "j", "--on-error", "skip"]
        assert cli("process", "items.jsonl", *words).code == 3
        for env in ({}, {"PYTHONIOENCODING": "ascii"}):
            for form in ([], ["--items"], ["--last", "1"]):
                ended = cli("failures", "j", *form, env=env)
                assert (ended.code, ended.err) == (0, "")
                assert "\\ud800" in ended.out


class TestRetriesThatGoOn:
    """A retry in several calls, or one that was not allowed to write the output."""

    def test_it_goes_on_as_it_was_begun(self, command: Command) -> None:
        """The line it prints, `batchkit retry JOB`, keeps function and options that were given to the first call."""
        Path("items.txt").write_text("a\nb\nc\n")
        Fates.left = dict.fromkeys("abc", FOREVER)
        words = "process items.txt -o o.txt --job j --on-error skip -f tests.test_failure_cli:one -q"
        assert command(*words.split()).code == 3
        Fates.left = {}
        begun = command(*["retry", "j", "-f", "tests.test_failure_cli:twice", "--retries", "1", "--max-items", "1"])
        assert begun.code == 75
        ended = command("retry", "j")
        assert ended.code == 0
        assert Path("o.txt").read_text() == "a twice\nb twice\nc twice\n"

    def test_a_retry_that_the_limit_held_back_is_over(self, command: Command) -> None:
        """The next one calls the function for all failures again; the output appears when they are few enough."""
        Path("items.txt").write_text("".join(f"{letter}\n" for letter in "abcdefghij"))
        Fates.left = {"c": FOREVER, "d": FOREVER}
        words = "process items.txt -o o.txt --job j --on-error skip --max-failures 10% -f tests.test_failure_cli:one -q"
        assert command(*words.split()).code == 1
        Fates.calls = []
        held = command("retry", "j")
        assert (held.code, Fates.calls) == (1, ["c", "d"])
        assert "2 of 10 items failed, more than max_failures=10% allows" in one_line(held)
        assert not Path("o.txt").exists()
        Fates.left, Fates.calls = {"d": FOREVER}, []
        assert command("retry", "j").code == 3
        assert Fates.calls == ["c", "d"]
        assert Path("o.txt").read_text() == "".join(f"{letter.upper()}\n" for letter in "abcefghij")
        Fates.left, Fates.calls = {"d": FOREVER}, []
        assert command("retry", "j", "--max-failures", "0").code == 1
        Fates.left = {}
        assert command("retry", "j").code == 0
        assert Fates.calls == ["d", "d"]

    def test_a_retry_of_a_job_with_work_left_does_not_exit_with_0(self, command: Command) -> None:
        """Its results are in no output yet: `retry && promote` must not promote."""
        Path("items.txt").write_text("a\nb\nc\n")
        Fates.left = {"a": FOREVER}
        words = [
            "process",
            "items.txt",
            "-o",
            "o.txt",
            "--job",
            "j",
            "--on-error",
            "skip",
            "-f",
            "tests.test_failure_cli:one",
            "-q",
        ]
        assert command(*words, "--max-items", "2").code == 75
        Fates.left = {}
        ended = command("retry", "j")
        assert ended.code == 75
        assert "of 1 failure 1 done" in ended.err
        assert "the job itself has work left" in one_line(ended)
        assert command(*words).code == 0
        assert Path("o.txt").read_text() == "A\nB\nC\n"

    def test_items_with_line_ends_are_printed_with_nul(self, command: Command) -> None:
        """`failures --items -0 | batchkit process -0 -` gives the same items; without it, a warning says so."""
        Path("items.bin").write_bytes(b"a\nb\0c\0")
        Fates.left = {"a\nb": FOREVER, "c": FOREVER}
        words = "process items.bin -0 -o o.jsonl --job j --on-error skip -f tests.test_failure_cli:one -q"
        assert command(*words.split()).code == 3
        assert command("failures", "j", "--items", "-0").out == "a\nb\0c\0"
        assert "1 of them hold a line end themselves" in command("failures", "j", "--items").err
        assert command("failures", "j", "-0").code == 2


def twice(item: str) -> str:
    """Stand in for another function."""
    return f"{item} twice"
