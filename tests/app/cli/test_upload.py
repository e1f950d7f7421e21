from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from app.cli import ServerError
from app.cli.answers import Limits
from app.cli.client import Client
from app.cli.local_files import LocalFile
from app.cli.upload import (
    BULK_BYTES,
    BULK_FILES,
    Sender,
    UploadReport,
    archive_name,
    group_into_batches,
    ingest_paths,
    ingest_urls,
    is_source,
    parse_url_line,
    show_report,
)
from tests.support.pictures import picture
from tests.support.servers import RunningServer
from tests.support.videos import make_video


def test_bulks_keep_within_what_one_request_carries() -> None:
    small, large = (LocalFile("x", Path("x"), size, is_archive=False) for size in (1, BULK_BYTES // 2 + 1))
    sizes = [len(bulk) for bulk in group_into_batches([small] * (BULK_FILES * 2 + 1))]
    assert sizes == [BULK_FILES, BULK_FILES, 1]
    assert [len(bulk) for bulk in group_into_batches([large, small, large, small])] == [2, 2]
    assert [len(bulk) for bulk in group_into_batches([small] * 5, 2)] == [2, 2, 1]
    assert list(group_into_batches([])) == []


def test_a_line_of_a_list_is_a_url_or_an_object() -> None:
    assert parse_url_line(" http://a/b.png\n") == {"url": "http://a/b.png"}
    assert parse_url_line('{"url": "http://a/", "tags": ["x"]}') == {"url": "http://a/", "tags": ["x"]}
    with pytest.raises(ServerError, match="not JSON"):
        parse_url_line('{"url": ')


def test_a_list_of_urls_is_fetched_by_the_server_and_followed(server: RunningServer) -> None:
    with Client(server.url) as client:
        with pytest.raises(ServerError, match="the list is empty"):
            ingest_urls(client, io.BytesIO(b"\n"), Console(file=io.StringIO()))
        with pytest.raises(ServerError, match="UTF-8"):
            ingest_urls(client, io.BytesIO(b"http://a/gr\xfcn.png"), Console(file=io.StringIO()))
        with pytest.raises(ServerError, match="url_not_allowed"):  # which this server does not do
            ingest_urls(client, io.BytesIO(b"http://127.0.0.1/a.png"), Console(file=io.StringIO()))


def test_a_source_of_the_server_is_told_from_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x:y.png").touch()
    assert [is_source(text) for text in ("folder:/photos", "s3://bucket/a", "x:y.png", "/a:b", "-", "photos")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_a_source_that_the_server_does_not_know_or_may_not_read_is_one_line(server: RunningServer) -> None:
    for source, told in (("nothing:/a", "source must be one of: urls, folder:PATH"), ("folder:/etc", "may not read")):
        with pytest.raises(ServerError, match=told):
            run(server, Path(source))


def test_a_report_shows_each_failure_up_to_a_bound() -> None:
    out = io.StringIO()
    failures = [{"name": f"{n}.png", "error": {"code": "image_corrupt", "detail": "cut off"}} for n in range(60)]
    failures[0]["error"] = None  # type: ignore[assignment]
    show_report(UploadReport(done=1, duplicates=2, failed=60, failures=failures[:50]), Console(file=out, width=120))
    assert "1 loaded, 2 already there, 60 failed" in out.getvalue()
    assert "49.png" in out.getvalue()
    assert "50.png" not in out.getvalue()
    assert "and 10 more" in out.getvalue()


def run(server: RunningServer, *paths: Path) -> tuple[int, str]:
    out = io.StringIO()
    with Client(server.url) as client:
        status = ingest_paths(client, [str(path) for path in paths], Console(file=out, width=120))
    return status, out.getvalue()


def test_a_folder_is_loaded_and_a_second_time_everything_is_there(server: RunningServer, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(5):
        (folder / f"{n}.png").write_bytes(picture("green", 31337 + n))
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("z.png", picture("green", 31399))
    status, out = run(server, folder)
    assert status == 0
    assert "6 loaded, 0 already there, 0 failed" in out
    status, out = run(server, folder)
    assert status == 0
    assert "0 loaded, 6 already there, 0 failed" in out


class Watching(Client):
    """Notes which jobs are asked about, in order, and what is told."""

    def job(self, id: str) -> dict[str, Any]:
        told = super().job(id)
        self.__dict__.setdefault("asked", []).append((id, told["state"]))
        return told


def test_of_many_jobs_one_is_asked_about_until_it_ends(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.upload.BULK_FILES", 1)
    for n in range(6):
        (tmp_path / f"{n}.png").write_bytes(picture("green", 88_000 + n))
    out = io.StringIO()
    with Watching(server.url) as client:
        assert ingest_paths(client, [str(tmp_path)], Console(file=out)) == 0
        asked: list[tuple[str, str]] = client.__dict__["asked"]
    assert "6 loaded" in out.getvalue()
    open_before: list[str] = []
    for id, state in asked:
        assert open_before in ([], [id])
        open_before = [] if state == "succeeded" else [id]


def test_a_table_of_this_machine_is_sent_row_by_row(server: RunningServer, tmp_path: Path) -> None:
    rows = [{"image": picture("blue", 77_000 + n), "text": f"sent {n}"} for n in range(3)]
    pq.write_table(pa.Table.from_pylist([*rows, {"image": None, "text": "x"}]), tmp_path / "a.parquet")
    status, out = run(server, tmp_path / "a.parquet")
    assert status == 1
    assert "3 loaded, 0 already there, 1 failed" in out
    assert "a.parquet:4" in out
    newest = server.http.get("/v1/images?limit=1").json()["images"][0]
    assert (newest["caption"], newest["source"]) == ("sent 2", "a.parquet:3")
    pq.write_table(pa.table({"photo": [picture("blue", 77_100)], "text": ["x"], "alt": ["y"]}), tmp_path / "b.parquet")
    with Client(server.url) as client:
        columns = {"columns": {"image": "photo", "caption": "alt"}}
        assert ingest_paths(client, [str(tmp_path / "b.parquet")], Console(file=io.StringIO()), columns) == 0
        with pytest.raises(ServerError, match="key_as_id belongs to a source"):
            ingest_paths(client, [str(tmp_path / "b.parquet")], Console(file=io.StringIO()), {"key_as_id": True})
    newest = server.http.get("/v1/images?limit=1").json()["images"][0]
    assert (newest["caption"], newest["metadata"]) == ("y", {"text": "x"})
    (tmp_path / "bad.csv").write_text('url\n"')
    assert "1 failed" in run(server, tmp_path / "bad.csv")[1]
    (tmp_path / "none.csv").write_text("label\nx\n")
    status, out = run(server, tmp_path / "none.csv", tmp_path / "a.parquet")  # it costs the other nothing
    assert (status, "3 already there, 2 failed" in out) == (1, True)
    assert "no column holds pictures" in out


def newest(server: RunningServer, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.http.get(f"/v1/images?limit={count}").json()["images"]
    return found


def test_one_ingest_is_one_job_also_of_many_requests(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.upload.BULK_FILES", 2)
    for n in range(5):
        (tmp_path / f"{n}.png").write_bytes(picture("green", 90_000 + n))
    (tmp_path / "twin.png").write_bytes(picture("green", 90_000))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("z.png", picture("green", 90_005))
    status, out = run(server, tmp_path)
    assert (status, out.splitlines()[1]) == (0, "6 loaded, 0 already there, 1 duplicate of another file, 0 failed")
    assert len({image["job_id"] for image in newest(server, 6)}) == 1
    assert out.splitlines()[-1] == f"job {newest(server, 1)[0]['job_id']}"


def test_captions_beside_pictures_are_sent_and_fill_what_was_empty(server: RunningServer, tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(picture("green", 91_000 + n))
    assert run(server, tmp_path)[0] == 0
    (tmp_path / "0.txt").write_text("a green square")
    (tmp_path / "1.json").write_text('{"tags": ["x"], "n": 1}')
    (tmp_path / "3.png").write_bytes(picture("green", 91_003))
    (tmp_path / "3.txt").write_text("\n".join("many lines"))
    (tmp_path / "film.avi").touch()
    status, out = run(server, tmp_path)
    assert status == 0
    assert "1 loaded, 3 already there, 0 failed" in out
    assert "1 file of another kind left out (1 .avi)" in out
    assert "note: 3.txt is no caption" in out
    last, _, tagged, told = newest(server, 4)
    assert (told["caption"], tagged["tags"], tagged["metadata"]) == ("a green square", ["x"], {"n": 1})
    assert (last["source"], last["caption"]) == (f"{tmp_path.name}/3.png", None)
    before = len(server.http.get("/v1/jobs").json()["jobs"])
    assert "0 loaded, 4 already there, 0 failed" in run(server, tmp_path)[1]
    assert len(server.http.get("/v1/jobs").json()["jobs"]) == before  # nothing was sent


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", "filepath\ttitle\nimages/{0}.png\ta {0}\nimages/{1}.png\tb\nimages/gone.png\tc\n"),
        ("comma.csv", "image,caption\nimages/{0}.png,a {0}\nimages/{1}.png,b\nimages/gone.png,c\n"),
        (
            "list.jsonl",
            '{{"file_name": "images/{0}.png", "text": "a {0}"}}\n{{"file_name": "images/{1}.png", "text": "b"}}\n'
            '{{"file_name": "images/gone.png", "text": "c"}}\n',
        ),
    ],
)
def test_a_table_of_paths_sends_those_files(name: str, content: str, server: RunningServer, tmp_path: Path) -> None:
    seeds = [920_000 + sum(map(ord, name)) * 10 + n for n in range(2)]
    (tmp_path / "images").mkdir()
    for seed in seeds:
        (tmp_path / "images" / f"{seed}.png").write_bytes(picture("green", seed))
    (tmp_path / name).write_text(content.format(*seeds))
    status, out = run(server, tmp_path / name)
    assert status == 1
    assert "2 loaded, 0 already there, 1 failed" in out
    assert f"images/gone.png\tunreadable\trow 3 of {name}: No such file or directory" in out
    second, first = newest(server, 2)
    assert (first["caption"], first["source"]) == (f"a {seeds[0]}", f"images/{seeds[0]}.png")
    assert second["caption"] == "b"


def test_what_is_said_of_a_picture_comes_in_whatever_its_name_is(server: RunningServer, tmp_path: Path) -> None:
    folder = tmp_path / "node_modules"  # litter, but for whoever names it
    folder.mkdir()
    for n, name in enumerate(("a.png", "[b].png", ".hidden.png", "noext")):
        (folder / name).write_bytes(picture("green", 94_000 + n))
        (folder / f"{name.removesuffix('.png')}.txt").write_text(f"caption {n}")
    (folder / "fake.png").write_text("words")
    (folder / "fake.txt").write_text("caption of words")
    status, out = run(server, folder, folder / ".hidden.png", folder / ".hidden.txt")
    assert status == 1
    assert "node_modules/fake.png\tunsupported_media_type" in out
    found = {image["source"]: image["caption"] for image in newest(server, 4)}
    assert found == {
        "a.png": "caption 0",
        "[b].png": "caption 1",
        "hidden.png": "caption 2",
        "picture-2.jpg": "caption 3",
    }
    assert [archive_name(name, 7) for name in ("a/b.png", "a/.git/b.png", ".x", "a\\b.png")] == [
        *("a/b.png", "b.png", "picture-7.jpg", "a/b.png")
    ]


def test_a_failure_is_shown_with_its_reason_and_makes_the_status_1(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"words")
    status, out = run(server, tmp_path)
    assert status == 1
    assert "0 loaded, 0 already there, 1 failed" in out
    assert "bad.png" in out
    assert "unsupported_media_type" in out


def test_paths_without_pictures_are_told(server: RunningServer, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no pictures or archives were found"):
        run(server, tmp_path)
    with pytest.raises(ServerError, match=r"there is no .*nothing"):
        run(server, tmp_path / "nothing")


class Failing(Client):
    """Refuses the second bulk."""

    def upload_bulk(self, files: Any, job: str | None = None, left_out: Any = None) -> dict[str, Any]:
        if job is not None:
            raise ServerError("the server has gone")
        return super().upload_bulk(files, job, left_out)


def test_a_load_that_ends_early_says_that_it_can_be_continued(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.upload.BULK_FILES", 1)
    for n in range(2):
        (tmp_path / f"{n}.png").write_bytes(picture("green", 93_000 + n))
    with Failing(server.url) as client, pytest.raises(ServerError, match=r"gone; the same command goes on later"):
        ingest_paths(client, [str(tmp_path)], Console(file=io.StringIO()))
    assert run(server, tmp_path)[0] == 0


def test_videos_are_sent_with_what_stands_beside_them_and_a_second_time_are_there(
    server: RunningServer, tmp_path: Path
) -> None:
    folder = tmp_path / "trip"
    folder.mkdir()
    clip = make_video((("yellow", 2.0), ("black", 2.0)))
    (folder / "clip.mp4").write_bytes(clip)
    (folder / "twin.MP4").write_bytes(clip)
    (folder / "clip.txt").write_text("our trip")
    (folder / "a.png").write_bytes(picture("yellow", seed=4711))
    (folder / "cut.mov").write_bytes(clip[:200])
    out = io.StringIO()
    with Client(server.url) as client:
        assert ingest_paths(client, [str(folder)], Console(file=out, width=200)) == 1
        assert "3 loaded, 0 already there, 1 duplicate of another file, 1 failed" in out.getvalue()
        assert "video_corrupt" in out.getvalue()
        out.truncate(0)
        (folder / "cut.mov").unlink()
        assert ingest_paths(client, [str(folder)], Console(file=out, width=200)) == 0
        assert "0 loaded, 2 already there, 1 duplicate of another file" in out.getvalue()
    frames = [
        one for one in server.http.get("/v1/images?limit=1000").json()["images"] if one["source"] == "trip/clip.mp4"
    ]
    assert [one["caption"] for one in frames] == ["our trip"] * 2


def test_a_video_above_the_limit_of_the_server_is_not_sent(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x" * 100)
    with Client(server.url) as client:
        sender = Sender(client, Limits(videos=True, max_video_bytes=10), tmp_path)
        for name in ("clip.mp4", "gone.mp4"):
            sender.send_video(LocalFile(name, tmp_path / name, 100 if name == "clip.mp4" else 5, False, is_video=True))
    assert [one["error"]["code"] for one in sender.report.failures] == ["image_too_large", "unreadable"]
