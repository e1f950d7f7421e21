from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from app.core.errors import Validation
from app.core.types import SourceSpec
from app.sources.base import ShouldStop, Source, SourceContext, SourceItem, SourcePolicy
from app.sources.local_files import AllowedFolders
from app.sources.registry import SourceReader, write_url_list
from app.storage.library import Library
from app.storage.manifest import FETCHED_DIR, MANIFEST_NAME, count_lines, has_manifest, read_manifest, write_manifest
from tests.support.pictures import picture

RED = picture("red")


def texts(folder: Path) -> list[SourceItem]:
    return [json.loads(line) for line in (folder / MANIFEST_NAME).read_text().splitlines()]


def test_what_a_source_holds_is_listed_and_brought_part_by_part(library: Library, tmp_path: Path) -> None:
    album, work = tmp_path / "album", tmp_path / "work"
    album.mkdir()
    work.mkdir()
    for name in ("a.png", "b.png"):
        (album / name).write_bytes(RED)
    gathering = SourceReader(SourceContext(library.database, library.blobs, SourcePolicy(AllowedFolders((album,)))))
    kind = gathering.open(SourceSpec("folder", str(album)))
    gathering.scan(kind, work, "default")
    a, b = texts(work)
    refused = {"name": "c", "error": {"code": "validation", "detail": "x"}}
    came = gathering.bring(kind, work, [a, refused, b])
    assert [line["name"] for line in came] == ["album/a.png", "c", "album/b.png"]
    assert came[1] == refused
    assert {(work / line["file"]).read_bytes() for line in (came[0], came[2])} == {RED}
    assert [line["name"] for line in gathering.bring(kind, work, [b])] == ["album/b.png"]
    assert len(list((work / FETCHED_DIR).iterdir())) == 1
    assert gathering.bring(kind, work, [refused]) == [refused]
    gathering.done(work)
    assert not (work / FETCHED_DIR).exists()
    kind.close()


def test_a_scan_that_fails_leaves_no_manifest(library: Library, tmp_path: Path) -> None:
    class Failing(Source):
        def scan(self, folder: Path, collection: str, stopping: ShouldStop) -> Iterator[SourceItem]:
            yield {"name": "first"}
            raise Validation("no more")

        def bring(self, target: Path, lines: Sequence[SourceItem], stopping: ShouldStop) -> list[SourceItem]:
            raise AssertionError

    tools = SourceContext(library.database, library.blobs, SourcePolicy())
    with pytest.raises(Validation, match="no more"):
        SourceReader(tools).scan(Failing(SourceSpec("x"), tools), tmp_path, "default")
    assert not has_manifest(tmp_path)


def test_lines_are_read_from_any_position_on(tmp_path: Path) -> None:
    written: list[SourceItem] = [{"name": "红" * n} for n in range(1, 5)]
    assert write_manifest(tmp_path, written) == 4
    assert has_manifest(tmp_path)
    position = 0
    for done, (line, after) in enumerate(read_manifest(tmp_path, 0)):
        assert line == written[done]
        assert [rest for rest, _ in read_manifest(tmp_path, position)] == written[done:]
        assert count_lines(tmp_path, position) == 4 - done
        position = after
    assert count_lines(tmp_path, position) == 0
    assert list(read_manifest(tmp_path, position)) == []


def test_a_list_is_written_line_by_line_and_bounded(tmp_path: Path) -> None:
    items = [{"name": str(n), "url": str(n)} for n in range(3)]
    assert write_url_list(tmp_path, items, 3) == 3
    assert texts(tmp_path) == items
    for wrong, most in ((items, 2), ([], 2)):
        with pytest.raises(Validation, match="send 1 to 2 URLs"):
            write_url_list(tmp_path, wrong, most)
