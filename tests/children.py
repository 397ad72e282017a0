"""Run something in a real child process, which may be killed."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def in_child(do: Callable[[], object]) -> int:
    """Run `do` in a forked process; return its exit code, negative for a signal. What it raises is exit code 99."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            do()
            code = 0
        except BaseException:  # noqa: BLE001  # nothing may leave the child, or pytest would go on in it
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
