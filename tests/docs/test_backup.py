"""Back up a running server as docs/howto/back-up.md says, while pictures are added and deleted."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.commands import sightline
from tests.docs.samples import ROOT, Block, blocks
from tests.docs.terminal import Terminal, missing_programs
from tests.support.pictures import picture
from tests.support.servers import RunningServer

BEFORE = 120


@dataclass(slots=True)
class Traffic:
    """Ids that the server acknowledged, and ids that it deleted, during the backup."""

    added: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)


@contextmanager
def run_traffic(server: RunningServer) -> Iterator[Traffic]:
    """Upload without a pause; delete every second new picture, and the old ones from the first on."""
    seen = Traffic()
    ending = threading.Event()

    def run() -> None:
        n = 0
        while not ending.is_set():
            content = picture("blue", seed=10_000 + n)
            assert server.upload(content, wait=0, id=f"new-{n}").status_code == 202
            seen.added.add(f"new-{n}")
            for gone in (f"new-{n}", f"old-{n // 2}") if n % 2 else ():
                if server.http.delete(f"/v1/images/{gone}").status_code == 204:
                    seen.deleted.add(gone)
            n += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        ending.set()
        thread.join()


def archive(contents: dict[str, bytes]) -> bytes:
    """A zip of pictures with these ids."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for id, content in contents.items():
            file.writestr(f"{id}.png", content)
        file.writestr("metadata.jsonl", "\n".join(json.dumps({"file": f"{id}.png", "id": id}) for id in contents))
    return out.getvalue()


def find_block(word: str) -> Block:
    """The block of the page that contains this word."""
    found = [block for block in blocks(ROOT / "docs/howto/back-up.md") if word in block.text]
    assert len(found) == 1
    return found[0]


@pytest.mark.timeout(300)
def test_a_backup_under_load_has_every_picture_that_was_there_and_stays(tmp_path: Path) -> None:
    if missing := missing_programs():
        pytest.skip(f"the samples need {', '.join(missing)}")
    terminal = Terminal(tmp_path, "")
    with RunningServer(tmp_path / "photos") as server:
        contents = {f"old-{n}": picture("red", seed=n) for n in range(BEFORE)}
        kept = {id: hashlib.sha256(content).hexdigest() for id, content in contents.items()}
        assert server.wait_job(server.bulk([("old.zip", archive(contents))])["id"])["done"] == BEFORE
        with run_traffic(server) as seen:
            terminal.run(find_block("sightline backup backup"))
    assert seen.added, "nothing came while the backup ran"
    assert seen.deleted, "nothing went while the backup ran"
    terminal.run(find_block("sightline restore backup"))
    checked = sightline("verify", "--data-dir", tmp_path / "restored")
    assert checked.returncode == 0, checked.stdout
    with RunningServer(tmp_path / "restored") as restored:
        for id in set(kept) - seen.deleted:
            answer = restored.http.get(f"/v1/images/{id}/file")
            assert hashlib.sha256(answer.content).hexdigest() == kept[id], id
        assert restored.http.get("/v1/search", params={"q": "red"}).json()["hits"]
