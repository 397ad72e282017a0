"""Commands in the place of functions: an item becomes an argument or the standard input of a program.

A template is split into words as a shell would, once; then no shell is there. In each word

    {}        is the item; {name}, if the item is a row (a dict), its column of that name
    {#}       is the item's number in the whole input, from 1 (of a batch: of its first item)
    {{}} {{#}}  are {} and {#} themselves

and everything else stays as it is, also {name} where items are no rows. Text and bytes go in as they are, numbers and
dates as Python prints them; null, true, false, lists and dicts as JSON.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import shlex
import shutil
from typing import Any

from batchkit.budget import seconds_of
from batchkit.calling import current_batch
from batchkit.errors import CommandFailed, UsageError
from batchkit.plain import plain
from batchkit.programs import Ended, hear_children, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.budget import Duration

_PLACE = re.compile(r"(\{\{#?\}\}|\{#?\}|(?<!\{)\{[\w.-]+\}(?!\}))")
_SHELL = {"|", "||", "&", "&&", "<", ">", ">>", "2>", "2>>", "2>&1", ">&2", "&>"}
"""Words by which people ask for a shell."""
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_ESCAPED_IN_QUOTES = re.compile(r"\\.", re.DOTALL)
_SHOWN = 300
"""Characters of what a command said that a message shows."""


def command(template: str, timeout: Duration | None = None, *, batch: bool = False) -> Command:
    """Return a function that runs a command for an item, without a shell: `command("convert {} out/{#}.png")`.

    The item is one argument whatever it holds (see the head of this module for the placeholders), and never an option:
    one that begins with "-" fails where the argument begins with it, unless there is a word "--" before that. Without
    `{}` or a column in the template it goes to standard input, with a line end behind it.
    batch: called with the items of a batch, which go to standard input, one a line; each line of output is a result.
    timeout: seconds, "30s" or a timedelta, for each call; `None`: no limit but that of the run.

    Standard output is the result: UTF-8, without the line end at its end; `None` if it is empty. A status other than 0
    raises `CommandFailed`, which has the end of standard error; of a command that succeeds that is dropped. The
    environment has BATCHKIT_KEY, which names the call, the same in every run: see `CurrentBatch.key`.
    Raises `UsageError` for a template that is wrong and a program that is not there.
    """
    seconds = seconds_of(timeout, "timeout")
    if seconds == 0:
        raise UsageError("timeout is 0; give the seconds that the command may take, or leave it out")
    return Command(template, timeout=seconds, batch=batch)


class Command:
    """A command that is called as a function is, also from many threads at once; can be pickled.

    template: its text. batch: whether it takes batches. timeout: in seconds; `None`: no limit. name: of the program.
    numbered: whether it needs the numbers of items.
    """

    __batchkit_command__ = True

    def __init__(self, template: str, *, timeout: float | None = None, batch: bool = False) -> None:
        """Split the template and look for the program. Raises `UsageError`."""
        words = words_of(template, instead=_INSTEAD)
        self.template = template
        self.batch = batch
        self.timeout = timeout
        self.name = os.path.basename(words[0]) or words[0]
        self._words = [_PLACE.split(word) for word in words]
        places = {place for word in self._words for place in word[1::2]}
        self.numbered = "{#}" in places
        self._takes_item = "{}" in places
        self._columns = {place[1:-1] for place in places if place[1:2] not in {"", "#", "{", "}"}}
        self._guarded = words.index("--") if "--" in words else len(words)
        self.__qualname__ = f"command {template}"
        if batch and self._takes_item:
            raise UsageError(
                f"the command '{template}' gets the items of a batch on its standard input, where {{}} has no meaning; "
                "leave it out, or run it for each item: command(..., batch=False), -x"
            )
        hear_children()
        self._path = None if len(self._words[0]) > 1 else _found(words[0])

    def recipe(self) -> dict[str, Any]:
        """Return the arguments with which `command` makes it again, JSON values."""
        return {"template": self.template, "timeout": self.timeout, "batch": self.batch}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it is made of."""
        return functools.partial(Command, timeout=self.timeout, batch=self.batch), (self.template,)

    def __repr__(self) -> str:
        """Return how it is made."""
        return f"command({self.template!r}, timeout={self.timeout!r}, batch={self.batch!r})"

    def within(self, seconds: float | None) -> Command:
        """Return the same command with another limit of time; `None`: with this one."""
        return self if seconds is None else Command(self.template, timeout=seconds, batch=self.batch)

    def __call__(self, item: Any) -> Any:
        """Run it for an item, or for the items of a batch.

        Raises `CommandFailed`, `TimeoutError`; `ValueError` or `TypeError` for an item that the command cannot get.
        """
        if self.batch:
            items = item.iter_rows(named=True) if hasattr(item, "iter_rows") else item
            text = self._text(self._run(None, b"".join(map(_line, items))))
            return text.removesuffix("\n").split("\n") if text else []
        taken = self._takes_item or (self._columns and isinstance(item, dict))
        text = self._text(self._run(item, None if taken else _bytes(item) + b"\n"))
        return text.removesuffix("\n") if text else None

    def _run(self, item: Any, given: bytes | None) -> Ended:
        number, env = self._place()
        words = [self._filled(word, index, item, number) for index, word in enumerate(self._words)]
        try:
            return run(words, path=self._path, given=given, env=env, timeout=self.timeout)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            raise ValueError(
                f"the item is too long for an argument of '{self.name}'; leave {{}} out: it goes to standard input then"
            ) from None

    def _place(self) -> tuple[str, dict[bytes, bytes] | None]:
        """Return the number of the item, and the environment with the key of the call."""
        try:
            current = current_batch()
        except UsageError:  # called by somebody else
            if self.numbered:
                raise
            return "", None
        number = current.number if self.numbered else None
        if self.numbered and number is None:
            raise UsageError("nobody has counted the items of this input: leave {#} out of the command")
        return str(number), {**os.environb, b"BATCHKIT_KEY": current.key.encode()}

    def _filled(self, word: list[str], index: int, item: Any, number: str) -> bytes:
        """Return a word with everything in its place."""
        if len(word) == 1:
            return word[0].encode("utf-8", "surrogateescape")
        parts = [self._part(part, item, number) if at % 2 else part.encode() for at, part in enumerate(word)]
        filled = b"".join(parts)
        if filled[:1] == b"-" and not word[0] and index <= self._guarded:
            raise ValueError(
                f"the item begins with '-', which '{self.name}' could take for an option; write ./{{}} for a file, "
                "--option={}, or -- before {}"
            )
        if b"\0" in filled:
            raise ValueError(
                "the item holds a NUL character, which no argument can; leave {} out, so that it goes to standard input"
            )
        return filled

    def _part(self, place: str, item: Any, number: str) -> bytes:
        if place == "{}":
            return _bytes(item)
        if place == "{#}":
            return number.encode()
        if place[1] == "{":
            return place[1:-1].encode()
        if not isinstance(item, dict):
            return place.encode()
        if place[1:-1] not in item:
            raise ValueError(f"the row has no column '{place[1:-1]}'; it has {', '.join(map(str, item))}")
        return _bytes(item[place[1:-1]])

    def _text(self, ended: Ended) -> str:
        """Return what a command printed. Raises `CommandFailed`."""
        status, out, err = ended
        talk = err.decode(errors="replace")
        if status:
            said = talk.strip().rpartition("\n")[2].strip()[:_SHOWN]
            how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
            raise CommandFailed(f"{how}: {said}" if said else how, status=status, stderr=talk)
        try:
            return out.decode()
        except UnicodeDecodeError as error:
            raise CommandFailed(
                f"its output is no valid UTF-8, at byte {error.start:,}; let it write to a file instead",
                status=0,
                stderr=talk,
            ) from None


_INSTEAD = "give: sh -c 'one \"$1\" | two' -- {}"
"""How a template asks for a shell."""


def words_of(template: str, *, instead: str) -> list[str]:
    """Return the words of a command that runs without a shell; `instead` says how to have one. Raises `UsageError`."""
    if not isinstance(template, str):
        raise UsageError(f"the command is {template!r}; give one text, such as 'convert {{}} out/{{#}}.png'")
    try:
        words = shlex.split(_as_a_shell_reads(template))
    except ValueError as error:
        raise UsageError(f"the command '{template}' cannot be split into words: {error}") from None
    if not words or not words[0]:
        raise UsageError("the command is empty; give a program and its arguments")
    if "\0" in template:
        raise UsageError(f"the command {template!r} holds a NUL character, which no argument can")
    if asked := _shell_words(template):
        raise UsageError(
            f"the command '{template}' runs without a shell, to which '{asked[0]}' would be an argument; "
            f"put it in quotes if it is to be one, or {instead}"
        )
    return words


def _as_a_shell_reads(template: str) -> str:
    r"""Drop the backslash before `$` and "`" within double quotes, which `shlex` leaves there."""

    def read(escaped: re.Match[str]) -> str:
        return escaped[0][-1] if escaped[0][-1] in "$`" else escaped[0]

    return _QUOTED.sub(
        lambda found: _ESCAPED_IN_QUOTES.sub(read, found[0]) if found[0][0] == '"' else found[0], template
    )


def _shell_words(template: str) -> list[str]:
    """Return the words that only a shell would understand, and that are not in quotes."""
    return [word for word in _QUOTED.sub("quoted", template).split() if word in _SHELL]


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise UsageError(
            f"there is no program '{program}' that can be run; without a shell it must be a file, see $PATH"
        )
    return os.path.abspath(path)


_compact = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=plain, separators=(",", ":")).encode


def _bytes(value: Any) -> bytes:
    """Return a value as it stands in an argument. Raises `TypeError` or `ValueError` for what has no form there."""
    if isinstance(value, bytes):
        return value
    if value is None or isinstance(value, bool | list | tuple | dict):
        value = _compact(value)
    elif not isinstance(value, str):
        value = str(value) if isinstance(value, int | float) else plain(value)
        if not isinstance(value, str):
            return _bytes(value)
    return bytes(value.encode("utf-8", "surrogateescape"))


def _line(item: Any) -> bytes:
    line = _bytes(item)
    if b"\n" in line:
        raise ValueError("the item holds a line end, and the command gets an item a line; run it for each item (-x)")
    return line + b"\n"
