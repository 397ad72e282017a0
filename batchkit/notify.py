"""A command that is run when a run ends, to tell somebody."""

from __future__ import annotations

import os
import subprocess
import sys

from batchkit.errors import BatchkitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.events import Event

PATIENCE = 60.0
"""Seconds that the command may take: a mail server that hangs must not hold up the next run."""

_TOLD = ("job", "status", "reason", "done", "failed", "skipped", "new", "seconds", "output", "summary")


class Notifier:
    """Runs a shell command with what happened: a line on its standard input, and facts in BATCHKIT_* variables."""

    def __init__(self, command: str) -> None:
        """Run nothing yet."""
        self._command = command

    def __call__(self, event: Event) -> None:
        """Run it, to its end. Raises `BatchkitError` where it fails."""
        facts = {name: getattr(event, name) for name in _TOLD}
        told = {f"BATCHKIT_{name.upper()}": "" if value is None else str(value) for name, value in facts.items()}
        try:
            ended = subprocess.run(  # noqa: S602  # it is the user's own line
                self._command,
                shell=True,
                input=event.summary + "\n",
                stdout=sys.stderr,  # results may go to standard output
                text=True,
                env={**os.environ, **told},
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BatchkitError(f"'{self._command}' took more than {PATIENCE:.0f} s and was ended") from None
        if ended.returncode != 0:
            raise BatchkitError(f"'{self._command}' exited with {ended.returncode}")
