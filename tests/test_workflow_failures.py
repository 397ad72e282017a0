"""How scripts with phases are known to fail, and that workflows do not."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from batchkit import DamageError, DefinitionChanged, PhaseFailed, UsageError, Workflow
from batchkit.workflow import steering
from tests.children import in_child
from tests.conftest import PATIENCE
from tests.flows import everything, run, states, stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.workflow.context import Context

pytestmark = pytest.mark.usefixtures("workdir")


@pytest.mark.parametrize("way", ["ignored", "returned", "items"])
def test_a_budget_stop_is_never_recorded_as_all_done(way: str) -> None:
    """Also where a phase calls `process()` itself and does not look at what that says."""
    flow, seen = Workflow("f"), []

    def work(number: int) -> int:
        seen.append(number)
        if number == 2 and len(seen) == 3:
            flow.store().ask_to_stop()
            while not flow.store().asked_to_stop() or not heard[0].stopping:
                pass
        return number

    heard: list[Context] = []

    def phase(ctx: Context) -> Any:
        heard.append(ctx)
        result = batchkit.process(range(6), work, job="inner", batch_size=1, progress="none")
        return result if way == "returned" else "all done"

    def item(ctx: Context, number: int) -> int:
        heard.append(ctx)
        return work(number)

    if way == "items":
        flow.phase(name="load", items=range(6), batch_size=1)(item)
    else:
        flow.phase(name="load")(phase)
    flow.phase(name="after")(lambda _ctx: None)
    assert run(flow).exit_code == 75
    assert states(flow) == {"load": "paused", "after": "pending"}
    assert stored("f")["phases"]["load"]["result"] is None
    assert run(flow).completed
    assert seen == list(range(6))


def test_the_last_partial_batch_is_checkpointed_and_loaded_once() -> None:
    """Seven items in batches of three: a failure behind them loads none again."""
    flow, loaded, good = Workflow("f"), [], threading.Event()
    load = flow.phase(name="load", items=range(7), batch_size=3, batched=True)(lambda _ctx, rows: loaded.append(rows))
    load.verify(lambda _ctx: good.is_set())
    with pytest.raises(PhaseFailed):
        run(flow)
    good.set()
    assert run(flow).completed
    assert loaded == [[0, 1, 2], [3, 4, 5], [6]]


def test_scripts_that_were_applied_are_not_applied_again() -> None:
    """The second fails twice; the first is applied once. The next run goes on at the second."""
    flow, applied, tries = Workflow("f"), [], iter([False, False, True])

    def migrate(_ctx: Context, script: str) -> None:
        if script == "2.sql" and not next(tries):
            raise ValueError("syntax error")
        applied.append(script)

    flow.phase(name="migrate", items=["1.sql", "2.sql", "3.sql"], batch_size=1)(migrate)
    for _ in range(2):
        with pytest.raises(PhaseFailed, match="syntax error"):
            run(flow)
        assert applied == ["1.sql"]
    run(flow)
    run(flow)
    assert applied == ["1.sql", "2.sql", "3.sql"]


def says(value: Any) -> Callable[[Context], Any]:
    """Return a check that says so."""
    return lambda _ctx: value


def raises(_ctx: Context) -> bool:
    """Be a check that raises."""
    raise OSError("no answer")


@pytest.mark.parametrize(
    ("check", "said"), [(says(None), "returned None"), (says(0), "says no"), (raises, "OSError: no answer")]
)
def test_a_validation_can_fail(check: Callable[[Context], Any], said: str) -> None:
    """None, as a function without a return gives, is no yes; what comes after does not begin."""
    flow = Workflow("f")
    flow.phase(name="a")(lambda _ctx: 1).verify(check)
    flow.phase(name="b")(lambda _ctx: 2)
    with pytest.raises(PhaseFailed, match=said):
        run(flow)
    assert states(flow) == {"a": "failed", "b": "pending"}


def test_parallel_phases_run_at_once() -> None:
    """Each waits until all are at work: one after the other they would never get past the barrier."""
    flow, together = Workflow("f"), threading.Barrier(3)

    def work(_ctx: Context, _item: int = 0) -> None:
        together.wait(PATIENCE)

    flow.phase(name="a", after=[])(work)
    flow.phase(name="b", after=[])(work)
    flow.phase(name="items", after=[], items=[1], batch_size=1)(work)
    assert run(flow).completed


def test_state_and_progress_agree_after_a_crash() -> None:
    """Killed in a batch, the phase is shown as interrupted, with the progress of its journal, and goes on there."""
    flow = Workflow("f")

    def work(_ctx: Context, number: int) -> None:
        with Path("seen").open("a") as file:
            file.write(f"{number}\n")
        if number == 3 and not Path("good").exists():
            os.kill(os.getpid(), 9)

    flow.phase(name="load", items=range(5), batch_size=1)(work)
    assert in_child(lambda: run(flow)) == -9
    assert stored("f")["phases"]["load"]["status"] == "running"
    state = steering.state_of(flow.store())
    assert (state["status"], state["phases"]["load"]["status"]) == ("interrupted", "interrupted")
    assert state["phases"]["load"]["progress"]["done"] == 3
    Path("good").touch()
    assert run(flow).completed
    assert Path("seen").read_text().split() == ["0", "1", "2", "3", "3", "4"]


DAMAGES: dict[str, Callable[[str], str]] = {
    "empty": lambda _text: "",
    "cut": lambda text: text[: len(text) // 2],
    "a list": lambda _text: "[]",
    "no phases": lambda _text: '{"format": 1}',
    "no state": lambda text: text.replace('"status"', '"stat"'),
    "a state of a later version": lambda text: text.replace('"completed",', '"dancing",', 1),
    "a newer format": lambda text: text.replace('"format": 1', '"format": 2', 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_state_file_that_cannot_be_read_stops_with_its_path(damage: str) -> None:
    """Whatever is done: nothing runs from the beginning, and no file is changed."""
    flow, made = Workflow("f", workspace="space"), []
    flow.phase(name="a", snapshot=True)(lambda _ctx: made.append("a"))
    run(flow)
    path = Path(".batchkit/f/workflow.json").absolute()
    path.write_text(DAMAGES[damage](path.read_text()))
    before = everything()
    store = flow.store()
    for do in (
        lambda: run(flow),
        flow.plan,
        lambda: flow.rollback(progress="none"),
        flow.way_back,
        lambda: steering.state_of(store),
        lambda: steering.answer(store, "k", "x"),
        lambda: steering.skip(store, "a", "why"),
        lambda: steering.reset(store, None, print),
        lambda: steering.rename(store, "a", "b"),
        lambda: steering.snapshot(store, None),
        lambda: steering.clean(store, only_snapshots=False, force=True),
        lambda: steering.log_of(store, "a"),
    ):
        with pytest.raises(DamageError, match=f"'{path}'") as caught:
            do()
        assert caught.value.exit_code == 1
    assert (everything(), made) == (before, ["a"])


class TestUserErrors:
    """One line each: what, where, what next; nothing is changed on disk."""

    def refused(self, kind: type[Exception], said: str, do: Callable[[], object]) -> None:
        """See that it is refused, in one line, and nothing changes."""
        before = everything()
        with pytest.raises(kind, match=said) as caught:
            do()
        assert "\n" not in str(caught.value)
        assert everything() == before

    def test_a_circle_of_phases_is_named(self) -> None:
        """With the way round."""
        flow = Workflow("f")
        for name, after in (("a", "c"), ("b", "a"), ("c", "b")):
            flow.phase(name=name, after=after)(says(1))
        self.refused(
            UsageError, "wait for each other in a circle: . → . → . → .; change one's after=", lambda: run(flow)
        )

    def test_unknown_phases_are_named_with_those_there_are(self) -> None:
        """In after=, until=, skip, reset, rename and log."""
        flow = Workflow("f")
        flow.phase(name="a")(says(1))
        run(flow)
        store = flow.store()
        for do in (
            lambda: run(flow, until="x"),
            lambda: steering.skip(store, "x", "why"),
            lambda: steering.reset(store, "x", print),
            lambda: steering.rename(store, "x", "y"),
            lambda: steering.log_of(store, "x"),
        ):
            self.refused(UsageError, "no phase 'x'; .*: a$", do)
        flow.phase(name="b", after="x")(says(1))
        self.refused(UsageError, "'b' comes after 'x', which is no phase; there are: a, b", lambda: run(flow))

    def test_a_renamed_phase_is_refused_with_the_command_that_renames_it(self) -> None:
        """And that command lets the run go on, with the phase completed."""
        flow, other = Workflow("f"), Workflow("f")
        flow.phase(name="old")(says(1))
        other.phase(name="new")(says(2))
        run(flow)
        self.refused(DefinitionChanged, "workflow rename f old new; if it was removed: .*--only", lambda: run(other))
        steering.rename(other.store(), "old", "new")
        assert run(other).completed
        assert stored("f")["phases"]["new"]["result"] == 1

    def test_a_removed_phase_is_forgotten_by_a_reset(self) -> None:
        """As the message says."""
        flow, other = Workflow("f"), Workflow("f")
        flow.phase(name="a")(says(1))
        flow.phase(name="b")(says(1))
        other.phase(name="a")(says(1))
        run(flow)
        self.refused(DefinitionChanged, "'b' is completed and not in the file any more", lambda: run(other))
        steering.reset(other.store(), "b", print, only=True)
        assert run(other).completed
        assert list(states(other)) == ["a"]

    def test_what_is_another_now_is_refused_with_5(self) -> None:
        """Kind, parameters, workspace."""
        flow = Workflow("f", params={"n": 1})
        flow.phase(name="a")(says(1))
        run(flow)
        gate, fewer, moved = (
            Workflow("f", params={"n": 1}),
            Workflow("f"),
            Workflow("f", params={"n": 1}, workspace="w"),
        )
        gate.gate("a", "Go?")
        fewer.phase(name="a")(says(1))
        moved.phase(name="a")(says(1))
        self.refused(DefinitionChanged, "'a' is completed as a phase, and now it is a gate", lambda: run(gate))
        self.refused(DefinitionChanged, "began with n=1, and now it is not there", lambda: run(fewer))
        self.refused(DefinitionChanged, "began with n=1, and now it is 2; .*--key", lambda: run(flow, params={"n": 2}))
        self.refused(DefinitionChanged, "began with the workspace 'None'", lambda: run(moved))
        self.refused(UsageError, "has no parameter 'm'; it has: n", lambda: run(flow, params={"m": 2}))
        assert DefinitionChanged.exit_code == 5

    @pytest.mark.parametrize(
        ("workspace", "said"),
        [
            ("held", "state directory .* is inside the workspace"),
            ("link", "is a link or a mount point"),
            (".", "holds the working directory"),
            ("file", "is not a directory"),
        ],
    )
    def test_workspaces_that_cannot_be_replaced_are_refused(self, workspace: str, said: str) -> None:
        """Before anything is made."""
        Path("held").mkdir()
        Path("link").symlink_to("held")
        Path("file").touch()
        place = "/nonexistent-state" if workspace == "." else "held/state" if workspace == "held" else "state"
        flow = Workflow("f", workspace=workspace)
        flow.phase(name="a", snapshot=True)(says(1))
        self.refused(UsageError, said, lambda: run(flow, state_dir=place))

    def test_answers_that_fit_nothing_are_refused(self) -> None:
        """No such question, no such choice, answered already."""
        flow = Workflow("f")
        flow.gate("go", "Go?")
        run(flow)
        store = flow.store()
        self.refused(UsageError, "does not ask 'gone'; open questions: go", lambda: steering.answer(store, "gone", "x"))
        self.refused(UsageError, "'x' is no answer to 'go'; .*: yes, no", lambda: steering.answer(store, "go", "x"))
        steering.answer(store, "go", "yes", by="ada")
        self.refused(UsageError, "was answered 'yes' by ada at", lambda: steering.answer(store, "go", "no"))

    def test_a_phase_cannot_take_its_own_name_or_that_of_another_or_none(self) -> None:
        """Renaming loses nothing."""
        flow = Workflow("f")
        for name in "ab":
            flow.phase(name=name)(says(1))
        run(flow)
        store = flow.store()
        self.refused(UsageError, "is called 'a' already", lambda: steering.rename(store, "a", "a"))
        self.refused(UsageError, "there is a phase 'b' that is completed", lambda: steering.rename(store, "a", "b"))
        self.refused(UsageError, "the phase name 'x/y' cannot be used", lambda: steering.rename(store, "a", "x/y"))
        assert json.loads(Path(".batchkit/f/workflow.json").read_text())["phases"].keys() == {"a", "b"}
