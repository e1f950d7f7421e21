"""`manifest.jsonl` in the folder of an upload: one line for each item of the upload or the source."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.core.errors import map_os_errors
from app.core.files import fsync_dir, open_beneath

MANIFEST_NAME = "manifest.jsonl"
FETCHED_DIR = "fetched"  # the folder of a job into which a source brings files
SCRATCH_DIRS = {FETCHED_DIR, "window"}  # folders whose files can be brought again
BLOCK_BYTES = 1 << 20


def write_manifest(folder: Path, lines: Iterable[Mapping[str, Any]]) -> int:
    """Write the manifest of `folder` durably; returns how many lines it has. Errors of `lines` pass as they are."""
    count = 0
    path = folder / f"{MANIFEST_NAME}.new"
    with map_os_errors():
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (entered below)
    with file:
        for line in lines:
            count += 1
            text = json.dumps(line) + "\n"
            with map_os_errors():
                file.write(text)
        with map_os_errors():
            file.flush()
            os.fsync(file.fileno())
    with map_os_errors():
        path.replace(folder / MANIFEST_NAME)
        fsync_dir(folder)
    return count


def has_manifest(folder: Path) -> bool:
    """Whether the items of the source are listed already."""
    return (folder / MANIFEST_NAME).exists()


def count_lines(folder: Path, position: int) -> int:
    """How many lines the manifest has past `position` bytes."""
    with map_os_errors(), open_beneath(folder, MANIFEST_NAME) as file:
        file.seek(position)
        return sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK_BYTES), b""))


def read_manifest(folder: Path, position: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The lines of the manifest past `position` bytes, each with the position behind it."""
    with map_os_errors(), open_beneath(folder, MANIFEST_NAME) as file:
        file.seek(position)
        for text in file:
            position += len(text)
            yield json.loads(text), position
