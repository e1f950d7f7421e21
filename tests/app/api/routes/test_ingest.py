"""Pictures by URL over HTTP, from a web server of the test's own."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from app.cli.client import Client
from app.cli.upload import ingest_paths, ingest_urls
from tests.app.api.asking import check_refusal, make_picture, search_ids
from tests.app.sources.moved import clip_retrieval, paint, vectors
from tests.support.archives import make_tar
from tests.support.assistants import be_refused, connect_http, use
from tests.support.object_stores import WHO, Store
from tests.support.servers import RunningServer, wait_until
from tests.support.web_servers import WebServer, content, status

NDJSON = "application/x-ndjson"


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[RunningServer]:
    """A server that may fetch from the loopback."""
    folder = tmp_path_factory.mktemp("fetching")
    album = tmp_path_factory.mktemp("albums")
    settings: dict[str, Any] = {
        "fetch": True,
        "fetch_also": "127.0.0.1",
        "max_urls": 500,
        "fetch_seconds": 5,
        "folders": album,
        "buckets": "s3://photos/server",
        "s3_endpoint": store.url,
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in WHO.items():
            environment.setenv(name, value)
        running = RunningServer(folder, **settings)
    with running:
        running.album = album  # type: ignore[attr-defined]
        yield running


def wait_until_nothing_is_left(server: RunningServer) -> None:
    """Of what was imported; it is deleted soon after the job has ended."""
    wait_until(lambda: not list((server.data_dir / "media" / ".incoming").iterdir()), 30)


def urls(server: RunningServer, items: list[dict[str, Any]], **more: Any) -> httpx.Response:
    return server.http.post("/v1/images/ingest", json={"source": "urls", "items": items, **more})


def lines(server: RunningServer, text: bytes) -> httpx.Response:
    return server.http.post("/v1/images/ingest", content=text, headers={"Content-Type": NDJSON})


def items(server: RunningServer, id: str) -> list[tuple[str, str, str | None]]:
    listed = server.http.get(f"/v1/jobs/{id}/items", params={"limit": 1000}).json()["items"]
    return [(item["name"], item["status"], item["error"] and item["error"]["code"]) for item in listed]


def test_pictures_come_by_url_with_what_is_said_of_them(fetching: RunningServer, web: WebServer) -> None:
    red = make_picture("red")
    web.pages |= {"/red": content(red), "/moved": status(302, Location="/red"), "/words": content(b"no picture")}
    asked: list[dict[str, Any]] = [
        {"url": f"{web.url}/red", "id": "by-url", "caption": "红", "tags": ["t"], "metadata": {"n": 1}},
        {"url": f"{web.url}/moved"},
        {"url": f"{web.url}/words"},
        {"url": f"{web.url}/nothing"},
        {"url": "http://10.0.0.1/a.png"},
        {"url": f"{web.url}/red", "id": "no id!"},
    ]
    answer = urls(fetching, asked)
    assert answer.status_code == 202
    assert (answer.json()["kind"], answer.json()["total"]) == ("urls", 6)
    job = fetching.wait_job(answer.json()["id"])
    assert [job[name] for name in ("state", "total", "done", "duplicates", "failed")] == ["succeeded", 6, 1, 2, 3]
    assert items(fetching, job["id"]) == [
        (f"{web.url}/red", "done", None),
        (f"{web.url}/moved", "duplicate", None),
        (f"{web.url}/words", "failed", "unsupported_media_type"),
        (f"{web.url}/nothing", "failed", "url_unreachable"),
        ("http://10.0.0.1/a.png", "failed", "url_not_allowed"),
        (f"{web.url}/red", "duplicate", None),
    ]
    image = fetching.http.get("/v1/images/by-url").json()
    assert (image["caption"], image["tags"], image["metadata"], image["source"]) == (
        "红",
        ["t"],
        {"n": 1},
        f"{web.url}/red",
    )
    assert fetching.http.get("/v1/images/by-url/file").content == red
    assert "by-url" in search_ids(fetching, "red")
    wait_until_nothing_is_left(fetching)


def test_an_assistant_adds_a_picture_by_its_url(fetching: RunningServer, web: WebServer) -> None:
    web.pages |= {"/noted": content(make_picture("purple")), "/noise": content(b"no picture")}

    async def work() -> None:
        async with connect_http(fetching.url, "auto") as client:
            added = await use(client, "add_picture", url=f"{web.url}/noted", caption="a note", tags=["kept"])
            assert (added["status"], added["caption"], added["tags"]) == ("ready", "a note", ["kept"])
            again = await use(client, "add_picture", url=f"{web.url}/noted")
            assert again["id"] == added["id"]
            assert "(unsupported_media_type)" in await be_refused(client, "add_picture", url=f"{web.url}/noise")
            foreign = await be_refused(client, "add_picture", url="http://10.0.0.1/a.png")
            assert "(url_not_allowed); give the picture as `data`" in foreign

    asyncio.run(work())


def test_long_lists_come_line_by_line_and_a_second_time_cost_no_download(
    fetching: RunningServer, web: WebServer
) -> None:
    for n in range(150):
        web.pages[f"/many/{n}"] = content(make_picture("green"), ETag=f'"{n}"')
    text = b"\n".join(json.dumps({"url": f"{web.url}/many/{n}"}).encode() for n in range(150)) + b"\n\n"
    first = fetching.wait_job(lines(fetching, text).json()["id"])
    assert (first["state"], first["total"], first["done"]) == ("succeeded", 150, 150)
    second = fetching.wait_job(lines(fetching, text).json()["id"])
    assert (second["total"], second["duplicates"]) == (150, 150)
    assert web.headers["/many/7"]["If-None-Match"] == '"7"'


def test_a_folder_of_the_server_is_taken_and_again_what_is_new(fetching: RunningServer) -> None:
    album: Path = fetching.album  # type: ignore[attr-defined]
    for n in range(3):
        (album / f"{n}.png").write_bytes(make_picture("blue"))
    (album / "3.png").write_bytes(b"no picture")
    (album / "notes.txt").write_bytes(b"x")

    def take(path: Path = album) -> dict[str, Any]:
        answer = fetching.http.post("/v1/images/ingest", json={"source": f"folder:{path}"})
        assert answer.status_code == 202, answer.text
        return fetching.wait_job(answer.json()["id"])

    first = take()
    assert [first[name] for name in ("kind", "state", "total", "done", "failed")] == ["folder", "succeeded", 4, 3, 1]
    assert items(fetching, first["id"])[0] == (f"{album.name}/0.png", "done", None)
    (album / "1.png").write_bytes(make_picture("green"))
    again = take()
    assert [again[name] for name in ("state", "total", "done", "failed")] == ["succeeded", 2, 1, 1]
    wait_until_nothing_is_left(fetching)
    (album / "1.png").unlink()
    assert take()["total"] == 1
    out = io.StringIO()
    (album / "2.png").write_bytes(make_picture("red"))
    with Client(fetching.url) as client:
        assert ingest_paths(client, [f"folder:{album}"], Console(file=out)) == 1
    assert "1 loaded, 0 already there, 1 failed" in out.getvalue()
    for path in ("/etc", "relative", f"{album}/.."):
        answer = fetching.http.post("/v1/images/ingest", json={"source": f"folder:{path}"})
        check_refusal(answer, 422, "validation")


def test_a_bucket_is_taken_and_again_what_is_new(fetching: RunningServer, store: Store) -> None:
    for n in range(3):
        store.put("photos", f"server/many/{n}.png", make_picture("blue"))
    store.put("photos", "server/many/words.png", b"no picture")
    answer = fetching.http.post("/v1/images/ingest", json={"source": "s3://photos/server/many"})
    assert (answer.status_code, answer.json()["kind"]) == (202, "s3")
    job = fetching.wait_job(answer.json()["id"])
    assert [job[name] for name in ("state", "total", "done", "failed")] == ["succeeded", 4, 3, 1]
    assert items(fetching, job["id"])[-1] == ("s3://photos/server/many/words.png", "failed", "unsupported_media_type")
    store.put("photos", "server/many/1.png", make_picture("green"))
    store.delete("photos", "server/many/words.png")
    out = io.StringIO()
    with Client(fetching.url) as client:
        assert ingest_paths(client, ["s3://photos/server"], Console(file=out)) == 0
    assert "1 loaded, 0 already there, 0 failed" in out.getvalue()
    for source in (
        "s3://photos",
        "s3://photos/server/..",
        "gs://photos/server",
        "s3:photos",
        "s3://127.0.0.1:1/server",
    ):
        answer = fetching.http.post("/v1/images/ingest", json={"source": source})
        assert store.url not in check_refusal(answer, 422, "validation")["detail"]
    answer = fetching.http.post("/v1/images/ingest", json={"source": "s3://photos/server", "endpoint": "http://a"})
    check_refusal(answer, 422, "validation")


def test_a_webdataset_of_the_server_and_one_that_is_sent(fetching: RunningServer, tmp_path: Path) -> None:
    album: Path = fetching.album  # type: ignore[attr-defined]
    shards = album / "shards"
    shards.mkdir()
    for shard in range(2):
        members: dict[str, bytes] = {}
        for n in range(70):
            members[f"{shard}{n:04}.png"] = make_picture("green")
            members[f"{shard}{n:04}.txt"] = b"green"
        members |= {f"{shard}9999.png": b"no picture", f"{shard}9999.json": b"{"}
        (shards / f"0000{shard}.tar").write_bytes(make_tar(members))

    def take() -> dict[str, Any]:
        body = {"source": f"webdataset:{shards}/{{00000..00001}}.tar", "key_as_id": True}
        return fetching.wait_job(fetching.http.post("/v1/images/ingest", json=body).json()["id"])

    job = take()
    assert [job[name] for name in ("kind", "state", "total", "done", "failed")] == [
        "webdataset",
        "succeeded",
        142,
        140,
        2,
    ]
    image = fetching.http.get("/v1/images/10069").json()
    assert (image["caption"], image["source"]) == ("green", "00001.tar/10069.png")
    assert take()["total"] == 2
    sent = tmp_path / "sent.tar"
    sent.write_bytes(
        make_tar({"a.png": make_picture("red"), "a.txt": b"sent", "a.json": b'{"tags": ["x"]}', "b.txt": b"alone"})
    )
    out = io.StringIO()
    with Client(fetching.url) as client:
        ingest_paths(client, [str(sent)], Console(file=out))
    assert "1 loaded" in out.getvalue()
    newest = fetching.http.get("/v1/images?limit=1").json()["images"][0]
    assert (newest["caption"], newest["tags"]) == ("sent", ["x"])


def test_a_table_of_the_server(fetching: RunningServer, web: WebServer) -> None:
    album: Path = fetching.album  # type: ignore[attr-defined]
    web.pages["/row"] = content(make_picture("red"))
    rows = [{"photo": make_picture("blue"), "name": f"blue {n}", "sku": n, "n": n} for n in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), album / "shop.parquet", row_group_size=40)
    (album / "shop.csv").write_text(f"url,text\n{web.url}/row,=1+1\nhttp://10.0.0.1/,x\n{web.url}/row\n")

    def take(**body: Any) -> dict[str, Any]:
        return fetching.wait_job(fetching.http.post("/v1/images/ingest", json=body).json()["id"])

    columns = {"image": "photo", "caption": "name", "id": "sku"}
    job = take(source=f"table:{album}/shop.parquet", columns=columns)
    assert [job[name] for name in ("kind", "state", "total", "done")] == ["table", "succeeded", 100, 100]
    image = fetching.http.get("/v1/images/99").json()
    assert (image["caption"], image["metadata"], image["source"]) == ("blue 99", {"n": 99}, "shop.parquet:100")
    assert take(source=f"table:{album}/*.parquet", columns=columns)["total"] == 0
    job = take(source=f"table:{album}/shop.csv")
    assert items(fetching, job["id"]) == [
        (f"{web.url}/row", "done", None),
        ("http://10.0.0.1/", "failed", "url_not_allowed"),
        (f"{web.url}/row", "duplicate", None),  # without its last cell
    ]
    assert fetching.http.get("/v1/images?limit=1").json()["images"][0]["caption"] == "=1+1"
    asked = fetching.http.post("/v1/images/ingest", json={"source": f"table:{album}", "columns": {"x": "y"}})
    check_refusal(asked, 422, "validation")


def test_a_folder_with_all_that_people_keep_in_it(fetching: RunningServer) -> None:
    root: Path = fetching.album / "nas"  # type: ignore[attr-defined]
    (root / "@eaDir" / "a.jpg").mkdir(parents=True)
    (root / "thumbs").mkdir()
    for name in ("a.jfif", "b.jpe", "IMG_0003", "long.png", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "thumbs/t.png"):
        (root / name).write_bytes(make_picture("red"))
    for name in ("x.psd", "y.PSD", "z.avi", "readme.txt"):
        (root / name).write_bytes(b"x")
    (root / "a.txt").write_text("a red square")
    (root / "b.json").write_text('{"tags": ["one"], "stars": 3}')
    (root / "long.txt").write_text("x" * 3_000)
    (root / "linked").symlink_to("/tmp", target_is_directory=True)
    body = {"source": f"folder:{root}", "exclude": ["thumbs"]}
    answer = fetching.http.post("/v1/images/ingest", json=body)
    assert answer.status_code == 202, answer.text
    job = fetching.wait_job(answer.json()["id"])
    assert [job[name] for name in ("total", "done", "failed", "warned")] == [4, 4, 0, 1]
    assert job["left_out"] == {".psd": 2, ".avi": 1, ".txt": 1}
    assert [warning["code"] for warning in job["warnings"]] == ["link"]
    listed = fetching.http.get(f"/v1/jobs/{job['id']}/items").json()["items"]
    found = {item["name"]: fetching.http.get(f"/v1/images/{item['image_id']}").json() for item in listed}
    assert found["nas/a.jfif"]["caption"] == "a red square"
    assert (found["nas/b.jpe"]["tags"], found["nas/b.jpe"]["metadata"]) == (["one"], {"stars": 3})
    assert len(found["nas/long.png"]["caption"]) == 2_000
    assert fetching.wait_job(fetching.http.post("/v1/images/ingest", json=body).json()["id"])["total"] == 0
    check_refusal(fetching.http.post("/v1/images/ingest", json={"source": "urls", "exclude": ["x"]}), 422, "validation")


def test_retry_brings_what_never_came_and_says_what_stays(fetching: RunningServer, web: WebServer) -> None:
    asked = [{"url": f"{web.url}/later/{n}", "caption": f"late {n}"} for n in range(3)]
    web.pages["/words/later"] = content(b"no picture")
    job = fetching.wait_job(urls(fetching, [*asked, {"url": f"{web.url}/words/later"}]).json()["id"])
    assert (job["failed"], job["total"]) == (4, 4)
    for n in range(3):
        web.pages[f"/later/{n}"] = content(make_picture("blue"))
    answer = fetching.http.post(f"/v1/jobs/{job['id']}/retry").json()
    assert (answer["total"], answer["failed"], answer["state"]) == (4, 1, "queued")
    assert [warning["code"] for warning in answer["warnings"]] == ["not_retried"]
    job = fetching.wait_job(job["id"])
    assert [job[name] for name in ("state", "total", "done", "failed")] == ["succeeded", 4, 3, 1]
    assert [status for _, status, _ in items(fetching, job["id"])] == ["failed", "done", "done", "done"]
    newest = fetching.http.get("/v1/images?limit=1").json()["images"][0]
    assert newest["caption"].startswith("late ")
    again = fetching.http.post(f"/v1/jobs/{job['id']}/retry").json()
    assert (again["state"], again["failed"]) == ("succeeded", 1)


def test_an_output_of_clip_retrieval_is_taken_with_its_vectors(fetching: RunningServer) -> None:
    old: Path = fetching.album / "moved"  # type: ignore[attr-defined]
    paths = paint(old / "images", 20)
    made = vectors(paths)
    made += np.random.default_rng(1).normal(size=made.shape).astype(np.float32) * 0.03 / made.shape[1] ** 0.5
    (old / "images" / "torn.png").write_bytes(paths[0].read_bytes()[:60])
    made = np.concatenate([made, made[:1]])
    names = [str(path.relative_to(old / "images")) for path in paths] + ["torn.png"]
    clip_retrieval(
        old / "embeddings", [f"/home/somebody/images/{name}" for name in names], made, caption=["a square"] * 21
    )
    fetching.http.post("/v1/collections", json={"name": "moved"})
    space = fetching.http.get("/v1/models").json()["loaded"]["space"]
    asked = {"source": f"clip-retrieval:{old}/embeddings", "pictures": f"{old}/images", "collection": "moved"}
    for wrong in ("0" * 16, "colours"):
        answer = fetching.http.post("/v1/images/ingest", json={**asked, "embeddings_of": wrong})
        assert "embeddings" in check_refusal(answer, 422, "validation")["detail"]
    out = io.StringIO()
    options = {"pictures": f"{old}/images", "embeddings_of": space}
    with Client(fetching.url, collection="moved") as client:
        assert ingest_paths(client, [asked["source"]], Console(file=out), options) == 1
    assert "20 loaded, 0 already there, 1 failed" in out.getvalue()
    assert "image_corrupt" in out.getvalue()
    body = {"query": [{"vector": made[7].tolist()}], "k": 1, "collection": "moved"}
    (hit,) = fetching.http.post("/v1/search", json=body).json()["hits"]
    assert hit["image"]["source"] == "/home/somebody/images/00001/000000007.png"
    assert hit["score"] > 0.99999  # which that of a new embedding would not be
    assert (hit["image"]["caption"], hit["image"]["width"]) == ("a square", 32)
    assert fetching.http.get(f"/v1/images/{hit['id']}/thumbnail", params={"collection": "moved"}).status_code == 200


def test_the_command_line_has_a_list_fetched(fetching: RunningServer, web: WebServer) -> None:
    web.pages["/cli"] = content(make_picture("blue"))
    out = io.StringIO()
    with Client(fetching.url) as client:
        listed = f'{web.url}/cli\n\n{{"url": "http://10.0.0.1/"}}'
        assert ingest_urls(client, io.BytesIO(listed.encode()), Console(file=out)) == 1
    assert "1 loaded, 0 already there, 1 failed" in out.getvalue()
    assert "url_not_allowed" in out.getvalue()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "got none"),
        (b"\n\n", "got none"),
        (b'{"url": "http://a/"}\nno json\n', "line 2"),
        (b'{"url": "http://a/"}\n["http://b/"]\n', "line 2"),
        (b'{"url": 5}', "line 1"),
        (b'{"caption": "no url"}', "line 1"),
        (b'{"url": "http://a/", "capton": "x"}', "capton"),
        (b'{"url": "http://a/"}\n' + b"x" * 70_000, "line 2 is longer"),
        (b'{"url": "http://a/"}\n' * 501, "1 to 500"),
        (b"[" * 50_000, "line 1"),
    ],
    ids=range(10),
)
def test_lists_that_cannot_be_read_are_refused_whole(body: bytes, told: str, fetching: RunningServer) -> None:
    assert told in check_refusal(lines(fetching, body), 422, "validation")["detail"]


def test_bodies_of_other_kinds_are_refused(fetching: RunningServer) -> None:
    check_refusal(urls(fetching, []), 422, "validation")
    check_refusal(urls(fetching, [{"url": "http://a/"}], collection="NO!"), 422, "validation")
    check_refusal(urls(fetching, [{"url": "http://a/"}], collection="missing"), 404, "not_found")
    post = fetching.http.post
    check_refusal(post("/v1/images/ingest", json={"source": "folder:/etc", "items": []}), 422, "validation")
    check_refusal(post("/v1/images/ingest", json={"source": "webdataset:/etc/{0..9}.tar"}), 422, "validation")
    check_refusal(urls(fetching, [{"url": "http://a/"}], key_as_id=True), 422, "validation")
    check_refusal(
        post("/v1/images/ingest", content=b"{", headers={"Content-Type": "application/json"}), 400, "bad_request"
    )
    check_refusal(
        post("/v1/images/ingest", content=b"a,b", headers={"Content-Type": "text/csv"}), 415, "unsupported_media_type"
    )
    many = [{"url": "http://a/" + "a" * 2_000}] * 600
    check_refusal(urls(fetching, many), 413, "payload_too_large")


def test_nothing_is_fetched_unless_the_operator_allows_it(server: RunningServer) -> None:
    problem = check_refusal(urls(server, [{"url": "http://1.1.1.1/"}]), 422, "url_not_allowed")
    assert "SIGHTLINE_FETCH" in problem["detail"]


def test_what_is_allowed_is_told(fetching: RunningServer, server: RunningServer) -> None:
    album = str(fetching.album)  # type: ignore[attr-defined]
    told = fetching.http.get("/v1/sources").json()
    assert (told["urls"], told["folders"], told["max_urls"]) == (True, [album], 500)
    limits = ("max_upload_bytes", "max_archive_bytes", "max_archive_members", "max_image_bytes")
    assert [told[name] for name in limits] == [4 << 30, 2 << 30, 10_000, 96 << 20]
    told = server.http.get("/v1/sources").json()
    assert (told["urls"], told["folders"]) == (False, [])
