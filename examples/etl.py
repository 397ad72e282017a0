"""Bring the orders of three shops into one database: extract, transform, load, check, publish a report.

    batchkit workflow run examples/etl.py --key monday --param day=2026-11-23

Shops are asked at once, their files are cleaned by several processes, rows are loaded in batches with a cursor. Stop it
or kill it, run it again: what is done stays done, and no row is loaded twice. The results are in etl/: orders.db, with
the orders of all days, and a report for each. The shops are invented here; put your own requests into `pages_of`.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import batchkit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchkit.workflow.context import Context

    Row = dict[str, Any]

SHOPS = ("north", "northwest", "west")
WORK = Path("etl")
DATABASE = WORK / "orders.db"

flow = batchkit.Workflow("etl", params={"day": "2026-11-23"})


def pages_of(shop: str, day: str) -> Iterator[list[Row]]:
    """Yield the orders of a shop, a hundred at a time, as an API would: some are cancelled."""
    for page in range(4):
        yield [
            {"id": f"{day}-{shop}-{number}", "day": day, "euros": f"{(number + len(shop)) * 7919 % 10_000 / 100:.2f}",
             "state": "paid" if number % 10 else "cancelled"}
            for number in range(page * 100, page * 100 + 100)
        ]  # fmt: skip


def write(path: Path, rows: list[Row]) -> None:
    """Write a CSV file, which appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with new.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    new.replace(path)


def files(ctx: Context, kind: str) -> Path:
    """Return the directory of the day's files of one kind."""
    return Path(WORK, ctx.params["day"], kind)


@flow.phase(after=[])
def tables(_: Context) -> None:
    """Make the database; that may have been done, for another day."""
    WORK.mkdir(exist_ok=True)
    with closing(sqlite3.connect(DATABASE)) as database:
        database.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT, day TEXT, shop TEXT, cents INTEGER)")


def extract(ctx: Context, shop: str) -> Row:
    """Fetch all pages of a shop; if this is cut off it begins anew, and writes the same files."""
    orders = 0
    for number, rows in enumerate(pages_of(shop, ctx.params["day"])):
        ctx.stop_if_asked()
        write(files(ctx, "raw") / f"{shop}-{number}.csv", rows)
        orders += len(rows)
    return {"orders": orders}


# One phase a shop; after=[] means: after nothing, so they run at once.
sources = [flow.phase(lambda ctx, shop=shop: extract(ctx, shop), name=f"extract-{shop}", after=[]) for shop in SHOPS]


@flow.phase(after=[tables, *sources], items=lambda ctx: sorted(files(ctx, "raw").iterdir()), batch_size=1, workers=2)
def transform(ctx: Context, file: Path) -> Row:
    """Clean a file: paid orders only, and cents instead of euros."""
    with file.open(newline="") as source:
        rows = list(csv.DictReader(source))
    paid = [
        {"id": row["id"], "day": row["day"], "shop": file.stem.partition("-")[0],
         "cents": int(Decimal(row["euros"]) * 100)}
        for row in rows
        if row["state"] == "paid"
    ]  # fmt: skip
    write(files(ctx, "clean") / file.name, paid)
    return {"read": len(rows), "kept": len(paid), "cents": sum(row["cents"] for row in paid)}


@flow.phase(
    items=lambda ctx: batchkit.csv(files(ctx, "clean") / "*.csv"),
    batch_size=250,
    output=f"sqlite:///{DATABASE}?table=orders&mode=append",
)
def load(_: Context, row: Row) -> Row:
    """Load rows: each batch is one transaction, together with the cursor."""
    return {**row, "cents": int(row["cents"])}


@load.undo
def unload(ctx: Context) -> None:
    """Remove the day's orders."""
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute("DELETE FROM orders WHERE day = ?", [ctx.params["day"]])


@flow.phase
def validate(ctx: Context) -> Row:
    """Compare what came in with what is in the database: every order is there or was cancelled, every cent is there."""
    cleaned = list(ctx.results("transform"))
    with closing(sqlite3.connect(DATABASE)) as database:
        query = "SELECT count(*), count(DISTINCT id), sum(cents) FROM orders WHERE day = ?"
        [(rows, orders, cents)] = database.execute(query, [ctx.params["day"]]).fetchall()
    found = {"extracted": sum(ctx[source.name]["orders"] for source in sources), "loaded": rows, "cents": cents}
    wanted = {
        "extracted": sum(each["read"] for each in cleaned),
        "loaded": sum(each["kept"] for each in cleaned),
        "cents": sum(each["cents"] for each in cleaned),
    }
    if found != wanted or orders != rows:
        raise RuntimeError(f"the database has {orders} orders in rows that make {found}; they should make {wanted}")
    return found


@flow.phase
def finalize(ctx: Context) -> str:
    """Publish the report: readers see the old one or the new one, whole."""
    day = ctx.params["day"]
    with closing(sqlite3.connect(DATABASE)) as database:
        query = "SELECT shop, count(*), sum(cents) FROM orders WHERE day = ? GROUP BY shop ORDER BY shop"
        shops = {shop: {"orders": orders, "cents": cents} for shop, orders, cents in database.execute(query, [day])}
    report, new = WORK / f"report-{day}.json", WORK / f"report-{day}.new"
    new.write_text(json.dumps({"day": day, **ctx["validate"], "shops": shops}, indent=1) + "\n")
    new.replace(report)
    return str(report)
