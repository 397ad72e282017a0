"""Long calls into polars, made aside: while the main thread is in one of them, Python runs no signal handler.

So a call goes to a thread of its own, and the wait for it can be interrupted. That costs some 50 µs.
"""

from __future__ import annotations

import atexit
import threading
from typing import TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def aside(call: Callable[[], T]) -> T:
    """Return what `call` returns, raise what it raises. Where a signal handler raises, the call is left to itself.

    The process then waits for it when it ends.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  # it is raised in the caller's own thread
            errors.append(error)

    thread = threading.Thread(target=run, name="batchkit-polars", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        atexit.register(thread.join)  # an interpreter that ends under a call into polars aborts
        raise
    if errors:
        raise errors[0]
    return results[0]
