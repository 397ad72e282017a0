"""How results become the bytes of a line-based file. Nothing here touches a disk; CSV is in `rows`."""

from __future__ import annotations

import json
from typing import Any, Protocol

from batchkit.writers.base import result_error
from batchkit.writers.values import json_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.writers.base import Header


class Format(Protocol):
    """Renders the results of a batch; every record ends with LF. A `None` renders to nothing.

    empty: what an output without any result consists of. headed: whether a file begins with a header.
    """

    empty: bytes
    headed: bool

    def render(self, results: Sequence[Any]) -> bytes:
        """Return the bytes of the results, behind the header if that is due. Raises `ResultError`."""

    def rendered(self, results: Sequence[Any]) -> tuple[bytes, bytes]:
        """Return what `render` does in two: the header, empty if it is not due, and the results."""

    def resume(self, lines: Iterator[str]) -> bool:
        """Learn what earlier runs decided from the first lines of an output; return whether there was something.

        If there was, the header stands there and is due no more.
        """

    def renew(self) -> None:
        """Let the header be due again: what was learned stands in another file than the one to be written."""

    def header(self, chunks: Iterator[bytes]) -> Header | None:
        """Return the header that stands at the beginning of a file with such bytes; `None`: none does."""

    def lines(self, chunks: Iterator[bytes]) -> Iterator[str]:
        """Yield the lines of an output, with their ends, from its bytes."""

    def parse(self, lines: Iterator[str]) -> Iterator[Any]:
        """Yield the results that stand in the lines of an output, as far as the format tells them."""


class Uncompressed:
    """A format whose bytes are its text."""

    empty = b""

    def lines(self, chunks: Iterator[bytes]) -> Iterator[str]:
        """Decode the lines."""
        return lines_of(chunks)


class Plain(Uncompressed):
    """A format without header."""

    headed = False

    def render(self, results: Sequence[Any]) -> bytes:
        """Return the lines; subclasses do."""
        raise NotImplementedError

    def rendered(self, results: Sequence[Any]) -> tuple[bytes, bytes]:
        """Return no header and the lines."""
        return b"", self.render(results)

    def renew(self) -> None:
        """Do nothing."""

    def header(self, chunks: Iterator[bytes]) -> None:
        """Return that there is none."""

    def resume(self, lines: Iterator[str]) -> bool:
        """Read and learn nothing."""
        del lines
        return True


class Text(Plain):
    """Strings as they are, one a line; anything else as JSON."""

    def render(self, results: Sequence[Any]) -> bytes:
        """Return the lines."""
        try:
            text = "\n".join(results)
        except TypeError:
            return _each(results, _text_line)
        if not results:
            return b""
        try:
            lines = text.encode()
        except UnicodeEncodeError:
            return _each(results, _text_line)
        if "\n" in "".join(results):  # a third of the cost of counting the line breaks in the text
            return _each(results, _text_line)
        return lines + b"\n"

    def parse(self, lines: Iterator[str]) -> Iterator[Any]:
        """Yield strings."""
        return (line.removesuffix("\n") for line in lines)


class Jsonl(Plain):
    """One JSON value a line, UTF-8. Dates, decimals, UUIDs, paths and dataclasses become what JSON has for them."""

    def render(self, results: Sequence[Any]) -> bytes:
        """Return the lines."""
        return _each(results, json_line)

    def parse(self, lines: Iterator[str]) -> Iterator[Any]:
        """Yield JSON values."""
        return map(json.loads, lines)


def lines_of(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield the lines, with their ends, of a text in chunks."""
    held = b""
    for chunk in chunks:
        *lines, held = (held + chunk).split(b"\n")
        yield from (line.decode() + "\n" for line in lines)
    if held:
        yield held.decode()


def _each(results: Sequence[Any], line: Callable[[Any], str]) -> bytes:
    """Render result by result, so that the one that fails is known."""
    lines = []
    for index, result in enumerate(results):
        if result is not None:
            try:
                lines.append(line(result).encode())
            except Exception as error:  # whatever a result raises when it is written, the result's own methods included
                raise result_error(index, error) from error
    return b"\n".join([*lines, b""])


def _text_line(result: Any) -> str:
    text = result if isinstance(result, str) else json_line(result)
    if "\n" in text:
        raise ValueError("it holds a line break, which a text file cannot; use a .jsonl output")
    return text
