"""Functions by name, as the command line gives them: `pkg.module:name` or `path.py:name`."""

from __future__ import annotations

import builtins
import importlib
import importlib.machinery
import os
import sys
import types
from typing import Any

from batchkit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def load(spec: str) -> Callable[..., Any]:
    """Return the function that `pkg.module:name` or `path.py:name` names. Raises `UsageError`."""
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"the function is '{spec}'; give pkg.module:name or path.py:name")
    module = module_of(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"'{place}' has no '{name}'{_known(module)}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"'{spec}' is a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]


def spec_of(function: Any) -> str | None:
    """Return the name by which `load` finds a function or a class again, in any process; `None` if there is none.

    There is none for lambdas, functions inside of functions, partials, objects, and what a script or notebook has.
    """
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    name = getattr(function, "__qualname__", "")
    if module is None or module.__name__ == "__main__" or not name:
        return None
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function:
        return None
    return f"{_FILES.get(module.__name__, module.__name__)}:{name}"


def load_errors(names: str) -> tuple[type[BaseException], ...]:
    """Return the types of exceptions named like `ConnectionError,pkg.module:Name`. Raises `UsageError`."""
    found = []
    for name in filter(None, (each.strip() for each in names.split(","))):
        kind: Any = getattr(builtins, name, None)
        if ":" in name:
            kind = load(name)
        elif "." in name:
            kind = load(":".join(name.rsplit(".", 1)))
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise UsageError(
                f"'{name}' is no type of exception that can be found; give retry_on (--retry-on) such as "
                "ConnectionError or pkg.module:Name"
            )
        found.append(kind)
    return tuple(found)


def names_of(errors: tuple[type[BaseException], ...]) -> str:
    """Return types of exceptions as `load_errors` takes them."""
    return ",".join(
        error.__qualname__ if error.__module__ == "builtins" else spec_of(error) or error.__qualname__
        for error in errors
    )


_FILES: dict[str, str] = {}
"""Modules that were run from a file by its path → that path."""

_STAMPS: dict[str, tuple[int, int]] = {}
"""Modules by name → time and size of their files when they were run: one that has changed since is run anew."""


def _known(module: types.ModuleType) -> str:
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    return f"; it has {', '.join(names[:8])}" if names else ""


def module_of(place: str) -> types.ModuleType:
    """Return the module that a name or a path ending in .py names. Raises `UsageError`."""
    if place.endswith(".py") and not os.path.isfile(place):
        raise UsageError(f"there is no file '{place}' to take the function from")
    try:
        if place.endswith(".py"):
            return _run_file(place)
        if "" not in sys.path and os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise UsageError(f"cannot import '{place}': {type(error).__name__}: {error}") from error


def _run_file(path: str) -> types.ModuleType:
    path = os.path.abspath(path)
    stamp = os.stat(path).st_mtime_ns, os.stat(path).st_size
    for module in list(sys.modules.values()):  # run twice, it would have two classes of each name
        same = getattr(module, "__file__", None) == path and module.__name__ != "__main__"
        if same and _STAMPS.get(module.__name__, stamp) == stamp:
            return module
    sys.path.append(os.path.dirname(path))  # at the end: a file named as a library module must not take its place
    name = os.path.splitext(os.path.basename(path))[0]
    if name in sys.modules or name in sys.stdlib_module_names:
        name += "_"
    loader = importlib.machinery.SourceFileLoader(name, path)
    module = sys.modules[name] = types.ModuleType(name)
    module.__file__ = path
    module.__spec__ = importlib.machinery.ModuleSpec(name, loader, origin=path)
    _FILES[name], _STAMPS[name] = path, stamp
    loader.exec_module(module)
    return module
