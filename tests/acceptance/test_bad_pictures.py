"""Bad pictures and archives over HTTP: a clear error, nothing lost, the neighbours unharmed.

The corpus of hostile files is in `tests/reliability/hostile.py`, and goes through the service in
`tests/reliability/test_hostile.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.app.api.asking import check_refusal, make_picture
from tests.support.archives import make_zip
from tests.support.sample_pictures import long_gif, sample
from tests.support.servers import RunningServer

Check = Any


@pytest.fixture(scope="module")
def bad_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all tests of the module: a bad file in one must not harm the next."""
    with RunningServer(tmp_path_factory.mktemp("bad")) as running:
        yield running


@pytest.fixture
def server(bad_server: RunningServer) -> Iterator[RunningServer]:
    """The server. After each test, check that good pictures still load and are found."""
    yield bad_server
    image = bad_server.upload(make_picture("purple")).json()
    assert image["status"] == "ready"
    hits = bad_server.http.get("/v1/search", params={"q": "purple", "k": 1000}).json()["hits"]
    assert image["id"] in [hit["id"] for hit in hits]
    assert "Traceback" not in bad_server.output()


def load_archive(
    server: RunningServer, content: bytes, name: str = "x.zip"
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Upload an archive; returns its ended job and the failed items."""
    job = server.wait_job(server.bulk([(name, content)])["id"], 60)
    assert job["state"] == "succeeded"
    assert job["done"] + job["failed"] + job["duplicates"] == job["total"]
    items = server.http.get(f"/v1/jobs/{job['id']}/items", params={"status": "failed"}).json()["items"]
    assert len(items) == min(100, job["failed"])
    return job, items


def test_a_single_pixel_is_a_picture(server: RunningServer) -> None:
    for kind in ("png", "jpeg", "gif", "webp"):
        image = server.upload(sample(kind, 1, 1, seed=3)).json()
        assert (image["status"], image["width"], image["height"]) == ("ready", 1, 1)
        assert server.http.get(f"/v1/images/{image['id']}/thumbnail").status_code == 200


def test_a_gif_of_ten_thousand_frames_is_its_first(server: RunningServer) -> None:
    image = server.upload(long_gif(10_000), "long.gif").json()
    assert (image["status"], image["animated"], image["width"]) == ("ready", True, 16)
    hits = server.http.get("/v1/search", params={"q": "red", "k": 1000}).json()["hits"]
    assert next(hit["score"] for hit in hits if hit["id"] == image["id"]) > 0.8


def test_one_bad_of_a_hundred_is_named_with_its_reason(server: RunningServer) -> None:
    members = {f"{n:03}.png": make_picture() for n in range(99)}
    job, (bad,) = load_archive(server, make_zip({**members, "broken.jpg": b"not a picture"}))
    assert (job["total"], job["done"], job["failed"]) == (100, 99, 1)
    assert (bad["name"], bad["error"]["code"]) == ("broken.jpg", "unsupported_media_type")
    assert bad["error"]["detail"]


def test_one_picture_that_cannot_be_decoded_is_named_too(server: RunningServer) -> None:
    whole = sample("png", 200, 150, seed=41)
    job, (bad,) = load_archive(
        server, make_zip({"a.png": make_picture(), "cut.png": whole[: len(whole) // 2], "b.png": make_picture()})
    )
    assert (job["done"], job["failed"]) == (2, 1)
    assert (bad["name"], bad["error"]["code"]) == ("cut.png", "image_corrupt")


def test_an_archive_inside_an_archive_is_not_opened(server: RunningServer) -> None:
    job, (bad,) = load_archive(
        server, make_zip({"a.png": make_picture(), "inner.zip": make_zip({"b.png": make_picture()})})
    )
    assert (job["done"], job["failed"]) == (1, 1)
    assert (bad["name"], bad["error"]["code"]) == ("inner.zip", "unsupported_media_type")


def test_names_that_would_leave_the_folder_are_only_names(server: RunningServer) -> None:
    names = ["../../../evil.png", "/etc/evil.png", "C:\\evil.png", "a/../../evil.png", "evil\r\n.png"]
    job, bad = load_archive(server, make_zip({name: make_picture() for name in names}))
    assert (job["done"], bad) == (5, [])
    root = server.data_dir
    assert not list(root.parent.rglob("*evil*"))
    assert not Path("/etc/evil.png").exists()


def test_a_bomb_is_refused_whole(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", max_archive_bytes=5_000_000) as server:
        bomb = make_zip(
            {
                "good.png": make_picture(),
                "a.png": make_picture() + bytes(4_000_000),
                "b.png": make_picture() + bytes(4_000_000),
            }
        )
        assert len(bomb) < 50_000
        job, (bad,) = load_archive(server, bomb, "bomb.zip")
        assert (job["done"], job["failed"]) == (0, 1)
        assert (bad["name"], bad["error"]["code"]) == ("bomb.zip", "archive_limit")
        assert server.upload(make_picture()).json()["status"] == "ready"
        used = sum(path.stat().st_size for path in (server.data_dir / "media").rglob("*") if path.is_file())
        assert used < 100_000


def test_archives_without_pictures_or_cut_off_say_so(server: RunningServer) -> None:
    for content in (make_zip({}), make_zip({"readme/": b""}), make_zip({"a.png": make_picture()})[:-30]):
        job, (bad,) = load_archive(server, content, "odd.zip")
        assert (job["done"], job["failed"]) == (0, 1)
        assert (bad["name"], bad["error"]["code"]) == ("odd.zip", "archive_corrupt")


def test_a_bulk_of_no_files_is_refused(server: RunningServer) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    check_refusal(server.http.post("/v1/images/bulk", content=b"--x--\r\n", headers=headers), 422, "validation")


def test_the_same_picture_twice_and_a_hundred_times_at_once_is_one(server: RunningServer) -> None:
    content = make_picture("green")
    assert [server.upload(content).json()["duplicate"] for _ in range(2)] == [False, True]
    content = make_picture("green")
    before = server.http.get("/v1/stats").json()["images"]["total"]
    with ThreadPoolExecutor(25) as threads:
        answers = [answer.json() for answer in threads.map(lambda _: server.upload(content), range(100))]
    assert len({answer["id"] for answer in answers}) == 1
    assert [answer["duplicate"] for answer in answers].count(False) == 1
    assert server.http.get("/v1/stats").json()["images"]["total"] == before + 1
