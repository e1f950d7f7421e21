from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import StartupError, UrlUnreachable, Validation
from app.core.settings import Settings
from app.core.types import SourceSpec
from app.decode.limits import ArchiveLimits
from app.decode.pool import DecodePool
from app.sources import object_store
from app.sources.base import SourceContext, SourceItem, SourcePolicy
from app.sources.bucket_prefix import AllowedBuckets
from app.sources.fetch.http import FetchLimits
from app.sources.fetch.object_store import ObjectInfo, ObjectStoreClient
from app.sources.object_store import BucketSource, open_object_store, parse_allowed_buckets
from app.sources.registry import SourceReader
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.tables import source_cache, work_queue
from app.storage.tables.source_cache import CacheEntry
from app.worker.importer import Importer
from tests.support.imports import importing
from tests.support.makers import add, never_stop
from tests.support.object_stores import Store
from tests.support.pictures import picture
from tests.support.servers import wait_until

RED, BLUE, GREEN = picture("red"), picture("blue"), picture("green")

pytestmark = pytest.mark.usefixtures("credentials")


def bucket(library: Library, store: Store, place: str, **more: Any) -> BucketSource:
    allowed = SourcePolicy(buckets=AllowedBuckets.parse("s3://photos"), **more)
    return BucketSource(
        SourceSpec("s3", f"//photos/{place}"),
        SourceContext(
            library.database,
            library.blobs,
            allowed,
            object_store=ObjectStoreClient(FetchLimits(allowed.max_bytes), s3=store.url),
        ),
    )


def take(library: Library, source: BucketSource, folder: Path, collection: str = "default") -> list[str]:
    """Take in what is listed; returns the names."""
    lines = list(source.scan(folder, collection, never_stop))
    for line in source.fetch(folder, lines, never_stop):
        bytes = (folder.parent / line["file"]).read_bytes()
        known = CacheEntry(line["tag"], add(library, bytes, collection=collection).image.sha256)
        library.database.write(lambda c, line=line, known=known: source_cache.store(c, line["origin"], known))  # type: ignore[misc]
        (folder.parent / line["file"]).unlink()
    return [line["name"].rpartition("/")[2] for line in lines]


def test_of_a_prefix_only_what_is_new_or_has_changed_comes(library: Library, store: Store, tmp_path: Path) -> None:
    source = bucket(library, store, "album")
    store.put("photos", "album/red.png", RED)
    store.put("photos", "album/deep/BLUE.PNG", BLUE)
    for name in ("notes.txt", ".hidden.png", ".trash/red.png", "dir/"):
        store.put("photos", f"album/{name}", RED)
    assert take(library, source, tmp_path) == ["BLUE.PNG", "red.png"]
    assert take(library, source, tmp_path) == []
    store.put("photos", "album/red.png", GREEN)
    assert take(library, source, tmp_path) == ["red.png"]
    library.delete("default", add(library, BLUE).image.id)
    assert take(library, source, tmp_path) == ["BLUE.PNG"]


def test_bytes_that_are_here_do_not_come_again(library: Library, store: Store, tmp_path: Path) -> None:
    source = bucket(library, store, "here")
    store.put("photos", "here/red.png", RED)
    assert take(library, source, tmp_path) == ["red.png"]
    library.create_collection("other", "")
    (line,) = source.scan(tmp_path, "other", never_stop)
    store.delete("photos", "here/red.png")
    (came,) = source.fetch(tmp_path, [line], never_stop)
    assert (tmp_path.parent / came["file"]).read_bytes() == RED
    (tmp_path.parent / came["file"]).unlink()
    library.blobs.delete(add(library, RED).image.sha256)  # now its tag is of no use
    (came,) = source.fetch(tmp_path, [line], never_stop)
    assert came["error"]["code"] == "url_unreachable"


def test_a_picture_has_the_caption_and_the_metadata_beside_it(library: Library, store: Store, tmp_path: Path) -> None:
    source = bucket(library, store, "beside")
    objects = {"a.png": RED, "a.txt": b"a red square", "a.png.json": b'{"camera": "X100", "tags": ["x"]}'}
    objects |= {"a/b.png": BLUE, "a/b.txt": b"gr\x81n", "readme.txt": b"x", "c.png": GREEN}
    for name, data in objects.items():
        store.put("photos", f"beside/{name}", data)

    def scan_and_fetch() -> list[SourceItem]:
        lines = list(source.scan(tmp_path, "default", never_stop))
        came = source.fetch(tmp_path, lines, never_stop)
        for line in came:
            added = add(library, (tmp_path.parent / line["file"]).read_bytes()).image
            known = CacheEntry(line["tag"], added.sha256)
            library.database.write(lambda c, line=line, known=known: source_cache.store(c, line["origin"], known))  # type: ignore[misc]
            (tmp_path.parent / line["file"]).unlink()
        return came

    deep, first, last = scan_and_fetch()
    assert (first["caption"], first["tags"], first["metadata"]) == ("a red square", ["x"], {"camera": "X100"})
    assert "not UTF-8" in deep["warnings"][0]["detail"]
    assert "caption" not in last
    assert source.left_out.kinds == {".txt": 1}
    assert scan_and_fetch() == []
    store.put("photos", "beside/a.txt", b"a square")
    (changed,) = scan_and_fetch()
    assert (changed["name"], changed["caption"]) == ("s3://photos/beside/a.png", "a square")
    assert scan_and_fetch() == []


def test_a_large_folder_of_a_bucket_comes_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "MAX_TOGETHER", 3)
    names = ("a.jpg", "b.jpg", "b/1.jpg", "b/1.txt", "c.jpg", "c.json", "c.txt", "d.jpg")
    groups = object_store.group_by_folder(ObjectInfo(f"s3://photos/{name}", 1, "x") for name in names)
    assert [[one.url.removeprefix("s3://photos/") for one in group] for group in groups] == [
        ["b/1.jpg", "b/1.txt"],
        ["a.jpg", "b.jpg", "c.jpg", "c.json", "c.txt"],
        ["d.jpg"],
    ]


def test_an_object_that_cannot_be_taken_is_an_item_that_failed(library: Library, store: Store, tmp_path: Path) -> None:
    source = bucket(library, store, "faults", max_bytes=len(RED))
    store.put("photos", "faults/red.png", RED)
    store.put("photos", "faults/large.png", RED + b"x")
    large, red = source.scan(tmp_path, "default", never_stop)

    def line(url: str) -> SourceItem:
        return {"name": url, "origin": url, "tag": "x", "bytes": 1}

    grown = {**large, "bytes": 1}  # since it was listed
    lines = [large, red, grown, line("s3://photos/faults/gone.png"), line("s3://secrets/red.png")]
    came = source.fetch(tmp_path, lines, never_stop)
    assert [one.get("error", {}).get("code") for one in came] == [
        "image_too_large",
        None,
        "image_too_large",
        "url_unreachable",
        "validation",
    ]
    assert (tmp_path.parent / came[1]["file"]).read_bytes() == RED
    assert came[1]["tag"] == red["tag"]


def test_a_prefix_that_may_not_be_read_any_more_and_a_store_that_is_away_are_told(
    library: Library, store: Store, tmp_path: Path
) -> None:
    gone = BucketSource(SourceSpec("s3", "//secrets"), bucket(library, store, "").context)
    with pytest.raises(Validation):
        list(gone.scan(tmp_path, "default", never_stop))
    missing = BucketSource(
        SourceSpec("s3", "//no-such"),
        SourceContext(
            library.database,
            library.blobs,
            SourcePolicy(buckets=AllowedBuckets.parse("s3://no-such")),
            object_store=ObjectStoreClient(s3=store.url),
        ),
    )
    with pytest.raises(UrlUnreachable, match="NoSuchBucket"):
        list(missing.scan(tmp_path, "default", never_stop))


KILLED = """
import os, signal, sys
from pathlib import Path
from app.worker import importer
from app.sources.bucket_prefix import AllowedBuckets
from app.storage.jobs import JobService
from app.decode.limits import ArchiveLimits
from app.decode.pool import DecodePool
from app.decode.limits import ArchiveLimits, PictureLimits
from app.decode.pool import DecodePool
from app.sources.fetch.object_store import ObjectStoreClient
from app.sources.registry import SourceReader
from app.sources.registry import SourceReader
from app.worker.importer import Importer
from app.storage.library import Library
from app.storage.blobs import BlobStore
from app.sources.base import SourcePolicy, SourceContext
from app.storage.address import open_database

folder, moment = Path(sys.argv[1]), int(sys.argv[2])
database = open_database(folder / "sightline.db")
library = Library(database, BlobStore(folder), PictureLimits(), 1000)
objects = ObjectStoreClient(s3=sys.argv[3])
policy = SourcePolicy(buckets=AllowedBuckets.parse("s3://photos"))
context = SourceContext(database, library.blobs, policy, object_store=objects)
download_all = objects.download_all
calls = []

def download_and_die(requests, should_stop):
    calls.append(requests)
    results = download_all(requests, should_stop)
    if len(calls) == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    return results

objects.download_all = download_and_die
importer.CHUNK = 2
reader = SourceReader(context)
importing = importer.Importer(library, DecodePool(1), ArchiveLimits(), 60.0, 60.0, 3, reader)
while True:
    importing.import_next("me", lambda: False)
"""


def test_a_kill_between_listing_and_end_loses_and_doubles_nothing(
    library: Library, pool: DecodePool, store: Store, tmp_path: Path
) -> None:
    for n in range(5):
        store.put("photos", f"killed/{n}.png", picture("red", n))
    job = JobService(library).add_source("default", SourceSpec("s3", "//photos/killed"))
    run = [sys.executable, "-c", KILLED, str(tmp_path), "2", store.url]
    assert subprocess.run(run, check=False, timeout=120).returncode == -signal.SIGKILL
    store.put("photos", "killed/9.png", picture("red", 9))  # it was listed before
    library.database.write(lambda c: work_queue.expire_leases(c, {"me"}, 3))
    reader = SourceReader(bucket(library, store, "killed").context)
    with importing(Importer(library, pool, ArchiveLimits(), 60.0, 60.0, 3, reader)):
        wait_until(lambda: not library.database.read(work_queue.list_uploads), 60)
    names = [(item.name, item.status.value) for _, item in JobService(library).list_items(job.id, None, 0, 100)]
    assert names == [(f"s3://photos/killed/{n}.png", "queued") for n in range(5)]
    assert len(library.list_images("default", 100, None)) == 5


def test_what_is_asked_is_checked_before_anything_is_asked_of_a_store() -> None:
    allowed = SourcePolicy(buckets=AllowedBuckets.parse("s3://photos/2026"))
    assert BucketSource.resolve(SourceSpec("s3", "//photos/2026/"), allowed) == SourceSpec("s3", "//photos/2026")
    for kind, place in (
        ("s3", "//photos"),
        ("gs", "//photos/2026"),
        ("s3", "/photos/2026"),
        ("s3", "//photos/2026/.."),
    ):
        with pytest.raises(Validation):
            BucketSource.resolve(SourceSpec(kind, place), allowed)


def test_a_wrong_setting_is_told_at_the_start() -> None:
    assert parse_allowed_buckets(Settings(buckets="gs://photos")).parse_prefix("gs://photos/a").path == "a"
    with pytest.raises(StartupError, match="SIGHTLINE_BUCKETS"):
        parse_allowed_buckets(Settings(buckets="/photos"))
    open_object_store(Settings(s3_endpoint="http://127.0.0.1:9000", gcs_endpoint="https://storage.example.org/base/"))
    for wrong in ("127.0.0.1:9000", "ftp://store", "http://", "http://user:word@store", "http://store?x"):
        with pytest.raises(StartupError, match="SIGHTLINE_S3_ENDPOINT"):
            open_object_store(Settings(s3_endpoint=wrong))
