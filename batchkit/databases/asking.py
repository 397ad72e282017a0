"""A database that is only read: what is asked is asked again over a new connection, if the old one was lost."""

from __future__ import annotations

import time
from typing import TypeVar

from batchkit.databases.base import ConnectionLost, Refused
from batchkit.databases.connecting import connect
from batchkit.errors import SourceError, StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.databases.address import Place
    from batchkit.databases.base import Session

T = TypeVar("T")

_WAITS = (0.1, 0.5, 1.5, 4.0, 10.0)
"""Seconds before each further attempt: a server is started again in that time. Reading twice changes nothing, so these
are made whatever the retry policy is, which is about calls and results."""


class Asking:
    """Asks over one connection, opened when it is needed.

    Where an open connection keeps others out, it is closed after each question.
    """

    def __init__(self, place: Place) -> None:
        """Connect to nothing yet."""
        self._place = place
        self._session: Session | None = None
        self._had = False

    def __call__(self, question: Callable[[Session], T]) -> T:
        """Return the answer. Raises `SourceError` where the database cannot be had or does not answer."""
        waits = iter(_WAITS)
        while True:
            try:
                return self._asked(question)
            except ConnectionLost as error:
                self.close()
                wait = next(waits, None) if self._had else None  # an address that never answered may be wrong
                if wait is None:
                    raise SourceError(str(error)) from error
                time.sleep(wait)
            except Refused as error:
                raise SourceError(
                    f"the database '{self._place.shown}' says: {error}; mend the query, or the data, and run it again"
                ) from error
            except StorageError as error:
                raise SourceError(str(error)) from error

    def _asked(self, question: Callable[[Session], T]) -> T:
        if self._session is None:
            self._session = connect(self._place, reading=True)
            self._had = True
        try:
            return question(self._session)
        finally:
            if self._session.exclusive:
                self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._session is not None:
            self._session.close()
            self._session = None
