"""The header check: what is a picture, how large it says it is, and how quickly that is known."""

from __future__ import annotations

import io
import struct
import time

import pytest
from PIL import Image

from app.core.errors import ImageCorrupt, ImageTooLarge, Rejected, UnsupportedMediaType
from app.decode.headers import ARCHIVE_HEAD, PictureHeader, detect_archive, read_header
from app.decode.limits import PictureLimits
from tests.support.sample_pictures import FORMATS, animation, chunk, claim_size, encode_image, png, sample, scene

LIMITS = PictureLimits()


def header(data: bytes, limits: PictureLimits = LIMITS) -> PictureHeader:
    return read_header(io.BytesIO(data), limits)


@pytest.mark.parametrize("kind", FORMATS)
def test_header_gives_format_and_size(kind: str) -> None:
    found = header(sample(kind, 61, 47))
    assert (found.format, found.width, found.height) == (kind, 61, 47)
    assert not found.animated


@pytest.mark.parametrize("options", [{"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, {"quality": 5}])
def test_header_reads_each_kind_of_webp(options: dict[str, object]) -> None:
    found = header(encode_image(scene(33, 21), "webp", **options))
    assert (found.width, found.height) == (33, 21)


@pytest.mark.parametrize(("kind", "animated"), [("png", True), ("webp", True), ("gif", None), ("avif", None)])
def test_header_tells_animations_or_leaves_it_open(kind: str, animated: bool | None) -> None:
    assert header(animation(kind)).animated is animated


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, I am no picture",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'<?xml version="1.0"?><svg/>',
        b"<!DOCTYPE html><html></html>",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"#EXTM3U\n",
        b"push graphic-context\nviewbox 0 0 1 1\n",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        b"PK\3\4" + bytes(60),
        b"Rar!\x1a\x07" + bytes(60),
        b"RIFF\x10\0\0\0WAVEfmt ",
        bytes(64),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_anything_else_is_unsupported_whatever_its_name(data: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        header(data)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(65_535, 65_535), (16_383, 16_383)])
def test_a_huge_claim_is_refused_at_once(kind: str, size: tuple[int, int]) -> None:
    data = claim_size(kind, *size)
    start = time.process_time()
    with pytest.raises(ImageTooLarge):
        header(data)
    assert time.process_time() - start < 0.05


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "avif"])
@pytest.mark.parametrize("size", [(0, 10), (10, 0), (0, 0)])
def test_a_side_of_no_pixels_is_corrupt(kind: str, size: tuple[int, int]) -> None:
    with pytest.raises(ImageCorrupt):
        header(claim_size(kind, *size))


@pytest.mark.parametrize("kind", ["png", "avif"])
@pytest.mark.parametrize("side", [1 << 31, (1 << 32) - 1])
def test_claims_of_32_bits_are_refused(kind: str, side: int) -> None:
    for size in ((side, side), (side, 1), (1, side)):
        with pytest.raises(ImageTooLarge):
            header(claim_size(kind, *size))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_cut_of_a_header_is_answered(kind: str) -> None:
    data = sample(kind)
    for end in range(min(len(data), 400)):
        try:
            header(data[:end])
        except Rejected:
            continue


def test_a_header_cut_off_is_corrupt() -> None:
    for kind in FORMATS:
        with pytest.raises(ImageCorrupt):
            header(sample(kind)[:20])


def test_limits_count_bytes_pixels_and_sides() -> None:
    data = sample("png", 100, 50)
    for limits in (
        PictureLimits(max_bytes=len(data) - 1),
        PictureLimits(max_pixels=4_999),
        PictureLimits(max_side=99),
    ):
        with pytest.raises(ImageTooLarge):
            header(data, limits)
    assert header(data, PictureLimits(len(data), 5_000, 100)).width == 100


def test_big_segments_are_sought_over_and_not_read() -> None:
    class Watched(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.taken += len(data)
            return data

    jpeg = sample("jpeg", 40, 30)
    exif = b"\xff\xe1" + struct.pack(">H", 65_535) + bytes(65_533)
    for data in (jpeg[:2] + exif * 30 + jpeg[2:], png(40, 30, between=[chunk(b"eXIf", bytes(2_000_000))])):
        file = Watched(data)
        assert read_header(file, LIMITS).width == 40
        assert file.taken < 1_000


@pytest.mark.parametrize("count", [10_000, 2_000_000])
def test_a_file_of_endless_segments_ends_quickly(count: int) -> None:
    jpeg, gif = sample("jpeg"), sample("gif")
    table = gif[:13] + gif[13 : 13 + 3 * (2 << (gif[10] & 7))]
    crowds = [
        jpeg[:2] + b"\xff\xfe\0\2" * count + jpeg[2:],
        b"\xff\xd8" + b"\xff" * 4 * count,
        b"\xff\xd8\xff" + b"\0" * 4 * count,
        png(9, 9, between=[chunk(b"tEXt", b"")] * min(count, 500_000)),
        table + b"\x21\xfe\0" * count + gif[len(table) :],
        table + b"\x21\xfe" + b"\1x" * count + b"\0" + gif[len(table) :],
        b"\0\0\0\x14ftypavif\0\0\0\0avif" + b"\0\0\0\x08free" * count,
    ]
    start = time.process_time()
    for data in crowds:
        try:
            header(data, PictureLimits(max_bytes=1 << 30))
        except ImageCorrupt:
            continue
    assert time.process_time() - start < 1.0


def test_avif_boxes_of_impossible_length_are_corrupt() -> None:
    data = sample("avif")
    meta = data.index(b"meta") - 4
    for length in (2, 7, 9, 1 << 31):
        with pytest.raises(ImageCorrupt):
            header(data[:meta] + struct.pack(">I", length) + data[meta + 4 :])


def test_a_gif_frame_past_the_screen_counts() -> None:
    data = bytearray(encode_image(Image.new("P", (4, 4)), "gif"))
    at = data.index(b"\x2c", 13 + 3 * (2 << (data[10] & 7)))
    data[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(ImageTooLarge):
        header(bytes(data))


def test_archives_are_known_by_their_magic() -> None:
    tar = bytearray(ARCHIVE_HEAD)
    tar[257:262] = b"ustar"
    assert detect_archive(b"PK\3\4rest") == "zip"
    assert detect_archive(b"PK\5\6" + bytes(18)) == "zip"
    assert detect_archive(b"\x1f\x8b\x08\0") == "tar.gz"
    assert detect_archive(bytes(tar)) == "tar"
    assert detect_archive(b"") is detect_archive(sample("jpeg")) is detect_archive(b"Rar!\x1a\7\0") is None
