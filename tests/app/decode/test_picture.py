"""Decoding one picture: right pixels for every kind of file, our own errors for everything else."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from app.core.errors import BlobMissing, ImageCorrupt, ImageTooLarge, Rejected, UnsupportedMediaType
from app.core.types import Preprocessing
from app.decode import picture
from app.decode.limits import ChildLimits, PictureLimits
from app.decode.picture import DecodedPicture, decode_picture, resize_for_model
from app.decode.pool import DecodePool
from tests.support import hostile_files
from tests.support.sample_pictures import (
    FORMATS,
    animation,
    chunk,
    claim_size,
    deflate_zeros,
    encode_image,
    long_gif,
    png,
    sample,
    scene,
)

LIMITS = PictureLimits()
SMALL = Preprocessing(32)
SQUASH = Preprocessing(32, "squash")


Reader = Callable[..., DecodedPicture]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    def read(
        data: bytes,
        preprocessing: Preprocessing = SMALL,
        thumbnail: bool = False,
        size: int = 320,
        small: str = "small.webp",
    ) -> DecodedPicture:
        path = tmp_path / "picture.jpg"
        path.write_bytes(data)
        (tmp_path / "t").mkdir(exist_ok=True)
        return decode_picture(path, preprocessing, LIMITS, tmp_path / "t" / small if thumbnail else None, size)

    return read


def mean_colour(decoded: DecodedPicture) -> list[int]:
    return [round(float(value)) for value in decoded.pixels.reshape(-1, 3).mean(axis=0)]


def is_near(found: list[int], wanted: tuple[int, int, int], by: int = 3) -> bool:
    return all(abs(one - other) <= by for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_gives_pixels_size_and_name(read: Reader, kind: str) -> None:
    found = read(sample(kind, 61, 47))
    assert (found.format, found.width, found.height, found.animated) == (kind, 61, 47, False)
    assert found.pixels.shape == (32, 32, 3)
    assert found.pixels.dtype == np.uint8
    reference = np.asarray(resize_for_model(scene(61, 47), SMALL)).astype(int)
    assert np.abs(found.pixels.astype(int) - reference).mean() < 20


@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_open_clip(
    tmp_path: Path,
    resize: Literal["shortest", "longest", "squash"],
    interpolation: Literal["bicubic", "bilinear"],
) -> None:
    transform = pytest.importorskip("open_clip.transform").image_transform
    theirs = transform(
        56, False, (0.0,) * 3, (1.0,) * 3, resize_mode=resize, interpolation=interpolation, fill_color=127
    )
    ours = Preprocessing(56, resize, interpolation, fill=127)
    for width, height in [(96, 64), (64, 97), (55, 56), (57, 56), (20, 13), (13, 40), (1, 1), (101, 33)]:
        for kind in ("png", "jpeg"):
            data = encode_image(scene(width, height), kind)
            path = tmp_path / "picture"
            path.write_bytes(data)
            image = Image.open(io.BytesIO(data))
            expected = (theirs(image).numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
            np.testing.assert_array_equal(decode_picture(path, ours, LIMITS).pixels, expected)


def test_a_long_strip_is_cropped_before_it_is_resized() -> None:
    strip = scene(12, 800)
    whole = strip.resize((32, int(32 * 800 / 12)), Image.Resampling.BICUBIC)
    top = round((whole.height - 32) / 2)
    expected = np.asarray(whole.crop((0, top, 32, top + 32))).astype(int)
    difference = np.abs(np.asarray(resize_for_model(strip, SMALL)).astype(int) - expected)
    assert difference.max() <= 4
    assert difference.mean() < 0.5


@pytest.mark.parametrize("size", [(1, 1), (1, 16_384), (16_384, 1), (2, 16_000)])
@pytest.mark.parametrize("resize", ["shortest", "longest", "squash"])
def test_extreme_shapes_are_decoded(read: Reader, size: tuple[int, int], resize: str) -> None:
    data = encode_image(Image.new("RGB", size, (10, 200, 30)), "png")
    found = read(data, Preprocessing(224, resize), thumbnail=True)  # type: ignore[arg-type]
    assert (found.width, found.height) == size
    assert found.pixels[111, 111].tolist() == [10, 200, 30]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif"])
def test_exif_orientation_is_applied_and_stripped(read: Reader, tmp_path: Path, turn: int, kind: str) -> None:
    stored = scene(48, 24)
    exif = Image.Exif()
    exif[0x0112] = turn
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 0.0)}
    options = {"lossless": True} if kind == "webp" else {"quality": 95} if kind == "jpeg" else {}
    data = encode_image(stored, kind, exif=exif, **options)
    name = "small.jpg" if kind == "jpeg" else "small.webp"
    found = read(data, SQUASH, thumbnail=True, small=name)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert (found.width, found.height) == upright.size
    np.testing.assert_array_equal(found.pixels, np.asarray(upright.resize((32, 32), Image.Resampling.BICUBIC)))
    with Image.open(tmp_path / "t" / name) as small:
        assert small.size == upright.size
        assert not small.getexif()
        assert not {"exif", "xmp", "icc_profile"} & set(small.info)
        assert np.abs(np.asarray(small.convert("RGB")).astype(int) - np.asarray(upright)).mean() < 25


def test_a_jpeg_that_holds_more_pictures_gives_its_first(read: Reader) -> None:
    data = encode_image(scene(900, 700), "mpo", save_all=True, append_images=[Image.new("RGB", (40, 30))])
    found = read(data)
    assert (found.format, found.width, found.height, found.animated) == ("jpeg", 900, 700, False)


def test_broken_exif_is_ignored(read: Reader) -> None:
    for exif in (
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 99,
    ):
        assert read(encode_image(scene(), "jpeg", exif=exif)).width == 64


GREY = (128, 128, 128)


@pytest.mark.parametrize(
    ("image", "options", "wanted"),
    [
        (Image.new("RGBA", (40, 40), (255, 0, 0, 0)), {}, (255, 255, 255)),
        (Image.new("RGBA", (40, 40), (0, 0, 0, 128)), {}, (127, 127, 127)),
        (Image.new("LA", (40, 40), (0, 64)), {}, (191, 191, 191)),
        (Image.new("L", (40, 40), 128), {}, GREY),
        (Image.new("L", (40, 40), 128), {"transparency": 128}, (255, 255, 255)),
        (Image.new("1", (40, 40), 1), {}, (255, 255, 255)),
        (Image.new("1", (40, 40), 0), {}, (0, 0, 0)),
        (Image.new("P", (40, 40), 0), {"transparency": 0}, (255, 255, 255)),
        (Image.new("RGB", (40, 40), (9, 99, 199)), {"transparency": (9, 99, 199)}, (255, 255, 255)),
        (Image.fromarray(np.full((40, 40), 0x8040, np.uint16)), {}, GREY),
        (Image.fromarray(np.full((40, 40), 0x0040, np.uint16)), {}, (0, 0, 0)),
    ],
    ids=[
        "clear",
        "half",
        "LA",
        "L",
        "L+tRNS",
        "white 1-bit",
        "black 1-bit",
        "P",
        "RGB+tRNS",
        "16-bit",
        "dark 16-bit",
    ],
)
def test_every_kind_of_png_goes_over_white(
    read: Reader, image: Image.Image, options: dict[str, Any], wanted: tuple[int, int, int]
) -> None:
    assert is_near(mean_colour(read(encode_image(image, "png", **options))), wanted, by=1)


def test_16_bit_colour_keeps_its_high_bits(read: Reader) -> None:
    line = b"\0" + struct.pack(">HHH", 0xFF00, 0x8000, 0x0100) * 8
    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(line * 8)) + chunk(b"IEND", b"")
    assert is_near(mean_colour(read(b"\x89PNG\r\n\x1a\n" + body)), (255, 128, 1), by=1)


def without_adobe(data: bytes) -> bytes:
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0] :]


def test_cmyk_is_right_with_and_without_adobe_marker(read: Reader) -> None:
    adobe = encode_image(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "jpeg", quality=95)
    assert is_near(mean_colour(read(adobe)), (255, 0, 0))
    assert is_near(
        mean_colour(read(without_adobe(encode_image(Image.new("CMYK", (40, 40), (255, 0, 0, 255)), "jpeg")))),
        (255, 0, 0),
    )


def test_ycck_is_right(read: Reader) -> None:
    # Y = 200 and Cb = Cr = 128 are C = M = Y = 200 in Adobe's inverted YCCK, and K = 255 is no black.
    data = bytearray(encode_image(Image.new("CMYK", (40, 40), (55, 127, 127, 0)), "jpeg", quality=100))
    data[data.index(b"Adobe") + 11] = 2
    assert is_near(mean_colour(read(bytes(data))), (55, 55, 55), by=4)


def test_a_colour_profile_is_converted_to_srgb(read: Reader) -> None:
    swapped = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for tag in (b"rXYZ", b"bXYZ"):  # a profile whose red is blue
        at = swapped.index(tag)
        swapped[at : at + 4] = b"bXYZ!"[:4] if tag == b"rXYZ" else b"rXYZ"
        if tag == b"rXYZ":
            second = swapped.index(b"bXYZ", at + 4)
            swapped[second : second + 4] = b"rXYZ"
            break
    data = bytes(swapped).replace(b"s\0R\0G\0B", b"o\0d\0d\0 ")
    image = Image.new("RGB", (40, 40), (255, 0, 0))
    for kind in ("png", "jpeg", "webp"):
        assert is_near(mean_colour(read(encode_image(image, kind, icc_profile=data))), (0, 0, 255), by=6)
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    assert is_near(mean_colour(read(encode_image(clear, "png", icc_profile=data))), (255, 255, 255))


@pytest.mark.parametrize("profile", [b"garbage", bytes(4096), b"\xff" * 200])
def test_a_broken_profile_is_ignored(read: Reader, profile: bytes) -> None:
    for kind in ("png", "jpeg", "webp"):
        assert is_near(
            mean_colour(read(encode_image(Image.new("RGB", (40, 40), (255, 0, 0)), kind, icc_profile=profile))),
            (255, 0, 0),
        )
    cmyk = encode_image(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "jpeg", icc_profile=profile)
    assert is_near(mean_colour(read(cmyk)), (255, 0, 0))
    grey = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert is_near(mean_colour(read(encode_image(Image.new("L", (40, 40), 128), "png", icc_profile=grey))), GREY)


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "avif"])
def test_animations_give_their_first_frame(read: Reader, kind: str) -> None:
    found = read(animation(kind))
    assert found.animated
    assert is_near(mean_colour(found), (255, 0, 0), by=6)


def test_a_gif_of_10000_frames_is_quick(read: Reader) -> None:
    start = time.process_time()
    found = read(long_gif(10_000))
    assert found.animated
    assert is_near(mean_colour(found), (255, 0, 0))
    assert time.process_time() - start < 1.0


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(read: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_image(scene(120, 90).resize((1800, 1350), Image.Resampling.BICUBIC), "jpeg", quality=90)
    scaled = read(data, Preprocessing(112)).pixels.astype(float)
    monkeypatch.setattr(picture, "DRAFT_MARGIN", 1e6)
    whole = read(data, Preprocessing(112)).pixels.astype(float)
    assert np.abs(scaled - whole).max() > 0  # or nothing was scaled
    assert 10 * np.log10(255**2 / np.mean((scaled - whole) ** 2)) > 40


@pytest.mark.parametrize(
    ("size", "wanted"), [((640, 480), (320, 240)), ((100, 300), (100, 300)), ((1, 16_384), (1, 320))]
)
@pytest.mark.parametrize(("suffix", "format"), [("webp", "WEBP"), ("jpg", "JPEG")])
def test_thumbnail_is_of_its_names_format_bounded_and_never_larger(
    read: Reader, tmp_path: Path, size: tuple[int, int], wanted: tuple[int, int], suffix: str, format: str
) -> None:
    place = tmp_path / "t" / f"small.{suffix}"
    read(encode_image(Image.new("RGB", size, (0, 0, 255)), "jpeg"), thumbnail=True, small=place.name)
    with Image.open(place) as small:
        assert (small.format, small.size) == (format, wanted)
        assert small.convert("RGB").getpixel((0, 0))[2] > 240  # type: ignore[index]
    assert list(place.parent.iterdir()) == [place]


def test_no_thumbnail_is_left_of_a_corrupt_picture(read: Reader, tmp_path: Path) -> None:
    with pytest.raises(ImageCorrupt):
        read(sample("jpeg")[:-200], thumbnail=True)
    assert list((tmp_path / "t").iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files_are_corrupt_at_every_cut(read: Reader, kind: str) -> None:
    data = sample(kind, 96, 64)
    for percent in range(0, 100, 3):
        with pytest.raises((ImageCorrupt, UnsupportedMediaType)):
            read(data[: len(data) * percent // 100])


@pytest.mark.parametrize("kind", [*FORMATS, "animated gif", "animated webp", "animated png", "animated avif"])
def test_flipped_bits_never_raise_anything_of_others(read: Reader, kind: str) -> None:
    chance = random.Random(kind)
    data = animation(kind.split()[1]) if " " in kind else sample(kind, 96, 64)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(chance.choice([1, 1, 3, 20])):
            at = chance.randrange(len(broken)) if chance.random() < 0.5 else chance.randrange(min(200, len(broken)))
            broken[at] ^= 1 << chance.randrange(8)
        try:
            assert isinstance(read(bytes(broken), thumbnail=True), DecodedPicture)
        except Rejected:
            continue


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(FORMATS), at=st.floats(0, 1), junk=st.binary(max_size=64))
def test_spliced_junk_never_raises_anything_of_others(
    tmp_path_factory: pytest.TempPathFactory, kind: str, at: float, junk: bytes
) -> None:
    data = sample(kind)
    cut = int(at * len(data))
    path = tmp_path_factory.getbasetemp() / "spliced"
    path.write_bytes(data[:cut] + junk + data[cut + len(junk) // 2 :])
    with contextlib.suppress(Rejected):
        decode_picture(path, SMALL, LIMITS)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_size_the_data_does_not_have_is_refused_or_bounded(read: Reader, kind: str) -> None:
    with pytest.raises(ImageTooLarge):
        read(claim_size(kind, 65_535, 65_535))
    with suppress(ImageCorrupt):  # within the limits libjpeg and Pillow fill up what is missing, as browsers do
        assert read(claim_size(kind, 3_000, 3_000)).width == 3_000


def test_a_second_jpeg_header_cannot_smuggle_a_size_in(read: Reader) -> None:
    data = claim_size("jpeg", 60_000, 60_000)
    at = data.index(b"\xff\xc0")
    length = 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    honest = bytearray(data[at : at + length])
    honest[5:9] = struct.pack(">HH", 48, 64)
    with pytest.raises((ImageCorrupt, ImageTooLarge)):
        read(data[:at] + bytes(honest) + data[at:])


def test_pillow_refuses_at_our_cap_and_not_before() -> None:
    picture.harden_pillow(LIMITS.max_pixels)
    Image._decompression_bomb_check((50_000, 1_000), error_only=True)
    with pytest.raises(Image.DecompressionBombError):
        Image._decompression_bomb_check((50_000, 1_001), error_only=True)


def test_a_picture_between_half_the_cap_and_the_cap_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encode_image(Image.new("L", (100, 90)), "png"))
    assert decode_picture(path, SMALL, PictureLimits(max_pixels=9_000)).width == 100
    with pytest.raises(ImageTooLarge):
        decode_picture(path, SMALL, PictureLimits(max_pixels=8_999))


def phone_jpeg(path: Path, width: int, height: int, **options: Any) -> Path:
    small = Image.effect_noise((width // 16, height // 16), 60).convert("RGB")
    small.resize((width, height), Image.Resampling.NEAREST).save(path, quality=60, **options)
    return path


@pytest.mark.parametrize(
    ("width", "height", "options"),
    [
        (8160, 6144, {}),  # a phone of 50 megapixels, just above the limit of other formats
        (16000, 3900, {}),  # a panorama
        (12000, 9000, {}),
        (8192, 6144, {"progressive": True}),
    ],
    ids=["phone", "panorama", "108 megapixels", "progressive"],
)
def test_photographs_of_phones_are_decoded_in_little_memory(
    width: int, height: int, options: dict[str, Any], tmp_path: Path
) -> None:
    path = phone_jpeg(tmp_path / "phone.jpg", width, height, **options)
    with DecodePool(1, ChildLimits(), modules=["tests.support.hostile_files"]) as pool:
        found = pool.submit(decode_picture, path, SMALL, LIMITS).result(60)
        peak = pool.submit(hostile_files.peak_rss).result(60)
    assert (found.width, found.height) == (width, height)
    assert peak < ChildLimits().memory / 4


def test_a_refusal_for_its_size_names_the_setting(read: Reader) -> None:
    with pytest.raises(ImageTooLarge, match="SIGHTLINE_MAX_IMAGE_PIXELS"):
        read(claim_size("png", 8_160, 6_144))
    with pytest.raises(ImageTooLarge, match="250,000,000 in all for JPEG"):
        read(claim_size("jpeg", 16_000, 16_000))
    with pytest.raises(ImageTooLarge, match="SIGHTLINE_MAX_IMAGE_SIDE"):
        read(claim_size("jpeg", 20_000, 100))


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_compressed_chunks_that_expand_without_end_are_refused_or_ignored(read: Reader, name: bytes) -> None:
    bomb = deflate_zeros(200 << 20)
    body = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[name] + bomb
    start = time.process_time()
    with contextlib.suppress(ImageCorrupt):
        read(png(8, 8, zlib.compress(bytes(72)), between=[chunk(name, body)]))
    assert time.process_time() - start < 3.0


def test_pixels_cut_off_are_corrupt(read: Reader) -> None:
    with pytest.raises(ImageCorrupt):
        read(png(2_000, 2_000, zlib.compress(random.Random(0).randbytes(2_001 * 2_000))[:1_000_000]))


@pytest.mark.parametrize("tail", [b"<script>alert(1)</script>", b"PK\3\4" + bytes(40), b"%PDF-1.4"])
@pytest.mark.parametrize("kind", FORMATS)
def test_polyglots_are_only_ever_the_picture(read: Reader, kind: str, tail: bytes) -> None:
    try:
        found = read(sample(kind) + tail, thumbnail=True)
    except ImageCorrupt:
        return
    assert (found.format, found.width) == (kind, 64)


def test_thumbnail_of_a_polyglot_is_encoded_anew(read: Reader, tmp_path: Path) -> None:
    comment = b"\xff\xfe\0\x1b<script>alert(1)</script>"
    data = sample("jpeg")
    read(data[:2] + comment + data[2:] + b"<script>alert(2)</script>", thumbnail=True)
    assert b"script" not in (tmp_path / "t" / "small.webp").read_bytes()


def test_a_missing_file_is_no_fault_of_the_picture(tmp_path: Path) -> None:
    with pytest.raises(BlobMissing):
        decode_picture(tmp_path / "gone", SMALL, LIMITS)
