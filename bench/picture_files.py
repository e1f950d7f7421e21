"""Makes picture files of every format, depth and orientation, whose true colours are known.

All show the same chart of flat colours, so that one comparison tells whether a file was decoded, turned and converted
right. RAW files are DNGs with a preview: nothing here can write those of cameras.
"""

from __future__ import annotations

import io
import random
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageCms

from app.decode.colours import build_profile

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

SIZE = (240, 160)
ACROSS, DOWN = 4, 3
COLOURS = (
    *((192, 57, 43), (230, 126, 34), (241, 196, 15), (39, 174, 96)),
    *((22, 160, 133), (41, 128, 185), (142, 68, 173), (44, 62, 80)),
    *((236, 240, 241), (149, 165, 166), (211, 84, 0), (120, 90, 60)),
)
DISPLAY_P3, SRGB_CURVE, PQ = 12, 13, 16  # of ITU-T H.273
# Linear light of sRGB as that of Display P3 (CSS Color 4, section 10).
TO_P3 = np.array(
    [[0.8224619687, 0.1775380313, 0], [0.0331941989, 0.9668058011, 0], [0.0170826307, 0.0723974407, 0.9105199286]]
)


@dataclass(frozen=True, slots=True, eq=False)
class PictureFile:
    """A file, and what it shows: `truth` is uint8 [height, width, 3] in sRGB, upright."""

    name: str
    content: bytes
    format: str
    truth: Pixels
    pages: int = 1


def draw_chart(size: tuple[int, int] = SIZE) -> Image.Image:
    """Twelve fields of one colour each."""
    fields = np.array(COLOURS, np.uint8).reshape(DOWN, ACROSS, 3)
    return Image.fromarray(fields).resize(size, Image.Resampling.NEAREST)


def measure_fields(pixels: Pixels) -> Floats:
    """The mean colour of the middle of each field, float64 [12, 3]."""
    height, width = pixels.shape[:2]
    rows = [(int((n + 0.3) * height / DOWN), int((n + 0.7) * height / DOWN) + 1) for n in range(DOWN)]
    columns = [(int((n + 0.3) * width / ACROSS), int((n + 0.7) * width / ACROSS) + 1) for n in range(ACROSS)]
    means = [pixels[top:bottom, left:right].mean((0, 1)) for top, bottom in rows for left, right in columns]
    return np.array(means, np.float64)


def measure_colour_error(found: Pixels, truth: Pixels) -> Floats:
    """ΔE (CIE 1976) of each field."""
    error: Floats = np.linalg.norm(_to_lab(measure_fields(found)) - _to_lab(measure_fields(truth)), axis=1)
    return error


def _to_lab(rgb: Floats) -> Floats:
    matrix = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    light = _to_linear(rgb / 255) @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(light > 0.008856, np.cbrt(light), 7.787 * light + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def _to_linear(code: Floats) -> Floats:
    linear: Floats = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return linear


def _to_code(light: Floats) -> Floats:
    code: Floats = np.where(light <= 0.0031308, light * 12.92, 1.055 * np.clip(light, 0, None) ** (1 / 2.4) - 0.055)
    return code


def convert_to_p3(image: Image.Image) -> Floats:
    """The code values of 0 to 1 that show the same colours in Display P3."""
    return _to_code(_to_linear(np.asarray(image, np.float64) / 255) @ TO_P3.T)


def convert_to_pq(image: Image.Image) -> Floats:
    """The code values of 0 to 1 for PQ (SMPTE ST 2084), with white at half of 203 nits: below any compression."""
    nits = _to_linear(np.asarray(image, np.float64) / 255) * 203 * 0.5
    power = (nits / 10_000) ** 0.1593017578125
    code: Floats = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    return code


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    if kind == "JXL":
        import pillow_jxl  # noqa: F401  (it registers itself with Pillow)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encode_heic(image: Image.Image, quality: int = 90, others: Sequence[Image.Image] = (), **options: Any) -> bytes:
    import pillow_heif

    file = io.BytesIO()
    made = pillow_heif.from_pillow(image)
    for one in others:
        made.add_from_pillow(one)
    made.save(file, quality=quality, primary_index=0, **options)
    return file.getvalue()


def encode_deep_heic(codes: Floats, bits: int, profile: bytes | None = None, **options: Any) -> bytes:
    """A HEIC of 10 or 12 bits from code values of 0 to 1."""
    import pillow_heif

    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    values = np.round(codes * 65535).astype("<u2")
    made = pillow_heif.from_bytes("RGB;16", (codes.shape[1], codes.shape[0]), values.tobytes())
    if profile is not None:
        info = cast("dict[str, Any]", made[0].info)
        info["icc_profile"], info["icc_profile_type"] = profile, "prof"
    file = io.BytesIO()
    made.save(file, quality=95, chroma=444, **options)
    return file.getvalue()


def encode_turned_heic(image: Image.Image, turn: int) -> bytes:
    """A HEIC that is turned by `irot` and `imir`, and says so in its EXIF as well, as phones write it."""
    import pillow_heif

    made = pillow_heif.from_bytes("RGB", image.size, image.tobytes())
    made[0].info["exif"] = exif_orientation(turn)
    file = io.BytesIO()
    made.save(file, quality=90)
    return file.getvalue()


def pack_jpeg_as_jxl(content: bytes) -> bytes:
    """The JPEG XL from which the same JPEG can be made again."""
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(content)
        file.flush()
        with Image.open(file.name) as image:
            return encode(image, "JXL", lossless_jpeg=True)


def append_box(content: bytes, name: bytes, body: bytes) -> bytes:
    """An ISO media file with one more box at its end: phones store the video of a motion photo so."""
    return content + struct.pack(">I4s", 8 + len(body), name) + body


def exif_orientation(turn: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif.tobytes()


def turn_back(image: Image.Image, turn: int) -> Image.Image:
    """The picture as a camera stores it that was held so: `turn` makes it upright again."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's numbers of the inverse
    return image.transpose(Image.Transpose(undo[turn])) if turn in undo else image


# ---- TIFF and DNG by hand: what Pillow does not write

_LETTERS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "I", 10: "i"}
_PARTS = {5: 2, 10: 2}  # numbers of one value
Entry = tuple[int, int, Sequence[int] | bytes]


def pack_directory(entries: Sequence[Entry], position: int, following: int = 0, order: str = "<") -> bytes:
    """An image file directory at a position of a file, with the values that do not fit into it behind."""
    head, behind = struct.pack(order + "H", len(entries)), b""
    start = position + 2 + 12 * len(entries) + 4
    for tag, kind, values in sorted(entries, key=lambda entry: entry[0]):
        raw = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{_LETTERS[kind]}", *values)
        count = len(values) // _PARTS.get(kind, 1)
        if len(raw) <= 4:
            value = raw.ljust(4, b"\0")
        else:
            value = struct.pack(order + "I", start + len(behind))
            behind += raw + bytes(len(raw) % 2)
        head += struct.pack(order + "HHI", tag, kind, count) + value
    return head + struct.pack(order + "I", following) + behind


def make_tiff(samples: npt.NDArray[Any], photometric: int, order: str = "<", more: Sequence[Entry] = ()) -> bytes:
    """An uncompressed TIFF of unsigned or floating-point samples [height, width, channels]."""
    height, width, channels = samples.shape
    bits = samples.dtype.itemsize * 8
    data = (samples.astype(samples.dtype.newbyteorder(">")) if order == ">" else samples).tobytes()

    def build(start: int) -> bytes:
        entries: list[Entry] = [
            *((256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * channels), (259, 3, [1])),
            *((262, 3, [photometric]), (273, 4, [start]), (277, 3, [channels]), (278, 4, [height])),
            *((279, 4, [len(data)]), (339, 3, [3 if samples.dtype.kind == "f" else 1] * channels)),
            *more,
        ]
        return pack_directory(entries, 8, order=order)

    magic = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return magic + build(8 + len(build(0))) + data


def make_dng(preview: bytes, turn: int = 1, size: tuple[int, int] = SIZE, values: int = 1) -> bytes:
    """A DNG of noise with the bytes of a JPEG as its preview; `values`: directories of it that have sensor data."""
    width, height = size
    sensor = np.random.default_rng(0).integers(100, 4000, (height, width)).astype("<u2").tobytes()

    def build(preview_at: int, sensor_at: int, below: int) -> tuple[bytes, bytes]:
        first = pack_directory(
            [
                *((254, 4, [1]), (256, 4, [width]), (257, 4, [height]), (258, 3, [8, 8, 8]), (259, 3, [7])),
                *((262, 3, [6]), (271, 2, b"Sightline\0"), (272, 2, b"Made by code\0"), (273, 4, [preview_at])),
                *((274, 3, [turn]), (277, 3, [3]), (278, 4, [height]), (279, 4, [len(preview)]), (330, 4, [below])),
                *((50706, 1, [1, 4, 0, 0]), (50707, 1, [1, 1, 0, 0]), (50708, 2, b"Made by code\0")),
                (50721, 10, [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]),
                *((50728, 5, [1, 1, 1, 1, 1, 1]), (50778, 3, [21])),
            ],
            8,
        )
        second = pack_directory(
            [
                *((254, 4, [0]), (256, 4, [width]), (257, 4, [height]), (258, 3, [16]), (259, 3, [1])),
                *((262, 3, [32803]), (273, 4, [sensor_at]), (277, 3, [1]), (278, 4, [height])),
                *((279, 4, [len(sensor)]), (33421, 3, [2, 2]), (33422, 1, [0, 1, 1, 2]), (50717, 4, [4095])),
            ],
            below,
        )
        return first, second

    below = 8 + len(build(0, 0, 0)[0])
    preview_at = below + len(build(0, 0, below)[1])
    sensor_at = preview_at + len(preview) + len(preview) % 2
    first, second = build(preview_at, sensor_at, below)
    content = b"II*\0" + struct.pack("<I", 8) + first + second + preview
    return content.ljust(sensor_at, b"\0") + sensor


# ---- hostile files

NEW_FORMATS = ("heic", "tiff", "bmp", "jxl", "jpeg2000", "raw")


def make_sample(kind: str, size: tuple[int, int] = (96, 64), seed: int = 0) -> bytes:
    """A small file of one of NEW_FORMATS, with noise that each seed makes differently."""
    noise = np.random.default_rng(seed).integers(-20, 20, (size[1], size[0], 3))
    image = Image.fromarray(np.clip(np.asarray(draw_chart(size)) + noise, 0, 255).astype(np.uint8))
    if kind == "heic":
        return encode_heic(image)
    if kind == "raw":
        return make_dng(encode(image, "JPEG"), 1, size)
    options: dict[str, dict[str, Any]] = {"tiff": {"compression": "tiff_lzw"}, "jxl": {"effort": 1}}
    return encode(image, kind.upper(), **options.get(kind, {}))


def claim_size(kind: str, width: int, height: int) -> bytes:
    """A small file of one of NEW_FORMATS whose header is patched to claim another size."""
    data = bytearray(make_sample(kind))
    if kind == "heic":
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", width, height)
    elif kind == "bmp":
        data[18:26] = struct.pack("<II", width, height)
    elif kind == "jxl":
        bits, at, most = 0, 0, 1 << 30
        for value, count in ((0, 1), (3, 2), ((height - 1) % most, 30), (0, 3), (3, 2), ((width - 1) % most, 30)):
            bits |= value << at
            at += count
        data[2:4] = bits.to_bytes(9, "little")
    elif kind == "jpeg2000":
        at = data.index(b"ihdr") + 4
        data[at : at + 8] = struct.pack(">II", height, width)
        at = data.index(b"\xff\x4f\xff\x51") + 8
        data[at : at + 8] = struct.pack(">II", width, height)
    else:
        for tag, value in ((256, width), (257, height)):
            for head in (struct.pack("<HHI", tag, 3, 1), struct.pack("<HHI", tag, 4, 1)):
                at = data.find(head)
                while at >= 0:
                    data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, value)
                    at = data.find(head, at + 12)
    return bytes(data)


LIES = (
    *((1, 1), (0, 0), (65_535, 65_535), (16_383, 5), (5, 16_383)),
    *((95, 64), (97, 65), (4_000, 4_000), (2**31 - 1, 1), (7_000, 7_000)),
)


def mutate(kind: str, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` broken files of one of NEW_FORMATS: cut off, with bits flipped, with the head of another, with lies."""
    dice = random.Random(f"{kind} {seed}")
    whole = [make_sample(kind, seed=n) for n in range(3)]
    heads = [make_sample(other)[:16] for other in NEW_FORMATS if other != kind]
    for n in range(count):
        content = bytearray(dice.choice(whole))
        if n % 20 == 0:
            width, height = LIES[n // 20 % len(LIES)]
            yield f"claims-{width}x{height}-{n}", claim_size(kind, width, height)
        elif n % 20 == 1:
            content[:16] = dice.choice(heads)
            yield f"head-{n}", bytes(content)
        elif n % 3 == 0:
            yield f"cut-{n}", bytes(content[: dice.randrange(len(content))])
        else:
            reach = len(content) if n % 2 else min(len(content), 600)  # every other one in its header
            for _ in range(dice.choice((1, 1, 2, 8, 64))):
                content[dice.randrange(reach)] ^= 1 << dice.randrange(8)
            yield f"flip-{n}", bytes(content)


# ---- the set


def make_set() -> Iterator[PictureFile]:
    """All small files: one for each format, depth, orientation and kind."""
    yield from make_heics()
    yield from make_tiffs()
    yield from make_others()


def make_heics() -> Iterator[PictureFile]:
    chart = draw_chart()
    truth = np.asarray(chart)
    whole = np.asarray(chart, np.float64) / 255
    profile = build_profile(DISPLAY_P3, SRGB_CURVE)
    p3 = convert_to_p3(chart)
    p3_chart = Image.fromarray(np.round(p3 * 255).astype(np.uint8))
    with_profile = p3_chart.copy()
    with_profile.info["icc_profile"] = profile
    numbers: dict[str, Any] = {
        "color_primaries": DISPLAY_P3,
        "transfer_characteristics": SRGB_CURVE,
        "matrix_coefficients": 6,
    }
    clear = chart.convert("RGBA")
    clear.putalpha(255)
    files = {
        "8-bit": encode_heic(chart),
        "4:4:4": encode_heic(chart, chroma=444),
        "quality-40": encode_heic(chart, 40),
        "10-bit": encode_deep_heic(whole, 10),
        "12-bit": encode_deep_heic(whole, 12),
        "alpha": encode_heic(clear),
        "p3-profile": encode_heic(with_profile),
        "p3-numbers": encode_heic(p3_chart, 95, chroma=444, **numbers),
        "p3-profile-10-bit": encode_deep_heic(p3, 10, profile),
        "p3-numbers-10-bit": encode_deep_heic(p3, 10, **numbers),
        "motion-photo": append_box(encode_heic(chart), b"mpvd", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(5000)),
        "burst": encode_heic(chart, others=[Image.new("RGB", SIZE), Image.new("RGB", (32, 32))]),
    }
    for name, content in files.items():
        yield PictureFile(f"{name}.heic", content, "heic", truth)
    dim = np.round(_to_code(_to_linear(whole) * 0.5) * 255).astype(np.uint8)
    pq = encode_deep_heic(
        convert_to_pq(chart), 10, color_primaries=1, transfer_characteristics=PQ, matrix_coefficients=6
    )
    yield PictureFile("pq-10-bit.heic", pq, "heic", dim)
    grey = chart.convert("L")
    yield PictureFile("grey.heic", encode_heic(grey), "heic", np.asarray(grey.convert("RGB")))
    odd = draw_chart((241, 159))
    yield PictureFile("odd-size.heic", encode_heic(odd), "heic", np.asarray(odd))
    for turn in range(1, 9):
        yield PictureFile(f"turned-{turn}.heic", encode_turned_heic(turn_back(chart, turn), turn), "heic", truth)


def make_tiffs() -> Iterator[PictureFile]:
    chart = draw_chart()
    truth, grey = np.asarray(chart), chart.convert("L")
    grey_truth = np.asarray(grey.convert("RGB"))
    deep = truth.astype(np.uint16) * 257
    deep_grey = np.asarray(grey).astype(np.uint16)[..., None] * 257
    clear = chart.convert("RGBA")
    clear.putalpha(255)
    ink = chart.convert("CMYK")
    for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield PictureFile(
            f"{name}.tiff",
            encode(chart, "TIFF", compression=name, **({"quality": 95} if name == "jpeg" else {})),
            "tiff",
            truth,
        )
    yield PictureFile("big-tiff.tiff", encode(chart, "TIFF", big_tiff=True), "tiff", truth)
    for order, name in (("<", "intel"), (">", "motorola")):
        yield PictureFile(f"16-bit-{name}.tiff", make_tiff(deep, 2, order), "tiff", truth)
        yield PictureFile(f"16-bit-grey-{name}.tiff", make_tiff(deep_grey, 1, order), "tiff", grey_truth)
    yield PictureFile("16-bit-negative.tiff", make_tiff(65535 - deep_grey, 0), "tiff", grey_truth)
    yield PictureFile("negative.tiff", make_tiff(255 - np.asarray(grey)[..., None], 0), "tiff", grey_truth)
    floats = np.asarray(grey, np.float32)[..., None] / 255
    yield PictureFile("float.tiff", make_tiff(floats, 1), "tiff", grey_truth)
    yield PictureFile("alpha.tiff", encode(clear, "TIFF"), "tiff", truth)
    yield PictureFile("cmyk.tiff", encode(ink, "TIFF"), "tiff", np.asarray(ink.convert("RGB")))
    lab = ImageCms.profileToProfile(
        chart, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    yield PictureFile("lab.tiff", encode(lab, "TIFF"), "tiff", truth)
    few = chart.convert("P", palette=Image.Palette.ADAPTIVE)
    yield PictureFile("palette.tiff", encode(few, "TIFF"), "tiff", truth)
    yield PictureFile("grey.tiff", encode(grey, "TIFF"), "tiff", grey_truth)
    yield PictureFile(
        "black-and-white.tiff",
        encode(chart.convert("1", dither=Image.Dither.NONE), "TIFF"),
        "tiff",
        np.asarray(chart.convert("1", dither=Image.Dither.NONE).convert("RGB")),
    )
    pages = [Image.new("RGB", (50, 50)), Image.new("L", (20, 30))]
    yield PictureFile("pages.tiff", encode(chart, "TIFF", save_all=True, append_images=pages), "tiff", truth, pages=3)
    p3 = Image.fromarray(np.round(convert_to_p3(chart) * 255).astype(np.uint8))
    yield PictureFile("p3.tiff", encode(p3, "TIFF", icc_profile=build_profile(DISPLAY_P3, SRGB_CURVE)), "tiff", truth)
    for turn in range(1, 9):
        content = encode(turn_back(chart, turn), "TIFF", tiffinfo={274: turn})
        yield PictureFile(f"turned-{turn}.tiff", content, "tiff", truth)


def make_others() -> Iterator[PictureFile]:
    chart = draw_chart()
    truth, grey = np.asarray(chart), chart.convert("L")
    grey_truth = np.asarray(grey.convert("RGB"))
    clear = chart.convert("RGBA")
    clear.putalpha(255)
    few = chart.convert("P", palette=Image.Palette.ADAPTIVE)
    yield PictureFile("24-bit.bmp", encode(chart, "BMP"), "bmp", truth)
    yield PictureFile("32-bit.bmp", encode(clear, "BMP"), "bmp", truth)
    yield PictureFile("palette.bmp", encode(few, "BMP"), "bmp", truth)
    yield PictureFile("grey.bmp", encode(grey, "BMP"), "bmp", grey_truth)
    down = bytearray(encode(chart.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "BMP"))
    down[22:26] = struct.pack("<i", -SIZE[1])
    yield PictureFile("top-down.bmp", bytes(down), "bmp", truth)
    yield from make_jpegs(chart)
    p3 = Image.fromarray(np.round(convert_to_p3(chart) * 255).astype(np.uint8))
    profile = build_profile(DISPLAY_P3, SRGB_CURVE)
    jxls = {
        "lossless": encode(chart, "JXL", lossless=True),
        "lossy": encode(chart, "JXL", quality=90),
        "alpha": encode(clear, "JXL", lossless=True),
        "container": encode(chart, "JXL", use_container=True),
        "p3-of-jpeg": pack_jpeg_as_jxl(encode(p3, "JPEG", quality=95, icc_profile=profile)),
        "turned-6-of-jpeg": pack_jpeg_as_jxl(encode(turn_back(chart, 6), "JPEG", quality=95, exif=exif_orientation(6))),
    }
    for name, content in jxls.items():
        yield PictureFile(f"{name}.jxl", content, "jxl", truth)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    yield PictureFile("grey.jxl", encode(grey, "JXL", lossless=True), "jxl", grey_truth)
    yield PictureFile("16-bit-grey.jxl", encode(deep, "JXL", lossless=True), "jxl", grey_truth)
    kinds: dict[str, dict[str, Any]] = {
        "lossless": {},
        "lossy": {"quality_mode": "rates", "quality_layers": [20]},
        "codestream": {"no_jp2": True},
    }
    for name, options in kinds.items():
        yield PictureFile(f"{name}.jp2", encode(chart, "JPEG2000", **options), "jpeg2000", truth)
    yield PictureFile("alpha.jp2", encode(clear, "JPEG2000"), "jpeg2000", truth)
    yield PictureFile("grey.jp2", encode(grey, "JPEG2000"), "jpeg2000", grey_truth)
    for turn in (1, 3, 6, 8):
        preview = encode(turn_back(chart, turn), "JPEG", quality=95)
        width, height = turn_back(chart, turn).size
        yield PictureFile(f"turned-{turn}.dng", make_dng(preview, turn, (width, height)), "raw", truth)
    own = encode(turn_back(chart, 6), "JPEG", quality=95, exif=exif_orientation(6))
    yield PictureFile("own-exif.dng", make_dng(own, 6, SIZE[::-1]), "raw", truth)


def make_jpegs(chart: Image.Image) -> Iterator[PictureFile]:
    truth = np.asarray(chart)
    whole = encode(chart, "JPEG", quality=95)
    gains = Image.new("L", (60, 40), 128)
    yield PictureFile("motion-photo.jpg", whole + b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(5000), "jpeg", truth)
    yield PictureFile(
        "gain-map.jpg", encode(chart, "MPO", save_all=True, append_images=[gains], quality=95), "jpeg", truth
    )
    for turn in range(1, 9):
        content = encode(turn_back(chart, turn), "JPEG", quality=95, exif=exif_orientation(turn))
        yield PictureFile(f"turned-{turn}.jpg", content, "jpeg", truth)


LARGE = {
    "50-megapixels": (8160, 6144),
    "108-megapixels": (12000, 9000),
    "200-megapixels": (16320, 12240),
    "panorama": (16000, 3900),
}


def make_large_jpegs(*, progressive: bool = False) -> Iterator[PictureFile]:
    """JPEGs of the sizes that phones make; each needs three bytes a pixel while it is made."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 25, (512, 512, 3)).astype(np.uint8))
    for name, size in LARGE.items():
        image = draw_chart(size)
        for left in range(0, size[0], noise.width):  # so that there is something to code
            for top in range(0, size[1], noise.height):
                box = (left, top, min(left + noise.width, size[0]), min(top + noise.height, size[1]))
                part = noise.crop((0, 0, box[2] - left, box[3] - top))
                image.paste(ImageChops.add(image.crop(box), part, offset=-12), box)
        content = encode(image, "JPEG", quality=85, progressive=progressive)
        yield PictureFile(f"{name}.jpg", content, "jpeg", np.asarray(draw_chart()))
