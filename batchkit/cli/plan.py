"""`batchkit plan`: what a job would be, before it runs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from batchkit.cli.options import verbose
from batchkit.cli.process import asked, process
from batchkit.cli.status import told
from batchkit.errors import UsageError
from batchkit.progress import duration

if TYPE_CHECKING:
    from batchkit.forecast import Range
    from batchkit.prospect import Prospect

_OF_A_RUN = {
    "notify", "metrics_file", "log_format", "progress", "quiet", "verbose", "as_json", "paused_exit_code",
}  # fmt: skip
"""Options that are about what a run says; the others of `process` are those of `plan`, too."""

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def _like_process(command: click.Command) -> click.Command:
    command.params = [each for each in process.params if each.name not in _OF_A_RUN] + command.params
    return command


@_like_process
@click.command(
    epilog="""\b
Examples:
  batchkit plan items.txt -f fetch.py:fetch
  batchkit plan items.txt -f fetch.py:fetch --max-time 55m -w 4 --sample 500
  batchkit plan items.txt -f fetch.py:fetch -o pages.jsonl --keep"""
)
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="So many first items to try.",
)
@click.option("--keep", is_flag=True, help="Let that be the job's first run; else the results are thrown away.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@verbose
def plan(*, sample: int, keep: bool, as_json: bool, **given: Any) -> None:
    """Say what a job would be: items, size, shards, and how long it would take, from a sample.

    Takes the options of `batchkit process`. Items of text files are estimated from a few places, not counted. The
    function is really called on the sample: what it does by itself is done.
    """
    from batchkit.prospect import prospect  # noqa: PLC0415  # not needed for --help

    reader, function, options = asked(**given)
    if keep and options["output"] == "-":
        raise UsageError("--keep needs -o FILE: standard output carries the plan")
    seen = prospect(reader, function, sample, keep=keep, **options)
    click.echo(json.dumps(_as_json(seen), indent=1) if as_json else drawn(seen, ", ".join(given["sources"])))


def drawn(seen: Prospect, name: str) -> str:
    """Return it as lines."""
    lines = [name, f"  items     {_items(seen)}"]
    if seen.unit == "B" and seen.extent is not None:
        lines.append(f"  size      {_size(seen.extent)}")
    if seen.workers > 1:
        lines.append(f"  shards    {seen.shards}{'' if seen.shards > 1 else ', for its input cannot be divided'}")
    what = "kept as the job's" if seen.kept else "thrown away"
    pace = f", {seen.sampled / seen.seconds:,.0f}/s" if seen.seconds > 0 else ""
    one = "with one worker" if seen.workers > 1 and not seen.kept else ""
    took = f"{seen.sampled:,} items in {_short(seen.seconds)}{pace} {one}".rstrip()
    lines.append(f"  sample    {took}; results {what}")
    if seen.guess is not None:
        low, high = seen.guess.seconds.low, seen.guess.seconds.high
        lines.append(f"  time      {duration(seen.guess.seconds.likely)} ({duration(low)} to {duration(high)}) of work")
        lines.append(f"  forecast  {told(seen.guess, time.time())}")
    return "\n".join(lines)


def _items(seen: Prospect) -> str:
    if seen.items is None:
        return "unknown: nobody has counted them (a compressed file, a database, a source of your own)"
    if seen.exact:
        return f"{seen.items.likely:,.0f}"
    low, likely, high = (_rough(each) for each in seen.items)
    return f"about {likely} ({low} to {high}), estimated"


def _rough(value: float) -> str:
    """Return a number with three digits that count: more would claim what an estimate does not know."""
    return f"{float(f'{value:.3g}'):,.0f}"


def _short(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _size(size: int) -> str:
    unit, name = next(((unit, name) for unit, name in _UNITS if size >= unit), (1, "bytes"))
    return f"{size / unit:,.3g} {name}" if unit > 1 else f"{size} bytes"


def _as_json(seen: Prospect) -> dict[str, Any]:
    def plain(value: Range | Any) -> Any:
        return {name: plain(each) for name, each in value._asdict().items()} if hasattr(value, "_asdict") else value

    return {name: plain(value) for name, value in seen._asdict().items()}
