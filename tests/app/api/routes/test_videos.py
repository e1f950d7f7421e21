"""The routes of videos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.api.asking import check_refusal, make_picture
from tests.app.api.guarded import Guarded
from tests.support.servers import RunningServer
from tests.support.videos import make_video, mark_encrypted

SCENES = (("red", 2.0), ("blue", 2.0))


@pytest.fixture(scope="module")
def clip() -> bytes:
    return make_video(SCENES, metadata={"creation_time": "2023-07-04T10:00:00Z"})


@pytest.fixture(scope="module")
def cinema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("cinema")) as server:
        yield server


def send(server: RunningServer, content: bytes, name: str = "clip.mp4", **fields: Any) -> Any:
    return server.http.post("/v1/videos", files={"file": (name, content)}, data=fields)


@pytest.fixture(scope="module")
def video(cinema: RunningServer, clip: bytes) -> dict[str, Any]:
    """A video that is there; tests only read it."""
    sent = send(cinema, clip, caption="our trip", tags=["sea", "sun"], metadata='{"place": "Kiel"}')
    assert sent.status_code == 202
    job = cinema.wait_job(sent.json()["id"])
    assert (job["total"], job["done"], job["name"]) == (2, 2, "clip.mp4")
    found: dict[str, Any] = cinema.http.get(f"/v1/videos/{hashlib.sha256(clip).hexdigest()}").json()
    return found


def test_a_video_says_what_it_is_and_is_listed(cinema: RunningServer, video: dict[str, Any], clip: bytes) -> None:
    assert video == {
        "id": hashlib.sha256(clip).hexdigest(),
        "collection": "default",
        "source": "clip.mp4",
        "format": "mp4",
        "codec": "h264",
        "bytes": len(clip),
        "width": 96,
        "height": 64,
        "duration_ms": 3900,
        "frames": 2,
        "taken_at": "2023-07-04T10:00:00+00:00",
        "created_at": video["created_at"],
        "job_id": video["job_id"],
        "kept": True,
    }
    page = cinema.http.get("/v1/videos", params={"limit": 1}).json()
    assert [one["id"] for one in page["videos"]] == [video["id"]]
    check_refusal(cinema.http.get("/v1/videos/none"), 404, "not_found")
    check_refusal(cinema.http.get("/v1/videos", params={"collection": "none"}), 404, "not_found")
    check_refusal(cinema.http.get("/v1/videos", params={"limitt": 1}), 422, "validation")


def test_its_frames_are_pictures_that_a_search_finds_groups_and_filters(
    cinema: RunningServer, video: dict[str, Any]
) -> None:
    cinema.wait_job(cinema.bulk([("a.png", make_picture("red"))])["id"])
    within = json.dumps({"must": [{"key": "video_id", "match": {"value": video["id"]}}]})
    found = cinema.http.get("/v1/search", params={"q": "blue", "filter": within}).json()["hits"]
    best = found[0]["image"]
    assert (best["video_id"], best["source"], best["caption"]) == (video["id"], "clip.mp4", "our trip")
    assert (best["tags"], best["metadata"]) == (["sea", "sun"], {"place": "Kiel"})
    assert 2000 <= best["t_ms"] <= 2300
    assert best["taken_at"].startswith("2023-07-04T10:00:02")
    grouped = cinema.http.get("/v1/search", params={"q": "red", "group_by": "video_id"}).json()["hits"]
    assert sorted(bool(one["image"]["video_id"]) for one in grouped) == [False, True]
    listed = cinema.http.get("/v1/images", params={"filter": within, "order_by": "-t_ms"}).json()["images"]
    assert [one["t_ms"] for one in listed] == [best["t_ms"], 0]


def test_a_player_gets_the_range_that_it_asks_for(cinema: RunningServer, video: dict[str, Any], clip: bytes) -> None:
    url = f"/v1/videos/{video['id']}/file"
    whole = cinema.http.get(url)
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, clip, "video/mp4")
    assert (whole.headers["accept-ranges"], whole.headers["etag"]) == ("bytes", f'"{video["id"]}"')
    part = cinema.http.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, clip[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(clip)}"
    assert cinema.http.get(url, headers={"Range": "bytes=-5"}).content == clip[-5:]
    check_refusal(cinema.http.get(url, headers={"Range": f"bytes={len(clip)}-"}), 416, "bad_request")
    assert cinema.http.get(url, headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert cinema.http.head(url).headers["content-length"] == str(len(clip))


def test_a_video_is_refused_where_one_picture_is_expected_and_the_reverse(
    cinema: RunningServer, clip: bytes, tmp_path: Any
) -> None:
    refused = cinema.http.post("/v1/images", files={"file": ("a.mp4", clip)})
    assert "POST /v1/videos" in check_refusal(refused, 415, "unsupported_media_type")["detail"]
    check_refusal(send(cinema, make_picture()), 415, "unsupported_media_type")
    check_refusal(send(cinema, clip[:300]), 422, "video_corrupt")
    assert "encrypted" in check_refusal(send(cinema, mark_encrypted(clip)), 415, "unsupported_media_type")["detail"]
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    check_refusal(send(cinema, playlist), 415, "unsupported_media_type")
    check_refusal(send(cinema, clip, caption="x" * 2_001), 422, "validation")
    check_refusal(send(cinema, clip, id="mine"), 422, "validation")
    check_refusal(cinema.http.post("/v1/videos", data={"caption": "x"}), 415, "unsupported_media_type")


def test_deleting_a_video_takes_its_frames_out_of_searches(cinema: RunningServer) -> None:
    content = make_video((("green", 2.0), ("yellow", 2.0)), "webm")
    id = hashlib.sha256(content).hexdigest()
    cinema.wait_job(send(cinema, content, "gone.webm").json()["id"])
    dry = cinema.http.delete(f"/v1/videos/{id}", params={"dry_run": True})
    assert (dry.status_code, dry.json()["matched"], dry.json()["examples"][0]["frames"]) == (200, 1, 2)
    assert cinema.http.delete(f"/v1/videos/{id}").status_code == 204
    within = json.dumps({"must": [{"key": "video_id", "match": {"value": id}}]})
    assert cinema.http.get("/v1/search", params={"q": "green", "filter": within}).json()["hits"] == []
    check_refusal(cinema.http.get(f"/v1/videos/{id}/file"), 404, "not_found")
    check_refusal(cinema.http.delete(f"/v1/videos/{id}"), 404, "not_found")


def test_an_upload_with_the_same_key_is_one_job(cinema: RunningServer) -> None:
    content = make_video((("white", 2.0),))
    headers = {"Idempotency-Key": "the-same-video"}
    files = {"file": ("white.mp4", content)}
    jobs = [cinema.http.post("/v1/videos", files=files, headers=headers).json()["id"] for _ in range(2)]
    assert jobs[0] == jobs[1]


def test_a_server_that_takes_no_videos_says_so(tmp_path: Any, clip: bytes) -> None:
    with RunningServer(tmp_path / "data", video=False) as server:
        refused = server.http.post("/v1/videos", files={"file": ("a.mp4", clip)})
        assert "SIGHTLINE_VIDEO" in check_refusal(refused, 415, "unsupported_media_type")["detail"]
        assert server.http.get("/v1/sources").json()["videos"] is False


def test_a_key_of_another_collection_learns_nothing(guarded: Guarded) -> None:
    for path in ("/v1/videos?collection=elsewhere", f"/v1/videos/{'0' * 64}/file?collection=elsewhere"):
        check_refusal(guarded.ask("bound", "GET", path), 404, "not_found")
    check_refusal(guarded.ask("search", "DELETE", f"/v1/videos/{'0' * 64}"), 403, "forbidden")
