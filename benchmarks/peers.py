"""What people use without batchkit, none of it with a checkpoint: `peers.py NAME INPUT OUTPUT [SIZE]`.

Each reads the lines of INPUT one by one, has them handled and writes the results to OUTPUT, in whatever order they
come. The time after the last of them is written goes to `last` in the directory named by $STAMPS, before the sync of
the file and the end of the workers. SIZE: items handed to a worker at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from itertools import chain, islice
from typing import TYPE_CHECKING

from busy import burn, burn_all, nap, nap_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Save = Callable[[Iterable[str]], None]

WORKERS = 2
IN_FLIGHT = 32


def bare(lines: Iterator[str], save: Save, _size: int) -> None:
    """One process, one loop."""
    save(map(burn, lines))


def pool(lines: Iterator[str], save: Save, size: int) -> None:
    """The standard pool."""
    from multiprocessing import Pool  # noqa: PLC0415  # here and below: nobody pays for the others' start-up

    with Pool(WORKERS) as workers:
        save(workers.imap_unordered(burn, lines, chunksize=size))


def joblib(lines: Iterator[str], save: Save, size: int) -> None:
    """Batches made here: joblib's own ones carry the function once for each item."""
    from joblib import Parallel, delayed  # noqa: PLC0415

    batches = iter(lambda: list(islice(lines, size)), [])
    workers = Parallel(n_jobs=WORKERS, batch_size=1, return_as="generator_unordered")
    save(chain.from_iterable(workers(delayed(burn_all)(batch) for batch in batches)))


def mpire(lines: Iterator[str], save: Save, size: int) -> None:
    """The worker pool of mpire, which must be told the size of its chunks where it cannot see the input's."""
    from mpire.pool import WorkerPool  # noqa: PLC0415

    with WorkerPool(n_jobs=WORKERS) as workers:
        save(workers.imap_unordered(burn, lines, chunk_size=size))


def threads(lines: Iterator[str], save: Save, _size: int) -> None:
    """The standard thread pool."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    with ThreadPoolExecutor(IN_FLIGHT) as workers:
        save(workers.map(nap, lines))


def gather(lines: Iterator[str], save: Save, _size: int) -> None:
    """All calls at once on an event loop, held back by a semaphore."""
    asyncio.run(_gather(lines, save))


async def _gather(lines: Iterator[str], save: Save) -> None:
    room = asyncio.Semaphore(IN_FLIGHT)

    async def one(line: str) -> str:
        async with room:
            return await nap_async(line)

    save(await asyncio.gather(*map(one, lines)))


PEERS = {peer.__name__: peer for peer in (bare, pool, joblib, mpire, threads, gather)}


def main() -> None:
    """Let one of them work."""
    name, source, target, *size = sys.argv[1:]
    with open(source, encoding="utf-8") as items, open(target, "w", encoding="utf-8") as results:

        def save(stream: Iterable[str]) -> None:
            results.writelines(result + "\n" for result in stream)
            results.flush()
            with open(os.path.join(os.environ["STAMPS"], "last"), "w", encoding="ascii") as stamp:
                stamp.write(repr(time.time()))

        PEERS[name]((line.rstrip("\n") for line in items), save, int(size[0]) if size else 1)
        os.fsync(results.fileno())


if __name__ == "__main__":
    main()
