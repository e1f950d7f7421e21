"""What a file is, told from its first bytes by our own code before any decoder sees it.

Only sizes and types are read; segments are seeked over, and every walk is bounded by `MAX_STEPS`.
Sources: ITU T.81 (JPEG), W3C PNG 3rd edition, RFC 9649 (WebP), GIF89a, ISO 23008-12 and AV1-ISOBMFF (AVIF).
"""

from __future__ import annotations

import os
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

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif"})
MAX_STEPS = 20_000
ARCHIVE_HEAD = 512
_TAKEN = "JPEG, PNG, WebP, GIF and AVIF"
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_STRANGERS: tuple[tuple[bytes, str], ...] = (
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
    """What a picture says of itself: pixels as stored (before EXIF), `animated` None if unknown."""

    format: Format
    width: int
    height: int
    animated: bool | None


def detect_archive(head: bytes) -> ArchiveKind | None:
    """The kind of archive that begins with `head` (give `ARCHIVE_HEAD` bytes), or None."""
    if head[:4] in (b"PK\3\4", b"PK\5\6", b"PK\7\x08"):
        return "zip"
    if head[:3] == b"\x1f\x8b\x08":
        return "tar.gz"
    return "tar" if head[257:262] == b"ustar" else None


def read_header(file: BinaryIO, limits: PictureLimits) -> PictureHeader:
    """Read the header of a picture from a seekable file; the position afterwards is undefined.

    Raises UnsupportedMediaType for anything but the five formats, ImageCorrupt for a header that
    is cut off or makes no sense, ImageTooLarge past the limits.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    if length > limits.max_bytes:
        raise ImageTooLarge(f"The file has {length:,} bytes; the limit is {limits.max_bytes:,}.")
    head = file.read(64)
    kind = detect_format(head)
    file.seek(0)
    walk = {"jpeg": _jpeg, "png": _png, "webp": _webp, "gif": _gif, "avif": _avif}[kind]
    try:
        (width, height), animated = walk(file)
    except (struct.error, IndexError) as error:
        raise ImageCorrupt("The file ends inside its header.") from error
    check_size(width, height, limits)
    return PictureHeader(kind, width, height, animated)


def detect_format(head: bytes) -> Format:
    """The format whose magic `head` (64 bytes are enough) begins with; raises UnsupportedMediaType."""
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
        raise UnsupportedMediaType(f"HEIC and video files are not taken; only {_TAKEN} are.")
    if not head:
        raise UnsupportedMediaType("The file is empty.")
    start = head.lstrip().lower()
    for magic, name in _STRANGERS:
        if start.startswith(magic.lower()):
            raise UnsupportedMediaType(f"This is a {name} file; only {_TAKEN} are taken.")
    raise UnsupportedMediaType(f"This is not a picture of a known format; only {_TAKEN} are taken.")


def check_size(width: int, height: int, limits: PictureLimits) -> None:
    """Raise ImageCorrupt for a side of 0 pixels, ImageTooLarge past the limits."""
    if width <= 0 or height <= 0:
        raise ImageCorrupt(f"The header says {width} × {height} pixels.")
    if max(width, height) > limits.max_side:
        raise ImageTooLarge(f"{width} × {height} pixels; the limit is {limits.max_side:,} a side.")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(f"{width} × {height} pixels; the limit is {limits.max_pixels:,} in all.")


def _steps(what: str) -> Iterator[None]:
    for _ in range(MAX_STEPS):
        yield None
    raise ImageCorrupt(f"The file has too many {what} before its picture.")


def _jpeg(file: BinaryIO) -> tuple[Size, bool]:
    file.seek(2)
    for _ in _steps("segments"):
        lead = file.read(1)[0]
        if lead != 0xFF:  # libjpeg skips stray bytes between segments, and so do we
            continue
        marker = file.read(1)[0]
        if marker == 0xFF:  # fill byte: the next one may be the marker
            file.seek(-1, os.SEEK_CUR)
            continue
        if marker == 0 or marker in _BARE:
            continue
        if marker in (0xD9, 0xDA):
            raise ImageCorrupt("The picture begins before its size is given.")
        (length,) = struct.unpack(">H", file.read(2))
        if length < 2:
            raise ImageCorrupt("A segment has an impossible length.")
        if marker in _SOF:
            _, height, width = struct.unpack(">BHH", file.read(5))
            return (width, height), False
        file.seek(length - 2, os.SEEK_CUR)
    raise AssertionError("unreachable")


def _png(file: BinaryIO) -> tuple[Size, bool]:
    length, name, width, height = struct.unpack(">8xI4sII", file.read(24))
    if name != b"IHDR" or length != 13:
        raise ImageCorrupt("The first chunk is not a PNG header.")
    if not 0 < width < 1 << 31 or not 0 < height < 1 << 31 or width * height > 1 << 40:
        return (width, height), False  # over every limit: no need to walk on
    file.seek(8 + 12 + 13)
    for _ in _steps("chunks"):
        length, name = struct.unpack(">I4s", file.read(8))
        if length > 0x7FFFFFFF:
            raise ImageCorrupt("A chunk has an impossible length.")
        if name == b"acTL":
            (frames,) = struct.unpack(">I", file.read(4))
            return (width, height), frames > 1
        if name in (b"IDAT", b"IEND"):
            return (width, height), False
        file.seek(length + 4, os.SEEK_CUR)
    raise AssertionError("unreachable")


def _webp(file: BinaryIO) -> tuple[Size, bool]:
    head = file.read(30)
    kind, body = head[12:16], head[20:]
    if kind == b"VP8X":
        flags, width, height = struct.unpack("<B3x3s3s", body[:10])
        size = int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
        return size, bool(flags & 2)
    if kind == b"VP8L":
        signature, bits = struct.unpack("<BI", body[:5])
        if signature != 0x2F:
            raise ImageCorrupt("The WebP data has no signature.")
        return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1), False
    if kind == b"VP8 ":
        signature, across, down = struct.unpack("<3x3sHH", body[:10])
        if signature != b"\x9d\x01\x2a":
            raise ImageCorrupt("The WebP data has no signature.")
        return (across & 0x3FFF, down & 0x3FFF), False
    raise ImageCorrupt("The WebP file holds no picture.")


def _gif(file: BinaryIO) -> tuple[Size, None]:
    width, height, flags = struct.unpack("<6xHHB2x", file.read(13))
    if width == 0 or height == 0:
        return (width, height), None
    if flags & 0x80:
        file.seek(3 * (2 << (flags & 7)), os.SEEK_CUR)
    steps = _steps("blocks")
    for _ in steps:
        kind = file.read(1)[0]
        if kind == 0x2C:
            # The first frame may reach past the screen; decoders then enlarge the screen.
            left, top, across, down = struct.unpack("<HHHH", file.read(8))
            return (max(width, left + across), max(height, top + down)), None
        if kind == 0x3B:
            raise ImageCorrupt("The GIF file holds no picture.")
        if kind == 0x21:
            file.seek(1, os.SEEK_CUR)
            while length := file.read(1)[0]:
                next(steps)
                file.seek(length, os.SEEK_CUR)
    raise AssertionError("unreachable")


def _avif(file: BinaryIO) -> tuple[Size, bool | None]:
    """The largest `ispe` (image spatial extent) anywhere in meta/iprp/ipco."""
    end = file.seek(0, os.SEEK_END)
    brand = _at(file, 8, 4)
    sizes: list[Size] = []
    todo, steps = [(0, end)], _steps("boxes")
    while todo:
        position, stop = todo.pop()
        while position + 8 <= stop:
            next(steps)
            length, name = struct.unpack(">I4s", _at(file, position, 8))
            body = position + 8
            if length == 1:
                (length,) = struct.unpack(">Q", _at(file, body, 8))
                body += 8
            length = length or stop - position
            if length < body - position or position + length > stop:
                raise ImageCorrupt("A box of the AVIF file has an impossible length.")
            if name == b"ispe":
                sizes.append(struct.unpack(">4xII", _at(file, body, 12)))
            elif name in (b"meta", b"iprp", b"ipco"):
                todo.append((body + 4 if name == b"meta" else body, position + length))
            if name == b"meta" and stop == end:
                break  # what follows is pixel data, which may be cut off: the decoder's business
            position += length
    if not sizes:
        raise ImageCorrupt("The AVIF file does not say its size.")
    return max(sizes, key=lambda size: (min(size) > 0, size[0] * size[1])), None if brand == b"avis" else False


def _at(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def has_picture_suffix(name: str) -> bool:
    """Whether a file is called like a picture that can be taken."""
    return PurePath(name).suffix.lower() in PICTURE_SUFFIXES
