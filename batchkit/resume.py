"""Opening a job: begin it, go on with it, or refuse. The steps are those of the durability protocol, in its order."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, NamedTuple

from batchkit import files, journal
from batchkit.errors import DamageError, DefinitionChanged, InputChanged, JobLocked, UsageError
from batchkit.failure_file import FailureFile, path_beside
from batchkit.job import JobDirectory, Manifest, free_numbers, new_manifest
from batchkit.model import Shard, Span, Verdict
from batchkit.readers.base import count, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.model import Checkpoint, Cursor
    from batchkit.readers.base import Reader
    from batchkit.writers.base import Output, Writer

    Say = Callable[[str], None]


class Wishes(NamedTuple):
    """What the caller of this run asks for; numbered: that the items before each shard of a new job are counted."""

    restart: bool = False
    overwrite: bool = False
    on_input_change: str = "stop"
    numbered: bool = False


class Outputs(NamedTuple):
    """Makes the output for a job uuid; `leave` removes the parts of one that a job had before."""

    make: Callable[[str], Output]
    leave: Callable[[Manifest], None]


class ShardState(NamedTuple):
    """A shard as recovery found it.

    shard: what the plan says of it. past: its proved journal; chosen: the index in it of the last commit whose results
    are there, -1 for none. base: the commit from which to go on, which is that one, or the one that a database knows;
    `None`: from the beginning.
    """

    shard: Shard
    past: journal.Past
    chosen: int
    base: Checkpoint | None

    @property
    def number(self) -> int:
        """The number that names its journal and part."""
        return self.shard.number

    @property
    def cursor(self) -> Cursor:
        """The coordinate of the first item not yet committed."""
        base = self.base
        return self.shard.span.start if base is None else base.stop

    @property
    def behind(self) -> int | None:
        """How many items of the input come before its cursor; `None`: nobody has counted."""
        handled = 0 if self.base is None else self.base.handled
        return None if self.shard.first is None else self.shard.first + handled

    @property
    def ended(self) -> bool:
        """Whether nothing is left of its span."""
        base = self.base
        return base is not None and base.end


class OpenJob(NamedTuple):
    """A job that is ready to be worked on.

    shards: those that this run may work on, in input order. frozen: how many of all are published, the first ones.
    """

    manifest: Manifest
    output: Output
    shards: list[ShardState]
    frozen: int

    @property
    def order(self) -> list[int]:
        """The numbers of the shards, in input order."""
        return [shard.number for shard in self.manifest.plan]


def open_job(  # keyword-only
    job: JobDirectory,
    *,
    reader: Reader,
    definition: dict[str, Any],
    outputs: Outputs,
    wishes: Wishes,
    options: dict[str, Any] | None,
    say: Say,
) -> OpenJob:
    """Begin the job or find where it stands; call it under the job's lock.

    options: what the manifest is to remember of this run, for later ones that are begun by the job's name only.
    Durable on return. Raises `ChangedError` and leaves everything as it is where going on would mix two jobs.
    """
    job.clean()
    manifest = job.load()
    if manifest is not None and not wishes.restart:
        _refuse_other_definition(job.name, manifest.definition, definition)
        _refuse_other_slices(job, manifest)
    if manifest is None or wishes.restart or not manifest.ready:
        return _begin(job, manifest, reader, definition, options, outputs, wishes)
    if wishes.overwrite and not manifest.replace:
        manifest = manifest._replace(replace=True)
        job.save(manifest)
    opened = _checked(job, found(job, manifest, outputs, say), reader, wishes, say)
    if opened is None:
        return _begin(job, manifest, reader, definition, options, outputs, wishes)
    if opened.manifest.options != options:
        opened = opened._replace(manifest=opened.manifest._replace(options=options))
        job.save(opened.manifest)
    joining = (job.publish_log(manifest.job).last() or {}).get("state") == "joining"
    if len(opened.manifest.plan) == opened.frozen and not joining:
        opened.output.remove_parts()  # but not a merge of rounds that was stopped half way
    return opened


def found(job: JobDirectory, manifest: Manifest, outputs: Outputs, say: Say) -> OpenJob:
    """Find where a job stands, whatever its input is by now; a publication that was cut short is completed."""
    output = outputs.make(manifest.job)
    log = job.publish_log(manifest.job)
    log.settle()
    output.finish(log, replace=manifest.replace)
    output.refuse_taken_over()
    done = log.done()
    if done is not None:
        output.verify(done)
    frozen = done["shards"] if done is not None else 0
    while True:
        job.await_workers(manifest.plan[frozen:])
        plan = job.load_plan(manifest.job, manifest.slices)
        if plan == manifest.plan:
            break
        manifest = manifest._replace(plan=plan)  # a worker that outlived its run has given some of its shard away
    order = [shard.number for shard in manifest.plan]
    shards = []
    for index, shard in enumerate(manifest.plan):
        if not job.has(shard.number):
            continue
        writer = None if index < frozen else output.writer(shard.number, frozen=frozen, order=order)
        shards.append(recover(job, manifest.job, shard, writer, say))
    return OpenJob(manifest, output, shards, frozen)


def _refuse_other_definition(name: str, was: dict[str, Any], now: dict[str, Any]) -> None:
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            raise DefinitionChanged(
                f"the job '{name}' was begun with another {key} ({_short(was.get(key))}, now {_short(now.get(key))}); "
                "give another --job NAME, or start over with --restart"
            )


def _refuse_other_slices(job: JobDirectory, manifest: Manifest) -> None:
    if job.part is not None and manifest.ready and manifest.slices != job.part.of:
        was = "as a whole" if manifest.slices == 1 else f"in {manifest.slices} slices"
        raise DefinitionChanged(
            f"the job '{job.name}' was begun {was}, and this is slice {job.part}; give that number of slices, leave "
            f"out --shard to do all that is left, or start over: batchkit reset {job.name}"
        )


def _short(value: Any) -> str:
    if isinstance(value, dict) and "sources" in value:
        usual = {"delimiter": "\n", "skip_blank": False, "separator": ",", "header": True, "columns": None}
        options = [f"{key}={value[key]!r}" for key in usual if value.get(key, usual[key]) != usual[key]]
        value = " ".join([*value["sources"], "as", value["kind"], *options])
    text = str(value)
    return text if len(text) <= 200 else text[:197] + "..."  # noqa: PLR2004  # one line of a terminal or two


def _begin(
    job: JobDirectory,
    earlier: Manifest | None,
    reader: Reader,
    definition: dict[str, Any],
    options: dict[str, Any] | None,
    outputs: Outputs,
    wishes: Wishes,
) -> OpenJob:
    """Write the manifest of a new job: from here on it owns its output's name."""
    if earlier is not None and earlier.definition.get("output") == definition.get("output"):
        _leave_rows(job, earlier, outputs.make(earlier.job))
    path = outputs.make("").path
    slices = 1 if job.part is None else job.part.of
    left = None
    if earlier is not None and earlier.output != path:
        left, earlier = earlier, None
    manifest = new_manifest(
        name=job.name,
        definition=definition,
        fingerprint=reader.fingerprint(),
        output=path,
        replace=wishes.overwrite or (earlier is not None and job.may_replace(earlier)),
        plan=_first_plan(reader, slices, numbered=wishes.numbered),
    )._replace(options=options, slices=slices)
    output = outputs.make(manifest.job)
    output.refuse_foreign(replace=manifest.replace)
    other = output.other_owner()
    if other is not None and JobDirectory(*os.path.split(other)).running():
        raise JobLocked(f"the output '{path}' is being written by a run of the job in '{other}'; stop that first")
    if left is not None:
        outputs.leave(left)
    job.save(manifest)
    return _create(job, manifest, output)


def _leave_rows(job: JobDirectory, earlier: Manifest, output: Output) -> None:
    """Let a database forget an earlier start of the job, before that is forgotten here."""
    if hasattr(output, "repeatable"):
        refuse_to_repeat(job, earlier, output)
        output.forget()


def refuse_to_repeat(job: JobDirectory, manifest: Manifest, output: Output | None) -> None:
    """Raise `UsageError` where starting over would store rows once more beside those that are there."""
    if would_repeat(manifest, output):
        raise UsageError(
            f"the rows that the job '{job.name}' has stored stay in the table, and starting over would add them once "
            f"more; give the output mode=replace or mode=upsert, or delete them and run: batchkit rm {job.name}"
        )


def would_repeat(manifest: Manifest, output: Output | None) -> bool:
    """Tell whether starting over would store rows once more beside those that are there."""
    if output is None or getattr(output, "repeatable", True) or not manifest.ready:
        return False
    return bool(output.has_rows())  # type: ignore[attr-defined]  # which such an output has


def _first_plan(reader: Reader, slices: int, *, numbered: bool) -> list[Shard]:
    """Return a shard for each slice, as far as the input can be cut into so many."""
    plan: list[Shard] = []
    first: int | None = 0
    for number, span in enumerate(split(reader, reader.whole(), slices)):
        if number:
            first = first + count(reader, plan[-1].span) if numbered and first is not None else None
        plan.append(Shard(number, span, first))
    return plan


def _create(job: JobDirectory, manifest: Manifest, output: Output) -> OpenJob:
    """Make journals and parts, over whatever an interrupted attempt or an earlier start left."""
    files.remove_tree(os.path.join(job.path, "retries"))
    shards = [new_shard(job, manifest.job, shard) for shard in manifest.plan]
    output.prepare([shard.number for shard in shards], afresh=True)
    job.save_plan(manifest.job, manifest.slices, manifest.plan)
    manifest = manifest._replace(ready=True)
    job.save(manifest)
    return OpenJob(manifest, output, [shard for shard in shards if job.has(shard.number)], frozen=0)


def new_shard(job: JobDirectory, uuid: str, shard: Shard) -> ShardState:
    """Make the journal of a shard that nobody has begun; durable on return."""
    header = journal.Header(uuid, shard.number, shard.span)
    path = job.shard_path(shard.number)
    journal.Journal(path, header, None).close()
    files.remove(path_beside(path))  # of an earlier start of the job
    return ShardState(shard, journal.Past(header, [], broken=False), -1, None)


def recover(job: JobDirectory, uuid: str, shard: Shard, writer: Writer | None, say: Say) -> ShardState:
    """Find the last commit of a shard whose results are really there; changes nothing but what was found damaged.

    writer: of its results; `None` if they are published.
    """
    path = job.shard_path(shard.number)
    past = journal.read(path)
    if past.header.job != uuid:
        raise DamageError(f"the journal '{path}' belongs to another start of the job; --restart starts over")
    files.sync_file(path)
    files.sync_directory(os.path.dirname(path))
    if past.broken:
        files.replace(path + ".broken", files.read_bytes(path) or b"")
        say(f"the journal '{path}' is damaged; going on from its last sound commit, a copy is kept as .broken")
    kept = failure_file(job, shard.number, uuid)
    if writer is not None and hasattr(writer, "taken"):
        return _as_stored(path, shard, past, writer.taken(), kept)
    chosen = kept.intact(past.marks("kept"))
    if writer is not None:
        chosen = min(chosen, writer.intact(past.marks("mark")))
    return ShardState(shard, past, chosen, past[chosen] if chosen >= 0 else None)


def _as_stored(path: str, shard: Shard, past: journal.Past, base: Checkpoint | None, kept: FailureFile) -> ShardState:
    """Go on from the commit that was stored with the results, whatever the journal knows; `None`: there is none.

    A journal that lacks it gets it at once: the commit may be the shard's last, after which nothing opens the shard.
    """
    if base is None:
        return ShardState(shard, past, -1, None)
    if base.kept is not None and kept.intact([base.kept]) < 0:
        raise DamageError(
            f"'{kept.path}' does not hold the failures that it had; put it back, or --restart starts over"
        )
    newest = len(past) - 1
    if newest < 0 or past[newest].seq < base.seq:
        journal.archive(path, past, newest)
        journal.Journal(path, journal.Header(past.header.job, shard.number, shard.span), base).close()
        return ShardState(shard, journal.read(path), 0, base)
    return ShardState(shard, past, max(-1, base.seq - past[0].seq), base)


def failure_file(job: JobDirectory, shard: int, uuid: str) -> FailureFile:
    """Return the file with the failures of a shard, not yet opened."""
    return FailureFile(path_beside(job.shard_path(shard)), uuid, shard)


def _checked(job: JobDirectory, opened: OpenJob, reader: Reader, wishes: Wishes, say: Say) -> OpenJob | None:
    """Compare the input with the one the job began with; `None`: start over."""
    manifest = opened.manifest
    verdict = Verdict("same")
    for index, shard in enumerate(opened.shards):
        if shard.ended and shard is not opened.shards[-1]:
            continue  # what came before the cursor of a later one came before its end, too
        base = shard.base
        # A shard behind others that ended without an item knows no proof: what comes before it was not read then.
        unproved = base is None or (index > 0 and not base.proof and not base.handled)
        proof = None if base is None or unproved else base.proof
        verdict = reader.check(manifest.fingerprint, shard.cursor, proof)
        if verdict.kind == "changed":
            if wishes.on_input_change == "restart":
                if not reader.restartable:  # to see that it changed, it was read up to the cursor
                    raise InputChanged(f"the input changed: {verdict.why}; it cannot be read again, so run --restart")
                say(f"the input changed: {verdict.why}; starting over")
                return None
            if wishes.on_input_change == "stop" or verdict.moved:
                raise InputChanged(
                    f"the input of the job '{manifest.name}' changed: {verdict.why}; start over with --restart"
                    + ("" if verdict.moved else ", or go on all the same with --on-input-change continue")
                )
            say(f"the input changed: {verdict.why}; going on at the cursor all the same")
            return _extended(job, opened, reader)
        if verdict.kind == "same" and verdict.why and not shard.ended:
            say(verdict.why)
    # Only the last shard can tell: what follows an earlier one in a pipe is the next shard's, and done.
    return _extended(job, opened, reader) if verdict.kind == "appended" else opened


def _extended(job: JobDirectory, opened: OpenJob, reader: Reader) -> OpenJob:
    """Take what the input has now behind the plan: into the last shard, or into a new one if that is at its end."""
    manifest, shards = opened.manifest, list(opened.shards)
    if job.part is not None:  # the slices are those of the input as it was
        return opened
    stop = reader.whole().stop
    last = shards[-1]
    if not last.ended:
        if stop is not None and _beyond(reader, last.cursor, stop):
            raise InputChanged(f"the input ends before the cursor of the job '{manifest.name}'; --restart starts over")
        shards[-1] = last._replace(shard=last.shard._replace(span=Span(last.shard.span.start, stop)))
    elif stop is None or (last.cursor != stop and not _beyond(reader, last.cursor, stop)):
        number = next(free_numbers(opened.order, last.number, manifest.slices))
        shards.append(new_shard(job, manifest.job, Shard(number, Span(last.cursor, stop), last.behind)))
        opened.output.prepare([number], afresh=False)
    manifest = manifest._replace(plan=[each.shard for each in shards], fingerprint=reader.fingerprint())
    # The plan before the fingerprint: what is appended is found as long as that is old.
    job.save_plan(manifest.job, manifest.slices, manifest.plan)
    job.save(manifest)
    return opened._replace(manifest=manifest, shards=shards)


def _beyond(reader: Reader, cursor: Cursor, stop: Cursor) -> bool:
    """Tell whether the cursor lies behind the end of the input."""
    with suppress(IndexError):  # the file that the cursor names is gone
        return (reader.extent(Span(cursor, stop)) or 0) < 0
    return True


def reopen(
    job: JobDirectory, shard: ShardState, uuid: str, writer: Writer, kept: FailureFile
) -> tuple[journal.Journal, Checkpoint | None]:
    """Cut the shard's output and failures to its chosen commit and begin a new journal with that; durable on return."""
    base = shard.base
    writer.open(None if base is None else base.mark)
    kept.open(None if base is None else base.kept)
    path = job.shard_path(shard.number)
    journal.archive(path, shard.past, shard.chosen)
    mark = writer.mark()
    if base is not None:
        base = base._replace(mark=mark, kept=kept.mark())
    return journal.Journal(path, journal.Header(uuid, shard.number, shard.shard.span), base), base
