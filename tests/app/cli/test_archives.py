"""Archives are looked at before they are sent."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

from app.cli.answers import Limits
from app.cli.archives import find_excess, hash_stored_pictures
from app.cli.client import Client
from app.cli.upload import ingest_paths
from tests.support.pictures import picture
from tests.support.servers import RunningServer


def make_zip(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def load(server: RunningServer, *paths: Path) -> tuple[int, str]:
    out = io.StringIO()
    with Client(server.url) as client:
        status = ingest_paths(client, [str(path) for path in paths], Console(file=out, width=400))
    return status, out.getvalue()


def test_an_archive_above_a_limit_names_it_with_the_ways_out(tmp_path: Path) -> None:
    sparse = tmp_path / "big.zip"
    sparse.write_bytes(b"PK\3\4")
    with open(sparse, "r+b") as file:
        file.truncate(5 << 30)
    excess = find_excess(sparse, 5 << 30, Limits())
    assert excess is not None
    assert "5,368,709,120 bytes; the server takes 2,147,483,648" in excess
    for way in ("Split it", "load the folder", "folder:PATH", "SIGHTLINE_MAX_ARCHIVE_BYTES"):
        assert way in excess
    many = make_zip(
        tmp_path / "many.zip", *((f"{n}.png", b"x") for n in range(4)), ("@eaDir/x.png", b""), ("a.txt", b"")
    )
    assert find_excess(many, 500, Limits(max_archive_members=4)) is None
    assert "SIGHTLINE_MAX_ARCHIVE_MEMBERS" in str(find_excess(many, 500, Limits(max_archive_members=3)))
    wide = make_zip(tmp_path / "wide.zip", ("a.png", bytes(9000)), ("film.mp4", bytes(9000)))
    assert find_excess(wide, 500, Limits(max_archive_bytes=9000)) is None
    assert "expands to 9,000 bytes" in str(find_excess(wide, 500, Limits(max_archive_bytes=8999)))
    assert "SIGHTLINE_MAX_UPLOAD_BYTES" in str(find_excess(wide, 500, Limits(max_upload_bytes=499)))
    tar = tmp_path / "many.tar"
    with tarfile.open(tar, "w") as archive:
        for name in ("a.png", "b.png", "c.txt", "@eaDir/d.png"):
            archive.addfile(tarfile.TarInfo(name))
    assert find_excess(tar, 500, Limits(max_archive_members=2)) is None
    assert "has 2 pictures; the server takes 1" in str(find_excess(tar, 500, Limits(max_archive_members=1)))
    packed = tmp_path / "many.tar.gz"
    packed.write_bytes(gzip.compress(tar.read_bytes()))
    assert find_excess(packed, 500, Limits()) is None
    assert "expands to 10,240 bytes" in str(find_excess(packed, 500, Limits(max_archive_bytes=10_239)))
    packed.write_bytes(packed.read_bytes()[:-4] + b"\xff" * 4)  # as if it was cut off
    assert find_excess(packed, 500, Limits()) is None  # the server says why
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\3\4")
    assert find_excess(broken, 4, Limits()) is None  # the server says why


def test_the_parts_of_a_takeout_tell_about_each_others_pictures(server: RunningServer, tmp_path: Path) -> None:
    folder = "Takeout/Google Photos/2009/"

    def tell(n: int) -> tuple[str, bytes]:
        note = {"photoTakenTime": {"timestamp": "1258375918"}, "title": f"{n}.png", "description": f"note {n}"}
        return f"{folder}{n}.png.supplemental-metadata.json", json.dumps(note).encode()

    names = [(f"{folder}{n}.png", picture("blue", 612_000 + n)) for n in range(3)]
    first = make_zip(tmp_path / "takeout-001.zip", names[0], tell(1), tell(2), ("a.txt", b"of another"))
    second = make_zip(tmp_path / "takeout-002.zip", names[1], names[2], tell(0), ("a.png", picture("blue", 612_003)))
    status, out = load(server, first, second)
    assert (status, "4 loaded, 0 already there, 0 failed" in out) == (0, True)
    assert "tell about pictures of other parts" not in out
    newest = server.http.get("/v1/images?limit=4").json()["images"]
    assert {image["source"]: image["caption"] for image in newest} == {
        "a.png": None,
        **{name: f"note {n}" for n, (name, _) in enumerate(names)},
    }


def test_an_archive_that_is_too_large_fails_alone_and_is_not_sent(server: RunningServer, tmp_path: Path) -> None:
    with open(tmp_path / "big.zip", "wb") as file:
        file.write(b"PK\3\4")
        file.truncate(5 << 30)
    (tmp_path / "a.png").write_bytes(picture("green", 41_001))
    status, out = load(server, tmp_path)
    assert status == 1
    assert "1 loaded, 0 already there, 1 failed" in out
    assert "archive_limit" in out


def test_a_loaded_archive_is_not_sent_again(server: RunningServer, tmp_path: Path) -> None:
    pictures = [(f"{n}.png", picture("green", 42_000 + n)) for n in range(20)]
    archive = make_zip(tmp_path / "a.zip", *pictures, ("twin.png", pictures[0][1]))
    with Client(server.url) as client:
        assert hash_stored_pictures(client, archive) is None
        status, out = load(server, archive)
        assert (status, out.splitlines()[1]) == (0, "20 loaded, 0 already there, 1 duplicate of another file, 0 failed")
        assert len(set(hash_stored_pictures(client, archive) or ())) == 20
        told = make_zip(tmp_path / "told.zip", *pictures, ("0.txt", b"a caption"))
        assert hash_stored_pictures(client, told) is None  # the captions may be new
    again = load(server, archive)[1]
    assert again.splitlines()[1] == "0 loaded, 20 already there, 1 duplicate of another file, 0 failed"
    assert "job" not in again


@pytest.mark.parametrize("content", [b"PK\3\4", b"words"])
def test_what_is_no_zip_is_not_known(server: RunningServer, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with Client(server.url) as client:
        assert hash_stored_pictures(client, tmp_path / "a.zip") is None
