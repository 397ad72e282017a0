"""What a worker process and its parent say to each other, and how it is pickled.

A message is one byte for its kind, eight for the length of what follows (little-endian), and that: most often a pickle.
The parent says HELLO (how to import), MAKE (the function), STRETCH (items), GO (call it on them), PLACE (the answer to
an ASK) and CLOSE; or, instead of MAKE and what follows, TASK: one call, to which the answer is RETURN or FAILED. The
worker says READY, BEGIN (the items are there, the clock may start), RESULT, VALUES (those of a generator function) or
BATCH as soon as a call is over, FAILED or RAISED (instead of the rest), DONE, ASK (a coordinate, please), SPLIT (send
the items one by one: together they cannot be read) and CLOSED.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import traceback
from typing import Any

from batchkit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from types import TracebackType

HELLO, MAKE, STRETCH, GO, PLACE, CLOSE, TASK = range(7)
READY, BEGIN, RESULT, VALUES, BATCH, FAILED, RAISED, DONE, ASK, SPLIT, CLOSED, RETURN = range(16, 28)

_HEAD = struct.Struct("<BQ")
_CHUNK = 1 << 16
_LIBRARY = os.path.dirname(os.__file__)
_BETWEEN = {
    os.path.dirname(__file__),
    os.path.join(_LIBRARY, "asyncio"),
    os.path.join(_LIBRARY, "concurrent", "futures"),
}
"""Where the code is that stands between the worker's loop and the function."""
_TRACEBACK = 8000
"""Bytes of a traceback that are kept, of its end."""


class Wire:
    """Messages over a connected socket; each side of it is used by one thread at a time."""

    def __init__(self, connected: socket.socket) -> None:
        """Own the socket from here on."""
        self._socket = connected
        self._buffer = bytearray()
        self._at = 0

    def fileno(self) -> int:
        """Return the descriptor, to wait for messages with."""
        return self._socket.fileno()

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a message, whole; waits while the other side is busy. Raises `OSError` if that is gone."""
        head = _HEAD.pack(kind, len(payload))
        if len(payload) < _CHUNK:
            self._socket.sendall(head + payload)
        else:
            self._socket.sendall(head)
            self._socket.sendall(payload)

    def take(self) -> tuple[int, bytearray] | None:
        """Return kind and payload of the next message that has arrived whole; `None`: there is none yet."""
        buffer, at = self._buffer, self._at
        begin = at + _HEAD.size
        if len(buffer) < begin:
            return None
        kind, size = _HEAD.unpack_from(buffer, at)
        end = begin + size
        if len(buffer) < end:
            return None
        self._at = end
        return kind, buffer[begin:end]

    def fill(self) -> bool:
        """Wait for some bytes and take them in; `False`: the other side is gone, and there will be no more."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        try:
            chunk = self._socket.recv(_CHUNK)
        except ConnectionResetError:
            return False
        self._buffer += chunk
        return bool(chunk)

    def receive(self) -> tuple[int, bytearray] | None:
        """Wait for the next message; `None`: the other side is gone."""
        while (message := self.take()) is None:
            if not self.fill():
                return None
        return message

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Sealed:
    """An item that travels for itself, because together with the others it could not.

    pickled: `None` if it could not even be pickled; error: then what was in the way.
    """

    def __init__(self, item: Any) -> None:
        """Pickle the item, if that can be done."""
        self.pickled: bytes | None = None
        self.error = ""
        try:
            self.pickled = packed_by_value(item)
        except Exception as error:  # noqa: BLE001  # whatever an object's own methods raise
            self.error = f"{type(error).__name__}: {error}"

    def open(self) -> Any:
        """Return the item. Raises `TypeError` if it does not survive the way."""
        if self.pickled is None:
            raise TypeError(f"the item cannot be sent to the worker process: {self.error}")
        try:
            return pickle.loads(self.pickled)  # noqa: S301  # from our own parent
        except Exception as error:
            raise TypeError(f"the worker process cannot read the item: {type(error).__name__}: {error}") from error


def packed_by_value(value: Any) -> bytes:
    """Pickle what the other side may be unable to import: lambdas, closures, what is defined in `__main__`.

    Raises `UsageError` where cloudpickle is missing, and whatever stands in the way of pickling.
    """
    try:
        import cloudpickle  # noqa: PLC0415  # only who isolates needs it
    except ModuleNotFoundError as error:
        raise UsageError("calls in a worker process need cloudpickle; run: pip install cloudpickle") from error
    return cloudpickle.dumps(value, protocol=5)  # type: ignore[no-any-return]


def packed(value: Any) -> bytes:
    """Pickle a result: by reference, which is fast, or else by value. Raises `TypeError`."""
    try:
        return pickle.dumps(value, 5)
    except Exception:  # noqa: BLE001  # whatever an object's own methods raise
        try:
            return packed_by_value(value)
        except Exception as error:
            raise TypeError(f"the result cannot be pickled: {type(error).__name__}: {error}") from error


_CAUSES = 4
"""Errors that are sent with the one that they are the causes of, at most."""


def packed_error(error: BaseException, depth: int = 0) -> bytes:
    """Pickle an exception with what is needed to stand in for it, its traceback and its causes.

    depth: how many errors it is the cause of.
    """
    try:
        itself: bytes | None = packed(error)
    except TypeError:
        itself = None
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # a broken __str__ is one more reason to tell the rest
        text = ""
    kind = type(error)
    cause = None if error.__cause__ is None or depth == _CAUSES else packed_error(error.__cause__, depth + 1)
    return pickle.dumps((itself, kind.__module__, kind.__name__, text, _trace(error), cause), 5)


def unpacked_error(payload: bytes | bytearray) -> BaseException:
    """Return an exception that the worker sent, or a stand-in of the same name and text.

    Its `__batchkit_traceback__` is the traceback as text, shortened at the beginning to about 8 KB.
    """
    itself, module, name, text, trace, cause = pickle.loads(payload)  # noqa: S301  # from our own child
    error: Any = None
    if itself is not None:
        try:
            error = pickle.loads(itself)  # noqa: S301  # as above
        except Exception:  # noqa: BLE001  # its class may be the child's only, or want other arguments
            error = None
    if not isinstance(error, BaseException) or type(error).__name__ != name:
        error = stand_in(module, name, text)
    with contextlib.suppress(AttributeError):  # a class of slots, or of opinions
        error.__batchkit_traceback__ = trace
    error.__cause__ = None if cause is None else unpacked_error(cause)
    return error  # type: ignore[no-any-return]


class _StandIn(Exception):
    """An exception that could not be sent."""

    def __reduce__(self) -> tuple[Any, ...]:
        kind = type(self)
        return stand_in, (kind.__module__, kind.__name__, str(self)), self.__dict__


def stand_in(module: str, name: str, text: str) -> Exception:
    """Return an exception that looks like another which cannot be here; can be pickled."""
    kind: type[_StandIn] = type(name, (_StandIn,), {"__module__": module, "__qualname__": name})
    return kind(text)


def _trace(error: BaseException) -> str:
    """Return the traceback from the function on: how batchkit came to call it helps nobody."""
    begin: TracebackType | None = error.__traceback__
    while begin is not None and os.path.dirname(begin.tb_frame.f_code.co_filename) in _BETWEEN:
        begin = begin.tb_next
    try:
        lines = traceback.format_exception(type(error), error, begin or error.__traceback__)
    except Exception:  # noqa: BLE001  # a broken __str__ of it, or of what it came from
        return ""
    return "".join(lines).encode(errors="replace")[-_TRACEBACK:].decode(errors="ignore")
