"""Servers and workers of one PostgreSQL, real processes: what one writes the others see, and who dies is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.api.read_after_write import WRITE_HEADER
from app.storage.address import open_database
from app.storage.database import Database
from app.storage.sql import fetch_all
from tests.app.api.asking import make_picture
from tests.app.encoder.small import make_model
from tests.support.postgresql import PostgresqlServer
from tests.support.servers import RunningServer, wait_until
from tests.support.videos import make_video

LEASE_SECONDS = 3.0
DATABASE_WORDS = ("--model", "colours")


@dataclass
class Cluster:
    """What the processes share."""

    address: str
    folder: Path
    first: RunningServer
    second: RunningServer
    database: Database

    def worker(self, *words: str, **settings: Any) -> subprocess.Popen[bytes]:
        return start_worker(self.address, self.folder, *words, **settings)


def make_settings(address: str, folder: Path, name: str, **settings: Any) -> dict[str, Any]:
    shared = {"database": address, "shared_media": True, "cache_dir": folder / name, "lease_seconds": LEASE_SECONDS}
    return {**shared, "models_dir": folder / "models", **settings}


def start_worker(address: str, folder: Path, *words: str, **settings: Any) -> subprocess.Popen[bytes]:
    chosen = make_settings(address, folder, "workers", data_dir=folder / "media", model="colours", **settings)
    environment = {f"SIGHTLINE_{name.upper()}": str(value) for name, value in chosen.items()}
    return subprocess.Popen([sys.executable, "-m", "app", "worker", *words], env={**os.environ, **environment})


@pytest.fixture(scope="module")
def cluster(postgresql: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as opened:
        address = opened.enter_context(postgresql.database())
        servers = [
            opened.enter_context(
                RunningServer(folder / "media", workers=0, **make_settings(address, folder, name), ready=False)
            )
            for name in ("first", "second")
        ]
        for server in servers:
            server.wait_ready()
        database = opened.enter_context(closing(open_database(address)))
        yield Cluster(address, folder, servers[0], servers[1], database)


@pytest.fixture
def worker(cluster: Cluster) -> Iterator[subprocess.Popen[bytes]]:
    process = cluster.worker()
    wait_until(lambda: count_workers(cluster) > 0, 120)
    yield process
    end(process)
    wait_until(lambda: count_workers(cluster) == 0, 30)


def count_workers(cluster: Cluster) -> int:
    members = cluster.first.http.get("/v1/stats").json()["cluster"]
    return sum(one["kind"] == "worker" for one in members)


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        process.wait(60)


def seconds_until(check: Any) -> float:
    began = time.monotonic()
    wait_until(check, 60)
    return time.monotonic() - began


def find(server: RunningServer, id: str, **params: str) -> bool:
    hits = server.http.get("/v1/search", params={"q": "red", "k": 1000, **params}).json()["hits"]
    return id in [hit["id"] for hit in hits]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("small") / "model")


@pytest.mark.usefixtures("worker")
def test_each_server_sees_what_the_other_writes(cluster: Cluster) -> None:
    for here, there in ((cluster.first, cluster.second), (cluster.second, cluster.first)):
        accepted = here.upload(make_picture("red"), wait=0)
        assert accepted.status_code == 202, accepted.text
        id = accepted.json()["id"]
        assert there.http.get(f"/v1/images/{id}").status_code == 200
        assert find(there, id, after=accepted.headers[WRITE_HEADER])
        ready = here.upload(make_picture("red"))
        assert ready.status_code == 200
        assert find(here, ready.json()["id"])
        assert seconds_until(partial(find, there, ready.json()["id"])) < 1.0
        assert there.http.get(f"/v1/images/{id}/file").content == here.http.get(f"/v1/images/{id}/file").content
        assert there.http.delete(f"/v1/images/{id}").status_code == 204
        assert not find(here, id)


def test_a_collection_that_one_server_deletes_is_gone_at_the_other(cluster: Cluster, worker: Any) -> None:
    cluster.first.http.post("/v1/collections", json={"name": "gone"})
    files = {"file": ("p.png", make_picture("red"))}
    stored = cluster.second.http.post("/v1/images", params={"wait": 30, "collection": "gone"}, files=files)
    assert stored.status_code == 200, stored.text
    for server in (cluster.first, cluster.second):
        assert find(server, stored.json()["id"], collection="gone")
    assert cluster.second.http.delete("/v1/collections/gone").status_code in (200, 202, 204)
    for server in (cluster.first, cluster.second):
        assert server.http.get("/v1/search", params={"q": "red", "collection": "gone"}).status_code == 404
    gone = "SELECT 1 FROM collections WHERE name IS NULL AND swept = 0"
    wait_until(lambda: not cluster.database.read(lambda c: fetch_all(c, gone)), 30)


def test_the_members_and_their_duties_are_shown(cluster: Cluster, worker: Any) -> None:
    def members() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cluster.second.http.get("/v1/stats").json()["cluster"]
        return found

    wait_until(lambda: [one["kind"] for one in members()] == ["server", "server", "worker"], 30)
    duties = [duty for one in members() for duty in one["duties"]]
    assert len(duties) == len(set(duties))
    assert {"garbage", "deletions", "tasks", "arrivals"} <= set(duties)
    assert {one["pid"] for one in members()} >= {cluster.first.process.pid, cluster.second.process.pid, worker.pid}
    checks = {one["name"]: one for one in cluster.first.http.get("/readyz").json()["checks"]}
    assert checks["workers"]["detail"] == "1 alive in the cluster, of 2 servers"
    metrics = cluster.first.http.get("/metrics").text
    assert 'sightline_members{kind="worker"} 1.0' in metrics


def test_a_frozen_worker_commits_nothing_after_its_lease_went_to_another(cluster: Cluster) -> None:
    """It is stopped with pictures in hand; another takes them over, and the first wakes."""
    frozen, job = cluster.worker(), ""
    try:
        wait_until(lambda: count_workers(cluster) > 0, 120)
        job = cluster.first.bulk([(f"{n}.png", make_picture("red")) for n in range(120)])["id"]
        processing = "SELECT lease_owner, count(*) FROM images WHERE status = 'processing' GROUP BY 1"
        ((owner, _),) = wait_until(lambda: cluster.database.read(lambda c: fetch_all(c, processing)), 60)
        os.kill(frozen.pid, signal.SIGSTOP)
        began = time.monotonic()
        held = "SELECT key FROM images WHERE status = 'processing' AND lease_owner = '" + owner + "'"
        cluster.database.read(lambda c: fetch_all(c, held))
        other = cluster.worker()
        try:
            wait_until(lambda: not cluster.database.read(lambda c: fetch_all(c, held)), 60)
            assert time.monotonic() - began < LEASE_SECONDS + 15  # and the start of the other worker
            os.kill(frozen.pid, signal.SIGCONT)
            done = cluster.second.wait_job(job)
        finally:
            end(other)
        assert (done["state"], done["done"], done["failed"]) == ("succeeded", 120, 0)
        doubled = "SELECT key FROM embeddings WHERE target = 'images' AND op = 'add' GROUP BY key HAVING count(*) > 1"
        assert cluster.database.read(lambda c: fetch_all(c, doubled)) == []
    finally:
        with suppress(ProcessLookupError):
            os.kill(frozen.pid, signal.SIGCONT)
        end(frozen)


def test_the_pictures_of_a_killed_worker_are_taken_over(cluster: Cluster) -> None:
    killed = cluster.worker()
    other = None
    try:
        job = cluster.first.bulk([(f"{n}.png", make_picture("red")) for n in range(120)])["id"]
        processing = "SELECT 1 FROM images WHERE status = 'processing'"
        wait_until(lambda: cluster.database.read(lambda c: fetch_all(c, processing)), 60)
        killed.kill()
        killed.wait()
        other = cluster.worker("--workers", "2")
        done = cluster.second.wait_job(job)
        assert (done["state"], done["done"]) == ("succeeded", 120)
        assert cluster.database.read(lambda c: fetch_all(c, processing)) == []
    finally:
        end(killed)
        if other is not None:
            end(other)


def test_places_of_a_cluster_are_checked_at_the_start(cluster: Cluster, tmp_path: Path) -> None:
    taken = make_settings(cluster.address, cluster.folder, "second", data_dir=cluster.folder / "media", port=0)
    for settings, words in (
        ({**taken, "shared_media": False}, "--shared-media"),
        ({**taken, "cache_dir": cluster.folder / "media"}, "--cache-dir"),
        ({**taken, "cache_dir": cluster.second.data_dir.parent / "second"}, "is in use by process"),
    ):
        environment = {f"SIGHTLINE_{name.upper()}": str(value) for name, value in settings.items()}
        done = subprocess.run(
            [sys.executable, "-m", "app", "serve", *DATABASE_WORDS],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert words in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_a_video_that_one_server_took_belongs_to_all(cluster: Cluster) -> None:
    clip = make_video([("red", 1.5), ("blue", 1.5)])
    begun = cluster.first.http.post("/v1/videos", files={"file": ("clip.mp4", clip)})
    assert begun.status_code == 202, begun.text
    ended = cluster.second.wait_job(begun.json()["id"], 120)
    assert (ended["state"], ended["failed"]) == ("succeeded", 0)
    (video,) = cluster.second.http.get("/v1/videos").json()["videos"]
    listed = cluster.second.http.get("/v1/images", params={"limit": 1000}).json()["images"]
    frames = [one["id"] for one in listed if one["video_id"] == video["id"]]
    assert len(frames) == ended["done"] > 0
    for server in (cluster.first, cluster.second):
        wait_until(lambda server=server: any(find(server, id) for id in frames), 20)
        assert server.http.get(f"/v1/videos/{video['id']}/file").content == clip
    assert cluster.second.http.delete(f"/v1/videos/{video['id']}").status_code == 204
    assert cluster.first.http.get(f"/v1/videos/{video['id']}").status_code == 404
    assert not any(find(cluster.first, id) for id in frames)


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_a_cluster_changes_its_model(cluster: Cluster, small: str) -> None:
    """The last test, as what these servers were started with is no longer what they have."""
    before = cluster.first.upload(make_picture("red"), wait=60).json()["id"]
    begun = cluster.second.http.post("/v1/reembed", json={"model": small})
    assert begun.status_code == 202, begun.text
    assert cluster.first.wait_job(begun.json()["id"], 180)["state"] == "succeeded"
    for server in (cluster.first, cluster.second):
        wait_until(lambda server=server: server.http.get("/v1/stats").json()["model"]["name"] == small, 60)
        wait_until(lambda server=server: find(server, before, mode="vector"), 60)
    after = cluster.second.upload(make_picture("green"), wait=60)
    assert after.json()["status"] == "ready", after.text
    wait_until(lambda: find(cluster.first, after.json()["id"], mode="vector"), 60)


def test_another_server_takes_the_duties_of_one_that_dies(cluster: Cluster) -> None:
    third = RunningServer(
        cluster.folder / "media", workers=0, **make_settings(cluster.address, cluster.folder, "third"), ready=False
    )
    with third:
        leader = next(
            one for one in cluster.first.http.get("/v1/stats").json()["cluster"] if "garbage" in one["duties"]
        )
        server = cluster.first if cluster.first.process.pid == leader["pid"] else cluster.second
        server.process.kill()
        server.process.wait()
        alive = cluster.second if server is cluster.first else cluster.first

        def leaders() -> list[int]:
            found = alive.http.get("/v1/stats").json()["cluster"]
            return [one["pid"] for one in found if "garbage" in one["duties"]]

        took = seconds_until(lambda: leaders() and leaders() != [leader["pid"]])
        assert took < 10
