from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from app.cli import export
from app.cli.main import main
from app.decode import parquet_writer
from app.storage.address import open_database
from app.storage.tables import collections, images
from tests.support.makers import SPACE, claim, finish, insert


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(export, "PART", 2)
    folder = tmp_path / "data"
    folder.mkdir()
    database = open_database(folder / "sightline.db")
    database.write(lambda c: collections.create(c, "empty", ""))
    for n in range(5):
        insert(database, n, f"p{n}", caption="é" if n else None, tags=("a", "b"), metadata={"n": [n]})
        vector = np.eye(4, dtype="<f4")[n % 4]
        (lease,) = claim(database)
        finish(database, lease, vector.tobytes())
    insert(database, 9, "waits")
    database.close()
    return folder


def run(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(main, ["export", *map(str, words)])
    return found.exit_code, found.output


def test_an_export_has_every_ready_picture_with_its_vector(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    out.write_text("from before")
    code, told = run("--vectors", out, "--data-dir", data_dir)
    assert (code, told.split(" in ")[0]) == (0, "5 pictures are")
    table = pq.read_table(out)
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert (about["space"], about["model"], about["d"], about["collection"]) == (
        SPACE.fingerprint,
        SPACE.model,
        "4",
        "default",
    )
    assert table["id"].to_pylist() == [f"p{n}" for n in range(5)]
    assert table["vector"].to_pylist() == np.eye(4)[[0, 1, 2, 3, 0]].tolist()
    first, second = table.slice(0, 2).to_pylist()
    assert (first["caption"], second["caption"], first["tags"]) == (None, "é", ["a", "b"])
    assert json.loads(second["metadata"]) == {"n": [1]}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_picture_that_goes_meanwhile_is_left_out(data_dir: Path) -> None:
    database = open_database(data_dir / "sightline.db")
    parts = export.read_parts(database, "default", SPACE)
    assert len(next(parts)) == 2
    database.write(lambda c: c.execute("DELETE FROM images WHERE id IN ('p2', 'p3')"))
    assert [image.id for part in parts for image, _ in part] == ["p4"]
    database.close()


def test_an_export_across_a_change_of_the_model_is_refused(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces = iter([SPACE, None])
    monkeypatch.setattr(export, "find_space", lambda *_: next(spaces))
    code, told = run("--vectors", tmp_path / "out.parquet", "--data-dir", data_dir)
    assert (code, "was changed meanwhile" in told) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--collection", "empty"], "has no vectors yet"),
        (["--collection", "emty"], "there is no collection 'emty'"),
        (["--vectors", "/nowhere/at/all.parquet"], "cannot be written: No such file or directory"),
        (["--data-dir", "/nowhere"], "there is no data directory"),
    ],
)
def test_what_cannot_be_exported_is_said(data_dir: Path, tmp_path: Path, options: list[str], message: str) -> None:
    code, told = run("--vectors", tmp_path / "out.parquet", "--data-dir", data_dir, *options)
    assert code == 2
    assert message in told
    assert not (tmp_path / "out.parquet").exists()


def test_the_rows_of_a_table_are_those_of_pictures(data_dir: Path) -> None:
    database = open_database(data_dir / "sightline.db")
    image = database.read(lambda c: images.get(c, "default", "p1"))
    database.close()
    assert image is not None
    assert export.make_row(image).keys() == parquet_writer.COLUMNS.keys()
