"""What a workflow is made of: phases and gates, as its author declares them."""

from __future__ import annotations

import hashlib
import inspect
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from batchkit.errors import UsageError
from batchkit.workflow.states import OVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from batchkit.workflow.context import Context
    from batchkit.workflow.record import PhaseRecord

    Check = Callable[[Context], Any]

STOP, ROLLBACK = "stop", "rollback"


class Phase:
    """A step of a workflow.

    name: its identity. after: the names of the phases before it; `None`: all that were declared before. items: the
    source of its items, or what returns it; `None`: it is called once. options: keywords for `process()`.
    on_failure: "stop", or "rollback". rollback_to: the name of the phase to before which that goes; `None`: this one.
    """

    kind = "phase"

    def __init__(  # noqa: PLR0913  # the words of a declaration
        self,
        name: str,
        function: Callable[..., Any] | None,
        *,
        after: list[str] | None,
        when: Check | None = None,
        items: Any = None,
        options: Mapping[str, Any] | None = None,
        snapshot: bool = False,
        on_failure: str = STOP,
        rollback_to: str | None = None,
    ) -> None:
        """Declare it; nothing runs."""
        self.name = name
        self.function = function
        self.after = after
        self.when = when
        self.items = items
        self.options = dict(options or {})
        self.snapshot = snapshot
        self.on_failure = on_failure
        self.rollback_to = rollback_to
        self.requirements: list[Check] = []
        self.checks: list[Check] = []
        self.undoing: Check | None = None
        if items is not None:
            self.kind = "items"

    def require(self, check: Check) -> Check:
        """Declare what must be true before the phase begins; until then it stays pending. Several may be declared."""
        self.requirements.append(check)
        return check

    def verify(self, check: Check) -> Check:
        """Declare what must be true when the phase is done, or it has failed. Must return true: None does not pass."""
        self.checks.append(check)
        return check

    def undo(self, function: Check) -> Check:
        """Declare what a rollback calls, also where the phase stopped half-way; perhaps more than once."""
        if self.undoing is not None:
            raise UsageError(f"the phase '{self.name}' has an undo already: '{name_of(self.undoing)}'")
        self.undoing = function
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as its tests do."""
        assert self.function is not None, "a gate cannot be called"
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        """Return kind and name."""
        return f"<{type(self).__name__} {self.name}>"

    def is_archived_before(self, state: PhaseRecord) -> bool:
        """Tell whether the workspace is archived when the phase begins next."""
        return self.snapshot and state.order is None and state.point is None

    def has_changed(self, state: PhaseRecord) -> bool:
        """Tell whether its code is another than when it ran, if it is over."""
        return state.status in OVER and state.code is not None and state.code != self.code()

    def code(self) -> str:
        """Return a digest of the source of its functions, to tell whether they were changed since it ran."""
        functions = [self.function, self.undoing, *self.requirements, *self.checks]
        texts = [_source_of(each) for each in functions if each is not None]
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


class Gate(Phase):
    """A question that a person answers before the workflow goes on.

    choices: the answers there are; "no", if it is one, ends the run as a failure does.
    """

    kind = "gate"

    def __init__(
        self, name: str, prompt: str, *, choices: tuple[str, ...], after: list[str] | None, when: Check | None
    ) -> None:
        """Declare it."""
        super().__init__(name, None, after=after, when=when)
        self.prompt = prompt
        self.choices = choices


class Declared(NamedTuple):
    """A workflow as it is declared.

    before: the phases directly before each, in an order in which all could run. params: names and defaults. workspace:
    `None`: there is none. file: where it is declared; `None`: nobody knows.
    """

    name: str
    phases: Mapping[str, Phase]
    before: Mapping[str, list[str]]
    params: Mapping[str, Any]
    workspace: str | None
    file: str | None


def name_of(function: Any) -> str:
    """Return a function's name, for people."""
    return getattr(function, "__name__", None) or type(function).__name__


def _source_of(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed in at a prompt, or no function but an object that can be called
        code = getattr(function, "__code__", None)
        return repr((code.co_code, code.co_names)) if code is not None else type(function).__qualname__


def in_order(phases: Mapping[str, Phase]) -> dict[str, list[str]]:
    """Return for each phase those directly before it, in an order in which all could run. Raises `UsageError`.

    A phase that does not say what it comes after comes after all that were declared before it.
    """
    before: dict[str, list[str]] = {}
    for name, phase in phases.items():
        before[name] = _ends_of(before) if phase.after is None else phase.after
        for other in before[name]:
            if other not in phases:
                raise UsageError(
                    f"the phase '{name}' comes after '{other}', which is no phase; there are: {_listed(phases)}"
                )
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise UsageError(f"the phases wait for each other in a circle: {circle}; change one's after=") from None
    declared = list(phases)
    depth: dict[str, int] = {}
    for name in order:
        depth[name] = 1 + max((depth[other] for other in before[name]), default=0)
    return {name: before[name] for name in sorted(declared, key=lambda name: (depth[name], declared.index(name)))}


def _ends_of(before: Mapping[str, list[str]]) -> list[str]:
    """Return the phases that no other one comes after."""
    followed = {name for names in before.values() for name in names}
    return [name for name in before if name not in followed]


def up_to(before: Mapping[str, list[str]], last: str) -> set[str]:
    """Return a phase and all that come before it."""
    found = {last}
    waiting = [last]
    while waiting:
        new = set(before[waiting.pop()]) - found
        found |= new
        waiting.extend(new)
    return found


def behind(before: Mapping[str, Iterable[str]], first: str) -> set[str]:
    """Return a phase and all that come after it."""
    found = {first}
    while more := {name for name, names in before.items() if name not in found and found & set(names)}:
        found |= more
    return found


def _listed(phases: Mapping[str, Phase]) -> str:
    return ", ".join(phases)
