"""Tables as input and output: what Parquet files hold comes back as it was, or one clear error says why not."""

from __future__ import annotations

import math
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
