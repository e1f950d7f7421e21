"""Fixtures for the samples of the documentation: a server, a terminal and a browser."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.terminal import GALLERY, START_SECONDS, Terminal, missing_programs
from tests.support.browser import open_browser
from tests.support.servers import RunningServer, wait_until

LOADED = 40  # pictures of the gallery that the shared server holds


@pytest.fixture(scope="package")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the starter model and the first pictures of the demo gallery."""
    with RunningServer(tmp_path_factory.mktemp("starter"), model="starter", ready=False) as server:
        wait_until(lambda: server.http.get("/readyz").status_code == 200, START_SECONDS, server.output)
        job = server.bulk([("gallery.zip", part_of_gallery())])
        assert server.wait_job(job["id"])["done"] == LOADED
        yield server


def part_of_gallery() -> bytes:
    """The gallery's archive, cut to its first pictures and their captions."""
    out = io.BytesIO()
    with zipfile.ZipFile(GALLERY) as whole, zipfile.ZipFile(out, "w") as part:
        lines = whole.read("metadata.jsonl").decode().splitlines()[:LOADED]
        for line in lines:
            name = json.loads(line)["file"]
            part.writestr(name, whole.read(name))
        part.writestr("metadata.jsonl", "\n".join(lines))
    return out.getvalue()


@pytest.fixture
def terminal(tmp_path: Path, starter: RunningServer) -> Iterator[Terminal]:
    """A terminal in its own folder, connected to the shared server. Afterwards the server's pictures are as before."""
    if missing := missing_programs():
        pytest.skip(f"the samples need {', '.join(missing)}")
    loaded = {f"{n:04d}" for n in range(LOADED)}  # the ids of the gallery
    terminal = Terminal(tmp_path, starter.url)
    yield terminal
    terminal.close()
    for image in starter.http.get("/v1/images", params={"limit": 1000}).json()["images"]:
        if image["id"] not in loaded:
            starter.http.delete(f"/v1/images/{image['id']}")


browser = pytest.fixture(open_browser, scope="package", name="browser")
