"""Ask three questions and write a line for crontab(5): when to run which command.

    batchkit workflow run examples/wizard.py

On a terminal it asks there. Elsewhere it ends with exit code 6, and is answered by whoever knows, whenever:

    batchkit workflow answer wizard how-often daily
    batchkit workflow run examples/wizard.py
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import batchkit

if TYPE_CHECKING:
    from batchkit.workflow.context import Context

HOURS = [str(hour) for hour in range(24)]
MINUTES = ["0", "15", "30", "45"]

flow = batchkit.Workflow("wizard", params={"file": "crontab.txt"})


@flow.phase
def questions(ctx: Context) -> dict[str, str]:
    """Ask; each answer is kept, so nobody is asked twice."""
    command = ctx.ask("command", "Which command is to run?")
    if ctx.ask("how-often", "How often?", choices=["hourly", "daily"]) == "hourly":
        minute = ctx.ask("minute", "At which minute?", choices=MINUTES)
        return {"command": command, "when": f"{minute} * * * *"}
    hour = ctx.ask("hour", "At which hour?", choices=HOURS)
    return {"command": command, "when": f"0 {hour} * * *"}


@questions.verify
def command_is_one_line(ctx: Context) -> bool:
    """A line of a crontab is one command; `%` would end it there."""
    command = ctx["questions"]["command"]
    return bool(command.strip()) and not set(command) & set("\n%")


@flow.phase
def write(ctx: Context) -> str:
    """Write the file; `crontab FILE` installs it."""
    answers = ctx["questions"]
    Path(ctx.params["file"]).write_text(f"{answers['when']} {answers['command']}\n")
    return str(ctx.params["file"])
