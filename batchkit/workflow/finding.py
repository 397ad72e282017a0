"""Workflows by name, as the command line gives them: `flow.py`, `flow.py:NAME`, `pkg.module:NAME`."""

from __future__ import annotations

from batchkit.errors import UsageError
from batchkit.loading import module_of
from batchkit.workflow.flow import Workflow


def find_workflow(spec: str) -> Workflow:
    """Return the workflow of a file or module; without a NAME the only one in it. Raises `UsageError`."""
    place, _, name = spec.partition(":")
    module = module_of(place)
    found = {each: value for each, value in vars(module).items() if isinstance(value, Workflow)}
    if name:
        value = getattr(module, name, None)
        if not isinstance(value, Workflow):
            raise UsageError(f"'{place}' has no workflow '{name}'; it has: {', '.join(found) or 'none'}")
    elif len({id(each) for each in found.values()}) != 1:
        raise UsageError(f"'{place}' has {len(found) or 'no'} workflows{_choice(place, list(found))}")
    else:
        value = next(iter(found.values()))
    value.file = spec
    return value


def _choice(place: str, names: list[str]) -> str:
    return (
        f"; give {place}:{names[0]} or another of {', '.join(names)}"
        if names
        else "; a line such as flow = batchkit.Workflow('name') makes one"
    )
