"""Several workers on one job: started, watched, replaced when they die, stopped.

The parent does no work. It learns how far the job is from the journals, as `status` does, and asks for a stop by a
file.

    shards/NNNNN.deadly     {"seq"}: behind that commit of the shard, workers died; who works on it takes care
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from typing import Any

from batchkit import journal, plan
from batchkit.budget import LEASE_LOST
from batchkit.child import pickled_task
from batchkit.errors import BatchkitError, UsageError
from batchkit.events import NO_HOOKS
from batchkit.processes import ProcessDied, Processes, call_packed
from batchkit.progress import sayer
from batchkit.quota import Quota
from batchkit.workers import Task, work_on_job
from batchkit.writers.printed import PrintedOutput
from batchkit.writers.stdout import OutputClosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor, Future

    from batchkit.account import Account
    from batchkit.plan import Place
    from batchkit.resume import ShardState
    from batchkit.work import Work
    from batchkit.workers import Report

_LOOK_EVERY = 0.05
_TWICE = 2
_TOO_OFTEN = 5
"""Deaths at one place after which the run gives up: taking care does not help there."""


def work_in_parallel(work: Work, place: Place, states: Sequence[ShardState], run: int, account: Account) -> bool:
    """Work on the unfinished shards with `work.workers` workers; return whether all are at their end.

    Raises what a worker raises, when the others have stopped; everything that was committed is durable then.
    """
    if all(state.ended for state in states):
        return True
    job = place.job
    if job.part is None:  # else that is done since the first slice began
        _share(place, states)
    plan.for_workers(place, work.reader, states, work.workers, numbered=work.numbered)
    account.tally.take_plan(job.load_own_plan(place.uuid, place.slices))
    if work.budget.terms().leased:
        Quota(job.own("quota.json"), work.workers).begin(*work.budget.left)
    executor = work.executor or Processes(work.workers)
    pool = _Pool(work, place, run, account, executor)
    try:
        pool.work()
    finally:
        if executor is not work.executor:
            pool.end(executor)
    pool.take_points()
    job.clear_requests()
    return account.tally.ended


def _share(place: Place, states: Sequence[ShardState]) -> None:
    """Let the output be written by several, with the columns and types of what is stored."""
    marks = [None if state.base is None else state.base.mark for state in states]
    place.output.share(marks, frozen=place.frozen, rounds=place.rounds, order=[state.number for state in states])


class _Pool:
    """The parent's side of the workers of a run."""

    def __init__(self, work: Work, place: Place, run: int, account: Account, executor: Executor) -> None:
        self._work = work
        self._place = place
        self._run = run
        self._account = account
        self._executor = executor
        self._futures: set[Future[Report]] = set()
        self._deaths: dict[tuple[int, int], int] = {}
        self._stopped = False
        self._unheard = False  # whether nobody reads what is printed
        self._reported: str | None = None  # why the first of them stopped that did not because of us
        self._error: BaseException | None = None
        self._say = sayer(work.progress)
        sent = work._replace(budget=None, executor=None, options=None, progress="none", hooks=NO_HOOKS)  # type: ignore[arg-type]
        terms = work.budget.terms()
        job = place.job
        task = Task(
            job.state_dir,
            job.name,
            job.part,
            place.slices,
            place.uuid,
            sent,
            run,
            terms,
            place.frozen,
            place.rounds,
            job.claim(),
        )
        self._task = pickled_task(work_on_job, (task,), {})

    def work(self) -> None:
        """Wait until all workers are done. Raises the first error of one, when the others have stopped."""
        left = sum(point is None or not point.end for point in self._account.tally.points)
        try:
            for _ in range(min(self._work.workers, left)):  # more than there are pieces would find nothing to do
                self._start()
            while self._futures:
                done, self._futures = wait(self._futures, _LOOK_EVERY, FIRST_COMPLETED)
                for future in done:
                    self._take(future)
                self._look()
        except BaseException:
            self._stop()  # whoever runs them, they are not to go on alone
            raise
        self._print(lambda: True)
        if self._error is not None:
            raise self._error
        if not self._account.tally.ended and self._work.budget.reason is None:
            self._work.budget.reason = self._reported

    def _start(self) -> None:
        try:
            self._futures.add(self._executor.submit(call_packed, self._task))
        except RuntimeError as error:  # it was shut down, or is broken
            raise UsageError(f"the executor takes no work ({error}); give one that does") from error

    def _take(self, future: Future[Report]) -> None:
        """Take what a worker reports, or see to it that another takes its place."""
        try:
            report = future.result()
        except ProcessDied as death:
            try:
                self._replace(death)
            except BatchkitError as error:
                self._fail(error)
        except BrokenExecutor as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            self._fail(BatchkitError(f"the executor broke ({what}); run the same command again to go on"))
        except BaseException as error:  # noqa: BLE001  # it is raised when the others have stopped
            self._fail(error)
        else:
            for number, point in report.points.items():
                self._account.tally.put(number, point)
            self._reported = self._reported or report.reason

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._stop()

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            reason = self._work.budget.reason
            self._place.job.ask_to_stop(self._run, LEASE_LOST if reason == LEASE_LOST else "SIGTERM")

    def _look(self) -> None:
        """Look how far the job is, and whether it is to stop."""
        budget = self._work.budget
        if not budget.go_on():
            self._stop()
        try:
            self._follow()
            if self._work.limit.most is not None:
                self._account.check()
        except BatchkitError as error:
            self._fail(error)

    def _follow(self) -> None:
        """Read the newest commits off the journals."""
        job, tally = self._place.job, self._account.tally
        tally.take_plan(job.load_own_plan(self._place.uuid, self._place.slices))
        for shard in tally.plan:
            known = tally.point(shard.number)
            if known is None or not known.end:
                point = journal.newest(job.shard_path(shard.number))
                if point is not None and (known is None or point.seq > known.seq):
                    self._account.tell(shard.number, point)
        self._account.show()
        if not self._stopped:
            self._print(self._work.budget.go_on)

    def _print(self, go_on: Callable[[], bool]) -> None:
        """Print what is committed, if this job prints."""
        output, tally = self._place.output, self._account.tally
        if isinstance(output, PrintedOutput) and not self._unheard:
            try:
                output.print_committed([shard.number for shard in tally.plan], tally.points, go_on)
            except OutputClosed:
                self._unheard = True
                self._work.budget.stop("output")
                self._stop()

    def _replace(self, death: ProcessDied) -> None:
        """Start another worker; where deaths are repeated at one place, see to it that care is taken there."""
        if self._stopped:
            return
        job = self._place.job
        held = [shard.number for shard in self._account.tally.plan if job.worker_of(shard.number) == death.pid]
        unfinished = [number for number in held if not self._ended(number)]
        self._take_back(unfinished)
        # Some deaths are told as if at a start: another worker has taken the shard already. Only while nothing goes on
        # do they add up.
        where = (unfinished[0], self._seq(unfinished[0])) if unfinished else (-1, self._account.tally.handled)
        self._deaths[where] = self._deaths.get(where, 0) + 1
        if self._deaths[where] >= _TOO_OFTEN:
            what = "before it had begun anything" if not unfinished else "in the same batch"
            raise BatchkitError(f"{death.args[0]}, for the {_TOO_OFTEN}th time {what}; everything committed is kept")
        if unfinished and self._deaths[where] >= _TWICE:
            job.note_deadly(*where)
        self._say(f"{death.args[0]}; another one takes its place and goes on from its last commit")
        self._start()

    def _take_back(self, shards: Sequence[int]) -> None:
        """Give back what a dead worker was granted: nobody else may come to its shards while there is none left."""
        job = self._place.job
        if self._work.budget.terms().leased:
            for number in shards:
                with job.shard_taken(number) as taken:
                    if taken:  # else another worker has, and settles it
                        point = journal.newest(job.shard_path(number))
                        Quota(job.own("quota.json"), self._work.workers).settle_at(number, point)

    def _seq(self, number: int) -> int:
        point = journal.newest(self._place.job.shard_path(number))
        return 0 if point is None else point.seq

    def _ended(self, number: int) -> bool:
        point = journal.newest(self._place.job.shard_path(number))
        return point is not None and point.end

    def take_points(self) -> None:
        """Take the last commits as the journals prove them: a worker that ended a shard and died later told nobody."""
        job, tally = self._place.job, self._account.tally
        tally.take_plan(job.load_own_plan(self._place.uuid, self._place.slices))
        for shard in tally.plan:
            point = journal.last(job.shard_path(shard.number))
            if point is not None:
                self._account.tell(shard.number, point)

    def end(self, executor: Any) -> None:
        """Let no worker live on, whatever ended the wait for them."""
        if self._futures:
            executor.kill()
        executor.shutdown(cancel_futures=True)
