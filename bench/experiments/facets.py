"""Measure what facets and ordered lists cost: the first use over many rows, later uses, and one after changes.

python -m bench.experiments.facets [ROWS]   (100,000; the rows are those of bench.experiments.filters)

Decision 54 rests on these figures. "in SQL" asks SQLite the same question by GROUP BY.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app.search.facets import FacetCounter
from app.search.filter_cache import FilterCache
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.filters.parser import parse_filter
from app.storage.filters.values import Place, parse_field, parse_order, select_ordered
from bench.experiments.filters import CHANGED, REPEATS, fill, time_ms

ROWS = 100_000
FACETS = ("tags", "format", "year", "metadata.iso", "metadata.place.city", "metadata.place.lat")
ORDERS = ("-created_at", "width", "metadata.place.lat", "-metadata.taken")
HALF = {"key": "tags", "match": {"value": "half"}}
IN_SQL = (
    "SELECT atom, count(*) FROM images, json_each(tags) WHERE images.key IN (SELECT value FROM json_each(?)) GROUP BY 1"
)


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as scratch:
        database = open_database(Path(scratch) / "sightline.db")
        fill(database, rows)
        database.write(lambda c: list(c.execute("UPDATE images SET status = 'ready'")))
        console.print(f"{os.cpu_count()} cores; {rows:,} rows; milliseconds")
        console.print(measure_facets(database))
        console.print(measure_orders(database))
        database.close()


def measure_facets(database: Database) -> Table:
    """Time the counts of each field, among all rows and among half of them."""
    table = Table(
        "facet", "values", "first use", "again, all rows", "again, half of them", f"after {CHANGED:,} changes"
    )
    for name in (*FACETS, ", ".join(FACETS[:3])):
        table.add_row(name, *measure_facet(database, name.split(", ")))
    half = json.dumps([*FilterCache(database).allowed_ids("default", parse_filter(HALF, "images"))])
    spent = time_ms(lambda: database.read(lambda c: list(c.execute(IN_SQL, (half,)))))
    table.add_row("tags in SQL", "", "", "", f"{spent:.1f}", "")
    return table


def measure_facet(database: Database, names: list[str]) -> Iterator[str]:
    """Yield how many values some fields have, and the milliseconds of each use."""
    fields = [parse_field(one, "images", "facets") for one in names]
    counter, half = FacetCounter(database), parse_filter(HALF, "images")

    def count() -> object:
        return counter.count("default", "images", fields, 10)

    def count_half() -> object:
        return counter.count("default", "images", fields, 10, half)

    first = time_ms(count)
    yield f"{sum(map(len, counter.count('default', 'images', fields, 1 << 30).values())):,}"
    yield f"{first:.0f}"
    yield f"{statistics.median(time_ms(count) for _ in range(REPEATS)):.1f}"
    count_half()
    yield f"{statistics.median(time_ms(count_half) for _ in range(REPEATS)):.1f}"
    change = "UPDATE images SET caption = caption || 'x' WHERE key % (SELECT max(key) / ? FROM images) = 1"
    database.write(lambda c: list(c.execute(change, (CHANGED,))))
    yield f"{time_ms(count):.1f}"


def measure_orders(database: Database) -> Table:
    """Time the first page of lists in an order, and the page after."""
    table = Table("order of a list", "first 60", "next 60")
    for text in ORDERS:
        places = select_page(database, text, None)
        pages = (None, places[-1])
        table.add_row(text, *(f"{time_ms(partial(select_page, database, text, after)):.0f}" for after in pages))
    return table


def select_page(database: Database, order: str, after: Place | None) -> list[Place]:
    return database.read(lambda c: select_ordered(c, "default", None, parse_order(order, "images"), 60, after))


if __name__ == "__main__":
    main()
