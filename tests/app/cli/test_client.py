from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.cli import ServerError
from app.cli.client import Client
from tests.support.pictures import picture
from tests.support.servers import RunningServer


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.url + "/") as client:
        yield client


class Strange(BaseHTTPRequestHandler):
    """Something on the port that is not ours."""

    def do_GET(self) -> None:
        content = b"<html>a web site</html>"
        self.send_response(500 if "jobs" in self.path else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def strange() -> Iterator[Client]:
    other = ThreadingHTTPServer(("127.0.0.1", 0), Strange)
    serving = threading.Thread(target=other.serve_forever, args=(0.01,))
    serving.start()
    with Client(f"http://127.0.0.1:{other.server_port}") as client:
        yield client
    other.shutdown()
    serving.join()
    other.server_close()


def test_a_bulk_is_sent_followed_and_found(client: Client, server: RunningServer, tmp_path: Path) -> None:
    good, bad = tmp_path / "purple.png", tmp_path / "bad.png"
    good.write_bytes(picture("purple", 4711))
    bad.write_bytes(b"words")
    job = client.upload_bulk([("sub/purple.png", good), ("bad.png", bad)])
    server.wait_job(job["id"])
    ended = client.job(job["id"])
    assert (ended["total"], ended["done"], ended["failed"]) == (2, 1, 1)
    (failed,) = client.items(job["id"], status="failed")
    assert failed["name"] == "bad.png"
    found = [hit["image"]["source"] for hit in client.search("purple", 100)["hits"]]  # other tests have theirs
    assert "sub/purple.png" in found
    assert client.search_picture(good, 1)["hits"][0]["score"] == pytest.approx(1.0, abs=1e-3)


def test_texts_are_stored_and_found(client: Client) -> None:
    client.add_texts([{"id": "client-text", "text": "cyan cyan cyan"}])
    assert client.search("cyan", 1, "texts")["hits"][0]["id"] == "client-text"


def test_a_client_speaks_of_its_collection(client: Client, server: RunningServer, tmp_path: Path) -> None:
    assert client.make_collection("of-client", "a few")["images"] == 0
    with Client(server.url, collection="of-client") as other:
        path = tmp_path / "cyan.png"
        path.write_bytes(picture("purple", 4712))
        server.wait_job(other.upload_bulk([("cyan.png", path)])["id"])
        other.add_texts([{"id": "t", "text": "cyan"}])
        assert [hit["image"]["source"] for hit in other.search("purple", 9)["hits"]] == ["cyan.png"]
        assert len(other.search_picture(path, 9)["hits"]) == 1
        assert other.stats()["images"]["total"] == 1
    assert [one["name"] for one in client.collections()] == ["default", "of-client"]
    client.drop_collection("of-client")
    with pytest.raises(ServerError, match="not_found"):
        client.drop_collection("of-client")


def test_stats_and_readiness_are_told(client: Client) -> None:
    assert client.stats()["model"]["name"] == "colours"
    assert client.readiness()["reasons"] == []


def test_a_refusal_is_its_detail_and_code(client: Client) -> None:
    with pytest.raises(ServerError, match=r"^k must be from 1 to 1000, got 0 \(validation\)$"):
        client.search("red", 0)
    with pytest.raises(ServerError, match="not_found"):
        client.job("unknown")


def test_no_server_at_all_says_how_to_start_one() -> None:
    with (
        Client("http://127.0.0.1:9") as client,
        pytest.raises(
            ServerError, match=r"no server answers at http://127.0.0.1:9; start one .*, or name it with --server"
        ),
    ):
        client.stats()


def test_something_else_on_the_port_is_told_apart(strange: Client) -> None:
    with pytest.raises(ServerError, match="is not Sightline"):
        strange.stats()
    with pytest.raises(ServerError, match=r"the server at http://127\.0\.0\.1:\d+ answered 500"):
        strange.job("x")
    with pytest.raises(ServerError, match="is not Sightline"):
        strange.readiness()


@pytest.mark.parametrize("address", ["nonsense", "ftp://x", "http://[", "http://127.0.0.1:99999"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    with pytest.raises(ServerError) as refused, Client(address) as client:
        client.stats()
    assert "\n" not in str(refused.value)


def test_a_file_that_went_away_is_one_line(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServerError, match=r"gone\.png cannot be read"):
        client.upload_bulk([("gone.png", tmp_path / "gone.png")])


def test_a_proxy_of_the_environment_is_not_asked(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Client(server.url) as client:
        assert client.readiness()["reasons"] == []


def test_a_filter_searches_and_deletes(client: Client, server: RunningServer, tmp_path: Path) -> None:
    content = picture("purple", 4712)
    for tags in (["client-a"], ["client-b"]):
        server.upload(picture("purple", 4713 + len(tags[0]) + ord(tags[0][-1])), tags=tags)
    path = tmp_path / "a.png"
    path.write_bytes(content)
    only = {"key": "tags", "match": {"value": "client-a"}}
    (hit,) = client.search("purple", 5, filter=only)["hits"]
    assert hit["image"]["tags"] == ["client-a"]
    assert client.search_picture(path, 5, filter=only)["hits"][0]["id"] == hit["id"]
    assert client.delete(only, dry_run=True)["examples"][0]["id"] == hit["id"]
    assert client.delete(only, dry_run=False) == {"matched": 1, "deleted": 1, "examples": []}
    assert client.delete(only, dry_run=False)["matched"] == 0
    with pytest.raises(ServerError, match=r"no condition.*\(validation\)"):
        client.delete({}, dry_run=False)


def test_a_key_that_no_header_can_hold_is_one_line() -> None:
    with pytest.raises(ServerError, match="no key has"):
        Client("http://127.0.0.1:9", "sl_\u00e9\u4e2d")
