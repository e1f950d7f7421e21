"""HEIC, TIFF, BMP, JPEG XL, JPEG 2000 and RAW files: their headers, and that a decode child decodes each right."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.core import picture_formats
from app.core.errors import ImageCorrupt, ImageTooLarge, Rejected, UnsupportedMediaType
from app.core.picture_formats import FORMATS
from app.core.types import Preprocessing
from app.decode.colours import build_profile, find_nclx_profile
from app.decode.headers import PictureHeader, has_picture_suffix, read_header
from app.decode.limits import ChildLimits, PictureLimits
from app.decode.picture import DecodedPicture, decode_picture
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFile
from bench.picture_files import (
    NEW_FORMATS,
    append_box,
    claim_size,
    draw_chart,
    encode,
    encode_heic,
    make_dng,
    make_sample,
    make_set,
    make_tiff,
    measure_colour_error,
    mutate,
    pack_directory,
)

LIMITS = PictureLimits(formats=frozenset(FORMATS))
SQUARE = Preprocessing(96, resize="squash")


def header(data: bytes, limits: PictureLimits = LIMITS) -> PictureHeader:
    return read_header(io.BytesIO(data), limits)


def decode(data: bytes, folder: Path, limits: PictureLimits = LIMITS) -> DecodedPicture:
    (folder / "picture").write_bytes(data)
    return decode_picture(folder / "picture", SQUARE, limits)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(2, ChildLimits(), LIMITS) as pool:
        yield pool


def test_every_file_of_the_set_is_decoded_right_in_the_sandbox(pool: DecodePool, tmp_path: Path) -> None:
    files = list(make_set())
    assert len(files) >= 60
    tasks = []
    for n, file in enumerate(files):
        path = tmp_path / str(n)
        path.write_bytes(file.content)
        tasks.append(pool.submit(decode_picture, path, SQUARE, LIMITS, OutputFile(path.with_suffix(".webp")), 64))
    for file, task in zip(files, tasks, strict=True):
        found, (height, width) = task.result(), file.truth.shape[:2]
        said = (found.format, found.width, found.height, found.animated)
        assert said == (file.format, width, height, False), file.name
        assert measure_colour_error(found.pixels, file.truth).max() < 3, file.name
        assert header(file.content).pages == file.pages, file.name


@pytest.mark.parametrize("kind", NEW_FORMATS)
def test_mutations_end_with_a_picture_or_a_reason(pool: DecodePool, kind: str, tmp_path: Path) -> None:
    for n, (_, content) in enumerate(mutate(kind, 40, seed=7)):
        path = tmp_path / str(n)
        path.write_bytes(content)
        try:
            found = pool.submit(decode_picture, path, SQUARE, LIMITS, OutputFile(tmp_path / "t.webp"), 64).result()
        except Rejected:
            continue
        assert found.pixels.shape == (96, 96, 3)
    good = tmp_path / "good"
    good.write_bytes(make_sample(kind))
    assert pool.submit(decode_picture, good, SQUARE, LIMITS).result().format == kind


@pytest.mark.parametrize("kind", NEW_FORMATS)
def test_headers_tell_format_and_size(kind: str) -> None:
    found = header(make_sample(kind, (122, 86)))
    assert (found.format, found.width, found.height, found.animated) == (kind, 122, 86, False)


@pytest.mark.parametrize("kind", NEW_FORMATS)
def test_sizes_above_the_limits_are_refused_by_the_header(kind: str) -> None:
    for size in ((65_535, 65_535), (16_385, 1), (16_384, 16_384)):
        with pytest.raises(ImageTooLarge, match="SIGHTLINE_MAX_IMAGE_"):
            header(claim_size(kind, *size))
    if kind != "jxl":  # which cannot say 0
        with pytest.raises(ImageCorrupt):
            header(claim_size(kind, 0, 0))


@pytest.mark.parametrize("kind", NEW_FORMATS)
def test_every_cut_of_a_header_is_answered(kind: str) -> None:
    data = make_sample(kind)
    for end in range(min(len(data), 700)):
        try:
            header(data[:end])
        except Rejected:
            continue


@pytest.mark.parametrize("kind", NEW_FORMATS)
def test_one_pixel_is_a_picture_but_no_raw_file(kind: str, tmp_path: Path) -> None:
    data = make_sample(kind, (1, 1))
    if kind == "raw":
        with pytest.raises(ImageCorrupt):
            decode(data, tmp_path)
    else:
        found = decode(data, tmp_path)
        assert (found.width, found.height) == (1, 1)


@pytest.mark.parametrize("kind", NEW_FORMATS)
def test_a_format_that_is_off_is_refused_before_its_header_is_read(kind: str) -> None:
    less = PictureLimits(formats=LIMITS.formats - {kind})
    with pytest.raises(UnsupportedMediaType, match="SIGHTLINE_FORMATS"):
        header(make_sample(kind), less)
    if kind != "raw":  # whose directories tell it from a TIFF
        with pytest.raises(UnsupportedMediaType):
            header(make_sample(kind)[:40], less)
    assert not any(has_picture_suffix(f"a{suffix}", less.formats) for suffix in FORMATS[kind].suffixes)
    assert all(has_picture_suffix(f"a{suffix.upper()}", LIMITS.formats) for suffix in FORMATS[kind].suffixes)


def test_a_format_without_its_extra_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_formats, "is_installed", lambda name: name != "jxl")
    with pytest.raises(UnsupportedMediaType, match=r"pip install 'sightline-search\[formats\]'"):
        header(make_sample("jxl"), PictureLimits(formats=LIMITS.formats - {"jxl"}))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG files are not accepted"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- made -->' + b" " * 200 + b"<svg/>", "SVG files are not accepted"),
        (b"<?xml version='1.0'?><feed/>", "this is a XML file|this is a"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video files are not accepted"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "video files are not accepted"),
        (b"BMW is a car, and this is a text about it", "known format"),
    ],
)
def test_what_is_no_picture_of_pixels_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=reason):
        header(data)


# ---- HEIC


def test_phones_may_call_a_heic_otherwise(tmp_path: Path) -> None:
    for major, others in ((b"mif1", b"mif1heic"), (b"MiHB", b"mif1heic"), (b"msf1", b"hevcmif1")):
        data = bytearray(encode_heic(draw_chart()))
        data[8:12], data[16:24] = major, others
        assert decode(bytes(data), tmp_path).format == "heic"


def test_a_heic_without_a_size_or_with_broken_boxes_is_corrupt() -> None:
    data = encode_heic(draw_chart())
    with pytest.raises(ImageCorrupt, match="does not say its size"):
        header(data.replace(b"ispe", b"xspe"))
    at = data.index(b"meta") - 4
    with pytest.raises(ImageCorrupt, match="a box of the HEIC file"):
        header(data[:at] + struct.pack(">I", 7) + data[at + 4 :])


def test_colours_by_numbers_need_a_profile_only_where_they_differ_from_srgb() -> None:
    def numbers(primaries: object, transfer: object) -> dict[str, object]:
        return {"color_primaries": primaries, "transfer_characteristics": transfer}

    for nclx in (None, 5, {}, numbers(1, 13), numbers(2, 2), numbers("x", 13)):
        assert find_nclx_profile(nclx) is None
    assert find_nclx_profile(numbers(12, 13)) == build_profile(12, 13)
    assert find_nclx_profile(numbers(1, 18)) == build_profile(1, 18)
    assert build_profile(9, 8) != build_profile(9, 4) != build_profile(9, 5)


# ---- TIFF


def tiff_of(width: int, following: int) -> bytes:
    entries = [(256, 4, [width]), (257, 3, [20]), (258, 3, [8]), (259, 3, [1]), (262, 3, [1])]
    return b"II*\0" + struct.pack("<I", 8) + pack_directory(entries, 8, following)


def test_pages_are_counted_to_the_end_of_the_chain_and_never_twice() -> None:
    assert header(tiff_of(10, 0)).pages == 1
    assert header(tiff_of(10, 8)).pages == 1  # it leads to itself
    assert header(tiff_of(10, 1 << 30)).pages == 1  # it leads out of the file
    pages = b"".join(struct.pack("<HI", 0, 10_000 + 6 * (n + 1)) for n in range(1_500))
    assert header(tiff_of(10, 10_000).ljust(10_000, b"\0") + pages).pages == 1_000


def test_a_directory_without_end_or_of_odd_entries_is_answered() -> None:
    with pytest.raises(ImageCorrupt):
        header(b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(800_000))
    odd = tiff_of(10, 0).replace(struct.pack("<HHI", 257, 3, 1), struct.pack("<HHI", 257, 12, 1 << 31))
    with pytest.raises(ImageCorrupt, match="no width or no height"):
        header(odd)
    with pytest.raises(ImageCorrupt):
        header(b"II+\0\x08\0\0\0" + b"\xff" * 40)


def test_floats_beyond_one_are_levels_and_odd_ones_are_black(tmp_path: Path) -> None:
    values = np.full((20, 30, 1), 200, np.float32)
    values[:, :15] = np.nan
    found = decode(make_tiff(values, 1), tmp_path).pixels
    assert found[48, 20].tolist() == [0, 0, 0]
    assert found[48, 80].tolist() == [200, 200, 200]


# ---- RAW


def with_magic(data: bytes, magic: bytes) -> bytes:
    return magic + data[len(magic) :]


def test_raw_files_are_told_from_tiffs_by_their_directories() -> None:
    dng = make_sample("raw")
    without_version = dng.replace(struct.pack("<HHI", 50706, 1, 4), struct.pack("<HHI", 50799, 1, 4))
    assert header(without_version).format == "raw"  # a small picture with sensor data below it, as NEF and ARW
    assert header(with_magic(dng, b"IIRO")).format == "raw"  # Olympus
    plain = without_version.replace(struct.pack("<HHII", 254, 4, 1, 1), struct.pack("<HHII", 254, 4, 1, 0))
    assert header(plain).format == "tiff"


def test_a_cr2_has_its_mark_behind_the_head() -> None:
    entries = [(256, 4, [30]), (257, 4, [20]), (258, 3, [8]), (259, 3, [1]), (262, 3, [1])]
    data = b"II*\0" + struct.pack("<I", 16) + b"CR\2\0" + bytes(4) + pack_directory(entries, 16)
    found = header(data)
    assert (found.format, found.width, found.height) == ("raw", 30, 20)


def test_the_header_of_a_raf_is_that_of_its_preview() -> None:
    preview = encode(draw_chart(), "JPEG")
    data = b"FUJIFILMCCD-RAW 0201".ljust(84, b"\0") + struct.pack(">II", 148, len(preview))
    found = header(data.ljust(148, b"\0") + preview)
    assert (found.format, found.width, found.height) == ("raw", 240, 160)
    for broken in (data, data.ljust(148, b"\0") + b"no JPEG", data[:84] + bytes(8) + preview):
        with pytest.raises(ImageCorrupt):
            header(broken)


def box(name: bytes, body: bytes) -> bytes:
    return append_box(b"", name, body)


def test_the_header_of_a_cr3_is_in_its_tracks() -> None:
    def track(width: int, height: int) -> bytes:
        entry = box(b"CRAW", bytes(24) + struct.pack(">HH", width, height) + bytes(60))
        description = box(b"stsd", bytes(4) + struct.pack(">I", 1) + entry)
        return box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", description))))

    start = box(b"ftyp", b"crx \0\0\0\1crx isom")
    found = header(start + box(b"moov", track(160, 120) + track(6_000, 4_000)) + b"cut off")
    assert (found.format, found.width, found.height) == ("raw", 6_000, 4_000)
    with pytest.raises(ImageCorrupt, match="does not say its size"):
        header(start + box(b"moov", b""))


def test_a_raw_file_without_a_preview_says_so(tmp_path: Path) -> None:
    for preview in (b"", b"\xff\xd8\xff\xd9" + bytes(200)):
        with pytest.raises(ImageCorrupt):
            decode(make_dng(preview), tmp_path)


def test_a_preview_that_is_a_bitmap_is_taken(tmp_path: Path) -> None:
    dng = make_dng(encode(draw_chart(), "JPEG", quality=95))
    pixels = np.asarray(draw_chart()).tobytes()
    raw = dng.replace(struct.pack("<HHII", 259, 3, 1, 7), struct.pack("<HHII", 259, 3, 1, 1), 1)
    raw = raw.replace(struct.pack("<HHII", 262, 3, 1, 6), struct.pack("<HHII", 262, 3, 1, 2), 1)
    for tag, value in ((273, len(raw)), (279, len(pixels))):
        at = raw.index(struct.pack("<HHI", tag, 4, 1))
        raw = raw[: at + 8] + struct.pack("<I", value) + raw[at + 12 :]
    found = decode(raw + pixels, tmp_path)
    assert measure_colour_error(found.pixels, np.asarray(draw_chart())).max() < 3


# ---- sizes


def test_each_format_has_its_own_limit_of_pixels() -> None:
    limits = PictureLimits(max_pixels=1_000, formats=LIMITS.formats)
    for kind, most in (("jpeg", 5_000), ("raw", 5_000), ("heic", 2_000), ("bmp", 1_000), ("jpeg2000", 1_000)):
        assert limits.pixels_of(kind) == most
    with pytest.raises(ImageTooLarge, match="for JPEG XL"):
        header(make_sample("jxl", (60, 40)), limits)
    assert header(make_sample("jxl", (60, 30)), limits).width == 60


def test_a_panorama_of_a_phone_is_taken(tmp_path: Path) -> None:
    found = decode(encode(Image.new("L", (16_000, 3_900), 90), "JPEG"), tmp_path)
    assert (found.width, found.height) == (16_000, 3_900)
