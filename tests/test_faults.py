"""A disk that refuses, at every call: exit 1 with one clear line, and the next run completes right."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

import batchkit
from batchkit import files, journal
from tests.kernels import CHANGING, Failing, Hooked, Stingy, installed
from tests.test_crash import LINES, Job

if TYPE_CHECKING:
    from pathlib import Path

FAULTS = [
    (("write",), errno.ENOSPC),
    (("write",), errno.EIO),
    (("write",), errno.EDQUOT),
    (("fsync", "fdatasync"), errno.EIO),
    (("open",), errno.EMFILE),
    (("open",), errno.EACCES),
    (("mkdir", "replace", "link", "unlink", "ftruncate"), errno.EROFS),
    (("read", "pread"), errno.EIO),
    (("close",), errno.EIO),
]


def descriptors() -> int:
    """Count the open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def failure_of(job: Job) -> batchkit.BatchkitError | None:
    """Run a job; return the error of ours that it ends with, if it does."""
    try:
        job.run()
    except batchkit.BatchkitError as error:
        return error
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("names", "error"), FAULTS, ids=str)
@pytest.mark.parametrize("lasting", [True, False])
def test_a_fault_at_any_call_is_one_clear_error_and_the_next_run_completes(
    tmp_path: Path, names: tuple[str, ...], error: int, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever call fails, once or from then on: an error of ours names the cause, and nothing is lost or doubled."""
    monkeypatch.setattr(journal, "COMPACT_AT", 900)
    directory = tmp_path / "work"
    directory.mkdir()
    job = Job(directory, "out.csv", sync_interval=0)
    with installed(Hooked(names)) as kernel:
        job.run()
    expected = job.output.read_bytes()
    opened = descriptors()
    for at in range(1, kernel.count + 1):
        job.clear()
        with installed(Failing(names, at, error, lasting=lasting)):
            failure = failure_of(job)
        needed = lasting or names[0] in {"write", "fsync"}  # else it may be a call that nothing depends on
        assert failure is not None or not needed, f"call {at} failed unnoticed"
        if failure is not None:
            assert failure.exit_code == 1
            assert os.strerror(error) in str(failure)
            assert "\n" not in str(failure)
        job.run()
        job.check(expected, len(LINES))
    assert descriptors() == opened


def test_short_writes_are_no_errors(tmp_path: Path) -> None:
    """A kernel may write less than it was given; the rest is written by further calls."""
    directory = tmp_path / "work"
    directory.mkdir()
    job = Job(directory, "out.csv")
    job.run()
    expected = job.output.read_bytes()
    job.clear()
    with installed(Stingy()):
        job.run()
    job.check(expected, len(LINES))


def test_after_a_failed_sync_nothing_is_committed_any_more(tmp_path: Path) -> None:
    """A second sync would succeed without the data: the run ends, and the next one redoes from what is proved."""
    directory = tmp_path / "work"
    directory.mkdir()
    job = Job(directory, "out.txt", sync_interval=0.000001)
    with installed(Hooked(("fdatasync",))) as counting:
        job.run()
    job.clear()
    failing = Failing(("fdatasync",), counting.count - 6, errno.EIO, lasting=False)
    with installed(failing), pytest.raises(batchkit.StorageError, match="cannot sync"):
        job.run()
    job.run()
    assert job.output.read_text().split() == [word for line in LINES for word in (line + " " + line.upper()).split()]


def test_a_fault_while_reading_keeps_the_whole_items_before_it(tmp_path: Path) -> None:
    """EIO is never taken for the end of the file."""
    source = tmp_path / "big.txt"
    source.write_text("".join(f"{number:09}\n" for number in range(30_000)))
    output, state = tmp_path / "out.txt", tmp_path / "state"

    class BadBlock(files.Kernel):
        def read(self, descriptor: int, size: int) -> bytes:
            if os.lseek(descriptor, 0, os.SEEK_CUR) >= 131072 and os.fstat(descriptor).st_size == 300_000:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return os.read(descriptor, size)

    with installed(BadBlock()), pytest.raises(batchkit.SourceError, match=r"big\.txt' at byte 131,072"):
        batchkit.process(source, output=output, state_dir=state, progress="none")
    assert batchkit.Job("big", state).status().done == 131072 // 10
    result = batchkit.process(source, output=output, state_dir=state, progress="none")
    assert (result.new, output.read_bytes()) == (30_000 - 131072 // 10, source.read_bytes())


def test_changing_calls_are_all_behind_the_kernel() -> None:
    """The seam is whole: no module but `files` changes the disk by itself."""
    package = os.path.dirname(files.__file__)
    for directory, _, names in os.walk(package):
        for name in names:
            if name.endswith(".py") and name != "files.py":
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    text = file.read()
                for call in (*CHANGING, "rename", "makedirs", "remove", "truncate"):
                    assert f"os.{call}(" not in text, f"{name} calls os.{call}"
