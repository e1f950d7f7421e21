from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import UrlNotAllowed, Validation
from app.core.types import SourceSpec
from app.sources.base import SourceContext, SourcePolicy
from app.sources.fetch.address_policy import AddressPolicy
from app.sources.fetch.http import HttpFetcher
from app.sources.urls import FETCHING_IS_OFF, UrlSource
from app.storage.library import Library
from app.storage.tables import source_cache
from app.storage.tables.source_cache import CacheEntry
from tests.support.makers import add, never_stop
from tests.support.pictures import picture
from tests.support.web_servers import WebServer, content

RED = picture("red")


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def urls(library: Library) -> Iterator[UrlSource]:
    fetcher = HttpFetcher(AddressPolicy(["127.0.0.1"]))
    yield UrlSource(SourceSpec("urls"), SourceContext(library.database, library.blobs, SourcePolicy(), fetcher))
    fetcher.close()


def test_each_line_gets_its_file_or_its_error(urls: UrlSource, web: WebServer, tmp_path: Path) -> None:
    web.pages["/a"] = content(RED, ETag='"a"')
    lines = [{"name": "1", "url": f"{web.url}/a", "caption": "x"}, {"name": "2", "url": f"{web.url}/b"}]
    good, bad = urls.fetch(tmp_path, lines, never_stop)
    assert (tmp_path.parent / good["file"]).read_bytes() == RED
    assert (good["tag"], good["caption"], "error" in good) == ('"a"', "x", False)
    assert bad["error"]["code"] == "url_unreachable"


def test_bytes_that_are_here_do_not_come_again(
    urls: UrlSource, library: Library, web: WebServer, tmp_path: Path
) -> None:
    web.pages["/a"] = content(RED, ETag='"a"')
    url = f"{web.url}/a"
    here = add(library, RED).image
    library.database.write(lambda c: source_cache.store(c, url, CacheEntry('"a"', here.sha256)))
    (line,) = urls.fetch(tmp_path, [{"name": "1", "url": url}], never_stop)
    assert web.headers["/a"]["If-None-Match"] == '"a"'
    assert (tmp_path.parent / line["file"]).read_bytes() == RED
    # Without the bytes the ETag is of no use.
    library.blobs.delete(here.sha256)
    (tmp_path / "0").unlink()
    (line,) = urls.fetch(tmp_path, [{"name": "1", "url": url}], never_stop)
    assert "If-None-Match" not in web.headers["/a"]
    assert (tmp_path.parent / line["file"]).read_bytes() == RED


def test_bytes_that_go_while_their_etag_is_asked_about_come_again(
    urls: UrlSource, library: Library, web: WebServer, tmp_path: Path
) -> None:
    url = f"{web.url}/a"
    here = add(library, RED).image
    library.database.write(lambda c: source_cache.store(c, url, CacheEntry('"a"', here.sha256)))
    answer = content(RED, ETag='"a"')

    def lose(handler: object) -> None:
        library.blobs.delete(here.sha256)
        answer(handler)  # type: ignore[arg-type]

    web.pages["/a"] = lose
    (line,) = urls.fetch(tmp_path, [{"name": "1", "url": url}], never_stop)
    assert (tmp_path.parent / line["file"]).read_bytes() == RED
    assert web.asked["/a"] == 2


def test_nothing_is_fetched_where_that_is_not_allowed(library: Library, tmp_path: Path) -> None:
    off = UrlSource(SourceSpec("urls"), SourceContext(library.database, library.blobs, SourcePolicy()))
    (line,) = off.fetch(tmp_path, [{"name": "1", "url": "http://1.1.1.1/"}], never_stop)
    assert line["error"] == {"code": "url_not_allowed", "detail": FETCHING_IS_OFF.detail}
    with pytest.raises(UrlNotAllowed):
        UrlSource.resolve(SourceSpec("urls"), SourcePolicy())
    with pytest.raises(Validation):
        UrlSource.resolve(SourceSpec("urls", "http://a/"), SourcePolicy(fetch=True))
