"""Measure the cost of a filter: its first use over many rows, later uses, and a use after rows have changed.

python -m bench.experiments.filters [ROWS]   (300,000; each row has ten words of caption, up to four tags and five
entries of metadata)

There are rows only, no pictures and vectors. "as table" asks a table of tags, made for the comparison, the same
question. Decision 22 rests on these figures.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apsw
from rich.console import Console
from rich.table import Table

from app.core.types import NewImage
from app.search.filter_cache import FilterCache
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.filters.parser import parse_filter
from app.storage.sql import Connection
from app.storage.tables import images

ROWS = 300_000
REPEATS = 20
CHANGED = 1_000
BATCH = 5_000
CITIES = ("Oslo", "Rome", "Lima", "Pune")
FILTERS: dict[str, Any] = {
    "a tag, 50 %": {"key": "tags", "match": {"value": "half"}},
    "a tag, 10 %": {"key": "tags", "match": {"value": "tenth"}},
    "a tag, 1 %": {"key": "tags", "match": {"value": "hundredth"}},
    "a tag, 0.1 %": {"key": "tags", "match": {"value": "rare7"}},
    "one of 20 tags": {"key": "tags", "match": {"any": [f"rare{n}" for n in range(20)]}},
    "width": {"key": "width", "range": {"gte": 3900}},
    "a month of created_at": {"key": "created_at", "range": {"gte": "2025-05-01", "lt": "2025-06-01"}},
    "a word of the caption": {"key": "caption", "match": {"text": "word77"}},
    "metadata, a text": {"key": "metadata.camera", "match": {"value": "x100"}},
    "metadata, a number in depth": {"key": "metadata.place.lat", "range": {"lt": 0.01}},
    "metadata, a time": {"key": "metadata.taken", "range": {"gte": "2024-01-01"}},
    "four of these": {
        "must": [
            {"key": "tags", "match": {"value": "tenth"}},
            {"key": "metadata.camera", "match": {"value": "x100"}},
        ],
        "must_not": [{"key": "width", "range": {"lt": 1000}}, {"key": "caption", "match": {"text": "word77"}}],
    },
}


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    table = Table("filter", "passes", "first use, ms", "again, ms", f"after {CHANGED:,} changes, ms")
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as scratch:
        database = open_database(Path(scratch) / "sightline.db")
        fill(database, rows)
        for name, asked in FILTERS.items():
            table.add_row(name, *measure_costs(database, asked))
        told = compare_with_tag_table(Path(scratch) / "sightline.db")
        database.close()
    console.print(f"{os.cpu_count()} cores; {rows:,} rows")
    console.print(table)
    console.print(told)


def fill(database: Database, rows: int) -> None:
    """Insert rows as uploads do, BATCH in a transaction."""
    draw = random.Random(1)
    made = (make_image(n, draw) for n in range(rows))
    for start in range(0, rows, BATCH):
        database.write(partial(insert_rows, [next(made) for _ in range(min(BATCH, rows - start))]))
    spread = "UPDATE images SET created_at = printf('2025-%02d-01T00:00:00.000Z', 1 + key * 12 / ?) WHERE key < ?"
    database.write(lambda c: list(c.execute(spread, (rows, rows))))


def insert_rows(some: Sequence[NewImage], c: Connection) -> None:
    for one in some:
        images.add(c, "default", one, None, False)


def make_image(n: int, draw: random.Random) -> NewImage:
    """The row of picture number `n`."""
    tags = [name for name, share in (("half", 0.5), ("tenth", 0.1), ("hundredth", 0.01)) if draw.random() < share]
    return NewImage(
        sha256=f"{n:064x}",
        format=draw.choice(["jpeg", "png", "webp"]),
        bytes=draw.randint(1_000, 1_000_000),
        width=draw.randint(100, 4_000),
        height=draw.randint(100, 4_000),
        caption=" ".join(f"word{draw.randrange(2_000)}" for _ in range(10)),
        tags=(*tags, f"rare{draw.randrange(1_000)}"),
        metadata={
            "camera": draw.choice(["x100", "d750"]),
            "iso": draw.choice([100, 200, 400]),
            "place": {"city": draw.choice(CITIES), "lat": draw.random()},
            "taken": f"{draw.randint(2010, 2024)}-{draw.randint(1, 12):02d}-01T10:00:00Z",
        },
        source=f"holiday/img{n}.jpg",
    )


def measure_costs(database: Database, asked: Any) -> Iterator[str]:
    """Yield how many rows pass, and the milliseconds of the first use, of later uses, and of one after changes."""
    filter = parse_filter(asked, "images")
    firsts = [time_ms(lambda: FilterCache(database).allowed_ids("default", filter)) for _ in range(3)]
    selections = FilterCache(database)
    yield f"{len(selections.allowed_ids('default', filter)):,}"
    yield f"{min(firsts):.0f}"
    again = [time_ms(lambda: selections.allowed_ids("default", filter)) for _ in range(REPEATS)]
    yield f"{statistics.median(again):.2f}"
    change = "UPDATE images SET caption = caption || 'x' WHERE key % (SELECT max(key) / ? FROM images) = 1"
    database.write(lambda c: list(c.execute(change, (CHANGED,))))
    yield f"{time_ms(lambda: selections.allowed_ids('default', filter)):.1f}"


def time_ms(work: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def compare_with_tag_table(path: Path) -> str:
    """Time how long a table of tags takes to make, and two of the questions asked of it."""
    c = apsw.Connection(str(path))
    made = time_ms(
        lambda: c.execute(
            "CREATE TABLE image_tags (tag TEXT, key INTEGER, PRIMARY KEY (tag, key)) WITHOUT ROWID;"
            "INSERT INTO image_tags SELECT value, key FROM (SELECT images.key AS key, each.value AS value"
            " FROM images, json_each(images.tags) AS each)"
        ).fetchall()
    )
    asked = "SELECT key FROM image_tags WHERE tag = ?"
    half = time_ms(lambda: c.execute(asked, ("half",)).fetchall())
    tenth = time_ms(lambda: c.execute(asked, ("tenth",)).fetchall())
    c.close()
    return f"as table: made in {made / 1000:.1f} s; a tag of 50 % in {half:.0f} ms, of 10 % in {tenth:.0f} ms"


if __name__ == "__main__":
    main()
