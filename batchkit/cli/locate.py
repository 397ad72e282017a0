"""`batchkit locate`: what became of an item."""

from __future__ import annotations

import json
import sys
import time
from itertools import islice
from typing import TYPE_CHECKING

import click

from batchkit.cli.options import job_argument, say, state_dir as state_dir_option, verbose
from batchkit.errors import UsageError

if TYPE_CHECKING:
    from batchkit.locating import Located

_MOST = 10


@click.command(
    epilog="\b\nExamples:\n  batchkit locate items-fetch 'https://example.org/a'\n"
    "  batchkit locate users-load id=4711\n  batchkit locate items-fetch --line 4711\n"
    "  batchkit locate items-fetch --line 4711 --json"
)
@job_argument
@click.argument("item", required=False)
@click.option("--line", type=click.IntRange(1), metavar="N", help="The Nth line or row of the input; no header counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of what was found.")
@state_dir_option
@verbose
def locate(*, job: str, item: str | None, line: int | None, as_json: bool, state_dir: str | None) -> None:
    """Tell which run, shard and batch handled an item, and with what outcome. Changes nothing.

    ITEM is the text of a line; of rows COLUMN=VALUE, or a row as JSON. The input is read to find it, which takes as
    long as reading it; by --line it is found at once.
    """
    from batchkit.existing import Job  # noqa: PLC0415  # not needed for --help

    if (item is None) == (line is None):
        raise UsageError("say which item: its text, or --line N")
    found = Job(job, state_dir)
    numbers = [line] if item is None else list(islice(found.find(item), _MOST + 1))
    if not numbers:
        say(f"{job}: there is no item {item!r} in its input")
        sys.exit(1)
    places = [found.locate(number or 0) for number in numbers[:_MOST]]
    if as_json:
        click.echo(json.dumps([_as_json(each) for each in places], indent=1))
    for each in places if not as_json else ():
        click.echo(told(job, each))
    if len(numbers) > _MOST:
        say(f"{job}: these are the first {_MOST}; there are more", prefix="")


def _as_json(found: Located) -> dict[str, object]:
    failure = found.failure
    names = ("error", "message", "where", "attempts", "run", "time")
    told_of = None if failure is None else {name: getattr(failure, name) for name in names}
    return {**found._asdict(), "failure": told_of}


def told(job: str, found: Located) -> str:
    """Return what became of an item, in lines for people."""
    if found.shard is None:
        return f"{job}: item {found.number:,} is to do"
    again = f" in retry {found.retry}" if found.retry is not None else ""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.time))
    items = f"{found.items:,} item{'' if found.items == 1 else 's'} in {found.seconds:.3g} s"
    lines = [
        f"{job}: item {found.number:,} {_WORDS.get(found.status, found.status)}{again}",
        f"  run {found.run}, shard {found.shard}, batch {found.batch:,} ({items}), committed {when}",
    ]
    if found.failure is not None:
        attempts = f"{found.failure.attempts} attempt{'' if found.failure.attempts == 1 else 's'}"
        before = "" if found.status == "failed" else "before that it failed: "
        message = " ".join(found.failure.message.split())
        lines.append(f"  {before}{found.failure.error}: {message} ({attempts}), {found.failure.where}")
    return "\n".join(lines)


_WORDS = {
    "done": "was done",
    "failed": "failed",
    "skipped": "was skipped",
    "done or skipped": "was done or skipped (some of its batch were skipped; which ones is not kept)",
}
