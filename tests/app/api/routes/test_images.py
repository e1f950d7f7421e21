"""Pictures over HTTP: what the contract says of adding, reading, changing and deleting them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from tests.app.api.asking import check_refusal, file_part, form, make_picture, post_form, raw, search_ids, upload_ready
from tests.support.sample_pictures import FORMATS, animation, sample
from tests.support.servers import RunningServer, wait_until

FIELDS = {
    "id",
    "collection",
    "sha256",
    "status",
    "error",
    "width",
    "height",
    "format",
    "bytes",
    "animated",
    "caption",
    "tags",
    "metadata",
    "source",
    "created_at",
    "job_id",
    "taken_at",
    "camera",
    "lens",
    "location",
    "ocr_text",
    "generated_caption",
    "video_id",
    "t_ms",
    "duplicate",
}


def test_an_upload_that_waits_is_ready_and_says_everything(server: RunningServer) -> None:
    content = make_picture("green")
    said: dict[str, Any] = {
        "id": "Full-1_x",
        "caption": "a green one",
        "tags": ["x", "y"],
        "metadata": '{"n": [1, {"m": null}]}',
    }
    response = server.upload(content, "a b.png", **said)
    assert response.status_code == 200, response.text
    image = response.json()
    assert set(image) == FIELDS
    created = datetime.fromisoformat(image.pop("created_at"))
    assert created.utcoffset() == timedelta(0)
    assert image == {
        "id": "Full-1_x",
        "collection": "default",
        "sha256": hashlib.sha256(content).hexdigest(),
        "status": "ready",
        "error": None,
        "width": 53,
        "height": 41,
        "format": "png",
        "bytes": len(content),
        "animated": False,
        "caption": "a green one",
        "tags": ["x", "y"],
        "metadata": {"n": [1, {"m": None}]},
        "source": "a b.png",
        "job_id": None,
        "duplicate": False,
        **dict.fromkeys(
            ["taken_at", "camera", "lens", "location", "ocr_text", "generated_caption", "video_id", "t_ms"]
        ),
    }
    assert server.http.get("/v1/images/Full-1_x").json() == response.json()


def test_an_upload_that_does_not_wait_is_accepted_and_becomes_ready(server: RunningServer) -> None:
    response = server.upload(make_picture(), wait=0)
    assert response.status_code == 202
    image = response.json()
    assert image["status"] in ("queued", "processing", "ready")
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", image["id"])
    wait_until(lambda: server.http.get(f"/v1/images/{image['id']}").json()["status"] == "ready", 20)


def test_ready_means_that_a_search_sent_afterwards_finds_it(server: RunningServer) -> None:
    for _ in range(5):
        assert upload_ready(server, "purple")["id"] in search_ids(server, "purple")


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_is_taken_and_served_byte_for_byte(kind: str, server: RunningServer) -> None:
    content = sample(kind, seed=77)
    image = server.upload(content, name=f"x.{kind}").json()
    assert (image["format"], image["status"], image["animated"]) == (kind, "ready", False)
    response = server.http.get(f"/v1/images/{image['id']}/file")
    assert response.content == content
    assert response.headers["content-type"] == f"image/{kind}"


def test_an_animation_is_recorded_as_one(server: RunningServer) -> None:
    image = server.upload(animation("gif", 4)).json()
    assert (image["status"], image["animated"], image["format"]) == ("ready", True, "gif")


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "x", ""])
def test_wait_is_bounded(wait: str, server: RunningServer) -> None:
    response = server.http.post("/v1/images", params={"wait": wait}, files={"file": ("a.png", make_picture())})
    check_refusal(response, 422, "validation")


def test_the_same_bytes_are_a_duplicate_and_keep_their_first_record(server: RunningServer) -> None:
    content = make_picture()
    first = server.upload(content, id="first-of-two", caption="one").json()
    response = server.upload(content, wait=0, id="second-of-two", caption="two")
    assert response.status_code == 200
    assert response.json() == {**first, "duplicate": True, "kept": ["caption", "id"]}
    check_refusal(server.http.get("/v1/images/second-of-two"), 404, "not_found")


def test_an_id_used_again_with_other_bytes_is_a_conflict_unless_replaced(server: RunningServer) -> None:
    red, blue = make_picture("red"), make_picture("blue")
    first = server.upload(red, id="taken", caption="old", tags="t").json()
    check_refusal(server.upload(blue, id="taken"), 409, "id_conflict")
    assert server.http.get("/v1/images/taken").json() == first

    response = server.http.post(
        "/v1/images",
        params={"wait": 30, "replace": "true"},
        files={"file": ("b.png", blue)},
        data={"id": "taken", "caption": "new"},
    )
    assert response.status_code == 200, response.text
    after = response.json()
    assert (after["id"], after["caption"], after["tags"], after["duplicate"]) == ("taken", "new", [], False)
    assert server.http.get("/v1/images/taken/file").content == blue
    hits = server.http.get("/v1/search", params={"q": "blue", "k": 1000}).json()["hits"]
    assert next(hit["score"] for hit in hits if hit["id"] == "taken") > 0.8
    assert server.upload(red, wait=0).json()["duplicate"] is False  # nothing is left of the old bytes


def test_a_replaced_picture_is_found_by_what_it_is_now_even_when_it_was_waiting(server: RunningServer) -> None:
    # The old bytes are claimed and being decoded when the new ones come.
    for id in ("waiting-1", "waiting-2"):
        job = server.bulk([(f"{n}.png", make_picture("green")) for n in range(60)])
        server.upload(make_picture("red"), wait=0, id=id)
        response = server.http.post(
            "/v1/images",
            params={"wait": 30, "replace": "true"},
            files={"file": ("b.png", make_picture("blue"))},
            data={"id": id},
        )
        assert response.status_code == 200, response.text
        server.wait_job(job["id"])
        hits = server.http.get("/v1/search", params={"q": "blue", "k": 1000}).json()["hits"]
        assert next(hit["score"] for hit in hits if hit["id"] == id) > 0.8


@pytest.mark.parametrize("id", ["", "x" * 64, "A-Z_09"])
def test_good_ids_are_taken(id: str, server: RunningServer) -> None:
    image = upload_ready(server, id=id)
    assert image["id"] == (id or image["id"])
    assert server.http.delete(f"/v1/images/{image['id']}").status_code == 204


@pytest.mark.parametrize(
    "id", ["x" * 65, "a b", "../x", "a/b", "ä", "a\n", "\n", "a\r\nX-Evil: 1", "a\0", "%2e", "a.b", "x" * 100_000]
)
def test_bad_ids_are_refused(id: str, server: RunningServer) -> None:
    check_refusal(server.upload(make_picture(), id=id), 422, "validation")


@pytest.mark.parametrize(
    "fields",
    [
        {"caption": "x" * 2_001},
        {"tags": ["x" * 101]},
        {"tags": [f"t{n}" for n in range(101)]},
        {"metadata": "[]"},
        {"metadata": "x"},
        {"metadata": '{"a": NaN}'},
        {"metadata": '{"a": Infinity}'},
        {"metadata": '{"a": 1e999}'},
        {"metadata": '{"a": "\\ud800"}'},
        {"metadata": '{"\\udfff": 1}'},
        {"metadata": '{"a": ' + "9" * 5_000 + "}"},
        {"metadata": '{"a":' * 9 + "1" + "}" * 9},
        {"metadata": '{"a":' + "[" * 900 + "]" * 900 + "}"},
        {"metadata": '{"a":' + "[" * 8_000 + "]" * 8_000 + "}"},
        {"metadata": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"},
        {"metadata": "[" * 100_000},
        {"metadata": json.dumps({"a": "x" * 16_384})},
        {"caption": ["one", "two"]},
        {"id": ["one", "two"]},
        {"metadata": ["{}", "{}"]},
        {"collection": "Not a name"},
        {"collection": ""},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_what_is_said_of_a_picture_is_bounded(fields: dict[str, Any], server: RunningServer) -> None:
    content = make_picture()
    response = server.upload(content, **fields)
    check_refusal(response, 422, "validation")
    assert server.upload(content).json()["duplicate"] is False


def test_bounds_are_inside(server: RunningServer) -> None:
    deep = {"a": [[[[[[[1]]]]]]]}
    image = upload_ready(
        server, caption="x" * 2_000, tags=[f"{n:0>100}" for n in range(100)], metadata=json.dumps(deep)
    )
    assert image["metadata"] == deep
    assert len(image["tags"]) == 100
    large = json.dumps({"a": "x" * (16_384 - 9)})
    assert len(upload_ready(server, metadata=large)["metadata"]["a"]) == 16_375


NAMES = [
    b"../../../etc/passwd",
    b"..\\..\\evil.png",
    b"/etc/passwd",
    b"a%00b.png",
    b"a\0b.png",
    b"x" * 65_000,
    "‮gnp.exe".encode(),
    "笑脸 😀.png".encode(),
    b"a%0d%0aX-Evil: 1.png",
    b"<script>alert(1)</script>.png",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
def test_a_file_name_is_only_text(name: bytes, server: RunningServer) -> None:
    content = make_picture()
    response = post_form(server, "/v1/images?wait=30", form([file_part(content, filename=name)]))
    if response.status_code != 200:
        assert response.status_code in (400, 422), response.text
        check_refusal(response, response.status_code, response.json()["code"])
        return
    image = response.json()
    assert "x-evil" not in response.headers
    names = [str(path.relative_to(server.data_dir)) for path in server.data_dir.rglob("*")]
    assert not [at for at in names if "evil" in at or "passwd" in at or "script" in at]
    served = server.http.get(f"/v1/images/{image['id']}/file")
    assert served.content == content
    assert "x-evil" not in served.headers
    assert server.http.get(f"/v1/images/{image['id']}").json()["source"] == image["source"]


def test_a_hundred_uploads_of_the_same_picture_at_once_are_one(server: RunningServer) -> None:
    content = make_picture("yellow")

    def send(n: int) -> dict[str, Any]:
        response = server.upload(content, wait=30)
        assert response.status_code == 200, response.text
        image: dict[str, Any] = response.json()
        return image

    with ThreadPoolExecutor(20) as threads:
        images = list(threads.map(send, range(100)))
    assert len({image["id"] for image in images}) == 1
    assert [image["duplicate"] for image in images].count(False) == 1
    assert search_ids(server, "yellow").count(images[0]["id"]) == 1


def test_a_hundred_uploads_of_other_bytes_under_one_id_are_one_and_conflicts(server: RunningServer) -> None:
    contents = [make_picture() for _ in range(40)]
    with ThreadPoolExecutor(20) as threads:
        responses = list(threads.map(lambda content: server.upload(content, wait=0, id="contested"), contents))
    accepted = [n for n, response in enumerate(responses) if response.status_code == 202]
    assert len(accepted) == 1
    for response in responses:
        if response.status_code != 202:
            check_refusal(response, 409, "id_conflict")
    assert server.http.get("/v1/images/contested/file").content == contents[accepted[0]]


def test_pages_hold_every_picture_once_newest_first(server: RunningServer) -> None:
    job = server.bulk([(f"{n}.png", make_picture()) for n in range(23)])
    server.wait_job(job["id"])
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 10}
    for _ in range(3):
        page = server.http.get("/v1/images", params=params).json()
        assert set(page) == {"images", "next_cursor", "total"}
        assert len(page["images"]) == 10
        seen += [image["source"] for image in page["images"]]
        params["cursor"] = page["next_cursor"]
        upload_ready(server)  # what comes meanwhile moves nothing
    assert seen[:23] == [f"{n}.png" for n in reversed(range(23))]
    while params["cursor"] is not None:
        page = server.http.get("/v1/images", params=params | {"limit": 1000}).json()
        params["cursor"] = page["next_cursor"]


def test_a_listing_counts_the_whole_when_asked(server: RunningServer) -> None:
    tag = f"counted-{uuid4().hex}"
    for _ in range(3):
        upload_ready(server, tags=[tag])
    in_all = server.http.get("/v1/stats").json()["images"]["total"]
    passing = json.dumps({"must": [{"key": "tags", "match": {"value": tag}}]})
    for filter, total in (({}, in_all), ({"filter": passing}, 3)):
        page = server.http.get("/v1/images", params={"limit": 1, "count": "true", **filter}).json()
        assert (len(page["images"]), page["total"]) == (1, total)
        assert server.http.get("/v1/images", params={"limit": 1, **filter}).json()["total"] is None


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "1.5", "9" * 400])
def test_a_page_size_is_bounded(limit: str, server: RunningServer) -> None:
    check_refusal(server.http.get("/v1/images", params={"limit": limit}), 422, "validation")


CURSORS = ["x", "!!!", "ä", "MQ==x", "", "=", "😀", "LTE", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk", "OTk" * 3000, "\0"]


@pytest.mark.parametrize("cursor", CURSORS, ids=lambda cursor: ascii(cursor)[:20])
def test_a_cursor_that_is_not_ours_is_refused(cursor: str, server: RunningServer) -> None:
    response = server.http.get("/v1/images", params={"cursor": cursor})
    if response.status_code == 200:  # it happens to name a position
        assert response.json()["next_cursor"] is None or response.json()["images"]
    else:
        check_refusal(response, 400, "bad_request")


def test_a_patch_changes_what_was_sent_and_leaves_the_rest(server: RunningServer) -> None:
    image = upload_ready(server, caption="old", tags=["a", "b"], metadata='{"n": 1}')
    path = f"/v1/images/{image['id']}"
    steps: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"caption": "new"}, {"caption": "new"}),
        ({"tags": ["c"]}, {"tags": ["c"]}),
        ({"metadata": {"m": {"x": [1.5, None]}}}, {"metadata": {"m": {"x": [1.5, None]}}}),
        ({"caption": None, "tags": None, "metadata": None}, {"caption": None, "tags": [], "metadata": {}}),
    ]
    expected = image
    for patch, change in steps:
        expected = {**expected, **change}
        response = server.http.patch(path, json=patch)
        assert (response.status_code, response.json()) == (200, expected)
    assert server.http.get(path).json() == expected


@pytest.mark.parametrize(
    "body",
    [
        {"id": "other"},
        {"status": "ready"},
        {"caption": 1},
        {"caption": "x" * 2_001},
        {"tags": "x"},
        {"tags": [""]},
        {"tags": [1]},
        {"tags": ["x"] * 101},
        {"metadata": []},
        {"metadata": {"a": "x" * 16_384}},
        {"metadata": {"a": [[[[[[[[1]]]]]]]]}},
        [],
        "x",
        None,
    ],
    ids=lambda body: str(body)[:30],
)
def test_a_bad_patch_is_refused_and_changes_nothing(body: Any, server: RunningServer) -> None:
    image = server.upload(sample("png", seed=4), id="patched").json()
    check_refusal(server.http.patch("/v1/images/patched", json=body), 422, "validation")
    assert server.http.get("/v1/images/patched").json() == {**image, "duplicate": False}


def test_patches_at_once_lose_nothing_of_each_other(server: RunningServer) -> None:
    image = upload_ready(server)
    path = f"/v1/images/{image['id']}"
    patches: list[dict[str, Any]] = [{"caption": "c"}, {"tags": ["t"]}, {"metadata": {"m": 1}}] * 5
    with ThreadPoolExecutor(15) as threads:
        answers = list(threads.map(lambda patch: server.http.patch(path, json=patch).status_code, patches))
    assert set(answers) == {200}
    after = server.http.get(path).json()
    assert (after["caption"], after["tags"], after["metadata"]) == ("c", ["t"], {"m": 1})


def test_a_deleted_picture_is_gone_at_once_everywhere(server: RunningServer) -> None:
    for _ in range(3):
        image = upload_ready(server, "black")
        path = f"/v1/images/{image['id']}"
        assert server.http.get(f"{path}/thumbnail", params={"size": 64}).status_code == 200
        response = server.http.delete(path)
        assert (response.status_code, response.content) == (204, b"")
        assert image["id"] not in search_ids(server, "black")
        for gone in (path, f"{path}/file", f"{path}/thumbnail"):
            check_refusal(server.http.get(gone), 404, "not_found")
        check_refusal(server.http.delete(path), 404, "not_found")
        check_refusal(server.http.patch(path, json={}), 404, "not_found")
        assert not [at for at in server.data_dir.rglob("*") if image["sha256"] in at.name]


def test_a_deleted_picture_can_come_again(server: RunningServer) -> None:
    content = make_picture("white")
    first = server.upload(content).json()
    server.http.delete(f"/v1/images/{first['id']}")
    again = server.upload(content).json()
    assert (again["status"], again["duplicate"]) == ("ready", False)
    assert again["id"] in search_ids(server, "white")


def test_a_picture_is_served_with_headers_that_keep_a_browser_from_running_it(server: RunningServer) -> None:
    image = upload_ready(server)
    headers = server.http.get(f"/v1/images/{image['id']}/file").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("sandbox")
    assert headers["content-disposition"].startswith("attachment")
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-type"] == "image/png"
    small = server.http.get(f"/v1/images/{image['id']}/thumbnail").headers
    assert small["x-content-type-options"] == "nosniff"
    assert small["content-security-policy"].startswith("sandbox")
    assert small["content-type"] == "image/webp"


def test_the_thumbnail_of_a_jpeg_is_a_jpeg(server: RunningServer) -> None:
    id = server.upload(sample("jpeg", 90, 60)).json()["id"]
    small = server.http.get(f"/v1/images/{id}/thumbnail")
    assert small.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(small.content)) as shown:
        assert (shown.format, shown.size) == ("JPEG", (90, 60))


def test_part_of_a_file_can_be_asked_for(server: RunningServer) -> None:
    content = make_picture()
    image = server.upload(content).json()
    response = server.http.get(f"/v1/images/{image['id']}/file", headers={"Range": "bytes=2-9"})
    assert (response.status_code, response.content) == (206, content[2:10])


@pytest.mark.parametrize(
    "value", ["bytes=x", "bytes=9999999-", "lines=1-2", "bytes=", "bytes=5-2", "bytes=" + "0-1," * 15_000 + "0-1"]
)
def test_an_odd_range_is_refused_in_our_shape_or_left_alone(value: str, server: RunningServer) -> None:
    content = make_picture()
    image = server.upload(content).json()
    response = server.http.get(f"/v1/images/{image['id']}/file", headers={"Range": value})
    assert response.status_code in (200, 206, 400, 416, 431), response.text
    if response.status_code == 200:
        assert response.content == content
    elif response.status_code in (400, 416) and value.count(",") < 1_000:
        check_refusal(response, response.status_code, "bad_request")


@pytest.mark.parametrize(
    ("size", "longest"), [(None, 320), (16, 64), (64, 64), (65, 128), (300, 320), (321, 512), (513, 600), (1024, 600)]
)
def test_a_thumbnail_has_the_next_size_that_is_made(size: int | None, longest: int, server: RunningServer) -> None:
    image = server.upload(sample("jpeg", width=600, height=300, seed=8)).json()
    params = {} if size is None else {"size": size}
    response = server.http.get(f"/v1/images/{image['id']}/thumbnail", params=params)
    assert response.status_code == 200, response.text
    with Image.open(io.BytesIO(response.content), formats=["JPEG"]) as opened:
        assert opened.size == (longest, longest // 2)


@pytest.mark.parametrize("size", ["15", "1025", "-1", "x", ""])
def test_a_thumbnail_size_is_bounded(size: str, server: RunningServer) -> None:
    image = server.upload(sample("jpeg", seed=9)).json()
    check_refusal(server.http.get(f"/v1/images/{image['id']}/thumbnail", params={"size": size}), 422, "validation")


def test_thumbnails_come_back_when_their_folder_was_deleted(server: RunningServer) -> None:
    image = upload_ready(server)
    path = f"/v1/images/{image['id']}/thumbnail"
    before = server.http.get(path).content
    shutil.rmtree(server.data_dir / "thumbnails")
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: server.http.get(path), range(16)))
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, before)] * 16
    shutil.rmtree(server.data_dir / "thumbnails")
    assert upload_ready(server, "blue")["status"] == "ready"


def test_a_file_that_was_removed_by_hand_is_told_as_missing(server: RunningServer) -> None:
    content = make_picture()
    image = server.upload(content).json()
    sha256 = image["sha256"]
    (server.data_dir / "media" / sha256[:2] / sha256[2:4] / sha256).unlink()
    check_refusal(server.http.get(f"/v1/images/{image['id']}/file"), 410, "blob_missing")
    assert server.upload(content).json()["duplicate"] is True  # which brings the bytes back
    assert server.http.get(f"/v1/images/{image['id']}/file").content == content


def test_a_file_that_was_altered_by_hand_is_never_served_and_an_upload_mends_it(server: RunningServer) -> None:
    content = make_picture()
    image = server.upload(content).json()
    path = f"/v1/images/{image['id']}/file"
    assert server.http.get(path).content == content  # known to be whole
    file = server.data_dir / "media" / image["sha256"][:2] / image["sha256"][2:4] / image["sha256"]
    held = file.stat()
    altered = bytearray(content)
    altered[-1] ^= 1
    file.write_bytes(altered)
    os.utime(file, ns=(held.st_atime_ns, held.st_mtime_ns))  # as if nothing had happened
    for headers in ({}, {"Range": "bytes=0-3"}):
        problem = check_refusal(server.http.get(path, headers=headers), 410, "blob_missing")
        assert "altered" in problem["detail"]
    assert server.upload(content).json()["duplicate"] is True
    assert server.http.get(path).content == content


IDS = [
    "nothing",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "%2e%2e",
    "a%0d%0ab",
    "%F0%9F%98%80",
    "x" * 5_000,
    "'; DROP TABLE images",
]


@pytest.mark.parametrize("id", IDS, ids=lambda id: id[:20])
@pytest.mark.parametrize("kind", ["images", "texts", "jobs", "collections"])
def test_unknown_ids_are_told_as_such(kind: str, id: str, server: RunningServer) -> None:
    response = server.http.get(f"/v1/{kind}/{id}")
    assert response.status_code in (404, 422), response.text
    check_refusal(response, response.status_code, "not_found" if response.status_code == 404 else "validation")


def test_a_path_cannot_leave_its_folder(server: RunningServer) -> None:
    for path in (b"/v1/images/../../../../etc/passwd/file", b"/v1/images/..%2f..%2fetc%2fpasswd/file", b"//v1//images"):
        status, _, body = raw(server, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert status == 404
        assert b"root:" not in body


@pytest.mark.parametrize("call", ["GET /v1/images", "POST /v1/images", "GET /v1/images/x", "DELETE /v1/images/x"])
def test_another_collection_is_not_there(call: str, server: RunningServer) -> None:
    method, path = call.split()
    files = {"file": ("a.png", make_picture())} if method == "POST" else None
    response = server.http.request(method, path, params={"collection": "other"}, files=files)
    check_refusal(response, 404, "not_found")
    check_refusal(server.http.request(method, path, params={"collection": "A B"}, files=files), 422, "validation")


def test_a_picture_that_fails_within_wait_is_refused_with_its_own_code(server: RunningServer) -> None:
    cut = make_picture("green")[:-40]
    key = {"Idempotency-Key": "of-a-picture-that-fails"}
    answers = [
        server.http.post("/v1/images?wait=30", files={"file": ("cut.png", cut)}, headers=key, data={"id": "fails"})
        for _ in range(2)
    ]
    for answer in answers:
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text
        problem = answer.json()
        assert (problem["code"], problem["image_id"], problem["retryable"]) == ("image_corrupt", "fails", False)
        assert problem["request_id"] == answer.headers["x-request-id"]
    assert "idempotent-replayed" in answers[1].headers
    image = server.http.get("/v1/images/fails").json()
    assert image["error"] == {"code": "image_corrupt", "detail": answers[0].json()["detail"]}


def test_a_duplicate_says_what_it_filled_and_what_it_kept(server: RunningServer) -> None:
    content = make_picture("blue")
    first = server.upload(content, id="plain", tags=["a"]).json()
    assert not {"filled", "kept", "warnings"} & set(first)
    answer = server.upload(content, caption="our cat", tags=["b"], metadata='{"n": 1}').json()
    assert (answer["duplicate"], answer["filled"], answer["kept"]) == (True, ["caption", "metadata"], ["tags"])
    image = server.http.get("/v1/images/plain").json()
    assert (image["caption"], image["tags"], image["metadata"]) == ("our cat", ["a"], {"n": 1})
