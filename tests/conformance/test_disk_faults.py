"""A disk that refuses, at every call, with the writers of tables and archives: one clear error, and the next run.

A seeded sample of the calls is in the slow part; all of them are for `make soak`.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

import batchkit
from batchkit import journal
from tests.conformance.jobs import ITEMS, WriterJob
from tests.conformance.writers import WRITERS
from tests.kernels import Failing, Hooked, Stingy, installed
from tests.test_failure_crashes import EVERY, SAMPLE, places
from tests.test_faults import FAULTS, descriptors

if TYPE_CHECKING:
    from pathlib import Path

CASES = ["parquet", "directory-parquet", "jsonl-gz"]


@pytest.fixture(autouse=True)
def _journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew journals now and then."""
    monkeypatch.setattr(journal, "COMPACT_AT", 900)


def failure_of(job: WriterJob) -> batchkit.BatchkitError | None:
    """Run a job; return the error of ours that it ends with, if it does."""
    try:
        job.run()
    except batchkit.BatchkitError as error:
        return error
    return None


@pytest.mark.parametrize("sampled", [SAMPLE, EVERY])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("names", "error"), FAULTS, ids=str)
@pytest.mark.parametrize("lasting", [True, False])
def test_a_fault_at_any_call_is_one_clear_error_and_the_next_run_completes(
    tmp_path: Path, case: str, names: tuple[str, ...], error: int, lasting: bool, sampled: bool
) -> None:
    """Whatever call fails, once or from then on: an error of ours names the cause, and nothing is lost or doubled."""
    job = WriterJob(tmp_path / "work", case, sync_interval=0)
    with installed(Hooked(names)) as kernel:
        job.run()
    opened = descriptors()
    for at in places(kernel.count, 5, sampled=sampled, seed=error):
        job.clear()
        with installed(Failing(names, at, error, lasting=lasting)):
            failure = failure_of(job)
        needed = lasting or names[0] in {"write", "fsync"}  # else it may be a call that nothing depends on
        assert failure is not None or not needed, f"call {at} failed unnoticed"
        if failure is not None:
            assert failure.exit_code == 1
            assert os.strerror(error) in str(failure), f"call {at}"
            assert "\n" not in str(failure)
        job.run()
        job.check(ITEMS)
    assert descriptors() == opened


@pytest.mark.parametrize("case", [case.name for case in WRITERS])
def test_short_writes_are_no_errors(tmp_path: Path, case: str) -> None:
    """A kernel may write less than it was given; the rest is written by further calls."""
    job = WriterJob(tmp_path / "work", case, sync_interval=None)
    with installed(Stingy()):
        job.run()
    job.check(ITEMS)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fills_up_while_tables_are_merged_names_the_file_and_the_cause(tmp_path: Path, error: int) -> None:
    """The Parquet file is written by threads of polars; what the disk says there reaches the user all the same."""
    job = WriterJob(tmp_path / "work", "parquet", sync_interval=None)

    class Full(Hooked):
        def around(self, number, name, call, *args, **extra):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN202
            del number, name
            if os.readlink(f"/proc/self/fd/{args[0]}").endswith("joined"):
                raise OSError(error, os.strerror(error))
            return call(*args, **extra)

    with installed(Full(("write",))):
        failure = failure_of(job)
    assert isinstance(failure, batchkit.StorageError)
    assert "joined'" in str(failure)
    assert os.strerror(error) in str(failure)
    assert not job.output.exists()
    result = job.run()
    assert result.new == 0
    job.check(ITEMS)
