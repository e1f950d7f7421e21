"""A server whose pictures are in a bucket: uploads, searches and files as from a folder, and faults of the store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.index.proxy import Proxy
from tests.support.archives import make_zip
from tests.support.object_stores import WHO, Store, list_keys
from tests.support.pictures import picture
from tests.support.servers import RunningServer

pytestmark = pytest.mark.slow

COLOURS = ("red", "green", "blue", "yellow", "white", "black")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> object:
    for name, value in WHO.items():
        monkeypatch.setenv(name, value)
    store = Store("photos")
    yield store
    store.close()
    return None


def test_a_server_with_a_bucket_answers_as_one_with_a_folder(store: Store, tmp_path: Path) -> None:
    places: dict[str, Any] = {"media": "s3://photos/prod", "s3_endpoint": store.url, "cache_dir": tmp_path / "cache"}
    with RunningServer(tmp_path / "data", **places) as server:
        sent = server.upload(picture("red"), id="red")
        assert (sent.status_code, sent.json()["status"]) == (200, "ready")
        assert server.upload(picture("red")).json()["duplicate"]
        files = [
            ("all.zip", make_zip({f"{one}.png": picture(one) for one in COLOURS[1:4]})),
            ("w.png", picture("white")),
        ]
        job = server.wait_job(server.bulk(files)["id"])
        assert (job["state"], job["done"]) == ("succeeded", 4)
        found = server.http.get("/v1/search", params={"q": "green", "k": 1}).json()["hits"]
        assert found[0]["image"]["source"] == "green.png"
    keys = list_keys(store, "prod")
    assert [key for key in keys if key.startswith("incoming/")] == []
    assert sum(key.startswith("thumbnails/") for key in keys) == sum(key.startswith("media/") for key in keys) == 5
    assert list((tmp_path / "data").glob("media*")) == []
    shutil.rmtree(tmp_path / "cache")  # it is only a cache
    with RunningServer(tmp_path / "data", **places) as server:
        whole = server.http.get("/v1/images/red/file")
        assert whole.content == picture("red")
        part = server.http.get("/v1/images/red/file", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, picture("red")[10:20])
        again = server.http.get("/v1/images/red/file", headers={"If-None-Match": whole.headers["ETag"]})
        assert again.status_code == 304
        for size in (None, 64, 1024):
            thumbnail = server.http.get("/v1/images/red/thumbnail", params={"size": size} if size else None)
            assert (thumbnail.status_code, thumbnail.headers["Content-Type"]) == (200, "image/webp")
        checks = {one["name"]: one for one in server.http.get("/readyz").json()["checks"]}
        assert checks["bucket"]["ok"]
        assert 'sightline_object_store_seconds_count{operation="get"}' in server.http.get("/metrics").text


def test_presigned_reads_redirect_to_the_bucket_and_the_page_may_follow(store: Store, tmp_path: Path) -> None:
    with RunningServer(
        tmp_path / "data", media="s3://photos", s3_endpoint=store.url, media_reads="presigned"
    ) as server:
        server.upload(picture("red"), id="red")
        answer = server.http.get("/v1/images/red/file")
        assert (answer.status_code, answer.headers["Cache-Control"]) == (307, "no-store")
        url = answer.headers["Location"]
        assert url.startswith(f"{store.url}/photos/media/")
        assert "X-Amz-Expires=300" in url
        assert httpx.get(url, trust_env=False).content == picture("red")
        assert server.http.get("/v1/images/nothing/file").status_code == 404
        assert f"img-src 'self' {store.url} blob:" in server.http.get("/").headers["Content-Security-Policy"]
        assert server.http.get("/v1/images/red/thumbnail").status_code == 200


def test_a_start_says_what_is_wrong_with_the_bucket(store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "serve", "--media", "s3://nothing/prod", "--data-dir", str(tmp_path)]
    given = {**os.environ, "SIGHTLINE_S3_ENDPOINT": store.url}
    ended = subprocess.run(command, env=given, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert "make the bucket first" in ended.stderr.splitlines()[-1]
    assert WHO["AWS_SECRET_ACCESS_KEY"] not in ended.stderr


def test_nothing_that_was_acknowledged_is_lost_while_the_store_fails(store: Store, tmp_path: Path) -> None:
    acknowledged: dict[str, bytes] = {}
    refused: list[int] = []
    stopping = threading.Event()
    with Proxy(int(store.url.rpartition(":")[2])) as proxy:
        place: dict[str, Any] = {"media": "s3://photos/cut", "s3_endpoint": f"http://127.0.0.1:{proxy.port}"}
        with RunningServer(tmp_path / "data", **place) as server:

            def upload(worker: int) -> None:
                n = 0
                while not stopping.is_set():
                    n += 1
                    id, content = f"{worker}-{n}", picture(COLOURS[n % 6], size=(16 + worker, 16 + n % 400))
                    answer = server.upload(content, id=id, wait=0)
                    if answer.status_code in (200, 202):
                        acknowledged[answer.json()["id"]] = content
                    else:
                        refused.append(answer.status_code)
                        assert answer.json()["code"] in ("storage_unavailable", "overloaded"), answer.text
                        time.sleep(0.05)

            threads = [threading.Thread(target=upload, args=(n,)) for n in range(3)]
            for thread in threads:
                thread.start()
            for mode in ("reset", "unheard", "reset", "delay"):
                time.sleep(1.0)
                proxy.delay = 0.3
                proxy.mode = mode
                time.sleep(1.5)
                proxy.mode = "reset"  # what hangs is cut
                proxy.mode = "pass"
            time.sleep(1.0)
            stopping.set()
            for thread in threads:
                thread.join()
            for id, content in acknowledged.items():
                wait_ready(server, id)
                assert server.http.get(f"/v1/images/{id}/file").content == content
            listed = server.http.get("/v1/images", params={"limit": 1000}).json()["images"]
            assert {one["id"] for one in listed} == set(acknowledged)
            assert {one["status"] for one in listed} == {"ready"}
    assert refused


def wait_ready(server: RunningServer, id: str) -> None:
    deadline = time.monotonic() + 120
    while server.http.get(f"/v1/images/{id}").json()["status"] != "ready":
        assert time.monotonic() < deadline, server.output()
        time.sleep(0.1)
