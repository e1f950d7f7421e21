"""Videos in jobs: each becomes pictures of its frames and a row of its own."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest

from app.core.errors import NotFound
from app.core.types import Image, ItemError, ItemStatus, Job, JobItem, NewVideo, Video
from app.decode.limits import ArchiveLimits, VideoLimits
from app.decode.pool import DecodePool
from app.decode.video import EXTRA
from app.storage.attributes import ImageAttributes
from app.storage.backup import create_backup, restore_backup
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.sql import Connection
from app.storage.tables import videos, work_queue
from app.storage.verify import find_faults
from app.storage.videos import VideoLibrary
from app.worker.importer import Importer
from tests.support.imports import importing
from tests.support.makers import add_bulk, job_of
from tests.support.pictures import picture
from tests.support.servers import wait_until
from tests.support.videos import make_sound, make_video, mark_encrypted, set_size

WAIT = 30.0


@pytest.fixture(scope="module")
def clip() -> bytes:
    return make_video((("red", 2.0), ("blue", 2.0)), metadata={"creation_time": "2023-07-04T10:00:00Z"})


def import_all(library: Library, pool: DecodePool, limits: VideoLimits | None = None) -> None:
    importer = Importer(library, pool, ArchiveLimits(), 60.0, 60.0, 3, video_limits=limits)
    with importing(importer):
        wait_until(lambda: not library.database.read(work_queue.list_uploads), WAIT)


def items(library: Library, job: Job) -> list[JobItem]:
    return [item for _, item in JobService(library).list_items(job.id, None, 0, 1_000)]


def frames(library: Library) -> list[Image]:
    return sorted(library.list_images("default", 100, None), key=lambda image: image.t_ms or 0)


def list_videos(library: Library) -> list[Video]:
    return library.database.read(lambda c: videos.list_page(c, "default", 10, None))


def test_a_video_becomes_a_picture_for_each_scene(library: Library, pool: DecodePool, clip: bytes) -> None:
    job = add_bulk(library, [("trip/clip.mp4", clip)])
    import_all(library, pool)
    (video,) = list_videos(library)
    found = frames(library)
    assert [(image.video_id, image.source, image.format) for image in found] == [
        (video.id, "trip/clip.mp4", "jpeg")
    ] * 2
    assert found[0].t_ms == 0
    assert 2000 <= (found[1].t_ms or 0) <= 2300
    assert (found[0].taken_at, found[0].taken_offset) == ("2023-07-04T10:00:00.000", 0)
    assert (video.frames, video.format, video.codec, video.width, video.height) == (2, "mp4", "h264", 96, 64)
    assert (video.is_kept, video.is_complete, video.bytes) == (True, True, len(clip))
    assert library.blobs.path(video.id).read_bytes() == clip
    assert [item.name for item in items(library, job)] == ["trip/clip.mp4 0:00", "trip/clip.mp4 0:02"]
    assert list(library.blobs.incoming.iterdir()) == []


def test_what_is_said_of_a_video_is_said_of_each_frame(library: Library, pool: DecodePool, clip: bytes) -> None:
    said = {"caption": "our trip", "tags": ["sea"], "camera": "Kodak"}
    add_bulk(library, [("clip.mp4", clip), ("clip.mp4.json", json.dumps(said).encode())])
    import_all(library, pool)
    assert {(image.caption, image.tags, image.metadata["camera"]) for image in frames(library)} == {
        ("our trip", ("sea",), "Kodak")
    }


def test_a_video_of_an_archive_is_imported_beside_its_pictures(library: Library, pool: DecodePool, clip: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.png", picture("red"))
        archive.writestr("in/clip.mp4", clip)
        archive.writestr("false.mp4", picture("blue"))
    job = add_bulk(library, [], [("all.zip", out.getvalue())])
    import_all(library, pool)
    assert {item.name for item in items(library, job)} == {
        "a.png",
        "false.mp4",
        "in/clip.mp4 0:00",
        "in/clip.mp4 0:02",
    }
    after = job_of(library.database, job.id)
    assert (after.total, after.failed, after.name) == (4, 0, "all.zip")


def test_the_same_video_again_is_a_duplicate(library: Library, pool: DecodePool, clip: bytes) -> None:
    add_bulk(library, [("a.mp4", clip), ("b.mp4", clip)])
    import_all(library, pool)
    again = add_bulk(library, [("c.mp4", clip)])
    import_all(library, pool)
    assert [(item.name, item.status) for item in items(library, again)] == [("c.mp4", ItemStatus.DUPLICATE)]
    assert len(list_videos(library)) == 1
    assert len(frames(library)) == 2
    assert library.find_known("default", [list_videos(library)[0].id]) == {list_videos(library)[0].id: []}


def test_the_same_scenes_in_two_videos_are_frames_of_each(library: Library, pool: DecodePool, clip: bytes) -> None:
    add_bulk(library, [("a.mp4", clip), ("b.mov", make_video((("red", 2.0), ("blue", 2.0)), "mov"))])
    import_all(library, pool)
    assert [video.frames for video in list_videos(library)] == [2, 2]


def test_deleting_a_video_takes_its_frames_and_its_file(library: Library, pool: DecodePool, clip: bytes) -> None:
    add_bulk(library, [("a.mp4", clip), ("b.webm", make_video(container="webm")), ("c.png", picture("green"))])
    import_all(library, pool)
    doomed = next(video for video in list_videos(library) if video.source == "a.mp4")
    gone = [image.sha256 for image in frames(library) if image.video_id == doomed.id]
    assert VideoLibrary(library).delete("default", doomed.id) == 2
    assert not [one for one in (doomed.id, *gone) if library.blobs.path(one).exists()]
    assert [video.source for video in list_videos(library)] == ["b.webm"]
    assert {image.source for image in frames(library)} == {"b.webm", "c.png"}
    with pytest.raises(NotFound):
        VideoLibrary(library).delete("default", doomed.id)
    add_bulk(library, [("a.mp4", clip)])
    import_all(library, pool)
    assert sorted(video.source or "" for video in list_videos(library)) == ["a.mp4", "b.webm"]


def test_deleting_a_video_ends_its_import(library: Library, clip: bytes) -> None:
    digest = hashlib.sha256(clip).hexdigest()
    job = add_bulk(library, [("a.mp4", clip)])
    info = NewVideo(digest, "a.mp4", "mp4", "h264", len(clip), 96, 64, 4000, None, None, kept=False)

    def begin(c: Connection) -> None:
        videos.put(c, "default", info, job.id)
        work_queue.add_upload(c, job.id, 9, "archive", "a.mp4", 0, options={"video": {"sha256": digest, "bytes": 1}})

    library.database.write(begin)
    waiting = library.blobs.upload_path(job.id, 9)
    waiting.write_bytes(clip)
    VideoLibrary(library).delete("default", digest)
    assert (job.id, 9) not in library.database.read(work_queue.list_uploads)
    assert not waiting.exists()


def test_a_file_that_is_not_kept_leaves_the_frames_alone(library: Library, pool: DecodePool, clip: bytes) -> None:
    add_bulk(library, [("a.mp4", clip)])
    import_all(library, pool, VideoLimits(keep=False))
    (video,) = list_videos(library)
    assert (video.is_kept, video.frames) == (False, 2)
    assert not library.blobs.path(video.id).exists()
    with pytest.raises(NotFound, match="SIGHTLINE_KEEP_VIDEOS"):
        VideoLibrary(library).open_file("default", video.id)
    assert list(library.find_known("default", [video.id])) == [video.id]


def test_a_server_without_videos_says_why(library: Library, pool: DecodePool, clip: bytes) -> None:
    job = add_bulk(library, [("a.mp4", clip), ("b.png", picture("red"))])
    import_all(library, pool, VideoLimits(refusal=EXTRA))
    (failed,) = (item for item in items(library, job) if item.status is ItemStatus.FAILED)
    assert failed.error == ItemError("unsupported_media_type", EXTRA)
    assert "sightline-search[video]" in EXTRA


def test_a_bad_video_fails_alone_and_says_why(library: Library, pool: DecodePool, clip: bytes) -> None:
    empty = make_video(container="mkv")
    bad = {
        "cut.mp4": clip[: len(clip) // 2],
        "encrypted.mp4": mark_encrypted(clip),
        "huge.mp4": set_size(clip, 65_535, 65_535),
        "empty.mkv": empty[: empty.index(b"\x1f\x43\xb6\x75")],
        "sound.mp4": make_sound(),
    }
    job = add_bulk(library, [*bad.items(), ("good.mp4", clip)])
    import_all(library, pool)
    errors = {item.name: item.error.code for item in items(library, job) if item.error is not None}
    assert errors == {
        "cut.mp4": "video_corrupt",
        "encrypted.mp4": "unsupported_media_type",
        "huge.mp4": "image_too_large",
        "empty.mkv": "video_corrupt",
        "sound.mp4": "unsupported_media_type",
    }
    assert len(frames(library)) == 2
    assert list(library.blobs.incoming.iterdir()) == []


def test_a_video_that_takes_too_long_is_one_failed_item(library: Library, pool: DecodePool, clip: bytes) -> None:
    job = add_bulk(library, [("a.mp4", clip)])
    import_all(library, pool, VideoLimits(seconds=0.001))
    ((name, error),) = ((item.name, item.error) for item in items(library, job))
    assert name == "a.mp4"
    assert error is not None
    assert error.code == "video_corrupt"
    assert "longer than" in error.detail


@pytest.mark.sqlite
def test_files_of_videos_are_kept_by_the_garbage_collector_and_verified(
    library: Library, pool: DecodePool, clip: bytes, tmp_path: Path
) -> None:
    add_bulk(library, [("a.mp4", clip)])
    import_all(library, pool)
    (video,) = list_videos(library)
    path = library.blobs.path(video.id)
    library.collect_garbage(0.0, lambda: False)
    assert path.read_bytes() == clip
    data_dir = library.blobs.root.parent
    create_backup(data_dir, tmp_path / "backup")
    restore_backup(tmp_path / "restored", tmp_path / "backup")
    assert (tmp_path / "restored" / path.relative_to(data_dir)).read_bytes() == clip
    path.unlink()
    named = [(what, where) for what, where, _ in find_faults(data_dir) if what == "blob_missing"]
    assert named == [("blob_missing", f"default/video {video.id}")]


def test_deleting_a_collection_deletes_its_videos(library: Library, pool: DecodePool, clip: bytes) -> None:
    library.create_collection("trip", "")
    add_bulk(library, [("a.mp4", clip)], collection="trip")
    add_bulk(library, [("a.mp4", clip)])
    import_all(library, pool)
    digest = hashlib.sha256(clip).hexdigest()
    label = library.begin_deletion("trip")
    while library.delete_batch(label, 100):
        pass
    assert library.blobs.path(digest).exists()  # another collection has it as well
    VideoLibrary(library).delete("default", digest)
    assert not library.blobs.path(digest).exists()


def test_a_picture_in_the_place_of_a_frame_is_no_frame(library: Library, pool: DecodePool, clip: bytes) -> None:
    add_bulk(library, [("a.mp4", clip)])
    import_all(library, pool)
    frame = frames(library)[0]
    upload = library.create_upload_dir() / "1"
    upload.write_bytes(picture("yellow"))
    added = library.add("default", upload, ImageAttributes(id=frame.id), replace=True)
    assert (added.image.video_id, added.image.t_ms) == (None, None)
