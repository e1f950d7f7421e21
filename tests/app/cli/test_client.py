from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

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
def odd_client() -> Iterator[Client]:
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


def test_a_search_is_arranged_and_takes_feedback(client: Client, server: RunningServer, tmp_path: Path) -> None:
    paths = [tmp_path / f"purple-{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(picture("purple", 4720 + n))
        server.upload(path.read_bytes(), id=f"purple-{n}", metadata=json.dumps({"place": 2 - n}))
    only = {"has_id": [f"purple-{n}" for n in range(3)]}
    found = client.search("purple -blue", 3, filter=only, order_by="metadata.place")
    assert [hit["id"] for hit in found["hits"]] == ["purple-2", "purple-1", "purple-0"]
    assert len(client.search_picture(paths[0], 3, filter=only, collapse=True, offset=0)["hits"]) == 1
    found = client.search("purple", 3, filter=only, like=("purple-1",), unlike=("purple-0",))
    assert sorted(hit["id"] for hit in found["hits"]) == ["purple-1", "purple-2"]


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
    assert {"default", "of-client"} <= {one["name"] for one in client.collections()}
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


def test_something_else_on_the_port_is_told_apart(odd_client: Client) -> None:
    with pytest.raises(ServerError, match="is not Sightline"):
        odd_client.stats()
    with pytest.raises(ServerError, match=r"the server at http://127\.0\.0\.1:\d+ answered 500"):
        odd_client.job("x")
    with pytest.raises(ServerError, match="is not Sightline"):
        odd_client.readiness()


@pytest.mark.parametrize("address", ["nonsense", "ftp://x", "http://[", "http://127.0.0.1:99999"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    with pytest.raises(ServerError) as refused, Client(address) as client:
        client.stats()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("address", ["localhost:8655", "127.0.0.1", "photos.example.org/sightline", "[::1]:8000"])
def test_an_address_without_its_scheme_is_told_with_it(address: str) -> None:
    with pytest.raises(ServerError, match=f"did you mean http://{re.escape(address)}\\?"):
        Client(address)


@pytest.mark.parametrize("path", ["/v1", "/docs/", "/v1/search"])
def test_an_address_with_a_path_of_the_server_is_told_without_it(path: str, server: RunningServer) -> None:
    with (
        Client(server.url + path) as client,
        pytest.raises(ServerError, match=f"the address of the server alone: {re.escape(server.url)}$"),
    ):
        client.stats()


def test_a_collection_is_to_be_made_unless_another_was_meant_or_it_is_to_be_dropped(client: Client) -> None:
    client.make_collection("holiday-b", "")
    for name, told in (("holidayb", r"did you mean 'holiday-b'\? \(not_found\)$"), ("zzz", "make it with")):
        with Client(client.server, collection=name) as other, pytest.raises(ServerError, match=told):
            other.stats()
    with pytest.raises(ServerError, match=r"\(not_found\)$"):
        client.drop_collection("zzz")
    client.drop_collection("holiday-b")


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


class Script(BaseHTTPRequestHandler):
    """Answers by a script: a status and a time to wait, or None for a connection that breaks; then with a job."""

    script: ClassVar[list[tuple[int, str] | None]] = []

    def do_GET(self) -> None:
        step = self.script.pop(0) if self.script else (200, "")
        if step is None:
            return
        content = json.dumps(JOB).encode() if step[0] == 200 else b'{"code": "queue_full", "detail": "full"}'
        self.send_response(step[0])
        self.send_header("Retry-After", step[1])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.headers_of_tries.append(self.headers["Idempotency-Key"])
        self.do_GET()

    headers_of_tries: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        pass


JOB = {"id": "j", "kind": "bulk", "state": "running", "created_at": "2026", "total": 1} | dict.fromkeys(
    ("done", "failed", "duplicates"), 0
)


@pytest.fixture
def scripted() -> Iterator[tuple[Client, list[str]]]:
    """A patient client of such a server, and what it has said."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    Script.script.clear()
    Script.headers_of_tries.clear()
    said: list[str] = []
    with Client(f"http://127.0.0.1:{server.server_port}") as client:
        client.be_patient(said.append)
        yield client, said
    server.shutdown()
    serving.join()
    server.server_close()


def test_an_upload_waits_for_a_server_that_is_busy_or_away_and_says_so(
    scripted: tuple[Client, list[str]], tmp_path: Path
) -> None:
    client, said = scripted
    (tmp_path / "a.png").write_bytes(picture("purple", 4711))
    Script.script += [(503, "0"), (429, "0"), (429, "0"), (502, "x"), (200, "")]
    assert client.upload_bulk([("a.png", tmp_path / "a.png")])["id"] == "j"
    assert len(Script.headers_of_tries) == 5
    assert len(set(Script.headers_of_tries)) == 1  # so that the server takes them in once
    assert "full (queue_full); waiting" in said[0]
    assert said[-1] == "the server answers again"
    assert len(said) == 2  # once for each reason
    said.clear()
    Script.script += [None, None, (200, "")]
    assert client.job("j")["state"] == "running"
    assert "failed" in said[0]


def test_patience_ends(scripted: tuple[Client, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    client, said = scripted
    Script.script += [None]
    with pytest.raises(ServerError, match="failed"):
        client.job("j")  # it has never answered: perhaps the address is wrong
    Script.script += [(503, "3600")]
    with pytest.raises(ServerError, match="queue_full"):
        client.job("j")  # it asks to wait longer than anybody does
    monkeypatch.setattr("app.cli.client.PATIENCE_SECONDS", 0.0)
    Script.script += [(429, "0")]
    with pytest.raises(ServerError, match="queue_full"):
        client.job("j")
    assert said == []


def test_other_commands_do_not_wait(scripted: tuple[Client, list[str]]) -> None:
    Script.script += [(429, "0")]
    with Client(scripted[0].server) as client, pytest.raises(ServerError, match="queue_full"):
        client.job("j")


def test_a_job_is_found_by_the_beginning_of_its_id(client: Client, server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture("purple", 4799))
    id = client.upload_bulk([("a.png", tmp_path / "a.png")])["id"]
    server.wait_job(id)
    assert client.find_job(id[:12]) == id
    assert client.find_job("ffff0000ffff") == "ffff0000ffff"
    assert client.find_job("nothing") == "nothing"
