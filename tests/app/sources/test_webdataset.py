from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ArchiveLimit, Overloaded, Validation
from app.core.types import SourceSpec
from app.decode.pool import DecodePool
from app.sources.base import SourceContext, SourceItem, SourcePolicy
from app.sources.local_files import AllowedFolders
from app.sources.webdataset import WebdatasetSource
from app.storage.library import Library
from app.storage.tables import source_cache
from app.storage.tables.source_cache import CacheEntry
from tests.support.archives import make_tar
from tests.support.makers import add, never_stop
from tests.support.pictures import picture

RED, BLUE, GREEN = picture("red"), picture("blue"), picture("green")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "00000.tar").write_bytes(make_tar({"0001.png": RED, "0001.txt": b"red", "0002.png": BLUE}))
    (shards / "00001.tar").write_bytes(b"no tar at all")
    (shards / "00002.tar").write_bytes(make_tar({"0003.png": GREEN, "0003.json": b'{"n": 1}'}))
    return shards


def source(library: Library, pool: DecodePool, place: str, options: dict[str, Any], **allowed: Any) -> WebdatasetSource:
    tools = SourceContext(library.database, library.blobs, SourcePolicy(**allowed), None, pool)
    return WebdatasetSource(SourceSpec("webdataset", place, options), tools)


def test_pictures_come_out_of_tars_and_again_only_what_is_new(
    library: Library, pool: DecodePool, shards: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()

    def scan_and_fetch() -> list[SourceItem]:
        dataset = source(library, pool, str(shards), {"key_as_id": True}, folders=AllowedFolders((shards,)))
        lines = list(dataset.scan(tmp_path, "default", never_stop))
        came = dataset.fetch(work, [line for line in lines if "error" not in line], never_stop)
        dataset.close()
        for line in came:
            known = CacheEntry(line["tag"], add(library, (tmp_path / line["file"]).read_bytes()).image.sha256)
            library.database.write(lambda c, line=line, known=known: source_cache.store(c, line["origin"], known))  # type: ignore[misc]
        return lines

    assert [(line["name"], line.get("id"), line.get("caption"), "error" in line) for line in scan_and_fetch()] == [
        ("00000.tar/0001.png", "0001", "red", False),
        ("00000.tar/0002.png", "0002", None, False),
        ("00001.tar", None, None, True),
        ("00002.tar/0003.png", "0003", None, False),
    ]
    assert {image.sha256 for image in library.list_images("default", 9, None)} == {
        add(library, content).image.sha256 for content in (RED, BLUE, GREEN)
    }
    assert [line["name"] for line in scan_and_fetch()] == ["00001.tar"]
    (shards / "00002.tar").write_bytes(make_tar({"0003.png": GREEN, "0004.png": RED}))
    assert [line["name"] for line in scan_and_fetch()] == ["00001.tar", "00002.tar/0003.png", "00002.tar/0004.png"]


def test_a_tar_that_changed_or_went_meanwhile_is_told(
    library: Library, pool: DecodePool, shards: Path, tmp_path: Path
) -> None:
    dataset = source(library, pool, f"{shards}/{{00000..00000}}.tar", {}, folders=AllowedFolders((shards,)))
    lines = list(dataset.scan(tmp_path, "default", never_stop))
    with open(shards / "00000.tar", "ab") as file:
        file.write(bytes(512))
    assert [line["error"]["code"] for line in dataset.fetch(tmp_path, lines, never_stop)] == ["url_unreachable"] * 2
    dataset.close()
    (shards / "00000.tar").rename(tmp_path / "00000.tar")
    (shards / "00000.tar").symlink_to(tmp_path / "00000.tar")
    assert [line["error"]["code"] for line in dataset.fetch(tmp_path, lines, never_stop)] == ["validation"] * 2
    assert [line["error"]["code"] for line in dataset.scan(tmp_path, "default", never_stop)] == ["validation"]


def test_pictures_and_datasets_past_the_bounds_are_refused(
    library: Library, pool: DecodePool, shards: Path, tmp_path: Path
) -> None:
    dataset = source(library, pool, str(shards), {}, folders=AllowedFolders((shards,)), max_bytes=len(RED), max_items=3)
    with pytest.raises(ArchiveLimit, match="more than 3 items"):
        list(dataset.scan(tmp_path, "default", never_stop))
    with pytest.raises(Overloaded):
        list(dataset.scan(tmp_path, "default", lambda: True))
    line = {"name": "x", "tar": str(shards / "00000.tar"), "at": "", "offset": 0, "size": len(RED) + 1}
    (came,) = dataset.fetch(tmp_path, [line], never_stop)
    assert came["error"]["code"] == "image_too_large"
    with pytest.raises(Validation):
        WebdatasetSource.resolve(SourceSpec("webdataset", "/etc"), SourcePolicy(AllowedFolders((shards,))))
    assert WebdatasetSource.resolve(
        SourceSpec("webdataset", f"{shards}/../shards/*.tar"), SourcePolicy(AllowedFolders((shards,)))
    ) == SourceSpec("webdataset", f"{shards}/*.tar")
