"""Pictures in a bucket: what is acknowledged is there, the cache is no more than one, and faults have names."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from app.core.errors import BlobMissing, StartupError, StorageFull, StorageUnavailable
from app.core.settings import Settings
from app.decode.limits import PictureLimits
from app.decode.pool import DecodePool
from app.storage import bucket_blobs, object_store
from app.storage.backup import create_backup, restore_backup
from app.storage.blobs import StagedFile, remove_path
from app.storage.bucket_blobs import BucketBlobStore, media_key
from app.storage.database import Database
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.manifest import MANIFEST_NAME
from app.storage.media_place import claim_media, normalise_media, open_bucket, open_media
from app.storage.object_store import Bucket
from app.storage.tables import installation
from app.storage.verify import find_faults
from tests.index.proxy import Proxy
from tests.support.archives import make_zip
from tests.support.makers import add, add_bulk, never_stop
from tests.support.object_stores import RefusingStore, Store, list_keys, open_blobs
from tests.support.pictures import picture

RED, BLUE = picture("red"), picture("blue")
SHA256 = hashlib.sha256(RED).hexdigest()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch, credentials: None) -> None:
    monkeypatch.setattr(object_store, "BACKOFF", (timedelta(milliseconds=1), timedelta(milliseconds=2)))
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 2.0)


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def blobs(store: Store, tmp_path: Path, prefix: str) -> Iterator[BucketBlobStore]:
    with closing(open_blobs(store.url, tmp_path / "media-cache", prefix)) as blobs:
        yield blobs


@pytest.fixture
def library(database: Database, blobs: BucketBlobStore) -> Library:
    return Library(database, blobs, PictureLimits(), max_queue=1_000)


def stage(blobs: BucketBlobStore, content: bytes = RED) -> StagedFile:
    path = blobs.create_upload_dir() / "1"
    path.write_bytes(content)
    return blobs.stage(path)


def forget(blobs: BucketBlobStore) -> None:
    """Empty the cache, as if another machine read."""
    for path in list(blobs.iter_files()):
        path.unlink()


def be_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every object be older than an upload can be."""
    monkeypatch.setattr(bucket_blobs, "GRACE_SECONDS", -1.0)
    monkeypatch.setattr(bucket_blobs, "LARGE_GRACE_SECONDS", -1.0)


def test_bytes_are_put_once_and_read_from_the_bucket_by_whoever_has_no_copy(
    blobs: BucketBlobStore, store: Store, prefix: str
) -> None:
    staged = stage(blobs)
    blobs.put([staged, stage(blobs), stage(blobs, BLUE)])
    assert store.get("photos", f"{prefix}/{media_key(SHA256)}") == RED
    assert len(list_keys(store, prefix)) == 2
    blobs.place(staged)
    assert blobs.path(SHA256).read_bytes() == RED
    forget(blobs)
    for _ in range(2):  # from the bucket, then from the cache
        with blobs.open(SHA256) as file:
            assert blobs.is_intact_file(file, SHA256)
            assert file.read() == RED
    with blobs.fetch(SHA256) as copy:
        remove_path(blobs.path(SHA256))  # the cache may lose it meanwhile
        assert copy.path.read_bytes() == RED
    assert not copy.path.exists()
    assert blobs.find_existing([SHA256, "0" * 64]) == {SHA256}
    assert blobs.has_digest(SHA256)
    assert not blobs.has_digest("0" * 64)


def test_a_copy_that_a_decoder_waits_for_is_no_garbage(library: Library, blobs: BucketBlobStore) -> None:
    """It is a second name of the cached file, and as old as that; swept, its picture failed for good."""
    blobs.claim("us", has_files=False)
    digest = add(library, RED).image.sha256
    with blobs.open(digest):
        os.utime(blobs.path(digest), (0, 0))
    with blobs.fetch(digest) as copy:
        assert copy.path.stat().st_mtime == 0
        assert library.collect_garbage(60, never_stop) == 0
        assert copy.path.read_bytes() == RED
        assert library.collect_garbage(0, never_stop) == 1  # by then its process was killed
        assert not copy.path.exists()
    assert blobs.path(digest).exists()


def test_a_copy_that_cannot_be_read_whole_leaves_nothing(
    library: Library, blobs: BucketBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs.claim("us", has_files=False)
    digest = add(library, RED).image.sha256
    forget(blobs)

    def fail(key: str, write: Callable[[bytes], object], most: int | None = None) -> None:
        write(RED[:10])
        raise StorageUnavailable("the connection broke")

    monkeypatch.setattr(blobs.bucket, "read_into", fail)
    with pytest.raises(StorageUnavailable, match="broke"):
        blobs.fetch(digest)
    assert list(blobs.scratch.iterdir()) == []


def test_an_object_with_other_bytes_is_never_served_and_an_upload_mends_it(
    blobs: BucketBlobStore, store: Store, prefix: str
) -> None:
    blobs.claim("us", has_files=False)
    blobs.put([stage(blobs)])
    store.put("photos", f"{prefix}/{media_key(SHA256)}", RED[:-1] + b"x")
    with pytest.raises(BlobMissing, match="altered"):
        blobs.open(SHA256)
    with pytest.raises(BlobMissing, match="missing"):
        blobs.fetch("0" * 64)
    blobs.put([stage(blobs)])
    assert blobs.has_digest(SHA256)


def test_a_large_object_goes_and_comes_in_parts(
    blobs: BucketBlobStore, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_blobs, "PART_BYTES", 1 << 20)
    monkeypatch.setattr(bucket_blobs, "MAX_CACHED", 1 << 20)
    content = bytes(range(256)) * (12 << 12)  # 12 MiB: two parts of obstore
    staged = stage(blobs, content)
    for _ in range(2):  # once put, once found
        blobs.put([staged])
    blobs.place(staged)
    with blobs.open(staged.sha256) as file:
        assert file.seek(0, io.SEEK_END) == len(content)
        file.seek(5_000_001)
        assert file.read(300) == content[5_000_001:5_000_301]
        assert file.seek(-10, io.SEEK_CUR) == 5_000_291
        assert blobs.is_intact_file(file, staged.sha256)
    assert not blobs.path(staged.sha256).exists()
    with blobs.fetch(staged.sha256) as copy:
        assert copy.path.read_bytes() == content


@pytest.mark.parametrize("held", [RED, RED[:-1] + b"x"])
def test_a_row_is_not_committed_when_what_was_found_or_replaced_is_removed_meanwhile(
    held: bytes, library: Library, blobs: BucketBlobStore, store: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs.claim("us", has_files=False)
    key = f"{prefix}/{media_key(SHA256)}"
    store.put("photos", key, held)
    put = blobs.put

    def put_and_lose(staged: list[StagedFile]) -> None:
        put(staged)
        store.delete("photos", key)  # as a garbage collector that has found no row, and looked before the put

    monkeypatch.setattr(blobs, "put", put_and_lose)
    add(library, RED)
    assert store.get("photos", key) == RED


def test_what_was_made_is_looked_for_again_only_where_the_store_may_have_replaced_it(
    blobs: BucketBlobStore, store: Store, prefix: str
) -> None:
    blobs.claim("us", has_files=False)
    assert blobs.bucket.is_exclusive == store.is_exclusive
    staged = stage(blobs)
    blobs.put([staged])
    store.delete("photos", f"{prefix}/{media_key(SHA256)}")
    blobs.confirm([staged])
    assert list_keys(store, prefix) == ([] if store.is_exclusive else [media_key(SHA256)])
    assert store.list("photos", f"{prefix}/.probe") == []


def test_a_picture_is_deleted_with_its_thumbnails_once_it_is_old_enough(
    library: Library, blobs: BucketBlobStore, store: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = add(library, RED, id="red").image
    add(library, BLUE, id="blue")
    for name in (f"{SHA256}.webp", f"{SHA256}-1024.webp"):
        path = library.thumbnail_path(image).with_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a thumbnail")
        blobs.keep_thumbnail(path)
    library.delete("default", "red")
    assert not blobs.path(SHA256).exists()
    library.remove_deleted(never_stop)
    assert len(list_keys(store, prefix)) == 4  # another upload of these bytes may be under way
    be_old(monkeypatch)
    library.remove_deleted(never_stop)
    assert len(list_keys(store, prefix)) == 4  # they are looked for again later
    blobs.give_back([SHA256])
    library.remove_deleted(never_stop)
    assert list_keys(store, prefix) == [media_key(hashlib.sha256(BLUE).hexdigest())]
    assert library.collect_objects(never_stop) == 0


def test_bytes_that_a_row_has_again_are_not_removed(
    library: Library, blobs: BucketBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_old(monkeypatch)
    add(library, RED, id="red")
    library.delete("default", "red")
    waiting = blobs.take_removable()
    add(library, RED, id="again")
    blobs.give_back(waiting)
    library.remove_deleted(never_stop)
    assert blobs.has_digest(SHA256)
    blobs.give_back(waiting)
    with monkeypatch.context() as patch:
        patch.setattr(blobs, "find_old", fail_once)
        with pytest.raises(StorageUnavailable):
            library.remove_deleted(never_stop)
    assert blobs.take_removable() == waiting


def fail_once(*_: object) -> None:
    raise StorageUnavailable("away")


def test_the_collector_removes_what_no_row_names_when_it_is_old_and_nothing_else(
    library: Library, blobs: BucketBlobStore, store: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs.claim("us", has_files=False)
    add(library, RED)
    job = add_bulk(library, [], [("a.zip", b"an archive")])
    kept = [*list_keys(store, prefix), "media/notes.txt"]
    lost = [media_key("0" * 64), f"thumbnails/11/11/{'1' * 64}-64.jpg", f"incoming/{'0' * 32}-1.tar"]
    for key in (*lost, "media/notes.txt"):
        store.put("photos", f"{prefix}/{key}", b"pixels")
    assert library.collect_objects(never_stop) == 0
    be_old(monkeypatch)
    assert library.collect_objects(lambda: True) == 0
    assert library.collect_objects(never_stop) == 3
    assert list_keys(store, prefix) == sorted(kept)
    assert f"incoming/{job.id}-1" in kept


def test_the_cache_keeps_its_bound_and_what_was_used_last(store: Store, tmp_path: Path, prefix: str) -> None:
    with closing(open_blobs(store.url, tmp_path / "cache", prefix, max_cache=64_000)) as blobs:
        pictures = [bytes([n]) * 6_000 for n in range(20)]
        for content in pictures:
            staged = stage(blobs, content)
            blobs.put([staged])
            blobs.place(staged)
        held = list(blobs.iter_files())
        assert 40_000 < sum(path.stat().st_size for path in held) <= 64_000
        last = hashlib.sha256(pictures[-1]).hexdigest()
        assert blobs.path(last).exists()
        with blobs.open(hashlib.sha256(pictures[0]).hexdigest()) as file:
            assert file.read() == pictures[0]


def test_a_thumbnail_is_found_by_other_machines_with_its_time(
    blobs: BucketBlobStore, store: Store, tmp_path: Path, prefix: str
) -> None:
    path = blobs.thumbnail_path(SHA256, "jpeg")
    assert blobs.fetch_thumbnail(path) is None
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a small JPEG")
    blobs.keep_thumbnail(path)
    times = []
    for n in range(2):
        with closing(open_blobs(store.url, tmp_path / f"other-{n}", prefix)) as other:
            there = other.thumbnail_path(SHA256, "jpeg")
            file = other.fetch_thumbnail(there)
            assert file is not None
            with file:
                assert file.read() == b"a small JPEG"
            times.append(there.stat().st_mtime)
    assert times[0] == times[1]


def test_an_upload_is_imported_by_another_machine(
    library: Library, store: Store, prefix: str, tmp_path: Path, pool: DecodePool
) -> None:
    from tests.app.worker.test_importer import import_all, items

    library.blobs.claim("us", has_files=False)
    job = add_bulk(library, [("a.png", RED), ("b.txt", b"words")], [("c.zip", make_zip({"c.png": BLUE}))])
    for path in library.blobs.incoming.iterdir():
        remove_path(path)  # the machine that took it is gone
    with closing(open_blobs(store.url, tmp_path / "other", prefix)) as other:
        import_all(Library(library.database, other, PictureLimits(), 1_000), pool)
    assert dict(items(library, job)) == {"a.png": "queued", "b.txt": "failed", "c.png": "queued"}
    assert [key for key in list_keys(store, prefix) if key.startswith("incoming/")] == []


def test_what_another_machine_has_listed_of_a_source_counts(
    blobs: BucketBlobStore, store: Store, tmp_path: Path, prefix: str
) -> None:
    blobs.claim("us", has_files=False)
    path = blobs.upload_path("0" * 32, 1)
    for text in ("one\n", "two\n"):
        path.mkdir(exist_ok=True)
        (path / MANIFEST_NAME).write_text(text)
        (path / "fetched").mkdir(exist_ok=True)
        if text == "one\n":
            blobs.fetch_upload("0" * 32, 1)
            assert not (path / MANIFEST_NAME).exists()  # it was not kept: somebody else may have listed another
    blobs.keep_upload("0" * 32, 1, path)
    with closing(open_blobs(store.url, tmp_path / "other", prefix)) as other:
        there = other.upload_path("0" * 32, 1)
        there.mkdir()
        (there / MANIFEST_NAME).write_text("three\n")
        other.fetch_upload("0" * 32, 1)
        assert (there / MANIFEST_NAME).read_text() == "two\n"
        other.fetch_upload("0" * 32, 1)
        other.delete_upload("0" * 32, 1)
        assert list_keys(store, prefix) == []
    assert blobs.upload_path("0" * 32, 1).exists()


def test_a_packed_upload_writes_nothing_outside_its_folder(blobs: BucketBlobStore) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as made:
        for name in ("../out", "/out", "in/deep", "good", "link"):
            member = tarfile.TarInfo(name)
            member.size = 4
            if name == "link":
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            made.addfile(member, io.BytesIO(b"evil"))
    blobs.bucket.put(f"incoming/{'0' * 32}-1.tar", packed.getvalue(), "application/x-tar")
    blobs.fetch_upload("0" * 32, 1)
    assert sorted(path.name for path in blobs.upload_path("0" * 32, 1).iterdir()) == [".stored", "good"]
    assert not (blobs.incoming / "out").exists()


# The place


def test_a_prefix_belongs_to_one_database(store: Store, tmp_path: Path, prefix: str, database: Database) -> None:
    media = f"s3://photos/{prefix}"
    settings = Settings(data_dir=tmp_path, media=media + "/", s3_endpoint=store.url)
    with closing(open_media(settings)) as blobs:
        own = claim_media(database, blobs, settings.media)
        assert own.media == media
        assert claim_media(database, blobs, media) == own
        with pytest.raises(StartupError, match="another installation") as refused:
            blobs.claim("f" * 32, has_files=False)
        assert own.id in refused.value.detail
        database.write(
            lambda c: c.execute(
                "INSERT INTO jobs (id, collection, kind, state, created_at, step)"
                " VALUES ('j', 'default', 'bulk', 'queued', '', 4)"
            )
        )
        database.write(
            lambda c: c.execute("INSERT INTO sources (job_id, n, kind, name) VALUES ('j', 1, 'archive', '')")
        )
        with pytest.raises(StartupError, match=f"are in {media}, not in local"):
            claim_media(database, blobs, "local")
        store.delete("photos", f"{prefix}/sightline.json")
        with pytest.raises(StartupError, match="holds nothing of this database"):
            claim_media(database, blobs, media)


@pytest.mark.parametrize("media", ["s3:photos", "gs://photos", "s3://KEY:secret@photos/a", "s3://photos/../b", "/a"])
def test_a_place_that_is_none_is_refused_without_being_repeated(media: str) -> None:
    with pytest.raises(StartupError) as refused:
        normalise_media(media)
    assert "secret" not in refused.value.detail


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (403, "AccessDenied", "allow these credentials"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        (400, "AuthorizationHeaderMalformed", "AWS_REGION"),
        (403, "RequestTimeTooSkewed", "clock of this machine"),
        (503, "SlowDown", "SIGHTLINE_S3_ENDPOINT"),
    ],
)
def test_a_store_that_refuses_stops_the_start_with_what_to_do(
    status: int, code: str, remedy: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        closing(RefusingStore(status, code)) as refusing,
        closing(open_blobs(refusing.url, tmp_path, "p")) as blobs,
        pytest.raises(StartupError) as refused,
    ):
        blobs.claim("us", has_files=False)
    assert refused.value.detail.startswith("pictures cannot be kept in s3://photos/p: ")
    assert remedy in refused.value.detail
    assert "someone" not in refused.value.detail + caplog.text
    assert "AWSAccessKeyId" not in caplog.text


def test_a_bucket_that_may_be_read_alone_stops_the_start_and_takes_no_picture(tmp_path: Path) -> None:
    with (
        closing(RefusingStore(403, "AccessDenied", has_reads=True)) as refusing,
        closing(open_blobs(refusing.url, tmp_path, "p")) as blobs,
    ):
        with pytest.raises(StartupError, match=r"AccessDenied.*allow these credentials"):
            blobs.claim("us", has_files=False)
        staged = stage(blobs)
        with pytest.raises(StorageUnavailable, match="refuses this server"):
            blobs.put([staged])
        assert staged.path.exists()


def test_a_bucket_that_is_not_there_and_a_store_that_is_not_there_stop_the_start(store: Store, tmp_path: Path) -> None:
    for bucket, remedy in (
        (Bucket("nothing", "p", store.url), "make the bucket first"),
        (Bucket("photos", "p", "http://127.0.0.1:9"), "SIGHTLINE_S3_ENDPOINT"),
    ):
        with closing(BucketBlobStore(bucket, tmp_path, 1 << 20)) as blobs, pytest.raises(StartupError, match=remedy):
            blobs.claim("us", has_files=False)


def test_an_endpoint_that_is_no_address_is_refused() -> None:
    with pytest.raises(StartupError, match="SIGHTLINE_S3_ENDPOINT"):
        open_bucket("photos", "", Settings(s3_endpoint="somewhere"))


# Faults while it runs


@pytest.mark.parametrize("mode", ["reset", "silence", "unheard"])
def test_a_store_that_is_away_loses_nothing_and_is_used_again(
    mode: str, store: Store, tmp_path: Path, prefix: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "SILENCE_SECONDS", 2.0)  # the store itself answers a busy machine sooner
    monkeypatch.setattr(object_store, "RETRY_SECONDS", 3.0)
    with (
        Proxy(int(store.url.rpartition(":")[2])) as proxy,
        closing(open_blobs(f"http://127.0.0.1:{proxy.port}", tmp_path / "cache", prefix)) as blobs,
    ):
        library = Library(database, blobs, PictureLimits(), 1_000)
        known = add(library, BLUE).image
        forget(blobs)
        proxy.mode = mode
        with pytest.raises(StorageUnavailable) as away:
            add(library, RED)
        assert (away.value.code, away.value.status) == ("storage_unavailable", 503)
        assert blobs.fault is not None
        with pytest.raises(StorageUnavailable):
            library.open_file("default", known.id)
        assert len(library.list_images("default", 10, None)) == 1
        proxy.mode = "pass"
        image = add(library, RED).image  # also where its first put was done, and not heard of
        assert blobs.has_digest(image.sha256)
        with library.open_file("default", known.id)[1] as file:
            assert file.read() == BLUE
        assert blobs.fault is None


def test_an_upload_in_parts_that_the_store_has_forgotten_may_be_sent_again(tmp_path: Path) -> None:
    with (
        closing(RefusingStore(404, "NoSuchUpload")) as forgetful,
        closing(open_blobs(forgetful.url, tmp_path, "p")) as blobs,
    ):
        for data in (b"some", iter([b"some"])):
            with pytest.raises(StorageUnavailable, match="answers NoSuchUpload; try again"):
                blobs.bucket.put("incoming/one.tar", data, "application/x-tar")
        assert blobs.bucket.read("incoming/one.tar") is None


def test_a_full_store_and_one_that_knows_no_conditions_are_told_apart(
    tmp_path: Path, store: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = RefusingStore(507, "XMinioStorageFull")
    with closing(full), closing(open_blobs(full.url, tmp_path, "p")) as blobs, pytest.raises(StorageFull):
        blobs.put([stage(blobs)])
    with closing(open_blobs(store.url, tmp_path, prefix)) as blobs:
        blobs.bucket._is_conditional = False
        blobs.claim("us", has_files=False)
        staged = stage(blobs)
        blobs.put([staged])
        assert blobs.has_digest(SHA256)
        store.delete("photos", f"{prefix}/{media_key(SHA256)}")  # as a collector that looked before the put
        blobs.confirm([staged])
        assert blobs.has_digest(SHA256)


def test_no_picture_fails_for_good_where_the_whole_bucket_is_gone(
    library: Library, blobs: BucketBlobStore, store: Store, prefix: str
) -> None:
    blobs.claim("us", has_files=False)
    image = add(library, RED).image
    forget(blobs)
    store.delete("photos", f"{prefix}/{media_key(image.sha256)}")
    with pytest.raises(BlobMissing):
        blobs.fetch(image.sha256)
    store.delete("photos", f"{prefix}/sightline.json")
    with pytest.raises(StorageUnavailable, match="gone"):
        blobs.fetch(image.sha256)


def test_no_upload_fails_for_good_where_the_whole_bucket_is_gone(
    library: Library, blobs: BucketBlobStore, store: Store, prefix: str, tmp_path: Path, pool: DecodePool
) -> None:
    from tests.app.worker.test_importer import import_all, importer, items

    blobs.claim("us", has_files=False)
    marker = store.get("photos", f"{prefix}/sightline.json")
    job = add_bulk(library, [("a.png", RED)], [("c.zip", make_zip({"c.png": BLUE}))])
    held = {f"{prefix}/{key}": store.get("photos", f"{prefix}/{key}") for key in list_keys(store, prefix)}
    for key in (*held, f"{prefix}/sightline.json"):
        store.delete("photos", key)
    with closing(open_blobs(store.url, tmp_path / "other", prefix)) as other:
        worker = Library(library.database, other, PictureLimits(), 1_000)
        for _ in range(5):  # more often than an upload may be tried
            with pytest.raises(StorageUnavailable, match="gone, or was emptied"):
                importer(worker, pool).import_next("a", never_stop)
        for key, body in (*held.items(), (f"{prefix}/sightline.json", marker)):  # the bucket is restored
            store.put("photos", key, body)
        import_all(worker, pool)
    assert dict(items(library, job)) == {"a.png": "queued", "c.png": "queued"}


# The commands


@pytest.mark.sqlite  # the commands are for a data directory
def test_verify_backup_and_restore_read_and_write_the_bucket(
    library: Library, blobs: BucketBlobStore, store: Store, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_media(library.database, blobs, f"s3://photos/{prefix}")
    add(library, RED, id="red")
    add(library, BLUE, id="blue")
    JobService(library)
    job = add_bulk(library, [("g.png", picture("green"))], [("a.zip", b"an archive, to be")])
    assert find_faults(tmp_path, blobs=blobs) == []
    backup = tmp_path.with_name(f"backup-{prefix}")
    made = create_backup(tmp_path, backup, blobs=blobs)
    assert made.pictures == 2
    other = f"{prefix}-other"
    with closing(open_blobs(store.url, tmp_path.with_name(f"again-{prefix}") / "media-cache", other)) as again:
        restore_backup(tmp_path.with_name(f"again-{prefix}"), backup, blobs=again)
        assert find_faults(tmp_path.with_name(f"again-{prefix}"), blobs=again) == []
    assert {f"incoming/{job.id}-0.tar", f"incoming/{job.id}-1"} <= set(list_keys(store, other))
    restore_backup(tmp_path.with_name(f"local-{prefix}"), backup)
    assert find_faults(tmp_path.with_name(f"local-{prefix}")) == []
    store.put("photos", f"{prefix}/{media_key(SHA256)}", b"other bytes")
    store.delete("photos", f"{prefix}/{media_key(hashlib.sha256(BLUE).hexdigest())}")
    store.put("photos", f"{prefix}/{media_key('0' * 64)}", b"nobody's")
    assert {what for what, *_ in find_faults(tmp_path, blobs=blobs)} == {"blob_altered", "blob_missing"}
    be_old(monkeypatch)
    assert "orphan" in {what for what, *_ in find_faults(tmp_path, blobs=blobs)}
    library.database.write(lambda c: c.execute("UPDATE installation SET id = 'other'"))
    assert library.database.read(installation.get_id) == "other"
    with pytest.raises(StartupError, match="another installation"):
        find_faults(tmp_path, blobs=blobs)
    with pytest.raises(StartupError, match="another installation"):
        create_backup(tmp_path, backup, blobs=blobs)
