"""An output of one's own that misbehaves: one clear error that says whose it is, and nothing is lost or left out."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import batchkit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ITEMS = [f"item {number}" for number in range(6)]

pytestmark = pytest.mark.usefixtures("workdir")


class Shelf:
    """Keeps results in a list, which outlives the runs, and calls `fault` before each step, which may raise."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.published: list[list[Any]] = []
        self.threads: dict[str, set[int]] = {}
        self.fault: Callable[[str], Any] = lambda _step: None
        self.mark: Callable[[], Any] = lambda: len(self.kept)

    def step(self, name: str) -> None:
        """Note the thread of a step."""
        self.threads.setdefault(name, set()).add(threading.get_ident())
        self.fault(name)

    def clear(self) -> None:
        self.step("clear")
        self.kept.clear()

    def writer(self, shard: int) -> ShelfWriter:
        del shard
        self.step("writer")
        return ShelfWriter(self)

    def publish(self) -> None:
        self.step("publish")
        self.published.append(list(self.kept))


class ShelfWriter:
    """Appends to the shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def intact(self, marks: Sequence[Any]) -> int:
        self._shelf.step("intact")
        return len(marks) - 1

    def open(self, mark: Any) -> None:
        self._shelf.step("open")
        del self._shelf.kept[mark or 0 :]

    def write(self, results: Sequence[Any]) -> None:
        self._shelf.step("write")
        self._shelf.kept.extend(results)

    def mark(self) -> Any:
        self._shelf.step("mark")
        return self._shelf.mark()

    def sync(self) -> None:
        self._shelf.step("sync")

    def close(self) -> None:
        self._shelf.step("close")


def run(shelf: Shelf, **options: Any) -> batchkit.Result:
    """Run the job or go on with it."""
    options = {"batch_size": 2, "progress": "none", "job": "job", **options}
    return batchkit.process(ITEMS, output=shelf, **options)


def failing(step: str, at: int = 1) -> Callable[[str], None]:
    """Return a fault that raises at the n-th call of a step."""
    calls = 0

    def fault(name: str) -> None:
        nonlocal calls
        calls += name == step
        if name == step and calls == at:
            raise RuntimeError(f"the shelf broke at {step}")

    return fault


@pytest.mark.parametrize("bad", [None, float("nan"), object(), {1, 2}], ids=["none", "nan", "object", "set"])
def test_a_mark_that_the_journal_cannot_keep_is_an_error_and_nothing_is_lost(bad: Any) -> None:
    """`None` would mean that nothing is stored: the next run would drop everything. What was committed stays."""
    shelf = Shelf()
    run(shelf, max_items=2)
    shelf.mark = lambda: bad
    with pytest.raises(batchkit.StorageError, match="the output could not say how far it has stored") as caught:
        run(shelf)
    assert "\n" not in str(caught.value)
    assert batchkit.Job("job").status().done == 2
    shelf.mark = lambda: len(shelf.kept)
    result = run(shelf)
    assert (result.completed, result.new) == (True, len(ITEMS) - 2)
    assert shelf.kept == ITEMS
    assert shelf.published == [ITEMS]


@pytest.mark.parametrize("interval", [0, 1e-6, 1.0, None])
def test_everything_is_called_in_the_thread_of_the_job(interval: float | None) -> None:
    """Also `sync`, however often it is due: an SQLite connection, for one, serves one thread only."""
    shelf = Shelf()
    run(shelf, sync_interval=interval, batch_size=1)
    assert shelf.threads.keys() >= {"writer", "open", "write", "mark", "sync", "close", "publish"}
    assert set().union(*shelf.threads.values()) == {threading.get_ident()}


@pytest.mark.parametrize("step", ["clear", "writer", "open", "write", "mark", "sync", "publish"])
def test_what_an_output_raises_is_an_error_of_the_storage_and_the_next_run_completes(step: str) -> None:
    """One line that says what it could not do, and why; each result is there once in the end."""
    shelf = Shelf()
    shelf.fault = failing(step)
    with pytest.raises(batchkit.StorageError, match=f"the output could not .*the shelf broke at {step}") as caught:
        run(shelf, sync_interval=0)
    assert "\n" not in str(caught.value)
    assert "RuntimeError" in str(caught.value)
    shelf.fault = lambda _step: None
    assert run(shelf).completed
    assert shelf.kept == ITEMS
    assert shelf.published == [ITEMS]


def test_an_error_of_more_than_one_line_is_told_in_one() -> None:
    """As errors of the function are."""
    shelf = Shelf()

    def fault(step: str) -> None:
        if step == "write":
            raise RuntimeError("one line\nand another")

    shelf.fault = fault
    with pytest.raises(batchkit.StorageError, match="one line and another") as caught:
        run(shelf)
    assert "\n" not in str(caught.value)


def test_a_job_that_could_not_publish_is_not_completed_and_the_next_run_publishes() -> None:
    """Everything is stored, but what should appear did not: only that is left to do."""
    shelf = Shelf()
    shelf.fault = failing("publish")
    with pytest.raises(batchkit.StorageError, match="could not publish"):
        run(shelf)
    status = batchkit.Job("job").status()
    assert (status.done, status.status != "completed") == (len(ITEMS), True)
    assert shelf.published == []
    shelf.fault = lambda _step: None
    result = run(shelf)
    assert (result.completed, result.new) == (True, 0)
    assert shelf.published == [ITEMS]
    assert batchkit.Job("job").status().status == "completed"
    run(shelf)
    assert shelf.published == [ITEMS], "once for what there is"


def test_an_error_of_ours_that_an_output_raises_stays_what_it_is() -> None:
    """An output that says itself what is wrong is not spoken for."""
    shelf = Shelf()

    def fault(step: str) -> None:
        if step == "write":
            raise batchkit.StorageError("no room on the shelf")

    shelf.fault = fault
    with pytest.raises(batchkit.StorageError, match=r"^no room on the shelf$"):
        run(shelf)
    assert not Path("out").exists()
