from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import Validation
from app.fetch.addresses import Policy
from app.fetch.fetcher import Fetcher
from app.folders import Roots
from app.gathering import FOLDER, OFF, Gathering, write_list
from app.library import Library
from app.store import origins
from app.store.origins import Known
from tests.app.fetch.servers import WebServer, content
from tests.app.makers import add
from tests.pictures import picture

RED, BLUE = picture("red"), picture("blue")


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def gathering(library: Library) -> Iterator[Gathering]:
    fetcher = Fetcher(Policy(["127.0.0.1"]))
    yield Gathering(library.database, library.media, fetcher)
    fetcher.close()


def test_each_line_gets_its_file_or_its_error(gathering: Gathering, web: WebServer, tmp_path: Path) -> None:
    web.pages["/a"] = content(RED, ETag='"a"')
    lines = [{"name": "1", "url": f"{web.url}/a", "caption": "x"}, {"name": "2", "url": f"{web.url}/b"}]
    good, bad = gathering.bring(tmp_path, lines)
    assert (tmp_path / good["file"]).read_bytes() == RED
    assert (good["tag"], good["caption"], "error" in good) == ('"a"', "x", False)
    assert bad["error"]["code"] == "url_unreachable"
    gathering.done(tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_bytes_that_are_here_do_not_come_again(
    gathering: Gathering, library: Library, web: WebServer, tmp_path: Path
) -> None:
    web.pages["/a"] = content(RED, ETag='"a"')
    url = f"{web.url}/a"
    here = add(library, RED).image
    library.database.write(lambda c: origins.keep(c, url, Known('"a"', here.sha256)))
    (line,) = gathering.bring(tmp_path, [{"name": "1", "url": url}])
    assert web.headers["/a"]["If-None-Match"] == '"a"'
    assert (tmp_path / line["file"]).read_bytes() == RED
    # Without the bytes the ETag is of no use.
    library.media.delete(here.sha256)
    (line,) = gathering.bring(tmp_path, [{"name": "1", "url": url}])
    assert "If-None-Match" not in web.headers["/a"]
    assert (tmp_path / line["file"]).read_bytes() == RED


def test_bytes_that_go_while_their_etag_is_asked_about_come_again(
    gathering: Gathering, library: Library, web: WebServer, tmp_path: Path
) -> None:
    url = f"{web.url}/a"
    here = add(library, RED).image
    library.database.write(lambda c: origins.keep(c, url, Known('"a"', here.sha256)))
    answer = content(RED, ETag='"a"')

    def lose(handler: object) -> None:
        library.media.delete(here.sha256)
        answer(handler)  # type: ignore[arg-type]

    web.pages["/a"] = lose
    (line,) = gathering.bring(tmp_path, [{"name": "1", "url": url}])
    assert (tmp_path / line["file"]).read_bytes() == RED
    assert web.asked["/a"] == 2


def test_of_a_folder_only_what_is_new_or_has_changed_comes(library: Library, tmp_path: Path) -> None:
    album, work = tmp_path / "album", tmp_path / "work"
    album.mkdir()
    work.mkdir()
    for name, bytes in (("red.png", RED), ("blue.png", BLUE)):
        (album / name).write_bytes(bytes)
    gathering = Gathering(library.database, library.media, None, Roots((tmp_path,)))

    def scanned(collection: str = "default") -> list[str]:
        gathering.scan(work, str(album), collection)
        lines = [json.loads(line) for line in (work / "manifest.jsonl").read_text().splitlines()]
        for line in gathering.bring(work, lines):
            bytes = (work / line["file"]).read_bytes()
            assert bytes == Path(line["path"]).read_bytes()
            known = Known(line["tag"], add(library, bytes).image.sha256)
            library.database.write(lambda c, line=line, known=known: origins.keep(c, line["origin"], known))  # type: ignore[misc]
        return [line["name"] for line in lines]

    assert scanned() == ["album/blue.png", "album/red.png"]
    assert scanned() == []
    assert scanned("other") == ["album/blue.png", "album/red.png"]
    (album / "red.png").write_bytes(picture("green"))
    assert scanned() == ["album/red.png"]
    library.delete("default", add(library, BLUE).image.id)
    assert scanned() == ["album/blue.png"]


def test_a_file_that_went_or_may_no_longer_be_read_is_an_item_that_failed(library: Library, tmp_path: Path) -> None:
    album, secret = tmp_path / "album", tmp_path / "secret"
    for folder in (album, secret):
        folder.mkdir()
        (folder / "a.png").write_bytes(RED)
    gathering = Gathering(library.database, library.media, None, Roots((album,)), most=len(RED))
    (album / "large.png").write_bytes(RED + b"x")
    (album / "link.png").symlink_to(secret / "a.png")
    names = ("gone.png", "large.png", "link.png", "../secret/a.png")
    lines = [{"name": name, "origin": name, "path": str(album / name)} for name in names]
    codes = [line["error"]["code"] for line in gathering.bring(tmp_path, lines)]
    assert codes == ["url_unreachable", "image_too_large", "url_unreachable", "validation"]
    with pytest.raises(Validation):
        gathering.scan(tmp_path, str(secret), "default")


def test_nothing_is_fetched_where_that_is_not_allowed(library: Library, tmp_path: Path) -> None:
    off = Gathering(library.database, library.media, None)
    (line,) = off.bring(tmp_path, [{"name": "1", "url": "http://1.1.1.1/"}])
    assert line["error"] == {"code": "url_not_allowed", "detail": OFF.detail}


def test_a_list_is_written_line_by_line_and_bounded(tmp_path: Path) -> None:
    items = [{"name": str(n), "url": str(n)} for n in range(3)]
    assert write_list(tmp_path, items, 3) == 3
    assert [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()] == items
    for wrong, most in ((items, 2), ([], 2)):
        with pytest.raises(Validation, match="send 1 to 2 URLs"):
            write_list(tmp_path, wrong, most)
