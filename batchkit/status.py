"""How a job stands: derived from its files whenever it is asked for, never stored."""

from __future__ import annotations

from typing import Any

from batchkit.destination import STDOUT
from batchkit.job import Status
from batchkit.readers.share import share_done
from batchkit.rounds import ended, resolved_by, rounds_of
from batchkit.writers.printed import is_printed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.job import JobDirectory, Manifest
    from batchkit.rounds import RoundState


def status_of(directory: JobDirectory, manifest: Manifest) -> Status:
    """Return how a job stands; changes nothing."""
    points = directory.commits(manifest) if manifest.ready else [None] * len(manifest.plan)
    known = [point for point in points if point is not None]
    runs = directory.runs()
    ends = [entry for entry in runs if "end" in entry]
    last = ends[-1] if ends and ends[-1]["run"] == runs[-1]["run"] else None
    done_entry = directory.publish_log(manifest.job).done()
    rounds = rounds_of(directory, manifest.job) if manifest.ready else []
    ended_rounds = len(ended(rounds))
    printed = manifest.definition["output"] == STDOUT and not is_printed(directory.path, manifest.job)
    published = printed or (
        done_entry is not None and (done_entry["shards"], done_entry.get("rounds", 0)) == (len(points), ended_rounds)
    )
    at_end = bool(points) and all(point is not None and point.end for point in points)
    again_points = [point for state in rounds for point in state.points if point is not None]
    again = resolved_by(ended(rounds))
    done = sum(point.done for point in known) + again[0]
    skipped = sum(point.skipped for point in known) + again[1]
    failed = sum(point.failed for point in known) - sum(again)
    status = _word_for(
        running=directory.running(),
        completed=at_end and published,
        broken=last is not None and last["status"] == "failed",
        begun=bool(known),
    )
    cursors = [
        shard.span.start if point is None else point.stop for shard, point in zip(manifest.plan, points, strict=True)
    ]
    spans = [shard.span for shard in manifest.plan]
    share = share_done(manifest.definition["source"]["kind"], manifest.fingerprint, spans, cursors)
    return Status(
        job=directory.name,
        status=status,
        reason=_reason_of(status, directory.holder(), last)
        or _unfinished(directory.name, rounds, merged=not at_end or published),
        done=done,
        failed=failed,
        skipped=skipped,
        total=done + failed + skipped if at_end else None,
        output=manifest.output,
        updated=max((point.time for point in (*known, *again_points)), default=None),
        runs=sum("start" in entry for entry in runs),
        share=1.0 if status == "completed" else share,
    )


def _reason_of(status: str, holder: str, last: dict[str, Any] | None) -> str | None:
    if status == "running":
        return f"by {holder}"
    return None if status == "completed" or last is None else last["reason"]


def _unfinished(name: str, rounds: Sequence[RoundState], *, merged: bool) -> str | None:
    if not rounds or (rounds[-1].ended and merged):
        return None
    what = "still to be written to the output" if rounds[-1].ended else "unfinished"
    return f"a retry of failures is {what}, go on with: batchkit retry {name}"


def _word_for(*, running: bool, completed: bool, broken: bool, begun: bool) -> str:
    if running:
        return "running"
    if completed:
        return "completed"
    if broken:
        return "failed"
    return "paused" if begun else "new"
