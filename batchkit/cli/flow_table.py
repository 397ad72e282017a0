"""How a workflow is drawn on a terminal."""

from __future__ import annotations

import datetime
import shutil
from typing import Any

from batchkit.progress import duration

_MARKS = {
    "completed": "✓", "failed": "✗", "revert-failed": "✗", "running": "▸", "interrupted": "!", "paused": "‖",
    "waiting": "?", "skipped": "-", "reverting": "◂", "pending": "·",
}  # fmt: skip
_BAR = 12
_LEAST = 60


def drawn(state: dict[str, Any], name: str) -> str:
    """Return the state of a workflow as lines, no wider than the terminal."""
    phases = state["phases"]
    over = sum(phase["status"] in {"completed", "skipped"} for phase in phases.values())
    lines = [f"{name}: {state['status']}, {over} of {len(phases)} phases done"]
    if state["params"]:
        lines.append("  " + ", ".join(f"{key}={value}" for key, value in state["params"].items()))
    width = max(map(len, phases), default=0)
    for each, phase in phases.items():
        words = [
            f"  {_MARKS.get(phase['status'], ' ')} {each:<{width}}  {phase['status']:<11}",
            _took(phase),
            *_notes(state, each),
        ]
        lines.append("  ".join(words).rstrip())
    if state["rollback"] is not None:
        key = f" --key {state['key']}" if state["key"] else ""
        going = f"go on with: batchkit workflow rollback {state['source'] or 'FILE'}{key}"
        lines.append(f"  a rollback to '{state['rollback']['to']}' is unfinished; {going}")
    points = [f"{point['name']} ({point['files']:,} files, {_size(point['bytes'])})" for point in state["points"]]
    if points:
        lines.append(f"  points to go back to: {', '.join(points)}")
    room = max(_LEAST, shutil.get_terminal_size().columns)
    return "\n".join(line if len(line) <= room else line[: room - 1] + "…" for line in lines)


def _took(phase: dict[str, Any]) -> str:
    return f"{duration(phase['seconds']) if phase['attempts'] and phase['status'] != 'running' else '':>7}"


def _notes(state: dict[str, Any], name: str) -> list[str]:
    phase = state["phases"][name]
    notes = [f"attempt {phase['attempts']}"] if phase["attempts"] > 1 else []
    if phase["progress"]:
        notes.append(_bar(phase["progress"]))
    if phase["status"] == "running" and phase["started"]:
        notes.append(f"since {local(phase['started'])}")
    asked = [
        f"{key}: {each['prompt']}" + (f" ({'/'.join(each['choices'])})" if each["choices"] else "")
        for key, each in state["questions"].items()
        if each["phase"] == name and each["answer"] is None
    ]
    return [*notes, *asked, *(text for text in (phase["error"], phase["reason"]) if text)]


def _bar(progress: dict[str, Any]) -> str:
    done = progress["done"] + progress["failed"] + progress["skipped"]
    failed = f", {progress['failed']:,} failed" if progress["failed"] else ""
    total = f" of {progress['total']:,}" if progress["total"] else ""
    share = progress.get("share")
    bar = "" if share is None else f"{'█' * round(share * _BAR):░<{_BAR}} {share:.0%} "
    return f"{bar}{done:,}{total} items{failed}"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:  # noqa: PLR2004  # a kilo
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def local(time: str) -> str:
    """Return a stored time as people here read it."""
    return datetime.datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def event_line(event: dict[str, Any]) -> str:
    """Return what happened as a line."""
    phase = event.get("phase", "")
    if "to" in event and "from" in event and "event" not in event:
        what = f"{phase}: {event['from']} → {event['to']}"
    else:
        rest = ", ".join(
            f"{key} {value}" for key, value in event.items() if key not in {"time", "event", "phase", "why"}
        )
        what = f"{phase}: " if phase else ""
        what += f"{event.get('event', '')}{f' ({rest})' if rest else ''}"
    why = event.get("why")
    return f"{local(event['time'])}  {what}{f': {why}' if why else ''}"
