"""Read the camera data of a picture that Pillow has opened: its EXIF, XMP, IPTC, and the texts of a PNG.

These bytes are hostile: what cannot be read, or makes no sense, is missing; it is never an error, so that no picture is
refused for it. Runs in a decode child.
"""

from __future__ import annotations

import codecs
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import IO, Any

from PIL import Image, IptcImagePlugin

from app.core.types import CameraData
from app.decode.camera_data import (
    EXPOSURE_BIAS,
    EXPOSURE_TAGS,
    MAX_CAPTION_CHARS,
    MAX_KEYWORDS,
    MAX_NUMBER,
    camera_data_from_xmp,
    join_name,
    make_caption,
    make_tags,
    merge_camera_data,
    with_time,
)
from app.decode.taken_time import parse_iptc_time, parse_mail_time, parse_taken_time
from app.decode.xmp import BadXmp, make_location, parse_xmp

MAX_EXIF_BYTES = 4 << 20  # in a file of its own format (JPEG, PNG, ...), of which Pillow reads it whole
MAX_VALUE_BYTES = 64 << 10  # of one entry
LEGACY_ENCODING = "cp1252"
codecs.lookup(LEGACY_ENCODING)  # a decode child can load no codec
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
IMAGE_DESCRIPTION, MAKE, MODEL = 0x010E, 0x010F, 0x0110
TAKEN, TAKEN_OFFSET, TAKEN_FRACTION = 0x9003, 0x9011, 0x9291
DIGITISED, DIGITISED_OFFSET = 0x9004, 0x9012
LENS_MAKE, LENS_MODEL = 0xA433, 0xA434
FLASH = 0x9209
EXIF_ENTRIES = frozenset(
    {
        TAKEN,
        TAKEN_OFFSET,
        TAKEN_FRACTION,
        DIGITISED,
        DIGITISED_OFFSET,
        LENS_MAKE,
        LENS_MODEL,
        FLASH,
        *EXPOSURE_TAGS.values(),
    }
)
GPS_ENTRIES = frozenset({1, 2, 3, 4})
ENTRY_BYTES, INLINE_BYTES = 12, 4
FRACTION = "LL"
KINDS = {1: "B", 2: "c", 3: "H", 4: "L", 5: FRACTION, 7: "c", 8: "h", 9: "l", 10: "ll", 11: "f", 12: "d"}
PHOTOSHOP_IPTC = 0x0404
IPTC_TITLE, IPTC_KEYWORDS, IPTC_DATE, IPTC_TIME, IPTC_CAPTION = (2, 5), (2, 25), (2, 55), (2, 60), (2, 120)
NOTHING = CameraData()


def read_camera_data(image: Image.Image) -> CameraData:
    """The camera data of an opened picture. It raises nothing."""
    exif = weak = xmp = iptc = png = NOTHING
    with suppress(Exception):  # on hostile bytes parsers raise errors of any kind
        exif, weak = _read_exif(_open_exif(image))
    with suppress(Exception):
        xmp = _read_xmp(image)
    with suppress(Exception):
        iptc = _read_iptc(image)
    with suppress(Exception):
        png = _read_png_texts(image)
    return merge_camera_data((exif, xmp, iptc, weak, png))


# ---- EXIF


def read_raw_camera_data(file: IO[bytes]) -> CameraData:
    """The camera data of a RAW file of the kind of TIFF (DNG, CR2, NEF, ARW); of others the preview has them."""
    exif = Image.Exif()
    with suppress(Exception):
        file.seek(0)
        exif.load_from_fp(file)
        return merge_camera_data(_read_exif(exif))
    return NOTHING


def _read_exif(exif: Image.Exif | None) -> tuple[CameraData, CameraData]:
    """What the EXIF says, and what of it counts only if nothing else says it: when a film was scanned, and the
    description, which cameras fill."""
    if exif is None:
        return NOTHING, NOTHING
    get: Callable[[int], Any] = partial(_get_entry, exif)
    strong = CameraData(camera=join_name(_text(get(MAKE)), _text(get(MODEL))))
    weak = CameraData(caption=make_caption([], [_text(get(IMAGE_DESCRIPTION))]))
    with suppress(Exception):
        entries = _load_ifd(exif, EXIF_IFD, EXIF_ENTRIES)
        strong = _add_exif_ifd(strong, entries.get)
        digitised = (_text(entries.get(tag)) for tag in (DIGITISED, DIGITISED_OFFSET))
        weak = with_time(weak, parse_taken_time(*digitised))
    with suppress(Exception):
        if (place := _read_gps(_load_ifd(exif, GPS_IFD, GPS_ENTRIES).get)) is not None:
            strong = replace(strong, latitude=place[0], longitude=place[1])
    return strong, weak


def _open_exif(image: Image.Image) -> Image.Exif | None:
    given = image.info.get("exif")
    return None if isinstance(given, bytes) and len(given) > MAX_EXIF_BYTES else image.getexif()


def _add_exif_ifd(found: CameraData, get: Callable[[int], Any]) -> CameraData:
    model = _text(get(LENS_MODEL))
    lens = join_name(_text(get(LENS_MAKE)), model) if model else None
    numbers = {name: number for name, tag in EXPOSURE_TAGS.items() if (number := _number(get(tag))) is not None}
    exposure = {name: number for name, number in numbers.items() if number > 0 or name == EXPOSURE_BIAS}  # 0: unknown
    if isinstance(flash := get(FLASH), int):
        exposure["flash"] = bool(flash & 1)  # whether it fired
    time = parse_taken_time(*(_text(get(tag)) for tag in (TAKEN, TAKEN_OFFSET, TAKEN_FRACTION)))
    return with_time(replace(found, lens=lens, exposure=exposure), time)


def _load_ifd(exif: Image.Exif, tag: int, wanted: Iterable[int]) -> dict[int, Any]:
    """The wanted entries of a part of the EXIF; empty if it has none.

    Pillow's `get_ifd` decodes all of them, in whatever size, and takes ten times as long.
    """
    offset = exif.get(tag, exif._hidden_data.get(tag))
    if not isinstance(offset, int):
        return {}
    found: dict[int, Any] = {}
    file, order = exif.fp, exif.endian or "<"
    file.seek(offset)
    (count,) = struct.unpack(f"{order}H", file.read(2))
    table = file.read(count * ENTRY_BYTES)
    for at in range(0, len(table) - ENTRY_BYTES + 1, ENTRY_BYTES):
        number, kind, length = struct.unpack_from(f"{order}HHL", table, at)
        code = KINDS.get(kind, "")
        size = length * struct.calcsize(f"={code}")
        if number not in wanted or not 0 < size <= MAX_VALUE_BYTES:
            continue
        data = table[at + 8 : at + 8 + size]
        if size > INLINE_BYTES:
            file.seek(struct.unpack_from(f"{order}L", table, at + 8)[0])
            data = file.read(size)
        if len(data) == size:
            found[number] = _decode_entry(code, data, order, length)
    return found


def _decode_entry(code: str, data: bytes, order: str, length: int) -> Any:
    """Bytes for texts; else a number, or a tuple of several. A fraction that is none is NaN."""
    if code == "c":
        return data
    numbers: Sequence[float] = struct.unpack(f"{order}{code * length}", data)
    if len(code) == len(FRACTION):
        numbers = [
            above / below if below else math.nan for above, below in zip(numbers[::2], numbers[1::2], strict=True)
        ]
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _get_entry(exif: Image.Exif, tag: int) -> Any:
    """The value of an entry of the main part; None if it is missing, damaged or large."""
    raw = getattr(exif._info, "_tagdata", {}).get(tag, b"")
    if len(raw) > MAX_VALUE_BYTES:
        return None
    try:
        return exif.get(tag)
    except Exception:
        return None


def _read_gps(get: Callable[[int], Any]) -> tuple[float, float] | None:
    return make_location(_degrees(get(2), _text(get(1)), "NS"), _degrees(get(4), _text(get(3)), "EW"))


def _degrees(parts: Any, side: str | None, sides: str) -> float | None:
    """Degrees of degrees, minutes and seconds; None without the side: it may be either."""
    mark = (side or "").strip().upper()[:1]
    if not isinstance(parts, Sequence) or not 1 <= len(parts) <= 3 or not mark or mark not in sides:
        return None
    numbers = [number for part in parts if (number := _number(part)) is not None and number >= 0]
    if len(numbers) < len(parts):
        return None
    value = sum(number / 60.0**n for n, number in enumerate(numbers))
    return -value if mark == sides[1] else value


def _number(value: Any) -> float | int | None:
    if isinstance(value, tuple) and value:
        value = value[0]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < MAX_NUMBER else None
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return round(number, 6) if math.isfinite(number) else None


# ---- XMP, IPTC, texts of PNG


def _read_xmp(image: Image.Image) -> CameraData:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    with suppress(BadXmp):
        return camera_data_from_xmp(parse_xmp(packet)) if isinstance(packet, bytes | str) else NOTHING
    return NOTHING


def _read_iptc(image: Image.Image) -> CameraData:
    blocks = image.info.get("photoshop")
    if isinstance(blocks, dict) and not isinstance(blocks.get(PHOTOSHOP_IPTC, b""), bytes):
        return NOTHING
    found = IptcImagePlugin.getiptcinfo(image) or {}  # type: ignore[arg-type]

    def read(tag: tuple[int, int]) -> list[str]:
        value = found.get(tag)
        values = value if isinstance(value, list) else [value]
        return [_decode(one[:MAX_CAPTION_CHARS]) for one in values[:MAX_KEYWORDS] if isinstance(one, bytes)]

    said = CameraData(caption=make_caption(read(IPTC_TITLE), read(IPTC_CAPTION)), tags=make_tags(read(IPTC_KEYWORDS)))
    date, time = (next(iter(read(tag)), None) for tag in (IPTC_DATE, IPTC_TIME))
    return with_time(said, parse_iptc_time(date, time))


def _read_png_texts(image: Image.Image) -> CameraData:
    if image.format != "PNG":
        return NOTHING
    names = ("exif:DateTimeOriginal", "Creation Time", "Title", "Description")
    original, created, title, description = (image.info.get(name) for name in names)
    said = CameraData(caption=make_caption([title], [description]))
    return with_time(said, parse_taken_time(original) or parse_taken_time(created) or parse_mail_time(created))


# ---- texts of bytes


def _text(value: Any) -> str | None:
    """A text of EXIF. Pillow reads it as Latin-1; many programs write UTF-8."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")
    return _decode(value.partition(b"\0")[0]).strip() or None if isinstance(value, bytes) else None


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode(LEGACY_ENCODING, "replace")
