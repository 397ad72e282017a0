"""`batchkit failures` and `retry`: looking at the items that failed, and running them again."""

from __future__ import annotations

import heapq
import json
import re
import shutil
import sys
import time
from typing import Any

import click

from batchkit.cli.options import (
    abort,
    calls,
    commands,
    function_of,
    interval,
    job_argument,
    limits,
    pace,
    report,
    say,
    state_dir,
    talk,
    verbose,
)
from batchkit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchkit.model import Failure

_WIDTH = 100
"""Columns where nobody says how many there are."""

_LEAST = 60
"""Columns that a table has in any case."""


@click.command(
    epilog="""\b
Examples:
  batchkit failures items-fetch
  batchkit failures items-fetch --last 3
  batchkit failures items-fetch --items | head
  batchkit failures items-fetch --json | jq '.[].message'"""
)
@job_argument
@click.option("--last", type=click.IntRange(1), metavar="N", help="Show the N newest in full, with tracebacks.")
@click.option("--items", is_flag=True, help="Print just the items: text as it is, others as JSON, one a line.")
@click.option("-0", "--null", is_flag=True, help="With --items: end each with NUL, as `process -0` reads them.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with all that is known.")
@state_dir
@verbose
def failures(  # one parameter per option
    *, job: str, last: int | None, items: bool, null: bool, as_json: bool, state_dir: str | None
) -> None:
    """Show the items of JOB that failed for good, grouped by error. Changes nothing."""
    from batchkit import existing  # noqa: PLC0415  # not needed for --help

    if items and as_json:
        raise UsageError("--items and --json are two ways to print; give one of them")
    if null and not items:
        raise UsageError("-0 says what ends an item; give --items, too")
    found: Iterable[Failure] = existing.Job(job, state_dir).failures()
    if last is not None:
        found = heapq.nlargest(last, found, key=lambda failure: (failure.time, failure.shard, failure.number))
    if as_json:
        _print_json(found)
    elif items:
        _print_items(found, "\0" if null else "\n")
    elif last is not None:
        for failure in found:
            _print(_in_full(failure))
    else:
        _print_table(job, found)


def _print(text: str, *, nl: bool = True) -> None:
    """Print a text, with escapes for what standard output has no bytes for: JSON may hold halves of characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=nl)


def _print_json(found: Iterable[Failure]) -> None:
    from batchkit.tagged import encode  # noqa: PLC0415  # as above

    between = "[\n"
    for failure in found:
        _print(between + json.dumps({**failure._asdict(), "item": encode(failure.item)}), nl=False)
        between = ",\n"
    click.echo("\n]" if between != "[\n" else "[]")


def _print_items(found: Iterable[Failure], ending: str) -> None:
    lost = broken = 0
    for failure in found:
        if failure.unreadable or failure.kept_as_text:
            lost += 1
        else:
            text = _plain(failure.item)
            broken += ending in text
            _print(text + ending, nl=False)
    if broken:
        say(f"{broken:,} of them hold a line end themselves; print them with -0")
    if lost:
        say(f"{lost:,} more could not be read or have no form in JSON; see them with --json")


def _plain(item: Any) -> str:
    from batchkit.tagged import encode  # noqa: PLC0415  # as above

    return item if isinstance(item, str) else json.dumps(encode(item), ensure_ascii=False)


def _in_full(failure: Failure) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(failure.time))
    tries = f"{failure.attempts} attempt{'' if failure.attempts == 1 else 's'}"
    item = "(not readable)" if failure.unreadable else _plain(failure.item)
    lines = [item, f"  at {failure.where}, {tries}, run {failure.run}, {when}"]
    lines += [f"  {line}" for line in (failure.traceback or f"{failure.error}: {failure.message}").splitlines()]
    return "\n".join(lines) + "\n"


def _print_table(job: str, found: Iterable[Failure]) -> None:
    groups: dict[tuple[str, str], list[Any]] = {}
    for failure in found:
        group = groups.setdefault((failure.error, _shape(failure.message)), [0, failure])
        group[0] += 1
    total = sum(count for count, _ in groups.values())
    if not total:
        click.echo(f"{job}: no failures")
        return
    click.echo(f"{job}: {total:,} failure{'' if total == 1 else 's'}\n")
    for line in _table(sorted(groups.values(), key=lambda group: -group[0])):
        _print(line)
    click.echo(f"\nRun them again: batchkit retry {job}. In full: batchkit failures {job} --last 3, or --json.")


def _shape(message: str) -> str:
    """Return a message without what differs from item to item: numbers, quoted text, addresses."""
    message = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", message)
    message = re.sub(r"\w+://\S+", "…", message)
    return re.sub(r"\d+", "0", message)


def _table(groups: list[list[Any]]) -> Iterator[str]:
    """Yield the lines of a table that fits the terminal."""
    rows = [["ITEMS", "ERROR", "MESSAGE (OF THE FIRST)", "FIRST ITEM", "WHERE"]]
    for count, failure in groups:
        item = "(not readable)" if failure.unreadable else _plain(failure.item)
        where = re.sub(r" \(byte [\d,]+\)$", "", failure.where)  # behind the line, which tells people more
        rows.append([f"{count:,}", failure.error, failure.message, item, where])
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    room = max(_LEAST, shutil.get_terminal_size((_WIDTH, 24)).columns) - widths[0] - widths[1] - 8
    if sum(widths[2:]) > room:
        widths[2] = min(widths[2], max(20, room - min(widths[3], room // 4) - min(widths[4], room // 3)))
        widths[3] = min(widths[3], max(14, room // 4))
        widths[4] = min(widths[4], max(10, room - widths[2] - widths[3]))
    for row in rows:
        cells = [_cut(cell, width) for cell, width in zip(row, widths, strict=True)]
        first, *others = (cell.ljust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        yield "  ".join([cells[0].rjust(widths[0]), first, *others]).rstrip()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


@click.command(
    epilog="""\b
Examples:
  batchkit retry items-fetch
  batchkit retry items-fetch -f mymodule:fetch_slowly --retries 5 --retry-wait 10s
  batchkit retry items-fetch --max-time 55m

Run the same command again to go on where it stopped."""
)
@job_argument
@click.option("-f", "--function", metavar="SPEC", help="Another function; default: the one of the last run.")
@commands
@click.option("-b", "--batch-size", type=click.IntRange(1), help="Items per batch; default: as in the last run.")
@click.option("--batch-format", type=click.Choice(["polars", "arrow", "dicts"]), help="What a batched function gets.")
@click.option("--max-failures", metavar="N|P%", help="Write no output while more items of the job are failures.")
@calls(defaults=False)
@limits
@state_dir
@pace
@talk
def retry(  # noqa: PLR0913  # one parameter per option
    *,
    job: str,
    function: str | None,
    each: str | None,
    whole: str | None,
    retry_on: str | None,
    batch_seconds: str,
    sync_interval: str,
    progress: str,
    quiet: bool,
    as_json: bool,
    paused_exit_code: int,
    state_dir: str | None,
    **options: Any,
) -> None:
    """Run the failed items of JOB again and put the results in their place in the output.

    Function and options are those of the job's last run unless given here. What fails again is kept. The output is
    replaced whole, at the end.
    """
    from batchkit import existing  # noqa: PLC0415  # not needed for --help
    from batchkit.loading import load_errors  # noqa: PLC0415

    result = existing.Job(job, state_dir).retry(
        function_of(function, each, whole),
        retry_on=None if retry_on is None else load_errors(retry_on),
        batch_seconds=interval(batch_seconds),
        sync_interval=interval(sync_interval),
        progress="none" if quiet else progress,
        abort=abort,
        **options,
    )
    report(result, quiet=quiet, as_json=as_json)
    sys.exit(result.exit_code if result.completed else paused_exit_code)
