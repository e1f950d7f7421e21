"""Bulk uploads and jobs over HTTP."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.api.concurrency import ThreadPools
from app.api.job_events import JobEvents
from app.core.errors import Overloaded, RateLimited
from app.core.types import Job, JobState, KeyScope
from tests.app.api.asking import check_refusal, file_part, form, make_picture, post_form, raw, search_ids
from tests.app.api.guarded import Guarded
from tests.support.servers import RunningServer, wait_until

JOB = Job("job", "default", "bulk", JobState.QUEUED, 9, 0, 0, 0, "2026-01-01T00:00:00Z", None, None)
FIELDS = {
    "is_task",
    "result",
    "error",
    "id",
    "collection",
    "kind",
    "state",
    "priority",
    "total",
    "done",
    "failed",
    "duplicates",
    "created_at",
    "started_at",
    "finished_at",
    "rate",
    "eta_s",
    "left_out",
    "warnings",
    "warned",
    "name",
}


def make_zip(members: dict[str, bytes]) -> bytes:
    """A zip of these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def make_tar(members: dict[str, bytes], mode: str) -> bytes:
    """A tar of these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def items(server: RunningServer, id: str, **params: Any) -> list[dict[str, Any]]:
    """The items of a job."""
    found: list[dict[str, Any]] = server.http.get(f"/v1/jobs/{id}/items", params=params).json()["items"]
    return found


def test_a_job_says_everything_and_adds_up(server: RunningServer) -> None:
    twice = make_picture()
    job = server.bulk([("a.png", twice), ("b.png", twice), ("c.txt", b"text"), ("d.png", make_picture("blue"))])
    assert set(job) == FIELDS
    assert job["state"] in ("queued", "running")
    ended = server.wait_job(job["id"])
    assert (ended["state"], ended["kind"]) == ("succeeded", "bulk")
    assert [ended[name] for name in ("total", "done", "failed", "duplicates")] == [4, 2, 1, 1]
    created, started, finished = (
        datetime.fromisoformat(ended[name]) for name in ("created_at", "started_at", "finished_at")
    )
    assert created <= started <= finished
    assert ended["rate"] > 0
    assert ended["eta_s"] is None
    listed = items(server, job["id"])
    assert all(set(item) == {"name", "status", "image_id", "error", "warnings"} for item in listed)
    assert {item["name"]: item["status"] for item in listed} == {
        "a.png": "done",
        "b.png": "duplicate",
        "c.txt": "failed",
        "d.png": "done",
    }
    assert listed[0]["image_id"] == listed[1]["image_id"]
    (bad,) = items(server, job["id"], status="failed")
    assert (bad["name"], bad["image_id"], bad["error"]["code"]) == ("c.txt", None, "unsupported_media_type")
    image = server.http.get(f"/v1/images/{listed[3]['image_id']}").json()
    assert (image["job_id"], image["source"], image["status"]) == (job["id"], "d.png", "ready")
    assert image["id"] in search_ids(server, "blue")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_are_taken_in_with_what_they_say_of_their_pictures(kind: str, server: RunningServer) -> None:
    pictures = {f"sub/{n}.png": make_picture("green") for n in range(3)}
    said = {
        "file": "sub/1.png",
        "id": f"from-{kind.replace('.', '-')}",
        "caption": "笑",
        "tags": ["t"],
        "metadata": {"a": 1},
    }
    members = {**pictures, "metadata.jsonl": json.dumps(said).encode()}
    content = make_zip(members) if kind == "zip" else make_tar(members, "w" if kind == "tar" else "w:gz")
    job = server.wait_job(server.bulk([(f"x.{kind}", content)])["id"])
    assert (job["state"], job["total"], job["done"]) == ("succeeded", 3, 3)
    image = server.http.get(f"/v1/images/{said['id']}").json()
    assert (image["caption"], image["tags"], image["metadata"]) == ("笑", ["t"], {"a": 1})
    assert server.http.get(f"/v1/images/{said['id']}/file").content == pictures["sub/1.png"]


@pytest.mark.parametrize(
    "said",
    [
        {"id": "../../x"},
        {"id": "x" * 65},
        {"caption": "x" * 3_000},
        {"tags": [f"tag {n}" for n in range(101)]},
        {"metadata": {"a": "x" * 20_000}},
        {"metadata": {"a": [[[[[[[[[1]]]]]]]]]}},
    ],
    ids=["id", "long id", "caption", "tags", "metadata", "depth"],
)
def test_what_does_not_fit_beside_a_picture_of_an_archive_is_cut_and_reported(
    said: dict[str, Any], server: RunningServer
) -> None:
    lines = json.dumps({"file": "odd.png", **said})
    content = make_zip({"good.png": make_picture(), "odd.png": make_picture(), "metadata.jsonl": lines.encode()})
    job = server.wait_job(server.bulk([("x.zip", content)])["id"])
    assert (job["done"], job["failed"], job["warned"]) == (2, 0, 1)
    (item,) = items(server, job["id"], warned="true")
    (field,) = said
    assert (item["name"], [one["field"] for one in item["warnings"]]) == ("odd.png", [field])
    image = server.http.get(f"/v1/images/{item['image_id']}").json()
    assert (image["caption"] or "") == said.get("caption", "")[:2000]
    assert image["metadata"] == ({"id": said["id"]} if field == "id" else {})
    assert items(server, job["id"], warned="true", status="done") == [item]
    assert items(server, job["id"], warned="true", status="failed") == []
    report = server.http.get(f"/v1/jobs/{job['id']}/items?warned=true&format=ndjson").text
    assert [json.loads(line) for line in report.splitlines()] == [item]


def test_a_duplicate_gets_the_caption_that_it_lacks_and_keeps_its_own(server: RunningServer) -> None:
    picture, captioned = make_picture(), make_picture()
    ids = [server.upload(picture).json()["id"], server.upload(captioned, caption="mine").json()["id"]]
    lines = '{"file": "a.png", "caption": "late"}\n{"file": "b.png", "caption": "other"}\n'
    content = make_zip({"a.png": picture, "b.png": captioned, "metadata.jsonl": lines.encode()})
    job = server.wait_job(server.bulk([("x.zip", content)])["id"])
    assert (job["duplicates"], job["warned"]) == (2, 2)
    told = {item["name"]: item["warnings"][0]["code"] for item in items(server, job["id"])}
    assert told == {"a.png": "filled", "b.png": "kept"}
    assert [server.http.get(f"/v1/images/{id}").json()["caption"] for id in ids] == ["late", "mine"]


def test_texts_sent_beside_their_pictures_are_captions(server: RunningServer) -> None:
    files = [("d/a.txt", b"a red square"), ("d/a.png", make_picture()), ("b.png", make_picture()), ("c.txt", b"alone")]
    job = server.wait_job(server.bulk(files)["id"])
    listed = {item["name"]: item for item in items(server, job["id"])}
    assert {name: item["status"] for name, item in listed.items()} == {
        "d/a.png": "done",
        "b.png": "done",
        "c.txt": "failed",
    }
    found = server.http.get(f"/v1/images/{listed['d/a.png']['image_id']}").json()
    assert found["caption"] == "a red square"


def test_files_of_other_kinds_in_an_archive_are_counted_and_no_failures(server: RunningServer) -> None:
    content = make_zip(
        {
            "a.png": make_picture(),
            "b.psd": b"x",
            "c/d.PSD": b"x",
            "e.avi": b"x",
            "readme.txt": b"x",
            "@eaDir/f.png": make_picture(),
        }
    )
    job = server.wait_job(server.bulk([("x.zip", content)])["id"])
    assert (job["total"], job["done"], job["failed"]) == (1, 1, 0)
    assert job["left_out"] == {".psd": 2, ".avi": 1, ".txt": 1}


def test_a_job_is_named_by_its_archive(server: RunningServer) -> None:
    archived = server.bulk([("trips/2026/lighthouses.zip", make_zip({"pics/a.png": make_picture()}))])
    assert archived["name"] == "lighthouses.zip"
    loose = server.bulk([("a.png", make_picture())])
    assert loose["name"] is None
    assert server.wait_job(loose["id"])["name"] is None


def test_an_id_of_an_archive_that_is_taken_fails_its_item_alone(server: RunningServer) -> None:
    old = make_picture()
    server.upload(old, id="archived")
    content = make_zip(
        {"a.png": make_picture(), "b.png": make_picture(), "metadata.jsonl": b'{"file": "a.png", "id": "archived"}'}
    )
    job = server.wait_job(server.bulk([("x.zip", content)])["id"])
    assert (job["done"], job["failed"]) == (1, 1)
    assert items(server, job["id"], status="failed")[0]["error"]["code"] == "id_conflict"
    assert server.http.get("/v1/images/archived/file").content == old


def test_the_same_picture_in_two_jobs_at_once_is_one(server: RunningServer) -> None:
    content = make_picture("yellow")
    ids = [server.bulk([("a.png", content)])["id"] for _ in range(5)]
    ended = [server.wait_job(id) for id in ids]
    assert sum(job["done"] for job in ended) == 1
    assert sum(job["duplicates"] for job in ended) == 4


def test_pages_of_items_hold_each_once_in_order(server: RunningServer) -> None:
    job = server.wait_job(server.bulk([(f"{n}.txt", b"text") for n in range(25)])["id"])
    assert job["failed"] == 25
    names: list[str] = []
    params: dict[str, Any] = {"limit": 10, "status": "failed"}
    while True:
        page = server.http.get(f"/v1/jobs/{job['id']}/items", params=params).json()
        names += [item["name"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert names == [f"{n}.txt" for n in range(25)]
    assert items(server, job["id"], status="done") == []
    for params in ({"status": "bad"}, {"limit": 0}, {"limit": 1001}):
        check_refusal(server.http.get(f"/v1/jobs/{job['id']}/items", params=params), 422, "validation")
    check_refusal(server.http.get(f"/v1/jobs/{job['id']}/items", params={"cursor": "!"}), 400, "bad_request")
    huge = "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk"
    check_refusal(server.http.get(f"/v1/jobs/{job['id']}/items", params={"cursor": huge}), 400, "bad_request")


def test_jobs_are_listed_newest_first(server: RunningServer) -> None:
    ids = [server.bulk([("a.png", make_picture())])["id"] for _ in range(3)]
    listed = server.http.get("/v1/jobs", params={"limit": 3}).json()["jobs"]
    assert [job["id"] for job in listed] == ids[::-1]
    assert set(listed[0]) == FIELDS
    check_refusal(server.http.get("/v1/jobs", params={"limit": 0}), 422, "validation")
    for id in ids:
        server.wait_job(id)


def test_events_tell_the_job_and_end_with_its_end(server: RunningServer) -> None:
    job = server.bulk([(f"{n}.png", make_picture()) for n in range(40)])
    with server.http.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        told = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    assert all(set(event) == FIELDS for event in told)
    assert [event["state"] in ("queued", "running") for event in told] == [True] * (len(told) - 1) + [False]
    assert (told[-1]["state"], told[-1]["done"]) == ("succeeded", 40)
    assert [event["done"] for event in told] == sorted(event["done"] for event in told)
    assert server.http.get(f"/v1/jobs/{job['id']}").json() == told[-1]


def test_events_of_a_finished_job_are_one_and_of_an_unknown_one_a_refusal(server: RunningServer) -> None:
    job = server.wait_job(server.bulk([("a.png", make_picture())])["id"])
    body = server.http.get(f"/v1/jobs/{job['id']}/events").text
    assert body.count("data: ") == 1
    check_refusal(server.http.get("/v1/jobs/nothing/events"), 404, "not_found")


def test_whoever_stops_listening_harms_nobody(server: RunningServer) -> None:
    job = server.bulk([(f"{n}.png", make_picture()) for n in range(30)])
    with server.http.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
        next(response.iter_lines())
    assert server.wait_job(job["id"])["done"] == 30


@pytest.fixture
def paused_job(guarded: Guarded) -> Iterator[dict[str, Any]]:
    """A job that does not end by itself."""
    sent = {"files": [("files", (f"{n}.png", make_picture())) for n in range(500)]}
    job: dict[str, Any] = guarded.ask("admin", "POST", "/v1/images/bulk", **sent).json()
    yield guarded.ask("admin", "POST", f"/v1/jobs/{job['id']}/pause").json()
    guarded.ask("admin", "POST", f"/v1/jobs/{job['id']}/cancel")


def test_a_stream_ends_with_the_key_of_its_reader(guarded: Guarded, paused_job: dict[str, Any]) -> None:
    assert paused_job["state"] == "paused"
    made, text = guarded.access.create("short", KeyScope.SEARCH)
    headers = {"Authorization": f"Bearer {text}", "X-Forwarded-For": guarded.address()}
    with guarded.server.http.stream("GET", f"/v1/jobs/{paused_job['id']}/events", headers=headers) as response:
        lines = response.iter_lines()
        assert [next(lines) for _ in range(2)][-1].startswith("data: ")
        guarded.access.revoke(made.id)
        guarded.ask("admin", "POST", f"/v1/jobs/{paused_job['id']}/resume")
        assert not [line for line in lines if line.startswith("data: ")]


def test_streams_are_limited_for_each_key_and_given_back(guarded: Guarded, paused_job: dict[str, Any]) -> None:
    address = urlsplit(guarded.server.url)
    head = (
        f"GET /v1/jobs/{paused_job['id']}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"X-API-Key: {guarded.keys['search']}\r\n\r\n"
    ).encode()

    def follow() -> tuple[socket.socket, int]:
        connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=20)
        connection.sendall(head)
        return connection, int(connection.recv(12)[9:])

    streams = [follow() for _ in range(65)]
    assert [status for _, status in streams] == [200] * 64 + [429]
    assert guarded.ask("search", "GET", f"/v1/jobs/{paused_job['id']}").is_success
    for connection, _ in streams:
        connection.close()

    def may_again() -> bool:
        connection, status = follow()
        connection.close()
        return status == 200

    wait_until(may_again, 30)
    assert "Traceback" not in guarded.server.output()


def test_all_who_follow_a_job_share_what_is_read() -> None:
    times = 0

    def read(id: str) -> Job:
        """The job as it is at this time; it ends at the fifth."""
        nonlocal times
        times += 1
        if times == 2:
            raise Overloaded("busy")
        return replace(JOB, state=JobState.SUCCEEDED if times >= 5 else JobState.RUNNING, done=times)

    async def call() -> None:
        events = JobEvents(read, ThreadPools(8), 8)

        async def follow() -> list[int]:
            return [job.done async for job in events.follow(JOB, 60) if job is not None]

        told = await asyncio.gather(*(follow() for _ in range(20)))
        assert told == [[1, 3, 4, 5]] * 20
        assert times == 5
        assert events._pollers == {}
        with events.count("a"), events.count("a"), pytest.raises(RateLimited), events.count("a"):
            pass

    asyncio.run(call())


@pytest.mark.parametrize("path", ["", "/items", "/events"])
def test_an_unknown_job_is_told_as_such(path: str, server: RunningServer) -> None:
    check_refusal(server.http.get(f"/v1/jobs/{'0' * 32}{path}"), 404, "not_found")


def test_a_bulk_without_files_is_refused(server: RunningServer) -> None:
    before = server.http.get("/v1/jobs").json()["jobs"][:1]
    check_refusal(post_form(server, "/v1/images/bulk", form([])), 422, "validation")
    other = form([file_part(make_picture(), name=b"other")])
    check_refusal(post_form(server, "/v1/images/bulk", other), 422, "validation")
    assert server.http.get("/v1/jobs").json()["jobs"][:1] == before


def test_a_bulk_for_another_collection_is_refused_and_leaves_nothing(server: RunningServer) -> None:
    response = server.http.post(
        "/v1/images/bulk", params={"collection": "x"}, files={"files": ("a.png", make_picture())}
    )
    check_refusal(response, 404, "not_found")
    response = server.http.post("/v1/images/bulk", data={"collection": "x"}, files={"files": ("a.png", make_picture())})
    check_refusal(response, 404, "not_found")
    check_refusal(post_form(server, "/v1/images/bulk?collection=A", form([])), 422, "validation")


def test_more_than_a_thousand_files_are_one_job_and_more_than_ten_thousand_are_refused(server: RunningServer) -> None:
    parts = [file_part(b"%d" % n, name=b"files", filename=b"%d.png" % n) for n in range(10_001)]
    check_refusal(post_form(server, "/v1/images/bulk", form(parts)), 413, "payload_too_large")
    response = post_form(server, "/v1/images/bulk", form(parts[:1_100]))
    assert response.status_code == 202, response.text
    job = server.wait_job(response.json()["id"])
    assert (job["total"], job["failed"]) == (1_100, 1_100)


def test_a_bulk_that_breaks_off_leaves_nothing(server: RunningServer) -> None:
    before = server.http.get("/v1/jobs").json()["jobs"][:1]
    body = form([file_part(make_picture(), name=b"files")], last=False)
    head = b"POST /v1/images/bulk HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=xxx\r\n"
    status, headers, answer = raw(server, head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert status == 400
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(answer)["code"] == "bad_request"
    assert server.http.get("/v1/jobs").json()["jobs"][:1] == before


def test_a_job_is_cancelled_and_taken_up_again(server: RunningServer) -> None:
    pictures = {f"{n}.png": make_picture("green") for n in range(300)}
    job = server.bulk([("many.zip", make_zip(pictures))])
    cancelled = server.http.post(f"/v1/jobs/{job['id']}/cancel")
    assert cancelled.status_code == 200
    ended = cancelled.json()
    assert ended["state"] == "cancelled"
    assert ended["done"] + ended["failed"] + ended["duplicates"] == ended["total"]
    assert server.http.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert {item["error"]["code"] for item in items(server, job["id"], status="failed")} <= {"cancelled"}
    again = server.http.post(f"/v1/jobs/{job['id']}/retry").json()
    assert again["failed"] == 0
    assert again["state"] == ("queued" if ended["failed"] else "cancelled")
    if ended["failed"]:
        assert server.wait_job(job["id"])["done"] == ended["total"]
    # What was not taken in can be sent again.
    whole = server.wait_job(server.bulk([("many.zip", make_zip(pictures))])["id"])
    assert (whole["state"], whole["done"] + whole["duplicates"]) == ("succeeded", 300)


@pytest.mark.parametrize("what", ["cancel", "retry"])
def test_a_job_that_is_not_there_cannot_be_steered(what: str, server: RunningServer) -> None:
    check_refusal(server.http.post(f"/v1/jobs/unknown/{what}"), 404, "not_found")


def test_a_paused_job_waits_over_a_restart_and_goes_on_when_it_is_resumed(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data", workers=0) as server:
        job = server.bulk([(f"{n}.png", make_picture()) for n in range(3)])
        assert job["priority"] == "normal"
        url = f"/v1/jobs/{job['id']}"
        paused_job = server.http.post(f"{url}/pause").json()
        assert (paused_job["state"], paused_job["eta_s"]) == ("paused", None)
        first = server.http.post(
            "/v1/images/bulk", params={"priority": "high"}, files={"files": ("a.png", make_picture())}
        ).json()
        assert first["priority"] == "high"
        check_refusal(server.http.post("/v1/images/bulk", params={"priority": "urgent"}), 422, "validation")
        check_refusal(server.http.post("/v1/jobs/nothing/pause"), 404, "not_found")
    with RunningServer(tmp_path / "data") as server:
        assert server.wait_job(first["id"])["done"] == 1
        waiting = server.http.get(url).json()
        assert (waiting["state"], waiting["done"], waiting["total"]) == ("paused", 0, 3)
        assert server.http.post(f"{url}/resume").json()["state"] in ("queued", "running")
        assert server.wait_job(job["id"])["done"] == 3
        ended = server.http.post(f"{url}/pause").json()
        assert ended["state"] == "succeeded"


def test_the_report_has_a_line_for_every_item_in_plain_ascii(server: RunningServer) -> None:
    names = ["=cmd|'/c calc'!A1.txt", "\u202egnp.txt", "new\u2028line.txt", "\x1b[31mred.txt", "笑.txt"]
    content = make_zip(dict.fromkeys(names, b"text") | {"good.png": make_picture()})
    job = server.wait_job(server.bulk([("x.zip", content)])["id"])
    url = f"/v1/jobs/{job['id']}/items"
    told = server.http.get(url, headers={"Accept": "application/x-ndjson"})
    assert told.headers["content-type"].startswith("application/x-ndjson")
    assert told.headers["content-disposition"] == f'attachment; filename="job-{job["id"]}.ndjson"'
    assert told.headers["x-content-type-options"] == "nosniff"
    assert told.content.isascii()
    assert set(told.content) - set(range(32, 127)) == {10}
    lines = [json.loads(line) for line in told.content.splitlines()]
    assert lines == items(server, job["id"])
    assert all(line.startswith(b"{") for line in told.content.splitlines())
    failed = server.http.get(url, params={"format": "ndjson", "status": "failed"}).content.splitlines()
    assert [json.loads(line) for line in failed] == [line for line in lines if line["status"] == "failed"]
    plain = server.http.get(url, params={"format": "json"}, headers={"Accept": "application/x-ndjson"})
    assert plain.json()["items"] == lines


def test_files_and_sources_are_added_to_a_job(server: RunningServer) -> None:
    first = server.bulk([("a.png", make_picture())])
    server.wait_job(first["id"])
    path, files = f"/v1/images/bulk?job={first['id']}", [("files", ("b.png", make_picture("blue")))]
    again = server.http.post(path, files=files)
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    ended = server.wait_job(first["id"])
    assert [ended[name] for name in ("state", "total", "done")] == ["succeeded", 2, 2]
    check_refusal(server.http.post(f"{path}&priority=high", files=files), 422, "validation")
    check_refusal(server.http.post("/v1/images/bulk?job=unknown", files=files), 404, "not_found")
    server.http.post("/v1/collections", json={"name": "elsewhere"})
    check_refusal(server.http.post(f"{path}&collection=elsewhere", files=files), 404, "not_found")
    server.http.delete("/v1/collections/elsewhere")


def test_a_job_counts_what_its_sender_left_out(server: RunningServer) -> None:
    files = [("files", ("a.png", make_picture("blue")))]
    bulk, sent = "/v1/images/bulk", {"left_out": '{".psd": 3}'}
    job = server.http.post(bulk, files=files, data=sent).json()
    assert job["left_out"] == {".psd": 3}
    more = server.http.post(bulk, params={"job": job["id"]}, files=files, data={"left_out": '{".psd": 1, ".mov": 2}'})
    assert more.json()["left_out"] == {".psd": 4, ".mov": 2}
    for wrong in ("[]", '{".psd": "3"}', '{".psd": 0}', '{".psd": 1, ".psd": 2}', f'{{"{"x" * 21}": 1}}'):
        check_refusal(server.http.post(bulk, files=files, data={"left_out": wrong}), 422, "validation")
