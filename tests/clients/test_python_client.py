from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pytest
from PIL import Image
from pydantic import BaseModel
from sightline_client import (
    ApiError,
    AsyncClient,
    Client,
    ConnectionFailed,
    JobFailed,
    NamedPicture,
    NotSightline,
    QueryPart,
    UploadProgress,
)
from sightline_client.events import Event, EventReader
from sightline_client.models import NewText, SearchQuery, SearchResult
from sightline_client.retry import Patience, read_retry_after

from tests.support.servers import RunningServer

CLIENT = Path(__file__).parents[2] / "clients" / "python"
JOB = {"id": "j", "collection": "default", "kind": "upload", "state": "failed", "priority": "normal", "total": 0}
JOB |= {"done": 0, "failed": 0, "duplicates": 0, "created_at": "x", "started_at": None, "finished_at": None}


def make_picture(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def client(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client in a collection of this test alone."""
    with Client(server.url, collection=f"c{abs(hash(request.node.name)) % 10**9}") as one:
        one.create_collection(name=one.collection or "", description=None)
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one of them further down, a file that is none, and two that are left out."""
    root = tmp_path / "photos"
    (root / "2019").mkdir(parents=True)
    (root / ".hidden").mkdir()
    (root / "red.png").write_bytes(make_picture("red"))
    (root / "2019" / "blue.png").write_bytes(make_picture("blue"))
    (root / "broken.jpg").write_bytes(b"no picture")
    (root / "notes.txt").write_text("nothing")
    (root / ".hidden" / "green.png").write_bytes(make_picture("green"))
    return root


class Script:
    """A server that gives one answer after the other: (status, headers, body), or None to close the connection."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Mapping[str, str], bytes] | None] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                script.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                script.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                if (answer := script.answers.pop(0)) is None:
                    self.close_connection = True
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def script() -> Iterator[Script]:
    one = Script()
    thread = threading.Thread(target=one.http.serve_forever, args=(0.01,))
    thread.start()
    yield one
    one.http.shutdown()
    thread.join()
    one.http.server_close()


def to_json(status: int, body: Any, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()


def to_events(*events: tuple[BaseModel | Mapping[str, Any], int | None]) -> tuple[int, Mapping[str, str], bytes]:
    """A stream with these records and their ids, which breaks in the middle of another event."""
    lines = [
        f"data: {json.dumps(one) if isinstance(one, Mapping) else one.model_dump_json(by_alias=True)}\n"
        + ("" if id is None else f"id: {id}\n")
        for one, id in events
    ]
    body = "\n".join([*lines, 'data: {"id"'])
    return 200, {"Content-Type": "text/event-stream", "Content-Length": str(len(body) + 99)}, body.encode()


BUSY = to_json(503, {"code": "overloaded", "detail": "too many"}, **{"Retry-After": "0"})


def test_generated_modules_are_those_of_this_api() -> None:
    spec = importlib.util.spec_from_file_location("generate", CLIENT / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    texts = generate.write_all(generate.read_document())
    stale = [path.name for path, text in texts.items() if path.read_text("utf-8") != text]
    assert not stale, "run .venv/bin/python clients/python/generate.py"
    assert "async def search_by_parts" in texts[generate.PACKAGE / "aio" / "calls.py"]
    assert "async" not in texts[generate.PACKAGE / "sync" / "calls.py"]
    names = re.findall(r"^class (\w+)", texts[generate.PACKAGE / "models.py"], re.MULTILINE)
    assert [name for name in names if "_" in name] == []


def test_a_folder_is_sent_once(client: Client, folder: Path) -> None:
    seen: list[tuple[int, int]] = []

    def describe(path: Path) -> dict[str, Any] | None:
        return {"caption": "a red square", "tags": ["square"]} if path.stem == "red" else None

    def note(progress: UploadProgress) -> None:
        seen.append((progress.sent, progress.done))

    report = client.upload_folder(folder, describe=describe, progress=note)
    assert (report.total, report.sent, report.done, report.duplicates, report.failed) == (3, 3, 2, 0, 1)
    assert [item.name for item in report.failures] == ["broken.jpg"]
    assert len(report.jobs) == 1
    assert seen[-1] == (3, 2)
    images = {image.source: image for image in client.iter_images()}
    assert set(images) == {"pictures.zip/red.png", "2019/blue.png"} or set(images) == {"red.png", "2019/blue.png"}
    assert [image.caption for image in images.values() if image.tags] == ["a red square"]
    again = client.upload_folder(folder, describe=describe)
    assert (again.done, again.duplicates, again.failed) == (0, 2, 1)
    with pytest.raises(NotADirectoryError):
        client.upload_folder(folder / "red.png")


def refuse_to_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)


def test_an_unreadable_file_is_told(client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_read(monkeypatch, "red.png")
    report = client.upload_folder(folder)
    assert report.unreadable == {"red.png": "Permission denied"}
    assert report.failed == 2


@pytest.mark.parametrize("form", ["path", "text", "bytes", "file", "named", "pillow"])
def test_a_picture_is_taken_in_every_form(form: str, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "teal.png"
    path.write_bytes(make_picture("teal"))
    content = path.read_bytes()
    with path.open("rb") as file, Image.open(path) as pillow:
        forms: dict[str, Any] = {
            "path": path,
            "text": str(path),
            "bytes": content,
            "file": file,
            "named": NamedPicture("teal.png", content),
            "pillow": pillow.convert("CMYK"),
        }
        stored = client.upload(forms[form], caption="teal", tags=["a", "b"], metadata={"n": [1]}, wait=30)
        assert (stored.status, stored.caption, stored.tags, stored.metadata) == (
            "ready",
            "teal",
            ["a", "b"],
            {"n": [1]},
        )
        found = client.search(picture=forms[form], k=1)
    assert found.hits[0].id == stored.id
    assert client.search("teal", like=stored.id, k=1).hits[0].id == stored.id
    assert client.upload(content, name="other.png").id == stored.id or form == "pillow"
    assert client.download(stored.id, tmp_path / "copy").read_bytes()[:4] == content[:4]


def test_what_is_no_picture_is_refused_before_anything_is_sent(client: Client) -> None:
    with pytest.raises(TypeError, match="not int"):
        client.upload(7)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        client.upload("nowhere.png")


def test_fields_are_changed_set_to_null_or_left(client: Client) -> None:
    id = client.upload(make_picture("navy"), caption="navy", tags=["a"], wait=30).id
    assert client.update_image(id, caption=None).caption is None
    assert client.update_image(id, metadata={"n": 1}).tags == ["a"]
    filter = {"key": "tags", "match": {"value": "a"}}
    assert [image.id for image in client.iter_images(filter=filter)] == [id]
    assert client.delete_images(filter=filter, dry_run=True).matched == 1
    assert client.delete_image(id) is None
    with pytest.raises(ApiError, match="not_found") as caught:
        client.get_image(id)
    assert (caught.value.status, caught.value.code) == (404, "not_found")
    assert caught.value.request_id


def test_searches_take_parts_texts_and_batches(client: Client) -> None:
    client.upload(make_picture("red"), id="red", wait=30)
    client.put_texts(texts=[NewText(text="red"), NewText(text="blue", id="b")])
    assert [text.text for text in client.iter_texts()] == ["blue", "red"]
    parts = [QueryPart(text="red"), QueryPart(image_id="red", weight=0.5)]
    assert client.search_by_parts(query=parts, k=1).hits[0].id == "red"
    assert client.search("red", unlike=["red"]).hits == []
    answer = client.search_batch(searches=[SearchQuery(query=parts, k=1)]).answers[0]
    assert isinstance(answer, SearchResult)
    assert client.classify_image(file=make_picture("red"), labels=["red", "blue"]).labels[0].label == "red"
    assert client.classify_image(image_id="red", labels=["red", "blue"]).labels[0].label == "red"
    with pytest.raises(ApiError, match="validation"):
        client.search("red", order_by="witdh")
    with pytest.raises(ValueError, match="txt"):
        QueryPart(txt="red")  # type: ignore[call-arg]


def test_an_explanation_comes_as_a_record_or_as_a_picture(client: Client) -> None:
    client.upload(make_picture("red"), id="red", wait=30)
    assert client.explain_image("red", q="red car").id == "red"
    with Image.open(io.BytesIO(client.explain_image_as_png("red", q="red car", size=64))) as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (40, 30))


def test_a_job_is_followed_to_its_end(client: Client) -> None:
    job = client.upload_images(files=[make_picture("olive"), make_picture("pink")])
    states = [one.state for one in client.follow_job(job)]
    assert states[-1] == "succeeded"
    assert client.wait_for_job(job).done == 2
    assert [one.state for one in client.follow_job(job.id)] == ["succeeded"]


def test_a_job_is_followed_over_broken_streams_until_it_ends(script: Script) -> None:
    running = {**JOB, "state": "running", "total": 3}
    ended = {**running, "state": "succeeded", "done": 3}
    script.answers = [to_events((running, None)), BUSY, None, to_events((running, None), (ended, None))]
    with Client(script.url, key="secret", patience=20) as client:
        assert [one.state for one in client.follow_job("j")] == ["running", "succeeded"]
    assert [path for _, path, _ in script.asked] == ["/v1/jobs/j/events"] * 4
    assert {headers["authorization"] for _, _, headers in script.asked} == {"Bearer secret"}


def test_a_job_whose_stream_stays_broken_is_told(script: Script) -> None:
    running = {**JOB, "state": "running"}
    seen: list[str] = []

    async def follow(client: AsyncClient) -> None:
        async for job in client.follow_job("j"):
            seen.append(job.state)

    async def work() -> None:
        async with AsyncClient(script.url, patience=0.5) as client:
            script.answers = [to_events((running, None)) for _ in range(20)]
            with pytest.raises(ConnectionFailed, match="no answer"):
                await follow(client)
            script.answers = [to_events((running, None)), *[BUSY] * 20]
            with pytest.raises(ApiError, match="overloaded"):
                await follow(client)
            script.answers = [to_json(404, {"code": "not_found"})]
            with pytest.raises(ApiError, match="not_found"):
                await follow(client)
            script.answers = [(200, {"Content-Type": "text/html"}, b"<html>")]
            with pytest.raises(NotSightline, match="text/html"):
                await follow(client)
            script.answers = [to_events(({"a": 1}, None))]
            with pytest.raises(NotSightline, match="no Job"):
                await follow(client)

    asyncio.run(work())
    assert seen == ["running", "running"]


def test_streams_that_last_a_while_may_end_as_often_as_they_like(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline_client.sync.transport.LAST_PAUSE", -1.0)
    running = to_events(({**JOB, "state": "running"}, None))
    script.answers = [*[running] * 6, to_events((JOB, None))]
    with Client(script.url, patience=0.3) as client:
        assert [one.state for one in client.follow_job("j")] == ["running", "failed"]


def test_events_are_read_in_whatever_parts_they_come() -> None:
    text = ": ping\n\nevent: job\r\nid: 7\r\ndata: é\u2028\r\ndata:b\r\n\r\n:\ndata: c\n:\nid\n\nid: 9\n\ndata: cut"
    stream = text.encode()
    for size in (1, 2, 5, 1000):
        reader = EventReader()
        parts = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [event for part in parts for event in reader.feed(part)] == [Event("é\u2028\nb", "7"), Event("c", "")]


def test_matches_of_a_saved_search_come_as_they_are_found(client: Client) -> None:
    words = SearchQuery(query=[QueryPart(text="violin")], mode="keyword")
    saved = client.save_search(name="violins", query=words)
    caption = "a violin\u2028and its bow"
    ids = [client.upload(make_picture("coral"), caption=caption, wait=30).id]
    first = next(client.follow_saved_search(saved))
    assert (first.image.id, first.image.caption, first.is_new) == (ids[0], caption, True)
    ids.append(client.upload(make_picture("beige"), caption="a violin", wait=30).id)
    assert next(client.follow_saved_search(saved.id, after=first.n)).image.id == ids[1]
    with pytest.raises(ApiError, match="not_found"):
        next(client.follow_saved_search("0" * 16))

    async def work() -> list[str]:
        async with AsyncClient(client.server) as other:
            matches = other.follow_saved_search(saved)
            return [(await anext(matches)).image.id for _ in range(2)]

    assert asyncio.run(work()) == ids


def test_a_saved_search_is_followed_over_broken_streams(script: Script, client: Client) -> None:
    words = SearchQuery(query=[QueryPart(text="cello")], mode="keyword")
    saved = client.save_search(name="cellos", query=words)
    client.upload(make_picture("ivory"), caption="a cello", wait=30)
    match = next(client.follow_saved_search(saved))
    ninth, tenth = (match.model_copy(update={"n": n}) for n in (9, 10))
    known = client.get_saved_search(saved.id).model_dump(mode="json")
    script.answers = [to_json(200, {**known, "last": 8}), None, to_events((ninth, 9)), BUSY, to_events((tenth, 10))]
    with Client(script.url, patience=20) as other:
        matches = other.follow_saved_search(saved.id)
        assert [next(matches).n for _ in range(2)] == [9, 10]
    assert [headers.get("last-event-id") for _, _, headers in script.asked] == [None, "8", "8", "9", "9"]


def test_the_asynchronous_client_does_the_same(server: RunningServer, folder: Path) -> None:
    async def work() -> None:
        async with AsyncClient(server.url, collection="aio") as client:
            await client.create_collection(name="aio")
            report = await client.upload_folder(folder, concurrency=2)
            assert (report.done, report.failed) == (2, 1)
            found = await asyncio.gather(*(client.search(words, k=1) for words in ("red", "blue") * 5))
            assert {one.hits[0].image.source for one in found if one.hits[0].image} == {"red.png", "2019/blue.png"}
            assert len([image async for image in client.iter_images(order_by="width")]) == 2
            assert [job.state async for job in client.follow_job(report.jobs[0])][-1] == "succeeded"

    asyncio.run(work())


def draw_pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{n}.png" for n in range(count)]
    for n, path in enumerate(paths):
        Image.new("RGB", (20, 20), (n * 25, 80, 120)).save(path)
    return paths


def test_lists_are_read_page_by_page(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAGE", "GROUP_PAGE"):
        monkeypatch.setattr(f"sightline_client.sync.client.{name}", 1)
    words = SearchQuery(query=[QueryPart(text="harp")], mode="keyword")
    saved = client.save_search(name="harps", query=words)
    for shape, drawn in {"round": Image.radial_gradient("L"), "flat": Image.linear_gradient("L")}.items():
        for size in (128, 256):
            client.upload(drawn.resize((size, size)), caption="a harp", id=f"{shape}-{size}", wait=30)
    found = [match.image.id for match in islice(client.follow_saved_search(saved), 4)]  # waits for them
    assert [match.image.id for match in client.iter_matches(saved)] == found[::-1]
    assert {image.id for image in client.iter_images()} == set(found)
    client.wait_for_job(client.find_duplicates())
    groups = [{one.image.id for one in group.images} for group in client.iter_duplicates()]
    assert groups == [{"flat-128", "flat-256"}, {"round-128", "round-256"}]


def test_videos_and_watched_files_are_read_page_by_page(script: Script) -> None:
    video = {"id": "v", "collection": "default", "format": "mp4", "codec": "h264", "bytes": 1, "width": 1, "height": 1}
    video |= {"duration_ms": 1, "frames": 1, "created_at": "x", "kept": True}
    file = {"path": "a.png", "size": 1, "mtime_ns": 1, "inode": 1, "sha256": "x", "beside": "", "is_mounted": False}
    script.answers = [
        to_json(200, {"videos": [video], "next_cursor": "c"}),
        to_json(200, {"videos": [{**video, "id": "w"}], "next_cursor": None}),
        to_json(200, {"files": [file], "next_cursor": "d"}),
        to_json(200, {"files": [{**file, "path": "b.png"}], "next_cursor": None}),
    ]

    async def work() -> list[str]:
        async with AsyncClient(script.url, collection="films") as client:
            videos = [one.id async for one in client.iter_videos()]
            return videos + [one.path async for one in client.iter_watched_files("f", status="failed")]

    assert asyncio.run(work()) == ["v", "w", "a.png", "b.png"]
    assert [path for _, path, _ in script.asked] == [
        "/v1/videos?limit=1000&collection=films",
        "/v1/videos?limit=1000&cursor=c&collection=films",
        "/v1/watches/f/files?limit=1000&status=failed",
        "/v1/watches/f/files?limit=1000&cursor=d&status=failed",
    ]


def test_many_batches_are_sent_side_by_side(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline_client.folder.BATCH_FILES", 2)
    draw_pictures(tmp_path, 9)
    seen: list[tuple[int, int]] = []
    report = client.upload_folder(
        tmp_path, concurrency=3, progress=lambda now: seen.append((threading.get_ident(), now.sent))
    )
    assert (report.sent, report.done, len(report.jobs)) == (9, 9, 1)
    assert {thread for thread, _ in seen} == {threading.get_ident()}
    assert [sent for _, sent in seen][:5] == [2, 4, 6, 8, 9]


@pytest.mark.parametrize("known", [3, 7])
def test_a_folder_of_which_the_first_batches_are_known_makes_one_job(
    known: int, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline_client.folder.BATCH_FILES", 1)
    for path in draw_pictures(tmp_path, 9)[:known]:
        client.upload(path, wait=30)
    report = client.upload_folder(tmp_path, concurrency=4)
    assert (report.sent, report.done, report.duplicates, len(report.jobs)) == (9, 9 - known, known, 1)


def test_an_unreadable_file_has_failed_even_if_there_is_no_job_to_wait_for(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.jpg").unlink()
    refuse_to_read(monkeypatch, "red.png")
    first, again = client.upload_folder(folder, wait=False), client.upload_folder(folder)
    for report in (first, again):
        assert (report.total, report.sent, report.failed, set(report.unreadable)) == (2, 1, 1, {"red.png"})
    client.wait_for_job(first.jobs[0])
    last = client.upload_folder(folder)
    assert (last.failed, last.duplicates, last.jobs) == (1, 1, [])


def test_a_busy_server_is_asked_again_with_the_same_key(script: Script) -> None:
    script.answers = [BUSY, to_json(429, {"code": "rate_limited"}), to_json(202, {**JOB, "state": "queued"})]
    with Client(script.url, key="secret", patience=20) as client:
        assert client.upload_images(files=[b"x"]).state == "queued"
    keys = {headers["idempotency-key"] for _, _, headers in script.asked}
    assert (len(script.asked), len(keys)) == (3, 1)
    assert {headers["authorization"] for _, _, headers in script.asked} == {"Bearer secret"}


def test_a_pipe_is_sent_whole_again(script: Script) -> None:
    def fill_pipe(content: bytes) -> IO[bytes]:
        reads, writes = os.pipe()
        with os.fdopen(writes, "wb") as file:
            file.write(content)
        return os.fdopen(reads, "rb")

    script.answers = [BUSY, None, to_json(202, JOB)]
    with Client(script.url, patience=20) as client, fill_pipe(b"first") as first, fill_pipe(b"second") as second:
        client.upload_images(files=[first, NamedPicture("second.png", second)])
    for body in script.bodies:
        assert b'filename="picture"' in body
        assert b'filename="second.png"' in body
        assert b"first" in body
        assert b"\r\n\r\nsecond\r\n" in body
    assert len(script.bodies) == 3


def test_a_broken_connection_is_tried_again_where_that_is_safe(script: Script) -> None:
    script.answers = [None, to_json(200, {"status": "ok"}), None]
    with Client(script.url, patience=20) as client:
        assert client.check_liveness().status == "ok"
        with pytest.raises(ConnectionFailed, match="no answer"):
            client.create_collection(name="a")  # perhaps it was made: nobody knows
    assert len(script.asked) == 3


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_not_be_done_twice_is_sent_again_only_if_it_was_not_done(status: int, script: Script) -> None:
    made = to_json(201, {"id": "s", "name": "a", "description": "", "images": 0, "texts": 0, "created_at": "x"})
    words = SearchQuery(query=[QueryPart(text="x")])
    with Client(script.url, patience=20) as client:
        script.answers = [to_json(status, {"code": "x", "retryable": True}), made]
        assert client.create_collection(name="a").name == "a"
        script.answers = [to_json(status, {"code": "x"}), made]
        if status in (429, 503):
            assert client.create_collection(name="a").name == "a"
            return
        for call in (lambda: client.create_collection(name="a"), lambda: client.save_search(name="a", query=words)):
            script.answers = [to_json(status, {"code": "x"}), made]
            with pytest.raises(ApiError, match=str(status)):
                call()
        script.answers = [to_json(status, {"code": "x"}), to_json(200, {"sha256": ["0"], "lacks": {}})]
        assert client.find_known_images(sha256=["0"]).sha256 == ["0"]


def test_patience_ends(script: Script) -> None:
    script.answers = [BUSY, to_json(503, {"code": "overloaded", "detail": "no"}, **{"Retry-After": "60"})]
    with Client(script.url, patience=5) as client, pytest.raises(ApiError, match=r"no \(overloaded\)"):
        client.get_stats()
    assert read_retry_after("Wed, 21 Oct 2037 07:28:00 GMT") > 1e6
    assert [read_retry_after(text) for text in (None, "", "7", "soon", "-1")] == [0, 0, 7, 0, 0]
    clock = iter([0.0, 0.0, 1.0, 9.9])
    patience = Patience(10, lambda: next(clock))
    assert patience.next_pause(3) == 3
    assert patience.next_pause(9.5) is None
    assert patience.next_pause() is None


@pytest.mark.parametrize("body", [b"<html>", b'{"a": 1}', b""])
def test_what_is_no_sightline_is_told(body: bytes, script: Script) -> None:
    script.answers = [(200, {"Content-Type": "text/html"}, body), (404, {}, body)]
    with Client(script.url, patience=0) as client:
        with pytest.raises(NotSightline, match="text/html"):
            client.search("x")
        with pytest.raises(ApiError, match="404"):
            client.search("x")


def test_nobody_there_is_told() -> None:
    with Client("http://127.0.0.1:9", patience=0) as client, pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:9"):
        client.get_stats()


def test_a_url_is_fetched_without_the_key(script: Script, client: Client) -> None:
    script.answers = [(200, {}, make_picture("maroon")), (404, {}, b"")]
    url = f"{script.url}/pictures/maroon.png?size=1"
    with Client(client.server, key="secret", collection=client.collection) as one:
        assert one.upload(url, wait=30).source == "maroon.png"
    assert "authorization" not in script.asked[0][2]
    with pytest.raises(ConnectionFailed, match="cannot be fetched"):
        client.upload(url)


def test_a_job_that_failed_is_raised(script: Script) -> None:
    script.answers = [to_json(200, {**JOB, "error": {"code": "head_refused", "detail": "no gain"}})] * 2
    seen: list[str] = []
    with Client(script.url) as client:
        with pytest.raises(JobFailed, match="has failed: no gain") as caught:
            client.wait_for_job("j", progress=lambda job: seen.append(job.state))
        assert caught.value.job.id == "j"
        assert client.wait_for_job("j", raise_on_failure=False).state == "failed"
    assert seen == ["failed"]


def test_a_file_without_a_name_is_sent_as_picture(client: Client) -> None:
    assert client.upload(io.BytesIO(make_picture("orchid")), wait=30).source == "picture"
