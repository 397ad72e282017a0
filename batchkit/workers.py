"""What a worker does: it takes shards that nobody works on, one after the other, until none is left.

Everything goes through the job's directory: a shard is taken by its lock, what is done is told by its journal, a stop
is asked for by a file. So workers may be processes of any kind, and none is missed: its lock dies with it, and another
one goes on from the last commit.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from functools import partial
from typing import NamedTuple

from batchkit import journal, sharing
from batchkit.budget import LEASE_LOST, Budget
from batchkit.job import JobDirectory
from batchkit.model import Span
from batchkit.plan import Place
from batchkit.progress import sayer
from batchkit.quota import Quota
from batchkit.resume import recover
from batchkit.shards import Shards
from batchkit.sharing import Sharing
from batchkit.steering import Listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.budget import Terms
    from batchkit.calling import Caller
    from batchkit.flight import Flight
    from batchkit.isolation import IsolatedCaller
    from batchkit.job import Slice
    from batchkit.model import Checkpoint, Shard
    from batchkit.resume import ShardState
    from batchkit.work import Work
    from batchkit.writers.base import Round

_LOOK_EVERY = 0.02
"""Seconds between looks for a shard to take."""

_ASK_AFTER = 0.1
"""Seconds without work after which a worker asks for what others have left: some of them may just be ending."""


_ASK_SELDOM = 5.0
"""Seconds after which it is asked again, at most, whoever had nothing to give."""


class Task(NamedTuple):
    """What a worker is to do; sent to it by cloudpickle.

    work: without what only the run itself needs. run: its number. terms: the limits it leaves to its workers. claim:
    see `JobDirectory.claim`.
    """

    state_dir: str
    name: str
    part: Slice | None
    slices: int
    uuid: str
    work: Work
    run: int
    terms: Terms
    frozen: int
    rounds: Sequence[Round]
    claim: bytes


class Report(NamedTuple):
    """What a worker did: the newest commits of the shards it worked on, and why it stopped (`None`: all is done)."""

    points: dict[int, Checkpoint]
    reason: str | None


def work_on_job(task: Task) -> Report:
    """Work on the shards of a job until none is left or the run is to stop; everything is durable on return."""
    return _Worker(task).work()


class _Worker:
    """One worker at work."""

    def __init__(self, task: Task) -> None:
        self._budget = Budget.of_worker(task.terms)
        work = self._work = task.work._replace(budget=self._budget)
        self._run = task.run
        self._claim = task.claim
        job = JobDirectory(task.state_dir, task.name, task.part)
        self._listener = Listener(job, task.claim, self._budget)
        output = work.make_output(job, task.uuid)
        self._place = Place(job, task.uuid, task.slices, output, task.frozen, task.rounds)
        self._shards = Shards(work, task.name, task.run, None)
        self._quota = Quota(job.own("quota.json"), work.workers) if task.terms.leased else None
        self._points: dict[int, Checkpoint] = {}
        self._ended: set[int] = set()
        self._asked: int | None = None
        self._refused: dict[int, tuple[int, float]] = {}  # shard → how often, and when it may be asked again
        self._made = ExitStack()
        self._caller: Caller | IsolatedCaller | Flight | None = None
        if hasattr(work.reader, "keep_in"):
            work.reader.keep_in(job.path)

    def work(self) -> Report:
        """Take shards until none is left or the run is to stop."""
        place = self._place
        with self._made, self._budget.watched(self._look_for_stop):
            busy = time.monotonic()
            while self._budget.go_on():
                plan = place.job.load_own_plan(place.uuid, place.slices)
                if self._take(plan):
                    busy = time.monotonic()
                    self._asked = None  # which may have brought it
                elif all(shard.number in self._ended for shard in plan):
                    return Report(self._points, None)
                else:
                    if time.monotonic() - busy >= _ASK_AFTER:
                        self._ask(plan)
                    time.sleep(_LOOK_EVERY)
        return Report(self._points, self._budget.reason)

    def _look_for_stop(self) -> None:
        self._listener.listen()
        reason = self._place.job.asked_to_stop(self._run)
        if reason == LEASE_LOST or self._place.job.claim() != self._claim:  # or a later run has begun, and ours is dead
            self._budget.lose()
        elif reason is not None:
            self._budget.stop(reason)

    def _take(self, plan: Sequence[Shard]) -> bool:
        """Work on the first shard that nobody works on; tell if there was one."""
        for shard in plan:
            if shard.number not in self._ended:
                with self._place.job.shard_taken(shard.number) as taken:
                    if taken and self._place.job.claim() == self._claim and self._work_on(shard.number):
                        return True
        return False

    def _work_on(self, number: int) -> bool:
        """Work on a shard whose lock is held; tell if there was anything to do."""
        place = self._place
        plan = place.job.load_plan(place.uuid, place.slices)  # only who holds its lock changes a shard
        shard = next(shard for shard in plan if shard.number == number)
        order = [each.number for each in plan]
        with closing(place.output.writer(number, frozen=place.frozen, rounds=place.rounds, order=order)) as writer:
            published = order.index(number) < place.frozen
            state = recover(place.job, place.uuid, shard, None if published else writer, sayer(self._work.progress))
        if not state.ended:
            self._settle(number, state.base)
            self._budget.lease = partial(self._quota.lease, number) if self._quota is not None else None
            self._points[number] = last = self._done(state, order)
            self._settle(number, last)
            if self._quota is not None:
                self._budget.drop()
        if state.ended or last.end:
            self._ended.add(number)
        return not state.ended

    def _done(self, state: ShardState, order: Sequence[int]) -> Checkpoint:
        sharing = Sharing(self._place, self._work.reader, state.shard, numbered=self._work.numbered)
        seq = 0 if state.base is None else state.base.seq
        pace = self._place.job.own("rate")
        if self._place.job.deadly(state.number) == seq:
            # Its batch has killed workers: from here on, only what it is called in dies.
            with closing(self._shards.caller(self._place.uuid, pace, isolated=True)) as careful:
                return self._shards.work_on(self._place, state, order, careful, sharing=sharing)
        if self._caller is None:
            self._caller = self._made.enter_context(closing(self._shards.caller(self._place.uuid, pace)))
        return self._shards.work_on(self._place, state, order, self._caller, sharing=sharing)

    def _settle(self, number: int, point: Checkpoint | None) -> None:
        if self._quota is not None:
            self._quota.settle_at(number, point)

    def _ask(self, plan: Sequence[Shard]) -> None:
        """Ask the owner of the largest rest for some of it, unless an answer is still due.

        Who had nothing to give is asked again later and later: each time costs it the batch in hand.
        """
        job, now = self._place.job, time.monotonic()
        if self._asked is not None:
            if self._asked not in self._ended and sharing.asked(job.shard_path(self._asked)):
                return
            times = self._refused.get(self._asked, (0, 0.0))[0] + 1  # or there would be a shard to take
            self._refused[self._asked] = times, now + min(_ASK_AFTER * 2**times, _ASK_SELDOM)
            self._asked = None
        rests = []
        for shard in plan:
            if shard.number not in self._ended and self._refused.get(shard.number, (0, 0.0))[1] <= now:
                point = journal.newest(job.shard_path(shard.number))
                rest = Span(shard.span.start if point is None else point.stop, shard.span.stop)
                rests.append((self._work.reader.extent(rest) or 0, shard.number))
        if rests:
            self._asked = max(rests)[1]
            sharing.ask(job.shard_path(self._asked))
