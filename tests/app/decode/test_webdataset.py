"""Shards of webdatasets: where each picture lies and what is said of it; what is odd or damaged is named."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import UnsupportedMediaType, UrlUnreachable
from app.decode.webdataset import list_shard
from tests.support.archives import PNG, make_tar, make_zip


def list_samples(tar: bytes, folder: Path, most: int = 1_000) -> list[dict[str, Any]]:
    path = folder / "a.tar"
    path.write_bytes(tar)
    count = list_shard(path, folder / "out", most)
    lines = [json.loads(line) for line in (folder / "out").read_text().splitlines()]
    assert len(lines) == count
    return lines


def folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def test_members_of_one_key_are_one_sample(tmp_path: Path) -> None:
    members = {
        "0/001.jpg": PNG,
        "0/001.txt": "红".encode(),
        "0/001.json": b'{"n": 1, "caption": "other"}',
        "0/._002.jpg": b"litter",
        "0/002.png": PNG + b"2",
        "0/003.left.png": PNG,
        "0/003.right.WEBP": PNG,
        "0/003.cls": b"7",
        "0/003.txt": b"two",
    }
    tar = make_tar(members)
    lines = list_samples(tar, tmp_path)
    assert [(line["name"], line["key"], line.get("caption")) for line in lines] == [
        ("0/001.jpg", "0/001", "红"),
        ("0/002.png", "0/002", None),
        ("0/003.left.png", "0/003", "two"),
        ("0/003.right.WEBP", "0/003", "two"),
    ]
    assert lines[0]["metadata"] == {"n": 1}
    for line in lines:
        assert tar[line["offset"] : line["offset"] + line["size"]] == members[line["name"]]
    assert len(list_samples(tar, tmp_path, most=2)) == 2


def test_bad_members_are_named_one_by_one(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members: dict[str, bytes | tarfile.TarInfo] = {
        "a.png": PNG,
        "b.png": PNG,
        "b.json": b"{",
        "c.txt": b"alone",
        "link.png": link,
        "d.png": PNG,
        "d.txt": b"x" * 70_000,
        "../e.png": PNG,
    }
    *lines, last = list_samples(make_tar(members), tmp_path)
    assert last["left_out"]["kinds"] == {".txt": 1}
    assert [(line["name"], line.get("error", {}).get("code")) for line in lines] == [
        ("a.png", None),
        ("b.png", None),
        ("link.png", "unsupported_media_type"),
        ("d.png", None),
        ("../e.png", None),
    ]
    assert [warning["field"] for line in lines for warning in line.get("warnings", [])] == ["metadata", "caption"]


@pytest.mark.parametrize("damage", ["cut in a picture", "cut in a header", "a broken header"])
def test_what_comes_before_the_damage_is_listed(damage: str, tmp_path: Path) -> None:
    tar = bytearray(make_tar({"a.png": PNG, "b.png": b"x" * 2_000}))
    header = tar.index(b"b.png")
    if damage == "a broken header":
        tar[header + 120 : header + 140] = b"\xee" * 20
    else:
        del tar[header + (1_000 if damage == "cut in a picture" else 100) :]
    first, *rest = list_samples(bytes(tar), tmp_path)
    assert first["name"] == "a.png"
    assert "error" not in first
    assert [line["error"]["code"] for line in rest][-1] == "archive_corrupt"
    assert all("error" in line for line in rest)


@pytest.mark.parametrize("content", [b"", b"no tar", make_zip({"a.png": PNG}), b"\xff" * 5_000])
def test_what_is_no_tar_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedMediaType, match="not a tar"):
        list_samples(content, tmp_path)


def test_an_empty_tar_gives_nothing(tmp_path: Path) -> None:
    assert list_samples(make_tar({}), tmp_path) == []
    assert list_samples(make_tar({"0/": folder("0")}), tmp_path) == []


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    for name in ("gone", "link"):
        with pytest.raises(UrlUnreachable):
            list_shard(tmp_path / name, tmp_path / "out", 10)


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "8000000000000", "GNU.sparse.realsize": "1"}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("b.png"))
    lines = list_samples(file.getvalue(), tmp_path)
    assert lines[0]["error"]["code"] == "unsupported_media_type"
    assert lines[-1]["name"] == "b.png"
