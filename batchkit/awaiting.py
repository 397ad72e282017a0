"""Async functions, awaited one call at a time in an event loop that lives as long as the run.

The loop has a thread of its own: in a notebook the main thread's loop is already running.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class EventLoop:
    """An event loop in which calls are awaited, so that clients and connections live on between them."""

    def __init__(self, timeout: float | None) -> None:
        """Let a call take at most `timeout` seconds; `None`: no limit."""
        self._timeout = timeout
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="batchkit-async", daemon=True)
        self._thread.start()

    def calling(self, function: Callable[..., Any]) -> Callable[[Any], Any]:
        """Return a plain function that calls an async one; of an async generator, it returns the list of values.

        Raises what the call raises, `TimeoutError` after the timeout; then the call has been cancelled.
        """

        async def call(argument: Any) -> Any:
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

        # The loop takes the context of whoever hands it a call, so `current_batch()` works in there.
        return lambda argument: asyncio.run_coroutine_threadsafe(call(argument), self._loop).result()

    def close(self) -> None:
        """Cancel what the calls left running and close the loop. Harmless when repeated."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._cancel_left(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_left(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
