"""Going back: undo, snapshots and restores, sagas, resumption, and what random sequences of all that keep."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from batchkit import DamageError, PhaseFailed, RollbackFailed, StorageError, UsageError, Workflow, files
from batchkit.workflow import snapshots, states as words, steering
from batchkit.workflow.context import Context, Paused
from batchkit.workflow.states import MOVES, OVER, PENDING
from tests.children import in_child
from tests.flows import everything, run, states, stored, tree

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("workdir")

SPACE = Path("space")


def back(flow: Workflow, to: str | None = None) -> Any:
    """Roll back and show nothing."""
    return flow.rollback(to, progress="none")


def spoil(path: str) -> None:
    """Change a byte in the middle of a file."""
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 0xFF
    Path(path).write_bytes(data)


class Shop:
    """A workflow with a workspace: `first` without a snapshot, `second` and `third` with one; what it calls is noted.

    A phase whose name is in `bad` fails in its middle, an undo whose name is in `stuck` raises.
    """

    def __init__(self, **options: Any) -> None:
        self.flow = Workflow("shop", workspace=SPACE, **options)
        self.made: list[str] = []
        self.bad: set[str] = set()
        self.stuck: set[str] = set()
        for name, snapshot in (("first", False), ("second", True), ("third", True)):
            phase = self.flow.phase(name=name, snapshot=snapshot)(self._work)
            phase.undo(self._undo)

    def _work(self, ctx: Context) -> str:
        self.made.append(ctx.phase)
        (SPACE / ctx.phase).write_text(f"attempt {ctx.attempt}")
        if ctx.phase in self.bad:
            raise ValueError(ctx.phase)
        (SPACE / "data").write_text(ctx.phase)
        return ctx.phase

    def _undo(self, ctx: Context) -> None:
        self.made.append(f"undo {ctx.phase}")
        if ctx.phase in self.stuck:
            raise RuntimeError("stuck")


@pytest.fixture
def shop() -> Shop:
    """Give the workflow, with something in its workspace."""
    SPACE.mkdir()
    (SPACE / "data").write_text("before")
    return Shop()


class TestGoingBack:
    """`rollback [POINT]`."""

    def test_what_was_begun_since_is_undone_newest_first_and_the_workspace_restored(self, shop: Shop) -> None:
        """To before a phase: it, and all after it."""
        run(shop.flow, until="first")
        before = tree(SPACE)
        run(shop.flow)
        shop.made.clear()
        way = back(shop.flow, "second")
        assert shop.made == ["undo third", "undo second"]
        assert (way.phases, way.without_undo, way.restore) == (["third", "second"], [], "second")
        assert tree(SPACE) == before
        assert states(shop.flow) == {"first": "completed", "second": "pending", "third": "pending"}
        assert stored("shop")["rollback"] is None

    def test_after_it_the_phases_run_again_as_if_they_never_had(self, shop: Shop) -> None:
        """Attempts, results and progress are those of a first run; a new snapshot is taken before they begin."""
        run(shop.flow)
        back(shop.flow, "second")
        (SPACE / "by hand").write_text("kept by the new snapshot")
        before = tree(SPACE)
        assert run(shop.flow).completed
        assert stored("shop")["phases"]["second"]["attempts"] == 1
        back(shop.flow, "second")
        assert tree(SPACE) == before

    def test_without_a_point_it_goes_to_the_newest_snapshot(self, shop: Shop) -> None:
        """To the one before it goes by name, or once something has begun behind that."""
        run(shop.flow)
        assert back(shop.flow).to == "third"
        assert back(shop.flow, "second").to == "second"
        assert back(shop.flow, "first").to == "first"
        assert back(shop.flow).phases == []

    def test_where_nothing_has_begun_there_is_nothing_to_go_back_from(self, shop: Shop) -> None:
        """That is said, and nothing is changed."""
        shop.flow.gate("first gate", "Go?", after=[])
        run(shop.flow, until="first gate")
        shop.flow.store().update(lambda record: record.phases["first gate"].begin_anew())
        with pytest.raises(UsageError, match="no phase has begun"):
            back(shop.flow)

    def test_going_back_without_a_name_goes_no_further_when_it_is_asked_for_again(self, shop: Shop) -> None:
        """It may have been killed behind its last write: the same command then changes nothing."""
        run(shop.flow)
        first = shop.flow.rollback(progress="none")
        assert first.phases
        before = everything()
        again = shop.flow.rollback(progress="none")
        assert (again.to, again.phases, again.restore) == (first.to, [], None)
        assert everything() == before

    def test_a_point_that_was_gone_back_to_is_the_newest_again_once_something_has_begun_behind_it(
        self, shop: Shop
    ) -> None:
        """It still stands for what was there."""
        shop.flow.phases["second"].snapshot = False
        run(shop.flow, until="first")
        steering.snapshot(shop.flow.store(), "lunch")
        run(shop.flow, until="second")
        back(shop.flow, "lunch")
        run(shop.flow, until="second")
        assert shop.flow.way_back().to == "lunch"

    def test_start_undoes_everything(self, shop: Shop) -> None:
        """Without a snapshot from before the first phase the workspace stays, and the way says so."""
        run(shop.flow)
        way = back(shop.flow, "start")
        assert (way.phases, way.restore) == (["third", "second", "first"], None)
        assert set(states(shop.flow).values()) == {"pending"}
        assert (SPACE / "data").read_text() == "third"

    def test_a_phase_that_stopped_half_way_is_undone_too(self, shop: Shop) -> None:
        """It has begun; how far it came nobody knows."""
        shop.bad = {"second"}
        with pytest.raises(PhaseFailed):
            run(shop.flow)
        shop.made.clear()
        back(shop.flow)
        assert shop.made == ["undo second"]
        assert not (SPACE / "second").exists()

    def test_a_phase_that_was_never_called_is_not_undone(self, shop: Shop) -> None:
        """One that was skipped, or is pending."""
        steering_done = run(shop.flow, until="first")
        assert not steering_done.completed
        steering.skip(shop.flow.store(), "second", "not needed")
        back(shop.flow, "start")
        assert shop.made == ["first", "undo first"]

    def test_phases_without_an_undo_are_listed_before_anything_is_done(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """In the way, and said first."""
        flow = Workflow("f")
        flow.phase(name="a")(lambda _ctx: None)
        undone = flow.phase(name="b")(lambda _ctx: None)
        undone.undo(lambda _ctx: None)
        run(flow)
        assert flow.way_back("start").without_undo == ["a"]
        flow.rollback("start", progress="log")
        lines = capsys.readouterr().err.splitlines()
        assert "nothing undoes a: what they did outside of the workspace stays" in lines[0]

    def test_an_undo_sees_results_and_parameters(self) -> None:
        """Also those of its own phase, which is being reverted."""
        flow, seen = Workflow("f", params={"db": "x"}), []
        flow.phase(name="a")(lambda _ctx: {"file": "dump"})
        phase = flow.phase(name="b")(lambda _ctx: 2)
        phase.undo(lambda ctx: seen.append((ctx["a"], ctx["b"], ctx.params["db"])))
        run(flow)
        back(flow, "b")
        assert seen == [({"file": "dump"}, 2, "x")]

    def test_items_run_again_after_it(self) -> None:
        """The job of a reverted phase is another one: nothing counts as done."""
        flow, seen = Workflow("f"), []
        flow.phase(name="load", items=range(3), batch_size=1)(lambda _ctx, n: seen.append(n))
        for _ in range(3):
            run(flow)
            back(flow, "load")
        assert seen == [0, 1, 2] * 3
        assert os.listdir(".batchkit/f/phases") == []

    def test_answers_of_reverted_phases_are_asked_for_again(self) -> None:
        """A decision was about what is undone now."""
        flow = Workflow("f")
        flow.gate("go", "Go?")
        run(flow)
        steering.answer(flow.store(), "go", "yes")
        run(flow)
        back(flow, "start")
        assert run(flow).exit_code == 6

    @pytest.mark.parametrize(
        ("to", "said"),
        [("nope", "there is no point 'nope' to go back to; there are: start, second"), ("third", "has not begun")],
    )
    def test_a_point_that_is_none_is_refused(self, shop: Shop, to: str, said: str) -> None:
        """With those there are."""
        run(shop.flow, until="second")
        before = Path(".batchkit/shop/workflow.json").read_bytes()
        with pytest.raises(UsageError, match=said):
            back(shop.flow, to)
        assert Path(".batchkit/shop/workflow.json").read_bytes() == before

    def test_a_phase_that_is_gone_from_the_file_cannot_be_undone(self, shop: Shop) -> None:
        """Nothing is touched."""
        run(shop.flow)
        other = Workflow("shop", workspace=SPACE)
        other.phase(name="first")(lambda _ctx: None)
        with pytest.raises(UsageError, match="'third' has begun and is not in the file"):
            back(other, "start")

    def test_a_phase_with_a_snapshot_begins_alone(self) -> None:
        """A barrier: nothing may write into the workspace while it is archived."""
        flow, inside = Workflow("f", workspace=SPACE), []
        seen: list[list[str]] = []

        def work(ctx: Context) -> None:
            inside.append(ctx.phase)
            seen.append(list(inside))
            (SPACE / ctx.phase).touch()
            inside.remove(ctx.phase)

        for name in "abcd":
            flow.phase(name=name, after=[], snapshot=name in "bd")(work)
        assert run(flow).completed
        for name in "bd":
            with tarfile.open(f".batchkit/f/snapshots/{name}.tar.gz") as tar:
                held = tar.getnames()
            order = {phase: stored("f")["phases"][phase]["order"] for phase in "abcd"}
            assert held == sorted(each for each in "abcd" if order[each] < order[name])


class TestSaga:
    """`on_failure="rollback"`."""

    def test_a_failure_undoes_all_that_was_done(self, shop: Shop) -> None:
        """The error says what failed, and that all is rolled back; a second failure the same."""
        saga = Shop(on_failure="rollback")
        saga.flow.phases["first"].snapshot = True
        before = tree(SPACE)
        saga.bad = {"third"}
        for _ in range(3):
            saga.made.clear()
            with pytest.raises(PhaseFailed, match="'third' failed: ValueError: third; rolled back to the start"):
                run(saga.flow)
            assert saga.made == ["first", "second", "third", "undo third", "undo second", "undo first"]
            assert tree(SPACE) == before
            assert set(states(saga.flow).values()) == {"pending"}
        saga.bad.clear()
        assert run(saga.flow).completed
        assert shop.made == []

    def test_archives_of_points_that_others_took_over_from_do_not_pile_up(self) -> None:
        """Each run of a saga takes a snapshot; the disk keeps one."""
        flow = Workflow("f", workspace=SPACE, on_failure="rollback")
        good: list[bool] = []

        @flow.phase(snapshot=True)
        def a(_ctx: Context) -> None:
            if not good:
                raise ValueError("no")

        for _ in range(4):
            with pytest.raises(PhaseFailed):
                run(flow)
        good.append(True)
        run(flow)
        run(flow)
        assert len(os.listdir(".batchkit/f/snapshots")) == 2  # archive and manifest

    def test_a_phase_that_cannot_begin_rolls_nothing_back(self, shop: Shop) -> None:
        """It has done nothing, and what `rollback_to` names is as good as before."""
        check = shop.flow.phase(name="check", on_failure="rollback", rollback_to="first")(lambda _ctx: None)
        check.require(lambda _ctx: False)
        with pytest.raises(PhaseFailed, match="cannot begin"):
            run(shop.flow)
        assert states(shop.flow) == {
            "first": "completed", "second": "completed", "third": "completed", "check": "pending",
        }  # fmt: skip
        assert not any("undo" in each for each in shop.made)

    def test_a_question_about_what_was_undone_is_asked_anew(self) -> None:
        """A gate that waits behind it is pending again, and an early answer forgotten; one beside it waits on."""
        flow = Workflow("f")
        flow.phase(name="a")(lambda _ctx: None)
        flow.phase(name="b")(lambda _ctx: None)
        flow.gate("behind", "Is b right?")
        flow.gate("beside", "Go?", after=["a"])
        run(flow)
        steering.answer(flow.store(), "behind", "yes")
        back(flow, "b")
        assert states(flow) == {"a": "completed", "b": "pending", "behind": "pending", "beside": "waiting"}
        assert run(flow).questions.keys() == {"behind", "beside"}
        back(flow, "start")
        assert set(states(flow).values()) == {"pending"}
        assert stored("f")["questions"] == {}

    def test_a_phase_may_be_undone_alone(self, shop: Shop) -> None:
        """`on_failure` of a phase goes to before it."""
        shop.flow.phases["second"].on_failure = "rollback"
        shop.bad = {"second"}
        with pytest.raises(PhaseFailed, match="rolled back to before 'second'"):
            run(shop.flow)
        assert states(shop.flow) == {"first": "completed", "second": "pending", "third": "pending"}
        assert shop.made == ["first", "second", "undo second"]

    def test_a_phase_called_start_would_be_taken_for_the_beginning(self, shop: Shop) -> None:
        """Which is why neither phase nor snapshot can be called so."""
        run(shop.flow, until="first")
        for do in (
            lambda: shop.flow.phase(name="start")(lambda _ctx: None),
            lambda: steering.rename(shop.flow.store(), "first", "start"),
            lambda: steering.snapshot(shop.flow.store(), "start"),
        ):
            with pytest.raises(UsageError, match="means the point before everything"):
                do()

    def test_a_saga_whose_undo_raises_says_so_and_goes_on_with_rollback(self, shop: Shop) -> None:
        """The run is refused until then."""
        saga = Shop(on_failure="rollback")
        saga.bad, saga.stuck = {"third"}, {"second"}
        with pytest.raises(RollbackFailed, match="the undo of 'second' failed: RuntimeError: stuck"):
            run(saga.flow)
        with pytest.raises(UsageError, match="unfinished"):
            run(saga.flow)
        saga.stuck.clear()
        back(saga.flow)
        assert saga.made[-2:] == ["undo second", "undo first"]
        assert shop.made == []


class TestResuming:
    """A rollback that did not come to its end."""

    def test_an_undo_that_raises_is_called_again_when_it_is_mended(self, shop: Shop) -> None:
        """What was undone before it is not undone twice; the workspace is restored in the end."""
        run(shop.flow, until="first")
        before = tree(SPACE)
        run(shop.flow)
        shop.stuck = {"second"}
        with pytest.raises(RollbackFailed, match="workflow reset shop second --only") as caught:
            back(shop.flow, "second")
        assert caught.value.exit_code == 1
        assert states(shop.flow) == {"first": "completed", "second": "revert-failed", "third": "pending"}
        assert steering.state_of(shop.flow.store())["status"] == "revert-failed"
        assert "undo: RuntimeError: stuck" in stored("shop")["phases"]["second"]["error"]
        assert (SPACE / "data").read_text() == "third"
        with pytest.raises(UsageError, match="a rollback to 'second' is unfinished"):
            back(shop.flow, "first")
        shop.stuck.clear()
        assert back(shop.flow).to == "second"
        assert shop.made == ["first", "second", "third", "undo third", "undo second", "undo second"]
        assert tree(SPACE) == before

    def test_one_that_was_undone_by_hand_is_passed_over(self, shop: Shop) -> None:
        """`reset NAME --only`; and the phase is archived again before it begins."""
        run(shop.flow)
        shop.stuck = {"second"}
        with pytest.raises(RollbackFailed):
            back(shop.flow, "first")
        with pytest.raises(UsageError, match="unfinished"):
            steering.reset(shop.flow.store(), "second", print)
        steering.reset(shop.flow.store(), "second", print, only=True)
        back(shop.flow)
        assert shop.made[3:] == ["undo third", "undo second", "undo first"]
        run(shop.flow)
        assert [point["name"] for point in stored("shop")["points"]] == ["second", "third"]

    def test_a_run_is_refused_meanwhile_and_changes_nothing(self, shop: Shop) -> None:
        """Not even the directory of the workspace, which may be on its way."""
        run(shop.flow)
        shop.stuck = {"third"}
        with pytest.raises(RollbackFailed):
            back(shop.flow)
        SPACE.rename("on its way")
        before = everything()
        with pytest.raises(UsageError, match="a rollback to 'third' is unfinished; let it end first"):
            run(shop.flow)
        assert everything() == before

    @pytest.mark.parametrize("call", range(1, 4))
    def test_a_restore_that_was_killed_between_two_renames_is_taken_up(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, call: int
    ) -> None:
        """The names on disk tell how far it was; the workspace is the old one or the new one, whole."""
        run(shop.flow, until="first")
        before = tree(SPACE)
        run(shop.flow)
        real, left = files.kernel.replace, iter(range(call))

        class Killed(BaseException):
            pass

        def replace(source: str, target: str) -> None:
            if "space.batchkit-re" in source + target and next(left, None) == call - 1:
                raise Killed
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(files.kernel, "replace", replace)
            try:
                back(shop.flow, "second")
            except Killed:
                assert call < 3
            else:
                assert call == 3
                return
        back(shop.flow)
        assert tree(SPACE) == before
        assert sorted(each.name for each in Path().iterdir()) == [".batchkit", "space"]

    def test_what_a_restore_left_that_was_then_forgotten_is_not_deleted(self, shop: Shop) -> None:
        """It may be the only copy of the workspace: a rollback is refused, not half done and called whole."""
        run(shop.flow)
        left = Path("space.batchkit-replaced")
        left.mkdir()
        (left / "treasure").touch()
        with pytest.raises(StorageError, match=r"space\.batchkit-replaced' is what the workspace was"):
            back(shop.flow)
        assert (left / "treasure").exists()
        assert set(states(shop.flow).values()) == {"completed"}


class TestRefusedRestores:
    """Nothing is deleted before what replaces it is there, whole."""

    @pytest.mark.parametrize("how", ["damaged", "cut", "gone", "manifest gone", "manifest damaged", "newer"])
    def test_an_archive_that_is_not_whole_leaves_all_as_it_is(self, shop: Shop, how: str) -> None:
        """No undo is called, no state is changed, the workspace is untouched."""
        run(shop.flow)
        archive = ".batchkit/shop/snapshots/second.tar.gz"
        if how == "damaged":
            spoil(archive)
        elif how == "cut":
            Path(archive).write_bytes(Path(archive).read_bytes()[:-9])
        elif how == "gone":
            Path(archive).unlink()
        elif how == "manifest gone":
            Path(archive + ".json").unlink()
        elif how == "manifest damaged":
            Path(archive + ".json").write_text("{")
        else:
            manifest = json.loads(Path(archive + ".json").read_text())
            Path(archive + ".json").write_text(json.dumps({**manifest, "format": 99}))
        before, made = everything(), list(shop.made)
        with pytest.raises(DamageError, match=r"second\.tar\.gz"):
            back(shop.flow, "second")
        assert (everything(), shop.made) == (before, made)

    def test_too_little_space_leaves_all_as_it_is(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """The space for the unpacked workspace is looked for first; for a snapshot, too."""
        run(shop.flow, until="second")
        before, made = everything(), list(shop.made)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100, 95, 5))
        with pytest.raises(StorageError, match=r"restoring '.*space' needs [\d,]+ bytes, and '.*' has 5 free"):
            back(shop.flow, "second")
        assert (everything(), shop.made) == (before, made)
        with pytest.raises(PhaseFailed, match=r"'third' cannot begin: a snapshot of '.*' may need [\d,]+ bytes"):
            run(shop.flow)
        assert states(shop.flow)["third"] == "pending"
        with pytest.raises(StorageError, match="make room"):
            steering.snapshot(shop.flow.store(), None)
        assert len(os.listdir(".batchkit/shop/snapshots")) == 2

    def test_a_disk_that_is_full_while_unpacking_leaves_the_workspace(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The undos were called by then; the rollback goes on when there is room."""
        run(shop.flow, until="first")
        before = tree(SPACE)
        run(shop.flow)
        full = tree(SPACE)

        def refuse(_tar: tarfile.TarFile, _path: str, **_options: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(tarfile.TarFile, "extractall", refuse)
            with pytest.raises(DamageError, match=r"No space left on device; the workspace is as it was"):
                back(shop.flow, "second")
        assert tree(SPACE) == full
        back(shop.flow)
        assert tree(SPACE) == before


class TestPoints:
    """Names and lives of snapshots."""

    def test_a_retry_keeps_the_clean_point(self, shop: Shop) -> None:
        """The snapshot is taken before the first attempt only: the workspace is half changed by the second."""
        shop.bad = {"second"}
        run(shop.flow, until="first")
        before = tree(SPACE)
        archive = Path(".batchkit/shop/snapshots/second.tar.gz")
        digests = set()
        for _ in range(3):
            with pytest.raises(PhaseFailed):
                run(shop.flow)
            digests.add(hashlib.sha256(archive.read_bytes()).hexdigest())
            steering.reset(shop.flow.store(), "second", print)
        assert len(digests) == 1
        assert [point["name"] for point in stored("shop")["points"]] == ["second"]
        with pytest.raises(PhaseFailed):
            run(shop.flow)
        back(shop.flow, "second")
        assert tree(SPACE) == before

    @pytest.mark.parametrize(
        "names",
        [
            ["load", "load-2", "load-2-2", "load-users"],
            ["2", "2-2", "2-2-2"],
            ["a.2", "a", "a.tar.gz", "a.json"],
            ["größe", "schritt-eins-2", "数据-2", "a b"],
            ["by-hand", "by-hand-2", "phase-by-hand"],
        ],
    )
    def test_points_belong_to_phases_whatever_these_are_called(self, names: list[str]) -> None:
        """Nothing is parsed out of the name of a file: dashes, digits, dots and prefixes lead nobody astray."""
        flow = Workflow("f", workspace=SPACE)
        held: dict[str, Any] = {}

        def work(ctx: Context) -> None:
            (SPACE / ctx.phase).write_text(ctx.phase)

        def look(ctx: Context) -> bool:
            held[ctx.phase] = tree(SPACE)
            return True

        for name in names:
            flow.phase(name=name, snapshot=True)(work).require(look)
        run(flow)
        steering.reset(flow.store(), names[0], print)
        shutil.rmtree(SPACE)
        run(flow)
        steering.snapshot(flow.store(), None)
        for name in reversed(names):
            back(flow, name)
            assert tree(SPACE) == held[name], name
            expected = {each: "completed" if names.index(each) < names.index(name) else "pending" for each in names}
            assert states(flow) == expected

    def test_a_second_snapshot_of_a_phase_is_not_named_like_another_phase(self) -> None:
        """`rollback load-2` would go back to a point of `load`, where the phase `load-2` has not begun."""
        flow = Workflow("f", workspace=SPACE)
        for name in ("load", "load-2"):
            flow.phase(name=name, snapshot=True)(lambda _ctx: None)
        for _ in range(2):
            run(flow, until="load")
            steering.reset(flow.store(), "load", print)
        run(flow, until="load")
        assert "load-2" not in [point["name"] for point in stored("f")["points"]]
        with pytest.raises(UsageError, match="'load-2' has not begun"):
            back(flow, "load-2")

    def test_items_of_phases_with_numbers_in_their_names_are_apart(self) -> None:
        """Also when one begins anew, and its job is its second: the jobs of others stay."""
        flow, seen = Workflow("f"), []
        for name in ("a", "a.2", "a-2", "a~2"):
            flow.phase(name=name, items=[1, 2], after=[])(lambda ctx, n: seen.append((ctx.phase, n)))
        run(flow)
        for _ in range(3):
            seen.clear()
            steering.reset(flow.store(), "a", print)
            assert run(flow).completed
            assert seen == [("a", 1), ("a", 2)]
        assert all(Path(f".batchkit/f/phases/{name}/job.json").exists() for name in ("a.2", "a-2", "a~2"))

    def test_points_by_hand_have_names_of_their_own(self, shop: Shop) -> None:
        """None is written over, and none leads out of the directory."""
        run(shop.flow, until="second")
        store = shop.flow.store()
        assert [steering.snapshot(store, name).name for name in (None, None, "lunch")] == [
            "by-hand", "by-hand-2", "lunch",
        ]  # fmt: skip
        for name in ("lunch", "second", "third"):
            with pytest.raises(UsageError, match="none is written over"):
                steering.snapshot(store, name)
        for name in ("../evil", "a/b", "..", ""):
            with pytest.raises(UsageError, match="name"):
                steering.snapshot(store, name)
        (SPACE / "data").write_text("after lunch")
        run(shop.flow)
        back(shop.flow, "lunch")
        assert (SPACE / "data").read_text() == "second"
        assert states(shop.flow) == {"first": "completed", "second": "completed", "third": "pending"}

    def test_points_behind_the_one_that_was_gone_back_to_are_gone_with_their_files(self, shop: Shop) -> None:
        """They are of a time that never was."""
        run(shop.flow)
        back(shop.flow, "second")
        assert sorted(os.listdir(".batchkit/shop/snapshots")) == ["second.tar.gz", "second.tar.gz.json"]
        with pytest.raises(UsageError, match="has not begun"):
            back(shop.flow, "third")

    def test_a_start_behind_a_gate_and_a_skipped_phase_is_the_snapshot_that_follows(self) -> None:
        """They change nothing, so the first snapshot is from before everything."""
        SPACE.mkdir()
        (SPACE / "data").write_text("clean")
        flow = Workflow("f", workspace=SPACE)
        flow.phase(name="maybe", when=lambda _ctx: False)(lambda _ctx: None)
        flow.gate("go", "Go?")
        flow.phase(name="work", snapshot=True)(lambda _ctx: (SPACE / "data").write_text("dirty"))
        run(flow)
        steering.answer(flow.store(), "go", "yes")
        run(flow)
        back(flow, "start")
        assert (SPACE / "data").read_text() == "clean"


def taken(go_on: Callable[[], bool] = lambda: True) -> str:
    """Archive the workspace; return the archive."""
    archive = os.path.abspath("a.tar.gz")
    snapshots.take(os.path.abspath(SPACE), archive, "a", go_on)
    return archive


def there_and_back() -> tuple[dict[str, Any], dict[str, Any]]:
    """Archive the workspace, spoil it, restore it; return how it was and is."""
    before = tree(SPACE)
    archive = taken()
    shutil.rmtree(SPACE)
    SPACE.mkdir()
    (SPACE / "later").write_text("made since")
    snapshots.restore(archive, os.path.abspath(SPACE))
    return before, tree(SPACE)


class TestWorkspaces:
    """What a snapshot keeps."""

    def test_all_kinds_of_files_come_back(self) -> None:
        """Links inside, outside, absolute and dangling; empty directories, modes, odd names, two names of a file."""
        SPACE.mkdir(mode=0o750)
        (SPACE / "empty" / "deep").mkdir(parents=True)
        (SPACE / "dir").mkdir()
        (SPACE / "dir" / "file").write_bytes(bytes(range(256)) * 5000)
        (SPACE / "inside").symlink_to("dir/file")
        (SPACE / "outside").symlink_to("../elsewhere")
        (SPACE / "absolute").symlink_to("/etc/passwd")
        (SPACE / "dangling").symlink_to("nowhere")
        (SPACE / "to a directory").symlink_to("dir")
        (SPACE / "second name").hardlink_to(SPACE / "dir" / "file")
        for mode in (0o400, 0o644, 0o666, 0o700, 0o777):
            (SPACE / f"mode {mode:o}").write_text("x")
            (SPACE / f"mode {mode:o}").chmod(mode)
        (SPACE / "closed").mkdir(mode=0o500)
        for name in ("ünïcode 数", "new\nline", "-rf *", " ", "x" * 255, os.fsdecode(b"\xff\xfe not utf-8")):
            (SPACE / name).write_text(name, errors="surrogateescape")
        (SPACE / "zero").touch()
        before, after = there_and_back()
        assert after == before
        assert SPACE.stat().st_mode & 0o777 == 0o750
        assert Path("a.tar.gz").exists()

    def test_an_empty_workspace_comes_back_empty(self) -> None:
        """It is a state as any other."""
        SPACE.mkdir()
        assert there_and_back() == ({}, {})

    def test_a_workspace_that_is_gone_is_restored(self) -> None:
        """Where somebody has deleted it, nothing is in the way."""
        SPACE.mkdir()
        (SPACE / "data").write_text("x")
        archive = taken()
        shutil.rmtree(SPACE)
        snapshots.restore(archive, os.path.abspath(SPACE))
        assert (SPACE / "data").read_text() == "x"

    def test_the_manifest_has_files_bytes_and_digests(self) -> None:
        """Of each file, and of the archive itself."""
        SPACE.mkdir()
        (SPACE / "data").write_text("12345")
        archive = taken()
        manifest = json.loads(Path(archive + ".json").read_text())
        assert (manifest["files"], manifest["bytes"]) == (1, 5)
        assert manifest["sha256"] == hashlib.sha256(Path(archive).read_bytes()).hexdigest()
        assert manifest["entries"] == {"data": hashlib.sha256(b"12345").hexdigest()}
        with tarfile.open(archive) as tar:  # any tar can read it
            assert tar.getnames() == ["data"]

    @pytest.mark.slow
    def test_a_large_file_comes_back(self) -> None:
        """Larger than the blocks it is read in, with holes."""
        SPACE.mkdir()
        with (SPACE / "large").open("wb") as file:
            file.write(os.urandom(3_000_000))
            file.seek(64_000_000)
            file.write(b"end")
        before = hashlib.sha256((SPACE / "large").read_bytes()).hexdigest()
        archive = taken()
        (SPACE / "large").unlink()
        snapshots.restore(archive, os.path.abspath(SPACE))
        assert hashlib.sha256((SPACE / "large").read_bytes()).hexdigest() == before

    @pytest.mark.parametrize("kind", ["fifo", "socket"])
    def test_what_cannot_be_in_an_archive_is_refused(self, kind: str) -> None:
        """It would be missing after a restore; nothing is left of the attempt."""
        SPACE.mkdir()
        if kind == "fifo":
            os.mkfifo(SPACE / "odd")
        else:
            with socket.socket(socket.AF_UNIX) as one:
                one.bind("space/odd")
        with pytest.raises(StorageError, match=r"space/odd' is .* cannot be in a snapshot; remove it"):
            taken()
        assert sorted(os.listdir()) == ["space"]

    @pytest.mark.parametrize("how", ["grows", "shrinks", "other bytes", "vanishes"])
    def test_a_file_that_changes_while_it_is_archived_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        """What would be kept is neither the old nor the new; nothing is left of the attempt."""
        SPACE.mkdir()
        (SPACE / "busy").write_bytes(b"x" * 100_000)
        os.utime(SPACE / "busy", (1, 1))

        def change() -> None:
            if how == "grows":
                with (SPACE / "busy").open("ab") as file:
                    file.write(b"more")
            elif how == "shrinks":
                os.truncate(SPACE / "busy", 10)
            elif how == "other bytes":
                with (SPACE / "busy").open("r+b") as file:
                    file.write(b"y")
            else:
                (SPACE / "busy").unlink()

        real = tarfile.TarFile.addfile

        def addfile(tar: tarfile.TarFile, info: tarfile.TarInfo, source: Any = None) -> None:
            change()
            real(tar, info, source)

        if how == "vanishes":
            with pytest.raises(StorageError, match="space/busy': No such file"):
                taken(lambda: not change())  # type: ignore[func-returns-value]
        else:
            monkeypatch.setattr(tarfile.TarFile, "addfile", addfile)
            with pytest.raises(StorageError, match=r"space/busy' was changed while it was archived"):
                taken()
        assert sorted(os.listdir()) == ["space"]

    def test_a_file_that_may_not_be_read_is_refused(self) -> None:
        """The snapshot would not be whole; the path is named. Where we are root, as another user."""
        with tempfile.TemporaryDirectory(dir="/tmp") as place:
            os.chmod(place, 0o777)  # noqa: S103
            space = Path(place) / "space"
            space.mkdir()
            (space / "secret").write_text("x")
            (space / "secret").chmod(0)
            said = Path(place) / "said"

            def take() -> None:
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                with pytest.raises(StorageError) as caught:
                    snapshots.take(str(space), f"{place}/a.tar.gz", "a", lambda: True)
                said.write_text(str(caught.value))

            assert in_child(take) == 0
            assert f"cannot read '{space}/secret': Permission denied" in said.read_text()
            assert sorted(os.listdir(place)) == ["said", "space"]

    def test_a_stop_in_the_middle_leaves_nothing(self) -> None:
        """The phase has not begun; the next run takes the snapshot anew."""
        SPACE.mkdir()
        for name in "abc":
            (SPACE / name).touch()
        answers = iter([True, True, False])
        with pytest.raises(Paused):
            taken(lambda: next(answers))
        assert sorted(os.listdir()) == ["space"]

    def test_a_write_that_fails_leaves_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor does one that cannot be synced."""
        SPACE.mkdir()

        def refuse(_fd: int) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(files.kernel, "fsync", refuse)
        with pytest.raises(StorageError, match="Input/output error"):
            taken()
        assert sorted(os.listdir()) == ["space"]


class Hostile(NamedTuple):
    """An entry that no workspace gave."""

    name: str
    kind: bytes = tarfile.REGTYPE
    link: str = ""


class TestHostileArchives:
    """An archive with a manifest that fits, made by somebody else."""

    @pytest.mark.parametrize(
        "entries",
        [
            [Hostile("../evil")],
            [Hostile("{outside}/evil")],
            [Hostile("d", tarfile.SYMTYPE, "{outside}"), Hostile("d/evil")],
            [Hostile("d", tarfile.SYMTYPE, "{outside}"), Hostile("d/evil", tarfile.SYMTYPE, "x")],
            [Hostile("../evil", tarfile.SYMTYPE, "x")],
            [Hostile("{outside}/evil", tarfile.SYMTYPE, "x")],
            [Hostile("evil", tarfile.LNKTYPE, "{outside}/secret")],
            [Hostile("evil", tarfile.LNKTYPE, "../outside/secret")],
            [Hostile("../evil", tarfile.DIRTYPE)],
            [Hostile("evil", tarfile.CHRTYPE)],
            [Hostile("evil", tarfile.BLKTYPE)],
            [Hostile("evil", tarfile.FIFOTYPE)],
        ],
    )
    def test_nothing_lands_outside_and_the_workspace_stays(self, entries: list[Hostile]) -> None:
        """Names that lead out, links to write through, devices: refused."""
        SPACE.mkdir()
        (SPACE / "data").write_text("mine")
        outside = Path("outside").absolute()
        outside.mkdir()
        (outside / "secret").write_text("s")
        archive = os.path.abspath("a.tar.gz")
        with tarfile.open(archive, "w:gz") as tar:
            for entry in entries:
                info = tarfile.TarInfo(entry.name.format(outside=outside))
                info.type, info.linkname = entry.kind, entry.link.format(outside=outside)
                tar.addfile(info, io.BytesIO())
        sha256 = hashlib.sha256(Path(archive).read_bytes()).hexdigest()
        manifest = {"format": 1, "files": 1, "bytes": 1, "mode": 0o755, "sha256": sha256, "entries": {}}
        Path(archive + ".json").write_text(json.dumps(manifest))
        space = tree(SPACE)
        with pytest.raises(DamageError, match="cannot be unpacked"):
            snapshots.restore(archive, os.path.abspath(SPACE))
        assert tree(SPACE) == space
        assert sorted(os.listdir(outside)) == ["secret"]
        assert not Path("evil").is_symlink()
        assert not Path("evil").exists()

    def test_a_file_that_is_not_what_the_manifest_says_is_refused(self) -> None:
        """An archive that was made anew, with its own digest, but other contents."""
        SPACE.mkdir()
        (SPACE / "data").write_text("mine")
        archive = taken()
        manifest = json.loads(Path(archive + ".json").read_text())
        data = gzip.decompress(Path(archive).read_bytes()).replace(b"mine", b"evil")
        Path(archive).write_bytes(gzip.compress(data))
        manifest["sha256"] = hashlib.sha256(Path(archive).read_bytes()).hexdigest()
        Path(archive + ".json").write_text(json.dumps(manifest))
        with pytest.raises(DamageError, match="'data' of the snapshot"):
            snapshots.restore(archive, os.path.abspath(SPACE))
        assert (SPACE / "data").read_text() == "mine"


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 200
)
CONTENTS = st.one_of(
    st.binary(max_size=300),
    st.tuples(st.just("link"), NAMES),
)
TREES = st.recursive(
    st.dictionaries(NAMES, CONTENTS, max_size=3),
    lambda inner: st.dictionaries(NAMES, st.one_of(CONTENTS, inner), max_size=4),
    max_leaves=12,
)


def plant(directory: Path, contents: dict[str, Any]) -> None:
    """Make a directory with these contents."""
    directory.mkdir()
    for name, value in contents.items():
        if isinstance(value, dict):
            plant(directory / name, value)
        elif isinstance(value, tuple):
            (directory / name).symlink_to(value[1])
        else:
            (directory / name).write_bytes(value)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=TREES)
def test_any_workspace_survives_the_way_there_and_back(contents: dict[str, Any]) -> None:
    """Whatever the names, contents and links."""
    for path in Path().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    plant(SPACE, contents)
    before, after = there_and_back()
    assert after == before


class TestMoves:
    """The one table of states."""

    @pytest.mark.parametrize("after", sorted(MOVES))
    @pytest.mark.parametrize("before", sorted(MOVES))
    def test_no_illegal_move_reaches_the_file(self, before: str, after: str) -> None:
        """Every write is checked: what is not in the table leaves the file as it was."""
        flow = Workflow("f")
        flow.phase(name="a")(lambda _ctx: None)
        run(flow, max_time=0)
        path = Path(".batchkit/f/workflow.json")
        state = stored("f")
        state["phases"]["a"]["status"] = before
        path.write_text(json.dumps(state))
        data = path.read_bytes()

        def move(record: Any) -> None:
            record.phases["a"].status = after

        if before == after or after in MOVES[before]:
            flow.store().update(move)
            assert states(flow) == {"a": after}
        else:
            with pytest.raises(DamageError, match=f"'a' cannot go from '{before}' to '{after}'"):
                flow.store().update(move)
            assert path.read_bytes() == data

    def test_every_state_can_be_left_and_leads_to_pending_in_the_end(self) -> None:
        """There is no dead end: what went wrong can be run again."""
        for state in MOVES:
            reached, last = {state}, set[str]()
            while reached != last:
                last = set(reached)
                reached |= {after for before in last for after in MOVES[before]}
            assert {PENDING, words.RUNNING} <= reached

    def test_a_state_that_nobody_knows_is_not_stored(self) -> None:
        """It would be what a newer version knows."""
        flow = Workflow("f")
        flow.phase(name="a")(lambda _ctx: None)
        run(flow, max_time=0)
        with pytest.raises(DamageError, match="no state that this batchkit knows"):
            flow.store().update(lambda record: setattr(record.phases["a"], "status", "dancing"))


class Operations(RuleBasedStateMachine):
    """Random sequences of what people do to a workflow with a fork, a gate, items and snapshots.

    The model: which phases may be called (those that are not over), what each snapshot held, and which archives there
    are. A phase adds a line to the workspace, so that a restore that did not happen is seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._home = tempfile.TemporaryDirectory()
        self._was = os.getcwd()
        os.chdir(self._home.name)
        self.flow = Workflow("f", workspace=SPACE)
        self.bad: set[str] = set()
        self.stuck = False
        self.over: set[str] = set()
        self.held: dict[str, Any] = {}
        self.archives: dict[str, bytes] = {}
        a = self.flow.phase(name="a", snapshot=True)(self.work)
        b = self.flow.phase(name="b", after=a)(self.work)
        c = self.flow.phase(name="c", after=a, snapshot=True)(self.work)
        items = self.flow.phase(name="items", after=a, items=[1, 2], batch_size=1)(self.item)
        gate = self.flow.gate("gate", "Go?", after=[b, items])
        self.flow.phase(name="join", after=[gate, c], snapshot=True)(self.work)
        for phase in self.flow.phases.values():
            phase.require(self.look)
            if phase.kind != "gate":
                phase.undo(self.undo)

    def teardown(self) -> None:
        """Leave the directory."""
        os.chdir(self._was)
        self._home.cleanup()

    # What phases do

    def look(self, ctx: Context) -> bool:
        """Note what the workspace holds before a phase begins."""
        self.held[ctx.phase] = tree(SPACE)
        return True

    def called(self, ctx: Context) -> None:
        """See that a phase may be called: it is not over, and all before it are."""
        assert ctx.phase not in self.over, "a phase that is over is never called again"
        state = stored("f")["phases"]
        assert all(state[other]["status"] in OVER for other in state[ctx.phase]["after"]), "a join waits for all"
        assert state[ctx.phase]["status"] == "running", "the file knows before the phase begins"

    def work(self, ctx: Context) -> str:
        """Be a phase."""
        self.called(ctx)
        with (SPACE / ctx.phase).open("a") as file:
            file.write("line\n")
        if ctx.phase in self.bad:
            raise ValueError("bad")
        return ctx.phase

    def item(self, ctx: Context, number: int) -> int:
        """Be an item."""
        self.called(ctx)
        if "items" in self.bad and number == 2:
            raise ValueError("bad")
        return number

    def undo(self, _ctx: Context) -> None:
        """Be an undo."""
        if self.stuck:
            raise RuntimeError("stuck")

    # What people do

    @initialize()
    def begin(self) -> None:
        """Have a state."""
        run(self.flow, max_time=0)

    @rule(bad=st.sets(st.sampled_from(["a", "b", "c", "items", "join"]), max_size=2), step=st.booleans())
    def run(self, bad: set[str], step: bool) -> None:
        """Run, with phases that fail."""
        self.bad = bad
        try:
            run(self.flow, step=step)
        except PhaseFailed as error:
            assert set(error.phases) <= bad | {"gate"}  # noqa: PT017
        except UsageError as error:
            assert "is unfinished" in str(error)  # noqa: PT017

    @rule(text=st.sampled_from(["yes", "no", "perhaps"]))
    def answer(self, text: str) -> None:
        """Answer the gate, where that is asked for or not."""
        question = self.flow.store().load().questions.get("gate")
        try:
            steering.answer(self.flow.store(), "gate", text)
            assert question is not None
            assert text != "perhaps"
        except UsageError:
            assert question is None or question.answer is not None or text == "perhaps"

    @rule(name=st.sampled_from(["a", "b", "c", "items", "gate", "join"]))
    def skip(self, name: str) -> None:
        """Skip a phase."""
        before = states(self.flow)[name]
        try:
            steering.skip(self.flow.store(), name, "by chance")
        except UsageError:
            assert before in {"completed", "skipped", "revert-failed"}

    @rule(name=st.sampled_from([None, "a", "b", "c", "items", "join"]), only=st.booleans())
    def reset(self, name: str | None, only: bool) -> None:
        """Reset one, with or without what follows, or all."""
        try:
            names = steering.reset(self.flow.store(), name, lambda _: None, only=only and name is not None)
        except UsageError as error:
            assert "is unfinished" in str(error)  # noqa: PT017
            return
        self.over -= set(names)
        assert all(states(self.flow)[each] == "pending" for each in names)

    @rule()
    def snapshot(self) -> None:
        """Take a point by hand."""
        name = steering.snapshot(self.flow.store(), None).name
        self.held[f"point {name}"] = tree(SPACE)

    @rule(data=st.data(), stuck=st.booleans())
    def rollback(self, data: st.DataObject, stuck: bool) -> None:
        """Go back, with undos that raise or not."""
        self.stuck = stuck
        record = self.flow.store().load()
        places = ["start", *(point.name for point in record.points), *record.phases]
        to = None if record.rollback is not None else data.draw(st.sampled_from(places))
        before = tree(SPACE)
        try:
            way = back(self.flow, to)
        except RollbackFailed:
            assert stuck
            assert tree(SPACE) == before
            return
        except UsageError as error:
            assert "nothing to go back from" in str(error)  # noqa: PT017  # a rule may be refused
            return
        after = self.flow.store().load()
        assert after.rollback is None
        assert all(after.phases[name].status == "pending" for name in way.phases)
        self.over -= set(way.phases)
        if way.restore is None:
            assert tree(SPACE) == before
        else:
            assert tree(SPACE) == self.kept(way.restore), "the workspace equals the snapshot"

    def kept(self, name: str) -> dict[str, tuple[object, ...]]:
        """Return what a snapshot holds, as tar has it."""
        with tempfile.TemporaryDirectory() as place, tarfile.open(f".batchkit/f/snapshots/{name}.tar.gz") as tar:
            tar.extractall(place, filter="tar")
            return tree(place)

    # What holds always

    @invariant()
    def what_is_over_stays_over(self) -> None:
        """Until it is reset or reverted."""
        if not Path(".batchkit/f").exists():
            return
        now = {name for name, state in states(self.flow).items() if state in OVER}
        gone = self.over - now
        record = self.flow.store().load()
        assert not gone or record.rollback is not None, f"{gone} was over"
        self.over = now

    @invariant()
    def points_are_never_overwritten(self) -> None:
        """An archive is what it was, and its name is that of one point."""
        if not Path(".batchkit/f").exists():
            return
        points = self.flow.store().load().points
        assert len({point.archive for point in points}) == len(points)
        now = {
            f"{point.name} {point.time}": Path(f".batchkit/f/snapshots/{point.archive}").read_bytes()
            for point in points
        }
        for key in now.keys() & self.archives.keys():
            assert now[key] == self.archives[key]
        self.archives = now

    @invariant()
    def the_workspace_is_there_and_nothing_lies_beside_it(self) -> None:
        """Restores leave nothing."""
        if Path(".batchkit/f").exists():
            assert sorted(os.listdir()) == [".batchkit", "space"]


TestOperations = pytest.mark.slow(Operations.TestCase)
TestOperations.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
