"""Watched folders over HTTP: the folders of the server, and those that a client sends."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.api.asking import check_refusal
from tests.app.api.guarded import Guarded
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until

TAKEN = {"taken_at": "2017-07-14T02:40:00"}
RED, BLUE, GREEN = picture("red"), picture("blue"), picture("green")


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("watched") / "album"
    root.mkdir()
    return root


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory, album: Path) -> Iterator[RunningServer]:
    """A server that may read an album."""
    with RunningServer(tmp_path_factory.mktemp("watching"), folders=album.parent) as running:
        for name in ("client", "gone", "mine"):
            running.http.post("/v1/collections", json={"name": name}).raise_for_status()
        yield running


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, (time.time() - 60,) * 2)


def sources(server: RunningServer, collection: str = "default") -> list[str]:
    listed = server.http.get("/v1/images", params={"collection": collection}).json()["images"]
    return sorted(image["source"] for image in listed if image["status"] == "ready")


def put(path: str, content: bytes, **more: Any) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    return {"kind": "put", "path": path, "size": len(content), "mtime_ns": 1, "inode": 1, "sha256": sha256, **more}


def test_a_folder_of_the_server_is_watched_until_it_is_removed(watching: RunningServer, album: Path) -> None:
    http = watching.http
    write(album / "1.png", RED)
    created = http.post("/v1/watches", json={"source": f"folder:{album}"})
    assert created.status_code == 201
    id = created.json()["id"]
    call = f"/v1/watches/{id}"
    wait_until(lambda: sources(watching) == ["album/1.png"], 60, watching.output)
    write(album / "2.png", BLUE)
    (album / "1.png").rename(album / "one.png")
    wait_until(lambda: sources(watching) == ["album/2.png", "album/one.png"], 60, watching.output)
    assert http.post(f"{call}/scan").status_code == 200
    assert http.post(f"{call}/pause").json()["state"] == "paused"
    check_refusal(http.post(f"{call}/scan"), 422, "validation")
    write(album / "3.png", GREEN)
    assert http.post("/v1/watches", json={"source": f"folder:{album}", "exclude": ["2.*"]}).json()["id"] == id
    assert http.post(f"{call}/resume").json()["state"] != "paused"
    wait_until(lambda: sources(watching) == ["album/3.png", "album/one.png"], 60, watching.output)
    (watched,) = http.get("/v1/watches", params={"collection": "default"}).json()["watches"]
    assert (watched["source"], watched["files"], watched["exclude"]) == (f"folder:{album}", 2, ["2.*"])
    files = http.get(f"{call}/files", params={"limit": 1}).json()
    assert files["files"][0]["path"] == "3.png"
    more = http.get(f"{call}/files", params={"limit": 1, "cursor": files["next_cursor"]}).json()
    assert (more["files"][0]["path"], more["next_cursor"]) == ("one.png", None)
    check_refusal(http.post(f"{call}/changes", json={"changes": []}), 422, "validation")
    assert http.delete(call).status_code == 204
    check_refusal(http.get(call), 404, "not_found")
    assert sources(watching) == ["album/3.png", "album/one.png"]


def test_all_files_may_go_at_once_where_that_is_allowed(watching: RunningServer, album: Path) -> None:
    folder = album.parent / "scratch"
    folder.mkdir()
    for name, content in (("1.png", RED), ("2.png", BLUE)):
        write(folder / name, content)
    body = {"source": f"folder:{folder}", "collection": "mine", "allow_mass_delete": True}
    made = watching.http.post("/v1/watches", json=body).json()
    assert made["allow_mass_delete"]
    wait_until(lambda: len(sources(watching, "mine")) == 2, 60, watching.output)
    for path in folder.iterdir():
        path.unlink()
    wait_until(lambda: sources(watching, "mine") == [], 60, watching.output)
    assert watching.http.delete(f"/v1/watches/{made['id']}").status_code == 204


def test_a_client_sends_what_became_of_its_files(watching: RunningServer) -> None:
    http = watching.http
    body = {"source": "client:phone", "collection": "client", "title": "Pictures"}
    watch = http.post("/v1/watches", json=body).json()
    assert watch["state"] == "away"
    call = f"/v1/watches/{watch['id']}"
    change = put("2024/a.png", RED, fields={"caption": "a door", "tags": ["x"], "camera_data": TAKEN})
    assert http.post(f"{call}/changes", json={"changes": [change]}).json()["wanted"] == ["2024/a.png"]
    sent = http.post(f"{call}/files", data={"change": json.dumps(change)}, files={"files": ("a", RED)})
    assert sent.json()["added"] == 1
    assert http.post(f"{call}/changes", json={"changes": [change]}).json()["added"] == 0  # again: nothing
    move = {"kind": "move", "path": "b.png", "before": "2024/a.png", "size": 1, "mtime_ns": 1, "inode": 1}
    report = {"state": "watching", "scanned": True}
    moved = http.post(f"{call}/changes", json={"changes": [move], "report": report}).json()
    assert (moved["moved"], moved["wanted"]) == (1, [])
    assert http.post(f"{call}/changes", json={"changes": [move]}).json()["wanted"] == []  # again
    lost = {**move, "before": "never.png", "path": "c.png"}
    assert http.post(f"{call}/changes", json={"changes": [lost]}).json()["wanted"] == ["c.png"]
    wait_until(lambda: sources(watching, "client") == ["Pictures/b.png"], 60, watching.output)
    (image,) = http.get("/v1/images", params={"collection": "client"}).json()["images"]
    assert image["taken_at"] == TAKEN["taken_at"]
    bad = http.post(f"{call}/files", data={"change": json.dumps(put("no.png", b"x"))}, files={"files": ("a", b"x")})
    assert bad.json()["failed"]["no.png"]["code"] == "unsupported_media_type"
    told = http.get(call).json()
    assert (told["state"], told["files"], told["failed"]) == ("watching", 2, 1)
    failed = http.get(f"{call}/files", params={"status": "failed"}).json()["files"]
    assert [file["path"] for file in failed] == ["no.png"]
    assert http.post(f"{call}/confirm").json()["confirmed"]
    gone = {"kind": "delete", "path": "b.png"}
    assert http.post(f"{call}/changes", json={"changes": [gone, gone]}).json()["deleted"] == 1
    assert sources(watching, "client") == []
    http.post(f"{call}/pause")
    check_refusal(http.post(f"{call}/changes", json={"changes": [gone]}), 503, "overloaded")


def test_wrong_requests_are_refused(watching: RunningServer) -> None:
    http = watching.http
    for body in (
        {"source": "folder:/etc"},
        {"source": "urls:x"},
        {"source": "client:"},
        {"source": "client:" + "x" * 501},
        {"source": f"folder:{Path('/tmp')}", "title": "x"},
        {"source": "client:x", "deletes": "some"},
        {"source": "client:x", "poll_seconds": 0},
        {"source": "client:x", "allow_mass_delete": True},
    ):
        check_refusal(http.post("/v1/watches", json=body), 422, "validation")
    check_refusal(http.get("/v1/watches/none"), 404, "not_found")
    id = http.post("/v1/watches", json={"source": "client:wrong", "collection": "client"}).json()["id"]
    call = f"/v1/watches/{id}"
    for change in ({"kind": "put", "path": "/etc/x"}, {"kind": "put", "path": "a\0"}, {"kind": "copy", "path": "a"}):
        check_refusal(http.post(f"{call}/changes", json={"changes": [change]}), 422, "validation")
    check_refusal(http.get(f"{call}/files", params={"cursor": "x"}), 400, "bad_request")
    for data in ({}, {"change": json.dumps({"kind": "delete", "path": "a"})}, {"change": "{}"}):
        check_refusal(http.post(f"{call}/files", data=data, files={"files": ("a", RED)}), 422, "validation")


def test_a_deleted_collection_takes_its_watches_along(watching: RunningServer) -> None:
    http = watching.http
    id = http.post("/v1/watches", json={"source": "client:x", "collection": "gone"}).json()["id"]
    change = put("a.png", RED)
    http.post(f"/v1/watches/{id}/files", data={"change": json.dumps(change)}, files={"files": ("a", RED)})
    http.delete("/v1/collections/gone").raise_for_status()
    check_refusal(http.get(f"/v1/watches/{id}"), 404, "not_found")


def test_a_bound_key_sees_the_watches_of_its_collections(guarded: Guarded) -> None:
    id = guarded.ask("admin", "POST", "/v1/watches", json={"source": "client:x"}).json()["id"]
    assert guarded.ask("elsewhere", "GET", "/v1/watches").json() == {"watches": []}
    assert id in [one["id"] for one in guarded.ask("bound", "GET", "/v1/watches").json()["watches"]]
    check_refusal(guarded.ask("elsewhere", "GET", f"/v1/watches/{id}"), 404, "not_found")
    check_refusal(guarded.ask("elsewhere", "POST", f"/v1/watches/{id}/confirm"), 404, "not_found")
    allowed = guarded.server.data_dir.parent / "albums"
    body = {"source": f"folder:{allowed}", "collection": "elsewhere"}
    check_refusal(guarded.ask("elsewhere", "POST", "/v1/watches", json=body), 422, "validation")
    guarded.ask("admin", "DELETE", f"/v1/watches/{id}")
