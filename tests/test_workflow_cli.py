"""`batchkit workflow`: every command with its options, exit codes, messages, stops from outside.

Commands run in this process where a process of their own is not the point.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from batchkit.cli import main
from batchkit.cli.flows import workflow as group
from tests.conftest import PATIENCE, Ended
from tests.flows import everything, stored

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.usefixtures("workdir")

FLOW = """
import os, pathlib, time
import batchkit

flow = batchkit.Workflow(
    "shop", params={"db": "prod", "count": 4, "deep": {"a": [1]}, "free": None}, workspace="space"
)

@flow.phase
def backup(ctx):
    ctx.run("echo saved")
    (ctx.workspace / "saved").write_text("1")
    return {"file": "before.sql"}

@backup.undo
def unsave(ctx):
    with open("undone", "a") as file:
        file.write("backup ")

@flow.phase(items=lambda ctx: range(ctx.params["count"]), batch_size=1, snapshot=True)
def load(ctx, number):
    if number == 2:
        # Tell the test that the item is in hand, and go on when the test says so.
        pathlib.Path("reached").touch()
        until = time.monotonic() + 30
        while os.path.exists("hold") and time.monotonic() < until:
            if ctx.stopping:
                pathlib.Path("heard").touch()
            time.sleep(0.005)
    if number == 1 and os.path.exists("bad"):
        raise ValueError("no 1, please")
    (ctx.workspace / f"item{number}").touch()
    with open("seen", "a") as file:
        file.write(f"{number} ")

@load.undo
def unload(ctx):
    with open("undone", "a") as file:
        file.write("load ")

flow.gate("approve", "Switch traffic?")

@flow.phase
def finish(ctx):
    return ctx["approve"]
"""

SMALL = """
import batchkit

one = batchkit.Workflow("one")

@one.phase
def only(ctx):
    return 1
"""

TWO = (
    SMALL
    + """
two = batchkit.Workflow("two")

@two.phase
def other(ctx):
    return 2
"""
)

KEPT = """
import batchkit

flow = batchkit.Workflow("kept")

@flow.phase(items=[1, 2, 3], on_error="skip")
def load(ctx, number):
    if number == 2:
        raise ValueError("no 2")
"""


class Here(Protocol):
    """Runs `batchkit workflow WORDS...` in this process."""

    def __call__(self, *words: str) -> Ended:
        """Return exit code, standard output and standard error."""


@pytest.fixture(autouse=True)
def files(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # works in it
    """Leave a workflow, and forget afterwards that this process has loaded it."""
    Path("flow.py").write_text(FLOW)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if str(workdir) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    """Run commands in this process, for speed."""

    def run(*words: str) -> Ended:
        code = 0
        try:
            main(["workflow", *words], prog_name="batchkit")
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        return Ended(code, *capsys.readouterr())

    return run


def one_line(ended: Ended, *parts: str) -> None:
    """Expect one line on standard error that has all of this, no traceback, and nothing on standard output."""
    assert (ended.out, "Traceback" in ended.err) == ("", False)
    assert ended.err.endswith("\n")
    assert ended.err.count("\n") == 1, ended.err
    for part in parts:
        assert part in ended.err


def state(here: Here, name: str = "shop") -> dict[str, Any]:
    """Return what `status --json` prints."""
    ended = here("status", name, "--json")
    assert (ended.code, ended.err) == (0, "")
    found: dict[str, Any] = json.loads(ended.out)
    return found


def phases(here: Here, name: str = "shop") -> list[str]:
    """Return the states of the phases, in their order."""
    return [phase["status"] for phase in state(here, name)["phases"].values()]


def until_there(path: str, process: subprocess.Popen[str]) -> None:
    """Wait for a file that a process makes."""
    deadline = time.monotonic() + PATIENCE
    while not Path(path).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def live(start_cli: Start) -> Iterator[subprocess.Popen[str]]:
    """Start a run that holds its third item while the file `hold` is there."""
    Path("hold").touch()
    with start_cli("workflow", "run", "flow.py", "--progress", "none") as process:
        try:
            until_there("reached", process)
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> Ended:
    """Let the item in hand end, and then the process."""
    Path("hold").unlink()
    out, err = process.communicate(timeout=PATIENCE)
    return Ended(process.returncode, out, err)


class TestRun:
    """`run`."""

    def test_it_waits_with_6_and_goes_on_to_0(self, here: Here) -> None:
        """Talk is on standard error; the line says how to answer."""
        waiting = here("run", "flow.py", "--progress", "none")
        assert waiting.code == 6
        one_line(waiting, "shop: waiting", "2 of 4 phases", "Switch traffic?", "workflow answer shop approve ANSWER")
        one_line(here("answer", "shop", "approve", "yes", "--by", "ops"), "'approve' is answered", "run flow.py")
        completed = here("run", "flow.py", "--progress", "none")
        assert completed.code == 0
        one_line(completed, "shop: completed, 4 phases")
        assert state(here)["questions"]["approve"]["by"] == "ops"

    def test_json_is_all_of_standard_output(self, here: Here) -> None:
        """With -q standard error is empty; the open questions are in it."""
        ran = here("run", "flow.py", "--json", "-q", "--no-input")
        assert (ran.code, ran.err) == (6, "")
        said = json.loads(ran.out)
        assert said["questions"] == {"approve": {"prompt": "Switch traffic?", "choices": ["yes", "no"]}}
        assert (said["workflow"], said["status"], said["failed"]) == ("shop", "waiting", 0)
        assert said["phases"] == {"backup": "completed", "load": "completed", "approve": "waiting", "finish": "pending"}

    def test_progress_is_on_standard_error(self, here: Here) -> None:
        """A line per phase that begins and ends."""
        ran = here("run", "flow.py", "--progress", "log", "--until", "backup")
        assert ran.out == ""
        assert "backup: begun" in ran.err
        assert "backup: completed" in ran.err

    def test_until_and_step_end_with_75(self, here: Here) -> None:
        """Behind the phase that was named; behind one."""
        stepped = here("run", "flow.py", "--step", "--progress", "none")
        assert stepped.code == 75
        one_line(stepped, "one phase was asked for")
        assert phases(here) == ["completed", "pending", "pending", "pending"]
        until = here("run", "flow.py", "--until", "load", "--progress", "none")
        assert until.code == 75
        one_line(until, "the phases asked for are done")
        assert phases(here) == ["completed", "completed", "pending", "pending"]

    def test_no_time_is_75_and_nothing_is_called(self, here: Here) -> None:
        """The time is looked at before a phase begins."""
        paused = here("run", "flow.py", "--max-time", "0", "--parallel", "1", "--progress", "none")
        assert paused.code == 75
        one_line(paused, "the time is used up")
        assert not Path("seen").exists()

    def test_a_failure_is_1_and_the_log_has_its_traceback(self, here: Here) -> None:
        """One line with phase, error, and where to look; -v shows the traceback at once."""
        Path("bad").touch()
        failed = here("run", "flow.py", "-q")
        assert failed.code == 1
        one_line(failed, "batchkit: the phase 'load' failed", "no 1, please", "batchkit workflow log shop load")
        assert "ValueError: no 1, please" in here("log", "shop", "load").out
        verbose = here("run", "flow.py", "-q", "-v")
        assert verbose.err.startswith("Traceback")
        assert verbose.err.splitlines()[-1].startswith("batchkit: the phase 'load' failed")
        assert state(here)["status"] == "failed"
        Path("bad").unlink()
        assert here("run", "flow.py", "-q").code == 6
        assert Path("seen").read_text() == "0 1 2 3 "

    def test_a_gate_that_is_answered_no_is_1(self, here: Here) -> None:
        """It stays closed until another answer."""
        here("run", "flow.py", "-q")
        assert here("answer", "shop", "approve", "no").code == 0
        for _ in range(2):
            closed = here("run", "flow.py", "-q")
            assert closed.code == 1
            one_line(closed, "'approve'", "answered 'no'")
        assert here("answer", "shop", "approve", "yes").code == 0
        assert here("run", "flow.py", "-q").code == 0

    def test_items_that_failed_and_were_kept_are_3(self, here: Here) -> None:
        """As of a job."""
        Path("kept.py").write_text(KEPT)
        kept = here("run", "kept.py", "--progress", "none")
        assert kept.code == 3
        one_line(kept, "kept: completed", "1 items failed and were kept")

    def test_other_parameters_than_it_began_with_are_5(self, here: Here) -> None:
        """Unless it is another instance; both are shown."""
        assert here("run", "flow.py", "-q", "--param", "db=test", "--step").code == 75
        changed = here("run", "flow.py", "-q", "--param", "db=live")
        assert changed.code == 5
        one_line(changed, 'db="test"', 'now it is "live"', "--key", "clean shop")
        assert here("run", "flow.py", "-q", "--param", "db=live", "--key", "live", "--step").code == 75
        assert state(here, "shop@live")["params"]["db"] == "live"
        assert state(here)["params"]["db"] == "test"

    def test_parameters_that_are_no_text_are_json(self, here: Here) -> None:
        """Text stays text, also where it looks like JSON, or has a '='."""
        words = ["db=7=x", "count=2", 'deep={"b": null}', "free=12"]
        given = [word for each in words for word in ("--param", each)]
        assert here("run", "flow.py", "-q", *given).code == 6
        assert state(here)["params"] == {"db": "7=x", "count": 2, "deep": {"b": None}, "free": "12"}
        assert Path("seen").read_text() == "0 1 "

    def test_a_state_directory_of_ones_own(self, here: Here) -> None:
        """As option; nothing is in the default one."""
        assert here("run", "flow.py", "-q", "--state-dir", "mine", "--step").code == 75
        assert not Path(".batchkit").exists()
        assert json.loads(here("status", "shop", "--state-dir", "mine", "--json").out)["workflow"] == "shop"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["none.py"], "no file 'none.py'"),
            (["."], "'.'"),
            (["empty.py"], "'empty.py' has no workflows; a line such as flow = batchkit.Workflow"),
            (["two.py"], "'two.py' has 2 workflows; give two.py:one or another of one, two"),
            (["two.py:three"], "'two.py' has no workflow 'three'; it has: one, two"),
            (["two.py:only"], "'two.py' has no workflow 'only'"),
            (["wrong.py"], "cannot import 'wrong.py': SyntaxError"),
            (["no.such.module"], "cannot import 'no.such.module': ModuleNotFoundError"),
            (["flow.py", "--param", "db"], "--param db: give NAME=VALUE"),
            (["flow.py", "--param", "dbb=x"], "no parameter 'dbb'; it has: db, count, deep, free"),
            (["flow.py", "--param", "count=many"], "'count' is no text; give JSON, such as 4"),
            (["flow.py", "--until", "lod"], "no phase 'lod'; there are: backup, load, approve, finish"),
            (["flow.py", "--max-time", "soon"], "'soon'"),
            (["flow.py", "--parallel", "0"], "--parallel"),
            (["flow.py", "--key", "a/b"], "a/b"),
            (["flow.py", "--state-dir", "space"], "is inside the workspace"),
            (["flow.py", "--nonsense"], "batchkit workflow run --help"),
            ([], "FILE[:NAME]"),
        ],
    )
    def test_wrong_usage_is_2_and_leaves_nothing(self, here: Here, words: list[str], said: str) -> None:
        """One line that says what is wrong, and what there is."""
        Path("empty.py").write_text("x = 1\n")
        Path("two.py").write_text(TWO)
        Path("wrong.py").write_text("def f(:\n")
        before = {path for path in everything() if "__pycache__" not in path}
        refused = here("run", *words)
        assert refused.code == 2
        one_line(refused, "batchkit: ", said)
        assert {path for path in everything() if "__pycache__" not in path} == before

    @pytest.mark.parametrize(
        ("spec", "name"), [("two.py:two", "two"), ("some.flows:one", "one"), ("some.small", "one")]
    )
    def test_a_workflow_is_named_by_file_or_module(self, here: Here, spec: str, name: str) -> None:
        """`:NAME` where there are several."""
        Path("some").mkdir()
        for path, text in (("two.py", TWO), ("some/flows.py", TWO), ("some/small.py", SMALL), ("some/__init__.py", "")):
            Path(path).write_text(text)
        assert here("run", spec, "-q").code == 0
        assert state(here, name)["source"] == spec


class TestPlan:
    """`plan`."""

    def test_it_says_what_would_run_and_why_and_changes_nothing(self, here: Here) -> None:
        """A line per phase, also before the first run."""
        before = {path for path in everything() if "__pycache__" not in path}
        planned = here("plan", "flow.py", "--param", "db=test")
        assert (planned.code, planned.err) == (0, "")
        assert [line.split()[:2] for line in planned.out.splitlines()] == [
            ["run", "backup"], ["run", "load"], ["ask", "approve"], ["run", "finish"],
        ]  # fmt: skip
        assert "after backup; with a snapshot first" in planned.out
        assert {path for path in everything() if "__pycache__" not in path} == before

    def test_as_json_in_the_middle(self, here: Here) -> None:
        """What is over is kept, what failed goes on, what was not asked for is left."""
        Path("bad").touch()
        here("run", "flow.py", "-q")
        planned = json.loads(here("plan", "flow.py", "--until", "approve", "--json").out)
        assert [(step["phase"], step["status"], step["does"]) for step in planned] == [
            ("backup", "completed", "keep"), ("load", "failed", "go on"),
            ("approve", "pending", "ask"), ("finish", "pending", "leave"),
        ]  # fmt: skip
        assert "no 1, please" in planned[1]["why"]
        one_line(here("plan", "flow.py", "--until", "lod"), "no phase 'lod'")
        assert here("plan", "flow.py", "--param", "db=other").code == 5
        assert here("plan", "flow.py", "--param", "db=other", "--key", "k").code == 0


class TestLooking:
    """`status`, `list`, `log`."""

    def test_status_is_a_table_or_json(self, here: Here) -> None:
        """Phases, progress, the open question, the points."""
        here("run", "flow.py", "-q")
        shown = here("status", "shop")
        assert (shown.code, shown.err) == (0, "")
        for part in ("shop: waiting, 2 of 4 phases done", "100% 4 of 4 items", "Switch traffic? (yes/no)", "db=prod"):
            assert part in shown.out
        assert "points to go back to: load (1 files, 1 B)" in shown.out.replace("…", "")
        known = state(here)
        assert known["phases"]["backup"]["result"] == {"file": "before.sql"}
        assert known["phases"]["load"]["progress"]["done"] == 4
        assert (known["format"], known["status"]) == (1, "waiting")

    def test_watch_ends_when_nothing_runs(self, here: Here) -> None:
        """One picture then; JSON is a line."""
        here("run", "flow.py", "-q")
        assert here("status", "shop", "--watch").out == here("status", "shop").out
        watched = here("status", "shop", "--watch", "--json")
        assert json.loads(watched.out)["status"] == "waiting"
        assert watched.out.count("\n") == 1

    def test_list_has_all_and_says_where_there_are_none(self, here: Here) -> None:
        """An empty list is no failure."""
        nothing = here("list")
        assert nothing.code == 0
        one_line(nothing, "no workflows in")
        assert json.loads(here("list", "--json").out) == []
        here("run", "flow.py", "-q")
        here("run", "flow.py", "-q", "--key", "b", "--step")
        assert here("list").out == "shop: waiting, 2 of 4 phases done\nshop@b: paused, 1 of 4 phases done\n"
        listed = json.loads(here("list", "--json").out)
        assert [(each["name"], each["status"]) for each in listed] == [("shop", "waiting"), ("shop@b", "paused")]

    def test_list_shows_the_others_where_one_is_damaged(self, here: Here) -> None:
        """It is named on standard error, and the exit code is 1."""
        here("run", "flow.py", "-q", "--step")
        here("run", "flow.py", "-q", "--step", "--key", "b")
        Path(".batchkit/shop/workflow.json").write_text("{")
        damaged = here("list")
        assert (damaged.code, damaged.out) == (1, "shop@b: paused, 1 of 4 phases done\n")
        assert "shop/workflow.json' is not readable" in damaged.err
        damaged = here("list", "--json")
        assert (damaged.code, [each["name"] for each in json.loads(damaged.out)]) == (1, ["shop@b"])
        for words in (
            ["status", "shop"],
            ["run", "flow.py", "-q"],
            ["clean", "shop"],
            ["skip", "shop", "load", "--reason", "x"],
        ):
            refused = here(*words)
            assert refused.code == 1
            one_line(refused, "shop/workflow.json' is not readable")

    def test_log_is_what_happened_or_what_a_phase_printed(self, here: Here) -> None:
        """Oldest first; --last cuts."""
        here("run", "flow.py", "-q")
        lines = here("log", "shop").out.splitlines()
        assert "created" in lines[0]
        assert any("backup: pending → running" in line for line in lines)
        assert here("log", "shop", "--last", "2").out.splitlines() == lines[-2:]
        assert "$ echo saved" in here("log", "shop", "backup").out
        assert here("log", "shop", "backup", "--last", "1").out == "saved\n"
        assert here("log", "shop", "finish") == Ended(0, "", "")
        one_line(here("log", "shop", "lod"), "has no phase 'lod'; it has: backup, load")
        assert here("log", "shop", "--last", "0").code == 2


class TestSteering:
    """`answer`, `skip`, `reset`, `snapshot`, `rollback`, `rename`, `stop`, `clean`."""

    def test_answers_are_checked_and_stay(self, here: Here) -> None:
        """A question that is not asked, an answer that is none, one that was given."""
        here("run", "flow.py", "-q")
        for words, said in (
            (["aprove", "yes"], "does not ask 'aprove'; open questions: approve"),
            (["approve", "maybe"], "'maybe' is no answer to 'approve'; answers are: yes, no"),
        ):
            refused = here("answer", "shop", *words)
            assert refused.code == 2
            one_line(refused, said)
        assert here("answer", "shop", "approve", "yes", "--by", "Ada").code == 0
        one_line(here("answer", "shop", "approve", "no"), "was answered 'yes' by Ada")
        assert state(here)["questions"]["approve"]["answer"] == "yes"

    def test_skip_keeps_its_reason_and_what_comes_after_begins(self, here: Here) -> None:
        """What is over cannot be skipped; a reason must be given."""
        Path("bad").touch()
        here("run", "flow.py", "-q")
        without = here("skip", "shop", "load")
        assert without.code == 2
        one_line(without, "--reason")
        one_line(here("skip", "shop", "load", "--reason", "by hand"), "'load' is skipped")
        assert "by hand" in state(here)["phases"]["load"]["reason"]
        over = here("skip", "shop", "backup", "--reason", "x")
        assert over.code == 2
        one_line(over, "'backup' is completed")
        assert here("run", "flow.py", "-q").code == 6

    def test_reset_takes_what_comes_after_with_it_unless_only(self, here: Here) -> None:
        """A phase, one alone, all; nothing is undone."""
        here("run", "flow.py", "-q")
        assert here("reset", "shop", "--only").code == 2
        one_line(here("reset", "shop", "backup", "--only"), "shop: backup will run again")
        assert phases(here) == ["pending", "completed", "waiting", "pending"]
        here("run", "flow.py", "-q")
        one_line(here("reset", "shop", "load"), "load, approve will run again")
        assert phases(here) == ["completed", "pending", "pending", "pending"]
        one_line(here("reset", "shop"), "backup will run again")
        one_line(here("reset", "shop", "--force"), "nothing had begun")
        assert not Path("undone").exists()
        assert here("run", "flow.py", "-q").code == 6
        assert Path("seen").read_text() == "0 1 2 3 0 1 2 3 "

    def test_a_snapshot_by_hand_is_a_point_to_go_back_to(self, here: Here) -> None:
        """With a name, or one that it is given; none is written over."""
        here("run", "flow.py", "-q", "--step")
        one_line(here("snapshot", "shop", "lunch"), "'lunch' holds 1 files, 1 bytes")
        one_line(here("snapshot", "shop"), "'by-hand' holds 1 files")
        for taken in ("lunch", "load"):
            again = here("snapshot", "shop", taken)
            assert again.code == 2
            one_line(again, f"a point '{taken}' already")
        here("run", "flow.py", "-q")
        assert here("rollback", "flow.py", "lunch", "-q").code == 0
        assert sorted(os.listdir("space")) == ["saved"]
        assert phases(here) == ["completed", "pending", "pending", "pending"]
        assert Path("undone").read_text() == "load "

    def test_rollback_is_shown_first_and_then_done(self, here: Here) -> None:
        """--plan changes nothing; both speak of the same way."""
        here("run", "flow.py", "-q")
        before = stored("shop")
        planned = here("rollback", "flow.py", "start", "--plan")
        assert (planned.code, planned.err) == (0, "")
        assert [line.split()[:2] for line in planned.out.splitlines()[:2]] == [["undo", "load"], ["undo", "backup"]]
        assert "leave    the workspace as it is" in planned.out
        way = json.loads(here("rollback", "flow.py", "load", "--plan", "--json").out)
        assert way == {"to": "load", "phases": ["load"], "without_undo": [], "restore": "load"}
        assert "restore  the workspace from the snapshot 'load'" in here("rollback", "flow.py", "load", "--plan").out
        assert stored("shop") == before
        done = here("rollback", "flow.py", "load", "--json")
        assert (done.code, json.loads(done.out)) == (0, way)
        assert done.err.splitlines()[-1] == "shop: rolled back to 'load'"
        assert sorted(os.listdir("space")) == ["saved"]
        assert here("rollback", "flow.py", "start", "-q") == Ended(0, "", "")
        assert phases(here) == ["pending"] * 4
        assert Path("undone").read_text() == "load backup "

    def test_rollback_to_nowhere_is_2(self, here: Here) -> None:
        """The points there are are named; before the first run there is no workflow."""
        one_line(here("rollback", "flow.py"), "no workflow 'shop'")
        here("run", "flow.py", "-q")
        refused = here("rollback", "flow.py", "lod")
        assert refused.code == 2
        one_line(refused, "no point 'lod'", "start, load, backup")
        one_line(here("rollback", "flow.py", "finish"), "'finish' has not begun")

    def test_a_renamed_phase_stays_done(self, here: Here) -> None:
        """Until it is renamed the run is refused with 5, and names the command."""
        here("run", "flow.py", "-q", "--step")
        Path("flow.py").write_text(FLOW.replace("backup", "save_all"))
        changed = here("run", "flow.py", "-q")
        assert changed.code == 5
        one_line(changed, "batchkit workflow rename shop backup save_all")
        for words, said in (
            (["lod", "x"], "no phase 'lod'"),
            (["backup", "backup"], "is called 'backup' already"),
            (["backup", "start"], "'start'"),
            (["backup", "a/b"], "a/b"),
        ):
            refused = here("rename", "shop", *words)
            assert refused.code == 2
            one_line(refused, said)
        one_line(here("rename", "shop", "backup", "save_all"), "'backup' is 'save_all' now")
        assert here("run", "flow.py", "-q").code == 6
        assert Path("seen").read_text() == "0 1 2 3 "

    def test_stop_needs_a_run(self, here: Here) -> None:
        """It would stop the next one."""
        here("run", "flow.py", "-q", "--step")
        refused = here("stop", "shop")
        assert refused.code == 2
        one_line(refused, "no run of the workflow 'shop' is at work")

    def test_clean_removes_the_state_and_leaves_the_workspace(self, here: Here) -> None:
        """What is not completed only by force; the archives alone with --snapshots."""
        here("run", "flow.py", "-q")
        refused = here("clean", "shop")
        assert refused.code == 2
        one_line(refused, "'shop' is waiting; --force")
        one_line(here("clean", "shop", "--snapshots", "--force"), "its snapshots are removed")
        assert (state(here)["points"], os.listdir(".batchkit/shop/snapshots")) == ([], [])
        here("answer", "shop", "approve", "yes")
        assert here("run", "flow.py", "-q").code == 0
        one_line(here("clean", "shop"), "shop: is removed")
        assert not Path(".batchkit/shop").exists()
        assert Path("space/item3").exists()
        one_line(here("status", "shop"), "no workflow 'shop'", "workflows there: none")

    def test_all_but_run_plan_and_rollback_do_without_the_file(self, here: Here) -> None:
        """They work from the state alone."""
        Path("bad").touch()
        here("run", "flow.py", "-q")
        Path("flow.py").unlink()
        for words in (
            ["status", "shop"],
            ["list"],
            ["log", "shop", "load"],
            ["snapshot", "shop", "p"],
            ["skip", "shop", "load", "--reason", "gone"],
            ["rename", "shop", "load", "load-all"],
            ["reset", "shop", "load-all"],
            ["clean", "shop", "--snapshots", "--force"],
            ["clean", "shop", "--force"],
        ):
            assert here(*words).code == 0, words
        for command in ("run", "plan", "rollback"):
            refused = here(command, "flow.py")
            assert refused.code == 2
            one_line(refused, "no file 'flow.py'")

    def test_an_answer_does_without_the_file(self, here: Here) -> None:
        """It is given where the state is."""
        here("run", "flow.py", "-q")
        Path("flow.py").unlink()
        assert here("answer", "shop", "approve", "yes").code == 0

    @pytest.mark.parametrize(
        "words",
        [
            ["status"],
            ["log"],
            ["answer", "x", "y"],
            ["skip", "x", "--reason", "y"],
            ["reset"],
            ["snapshot"],
            ["rename", "x", "y"],
            ["stop"],
            ["clean"],
        ],
        ids=lambda words: words[0],
    )
    def test_a_workflow_that_is_not_there_is_2(self, here: Here, words: list[str]) -> None:
        """Those that are there are named; nothing is made."""
        Path("two.py").write_text(TWO)
        here("run", "two.py:two", "-q")
        for name, said in (("shop", "workflows there: two"), ("../shop", "name")):
            refused = here(words[0], name, *words[1:])
            assert refused.code == 2
            one_line(refused, said)
        assert os.listdir(".batchkit") == ["two"]


@pytest.mark.slow
class TestLive:
    """What is done to a run at work, from other processes."""

    def test_sigterm_commits_the_item_in_hand_and_the_next_run_goes_on_behind_it(
        self, here: Here, live: subprocess.Popen[str]
    ) -> None:
        """Exit 75; no item is called twice."""
        live.send_signal(signal.SIGTERM)
        until_there("heard", live)
        stopped = ended(live)
        assert (stopped.code, stopped.out) == (75, "")
        assert "asked to stop by SIGTERM" in stopped.err
        assert Path("seen").read_text() == "0 1 2 "
        assert state(here)["status"] == "paused"
        assert state(here)["phases"]["load"]["progress"]["done"] == 3
        assert here("run", "flow.py", "-q").code == 6
        assert Path("seen").read_text() == "0 1 2 3 "

    def test_a_second_signal_leaves_at_once(self, here: Here, live: subprocess.Popen[str]) -> None:
        """Exit 130, which is only a crash: the item in hand runs again."""
        live.send_signal(signal.SIGINT)
        until_there("heard", live)  # two at once may arrive as one
        live.send_signal(signal.SIGINT)
        _, err = live.communicate(timeout=PATIENCE)
        assert (live.returncode, "Traceback" in err) == (130, False)
        assert state(here)["status"] == "interrupted"
        Path("hold").unlink()
        assert here("run", "flow.py", "-q").code == 6
        assert Path("seen").read_text() == "0 1 2 3 "

    def test_stop_from_elsewhere_ends_it_as_a_signal_does(self, here: Here, live: subprocess.Popen[str]) -> None:
        """The request holds for this run only."""
        one_line(here("stop", "shop"), "shop: asked to stop")
        until_there("heard", live)
        stopped = ended(live)
        assert stopped.code == 75
        assert "somebody asked it to stop" in stopped.err
        assert Path("seen").read_text() == "0 1 2 "
        assert here("run", "flow.py", "-q").code == 6
        assert Path("seen").read_text() == "0 1 2 3 "

    def test_a_run_at_work_is_seen_and_holds_its_workflow(self, here: Here, live: subprocess.Popen[str]) -> None:
        """Exit 4 names its process; what would change phases under it is refused, and looking is not."""
        known = state(here)
        assert (known["status"], known["phases"]["load"]["status"]) == ("running", "running")
        assert known["phases"]["load"]["progress"]["done"] == 2
        for words in (
            ["run", "flow.py"],
            ["rollback", "flow.py", "-q"],
            ["reset", "shop"],
            ["rename", "shop", "finish", "end"],
            ["snapshot", "shop"],
            ["clean", "shop", "--force"],
        ):
            refused = here(*words)
            assert refused.code == 4, words
            one_line(refused, f"pid {live.pid}", "batchkit workflow stop shop")
        at_work = here("skip", "shop", "load", "--reason", "x")
        assert at_work.code == 2
        one_line(at_work, "'load' is at work")
        plan = json.loads(here("plan", "flow.py", "--json").out)
        assert (plan[1]["does"], plan[1]["why"]) == ("leave", "at work")
        assert here("skip", "shop", "finish", "--reason", "not today").code == 0
        assert ended(live).code == 6
        assert phases(here) == ["completed", "completed", "waiting", "skipped"]

    def test_an_answer_to_a_run_at_work_is_heard_by_it(self, here: Here, start_cli: Start) -> None:
        """A branch waits for the answer while another is at work; the run goes on with both."""
        Path("branches.py").write_text(BRANCHES)
        Path("hold").touch()
        with start_cli("workflow", "run", "branches.py", "--progress", "none") as live:
            until_there("reached", live)
            until(lambda: state(here, "branches")["phases"]["approve"]["status"] == "waiting", live)
            one_line(here("answer", "branches", "approve", "yes"), "'approve' is answered; it goes on")
            until_there("switched", live)
            assert ended(live).code == 0

    def test_watch_follows_a_run_to_its_end(self, start_cli: Start, live: subprocess.Popen[str]) -> None:
        """A line of JSON per picture: running first, then how it ended."""
        with start_cli("workflow", "status", "shop", "--watch", "--json") as watching:
            assert watching.stdout is not None
            assert json.loads(watching.stdout.readline())["status"] == "running"
            assert ended(live).code == 6
            out, err = watching.communicate(timeout=PATIENCE)
        assert (watching.returncode, err) == (0, "")
        assert json.loads(out.splitlines()[-1])["status"] == "waiting"

    def test_a_run_that_was_killed_is_interrupted(self, here: Here, live: subprocess.Popen[str]) -> None:
        """So it says in status, list and plan; `stop` finds nobody; the next run goes on at the item."""
        live.kill()
        live.wait(PATIENCE)
        Path("hold").unlink()
        known = state(here)
        assert (known["status"], known["phases"]["load"]["status"]) == ("interrupted", "interrupted")
        assert re.search("! load +interrupted", here("status", "shop").out)
        assert here("status", "shop", "--watch").out == here("status", "shop").out
        assert here("list").out == "shop: interrupted, 1 of 4 phases done\n"
        assert "go on   load     it was interrupted" in here("plan", "flow.py").out
        assert here("stop", "shop").code == 2
        assert here("run", "flow.py", "-q").code == 6
        assert Path("seen").read_text() == "0 1 2 3 "


BRANCHES = """
import os, pathlib, time
import batchkit

flow = batchkit.Workflow("branches")

@flow.phase
def work(ctx):
    pathlib.Path("reached").touch()
    until = time.monotonic() + 30
    while os.path.exists("hold") and time.monotonic() < until:
        time.sleep(0.005)

flow.gate("approve", "Switch?", after=[])

@flow.phase(after="approve")
def switch(ctx):
    pathlib.Path("switched").touch()
"""


def until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for what a process brings about."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_every_command_has_examples_and_an_option_for_tracebacks(here: Here) -> None:
    """In --help, which goes to standard output."""
    assert set(group.commands) == {
        "run", "plan", "status", "list", "log", "answer", "skip", "reset", "snapshot", "rollback", "rename", "stop",
        "clean",
    }  # fmt: skip
    for words in ([], *([name] for name in group.commands)):
        shown = here(*words, "--help")
        assert (shown.code, shown.err) == (0, "")
        assert re.search(rf"Examples?:\n +batchkit workflow {words[0] if words else ''}", shown.out), words
        assert not words or "--verbose" in shown.out


def test_data_and_talk_do_not_mix_in_a_real_process(here: Here, cli: Callable[..., Ended]) -> None:
    """The real command line: data is on standard output, talk on standard error, in processes of their own."""
    ran = cli("workflow", "run", "flow.py", "--json", "--progress", "none")
    assert (ran.code, json.loads(ran.out)["status"]) == (6, "waiting")
    assert ran.err.count("\n") == 1
    assert state(here)["status"] == "waiting"
