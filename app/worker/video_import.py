"""Videos among the members of uploads. Each becomes an upload of its own, whose members are its frames."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.core.errors import ArchiveCorrupt, VideoCorrupt, map_os_errors
from app.core.files import fsync_dir, link_or_copy, open_beneath
from app.core.types import AnswerWarning, ItemStatus, NewVideo
from app.decode.limits import PictureLimits, VideoLimits
from app.decode.task_channel import OutputFolder
from app.decode.video import VIDEO_INFO, expand_video
from app.decode.video_header import is_video_file, read_video_header
from app.storage.attributes import ImageAttributes
from app.storage.blobs import BlobStore, StagedFile
from app.storage.sql import Connection
from app.storage.tables import images, jobs, videos, work_queue
from app.storage.tables.work_queue import Upload

NO_ID = "a video takes no id, as its frames have their own"


@dataclass(frozen=True, slots=True)
class Frame:
    """What a row says of a frame beside what it says of every picture."""

    video_id: str
    t_ms: int
    taken_at: str | None
    taken_offset: int | None


def read_frame(line: Mapping[str, Any]) -> Frame | None:
    """The frame that a line of a manifest tells about; None for another picture."""
    if line.get("video_id") is None:
        return None
    return Frame(str(line["video_id"]), int(line["t_ms"]), line.get("taken_at"), line.get("taken_offset"))


def save_frame(c: Connection, key: int, frame: Frame) -> None:
    """Write down of a new picture that it is a frame."""
    videos.set_frame(c, key, frame.video_id, frame.t_ms)
    if frame.taken_at is not None:
        images.set_carried(c, key, {"taken_at": frame.taken_at, "taken_offset": frame.taken_offset})


@dataclass(frozen=True, slots=True)
class VideoMember:
    """A video among the members of an upload, and what was said of it, which goes for each of its frames."""

    name: str
    saved: StagedFile
    attributes: ImageAttributes
    warnings: tuple[AnswerWarning, ...]
    n: int  # of its upload

    def to_options(self) -> dict[str, Any]:
        """What the upload of the video must know."""
        said = self.attributes
        warnings = [*self.warnings, *([AnswerWarning("left_out", NO_ID, "id")] if said.id else [])]
        return {
            "sha256": self.saved.sha256,
            "bytes": self.saved.bytes,
            "caption": said.caption,
            "tags": list(said.tags),
            "metadata": dict(said.metadata),
            "warnings": [asdict(one) for one in warnings],
        }


class VideoImporter:
    """What an importer does with videos."""

    def __init__(self, blobs: BlobStore, limits: VideoLimits, pictures: PictureLimits) -> None:
        self._blobs, self.limits, self._pictures = blobs, limits, pictures

    def stage(
        self, name: str, saved: StagedFile, attributes: ImageAttributes, warnings: tuple[AnswerWarning, ...]
    ) -> VideoMember | None:
        """The video in a file; None if it is none. Raises Rejected for one that is not accepted."""
        with open(saved.path, "rb") as file:
            if not is_video_file(file):
                return None
            read_video_header(file, self.limits, self._pictures)
        return VideoMember(name, saved, attributes, warnings, time.time_ns())  # unlike all before, and behind them

    def add(self, c: Connection, upload: Upload, video: VideoMember) -> None:
        """Make an upload of a video, in the same job; or note that it is there already."""
        saved = video.saved
        if videos.filter_complete(c, upload.collection, [saved.sha256]):
            jobs.add_item(c, upload.job_id, video.name, ItemStatus.DUPLICATE)
            return
        with map_os_errors():
            link_or_copy(saved.path, self._blobs.upload_path(upload.job_id, video.n))
            fsync_dir(self._blobs.incoming)
        options = {"video": video.to_options()}
        work_queue.add_upload(c, upload.job_id, video.n, "archive", video.name, 0, options=options, size=saved.bytes)

    def is_known(self, c: Connection, upload: Upload) -> bool:
        """Whether the frames of a video came with another upload meanwhile."""
        return bool(videos.filter_complete(c, upload.collection, [said_of(upload)["sha256"]]))

    def make_task(self, upload: Upload, path: Path, members: Path) -> tuple[Any, ...]:
        """The task of a decode child that reads a video: the function and its arguments."""
        digest = said_of(upload)["sha256"]
        return (expand_video, path, OutputFolder(members), upload.name, digest, self.limits, self._pictures)

    def describe(self, upload: Upload, line: Mapping[str, Any]) -> dict[str, Any]:
        """A line of the manifest of a video with what was said of the video."""
        video = said_of(upload)
        said = {name: video.get(name) for name in ("caption", "tags", "metadata")}
        return {**line, **said, "warnings": video.get("warnings") if line.get("n") == 1 else None}

    def find_kept(self, upload: Upload) -> StagedFile | None:
        """The file of a video that the library has still to keep; None if it has it, or keeps none."""
        sha256 = str(said_of(upload)["sha256"])
        if not self.limits.keep or upload.position or self._is_here(sha256):
            return None
        return StagedFile(self._blobs.upload_path(upload.job_id, upload.n), sha256, int(said_of(upload)["bytes"]))

    def _is_here(self, sha256: str) -> bool:
        """Whether the data directory has the file; what a cache has, a bucket may have lost."""
        return not self._blobs.is_remote and self._blobs.path(sha256).exists()

    def save(self, c: Connection, upload: Upload, members: Path) -> None:
        """Write the row of a video, before its first frames, and keep its file."""
        new = self._read_info(upload, members)
        videos.put(c, upload.collection, new, upload.job_id)
        if new.kept and not self._is_here(new.sha256):
            path = self._blobs.upload_path(upload.job_id, upload.n)
            self._blobs.place(StagedFile(path, new.sha256, new.bytes))

    def _read_info(self, upload: Upload, members: Path) -> NewVideo:
        """Raises VideoCorrupt if what the decode child wrote is not what it should be."""
        video = said_of(upload)
        sha256, size = str(video["sha256"]), int(video["bytes"])
        try:
            with open_beneath(members, VIDEO_INFO) as file:
                said = json.load(file)
            width, height, duration_ms = (int(said[name]) for name in ("width", "height", "duration_ms"))
            offset = None if said["taken_offset"] is None else int(said["taken_offset"])
            taken_at = None if said["taken_at"] is None else str(said["taken_at"])
            named = (str(said["format"]), str(said["codec"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VideoCorrupt("the video could not be read") from error
        shape = (size, width, height, duration_ms)
        return NewVideo(sha256, upload.name, *named, *shape, taken_at, offset, self.limits.keep)


def said_of(upload: Upload) -> dict[str, Any]:
    """What the upload of a video knows of it."""
    assert upload.video is not None
    return upload.video


def as_video_error(error: ArchiveCorrupt) -> VideoCorrupt:
    """The error for a video whose decode child has died."""
    return VideoCorrupt(error.detail)
