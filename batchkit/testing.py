"""Is a function safe to repeat? It is run on a sample, killed on purpose, run again, and compared.

batchkit stores each result once, but a run that is killed calls the function again for what was not committed. What
that does to the results, and to the world, only the function knows; this finds out.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import random
import signal
import sys
import time
from contextlib import closing, contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from batchkit import api
from batchkit.calling import is_async
from batchkit.errors import BatchkitError, ItemError, UsageError
from batchkit.processes import ProcessDied, Processes
from batchkit.sources import reader_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

BEFORE, DURING, AFTER = "before", "during", "after"

_TIMED = 0.002
"""Seconds from which on a call without lines of its own, such as of a program, is killed by a timer."""


class Moment(NamedTuple):
    """Where to kill: at which call of a run, from 0, and when; of "during" before which line of it, or after how long.

    line: how many lines of the function's own file were begun; seconds: of the call; `None`: not by this.
    """

    call: int
    when: str
    line: int | None = None
    seconds: float | None = None


class Trial(NamedTuple):
    """A run that was killed and run again. difference: from one that was not; `None`: there is none."""

    moment: Moment
    item: str
    difference: str | None


class Report(NamedTuple):
    """What a check found.

    items, calls: of the sample. varies: how two undisturbed runs differ already; `None`: they do not. observed:
    whether the world was looked at, and not only results.
    """

    items: int
    calls: int
    varies: str | None
    trials: list[Trial]
    observed: bool

    @property
    def safe(self) -> bool:
        """Whether nothing differed."""
        return self.varies is None and all(trial.difference is None for trial in self.trials)

    @property
    def summary(self) -> str:
        """What was found, in a line."""
        wrong = sum(trial.difference is not None for trial in self.trials)
        looked = (
            "" if self.observed else "; only results were compared, give observe (--observe) to compare side effects"
        )
        if self.varies is not None:
            return f"NOT safe to repeat: two runs that nobody disturbed differ: {self.varies}"
        if wrong:
            return f"NOT safe to repeat: {wrong} of {len(self.trials)} kills left a difference{looked}"
        return f"safe to repeat, as far as {len(self.trials)} kills on {self.items} items tell{looked}"


class _Seen(NamedTuple):
    """What a run gave: results and failures as JSON; of each call its lines and seconds."""

    outcome: list[str]
    calls: list[tuple[int, float]]


def check(  # noqa: PLR0913  # keyword-only options
    source: Any,
    function: Callable[..., Any],
    *,
    items: int = 20,
    kills: int = 12,
    batch_size: int = 5,
    batched: bool = False,
    before: Callable[[], Any] | None = None,
    observe: Callable[[], Any] | None = None,
    seed: int = 0,
    tell: Callable[[Trial], Any] | None = None,
) -> Report:
    """Run a function on the first items of a source, kill it here and there, run it again, and compare.

    The function is really called, with all that it does. A kill is one of a whole process, before a call, in the
    middle of one, or between a call and its commit; what is compared is one undisturbed run.
    items: at most so many. kills: how many; the places are chosen by `seed`, first and last call among them.
    batch_size, batched: as for `process`. before: called before each first run, to make the world as it was. observe:
    called after each run; returns what is to be the same, such as the contents of a directory. tell: hears of each
    trial. Raises `UsageError`, and what `process` raises if the function fails undisturbed.
    """
    if not callable(function):
        raise UsageError(f"the function is a {type(function).__name__}, which cannot be called")
    sample = _first(source, items, batched=batched)
    options = {"batch_size": batch_size, "batched": batched}
    world = _World(before, observe)

    def once(moment: Moment | None, state_dir: str) -> _Seen:
        return _in_a_process(function, sample, options, state_dir, moment)

    def undisturbed() -> tuple[_Seen, str]:
        world.reset()
        with TemporaryDirectory(prefix="batchkit-") as directory:
            return once(None, directory), world.look()

    try:
        expected, world_then = undisturbed()
    except ItemError as error:
        raise BatchkitError(f"{error.what}; that is without any kill: mend it, or leave the item out") from error
    again, world_again = undisturbed()
    varies = _difference(expected.outcome, again.outcome, world_then, world_again)
    report = Report(len(sample), len(expected.calls), varies, [], observe is not None)
    for moment in _moments(expected.calls, kills, seed) if varies is None else ():
        world.reset()
        with TemporaryDirectory(prefix="batchkit-") as directory:
            try:
                with suppress(ProcessDied):
                    once(moment, directory)
                outcome = once(None, directory).outcome
            except ItemError as error:
                found: str | None = f"the function failed: {error.what}"
            else:  # what looks at the world may fail, too, which is not the function's fault
                found = _difference(expected.outcome, outcome, world_then, world.look())
        trial = Trial(moment, _item_of(sample, moment.call, batch_size, batched=batched), found)
        report.trials.append(trial)
        if tell is not None:
            tell(trial)
    return report


def _first(source: Any, items: int, *, batched: bool) -> Any:
    """Return the first items of a source, as a list; of rows for a batched function as the frame that it expects.

    Raises `UsageError` if there are none.
    """
    reader = reader_of(source)
    found: list[Any] = []
    with closing(iter(reader.read(reader.whole(), items))) as batches:  # type: ignore[type-var]
        for batch in batches:
            frame = getattr(batch.items, "frame", None)
            if batched and frame is not None and frame.height:
                return frame.head(items)
            found += [item for index, item in enumerate(batch.items) if index not in batch.unreadable]
            if len(found) >= items:
                break
    if not found:
        raise UsageError("the source has no items; a check needs some to try")
    return found[:items]


class _World:
    """What the function changes, as its owner resets it and looks at it."""

    def __init__(self, before: Callable[[], Any] | None, observe: Callable[[], Any] | None) -> None:
        self._before, self._observe = before, observe

    def reset(self) -> None:
        """Make it as it was."""
        if self._before is not None:
            self._before()

    def look(self) -> str:
        """Return it as text; "" if nobody looks."""
        seen = "" if self._observe is None else self._observe()
        return seen if isinstance(seen, str) else _plain(seen)


def _plain(value: Any) -> str:
    return json.dumps(value, default=repr, sort_keys=True, ensure_ascii=False)


def _moments(calls: list[tuple[int, float]], kills: int, seed: int) -> list[Moment]:
    """Choose where to kill: at the first and the last call, and at others by chance, at each kind of moment in turn."""
    chance = random.Random(seed)  # noqa: S311  # guards nothing
    order = [0, len(calls) - 1, *(chance.randrange(len(calls)) for _ in range(kills))]
    found: list[Moment] = []
    for number in range(kills):
        call = order[number // 3 if number < 6 else number - 4]  # noqa: PLR2004  # two calls at three moments
        when = (BEFORE, DURING, AFTER)[number % 3]
        moment = _during(call, *calls[call], chance) if when == DURING else Moment(call, when)
        found.append(moment)
    return found


def _during(call: int, lines: int, seconds: float, chance: random.Random) -> Moment:
    """Return a moment within a call; one that is over at once has none, and is killed behind it."""
    if lines > 1:
        return Moment(call, DURING, line=chance.randint(2, lines))
    if seconds >= _TIMED:
        return Moment(call, DURING, seconds=seconds * chance.uniform(0.1, 0.9))
    return Moment(call, AFTER)


def _item_of(sample: Any, call: int, batch_size: int, *, batched: bool) -> str:
    """Return what a call was called with, cut for people."""
    item = sample[call * batch_size : (call + 1) * batch_size] if batched else sample[call]
    item = item.to_dicts() if hasattr(item, "to_dicts") else item
    text = item if isinstance(item, str) else _plain(item)
    return text if len(text) <= 40 else text[:39] + "…"  # noqa: PLR2004  # columns of a table


def _difference(expected: list[str], found: list[str], world_then: str, world_now: str) -> str | None:
    """Return the first difference, for people."""
    if len(expected) != len(found):
        return f"{len(found)} results instead of {len(expected)}"
    for number, (then, now) in enumerate(zip(expected, found, strict=True), start=1):
        if then != now:
            return f"result {number} is {now:.80} instead of {then:.80}"
    if world_then == world_now:
        return None
    then_lines, now_lines = world_then.splitlines() or [""], world_now.splitlines() or [""]
    for number in range(max(len(then_lines), len(now_lines))):
        then, now = (repr(side[number]) if number < len(side) else "nothing" for side in (then_lines, now_lines))
        if then != now:
            return f"observed in line {number + 1}: {now:.80} instead of {then:.80}"
    return "what was observed differs in its line ends"


# In the process that is killed


def _in_a_process(
    function: Callable[..., Any], sample: Any, options: dict[str, Any], state_dir: str, moment: Moment | None
) -> _Seen:
    """Run or resume the job over the sample. Raises `ProcessDied` if it was killed, and what `process` raises."""
    with Processes(1) as processes:
        try:
            seen: _Seen = processes.submit(_run, function, sample, options, state_dir, moment).result()
        except BaseException:
            processes.kill()  # a Ctrl-C is not to wait for the end of a trial
            raise
    return seen


def _run(
    function: Callable[..., Any], sample: Any, options: dict[str, Any], state_dir: str, moment: Moment | None
) -> _Seen:
    made = function() if isinstance(function, type) else function
    watch = _Watch(moment, _file_of(made))
    result = api.process(sample, _watched(made, watch), job="check", state_dir=state_dir, progress="none", **options)
    getattr(made, "close", lambda: None)()
    return _Seen([_plain(each) for each in result.results()], watch.calls)


def _file_of(function: Callable[..., Any]) -> str | None:
    """Return the file of a function's own lines; `None` where there are none, as of programs and built-ins."""
    plain = inspect.unwrap(function)
    code = getattr(plain, "__code__", None) or getattr(getattr(type(plain), "__call__", None), "__code__", None)  # noqa: B004  # its code
    path = getattr(code, "co_filename", None)
    return None if path is None or path.startswith(os.path.dirname(__file__)) else path


class _Watch:
    """Counts lines and seconds of each call, and kills the process at its moment."""

    def __init__(self, moment: Moment | None, path: str | None) -> None:
        self._moment, self._path = moment, path
        self._lines = 0
        self.calls: list[tuple[int, float]] = []

    @contextmanager
    def call(self) -> Iterator[None]:
        """Watch a call."""
        here = self._moment if self._moment is not None and self._moment.call == len(self.calls) else None
        if here is not None and here.when == BEFORE:
            _die()
        if here is not None and here.seconds is not None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, in the middle of whatever it does
            signal.setitimer(signal.ITIMER_REAL, here.seconds)
        self._lines, begun, last = 0, time.perf_counter(), sys.gettrace()
        limit = math.inf if here is None or here.line is None else here.line
        sys.settrace(lambda frame, event, _arg: self._trace(frame, event, limit))
        try:
            yield
        finally:
            sys.settrace(last)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.calls.append((self._lines, time.perf_counter() - begun))
        if here is not None:
            _die()

    def _trace(self, frame: FrameType, event: str, limit: float) -> Any:
        if frame.f_code.co_filename != self._path:
            return None
        if event == "line":
            self._lines += 1
            if self._lines >= limit:
                _die()
        return lambda inner, what, _arg: self._trace(inner, what, limit)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _watched(function: Callable[..., Any], watch: _Watch) -> Callable[..., Any]:
    """Return a function of the same kind, under one name in all runs."""
    if is_async(function):
        return _watched_async(function, watch)
    inner = function if inspect.isroutine(function) else getattr(type(function), "__call__", function)  # noqa: B004
    watched = _watched_generator if inspect.isgeneratorfunction(inner) else _watched_plain
    return watched(function, watch)


def _watched_plain(function: Callable[..., Any], watch: _Watch) -> Callable[..., Any]:
    def checked(item: Any) -> Any:
        with watch.call():
            return function(item)

    return checked


def _watched_generator(function: Callable[..., Any], watch: _Watch) -> Callable[..., Any]:
    def checked(item: Any) -> Any:
        with watch.call():
            yield from function(item)

    return checked


def _watched_async(function: Callable[..., Any], watch: _Watch) -> Callable[..., Any]:
    async def checked(item: Any) -> Any:
        with watch.call():
            return await function(item)

    return checked
