"""The browser and the servers that tests of the page share."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.app.web.watched import Watched
from tests.support.browser import open_browser
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until

expect.set_options(timeout=30_000)  # a busy machine is slow, not wrong


browser = pytest.fixture(open_browser, scope="package", name="browser")


@pytest.fixture(scope="package")
def page_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Reds, blues and a green with captions, and texts; tests only read it."""
    with RunningServer(tmp_path_factory.mktemp("page")) as server:
        for n, colour in enumerate(["red"] * 5 + ["blue"] * 4 + ["green"]):
            content = picture(colour, seed=n, size=(64 + 8 * n, 48))
            said: dict[str, Any] = {"id": f"{colour}-{n}", "caption": f"{colour} number {n}", "tags": [colour]}
            said["metadata"] = json.dumps({"made": {"by": "test"}})
            assert server.upload(content, f"{colour}{n}.png", wait=0, **said).status_code == 202

        def ready() -> bool:
            return all(one["status"] == "ready" for one in server.http.get("/v1/images").json()["images"])

        wait_until(ready, 30, server.output)
        texts = [{"id": word, "text": f"a {word} thing"} for word in ("red", "blue", "green")]
        assert server.http.post("/v1/texts", json={"texts": texts}).status_code == 200
        yield server


@pytest.fixture(scope="package")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that begins with nothing; one test at a time fills it. It may read `albums` and URLs of the loopback."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "albums").mkdir()
    allowed: dict[str, Any] = {"folders": folder / "albums", "fetch": True, "fetch_also": "127.0.0.1"}
    with RunningServer(folder / "data", **allowed) as server:
        yield server


@pytest.fixture(scope="package")
def large_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with 400 pictures of many shapes, tests only read it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        said = []
        for n in range(400):
            colour = ("red", "blue", "green", "yellow")[n % 4]
            archive.writestr(f"{n}.png", picture(colour, seed=n, size=(40 + n * 7 % 60, 50)))
            said.append(json.dumps({"file": f"{n}.png", "id": f"{colour}-{n}", "caption": f"{colour} {n}"}))
        archive.writestr("metadata.jsonl", "\n".join(said))
    with RunningServer(tmp_path_factory.mktemp("many")) as server:
        job = server.wait_job(server.bulk([("many.zip", out.getvalue())])["id"])
        assert (job["done"], job["failed"]) == (400, 0)
        yield server


@pytest.fixture
def large_page(browser: Browser, large_server: RunningServer) -> Iterator[Watched]:
    """A page on the server with many pictures."""
    watched = Watched(browser, large_server.url, viewport={"width": 900, "height": 600})
    yield watched
    watched.context.close()
    assert watched.faults == []


@pytest.fixture
def page_on_server(browser: Browser, page_server: RunningServer) -> Iterator[Watched]:
    """A page on the filled server; the test fails if anything was reported in its console."""
    watched = Watched(browser, page_server.url)
    yield watched
    watched.context.close()
    assert watched.faults == []
