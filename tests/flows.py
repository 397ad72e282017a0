"""What the tests of workflows share: a run without progress, the states, a picture of a directory."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchkit import Workflow
    from batchkit.workflow.outcome import FlowResult


def run(flow: Workflow, **options: Any) -> FlowResult:
    """Run a workflow and show nothing."""
    return flow.run(progress="none", **options)


def states(flow: Workflow, **place: Any) -> dict[str, str]:
    """Return name → state, as they are stored."""
    return {name: phase.status for name, phase in flow.store(**place).load().phases.items()}


def stored(name: str) -> dict[str, Any]:
    """Return the state file of a workflow in the default state directory."""
    state: dict[str, Any] = json.loads(Path(f".batchkit/{name}/workflow.json").read_text())
    return state


def everything() -> dict[str, tuple[object, ...]]:
    """Return what is in the working directory, but for who held the locks last."""
    return {path: what for path, what in tree(".").items() if not path.endswith("lock")}


def tree(directory: str | os.PathLike[str]) -> dict[str, tuple[object, ...]]:
    """Return what is in a directory: path → kind, mode, and contents or target; no times."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(Path(directory).rglob("*")):
        entry = path.lstat()
        kind = stat.S_IFMT(entry.st_mode)
        holds: object = None
        if path.is_symlink():
            holds = os.readlink(path)
        elif path.is_file():
            holds = path.read_bytes()
        found[os.path.relpath(path, directory)] = kind, stat.S_IMODE(entry.st_mode), holds
    return found
