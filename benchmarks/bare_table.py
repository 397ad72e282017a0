"""The bare loops over a Parquet file, without any checkpoint: `bare_table.py LIBRARY FILE BATCH_SIZE [OUTPUT]`.

LIBRARY: polars (`collect_batches`), polars-read (the whole file in memory, sliced) or pyarrow (`iter_batches`). With
OUTPUT, pyarrow writes what the function returns through `ParquetWriter`, its defaults everywhere.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from work import table

if TYPE_CHECKING:
    from collections.abc import Iterator


def batches(library: str, path: str, size: int) -> Iterator[Any]:
    """Yield the batches of a file."""
    if library == "pyarrow":
        import pyarrow.parquet as pq  # noqa: PLC0415  # each loop imports what it needs

        yield from pq.ParquetFile(path).iter_batches(batch_size=size)
        return
    import polars as pl  # noqa: PLC0415

    if library == "polars":
        yield from pl.scan_parquet(path).collect_batches(chunk_size=size)
    else:
        yield from pl.read_parquet(path).iter_slices(size)


def main() -> None:
    """Loop."""
    library, path, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    found = batches(library, path, size)
    if len(sys.argv) == 4:
        for batch in found:
            table(batch)
        return
    import pyarrow.parquet as pq  # noqa: PLC0415

    with pq.ParquetWriter(sys.argv[4], pq.read_schema(path)) as writer:
        for batch in found:
            writer.write_batch(table(batch))


if __name__ == "__main__":
    main()
