"""`batchkit check`: whether a function is safe to repeat."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click

from batchkit.cli.options import commands, function_of, say, verbose
from batchkit.errors import UsageError

if TYPE_CHECKING:
    from batchkit.testing import Moment, Trial

_ADVICE = (
    "what helps: write to another name and rename; upsert by a key, such as current_batch().key; batchkit.transaction; "
    "keep nothing between calls"
)


@click.command(
    epilog="""\b
Examples:
  batchkit check urls.txt -f fetch.py:fetch
  batchkit check ids.txt -f load.py:load --before 'rm -rf out' --observe 'cat out/*'
  batchkit check rows.csv -f load.py:load --before 'psql -qf empty.sql' --observe 'psql -Atc "table t"'
  batchkit check images.txt -x 'convert -- {} out/{}' --before 'rm -f out/*' --observe 'md5sum out/*'

Exit codes: 0 nothing differed, 1 something did, 2 wrong usage."""
)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-f", "--function", metavar="SPEC", help="pkg.module:name or path.py:name.")
@commands
@click.option("--batched", is_flag=True, help="Call the function with a list of items instead of one.")
@click.option("-b", "--batch-size", default=5, show_default=True, help="Items per batch and commit.")
@click.option("--items", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="Try the first N.")
@click.option("--kills", type=click.IntRange(1), default=12, show_default=True, metavar="N", help="Kill so often.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the places.")
@click.option("--before", metavar="COMMAND", help="Makes the world as it was, before each first run; by a shell.")
@click.option(
    "--observe", metavar="COMMAND", help="Prints what is to be the same in the end, after each run; by a shell."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@verbose
def check(  # noqa: PLR0913  # one parameter per option
    *,
    sources: tuple[str, ...],
    function: str | None,
    each: str | None,
    whole: str | None,
    batched: bool,
    batch_size: int,
    as_json: bool,
    before: str | None,
    observe: str | None,
    **numbers: int,
) -> None:
    """Find out whether a function is safe to repeat: kill it on purpose, run it again, and compare.

    It is really called on the first items, with all that it does: use a test database, a scratch directory. Two runs
    are left alone, to see whether they agree; then each trial kills the process before a call, within one, or between
    a call and its commit, and runs the same job again to its end.
    """
    from batchkit import testing  # noqa: PLC0415  # not needed for --help
    from batchkit.sources import of_paths  # noqa: PLC0415

    called = function_of(function, each, whole)
    if called is None:
        raise UsageError("say what to check: -f path.py:name, or a command by -x")

    def tell(trial: Trial) -> None:
        verdict = "✓" if trial.difference is None else f"✗ {trial.difference}"
        click.echo(f"  {_where(trial.moment):<39} {trial.item:<24} {verdict}")

    report = testing.check(
        of_paths(*sources),
        called,
        batched=batched or whole is not None,
        batch_size=batch_size,
        before=None if before is None else lambda: _shell(before, "--before"),
        observe=None if observe is None else lambda: _shell(observe, "--observe"),
        tell=None if as_json else tell,
        **numbers,
    )
    if as_json:
        click.echo(json.dumps(_as_json(report), indent=1))
    else:
        click.echo(report.summary)
        if not report.safe:
            say(_ADVICE, prefix="")
    sys.exit(0 if report.safe else 1)


def _where(moment: Moment) -> str:
    what = f"killed {moment.when} call {moment.call + 1}"
    if moment.line is not None:
        return f"{what}, before its line {moment.line}"
    return what if moment.seconds is None else f"{what}, after {moment.seconds * 1000:.0f} ms"


def _as_json(report: Any) -> dict[str, Any]:
    trials = [{**trial._asdict(), "moment": trial.moment._asdict()} for trial in report.trials]
    return {**report._asdict(), "trials": trials, "safe": report.safe, "summary": report.summary}


def _shell(command: str, option: str) -> str:
    """Return what a command prints. Raises `UsageError` if it fails."""
    ended = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S602  # the user's
    if ended.returncode != 0:
        raise UsageError(f"{option} '{command}' exited with {ended.returncode}")
    return ended.stdout
