"""Archives: every good picture comes out, every bad member is named, and no archive gets past its bounds."""

from __future__ import annotations

import gzip
import io
import json
import random
import stat
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ArchiveCorrupt, ArchiveLimit, BlobMissing, Rejected, UnsupportedMediaType
from app.decode.archive import MAX_EXTENDED_HEADER, expand_archive
from app.decode.limits import ArchiveLimits, PictureLimits, VideoLimits
from tests.support.archives import LIMITS, PNG, ExpandedArchive, expand_refused, make_tar, make_zip
from tests.support.sample_pictures import claim_size, sample
from tests.support.videos import make_video

MEMBERS = {"a.png": PNG, "sub/b.jpg": sample("jpeg"), "c.webp": sample("webp"), "d.gif": sample("gif")}


@pytest.mark.parametrize(
    "pack", [make_zip, make_tar, lambda members: gzip.compress(make_tar(members))], ids=["zip", "tar", "tgz"]
)
def test_pictures_come_out_byte_for_byte_in_order(pack: Any, tmp_path: Path) -> None:
    found = ExpandedArchive(pack(MEMBERS), tmp_path)
    assert [item["name"] for item in found.items] == list(MEMBERS)
    assert [item["file"] for item in found.items] == ["000001", "000002", "000003", "000004"]
    for item, data in zip(found.items, MEMBERS.values(), strict=True):
        assert (found.folder / item["file"]).read_bytes() == data
        assert item["bytes"] == len(data)
        assert item["error"] is item["id"] is item["caption"] is item["tags"] is item["metadata"] is None


@pytest.mark.parametrize("pack", [make_zip, make_tar], ids=["zip", "tar"])
def test_one_bad_of_100_is_named_and_99_are_taken(pack: Any, tmp_path: Path) -> None:
    members = {f"{n:03}.png": PNG for n in range(100)} | {"050.png": b"a text called png"}
    found = ExpandedArchive(pack(members), tmp_path)
    assert found.codes() == dict.fromkeys(members) | {"050.png": "unsupported_media_type"}


def test_bad_members_are_refused_one_by_one(tmp_path: Path) -> None:
    members = {
        "good.png": PNG,
        "text.jpg": b"hello",
        "empty.jpg": b"",
        "huge.jpg": claim_size("jpeg", 60_000, 60_000),
        "cut.png": PNG[:20],
        "inner.zip": make_zip({"x.png": PNG}),
        "inner.tar": make_tar({"x.png": PNG}),
        "inner.tar.gz": gzip.compress(make_tar({"x.png": PNG})),
        "big.png": PNG + bytes(70_000),
    }
    limits = ArchiveLimits(max_member_bytes=70_000)
    expected = dict.fromkeys(members, "unsupported_media_type") | {
        "good.png": None,
        "huge.jpg": "image_too_large",
        "cut.png": "image_corrupt",
        "big.png": "image_too_large",
    }
    for number, pack in enumerate((make_zip, make_tar)):
        (tmp_path / str(number)).mkdir()
        assert ExpandedArchive(pack(members), tmp_path / str(number), limits).codes() == expected


def test_folders_and_litter_are_no_items(tmp_path: Path) -> None:
    litter = [
        "__MACOSX/._a.png",
        ".DS_Store",
        "sub/.hidden/a.png",
        "Thumbs.db",
        "sub/desktop.ini",
        "./.git/x",
    ]
    members = {"./sub/a.png": PNG, "sub/": b""} | dict.fromkeys(litter, b"x")
    assert list(ExpandedArchive(make_zip(members), tmp_path).codes()) == ["./sub/a.png"]


NAMES = [
    "../../evil.png",
    "/etc/passwd.png",
    "C:\\evil.png",
    "..",
    "a/../../b.png",
    "x" * 5_000,
    "r\r\nn\x1b[31m.png",
    "笑.png",
]


@pytest.mark.parametrize("pack", [make_zip, make_tar], ids=["zip", "tar"])
def test_names_are_text_and_never_paths(pack: Any, tmp_path: Path) -> None:
    found = ExpandedArchive(pack(dict.fromkeys(NAMES, PNG)), tmp_path)  # which also looks for stray files
    assert all(item["error"] is None and len(item["name"]) <= 255 for item in found.items)
    assert all(item["name"].isprintable() for item in found.items)
    assert found.items[-1]["name"] == "笑.png"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_repeat_or_are_not_utf8_are_kept(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("same.png", PNG)
        archive.writestr("same.png", sample("gif"))
        archive.writestr("cafXX.png", PNG)
    latin = file.getvalue().replace(b"cafXX", b"caf\xe9\xff")
    (tmp_path / "zip").mkdir()
    assert [item["error"] for item in ExpandedArchive(latin, tmp_path / "zip").items] == [None] * 3
    (tmp_path / "tar").mkdir()
    tar = make_tar({"caf\udce9.png": PNG}, tarfile.GNU_FORMAT)
    assert ExpandedArchive(tar, tmp_path / "tar").codes() == {"caf?.png": None}


def special_member(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("special")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_not_taken(kind: bytes, tmp_path: Path) -> None:
    found = ExpandedArchive(make_tar({"a.png": PNG, "s": special_member(kind), "b.png": PNG}), tmp_path)
    assert found.codes() == {"a.png": None, "special": "unsupported_media_type", "b.png": None}


def test_a_symlink_in_a_zip_is_not_taken(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", PNG)
        info = zipfile.ZipInfo("link.png")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert ExpandedArchive(file.getvalue(), tmp_path).codes() == {
        "a.png": None,
        "link.png": "unsupported_media_type",
    }


def test_a_sparse_member_of_8_terabytes_is_not_taken(tmp_path: Path) -> None:
    info = tarfile.TarInfo("sparse.png")
    info.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386:410] = b"%011o\0%011o\0" % (0, 0)
    head[483:495] = b"\x80\0\0\0" + struct.pack(">Q", 8 << 40)
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 256 + sum(head[156:]))
    start = time.process_time()
    found = ExpandedArchive(bytes(head) + make_tar({"a.png": PNG}), tmp_path)
    assert found.codes() == {"sparse.png": "unsupported_media_type", "a.png": None}
    assert time.process_time() - start < 1.0


def test_encrypted_and_oddly_compressed_members_are_refused(tmp_path: Path) -> None:
    data = bytearray(make_zip({"a.png": PNG, "secret.png": PNG}))
    at = data.rindex(b"PK\1\2")
    data[at + 8] |= 1
    data[data.index(b"PK\3\4", 4) + 6] |= 1
    (tmp_path / "1").mkdir()
    assert ExpandedArchive(bytes(data), tmp_path / "1").codes() == {
        "a.png": None,
        "secret.png": "unsupported_media_type",
    }
    file = io.BytesIO(make_zip({"a.png": PNG}))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("b.png", PNG)
    (tmp_path / "2").mkdir()
    assert ExpandedArchive(file.getvalue(), tmp_path / "2").codes() == {
        "a.png": None,
        "b.png": "unsupported_media_type",
    }


def test_a_damaged_zip_member_is_refused_alone(tmp_path: Path) -> None:
    data = bytearray(make_zip({"a.png": PNG, "b.png": PNG, "c.png": PNG}, zipfile.ZIP_STORED))
    data[data.index(b"b.png") + 3_000] ^= 255
    assert ExpandedArchive(bytes(data), tmp_path).codes() == {"a.png": None, "b.png": "image_corrupt", "c.png": None}


@pytest.mark.parametrize(
    "pack", [make_zip, make_tar, lambda members: gzip.compress(make_tar(members))], ids=["zip", "tar", "tgz"]
)
def test_a_truncated_archive_leaves_nothing(pack: Any, tmp_path: Path) -> None:
    data = pack(MEMBERS)
    end = len(data) if pack is not make_tar else data.rindex(b"GIF8")
    for percent in range(5, 100, 12):
        folder = tmp_path / str(percent)
        folder.mkdir()
        error = expand_refused(data[: end * percent // 100], folder)
        assert isinstance(error, ArchiveCorrupt), (percent, error)


def test_a_truncated_zip_is_not_taken_for_the_zip_inside_it(tmp_path: Path) -> None:
    data = make_zip({"a.png": PNG, "inner.zip": make_zip({"x.png": PNG}), "b.txt": b"x"}, zipfile.ZIP_STORED)
    assert "cut off" in str(expand_refused(data[:-30], tmp_path))


def test_a_tar_damaged_in_the_middle_is_corrupt_and_not_short(tmp_path: Path) -> None:
    data = bytearray(make_tar({"a.png": PNG, "b.png": PNG}))
    data[data.index(b"b.png") + 20] ^= 255
    assert isinstance(expand_refused(bytes(data), tmp_path), ArchiveCorrupt)


@pytest.mark.parametrize("data", [make_zip({}), make_tar({}), make_zip({"a.txt": b"x"}), make_tar({".a": PNG})])
def test_an_archive_without_pictures_is_corrupt(data: bytes, tmp_path: Path) -> None:
    assert isinstance(expand_refused(data, tmp_path), ArchiveCorrupt | UnsupportedMediaType)


def test_what_is_no_archive_is_unsupported(tmp_path: Path) -> None:
    for number, data in enumerate((PNG, b"", b"Rar!\x1a\7\1\0", b"7z\xbc\xaf\x27\x1c")):
        (tmp_path / str(number)).mkdir()
        assert isinstance(expand_refused(data, tmp_path / str(number)), UnsupportedMediaType)
    with pytest.raises(BlobMissing):
        expand_archive(tmp_path / "gone", tmp_path / "folder", LIMITS, PictureLimits())


TIGHT = ArchiveLimits(max_bytes=4 << 20, max_members=50, max_member_bytes=2 << 20)


def zeros(count: int) -> bytes:
    return PNG + bytes(count - len(PNG))


@pytest.mark.parametrize(
    "pack",
    [
        lambda: make_zip({f"{n}.png": zeros(1 << 20) for n in range(6)}),
        lambda: gzip.compress(make_tar({f"{n}.png": zeros(1 << 20) for n in range(6)})),
        lambda: gzip.compress(make_tar({"a.png": PNG, "skipped.bin": bytes(60 << 20)})),
        lambda: gzip.compress(make_tar({"a.png": PNG, ".hidden": bytes(60 << 20)})),
        lambda: make_zip({f"{n}.png": PNG for n in range(51)}),
        lambda: make_tar({f"{n}.png": PNG for n in range(51)}),
        lambda: make_zip({f"{n}/": b"" for n in range(1_000)} | {"a.png": PNG}),
    ],
    ids=["zip bytes", "tgz bytes", "tgz skipped", "tgz hidden", "zip members", "tar members", "zip folders"],
)
def test_an_archive_past_a_limit_leaves_nothing(pack: Callable[[], bytes], tmp_path: Path) -> None:
    assert isinstance(expand_refused(pack(), tmp_path, TIGHT), ArchiveLimit)


def test_overlapping_zip_members_are_counted_each_time(tmp_path: Path) -> None:
    data = make_zip({"000.png": zeros(1 << 20)})
    at = data.index(b"PK\1\2")
    entry, end = data[at : data.index(b"PK\5\6")], bytearray(data[data.index(b"PK\5\6") :])
    end[8:16] = struct.pack("<HHI", 40, 40, len(entry) * 40)
    assert isinstance(expand_refused(data[:at] + entry * 40 + bytes(end), tmp_path, TIGHT), ArchiveLimit)


@pytest.mark.parametrize("claim", [10, 3_000_000_000])
def test_a_zip_member_that_lies_about_its_size_is_refused(claim: int, tmp_path: Path) -> None:
    data = bytearray(make_zip({"a.png": PNG, "liar.png": zeros(1 << 20)}))
    for magic, offset in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        at = data.rindex(magic)
        data[at + offset : at + offset + 4] = struct.pack("<I", claim)
    codes = ExpandedArchive(bytes(data), tmp_path, TIGHT).codes()
    assert codes["a.png"] is None
    assert codes["liar.png"] in ("image_corrupt", "image_too_large")


def test_a_zip_that_lists_millions_of_members_is_refused_before_it_is_read(tmp_path: Path) -> None:
    data = make_zip({"a.png": PNG})
    at = data.index(b"PK\1\2")
    entry, end = data[at : data.index(b"PK\5\6")], bytearray(data[data.index(b"PK\5\6") :])
    end[8:16] = struct.pack("<HHI", 1, 1, len(entry) * 300_000)  # the count lies as well
    start = time.process_time()
    assert isinstance(expand_refused(data[:at] + entry * 300_000 + bytes(end), tmp_path, TIGHT), ArchiveLimit)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_flipped_bits_never_raise_anything_of_others(kind: str, tmp_path: Path) -> None:
    chance = random.Random(kind)
    data = make_zip(MEMBERS) if kind == "zip" else make_tar(MEMBERS)
    if kind == "tar.gz":
        data = gzip.compress(data)
    for number in range(60):
        broken = bytearray(data)
        for _ in range(chance.choice([1, 2, 8])):
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            ExpandedArchive(bytes(broken), folder)
        except Rejected:
            continue


def make_extended_header(kind: bytes, content: bytes) -> bytes:
    """A PAX or GNU header with this content, and a tar behind it."""
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, len(content)
    head = info.tobuf(tarfile.USTAR_FORMAT)
    return head + content + bytes(-len(content) % 512) + make_tar({"a.png": PNG})


@pytest.mark.parametrize("kind", [b"x", b"g", b"X", b"L", b"K"])
def test_headers_beyond_any_that_a_program_writes_are_refused_before_they_are_parsed(
    kind: bytes, tmp_path: Path
) -> None:
    error = expand_refused(make_extended_header(kind, b"y" * (MAX_EXTENDED_HEADER + 1)), tmp_path)
    assert isinstance(error, ArchiveCorrupt)
    assert "a header of the archive has 16,385 bytes" in error.detail


@pytest.mark.parametrize("kind", [b"x", b"g", b"X"])
@pytest.mark.parametrize("digits", [100, 16_000])
def test_pax_headers_with_long_numbers_are_refused_before_they_are_parsed(
    kind: bytes, digits: int, tmp_path: Path
) -> None:
    # tarfile of Python 3.11.7 takes the square of their length (CVE-2024-6232).
    error = expand_refused(make_extended_header(kind, b"1" * digits), tmp_path)
    assert isinstance(error, ArchiveCorrupt)
    assert "more than 64 digits" in error.detail


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_attributes_of_a_member_are_read(form: int, tmp_path: Path) -> None:
    name = "folder/" * 500 + "picture.png"
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = len(PNG), {"SCHILY.xattr.user.note": "7" * 64 + "x" * 4_000}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        archive.addfile(info, io.BytesIO(PNG))
    found = ExpandedArchive(file.getvalue(), tmp_path)
    assert found.items[0]["bytes"] == len(PNG)
    assert found.items[0]["name"] == name[:255]


def takeout(count: int) -> dict[str, bytes]:
    """What Google Takeout exports: photographs with sidecars whose names are cut, and files beside them."""
    said = {"photoTakenTime": {"timestamp": "1258375918"}, "geoData": {"latitude": 0.0}}
    root = "Takeout/Google Photos/Photos from 2009/"
    members = {"Takeout/archive_browser.html": b"<html></html>", root + "metadata.json": b'{"title": "2009"}'}
    for n in range(count):
        end = (".supplemental-metadata.json", ".supplemental-metad.json", ".json")[n % 3]
        members[f"{root}IMG_{n}.JPG"] = sample("jpeg") + bytes([n])
        members[f"{root}IMG_{n}.JPG{end}"] = json.dumps({**said, "description": f"note {n}"}).encode()
    members[root + "IMG_0(1).JPG"] = sample("jpeg")
    members[root + "IMG_0.JPG.supplemental-metadata(1).json"] = json.dumps({**said, "description": "copy"}).encode()
    members[root + "MOV_1.AVI"] = b"RIFF" + bytes(200)
    return members


@pytest.mark.parametrize("pack", [make_zip, make_tar], ids=["zip", "tar"])
def test_a_google_takeout_gives_photographs_with_notes_and_times(pack: Any, tmp_path: Path) -> None:
    found = ExpandedArchive(pack(takeout(12)), tmp_path)
    assert [item["error"] for item in found.items] == [None] * 13
    assert [item["caption"] for item in found.items] == [*(f"note {n}" for n in range(12)), "copy"]
    assert all(item["metadata"] == {"taken": "2009-11-16T12:51:58.000Z"} for item in found.items)
    assert found.left_out.kinds == {".html": 1, ".json": 1, ".avi": 1}


def test_a_part_of_a_takeout_says_that_it_tells_about_pictures_of_other_parts(tmp_path: Path) -> None:
    def tell(title: str) -> bytes:
        return json.dumps({"photoTakenTime": {"timestamp": "1258375918"}, "title": title}).encode()

    members = {"a.jpg": sample("jpeg"), "a.jpg.json": tell("a.jpg"), "c.psd": b"x", "c.psd.json": tell("c.psd")}
    assert ExpandedArchive(make_zip(members), tmp_path).left_out.warnings == []
    (tmp_path / "part").mkdir()
    found = ExpandedArchive(make_zip(members | {"b.jpg.json": tell("b.jpg")}), tmp_path / "part")
    (warning,) = found.left_out.warnings
    assert (warning.code, warning.detail[:55]) == (
        "part_of_takeout",
        "1 files of Google Takeout tell about pictures of other ",
    )


def test_sidecars_and_other_kinds_do_not_count_as_members(tmp_path: Path) -> None:
    limits = ArchiveLimits(max_members=13)
    assert len(ExpandedArchive(make_zip(takeout(12)), tmp_path, limits).items) == 13
    (tmp_path / "more").mkdir()
    assert isinstance(expand_refused(make_zip(takeout(13)), tmp_path / "more", limits), ArchiveLimit)


def test_names_say_what_a_member_is_or_its_bytes_do(tmp_path: Path) -> None:
    pictures = ["a.jfif", "b.jpe", "c.pjpeg", "d", "e.JPG"]
    others = {"f.psd": b"x", "README": b"words", "g.docx": b"PK\3\4"}
    litter = ["@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/gone.jpg", "$RECYCLE.BIN/$R1.jpg", "node_modules/x.png"]
    found = ExpandedArchive(
        make_zip({**dict.fromkeys(pictures, PNG), **others, **dict.fromkeys(litter, PNG)}), tmp_path
    )
    assert found.codes() == dict.fromkeys(pictures)
    assert found.left_out.describe() == "3 files of other kinds left out (1 .psd, 1 no extension, 1 .docx)"


def test_an_archive_of_other_kinds_alone_says_which(tmp_path: Path) -> None:
    error = expand_refused(make_zip({"a.psd": b"x", "b.psd": b"x"}), tmp_path)
    assert "2 files of other kinds left out (2 .psd)" in error.detail


def test_videos_are_members_within_limits_of_their_own(tmp_path: Path) -> None:
    for name in ("all", "small", "none"):
        (tmp_path / name).mkdir()
    clip = make_video() + (8 + 50_000).to_bytes(4, "big") + b"free" + bytes(50_000)
    members = {
        "a.png": PNG,
        "in/clip.MOV": clip,
        "false.mp4": PNG,
        "cut.mkv": b"\x1a\x45\xdf\xa3",
        "text.mp4": b"words",
    }
    found = ExpandedArchive(make_zip(members), tmp_path / "all", ArchiveLimits(max_member_bytes=50_000))
    assert found.codes() == {
        "a.png": None,
        "in/clip.MOV": None,
        "false.mp4": None,
        "cut.mkv": "video_corrupt",
        "text.mp4": "unsupported_media_type",
    }
    small = ArchiveLimits(videos=VideoLimits(max_bytes=100))
    assert ExpandedArchive(make_zip(members), tmp_path / "small", small).codes()["in/clip.MOV"] == "image_too_large"
    none = ArchiveLimits(videos=VideoLimits(refusal="no videos here"))
    without = ExpandedArchive(make_zip(members), tmp_path / "none", none)
    assert list(without.codes()) == ["a.png"]
    assert without.left_out.kinds == {".mov": 1, ".mp4": 2, ".mkv": 1}
    assert [one.detail for one in without.left_out.warnings] == ["no videos here"]
