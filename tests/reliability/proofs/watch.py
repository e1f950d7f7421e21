"""A collection is equal to a watched folder, whatever was killed meanwhile; a renamed file keeps its picture.

One folder is watched by the server, another by `sightline watch`. Files and folders are renamed, exchanged, deleted,
changed and added; after 0 to 2.5 s the server or the command is killed with -9 and started again, and the next changes
follow at once. Where the machine is slow, all changes are found together at the end, and many deletions wait for a
confirmation, as they should: the proof confirms them.

Failing: a name or the bytes of a picture that differ from the files a minute after the last change, a picture without a
file or the other way round, and a file that was only renamed whose picture has another id.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.cli.demo import free_port
from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.pictures import picture
from tests.support.servers import RunningServer, wait_until

PROMISE = Promise(34, "watch", "A collection is equal to a watched folder after any kill; a renamed file stays itself.")
LONGEST = 2.5
SOONEST = 60.0
HOST = "127.0.0.1"
FILES, A_FOLDER = 80, 20  # at the beginning, of each album


class Album:
    """A folder with pictures, and the ids that the pictures of its unchanged files have."""

    def __init__(self, root: Path, collection: str, dice: random.Random) -> None:
        self.root, self.collection = root, collection
        self._dice = dice
        self._drawn = 0
        self.ids: dict[Path, str] = {}
        for n in range(FILES):
            path = root / f"{n // A_FOLDER}" / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._draw(path)
            os.utime(path, (time.time() - 3600,) * 2)

    def _draw(self, path: Path) -> None:
        self._drawn += 1
        path.write_bytes(picture("red" if self.collection == "served" else "blue", self._drawn, size=(24, 24)))

    def files(self) -> list[Path]:
        return sorted(self.root.rglob("*.png"))

    def change(self) -> None:
        """Rename a few files and a folder, let two change places, delete one, change one, add one."""
        dice = self._dice
        folders = sorted(path for path in self.root.iterdir() if path.is_dir())
        for path in dice.sample(self.files(), 3):
            self._move(path, dice.choice(folders) / f"{self._drawn}-{dice.randrange(1 << 30)}.png")
        folder = dice.choice(folders)
        target = folder.with_name(f"{dice.randrange(1 << 30)}")
        folder.rename(target)
        self.ids = {target / path.name if path.parent == folder else path: id for path, id in self.ids.items()}
        first, second = dice.sample(self.files(), 2)
        between = first.with_name("between.png")
        for before, after in ((first, between), (second, first), (between, second)):
            self._move(before, after)
        gone, changed = dice.sample(self.files(), 2)
        gone.unlink()
        self._draw(changed)
        for path in (gone, changed):
            self.ids.pop(path, None)
        self._draw(dice.choice(self.files()).with_name(f"new-{self._drawn}.png"))

    def _move(self, before: Path, after: Path) -> None:
        before.rename(after)
        if before in self.ids:
            self.ids[after] = self.ids.pop(before)

    def name(self, path: Path) -> str:
        return str(path.relative_to(self.root.parent))

    def describe(self) -> dict[str, str]:
        return {self.name(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in self.files()}

    def remember(self, server: RunningServer) -> None:
        """Keep the ids of the pictures."""
        held = self.pictures(server)
        self.ids = {path: held[self.name(path)]["id"] for path in self.files()}

    def pictures(self, server: RunningServer) -> dict[str, dict[str, Any]]:
        params: dict[str, Any] = {"collection": self.collection, "limit": 1000}
        listed = server.http.get("/v1/images", params=params).json()["images"]
        return {image["source"]: image for image in listed}

    def watches(self, server: RunningServer) -> list[dict[str, Any]]:
        listed = server.http.get("/v1/watches").json()["watches"]
        return [watch for watch in listed if watch["collection"] == self.collection]

    def is_equal(self, server: RunningServer) -> bool:
        for watch in self.watches(server):
            if watch["held"] and not watch["confirmed"]:
                server.http.post(f"/v1/watches/{watch['id']}/confirm").raise_for_status()
        return {name: one["sha256"] for name, one in self.pictures(server).items()} == self.describe()

    def find_faults(self, server: RunningServer) -> list[str]:
        """What differs when there was time enough."""
        try:
            wait_until(lambda: self.is_equal(server), SOONEST)
        except AssertionError:
            held, meant = self.pictures(server), self.describe()
            odd = sorted(held.keys() ^ meant.keys()) or [name for name in meant if held[name]["sha256"] != meant[name]]
            state = [(watch["state"], watch["held"], watch["detail"]) for watch in self.watches(server)]
            return [f"{self.collection}: {len(odd)} differ, as {odd[0]} {state}"]
        held = self.pictures(server)
        return [
            f"{self.collection}: {self.name(path)} has another id"
            for path, id in self.ids.items()
            if held[self.name(path)]["id"] != id
        ]


def run(scale: Scale) -> Outcome:
    """40 kills."""
    kills = scale.pick(4, 40)
    dice = random.Random(34)
    with tempfile.TemporaryDirectory() as name:
        albums = [Album(Path(name, one, "album"), one, dice) for one in ("served", "sent")]
        port = free_port(HOST, 0)

        def start_server() -> RunningServer:
            return RunningServer(Path(name, "data"), port=port, folders=albums[0].root.parent, ready=False)

        server = start_server()
        try:
            for album in albums:
                server.http.post("/v1/collections", json={"name": album.collection}).raise_for_status()
            begun = {"source": f"folder:{albums[0].root}", "collection": albums[0].collection}
            server.http.post("/v1/watches", json=begun).raise_for_status()
            with watching(albums[1], server.url) as client:
                for album in albums:
                    wait_until(lambda album=album: album.is_equal(server), SOONEST)
                    album.remember(server)
                for n in range(kills):
                    for album in albums:
                        album.change()
                    time.sleep(dice.uniform(0, LONGEST))
                    if n % 2:
                        client.restart()
                    else:
                        server.kill()
                        server = start_server()
                faults = [fault for album in albums for fault in album.find_faults(server)]
            kept = sum(len(album.ids) for album in albums)
        finally:
            server.stop()
    figure = f"{kills} kills, {kept} files with their first bytes: {len(faults)} faults"
    return Outcome(figure + (f"; {'; '.join(faults[:3])}" if faults else ""), not faults)


class Watching:
    """`sightline watch` in a process of its own."""

    def __init__(self, album: Album, url: str) -> None:
        self._command = [sys.executable, "-m", "app", "watch", str(album.root), "--server", url]
        self._command += ["--collection", album.collection]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.end()
        self._start()


@contextmanager
def watching(album: Album, url: str) -> Iterator[Watching]:
    process = Watching(album, url)
    try:
        yield process
    finally:
        process.end()
