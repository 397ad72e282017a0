"""Results made into frames of one schema: found as results come, or given in advance."""

from __future__ import annotations

from itertools import chain
from typing import Any

import polars as pl

from batchkit.frames.columns import NO_COLUMN, Mismatch, column, frame_of_columns
from batchkit.frames.schemas import fit, unify, without_place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from batchkit.frames.schemas import Schema

MISSING = "not there"


class Fitting:
    """Knows the schema of an output, and makes results fit it.

    schema: what is known of it; `None` before the first result. A column of which only nulls are known has the type
    Null; the first value that comes up decides. Otherwise the first results decide columns and types.
    fixed: whether it was given in advance.
    """

    def __init__(self, schema: Schema | None, agreed: Callable[[Schema], Schema] = lambda schema: schema) -> None:
        """Begin with a schema that is fixed in advance, or with `None`.

        agreed: asked before results change what is known; returns the schema they found, or another one to go by.
        """
        self.fixed = schema is not None
        self._agreed = agreed
        self._keep(schema)

    def _keep(self, schema: Schema | None) -> None:
        """Keep a schema, and its parts: comparing those of a frame with them costs a tenth of comparing schemas."""
        self.schema = schema
        self._names = None if schema is None else list(schema)
        self._types = None if schema is None else list(schema.values())

    def learn(self, schema: Schema) -> None:
        """Take over what the output holds already."""
        if not self.fixed:
            self._keep(schema)

    def of_rows(self, rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
        """Return dicts as a frame of the schema; a missing key is null. Raises `Mismatch`."""
        while True:
            frame = self._of_rows(rows)
            if self._learned(frame):
                return frame

    def _of_rows(self, rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
        schema = self.schema
        names = dict.fromkeys(chain.from_iterable(rows)) if schema is None else schema
        if schema is not None:
            _refuse_new_keys(rows, schema)
        elif not names:
            raise Mismatch("", 0, "an empty row", NO_COLUMN)
        columns = []
        for name in names:
            values = [row.get(name) for row in rows]
            columns.append(column(name, values) if schema is None else self._fitted(name, values, schema[name]))
        return frame_of_columns(columns)

    def of_table(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return a frame in the schema: its columns in that order, its types as they must be. Raises `Mismatch`."""
        while True:
            if self._names == frame.columns and self._types == frame.dtypes:
                return frame
            fitted = self._of_table(frame)
            if self._learned(fitted):
                return fitted

    def _of_table(self, frame: pl.DataFrame) -> pl.DataFrame:
        schema = self.schema
        if schema is None:
            return frame
        for name in frame.columns:
            if name not in schema:
                raise Mismatch(name, None, str(frame.schema[name]), MISSING)
        for name, dtype in schema.items():
            if name not in frame.columns:
                raise Mismatch(name, None, MISSING, str(dtype))
        return frame_of_columns(fit(frame[name], dtype, exact=not self.fixed) for name, dtype in schema.items())

    def _fitted(self, name: str, values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
        """Return a column of Python values in a type."""
        try:
            return self._fit(column(name, values), dtype)
        except Exception as error:
            fitted = []
            for index, value in enumerate(values):
                try:
                    fitted.append(self._fit(column(name, [value]), dtype))
                except Mismatch as alone:
                    raise Mismatch(alone.column, index, alone.found, alone.wanted) from error
                except Exception:  # noqa: BLE001  # whatever it is, this value is the one to name
                    raise Mismatch(name, index, f"{value!r:.60}", str(dtype)) from error
            if any(each.dtype != dtype for each in fitted):
                raise
            return pl.concat(fitted)  # of several types, of which each becomes that of the output

    def _fit(self, series: pl.Series, dtype: pl.DataType) -> pl.Series:
        """Convert what must not be guessed at only to a schema given in advance; a whole number may be a float."""
        whole = series.dtype.is_integer() and dtype.is_float()
        return fit(series, dtype, exact=not (self.fixed or whole))

    def _learned(self, frame: pl.DataFrame) -> bool:
        """Take over what a frame tells; return whether it can stay as it is: else there is another schema to go by."""
        if self._types == frame.dtypes:
            return True
        _refuse_misfits(frame)
        if self.fixed:
            return True
        found = dict(frame.schema)
        agreed = self._agreed(found)
        self._keep(agreed)
        return agreed is found


def _refuse_new_keys(rows: Sequence[dict[str, Any]], schema: Schema) -> None:
    new = set().union(*rows) - schema.keys()
    if new:
        index, row = next((index, row) for index, row in enumerate(rows) if row.keys() & new)
        name = next(key for key in row if key in new)
        raise Mismatch(str(name), index, str(column("", [row[name]]).dtype), MISSING)


def _refuse_misfits(frame: pl.DataFrame) -> None:
    """Refuse at once what Parquet has no place for: polars would say so when all is done, and nothing would help."""
    for series in frame.get_columns():
        what = without_place(series.dtype)
        if what is not None:
            index = next((index for index, value in enumerate(series) if value is not None), None)
            raise Mismatch(series.name, index, what, NO_COLUMN)


def common(schemas: Iterable[Schema]) -> Schema:
    """Return the schema that holds what all of these describe. Raises `Mismatch`."""
    whole: Schema = {}
    for schema in schemas:
        if whole and whole.keys() != schema.keys():
            name = next(iter(whole.keys() ^ schema.keys()))
            raise Mismatch(name, None, MISSING if name in whole else str(schema[name]), str(whole.get(name, MISSING)))
        whole = {name: unify(name, whole.get(name, dtype), dtype) for name, dtype in schema.items()}
    return whole


def cast(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """Return a frame whose nulls have the types of the schema."""
    if frame.schema == schema:
        return frame
    return frame_of_columns(fit(frame[name], dtype, exact=True) for name, dtype in schema.items())
