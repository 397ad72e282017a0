"""Async functions, awaited one call at a time in an event loop that lives as long as the run.

The loop has a thread of its own: in a notebook the main thread's loop is already running.
"""

from __future__ import annotations

import asyncio
import inspect
import select
import selectors
import threading
from contextlib import suppress
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

_SELECTABLE = 1024
"""Descriptors below this number can be waited for by select(2)."""

_GRACE = 3.0
"""Seconds that tasks have for ending when they are cancelled."""


def _new_loop() -> asyncio.AbstractEventLoop:
    if not hasattr(selectors, "EpollSelector"):
        return asyncio.new_event_loop()

    class Exact(selectors.EpollSelector):
        """Waits as long as it is told to: epoll rounds up to whole milliseconds, a tenth of calls that take 5 ms."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0 and self.fileno() < _SELECTABLE:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)

    return asyncio.SelectorEventLoop(Exact())


class EventLoop:
    """An event loop in which calls are awaited, so that clients and connections live on between them."""

    def __init__(self, timeout: float | None) -> None:
        """Let a call take at most `timeout` seconds; `None`: no limit."""
        self._timeout = timeout
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="batchkit-async", daemon=True)
        self._thread.start()

    def calling(self, function: Callable[..., Any]) -> Callable[[Any], Any]:
        """Return a plain function that calls an async one; of an async generator, it returns the list of values.

        Raises what the call raises, `TimeoutError` after the timeout; then the call has been cancelled.
        """

        async def call(argument: Any) -> tuple[Any, BaseException | None]:
            try:
                return await self.within_limit(function, argument), None
            except BaseException as error:  # noqa: BLE001  # SystemExit and the like would end the loop, not the call
                return None, error

        def called(argument: Any) -> Any:
            # The loop takes the context of whoever hands it a call, so `current_batch()` works in there.
            value, error = asyncio.run_coroutine_threadsafe(call(argument), self._loop).result()
            if error is not None:
                raise error
            return value

        return called

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Begin to run a coroutine in the loop; it takes the context of whoever hands it over."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def soon(self, do: Callable[..., object], *arguments: Any) -> None:
        """Have the loop call a plain function; may come from any thread, and from a signal handler."""
        self._loop.call_soon_threadsafe(do, *arguments)

    async def within_limit(self, function: Callable[..., Any] | None, argument: Any) -> Any:
        """Await a call; of an async generator, return the list of values. Raises as `calling` says."""
        assert function is not None, "there is something to call"
        if self._timeout is None:
            called = function(argument)
            return [value async for value in called] if inspect.isasyncgen(called) else await called
        expiry = asyncio.timeout(self._timeout)
        try:
            async with expiry:
                called = function(argument)
                if inspect.isasyncgen(called):
                    return [value async for value in called]
                return await called
        except TimeoutError:
            if not expiry.expired():  # the function's own
                raise
            raise TimeoutError(f"the call took longer than {self._timeout:g} s") from None

    def close(self) -> None:
        """Cancel what the calls left running, for some seconds, and close the loop. Harmless when repeated."""
        if self._loop.is_closed():
            return
        with suppress(TimeoutError):  # something blocks the loop: it is left to the end of the process
            asyncio.run_coroutine_threadsafe(self._cancel_left(), self._loop).result(2 * _GRACE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_GRACE)
        if not self._thread.is_alive():
            self._loop.close()

    async def _cancel_left(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_GRACE)
        await self._loop.shutdown_asyncgens()
