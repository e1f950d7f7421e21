"""Formats of pictures over HTTP: what is taken and refused, what its thumbnail and its download are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from app.cli.main import main
from bench.picture_files import SIZE, draw_chart, encode, encode_heic, make_dng, make_sample, measure_colour_error
from tests.app.api.asking import check_refusal
from tests.support.archives import make_zip
from tests.support.servers import RunningServer


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("album")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, album: Path) -> Iterator[RunningServer]:
    """A server without JPEG XL."""
    folder = tmp_path_factory.mktemp("formats") / "data"
    with RunningServer(folder, formats="-jxl", folders=album) as running:
        yield running


def test_a_phone_s_picture_is_found_shown_and_given_back(server: RunningServer) -> None:
    content = encode_heic(draw_chart((2_100, 900)))
    said = server.upload(content, "IMG_1.HEIC").json()
    assert (said["status"], said["format"], said["width"], said["height"]) == ("ready", "heic", 2_100, 900)
    address = f"/v1/images/{said['id']}"
    shown = server.http.get(f"{address}/thumbnail", params={"size": 2_048})
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
    picture = Image.open(io.BytesIO(shown.content))
    assert picture.size == (2_048, 878)
    assert measure_colour_error(np.asarray(picture), np.asarray(draw_chart())).max() < 3
    given = server.http.get(f"{address}/file")
    assert (given.content, given.headers["content-type"]) == (content, "image/heic")
    assert given.headers["x-content-type-options"] == "nosniff"
    assert given.headers["content-disposition"].endswith(f"{said['id']}.heic")
    found = server.http.get("/v1/images", params={"filter": '{"must":[{"key":"format","match":{"value":"heic"}}]}'})
    assert [one["id"] for one in found.json()["images"]] == [said["id"]]


@pytest.mark.parametrize(
    ("name", "content", "format", "media_type"),
    [
        ("a.tif", make_sample("tiff"), "tiff", "image/tiff"),
        ("a.bmp", make_sample("bmp"), "bmp", "image/bmp"),
        ("DSC_1.NEF", make_dng(encode(draw_chart(), "JPEG")), "raw", "image/x-nikon-nef"),
    ],
)
def test_each_format_has_its_media_type(
    server: RunningServer, name: str, content: bytes, format: str, media_type: str
) -> None:
    said = server.upload(content, name).json()
    assert (said["status"], said["format"]) == ("ready", format)
    given = server.http.get(f"/v1/images/{said['id']}/file")
    assert (given.content, given.headers["content-type"]) == (content, media_type)
    assert server.http.get(f"/v1/images/{said['id']}/thumbnail").status_code == 200


def test_a_format_that_is_off_is_refused_by_the_name_of_the_setting(server: RunningServer) -> None:
    refused = server.upload(make_sample("jxl"), "a.jpg")
    assert "SIGHTLINE_FORMATS" in check_refusal(refused, 415, "unsupported_media_type")["detail"]
    searched = server.http.post("/v1/search/image", files={"file": ("a.png", make_sample("jxl"))})
    assert "SIGHTLINE_FORMATS" in check_refusal(searched, 415, "unsupported_media_type")["detail"]
    refused = server.upload(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg")
    assert "drawings" in check_refusal(refused, 415, "unsupported_media_type")["detail"]
    formats = server.http.get("/v1/sources").json()["formats"]
    assert {"heic", "raw"} <= set(formats)
    assert not {"jxl", "jpeg2000"} & set(formats)
    page = server.http.get("/").text
    assert "image/heic" in page
    assert ".cr3" in page
    assert ".jxl" not in page
    assert "<!-- formats -->" not in page


def test_the_other_pages_of_a_tiff_are_named(server: RunningServer) -> None:
    pages = encode(draw_chart(), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))] * 2)
    said = server.upload(pages, "scan.tiff").json()
    assert (said["width"], said["height"]) == SIZE
    assert [(one["code"], one["detail"][:20]) for one in said["warnings"]] == [("more_pages", "the file has 3 pages")]
    more = encode(Image.new("RGB", (9, 9), "red"), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    answer = server.http.post("/v1/images/bulk", files=[("files", ("a.tiff", more))])
    job = server.wait_job(answer.json()["id"])
    items = server.http.get(f"/v1/jobs/{job['id']}/items").json()["items"]
    assert [one["code"] for item in items for one in item["warnings"]] == ["more_pages"]


def test_folders_and_archives_leave_out_what_is_off_and_say_why(server: RunningServer, album: Path) -> None:
    (album / "a.jxl").write_bytes(make_sample("jxl"))
    (album / "b.bmp").write_bytes(make_sample("bmp", seed=50))
    answer = server.http.post("/v1/images/ingest", json={"source": f"folder:{album}"})
    archive = make_zip({"c.jxl": make_sample("jxl"), "d.heic": make_sample("heic", seed=51)})
    sent = server.http.post("/v1/images/bulk", files=[("files", ("a.zip", archive))])
    for id in (answer.json()["id"], sent.json()["id"]):
        job = server.wait_job(id)
        assert [job[name] for name in ("total", "done", "failed")] == [1, 1, 0]
        assert job["left_out"] == {".jxl": 1}
        assert ["SIGHTLINE_FORMATS" in warning["detail"] for warning in job["warnings"]] == [True]


def test_the_command_asks_the_server_which_formats_it_takes(server: RunningServer, album: Path) -> None:
    folder = album / "cli"
    folder.mkdir()
    (folder / "a.jxl").write_bytes(make_sample("jxl", seed=3))
    (folder / "b.tif").write_bytes(make_sample("tiff", seed=52))
    ran = CliRunner().invoke(main, ["ingest", "--server", server.url, str(folder)])
    assert ran.exit_code == 0, ran.output
    assert "1 file of another kind left out (1 .jxl)" in ran.stdout
    assert "this server takes no JPEG XL files" in " ".join(ran.output.split())
    (folder / "b.tif").unlink()
    ran = CliRunner().invoke(main, ["ingest", "--server", server.url, str(folder)])
    assert ran.exit_code != 0
    assert "takes no JPEG XL files" in ran.output
