"""What do checkpoints cost over Parquet? Bare polars and pyarrow loops against batchkit with a commit a batch.

Prints, from whole processes in alternating runs: time and its ratio to the better bare loop that yields the same kind
of batch, without and with Parquet output, peak memory, and the time to the first batch of a resumed job. `--rows` for a
shorter run, `--only read|write|resume` for a part.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import HERE, PYTHON, Run, alternating, machine, median, ratio, run, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SCRIPT = str(Path(PYTHON).with_name("batchkit"))
WORK = str(HERE / "work.py")


def bare(directory: Path, library: str, size: int, *output: str) -> Run:
    """Run a bare loop over the table."""
    return run([PYTHON, str(HERE / "bare_table.py"), library, "table.parquet", str(size), *output], directory)


def batchkit(directory: Path, function: str, size: int, *options: str, keep: bool = False) -> Run:
    """Run a job over the table; keep: go on with the one that is there."""
    if not keep:
        clear(directory)
    spec = ["-f", f"{WORK}:{function}", "--batched", "-b", str(size), "--state-dir", str(directory / "state"), "-q"]
    return run([SCRIPT, "process", "table.parquet", *spec, *options], directory)


def clear(directory: Path) -> None:
    """Forget the job and its output."""
    shutil.rmtree(directory / "state", ignore_errors=True)
    shutil.rmtree(directory / "out.parquet.parts", ignore_errors=True)
    (directory / "out.parquet").unlink(missing_ok=True)


def rows_of(found: dict[str, list[Run]], bases: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """Return the lines of a table: each figure, and its ratio to the best of the bases."""
    best = min(bases, key=lambda name: median(found[name]))
    return [
        [
            name,
            f"{median(found[name]):.2f}",
            f"{ratio(found[name], found[best]):.2f}",
            f"{median(found[name], 'cpu'):.2f}",
            f"{max(one.memory for one in found[name]):.0f}",
        ]
        for name in names
    ]


def read(directory: Path, runs: int, size: int) -> None:
    """Compare the loops that only read."""
    candidates: dict[str, Callable[[], Run]] = {
        "bare polars, collect_batches": partial(bare, directory, "polars", size),
        "bare polars, the whole file in memory": partial(bare, directory, "polars-read", size),
        "batchkit, polars batches": partial(batchkit, directory, "nothing", size),
        "bare pyarrow, iter_batches": partial(bare, directory, "pyarrow", size),
        "batchkit, arrow batches": partial(batchkit, directory, "nothing", size, "--batch-format", "arrow"),
    }
    found = alternating(candidates, runs)
    names = list(candidates)
    print(f"\nreading, batches of {size:,}\n")
    table(
        ["who", "wall s", "ratio", "CPU s", "peak MiB"],
        [*rows_of(found, names[:2], names[:3]), *rows_of(found, names[3:4], names[3:])],
    )


def write(directory: Path, runs: int, size: int) -> None:
    """Compare the loops from Parquet to Parquet."""
    candidates: dict[str, Callable[[], Run]] = {
        "bare pyarrow, iter_batches to ParquetWriter": partial(bare, directory, "pyarrow", size, "bare.parquet"),
        "batchkit, polars batches": partial(batchkit, directory, "table", size, "-o", "out.parquet"),
    }
    found = alternating(candidates, runs)
    names = list(candidates)
    for path in ("bare.parquet", "out.parquet"):
        subprocess.run([PYTHON, str(HERE / "table.py"), "same", "table.parquet", path], cwd=directory, check=True)
    sizes = [(directory / path).stat().st_size / 1e6 for path in ("bare.parquet", "out.parquet")]
    print(
        f"\nParquet to Parquet, batches of {size:,}; outputs compared: the same ({sizes[0]:.0f}, {sizes[1]:.0f} MB)\n"
    )
    table(["who", "wall s", "ratio", "CPU s", "peak MiB"], rows_of(found, names[:1], names))


def first_batch(directory: Path, *options: str) -> float:
    """Return the seconds from a run's start to its first call of the function."""
    stamp = directory / "first_call"
    begun = time.time()
    spec = ["-f", f"{WORK}:StampedTable", "--batched", "-b", "1000", "--state-dir", str(directory / "state"), "-q"]
    run([SCRIPT, "process", "table.parquet", *spec, *options], directory, {"FIRST_CALL": str(stamp)})
    return float(stamp.read_text(encoding="ascii")) - begun


def resume(directory: Path, rows: int, runs: int) -> None:
    """Measure the time to the first batch, from the beginning and after a stop at 95 %."""
    found: dict[str, list[float]] = {"at 0 %": [], "after a stop at 95 %": []}
    for _ in range(runs):
        clear(directory)
        found["at 0 %"].append(first_batch(directory, "--max-batches", "1"))
        clear(directory)
        first_batch(directory, "--max-items", str(rows * 95 // 100))
        found["after a stop at 95 %"].append(first_batch(directory, "--max-batches", "1"))
    base = statistics.median(found["at 0 %"])
    print()
    table(
        ["first batch", "ms from the process's start", "over 0 %"],
        [
            [name, f"{statistics.median(each) * 1000:.0f}", f"{(statistics.median(each) - base) * 1000:+.0f}"]
            for name, each in found.items()
        ],
    )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--only", choices=["read", "write", "resume"])
    parser.add_argument("--directory", help="where to write; default: a temporary directory here")
    arguments = parser.parse_args()
    print(machine("polars", "pyarrow"))
    with tempfile.TemporaryDirectory(dir=arguments.directory or Path.cwd()) as name:
        directory = Path(name)
        made = [PYTHON, str(HERE / "table.py"), "make", "table.parquet", str(arguments.rows)]
        subprocess.run(made, cwd=directory, check=True)
        size = (directory / "table.parquet").stat().st_size / 1e6
        print(f"\n{arguments.rows:,} rows of int, str, float in row groups of 100,000 ({size:.0f} MB)")
        print(f"{arguments.runs} alternating runs, medians; ratios to the better bare loop with the same kind of batch")
        for batch_size in arguments.batch_sizes:
            if arguments.only in {None, "read"}:
                read(directory, arguments.runs, batch_size)
            if arguments.only in {None, "write"}:
                write(directory, arguments.runs, batch_size)
        if arguments.only in {None, "resume"}:
            resume(directory, arguments.rows, arguments.runs)


if __name__ == "__main__":
    main()
