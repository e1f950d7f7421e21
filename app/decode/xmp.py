"""XMP: the properties that a program has written into a picture, or into an `.xmp` file beside it.

The parser is bounded, because the bytes are hostile: a packet of MAX_XMP_BYTES, MAX_DEPTH levels, MAX_VALUES values of
MAX_CHARS characters, and no document type, so that there are no entities to expand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

MAX_XMP_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 2_000
MAX_CHARS = 20_000  # of one value
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns# "
PREFIXES = {
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://cipa.jp/exif/1.0/": "exifEX",
    "http://ns.adobe.com/exif/1.0/aux/": "aux",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
}
_DEGREES = re.compile(r"\s*(\d{1,3}),(\d{1,2}(?:\.\d{1,12})?)(?:,(\d{1,2}(?:\.\d{1,12})?))?\s*([NSEW])\s*", re.ASCII)
Properties = Mapping[str, list[str]]


class BadXmp(Exception):
    """The packet is damaged, too large, or not XMP."""


def parse_xmp(data: bytes | str) -> Properties:
    """The values of each property (`dc:subject`) of the known schemas, those of the default language first.

    Of a packet that is damaged behind its beginning, what came before. Raises BadXmp if nothing can be read.
    """
    packet = data.encode("utf-8", "replace") if isinstance(data, str) else data
    if len(packet) > MAX_XMP_BYTES:
        raise BadXmp(f"it has more than {MAX_XMP_BYTES:,} bytes")
    reader = _Reader()
    try:
        reader.parser.Parse(packet.rstrip(b"\0 \r\n\t"), True)
    except (expat.ExpatError, ValueError) as error:
        if not reader.values:
            raise BadXmp("it is no XML that can be read") from error
    return reader.values


def parse_coordinate(text: str) -> float | None:
    """Degrees, south and west negative, of `47,22.5N` or `47,22,30N`, the forms of XMP; None for others."""
    if (match := _DEGREES.fullmatch(text.upper())) is None:
        return None
    degrees, minutes, seconds, side = match.groups()
    value = int(degrees) + float(minutes) / 60 + float(seconds or 0) / 3600
    return -value if side in "SW" else value


def make_location(latitude: Any, longitude: Any) -> tuple[float, float] | None:
    """Both in degrees, or None where they are no place; exactly 0, 0 is what devices write that know none."""
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in (latitude, longitude)):
        return None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180) or latitude == longitude == 0:  # NaN is not <= either
        return None
    return round(float(latitude), 7), round(float(longitude), 7)


class _Reader:
    """Collects the properties of the top level; those in structures (a history, a face) say nothing of a picture."""

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._add_text
        self.parser.StartDoctypeDeclHandler = self._refuse
        self._path: list[str] = []
        self._text: list[str] = []
        self._chars = self._count = 0
        self._is_default = False

    def _refuse(self, *declared: Any) -> None:
        raise ValueError("XMP has no document type")

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._path.append(name)
        if len(self._path) > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        self._text.clear()
        self._chars = 0
        self._is_default = "x-default" in attributes.values()
        if self._path[-2:] == [RDF + "RDF", RDF + "Description"]:
            for key, value in attributes.items():
                self._add(key, value)

    def _end(self, name: str) -> None:
        path = self._path
        at = len(path) - 1 - path[::-1].index(RDF + "RDF") if RDF + "RDF" in path else len(path)
        if len(path) == at + 3 or (len(path) == at + 5 and name == RDF + "li"):
            self._add(path[at + 2], "".join(self._text), is_default=self._is_default)
        self._text.clear()
        self._is_default = False
        path.pop()

    def _add_text(self, text: str) -> None:
        if self._chars < MAX_CHARS:
            self._text.append(text)
            self._chars += len(text)

    def _add(self, key: str, value: str, *, is_default: bool = False) -> None:
        schema, _, name = key.rpartition(" ")
        value = value[:MAX_CHARS].strip()
        if schema not in PREFIXES or not value:
            return
        self._count += 1
        if self._count > MAX_VALUES:
            return
        values = self.values.setdefault(f"{PREFIXES[schema]}:{name}", [])
        values.insert(0 if is_default else len(values), value)
