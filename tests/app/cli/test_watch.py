from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.cli import ServerError
from app.cli.client import Client
from app.cli.watch import FolderThread, RemoteTarget, WatchCommand, make_name, watch_folders
from app.sources.watched_folder import WatchOptions
from app.storage.watches import FileChange, WatchReport
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until


class Album:
    """A folder, and a collection of its own that `sightline watch` fills."""

    def __init__(self, server: RunningServer, root: Path, collection: str) -> None:
        self.server, self.root, self.collection = server, root, collection
        server.http.post("/v1/collections", json={"name": collection})

    def write(self, name: str, content: bytes, age: float = 3600) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (time.time() - age,) * 2)

    def open_client(self) -> Client:
        return Client(self.server.url, collection=self.collection)

    def once(self, *folders: Path, **options: Any) -> int:
        command = WatchCommand(WatchOptions(follow_links=True, **options), once=True)
        return watch_folders(self.open_client, folders or (self.root,), command)

    def pictures(self) -> dict[str, dict[str, Any]]:
        params: dict[str, Any] = {"collection": self.collection, "limit": 1000}
        listed = self.server.http.get("/v1/images", params=params).json()["images"]
        return {image["source"].partition("/")[2]: image for image in listed}

    def is_equal(self) -> bool:
        return set(self.pictures()) == {str(path.relative_to(self.root)) for path in self.root.rglob("*.png")}

    @contextmanager
    def watching(self) -> Iterator[subprocess.Popen[str]]:
        """Run `sightline watch`."""
        arguments = [str(self.root), "--server", self.server.url, "--collection", self.collection]
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "watch", *arguments],
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def album(server: RunningServer, tmp_path: Path, request: pytest.FixtureRequest) -> Album:
    root = tmp_path / "album"
    root.mkdir()
    name = re.sub("[^a-z0-9-]", "-", request.node.name.lower())[-60:]
    return Album(server, root, name)


def test_a_folder_is_applied_once_and_again(album: Album, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(5):
        album.write(f"{n}.png", picture("red", n))
    album.write("0.txt", b"a red door")
    assert album.once() == 0
    assert "album: 5 new" in capsys.readouterr().out
    held = album.pictures()
    assert held["0.png"]["caption"] == "a red door"
    (album.root / "0.png").rename(album.root / "door.png")
    (album.root / "0.txt").rename(album.root / "door.txt")
    (album.root / "1.png").rename(album.root / "x.png")
    (album.root / "2.png").rename(album.root / "1.png")
    (album.root / "x.png").rename(album.root / "2.png")
    (album.root / "3.png").rename(album.root / "4.png")
    album.write("copy.png", picture("red", 0))
    album.write("new.png", picture("blue"))
    assert album.once() == 0
    assert "2 new, 4 renamed" in capsys.readouterr().out
    now = album.pictures()
    assert set(now) == {"door.png", "1.png", "2.png", "4.png", "new.png"}
    assert now["door.png"]["id"] == held["0.png"]["id"]
    assert now["door.png"]["caption"] == "a red door"
    assert (now["1.png"]["id"], now["2.png"]["id"]) == (held["2.png"]["id"], held["1.png"]["id"])
    assert now["4.png"]["id"] == held["3.png"]["id"]
    album.write("new.png", picture("green"), age=60)
    assert album.once() == 0
    assert album.pictures()["new.png"]["id"] == now["new.png"]["id"]
    assert album.once() == 0
    assert capsys.readouterr().out.count("album: ") == 1


def test_what_is_left_to_do_ends_with_1(album: Album, capsys: pytest.CaptureFixture[str]) -> None:
    album.write("0.png", b"no picture")
    (album.root / "gone.png").symlink_to(album.root / "nowhere.png")
    outside = album.root.parent / "outside.png"
    outside.write_bytes(picture("green"))
    os.utime(outside, (time.time() - 60,) * 2)
    (album.root / "link.png").symlink_to(outside)
    album.write("1.png", picture("red"), age=60)
    assert album.once() == 1
    said = capsys.readouterr()
    assert "album: 2 new, 1 not accepted" in said.out
    assert "1 files are no pictures" in said.err
    assert set(album.pictures()) == {"1.png", "link.png"}
    album.write("0.png", picture("blue"), age=50)
    assert album.once() == 0
    for path in album.root.iterdir():
        path.unlink()
    assert album.once() == 1  # an emptied folder deletes nothing
    assert len(album.pictures()) == 3
    with album.open_client() as client:
        (watch,) = client.watches()
        client.control_watch(watch["id"], "confirm")
    assert album.once() == 0
    assert album.pictures() == {}
    album.write("1.png", picture("red"), age=60)
    assert album.once() == 0
    (album.root / "1.png").unlink()
    assert album.once(allow_mass_delete=True) == 0
    assert album.pictures() == {}


def test_wrong_folders_and_servers_are_refused(album: Album, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ServerError, match="there is no folder"):
        album.once(album.root / "none")
    away = WatchCommand(WatchOptions(), once=True)
    assert watch_folders(lambda: Client("http://127.0.0.1:9"), [album.root], away) == 2
    assert "no server answers" in capsys.readouterr().err
    missing = WatchCommand(WatchOptions(), once=True)
    assert watch_folders(lambda: Client(album.server.url, collection="none"), [album.root], missing) == 2
    assert "there is no collection" in capsys.readouterr().err
    with pytest.raises(Exception, match="--name belongs to one folder"):
        watch_folders(album.open_client, [album.root] * 2, WatchCommand(WatchOptions(), name="x"))


def test_a_server_that_is_away_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopped = threading.Event()
    with Client("http://127.0.0.1:9") as client:
        thread = FolderThread(client, tmp_path, WatchCommand(WatchOptions()), stopped)
        thread.start()
        said = ""
        deadline = time.monotonic() + 60
        while "waiting" not in said and time.monotonic() < deadline:
            time.sleep(0.05)
            said += capsys.readouterr().err
        stopped.set()
        thread.join()
    assert "no server answers" in said
    assert said.count("waiting") == 1
    assert thread.error is None


def test_files_that_go_before_they_are_sent_are_left_out(album: Album) -> None:
    with album.open_client() as client:
        watch = client.create_watch("client:gone", {"title": "gone"})
        target = RemoteTarget(client, watch, 1 << 20, lambda text: None)
        change = FileChange("put", "0.png", size=1, mtime_ns=1, inode=1, sha256="0" * 64)
        result = target.apply([change], {"0.png": album.root / "0.png"})
        assert (result.wanted, target.count_files()) == (["0.png"], 0)
        lost = FileChange("move", "1.png", "never.png", 1, 1, 1, "0" * 64)
        assert target.apply([lost], {}).wanted == ["1.png"]
        target.report(WatchReport("watching", "odd", took_confirmation=True))
        assert not target.is_confirmed()


def test_a_folder_is_known_by_host_and_path() -> None:
    assert make_name(Path("/photos")).endswith(":/photos")
    long = make_name(Path("/" + "x" * 1000))
    assert len(long) < 500
    assert long != make_name(Path("/" + "x" * 1001))


def test_several_folders_are_watched_until_a_signal(album: Album) -> None:
    album.write("0.png", picture("red"))
    with album.watching() as process:
        wait_until(album.is_equal, 60, lambda: "")
        (album.root / "0.png").rename(album.root / "1.png")
        album.write("2.png", picture("blue"))
        wait_until(album.is_equal, 60, lambda: "")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "1 renamed" in output


def test_watched_folders_are_listed_and_controlled(album: Album, run: Callable[..., str]) -> None:
    album.write("0.png", picture("red"))
    album.once()
    with album.open_client() as client:
        (watch,) = client.watches()
        client.apply_changes(watch["id"], [], {"state": "watching", "fault": "something is odd"})
    assert "watching, 1 files" in run("watches")
    assert "something is odd" in run("status")
    assert "paused" in run("watches", "--pause", watch["id"])
    assert '"state": "watching"' in run("watches", "--resume", watch["id"], "--json")
    assert run("watches", "--remove", watch["id"]) == ""
    assert run("watches") == ""
    assert "the server may not read this folder" in run("watch", "folder:/etc", code=2)
    assert "do one thing" in run("watches", "--pause", "x", "--remove", "y", code=2)


@pytest.fixture
def run(album: Album, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command; returns what it prints."""
    from click.testing import CliRunner

    from app.cli.main import main

    monkeypatch.setenv("SIGHTLINE_SERVER", album.server.url)
    monkeypatch.setenv("SIGHTLINE_COLLECTION", album.collection)

    def run_command(*arguments: str, code: int | None = None) -> str:
        result = CliRunner().invoke(main, arguments)
        assert code is None or result.exit_code == code, result.output
        return result.output

    return run_command
