"""Make what cameras and programs write into pictures: EXIF, XMP, IPTC."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from PIL import Image, TiffImagePlugin

NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
}
PLACE = {1: "N", 2: (47.0, 22.0, 30.0), 3: "W", 4: (8.0, 30.0, 0.0)}  # 47.375, -8.5


def make_exif(
    main: Mapping[int, Any] | None = None, exif: Mapping[int, Any] | None = None, gps: Mapping[int, Any] | None = None
) -> bytes:
    """EXIF with these entries; bytes are written as they are."""
    made = Image.Exif()
    for tag, value in (main or {}).items():
        made[tag] = value
    for ifd, entries in ((0x8769, exif), (0x8825, gps)):
        if entries:
            made.get_ifd(ifd).update(entries)
    return made.tobytes()


def make_xmp(*descriptions: Mapping[str, str | list[str]]) -> bytes:
    """A packet: texts as attributes, lists as lists, the first of them marked as the default language."""
    names = " ".join(f"xmlns:{prefix}={quoteattr(uri)}" for prefix, uri in NAMESPACES.items())
    parts = []
    for one in descriptions:
        attributes = " ".join(f"{name}={quoteattr(text)}" for name, text in one.items() if isinstance(text, str))
        lists = "".join(
            f"<{name}><rdf:Alt>{''.join(f'<rdf:li>{escape(text)}</rdf:li>' for text in texts)}</rdf:Alt></{name}>"
            for name, texts in one.items()
            if isinstance(texts, list)
        )
        parts.append(f'<rdf:Description rdf:about="" {attributes}>{lists}</rdf:Description>')
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    body = f'<rdf:RDF xmlns:rdf="{rdf}" {names}>{"".join(parts)}</rdf:RDF>'
    return f'<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/">{body}</x:xmpmeta><?xpacket end="w"?>'.encode()


def make_iptc(entries: Mapping[int, list[bytes]]) -> bytes:
    """The segment of a JPEG with these entries of record 2."""
    block = b"".join(
        struct.pack(">BBBH", 0x1C, 2, number, len(value)) + value
        for number, values in entries.items()
        for value in values
    )
    resource = b"8BIM" + struct.pack(">H", 0x0404) + b"\0\0" + struct.pack(">I", len(block)) + block
    content = b"Photoshop 3.0\0" + resource + b"\0" * (len(block) % 2)
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def photograph(
    format: str = "JPEG", exif: bytes = b"", xmp: bytes = b"", iptc: bytes = b"", size: tuple[int, int] = (64, 48)
) -> bytes:
    """A picture with these."""
    image = Image.effect_noise(size, 40).convert("RGB")
    out = io.BytesIO()
    options: dict[str, Any] = {"exif": exif} if exif else {}
    if xmp and format != "PNG":
        options["xmp"] = xmp
    if format == "TIFF":
        options = {"tiffinfo": _tiff_tags(exif, xmp)}
    image.save(out, format, **options)
    made = out.getvalue()
    return made[:2] + iptc + made[2:] if iptc else made


def _tiff_tags(exif: bytes, xmp: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    said = Image.Exif()
    said.load(exif)
    for tag, value in said.items():
        tags[tag] = said.get_ifd(tag) if tag in (0x8769, 0x8825) else value
    if xmp:
        tags[700] = xmp
    return tags
