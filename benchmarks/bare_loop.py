"""The loop that people write without batchkit: no checkpoint, one fsync at the end. `bare_loop.py INPUT OUTPUT`."""

from __future__ import annotations

import os
import sys

from work import upper

with open(sys.argv[1], encoding="utf-8") as source, open(sys.argv[2], "w", encoding="utf-8") as target:
    target.writelines(upper(line.rstrip("\n")) + "\n" for line in source)  # as people write it
    target.flush()
    os.fsync(target.fileno())
