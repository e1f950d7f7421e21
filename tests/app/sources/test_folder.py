from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import Overloaded, Validation
from app.core.types import SourceSpec
from app.decode.limits import VideoLimits
from app.sources.base import SourceContext, SourcePolicy
from app.sources.folder import FolderSource
from app.sources.local_files import AllowedFolders
from app.storage.library import Library
from app.storage.tables import source_cache
from app.storage.tables.source_cache import CacheEntry
from tests.support.makers import add, never_stop
from tests.support.pictures import picture

RED, BLUE = picture("red"), picture("blue")


def folder(library: Library, named: Path, allowed: SourcePolicy) -> FolderSource:
    return FolderSource(SourceSpec("folder", str(named)), SourceContext(library.database, library.blobs, allowed))


def test_of_a_folder_only_what_is_new_or_has_changed_comes(library: Library, tmp_path: Path) -> None:
    album, work = tmp_path / "album", tmp_path / "work"
    album.mkdir()
    work.mkdir()
    for name, bytes in (("red.png", RED), ("blue.png", BLUE)):
        (album / name).write_bytes(bytes)
    source = folder(library, album, SourcePolicy(AllowedFolders((tmp_path,))))

    def scan_and_fetch(collection: str = "default") -> list[str]:
        lines = list(source.scan(work, collection, never_stop))
        for line in source.fetch(work, lines, never_stop):
            bytes = (tmp_path / line["file"]).read_bytes()
            assert bytes == Path(line["path"]).read_bytes()
            known = CacheEntry(line["tag"], add(library, bytes).image.sha256)
            library.database.write(lambda c, line=line, known=known: source_cache.store(c, line["origin"], known))  # type: ignore[misc]
        return [line["name"] for line in lines]

    assert scan_and_fetch() == ["album/blue.png", "album/red.png"]
    assert scan_and_fetch() == []
    assert scan_and_fetch("other") == ["album/blue.png", "album/red.png"]
    (album / "red.png").write_bytes(picture("green"))
    assert scan_and_fetch() == ["album/red.png"]
    library.delete("default", add(library, BLUE).image.id)
    assert scan_and_fetch() == ["album/blue.png"]
    with pytest.raises(Overloaded):
        list(source.scan(work, "other", lambda: True))


def test_a_file_that_went_or_may_no_longer_be_read_is_an_item_that_failed(library: Library, tmp_path: Path) -> None:
    album, secret = tmp_path / "album", tmp_path / "secret"
    for place in (album, secret):
        place.mkdir()
        (place / "a.png").write_bytes(RED)
    allowed = SourcePolicy(AllowedFolders((album,)), max_bytes=len(RED))
    source = folder(library, album, allowed)
    (album / "large.png").write_bytes(RED + b"x")
    (album / "link.png").symlink_to(secret / "a.png")
    names = ("gone.png", "large.png", "link.png", "gone/a.png", "../secret/a.png")
    lines = [{"name": name, "origin": name, "path": str(album / name)} for name in names]
    errors = [line["error"] for line in source.fetch(tmp_path, lines, never_stop)]
    codes = ["url_unreachable", "image_too_large", "url_unreachable", "url_unreachable", "validation"]
    assert [error["code"] for error in errors] == codes
    assert errors[2]["detail"] == "this is a link, which is not followed"
    assert errors[3]["detail"] == "its folder is not there any more"
    with pytest.raises(Validation):
        list(folder(library, secret, allowed).scan(tmp_path, "default", never_stop))
    with pytest.raises(Validation):
        FolderSource.resolve(SourceSpec("folder", str(secret)), allowed)


def test_a_folder_of_other_kinds_alone_is_one_failed_item_and_an_empty_one_a_warning(
    library: Library, tmp_path: Path
) -> None:
    album = tmp_path / "album"
    album.mkdir()
    allowed = SourcePolicy(AllowedFolders((tmp_path,)))
    source = folder(library, album, allowed)
    assert list(source.scan(tmp_path, "default", never_stop)) == []
    assert [warning.code for warning in source.left_out.warnings] == ["nothing_found"]
    (album / "a.psd").write_bytes(b"x")
    (item,) = folder(library, album, allowed).scan(tmp_path, "default", never_stop)
    assert item["name"] == "album"
    assert "1 file of another kind left out (1 .psd)" in item["error"]["detail"]


def test_a_picture_comes_again_when_the_files_beside_it_change(library: Library, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    (album / "red.png").write_bytes(RED)
    source = folder(library, album, SourcePolicy(AllowedFolders((tmp_path,))))

    def scan() -> list[str | None]:
        lines = list(source.scan(tmp_path, "default", never_stop))
        for line in source.fetch(tmp_path, lines, never_stop):
            known = CacheEntry(line["tag"], add(library, RED).image.sha256)
            library.database.write(lambda c, line=line, known=known: source_cache.store(c, line["origin"], known))  # type: ignore[misc]
        return [line.get("caption") for line in lines]

    assert scan() == [None]
    assert scan() == []
    (album / "red.txt").write_text("red")
    assert scan() == ["red"]
    assert scan() == []
    (album / "metadata.csv").write_text("file_name,caption\nred.png,crimson\n")
    assert scan() == ["crimson"]
    assert scan() == []


def test_videos_of_a_folder_come_as_well_or_are_left_out_with_the_reason(library: Library, tmp_path: Path) -> None:
    album, work = tmp_path / "album", tmp_path / "work"
    for place in (album, work):
        place.mkdir()
    (album / "a.png").write_bytes(RED)
    (album / "clip.mp4").write_bytes(b"x" * (len(RED) + 100))
    allowed = AllowedFolders((tmp_path,))
    source = folder(library, album, SourcePolicy(allowed, max_bytes=len(RED)))
    lines = list(source.scan(work, "default", never_stop))
    assert [line["name"] for line in lines] == ["album/a.png", "album/clip.mp4"]
    assert not [line for line in source.fetch(work, lines, never_stop) if line.get("error")]  # it may be larger
    without = folder(library, album, SourcePolicy(allowed, videos=VideoLimits(refusal="no videos here")))
    assert [line["name"] for line in without.scan(work, "default", never_stop)] == ["album/a.png"]
    assert without.left_out.kinds == {".mp4": 1}
    assert [one.detail for one in without.left_out.warnings] == ["no videos here"]
