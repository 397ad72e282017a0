"""Where the results of a run go: what `output=` names, and the output of a job that exists."""

from __future__ import annotations

import os
import stat
import sys
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from batchkit.databases.address import is_address, refuse_unknown, target
from batchkit.errors import UsageError
from batchkit.rounds import merged_by, rounds_of
from batchkit.writers.custom import TargetOutput
from batchkit.writers.kinds import output_for, schema_names, schema_of_text, schema_text, suffix_for
from batchkit.writers.lines import LineKind
from batchkit.writers.output import FileOutput
from batchkit.writers.pickled import Pickled
from batchkit.writers.printed import PrintedOutput, is_printed
from batchkit.writers.stdout import StdoutOutput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from batchkit.job import JobDirectory, Manifest
    from batchkit.resume import OpenJob
    from batchkit.writers.base import Amendable, Output
    from batchkit.writers.custom import Target
    from batchkit.writers.database import DatabaseOutput

STDOUT = "-"


class Destination(NamedTuple):
    """What a run was given: output, a path, a database's address, "-": standard output, `None`: the job's directory.

    own: an output of the user's own instead. several: whether several workers may bring results. output_format, schema:
    see `output_for`.
    """

    output: str | None
    output_format: str | None = None
    schema: Mapping[str, Any] | str | None = None
    own: Target | None = None
    several: bool = False

    def path(self, job: JobDirectory) -> str:
        """Return where the results of a job stand: absolute, links resolved, "/" behind a directory; or "-"."""
        if self.output == STDOUT:
            return STDOUT
        if self._address is not None:
            return target(self._address).shown
        refuse_unknown(self.output)
        if self.output is None:
            return os.path.join(job.path, "results.jsonl")
        directory = self.output.endswith("/") or os.path.isdir(self.output)
        return os.path.realpath(self.output) + ("/" if directory else "")

    def definition(self, job: JobDirectory) -> dict[str, Any]:
        """Return what of it defines a job. Raises `UsageError` for a schema that is none."""
        return {
            "output": self._name(job),
            "output_format": self.output_format,
            "schema": schema_names(self.schema),
        }

    def options(self) -> dict[str, Any]:
        """Return what `output_of` needs to know besides what defines a job."""
        return {"schema": schema_text(self.schema)}

    def _name(self, job: JobDirectory) -> str | None:
        if self.own is not None:
            return type(self.own).__qualname__
        if self._address is not None:
            return target(self._address).identity()
        return None if self.output is None else self.path(job)

    @property
    def _address(self) -> str | None:
        """The database's address, if it is one."""
        return self.output if is_address(self.output) else None

    @property
    def kept(self) -> bool:
        """Whether results are to be found again outside of this process without a job's directory."""
        return self.output is not None or self.own is not None

    @property
    def in_parts(self) -> bool:
        """Whether the results gather in parts, which several processes may write at once."""
        return self.own is None and self.output != STDOUT

    def make(self, job: JobDirectory, uuid: str) -> Output:
        """Return the output for the job with this uuid. Raises `UsageError`."""
        if self.own is not None:
            return TargetOutput(self.own)
        if self._address is not None:
            return _table(self._address, job, uuid, self.output_format, self.schema, several=self.several)
        path = self.path(job)
        if path == STDOUT:
            several = self.several or is_printed(job.path, uuid)
            return PrintedOutput(job.path, uuid) if several else StdoutOutput()
        return output_for(path, uuid, job.path, output_format=self.output_format, schema=self.schema)

    def refuse_input(self, job: JobDirectory, sources: Sequence[str], patterns: Iterable[str]) -> None:
        """Raise `UsageError` where an input would be written over, or what is there is no file at all."""
        path = self.path(job)
        if path == STDOUT or self.own is not None or is_address(path):
            return
        written = path if not path.endswith("/") else f"{path}00000{suffix_for(path, self.output_format)}"
        for pattern in patterns:
            if matches(written, os.path.abspath(pattern)):
                raise UsageError(f"the output '{written}' would match the input '{pattern}'; give another -o")
        if not os.path.exists(path):
            return
        if not os.path.isfile(path) and not os.path.isdir(path):
            raise UsageError(f"the output '{self.output}' is no plain file; leave out -o to print")
        for source in sources:
            if os.path.samefile(source, path):
                raise UsageError(f"the output '{path}' is an input of the job; give another -o")
            if os.path.samefile(os.path.dirname(os.path.abspath(source)), path):
                raise UsageError(f"the output '{path}' holds an input of the job; give another -o")


class MemoryDestination(NamedTuple):
    """Where workers put what is to come back to this process: parts in a directory that goes with the run."""

    kept: bool = False
    in_parts: bool = True

    def definition(self, job: JobDirectory) -> dict[str, Any]:
        """Return nothing: no other run knows the job."""
        del job
        return {"output": None}

    def options(self) -> dict[str, Any]:
        """Return nothing, as above."""
        return {}

    def make(self, job: JobDirectory, uuid: str) -> FileOutput:
        """Return the output."""
        return FileOutput(os.path.join(job.path, "results"), LineKind(Pickled()), uuid, job.path)

    def refuse_input(self, job: JobDirectory, sources: Sequence[str], patterns: Iterable[str]) -> None:
        """Refuse nothing: nobody else writes there."""


class RoundDestination(NamedTuple):
    """Where the results of a round go: `output` makes it for the round's uuid."""

    output: Callable[[str], Output]
    kept: bool = True
    in_parts: bool = False

    def definition(self, job: JobDirectory) -> dict[str, Any]:
        """Return nothing: a round is known by its job."""
        del job
        return {}

    def options(self) -> dict[str, Any]:
        """Return nothing, as above."""
        return {}

    def make(self, job: JobDirectory, uuid: str) -> Output:
        """Return the output of a round."""
        del job
        return self.output(uuid)

    def refuse_input(self, job: JobDirectory, sources: Sequence[str], patterns: Iterable[str]) -> None:
        """Refuse nothing: nobody else writes there."""


def matches(path: str, pattern: str) -> bool:
    """Tell whether a glob pattern names a path, which need not exist; both are absolute."""
    return _match(path.split("/"), pattern.split("/"))


def _match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_match(parts[skip:], patterns[1:]) for skip in range(len(parts) + 1))
    hidden = bool(parts) and parts[0].startswith(".") and not patterns[0].startswith(".")
    return bool(parts) and not hidden and fnmatchcase(parts[0], patterns[0]) and _match(parts[1:], patterns[1:])


def _table(
    address: str, job: JobDirectory, uuid: str, output_format: str | None, schema: Any, *, several: bool = False
) -> DatabaseOutput:
    from batchkit.frames.schemas import parse  # noqa: PLC0415  # loads polars
    from batchkit.writers.database import DatabaseOutput  # noqa: PLC0415  # as above

    if output_format is not None:
        raise UsageError("output_format is for files; leave it out, the output is a table of a database")
    types = None if schema is None else parse(schema)
    return DatabaseOutput(target(address), uuid, job.name, schema=types, several=several)


def output_of(job: JobDirectory, manifest: Manifest) -> Amendable | None:
    """Return the output of a job that exists; `None` for standard output.

    Of a database the password is not known: it comes from the environment.
    """
    if manifest.output is None:
        return None
    form = manifest.definition.get("output_format")
    schema = schema_of_text((manifest.options or {}).get("schema"))
    if is_address(manifest.output):
        return _table(manifest.output, job, manifest.job, form, schema)
    return output_for(manifest.output, manifest.job, job.path, output_format=form, schema=schema)


def leave_output(job: JobDirectory, manifest: Manifest) -> None:
    """Remove what a job has not published of the output it had; nothing for standard output."""
    output = output_of(job, manifest)
    if output is not None:
        output.forget()


def stored(job: JobDirectory) -> Iterator[Any]:
    """Yield what the runs of a job have stored so far, in input order. Raises `UsageError` if it was printed."""
    manifest = job.load()
    if manifest is None:
        raise UsageError(f"there is no job '{job.name}' in '{job.state_dir}'")
    output = output_of(job, manifest)
    if not isinstance(output, FileOutput):
        where = {STDOUT: "standard output"}.get(manifest.definition["output"], manifest.definition["output"])
        raise UsageError(f"the results of the job '{job.name}' went to {where}; batchkit does not keep them")
    return stored_in(output, job, manifest)


def stored_in(output: FileOutput, job: JobDirectory, manifest: Manifest) -> Iterator[Any]:
    """Yield what stands in the output of a job, in input order."""
    if not manifest.ready:
        return iter(())
    points = job.commits(manifest)
    marks = [None if point is None else point.mark for point in points]
    brought = merged_by(rounds_of(job, manifest.job), manifest.plan)
    order = [shard.number for shard in manifest.plan]
    return output.stored(marks, job.publish_log(manifest.job), brought, order)


def refuse_lost_beginning(opened: OpenJob, done: int) -> None:
    """A paused job whose standard output is a new, empty file would leave the first results out of it."""
    printed = isinstance(opened.output, PrintedOutput) and opened.output.begun
    if not (printed or isinstance(opened.output, StdoutOutput)) or not done or all(s.ended for s in opened.shards):
        return
    facts = os.fstat(sys.stdout.fileno())  # there is one, or the output could not have been made
    if stat.S_ISREG(facts.st_mode) and facts.st_size == 0:
        raise UsageError(
            f"standard output is an empty file, but {done:,} items were printed by earlier runs; "
            "append with >>, write with -o FILE, or start over with --restart"
        )
