from __future__ import annotations

import shutil
import tarfile
from contextlib import closing
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from app.core.errors import Validation
from app.core.types import SourceSpec
from app.decode.pool import DecodePool
from app.sources.base import SourceContext, SourceItem, SourcePolicy
from app.sources.img2dataset import Img2datasetSource
from app.sources.local_files import AllowedFolders
from app.storage.library import Library
from tests.app.sources.moved import paint, write_sidecars
from tests.support.makers import never_stop


def scan_and_fetch(library: Library, pool: DecodePool, root: Path, place: Path, **options: bool) -> list[SourceItem]:
    """The lines with the files that they brought."""
    allowed = SourcePolicy(AllowedFolders((root,)))
    tools = SourceContext(library.database, library.blobs, allowed, pool=pool)
    target = root / "work" / "fetched"
    target.mkdir(parents=True, exist_ok=True)
    with closing(
        Img2datasetSource(Img2datasetSource.resolve(SourceSpec("img2dataset", str(place), options), allowed), tools)
    ) as source:
        lines = list(source.scan(root / "work", "default", never_stop))
        came = iter(source.fetch(target, [line for line in lines if "error" not in line], never_stop))
    return [line if "error" in line else next(came) for line in lines]


def test_pictures_come_with_what_stands_beside_them(library: Library, pool: DecodePool, tmp_path: Path) -> None:
    paths = paint(tmp_path / "data", 5)
    write_sidecars(paths[0], "red\n", url="http://example.org/0", exif="{}", width=None)
    write_sidecars(paths[1], "green")
    paths[1].with_suffix(".txt").unlink()
    paths[2].with_suffix(".json").write_text("no json")
    paths[3].with_suffix(".txt").write_bytes(b"x" * 70_000)
    came = scan_and_fetch(library, pool, tmp_path, tmp_path / "data", key_as_id=True)
    assert [line.get("error", {}).get("code") for line in came] == [None] * 5
    assert [len(line.get("warnings", ())) for line in came] == [0, 0, 1, 1, 0]
    assert (came[0]["id"], came[0]["caption"], came[0]["metadata"]) == (
        "000000000",
        "red",
        {"url": "http://example.org/0"},
    )
    assert came[1]["caption"] == "green"
    assert "caption" not in came[4]
    assert came[4]["name"] == "data/00001/000000004.png"
    assert (tmp_path / "work" / came[4]["file"]).read_bytes() == paths[4].read_bytes()


def test_tars_and_pictures_of_one_folder_both_come(library: Library, pool: DecodePool, tmp_path: Path) -> None:
    paths = paint(tmp_path / "data", 3)
    write_sidecars(paths[0], "in a tar", url="http://example.org/0")
    with tarfile.open(tmp_path / "data" / "00000.tar", "w") as tar:
        for path in (paths[0], paths[0].with_suffix(".txt"), paths[0].with_suffix(".json")):
            tar.add(path, path.name)
    first = paths[0].read_bytes()
    for beside in paths[0].parent.glob("000000000.*"):
        beside.unlink()
    came = scan_and_fetch(library, pool, tmp_path, tmp_path / "data")
    assert [line["name"] for line in came] == [
        "00000.tar/000000000.png",
        "data/00000/000000001.png",
        "data/00000/000000002.png",
    ]
    assert (came[0]["caption"], came[0]["metadata"]["url"]) == ("in a tar", "http://example.org/0")
    assert [(tmp_path / "work" / line["file"]).read_bytes() for line in came] == [
        first,
        *(path.read_bytes() for path in paths[1:]),
    ]


def test_tables_count_where_there_is_nothing_else(library: Library, pool: DecodePool, tmp_path: Path) -> None:
    paths = paint(tmp_path / "data", 2)
    contents = [path.read_bytes() for path in paths]
    rows = {"key": ["000", "001"], "caption": ["one", "two"], "jpg": contents, "url": ["http://example.org/"] * 2}
    parquet.write_table(pyarrow.table(rows), tmp_path / "data" / "00000.parquet")
    assert (
        len(scan_and_fetch(library, pool, tmp_path, tmp_path / "data")) == 2
    )  # the pictures, and not the rows as well
    shutil.rmtree(paths[0].parent)
    came = scan_and_fetch(library, pool, tmp_path, tmp_path / "data")
    assert [line["caption"] for line in came] == ["one", "two"]
    assert [(tmp_path / "work" / line["file"]).read_bytes() for line in came] == contents


def test_a_folder_with_nothing_of_all_is_told(library: Library, pool: DecodePool, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(Validation, match="no tars, pictures or Parquet tables"):
        scan_and_fetch(library, pool, tmp_path, tmp_path / "data")
    with pytest.raises(Validation):
        scan_and_fetch(library, pool, tmp_path / "data", tmp_path)
