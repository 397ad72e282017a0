"""Kill a real process at every boundary between system calls, with every writer: nothing lost, nothing twice.

A seeded sample of the boundaries is in the slow part; all of them are for `make soak`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchkit import journal
from tests.conformance.jobs import GROWN, ITEMS, WriterJob
from tests.conformance.writers import WRITERS
from tests.test_failure_crashes import EVERY, SAMPLE, places

if TYPE_CHECKING:
    from pathlib import Path

    from tests.children import Nursery

ALL = [case.name for case in WRITERS if case.name not in {"text", "csv", "tsv"}]  # which tests/test_crash.py kills
TABLES = ["parquet", "directory-parquet", "jsonl-gz"]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the limits back that a job with small journals sets."""
    monkeypatch.setattr(journal, "COMPACT_AT", journal.COMPACT_AT)
    monkeypatch.setattr(journal, "LONG", journal.LONG)


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize(
    ("case", "interval", "torn"),
    [*((case, 0, True) for case in ALL), ("parquet", None, False), ("directory-parquet", None, False)],
)
def test_a_kill_at_any_boundary_costs_nothing_and_repeats_nothing(
    tmp_path: Path, nursery: Nursery, case: str, interval: float | None, torn: bool, sampled: bool
) -> None:
    """Killed before a changing call of the job, or in the middle of it, the next run gives the whole output."""
    job = WriterJob(tmp_path / "work", case, small_journals=True, sync_interval=interval)
    count = job.count()
    assert count > 30
    for at in places(count, 12, sampled=sampled):
        job.clear()
        assert job.killed(nursery, at, torn=torn)
        seen = job.results_so_far()
        assert seen == job.case.expected(ITEMS)[: len(seen)]
        job.run()
        job.check(ITEMS)
    job.clear()
    assert not job.killed(nursery, count + 1, torn=torn), "these were all"


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("case", TABLES)
def test_a_kill_while_appended_items_are_added_costs_nothing(
    tmp_path: Path, nursery: Nursery, case: str, sampled: bool
) -> None:
    """The published output stays, or is replaced by one with all items."""
    job = WriterJob(tmp_path / "work", case, sync_interval=0)
    job.run()
    job.grow()
    count = job.count()
    assert count > 20
    for at in places(count, 12, sampled=sampled):
        job.clear()
        job.run()
        job.grow()
        assert job.killed(nursery, at)
        assert job.results() in (job.case.expected(ITEMS), job.case.expected(GROWN))
        seen = job.results_so_far()
        assert len(job.case.expected(ITEMS)) <= len(seen)
        assert seen == job.case.expected(GROWN)[: len(seen)]
        job.run()
        job.check(GROWN)


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("case", TABLES)
def test_a_kill_during_the_resume_after_a_kill_costs_nothing(
    tmp_path: Path, nursery: Nursery, case: str, sampled: bool
) -> None:
    """Recovery is as safe as what it recovers from."""
    job = WriterJob(tmp_path / "work", case, small_journals=True, sync_interval=None)
    boundaries = job.count()
    kills = 0
    for first in range(15, boundaries, 22 if sampled else 11):
        for second in range(1, boundaries, 14 if sampled else 7):
            job.clear()
            assert job.killed(nursery, first, torn=True)
            if not job.killed(nursery, second, torn=True):
                break
            job.run()
            job.check(ITEMS)
            kills += 1
    assert kills > (4 if sampled else 20)


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("case", TABLES)
def test_a_kill_while_a_job_starts_over_leaves_the_old_output_or_the_new_one(
    tmp_path: Path, nursery: Nursery, case: str, sampled: bool
) -> None:
    """Until the new output replaces it, readers see the old file; starting over again always works."""
    job = WriterJob(tmp_path / "work", case, sync_interval=0)
    job.run()
    boundaries = job.count(restart=True)
    for at in places(boundaries, 10, sampled=sampled):
        job.clear()
        job.run()
        assert job.killed(nursery, at, restart=True)
        assert job.results() == job.case.expected(ITEMS)
        job.run()
        job.check(ITEMS)
