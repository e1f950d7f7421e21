"""A data directory with rows in every table, some of them odd: what a copy of a database must bring over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.storage.library import Library
from app.storage.sql import Connection
from app.storage.tables import embeddings, installation
from tests.support.makers import FINGERPRINT, SPACE, add, add_bulk, claim, finish
from tests.support.pictures import picture

ODD_TEXT = 'it\'s "odd"\n\\ 笑脸 🙂 \u200b'
# Rows that no call of the fixture makes, by table: what the columns need, and odd values for the others.
ROWS: Mapping[str, Mapping[str, Any]] = {
    "texts": {"collection": "default", "id": "t", "text": ODD_TEXT, "metadata": "{}", "created_at": "2026"},
    "changes": {"n": 70, "target": "images", "key": 1},
    "keys": {"id": "k", "name": ODD_TEXT, "hash": bytes(range(256)), "scope": "admin", "created_at": "2026"},
    "sessions": {"hash": b"\0\1\xff", "key_id": "k", "expires_at": "2027"},
    "origins": {"origin": "https://example.org/ä", "tag": '"x"', "sha256": "0" * 64},
    "answers": {
        **{"n": 9, "owner": "", "key": "a", "request": "r", "status": 200, "body": ODD_TEXT, "bytes": 9},
        "created_at": "2026",
    },
    "given": {"image_key": 1, "space": FINGERPRINT, "vector": b"\0\0\x80?" * 4},
    "duplicate_scans": {"collection": "default", "space": FINGERPRINT, "seq": 1, "finished_at": None},
    "duplicate_pairs": {"a": 1, "b": 2, "collection": "default", "bits": None, "distance": 0.1 + 0.2},
    "heads": {
        **{"id": "h", "collection": "default", "space": FINGERPRINT, "matrix": bytes(6_000_000), "maps_pictures": 0},
        **{"figures": "{}", "created_at": "2026"},
    },
    "next_space": {"one": 1, "job_id": "j", "space": FINGERPRINT},
    "model_changes": {"name": "photos", "model": "m", "changed_at": "2026"},
    "enrichment_kinds": {"kind": "ocr", "is_on": 1, "backlog": 1 << 40, "fault": None},
    "enrichments": {"key": 1, "kind": "ocr", "collection": "default", "state": "running", "place": 1, "owner": "x"},
    "label_sets": {"collection": "default", "labels": "[]", "revision": 1, "seq": 1, "updated_at": "2026"},
    "saved_searches": {
        "id": "s",
        "collection": "default",
        "name": "s",
        "query": "{}",
        "since": 1,
        "created_at": "2026",
    },
    "matches": {
        **{"n": 5, "search": "s", "key": 1, "sha256": "0" * 64, "is_new": 1, "score": 1e-300, "matched": "[]"},
        "matched_at": "2026",
    },
    "videos": {
        **{"key": 3, "collection": "default", "sha256": "1" * 64, "format": "mp4", "codec": "h264", "bytes": 1},
        **{"width": 1, "height": 1, "duration_ms": 1, "created_at": "2026", "kept": 0},
    },
    "watches": {
        **{"n": 4, "id": "w", "collection": "default", "kind": "folder", "place": "/p", "title": "p"},
        "created_at": "2026",
    },
    "watched_files": {
        **{"watch": 4, "folder": "", "name": ODD_TEXT, "size": 1, "mtime_ns": 1 << 62, "inode": 1, "sha256": "0" * 64},
        **{"beside": "", "is_mounted": 0},
    },
}


def fill_library(library: Library) -> None:
    """Pictures in every state, an upload that waits, deleted rows, and `ROWS`."""
    for n, colour in enumerate(("red", "green", "blue", "yellow", "white")):
        add(library, picture(colour), id=colour, caption=f"{ODD_TEXT} {n}", tags=("a", "b"))
    leases = claim(library.database, limit=3)
    finish(library.database, leases[0])
    finish(library.database, leases[1])
    job = add_bulk(library, [("g.png", picture("black"))], [("a.zip", b"an archive, to be")])
    item = "INSERT INTO job_items (job_id, n, name, status, image_key) VALUES (?, 1, ?, 'failed', NULL)"
    library.database.write(lambda c: c.execute(item, (job.id, ODD_TEXT)))
    library.database.write(lambda c: installation.set_media(c, installation.LOCAL))
    library.delete("default", "white")
    library.database.write(add_rows)


def add_rows(c: Connection) -> None:
    embeddings.save_space(c, SPACE)
    for name, row in ROWS.items():
        sql = f"INSERT INTO {name} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
        c.execute(sql, tuple(row.values()))
    c.execute("DELETE FROM changes WHERE n = 70")  # its number must not come again
