"""`batchkit check`: whether a function is safe to repeat."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batchkit import BatchkitError, UsageError, testing

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from tests.conftest import Cli

FUNCTIONS = """
import os

async def waits(x):
    y = x
    return y

def several(x):
    yield x
    yield x + x

class Loaded:
    def __init__(self):
        self.closed = False
    def __call__(self, x):
        y = x
        return y
    def close(self):
        self.closed = True

def batch(xs):
    ys = [x + "!" for x in xs]
    return ys

def appends(x):
    with open("log.txt", "a") as file:
        file.write(x + "\\\\n")
    return x

def writes(x):
    path = "out." + x
    with open(path + ".new", "w") as file:
        file.write(x)
    os.replace(path + ".new", path)
    return x

def halfway(x):
    path = "out." + x
    if not os.path.exists(path):
        with open(path, "w") as file:
            file.write("w")
            file.write("h")
            file.write("o")
            file.write("l")
            file.write("e")
            file.write("!")
    with open(path) as file:
        return file.read()

_seen = []

def counts(x):
    _seen.append(x)
    return len(_seen)

def chance(x):
    return os.urandom(4).hex()

def fails(x):
    raise ValueError("always")

def holds(x):
    fd = os.open("lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(fd, b"a")
    os.write(fd, b"b")
    os.write(fd, b"c")
    os.write(fd, b"d")
    os.close(fd)
    os.unlink("lock")
    return x
""".replace("\\\\n", "\\n")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a directory of one's own, with functions good and bad."""
    monkeypatch.chdir(tmp_path)
    Path("f.py").write_text(FUNCTIONS)
    Path("ids.txt").write_text("".join(f"{n}\n" for n in range(30)))


def function(name: str) -> Callable[..., Any]:
    """Return one of them."""
    from batchkit.loading import load  # noqa: PLC0415  # the file has just been written

    return load(f"f.py:{name}")


def clean() -> None:
    """Make the world as it was."""
    for path in (*Path().glob("out.*"), Path("log.txt"), Path("lock")):
        path.unlink(missing_ok=True)


def seen() -> dict[str, str]:
    """Return what functions have written."""
    return {path.name: path.read_text() for path in (*Path().glob("out.*"), *Path().glob("log.txt"))}


def found(name: str, **options: Any) -> testing.Report:
    """Return what a check of a function finds, with the world observed."""
    return testing.check(
        "ids.txt", function(name), before=clean, observe=seen, **{"items": 6, "batch_size": 3, **options}
    )


def test_a_function_that_is_safe_is_found_safe() -> None:
    """With what was tried."""
    report = found("waits", kills=2)
    assert report.safe
    assert (report.items, report.calls, report.varies) == (6, 6, None)
    assert [(trial.moment.call, trial.moment.when) for trial in report.trials] == [(0, "before"), (0, "during")]
    assert report.summary == "safe to repeat, as far as 2 kills on 6 items tell"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "calls"), [("several", 6), ("Loaded", 6), ("writes", 6), ("batch", 2)])
def test_functions_of_every_kind_are_killed_and_go_on(name: str, calls: int) -> None:
    """Generators, classes, batched ones, and those that write a file in one step."""
    report = found(name, kills=6, batched=name == "batch")
    assert report.safe, report
    assert report.calls == calls
    assert {trial.moment.when for trial in report.trials} == {"before", "during", "after"}


@pytest.mark.slow
def test_a_side_effect_that_is_repeated_is_found_if_it_is_observed() -> None:
    """Else it is said that nobody looked."""
    report = found("appends", kills=3)
    assert not report.safe
    assert report.trials[2].difference is not None
    assert "observed in line" in report.trials[2].difference
    assert report.summary.startswith("NOT safe to repeat: ")
    blind = testing.check("ids.txt", function("appends"), items=3, kills=1)
    assert blind.safe
    assert "only results were compared" in blind.summary


@pytest.mark.slow
def test_a_file_that_is_left_half_written_is_found() -> None:
    """By a kill between two lines of the function."""
    report = found("halfway", kills=9, seed=1)
    wrong = [trial for trial in report.trials if trial.difference is not None]
    assert wrong
    assert {trial.moment.when for trial in wrong} == {"during"}


@pytest.mark.slow
def test_what_is_kept_between_calls_is_found() -> None:
    """It is lost with the process."""
    report = found("counts", kills=4)
    assert not report.safe
    assert report.trials[3].difference == "result 4 is 1 instead of 4"


@pytest.mark.slow
def test_a_run_that_fails_after_the_kill_is_a_finding() -> None:
    """Such as of a lock that nobody gives back."""
    report = found("holds", kills=8)
    assert any("the function failed" in str(trial.difference) for trial in report.trials)


@pytest.mark.slow
def test_an_observer_that_fails_is_not_the_function_s_fault() -> None:
    """It ends the check, after a kill as before one."""
    looks = iter(["same", "same"])

    def observe() -> str:
        try:
            return next(looks)
        except StopIteration:
            raise UsageError("nobody can look") from None

    with pytest.raises(UsageError, match="nobody can look"):
        testing.check("ids.txt", function("waits"), items=3, kills=1, observe=observe)


def test_a_function_that_varies_is_told_from_one_that_is_not_safe() -> None:
    """Two undisturbed runs differ already, so nothing is killed."""
    report = found("chance")
    assert not report.safe
    assert report.trials == []
    assert report.summary.startswith("NOT safe to repeat: two runs that nobody disturbed differ: result 1 is ")


def test_a_function_that_fails_undisturbed_says_so() -> None:
    """As in any run."""
    with pytest.raises(BatchkitError, match="always; that is without any kill"):
        found("fails")


def test_wrong_usage_is_refused() -> None:
    """Before anything is called."""
    with pytest.raises(UsageError, match="has no items"):
        testing.check([], function("waits"))
    with pytest.raises(UsageError, match="cannot be called"):
        testing.check([1], "name")  # type: ignore[arg-type]


def test_a_batched_function_gets_rows_as_a_frame() -> None:
    """As in any run."""
    Path("rows.csv").write_text("a,b\n1,x\n2,y\n3,z\n")
    Path("g.py").write_text("def f(frame):\n    columns = frame.columns\n    return frame.select(columns[::-1])\n")
    from batchkit.loading import load  # noqa: PLC0415  # as above

    report = testing.check("rows.csv", load("g.py:f"), batched=True, batch_size=2, kills=2)
    assert report.safe
    assert (report.items, report.calls) == (3, 2)
    assert report.trials[0].item == '[{"a": "1", "b": "x"}, {"a": "2", "b": …'


def test_values_in_memory_can_be_the_sample() -> None:
    """As in a test of one's own."""

    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        yield {"a": 2}

    assert testing.check(rows(), function("waits"), kills=1).safe


@pytest.mark.slow
def test_the_command_shows_each_trial_and_exits_with_one(cli: Cli) -> None:
    """With what helps."""
    words = ("check", "ids.txt", "-f", "f.py:appends", "--before", "rm -f log.txt", "--observe", "cat log.txt")
    ended = cli(*words, "--kills", "3", "--items", "4")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert lines[0].split() == ["killed", "before", "call", "1", "0", "✓"]
    assert "✗ observed in line 2: '0' instead of '1'" in lines[2]
    assert lines[3] in {f"NOT safe to repeat: {wrong} of 3 kills left a difference" for wrong in (1, 2)}
    assert "what helps: write to another name and rename" in ended.err
    ended = cli(*words, "--kills", "1", "--items", "4", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["safe"] is True


@pytest.mark.slow
def test_a_program_is_killed_while_it_works(cli: Cli) -> None:
    """By a timer: it has no lines that could be counted."""
    ended = cli("check", "ids.txt", "-x", "sh -c 'sleep 0.05; echo {}'", "--kills", "3", "--items", "3")
    assert ended.code == 0
    assert "killed during call 1, after" in ended.out


@pytest.mark.slow
def test_an_interrupt_ends_a_trial_at_once(start_cli: Callable[..., subprocess.Popen[str]]) -> None:
    """And not when its items are done."""
    Path("slow.py").write_text("import time\ndef f(x):\n    print('called', flush=True)\n    time.sleep(60)\n")
    with start_cli("check", "ids.txt", "-f", "slow.py:f") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check", "ids.txt"), "say what to check"),
        (("check", "nowhere.txt", "-f", "f.py:waits"), "nowhere.txt"),
        (("check", "ids.txt", "-f", "f.py:waits", "--before", "exit 3"), "--before 'exit 3' exited with 3"),
    ],
)
def test_wrong_words_are_told_in_a_line(cli: Cli, words: tuple[str, ...], said: str) -> None:
    """And nothing is killed."""
    ended = cli(*words)
    assert ended.code in {1, 2}
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1
