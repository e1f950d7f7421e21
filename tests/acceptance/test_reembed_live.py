"""A server changes its model while it is searched and loaded; it is killed at several points of that."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app.storage.address import open_database
from app.storage.sqlite import connect_readonly
from tests.app.encoder.small import make_model
from tests.support.pictures import COLOURS, picture
from tests.support.servers import RunningServer, wait_until

LATE = 60  # pictures and texts that come while the model changes
PICTURES = 24
SECONDS = 180.0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("small") / "model")


def load(server: RunningServer, count: int = PICTURES) -> None:
    colours = list(COLOURS)
    files = [(f"{n}.png", picture(colours[n % len(colours)], seed=n)) for n in range(count)]
    assert server.wait_job(server.bulk(files)["id"])["done"] == count
    assert server.http.post("/v1/texts", json={"texts": [{"text": "a red car", "id": "t"}]}).status_code == 200


def begin(server: RunningServer, model: str, **said: Any) -> str:
    answer = server.http.post("/v1/reembed", json={"model": model, **said})
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["id"]
    return job


def stats(server: RunningServer) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get("/v1/stats").json()
    return found


def count_vectors(data_dir: Path) -> dict[str, int]:
    """How many vectors each model has, deleted ones not counted."""

    def work(c: Any) -> dict[str, int]:
        rows = c.execute(
            "SELECT model, count(*) FROM embeddings JOIN spaces ON fingerprint = space WHERE op = 'add' GROUP BY model"
        )
        return dict(rows.fetchall())

    with closing(open_database(data_dir / "sightline.db")) as database:
        return database.read(work)


class Searches:
    """A thread that searches again and again, and keeps what is wrong with the answers."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._stop = threading.Event()
        self.models: list[str] = []
        self.faults: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Searches:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            answer = self._server.http.get("/v1/search", params={"q": "red car", "k": 5, "mode": "vector"})
            ready = self._server.http.get("/readyz").status_code
            if answer.status_code != 200 or ready != 200 or len(answer.json()["hits"]) != 5:
                self.faults.append(f"{answer.status_code} {ready} {answer.text[:200]}")
            else:
                self.models.append(answer.json()["model"])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "data", workers=1) as server:
        load(server)
        yield server


@pytest.mark.slow
def test_a_server_changes_its_model_while_it_is_searched_and_loaded(server: RunningServer, small: str) -> None:
    plan = server.wait_job(begin(server, small, dry_run=True), SECONDS)
    assert plan["state"] == "succeeded", plan
    result = plan["result"]
    assert (result["pictures"], result["texts"], result["d"], result["present_model"]) == (24, 1, 24, "colours")
    assert result["pictures_per_second"] > 0
    assert stats(server)["model"]["name"] == "colours"
    with Searches(server) as searches:
        job = begin(server, small)
        again = server.http.post("/v1/reembed", json={"model": small})
        assert (again.status_code, again.json()["code"]) == (409, "in_progress")
        n = 0
        while server.http.get(f"/v1/jobs/{job}").json()["state"] in ("queued", "running"):
            if n < LATE:  # the job has the lowest priority: others could bring more than it gets done
                n += 1
                assert server.upload(picture("red", seed=1000 + n), f"{n}.png", wait=0).status_code in (200, 202)
                stored = server.http.post("/v1/texts", json={"texts": [{"text": f"text {n}", "id": f"n{n}"}]})
                assert stored.status_code == 200, stored.text
            time.sleep(0.05)
        ended = server.wait_job(job)
        assert ended["state"] == "succeeded", ended
        wait_until(lambda: stats(server)["model"]["name"] == small, 30, server.output)
        wait_until(lambda: stats(server)["images"]["ready"] == PICTURES + n, 60, server.output)
    assert searches.faults == []
    assert set(searches.models) == {"colours", small}
    assert searches.models == sorted(searches.models, key=[*dict.fromkeys(searches.models)].index)  # changed once
    assert ended["result"]["queued_again"] == 0
    assert [one["state"] for one in stats(server)["spaces"]] == ["serving"]
    wait_until(lambda: count_vectors(server.data_dir) == {small: PICTURES + 1 + 2 * n}, 60, server.output)
    assert not (server.data_dir / "snapshots" / "default").exists()
    assert server.http.get("/v1/search", params={"q": "red", "k": 3, "target": "texts"}).json()["hits"]


@pytest.mark.slow
def test_after_the_change_the_old_name_means_the_new_model(server: RunningServer, small: str) -> None:
    assert server.wait_job(begin(server, small), SECONDS)["state"] == "succeeded"
    server.stop()
    with RunningServer(server.data_dir, workers=1) as again:  # still with colours
        assert stats(again)["model"]["name"] == small
        assert f"set --model {small}" in again.output()
        assert again.upload(picture("green", seed=77)).json()["status"] == "ready"


@pytest.mark.slow
def test_a_cancelled_change_leaves_nothing(server: RunningServer, small: str) -> None:
    job = begin(server, small)
    wait_until(lambda: len(stats(server)["spaces"]) == 2 or None, SECONDS, server.output)
    assert server.http.post(f"/v1/jobs/{job}/cancel").json()["state"] in ("cancelled", "succeeded")
    job_state = server.http.get(f"/v1/jobs/{job}").json()["state"]
    expected = {"cancelled": "colours", "succeeded": small}[job_state]
    wait_until(lambda: count_vectors(server.data_dir) == {expected: PICTURES + 1}, 60, server.output)
    wait_until(lambda: [one["state"] for one in stats(server)["spaces"]] == ["serving"], 20, server.output)
    assert server.upload(picture("green", seed=77)).json()["status"] == "ready"


CHANGED = "SELECT 1 FROM jobs WHERE kind = 'reembed' AND state = 'succeeded'"
HELD = "SELECT 1 FROM next_space WHERE held = 1 UNION ALL " + CHANGED  # a quick machine may have got further


def kill_when(server: RunningServer, sql: str) -> None:
    """Kill the server as soon as the database says so."""
    with closing(connect_readonly(server.data_dir / "sightline.db")) as connection:
        wait_until(lambda: connection.execute(sql).fetchall(), SECONDS, server.output)
        server.kill()


@pytest.mark.slow
@pytest.mark.timeout(600)  # seven starts of a server, each with its model
def test_killed_at_any_point_the_server_goes_on(tmp_path: Path, small: str) -> None:
    with RunningServer(tmp_path / "data", workers=1) as server:
        load(server)
        job = begin(server, small)
        data = server.data_dir
        kill_when(server, "SELECT 1 FROM next_space")
    pauses = (0.3, 0.8, 1.5)
    for pause in pauses:
        with RunningServer(data, workers=1) as server:
            server.upload(picture("blue", seed=int(pause * 1000)), wait=0)
            assert len(server.http.get("/v1/search", params={"q": "red", "k": 5, "mode": "vector"}).json()["hits"]) == 5
            time.sleep(pause)
            server.kill()
    for sql in (HELD, CHANGED):
        with RunningServer(data, workers=1) as server:
            kill_when(server, sql)
    with RunningServer(data, workers=1) as server:  # still with colours
        assert stats(server)["model"]["name"] == small
        assert server.wait_job(job, SECONDS)["state"] == "succeeded"
        total = PICTURES + 1 + len(pauses)
        wait_until(lambda: count_vectors(data) == {small: total}, 60, server.output)
        assert stats(server)["images"]["ready"] == total - 1
        assert server.upload(picture("green", seed=77)).json()["status"] == "ready"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"model": "colours"}, "already"),
        ({"model": "no such model"}, "unknown model"),
        ({"model": "local-dir:/nowhere"}, "is missing"),
        ({"model": ""}, ""),
        ({"model": "starter", "precision": "int4"}, ""),
        ({"model": "starter", "speed": 1}, ""),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused_before_anything_changes(
    shared_server: RunningServer, said: dict[str, Any], words: str
) -> None:
    answer = shared_server.http.post("/v1/reembed", json=said)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation"), answer.text
    assert words in answer.json()["detail"]
    assert shared_server.http.get("/v1/jobs").json()["jobs"] == []


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("data"), workers=0) as server:
        yield server
