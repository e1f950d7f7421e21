"""Videos as a whole: list them, open their files, delete them with their frames. (Workers import them.)"""

from __future__ import annotations

from typing import BinaryIO

from app.core.errors import BlobMissing, NotFound, map_os_errors
from app.core.types import Video
from app.storage.blobs import measure_file
from app.storage.library import DELETE_BATCH, Library, delete_row
from app.storage.sql import Connection
from app.storage.tables import collections, videos, work_queue

NOT_KEPT = "the file of this video was not kept (SIGHTLINE_KEEP_VIDEOS); its frames are pictures of the collection"


class VideoLibrary:
    """The videos of a library."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._database = library.database

    def get(self, collection: str, id: str) -> Video:
        """Raises NotFound."""
        return self._database.read(lambda c: require_video(c, collection, id))

    def list_page(self, collection: str, limit: int, before: int | None) -> list[Video]:
        """Up to `limit` videos, newest first, with keys below `before`."""

        def work(c: Connection) -> list[Video]:
            collections.require(c, collection)
            return videos.list_page(c, collection, limit, before)

        return self._database.read(work)

    def open_file(self, collection: str, id: str) -> tuple[Video, BinaryIO]:
        """A video and its open file, which keeps its bytes when the video is deleted meanwhile.

        Raises NotFound, also for a video whose file was not kept, and BlobMissing when the file is gone or has another
        size. Its bytes are not compared: a player asks for parts of it again and again.
        """
        video = self.get(collection, id)
        if not video.is_kept:
            raise NotFound(NOT_KEPT)
        try:
            file = self._library.blobs.open(video.id)
        except BlobMissing:
            self.get(collection, id)  # raises NotFound if somebody has just deleted it
            raise BlobMissing("the file of this video is missing; run `sightline verify`") from None
        with map_os_errors():
            size = measure_file(file)
        if size != video.bytes:
            file.close()
            raise BlobMissing("the file of this video was altered; run `sightline verify`")
        return video, file

    def sign_file(self, collection: str, id: str) -> str | None:
        """As `Library.sign_file`."""
        video = self.get(collection, id)
        if not video.is_kept:
            raise NotFound(NOT_KEPT)
        return self._library.blobs.sign(video.id)

    def delete(self, collection: str, id: str) -> int:
        """Delete a video, its file and its frames, a few in each transaction; returns how many frames it had.

        The row of the video goes last, so that a call after a kill finds what is left.
        """
        for job_id, n in self._database.write(lambda c: drop_waiting(c, collection, id)):
            self._library.blobs.delete_upload(job_id, n)
        deleted = 0
        while digests := self._database.write(lambda c: delete_frames(c, collection, id)):
            deleted += len(digests)
            self._library.delete_unused_files(digests)
        self._database.write(lambda c: videos.delete(c, require_video(c, collection, id).key))
        self._library.delete_unused_files([id])
        return deleted


def require_video(c: Connection, collection: str, id: str) -> Video:
    """The video of this id. Raises NotFound."""
    video = videos.get(c, collection, id)
    if video is None:
        collections.require(c, collection)
        raise NotFound(f"there is no video {id!r} in {collection!r}")
    return video


def drop_waiting(c: Connection, collection: str, id: str) -> list[tuple[str, int]]:
    """Forget the uploads of a video, whose frames are still to come; returns them."""
    require_video(c, collection, id)
    return work_queue.drop_video(c, collection, id)


def delete_frames(c: Connection, collection: str, id: str) -> list[str]:
    """Delete some frames of a video; returns the digests of their files."""
    found = videos.list_frames(c, collection, id, DELETE_BATCH)
    for key, _ in found:
        delete_row(c, key)
    return [sha256 for _, sha256 in found]
