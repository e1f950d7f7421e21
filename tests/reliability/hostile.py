"""Hostile picture files in every format, made from a seed: bombs, lies, cuts, flips, oddities, and what is no picture.

Everything is made here, so that what failed can be made again: a file's name says how.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator

from PIL import Image

from app.core.picture_formats import default_formats
from bench.picture_files import NEW_FORMATS, make_sample, mutate
from tests.support.sample_pictures import (
    FORMATS,
    chunk,
    claim_size,
    deflate_zeros,
    encode_image,
    long_gif,
    png,
    scene,
    solid_png,
)

FOREIGN = {
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "svg-entities": b"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><svg>&b;</svg>",
    "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "mvg": b"push graphic-context\nviewbox 0 0 9 9\nfill 'url(https://127.0.0.1/x)'\npop graphic-context\n",
    "m3u8": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "html": b"<html><script>alert(1)</script></html>",
    "mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(40),
    "psd": b"8BPS\0\1" + bytes(60),
    "ico": b"\0\0\1\0\1\0" + bytes(60),
    "elf": b"\x7fELF" + bytes(60),
    "empty": b"",
    "zeros": bytes(4096),
}
SIZES = [(65_535, 65_535), (16_385, 16_385), (0, 0), (0, 64), (64, 0), (1, 65_535), (65_535, 1), (8_000, 8_000)]
WIDE = [(2**31 - 1, 2**31 - 1), (2**31, 1), (2**32 - 1, 2**32 - 1)]


def corpus(seed: int, share: int = 1) -> Iterator[tuple[str, bytes]]:
    """Names and bytes; of the cuts and the flips every `share`-th."""
    yield from bombs()
    yield from wrong_sizes()
    yield from foreign()
    yield from rare_pictures()
    yield from polyglots()
    yield from truncated_files(share)
    yield from flips(random.Random(seed), 40 // share)
    yield from mutations(seed, 200 // share)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that want to be large."""
    yield "bomb-20000.png", solid_png(20_000)
    for kind, side in (("webp", 8_200), ("gif", 8_200), ("jpeg", 16_000)):  # a JPEG may have five times the pixels
        yield f"bomb-{side}.{kind}", encode_image(Image.new("L", (side, side)), kind)
    yield "short-idat.png", png(4_000, 4_000, deflate_zeros(1_000))
    yield "long-idat.png", png(4, 4, deflate_zeros(64 << 20))
    text = zlib.compress(bytes(64 << 20), 9)
    yield "ztxt.png", png(8, 8, deflate_zeros(72), between=[chunk(b"zTXt", b"Comment\0\0" + text)])
    yield "iccp.png", png(8, 8, deflate_zeros(72), between=[chunk(b"iCCP", b"icc\0\0" + text)])
    yield "itxt.png", png(8, 8, deflate_zeros(72), between=[chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + text)])
    yield "chunks.png", png(8, 8, deflate_zeros(72), between=[chunk(b"tEXt", b"k\0v")] * 10_000)
    yield "frames.gif", long_gif(10_000)
    yield "exif.jpeg", encode_image(scene(), "jpeg", exif=b"Exif\0\0" + b"II*\0\x08\0\0\0" + b"\xff" * 60_000)
    loop = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    yield "exif-loop.jpeg", encode_image(scene(), "jpeg", exif=b"Exif\0\0" + loop)
    whole = encode_image(scene(), "jpeg")
    yield "segments.jpeg", whole[:2] + b"\xff\xfe\xff\xff" * 1 + bytes(65_533) + whole[2:]
    yield "comments.jpeg", whole[:2] + (b"\xff\xfe\0\x04xx" * 50_000) + whole[2:]
    frames = [Image.new("RGB", (32, 32), (n, 0, 0)) for n in range(60)]
    for kind in ("webp", "avif"):
        yield f"frames.{kind}", encode_image(frames[0], kind, save_all=True, append_images=frames[1:], duration=1)


def wrong_sizes() -> Iterator[tuple[str, bytes]]:
    """Headers that say other sizes than there are."""
    for kind in FORMATS:
        for width, height in SIZES + (WIDE if kind in ("png", "avif") else []):
            if kind == "webp" and 0 in (width, height):
                continue  # its header cannot say 0
            yield f"claims-{width}x{height}.{kind}", claim_size(kind, width, height)


def foreign() -> Iterator[tuple[str, bytes]]:
    """What is no picture of ours, under names that are."""
    for name, content in FOREIGN.items():
        for disguise in ("jpg", "png"):
            yield f"foreign-{name}.{disguise}", content
    for kind in FORMATS:
        yield f"magic-only.{kind}", encode_image(scene(), kind)[:12]
        yield f"magic-and-noise.{kind}", encode_image(scene(), kind)[:32] + random.Random(kind).randbytes(5_000)


def rare_pictures() -> Iterator[tuple[str, bytes]]:
    """Good pictures of rare shapes and kinds, which must be taken."""
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield f"good-mode-{mode}.png", encode_image(scene().convert(mode), "png")
    yield "good-mode-I16.png", encode_image(scene().convert("L").convert("I;16"), "png")
    yield "good-transparent.png", encode_image(scene().convert("P"), "png", transparency=bytes(range(256)))
    yield "good-nothing.png", encode_image(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), "png")
    yield "good-cmyk.jpeg", encode_image(scene().convert("CMYK"), "jpeg")
    yield "good-grey.jpeg", encode_image(scene().convert("L"), "jpeg")
    yield "good-progressive.jpeg", encode_image(scene(), "jpeg", progressive=True)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield f"good-turned-{turn}.jpeg", encode_image(scene(seed=turn), "jpeg", exif=exif.tobytes())
    for width, height in ((1, 1), (1, 16_384), (16_384, 1), (2, 3)):
        yield f"good-{width}x{height}.png", encode_image(Image.new("RGB", (width, height), (9, width % 255, 7)), "png")


def mutations(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Broken files of the formats that libheif, libtiff, libjxl and libraw read, and one good file of each."""
    for kind in NEW_FORMATS:
        if kind in default_formats():
            yield f"good-sample.{kind}", make_sample(kind)
        for name, content in mutate(kind, count, seed):
            yield f"{kind}-{name}.jpg", content


def polyglots() -> Iterator[tuple[str, bytes]]:
    """Pictures that are something else as well."""
    script = b"=1;/*<script>alert(1)</script>*/"
    yield "js.gif", encode_image(scene(), "gif") + script
    yield "html.jpeg", encode_image(scene(), "jpeg", comment=b"<html><script>alert(1)</script>")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.html", "<script>alert(1)</script>")
    yield "zip.png", encode_image(scene(), "png") + file.getvalue()
    yield "two.png", encode_image(scene(seed=5), "png") + encode_image(scene(seed=6), "jpeg")
    yield "pdf.jpeg", encode_image(scene(seed=7), "jpeg") + FOREIGN["pdf"]


def truncated_files(share: int) -> Iterator[tuple[str, bytes]]:
    """Files that end early, at each hundredth."""
    for n, kind in enumerate(FORMATS):
        whole = encode_image(scene(96, 72, seed=n), kind)
        for percent in range(1, 100, share):
            yield f"cut-{percent}.{kind}", whole[: len(whole) * percent // 100]


def flips(dice: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Files with bytes changed."""
    for n, kind in enumerate(FORMATS):
        whole = encode_image(scene(96, 72, seed=100 + n), kind)
        for turn in range(count):
            broken = bytearray(whole)
            for _ in range(dice.choice((1, 1, 2, 8, 64))):
                broken[dice.randrange(len(broken))] = dice.randrange(256)
            yield f"flip-{turn}.{kind}", bytes(broken)
