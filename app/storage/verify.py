"""`sightline verify`: do files, rows and log agree? It only reads, and may run beside a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.core.errors import StartupError
from app.storage.blobs import BlobStore
from app.storage.database import Database
from app.storage.sql import fetch_all

Fault = tuple[str, str, str]  # what, where, why
REMEDIES = {
    "database": "stop the server and keep this directory; restore the last backup into another one"
    " (`sightline restore BACKUP --data-dir NEW`) and serve that",
    "blob_missing": "upload the same file again, or copy it to its place from a backup, where it has the same path;"
    " delete the picture if neither can be done. Searches find it meanwhile",
    "blob_altered": "as for one that is missing; the file is never served as it is, an upload of its bytes replaces it",
    "orphan": "harmless; a server removes it when it starts, if it is older than an hour",
    "no vector": "`sightline reembed` encodes everything anew; until then it is not found",
    "no row": "harmless, the answers leave it out; `sightline reembed` removes it",
}


def verify(data_dir: Path, console: Console) -> int:
    """Print every fault; returns the exit status: 0 without any, else 1."""
    if not (data_dir / "sightline.db").is_file():
        raise StartupError(f"there is no data directory at {data_dir}")
    database = Database(data_dir / "sightline.db")
    try:
        found = [("database", "sightline.db", why) for why in database.check()]
        found += find_file_faults(database, BlobStore(data_dir), console)
        found += database.read(lambda c: list(find_log_faults(c)))
    finally:
        database.close()
    if not found:
        console.print("everything agrees: each picture has its bytes, each ready picture and text its vector")
        return 0
    table = Table("what", "which", "why")
    for fault in found:
        table.add_row(*fault)
    console.print(table)
    console.print(f"{len(found)} faults")
    for what in dict.fromkeys(what for what, _, _ in found):
        console.print(f"[bold]{what}[/bold]: {REMEDIES[what]}", highlight=False)
    return 1


def find_file_faults(database: Database, media: BlobStore, console: Console) -> list[Fault]:
    """Pictures whose bytes are gone or altered, and files that no row knows."""
    sql = (
        "SELECT sha256, o.name || '/' || id FROM images JOIN collections o ON o.label = images.collection ORDER BY key"
    )
    rows = database.read(lambda c: fetch_all(c, sql))
    faults: list[Fault] = []
    for sha256, name in track(rows, "checking files", console=console, transient=True):
        if name is None:  # of a collection that is being dropped
            continue
        if not media.path(sha256).exists():
            faults.append(("blob_missing", name, f"{blob_location(sha256)} is gone"))
        elif not media.has_digest(sha256):
            faults.append(("blob_altered", name, f"{blob_location(sha256)} has other bytes"))
    known = {sha256 for sha256, _ in rows}
    orphans = (sha256 for sha256, _ in media.iter_files() if sha256 not in known)
    return faults + [("orphan", sha256, "no picture uses this file") for sha256 in orphans]


def blob_location(sha256: str) -> str:
    """Where the file of a picture lies, in a data directory as in a backup."""
    return f"media/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def find_log_faults(c: apsw.Connection) -> Iterator[Fault]:
    """Ready pictures and texts without a vector, and vectors without a row."""
    checks = (
        (
            "no vector",
            "SELECT name || '/' || id FROM images JOIN collections o ON o.label = images.collection"
            " WHERE name IS NOT NULL AND status = 'ready' AND NOT EXISTS"
            " (SELECT 1 FROM embeddings e WHERE e.target = 'images' AND e.op = 'add' AND e.key = images.key)",
        ),
        (
            "no vector",
            "SELECT name || '/' || id FROM texts JOIN collections o ON o.label = texts.collection"
            " WHERE name IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM embeddings e WHERE e.target = 'texts' AND e.op = 'add' AND e.key = texts.key)",
        ),
        (
            "no row",
            "SELECT target || ' ' || key FROM embeddings WHERE op = 'add'"
            " AND collection NOT IN (SELECT label FROM collections WHERE name IS NULL AND swept = 0) AND"
            " ((target = 'images' AND key NOT IN (SELECT key FROM images WHERE status = 'ready'))"
            " OR (target = 'texts' AND key NOT IN (SELECT key FROM texts)))",
        ),
    )
    for what, sql in checks:
        for row in fetch_all(c, sql):
            yield what, row[0], "row and log disagree"
