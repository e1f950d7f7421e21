"""The index is disposable: if it is damaged or deleted, the server rebuilds it from the log, with the same answers.

The proof saves an index with a sealed and a growing segment. Each time it damages one random file of it (changes a
byte, truncates, empties, removes, extends it, or swaps it with another), opens the index, and compares the answers to
50 queries with the true ones. Then it builds an index of 100,000 vectors of 512 numbers from the log alone.

Failing: a score is off by more than 1/1024; an index does not open; the 100,000 take more than 60 seconds.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from app.storage.address import open_database
from app.storage.database import Database
from bench import data_directory
from index.types import Embeddings
from tests.reliability import indexed
from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.servers import wait_until

PROMISE = Promise(5, "index", "The index is disposable: deleted or corrupted, it is rebuilt and answers the same.")
BASE, TAIL, D = 1_200, 300, 32
OFF = 2**-10
BOUND = 60.0


def run(scale: Scale) -> Outcome:
    """500 corruptions, and a rebuild of 100,000."""
    corruptions, many = scale.pick(60, 500), scale.pick(10_000, 100_000)
    dice = random.Random(5)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = prepare(folder / "small")
        with closing(open_database(folder / "small" / "sightline.db")) as database:
            for n in range(corruptions):
                copy = folder / "copy"
                shutil.copytree(folder / "small" / "snapshots", copy)
                what = damage(copy, dice) if n else "nothing"
                if why := find_difference(database, copy, expected):
                    wrong.append(f"{what}: {why}")
                shutil.rmtree(copy)
        seconds, why = time_rebuild(folder / "large", many)
        wrong += [why] if why else []
    figure = f"{corruptions} corruptions, {len(wrong)} wrong answers; {many:,} vectors rebuilt in {seconds:.0f} s"
    if wrong:
        figure += f"; {wrong[0]}"
    return Outcome(figure, not wrong and seconds <= BOUND)


def prepare(data: Path) -> Embeddings:
    """Save an index with both segments; returns the scores that it must give."""
    rows = indexed.fill(data, BASE, D)
    with (
        closing(open_database(data / "sightline.db")) as database,
        closing(indexed.open_service_index(database, data / "snapshots", D, least=BASE // 2)) as indexes,
    ):
        wait_until(lambda: indexes.stats("default")["images"]["base"] == BASE, indexed.SECONDS)
        more = indexed.vectors(TAIL, D, 3)
        seq = data_directory.add_pictures(database, indexed.space(D), BASE + 1, more)
        assert indexes.wait_until_applied("default", "images", seq, 60)
    return indexed.search_exactly(np.concatenate([rows, more]))[0]


def damage(folder: Path, dice: random.Random) -> str:
    """Damage one file; returns a description of the damage."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = dice.choice(files)
    content = bytearray(path.read_bytes())
    kind = dice.choice(("flipped", "cut", "emptied", "removed", "longer", "exchanged"))
    if kind == "flipped" and content:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    elif kind == "cut":
        del content[dice.randrange(len(content) or 1) :]
    elif kind == "emptied":
        content.clear()
    elif kind == "longer":
        content += dice.randbytes(dice.randrange(1, 5000))
    elif kind == "exchanged":
        content = bytearray(dice.choice(files).read_bytes())
    path.unlink() if kind == "removed" else path.write_bytes(content)
    return f"{path.name} {kind}"


def find_difference(database: Database, folder: Path, expected: Embeddings) -> str:
    """The fault in the answers of the index in a folder; empty if they are right."""
    try:
        with closing(indexed.open_service_index(database, folder, D)) as indexes:
            scores, _ = indexed.ask(indexes, D)
    except Exception as error:
        return repr(error)
    worst = float(np.abs(scores - expected).max())
    return f"a score is off by {worst:.4f}" if worst > OFF else ""


def time_rebuild(data: Path, count: int) -> tuple[float, str]:
    """Seconds until an index without files answers correctly, and its fault if it does not."""
    rows = indexed.fill(data, count, 512)
    expected = indexed.search_exactly(rows)[0]
    with closing(open_database(data / "sightline.db")) as database:
        began = time.monotonic()
        with closing(indexed.open_service_index(database, data / "snapshots", 512)) as indexes:
            scores, _ = indexed.ask(indexes, 512)
        seconds = time.monotonic() - began
    return seconds, "" if float(np.abs(scores - expected).max()) <= OFF else "rebuilt wrongly"
