"""XMP: the properties that a program has written into a picture, or into an `.xmp` file beside it.

The bytes are hostile, and sidecars are read outside the decode children. So this reads the little of XML that XMP has,
without a parser in C: MAX_XMP_BYTES, MAX_DEPTH levels, MAX_VALUES values of MAX_CHARS characters, and no document type,
so that there are no entities to expand.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, lookup
from collections.abc import Mapping
from html import unescape
from typing import Any

MAX_XMP_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 2_000
MAX_CHARS = 20_000  # of one value
MARKS = {BOM_UTF16_LE: "utf-16", BOM_UTF16_BE: "utf-16"}
for _encoding in ("utf-16", "utf-8-sig"):  # a decode child can load no codec
    lookup(_encoding)
NO_XML = "it is no XML that can be read"
CDATA = "<![CDATA["
SECTIONS = {"<?": "?>", "<!--": "-->", CDATA: "]]>"}
TAG = re.compile(r"""<(/?)([^\s<>/"'=!?]+)((?:"[^"]*"|'[^']*'|[^<>"'])*)>""")
ATTRIBUTE = re.compile(r"""(?<=\s)([^\s=<>"'/]+)\s*=\s*("[^"]*"|'[^']*')""")
PREFIXES = {
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#": "rdf",
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
    if len(data) > MAX_XMP_BYTES:
        raise BadXmp(f"it has more than {MAX_XMP_BYTES:,} bytes")
    reader = _Reader()
    try:
        reader.read(data if isinstance(data, str) else _decode(data))
    except BadXmp:
        if not reader.values:
            raise
    return reader.values


def _decode(data: bytes) -> str:
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8-sig")
    return data.decode(encoding, "replace")


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
    """Collects the properties of the top level; those in structures (a history, a face) say nothing of a picture.

    Each step goes on behind the one before, and the first damage ends it: so its time is that of the text's length.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self._schemas: dict[str, str] = {}  # by the prefix of the packet
        self._path: list[str] = []
        self._text: list[str] = []
        self._chars = self._count = 0
        self._is_default = False

    def read(self, text: str) -> None:
        """Read a whole packet. Raises BadXmp at the first damage."""
        at, has_begun = 0, False
        while (start := text.find("<", at)) >= 0:
            if at < start:
                self._add_text(unescape(text[at:start]))
            for opening, closing in SECTIONS.items():
                if text.startswith(opening, start):
                    end = text.find(closing, start)
                    if end < 0:
                        raise BadXmp(NO_XML)
                    if opening == CDATA:
                        self._add_text(text[start + len(CDATA) : end])
                    at = end + len(closing)
                    break
            else:
                tag = TAG.match(text, start)
                if tag is None:
                    raise BadXmp(NO_XML)
                has_begun = True
                self._read_tag(*tag.groups())
                at = tag.end()
        if not has_begun:
            raise BadXmp(NO_XML)

    def _read_tag(self, slash: str, name: str, rest: str) -> None:
        if not slash:
            written = {key: unescape(value[1:-1]) for key, value in ATTRIBUTE.findall(rest)} if "=" in rest else {}
            for key, value in written.items():
                if key.startswith("xmlns:") and len(self._schemas) < MAX_VALUES:
                    self._schemas[key.removeprefix("xmlns:")] = PREFIXES.get(value, "")
            self._start(self._resolve(name), written)
        if slash or rest.endswith("/"):
            self._end()

    def _resolve(self, name: str) -> str:
        """The name with our prefix of its schema; of an unknown schema without one."""
        prefix, _, local = name.rpartition(":")
        return f"{self._schemas.get(prefix, '')}:{local}"

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._path.append(name)
        if len(self._path) > MAX_DEPTH:
            raise BadXmp("it is nested too deeply")
        self._text.clear()
        self._chars = 0
        self._is_default = attributes.get("xml:lang") == "x-default"
        if self._path[-2:] == ["rdf:RDF", "rdf:Description"]:
            for key, value in attributes.items():
                self._add(self._resolve(key), value)

    def _end(self) -> None:
        path = self._path
        at = path.index("rdf:RDF") if "rdf:RDF" in path else len(path)
        if len(path) == at + 3 or (len(path) == at + 5 and path[-1] == "rdf:li"):
            self._add(path[at + 2], "".join(self._text), is_default=self._is_default)
        self._text.clear()
        self._is_default = False
        if path:
            path.pop()

    def _add_text(self, text: str) -> None:
        if text and self._chars < MAX_CHARS:
            self._text.append(text)
            self._chars += len(text)

    def _add(self, name: str, value: str, *, is_default: bool = False) -> None:
        value = value[:MAX_CHARS].strip()
        if name.startswith((":", "rdf:")) or not value:
            return
        self._count += 1
        if self._count > MAX_VALUES:
            return
        values = self.values.setdefault(name, [])
        values.insert(0 if is_default else len(values), value)
