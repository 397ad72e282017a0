"""The states of a phase and the moves between them: one table, checked whenever a state is written.

Nothing says "running" for sure: it is what the file says while a run holds the workflow's lock. With a free lock the
same word means that the run was interrupted, and the next one goes on with the phase.
"""

from __future__ import annotations

from batchkit.errors import DamageError

PENDING = "pending"
RUNNING = "running"
PAUSED = "paused"
"""Ended by a budget or a request to stop, with work left."""
COMPLETED = "completed"
FAILED = "failed"
WAITING = "waiting"
"""For an answer."""
SKIPPED = "skipped"
REVERTING = "reverting"
REVERT_FAILED = "revert-failed"

MOVES: dict[str, frozenset[str]] = {
    PENDING: frozenset({RUNNING, WAITING, SKIPPED}),
    RUNNING: frozenset({RUNNING, PAUSED, COMPLETED, FAILED, WAITING, SKIPPED, PENDING, REVERTING}),
    PAUSED: frozenset({RUNNING, SKIPPED, PENDING, REVERTING}),
    WAITING: frozenset({RUNNING, COMPLETED, FAILED, SKIPPED, PENDING, REVERTING}),
    COMPLETED: frozenset({PENDING, REVERTING}),
    FAILED: frozenset({RUNNING, COMPLETED, WAITING, SKIPPED, PENDING, REVERTING}),
    SKIPPED: frozenset({PENDING, REVERTING}),
    REVERTING: frozenset({REVERTING, REVERT_FAILED, PENDING}),
    REVERT_FAILED: frozenset({REVERTING, PENDING}),
}
"""State → the states that may follow. A failed gate may be answered anew, which is why it can wait or complete."""

OVER = frozenset({COMPLETED, SKIPPED})
"""What lets the phases behind begin."""

BEGUN = frozenset(MOVES) - {PENDING}
"""What a rollback has something to do about."""


def check_move(phase: str, before: str, after: str) -> None:
    """Raise `DamageError` for a move that is not in the table."""
    if after not in MOVES:
        raise DamageError(f"the phase '{phase}' is '{after}', which is no state that this batchkit knows")
    if before != after and after not in MOVES[before]:
        raise DamageError(f"the phase '{phase}' cannot go from '{before}' to '{after}'")
