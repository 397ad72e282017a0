"""The house stands on its layers: who imports whom, and where each third-party package lives."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import batchkit

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(batchkit.__file__).parent

WORDS = {"errors", "model", "files", "fingerprint", "tagged", "plain"}
BASES = {"readers.base", "writers.base"}

ALLOWED: dict[str, set[str]] = {
    # words: each only earlier words
    "errors": set(),
    "model": {"errors"},
    "files": {"errors", "model"},
    "fingerprint": {"errors", "model", "files"},
    "tagged": set(),
    "plain": set(),
    # drivers: words
    "compression": {"errors"},
    "frames": set(),
    "frames.columns": WORDS,
    "frames.rows": {*WORDS, "frames.columns"},
    "frames.reading": {*WORDS, "frames.columns"},
    "frames.schemas": {*WORDS, "frames.columns", "frames.reading"},
    "frames.fitting": {*WORDS, "frames.columns", "frames.schemas"},
    "frames.arrow": set(),
    "frames.aside": set(),
    "frames.parquet": {*WORDS, "frames.aside"},
    "frames.queries": {"frames.parquet"},
    "frames.loose": {*WORDS, "frames.columns"},
    "frames.copying": WORDS,
    "frames.packing": {"frames.copying"},
    "databases": set(),
    "databases.address": WORDS,
    "databases.holding": set(),
    "databases.base": {*WORDS, "databases.address", "frames.loose"},
    "databases.sqlite": {*WORDS, "databases.address", "databases.base", "frames.copying", "frames.loose"},
    "databases.postgres": {
        *WORDS, "databases.address", "databases.base", "frames.copying", "frames.loose", "frames.packing",
    },
    "databases.duck": {*WORDS, "databases.address", "databases.base", "databases.holding", "frames.loose"},
    "databases.connecting": {
        "databases.address", "databases.base", "databases.duck", "databases.postgres", "databases.sqlite",
    },
    "databases.asking": {*WORDS, "databases.address", "databases.base", "databases.connecting"},
    "databases.keyset": {*WORDS, "databases.address", "databases.base"},
    "databases.checkpoints": {*WORDS, "databases.address", "databases.base"},
    "databases.borrowed": {*WORDS, "databases.base", "databases.checkpoints"},
    "databases.landing": {*WORDS, "databases.address", "databases.base", "frames.loose"},
    # edges: words, drivers, and the same side; readers and writers never each other
    "readers": set(),
    "readers.base": WORDS,
    "readers.blocks": {*WORDS, "readers.base"},
    "readers.splitting": {*WORDS, "readers.base", "readers.blocks"},
    "readers.archive_index": WORDS,
    "readers.inflating": {"readers.archive_index"},
    "readers.archives": {*WORDS, "compression", "readers.archive_index", "readers.blocks", "readers.inflating"},
    "readers.paths": {*WORDS, "compression"},
    "readers.listing": {
        *WORDS, "compression", "readers.archive_index", "readers.archives", "readers.blocks", "readers.paths",
    },
    "readers.cutting": {*WORDS, "readers.blocks"},
    "readers.lines": {
        *WORDS, "readers.base", "readers.cutting", "readers.listing", "readers.paths", "readers.splitting",
    },
    "readers.ndjson": {*WORDS, "readers.lines", "readers.splitting"},
    "readers.round": {*WORDS, "frames.arrow", "frames.rows", "readers.ndjson"},
    "readers.records": {*WORDS, "frames.rows"},
    "readers.quoting": {*WORDS, "readers.blocks", "readers.records", "readers.splitting"},
    "readers.delimited": {
        *WORDS, "readers.blocks", "readers.cutting", "readers.lines", "readers.quoting", "readers.splitting",
    },
    "readers.sequence": {*WORDS, "readers.base"},
    "readers.stream": {*WORDS, "readers.base"},
    "readers.custom": {*WORDS, "readers.base"},
    "readers.database": {
        *WORDS, "databases.address", "databases.asking", "databases.base", "databases.keyset", "readers.base",
    },
    "readers.hive": {*WORDS, "frames.rows"},
    "readers.parquet": {
        *WORDS, "frames.parquet", "frames.rows", "readers.base", "readers.cutting", "readers.hive", "readers.paths",
    },
    "readers.query": {*WORDS, "frames.parquet", "frames.queries", "frames.rows", "frames.schemas", "readers.base"},
    "readers.share": {*WORDS, "compression"},
    "writers": set(),
    "writers.base": {*WORDS, "writers.agreement"},
    "writers.agreement": WORDS,
    "writers.part": {*WORDS, "writers.base"},
    "writers.values": WORDS,
    "writers.formats": {*WORDS, "writers.base", "writers.values"},
    "writers.rows": {*WORDS, "writers.base", "writers.formats", "writers.values"},
    "writers.compressed": {*WORDS, "compression", "writers.base", "writers.formats"},
    "writers.reading": {*WORDS, "writers.base"},
    "writers.lines": {
        *WORDS, "writers.agreement", "writers.base", "writers.formats", "writers.part", "writers.reading",
        "writers.values",
    },
    "writers.walking": set(),
    "writers.spool": {
        *WORDS, "frames.arrow", "frames.columns", "frames.fitting", "frames.rows", "frames.schemas",
        "writers.agreement", "writers.base", "writers.part", "writers.values",
    },
    "writers.parquet": {
        *WORDS, "frames.columns", "frames.fitting", "frames.parquet", "frames.rows", "frames.schemas",
        "writers.agreement", "writers.base", "writers.spool", "writers.walking",
    },
    "writers.parts": {*WORDS, "writers.agreement"},
    "writers.inserting": {*WORDS, "writers.base"},
    "writers.merging": {*WORDS, "writers.base", "writers.inserting"},
    "writers.output": {*WORDS, "writers.base", "writers.merging", "writers.parts", "writers.round"},
    "writers.tabled": {
        *WORDS, "frames.columns", "frames.loose", "frames.rows", "writers.base", "writers.values",
    },
    "writers.loader": {
        *WORDS, "databases.address", "databases.base", "databases.checkpoints", "databases.connecting",
        "databases.landing", "frames.loose", "writers.base", "writers.tabled",
    },
    "writers.database": {
        *WORDS, "databases.address", "databases.base", "databases.checkpoints", "databases.connecting",
        "databases.landing", "writers.base", "writers.loader", "writers.memory",
    },
    "writers.directory": {*WORDS, "writers.base", "writers.merging", "writers.output"},
    "writers.kinds": {
        *WORDS, "frames.arrow", "frames.rows", "frames.schemas", "writers.base", "writers.compressed",
        "writers.directory", "writers.formats", "writers.lines", "writers.output", "writers.parquet", "writers.rows",
    },
    "writers.memory": {*WORDS, "writers.base", "writers.values"},
    "writers.round": {*WORDS, "writers.base", "writers.memory"},
    "writers.custom": {*WORDS, "writers.base", "writers.memory", "writers.values"},
    "writers.pickled": {*WORDS, "wire", "writers.base", "writers.formats"},
    "writers.printed": {
        *WORDS, "writers.base", "writers.formats", "writers.lines", "writers.parts", "writers.stdout",
    },
    "writers.stdout": {*WORDS, "writers.base", "writers.formats", "writers.memory", "writers.values"},
    "journal": WORDS,
    # rules: words and earlier rules
    "budget": WORDS,
    "limit": WORDS,
    "awaiting": set(),
    "current": WORDS,
    "ledger": WORDS,
    "calling": {*WORDS, "awaiting", "budget", "current", "frames.rows", "ledger"},
    "transactions": {*WORDS, "calling", "databases.borrowed", "databases.checkpoints", "ledger"},
    "wire": WORDS,
    "worker": {*WORDS, "budget", "calling", "current", "lifeline", "wire"},
    "child": {*WORDS, "calling", "wire"},
    "isolation": {*WORDS, "calling", "child", "current", "wire"},
    "processes": {*WORDS, "child"},
    "lifeline": set(),
    "programs": {*WORDS, "lifeline"},
    "commands": {*WORDS, "budget", "calling", "programs"},
    "failures": {*WORDS, "budget", "calling", "isolation"},
    "pace": {*WORDS, "budget"},
    "slots": {*WORDS, "budget", "calling", "failures", "isolation", "pace"},
    "loading": WORDS,
    # state: words, journal, the two seams
    "locks": WORDS,
    "job": {*WORDS, *BASES, "journal", "locks"},
    "failure_file": {*WORDS, "writers.part"},
    "resume": {*WORDS, *BASES, "failure_file", "journal", "job"},
    "rounds": {*WORDS, *BASES, "failure_file", "journal", "job", "writers.part"},
    "quota": {*WORDS, "locks"},
    "plan": {*WORDS, *BASES, "job", "resume"},
    # engine: words, rules, journal, the two seams; none of the other edges
    "syncing": set(),
    "tally": {*WORDS, *BASES},
    "handling": {*WORDS, *BASES, "failure_file", "failures", "frames.arrow"},
    "flight": {*WORDS, "budget", "calling", "failures", "isolation", "pace", "slots"},
    "processor": {
        *WORDS, *BASES, "budget", "calling", "failure_file", "flight", "handling", "isolation", "journal", "syncing",
    },
    # faces: everything below, in this order
    "progress": WORDS,
    "display": set(),
    "result": {*WORDS, "display", "frames.columns", "progress"},
    "events": {*WORDS, "result"},
    "work": {*WORDS, *BASES, "budget", "calling", "destination", "events", "failures", "job", "limit", "progress"},
    "account": {*WORDS, *BASES, "events", "progress", "result", "tally", "work"},
    "sharing": {*WORDS, *BASES, "plan"},
    "shards": {
        *WORDS, *BASES, "account", "calling", "current", "failure_file", "failures", "flight", "handling", "isolation",
        "job", "journal", "ledger", "pace", "plan", "processor", "progress", "resume", "sharing", "work",
        "writers.stdout",
    },
    "workers": {
        *WORDS, *BASES, "budget", "calling", "flight", "isolation", "job", "journal", "plan", "progress", "quota",
        "resume", "shards", "sharing", "steering", "work",
    },
    "pool": {
        *WORDS, "account", "budget", "child", "events", "journal", "plan", "processes", "progress", "quota", "resume",
        "work", "workers", "writers.printed", "writers.stdout",
    },
    "run": {
        *WORDS, *BASES, "", "account", "journal", "budget", "failure_file", "job", "plan", "pool", "resume", "rounds",
        "shards", "steering", "tally", "progress", "result", "destination", "work", "writers.memory", "writers.printed",
    },
    "destination": {
        *WORDS, *BASES, "databases.address", "frames.schemas", "job", "resume", "rounds", "writers.custom",
        "writers.database", "writers.kinds", "writers.lines", "writers.output", "writers.pickled", "writers.printed",
        "writers.stdout",
    },
    "retrying": {
        *WORDS, *BASES, "budget", "destination", "failure_file", "failures", "job", "limit", "progress",
        "readers.round", "result", "resume", "rounds", "run", "steering", "work", "writers.output",
    },
    "options": {
        *WORDS, *BASES, "budget", "calling", "commands", "failures", "job", "limit", "loading", "pace", "retrying",
        "work",
    },
    "sources": {
        *WORDS, *BASES, "databases.address", "frames.queries", "frames.rows", "readers.custom", "readers.database",
        "readers.delimited", "readers.lines", "readers.ndjson", "readers.parquet", "readers.paths", "readers.query",
        "readers.sequence", "readers.stream",
    },
    "status": {*WORDS, *BASES, "destination", "job", "readers.share", "rounds", "writers.printed"},
    "history": {*WORDS, "journal"},
    "forecast": set(),
    "steering": {*WORDS, "budget", "job", "locks"},
    "overview": {*WORDS, "forecast", "job", "readers.share", "status", "steering"},
    "report": set(),
    "report.sampling": {*WORDS, "history", "job"},
    "report.figures": {"overview", "report.sampling"},
    "report.page": {*WORDS, "", "job", "overview", "progress", "report.figures", "report.sampling", "run"},
    "locating": {*WORDS, "failure_file", "history", "job", "rounds", "sources"},
    "existing": {
        *WORDS, *BASES, "budget", "calling", "destination", "display", "job", "limit", "loading", "locating", "options",
        "overview", "progress", "report.page", "result", "resume", "retrying", "rounds", "run", "status", "steering",
    },
    "api": {
        *WORDS, *BASES, "writers.custom", "budget", "calling", "destination", "events", "job", "limit", "options",
        "resume", "progress", "result", "run", "sources", "work",
    },
    "testing": {*WORDS, "api", "calling", "processes", "sources"},
    "prospect": {*WORDS, *BASES, "api", "existing", "forecast", "history", "journal", "options", "result"},
    "workflow": set(),
    "workflow.states": WORDS,
    "workflow.record": {*WORDS, "workflow.states"},
    "workflow.store": {*WORDS, "job", "locks", "workflow.record", "workflow.states"},
    "workflow.context": {
        *WORDS, "existing", "budget", "commands", "programs", "workflow.record", "workflow.states", "workflow.store",
    },
    "workflow.phases": {*WORDS, "workflow.context", "workflow.record", "workflow.states"},
    "workflow.snapshots": {*WORDS, "workflow.context", "workflow.record"},
    "workflow.planning": {"workflow.phases", "workflow.record", "workflow.states"},
    "workflow.outcome": {"progress", "result", "workflow.record", "workflow.states"},
    "workflow.rollback": {
        *WORDS, "existing", "budget", "job", "workflow.context", "workflow.phases", "workflow.record",
        "workflow.snapshots", "workflow.states", "workflow.store",
    },
    "workflow.engine": {
        *WORDS, "api", "existing", "budget", "progress", "result", "workflow.context", "workflow.phases",
        "workflow.record", "workflow.snapshots", "workflow.states", "workflow.store",
    },
    "workflow.opening": {
        *WORDS, "job", "workflow.context", "workflow.phases", "workflow.record", "workflow.rollback",
        "workflow.snapshots", "workflow.states", "workflow.store",
    },
    "workflow.flow": {
        *WORDS, "api", "budget", "job", "options", "programs", "progress", "result", "workflow.context",
        "workflow.engine", "workflow.opening", "workflow.outcome", "workflow.phases", "workflow.planning",
        "workflow.record", "workflow.rollback", "workflow.states", "workflow.store",
    },
    "workflow.steering": {
        *WORDS, "existing", "job", "workflow.engine", "workflow.phases", "workflow.record", "workflow.rollback",
        "workflow.snapshots", "workflow.states", "workflow.store",
    },
    "workflow.finding": {*WORDS, "loading", "workflow.flow"},
    "notify": {*WORDS, "events"},
    "metrics": {*WORDS, "events"},
    "cli.listening": {"cli.options", "events", "metrics", "notify", "progress"},
    "cli.options": {"commands", "errors", "existing", "job", "loading", "progress", "result"},
    "cli": {*WORDS, "", "cli.options"},
    "cli.process": {*WORDS, *BASES, "api", "loading", "sources", "cli.listening", "cli.options"},
    "cli.failures": {*WORDS, "existing", "loading", "cli.options"},
    "cli.jobs": {*WORDS, "existing", "budget", "job", "cli.options"},
    "cli.completion": set(),
    "cli.locate": {*WORDS, "cli.options", "existing", "locating"},
    "cli.check": {*WORDS, "cli.options", "sources", "testing"},
    "cli.plan": {*WORDS, "cli.options", "cli.process", "cli.status", "forecast", "progress", "prospect"},
    "cli.report": {"cli.options", "existing"},
    "cli.status": {*WORDS, "cli.options", "existing", "forecast", "job", "overview", "progress"},
    "cli.steer": {*WORDS, "cli.options", "existing"},
    "cli.flow_table": {"progress"},
    "cli.flows": {
        *WORDS, "job", "cli.flow_table", "cli.options", "result", "workflow.finding", "workflow.flow",
        "workflow.steering", "workflow.store",
    },
    "": {
        "api", "calling", "commands", "errors", "events", "existing", "model", "result", "sources", "transactions",
        "workflow.flow",
    },
    "__main__": {"cli"},
}  # fmt: skip
"""Module → what it may import of batchkit; `""` is the package itself."""

HOMES: dict[str, str] = {
    "filelock": "locks",
    "click": "cli",
    "tqdm": "progress",
    "backports": "compression",
    "compression": "compression",
    "polars": "frames",
    "numpy": "frames",
    "cloudpickle": "wire",
    "tenacity": "failures",
    "pyrate_limiter": "pace",
    "psycopg": "databases",
    "duckdb": "databases",
    "prometheus_client": "metrics",
}
"""Third-party package → its one home; `compression` is Python's own from 3.14 on."""


def modules() -> dict[str, Path]:
    """Return the modules of the package by name, without its own."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of all modules that a file imports, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = str(node.module)
            for alias in node.names:
                inner = f"{module}.{alias.name}".removeprefix("batchkit.")
                yield f"batchkit.{inner}" if module.startswith("batchkit") and inner in MODULES else module


def inner(name: str) -> str | None:
    """Return a full name without the package; `None` for other packages."""
    return name.removeprefix("batchkit").removeprefix(".") if name.split(".", maxsplit=1)[0] == "batchkit" else None


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    """Imports point down the table of layers only; a new module takes its place in the list above."""
    assert module in ALLOWED, f"{module} has no place in the layers"
    found = {name for full in imports(MODULES[module]) if (name := inner(full)) is not None}
    assert found <= ALLOWED[module], f"{module} must not import {sorted(found - ALLOWED[module])}"


def test_the_list_of_layers_names_only_what_exists() -> None:
    """Nobody is left in the list who is gone from the house."""
    assert ALLOWED.keys() <= MODULES.keys()


def test_no_module_imports_itself_in_a_circle() -> None:
    """The allowed imports have no circle, so neither have the real ones."""
    left = {name: set(below) for name, below in ALLOWED.items() if name}
    for below in left.values():
        below.discard("")  # the package itself holds names only
    while left:
        free = [name for name, below in left.items() if not below & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


@pytest.mark.parametrize("module", MODULES)
def test_a_third_party_package_is_imported_in_its_home_only(module: str) -> None:
    """Filelock in locks, click in cli, tqdm in progress, zstd in compression; nothing else at all."""
    for full in imports(MODULES[module]):
        package = full.split(".")[0]
        if package == "batchkit" or package in sys.stdlib_module_names:
            continue
        assert HOMES.get(package) == module.split(".", maxsplit=1)[0], f"{module} must not import {package}"


@pytest.mark.parametrize(
    "code",
    [
        "import batchkit",
        "import batchkit; batchkit.ItemError",
        "import runpy; sys.argv = ['batchkit', '--help']; runpy.run_module('batchkit', run_name='__main__')",
        "import runpy; sys.argv = ['batchkit', 'process', '--help']; runpy.run_module('batchkit', run_name='__main__')",
        "import runpy; sys.argv = ['batchkit', '--version']; runpy.run_module('batchkit', run_name='__main__')",
    ],
)
def test_heavy_packages_are_loaded_only_where_they_are_used(code: str) -> None:
    """`import batchkit` and every --help load neither polars nor tqdm nor filelock."""
    tell = "atexit.register(lambda: print(json.dumps(list(sys.modules)), file=sys.stderr))"
    script = f"import sys, json, atexit\n{tell}\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "batchkit" in loaded
    assert not loaded & {"polars", "tqdm", "filelock", "numpy", "pandas"}


def test_importing_the_package_loads_nothing_of_it() -> None:
    """`__init__` re-exports names without importing their homes."""
    script = "import sys, batchkit; print([name for name in sys.modules if name.startswith('batchkit.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_linked_names_are_those_of_the_type_checker() -> None:
    """The names imported for type checkers are exactly the public ones."""
    tree = ast.parse(MODULES[""].read_text())
    named = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert named == set(batchkit.__all__)
