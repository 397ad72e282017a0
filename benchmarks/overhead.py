"""What do checkpoints cost? The bare loop without any against batchkit with a commit after every batch.

Prints, from whole processes in alternating runs: time and its ratio to the bare loop, peak memory, start-up, and the
time to the first new item of a resumed job. `--lines` for a shorter run, `--only loop|memory|start|resume` for a part.
`--against DIR` compares this checkout with another one instead: the cost of a change.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import HERE, PYTHON, Run, alternating, machine, median, ratio, run, table, write_lines

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = str(Path(PYTHON).with_name("batchkit"))
WORK = str(HERE / "work.py")


def batchkit(directory: Path, source: str, *options: str, function: str = "upper") -> list[str]:
    """Return the command line of a job over `source` in `directory`."""
    output = ["-o", str(directory / "batchkit.txt"), "--state-dir", str(directory / "state")]
    return [SCRIPT, "process", source, "-f", f"{WORK}:{function}", *output, "-q", *options]


def clear(directory: Path) -> None:
    """Forget the job and its output."""
    shutil.rmtree(directory / "state", ignore_errors=True)
    for path in directory.glob("batchkit.txt*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def loop(directory: Path, lines: int, runs: int, sizes: list[int]) -> None:
    """Compare the loops."""
    source = directory / "lines.txt"
    write_lines(source, lines)

    def bare() -> Run:
        with contextlib.suppress(FileNotFoundError):
            (directory / "bare.txt").unlink()
        return run([PYTHON, str(HERE / "bare_loop.py"), str(source), str(directory / "bare.txt")], directory)

    def ours(*options: str) -> Run:
        clear(directory)
        return run(batchkit(directory, str(source), *options), directory)

    candidates: dict[str, Callable[[], Run]] = {"bare loop": bare}
    for size in sizes:
        name = f"batchkit, batch {size}"
        candidates[name] = partial(ours, "-b", str(size))
        candidates[f"{name}, --sync-interval never"] = partial(ours, "-b", str(size), "--sync-interval", "never")
    found = alternating(candidates, runs)
    if not filecmp.cmp(directory / "bare.txt", directory / "batchkit.txt", shallow=False):
        raise SystemExit("the outputs differ")
    base = found["bare loop"]
    print(f"\n{lines:,} lines, {runs} alternating runs, medians; outputs compared: the same\n")
    rows = [
        [
            name,
            f"{median(figures):.2f}",
            f"{ratio(figures, base):.2f}",
            f"{median(figures, 'cpu'):.2f}",
            f"{ratio(figures, base, 'cpu'):.2f}",
            f"{max(one.memory for one in figures):.1f}",
        ]
        for name, figures in found.items()
    ]
    table(["who", "wall s", "ratio", "CPU s", "ratio", "peak MiB"], rows)


def versions(directory: Path, lines: int, runs: int, sizes: list[int], other: Path) -> None:
    """Compare the loop of this checkout with that of another one."""
    source = directory / "lines.txt"
    write_lines(source, lines)
    homes = {"before": other.resolve(), "now": HERE.parent}

    def once(home: Path, size: int) -> Run:
        clear(directory)
        command = [PYTHON, "-m", "batchkit", *batchkit(directory, str(source), "-b", str(size))[1:]]
        return run(command, directory, {"PYTHONPATH": str(home)})

    candidates = {f"{name}, batch {size}": partial(once, homes[name], size) for size in sizes for name in homes}
    found = alternating(candidates, runs)
    print(f"\n{lines:,} lines, {runs} alternating runs, medians; ratio: of neighbouring runs\n")
    rows = [
        [
            f"batch {size}",
            f"{median(found[f'before, batch {size}']):.2f}",
            f"{median(found[f'now, batch {size}']):.2f}",
            f"{ratio(found[f'now, batch {size}'], found[f'before, batch {size}']):.3f}",
            f"{ratio(found[f'now, batch {size}'], found[f'before, batch {size}'], 'cpu'):.3f}",
        ]
        for size in sizes
    ]
    table(["", "before s", "now s", "ratio", "ratio CPU"], rows)


def memory(directory: Path, lines: int) -> None:
    """Compare peak memory on a list and on a tenth of it."""
    rows = []
    for count in (lines // 10, lines):
        source = directory / "lines.txt"
        write_lines(source, count)
        for size in ("100", "1000"):
            clear(directory)
            rows.append(
                [f"{count:,}", size, f"{run(batchkit(directory, str(source), '-b', size), directory).memory:.1f}"]
            )
    print()
    table(["lines", "batch", "peak MiB"], rows)


def start(directory: Path, runs: int) -> None:
    """Measure start-up."""
    source = directory / "ten.txt"
    write_lines(source, 10)

    def job() -> Run:
        clear(directory)
        return run(batchkit(directory, str(source)), directory)

    found = alternating(
        {
            "python -c pass": lambda: run([PYTHON, "-c", "pass"], directory),
            "import click, filelock": lambda: run([PYTHON, "-c", "import click, filelock"], directory),
            "batchkit --help": lambda: run([SCRIPT, "--help"], directory),
            "batchkit process, ten lines": job,
        },
        max(runs, 15),
    )
    base = median(found["python -c pass"])
    print()
    rows = [
        [name, f"{median(each) * 1000:.0f}", f"{(median(each) - base) * 1000:+.0f}"] for name, each in found.items()
    ]
    table(["start-up", "ms", "over pass"], rows)


def first_call(directory: Path, source: Path, *options: str) -> float:
    """Run a job and return the seconds from its process's start to the first call of the function."""
    stamp = directory / "first_call"
    os.sync()  # else the syncs of the job wait for what was written before it
    begun = time.time()
    run(batchkit(directory, str(source), *options, function="Stamped"), directory, {"FIRST_CALL": str(stamp)})
    return float(stamp.read_text(encoding="ascii")) - begun


def killed_at(directory: Path, source: Path, share: float) -> None:
    """Run a job and kill it when its part has grown to a share of the input."""
    command = batchkit(directory, str(source), function="Stamped")
    env = {**os.environ, "FIRST_CALL": os.devnull}
    process = subprocess.Popen(command, cwd=directory, env=env, stderr=subprocess.DEVNULL)
    part = directory / "batchkit.txt.parts" / "00000"
    while process.poll() is None and not (part.exists() and part.stat().st_size >= share * source.stat().st_size):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def resume(directory: Path, lines: int, runs: int) -> None:
    """Measure the time to the first new item, from the beginning, after a clean stop, and after a kill."""
    source = directory / "lines.txt"
    write_lines(source, lines)
    found: dict[str, list[float]] = {"at 0 %": [], "after a clean stop at 90 %": [], "after a kill at 90 %": []}
    for _ in range(runs):
        clear(directory)
        found["at 0 %"].append(first_call(directory, source, "--max-items", "100"))
        clear(directory)
        first_call(directory, source, "--max-items", str(lines * 9 // 10))
        found["after a clean stop at 90 %"].append(first_call(directory, source, "--max-items", "100"))
        clear(directory)
        killed_at(directory, source, 0.9)
        found["after a kill at 90 %"].append(first_call(directory, source, "--max-items", "100"))
    base = statistics.median(found["at 0 %"])
    print(f"\n{lines:,} lines\n")
    rows = [
        [name, f"{statistics.median(each) * 1000:.0f}", f"{(statistics.median(each) - base) * 1000:+.0f}"]
        for name, each in found.items()
    ]
    table(["first new item", "ms from the process's start", "over 0 %"], rows)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--only", choices=["loop", "memory", "start", "resume"])
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout to compare this one with")
    parser.add_argument("--directory", help="where to write; default: a temporary directory here")
    arguments = parser.parse_args()
    print(machine("click", "filelock", "polars", "tqdm"))
    with tempfile.TemporaryDirectory(dir=arguments.directory or Path.cwd()) as name:
        directory = Path(name)
        lines, runs = arguments.lines, arguments.runs
        if arguments.against is not None:
            versions(directory, lines, runs, arguments.batch_sizes, arguments.against)
            return
        if arguments.only in {None, "loop"}:
            loop(directory, lines, runs, arguments.batch_sizes)
        if arguments.only in {None, "memory"}:
            memory(directory, lines)
        if arguments.only in {None, "start"}:
            start(directory, runs)
        if arguments.only in {None, "resume"}:
            resume(directory, lines, runs)


if __name__ == "__main__":
    main()
