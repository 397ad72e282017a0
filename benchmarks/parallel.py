"""What do workers and calls in flight gain? batchkit against what people use without checkpoints, side by side.

cpu: 20 µs of pure Python an item, in one process and in two. waiting: 5 ms an item, 32 in flight, in threads and on an
event loop. skew: waiting work, the slowest items last, on four workers. trivial: upper case, two workers against the
bare single-process loop. commands: `-x` against GNU parallel.

Every candidate is a process of its own; they alternate, and medians are printed. cpu and waiting are timed from the
first call of the function, in whichever worker it happens, to the last batch committed (of a peer: the last result
written); what comes before (start-up) and after (the last sync, the end of the workers, publishing) stands beside it.
trivial and commands are timed as whole processes. `ratio` is that of the medians, `neighbours` the median of the ratios
of neighbouring runs. Two quiet cores are needed: whatever else runs meanwhile slows down two workers more than one.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from importlib.util import find_spec
from operator import ge, le
from pathlib import Path
from typing import TYPE_CHECKING

from busy import LONG, SHORT, WAIT, churn
from measuring import HERE, PYTHON, Run, machine
from peers import IN_FLIGHT
from side_by_side import Bench, Target, check_order, check_same, show

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRIPT = str(Path(PYTHON).with_name("batchkit"))
CHUNKS = (100, 1000, 10_000)
COST = 20e-6
"""Seconds of work on an item of `cpu`."""


def batchkit(source: Path, *options: str, function: str, output: str = "result.txt") -> list[str]:
    """Return the command line of a job."""
    command = [SCRIPT, "process", str(source), "-f", f"{HERE}/{function}", "-o", output, "--output-format", "text"]
    return [*command, "--state-dir", "state", "-q", *options]


def peer(name: str, source: Path, size: int = 1) -> list[str]:
    """Return the command line of a peer."""
    return [PYTHON, str(HERE / "peers.py"), name, str(source), "result.txt", str(size)]


def calibrate() -> int:
    """Return how many steps of `churn` take the time an item shall cost, on this machine when it is undisturbed."""
    steps, best = 10_000, float("inf")
    for _ in range(100):
        begun = time.perf_counter()
        churn(steps)
        best = min(best, time.perf_counter() - begun)
    return round(COST / best * steps)


def best_size(bench: Bench, name: str, count: int, env: Mapping[str, str]) -> int:
    """Return the chunk size with which a peer is fastest on a sample of so many items."""
    sizes = [size for size in CHUNKS if size * 10 <= count] or [CHUNKS[0]]
    source = bench.lines(count)
    taken = {size: min(bench.once("sample", peer(name, source, size), env).span for _ in range(2)) for size in sizes}
    print(f"{name}, {count:,} items: " + ", ".join(f"{taken[size]:.2f} s in chunks of {size:,}" for size in sizes))
    return min(sizes, key=taken.__getitem__)


def installed(name: str) -> bool:
    """Tell whether a peer can run, and what to do if not."""
    there = find_spec(name) is not None
    if not there:
        print(f"{name} is not installed and left out: pip install 'batchkit[bench]'")
    return there


def cpu(bench: Bench) -> None:
    """Compare what keeps the cores busy."""
    count = 50_000 if bench.quick else 1_000_000
    env = {"LOOPS": str(calibrate())}
    print(f"\ncpu: {count:,} items of {COST * 1e6:.0f} µs ({env['LOOPS']} steps), {bench.runs} alternating runs\n")
    source, two = bench.lines(count), "batchkit, 2 workers"
    candidates = {
        two: batchkit(source, "-w", "2", function="busy.py:burn"),
        "batchkit, 1 worker": batchkit(source, function="busy.py:burn"),
        "bare loop, 1 process": peer("bare", source),
    }
    targets = {"batchkit, 1 worker": Target(ge, 1.85)}
    for name in ("pool", "joblib", "mpire"):
        if name == "pool" or installed(name):
            size = best_size(bench, name, count // 10, env)
            title = f"{name.replace('pool', 'multiprocessing.Pool.imap_unordered')}, 2 processes, chunks of {size:,}"
            candidates[title] = peer(name, source, size)
            targets[title] = Target(ge, 1.0)
    found = bench.alternating(candidates, env)
    check_same(bench, candidates)
    print("\nresults compared: the same; first call to last commit, ratio: to batchkit with 2 workers\n")
    show(found, count, found[two], targets, "span")


def waiting(bench: Bench) -> None:
    """Compare what waits."""
    count = 320 if bench.quick else 2000
    runs = bench.runs if bench.quick else max(bench.runs, 9)
    bench = Bench(bench.directory, runs, bench.quick)
    ideal = count * WAIT / IN_FLIGHT
    print(f"\nwaiting: {count:,} items of {WAIT * 1000:.0f} ms, {IN_FLIGHT} in flight, {runs} alternating runs\n")
    source, options = bench.lines(count), ("-c", str(IN_FLIGHT), "-b", "100")
    candidates = {
        "batchkit, threads": batchkit(source, *options, function="busy.py:nap"),
        "batchkit, async": batchkit(source, *options, function="busy.py:nap_async"),
        "ThreadPoolExecutor.map": peer("threads", source),
        "asyncio.gather, semaphore": peer("gather", source),
    }
    found = bench.alternating(candidates)
    check_same(bench, candidates)
    print(f"results compared: the same; first call to last commit, ratio: to the ideal {ideal:.4f} s\n")
    base = [Run(ideal, 0.0, 0.0, 0, span=ideal)] * runs
    show(found, count, base, {name: Target(le, 1.15) for name in list(candidates)[:2]}, "span")


def skew(bench: Bench) -> None:
    """See how long slow items that stand together hold up the end of a job."""
    count = 1_000 if bench.quick else 10_000
    slow = count // 100
    overslept = _overslept()
    ideal = ((count - slow) * (SHORT + overslept) + slow * (LONG + overslept)) / 4
    print(f"\nskew: {count:,} items of {SHORT * 1000:.0f} ms, of which {slow} take {LONG * 1000:.0f} ms; four workers")
    print(f"{bench.runs} alternating runs; sleeps take {overslept * 1e6:.0f} µs more than asked for\n")
    candidates = {}
    for name, ones in (("at the end", range(count - slow, count)), ("evenly spread", range(0, count, 100))):
        source = bench.directory / f"skew-{name.replace(' ', '-')}.txt"
        source.write_text("".join(f"{number in ones:d} {number:06}\n" for number in range(count)))
        candidates[f"slow items {name}"] = batchkit(source, "-w", "4", function="busy.py:uneven")
    found = bench.alternating(candidates)
    print(f"first call to last commit, ratio: to the perfectly balanced time, {ideal:.3f} s\n")
    base = [Run(ideal, 0.0, 0.0, 0, span=ideal)] * bench.runs
    show(found, count, base, {"slow items at the end": Target(le, 1.3)}, "span")


def _overslept() -> float:
    begun = time.perf_counter()
    for _ in range(500):
        time.sleep(SHORT)
    return (time.perf_counter() - begun) / 500 - SHORT


def trivial(bench: Bench) -> None:
    """Compare what is nearly nothing but overhead."""
    count = 500_000 if bench.quick else 10_000_000
    print(f"\ntrivial: {count:,} lines, {bench.runs} alternating runs\n")
    source = bench.lines(count)
    candidates = {"bare loop": [PYTHON, str(HERE / "bare_loop.py"), str(source), "result.txt"]}
    targets = {}
    for size in (1000, 100):
        for output, limit in (("result/", 0.60), ("result.txt", 0.75)):
            name = f"batchkit, 2 workers, batch {size}, {'parts' if output.endswith('/') else 'one file'}"
            candidates[name] = batchkit(source, "-w", "2", "-b", str(size), function="work.py:upper", output=output)
            if size == 1000:
                targets[name] = Target(le, limit)
    found = bench.alternating(candidates)
    check_same(bench, candidates)
    check_order(bench.home(name) / "result.txt" for name in candidates if not name.endswith("parts"))
    print("results compared: the same, those in one file in order; whole processes, ratio: to the bare loop\n")
    show(found, count, found["bare loop"], targets, "wall")


def commands(bench: Bench) -> None:
    """Compare the running of commands."""
    if not gnu_parallel():
        print("\ncommands: GNU parallel is not installed and this is left out: apt-get install parallel")
        return
    count = 200 if bench.quick else 2000
    source = bench.lines(count)
    print(f"\ncommands: {count:,} of them, 2 at once, {bench.runs} alternating runs; ratio: to GNU parallel\n")
    candidates = {**asked(source, "true {}"), **asked(source, "echo {}", "-k")}
    found = bench.alternating(candidates)
    for command in ("true {}", "echo {}"):
        names = [name for name in candidates if name.startswith(command)]
        targets = {name: Target(le, 1.0) for name in names[1:]}
        show({name: found[name] for name in names}, count, found[names[0]], targets, "wall")
        print()
    check_order([source, *(bench.home(name) / "result.txt" for name in names)])
    print("what `echo` printed is the same everywhere, in order")


def asked(source: Path, command: str, *order: str) -> dict[str, list[str]]:
    """Return the command lines that run a command for each line; `-k`: and keep the order of what they print."""
    output = ["-o", "result.txt"] if order else []
    job = [SCRIPT, "process", str(source), "-x", command, *output, "--state-dir", "state", "-q"]
    theirs = ["parallel", *order, "-j2", "--joblog", "log", "-a", str(source), *command.split()]
    if order:
        theirs = ["sh", "-c", 'exec "$@" > result.txt', "sh", *theirs]
    return {
        f"{command}, GNU parallel -j2 --joblog": theirs,
        f"{command}, batchkit -c 2": [*job, "-c", "2"],
        f"{command}, batchkit -w 2": [*job, "-w", "2"],
    }


def gnu_parallel() -> bool:
    """Tell whether GNU parallel is there: other programs have that name."""
    path = shutil.which("parallel")
    if path is None:
        return False
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    return told.startswith("GNU parallel")


SECTIONS = {section.__name__: section for section in (cpu, waiting, skew, trivial, commands)}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="small samples, to see that all of it runs")
    parser.add_argument("--directory", help="where to write; default: a temporary directory here")
    arguments = parser.parse_args()
    print(machine("click", "filelock", *(name for name in ("joblib", "mpire") if find_spec(name) is not None)))
    with tempfile.TemporaryDirectory(dir=arguments.directory or Path.cwd()) as name:
        for section in arguments.only:
            SECTIONS[section](Bench(Path(name).resolve(), arguments.runs, arguments.quick))


if __name__ == "__main__":
    main()
