"""The demo gallery, asked for over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import samples
from app.api import demo
from app.errors import NotFound
from tests.app.api.asking import refused
from tests.servers import RunningServer, until


def test_the_gallery_is_taken_in_with_its_texts_and_asking_again_doubles_nothing(own_server: RunningServer) -> None:
    response = own_server.http.post("/v1/demo")
    assert response.status_code == 202, response.text
    job = own_server.wait_job(response.json()["id"])
    assert (job["kind"], job["state"], job["failed"]) == ("bulk", "succeeded", 0)
    assert job["total"] == job["done"] > 1_000
    until(lambda: own_server.http.get("/v1/stats").json()["texts"] > 100, 30, own_server.output)
    counts = own_server.http.get("/v1/stats").json()["images"]
    again = own_server.wait_job(own_server.http.post("/v1/demo").json()["id"])
    assert (again["done"], again["duplicates"]) == (0, job["total"])
    assert own_server.http.get("/v1/stats").json()["images"] == counts
    refused(own_server.http.post("/v1/demo", params={"collection": "x"}), 404, "not_found")


def test_an_installation_without_the_gallery_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "__file__", str(tmp_path / "app" / "samples.py"))
    with pytest.raises(NotFound, match="not installed with this server"):
        demo.installed()
