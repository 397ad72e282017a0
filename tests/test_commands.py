"""Commands in the place of functions: what they are given, what they give, how they end."""

from __future__ import annotations

import datetime
import fcntl
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import batchkit
from batchkit import CommandFailed, UsageError, command, programs
from tests.children import in_child

pytestmark = pytest.mark.usefixtures("workdir")


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less for zombies that no init clears away, as in many a container."""
    monkeypatch.setattr(programs, "_GRACE", 0.4)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, or does within some seconds; a zombie has."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def number_in(path: str) -> int:
    """Wait for a number that a command writes into a file."""
    until = time.monotonic() + 10
    while not (Path(path).exists() and Path(path).read_text().endswith("\n")):
        assert time.monotonic() < until
        time.sleep(0.005)
    return int(Path(path).read_text())


HANGING = "sh -c 'sleep 60 & echo $! > pid; wait' -- {}"
"""A command whose child would outlive it."""


class TestWhatACommandIsGiven:
    """Placeholders, and standard input."""

    @pytest.mark.parametrize(
        ("template", "item", "expected"),
        [
            ("{}", "two words", ["two words"]),
            ("a{}b", "x", ["axb"]),
            ("'{} {}'", "x", ["x x"]),
            ('"$HOME" {}', "*", ["$HOME", "*"]),
            ("{} {{}} {{#}} {{.Names}}", "x", ["x", "{}", "{#}", "{{.Names}}"]),
            ("{} {name} {a b} {", "x", ["x", "{name}", "{a", "b}", "{"]),
            ("{id} {geo.lat}-{last-name}", {"id": 7, "geo.lat": 1.5, "last-name": "é"}, ["7", "1.5-é"]),
            ("{} {a}", {"a": "b c"}, ['{"a":"b c"}', "b c"]),
            ("x{a}", {"a": None}, ["xnull"]),
            ("{a}", {"a": [1, {"b": True}]}, ['[1,{"b":true}]']),
            ("{}", True, ["true"]),
            ("{}", 12, ["12"]),
            ("{}", float("nan"), ["nan"]),
            ("{}", datetime.date(2026, 11, 23), ["2026-11-23"]),
            ("{}", Decimal("1.50"), ["1.50"]),
            ("{}", Path("a/b"), ["a/b"]),
            ("{}", b"bytes", ["bytes"]),
            ("{}", "", [""]),
            ("x {}", "line\nline", ["x", "line\nline"]),
            ("x{}", "-n", ["x-n"]),
            ("--name={}", "-n", ["--name=-n"]),
            ("a -- {} {}", "-n", ["a", "--", "-n", "-n"]),
        ],
    )
    def test_placeholders_are_filled_in_their_argument(self, template: str, item: Any, expected: list[str]) -> None:
        """Nothing is split, expanded or quoted again."""
        assert command(f"printf '%s\\0' {template}")(item) == "".join(f"{word}\0" for word in expected)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1, max_size=6))
    def test_an_item_is_one_argument_whatever_it_holds(self, values: list[str]) -> None:
        """Quotes, spaces, line ends, dollars, braces, dashes: as they are."""
        row = {f"c{index}": value for index, value in enumerate(values)}
        words = " ".join(f"{{{name}}}" for name in row)
        assert command(f"printf -- '%s\\0' {words}")(row) == "".join(f"{value}\0" for value in values)

    @pytest.mark.parametrize("template", ["echo {}", "echo x {}", "echo '{} -- {}'", "echo {} -- {}"])
    def test_an_item_is_never_an_option(self, template: str) -> None:
        """One that begins with a dash is refused, and the message says how to write it."""
        with pytest.raises(ValueError, match=r"begins with '-'.*\./\{\}.*-- before"):
            command(template)("-n")

    def test_a_column_is_never_an_option(self) -> None:
        """As an item; also where the one before it is empty."""
        for row in ({"a": "-n", "b": ""}, {"a": "", "b": "-n"}):
            with pytest.raises(ValueError, match="begins with '-'"):
                command("echo {a}{b}")(row)

    def test_nul_cannot_be_in_an_argument(self) -> None:
        """It can come by standard input."""
        with pytest.raises(ValueError, match="NUL"):
            command("echo {}")("a\0b")
        assert command("cat")("a\0b") == "a\0b"

    def test_what_is_too_long_for_an_argument_can_come_by_standard_input(self) -> None:
        """The message says so."""
        text = "x" * 5_000_000
        with pytest.raises(ValueError, match=r"too long.*leave \{\} out"):
            command("echo {}")(text)
        assert command("cat")(text) == text

    def test_without_a_placeholder_the_item_goes_to_standard_input(self) -> None:
        """With a line end behind it; a row as JSON."""
        assert command("wc -lc")("abc").split() == ["1", "4"]
        assert command("cat {name}x" if Path("{name}x").write_text("file") else "")("item") == "file"
        assert command("cat")({"a": 1}) == '{"a":1}'

    def test_with_a_placeholder_standard_input_is_empty(self) -> None:
        """So that ssh, ffmpeg and the like take nothing."""
        assert command("sh -c cat -- {}")("x") is None
        assert command("sh -c cat -- {a}")({"a": 1}) is None

    def test_a_missing_column_is_named(self) -> None:
        """With those that there are."""
        with pytest.raises(ValueError, match="no column 'b'; it has a, c"):
            command("echo {b}")({"a": 1, "c": 2})

    def test_the_program_may_be_the_item(self) -> None:
        """Then it is looked for at each call."""
        assert command("{} x")("echo") == "x"
        with pytest.raises(FileNotFoundError):
            command("{} x")("no-such-program")

    def test_a_command_that_reads_nothing_does_not_mind_its_input(self) -> None:
        """However long it is."""
        assert command("echo done")("x" * 1_000_000) == "done"

    def test_numbers_and_keys_are_those_of_the_call(self) -> None:
        """The number counts from 1; the key is that of `current_batch`."""
        Path("items.txt").write_text("a\nb\nc\n")
        shown = command("sh -c 'echo $1 $2 $BATCHKIT_KEY' -- {} {#}")
        result = batchkit.process("items.txt", shown, job="j", batch_size=2, progress="none")
        lines = [line.split() for line in result.results()]
        assert [line[:2] for line in lines] == [["a", "1"], ["b", "2"], ["c", "3"]]
        keys = batchkit.process(
            "items.txt", lambda _: batchkit.current_batch().key, job="k", batch_size=3, progress="none"
        )
        assert [line[2].partition(":")[2] for line in lines] == [key.partition(":")[2] for key in keys.results()]

    def test_outside_of_a_run_there_is_no_number(self) -> None:
        """A command without one can be called there."""
        assert command("echo {}")("x") == "x"
        with pytest.raises(UsageError, match="inside a function"):
            command("echo {#}")("x")


class TestWhatACommandGives:
    """Its output, or its failure."""

    @pytest.mark.parametrize(
        ("printed", "expected"),
        [("", None), (r"\n", ""), ("a", "a"), (r"a\n", "a"), (r"a\n\n", "a\n"), (r"é\r\n", "é\r")],
    )
    def test_its_output_without_one_line_end_is_the_result(self, printed: str, expected: str | None) -> None:
        """No output is no result."""
        assert command(f"printf '{printed}'")("x") == expected

    def test_a_batch_gives_a_result_per_line(self) -> None:
        """Empty lines are results, too; no output is none."""
        assert command("sort -u", batch=True)(["b", "a", "b"]) == ["a", "b"]
        assert command("sed s/b//", batch=True)(["b", "a", "b"]) == ["", "a", ""]
        assert command("true", batch=True)(["b"]) == []
        assert command("cat", batch=True)([{"a": 1}, 2, None]) == ['{"a":1}', "2", "null"]

    def test_an_item_with_a_line_end_fails_before_the_command_runs(self) -> None:
        """It would be two."""
        with pytest.raises(ValueError, match="an item a line"):
            command("touch ran", batch=True)(["a", "b\nc"])
        assert not Path("ran").exists()

    def test_a_status_other_than_zero_is_a_failure_with_its_stderr(self) -> None:
        """The message has the last line; all survives pickling."""
        with pytest.raises(CommandFailed, match=r"^exit status 3: second") as caught:
            command("sh -c 'echo first >&2; echo second >/dev/stderr; exit 3'")("x")
        for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):  # noqa: S301  # our own
            assert str(error) == "exit status 3: second"
            assert (error.status, error.stderr) == (3, "first\nsecond\n")
            assert error.__batchkit_traceback__ == "first\nsecond\nCommandFailed: exit status 3: second"
            assert error.__notes__ == ["first\nsecond"]

    def test_a_signal_is_named(self) -> None:
        """By its number."""
        with pytest.raises(CommandFailed, match=r"^killed by signal 9$") as caught:
            command("sh -c 'kill -9 $$'")("x")
        assert caught.value.status == -9

    def test_of_a_long_stderr_the_end_is_kept(self) -> None:
        """Some 8 KB."""
        with pytest.raises(CommandFailed, match="exit status 1: 100000") as caught:
            command("sh -c 'seq 100000 >&2; exit 1'")("x")
        assert 8000 < len(caught.value.stderr) <= 8192

    def test_output_that_is_no_text_is_a_failure(self) -> None:
        """With the place."""
        with pytest.raises(CommandFailed, match="no valid UTF-8, at byte 2"):
            command(r"printf 'ab\377'")("x")

    def test_too_much_output_ends_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is kept in memory."""
        monkeypatch.setattr(programs, "_MOST", 3 << 20)
        assert len(command("head -c 3000000 /dev/zero")("x")) == 3_000_000
        with pytest.raises(CommandFailed, match="more than 3 MiB"):
            command("sh -c 'echo $$ > pid; yes'")("x")
        assert is_gone(number_in("pid"))

    def test_calls_from_many_threads_do_not_meet(self) -> None:
        """Each gets its own."""
        shown = command("sh -c 'cat; echo $1 >&2; exit $2' -- {a} {b}")
        echo = command("cat")

        def call(number: int) -> bool:
            try:
                shown({"a": number, "b": number % 3})
            except CommandFailed as error:
                return (error.status, error.stderr) == (number % 3, f"{number}\n")
            return number % 3 == 0 and echo(f"{number}" * 30_000) == f"{number}" * 30_000

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(call, range(100)))
        assert not programs._living


class TestHowACommandEnds:
    """In time, with all that it started."""

    def test_a_timeout_ends_the_whole_group(self) -> None:
        """Also what the command itself has started."""
        with pytest.raises(TimeoutError, match=r"^the command took longer than 0.3 s$"):
            command(HANGING, timeout=0.3)("x")
        assert is_gone(number_in("pid"))
        assert not programs._living

    @pytest.mark.slow
    def test_a_timeout_kills_what_does_not_hear(self) -> None:
        """SIGKILL follows SIGTERM; what was said in between is kept."""
        deaf = (
            'sh -c \'trap "echo no >&2" TERM; (trap "" TERM; sleep 60) & echo $! > pid; while :; do sleep 0.01; done\''
        )
        with pytest.raises(TimeoutError) as caught:
            command(deaf, timeout=0.3)("x")
        assert is_gone(number_in("pid"))
        assert caught.value.__batchkit_traceback__.splitlines().count("no") == 1  # type: ignore[attr-defined]

    def test_a_timeout_leaves_time_to_clean_up(self) -> None:
        """The command may go by itself."""
        with pytest.raises(TimeoutError):
            command("sh -c 'trap \"sleep 0.1; touch clean; exit\" TERM; while :; do sleep 0.01; done'", timeout=0.2)(
                "x"
            )
        assert Path("clean").exists()

    def test_a_timeout_is_for_commands_that_close_their_output_too(self) -> None:
        """The end of the output is not the end."""
        with pytest.raises(TimeoutError):
            command("sh -c 'exec >&- 2>&-; sleep 60'", timeout=0.2)("x")
        assert command("sh -c 'exec >&- 2>&-; sleep 0.1; touch done'", timeout=20)("x") is None
        assert Path("done").exists()

    def test_what_a_command_leaves_running_is_not_waited_for(self) -> None:
        """Even if it holds the output open; it lives on."""
        assert command("sh -c 'sleep 60 & echo $! > pid; echo hi'")("x") == "hi"
        pid = number_in("pid")
        os.kill(pid, 0)
        assert command("true")("x") is None
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "RS"
        os.kill(pid, signal.SIGKILL)

    @pytest.mark.slow
    def test_without_pidfds_it_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On macOS, and on old kernels."""
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        monkeypatch.delattr(os, "memfd_create", raising=False)
        assert command("cat")("x" * 100_000) == "x" * 100_000
        assert command("sh -c 'sleep 60 & echo $! > pid; echo hi'", timeout=30)("x") == "hi"
        os.kill(number_in("pid"), signal.SIGKILL)
        for template in (HANGING, "sh -c 'exec >&- 2>&-; sleep 60'"):
            with pytest.raises(TimeoutError):
                command(template, timeout=0.2)("x")

    def test_an_interrupt_ends_the_command(self) -> None:
        """With what it started."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        earlier = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                command(HANGING)("x")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, earlier)
        assert is_gone(number_in("pid"))

    def test_all_that_run_can_be_killed(self) -> None:
        """By those who leave at once; their callers see a failure."""
        seen: list[BaseException] = []

        def call() -> None:
            try:
                command(HANGING)("x")
            except CommandFailed as error:
                seen.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        pid = number_in("pid")
        programs.kill_all()
        caller.join(10)
        assert is_gone(pid)
        assert [str(error) for error in seen] == ["killed by signal 15"]

    @pytest.mark.skipif(not hasattr(fcntl, "F_SETSIG"), reason="only Linux can")
    def test_a_command_does_not_outlive_us(self) -> None:
        """However we end: a resumed run would have it beside its own."""

        def leave() -> None:
            threading.Thread(target=command(HANGING), args=("x",), daemon=True).start()
            number_in("pid")
            os._exit(7)

        assert in_child(leave) == 7
        assert is_gone(number_in("pid"))

    def test_a_command_is_not_in_our_group(self) -> None:
        """Ctrl-C at the terminal reaches batchkit, which lets the command finish."""
        group = int(command("sh -c 'ps -o pgid= -p $$ || cut -d\" \" -f5 /proc/$$/stat'")("x"))
        assert group != os.getpgrp()


class TestWrongCommands:
    """Told before anything runs."""

    @pytest.mark.parametrize(
        ("template", "said"),
        [
            ("no-such-program {}", "no program 'no-such-program'"),
            ("cd {}", "no program 'cd'"),
            ("", "empty"),
            ("''", "empty"),
            ("echo 'a", "cannot be split"),
            ("echo {} | wc", "without a shell.*'|'.*sh -c"),
            ("echo {} > out.txt", "without a shell"),
            ("echo a\0b", "NUL"),
        ],
    )
    def test_a_wrong_template_is_refused(self, template: str, said: str) -> None:
        """With what is wrong, and what to do."""
        with pytest.raises(UsageError, match=said):
            command(template)

    @pytest.mark.parametrize("quoted", ['"\\$1"', "'$1'", "\\$1", '"\\$"1'])
    def test_a_dollar_is_quoted_as_for_a_shell(self, quoted: str) -> None:
        """Which takes the backslash before it away, in double quotes too; a shell that is called sees it."""
        assert command(f"sh -c 'printf %s \"$0\"' {quoted} -- {{}}")("x") == "$1"

    def test_a_shell_word_in_quotes_is_an_argument(self) -> None:
        """Whoever quotes it means it."""
        assert command("echo '|' \\> {}")("x") == "| > x"
        assert command("echo it\\'s {}")("x") == "it's x"
        assert command('sh -c "echo \\"a\\" > x; cat x" {}')("x") == "a"

    def test_an_item_has_no_place_in_the_arguments_of_a_batch(self) -> None:
        """There are many."""
        with pytest.raises(UsageError, match="on its standard input"):
            command("echo {}", batch=True)

    def test_what_is_no_text_or_no_time_is_refused(self) -> None:
        """As everywhere."""
        with pytest.raises(UsageError, match="give one text"):
            command(["echo", "{}"])  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="timeout is 0"):
            command("echo", timeout=0)

    def test_a_run_refuses_what_contradicts_the_command(self) -> None:
        """A command knows itself whether it takes batches."""
        with pytest.raises(UsageError, match="batch=True"):
            batchkit.process(["a"], command("cat"), batched=True)
        with pytest.raises(UsageError, match="batch_format"):
            batchkit.process(["a"], command("cat", batch=True), batch_format="dicts")

    def test_no_failure_is_missed_where_children_are_ignored(self) -> None:
        """The kernel would keep no status; in another thread than the main one nothing can be done about it."""
        earlier = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            with ThreadPoolExecutor(1) as pool, pytest.raises(UsageError, match="SIGCHLD"):
                pool.submit(command, "false").result()
            with pytest.raises(CommandFailed):
                command("false")("x")
        finally:
            signal.signal(signal.SIGCHLD, earlier)


class TestJobsOfCommands:
    """In the place of a function."""

    def test_a_command_is_pickled_as_it_was_made(self) -> None:
        """For workers."""
        made = pickle.loads(pickle.dumps(command("cat", "30s", batch=True)))  # noqa: S301  # our own
        assert (made.template, made.timeout, made.batch, made(["a"])) == ("cat", 30.0, True, ["a"])

    def test_a_job_is_named_after_the_program_and_defined_by_the_text(self) -> None:
        """Another text is another job; another time limit is not."""
        Path("items.txt").write_text("a\nb\n")
        for limit in (None, 20):
            result = batchkit.process("items.txt", command("echo 1 {}", limit), output="o.txt", progress="none")
            assert (result.job, result.done) == ("items-echo", 2)
        with pytest.raises(batchkit.DefinitionChanged, match=r"echo 1 \{\}.*now command echo 2"):
            batchkit.process("items.txt", command("echo 2 {}"), output="o.txt", progress="none")

    def test_a_batch_goes_to_one_process(self) -> None:
        """Rows of a table as JSON lines."""
        Path("rows.csv").write_text("a,b\n1,x\n2,y\n3,z\n")
        counted = command("sh -c 'echo run >> runs; cat'", batch=True)
        result = batchkit.process("rows.csv", counted, output="o.txt", batch_size=2, progress="none")
        assert result.done == 3
        assert Path("o.txt").read_text() == '{"a":"1","b":"x"}\n{"a":"2","b":"y"}\n{"a":"3","b":"z"}\n'
        assert Path("runs").read_text() == "run\n" * 2

    def test_a_batch_that_fails_is_narrowed_down(self) -> None:
        """As for functions."""
        items = [*map(str, range(20)), "two\nlines"]
        picky = command("awk '$1 == 13 { exit 4 } { print $1 * 2 }'", batch=True)
        result = batchkit.process(items, picky, on_error="skip", progress="none")
        assert list(result.results()) == [str(2 * number) for number in range(20) if number != 13]
        assert [(each.item, each.error) for each in result.failures()] == [
            ("13", "CommandFailed"),
            ("two\nlines", "ValueError"),
        ]

    @pytest.mark.slow
    def test_a_time_limit_of_the_run_reaches_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which needs no process around it, also if one is asked for."""
        monkeypatch.delattr("batchkit.isolation.IsolatedCaller")
        result = batchkit.process(
            ["x"], command(HANGING), timeout=0.3, isolate_process=True, on_error="skip", progress="none"
        )
        assert [each.message for each in result.failures()] == ["the command took longer than 0.3 s"]
        assert is_gone(number_in("pid"))

    def test_a_failure_keeps_what_the_command_said(self) -> None:
        """In the place of a traceback."""
        failing = command("sh -c 'echo why >&2; exit 5' -- {}")
        result = batchkit.process(["x"], failing, on_error="skip", progress="none")
        [failure] = result.failures()
        assert (failure.error, failure.message) == ("CommandFailed", "exit status 5: why")
        assert failure.traceback == "why\nCommandFailed: exit status 5: why"

    @pytest.mark.slow
    def test_a_retry_finds_the_command_again(self) -> None:
        """With its time limit; the number is that of the item in the input."""
        Path("items.txt").write_text("a\nb\nc\n")
        held = command("sh -c '[ $1 != b ] || [ -e open ] || sleep 60; echo $1 $2' -- {} {#}")
        run = {"output": "o.txt", "on_error": "skip", "timeout": 0.3, "progress": "none"}
        assert batchkit.process("items.txt", held, **run).failed == 1  # type: ignore[arg-type]
        job = batchkit.Job("items-sh")
        assert job.retry(progress="none").failed == 1
        Path("open").touch()
        assert job.retry(progress="none").failed == 0
        assert Path("o.txt").read_text() == "a 1\nb 2\nc 3\n"

    def test_a_retry_may_have_another_command_of_the_same_kind(self) -> None:
        """Single stays single; a function can take the place of a command."""
        Path("items.txt").write_text("a\nb\n")
        batchkit.process("items.txt", command("false {}"), output="o.txt", on_error="skip", progress="none")
        job = batchkit.Job("items-false")
        with pytest.raises(UsageError, match="single items"):
            job.retry(command("cat", batch=True), progress="none")
        assert job.retry(command("sh -c '[ $1 = a ] && echo $1' -- {}"), progress="none").done == 1
        assert job.retry(str.upper, progress="none").done == 1
        assert Path("o.txt").read_text() == "a\nB\n"
