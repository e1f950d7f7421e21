"""Videos in jobs: each becomes pictures of its frames and a row of its own."""

from __future__ import annotations

import pytest

from app.core.types import Image, Job, JobItem, Video
from app.decode.limits import ArchiveLimits, VideoLimits
from app.decode.pool import DecodePool
from app.storage.jobs import JobService
from app.storage.library import Library
from app.storage.tables import videos, work_queue
from app.worker.importer import Importer
from tests.support.imports import importing
from tests.support.makers import add_bulk
from tests.support.servers import wait_until
from tests.support.videos import make_video

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
