"""Open data directories of former versions; kill a migration half-way."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import apsw
import pytest

from app.core.types import ItemStatus, JobState, Status
from app.decode.limits import PictureLimits
from app.storage.address import open_database
from app.storage.blobs import BlobStore
from app.storage.keywords import register_functions
from app.storage.library import Library
from app.storage.sql import fetch_number
from app.storage.sqlite import check_integrity
from app.storage.tables import embeddings, jobs, texts
from app.storage.verify import find_faults
from tests.support.servers import RunningServer

FOLDER = Path(__file__).parent / "schemas"
SQL = Path(__file__).parent.parent.parent / "app/storage/migrations"
KEPT = sorted(int(path.stem.removeprefix("schema-")) for path in FOLDER.glob("schema-*.zip"))
STEPS = {int(path.name[:4]): path.read_text("utf-8") for path in sorted(SQL.glob("*.sql"))}
NEWEST = max(STEPS)


def unpack_data_dir(version: int, data: Path) -> Path:
    """A data directory as the code of this schema left it; for a schema without one, a former one migrated."""
    kept = max(one for one in KEPT if one <= version)
    with zipfile.ZipFile(FOLDER / f"schema-{kept}.zip") as archive:
        archive.extractall(data)
    connection = apsw.Connection(str(data / "sightline.db"))
    assert connection.pragma("user_version") == kept
    register_functions(connection)
    for step in (one for one in STEPS if kept < one <= version):
        connection.execute(STEPS[step])
        connection.pragma("user_version", step)
    connection.close()
    return data


@cache
def log_of(database: Path) -> list[Any]:
    """The vectors of a log, for any schema."""
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return list(connection.execute("SELECT seq, op, target, key, vector FROM embeddings ORDER BY seq"))
    finally:
        connection.close()


def test_the_schemas_that_were_served_are_kept() -> None:
    assert {1, 2, 3, 6} <= set(KEPT) <= set(STEPS)


@pytest.mark.parametrize("version", sorted(STEPS))
def test_a_directory_of_a_former_schema_is_opened_with_everything_in_it(version: int, tmp_path: Path) -> None:
    data = unpack_data_dir(version, tmp_path)
    before = log_of(data / "sightline.db")
    assert before
    database = open_database(data / "sightline.db")
    try:
        assert database.read(lambda c: fetch_number(c, "PRAGMA user_version")) == NEWEST
        library = Library(database, BlobStore(data), PictureLimits(), 1_000)
        pictures = {image.id: image for image in library.list_images("default", 100, None)}
        ready = {id: image for id, image in pictures.items() if image.status is Status.READY}
        assert len(ready) == 4
        for n, id in enumerate(("red", "green", "blue")):
            image = ready[id]
            assert (image.caption, image.tags) == (f"a {id} thing é 图", (f'["{id}", "old"]',))
            assert image.metadata == {"n": n, "shelf": {"row": id}}
        for image in ready.values():
            with library.open_file("default", image.id)[1] as file:
                assert hashlib.sha256(file.read()).hexdigest() == image.sha256
        keys = [image.key for image in ready.values()]
        assert {len(one) for one in database.read(lambda c: embeddings.get_vectors(c, "images", keys)).values()} == {
            60 * 4
        }
        assert "yellow" not in pictures
        text = database.read(lambda c: texts.get(c, "default", "t1"))
        assert text is not None
        assert (text.text, text.metadata) == ("red", {"k": 1})
        (job,) = database.read(lambda c: jobs.list_recent(c, 10))
        assert (job.state, job.done, job.failed) == (JobState.SUCCEEDED, 1, 1)
        (torn,) = database.read(lambda c: jobs.list_items(c, job.id, ItemStatus.FAILED, 0, 10))
        assert torn[1].name == "torn.png"
        assert database.read(check_integrity) == []
    finally:
        database.close()
    assert log_of(data / "sightline.db") == before
    assert find_faults(data) == []


def test_a_server_of_today_answers_from_the_oldest_directory(tmp_path: Path) -> None:
    with RunningServer(unpack_data_dir(1, tmp_path / "data")) as server:
        for word in ("red", "green", "blue"):
            assert server.http.get("/v1/search", params={"q": word, "k": 1}).json()["hits"][0]["id"] == word
        hits = server.http.get("/v1/search", params={"q": "blue", "target": "texts", "k": 1}).json()["hits"]
        assert hits[0]["id"] == "t2"


def test_a_migration_killed_at_any_statement_leaves_a_whole_schema_and_goes_on(tmp_path: Path) -> None:
    data = unpack_data_dir(1, tmp_path / "data")
    whole: dict[int, list[str]] = {}
    step = apsw.Connection(str(shutil.copyfile(data / "sightline.db", tmp_path / "step.db")))
    register_functions(step)
    for version in STEPS:
        if version > 1:
            step.execute(STEPS[version])
        whole[version] = sorted(str(row[0]) for row in step.execute("SELECT sql FROM sqlite_schema"))
    step.close()
    told = subprocess.run(
        [sys.executable, "-m", "tests.acceptance.killed_migration", str(data / "sightline.db")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    kills = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(kills) > 2 * len(STEPS)
    statements = sum(len(re.findall(r";\s*$", text, re.MULTILINE)) for text in STEPS.values())
    assert len(kills) < 4 * statements
    for kill in kills:
        after, again = kill["after"], kill["again"]
        assert after["schema"] == whole[after["version"]]
        assert (again["version"], again["schema"]) == (NEWEST, whole[NEWEST])
        assert after["pictures"] == again["pictures"] == kills[0]["after"]["pictures"]
        assert after["faults"] == again["faults"] == ["ok"]
    assert {kill["after"]["version"] for kill in kills} >= set(STEPS) - {NEWEST}
