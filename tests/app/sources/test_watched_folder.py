from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Validation
from app.core.types import Image, ItemError
from app.service.watching import FolderTarget
from app.sources import watched_folder
from app.sources.base import SourcePolicy
from app.sources.local_files import AllowedFolders
from app.sources.watched_folder import FolderGone, FolderSync, FolderWatcher, LookResult, WatchOptions
from app.storage.library import Library
from app.storage.tables import watches
from app.storage.tables.watches import Watch
from app.storage.watches import FileChange, WatchReport, WatchStore
from tests.support.makers import add
from tests.support.pictures import picture

OLD = time.time() - 3600


@dataclass
class Album:
    """A watched folder of a library."""

    root: Path
    library: Library
    store: WatchStore
    watch: Watch
    sync: FolderSync

    def write(self, name: str, content: bytes, age: float = 3600) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (time.time() - age, time.time() - age))
        return path

    def restart(self, **options: Any) -> None:
        """Begin as after a kill: nothing is in memory."""
        target = FolderTarget(self.library, self.store, self.policy(), self.store.get(self.watch.id))
        self.sync = FolderSync(self.root, target, WatchOptions(**options))

    def policy(self) -> SourcePolicy:
        return SourcePolicy(AllowedFolders((self.root.parent,)), max_bytes=100_000)

    def look(self, *paths: str) -> LookResult:
        """Look at everything, or at what events about these paths point to, until nothing is due."""
        result = self.sync.look(self.sync.to_dirty(str(self.root / path) for path in paths) if paths else None)
        while (due := self.sync.next_due()) is not None:
            time.sleep(max(0.0, due - time.monotonic()))
            more = self.sync.look(self.sync.take_due())
            for name in ("added", "replaced", "moved", "deleted"):
                setattr(result, name, getattr(result, name) + getattr(more, name))
        return result

    def pictures(self) -> dict[str, Image]:
        return {
            (image.source or "").removeprefix("album/"): image
            for image in self.library.list_images("default", 1000, None)
        }

    def describe(self, name: str, caption: str) -> str:
        """Give a picture a caption, as a person does; returns its id."""
        id = self.pictures()[name].id
        from app.storage.attributes import ImageAttributes

        self.library.update("default", id, lambda image: ImageAttributes(caption=caption, tags=("seen",)))
        return id


def counts(result: LookResult) -> tuple[int, int, int, int]:
    return result.added, result.replaced, result.moved, result.deleted


@pytest.fixture
def album(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Album:
    monkeypatch.setattr(watched_folder, "MISSING_SECONDS", 0.05)
    monkeypatch.setattr(watched_folder, "QUIET_SECONDS", 0.3)
    monkeypatch.setattr(watched_folder, "NEW_FOLDER_SECONDS", 0.1)
    root = tmp_path / "album"
    root.mkdir()
    store = WatchStore(library)
    watch = store.create("default", "folder", str(root), "album", {})
    album = Album(root, library, store, watch, None)  # type: ignore[arg-type]
    album.restart()
    return album


def fill(album: Album, count: int = 4) -> None:
    for n in range(count):
        album.write(f"{n}.png", picture("red", n))
    assert counts(album.look()) == (count, 0, 0, 0)


def test_new_changed_and_deleted_files_are_applied(album: Album) -> None:
    fill(album)
    assert counts(album.look()) == (0, 0, 0, 0)
    id = album.describe("0.png", "a door")
    album.write("0.png", picture("blue"), age=1000)
    (album.root / "1.png").unlink()
    album.write("below/deep/new.png", picture("green"))
    assert counts(album.look("0.png", "1.png", "below")) == (1, 1, 0, 1)
    held = album.pictures()
    assert sorted(held) == ["0.png", "2.png", "3.png", "below/deep/new.png"]
    assert (held["0.png"].id, held["0.png"].caption, held["0.png"].tags) == (id, "a door", ("seen",))
    assert held["0.png"].sha256 != held["2.png"].sha256
    album.restart()
    assert counts(album.look()) == (0, 0, 0, 0)


def test_a_renamed_file_keeps_its_picture(album: Album) -> None:
    fill(album)
    id = album.describe("0.png", "a door")
    (album.root / "2024").mkdir()
    (album.root / "0.png").rename(album.root / "2024" / "door.png")
    assert counts(album.look("0.png", "2024", "2024/door.png")) == (0, 0, 1, 0)
    held = album.pictures()["2024/door.png"]
    assert (held.id, held.caption, held.tags) == (id, "a door", ("seen",))
    (album.root / "2024").rename(album.root / "2025")
    assert counts(album.look("2024", "2025")) == (0, 0, 1, 0)
    assert album.pictures()["2025/door.png"].id == id


def test_a_rename_is_found_after_a_restart_and_by_bytes(album: Album) -> None:
    fill(album)
    id = album.describe("0.png", "a door")
    content = (album.root / "0.png").read_bytes()
    (album.root / "0.png").unlink()
    album.write("copied.png", content, age=50)  # another inode and time, as of another disk
    album.restart()
    assert counts(album.look()) == (0, 0, 1, 0)
    assert album.pictures()["copied.png"].id == id


def test_files_that_change_places_keep_their_pictures(album: Album) -> None:
    fill(album)
    first, second = album.describe("0.png", "first"), album.describe("1.png", "second")
    (album.root / "0.png").rename(album.root / "x.png")
    (album.root / "1.png").rename(album.root / "0.png")
    (album.root / "x.png").rename(album.root / "1.png")
    assert counts(album.look("0.png", "1.png", "x.png")) == (0, 0, 2, 0)
    held = album.pictures()
    assert (held["0.png"].id, held["1.png"].id) == (second, first)


def test_a_file_renamed_over_another_deletes_that(album: Album) -> None:
    fill(album)
    id = album.describe("0.png", "a door")
    (album.root / "0.png").rename(album.root / "1.png")
    assert counts(album.look("0.png", "1.png")) == (0, 0, 1, 1)
    held = album.pictures()
    assert sorted(held) == ["1.png", "2.png", "3.png"]
    assert held["1.png"].id == id


def test_a_new_file_at_the_path_of_a_renamed_one_is_a_new_picture(album: Album) -> None:
    fill(album)
    id = album.describe("0.png", "a door")
    (album.root / "0.png").rename(album.root / "kept.png")
    album.write("0.png", picture("blue"), age=60)
    assert counts(album.look("0.png", "kept.png")) == (1, 0, 1, 0)
    held = album.pictures()
    assert held["kept.png"].id == id
    assert held["0.png"].caption is None


def test_a_picture_stays_while_one_of_its_files_is_left(album: Album) -> None:
    fill(album)
    album.write("copy.png", (album.root / "0.png").read_bytes())
    assert counts(album.look()) == (1, 0, 0, 0)
    assert len(album.pictures()) == 4
    (album.root / "0.png").unlink()
    album.look("0.png")
    assert sorted(album.pictures()) == ["1.png", "2.png", "3.png", "copy.png"]  # it names the file that is left
    album.write("copy.png", picture("blue"), age=60)
    album.look("copy.png")
    assert len(album.pictures()) == 4
    (album.root / "copy.png").unlink()
    album.look("copy.png")
    assert len(album.pictures()) == 3


def test_a_twin_that_changes_leaves_the_picture_of_the_other(album: Album) -> None:
    fill(album)
    id = album.describe("0.png", "a door")
    album.write("copy.png", (album.root / "0.png").read_bytes())
    album.look()
    album.write("copy.png", picture("blue"), age=60)
    assert counts(album.look("copy.png")) == (1, 0, 0, 0)
    held = album.pictures()
    assert held["0.png"].id == id
    assert held["copy.png"].id != id


def test_pictures_that_came_otherwise_stay(album: Album) -> None:
    mine = add(album.library, picture("red", 0)).image
    fill(album)
    for n in (0, 1):
        (album.root / f"{n}.png").unlink()
    assert counts(album.look()) == (0, 0, 0, 2)
    assert mine.id in {image.id for image in album.pictures().values()}
    assert len(album.pictures()) == 3


def test_a_picture_that_somebody_deleted_stays_deleted_until_its_file_changes(album: Album) -> None:
    fill(album)
    album.library.delete("default", album.pictures()["0.png"].id)
    album.restart()
    assert counts(album.look()) == (0, 0, 0, 0)
    assert "0.png" not in album.pictures()
    album.write("0.png", picture("blue"), age=60)
    album.look()
    assert "0.png" in album.pictures()


def test_what_lies_beside_a_picture_is_followed(album: Album) -> None:
    album.write("0.png", picture("red", 0))
    album.write("0.txt", b"a red door")
    album.write("1.png", picture("red", 1))
    album.look()
    assert album.pictures()["0.png"].caption == "a red door"
    album.write("0.txt", b"a blue door", age=60)
    album.look("0.txt")
    assert album.pictures()["0.png"].caption == "a blue door"
    (album.root / "0.txt").unlink()
    album.look("0.txt")
    assert album.pictures()["0.png"].caption is None
    album.write("metadata.jsonl", b'{"file": "1.png", "caption": "by a list", "tags": ["x"]}\n')
    album.look("metadata.jsonl")
    held = album.pictures()["1.png"]
    assert (held.caption, held.tags) == ("by a list", ("x",))
    album.describe("1.png", "by hand")
    album.write("metadata.jsonl", b"\n", age=60)
    album.look("metadata.jsonl")
    assert album.pictures()["1.png"].caption == "by hand"
    album.write("1.txt", b"moved along")
    (album.root / "1.png").rename(album.root / "2.png")
    (album.root / "1.txt").rename(album.root / "2.txt")
    album.look("1.png", "2.png")
    assert album.pictures()["2.png"].caption == "moved along"


def test_a_file_that_is_being_written_waits(album: Album) -> None:
    content = picture("red")
    album.write("0.png", content[: len(content) // 2], age=0)
    assert counts(album.sync.look()) == (0, 0, 0, 0)
    album.write("0.png", content, age=-3600)  # a clock that is ahead
    assert counts(album.sync.look(album.sync.to_dirty([str(album.root / "0.png")]))) == (0, 0, 0, 0)
    assert counts(album.look("0.png")) == (1, 0, 0, 0)
    assert album.pictures()["0.png"].bytes == len(content)


def test_hidden_files_litter_links_and_excluded_files_are_left_out(album: Album) -> None:
    album.restart(exclude=("*_thumb.png",))
    for name in ("0.png", ".hidden.png", "@eaDir/1.png", "2_thumb.png", "readme.md"):
        album.write(name, picture("red", len(name)))
    outside = album.root.parent / "outside.png"
    outside.write_bytes(picture("blue"))
    (album.root / "link.png").symlink_to(outside)
    assert counts(album.look()) == (1, 0, 0, 0)
    assert album.sync.to_dirty(str(album.root / name) for name in (".hidden.png", "2_thumb.png", "@eaDir/1.png")) == {}
    assert album.sync.to_dirty(["/elsewhere/1.png", str(album.root)]) == {"": False}


def test_files_that_are_no_pictures_are_told_and_tried_again(album: Album) -> None:
    album.write("0.png", b"no picture")
    album.write("1.png", bytes(200_000))
    assert counts(album.look()) == (0, 0, 0, 0)
    assert album.store.get(album.watch.id).failed == 2
    failed, _ = album.store.list_page(album.watch, ("", ""), 10, failed=True)
    assert [file.error.code for file in failed if file.error] == ["unsupported_media_type", "image_too_large"]
    album.write("0.png", picture("red"), age=60)
    assert counts(album.look("0.png")) == (1, 0, 0, 0)
    album.write("0.png", b"broken again", age=50)
    album.look("0.png")
    assert album.pictures() == {}
    (album.root / "1.png").unlink()
    (album.root / "0.png").unlink()
    album.restart(allow_mass_delete=True)
    album.look()
    assert (album.store.get(album.watch.id).files, album.store.get(album.watch.id).failed) == (0, 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_told_and_deletes_nothing(album: Album) -> None:
    fill(album)
    album.write("below/5.png", picture("blue"))
    album.look()
    (album.root / "below").chmod(0)
    try:
        assert counts(album.look()) == (0, 0, 0, 0)
        assert "below: Permission denied" in (album.sync.describe_faults() or "")
    finally:
        (album.root / "below").chmod(0o700)


def test_an_emptied_folder_deletes_nothing_without_a_confirmation(album: Album) -> None:
    fill(album)
    for path in album.root.iterdir():
        path.unlink()
    assert counts(album.look()) == (0, 0, 0, 0)
    assert album.sync.deletions.held == 4
    assert "4 pictures are not deleted" in (album.sync.describe_faults() or "")
    album.store.confirm(album.watch.id)
    assert counts(album.sync.look({})) == (0, 0, 0, 4)
    assert album.pictures() == {}
    assert not album.store.get(album.watch.id).confirmed  # good for once


def test_many_deletions_at_once_are_held_even_if_they_come_one_after_the_other(album: Album) -> None:
    fill(album, 80)
    deleted = 0
    for n in range(0, 80, 10):
        for path in [album.root / f"{n + k}.png" for k in range(10)]:
            path.unlink()
        deleted += album.look().deleted
    assert deleted == 20
    assert album.sync.deletions.held == 60
    for n in range(30, 80):
        album.write(f"{n}.png", picture("red", n))  # the disk is back
    assert album.look().deleted == 0
    assert album.sync.deletions.held in (0, 10)
    assert len(album.pictures()) == 60


def test_a_folder_that_is_gone_or_another_one_deletes_nothing(album: Album) -> None:
    fill(album)
    away = album.root.rename(album.root.with_name("away"))
    with pytest.raises(FolderGone, match="cannot be read"):
        album.sync.look()
    album.root.mkdir()
    with pytest.raises(FolderGone, match="another folder"):
        album.sync.look()
    album.restart()
    album.store.report(album.watch, WatchReport("watching", identity="1:1"))
    with pytest.raises(FolderGone, match="another folder"):
        album.sync.look()
    album.root.rmdir()
    album.root.write_bytes(b"")
    with pytest.raises(FolderGone, match="no folder"):
        album.sync.look()
    album.root.unlink()
    away.rename(album.root)
    assert counts(album.look()) == (0, 0, 0, 0)
    assert len(album.pictures()) == 4


def test_files_of_a_disk_below_that_is_not_mounted_stay(album: Album) -> None:
    fill(album)
    for n in range(3):
        album.write(f"usb/{n}.png", picture("blue", n))
    album.look()
    album.library.database.write(
        lambda c: c.execute("UPDATE watched_files SET is_mounted = 1 WHERE folder = 'usb'") and None
    )
    for path in (album.root / "usb").iterdir():
        path.unlink()
    assert counts(album.look()) == (0, 0, 0, 0)
    assert album.sync.deletions.held == 3
    assert "not mounted" in (album.sync.describe_faults() or "")
    (album.root / "usb").rmdir()
    assert counts(album.look()) == (0, 0, 0, 0)
    assert len(album.pictures()) == 7


def test_a_watch_that_keeps_pictures_deletes_none(album: Album) -> None:
    album.store.create("default", "folder", str(album.root), "album", {"deletes": "keep"})
    album.restart()
    fill(album)
    for path in album.root.iterdir():
        path.unlink()
    album.look()
    assert len(album.pictures()) == 4
    assert album.store.get(album.watch.id).files == 0


def test_many_new_pictures_are_a_job(album: Album) -> None:
    fill(album, 10)
    (job,) = album.library.database.read(lambda c: watched_jobs(c))
    assert (job.kind, job.name, job.total) == ("watch", "album", 10)
    album.write("more.png", picture("blue"))
    album.look("more.png")
    (job,) = album.library.database.read(lambda c: watched_jobs(c))
    assert job.total == 11


def watched_jobs(c: Any) -> list[Any]:
    from app.storage.tables import jobs

    return jobs.list_recent(c, 10)


def run_in_thread(watcher: FolderWatcher) -> threading.Thread:
    thread = threading.Thread(target=watcher.run)
    thread.start()
    return thread


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("polls", [False, True])
def test_a_watcher_applies_what_happens(album: Album, polls: bool) -> None:
    fill(album)
    stopped = threading.Event()
    options = WatchOptions(poll_seconds=1.0 if polls else None)
    target = FolderTarget(album.library, album.store, album.policy(), album.watch)
    thread = run_in_thread(FolderWatcher(album.root, target, options, stopped))
    try:
        state = "polling" if polls else "watching"
        wait_until(lambda: album.store.get(album.watch.id).state == state)
        album.write("new/5.png", picture("blue"))
        (album.root / "0.png").rename(album.root / "new" / "0.png")
        (album.root / "1.png").unlink()
        wait_until(lambda: sorted(album.pictures()) == ["2.png", "3.png", "new/0.png", "new/5.png"])
    finally:
        stopped.set()
        thread.join()


def test_a_look_ends_early_when_the_watcher_shall_end(album: Album) -> None:
    album.write("0.png", picture("red"))
    stopped = threading.Event()
    stopped.set()
    target = FolderTarget(album.library, album.store, album.policy(), album.watch)
    with pytest.raises(watched_folder.Stopped):
        FolderSync(album.root, target, WatchOptions(), stopped).look()
    FolderWatcher(album.root, target, WatchOptions(), stopped).run()
    assert FolderWatcher(album.root, target, WatchOptions(), stopped).sync_once().has_unsettled is False
    assert album.pictures() == {}


def test_a_file_that_comes_into_a_new_folder_late_is_found(album: Album) -> None:
    album.sync.look()
    album.write("new/0.png", picture("red", 0))
    album.sync.look(album.sync.to_dirty([str(album.root / "new")]))
    album.write("new/1.png", picture("red", 1))  # without an event
    time.sleep(0.15)
    assert album.sync.take_due() == {"new": False}
    assert counts(album.sync.look({"new": False})) == (1, 0, 0, 0)


def test_a_watcher_scans_on_demand_and_after_many_events(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_folder, "MANY_EVENTS", 0)
    monkeypatch.setattr(watched_folder, "ROOT_SECONDS", 0.2)
    fill(album)
    stopped = threading.Event()
    target = FolderTarget(album.library, album.store, album.policy(), album.watch)
    watcher = FolderWatcher(album.root, target, WatchOptions(), stopped)
    thread = run_in_thread(watcher)
    try:
        wait_until(lambda: album.store.get(album.watch.id).state == "watching")
        album.write("5.png", picture("blue"))
        watcher.scan_now()
        wait_until(lambda: "5.png" in album.pictures())
        away = album.root.rename(album.root.with_name("away"))
        wait_until(lambda: album.store.get(album.watch.id).state == "missing")
        assert "nothing is deleted" in (album.store.get(album.watch.id).fault or "")
        away.rename(album.root)
        wait_until(lambda: album.store.get(album.watch.id).state == "watching")
        assert len(album.pictures()) == 5
        for path in album.root.iterdir():
            path.unlink()
        wait_until(lambda: album.store.get(album.watch.id).held == 5)
        album.store.confirm(album.watch.id)
        wait_until(lambda: album.pictures() == {})
        wait_until(lambda: album.store.get(album.watch.id).state == "watching")
    finally:
        stopped.set()
        thread.join()


@pytest.mark.parametrize("change", [("put", "///a.png"), ("move", "///a.png", "b.png"), ("delete", "/a.png")])
def test_a_client_cannot_name_the_place_of_displaced_files(album: Album, change: tuple[Any, ...]) -> None:
    with pytest.raises(Validation):
        album.store.apply(album.watch.id, [FileChange(*change)])


def test_the_time_that_a_file_beside_a_picture_tells_is_kept(album: Album) -> None:
    album.write("a.png", picture("red"))
    album.write("a.png.json", json.dumps({"photoTakenTime": {"timestamp": "1500000000"}}).encode())
    album.look()
    assert (album.pictures()["a.png"].taken_at or "").startswith("2017-07-14T02:40:00")
    album.write("a.png", picture("blue"), age=1000)
    album.look()
    assert (album.pictures()["a.png"].taken_at or "").startswith("2017-07-14T02:40:00")
    album.write("b.png", picture("green"))
    album.look()
    assert album.pictures()["b.png"].taken_at is None
    album.write("b.png.json", json.dumps({"photoTakenTime": {"timestamp": "1500000000"}}).encode())
    album.look()
    assert album.pictures()["b.png"].taken_at is not None


def test_the_files_of_a_removed_watch_are_forgotten_and_no_others(album: Album, library: Library) -> None:
    fill(album)
    removed = [album.store.create("default", "client", name, name, {}) for name in ("a", "b")]
    for watch in removed:
        album.store.apply(watch.id, [FileChange("put", f"{n}", error=ItemError("x", "x")) for n in range(3)])
    for watch in removed:
        library.database.write(partial(watches.delete, n=watch.n))
    forget = [library.database.write(lambda c: watches.delete_unused_files(c, 2)) for _ in range(6)]
    assert forget == [2, 1, 2, 1, 0, 0]
    assert len(album.store.list_files(album.watch, "")) == 4
