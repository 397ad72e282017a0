"""What a run of a workflow came to."""

from __future__ import annotations

from typing import NamedTuple

from batchkit.progress import duration
from batchkit.result import EXIT_COMPLETED, EXIT_FAILURES, EXIT_PAUSED
from batchkit.workflow.states import COMPLETED, OVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.workflow.record import Question

EXIT_WAITING = 6
"""A question is open."""


class FlowResult(NamedTuple):
    """What one run of a workflow came to.

    status: "completed", "waiting" for answers, or "paused" with phases left; then `reason` says why. phases: name →
    state. questions: those that are open, by key. failed: items that failed and were kept, in all phases. seconds: of
    this run.
    """

    workflow: str
    status: str
    reason: str | None
    phases: dict[str, str]
    questions: dict[str, Question]
    failed: int
    seconds: float

    @property
    def completed(self) -> bool:
        """Whether nothing is left to do."""
        return self.status == COMPLETED

    @property
    def exit_code(self) -> int:
        """What a command that ends with this exits with."""
        if self.status == "waiting":
            return EXIT_WAITING
        if not self.completed:
            return EXIT_PAUSED
        return EXIT_FAILURES if self.failed else EXIT_COMPLETED

    def summary(self) -> str:
        """Say in one line how it stands and what comes next."""
        over = sum(status in OVER for status in self.phases.values())
        done = f"{over} of {len(self.phases)} phases done"
        if self.completed:
            failed = f", {self.failed:,} items failed and were kept" if self.failed else ""
            return f"{self.workflow}: completed, {len(self.phases)} phases{failed} ({duration(self.seconds)})"
        if self.status == "waiting":
            asked = "; ".join(f"{key}: {each.prompt}" for key, each in self.questions.items())
            key = next(iter(self.questions))
            how = f"batchkit workflow answer {self.workflow} {key} ANSWER"
            return f"{self.workflow}: waiting for an answer, {done}; {asked}; give it with: {how}, then run it again"
        return f"{self.workflow}: paused, {self.reason}: {done}; run it again to go on"

    def __repr__(self) -> str:
        """Return the summary."""
        return f"<FlowResult {self.summary()}>"
