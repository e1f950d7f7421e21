"""Camera data: what a picture, or a file beside it, says of how it was taken, and the words that it carries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from app.core.types import CameraData, Image
from app.decode.taken_time import MAX_OFFSET, TakenTime, parse_taken_time
from app.decode.xmp import Properties, make_location, parse_coordinate

MAX_NAME_CHARS = 200  # of a camera, of a lens
MAX_CAPTION_CHARS = 20_000  # the storage cuts it, and says so
MAX_KEYWORDS, MAX_KEYWORD_CHARS = 2_000, 1_000
MAX_NUMBER = 1 << 53
EXPOSURE_BIAS = "exposure_bias"
EXPOSURE_TAGS = {  # of EXIF, by their names in `metadata.exif`
    "exposure_time": 0x829A,
    "f_number": 0x829D,
    "iso": 0x8827,
    EXPOSURE_BIAS: 0x9204,
    "focal_length": 0x920A,
    "focal_length_35mm": 0xA405,
}
XMP_TIMES = ("photoshop:DateCreated", "exif:DateTimeOriginal", "xmp:CreateDate")
# What cameras and programs write where people write captions.
_NO_CAPTION = re.compile(
    r"(.*\bdigital camera|sony dsc|minolta dsc|samsung|exif[_ ]jpeg.*|untitled|default|dcim[\\/].*|<.*>|dsc\w*\d+"
    r"|img_?\d+|created with (the )?gimp|\W*)",
    re.IGNORECASE | re.DOTALL,
)
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]+")
_NAMES = re.compile(r"[\w-]+")


def merge_camera_data(parts: Sequence[CameraData]) -> CameraData:
    """What the parts say together: of each field what the first says that has it, and all tags."""
    nothing = CameraData()
    timed = next((part for part in parts if part.taken_at is not None), nothing)
    placed = next((part for part in parts if part.latitude is not None), nothing)
    return CameraData(
        timed.taken_at,
        timed.taken_offset,
        next((part.camera for part in parts if part.camera), None),
        next((part.lens for part in parts if part.lens), None),
        placed.latitude,
        placed.longitude,
        next((part.caption for part in parts if part.caption), None),
        tuple(dict.fromkeys(tag for part in parts for tag in part.tags))[:MAX_KEYWORDS],
        next((part.exposure for part in parts if part.exposure), {}),
    )


def with_time(data: CameraData, time: TakenTime | None) -> CameraData:
    return replace(data, taken_at=time.wall if time else None, taken_offset=time.offset if time else None)


def time_of(data: CameraData) -> TakenTime | None:
    return None if data.taken_at is None else TakenTime(data.taken_at, data.taken_offset)


def camera_data_of(image: Image) -> CameraData:
    """What the row of a picture has of its camera data."""
    when = (image.taken_at, image.taken_offset)
    return CameraData(*when, image.camera, image.lens, image.latitude, image.longitude)


def camera_data_from_xmp(xmp: Properties) -> CameraData:
    """The camera data of the properties of XMP."""

    def first(name: str) -> str | None:
        return next(iter(xmp.get(name, ())), None)

    place = make_location(*(parse_coordinate(first(f"exif:GPS{one}") or "") for one in ("Latitude", "Longitude")))
    said = CameraData(
        camera=join_name(first("tiff:Make"), first("tiff:Model")),
        lens=_clean_name(first("exifEX:LensModel") or first("aux:Lens")),
        latitude=place[0] if place else None,
        longitude=place[1] if place else None,
        caption=make_caption([first("dc:title")], [first("dc:description")]),
        tags=make_tags(xmp.get("dc:subject", ())),
    )
    return with_time(said, next(filter(None, (parse_taken_time(first(name)) for name in XMP_TIMES)), None))


# ---- words


def join_name(maker: str | None, model: str | None) -> str | None:
    """`Apple iPhone 12`, and of `NIKON CORPORATION`, `NIKON D850` only the latter."""
    maker, model = _clean_name(maker), _clean_name(model)
    if maker is None or model is None:
        return model or maker
    first = _NAMES.search(maker)
    is_repeated = first is not None and first[0].casefold() in (one.casefold() for one in _NAMES.findall(model))
    return model if is_repeated else f"{maker} {model}"[:MAX_NAME_CHARS]


def _clean_name(text: str | None) -> str | None:
    cleaned = " ".join((text or "").split())[:MAX_NAME_CHARS]
    return cleaned if re.search(r"\w", cleaned) else None


def make_caption(titles: Iterable[Any], captions: Iterable[Any]) -> str | None:
    """The first caption, under the first title if that says something else."""
    title, caption = (next(_keep_captions(texts), None) for texts in (titles, captions))
    if title is None or caption is None:
        return caption or title
    return caption if title.casefold() in caption.casefold() else f"{title}\n{caption}"


def _keep_captions(texts: Iterable[Any]) -> Iterator[str]:
    """Those of the texts that a person may have written."""
    for text in texts:
        cleaned = _clean(text if isinstance(text, str) else "")[:MAX_CAPTION_CHARS]
        if not _NO_CAPTION.fullmatch(cleaned):
            yield cleaned


def make_tags(words: Iterable[str]) -> tuple[str, ...]:
    cleaned = (" ".join(_clean(word).split())[:MAX_KEYWORD_CHARS] for word in words)
    return tuple(dict.fromkeys(word for word in cleaned if word))[:MAX_KEYWORDS]


def _clean(text: str) -> str:
    """The text without control characters and halves of surrogate pairs."""
    valid = text.encode("utf-8", "replace").decode()
    return _CONTROLS.sub(" ", valid.replace("\r\n", "\n").replace("\r", "\n")).strip()


# ---- between processes, and in manifests

TEXTS = {"camera": MAX_NAME_CHARS, "lens": MAX_NAME_CHARS, "caption": 2 * MAX_CAPTION_CHARS + 1}


def camera_data_to_json(data: CameraData) -> dict[str, Any]:
    """What `camera_data_from_json` reads, without what is missing."""
    said = {**asdict(data), "tags": list(data.tags)}
    return {name: value for name, value in said.items() if value not in (None, [], {})}


def camera_data_from_json(value: Any) -> CameraData:
    """Camera data of a decode child or a client, which may say anything. Raises ValueError for what it cannot be."""
    if not isinstance(value, dict) or not value.keys() <= CameraData.__dataclass_fields__.keys():
        raise ValueError("this is no camera data")
    for name, most in TEXTS.items():
        text = value.get(name, "")
        if not isinstance(text, str) or len(text.encode()) > 4 * most:  # half of a surrogate pair is a ValueError
            raise ValueError(f"{name} is no text of at most {most} characters")
    tags, exposure = value.get("tags", []), value.get("exposure", {})
    if not isinstance(tags, list | tuple) or len(tags) > MAX_KEYWORDS or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("tags is no list of texts")
    kinds = (bool, int, float)
    if not isinstance(exposure, dict) or not all(
        name in (*EXPOSURE_TAGS, "flash") and type(one) in kinds and abs(one) < MAX_NUMBER
        for name, one in exposure.items()
    ):
        raise ValueError("exposure is no object of numbers")
    time = parse_taken_time(value["taken_at"]) if "taken_at" in value else None
    offset = value.get("taken_offset")
    if "taken_at" in value and (
        time is None or not (offset is None or (type(offset) is int and abs(offset) <= MAX_OFFSET))
    ):
        raise ValueError("taken_at is no time")
    place = make_location(value.get("latitude"), value.get("longitude")) or (None, None)
    words = {name: value.get(name) for name in TEXTS}
    data = CameraData(**words, latitude=place[0], longitude=place[1], tags=tuple(tags), exposure=exposure)
    return with_time(data, TakenTime(time.wall, offset) if time else None)
