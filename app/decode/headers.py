"""Parsers of picture headers: the format and size of a file, read before any decoder sees it.

They read sizes and types only, skip over segments, and take at most `MAX_STEPS` steps.
Sources: ITU T.81 (JPEG), W3C PNG 3rd edition, RFC 9649 (WebP), GIF89a, ISO 23008-12 and AV1-ISOBMFF (AVIF).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO, Literal

from app.core.errors import ImageCorrupt, ImageTooLarge, UnsupportedMediaType
from app.decode.limits import PictureLimits

Format = Literal["jpeg", "png", "webp", "gif", "avif"]
ArchiveKind = Literal["zip", "tar", "tar.gz"]
Size = tuple[int, int]

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjpg", ".pjp", ".mpo"})
PICTURE_SUFFIXES = JPEG_SUFFIXES | {".png", ".apng", ".webp", ".gif", ".avif", ".avifs"}
MAX_STEPS = 20_000
ARCHIVE_HEAD = 512
_ACCEPTED = "JPEG, PNG, WebP, GIF and AVIF"
_SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_OTHER_ARCHIVES = (
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"7z\xbc\xaf", "7z"),
    (b"Rar!", "RAR"),
    (b"(\xb5/\xfd", "zstd"),
)
_OTHER_FORMATS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
    (b"PK\3\4", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
)


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a header says; width and height before EXIF turns the picture, `animated` None if unknown."""

    format: Format
    width: int
    height: int
    animated: bool | None


def detect_archive(head: bytes) -> ArchiveKind | None:
    """The kind of archive that begins with `head` (of `ARCHIVE_HEAD` bytes), or None."""
    if head[:4] in (b"PK\3\4", b"PK\5\6", b"PK\7\x08"):
        return "zip"
    if head[:3] == b"\x1f\x8b\x08":
        return "tar.gz"
    return "tar" if head[257:262] == b"ustar" else None


def read_header(file: BinaryIO, limits: PictureLimits) -> PictureHeader:
    """Read the header of a picture from a seekable file; its position afterwards is undefined.

    Raises UnsupportedMediaType for anything but the five formats, ImageCorrupt for a header that is cut off or
    impossible, ImageTooLarge above the limits.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    if length > limits.max_bytes:
        raise ImageTooLarge(
            f"the file has {length:,} bytes; the limit is {limits.max_bytes:,} (SIGHTLINE_MAX_IMAGE_BYTES)"
        )
    head = file.read(64)
    kind = detect_format(head)
    file.seek(0)
    parse = {"jpeg": _parse_jpeg, "png": _parse_png, "webp": _parse_webp, "gif": _parse_gif, "avif": _parse_avif}[kind]
    try:
        (width, height), animated = parse(file)
    except (struct.error, IndexError) as error:
        raise ImageCorrupt("the file ends inside its header") from error
    check_size(width, height, kind, limits)
    return PictureHeader(kind, width, height, animated)


def detect_format(head: bytes) -> Format:
    """The picture format of a file that begins with `head` (64 bytes are enough). Raises UnsupportedMediaType."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head[4:8] == b"ftyp":
        size = min(struct.unpack(">I", head[:4])[0], len(head))
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))}
        if brands & _AVIF_BRANDS:
            return "avif"
        raise UnsupportedMediaType(f"HEIC and video files are not accepted, only {_ACCEPTED}")
    if not head:
        raise UnsupportedMediaType("the file is empty")
    for magic, name in _OTHER_ARCHIVES:
        if head.startswith(magic):
            raise UnsupportedMediaType(f"this is a {name} archive; of archives only zip, tar and tar.gz are read")
    start = head.lstrip().lower()
    for magic, name in _OTHER_FORMATS:
        if start.startswith(magic.lower()):
            raise UnsupportedMediaType(f"this is a {name} file; only {_ACCEPTED} are accepted")
    raise UnsupportedMediaType(f"this is not a picture of a known format; only {_ACCEPTED} are accepted")


def check_size(width: int, height: int, format: Format, limits: PictureLimits) -> None:
    """Raise ImageCorrupt for a size of nothing, ImageTooLarge above the limits."""
    if width < 1 or height < 1:
        raise ImageCorrupt("the picture has no width or no height")
    size = f"the picture has {width} × {height} pixels"
    if max(width, height) > limits.max_side:
        raise ImageTooLarge(f"{size}; the limit is {limits.max_side:,} a side (SIGHTLINE_MAX_IMAGE_SIDE)")
    if width * height > (most := limits.pixels_of(format)):
        raise ImageTooLarge(f"{size}; the limit is {most:,} in all for {format.upper()} (SIGHTLINE_MAX_IMAGE_PIXELS)")


def _count_steps(what: str) -> Iterator[None]:
    for _ in range(MAX_STEPS):
        yield None
    raise ImageCorrupt(f"the file has too many {what} before its picture")


def _parse_jpeg(file: BinaryIO) -> tuple[Size, bool]:
    file.seek(2)
    for _ in _count_steps("segments"):
        lead = file.read(1)[0]
        if lead != 0xFF:  # a stray byte between segments, which libjpeg skips as well
            continue
        marker = file.read(1)[0]
        if marker == 0xFF:  # a fill byte; the next one may be the marker
            file.seek(-1, os.SEEK_CUR)
            continue
        if marker == 0 or marker in _BARE_MARKERS:
            continue
        if marker in (0xD9, 0xDA):
            raise ImageCorrupt("the picture data begins before its size")
        (length,) = struct.unpack(">H", file.read(2))
        if length < 2:
            raise ImageCorrupt("a segment has an impossible length")
        if marker in _SOF_MARKERS:
            _, height, width = struct.unpack(">BHH", file.read(5))
            return (width, height), False
        file.seek(length - 2, os.SEEK_CUR)
    raise AssertionError("unreachable")


def _parse_png(file: BinaryIO) -> tuple[Size, bool]:
    length, name, width, height = struct.unpack(">8xI4sII", file.read(24))
    if name != b"IHDR" or length != 13:
        raise ImageCorrupt("the first chunk is not a PNG header")
    if not 0 < width < 1 << 31 or not 0 < height < 1 << 31 or width * height > 1 << 40:
        return (width, height), False  # above every limit: the rest does not matter
    file.seek(8 + 12 + 13)
    for _ in _count_steps("chunks"):
        length, name = struct.unpack(">I4s", file.read(8))
        if length > 0x7FFFFFFF:
            raise ImageCorrupt("a chunk has an impossible length")
        if name == b"acTL":
            (frames,) = struct.unpack(">I", file.read(4))
            return (width, height), frames > 1
        if name in (b"IDAT", b"IEND"):
            return (width, height), False
        file.seek(length + 4, os.SEEK_CUR)
    raise AssertionError("unreachable")


def _parse_webp(file: BinaryIO) -> tuple[Size, bool]:
    head = file.read(30)
    kind, body = head[12:16], head[20:]
    if kind == b"VP8X":
        flags, width, height = struct.unpack("<B3x3s3s", body[:10])
        size = int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
        return size, bool(flags & 2)
    if kind == b"VP8L":
        signature, bits = struct.unpack("<BI", body[:5])
        if signature != 0x2F:
            raise ImageCorrupt("the WebP data has no signature")
        return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), False
    if kind == b"VP8 ":
        signature, across, down = struct.unpack("<3x3sHH", body[:10])
        if signature != b"\x9d\x01\x2a":
            raise ImageCorrupt("the WebP data has no signature")
        return (across & 0x3FFF, down & 0x3FFF), False
    raise ImageCorrupt("the WebP file holds no picture")


def _parse_gif(file: BinaryIO) -> tuple[Size, None]:
    width, height, flags = struct.unpack("<6xHHB2x", file.read(13))
    if width == 0 or height == 0:
        return (width, height), None
    if flags & 0x80:
        file.seek(3 * (2 << (flags & 7)), os.SEEK_CUR)
    steps = _count_steps("blocks")
    for _ in steps:
        kind = file.read(1)[0]
        if kind == 0x2C:
            # The first frame may be larger than the screen; decoders enlarge the screen then.
            left, top, across, down = struct.unpack("<HHHH", file.read(8))
            return (max(width, left + across), max(height, top + down)), None
        if kind == 0x3B:
            raise ImageCorrupt("the GIF file holds no picture")
        if kind == 0x21:
            file.seek(1, os.SEEK_CUR)
            while length := file.read(1)[0]:
                next(steps)
                file.seek(length, os.SEEK_CUR)
    raise AssertionError("unreachable")


def _parse_avif(file: BinaryIO) -> tuple[Size, bool | None]:
    """The largest `ispe` (image spatial extent) anywhere in meta/iprp/ipco."""
    end = file.seek(0, os.SEEK_END)
    brand = _read_at(file, 8, 4)
    sizes: list[Size] = []
    todo, steps = [(0, end)], _count_steps("boxes")
    while todo:
        position, stop = todo.pop()
        while position + 8 <= stop:
            next(steps)
            length, name = struct.unpack(">I4s", _read_at(file, position, 8))
            body = position + 8
            if length == 1:
                (length,) = struct.unpack(">Q", _read_at(file, body, 8))
                body += 8
            length = length or stop - position
            if length < body - position or position + length > stop:
                raise ImageCorrupt("a box of the AVIF file has an impossible length")
            if name == b"ispe":
                sizes.append(struct.unpack(">4xII", _read_at(file, body, 12)))
            elif name in (b"meta", b"iprp", b"ipco"):
                todo.append((body + 4 if name == b"meta" else body, position + length))
            if name == b"meta" and stop == end:
                break  # pixel data follows, which may be cut off; that is for the decoder to see
            position += length
    if not sizes:
        raise ImageCorrupt("the AVIF file does not say its size")
    return max(sizes, key=lambda size: (min(size) > 0, size[0] * size[1])), None if brand == b"avis" else False


def _read_at(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def has_picture_suffix(name: str) -> bool:
    """Whether the name of a file ends like that of an accepted picture."""
    return PurePath(name).suffix.lower() in PICTURE_SUFFIXES


def has_no_suffix(name: str) -> bool:
    """Whether the name of a file says nothing about its kind, so that only its bytes do.

    That is one without a suffix (`IMG_0001`, `Photo 2019.07.04`, `St. Moritz`), one whose suffix goes on after that of
    a picture (`cat.jpg_large`, `cat.jpg~`), and that of a row of a table (`shop.csv:3`).
    """
    suffix = PurePath(name).suffix.lower()
    goes_on = re.match(r"(\.[a-z]+)[^a-z]", suffix)
    return (
        not suffix[1:].strip("0123456789")
        or not {" ", ":"}.isdisjoint(suffix)
        or bool(goes_on and goes_on[1] in PICTURE_SUFFIXES)
    )


def is_picture_head(head: bytes) -> bool:
    """Whether the first bytes of a file (64 are enough) are those of an accepted picture."""
    try:
        detect_format(head)
    except UnsupportedMediaType:
        return False
    return True
