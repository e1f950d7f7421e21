"""Tokens of writes, and searches that wait for what they stand for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.api import read_after_write
from app.api.app import create_app
from app.api.read_after_write import WRITE_HEADER, WriteToken
from app.core.errors import NotApplied, Validation
from app.core.settings import Settings
from app.service.service import open_service
from tests.app.api.asking import check_refusal, make_picture, upload_ready
from tests.support.servers import RunningServer, wait_until


def search(server: RunningServer, after: str, **params: str) -> list[str]:
    response = server.http.get("/v1/search", params={"q": "red", "k": 1000, "after": after, **params})
    assert response.status_code == 200, response.text
    return [hit["id"] for hit in response.json()["hits"]]


def test_a_search_finds_the_picture_whose_token_it_has(server: RunningServer) -> None:
    for _ in range(5):
        accepted = server.upload(make_picture("red"), wait=0)
        token = accepted.headers[WRITE_HEADER]
        assert accepted.json()["id"] in search(server, token)


def test_every_way_to_search_waits(server: RunningServer) -> None:
    def upload() -> tuple[str, dict[str, str]]:
        accepted = server.upload(make_picture("red"), wait=0)
        return accepted.json()["id"], {"after": accepted.headers[WRITE_HEADER]}

    id, after = upload()
    found = server.http.post("/v1/search", params=after, json={"query": [{"text": "red"}], "k": 1000}).json()
    assert id in [hit["id"] for hit in found["hits"]]
    id, after = upload()
    batch = {"searches": [{"query": [{"text": "red"}], "k": 1000}] * 2}
    for one in server.http.post("/v1/search/batch", params=after, json=batch).json()["answers"]:
        assert id in [hit["id"] for hit in one["hits"]]
    id, after = upload()
    files = {"file": ("p.png", make_picture("red"))}
    found = server.http.post("/v1/search/image", params={**after, "k": 1000}, files=files).json()
    assert id in [hit["id"] for hit in found["hits"]]
    id, after = upload()
    listed = server.http.get("/v1/images", params=after).json()["images"]
    assert {one["id"]: one["status"] for one in listed}[id] == "ready"


def test_each_answer_to_a_write_has_a_token(server: RunningServer) -> None:
    image = upload_ready(server, "red")
    said = server.http.get(f"/v1/images/{image['id']}")
    assert WriteToken.parse(said.headers[WRITE_HEADER]).seq > 0
    patched = server.http.patch(f"/v1/images/{image['id']}", json={"caption": "new"})
    assert patched.headers[WRITE_HEADER] == "0"  # every server sees it at once
    stored = server.http.post("/v1/texts", json={"texts": [{"text": "reddish"}]})
    id = stored.json()["texts"][0]["id"]
    assert id in search(server, stored.headers[WRITE_HEADER], target="texts")
    job = server.bulk([("a.png", make_picture("red"))])
    server.wait_job(job["id"])
    done = server.http.get(f"/v1/jobs/{job['id']}")
    assert WriteToken.parse(done.headers[WRITE_HEADER]).seq > WriteToken.parse(said.headers[WRITE_HEADER]).seq
    deleted = server.http.delete(f"/v1/images/{image['id']}")
    assert image["id"] not in search(server, deleted.headers[WRITE_HEADER])
    assert WRITE_HEADER not in server.http.get("/v1/search", params={"q": "red"}).headers


@pytest.mark.parametrize("token", ["", "x", "-1", "1-", "1-2-3", "9" * 19, "١"])
def test_what_is_no_token_is_refused(server: RunningServer, token: str) -> None:
    check_refusal(server.http.get("/v1/search", params={"q": "red", "after": token}), 422, "validation")
    with pytest.raises(Validation):
        WriteToken.parse(token)


def test_a_token_of_other_data_is_refused(server: RunningServer) -> None:
    problem = check_refusal(server.http.get("/v1/search", params={"q": "red", "after": "9" * 18}), 422, "validation")
    assert "another server" in problem["detail"]


def test_the_picture_of_a_token_may_be_gone_or_of_another_collection(server: RunningServer) -> None:
    assert search(server, "0-999999999") is not None
    image = upload_ready(server, "red")
    server.http.post("/v1/collections", json={"name": "other-tokens"})
    key = WriteToken.parse(server.http.get(f"/v1/images/{image['id']}").headers[WRITE_HEADER])
    assert search(server, f"{key.seq}-1", collection="other-tokens") == []
    missing = server.http.get("/v1/search", params={"q": "red", "after": "0", "collection": "nowhere"})
    check_refusal(missing, 404, "not_found")


def test_a_search_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_after_write, "AFTER_SECONDS", 0.1)
    service = open_service(Settings(data_dir=tmp_path / "data", model="colours"))  # without a worker
    try:
        service.start()
        wait_until(service.search.is_loaded, 60)
        client = TestClient(create_app(service), base_url="http://localhost")
        accepted = client.post("/v1/images", files={"file": ("p.png", make_picture("red"))})
        token = accepted.headers[WRITE_HEADER]
        assert WriteToken.parse(token).pending is not None
        refused = client.get("/v1/search", params={"q": "red", "after": token})
        assert (refused.status_code, refused.json()["code"]) == (503, "not_applied")
        client.delete(f"/v1/images/{accepted.json()['id']}")
        assert client.get("/v1/search", params={"q": "red", "after": token}).json()["hits"] == []
        with pytest.raises(NotApplied):
            asyncio.run(read_after_write.poll(lambda: False, 0.0))
    finally:
        service.close()
