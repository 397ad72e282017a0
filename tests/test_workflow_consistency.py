"""What stands in the state and what stands on the disk belong together, whatever came between."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batchkit import DamageError, PhaseFailed, RollbackFailed, StorageError, UsageError, Workflow, process
from batchkit.workflow import snapshots, steering
from batchkit.workflow.rollback import Reverting
from batchkit.workflow.steering import state_of
from tests.conftest import PATIENCE
from tests.flows import run, states, stored

if TYPE_CHECKING:
    from batchkit.workflow.context import Context

pytestmark = pytest.mark.usefixtures("workdir")

SPACE = Path("space")


def items_in(space: Path) -> list[str]:
    """Return the names of the files in a workspace."""
    return sorted(path.name for path in space.iterdir())


def migration(last: list[int]) -> Workflow:
    """Return a workflow whose phase makes a file for each of four items, and fails behind the number in `last`."""
    flow = Workflow("f", workspace=SPACE)

    @flow.phase(items=[1, 2, 3, 4], batch_size=1)
    def migrate(ctx: Context, item: int) -> None:
        if item > last[0]:
            raise ValueError("not yet")
        (ctx.workspace / str(item)).touch()

    return flow


def test_what_was_half_way_at_a_snapshot_is_undone_with_it() -> None:
    """Else the phase would be completed over half of what it did."""
    last = [2]
    flow = migration(last)
    with pytest.raises(PhaseFailed):
        run(flow)
    steering.snapshot(flow.store(), "lunch")
    last[0] = 4
    assert run(flow).completed
    way = flow.rollback("lunch", progress="none")
    assert (way.phases, states(flow), items_in(SPACE)) == (["migrate"], {"migrate": "pending"}, ["1", "2"])
    assert run(flow).completed
    assert items_in(SPACE) == ["1", "2", "3", "4"]


def test_a_snapshot_older_than_the_start_behind_it_takes_what_was_done_between_with_it() -> None:
    """After a reset a phase keeps its point and starts later: what others did since is not in the snapshot."""
    flow, good = Workflow("f", workspace=SPACE), threading.Event()

    @flow.phase(snapshot=True, after=[])
    def p(ctx: Context) -> None:
        if not good.is_set():
            raise ValueError("later")
        (ctx.workspace / "p").touch()

    @flow.phase(after=[])
    def q(ctx: Context) -> None:
        (ctx.workspace / "q").touch()

    with pytest.raises(PhaseFailed):
        run(flow, until="p")
    steering.reset(flow.store(), "p", lambda _: None, only=True)
    run(flow, until="q")
    good.set()
    run(flow)
    assert set(flow.rollback("p", progress="none").phases) == {"p", "q"}
    assert (states(flow), items_in(SPACE)) == ({"p": "pending", "q": "pending"}, [])


def test_only_what_the_phase_has_published_is_written_over() -> None:
    """A file that was there before is refused in the second try as in the first; its own is replaced."""
    Path("precious.jsonl").write_text("years of work")
    flow = Workflow("f")
    flow.phase(name="p", items=[1], output="precious.jsonl")(lambda _ctx, item: item)
    for _ in range(2):
        with pytest.raises(PhaseFailed, match="exists"):
            run(flow)
        steering.reset(flow.store(), "p", lambda _: None)
    assert Path("precious.jsonl").read_text() == "years of work"
    Path("precious.jsonl").unlink()
    for _ in range(2):
        assert run(flow).completed
        flow.rollback("p", progress="none")
    assert run(flow).completed
    assert Path("precious.jsonl").read_text() == "1\n"


def test_a_rollback_that_a_failure_asks_for_is_not_forgotten_by_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stored with the failure: the next run does not try again over half of what was done."""
    flow = Workflow("f", on_failure="rollback")
    undone = []

    @flow.phase
    def a(_ctx: Context) -> None:
        raise ValueError("no luck")

    a.undo(lambda ctx: undone.append(ctx.phase))
    with monkeypatch.context() as patch:
        patch.setattr(Reverting, "run", _die)
        with pytest.raises(KeyboardInterrupt):
            run(flow)
    assert stored("f")["rollback"]["to"] == "start"
    with pytest.raises(UsageError, match="a rollback to 'start' is unfinished"):
        run(flow)
    assert flow.rollback(progress="none").phases == ["a"]
    assert undone == ["a"]


def _die(*_: object) -> bool:
    raise KeyboardInterrupt


def test_an_undo_that_was_stopped_is_called_again() -> None:
    """What runs inside of it ended early, so it is not taken for done."""
    flow, undone = Workflow("f"), []

    @flow.phase
    def a(_ctx: Context) -> None:
        pass

    @a.undo
    def restore(_ctx: Context) -> None:
        undone.append(1)
        if len(undone) == 1:
            flow.store().ask_to_stop()
            ended = threading.Event()
            threading.Thread(target=_until_stopped, args=(_ctx, ended)).start()
            assert ended.wait(PATIENCE)

    run(flow)
    assert not flow.rollback(progress="none").ended
    assert (states(flow), stored("f")["rollback"]["to"]) == ({"a": "reverting"}, "a")
    assert flow.rollback(progress="none").ended
    assert (states(flow), len(undone)) == ({"a": "pending"}, 2)


def _until_stopped(ctx: Context, ended: threading.Event) -> None:
    while not ctx.stopping:
        pass
    ended.set()


def test_an_undo_cannot_ask() -> None:
    """It has failed then, and says why."""
    flow = Workflow("f")
    flow.phase(name="a")(lambda _ctx: None).undo(lambda ctx: ctx.ask("really", "Really?"))
    run(flow)
    with pytest.raises(RollbackFailed, match="it asks 'really'"):
        flow.rollback(progress="none")
    assert states(flow) == {"a": "revert-failed"}


def test_a_restore_that_was_killed_between_its_renames_needs_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is unpacked by then."""
    last = [4]
    flow = migration(last)
    flow.phases["migrate"].snapshot = True
    run(flow)
    (SPACE / "mine").touch()
    rename = os.rename

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            flow.rollback("migrate", progress="none")
    rename(SPACE, f"{SPACE}.batchkit-restored")  # as it is between the two
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100, 100, 0))
    assert flow.rollback(progress="none").ended
    assert items_in(SPACE) == []


def test_a_state_file_that_is_gone_stops_a_run_that_would_begin_anew() -> None:
    """Its jobs are still there: they would be taken for those of the new beginning."""
    flow = migration([4])
    run(flow)
    Path(".batchkit/f/workflow.json").unlink()
    with pytest.raises(DamageError, match=r"workflow\.json' is gone"):
        run(flow)


def test_a_job_that_cannot_be_read_hides_neither_the_failure_nor_the_state() -> None:
    """Progress is for people."""
    flow = Workflow("f")

    @flow.phase(items=[1])
    def p(_ctx: Context, _item: int) -> None:
        Path(".batchkit/f/phases/p/job.json").write_text("{")
        raise ValueError("the real reason")

    with pytest.raises(PhaseFailed, match="the real reason"):
        run(flow)
    assert states(flow) == {"p": "failed"}
    assert state_of(flow.store())["status"] == "failed"


def test_a_log_that_cannot_be_written_hides_no_failure() -> None:
    """It is for people, too."""
    flow = Workflow("f")

    @flow.phase
    def p(ctx: Context) -> None:
        Path(".batchkit/f/logs/p.log").mkdir()
        ctx.log("one line")
        raise ValueError("the real reason")

    with pytest.raises(PhaseFailed, match="the real reason"):
        run(flow)
    assert states(flow) == {"p": "failed"}


def test_an_answer_given_while_the_question_is_put_anew_is_not_lost() -> None:
    """The prompt changed; the answer came between looking and asking."""
    flow, prompts = Workflow("f"), iter(["Old?", "New?"])

    @flow.phase
    def p(ctx: Context) -> str:
        prompt = next(prompts)
        load, asking = ctx._store.load, threading.get_ident()

        def late() -> object:
            record = load()
            if prompt == "New?" and threading.get_ident() == asking:  # the engine looks from a thread of its own
                vars(ctx._store).pop("load", None)
                steering.answer(flow.store(), "key", "yes")
            return record

        vars(ctx._store)["load"] = late
        return ctx.ask("key", prompt)

    assert run(flow).status == "waiting"
    flow.store().update(lambda record: setattr(record.phases["p"], "status", "running"))
    flow.store().update(lambda record: setattr(record.phases["p"], "status", "paused"))
    assert run(flow).completed
    assert stored("f")["phases"]["p"]["result"] == "yes"


def test_a_process_that_a_phase_forks_stores_nothing() -> None:
    """Where the child returns from the function, it ends there."""
    flow = Workflow("f")

    @flow.phase
    def p(_ctx: Context) -> str:
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
        return "parent" if pid else "child"

    assert run(flow).completed
    assert stored("f")["phases"]["p"]["result"] == "parent"
    assert sum(event.get("to") == "completed" for event in flow.store().events()) == 1


def test_halves_of_characters_are_kept() -> None:
    """As `os.listdir` may give them."""
    flow = Workflow("f")
    flow.phase(name="p")(lambda ctx: (ctx.log("\ud800"), "\ud800")[1])
    assert run(flow).completed
    assert stored("f")["phases"]["p"]["result"] == "\ud800"


def test_instances_have_workspaces_of_their_own() -> None:
    """So a rollback of one leaves the other's alone."""
    flow = migration([4])
    flow.phases["migrate"].snapshot = True
    run(flow, key="a")
    run(flow, key="b")
    flow.rollback("migrate", key="a", progress="none")
    assert (items_in(Path("space@a")), items_in(Path("space@b"))) == ([], ["1", "2", "3", "4"])


def test_a_limit_of_the_workflow_ends_a_run_of_items_inside_of_a_phase() -> None:
    """Its deadline is handed on."""
    flow, seen = Workflow("f"), []

    @flow.phase
    def p(_ctx: Context) -> None:
        def wait(item: int) -> None:
            seen.append(item)
            threading.Event().wait(0.05)

        process(list(range(10_000)), wait, job="inner", batch_size=1, progress="none")

    assert run(flow, max_time=0.5).status == "paused"
    assert 0 < len(seen) < 10_000


def test_a_snapshot_that_does_not_fit_says_so_before_a_saga_undoes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the failure is still told."""
    flow = migration([2])
    flow.phases["migrate"].snapshot, flow.phases["migrate"].on_failure = True, "rollback"
    SPACE.mkdir()
    (SPACE / "old").write_text("old")
    monkeypatch.setattr(snapshots, "check_restorable", _no_room)
    with pytest.raises(PhaseFailed, match=r"not yet.*is unfinished.*no room"):
        run(flow)
    assert states(flow) == {"migrate": "failed"}


def _no_room(*_: object) -> None:
    raise StorageError("no room")
