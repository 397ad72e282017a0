"""Write lines of about 60 bytes, the same every time: `lines.py PATH COUNT`."""

from __future__ import annotations

import random
import sys

BLOCK = 100_000

path, count = sys.argv[1], int(sys.argv[2])
pick = random.Random(1)
words = ["".join(pick.choices("abcdefghijklmnopqrstuvwxyz", k=pick.randint(3, 9))) for _ in range(5000)]
lines = [" ".join(pick.choices(words, k=9))[:60].rstrip() + "\n" for _ in range(min(count, BLOCK))]
block = "".join(lines)
with open(path, "w", encoding="ascii") as file:
    file.writelines(block for _ in range(count // BLOCK))
    file.write("".join(lines[: count % BLOCK]))
