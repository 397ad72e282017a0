"""`batchkit report`: a page about a job's past."""

from __future__ import annotations

import click

from batchkit.cli.options import job_argument, say, state_dir as state_dir_option, verbose


@click.command(epilog="\b\nExamples:\n  batchkit report items-fetch\n  batchkit report items-fetch -o report.html")
@job_argument
@click.option("-o", "--output", metavar="FILE", help="Where the page goes; default: JOB.html here.")
@state_dir_option
@verbose
def report(*, job: str, output: str | None, state_dir: str | None) -> None:
    """Write a page about a job's past: progress, speed, batches, shards, failures, runs, options.

    One HTML file that needs no network; an earlier one of the name is replaced. Needs pip install 'batchkit[report]'.
    """
    from batchkit.existing import Job  # noqa: PLC0415  # not needed for --help

    path = output or f"{job}.html"
    Job(job, state_dir).report(path)
    say(f"{job}: → {path}", prefix="")
