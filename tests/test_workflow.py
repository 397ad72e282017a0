"""Workflows through the library: declaring, order, parallel phases, checks, results, questions, budgets, stops."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from batchkit import BatchkitError, CommandFailed, PhaseFailed, UsageError, Workflow
from batchkit.workflow import steering
from tests.conftest import PATIENCE
from tests.flows import run, states, stored

if TYPE_CHECKING:
    from batchkit.workflow.context import Context

pytestmark = pytest.mark.usefixtures("workdir")


class Calls:
    """Notes which phases were called, in order."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def phase(self, name: str, result: Any = None) -> Any:
        """Return a function that notes its call and returns the result."""

        def called(_ctx: Context) -> Any:
            self.made.append(name)
            return result

        called.__name__ = name
        return called


@pytest.fixture
def calls() -> Calls:
    """Give a note of calls."""
    return Calls()


class TestDeclaring:
    """What a declaration may say."""

    def test_phases_run_in_the_order_of_their_declaration_and_results_are_read_later(self) -> None:
        """A result is what the function returned, as JSON; each reader has a copy."""
        flow = Workflow("f")

        @flow.phase
        def first(_ctx: Context) -> dict[str, Any]:
            return {"n": [1, 2], "t": (3,)}

        @flow.phase
        def second(ctx: Context) -> int:
            ctx["first"]["n"].append(9)
            return sum(ctx["first"]["n"])

        result = run(flow)
        assert (result.exit_code, result.phases) == (0, {"first": "completed", "second": "completed"})
        assert [phase["result"] for phase in stored("f")["phases"].values()] == [{"n": [1, 2], "t": [3]}, 3]

    def test_a_second_run_calls_nothing(self, calls: Calls) -> None:
        """What is completed stays completed; changed code is no reason to run it again."""
        flow = Workflow("f")
        flow.phase(calls.phase("a"))
        assert run(flow).completed
        again = Workflow("f")
        again.phase(name="a")(lambda _ctx: calls.made.append("another function"))
        assert run(again).completed
        assert calls.made == ["a"]

    def test_changed_code_of_a_completed_phase_is_reported(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With the command that runs it again, in the run and in the plan; a check counts as code."""
        flow, again = Workflow("f"), Workflow("f")
        flow.phase(name="a")(lambda _ctx: 1)
        again.phase(name="a")(lambda _ctx: 2)
        run(flow)
        again.run(progress="log")
        assert "the code of 'a' was changed since it was completed" in capsys.readouterr().err
        assert "its code was changed since" in again.plan()[0].why

    def test_two_phases_of_a_name_are_refused(self, calls: Calls) -> None:
        """The name is the identity."""
        flow = Workflow("f")
        flow.phase(calls.phase("a"))
        with pytest.raises(UsageError, match="two phases 'a'"):
            flow.phase(calls.phase("a"))

    @pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a\nb", "a@b", "x" * 300, "a\0b", "start"])
    def test_names_that_cannot_be_files_or_mean_something_else_are_refused(self, calls: Calls, name: str) -> None:
        """Nothing leads out of the state directory; "start" is the point before everything."""
        flow = Workflow("f")
        with pytest.raises(UsageError, match="name"):
            flow.phase(name=name)(calls.phase("a")) if name else flow.gate(name, "Go?")
        if name != "start":
            with pytest.raises(UsageError, match="name"):
                Workflow(name)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"bacth_size": 3, "items": [1]}, "option 'bacth_size'"),
            ({"batch_size": 3}, "for phases with items="),
            ({"snapshot": True}, "there is no workspace"),
            ({"on_failure": "rolback"}, "on_failure"),
            ({"rollback_to": "a"}, "rollback_to, which is for on_failure='rollback'"),
            ({"rollback_to": "b", "on_failure": "rollback"}, "no phase 'b'"),
            ({"job": "x", "items": [1]}, "option 'job'"),
        ],
    )
    def test_wrong_options_are_refused_where_they_are_written(
        self, calls: Calls, options: dict[str, Any], said: str
    ) -> None:
        """At the declaration, naming phase and option."""
        with pytest.raises(UsageError, match=said):
            Workflow("f").phase(calls.phase("a"), **options)

    def test_a_second_undo_is_refused(self, calls: Calls) -> None:
        """It would silently take the place of the first."""
        phase = Workflow("f").phase(calls.phase("a"))
        phase.undo(calls.phase("one"))
        with pytest.raises(UsageError, match="has an undo already: 'one'"):
            phase.undo(calls.phase("two"))

    @pytest.mark.parametrize("choices", ["yes", []])
    def test_a_gate_needs_a_list_of_answers(self, choices: Any) -> None:
        """A text would be a list of letters."""
        with pytest.raises(UsageError, match="give a list of answers"):
            Workflow("f").gate("g", "Go?", choices=choices)

    def test_a_workflow_without_phases_is_refused(self) -> None:
        """And leaves nothing."""
        with pytest.raises(UsageError, match="has no phases"):
            run(Workflow("f"))
        assert not Path(".batchkit").exists()

    def test_a_phase_can_be_called_as_a_function(self) -> None:
        """As its author's tests do."""
        flow = Workflow("f")

        @flow.phase
        def a(ctx: dict[str, int]) -> int:
            return ctx["n"] + 1

        assert a({"n": 1}) == 2


class TestOrder:
    """What comes after what."""

    def test_a_diamond_runs_from_its_top_to_its_join(self, calls: Calls) -> None:
        """A join starts when all before it are completed; `after=` takes phases and names, one or several."""
        flow = Workflow("f")
        top = flow.phase(calls.phase("top"))
        left = flow.phase(after=top)(calls.phase("left"))
        flow.phase(after="top")(calls.phase("right"))
        flow.phase(after=[left, "right"])(calls.phase("join"))
        run(flow)
        assert calls.made[0] == "top"
        assert calls.made[-1] == "join"
        assert sorted(calls.made) == ["join", "left", "right", "top"]

    def test_without_after_a_phase_joins_all_before_it(self, calls: Calls) -> None:
        """Declared after two branches it waits for both."""
        flow = Workflow("f")
        flow.phase(calls.phase("a"))
        flow.phase(after=[])(calls.phase("b"))
        flow.phase(calls.phase("c"))
        run(flow)
        assert calls.made[-1] == "c"
        assert stored("f")["phases"]["c"]["after"] == ["a", "b"]

    def test_a_phase_may_come_after_one_that_is_declared_later(self, calls: Calls) -> None:
        """The order of the lines is no law."""
        flow = Workflow("f")
        flow.phase(after="b")(calls.phase("a"))
        flow.phase(after=[])(calls.phase("b"))
        run(flow)
        assert calls.made == ["b", "a"]

    def test_the_number_of_phases_at_once_can_be_limited(self) -> None:
        """With one at a time no two overlap, in the order of their declaration."""
        flow = Workflow("f")
        inside, most, order = 0, 0, []

        def called(ctx: Context) -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            order.append(ctx.phase)
            inside -= 1

        for name in "abcd":
            flow.phase(name=name, after=[])(called)
        run(flow, parallel=1)
        assert (most, order) == (1, ["a", "b", "c", "d"])
        with pytest.raises(UsageError, match="at least 1"):
            run(flow, parallel=0)

    def test_siblings_of_a_failure_finish_and_keep_their_results(self, calls: Calls) -> None:
        """What ran beside it comes to its end; what comes after it does not begin; the next run calls only the rest."""
        flow = Workflow("f")
        begun, failed, good = threading.Event(), threading.Event(), threading.Event()

        @flow.phase(after=[])
        def bad(_ctx: Context) -> None:
            if not good.is_set():
                assert begun.wait(PATIENCE)
                failed.set()
                raise ValueError("no luck")

        @flow.phase(after=[])
        def sibling(_ctx: Context) -> str:
            begun.set()
            assert failed.wait(PATIENCE)
            calls.made.append("sibling")
            return "kept"

        flow.phase(calls.phase("join"))
        with pytest.raises(PhaseFailed, match="'bad' failed: ValueError: no luck") as caught:
            run(flow)
        assert caught.value.phases == {"bad": "ValueError: no luck"}
        assert states(flow) == {"bad": "failed", "sibling": "completed", "join": "pending"}
        good.set()
        assert run(flow).completed
        assert calls.made == ["sibling", "join"]
        assert stored("f")["phases"]["sibling"]["result"] == "kept"
        assert stored("f")["phases"]["bad"]["attempts"] == 2

    def test_two_failures_are_both_named(self) -> None:
        """In the error and in its mapping."""
        flow, both = Workflow("f"), threading.Barrier(2)

        def fail(ctx: Context) -> None:
            both.wait(PATIENCE)
            raise ValueError(ctx.phase)

        for name in "ab":
            flow.phase(name=name, after=[])(fail)
        with pytest.raises(PhaseFailed) as caught:
            run(flow)
        assert set(caught.value.phases) == {"a", "b"}

    def test_a_phase_that_exits_has_failed(self) -> None:
        """`sys.exit` in a phase does not end the run as if all were done."""
        flow = Workflow("f")

        @flow.phase
        def leaves(_ctx: Context) -> None:
            raise SystemExit(0)

        with pytest.raises(PhaseFailed, match="SystemExit: 0"):
            run(flow)
        assert states(flow) == {"leaves": "failed"}


class TestWhen:
    """Phases on a condition."""

    def test_a_phase_whose_condition_says_no_is_skipped_and_a_join_goes_on(self, calls: Calls) -> None:
        """Its result is None; why is stored."""
        flow = Workflow("f", params={"big": False})

        def is_big(ctx: Context) -> bool:
            return bool(ctx.params["big"])

        flow.phase(when=is_big)(calls.phase("split"))

        @flow.phase
        def load(ctx: Context) -> bool:
            return ctx["split"] is None

        assert run(flow).phases == {"split": "skipped", "load": "completed"}
        assert stored("f")["phases"]["split"]["reason"] == "'is_big' says no"
        assert stored("f")["phases"]["load"]["result"] is True
        assert calls.made == []

    def test_a_condition_is_not_asked_again_once_the_phase_has_begun(self) -> None:
        """A phase that failed half-way goes on, whatever its condition says by then."""
        flow, said = Workflow("f"), itertools.count()
        flow_fails = itertools.chain([1], itertools.repeat(0))

        @flow.phase(when=lambda _ctx: next(said) == 0)
        def a(_ctx: Context) -> None:
            if next(flow_fails):
                raise ValueError("first time")

        with pytest.raises(PhaseFailed):
            run(flow)
        assert run(flow).phases == {"a": "completed"}

    def test_a_condition_that_raises_leaves_the_phase_pending(self) -> None:
        """It is neither skipped nor run."""
        flow = Workflow("f")
        flow.phase(name="a", when=lambda ctx: ctx.params["nope"])(lambda _ctx: None)
        with pytest.raises(PhaseFailed, match="'a' cannot begin: KeyError"):
            run(flow)
        assert states(flow) == {"a": "pending"}


class TestChecks:
    """`require` and `verify`."""

    @pytest.mark.parametrize(
        ("value", "said"), [(False, "says no"), (None, "returned None"), (0, "says no"), ([], "says no")]
    )
    def test_a_requirement_that_does_not_hold_leaves_the_phase_pending(
        self, calls: Calls, value: Any, said: str
    ) -> None:
        """It is named; the phase was not called and no attempt is counted."""
        flow = Workflow("f")
        phase = flow.phase(calls.phase("a"))

        @phase.require
        def database_answers(_ctx: Context) -> Any:
            return value

        with pytest.raises(PhaseFailed, match=f"'a' cannot begin: the requirement 'database_answers' {said}"):
            run(flow)
        state = stored("f")["phases"]["a"]
        assert (calls.made, state["status"], state["attempts"]) == ([], "pending", 0)
        assert "database_answers" in state["error"]

    def test_a_requirement_is_asked_again_in_the_next_run(self, calls: Calls) -> None:
        """Nothing is remembered of the refusal."""
        flow, holds = Workflow("f"), threading.Event()
        phase = flow.phase(calls.phase("a"))
        phase.require(lambda _ctx: holds.is_set())
        with pytest.raises(PhaseFailed):
            run(flow)
        holds.set()
        assert run(flow).completed
        assert stored("f")["phases"]["a"]["error"] is None

    def test_a_check_sees_the_result_and_its_no_is_a_failure(self, calls: Calls) -> None:
        """The result of a phase that was not verified counts for nothing: what comes after does not begin."""
        flow = Workflow("f")
        phase = flow.phase(calls.phase("a", result={"rows": 3}))
        flow.phase(calls.phase("b"))

        @phase.verify
        def has_rows(ctx: Context) -> bool:
            return bool(ctx["a"]["rows"] > 5)

        with pytest.raises(PhaseFailed, match="'a' failed: the check 'has_rows' says no"):
            run(flow)
        assert (states(flow), calls.made) == ({"a": "failed", "b": "pending"}, ["a"])
        assert stored("f")["phases"]["a"]["result"] is None

    def test_all_checks_must_hold(self, calls: Calls) -> None:
        """The second may fail, too."""
        flow = Workflow("f")
        phase = flow.phase(calls.phase("a"))
        phase.verify(lambda _ctx: True)
        phase.verify(lambda _ctx: 1 / 0)
        with pytest.raises(PhaseFailed, match="ZeroDivisionError"):
            run(flow)
        assert states(flow) == {"a": "failed"}


class TestResults:
    """What a phase returns."""

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (Path("x"), "not JSON serializable"),
            (float("nan"), "JSON"),
            (float("inf"), "JSON"),
            ({1, 2}, "not JSON serializable"),
            ("x" * 64_000, "64,002 bytes, more than 64,000"),
            (b"x", "not JSON serializable"),
        ],
    )
    def test_a_result_that_cannot_be_kept_is_a_failure(self, calls: Calls, value: Any, said: str) -> None:
        """With what to return instead; the state file is as it would be for any failure."""
        flow = Workflow("f")
        flow.phase(calls.phase("a", result=value))
        with pytest.raises(PhaseFailed, match=said) as caught:
            run(flow)
        assert "what the phase 'a' returned" in str(caught.value)
        assert "in a file" in str(caught.value) or "return its path" in str(caught.value)
        assert stored("f")["phases"]["a"]["status"] == "failed"

    def test_a_result_of_just_64_000_bytes_is_kept(self, calls: Calls) -> None:
        """The quotes count."""
        flow = Workflow("f")
        flow.phase(calls.phase("a", result="x" * 63_998))
        assert run(flow).completed

    def test_a_result_that_holds_itself_is_a_failure(self, calls: Calls) -> None:
        """As is one that is nested without end."""
        endless: list[Any] = []
        endless.append(endless)
        flow = Workflow("f")
        flow.phase(calls.phase("a", result=endless))
        with pytest.raises(PhaseFailed, match="cannot be kept"):
            run(flow)

    def test_reading_the_result_of_a_phase_that_is_not_before_this_one_is_an_error(self, calls: Calls) -> None:
        """With what to do; also for a name that is no phase."""
        flow = Workflow("f")

        @flow.phase
        def a(ctx: Context) -> Any:
            return ctx["b"]

        flow.phase(calls.phase("b"))
        with pytest.raises(PhaseFailed, match="'b' is pending and has no result yet; name it in after="):
            run(flow)

        other = Workflow("g")
        other.phase(name="a")(lambda ctx: ctx["nope"])
        with pytest.raises(PhaseFailed, match="there is no phase 'nope'; there are: a"):
            run(other)

    def test_results_of_items_are_read_in_their_order(self) -> None:
        """The phase's own result has the counts."""
        flow = Workflow("f")

        @flow.phase(items=lambda ctx: range(ctx.params["n"]), batch_size=2)
        def square(_ctx: Context, number: int) -> int:
            return number * number

        @flow.phase
        def total(ctx: Context) -> int:
            assert {**ctx["square"], "output": None} == {"done": 5, "failed": 0, "skipped": 0, "output": None}
            return sum(ctx.results("square"))

        flow.params["n"] = 5
        assert run(flow).completed
        assert stored("f")["phases"]["total"]["result"] == 30
        assert stored("f")["phases"]["square"]["progress"]["done"] == 5


class TestItems:
    """Phases that are resumable jobs."""

    def test_a_phase_goes_on_at_the_item_where_it_failed(self) -> None:
        """Items that were done are not called again, also where they come from a generator."""
        flow, seen, good = Workflow("f"), [], threading.Event()

        @flow.phase(items=lambda _ctx: (number for number in range(6)), batch_size=1)
        def work(_ctx: Context, number: int) -> None:
            seen.append(number)
            if number == 3 and not good.is_set():
                raise ValueError("three")

        with pytest.raises(PhaseFailed, match="three"):
            run(flow)
        assert stored("f")["phases"]["work"]["progress"]["done"] == 3
        good.set()
        assert run(flow).completed
        assert seen == [0, 1, 2, 3, 3, 4, 5]

    @pytest.mark.slow
    def test_workers_have_parameters_results_and_the_log(self) -> None:
        """The context is sent to them; it cannot ask there, and says so."""
        flow = Workflow("f", params={"factor": 3})

        @flow.phase
        def base(_ctx: Context) -> int:
            return 100

        @flow.phase(items=range(8), batch_size=2, workers=2)
        def work(ctx: Context, number: int) -> tuple[int, bool, bool]:
            ctx.log(f"item {number}")
            try:
                ctx.ask("go", "Go?")
            except UsageError as error:
                refused = "a worker cannot wait" in str(error)
            return ctx["base"] + ctx.params["factor"] * number, refused, os.getpid() != parent

        parent = os.getpid()

        @flow.phase
        def gathered(ctx: Context) -> list[Any]:
            return list(ctx.results("work"))

        assert run(flow).completed
        assert stored("f")["phases"]["gathered"]["result"] == [[100 + 3 * n, True, True] for n in range(8)]
        log = steering.log_of(flow.store(), "work")
        assert all(f"item {number}\n" in log for number in range(8))
        assert stored("f")["questions"] == {}

    def test_asynchronous_functions_get_the_context_and_the_item(self) -> None:
        """As with process(), several at once."""
        flow = Workflow("f", params={"plus": 1})

        @flow.phase(items=[1, 2, 3], batch_size=2, concurrency=2)
        async def work(ctx: Context, number: int) -> int:
            return number + int(ctx.params["plus"])

        @flow.phase
        def gathered(ctx: Context) -> list[Any]:
            return list(ctx.results("work"))

        assert run(flow).completed
        assert stored("f")["phases"]["gathered"]["result"] == [2, 3, 4]

    def test_batched_functions_get_the_context_and_a_batch(self) -> None:
        """The last one is smaller."""
        flow, sizes = Workflow("f"), []

        @flow.phase(items=range(5), batch_size=2, batched=True)
        def work(ctx: Context, numbers: list[int]) -> list[int]:
            assert ctx.phase == "work"
            sizes.append(len(numbers))
            return numbers

        assert run(flow).completed
        assert sizes == [2, 2, 1]

    def test_items_that_fail_and_are_kept_make_it_exit_3(self) -> None:
        """The phase completes; failures are counted in the result of the run and of the phase."""
        flow = Workflow("f")

        @flow.phase(items=range(4), batch_size=1, on_error="skip")
        def work(_ctx: Context, number: int) -> int:
            return 1 // (number % 2)

        result = run(flow)
        assert (result.completed, result.failed, result.exit_code) == (True, 2, 3)
        assert stored("f")["phases"]["work"]["result"]["failed"] == 2
        assert "2 items failed and were kept" in result.summary()

    def test_a_phase_without_items_to_do_completes(self) -> None:
        """Zero items are no error."""
        flow = Workflow("f")
        flow.phase(name="work", items=[])(lambda _ctx, _item: None)
        assert run(flow).completed


class TestOnce:
    """`ctx.once`, the memo inside a phase."""

    def test_a_step_is_done_once_though_its_phase_is_called_again(self, calls: Calls) -> None:
        """It returns what it returned; arguments are passed on."""
        flow, good = Workflow("f"), threading.Event()

        def step(name: str, *, size: int) -> list[Any]:
            calls.made.append(name)
            return [name, size]

        @flow.phase
        def a(ctx: Context) -> Any:
            kept = ctx.once("step", step, "one", size=2)
            if not good.is_set():
                raise ValueError("later")
            return kept

        with pytest.raises(PhaseFailed):
            run(flow)
        good.set()
        run(flow)
        assert calls.made == ["one"]
        assert stored("f")["phases"]["a"]["result"] == ["one", 2]

    def test_a_step_that_returned_none_or_false_is_not_done_again(self, calls: Calls) -> None:
        """What counts is that it returned."""
        flow, good = Workflow("f"), threading.Event()

        @flow.phase
        def a(ctx: Context) -> None:
            for key, value in (("none", None), ("false", False)):
                ctx.once(key, lambda key=key, value=value: (calls.made.append(key), value)[1])  # type: ignore[func-returns-value]
            if not good.is_set():
                raise ValueError("later")

        with pytest.raises(PhaseFailed):
            run(flow)
        good.set()
        run(flow)
        assert calls.made == ["none", "false"]

    def test_a_step_that_raises_is_done_again(self, calls: Calls) -> None:
        """And keys of two phases are apart."""
        flow = Workflow("f")

        @flow.phase
        def a(ctx: Context) -> None:
            def step() -> None:
                calls.made.append("a")
                if len(calls.made) == 1:
                    raise ValueError("first")

            ctx.once("same", step)

        @flow.phase
        def b(ctx: Context) -> None:
            ctx.once("same", calls.made.append, "b")

        with pytest.raises(PhaseFailed):
            run(flow)
        run(flow)
        assert calls.made == ["a", "a", "b"]

    def test_what_it_keeps_must_be_json(self) -> None:
        """The message names the key."""
        flow = Workflow("f")
        flow.phase(name="a")(lambda ctx: ctx.once("files", lambda: {1}))
        with pytest.raises(PhaseFailed, match="what 'files' of the phase 'a' returned cannot be kept"):
            run(flow)


class TestCommands:
    """`ctx.run`."""

    def in_phase(self, do: Any) -> dict[str, Any]:
        """Run something in a phase; return its state."""
        flow = Workflow("f")
        flow.phase(name="a")(do)
        run(flow)
        phase: dict[str, Any] = stored("f")["phases"]["a"]
        return phase

    def test_it_returns_what_was_printed_and_the_log_has_all_of_it(self) -> None:
        """Standard error is in the log only."""
        state = self.in_phase(lambda ctx: ctx.run("echo out 'a b'; echo err >&2", shell=True))  # noqa: S604
        assert state["result"] == "out a b\n"
        log = Path(".batchkit/f/logs/a.log").read_text()
        assert "$ echo out" in log
        assert "out a b\n" in log
        assert "err\n" in log

    def test_words_are_split_without_a_shell(self) -> None:
        """Quotes group; lists are taken as they are; variables come beside ours."""
        assert self.in_phase(lambda ctx: ctx.run("printf '%s|' 'a b' c"))["result"] == "a b|c|"
        flow = Workflow("g")
        flow.phase(name="a")(
            lambda ctx: ctx.run(["sh", "-c", "echo $X $HOME; pwd"], env={"X": "1"}, cwd="/").splitlines()
        )
        run(flow)
        assert stored("g")["phases"]["a"]["result"] == [f"1 {os.environ['HOME']}", "/"]

    def test_a_failure_raises_with_the_last_lines(self) -> None:
        """Status and standard error are attributes."""
        caught: list[CommandFailed] = []

        def do(ctx: Context) -> None:
            try:
                ctx.run("for n in 1 2 3 4 5 6 7; do echo line $n >&2; done; exit 9", shell=True)  # noqa: S604
            except CommandFailed as error:
                caught.append(error)
                raise

        with pytest.raises(PhaseFailed, match="ended with status 9: line 3 line 4 line 5 line 6 line 7"):
            self.in_phase(do)
        assert (caught[0].status, caught[0].stderr.count("line")) == (9, 7)

    def test_the_first_failing_command_of_a_script_ends_it(self) -> None:
        """As with `sh -e`."""
        with pytest.raises(PhaseFailed, match="status 1"):
            self.in_phase(lambda ctx: ctx.run("false; echo all is well", shell=True))  # noqa: S604

    def test_an_output_appears_only_whole(self) -> None:
        """A command that fails half-way leaves the old file."""
        Path("dump.sql").write_text("old")
        with pytest.raises(PhaseFailed):
            self.in_phase(lambda ctx: ctx.run("echo half; exit 1", shell=True, output="dump.sql"))  # noqa: S604
        assert Path("dump.sql").read_text() == "old"
        flow = Workflow("g")
        flow.phase(name="a")(lambda ctx: ctx.run("echo whole", output="dump.sql"))
        run(flow)
        assert Path("dump.sql").read_text() == "whole\n"

    @pytest.mark.parametrize(
        ("command", "said"),
        [("no-such-program-here x", "no-such-program-here"), ("sleep 60", "TimeoutError"), ("kill -9 $$", "signal 9")],
    )
    def test_what_cannot_run_hangs_or_is_killed_fails(self, command: str, said: str) -> None:
        """The phase fails with a line that says so."""
        with pytest.raises(PhaseFailed, match=said):
            self.in_phase(lambda ctx: ctx.run(command, shell="kill" in command, timeout=0.2))


class TestQuestions:
    """Gates, and `ctx.ask`."""

    def test_a_gate_suspends_the_run_with_6_and_the_answer_is_its_result(self, calls: Calls) -> None:
        """Who answered and when is stored; what comes after it begins then."""
        flow = Workflow("f")
        flow.phase(calls.phase("a"))
        flow.gate("approve", "Switch traffic?")
        flow.phase(calls.phase("b"))
        result = run(flow)
        assert (result.status, result.exit_code, calls.made) == ("waiting", 6, ["a"])
        assert result.questions["approve"].prompt == "Switch traffic?"
        assert "batchkit workflow answer f approve ANSWER" in result.summary()
        assert run(flow).exit_code == 6
        steering.answer(flow.store(), "approve", "yes", by="ada")
        assert run(flow).completed
        question = stored("f")["questions"]["approve"]
        assert (question["answer"], question["by"], bool(question["at"])) == ("yes", "ada", True)
        assert stored("f")["phases"]["approve"]["result"] == "yes"

    def test_no_keeps_a_gate_closed_until_there_is_another_answer(self, calls: Calls) -> None:
        """The run fails, each time, and nothing behind it begins."""
        flow = Workflow("f")
        flow.gate("approve", "Go?")
        flow.phase(calls.phase("b"))
        run(flow)
        steering.answer(flow.store(), "approve", "no", by="ada")
        for _ in range(2):
            with pytest.raises(PhaseFailed, match="ada answered 'no'"):
                run(flow)
        steering.answer(flow.store(), "approve", "yes", by="eve")
        assert run(flow).completed
        assert calls.made == ["b"]

    def test_what_does_not_depend_on_a_question_goes_on(self, calls: Calls) -> None:
        """Only the branch behind it waits."""
        flow = Workflow("f")
        flow.gate("approve", "Go?", after=[])
        flow.phase(after=[])(calls.phase("side"))
        flow.phase(after="side")(calls.phase("side2"))
        flow.phase(after="approve")(calls.phase("behind"))
        assert run(flow).exit_code == 6
        assert calls.made == ["side", "side2"]

    def test_a_wizard_is_asked_each_question_once(self) -> None:
        """Each answer is durable at once; what came before in the function runs again."""
        flow = Workflow("f")

        @flow.phase
        def wizard(ctx: Context) -> list[str]:
            name = ctx.ask("name", "Who?")
            size = ctx.ask("size", f"Which size, {name}?", choices=["s", "m"])
            return [name, size]

        asked = []
        answers = {"name": "Ada", "size": "m"}
        while (result := run(flow)).status == "waiting":
            (key, question) = next(iter(result.questions.items()))
            asked.append(question.prompt)
            steering.answer(flow.store(), key, answers[key])
        assert result.completed
        assert asked == ["Who?", "Which size, Ada?"]
        assert stored("f")["phases"]["wizard"]["result"] == ["Ada", "m"]

    def test_two_questions_of_a_key_are_refused(self) -> None:
        """The answer of one phase is not the other's."""
        flow = Workflow("f")
        flow.phase(name="a")(lambda ctx: ctx.ask("sure", "Sure?"))
        flow.phase(name="b")(lambda ctx: ctx.ask("sure", "Sure?"))
        run(flow)
        steering.answer(flow.store(), "sure", "x")
        with pytest.raises(PhaseFailed, match="the phase 'a' asks 'sure' already"):
            run(flow)

    def test_an_answer_that_is_given_while_the_run_is_live_is_taken_in_it(self) -> None:
        """The phase that asked is called anew while its sibling is at work."""
        flow, told = Workflow("f"), threading.Event()

        @flow.phase(after=[])
        def asks(ctx: Context) -> str:
            answer = ctx.ask("go", "Go?")
            told.set()
            return answer

        @flow.phase(after=[])
        def works(ctx: Context) -> None:
            while "go" not in stored("f")["questions"] or states(flow)["asks"] != "waiting":
                assert not ctx.stopping
            steering.answer(flow.store(), "go", "now")
            assert told.wait(PATIENCE)

        assert run(flow).phases == {"asks": "completed", "works": "completed"}
        assert stored("f")["phases"]["asks"]["result"] == "now"

    def test_a_requirement_may_ask(self, calls: Calls) -> None:
        """The phase waits without having begun."""
        flow = Workflow("f")
        phase = flow.phase(calls.phase("a"))
        phase.require(lambda ctx: ctx.ask("sure", "Sure?", ["yes", "no"]) == "yes")
        assert run(flow).exit_code == 6
        assert stored("f")["phases"]["a"]["attempts"] == 0
        steering.answer(flow.store(), "sure", "yes")
        assert run(flow).completed

    def test_a_gate_may_be_on_a_condition(self, calls: Calls) -> None:
        """Where that says no, nobody is asked."""
        flow = Workflow("f")
        flow.gate("approve", "Go?", when=lambda _ctx: False)
        flow.phase(calls.phase("b"))
        assert run(flow).phases == {"approve": "skipped", "b": "completed"}

    def test_no_except_of_the_phase_catches_a_question(self) -> None:
        """`except Exception` around it is a habit."""
        flow = Workflow("f")

        @flow.phase
        def a(ctx: Context) -> str:
            try:
                return ctx.ask("k", "What?")
            except Exception:  # noqa: BLE001  # the habit
                return "caught"

        assert run(flow).exit_code == 6


class TestParameters:
    """Values that an instance began with."""

    def test_they_stay_with_the_workflow(self) -> None:
        """Given once they need not be given again."""
        flow = Workflow("f", params={"db": "prod", "n": 1})
        flow.phase(name="a")(lambda ctx: dict(ctx.params))
        flow.gate("g", "Go?")
        run(flow, params={"db": "test"})
        assert run(flow).exit_code == 6
        assert stored("f")["phases"]["a"]["result"] == {"db": "test", "n": 1}

    def test_they_cannot_be_changed_by_a_phase(self) -> None:
        """Others run beside it."""
        flow = Workflow("f", params={"db": "prod"})
        flow.phase(name="a")(lambda ctx: ctx.params.update(db="x"))
        with pytest.raises(PhaseFailed, match="AttributeError"):
            run(flow)

    def test_instances_by_key_are_apart(self, calls: Calls) -> None:
        """Each has a state, parameters and results of its own."""
        flow = Workflow("f", params={"n": 0})
        flow.phase(name="a")(lambda ctx: calls.made.append(ctx.workflow) or ctx.params["n"])  # type: ignore[func-returns-value]
        run(flow, key="eu", params={"n": 1})
        run(flow, key="us", params={"n": 2})
        run(flow)
        run(flow, key="eu")
        assert calls.made == ["f@eu", "f@us", "f"]
        assert [stored(name)["phases"]["a"]["result"] for name in ("f@eu", "f@us", "f")] == [1, 2, 0]

    @pytest.mark.parametrize("key", ["", "a/b", "../x"])
    def test_a_key_that_is_no_name_is_refused(self, calls: Calls, key: str) -> None:
        """It would be a path."""
        flow = Workflow("f")
        flow.phase(calls.phase("a"))
        if key:
            with pytest.raises(UsageError, match="name"):
                run(flow, key=key)
        assert calls.made == []


class TestStopping:
    """Budgets, --until, --step, requests, signals."""

    def test_a_run_ends_behind_the_phase_it_was_asked_for(self, calls: Calls) -> None:
        """Only what leads there runs; the rest is left, exit 75."""
        flow = Workflow("f")
        a = flow.phase(calls.phase("a"))
        flow.phase(after=a)(calls.phase("left"))
        flow.phase(after=a)(calls.phase("right"))
        result = run(flow, until="left")
        assert (result.exit_code, calls.made) == (75, ["a", "left"])
        assert result.reason == "the phases asked for are done"
        assert run(flow, until=a).exit_code == 75
        assert run(flow).completed
        assert calls.made == ["a", "left", "right"]

    def test_step_by_step_each_phase_is_one_run(self, calls: Calls) -> None:
        """The last one completes the workflow; skipped ones cost no step."""
        flow = Workflow("f")
        flow.phase(calls.phase("a"))
        flow.phase(when=lambda _ctx: False)(calls.phase("b"))
        flow.phase(calls.phase("c"))
        assert (run(flow, step=True).exit_code, calls.made) == (75, ["a"])
        assert (run(flow, step=True).exit_code, calls.made) == (0, ["a", "c"])

    def test_no_time_left_begins_nothing(self, calls: Calls) -> None:
        """Between phases the limit is looked at; the state says paused, never completed."""
        flow = Workflow("f")
        flow.phase(calls.phase("a"))
        result = run(flow, max_time=0)
        assert (result.status, result.exit_code, calls.made) == ("paused", 75, [])
        assert "time" in (result.reason or "")
        assert states(flow) == {"a": "pending"}

    def test_a_budget_that_ends_in_a_phase_pauses_its_items_and_begins_no_other(self, calls: Calls) -> None:
        """The committed batch stays; the next run goes on behind it."""
        flow, seen = Workflow("f"), []

        @flow.phase(items=range(6), batch_size=1)
        def work(ctx: Context, number: int) -> None:
            seen.append(number)
            if seen == [0, 1, 2]:
                flow.store().ask_to_stop()
                while not ctx.stopping:
                    pass

        flow.phase(calls.phase("after"))
        result = run(flow)
        assert (result.status, result.reason) == ("paused", "somebody asked it to stop")
        assert states(flow) == {"work": "paused", "after": "pending"}
        assert run(flow).completed
        assert seen == [0, 1, 2, 3, 4, 5]

    def test_a_phase_may_look_whether_to_stop(self) -> None:
        """`stop_if_asked` ends it there as paused, and no `except Exception` catches that; then it is called anew."""
        flow, asked = Workflow("f"), itertools.count()

        @flow.phase
        def a(ctx: Context) -> None:
            if next(asked) == 0:
                flow.store().ask_to_stop()
                while not ctx.stopping:
                    pass
            try:
                ctx.stop_if_asked()
            except Exception:  # noqa: BLE001  # the habit
                pytest.fail("caught")

        assert run(flow).exit_code == 75
        assert states(flow) == {"a": "paused"}
        assert run(flow).completed
        assert stored("f")["phases"]["a"]["attempts"] == 2

    def test_a_phase_that_does_not_look_ends_and_counts(self, calls: Calls) -> None:
        """What it did is kept; only the next phase is left."""
        flow = Workflow("f")

        @flow.phase
        def a(ctx: Context) -> str:
            flow.store().ask_to_stop()
            while not ctx.stopping:
                pass
            return "whole"

        flow.phase(calls.phase("b"))
        assert run(flow).exit_code == 75
        assert states(flow) == {"a": "completed", "b": "pending"}
        assert (stored("f")["phases"]["a"]["result"], calls.made) == ("whole", [])

    def test_a_stop_of_the_last_phase_that_finishes_is_completion(self) -> None:
        """Nothing is left, so nothing is paused."""
        flow = Workflow("f")

        @flow.phase
        def a(ctx: Context) -> None:
            flow.store().ask_to_stop()
            while not ctx.stopping:
                pass

        assert run(flow).exit_code == 0

    def test_a_request_for_the_run_before_is_forgotten(self, calls: Calls) -> None:
        """A new run begins with a clean slate."""
        flow = Workflow("f")
        flow.phase(calls.phase("a"))
        flow.gate("g", "Go?")
        run(flow, step=True)
        flow.store().ask_to_stop()
        assert run(flow).exit_code == 6

    def test_sigterm_pauses_all_phases_that_are_at_work(self) -> None:
        """Two at once, each with items: both keep their committed batches."""
        flow, both = Workflow("f"), threading.Barrier(2)
        seen: dict[str, list[int]] = {"a": [], "b": []}

        def work(ctx: Context, number: int) -> None:
            seen[ctx.phase].append(number)
            if number == 1 and len(seen[ctx.phase]) == 2:
                if both.wait(PATIENCE) == 0:
                    os.kill(os.getpid(), signal.SIGTERM)
                while not ctx.stopping:
                    pass

        for name in "ab":
            flow.phase(name=name, after=[], items=range(4), batch_size=1)(work)
        result = run(flow)
        assert (result.exit_code, result.reason) == (75, "asked to stop by SIGTERM")
        assert states(flow) == {"a": "paused", "b": "paused"}
        assert run(flow).completed
        assert seen == {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}

    def test_a_second_signal_calls_abort(self) -> None:
        """With its number; by default it raises KeyboardInterrupt."""
        flow = Workflow("f")
        heard: list[int] = []

        @flow.phase
        def a(ctx: Context) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            while not ctx.stopping:
                pass
            os.kill(os.getpid(), signal.SIGINT)
            while not heard:
                pass

        assert run(flow, abort=heard.append).exit_code == 0
        assert heard == [signal.SIGINT]

    def test_handlers_are_put_back(self, calls: Calls) -> None:
        """After the run signals do what they did."""
        flow = Workflow("f")
        flow.phase(calls.phase("a"))
        before = signal.getsignal(signal.SIGTERM)
        run(flow)
        assert signal.getsignal(signal.SIGTERM) is before

    def test_a_run_in_another_thread_works(self, calls: Calls) -> None:
        """Without handlers for signals."""
        flow = Workflow("f")
        flow.phase(calls.phase("a"))
        thread = threading.Thread(target=run, args=[flow])
        thread.start()
        thread.join()
        assert states(flow) == {"a": "completed"}


class TestSteering:
    """What others do while a run is at work, or before the next."""

    def test_a_phase_that_is_skipped_while_it_is_asked_for_its_requirement_does_not_begin(self, calls: Calls) -> None:
        """The requirement may take minutes; the run goes on behind the phase."""
        flow = Workflow("f")
        phase = flow.phase(calls.phase("a"))

        @phase.require
        def someone_skips_it(_ctx: Context) -> bool:
            steering.skip(flow.store(), "a", "by hand")
            return True

        flow.phase(calls.phase("b"))
        assert run(flow).phases == {"a": "skipped", "b": "completed"}
        assert calls.made == ["b"]

    def test_a_gate_that_is_skipped_while_it_is_looked_at_is_open(self, calls: Calls) -> None:
        """Nobody is asked any more."""
        flow = Workflow("f")
        gate = flow.gate("g", "Go?")
        gate.require(lambda _ctx: steering.skip(flow.store(), "g", "by hand") is None)  # type: ignore[func-returns-value]
        flow.phase(calls.phase("b"))
        assert run(flow).phases == {"g": "skipped", "b": "completed"}

    def test_a_phase_at_work_cannot_be_skipped(self) -> None:
        """Stop the run first."""
        flow = Workflow("f")

        @flow.phase
        def a(_ctx: Context) -> str:
            try:
                steering.skip(flow.store(), "a", "no")
            except UsageError as error:
                return str(error)
            return "skipped"

        run(flow)
        assert "the phase 'a' is at work; stop the run first" in stored("f")["phases"]["a"]["result"]

    def test_reset_and_rename_wait_for_the_run(self) -> None:
        """Exit 4, naming who holds it."""
        flow = Workflow("f")
        said: list[str] = []

        @flow.phase
        def a(_ctx: Context) -> None:
            for do in (
                lambda: steering.reset(flow.store(), None, said.append),
                lambda: steering.rename(flow.store(), "a", "b"),
                lambda: steering.clean(flow.store(), only_snapshots=False, force=True),
                lambda: run(flow),
            ):
                with pytest.raises(batchkit.JobLocked, match=f"run by pid {os.getpid()} ") as caught:
                    do()
                assert caught.value.exit_code == 4

        assert run(flow).completed


def test_the_state_file_is_readable_json_with_what_was_promised(calls: Calls) -> None:
    """Each phase: status, started, completed, seconds, attempts, result, error and progress."""
    flow = Workflow("f")
    flow.phase(calls.phase("a", result={"file": "bücher.sql"}))
    run(flow)
    text = Path(".batchkit/f/workflow.json").read_text()
    assert "bücher.sql" in text
    state = json.loads(text)["phases"]["a"]
    assert {"status", "started", "completed", "seconds", "attempts", "result", "error", "progress"} <= set(state)
    assert state["started"] <= state["completed"]
    assert Path(".batchkit/f/workflow.json").stat().st_mode & 0o777 == 0o600


def test_events_tell_what_happened_and_a_torn_line_is_passed_over(calls: Calls) -> None:
    """The file is for people: nothing is read from it, so a torn one harms nothing."""
    flow = Workflow("f")
    flow.phase(calls.phase("a"))
    flow.gate("g", "Go?")
    run(flow)
    with Path(".batchkit/f/events.jsonl").open("ab") as file:
        file.write(b'{"torn": ')
    steering.answer(flow.store(), "g", "yes", by="ada")
    run(flow)
    moves = [(e["phase"], e["from"], e["to"]) for e in flow.store().events() if "from" in e and "to" in e]
    assert moves == [
        ("a", "pending", "running"),
        ("a", "running", "completed"),
        ("g", "pending", "waiting"),
        ("g", "waiting", "completed"),
    ]
    assert any(event.get("event") == "answered" for event in flow.store().events())


def test_a_plan_says_what_would_run_and_changes_nothing(calls: Calls) -> None:
    """Before the first run there is no state, and none is made."""
    flow = Workflow("f")
    flow.phase(calls.phase("a"))
    flow.phase(when=lambda _ctx: True)(calls.phase("b"))
    flow.gate("g", "Go?")
    assert [(step.phase, step.does) for step in flow.plan()] == [("a", "run"), ("b", "run"), ("g", "ask")]
    assert not Path(".batchkit").exists()
    run(flow, until="a")
    assert [step.does for step in flow.plan()] == ["keep", "run", "ask"]
    assert [step.does for step in flow.plan(until="b")] == ["keep", "run", "leave"]
    assert calls.made == ["a"]


def test_errors_are_one_tree() -> None:
    """A caller can catch them all, and what the command line exits with is known."""
    assert issubclass(PhaseFailed, BatchkitError)
    assert issubclass(batchkit.RollbackFailed, BatchkitError)
