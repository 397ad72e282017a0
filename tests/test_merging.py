"""Parts become one Parquet file: stopped, gone on with, and flat in memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import batchkit
from batchkit import files
from batchkit.frames import parquet
from tests.kernels import Hooked, installed

ROWS = 20_000


class Asking(Hooked):
    """Asks the process to stop at the n-th write into the file that becomes the output."""

    def __init__(self, at: int) -> None:
        super().__init__(("write",))
        self._at = at
        self.writes = 0

    def around(self, number: int, name: str, call: Any, *args: Any, **extra: Any) -> Any:
        del number, name
        if Path(os.readlink(f"/proc/self/fd/{args[0]}")).name == "joined":
            self.writes += 1
            if self.writes == self._at:
                os.kill(os.getpid(), signal.SIGTERM)
        return call(*args, **extra)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a row group after every ten rows."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", 10)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="asks Linux which file is written")
def test_a_request_to_stop_ends_a_merge_and_the_next_run_merges_all(workdir: Path) -> None:
    """A merge is stopped within a batch of where the request came; half of it is never the output."""
    source = pl.DataFrame({"n": range(ROWS)})
    source.write_parquet("in.parquet")

    def run() -> batchkit.Result:
        return batchkit.process("in.parquet", output="out.parquet", batch_size=10, progress="none")

    with installed(Asking(3)) as kernel:
        result = run()
    assert (result.status, result.done, result.left) == ("paused", ROWS, 0)
    assert result.reason == "asked to stop by SIGTERM"
    assert "the output is still to be written" in result.summary()
    assert kernel.writes < ROWS // 10
    assert not (workdir / "out.parquet").exists()
    assert [row["n"] for row in batchkit.Job("in").results()] == list(range(ROWS))
    result = run()
    assert (result.status, result.new) == ("completed", 0)
    assert pl.read_parquet("out.parquet").equals(source)
    assert not (workdir / "out.parquet.parts").exists()


@pytest.mark.usefixtures("workdir")
def test_items_that_are_appended_are_merged_behind_the_published_ones() -> None:
    """The published file is read again, the new part comes behind it, and the whole replaces it."""
    os.mkdir("in")
    pl.DataFrame({"n": range(7), "s": None}).write_parquet("in/1.parquet")

    def run() -> batchkit.Result:
        return batchkit.process(
            "in", lambda row: {**row, "s": row["n"] if row["n"] > 6 else None}, output="out.parquet", batch_size=3
        )

    run()
    assert pl.read_parquet("out.parquet").schema["s"] == pl.Null
    pl.DataFrame({"n": range(7, 12), "s": None}).write_parquet("in/2.parquet")
    assert run().new == 5
    out = pl.read_parquet("out.parquet")
    assert out.rows() == [(number, number if number > 6 else None) for number in range(12)]
    assert out.schema["s"] == pl.Int64
    assert run().new == 0


@pytest.mark.usefixtures("workdir")
def test_a_result_that_does_not_fit_what_is_published_is_refused() -> None:
    """The schema of the published file counts for what comes later."""
    os.mkdir("in")
    pl.DataFrame({"n": [1]}).write_parquet("in/1.parquet")

    def run() -> batchkit.Result:
        return batchkit.process("in", lambda row: {"n": row["n"] if row["n"] < 2 else "two"}, output="out.parquet")

    run()
    before = Path("out.parquet").read_bytes()
    pl.DataFrame({"n": [2]}).write_parquet("in/2.parquet")
    with pytest.raises(batchkit.ItemError, match="'n' is String here and Int64 before"):
        run()
    assert Path("out.parquet").read_bytes() == before


@pytest.mark.usefixtures("small_groups", "workdir")
def test_a_full_disk_while_merging_is_one_clear_error_and_the_next_run_completes() -> None:
    """What polars makes of the error is not what people see."""
    source = pl.DataFrame({"n": range(ROWS)})
    source.write_parquet("in.parquet")

    class Full(files.Kernel):
        def write(self, descriptor: int, data: bytes) -> int:  # type: ignore[override]
            if "joined" in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(28, os.strerror(28))
            return os.write(descriptor, data)

    with installed(Full()), pytest.raises(batchkit.StorageError, match=r"cannot write '.*joined': No space left"):
        batchkit.process("in.parquet", output="out.parquet", batch_size=10)
    assert not Path("out.parquet").exists()
    batchkit.process("in.parquet", output="out.parquet", batch_size=10)
    assert pl.read_parquet("out.parquet").equals(source)
