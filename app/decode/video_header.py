"""Headers of videos: the container, the first picture stream and its size, read before any decoder sees the file.

Two families of containers: ISO BMFF (MP4, QuickTime) and EBML (WebM, Matroska). Sizes and types are
read in a bounded number of steps, and nothing is decoded.
Sources: ISO 14496-12, Apple's QuickTime File Format, RFC 8794 (EBML), RFC 9559 (Matroska).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Literal

from app.core.errors import ImageCorrupt, ImageTooLarge, UnsupportedMediaType, VideoCorrupt
from app.decode.header_reader import Box, count_steps, iter_boxes, read_at
from app.decode.headers import has_picture_suffix
from app.decode.left_out import LeftOut
from app.decode.limits import PictureLimits, VideoLimits

VideoFormat = Literal["mp4", "mov", "webm", "mkv"]

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".qt", ".webm", ".mkv"})
MEDIA_TYPES: dict[str, str] = {
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "mkv": "video/matroska",
}
VIDEO_HEAD = 64  # bytes of a file that tell whether it is a video
_EBML = b"\x1a\x45\xdf\xa3"
_QUICKTIME_BRANDS = frozenset({b"qt  "})
_MP4_BRANDS = frozenset(
    {
        *(b"isom", b"mp41", b"mp42", b"mp71", b"avc1", b"hvc1", b"av01", b"dash", b"msdh", b"mmp4", b"MSNV", b"XAVC"),
        *(b"M4V ", b"M4VH", b"M4VP", b"M4A ", b"F4V ", b"f4v ", b"FACE", b"NDSC", b"piff", b"cmfc", b"iso1"),
        *(f"iso{n}".encode() for n in "23456789abc"),
        *(b"3gp4", b"3gp5", b"3gp6", b"3gp7", b"3gp8", b"3gp9", b"3g2a", b"3g2b", b"3g2c", b"3ge6", b"3gs7"),
    }
)
_PICTURE_BRANDS = frozenset({b"avif", b"avis", b"mif1", b"msf1", b"heic", b"heix", b"hevc", b"hevx", b"crx "})
_OLD_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # first boxes of files without a brand
_CONTAINERS = (b"mdia", b"minf", b"stbl")  # of a track; `stsd` lies inside
_ENCRYPTED = b"encv"
_MAX_BOX = 1 << 20  # bytes of a sample description that are looked at
# Elements of Matroska.
_SEGMENT, _CLUSTER, _TRACKS, _TRACK = 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE
_TRACK_TYPE, _VIDEO, _WIDTH, _HEIGHT, _CODEC, _ENCODINGS, _ENCODING, _ENCRYPTION, _DOC_TYPE = (
    *(0x83, 0xE0, 0xB0, 0xBA, 0x86, 0x6D80, 0x6240, 0x5035, 0x4282),
)
NO_PICTURES = "the video holds no pictures, only sound or data"
ENCRYPTED = "the video is encrypted (DRM), and cannot be read without its key"


@dataclass(frozen=True, slots=True)
class VideoHeader:
    """What a header says of the first picture stream; width and height before the file turns the picture."""

    format: VideoFormat
    width: int
    height: int


def has_video_suffix(name: str) -> bool:
    """Whether the name of a file ends like that of an accepted video."""
    return PurePath(name).suffix.lower() in VIDEO_SUFFIXES


def is_accepted(name: str, formats: Collection[str] | None, *, videos: bool) -> bool:
    """Whether the name of a file ends like that of a picture of one of the `formats`, or of a video where these are."""
    return has_picture_suffix(name, formats) or (videos and has_video_suffix(name))


def warn_of_videos(left_out: LeftOut, limits: VideoLimits) -> None:
    """Say why videos were left out, if any were because this server takes none."""
    if limits.refusal and not VIDEO_SUFFIXES.isdisjoint(left_out.kinds):
        left_out.warn("left_out", limits.refusal)


def detect_video(head: bytes) -> VideoFormat | None:
    """The container of a video that begins with `head` (`VIDEO_HEAD` bytes), None for any other file.

    AVIF, HEIC and Canon's RAW are ISO BMFF as well; a file that says to be one of them is no video.
    """
    if head[:4] == _EBML:
        return "webm" if b"webm" in head else "mkv"
    if head[4:8] == b"ftyp":
        size = min(struct.unpack(">I", head[:4])[0], len(head))
        major, brands = head[8:12], {head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))}
        if major in _PICTURE_BRANDS:
            return None
        if brands & _QUICKTIME_BRANDS:
            return "mov"
        return "mp4" if brands & _MP4_BRANDS and not brands & _PICTURE_BRANDS else None
    return "mov" if head[4:8] in _OLD_QUICKTIME else None


def is_video_file(file: IO[bytes]) -> bool:
    """Whether an open file begins like a video; its position afterwards is undefined."""
    file.seek(0)
    return detect_video(file.read(VIDEO_HEAD)) is not None


def read_video_header(file: IO[bytes], limits: VideoLimits, pictures: PictureLimits) -> VideoHeader:
    """Read the header of a video from a seekable file; its position afterwards is undefined.

    Raises UnsupportedMediaType where videos are not accepted, for other files and for encrypted ones, VideoCorrupt for
    a header that is cut off or impossible, ImageTooLarge above the limits.
    """
    if limits.refusal:
        raise UnsupportedMediaType(limits.refusal)
    length = file.seek(0, os.SEEK_END)
    if length > limits.max_bytes:
        raise ImageTooLarge(
            f"the video has {length:,} bytes; the limit is {limits.max_bytes:,} (SIGHTLINE_MAX_VIDEO_BYTES)"
        )
    file.seek(0)
    format_ = detect_video(file.read(VIDEO_HEAD))
    try:
        if format_ in ("mp4", "mov"):
            width, height = _find_track_of_mp4(file, length)
        elif format_ is not None:
            width, height = _find_track_of_matroska(file, length)
        else:
            raise UnsupportedMediaType("this is not a video of a known format; MP4, MOV, WebM and MKV are accepted")
    except (struct.error, IndexError) as error:
        raise VideoCorrupt("the video ends inside its header") from error
    except (ImageCorrupt, VideoCorrupt) as error:
        raise VideoCorrupt(f"the video is cut off or damaged: {error.detail}") from None
    check_frame_size(width, height, pictures)
    return VideoHeader(format_, width, height)


def check_frame_size(width: int, height: int, limits: PictureLimits) -> None:
    """Raise VideoCorrupt for a size of nothing, ImageTooLarge above the limits of pictures."""
    if width < 1 or height < 1:
        raise VideoCorrupt("the pictures of the video have no width or no height")
    size = f"the pictures of the video have {width} × {height} pixels"
    if max(width, height) > limits.max_side:
        raise ImageTooLarge(f"{size}; the limit is {limits.max_side:,} a side (SIGHTLINE_MAX_IMAGE_SIDE)")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(f"{size}; the limit is {limits.max_pixels:,} in all (SIGHTLINE_MAX_IMAGE_PIXELS)")


def _find_track_of_mp4(file: IO[bytes], length: int) -> tuple[int, int]:
    steps = count_steps("parts")
    for box in iter_boxes(file, 0, length, steps, "video"):
        if box.name == b"moov":
            for inside in iter_boxes(file, box.start, box.end, steps, "video"):
                if inside.name == b"trak" and (size := _read_track(file, inside, steps)) is not None:
                    return size
            raise UnsupportedMediaType(NO_PICTURES)
    raise VideoCorrupt("it has no index (moov)")


def _read_track(file: IO[bytes], track: Box, steps: Iterator[None]) -> tuple[int, int] | None:
    """The size of a track's pictures; None for a track of another kind."""
    is_video, size = False, None
    todo = [track]
    while todo:
        parent = todo.pop()
        for box in iter_boxes(file, parent.start, parent.end, steps, "video"):
            if box.name in _CONTAINERS:
                todo.append(box)
            elif box.name == b"hdlr" and read_at(file, box.start + 8, 4) == b"vide":
                is_video = True
            elif box.name == b"stsd":
                size = _read_sample_entry(read_at(file, box.start, min(box.end - box.start, _MAX_BOX)))
    if not is_video or size is None:
        return None
    codec, width, height = size
    if codec == _ENCRYPTED:
        raise UnsupportedMediaType(ENCRYPTED)
    return width, height


def _read_sample_entry(data: bytes) -> tuple[bytes, int, int] | None:
    """Codec, width and height of the first sample description."""
    if len(data) < 8 + 36:
        return None
    width, height = struct.unpack(">HH", data[8 + 32 : 8 + 36])
    return data[12:16], width, height


def _find_track_of_matroska(file: IO[bytes], length: int) -> tuple[int, int]:
    steps = count_steps("parts")
    for element, start, end in _iter_elements(file, 0, length, steps):
        if element != _SEGMENT:
            continue
        for part, begin, stop in _iter_elements(file, start, end, steps):
            if part == _TRACKS:
                for track, at, until in _iter_elements(file, begin, stop, steps):
                    if track == _TRACK and (size := _read_track_entry(file, at, until, steps)) is not None:
                        return size
                raise UnsupportedMediaType(NO_PICTURES)
            if part == _CLUSTER:
                break
        break
    raise VideoCorrupt("it does not describe its pictures")


def _read_track_entry(file: IO[bytes], start: int, end: int, steps: Iterator[None]) -> tuple[int, int] | None:
    kind, size, is_encrypted = 0, {_WIDTH: 0, _HEIGHT: 0}, False
    for element, body, stop in _iter_elements(file, start, end, steps):
        if element == _TRACK_TYPE:
            kind = int.from_bytes(read_at(file, body, min(stop - body, 8)), "big")
        elif element == _VIDEO:
            for one, at, until in _iter_elements(file, body, stop, steps):
                if one in size:
                    size[one] = int.from_bytes(read_at(file, at, min(until - at, 8)), "big")
        elif element == _ENCODINGS:
            for one, at, until in _iter_elements(file, body, stop, steps):
                inside = _iter_elements(file, at, until, steps) if one == _ENCODING else ()
                is_encrypted = is_encrypted or any(each[0] == _ENCRYPTION for each in inside)
    if kind != 1:
        return None
    if is_encrypted:
        raise UnsupportedMediaType(ENCRYPTED)
    return size[_WIDTH], size[_HEIGHT]


def _iter_elements(file: IO[bytes], start: int, end: int, steps: Iterator[None]) -> Iterator[tuple[int, int, int]]:
    """Id, start of the content and end of each element; one of unknown size ends where its parent does."""
    while start < end:
        next(steps)
        data = read_at(file, start, 12)
        id_size = _size_of_number(data[0], 4)
        element = int.from_bytes(data[:id_size], "big")
        count = _size_of_number(data[id_size], 8)
        size = int.from_bytes(data[id_size : id_size + count], "big") & ((1 << 7 * count) - 1)
        body = start + id_size + count
        stop = end if size == (1 << 7 * count) - 1 else body + size
        yield element, body, min(stop, end)
        start = stop


def _size_of_number(first: int, most: int) -> int:
    """The bytes of a number of EBML that begins with this byte."""
    size = 9 - first.bit_length()
    if size > most:
        raise VideoCorrupt("an element of it has an impossible length")
    return size
