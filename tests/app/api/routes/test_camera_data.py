"""What uploads, archives, folders and the command line make of camera data and of sidecars."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from click.testing import CliRunner

from app.cli.main import main
from app.service.data_dir import DATABASE_NAME
from tests.support.camera import PLACE, make_exif, make_xmp, photograph
from tests.support.servers import RunningServer

CAMERA = {0x010F: "Apple", 0x0110: "iPhone 12"}
SHOT = {0x9003: "2019:07:04 12:00:00", 0x9011: "+02:00", 0x8827: 400, 0xA434: "back camera"}
WORDS = make_xmp({}, {"dc:title": ["Lake"], "dc:subject": ["water"]})
TAKEOUT = {
    "title": "IMG_1.jpg",
    "description": "at the lake",
    "photoTakenTime": {"timestamp": "1562234400"},  # 2019-07-04T10:00:00Z
    "geoData": {"latitude": 10.5, "longitude": -20.25},
    "people": [{"name": "Ann"}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("folder")


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[RunningServer]:
    """A server that keeps places and exposures, and may read one folder."""
    settings: dict[str, Any] = {"keep_exif": True, "keep_location": True, "folders": folder, "workers": 1}
    with RunningServer(tmp_path_factory.mktemp("keeper") / "data", **settings) as running:
        yield running


@pytest.fixture
def pictures(tmp_path: Path) -> list[tuple[str, bytes]]:
    """What Google Takeout and Photos export: photographs with and without EXIF, and what is beside them."""
    exported = make_xmp({"photoshop:DateCreated": "2001-02-03T04:05:06+01:00"}, {"dc:description": ["scanned"]})
    dated = photograph(exif=make_exif(CAMERA, {0x9003: "2019:07:04 12:00:00"}), size=(40, 30))
    return [
        ("IMG_1.jpg", photograph(size=(50, 40))),
        ("IMG_1.jpg.supplemental-metadata.json", json.dumps(TAKEOUT).encode()),
        ("IMG_1(1).jpg", dated),
        ("IMG_1.jpg.supplemental-metadata(1).json", json.dumps({**TAKEOUT, "description": ""}).encode()),
        ("scan.jpg", photograph(size=(60, 40))),
        ("scan.xmp", exported),
        ("scan.AAE", b"<plist/>"),
    ]


def check_pictures(server: RunningServer, collection: str) -> None:
    answer = server.http.get("/v1/images", params={"collection": collection}).json()
    found = {one["source"].rpartition("/")[2]: one for one in answer["images"]}
    first, second, scan = (found[name] for name in ("IMG_1.jpg", "IMG_1(1).jpg", "scan.jpg"))
    place = {"latitude": 10.5, "longitude": -20.25}
    assert (first["taken_at"], first["location"]) == ("2019-07-04T10:00:00+00:00", place)
    assert (first["caption"], first["tags"], first["camera"]) == ("at the lake", ["Ann"], None)
    assert first["metadata"]["taken"] == "2019-07-04T10:00:00.000Z"
    assert (second["taken_at"], second["camera"]) == ("2019-07-04T12:00:00+02:00", "Apple iPhone 12")
    assert (scan["taken_at"], scan["caption"]) == ("2001-02-03T04:05:06+01:00", "scanned")
    assert len(found) == 3


def new_collection(server: RunningServer, name: str) -> str:
    assert server.http.post("/v1/collections", json={"name": name}).status_code == 201
    return name


def pack(files: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files:
            archive.writestr(f"Takeout/{name}", data)
    return out.getvalue()


def search(server: RunningServer, **body: Any) -> dict[str, Any]:
    response = server.http.post("/v1/search", json={"query": [{"text": "red"}], "collection": "mine", **body})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_an_upload_has_the_data_of_its_picture(keeper: RunningServer) -> None:
    new_collection(keeper, "mine")
    data = photograph(exif=make_exif(CAMERA, SHOT, PLACE), xmp=WORDS)
    said = keeper.upload(data, "a.jpg", id="a", collection="mine", tags=["mine"]).json()
    assert (said["taken_at"], said["camera"], said["lens"]) == (
        "2019-07-04T12:00:00+02:00",
        "Apple iPhone 12",
        "back camera",
    )
    assert said["location"] == {"latitude": 47.375, "longitude": -8.5}
    assert (said["caption"], said["tags"], said["metadata"]) == ("Lake", ["mine"], {"exif": {"iso": 400}})
    keeper.upload(photograph("PNG"), "b.png", id="b", collection="mine", caption="not dated")

    july = {"key": "taken_at", "range": {"gte": "2019-07-04T10:00:00Z", "lt": "2019-07-05"}}
    near = {"key": "location", "geo_radius": {"center": {"lat": 47, "lon": -8}, "radius": 100_000}}
    for filter in (july, near, {"key": "metadata.exif.iso", "range": {"gte": 400}}):
        assert [hit["id"] for hit in search(keeper, filter=filter)["hits"]] == ["a"]
    found = search(keeper, facets=["year", "camera"], order_by="taken_at")
    assert [hit["id"] for hit in found["hits"]] == ["a", "b"]
    assert {"value": 2019, "count": 1} in found["facets"]["year"]
    assert found["facets"]["camera"] == [{"value": "Apple iPhone 12", "count": 1}]


def test_a_server_keeps_no_place_and_no_exposure_unless_asked(server: RunningServer) -> None:
    said = server.upload(photograph(exif=make_exif(CAMERA, SHOT, PLACE), size=(33, 44)), "a.jpg").json()
    assert (said["camera"], said["location"], said["metadata"]) == ("Apple iPhone 12", None, {})
    server.http.delete(f"/v1/images/{said['id']}")


def test_sidecars_come_in_archives_among_files_and_in_folders(
    keeper: RunningServer, pictures: list[tuple[str, bytes]]
) -> None:
    for name, files in (("archive", [("takeout.zip", pack(pictures))]), ("loose", pictures[:-1])):
        new_collection(keeper, name)
        sent = [("files", file) for file in files]
        begun = keeper.http.post("/v1/images/bulk", params={"collection": name}, files=sent)
        assert keeper.wait_job(begun.json()["id"])["failed"] == 0
        check_pictures(keeper, name)


def test_a_folder_of_the_server_is_read_with_its_sidecars(
    keeper: RunningServer, pictures: list[tuple[str, bytes]], folder: Path
) -> None:
    for name, data in pictures:
        (folder / name).write_bytes(data)
    new_collection(keeper, "folder")
    begun = keeper.http.post("/v1/images/ingest", json={"source": f"folder:{folder}", "collection": "folder"})
    assert begun.status_code == 202, begun.text
    job = keeper.wait_job(begun.json()["id"])
    assert (job["done"], job["left_out"]) == (3, {})
    check_pictures(keeper, "folder")


def test_the_command_line_sends_what_is_beside_pictures(
    keeper: RunningServer, pictures: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    for name, data in pictures:
        (tmp_path / name).write_bytes(data)
    new_collection(keeper, "typed")
    environment = {"SIGHTLINE_SERVER": keeper.url, "SIGHTLINE_COLLECTION": "typed"}
    sent = CliRunner().invoke(main, ["ingest", str(tmp_path)], env=environment)
    assert sent.exit_code == 0, sent.output
    check_pictures(keeper, "typed")


def test_stored_pictures_get_their_data_by_a_command(keeper: RunningServer) -> None:
    new_collection(keeper, "old")
    data = photograph(exif=make_exif(CAMERA, SHOT, PLACE), xmp=WORDS, size=(70, 40))
    keeper.upload(data, "a.jpg", id="a", collection="old")
    keeper.upload(photograph("PNG", size=(71, 40)), "lost.png", id="lost", collection="old")
    connection = apsw.Connection(str(keeper.data_dir / DATABASE_NAME))
    connection.set_busy_timeout(10_000)
    ((sha256,),) = connection.execute("SELECT sha256 FROM images WHERE id = 'lost'")
    label = "(SELECT label FROM collections WHERE name = 'old')"
    forgotten = "camera_read = 0, camera = NULL, taken_at = NULL, metadata = '{}'"
    connection.execute(f"UPDATE images SET {forgotten} WHERE collection = {label}")
    connection.close()
    (found,) = keeper.data_dir.glob(f"media/**/{sha256}*")
    found.unlink()
    environment = {"SIGHTLINE_SERVER": keeper.url, "SIGHTLINE_COLLECTION": "old"}
    for arguments, said in (
        ([], "2 pictures read, 1 of them unreadable"),
        ([], "1 pictures read, 1"),
        (["--again"], "2 "),
    ):
        ran = CliRunner().invoke(main, ["camera-data", *arguments], env=environment)
        assert ran.exit_code == 0, ran.output
        assert ran.stdout.startswith(said)
    image = keeper.http.get("/v1/images/a", params={"collection": "old"}).json()
    assert (image["camera"], image["taken_at"]) == ("Apple iPhone 12", "2019-07-04T12:00:00+02:00")
    assert (image["metadata"], image["location"]["latitude"]) == ({"exif": {"iso": 400}}, 47.375)
