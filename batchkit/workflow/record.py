"""What `workflow.json` says, as values.

    {"format": 1, "workflow", "key", "source": "flow.py:flow", "created", "updated",
     "params": {name: value}, "given": {name: value}, "workspace": "/path" or null,
     "order": starts so far,
     "phases": {name: {"status", "started", "completed", "seconds", "attempts", "result", "error", "progress", …}},
     "questions": {key: {"phase", "prompt", "choices", "answer", "by", "at"}},
     "points": [{"name", "order", "time", "files", "bytes", "archive"}],
     "rollback": null or {"to", "order", "restore", "why"}, "back_at": the same}

Times are texts in UTC (RFC 3339). The file is the only truth about a workflow; progress of items, which a job keeps for
itself, is in it as it was at the last write only.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass, field
from typing import Any

from batchkit.workflow.states import OVER, PENDING

FORMAT = 1

START = "start"
"""The point before everything."""


def now() -> str:
    """Return the time as it is stored."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True)
class PhaseRecord:
    """How a phase stands.

    kind: "phase", "items" or "gate". after: the phases before it. home: under what name its files are kept, which
    stays when it is renamed. generation: counts its beginnings from nothing, each of which has a job of its own.
    order: which start of the workflow's it was; `None`: it has not begun since it was pending. seconds: of all
    attempts. result: what the function returned. error, reason: in words. progress: items done, failed, skipped, total.
    code: digest of the function when it ran last. once: what `ctx.once` keeps. point: the snapshot taken before it, if
    that still stands for its beginning. published: whether an earlier job of it has made its output appear, which
    the next one may therefore replace.
    """

    status: str = PENDING
    kind: str = "phase"
    after: list[str] = field(default_factory=list)
    home: str = ""
    generation: int = 1
    order: int | None = None
    started: str | None = None
    completed: str | None = None
    seconds: float = 0.0
    attempts: int = 0
    result: Any = None
    error: str | None = None
    reason: str | None = None
    progress: dict[str, Any] | None = None
    code: str | None = None
    once: dict[str, Any] = field(default_factory=dict)
    point: str | None = None
    published: bool = False

    @property
    def job(self) -> str:
        """The name of the job that works through its items."""
        return self.home if self.generation == 1 else f"{self.home}@{self.generation}"  # no phase's name has an '@'

    def begin_anew(self) -> None:
        """Be as before the first start; the job of its items is another one from now on."""
        self.status = PENDING
        self.generation += 1
        self.order = self.started = self.completed = self.result = self.error = self.reason = self.progress = None
        self.seconds, self.attempts, self.once = 0.0, 0, {}


@dataclass(slots=True)
class Question:
    """What somebody is asked. choices: the answers there are; `None`: any text. by, at: who answered, and when."""

    phase: str
    prompt: str
    choices: list[str] | None = None
    answer: str | None = None
    by: str | None = None
    at: str | None = None


@dataclass(slots=True)
class Point:
    """A snapshot of the workspace that can be gone back to.

    order: starts of phases before it. phase: the one before whose beginning it was taken; `None`: taken by hand.
    restored: when it was gone back to last; `None`: never. halfway: phases that had begun and were not over: the
    workspace has half of what they do.
    """

    name: str
    order: int
    time: str
    files: int
    bytes: int
    archive: str
    phase: str | None = None
    restored: str | None = None
    halfway: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Rollback:
    """A rollback that has not ended.

    to: what it goes back to, for people. order: phases that started behind this one are undone. restore: the point to
    restore the workspace from; `None`: it stays. why: what it was begun for. halfway: phases that are undone, too.
    begun: whether anything may have been undone already.
    """

    to: str
    order: int
    restore: str | None = None
    why: str = "asked for"
    halfway: list[str] = field(default_factory=list)
    begun: bool = False


@dataclass(slots=True)
class FlowRecord:
    """How a workflow stands; see the head of this module."""

    workflow: str
    key: str | None = None
    source: str | None = None
    created: str = field(default_factory=now)
    updated: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    workspace: str | None = None
    order: int = 0
    phases: dict[str, PhaseRecord] = field(default_factory=dict)
    questions: dict[str, Question] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    rollback: Rollback | None = None
    back_at: Rollback | None = None
    """The rollback that ended last, as long as nothing has begun since."""

    def as_json(self) -> dict[str, Any]:
        """Return it as it is stored."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def of_json(cls, entry: dict[str, Any]) -> FlowRecord:
        """Return what was stored. Raises `KeyError`, `TypeError` or `AttributeError` for what is not that."""
        fields = {name: value for name, value in entry.items() if name != "format"}
        fields["phases"] = {name: PhaseRecord(**each) for name, each in fields["phases"].items()}
        fields["questions"] = {key: Question(**each) for key, each in fields["questions"].items()}
        fields["points"] = [Point(**each) for each in fields["points"]]
        for name in ("rollback", "back_at"):
            fields[name] = None if fields[name] is None else Rollback(**fields[name])
        return cls(**fields)

    @property
    def name(self) -> str:
        """The name of this instance."""
        return self.workflow if self.key is None else f"{self.workflow}@{self.key}"

    @property
    def spec(self) -> str:
        """What `batchkit workflow run` and `rollback` are given for this instance."""
        return (self.source or "FILE") + ("" if self.key is None else f" --key {self.key}")

    def halfway(self) -> list[str]:
        """Return the phases that have begun and are not over."""
        return [name for name, phase in self.phases.items() if phase.order is not None and phase.status not in OVER]

    def next_order(self) -> int:
        """Count one more start and return its number."""
        self.order += 1
        self.back_at = None
        return self.order

    def open_questions(self) -> dict[str, Question]:
        """Return the questions that wait for an answer."""
        return {key: question for key, question in self.questions.items() if question.answer is None}

    def forget_answers(self, phase: str) -> None:
        """Forget what a phase has asked: it asks again."""
        self.questions = {key: each for key, each in self.questions.items() if each.phase != phase}

    def point(self, name: str) -> Point | None:
        """Return the snapshot of that name; `None` if there is none."""
        return next((point for point in self.points if point.name == name), None)
