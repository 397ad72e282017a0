"""`batchkit stop` and `extend`: steering a run that is at work, from another shell."""

from __future__ import annotations

import time

import click

from batchkit.cli.options import job_argument, say, state_dir as state_dir_option, verbose
from batchkit.errors import UsageError

_LOOK_EVERY = 0.2


@click.command(epilog="\b\nExamples:\n  batchkit stop items-fetch\n  batchkit stop items-fetch --wait && sudo poweroff")
@job_argument
@click.option("--now", is_flag=True, help="Leave at once, as by a second Ctrl-C; what is in hand runs again next time.")
@click.option("--wait", is_flag=True, help="Return when the run has ended.")
@state_dir_option
@verbose
def stop(*, job: str, now: bool, wait: bool, state_dir: str | None) -> None:
    """Ask the run of a job to stop at the end of the item in hand, committed; it exits with 75.

    The run may be in any process, on any host that shares the state directory.
    """
    from batchkit.existing import Job  # noqa: PLC0415  # not needed for --help

    found = Job(job, state_dir)
    found.stop(now=now)
    if wait:
        while found.status().status == "running":
            time.sleep(_LOOK_EVERY)
        say(f"{job}: stopped; run the same command again to go on", prefix="")
    else:
        when = "at once" if now else "at the end of the item in hand"
        say(f"{job}: asked to stop, {when}; run the same command again to go on", prefix="")


@click.command(epilog="\b\nExample:\n  batchkit extend items-fetch --max-time +30m")
@job_argument
@click.option("--max-time", required=True, metavar="+DURATION", help="So much more than it was given: +30m, +2h.")
@state_dir_option
@verbose
def extend(*, job: str, max_time: str, state_dir: str | None) -> None:
    """Give the run of a job more time than its --max-time or --until."""
    from batchkit.existing import Job  # noqa: PLC0415  # as above

    if not max_time.startswith("+"):
        raise UsageError(f"--max-time is '{max_time}'; say how much more, such as +30m")
    more = max_time.removeprefix("+")
    Job(job, state_dir).extend(more)
    say(f"{job}: has {more} more", prefix="")
