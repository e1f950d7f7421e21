"""`sightline mcp`: an assistant that starts it, on standard input and output."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mcp.client.client import Client
from pydantic import SecretStr
from sightline_client import AsyncClient

from app.api.mcp_tools import PictureServer
from app.cli import mcp as command
from app.cli.main import main
from app.cli.mcp import make_client
from app.core.settings import Settings
from tests.app.api.asking import make_picture
from tests.support.assistants import ERAS, be_refused, connect_stdio, use
from tests.support.servers import RunningServer


@pytest.mark.parametrize("era", ERAS)
def test_an_assistant_adds_and_finds_pictures(era: str, server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "red.png").write_bytes(make_picture("red"))
    (tmp_path / "secret.png").write_bytes(make_picture("blue"))
    name = f"stdio-{era}"
    assert server.http.post("/v1/collections", json={"name": name}).status_code == 201

    async def work() -> None:
        options = ("--collection", name, "--folder", str(tmp_path / "album"), "--api-key", "sl_unused")
        async with connect_stdio(server.url, era, *options) as client:
            added = await use(client, "add_picture", path="red.png", tags=["one"])
            assert (added["collection"], added["name"], added["status"]) == (name, "red.png", "ready")
            found = await use(client, "search_pictures", query="red")
            assert [hit["id"] for hit in found["hits"]] == [added["id"]]
            (content,) = (await client.read_resource(added["uri"])).contents
            assert content.mime_type == "image/png"
            for wrong in ("../secret.png", str(tmp_path / "secret.png"), "gone.png"):
                assert "give a picture below" in await be_refused(client, "add_picture", path=wrong)

    asyncio.run(work())


def test_a_file_that_the_server_would_not_take_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "fits.png").write_bytes(content := make_picture("red"))
    with open(tmp_path / "album" / "large.png", "wb") as file:
        file.truncate(1 << 40)

    async def work(url: str) -> None:
        async with connect_stdio(url, "auto", "--folder", str(tmp_path / "album")) as client:
            told = await be_refused(client, "add_picture", path="large.png")
            assert "large.png has 1,099,511,627,776 bytes; the server takes pictures of" in told
            assert (await use(client, "add_picture", path="fits.png"))["status"] == "ready"

    with RunningServer(tmp_path / "data", max_image_bytes=len(content)) as server:
        asyncio.run(work(server.url))


def test_a_server_that_is_away_is_an_answer_not_an_end() -> None:
    client = make_client(Settings(server="http://127.0.0.1:9"), patience=0)

    @asynccontextmanager
    async def connect(context: Any) -> AsyncIterator[AsyncClient]:
        yield client

    async def work() -> None:
        async with Client(PictureServer(connect)) as assistant:
            for _ in range(2):
                told = await be_refused(assistant, "search_pictures", query="red")
                assert told.startswith("Error executing tool search_pictures: no answer from http://127.0.0.1:9")
                assert told.endswith("is the server of Sightline running?")

    asyncio.run(work())


def test_it_ends_with_its_input(server: RunningServer) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "app", "mcp", "--server", server.url],
        input=b"",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, b"")


def test_its_refusals_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["mcp", *arguments])
        return done.exit_code, done.stderr.splitlines()[-1]

    assert run("--api-key", "sl_a", "--key", "sl_b") == (2, "Error: give either --api-key or --key or --key-file")
    code, told = run("--server", "nowhere")
    assert (code, "is not an address" in told) == (2, True)
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "mcp" else find_spec(name))
    assert run() == (2, "sightline: sightline mcp needs the package mcp: pip install 'sightline-search[mcp]'")


def test_a_password_of_the_address_is_sent_and_never_told() -> None:
    client = make_client(Settings(server="https://ann:secret@photos.example/", key=SecretStr("sl_x")), patience=0)
    assert client.server == "https://photos.example"
    assert client._http.auth is not None
