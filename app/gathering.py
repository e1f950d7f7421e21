"""Gathering: brings what a source holds, URLs or a folder of this machine say, to where it can be taken in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from app.errors import Validation, translated
from app.media import discard, sync_folder
from app.sources.kind import Asked, Kind, Line, Stopping, Tools
from app.sources.kinds import opened

FOLDER = "fetched"
SCRATCH = {FOLDER, "window"}  # folders whose files come again
MANIFEST = "manifest.jsonl"
BLOCK = 1 << 20


def never() -> bool:
    """For who is not to be stopped."""
    return False


class Gathering:
    """Writes the manifests of sources, and brings what they name, part by part."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def open(self, asked: Asked) -> Kind:
        """What reads a source; the caller closes it."""
        return opened(asked, self._tools)

    def scan(self, kind: Kind, folder: Path, collection: str, stopping: Stopping = never) -> None:
        """Write the manifest of `folder`, whole or not at all. Raises what the kind does."""
        write(folder, kind.scan(folder, collection, stopping))

    def bring(self, kind: Kind, folder: Path, lines: Sequence[Line], stopping: Stopping = never) -> list[Line]:
        """The lines, each with its `file` in `folder`, or with an `error`. Raises Overloaded when it is `stopping`."""
        target = folder / FOLDER
        discard(target)
        with translated():
            target.mkdir()
        wanted = [line for line in lines if not line.get("error")]
        came = iter(kind.bring(target, wanted, stopping) if wanted else ())
        return [line if line.get("error") else next(came) for line in lines]

    def done(self, folder: Path) -> None:
        """Remove what was brought; what was taken in has a name of its own."""
        discard(folder / FOLDER)


def write(folder: Path, lines: Iterable[Line]) -> int:
    """Write the manifest of `folder`, durably and whole; returns how many lines it has."""
    count = 0
    path = folder / f"{MANIFEST}.new"
    with translated():
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (entered below)
    with file:
        for line in lines:  # whose errors are their own
            count += 1
            text = json.dumps(line) + "\n"
            with translated():
                file.write(text)
        with translated():
            file.flush()
            os.fsync(file.fileno())
    with translated():
        path.replace(folder / MANIFEST)
        sync_folder(folder)
    return count


def write_list(folder: Path, items: Iterable[Line], most: int) -> int:
    """Write what a worker is to fetch as the manifest of `folder`, durably; returns how many items there are.

    Each has a `name` and a `url`. Raises Validation for none, and for more than `most`.
    """
    count = write(folder, islice(items, most + 1))
    if not 1 <= count <= most:
        raise Validation(f"send 1 to {most} URLs" + ("" if count else ", got none"))
    return count


def has_manifest(folder: Path) -> bool:
    """Whether it is known what the source holds."""
    return (folder / MANIFEST).exists()


def count(folder: Path, position: int) -> int:
    """How many lines the manifest has past `position` bytes."""
    with translated(), open(folder / MANIFEST, "rb") as file:
        file.seek(position)
        return sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))


def lines(folder: Path, position: int) -> Iterator[tuple[Line, int]]:
    """The lines of the manifest past `position` bytes, each with the position behind it."""
    with translated(), open(folder / MANIFEST, "rb") as file:
        file.seek(position)
        for text in file:
            position += len(text)
            yield json.loads(text), position
