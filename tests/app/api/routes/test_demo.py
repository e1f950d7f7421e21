"""The demo gallery, asked for over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.api.routes import demo
from app.core.errors import NotFound
from app.service import demo_gallery
from app.storage.jobs import JobService
from app.storage.library import Library
from tests.app.api.asking import check_refusal
from tests.support.servers import RunningServer, wait_until


def test_the_gallery_is_one_job_and_its_texts_are_stored(tmp_path: Path) -> None:
    """That its pictures are taken in, once, is in tests/acceptance/test_demo.py."""
    with RunningServer(tmp_path, workers=0) as server:
        response = server.http.post("/v1/demo")
        assert response.status_code == 202, response.text
        assert (response.json()["kind"], response.json()["state"]) == ("bulk", "queued")
        wait_until(lambda: server.http.get("/v1/stats").json()["texts"] > 100, 30, server.output)
        check_refusal(server.http.post("/v1/demo", params={"collection": "x"}), 404, "not_found")


def test_a_gallery_that_goes_while_it_is_added_is_told(library: Library, tmp_path: Path) -> None:
    folder = library.create_upload_dir()
    with pytest.raises(NotFound, match="not installed with this server"):
        demo.submit_gallery(JobService(library), "default", tmp_path / "gone", folder)


def test_an_installation_without_the_gallery_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_gallery, "__file__", str(tmp_path / "app" / "service" / "demo_gallery.py"))
    with pytest.raises(NotFound, match="not installed with this server"):
        demo.require_gallery()
