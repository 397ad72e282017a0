"""The examples of the README do what it says."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import batchkit
from batchkit.workflow.steering import answer

README = Path(__file__).parent.parent / "README.md"


def example(word: str) -> str:
    """Return the Python example that holds a word."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    [block] = [block for block in blocks if word in block]
    return str(block)


@pytest.fixture
def shop(workdir: Path) -> Path:
    """Return a shop with 2,500 orders whose ids have gaps."""
    with closing(sqlite3.connect(workdir / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, total REAL)")
        rows = [(3 * number + 1, f"customer {number}", number / 4) for number in range(2500)]
        shop.executemany("INSERT INTO orders VALUES (?, ?, ?)", rows)
    return workdir / "shop.db"


def run_example() -> dict[str, Any]:
    """Run the example of a source of one's own; return what it defines."""
    names: dict[str, Any] = {}
    exec(example("class Orders"), names)  # noqa: S102  # the README's own
    return names


def test_the_example_of_keyset_pagination_adds_only_new_orders(shop: Path) -> None:
    """The first run takes all orders, the next one only those that came since, in the same file."""
    run_example()
    first = pl.read_parquet("invoices.parquet")
    assert first["order"].to_list() == [3 * number + 1 for number in range(2500)]
    assert first["text"][2] == "customer 2 owes 0.50"
    with closing(sqlite3.connect(shop)) as connection, connection:
        connection.execute("INSERT INTO orders VALUES (100000, 'late', 1.0)")
    names = run_example()
    assert pl.read_parquet("invoices.parquet").rows() == [*first.rows(), (100000, "late owes 1.00")]
    assert names["batchkit"].Job("orders-invoice").status().done == 2501


@pytest.mark.usefixtures("shop")
def test_the_example_of_keyset_pagination_goes_on_at_its_cursor() -> None:
    """Stopped anywhere, it reads no order twice and leaves none out."""
    names = run_example()
    read: list[int] = []

    base: Any = names["Orders"]

    class Orders(base):  # type: ignore[misc]  # what the example defines
        def read(self, cursor: Any) -> Any:
            for key, item in super().read(cursor):
                read.append(key)
                yield key, item

    done = 0
    while done < 2500:
        result = batchkit.process(
            Orders(), names["invoice"], job="again", output="again.parquet", batch_size=70, max_items=333
        )
        assert result.done == min(2500, done + 333)
        done = result.done
    assert pl.read_parquet("again.parquet").equals(pl.read_parquet("invoices.parquet"))
    assert len(read) < 2500 + 8 * 70, "at most the batch at the cursor is read again"


def test_the_example_of_an_output_of_ones_own_stores_each_result_once(workdir: Path) -> None:
    """Stopped anywhere, with results written that were not committed, it holds each result once, in order."""
    (workdir / "items.txt").write_text("".join(f"item {number}\n" for number in range(250)))
    names: dict[str, Any] = {}
    exec(example("class Pages"), names)  # noqa: S102  # the README's own
    pages = sorted((workdir / "pages" / "00000").iterdir())
    expected = [f"ITEM {number}" for number in range(250)]
    assert [text for page in pages for text in json.loads(page.read_text())] == expected

    def run(**options: Any) -> batchkit.Result:
        return batchkit.process(
            "items.txt", str.upper, output=names["Pages"]("again"), job="again", batch_size=7, **options
        )

    while not run(max_items=30).completed:
        pages = sorted((workdir / "again" / "00000").iterdir())
        (workdir / "again" / "00000" / f"{len(pages):08}.json").write_text('["written", "not committed"]')
    with (workdir / "items.txt").open("a") as file:
        file.write("late\n")
    assert run().new == 1
    pages = sorted((workdir / "again").rglob("*.json"))
    assert [text for page in pages for text in json.loads(page.read_text())] == [*expected, "LATE"]
    run(restart=True)
    pages = sorted((workdir / "again").rglob("*.json"))
    assert [text for page in pages for text in json.loads(page.read_text())] == [*expected, "LATE"]
    with pytest.raises(batchkit.UsageError, match="went to Pages"):
        batchkit.Job("again").results()


def test_the_example_of_a_workflow_migrates_asks_and_goes_back(workdir: Path) -> None:
    """It applies each script once, waits at its gate, and a rollback brings the database and the workspace back."""
    (workdir / "migrations").mkdir()
    (workdir / "migrations" / "1.sql").write_text("CREATE TABLE users (name TEXT)")
    (workdir / "migrations" / "2.sql").write_text("INSERT INTO users VALUES ('Ada')")
    with closing(sqlite3.connect("shop.db")) as shop, shop:
        shop.execute("CREATE TABLE orders (id INTEGER)")
    names: dict[str, Any] = {}
    exec(example("migrate-db"), names)  # noqa: S102  # the README's own
    flow = names["flow"]
    assert flow.run(progress="none").exit_code == 6
    with closing(sqlite3.connect("shop.db")) as shop:
        assert shop.execute("SELECT * FROM users").fetchall() == [("Ada",)]
    answer(flow.store(), "approve", "yes")
    assert flow.run(progress="none").completed
    way = flow.rollback(progress="none")
    assert way.phases == ["switch", "approve", "migrate"]
    with closing(sqlite3.connect("shop.db")) as shop:
        assert shop.execute("SELECT name FROM sqlite_master").fetchall() == [("orders",)]
    assert flow.run(progress="none").phases["migrate"] == "completed"
