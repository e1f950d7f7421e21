"""The garbage collector finds what killed processes leave, and never takes what others are still working on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.storage.attributes import ImageAttributes
from app.storage.gc import GRACE_SECONDS, collect_garbage, find_leftovers
from app.storage.library import Library
from tests.support.makers import add, add_bulk
from tests.support.pictures import picture
from tests.support.servers import wait_until

KILL_IN_PLACE = """
import os, signal, sys
from pathlib import Path
from app.storage.blobs import BlobStore

blobs = BlobStore(Path(sys.argv[1]))
path = blobs.create_upload_dir() / "1"
path.write_bytes(b"pixels of a picture")
staged = blobs.stage(path)
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
blobs.place(staged)
"""


def list_files(library: Library) -> set[Path]:
    blobs = library.blobs
    return {*blobs.iter_files(), *blobs.incoming.iterdir()}


def collect(library: Library, grace: float = 0.0) -> int:
    return collect_garbage(library.database, library.blobs, grace)


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"pixels of a deleted picture")
    return path


Place = Callable[[Library, str], Path]
OF_A_PICTURE: dict[str, Place] = {
    "a picture": lambda library, sha256: library.blobs.path(sha256),
    "the thumbnail of a JPEG": lambda library, sha256: library.blobs.thumbnail_path(sha256, "jpeg"),
    "the thumbnail of a PNG": lambda library, sha256: library.blobs.thumbnail_path(sha256, "png"),
    "a thumbnail of another size": lambda library, sha256: library.blobs.thumbnail_path(sha256, "png").with_stem(
        f"{sha256}-64"
    ),
    "of a killed decode child": lambda library, sha256: library.blobs.thumbnail_path(sha256, "png").with_name(
        f".{sha256}.webp.4711.tmp"
    ),
    "of a kill between link and rename": lambda library, sha256: library.blobs.path(sha256).with_name(
        f"{sha256}.{'0' * 32}"
    ),
}
OTHERS: dict[str, Place] = {
    "a thumbnail without a digest": lambda library, _: library.blobs.thumbnails / ".probe.webp",
    "a file of a request": lambda library, _: library.blobs.incoming / "0123" / "1",
    "an upload of no job": lambda library, _: library.blobs.upload_path("job", 1),
    "the members of it": lambda library, _: library.blobs.incoming / "job-1.members" / "1",
}


@pytest.mark.parametrize("place", [pytest.param(place, id=name) for name, place in (OF_A_PICTURE | OTHERS).items()])
def test_what_no_row_names_is_removed_when_it_is_old_and_nothing_else(library: Library, place: Place) -> None:
    blobs = library.blobs
    image = add(library, picture()).image
    write(blobs.thumbnail_path(image.sha256, image.format))
    job = add_bulk(library, [("a.png", picture("blue"))], [("a.zip", b"an archive")])
    write(blobs.incoming / f"{job.id}-1.members" / "1")
    kept = list_files(library)
    left = write(place(library, "ab" * 32))
    top = blobs.incoming / left.relative_to(blobs.incoming).parts[0] if ".incoming" in left.parts else left
    assert [one.path for one in find_leftovers(library.database, blobs)] == [top]
    assert collect(library, GRACE_SECONDS) == 0
    assert left.exists()
    for path in (left, top):
        os.utime(path, (0, 0))
    assert collect(library, GRACE_SECONDS) == 1
    assert list_files(library) == kept


@pytest.mark.parametrize("place", [pytest.param(place, id=name) for name, place in OF_A_PICTURE.items()])
def test_a_delete_takes_what_killed_processes_left_of_the_picture(library: Library, place: Place) -> None:
    image = add(library, picture()).image
    write(place(library, image.sha256))
    library.delete("default", image.id)
    assert list(library.blobs.iter_files()) == []


def test_what_a_kill_in_the_middle_of_a_move_leaves_is_found(library: Library, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILL_IN_PLACE, str(tmp_path)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (linked,) = library.blobs.iter_files()
    assert len(linked.name) > 64
    assert collect(library) == 2  # that, and the folder of the request
    assert list_files(library) == set()


def test_a_file_whose_row_is_about_to_be_committed_is_kept(library: Library, tmp_path: Path) -> None:
    """A job may wait for hours before its old files move to their places: their age saves nobody."""
    (tmp_path / "upload").write_bytes(picture())
    os.utime(tmp_path / "upload", (0, 0))
    staged = library.blobs.stage(tmp_path / "upload")
    new = library.prepare_image(staged, ImageAttributes())
    placed, seen = threading.Event(), threading.Event()

    def insert(c: object) -> None:
        library.insert(c, "default", staged, new, None, False)  # type: ignore[arg-type]
        placed.set()
        assert seen.wait(20)

    inserting = library.database.submit(insert)
    assert placed.wait(20)
    assert [one.path for one in find_leftovers(library.database, library.blobs)] == [library.blobs.path(staged.sha256)]
    collecting = threading.Thread(target=collect, args=(library, GRACE_SECONDS))
    collecting.start()
    wait_until(
        lambda: not library.database._queue.empty(), 20
    )  # it has listed the files, and waits for its turn to write
    seen.set()
    inserting.result(20)
    collecting.join(20)
    assert library.blobs.has_digest(staged.sha256)


def test_an_upload_whose_job_is_about_to_be_committed_is_kept(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, seen = threading.Event(), threading.Event()
    plain = Path.replace

    def replace(path: Path, target: Path) -> Path:
        result = plain(path, target)
        if target.parent == library.blobs.incoming:
            os.utime(target, (0, 0))
            moved.set()
            assert seen.wait(20)
        return result

    monkeypatch.setattr(Path, "replace", replace)
    adding = threading.Thread(target=add_bulk, args=(library, [], [("a.zip", b"an archive")]))
    adding.start()
    assert moved.wait(20)
    collecting = threading.Thread(target=collect, args=(library, GRACE_SECONDS))
    collecting.start()
    wait_until(
        lambda: not library.database._queue.empty(), 20
    )  # it has listed the files, and waits for its turn to write
    seen.set()
    for thread in (adding, collecting):
        thread.join(20)
    assert [path.read_bytes() for path in library.blobs.incoming.iterdir() if path.is_file()] == [b"an archive"]


def test_a_request_that_is_still_received_is_kept_however_long_it_takes(library: Library) -> None:
    folder = library.create_upload_dir()
    write(folder / "1")
    os.utime(folder, (0, 0))
    assert collect(library, GRACE_SECONDS) == 0
    os.utime(folder / "1", (0, 0))
    assert collect(library, GRACE_SECONDS) == 1


def test_it_ends_early_when_the_server_stops(library: Library) -> None:
    left = write(library.blobs.path("ab" * 32))
    assert collect_garbage(library.database, library.blobs, 0.0, lambda: True) == 0
    assert left.exists()
