"""Measure how soon the pictures of a collection are equal to a watched folder again, after many changes at once.

python -m bench.experiments.watch [FILES]   (10,000)

A server with the encoder of colours; the folder is watched by the server itself, then by `sightline watch`. While it
is watched, a tenth of the files are renamed (files, and folders with all in them) and a twentieth are deleted; then
some are changed and some new. Equal means: the pictures that the server lists have the names and bytes of the files,
all of them are ready, the index holds as many vectors, and each renamed file has kept its id.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from rich.console import Console
from rich.table import Table

from app.cli.client import Client
from app.cli.demo import free_port, run_server, wait_until_ready

FILES = 10_000
A_FOLDER = 100  # files
CHANGED = 50  # files that get other bytes, and as many new ones
HOST = "127.0.0.1"
GIVE_UP_SECONDS = 900.0


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    table = Table("", "the server watches", "sightline watch")
    columns = []
    with tempfile.TemporaryDirectory() as scratch:
        for who in ("server", "client"):
            root = Path(scratch, who, "album")
            fill(root, files)
            os.environ["SIGHTLINE_FOLDERS"] = str(root.parent)
            port = free_port(HOST, 0)
            data = Path(scratch, f"data-{who}")
            with run_server(data, HOST, port, "colours") as process, Client(f"http://{HOST}:{port}") as client:
                wait_until_ready(client, process)
                with watching(root, client.server, remote=who == "client"):
                    columns.append(measure(root, client.server))
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    console = Console(width=120)
    console.print(f"{os.cpu_count()} cores; {files:,} files in {files // A_FOLDER} folders")
    console.print(table)


def fill(root: Path, files: int) -> None:
    """Draw small pictures, all different, an hour old."""
    for n in range(files):
        path = root / f"{n // A_FOLDER:03d}" / f"{n:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path, n)
        os.utime(path, (time.time() - 3600,) * 2)


def draw(path: Path, seed: int) -> None:
    Image.frombytes("RGB", (12, 12), random.Random(seed).randbytes(432)).save(path)


@contextmanager
def watching(root: Path, server: str, *, remote: bool) -> Iterator[None]:
    """Let the server watch a folder, or run `sightline watch`."""
    command = [sys.executable, "-m", "app", "watch", "--server", server]
    if not remote:
        subprocess.run([*command, f"folder:{root}"], check=True, stdout=subprocess.DEVNULL)
        yield
        return
    process = subprocess.Popen([*command, str(root)], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def measure(root: Path, server: str) -> dict[str, str]:
    """The figures of one watched folder."""
    with httpx.Client(base_url=server, trust_env=False, timeout=60) as http:
        loaded = wait_until(lambda: is_equal(http, root))
        ids = {source: image["id"] for source, image in list_pictures(http).items()}
        began = time.monotonic()
        renamed, deleted = rename_and_delete(root)
        spent = time.monotonic() - began
        equal = wait_until(lambda: is_equal(http, root))
        after = list_pictures(http)
        kept = sum(after[new]["id"] == ids[old] for old, new in renamed.items())
        change(root)
        changed = wait_until(lambda: is_equal(http, root))
        return {
            "load all files": f"{loaded:.1f} s",
            f"make {len(renamed):,} renames and {deleted:,} deletions": f"{spent:.1f} s",
            "equal after the last of them": f"{equal:.1f} s",
            "renamed files that kept their ids": f"{kept:,} of {len(renamed):,}",
            f"equal after {CHANGED} changed and {CHANGED} new files": f"{changed:.1f} s",
        }


def rename_and_delete(root: Path) -> tuple[dict[str, str], int]:
    """Rename a tenth of the files, half of them with their folders, and delete a twentieth.

    Returns the sources of the renamed files, before and after, and how many were deleted.
    """
    folders = sorted(root.iterdir())
    some = len(folders) // 20
    renamed: dict[str, str] = {}
    for folder in folders[:some]:
        target = root / f"moved-{folder.name}"
        renamed |= {name(root, path): name(root, target / path.name) for path in folder.iterdir()}
        folder.rename(target)
    for n, path in enumerate(path for folder in folders[some : 2 * some] for path in sorted(folder.iterdir())):
        target = folders[-1 - n % 10] / f"renamed-{path.name}"
        renamed[name(root, path)] = name(root, target)
        path.rename(target)
    gone = [path for folder in folders[2 * some : 3 * some] for path in folder.iterdir()]
    for path in gone:
        path.unlink()
    return renamed, len(gone)


def change(root: Path) -> None:
    """Give some files other bytes, and add some."""
    folder = max(root.iterdir())
    for n, path in enumerate(sorted(folder.iterdir())[:CHANGED]):
        draw(path, 1_000_000 + n)
        draw(folder / f"new-{n}.png", 2_000_000 + n)


def name(root: Path, path: Path) -> str:
    """The source of the picture of a file."""
    return str(path.relative_to(root.parent))


def is_equal(http: httpx.Client, root: Path) -> bool:
    """Whether the pictures are those of the folder, and searches find all of them."""
    stats = http.get("/v1/stats").json()
    files = list(root.rglob("*.png"))
    if stats["images"]["ready"] != len(files) or stats["images"]["total"] != len(files):
        return False
    index = stats["index"]["images"]
    if index["ntotal"] != len(files) or index["lag"]:
        return False
    has = {source: image["sha256"] for source, image in list_pictures(http).items()}
    return has == {name(root, path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def list_pictures(http: httpx.Client) -> dict[str, dict[str, Any]]:
    """All pictures by their sources."""
    found: dict[str, dict[str, Any]] = {}
    params: dict[str, Any] = {"limit": 1000}
    while True:
        page = http.get("/v1/images", params=params).json()
        found |= {image["source"]: image for image in page["images"]}
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]


def wait_until(condition: Callable[[], bool]) -> float:
    """The seconds until a condition holds: to the beginning of the look that found it so."""
    began = time.monotonic()
    while time.monotonic() - began < GIVE_UP_SECONDS:
        looked = time.monotonic()
        if condition():
            return looked - began
        time.sleep(0.1)
    raise SystemExit(f"the pictures are not equal to the folder after {GIVE_UP_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
