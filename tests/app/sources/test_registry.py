from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from app.core.errors import UrlNotAllowed, Validation
from app.core.types import SourceSpec
from app.sources.base import Source, SourceContext, SourceItem, SourcePolicy
from app.sources.local_files import AllowedFolders
from app.sources.registry import SOURCE_TYPES, SourceReader, parse_source, write_url_list
from app.sources.stop_signal import ShouldStop
from app.storage.library import Library
from app.storage.manifest import FETCHED_DIR, MANIFEST_NAME, count_lines, has_manifest, read_manifest, write_manifest
from tests.support.pictures import picture

RED = picture("red")


def test_the_word_before_the_colon_chooses_the_type(tmp_path: Path) -> None:
    policy = SourcePolicy(AllowedFolders((tmp_path,)), fetch=True)
    assert parse_source(f"folder:{tmp_path}/.", {}, policy) == SourceSpec("folder", str(tmp_path))
    assert parse_source("urls", {}, policy) == SourceSpec("urls")


@pytest.mark.parametrize("source", ["", "nothing", "nothing:/a", "FOLDER:/a", "folder", ":", "urls:x", "folder:/etc"])
def test_what_is_no_source_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(Validation):
        parse_source(source, {}, SourcePolicy(AllowedFolders((tmp_path,)), fetch=True))


def test_a_source_refuses_an_option_of_another(tmp_path: Path) -> None:
    with pytest.raises(Validation, match="colour does not belong to the source folder:PATH"):
        parse_source(f"folder:{tmp_path}", {"colour": "red"}, SourcePolicy(AllowedFolders((tmp_path,))))


def test_an_operator_who_sets_nothing_allows_nothing(tmp_path: Path) -> None:
    for word in SOURCE_TYPES:
        with pytest.raises((Validation, UrlNotAllowed)):
            parse_source(f"{word}:{tmp_path}" if word != "urls" else word, {}, SourcePolicy())


def read_items(folder: Path) -> list[SourceItem]:
    return [json.loads(line) for line in (folder / MANIFEST_NAME).read_text().splitlines()]


def test_a_reader_lists_a_source_and_fetches_it_part_by_part(library: Library, tmp_path: Path) -> None:
    album, work = tmp_path / "album", tmp_path / "work"
    album.mkdir()
    work.mkdir()
    for name in ("a.png", "b.png"):
        (album / name).write_bytes(RED)
    reader = SourceReader(SourceContext(library.database, library.blobs, SourcePolicy(AllowedFolders((album,)))))
    source = reader.open(SourceSpec("folder", str(album)))
    reader.write_manifest(source, work, "default")
    a, b = read_items(work)
    refused = {"name": "c", "error": {"code": "validation", "detail": "x"}}
    fetched = reader.fetch(source, work, [a, refused, b])
    assert [item["name"] for item in fetched] == ["album/a.png", "c", "album/b.png"]
    assert fetched[1] == refused
    assert {(work / item["file"]).read_bytes() for item in (fetched[0], fetched[2])} == {RED}
    assert [item["name"] for item in reader.fetch(source, work, [b])] == ["album/b.png"]
    assert len(list((work / FETCHED_DIR).iterdir())) == 1
    assert reader.fetch(source, work, [refused]) == [refused]
    reader.clear(work)
    assert not (work / FETCHED_DIR).exists()
    source.close()


def test_a_scan_that_fails_leaves_no_manifest(library: Library, tmp_path: Path) -> None:
    class Failing(Source):
        def scan(self, folder: Path, collection: str, should_stop: ShouldStop) -> Iterator[SourceItem]:
            yield {"name": "first"}
            raise Validation("no more")

        def fetch(self, target: Path, items: Sequence[SourceItem], should_stop: ShouldStop) -> list[SourceItem]:
            raise AssertionError

    context = SourceContext(library.database, library.blobs, SourcePolicy())
    with pytest.raises(Validation, match="no more"):
        SourceReader(context).write_manifest(Failing(SourceSpec("x"), context), tmp_path, "default")
    assert not has_manifest(tmp_path)


def test_a_manifest_is_read_from_any_position_on(tmp_path: Path) -> None:
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


def test_a_list_of_urls_is_written_as_a_manifest_and_bounded(tmp_path: Path) -> None:
    items = [{"name": str(n), "url": str(n)} for n in range(3)]
    assert write_url_list(tmp_path, items, 3) == 3
    assert read_items(tmp_path) == items
    for wrong, max_items in ((items, 2), ([], 2)):
        with pytest.raises(Validation, match="send 1 to 2 URLs"):
            write_url_list(tmp_path, wrong, max_items)
