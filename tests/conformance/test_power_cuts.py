"""Cut the power at every boundary, with the writers of tables and archives: any disk state gives the exact output.

A seeded sample of the boundaries is in the slow part; all of them are for `make soak`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchkit import journal
from tests.conformance.jobs import GROWN, ITEMS, WriterJob
from tests.kernels import PowerCut, Recording, installed, materialize
from tests.test_failure_crashes import EVERY, SAMPLE, places

if TYPE_CHECKING:
    from pathlib import Path

CASES = ["parquet", "directory-parquet", "jsonl-gz"]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew journals now and then."""
    monkeypatch.setattr(journal, "COMPACT_AT", 900)


def cut(job: WriterJob, kernel: Recording, at: int | None) -> bool:
    """Run until the power goes off before changing call `at`; return whether it did."""
    kernel.cut_at = at
    try:
        with installed(kernel):
            job.run()
    except PowerCut:
        return True
    return False


def check_states(job: WriterJob, kernel: Recording, seed: int, items: int = ITEMS) -> int:
    """Resume from every state that the cut may have left; return how many there were."""
    seen = []
    for what, state in kernel.states(seed):
        if state in seen:
            continue
        seen.append(state)
        materialize(job.directory, state)
        try:
            job.run()
            job.check(items)
        except Exception as error:
            raise AssertionError(f"cut before call {kernel.cut_at}, {what}: {error}") from error
    return len(seen)


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("interval", [0, None])
def test_every_disk_state_after_a_power_cut_gives_the_exact_output(
    tmp_path: Path, case: str, interval: float | None, sampled: bool
) -> None:
    """Unsynced writes lost, torn or in zeros, unsynced names lost: the job goes on and its output is whole."""
    job = WriterJob(tmp_path / "work", case, sync_interval=interval)
    states = 0
    for at in places(job.count(), 10, sampled=sampled):
        job.clear()
        kernel = Recording(job.directory)
        assert cut(job, kernel, at)
        states += check_states(job, kernel, seed=at)
    assert states > (20 if sampled else 100)


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("case", CASES)
def test_a_power_cut_while_appended_items_are_added_gives_the_exact_output(
    tmp_path: Path, case: str, sampled: bool
) -> None:
    """The published output, the new one with its items and more, and the rename that replaces the one by the other."""
    job = WriterJob(tmp_path / "work", case, sync_interval=0)
    states = 0
    job.run()
    job.grow()
    for at in places(job.count(), 10, sampled=sampled):
        job.clear()
        kernel = Recording(job.directory)
        assert not cut(job, kernel, None)
        kernel.settle()
        kernel.changes = 0
        job.grow()
        assert cut(job, kernel, at)
        states += check_states(job, kernel, seed=at, items=GROWN)
    assert states > (20 if sampled else 100)
