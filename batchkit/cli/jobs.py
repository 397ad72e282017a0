"""`batchkit reset`, `rm` and `prune`: clearing jobs away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from batchkit.cli.options import complete_job, job_argument, readable, say, state_dir as state_dir_option, verbose
from batchkit.errors import BatchkitError

if TYPE_CHECKING:
    from batchkit.existing import Job


@click.command(epilog="\b\nExample:\n  batchkit reset items-fetch")
@job_argument
@state_dir_option
@verbose
def reset(job: str, state_dir: str | None) -> None:
    """Forget what a job has done: its next run starts over. A published output stays until replaced."""
    from batchkit import existing  # noqa: PLC0415

    existing.Job(job, state_dir).reset()
    say(f"{job}: reset; the next run starts over", prefix="")


@click.command(epilog="\b\nExample:\n  batchkit rm items-fetch")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...", shell_complete=complete_job)
@state_dir_option
@verbose
def rm(jobs: tuple[str, ...], state_dir: str | None) -> None:
    """Remove jobs and what they have not published; published outputs stay."""
    from batchkit import existing  # noqa: PLC0415

    for job in [existing.Job(name, state_dir) for name in jobs]:
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
    from batchkit import existing  # noqa: PLC0415
    from batchkit.budget import seconds_of  # noqa: PLC0415

    before = time.time() - (seconds_of(older, "--older") or 0)
    removed = 0
    for job, found in readable(existing.jobs(state_dir)):
        if found.status == "completed" and (found.updated or 0) < before:
            removed += 1
            say(f"{job.name}: {'would be removed' if dry_run else 'removed'}", prefix="")
            if not dry_run:
                job.remove()
    if not removed:
        say(f"no completed job has been untouched for {older}", prefix="")
