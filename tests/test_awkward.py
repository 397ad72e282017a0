"""Functions and surroundings that are awkward: forks, subprocesses, closed streams, pipes, jobs in each other's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from tests.children import in_child
from tests.conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("workdir")


def shell(line: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which `batchkit` is this one."""
    python = f"'{sys.executable}' -m batchkit"
    return subprocess.run(  # noqa: S602  # lines of this file, for what only a shell can do to streams
        line.replace("batchkit", python), shell=True, capture_output=True, text=True, timeout=60, check=False, **more
    )


@pytest.mark.parametrize("end", ["raise SystemExit(3)", "raise ValueError('child')", "pass"])
def test_a_process_that_the_function_forks_commits_nothing(end: str) -> None:
    """Only the process that began the run may commit; one that comes back from the function ends there."""
    Path("items.txt").write_text("".join(f"{number}\n" for number in range(20)))

    def forks(item: str) -> str:
        child = os.fork() if item.endswith("7") else None
        if child == 0:
            exec(end)  # noqa: S102  # one of the three above
        if child:
            os.waitpid(child, 0)
        return item

    def run() -> None:
        batchkit.process("items.txt", forks, output="out.txt", batch_size=8, progress="none")

    assert in_child(run) == 0
    assert Path("out.txt").read_text() == Path("items.txt").read_text()
    assert batchkit.Job("items-" + "test_a_process_that_the_function_forks_commits_nothing.forks").status().done == 20


def test_a_forked_process_can_be_terminated() -> None:
    """Our signal handlers are ours alone: in a child, a signal does what it did before."""

    def forks(item: int) -> int:
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(told, b"x")
            signal.pause()
            os._exit(0)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        os.close(ready)
        os.close(told)
        return os.waitstatus_to_exitcode(status) + item

    assert list(batchkit.process([0], forks).results()) == [-signal.SIGTERM]


def test_a_failure_after_a_request_to_stop_is_part_of_the_stop() -> None:
    """Ctrl-C reaches what the function has started, too; the item runs again, and nothing has failed."""

    def interrupted(item: int) -> int:
        if item == 2:
            os.kill(os.getpid(), signal.SIGINT)
            raise subprocess.CalledProcessError(-signal.SIGINT, "sleep")
        return item

    result = batchkit.process([1, 2, 3], interrupted, progress="none")
    assert (result.status, result.done, list(result.results())) == ("paused", 1, [1])


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full", "2>&1 | true"])
@pytest.mark.parametrize("seconds", [0, 0.5])
def test_exit_codes_do_not_depend_on_who_listens(stream: str, seconds: float) -> None:
    """Messages are best effort: with standard error closed, full or a broken pipe the work is done and told right.

    After half a second a bar is drawn, too; what it leaves in Python's own buffer must not count at the end.
    """
    Path("items.txt").write_text("a\nb\nc\n")
    Path("slow.py").write_text(f"import time\ndef same(item):\n    time.sleep({seconds})\n    return item\n")
    job = "PYTHONUNBUFFERED= batchkit process items.txt -f slow.py:same -b 1 -o out.txt"
    line = f"set -o pipefail; {job} --progress bar {{}} {stream}"
    assert shell(line.format("--max-items 1"), executable="/bin/bash").returncode == 75
    assert shell(line.format(""), executable="/bin/bash").returncode == 0
    assert Path("out.txt").read_text() == "a\nb\nc\n"


@pytest.mark.slow
def test_a_closed_standard_input_or_output_is_one_line() -> None:
    """Neither an empty list nor a traceback."""
    Path("items.txt").write_text("a\n")
    closed = shell("batchkit process - -o out.txt <&-")
    assert (closed.returncode, closed.stderr.count("\n")) == (2, 1)
    closed = shell("batchkit process items.txt >&-")
    assert (closed.returncode, closed.stderr.count("\n")) == (2, 1)


def test_the_output_is_never_an_input() -> None:
    """Not even with `overwrite`, and not by another name."""
    Path("items.txt").write_text("a\n")
    os.link("items.txt", "same.txt")
    for output in ("items.txt", "same.txt"):
        with pytest.raises(batchkit.UsageError, match="is an input of the job"):
            batchkit.process("items.txt", None, output=output, overwrite=True)


def test_an_output_is_not_taken_from_a_run_at_work() -> None:
    """`overwrite` takes the name of a paused job, never of one that is running."""
    Path("items.txt").write_text("a\nb\nc\n")

    def takes(item: str) -> str:
        if item == "b":
            with pytest.raises(batchkit.JobLocked, match="being written by a run"):
                batchkit.process("items.txt", None, output="out.txt", job="second", overwrite=True)
        return item

    assert batchkit.process("items.txt", takes, output="out.txt", job="first").completed
    assert Path("out.txt").read_text() == "a\nb\nc\n"


def test_a_file_that_comes_up_while_a_job_is_paused_is_not_replaced() -> None:
    """The first publication takes the name only while it is free, or where `overwrite` allows it."""
    Path("items.txt").write_text("a\nb\n")
    batchkit.process("items.txt", None, output="out.txt", max_items=1)
    Path("out.txt").write_text("precious")
    with pytest.raises(batchkit.OutputChanged, match="came up"):
        batchkit.process("items.txt", None, output="out.txt")
    assert Path("out.txt").read_text() == "precious"
    assert batchkit.process("items.txt", None, output="out.txt", overwrite=True).completed
    assert Path("out.txt").read_text() == "a\nb\n"


def test_what_cannot_be_read_again_does_not_start_over_by_itself() -> None:
    """To see that a stream changed it was read; starting over with the rest of it would lose the beginning."""
    batchkit.process(iter("abcdef"), None, job="stream", output="out.txt", max_items=3)
    with pytest.raises(batchkit.InputChanged, match="--restart"):
        batchkit.process(iter("ABCDEF"), None, job="stream", output="out.txt", on_input_change="restart")
    assert batchkit.process(iter("ABCDEF"), None, job="stream", output="out.txt", restart=True).completed
    assert Path("out.txt").read_text() == "".join(f"{letter}\n" for letter in "ABCDEF")


def test_a_completed_stream_is_gone_on_with_only_where_more_comes() -> None:
    """Shards of a stream are not taken for each other's tails."""
    for items, new in (("ab", 2), ("abc", 1), ("abc", 0), ("abc", 0), ("abcd", 1), ("abcd", 0)):
        assert batchkit.process(iter(items), None, job="stream", output="out.txt").new == new
    assert Path("out.txt").read_text() == "a\nb\nc\nd\n"


def test_a_source_that_fails_keeps_what_came_before() -> None:
    """The iterable is the user's; what it raises is named, and the items before it are committed."""

    def source() -> Iterator[int]:
        yield from range(5)
        raise ValueError("no more")

    with pytest.raises(batchkit.SourceError, match="behind item 5: ValueError: no more"):
        batchkit.process(source(), None, job="feed", batch_size=3)
    assert list(batchkit.Job("feed").results()) == [0, 1, 2, 3, 4]


def test_a_time_limit_in_another_thread_ends_no_process() -> None:
    """Outside the main thread no signal is handled, so none is sent."""
    found: list[batchkit.Result] = []

    def slow() -> Iterator[int]:
        for number in range(100):
            time.sleep(0.05)
            yield number

    thread = threading.Thread(target=lambda: found.append(batchkit.process(slow(), None, max_time=0.2, batch_size=2)))
    thread.start()
    thread.join()
    assert found[0].status == "paused"


@pytest.mark.slow
def test_waiting_for_a_pipe_that_was_read_before_ends_by_the_limit() -> None:
    """A resume that reads past what is done, or waits for more, is stopped like any other wait."""
    first = shell("printf 'a\\nb\\n' | batchkit process - -o out.txt --job pipe --max-items 1")
    assert first.returncode == 75
    words = ["process", "-", "-o", "out.txt", "--job", "pipe", "--max-time", "0.5"]
    with subprocess.Popen([sys.executable, "-m", "batchkit", *words], stdin=subprocess.PIPE) as again:
        assert again.stdin is not None
        again.stdin.write(b"a\n")
        again.stdin.flush()  # and left open: there may be more to come
        assert again.wait(PATIENCE) == 75
    assert shell("printf 'a\\nb\\n' | batchkit process - -o out.txt --job pipe").returncode == 0
    assert Path("out.txt").read_text() == "a\nb\n"


@pytest.mark.slow
def test_a_function_file_may_be_named_like_a_library_module() -> None:
    """`csv.py` does not take the place of csv."""
    Path("csv.py").write_text("def row(line):\n    return {'a': line}\n")
    Path("items.txt").write_text("1\n")
    script = str(Path(sys.executable).with_name("batchkit"))  # `python -m` itself looks for modules here first
    done = subprocess.run([script, "process", "items.txt", "-f", "csv.py:row", "-o", "out.csv", "-q"], check=False)
    assert (done.returncode, Path("out.csv").read_text()) == (0, "a\n1\n")


def test_a_refused_run_does_not_change_how_a_job_stands() -> None:
    """A paused job stays paused when another definition of it is refused."""
    Path("items.txt").write_text("a\nb\n")
    batchkit.process("items.txt", None, output="out.txt", job="load", max_items=1)
    with pytest.raises(batchkit.DefinitionChanged):
        batchkit.process("items.txt", None, output="other.txt", job="load")
    assert batchkit.Job("load").status().status == "paused"


def test_a_reset_job_has_no_results() -> None:
    """What `status` says and what `results` gives agree."""
    batchkit.process(range(3), None, job="numbers")
    batchkit.Job("numbers").reset()
    assert (batchkit.Job("numbers").status().status, list(batchkit.Job("numbers").results())) == ("new", [])
