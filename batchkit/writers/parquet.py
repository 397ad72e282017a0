"""Parquet files as outputs: parts are spools of Arrow frames, which become one file at the end, streaming."""

from __future__ import annotations

import io
import os
from contextlib import ExitStack, closing
from typing import Any

from batchkit import files
from batchkit.errors import BatchkitError, DamageError, OutputChanged
from batchkit.frames import parquet
from batchkit.frames.columns import Mismatch
from batchkit.frames.fitting import cast, common
from batchkit.frames.rows import gathered, whole
from batchkit.writers.base import Piece
from batchkit.writers.spool import SpoolWriter, extents, frames, last_schema, rows_at, terms_of
from batchkit.writers.walking import Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from batchkit.frames.rows import Table
    from batchkit.frames.schemas import Schema
    from batchkit.model import Mark
    from batchkit.writers.agreement import Agreement, Terms
    from batchkit.writers.base import Joining


class ParquetKind:
    """One Parquet file of all results; memory stays flat while it is written.

    A merge that is stopped begins again: unlike appended bytes, half a Parquet file is worth nothing.
    """

    def __init__(self, schema: Schema | None) -> None:
        """Write in a schema that is fixed in advance, or that the results decide."""
        self._schema = schema

    def writer(
        self,
        part: str,
        before: Sequence[str],
        beside: Sequence[str] = (),
        *,
        agreement: Agreement,
        apart: bool = False,
        mode: int = files.SHARED,
    ) -> SpoolWriter:
        """Return the writer of a part."""
        del apart  # rows are all there is in any part
        return SpoolWriter(part, self._schema, lambda: _known(before, beside), agreement=agreement, mode=mode)

    def terms(self, stored: Sequence[Piece], beside: Sequence[Piece]) -> Terms | None:
        """Return the schema of what there is; `None` if it was given in advance."""
        if self._schema is not None:
            return None
        return terms_of(_schema_of([piece for piece in (*stored, *beside) if piece.length]) or None)

    def lead(self, agreement: Agreement, pieces: Sequence[Piece]) -> tuple[None, tuple[()]]:
        """Return that parts have all they need."""
        del agreement, pieces
        return None, ()

    def extent(self, mark: Mark) -> int:
        """Return the rows of a part; 0 also for the marks of older versions, which do not tell."""
        return rows_at(mark)

    def places(self, piece: Piece) -> int:
        """Return the rows of a file."""
        if not piece.whole:
            return sum(rows for _, rows in extents(piece.path, piece.length)) if piece.length else 0
        try:
            return parquet.rows_of(piece.path)
        except parquet.ERRORS as error:
            raise DamageError(
                f"cannot read '{piece.path}': {parquet.line_of(error)}; put it back, or start over with --restart"
            ) from error

    def header(self, piece: Piece) -> None:
        """Return that rows are all there is."""

    def join(self, pieces: Sequence[Piece], target: str, joining: Joining) -> Piece | None:
        """Merge the pieces into one Parquet file at `target`."""
        schema = self._schema or _schema_of(pieces)
        source = _Source(pieces, schema, joining)
        file = _Sink(target)
        try:
            group = parquet.group_rows(list(_extents(pieces)))
            parquet.write(iter(source), schema, file, group)  # type: ignore[arg-type]
        except (Exception, *parquet.ERRORS) as error:
            failure = source.error or file.error or (error if isinstance(error, BatchkitError) else None)
            if failure is not None:
                raise failure from error
            raise DamageError(
                f"cannot write '{target}': {parquet.line_of(error)}; run the same command again"
            ) from error
        finally:
            file.finish()
        if source.stopped:
            return None
        return Piece(target, file.length, whole=True)

    def results(self, pieces: Sequence[Piece]) -> Iterator[Any]:
        """Yield a dict per row."""
        for frame in _slices(pieces, lambda frame: frame):
            yield from whole(frame)


def _known(before: Sequence[str], beside: Sequence[str]) -> Schema | None:
    """Return the schema of what stands before a part, and beside it. Raises `OutputChanged`."""
    if not beside:
        return _schema_before(before)
    found = [_schema_before([path]) for path in beside]
    return _common([_schema_before(before), *found]) or None


def _schema_before(earlier: Sequence[str]) -> Schema | None:
    """Return the schema of the last file that holds results; published ones are Parquet, the others spools."""
    for path in reversed(earlier):
        size = files.size(path)
        if size:
            schema = parquet.schema_of(path) if _is_parquet(path) else last_schema(path, size)
            if schema:
                return schema
    return None


def _is_parquet(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(len(parquet.MAGIC)) == parquet.MAGIC


def _schema_of(pieces: Sequence[Piece]) -> Schema:
    """Return the schema that holds all pieces. Raises `OutputChanged` if there is none."""
    each = {piece.path: piece for piece in pieces}.values()
    return _common([parquet.schema_of(at.path) if at.whole else last_schema(at.path, at.length) for at in each])


def _common(schemas: Sequence[Schema | None]) -> Schema:
    try:
        return common(schema for schema in schemas if schema)
    except Mismatch as error:
        raise OutputChanged(
            f"the column '{error.column}' is {error.found} in one part of the output and {error.wanted} in another; "
            "fix it in advance with schema= (--schema) and start over with --restart"
        ) from error


def _frames_of(piece: Piece) -> Generator[tuple[int, Callable[[], Table]]]:
    """Yield rows of each block of a piece's file, and what gives it."""
    if not piece.whole:
        yield from frames(piece.path, piece.length)
        return
    with closing(parquet.frames(piece.path)) as blocks:
        for block in blocks:
            yield block.height, lambda block=block: block  # type: ignore[misc]


def _slices(pieces: Sequence[Piece], made: Callable[[Table], Table]) -> Generator[Table]:
    """Yield the rows of the pieces, of blocks that were made into others; each file is gone through once."""
    last = {piece.path: index for index, piece in enumerate(pieces)}
    cut = len(last) < len(pieces)
    walks: dict[str, tuple[ExitStack, Walk[Table]]] = {}
    with ExitStack() as all_open:
        for index, piece in enumerate(pieces):
            if piece.path not in walks:
                stack = all_open.enter_context(ExitStack())
                blocks = stack.enter_context(closing(_frames_of(piece)))  # else what closing says would be lost
                # A slice costs as much as its block has chunks, of which most are cut many times.
                walks[piece.path] = stack, Walk(_made(blocks, lambda block: made(block.rechunk() if cut else block)))
            stack, walk = walks[piece.path]
            for frame, rows, start, count in walk.take(piece.start, piece.stop):
                yield frame if count == rows else frame.slice(start, count)
            if last[piece.path] == index:
                walks.pop(piece.path)[0].close()


def _made(
    blocks: Iterator[tuple[int, Callable[[], Table]]], made: Callable[[Table], Table]
) -> Iterator[tuple[int, Callable[[], Table]]]:
    return ((rows, lambda load=load: made(load())) for rows, load in blocks)  # type: ignore[misc]


def _extents(pieces: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """Yield bytes and rows of consecutive stretches of the pieces; those of part of a block by its share."""
    walks: dict[str, Walk[int]] = {}
    for piece in pieces:
        if piece.path not in walks:
            found = _extents_of(piece)
            walks[piece.path] = Walk(iter([(rows, lambda size=size: size) for size, rows in found]))  # type: ignore[misc]
        for size, rows, _, count in walks[piece.path].take(piece.start, piece.stop):
            yield size if count == rows else size * count // rows, count


def _extents_of(piece: Piece) -> list[tuple[int, int]]:
    """Return bytes and rows of the blocks of a piece's file; a published file is read for it."""
    if not piece.whole:
        return extents(piece.path, piece.length)
    with closing(parquet.frames(piece.path)) as blocks:
        return [(int(block.estimated_size()), block.height) for block in blocks]


class _Source:
    """The frames of the pieces, gathered to a good size, until the job is asked to stop.

    error: what ended it early; kept here because polars passes on only its text.
    """

    def __init__(self, pieces: Sequence[Piece], schema: Schema, joining: Joining) -> None:
        self._pieces, self._schema, self._joining = pieces, schema, joining
        self.stopped = False
        self.error: BatchkitError | None = None

    def __iter__(self) -> Iterator[Table]:
        try:
            yield from gathered(self._each(), parquet.GROUP_ROWS, parquet.BLOCK)
        except BatchkitError as error:
            self.error = error
            raise

    def _each(self) -> Iterator[Table]:
        with closing(_slices(self._pieces, lambda frame: cast(frame, self._schema))) as each:
            for frame in each:
                if not self._joining.keep_going():
                    self.stopped = True
                    return
                yield frame


class _Sink(io.RawIOBase):
    """A file to be written by polars through our kernel; error: what the disk said."""

    def __init__(self, path: str) -> None:
        self._file = files.AppendFile(path, mode=files.SHARED)
        self.error: BatchkitError | None = None

    @property
    def length(self) -> int:
        """Bytes written."""
        return self._file.length

    def writable(self) -> bool:
        """Return that it is."""
        return True

    def write(self, data: Any) -> int:
        """Append."""
        try:
            self._file.append(data)
        except BatchkitError as error:
            self.error = error
            raise OSError(str(error)) from error
        return len(data)

    def finish(self) -> None:
        """Make it durable."""
        try:
            if self.error is None:
                self._file.sync()
                files.sync_directory(os.path.dirname(self._file.path))
        finally:
            self._file.close()
