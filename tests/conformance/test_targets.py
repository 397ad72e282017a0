"""An output of one's own gets each result once, as batchkit's own outputs do."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from tests.children import Nursery
from tests.conformance.targets import TableTarget
from tests.kernels import Killing, installed

if TYPE_CHECKING:
    from pathlib import Path


def row_of(line: str) -> Any:
    """Return a row for all items but every fourth."""
    return None if int(line) % 4 == 3 else {"item": line}


def rows_of(items: int) -> list[Any]:
    """Return the rows of so many items."""
    return [{"item": f"{number}"} for number in range(items) if number % 4 != 3]


def put(directory: Path, items: int) -> None:
    """Write the source."""
    (directory / "items.txt").write_text("".join(f"{number}\n" for number in range(items)))


def run(directory: Path, **more: Any) -> batchkit.Result:
    """Run the job, or go on with it."""
    options = {"batch_size": 2, "progress": "none", "state_dir": directory / "state", "sync_interval": 0, **more}
    return batchkit.process(directory / "items.txt", row_of, output=TableTarget(directory / "rows.db"), **options)


@pytest.mark.parametrize("count", range(1, 8))
def test_stops_after_any_number_of_items_leave_no_trace(tmp_path: Path, count: int) -> None:
    """Runs of k items each give the rows that one run gives, and publish once."""
    put(tmp_path, 7)
    target = TableTarget(tmp_path / "rows.db")
    done = 0
    while not (result := run(tmp_path, max_items=count)).completed:
        done += result.new
        assert target.rows() == rows_of(done)
        assert target.published() == []
    assert target.rows() == rows_of(7)
    assert run(tmp_path).new == 0
    assert target.published() == [len(rows_of(7))]


def test_items_that_come_later_are_a_shard_of_their_own_and_published_again(tmp_path: Path) -> None:
    """The rows that are there stay."""
    target = TableTarget(tmp_path / "rows.db")
    for items in (7, 10, 13):
        put(tmp_path, items)
        run(tmp_path, max_items=1)
        assert run(tmp_path).completed
        assert target.rows() == rows_of(items)
    assert target.published() == [len(rows_of(items)) for items in (7, 10, 13)]


def test_a_job_without_items_publishes_nothing_but_that(tmp_path: Path) -> None:
    """Completed, with no rows."""
    put(tmp_path, 0)
    assert run(tmp_path).completed
    target = TableTarget(tmp_path / "rows.db")
    assert (target.rows(), target.published()) == ([], [0])


def test_a_restart_stores_the_rows_anew(tmp_path: Path) -> None:
    """Each shard is opened from its beginning."""
    put(tmp_path, 7)
    run(tmp_path)
    run(tmp_path, restart=True, max_items=3)
    run(tmp_path)
    assert TableTarget(tmp_path / "rows.db").rows() == rows_of(7)


def run_killed(directory: Path, at: int) -> None:
    """Run until the changing call `at`."""
    with installed(Killing(at)):
        run(directory)


@pytest.mark.slow
def test_a_kill_at_any_boundary_costs_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """Marks and rows agree after each, and nothing is published before all rows are there."""
    nursery = Nursery()
    at, code = 0, -signal.SIGKILL
    while code:
        at += 1
        directory = tmp_path / f"{at}"
        directory.mkdir()
        put(directory, 7)
        code = nursery.run(run_killed, directory, at)
        assert code in {0, -signal.SIGKILL}
        run(directory)
        target = TableTarget(directory / "rows.db")
        assert target.rows() == rows_of(7)
        assert set(target.published()) == {len(rows_of(7))}
    nursery.close()
    assert at > 30
