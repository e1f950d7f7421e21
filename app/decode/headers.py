"""Parsers of picture headers: the format and size of a file, read before any decoder sees it.

They read sizes and types only, skip over segments, and take at most `MAX_STEPS` steps.
Sources: ITU T.81 (JPEG), W3C PNG 3rd edition, RFC 9649 (WebP), GIF89a, ISO 23008-12 (HEIC) and AV1-ISOBMFF (AVIF),
Microsoft's BITMAPINFOHEADER, ISO 18181 (JPEG XL), ISO 15444-1 (JPEG 2000); `app.decode.tiff_header` has TIFF and RAW.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Literal

from app.core.errors import ImageCorrupt, ImageTooLarge, UnsupportedMediaType
from app.core.picture_formats import (
    FORMAT_OF_SUFFIX,
    FORMATS,
    Format,
    default_formats,
    explain_refusal,
    list_labels,
)
from app.decode.header_reader import (
    MAX_STEPS as MAX_STEPS,
)
from app.decode.header_reader import ParsedHeader, Size, count_steps, iter_boxes, largest, read_at
from app.decode.limits import PictureLimits
from app.decode.tiff_header import ORF_MAGICS, RAF_MAGIC, TIFF_MAGICS, parse_cr3, parse_raf, parse_tiff

ArchiveKind = Literal["zip", "tar", "tar.gz"]

JPEG_SUFFIXES = frozenset(FORMATS["jpeg"].suffixes)
PICTURE_SUFFIXES = frozenset(FORMAT_OF_SUFFIX)
ARCHIVE_HEAD = 512
HEAD_BYTES = 512  # that tell what a file is; 64 tell all but an SVG after a long prologue
_SOF_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
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
    (b"PK\3\4", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"<?xml", "XML"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
)
_SVG = "SVG files are not accepted: they are drawings, which can hold scripts and links; save it as PNG"
_VIDEO = "video files are not accepted"
_PLAIN_MAGICS: tuple[tuple[tuple[bytes, ...], Format], ...] = (
    ((b"\xff\xd8\xff",), "jpeg"),
    ((b"\x89PNG\r\n\x1a\n",), "png"),
    ((b"GIF87a", b"GIF89a"), "gif"),
    (TIFF_MAGICS, "tiff"),
    ((*ORF_MAGICS, RAF_MAGIC), "raw"),
    ((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"), "jxl"),
    ((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"), "jpeg2000"),
)


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a header says; width and height before EXIF turns the picture, `animated` None if unknown."""

    format: Format
    width: int
    height: int
    animated: bool | None
    pages: int = 1


def detect_archive(head: bytes) -> ArchiveKind | None:
    """The kind of archive that begins with `head` (of `ARCHIVE_HEAD` bytes), or None."""
    if head[:4] in (b"PK\3\4", b"PK\5\6", b"PK\7\x08"):
        return "zip"
    if head[:3] == b"\x1f\x8b\x08":
        return "tar.gz"
    return "tar" if head[257:262] == b"ustar" else None


def read_header(file: IO[bytes], limits: PictureLimits) -> PictureHeader:
    """Read the header of a picture from a seekable file; its position afterwards is undefined.

    Raises UnsupportedMediaType for anything but a format of `limits.formats`, ImageCorrupt for a header that is cut off
    or impossible, ImageTooLarge above the limits.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    if length > limits.max_bytes:
        raise ImageTooLarge(
            f"the file has {length:,} bytes; the limit is {limits.max_bytes:,} (SIGHTLINE_MAX_IMAGE_BYTES)"
        )
    kind = detect_format(file.read(HEAD_BYTES), limits.formats)
    file.seek(0)
    if kind != "tiff":  # which may turn out as a RAW file
        require_accepted(kind, limits.formats)
    try:
        parsed = _PARSERS[kind](file)
    except (struct.error, IndexError, OverflowError) as error:
        require_accepted(kind, limits.formats)
        raise ImageCorrupt("the file ends inside its header") from error
    kind = parsed.format or kind
    require_accepted(kind, limits.formats)
    check_size(*parsed.size, kind, limits)
    return PictureHeader(kind, *parsed.size, parsed.animated, parsed.pages)


def require_accepted(format: Format, formats: Collection[str]) -> None:
    """Raise UnsupportedMediaType for a format that this server does not accept."""
    if format not in formats:
        raise UnsupportedMediaType(explain_refusal(format))


def detect_format(head: bytes, formats: Collection[str] | None = None) -> Format:
    """The picture format of a file that begins with `head` (64 bytes are enough), accepted or not.

    It is `tiff` for most RAW files too; their directories tell. Raises UnsupportedMediaType for all that is no picture,
    and names the accepted `formats` then.
    """
    for magics, kind in _PLAIN_MAGICS:
        if head.startswith(magics):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:2] == b"BM" and head[6:10] == bytes(4):  # reserved; a text may begin with BM too
        return "bmp"
    only = f"only {list_labels(default_formats() if formats is None else formats)} are"
    if head[4:8] == b"ftyp":
        return _detect_media(head, only)
    if not head:
        raise UnsupportedMediaType("the file is empty")
    for magic, name in _OTHER_ARCHIVES:
        if head.startswith(magic):
            raise UnsupportedMediaType(f"this is a {name} archive; of archives only zip, tar and tar.gz are read")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in start):
        raise UnsupportedMediaType(_SVG)
    for magic, name in _OTHER_FORMATS:
        if start.startswith(magic.lower()):
            raise UnsupportedMediaType(f"this is a {name} file; {only} accepted")
    raise UnsupportedMediaType(f"this is not a picture of a known format; {only} accepted")


def _detect_media(head: bytes, only: str) -> Format:
    """The format of an ISO media file, by its brands."""
    size = min(struct.unpack(">I", head[:4])[0], len(head))
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "avif"
    if brands & _HEIC_BRANDS:
        return "heic"
    if head[8:12] == b"crx ":
        return "raw"
    raise UnsupportedMediaType(f"{_VIDEO}, {only}")


def check_size(width: int, height: int, format: Format, limits: PictureLimits) -> None:
    """Raise ImageCorrupt for a size of nothing, ImageTooLarge above the limits."""
    if width < 1 or height < 1:
        raise ImageCorrupt("the picture has no width or no height")
    size = f"the picture has {width} × {height} pixels"
    if max(width, height) > limits.max_side:
        raise ImageTooLarge(f"{size}; the limit is {limits.max_side:,} a side (SIGHTLINE_MAX_IMAGE_SIDE)")
    if width * height > (most := limits.pixels_of(format)):
        raise ImageTooLarge(
            f"{size}; the limit is {most:,} in all for {FORMATS[format].label} (SIGHTLINE_MAX_IMAGE_PIXELS)"
        )


def _parse_jpeg(file: IO[bytes]) -> ParsedHeader:
    file.seek(2)
    for _ in count_steps("segments"):
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
            return ParsedHeader((width, height))
        file.seek(length - 2, os.SEEK_CUR)
    raise AssertionError("unreachable")


def _parse_png(file: IO[bytes]) -> ParsedHeader:
    length, name, width, height = struct.unpack(">8xI4sII", file.read(24))
    if name != b"IHDR" or length != 13:
        raise ImageCorrupt("the first chunk is not a PNG header")
    if not 0 < width < 1 << 31 or not 0 < height < 1 << 31 or width * height > 1 << 40:
        return ParsedHeader((width, height))  # above every limit: the rest does not matter
    file.seek(8 + 12 + 13)
    for _ in count_steps("chunks"):
        length, name = struct.unpack(">I4s", file.read(8))
        if length > 0x7FFFFFFF:
            raise ImageCorrupt("a chunk has an impossible length")
        if name == b"acTL":
            (frames,) = struct.unpack(">I", file.read(4))
            return ParsedHeader((width, height), frames > 1)
        if name in (b"IDAT", b"IEND"):
            return ParsedHeader((width, height))
        file.seek(length + 4, os.SEEK_CUR)
    raise AssertionError("unreachable")


def _parse_webp(file: IO[bytes]) -> ParsedHeader:
    head = file.read(30)
    kind, body = head[12:16], head[20:]
    if kind == b"VP8X":
        flags, width, height = struct.unpack("<B3x3s3s", body[:10])
        size = int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
        return ParsedHeader(size, bool(flags & 2))
    if kind == b"VP8L":
        signature, bits = struct.unpack("<BI", body[:5])
        if signature != 0x2F:
            raise ImageCorrupt("the WebP data has no signature")
        return ParsedHeader(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
    if kind == b"VP8 ":
        signature, across, down = struct.unpack("<3x3sHH", body[:10])
        if signature != b"\x9d\x01\x2a":
            raise ImageCorrupt("the WebP data has no signature")
        return ParsedHeader((across & 0x3FFF, down & 0x3FFF))
    raise ImageCorrupt("the WebP file holds no picture")


def _parse_gif(file: IO[bytes]) -> ParsedHeader:
    width, height, flags = struct.unpack("<6xHHB2x", file.read(13))
    if width == 0 or height == 0:
        return ParsedHeader((width, height), None)
    if flags & 0x80:
        file.seek(3 * (2 << (flags & 7)), os.SEEK_CUR)
    steps = count_steps("blocks")
    for _ in steps:
        kind = file.read(1)[0]
        if kind == 0x2C:
            # The first frame may be larger than the screen; decoders enlarge the screen then.
            left, top, across, down = struct.unpack("<HHHH", file.read(8))
            return ParsedHeader((max(width, left + across), max(height, top + down)), None)
        if kind == 0x3B:
            raise ImageCorrupt("the GIF file holds no picture")
        if kind == 0x21:
            file.seek(1, os.SEEK_CUR)
            while length := file.read(1)[0]:
                next(steps)
                file.seek(length, os.SEEK_CUR)
    raise AssertionError("unreachable")


def _parse_avif(file: IO[bytes]) -> ParsedHeader:
    brand = read_at(file, 8, 4)
    return ParsedHeader(_find_extent(file, "AVIF"), None if brand == b"avis" else False)


def _parse_heic(file: IO[bytes]) -> ParsedHeader:
    """The still alone counts: further pictures are those of a burst, the video track is that of a motion photo."""
    return ParsedHeader(_find_extent(file, "HEIC"))


def _find_extent(file: IO[bytes], what: str) -> Size:
    """The largest `ispe` (image spatial extent) anywhere in meta/iprp/ipco."""
    end = file.seek(0, os.SEEK_END)
    sizes: list[Size] = []
    todo, steps = [(0, end)], count_steps("boxes")
    while todo:
        start, stop = todo.pop()
        for box in iter_boxes(file, start, stop, steps, what):
            if box.name == b"ispe":
                sizes.append(struct.unpack(">4xII", read_at(file, box.start, 12)))
            elif box.name in (b"meta", b"iprp", b"ipco"):
                todo.append((box.start + 4 if box.name == b"meta" else box.start, box.end))
            if box.name == b"meta" and stop == end:
                break  # pixel data follows, which may be cut off; that is for the decoder to see
    if not sizes:
        raise ImageCorrupt(f"the {what} file does not say its size")
    return largest(sizes)


def _parse_bmp(file: IO[bytes]) -> ParsedHeader:
    (length,) = struct.unpack("<14xI", file.read(18))
    if length == 12:
        return ParsedHeader(struct.unpack("<HH", file.read(4)))
    if not 16 <= length <= 1024:
        raise ImageCorrupt("the BMP file has a header of an unknown kind")
    width, height = struct.unpack("<ii", file.read(8))
    return ParsedHeader((width, abs(height)))  # a negative height is that of a picture from the top down


def _parse_jxl(file: IO[bytes]) -> ParsedHeader:
    if file.read(2) == b"\xff\x0a":
        return ParsedHeader(_read_jxl_size(file, 2))
    end = file.seek(0, os.SEEK_END)
    for box in iter_boxes(file, 0, end, count_steps("boxes"), "JPEG XL"):
        if box.name in (b"jxlc", b"jxlp"):
            start = box.start + (4 if box.name == b"jxlp" else 0)
            if read_at(file, start, 2) != b"\xff\x0a":
                raise ImageCorrupt("the JPEG XL data has no signature")
            return ParsedHeader(_read_jxl_size(file, start + 2))
    raise ImageCorrupt("the JPEG XL file holds no picture")


_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _read_jxl_size(file: IO[bytes], position: int) -> Size:
    """The SizeHeader, whose bits begin with the lowest of each byte."""
    data = read_at(file, position, 12)
    if len(data) < 2:
        raise IndexError
    bits, at = int.from_bytes(data, "little"), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        if at > 8 * len(data):
            raise IndexError
        return bits >> (at - count) & ((1 << count) - 1)

    is_small = take(1)

    def take_side() -> int:
        return 8 * (take(5) + 1) if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    height, ratio = take_side(), take(3)
    if ratio == 0:
        return take_side(), height
    across, down = _JXL_RATIOS[ratio - 1]
    return height * across // down, height


def _parse_jpeg2000(file: IO[bytes]) -> ParsedHeader:
    """The larger one of what the boxes and what the data say."""
    if file.read(4) == b"\xff\x4f\xff\x51":
        return ParsedHeader(_read_siz(file, 0))
    end = file.seek(0, os.SEEK_END)
    sizes: list[Size] = []
    steps = count_steps("boxes")
    for box in iter_boxes(file, 0, end, steps, "JPEG 2000"):
        if box.name == b"jp2h":
            for one in iter_boxes(file, box.start, box.end, steps, "JPEG 2000"):
                if one.name == b"ihdr":
                    height, width = struct.unpack(">II", read_at(file, one.start, 8))
                    sizes.append((width, height))
        elif box.name == b"jp2c":
            sizes.append(_read_siz(file, box.start))
            break
    if not sizes or not min(sizes[0]):
        raise ImageCorrupt("the JPEG 2000 file does not say its size")
    return ParsedHeader(largest(sizes))


def _read_siz(file: IO[bytes], position: int) -> Size:
    right, bottom, left, top = struct.unpack(">8x4I", read_at(file, position, 24))
    return right - left, bottom - top


def _parse_raw(file: IO[bytes]) -> ParsedHeader:
    head = file.read(16)
    if head[4:8] == b"ftyp":
        return parse_cr3(file)
    if not head.startswith(RAF_MAGIC):
        return parse_tiff(file)
    file.seek(start := parse_raf(file))
    preview = io.BytesIO(file.read(1 << 20))  # the header of a JPEG with its EXIF is shorter
    if not start or preview.read(3) != b"\xff\xd8\xff":
        raise ImageCorrupt("the RAW file holds no preview")
    return ParsedHeader(_parse_jpeg(preview).size, format="raw")


_PARSERS = {
    "jpeg": _parse_jpeg,
    "png": _parse_png,
    "webp": _parse_webp,
    "gif": _parse_gif,
    "avif": _parse_avif,
    "heic": _parse_heic,
    "tiff": parse_tiff,
    "bmp": _parse_bmp,
    "jxl": _parse_jxl,
    "jpeg2000": _parse_jpeg2000,
    "raw": _parse_raw,
}


def has_picture_suffix(name: str, formats: Collection[str] | None = None) -> bool:
    """Whether the name of a file ends like that of a picture: of one of the `formats`, or of any."""
    found = FORMAT_OF_SUFFIX.get(PurePath(name).suffix.lower())
    return found is not None and (formats is None or found in formats)


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
    """Whether the first bytes of a file (64 are enough) are those of a picture."""
    try:
        detect_format(head)
    except UnsupportedMediaType:
        return False
    return True
