"""Kill a real process at every boundary between system calls, with every writer: nothing lost, nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchkit import journal
from tests.children import Nursery
from tests.conformance.jobs import GROWN, ITEMS, WriterJob
from tests.conformance.writers import WRITERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL = [case.name for case in WRITERS if case.name not in {"text", "csv", "tsv"}]  # which tests/test_crash.py kills
TABLES = ["parquet", "directory-parquet", "jsonl-gz"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Give a process whose children may use polars."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(autouse=True)
def _journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the limits back that a job with small journals sets."""
    monkeypatch.setattr(journal, "COMPACT_AT", journal.COMPACT_AT)
    monkeypatch.setattr(journal, "LONG", journal.LONG)


@pytest.mark.parametrize(
    ("case", "interval", "torn"),
    [*((case, 0, True) for case in ALL), ("parquet", None, False), ("directory-parquet", None, False)],
)
def test_a_kill_at_any_boundary_costs_nothing_and_repeats_nothing(
    tmp_path: Path, nursery: Nursery, case: str, interval: float | None, torn: bool
) -> None:
    """Every changing call of the job, counted, not sampled: killed there, the next run gives the whole output."""
    job = WriterJob(tmp_path / "work", case, small_journals=True, sync_interval=interval)
    assert job.count() > 30
    at = 1
    while True:
        job.clear()
        if not job.killed(nursery, at, torn=torn):
            break
        seen = job.results_so_far()
        assert seen == job.case.expected(ITEMS)[: len(seen)]
        job.run()
        job.check(ITEMS)
        at += 1
    assert at > 30


@pytest.mark.parametrize("case", TABLES)
def test_a_kill_while_appended_items_are_added_costs_nothing(tmp_path: Path, nursery: Nursery, case: str) -> None:
    """The published output stays, or is replaced by one with all items."""
    job = WriterJob(tmp_path / "work", case, sync_interval=0)
    at = 1
    while True:
        job.clear()
        job.run()
        job.grow()
        if not job.killed(nursery, at):
            break
        assert job.results() in (job.case.expected(ITEMS), job.case.expected(GROWN))
        seen = job.results_so_far()
        assert len(job.case.expected(ITEMS)) <= len(seen)
        assert seen == job.case.expected(GROWN)[: len(seen)]
        job.run()
        job.check(GROWN)
        at += 1
    assert at > 20


@pytest.mark.parametrize("case", TABLES)
def test_a_kill_during_the_resume_after_a_kill_costs_nothing(tmp_path: Path, nursery: Nursery, case: str) -> None:
    """Recovery is as safe as what it recovers from."""
    job = WriterJob(tmp_path / "work", case, small_journals=True, sync_interval=None)
    boundaries = job.count()
    kills = 0
    for first in range(15, boundaries, 11):
        for second in range(1, boundaries, 7):
            job.clear()
            assert job.killed(nursery, first, torn=True)
            if not job.killed(nursery, second, torn=True):
                break
            job.run()
            job.check(ITEMS)
            kills += 1
    assert kills > 20


@pytest.mark.parametrize("case", TABLES)
def test_a_kill_while_a_job_starts_over_leaves_the_old_output_or_the_new_one(
    tmp_path: Path, nursery: Nursery, case: str
) -> None:
    """Until the new output replaces it, readers see the old file; starting over again always works."""
    job = WriterJob(tmp_path / "work", case, sync_interval=0)
    job.run()
    boundaries = job.count(restart=True)
    for at in range(1, boundaries + 1, 2):
        job.clear()
        job.run()
        assert job.killed(nursery, at, restart=True)
        assert job.results() == job.case.expected(ITEMS)
        job.run()
        job.check(ITEMS)
