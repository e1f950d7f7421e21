from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from app.core.errors import ImageTooLarge, Overloaded, StorageFull, UrlUnreachable
from app.sources.bucket_prefix import BucketPrefix
from app.sources.fetch.http import FetchLimits, FetchRequest, FetchResult
from app.sources.fetch.object_store import (
    MAX_CONCURRENT,
    MAX_UNANSWERED,
    RETRIES,
    NoAnswer,
    ObjectInfo,
    ObjectStoreClient,
)
from tests.support.object_stores import Store
from tests.support.web_servers import Answer, WebServer, answer_slowly, content, status

DATE = "Mon, 23 Nov 2026 07:00:00 GMT"
PHOTOS = BucketPrefix.parse("s3://photos")


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch, credentials: None) -> None:
    monkeypatch.setattr("app.storage.object_store.BACKOFF", (timedelta(milliseconds=1), timedelta(milliseconds=2)))


def urls(pages: Iterable[Sequence[ObjectInfo]]) -> list[str]:
    return sorted(one.url for page in pages for one in page)


def make_requests(folder: Path, *keys: str) -> list[FetchRequest]:
    return [FetchRequest(f"s3://photos/{key}", folder / str(n)) for n, key in enumerate(keys)]


def an_object(body: bytes, **headers: str) -> Answer:
    return content(body, ETag='"1"', Last_Modified=DATE, **headers)


def codes(came: Iterable[FetchResult]) -> list[str | None]:
    return [got.error.code if got.error else None for got in came]


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_objects_below_a_prefix_are_listed_and_fetched(store: Store, scheme: str, tmp_path: Path) -> None:
    for key in ("a/1.png", "a/b/2.png", "ab/3.png", "a/ü %41+#?\u00a0.png", "a/dir/", "c.txt"):
        store.put("photos", f"list/{key}", key.encode())
    objects = ObjectStoreClient(s3=store.url, gcs=store.url)
    names = ["a/1.png", "a/b/2.png", "a/dir", "a/ü %41+#?\u00a0.png"]
    below = BucketPrefix.parse(f"{scheme}://photos/list/a")
    (page,) = objects.list_pages(below)
    assert urls([page]) == [f"{scheme}://photos/list/{name}" for name in names]
    assert {one.bytes for one in page} == {len(name.encode()) + (name == "a/dir") for name in names}
    assert urls(objects.list_pages(BucketPrefix.parse(f"{scheme}://photos/list/nothing"))) == []
    files = [one for one in page if one.url.endswith(".png")]
    came = objects.download_all([FetchRequest(one.url, tmp_path / str(n)) for n, one in enumerate(files)])
    assert [got.etag for got in came] == [one.tag for one in files]
    for one, got in zip(files, came, strict=True):
        assert got.request.path.read_text() == one.url.removeprefix(f"{scheme}://photos/list/")


def test_a_listing_comes_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    for n in range(5):
        store.put("photos", f"pages/{n}.png", b"x")
    pages = list(ObjectStoreClient(s3=store.url).list_pages(BucketPrefix.parse("s3://photos/pages")))
    assert sum(len(page) for page in pages) == 5
    tags = {one.tag for page in pages for one in page}
    assert tags == {'"9dd4e461268c8034f5c8564e155c67a6"'}
    store.put("photos", "pages/0.png", b"y")
    assert (
        len(
            {
                one.tag
                for page in ObjectStoreClient(s3=store.url).list_pages(BucketPrefix.parse("s3://photos/pages"))
                for one in page
            }
        )
        == 2
    )


def test_a_bucket_that_is_not_there_and_keys_that_cannot_be_read_are_told(store: Store) -> None:
    objects = ObjectStoreClient(s3=store.url)
    with pytest.raises(UrlUnreachable, match="the store answers NoSuchBucket"):
        list(objects.list_pages(BucketPrefix.parse("s3://no-such-bucket")))
    store.put("photos", "odd//1.png", b"x")
    with pytest.raises(UrlUnreachable, match="has a key with an empty step"):
        list(objects.list_pages(BucketPrefix.parse("s3://photos/odd")))


def test_an_object_that_went_or_is_too_large_fails_alone(store: Store, tmp_path: Path) -> None:
    for key, body in (("1.png", b"fits"), ("2.png", b"too large")):
        store.put("photos", f"some/{key}", body)
    came = ObjectStoreClient(FetchLimits(bytes=4), s3=store.url).download_all(
        make_requests(tmp_path, "some/1.png", "some/2.png", "some/gone.png")
    )
    assert codes(came) == [None, "image_too_large", "url_unreachable"]
    assert not came[1].request.path.exists()
    assert came[2].error
    assert not isinstance(came[2].error, NoAnswer)


def test_a_refusal_is_told_without_what_the_store_says(web: WebServer, tmp_path: Path) -> None:
    web.pages["/photos/a.png"] = web.pages["/photos"] = status(403)
    (got,) = ObjectStoreClient(s3=web.url).download_all(make_requests(tmp_path, "a.png"))
    assert got.error
    assert "the credentials of this server do not allow it to read" in got.error.detail
    assert web.asked["/photos/a.png"] == 1
    with pytest.raises(UrlUnreachable, match="the store answers 403") as told:
        list(ObjectStoreClient(s3=web.url).list_pages(PHOTOS))
    assert web.url not in told.value.detail


def test_what_the_store_says_of_the_size_is_not_believed(web: WebServer, tmp_path: Path) -> None:
    web.pages["/photos/a.png"] = an_object(b"12345")
    (got,) = ObjectStoreClient(FetchLimits(bytes=4), s3=web.url).download_all(make_requests(tmp_path, "a.png"))
    assert isinstance(got.error, ImageTooLarge)

    def answer_cut_short(handler: BaseHTTPRequestHandler) -> None:
        answer: Answer = an_object(b"12345678")
        handler.wfile.write, write = lambda body: write(body[:4] if body == b"12345678" else body), handler.wfile.write  # type: ignore[method-assign]
        answer(handler)
        handler.close_connection = True

    web.pages["/photos/a.png"] = answer_cut_short
    (got,) = ObjectStoreClient(s3=web.url).download_all(make_requests(tmp_path, "a.png"))
    assert isinstance(got.error, NoAnswer)


def test_a_fault_of_the_store_is_tried_again_and_then_told(web: WebServer, tmp_path: Path) -> None:
    good = an_object(b"12345")

    def answer_twice_500(handler: BaseHTTPRequestHandler) -> None:
        (good if web.asked["/photos/a.png"] > 2 else status(500))(handler)

    web.pages["/photos/a.png"] = answer_twice_500
    web.pages["/photos/b.png"] = status(503)
    good_one, bad = ObjectStoreClient(s3=web.url).download_all(make_requests(tmp_path, "a.png", "b.png"))
    assert good_one.error is None
    assert good_one.request.path.read_bytes() == b"12345"
    assert isinstance(bad.error, NoAnswer)
    assert (web.asked["/photos/a.png"], web.asked["/photos/b.png"]) == (3, RETRIES + 1)


def test_a_slow_store_does_not_hold_up_its_neighbours(web: WebServer, tmp_path: Path) -> None:
    web.pages["/photos/a.png"] = answer_slowly(b"x" * 1_000, 0.1)
    web.pages["/photos/b.png"] = an_object(b"12345")
    slow, quick = ObjectStoreClient(FetchLimits(seconds=1), s3=web.url).download_all(
        make_requests(tmp_path, "a.png", "b.png")
    )
    assert isinstance(slow.error, NoAnswer)
    assert quick.error is None


def test_where_nothing_answers_the_rest_is_left(web: WebServer, tmp_path: Path) -> None:
    objects = ObjectStoreClient(s3=web.url)
    keys = [f"{n}.png" for n in range(10 * MAX_UNANSWERED)]
    web.pages |= {f"/photos/{key}": status(500) for key in keys}
    with pytest.raises(UrlUnreachable, match="the store does not answer"):
        objects.download_all(make_requests(tmp_path, *keys))
    assert MAX_UNANSWERED <= len(web.asked) <= MAX_UNANSWERED + MAX_CONCURRENT
    web.close()
    with pytest.raises(UrlUnreachable, match="the store does not answer"):
        objects.download_all(make_requests(tmp_path, *keys))
    with pytest.raises(UrlUnreachable, match="the store cannot be reached"):
        list(objects.list_pages(PHOTOS))


def test_no_more_than_a_few_are_fetched_at_once(web: WebServer, tmp_path: Path) -> None:
    gate = threading.Barrier(MAX_CONCURRENT)

    def answer_together(handler: BaseHTTPRequestHandler) -> None:
        gate.wait(20)
        an_object(b"12345")(handler)

    keys = [f"{n}.png" for n in range(3 * MAX_CONCURRENT)]
    web.pages |= {f"/photos/{key}": answer_together for key in keys}
    came = ObjectStoreClient(s3=web.url).download_all(make_requests(tmp_path, *keys))
    assert codes(came) == [None] * len(keys)
    assert web.most == MAX_CONCURRENT


def test_a_stopping_worker_waits_for_no_object_and_no_listing(web: WebServer, tmp_path: Path) -> None:
    release = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        release.wait(20)

    web.pages["/photos"] = web.pages["/photos/a.png"] = hang
    objects = ObjectStoreClient(FetchLimits(seconds=60), s3=web.url)
    for call in (
        lambda: objects.download_all(make_requests(tmp_path, "a.png"), lambda: True),
        lambda: list(objects.list_pages(PHOTOS, lambda: True)),
    ):
        with pytest.raises(Overloaded):
            call()
    release.set()


def test_a_full_disk_ends_everything(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("photos", "full/1.png", b"x")

    def raise_disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("builtins.open", raise_disk_full)
    with pytest.raises(StorageFull):
        ObjectStoreClient(s3=store.url).download_all(make_requests(tmp_path, "full/1.png"))


def test_an_environment_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    (got,) = ObjectStoreClient(s3="no endpoint").download_all(make_requests(tmp_path, "a.png"))
    assert isinstance(got.error, NoAnswer)
