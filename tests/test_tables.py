"""Tables as input and output: what Parquet files hold comes back as it was, or one clear error says why not."""

from __future__ import annotations

import datetime
import decimal
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import batchkit
from tests.kernels import Unsynced, installed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@pytest.fixture(autouse=True)
def _unsynced(workdir: Path) -> Iterator[None]:
    """Work in a directory of one's own, without syncs."""
    del workdir
    with installed(Unsynced()):
        yield


def run(results: Sequence[Any], *, job: str = "job", **options: Any) -> batchkit.Result:
    """Run a job over the numbers of these results, which its function returns."""

    def result_of(number: int) -> Any:
        return results[number]

    options = {"batch_size": 3, "progress": "none", "sync_interval": None, "output": "out.parquet", **options}
    return batchkit.process(range(len(results)), result_of, job=job, **options)


def refused(results: Sequence[Any], **options: Any) -> batchkit.ItemError:
    """Return the error that a run ends with, of an item, in one line."""
    with pytest.raises(batchkit.ItemError) as caught:
        run(results, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def kept() -> list[Any]:
    """Return what the job has stored so far."""
    return list(batchkit.Job("job").results())


def found(path: str = "out.parquet") -> list[dict[str, Any]]:
    """Return the rows of a Parquet file, as polars reads them."""
    return pl.read_parquet(path).to_dicts()


class TestRefusals:
    """A result that does not fit is its item's error, and the job goes on from there once it is mended."""

    def test_of_two_results_that_do_not_fit_the_first_is_named(self) -> None:
        """Also where the one that is found first stands behind the other."""
        error = refused([{"a": None}, {"a": False}, {"a": []}, {"b": None}], batch_size=4)
        assert (error.item, kept()) == (2, [{"a": None}, {"a": False}])
        assert "its column 'a' is List here and Boolean before" in str(error)

    @pytest.mark.parametrize("value", [{}, [{}], {"x": {}}])
    def test_an_empty_dict_is_refused_at_once_and_not_when_all_is_done(self, value: Any) -> None:
        """Parquet has no place for a struct without fields; the results before it are kept."""
        error = refused([{"a": None}, {"a": None}, {"a": value}], batch_size=3)
        assert "its column 'a' is an empty dict, which a Parquet file cannot hold" in str(error)
        assert kept() == [{"a": None}, {"a": None}]
        run([{"a": None}, {"a": None}, {"a": 1}])
        assert found() == [{"a": None}, {"a": None}, {"a": 1}]

    def test_an_empty_row_is_refused_where_no_column_is_known(self) -> None:
        """It would be lost without a word; later on it is a row of nulls."""
        assert "it is an empty row, which a Parquet file cannot hold" in str(refused([{}, {}]))
        run([{"a": 1}, {}, {}, {}], job="other", output="other.parquet")
        assert found("other.parquet") == [{"a": 1}, {"a": None}, {"a": None}, {"a": None}]

    def test_a_column_without_a_name_keeps_its_name(self) -> None:
        """Polars would call it column_0."""
        run([{"": 1, "b": 2}, {"": 3}])
        assert found() == [{"": 1, "b": 2}, {"": 3, "b": None}]

    @pytest.mark.parametrize(
        ("value", "what"),
        [
            (decimal.Decimal("NaN"), "the decimal NaN"),
            (decimal.Decimal("-Infinity"), "the decimal -Infinity"),
            (datetime.time(1, 2, tzinfo=datetime.UTC), "a time with a zone"),
            ({1, 2}, "a set"),
            (object(), "a object"),
            ([{1}], "a set"),
        ],
        ids=str,
    )
    def test_a_value_that_no_column_holds_is_refused(self, value: Any, what: str) -> None:
        """Polars would panic about some, and drop a part of others; the results before it are kept."""
        error = refused([{"a": None}, {"a": None}, {"a": value}], batch_size=2)
        assert f"is {what}, which a Parquet file cannot hold" in str(error)
        assert kept() == [{"a": None}, {"a": None}]

    @pytest.mark.parametrize(
        "series",
        [
            pl.Series("a", [object()], dtype=pl.Object),
            pl.Series("a", [[]], dtype=pl.Array(pl.Int8, 0)),
            pl.Series("a", [{}]),
        ],
        ids=lambda series: str(series.dtype),
    )
    def test_a_table_with_a_column_that_parquet_does_not_know_is_refused(self, series: pl.Series) -> None:
        """Python objects, for one, would be stored as their addresses in memory."""
        error = refused([{"a": None}, pl.DataFrame([series])], batch_size=1)
        assert "which a Parquet file cannot hold" in str(error)
        assert kept() == [{"a": None}]

    def test_datetimes_with_and_without_a_zone_are_not_mixed(self) -> None:
        """Not even within a batch, where polars would take the ones for the others."""
        at = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        error = refused([{"a": at.replace(tzinfo=None)}, {"a": at}])
        assert error.item == 1
        assert "its column 'a' is Datetime with a zone here and Datetime without one before" in str(error)
        error = refused([{"a": at}, {"a": at.replace(tzinfo=None)}], job="other", output="other.parquet")
        assert error.item == 1

    def test_a_duration_keeps_its_microseconds_or_is_refused(self) -> None:
        """Polars would cut one that is very long to milliseconds."""
        run([{"a": datetime.timedelta(days=100_000_000, microseconds=1)}])
        assert found() == [{"a": datetime.timedelta(days=100_000_000, microseconds=1)}]
        assert refused([{"a": datetime.timedelta.max}], job="other", output="other.parquet").item == 0
