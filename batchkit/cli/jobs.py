"""`batchkit status`, `reset`, `rm` and `prune`: looking at jobs and clearing them away."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from batchkit.cli.options import say, state_dir as state_dir_option, verbose
from batchkit.errors import BatchkitError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchkit.api import Job
    from batchkit.job import Status


@click.command(epilog="\b\nExamples:\n  batchkit status\n  batchkit status items-fetch --json")
@click.argument("job", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object for one job, a list for all.")
@state_dir_option
@verbose
def status(job: str | None, as_json: bool, state_dir: str | None) -> None:  # noqa: FBT001
    """Show how a job stands, or all jobs. Changes nothing."""
    from batchkit import api  # noqa: PLC0415  # not needed for --help

    known = [] if job else api.jobs(state_dir)
    found = [api.Job(job, state_dir).status()] if job else [one for _, one in _readable(known)]
    if as_json:
        entries = [one._asdict() for one in found]
        click.echo(json.dumps(entries[0] if job else entries, indent=1))
    elif found:
        for one in found:
            click.echo(_line(one))
    elif not known:
        say(f"no jobs in '{api.state_directory(state_dir)}'", prefix="")
    if len(found) < len(known):
        sys.exit(1)


def _readable(jobs: list[Job]) -> Iterator[tuple[Job, Status]]:
    """Yield the jobs that can be read, with their status, and say which cannot."""
    for job in jobs:
        try:
            yield job, job.status()
        except BatchkitError as error:
            say(str(error))


def _line(one: Status) -> str:
    total = f" of {one.total:,}" if one.total is not None else ""
    share = f" ({one.share:.1%})" if one.share is not None and one.status != "completed" else ""
    parts = [f"{one.job}: {one.status}", f"{one.done:,}{total} items done{share}"]
    parts += [f"{count:,} {name}" for count, name in ((one.failed, "failed"), (one.skipped, "skipped")) if count]
    if one.reason:
        parts.append(one.reason)
    arrow = f" → {one.output}" if one.output and one.status == "completed" else ""
    return ", ".join(parts) + arrow


@click.command(epilog="\b\nExample:\n  batchkit reset items-fetch")
@click.argument("job")
@state_dir_option
@verbose
def reset(job: str, state_dir: str | None) -> None:
    """Forget what a job has done: its next run starts over. A published output stays until replaced."""
    from batchkit import api  # noqa: PLC0415

    api.Job(job, state_dir).reset()
    say(f"{job}: reset; the next run starts over", prefix="")


@click.command(epilog="\b\nExample:\n  batchkit rm items-fetch")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@state_dir_option
@verbose
def rm(jobs: tuple[str, ...], state_dir: str | None) -> None:
    """Remove jobs and what they have not published; published outputs stay."""
    from batchkit import api  # noqa: PLC0415

    for job in [api.Job(name, state_dir) for name in jobs]:
        left = "; its rows stay in the table, where another run would add them again" if _adds(job) else ""
        job.remove()
        say(f"{job.name}: removed{left}", prefix="")


def _adds(job: Job) -> bool:
    """Tell whether a job adds rows to a table, as far as it can be read."""
    try:
        output = job.status().output or ""
    except BatchkitError:
        return False
    return "://" in output and "mode=" not in output


@click.command(epilog="\b\nExamples:\n  batchkit prune --older 30d\n  batchkit prune --older 30d --dry-run")
@click.option(
    "--older", required=True, metavar="DURATION", help="Remove completed jobs not touched for so long: 12h, 30d."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@state_dir_option
@verbose
def prune(older: str, dry_run: bool, state_dir: str | None) -> None:  # noqa: FBT001
    """Remove completed jobs that nobody has touched for a while; published outputs stay."""
    from batchkit import api  # noqa: PLC0415
    from batchkit.budget import seconds_of  # noqa: PLC0415

    before = time.time() - (seconds_of(older, "--older") or 0)
    removed = 0
    for job, found in _readable(api.jobs(state_dir)):
        if found.status == "completed" and (found.updated or 0) < before:
            removed += 1
            say(f"{job.name}: {'would be removed' if dry_run else 'removed'}", prefix="")
            if not dry_run:
                job.remove()
    if not removed:
        say(f"no completed job has been untouched for {older}", prefix="")
