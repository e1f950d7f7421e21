"""The formats of pictures: their names, their file names, who decodes them, and which of them a server accepts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import PurePath
from typing import Literal

Format = Literal["avif", "bmp", "gif", "heic", "jpeg", "jpeg2000", "jxl", "png", "raw", "tiff", "webp"]

DEFAULT = "default"
SETTING = "SIGHTLINE_FORMATS"
EXTRA = "pip install 'sightline-search[formats]'"


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """One format. `module` decodes it, if that is no part of Pillow's own core; `is_extra` if it is in an extra."""

    name: Format
    label: str
    media_type: str
    suffixes: tuple[str, ...]  # the first is that of a download
    module: str | None = None
    is_extra: bool = False
    is_default: bool = True


_ALL = (
    PictureFormat(
        "jpeg",
        "JPEG",
        "image/jpeg",
        (".jpeg", ".jpg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjpg", ".pjp", ".mpo"),
    ),
    PictureFormat("png", "PNG", "image/png", (".png", ".apng")),
    PictureFormat("webp", "WebP", "image/webp", (".webp",)),
    PictureFormat("gif", "GIF", "image/gif", (".gif",)),
    PictureFormat("avif", "AVIF", "image/avif", (".avif", ".avifs")),
    PictureFormat("heic", "HEIC", "image/heic", (".heic", ".heif", ".hif", ".heics", ".heifs"), "pi_heif"),
    PictureFormat("tiff", "TIFF", "image/tiff", (".tiff", ".tif")),
    PictureFormat("bmp", "BMP", "image/bmp", (".bmp", ".dib"), "PIL.BmpImagePlugin"),
    PictureFormat("jxl", "JPEG XL", "image/jxl", (".jxl",), "pillow_jxl", is_extra=True),
    PictureFormat(
        "raw",
        "RAW",
        "image/x-raw",
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf"),
        "rawpy",
        is_extra=True,
    ),
    PictureFormat(
        "jpeg2000",
        "JPEG 2000",
        "image/jp2",
        (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
        "PIL.Jpeg2KImagePlugin",
        is_default=False,
    ),
)
FORMATS: dict[str, PictureFormat] = {one.name: one for one in _ALL}
FORMAT_OF_SUFFIX: dict[str, Format] = {suffix: one.name for one in _ALL for suffix in one.suffixes}
RAW_MEDIA_TYPES = {
    ".dng": "image/x-adobe-dng",
    ".cr2": "image/x-canon-cr2",
    ".cr3": "image/x-canon-cr3",
    ".nef": "image/x-nikon-nef",
    ".arw": "image/x-sony-arw",
    ".raf": "image/x-fuji-raf",
    ".orf": "image/x-olympus-orf",
}


@cache
def is_installed(name: str) -> bool:
    """Whether this installation has the decoder of a format."""
    one = FORMATS[name]
    return not one.is_extra or one.module is None or find_spec(one.module) is not None


@cache
def default_formats() -> frozenset[str]:
    """The formats that a server accepts without a setting."""
    return frozenset(one.name for one in _ALL if one.is_default and is_installed(one.name))


def parse_formats(text: str) -> frozenset[str]:
    """The formats that a list names: `-heic` is the default without HEIC, `+jpeg2000` with one more, `jpeg,png` these.

    Raises ValueError for an unknown name, a format that is not installed, and a list that leaves none.
    """
    words = [word.lower() for word in re.split(r"[,\s]+", text) if word]
    named = [word for word in words if word[0] not in "+-"] or [DEFAULT]
    formats: frozenset[str] = frozenset().union(*(_find_named(word) for word in named))
    for word in words:
        if word[0] == "+":
            formats |= _find_named(word[1:])
        elif word[0] == "-":
            formats -= _find_named(word[1:], must_be_installed=False)
    if not formats:
        raise ValueError("formats leaves no format to accept")
    return formats


def _find_named(name: str, *, must_be_installed: bool = True) -> frozenset[str]:
    if name == DEFAULT:
        return default_formats()
    if name not in FORMATS:
        raise ValueError(f"there is no format {name!r}; there are {', '.join(FORMATS)}")
    if must_be_installed and not is_installed(name):
        raise ValueError(f"{FORMATS[name].label} needs an extra: {EXTRA}")
    return frozenset({name})


def explain_refusal(name: str) -> str:
    """Why a server that does not accept this format refuses it."""
    label = FORMATS[name].label
    if not is_installed(name):
        return f"{label} files need an extra on the server: {EXTRA}"
    return f"{label} files are switched off on this server ({SETTING})"


def list_labels(formats: Iterable[str]) -> str:
    """`JPEG, PNG and WebP`, in the order of the table."""
    labels = [one.label for one in _ALL if one.name in set(formats)]
    return " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)


def list_accepted_types(formats: Iterable[str]) -> str:
    """Media types and suffixes, as the `accept` of a file button."""
    chosen = [one for one in _ALL if one.name in set(formats)]
    return ",".join([*(one.media_type for one in chosen), *(suffix for one in chosen for suffix in one.suffixes)])


def find_modules(formats: Iterable[str]) -> list[str]:
    """The modules that decode these formats, which a process must load before it gives up its rights."""
    return [one.module for one in _ALL if one.name in set(formats) and one.module is not None]


def list_file_types() -> list[str]:
    """The media types that `find_download` gives."""
    return sorted({*(one.media_type for one in _ALL), *RAW_MEDIA_TYPES.values()})


def find_download(name: str, source: str | None) -> tuple[str, str]:
    """Media type and suffix of the file of a picture; RAW files have one of many, which the sender's name tells."""
    one, suffix = FORMATS[name], PurePath(source or "").suffix.lower()
    if name != "raw":
        return one.media_type, one.suffixes[0]
    return (RAW_MEDIA_TYPES[suffix], suffix) if suffix in RAW_MEDIA_TYPES else (one.media_type, ".raw")
