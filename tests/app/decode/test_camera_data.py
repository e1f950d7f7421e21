"""Camera data of pictures that programs made, and of hostile ones: these are pictures all the same."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from PIL.TiffImagePlugin import IFDRational

from app.core.types import CameraData, Preprocessing
from app.decode.camera_data import camera_data_from_json, camera_data_to_json, join_name, make_caption
from app.decode.exif import read_camera_data
from app.decode.limits import PictureLimits
from app.decode.picture import decode_picture, describe_picture
from app.decode.pool import DecodePool
from app.decode.task_channel import OutputFile
from app.decode.xmp import MAX_VALUES, BadXmp, parse_coordinate, parse_xmp
from bench.picture_files import make_dng
from tests.support.camera import PLACE, make_exif, make_iptc, make_xmp, photograph
from tests.support.sample_pictures import chunk

CAMERA = {0x010F: "NIKON CORPORATION", 0x0110: "NIKON D850"}
SHOT = {
    0x9003: "2019:07:04 12:00:00",
    0x9011: "+02:00",
    0x9291: "25",
    0xA434: "50mm f/1.8",
    0x829A: IFDRational(1, 250),
    0x829D: IFDRational(28, 10),
    0x8827: 400,
    0x9204: IFDRational(-1, 3),
    0x920A: IFDRational(50, 1),
    0xA405: 75,
    0x9209: 1,
}
XMP = make_xmp(
    {"photoshop:DateCreated": "2018-01-01T00:00:00Z"},
    {"dc:title": ["Lake"], "dc:description": ["at dawn"], "dc:subject": ["water", " sky ", "water", ""]},
)
NOTHING = CameraData()


def png_with(*chunks: bytes) -> bytes:
    """A PNG with these chunks behind its pixels."""
    made = photograph("PNG")
    return made[:-12] + b"".join(chunks) + made[-12:]


IN_A_CHILD = [
    photograph(iptc=make_iptc({25: ["é".encode("cp1252")], 55: [b"20190704"], 60: [b"120000+0200"]})),
    photograph("WEBP", make_exif(CAMERA, SHOT, PLACE), XMP.decode().encode("utf-16")),
    photograph("AVIF", make_exif(CAMERA, SHOT, PLACE), XMP),
    png_with(
        chunk(b"tEXt", b"Creation Time\x00Thu, 04 Jul 2019 12:00:00 +0100"), chunk(b"tEXt", b"Title\x00\xe9t\xe9")
    ),
]


def read(data: bytes) -> CameraData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, as in a decode child
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "PNG":
                image.load()
            return read_camera_data(image)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_exif_and_xmp_are_read_from_every_format(format: str) -> None:
    data = photograph(format, make_exif(CAMERA, SHOT, PLACE), XMP)
    if format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        out = io.BytesIO()
        Image.open(io.BytesIO(data)).save(out, "PNG", exif=make_exif(CAMERA, SHOT, PLACE), pnginfo=text)
        data = out.getvalue()
    found = read(data)
    assert found == CameraData(
        taken_at="2019-07-04T12:00:00.250",
        taken_offset=120,
        camera="NIKON D850",
        lens="50mm f/1.8",
        latitude=47.375,
        longitude=-8.5,
        caption="Lake\nat dawn",
        tags=("water", "sky"),
        exposure={
            "exposure_time": 0.004,
            "f_number": 2.8,
            "iso": 400,
            "exposure_bias": -0.333333,
            "focal_length": 50.0,
            "focal_length_35mm": 75,
            "flash": True,
        },
    )
    assert camera_data_from_json(camera_data_to_json(found)) == found


def test_the_pool_carries_camera_data_of_pictures_with_thumbnails(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(photograph("JPEG", make_exif(CAMERA, SHOT), XMP))
    assert decode_picture(path, Preprocessing(16), PictureLimits()).camera_data is None
    with DecodePool(1) as pool:
        small = OutputFile(tmp_path / "small.jpg")
        found = pool.submit(decode_picture, path, Preprocessing(16), PictureLimits(), small, 64).result().camera_data
        plain = tmp_path / "plain.png"
        plain.write_bytes(photograph("PNG"))
        nothing = pool.submit(decode_picture, plain, Preprocessing(16), PictureLimits(), small, 64).result()
        for data in IN_A_CHILD:  # which can import nothing
            path.write_bytes(data)
            inside = pool.submit(describe_picture, path, PictureLimits()).result()
            assert inside == camera_data_to_json(read(data))
            assert len(inside) > 1
    assert found is not None
    assert (found.camera, found.taken_at, found.tags) == ("NIKON D850", "2019-07-04T12:00:00.250", ("water", "sky"))
    assert nothing.camera_data == NOTHING


def test_a_raw_file_has_its_own_data_and_those_of_its_preview(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    path = tmp_path / "a.dng"
    path.write_bytes(make_dng(photograph("JPEG", xmp=XMP)))
    found = decode_picture(path, Preprocessing(16), PictureLimits(), tmp_path / "small.jpg").camera_data
    assert found is not None
    assert (found.camera, found.tags, found.exposure) == ("Sightline Made by code", ("water", "sky"), {})


def test_xmp_and_iptc_tell_what_exif_does_not() -> None:
    packet = make_xmp(
        {"xmp:CreateDate": "2017-05-06", "tiff:Make": "Apple", "tiff:Model": "iPhone 12", "aux:Lens": "back camera"},
        {"exif:GPSLatitude": "12,30,0S", "exif:GPSLongitude": "170,6.0E"},
    )
    found = read(photograph(xmp=packet))
    assert (found.taken_at, found.taken_offset) == ("2017-05-06T00:00:00.000", None)
    assert (found.camera, found.lens) == ("Apple iPhone 12", "back camera")
    assert (found.latitude, found.longitude) == (-12.5, 170.1)

    block = {
        5: [b"Lake"],
        25: [b"water", "Käse".encode(), "é".encode("cp1252")],
        55: [b"20190704"],
        60: [b"120000+0200"],
    }
    found = read(photograph(iptc=make_iptc(block | {120: [b"at\x00dawn"]})))
    assert (found.taken_at, found.taken_offset) == ("2019-07-04T12:00:00.000", 120)
    assert (found.caption, found.tags) == ("Lake\nat dawn", ("water", "Käse", "é"))

    unknown = read(photograph(exif=make_exif({}, {0x829A: IFDRational(0, 1), 0x8827: 0, 0x9204: IFDRational(0, 1)})))
    assert unknown.exposure == {"exposure_bias": 0.0}
    scanned = read(photograph(exif=make_exif({0x010E: "Grandma"}, {0x9004: "2001:02:03 04:05:06"})))
    assert (scanned.taken_at, scanned.caption) == ("2001-02-03T04:05:06.000", "Grandma")
    assert read(photograph(exif=make_exif({0x0132: "2001:02:03 04:05:06"}))) == NOTHING  # when the file was changed


def test_texts_of_a_png_are_read_also_behind_its_pixels() -> None:
    exif = png_with(chunk(b"eXIf", make_exif(CAMERA, SHOT)))
    assert read(exif).camera == "NIKON D850"
    for text, time in (
        (b"Creation Time\x00Thu, 04 Jul 2019 12:00:00 GMT", "2019-07-04T12:00:00.000"),
        (b"Creation Time\x002019:07:04 12:00:00", "2019-07-04T12:00:00.000"),
        (b"exif:DateTimeOriginal\x002019:07:04 12:00:00", "2019-07-04T12:00:00.000"),
        (b"Creation Time\x00long ago", None),
    ):
        assert read(png_with(chunk(b"tEXt", text))).taken_at == time
    words = png_with(chunk(b"tEXt", b"Title\x00Lake"), chunk(b"tEXt", b"Description\x00The lake at dawn"))
    assert read(words).caption == "The lake at dawn"


@pytest.mark.parametrize(
    ("maker", "model", "name"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D850", "NIKON D850"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("samsung", " SM-G991B ", "samsung SM-G991B"),
        ("Fujifilm", None, "Fujifilm"),
        ("", "X100", "X100"),
        ("----", "***", None),
        ("HP", "HPE 3", "HP HPE 3"),
        (None, "x" * 500, "x" * 200),
    ],
)
def test_a_camera_is_named_without_repetition(maker: str | None, model: str | None, name: str | None) -> None:
    assert join_name(maker, model) == name


@pytest.mark.parametrize(
    "text", ["OLYMPUS DIGITAL CAMERA", "SONY DSC", "DCIM\\100MEDIA\\DJI_1.JPG", "<untitled>", "DSC_0012", "  ", "…", 5]
)
def test_what_cameras_write_as_captions_is_none(text: Any) -> None:
    assert make_caption([], [text]) is None
    assert make_caption([text], [text, "a red car"]) == "a red car"


def damaged_gps(**parts: Any) -> dict[int, Any]:
    return {**PLACE, **{int(name[1:]): value for name, value in parts.items()}}


@pytest.mark.parametrize(
    "gps",
    [
        damaged_gps(_2=(IFDRational(47, 0), 0.0, 0.0)),
        damaged_gps(_2=(IFDRational(0, 0), IFDRational(0, 0), IFDRational(0, 0))),
        damaged_gps(_4=(181.0, 0.0, 0.0)),
        damaged_gps(_2=(47.0, 22.0, 30.0, 1.0)),
        damaged_gps(_1="X"),
        {2: PLACE[2], 4: PLACE[4]},
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
    ],
)
def test_a_place_that_is_none_is_left_out(gps: dict[int, Any]) -> None:
    found = read(photograph(exif=make_exif(CAMERA, SHOT, gps)))
    assert (found.latitude, found.longitude) == (None, None)
    assert found.camera == "NIKON D850"


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


LONG = b"II*\x00\x08\x00\x00\x00"  # the head of EXIF
HOSTILE_EXIF = {
    "cut off": make_exif(CAMERA, SHOT)[:60],
    "no EXIF": b"Exif\x00\x00garbage",
    "empty": b"Exif\x00\x00",
    "an IFD that is its own part": b"Exif\0\0" + LONG + struct.pack("<HHHLLL", 1, 0x8769, 4, 1, 8, 8),
    "an offset behind the end": b"Exif\0\0" + LONG + struct.pack("<HHHLLL", 1, 0x8769, 4, 1, 0xFFFFFFF0, 0),
    "an entry of 4 GB": b"Exif\0\0" + LONG + struct.pack("<HHHLLL", 1, 0x010F, 2, 0xFFFFFFFF, 8, 0),
    "65,535 entries": b"Exif\0\0" + LONG + b"\xff\xff" + b"\x0f\x01\x02\x00\xff\xff\x00\x00\x08\x00\x00\x00" * 5_000,
    "numbers for texts": make_exif({0x010F: 7, 0x0110: 8}, {0x9003: 5, 0xA434: 9, 0x9209: "on", 0x829A: "x"}),
}


@pytest.mark.parametrize("name", HOSTILE_EXIF)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_hostile_exif_costs_no_picture(name: str, format: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(photograph(format, HOSTILE_EXIF[name][:65_000], XMP))
    found = decode_picture(path, Preprocessing(16), PictureLimits(), tmp_path / "small.jpg").camera_data
    assert found is not None
    assert found.taken_at in (None, "2018-01-01T00:00:00.000")
    assert format == "PNG" or found.tags == ("water", "sky")


@pytest.mark.parametrize("time", ["0000:00:00 00:00:00", "0000:01:01 00:00:00", "9999:12:31 23:59:59", "\xff\xfe", "1"])
def test_a_time_that_is_none_is_left_out(time: str) -> None:
    found = read(photograph(exif=make_exif(CAMERA, SHOT | {0x9003: time})))
    assert (found.taken_at, found.taken_offset, found.camera) == (None, None, "NIKON D850")


def test_exif_of_64_megabytes_costs_no_picture(tmp_path: Path) -> None:
    whole = make_exif(CAMERA, SHOT)
    path = tmp_path / "picture"
    path.write_bytes(png_with(chunk(b"eXIf", whole[6:] + b"\0" * (64 << 20))))
    with DecodePool(1) as pool:
        small = OutputFile(tmp_path / "small.jpg")
        found = pool.submit(decode_picture, path, Preprocessing(16), PictureLimits(), small, 64).result()
    assert found.camera_data == NOTHING
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", 65_535) + b"Exif\0\0" + b"\0" * 65_527 for _ in range(200))
    jpeg = photograph("JPEG")
    assert read(jpeg[:2] + segments + jpeg[2:]) == NOTHING


def test_hostile_xmp_costs_no_picture() -> None:
    bomb = (
        b'<!DOCTYPE a [<!ENTITY b "' + b"x" * 1000 + b'">' + b"<!ENTITY c '&b;&b;&b;'>]>" + XMP.replace(b"Lake", b"&c;")
    )
    for packet in (bomb, b"<a>" * 100_000, b"<", b"\xff\xfe<", b"", b"<a " + b"b" * 900_000 + b"='1'/>"):
        found = read(photograph("WEBP", make_exif(CAMERA), packet))
        assert (found.camera, found.caption, found.tags) == ("NIKON D850", None, ())
    with pytest.raises(BadXmp, match="more than"):
        parse_xmp(b" " * 2_000_000)
    assert parse_xmp("<a/>") == {}
    marked = XMP.replace(b"<rdf:li>Lake", b"<!-- <x> --><rdf:li><![CDATA[A <b>]]> &amp; &#x4e2d;")
    assert parse_xmp(marked)["dc:title"] == ["A <b> & 中"]
    for cut in (b"<!-- ", b"<![CDATA[", b"<?x", b"<rdf:li", b'<rdf:li a="'):
        assert parse_xmp(XMP[: XMP.index(b"<dc:subject>")] + cut)["dc:title"] == ["Lake"]
    assert parse_xmp(b"\xef\xbb\xbf" + XMP) == parse_xmp(XMP.decode().encode("utf-16")) == parse_xmp(XMP.decode())
    half = XMP[: XMP.index(b"</dc:description>") + 20]
    assert parse_xmp(half)["dc:title"] == ["Lake"]  # what came before the damage
    many = parse_xmp(make_xmp({"dc:subject": [f"w{n}" for n in range(5_000)]}))
    assert len(many["dc:subject"]) == MAX_VALUES
    deep = b"<rdf:Description xmpMM:x='1'><dc:title>No</dc:title></rdf:Description>"
    history = b"<xmpMM:History><rdf:Seq><rdf:li>" + deep + b"</rdf:li></rdf:Seq></xmpMM:History>"
    nested = XMP.replace(b"<dc:title>", history + b"<dc:title>")
    assert parse_xmp(nested)["dc:title"] == ["Lake"]


def test_the_default_language_is_the_first() -> None:
    packet = make_xmp({"dc:title": ["See", "Lake"]}).replace(b"<rdf:li>Lake", b'<rdf:li xml:lang="x-default">Lake')
    assert parse_xmp(packet)["dc:title"] == ["Lake", "See"]
    assert [parse_coordinate(one) for one in ("47,22,30N", "47.5", "12,30.5w", "999999,1N")] == [
        47.375,
        None,
        -(12 + 30.5 / 60),
        None,
    ]


def test_invalid_texts_and_thousands_of_keywords_are_bounded() -> None:
    keywords = [f"word{n}".encode() for n in range(3_000)]
    found = read(photograph(iptc=make_iptc({120: [b"caf\xe9 \xff\xfe\x81"], 25: keywords[:2_500]})))
    assert len(found.tags) == 2_000
    assert found.caption is not None
    assert found.caption.startswith("café")
    broken = read(
        photograph(iptc=patched(make_iptc({25: [b"water"]}), b"\x1c\x02\x19\x00\x05", b"\x1c\x02\x19\xff\xff"))
    )
    assert broken.camera is None
    utf8 = patched(photograph(exif=make_exif({0x010E: "K##fer"})), b"K##fer", "Käfer".encode())
    assert read(utf8).caption == "Käfer"
    assert len(zlib.compress(str(camera_data_to_json(found)).encode())) < 1 << 20


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"odd": 1},
        {"camera": 5},
        {"camera": "x" * 10_000},
        {"lens": "\ud800"},
        {"tags": "x"},
        {"tags": [1]},
        {"tags": ["x"] * 3_000},
        {"exposure": {"iso": 10**400}},
        {"exposure": {"iso": float("nan")}},
        {"exposure": {"odd": 1}},
        {"exposure": {"iso": "400"}},
        {"taken_at": "never"},
        {"taken_at": 5},
        {"taken_at": "2019-07-04", "taken_offset": 10_000},
        {"taken_at": "2019-07-04", "taken_offset": True},
    ],
)
def test_a_child_may_say_anything(said: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        camera_data_from_json(said)


def test_a_place_of_a_child_is_checked() -> None:
    for place in ({"latitude": 10**400, "longitude": 1}, {"latitude": float("nan"), "longitude": 1}, {"latitude": 1}):
        assert camera_data_from_json(place) == NOTHING


def test_bytes_that_were_altered_cost_no_picture() -> None:
    iptc = make_iptc({5: [b"Lake"], 25: [b"water", b"sky"], 55: [b"20190704"], 60: [b"120000"]})
    whole = photograph("JPEG", make_exif(CAMERA, SHOT, PLACE), XMP, iptc)
    pixels, dice = whole.index(b"\xff\xdb"), random.Random(7)
    opened: list[Image.Image] = []
    for _ in range(300):
        altered = bytearray(whole)
        for _ in range(dice.choice((1, 5, 20))):
            altered[dice.randrange(24, pixels)] = dice.choice((0, 127, 255, dice.randrange(256)))
        with warnings.catch_warnings(), suppress(OSError):
            warnings.simplefilter("ignore")
            opened.append(Image.open(io.BytesIO(altered)))
    assert len(opened) > 200
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for image in opened:
            said = read_camera_data(image)
            assert camera_data_from_json(json.loads(json.dumps(camera_data_to_json(said)))) == said
