"""`batchkit status`: how jobs stand."""

from __future__ import annotations

import datetime
import json
import shutil
import sys
import time
from typing import TYPE_CHECKING

import click

from batchkit.cli.options import complete_job, readable, say, state_dir as state_dir_option, verbose
from batchkit.errors import UsageError
from batchkit.progress import duration

if TYPE_CHECKING:
    from batchkit.forecast import Forecast, Range
    from batchkit.job import Status
    from batchkit.overview import Overview, ShardFacts

_EVERY = 1.0
_BAR = 24
_SMALL = 10
_MARKS = {"completed": "✓", "failed": "✗", "running": "▸", "paused": "‖", "new": "·"}


@click.command(
    epilog="\b\nExamples:\n  batchkit status\n  batchkit status items-fetch\n  batchkit status items-fetch --watch\n"
    "  batchkit status items-fetch --shards\n  batchkit status items-fetch --json"
)
@click.argument("job", required=False, shell_complete=complete_job)
@click.option("--shards", is_flag=True, help="Show each shard, too.")
@click.option("--watch", is_flag=True, help="Draw it anew every second while it runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object for one job, a list for all.")
@state_dir_option
@verbose
def status(*, job: str | None, shards: bool, watch: bool, as_json: bool, state_dir: str | None) -> None:
    """Show how a job stands, what it has done and when it will be done; or all jobs. Changes nothing."""
    if job is None:
        if shards or watch:
            raise UsageError("--shards and --watch are for one job; name it")
        _all(state_dir, as_json=as_json)
        return
    from batchkit.existing import Job  # noqa: PLC0415  # not needed for --help

    found = Job(job, state_dir)
    while True:
        seen = found.overview()
        if watch and sys.stdout.isatty():
            click.clear()
        click.echo(json.dumps(seen.as_json(), indent=None if watch else 1) if as_json else drawn(seen, shards=shards))
        if not watch or seen.status.status != "running":
            return
        time.sleep(_EVERY)


def _all(state_dir: str | None, *, as_json: bool) -> None:
    from batchkit import existing  # noqa: PLC0415  # as above
    from batchkit.job import state_directory  # noqa: PLC0415

    known = existing.jobs(state_dir)
    found = [one for _, one in readable(known)]
    if as_json:
        click.echo(json.dumps([one._asdict() for one in found], indent=1))
    elif found:
        click.echo(_table(found) if sys.stdout.isatty() else "\n".join(map(line, found)))
    elif not known:
        say(f"no jobs in '{state_directory(state_dir)}'", prefix="")
    if len(found) < len(known):
        sys.exit(1)


def line(one: Status) -> str:
    """Return how a job stands in one line."""
    total = f" of {one.total:,}" if one.total is not None else ""
    share = f" ({one.share:.1%})" if one.share is not None and one.status != "completed" else ""
    parts = [f"{one.job}: {one.status}", f"{one.done:,}{total} items done{share}"]
    parts += [f"{count:,} {name}" for count, name in ((one.failed, "failed"), (one.skipped, "skipped")) if count]
    if one.reason:
        parts.append(one.reason)
    arrow = f" → {one.output}" if one.output and one.status == "completed" else ""
    return ", ".join(parts) + arrow


def _table(found: list[Status]) -> str:
    rows = [("", "JOB", "STATUS", "PROGRESS", "DONE", "FAILED", "LAST COMMIT")]
    rows += [
        (
            _MARKS.get(one.status, " "),
            one.job,
            one.status,
            _bar(one.share, _SMALL),
            f"{one.done:,}",
            f"{one.failed:,}" if one.failed else "",
            _ago(one.updated),
        )
        for one in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {4, 5}
    lines = (
        "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    room = shutil.get_terminal_size().columns
    return "\n".join(text.rstrip()[:room] for text in lines)


def drawn(seen: Overview, *, shards: bool = False) -> str:
    """Return a job at a glance, as lines."""
    one = seen.status
    facts = [("progress", _progress(seen)), ("speed", f"{seen.rate:,.0f} items a second" if seen.rate else None)]
    facts += [("runs", _runs(seen)), ("last run", _last(seen)), ("forecast", told(seen.forecast, time.time()))]
    facts += [("output", one.output if one.status != "completed" else None), ("next", seen.next)]
    lines = [line(one), *(f"  {name:<9} {text}" for name, text in facts if text)]
    return "\n".join(lines + ([*map(_shard, seen.shards)] if shards else []))


def _progress(seen: Overview) -> str:
    one = seen.status
    counts = [f"{one.done:,} done", f"{one.failed:,} failed", f"{one.skipped:,} skipped"]
    if seen.left is not None:
        counts.insert(1, f"{'about ' if one.status != 'completed' else ''}{seen.left:,} left")
    return f"{_bar(one.share, _BAR)} {', '.join(counts)}".strip()


def _bar(share: float | None, width: int) -> str:
    return "" if share is None else f"{'█' * int(share * width):░<{width}} {share:>4.0%}"


def _runs(seen: Overview) -> str | None:
    return f"{len(seen.runs):,}, {duration(seen.seconds)} in all" if seen.runs else None


def _last(seen: Overview) -> str | None:
    last = seen.runs[-1] if seen.runs else None
    if last is None:
        return None
    if last.end is not None:
        why = last.reason or last.status
        return f"ended {_clock(last.end)} after {duration(last.seconds or 0)}: {why}"
    if seen.status.status == "running":
        limit = "" if last.limit is None else f", to end before {_clock(last.start + last.limit)}"
        return f"at work since {_clock(last.start)}{limit}"
    return f"began {_clock(last.start)} and was killed"


def told(guess: Forecast | None, now: float) -> str | None:
    """Return a forecast in words, with its spread; `None`: there is none."""
    if guess is None:
        return None
    if guess.runs.likely:
        of = "" if guess.run_seconds is None else f" of {_round(guess.run_seconds)}"
        count = guess.runs.likely
        what = f"about {count:.0f} more run{'' if count == 1 else 's'}{of}, done around {_moment(guess.at.likely, now)}"
    else:
        what = f"done in about {_round(guess.seconds.likely)}, around {_moment(guess.at.likely, now)}"
    known = "a guess from one run" if guess.sample == 1 else f"from {guess.sample} runs"
    return f"{what} ({_spread(guess.at, now)}; {known})"


def _spread(at: Range, now: float) -> str:
    low, high = _moment(at.low, now), _moment(at.high, now)
    return f"between {low} and {high}" if low != high else "give or take a minute"


def _moment(at: float, now: float) -> str:
    """Return a time as people say it: the hour for today, the weekday for this week, else the date."""
    then, today = datetime.datetime.fromtimestamp(at).astimezone(), datetime.datetime.fromtimestamp(now).astimezone()
    days = (then.date() - today.date()).days
    return then.strftime("%H:%M" if days == 0 else "%a %H:%M" if 0 < days < 7 else "%Y-%m-%d %H:%M")  # noqa: PLR2004


def _round(seconds: float) -> str:
    """Return a duration without more precision than a guess has."""
    if seconds < 90:  # noqa: PLR2004  # a minute and a half
        return f"{seconds:.0f}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m"


def _clock(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _ago(at: float | None) -> str:
    return "" if at is None else f"{duration(max(0.0, time.time() - at))} ago"


def _shard(shard: ShardFacts) -> str:
    state = "done" if shard.ended else f"worker {shard.worker}" if shard.worker else ""
    stop = "…" if shard.stop is None else shard.stop
    counts = f"{shard.done:,} done" + (f", {shard.failed:,} failed" if shard.failed else "")
    text = f"  shard {shard.shard:<4} {_bar(shard.share, _SMALL)}  {shard.start} to {stop}, {counts}  {state}"
    return text.rstrip()
