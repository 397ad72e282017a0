"""A small workflow without a database: parallel phases, items, a snapshot, and what it did outside to be undone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import batchkit

if TYPE_CHECKING:
    from batchkit.workflow.context import Context

WORK = Path("workspace")
OUTSIDE = Path("outside")

flow = batchkit.Workflow("small", workspace=WORK)


def put(path: Path, text: str) -> None:
    """Write a file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


@flow.phase
def prepare(ctx: Context) -> int:
    """Write what the snapshot is to keep, which must not be there yet or be the same."""
    put(WORK / "input" / "words", "one two three")
    put(WORK / "changed", "as it was")
    return int(ctx.once("number", lambda: 3))


@flow.phase(after=prepare)
def left(ctx: Context) -> int:
    """Run beside `right`."""
    put(WORK / "left", "l")
    return ctx["prepare"] + 1  # type: ignore[no-any-return]


@flow.phase(after=prepare, items=["a", "b", "c"], batch_size=1)
def right(_: Context, item: str) -> str:
    """Return a text each."""
    return item * 2


@flow.phase(items=lambda ctx: [{"number": n} for n in range(ctx["left"])], batch_size=2, snapshot=True)
def work(ctx: Context, item: dict[str, int]) -> int:
    """Change what the snapshot has kept, and something outside of it."""
    put(WORK / "changed", "otherwise")
    (WORK / "input" / "words").unlink(missing_ok=True)
    put(OUTSIDE / f"{ctx.phase}-{item['number']}", "done")
    return item["number"] ** 2


@work.verify
def all_is_there(ctx: Context) -> bool:
    """See that there is a file for each item."""
    return bool(len(list(OUTSIDE.glob("work-?"))) == ctx["work"]["done"])


@work.undo
def take_back(_: Context) -> None:
    """Remove what is outside."""
    for path in OUTSIDE.glob("*"):
        path.unlink()


@flow.phase
def total(ctx: Context) -> dict[str, Any]:
    """Add it up."""
    return {"sum": sum(ctx.results("work")), "left": ctx["left"], "right": ctx["right"]["done"]}
