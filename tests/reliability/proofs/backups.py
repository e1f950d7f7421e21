"""A backup made under load holds every picture acknowledged before it; a damaged backup is refused.

While clients upload and delete, the proof makes backups beside the server and restores each into a new directory. Every
picture must be there, byte for byte, if it was acknowledged before the backup began and its delete was not sent before
the backup ended. No picture that was deleted before the backup began may be there. SQLite's check of the database must
pass. Then the proof damages copies of the last backup, one file each (a byte, the end, the whole file), and restores
each into a new directory and into one that is in use.

Failing: a picture is missing, altered or back after its delete; a damaged backup is restored; a refused restore
changes the target.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import httpx2 as httpx

from app.core.errors import StartupError
from app.storage.address import open_database
from app.storage.backup import check_copy, create_backup, restore_backup
from app.storage.sqlite import check_integrity
from tests.reliability.client import digest
from tests.reliability.ledger import Ledger
from tests.reliability.promise import Outcome, Promise, Scale
from tests.support.servers import RunningServer, wait_until

PROMISE = Promise(
    18, "backups", "Backups under load are whole, and a damaged one is refused before anything is touched."
)
LEAST = 30


def run(scale: Scale) -> Outcome:
    """50 backups, 200 damaged ones."""
    times, damages = scale.pick(4, 50), scale.pick(30, 200)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name) / "ledger") as ledger:
        folder = Path(name)
        stop = threading.Event()
        with RunningServer(folder / "data") as server:
            load = threading.Thread(target=change, args=(server.url, ledger, stop))
            load.start()
            wait_until(lambda: len(ledger.there) > LEAST, 120, server.output)
            for n in range(times):
                wrong += check_backup(folder, ledger, n)
            stop.set()
            load.join(60)
        last = folder / f"kept-{(times - 1) % 2}"
        passed = count_refused(folder, last, damages)
    figure = f"{times} backups under load restored, {len(wrong)} differ; {passed} of {damages} damaged refused"
    if wrong:
        figure += f"; {wrong[0]}"
    return Outcome(figure, not wrong and passed == damages)


def change(url: str, ledger: Ledger, stop: threading.Event) -> None:
    """Upload, and delete some, until `stop` is set."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        ids: list[tuple[str, str]] = []
        while not stop.is_set():
            content = ledger.new()
            id = http.post("/v1/images", files={"file": ("one.png", content)}).raise_for_status().json()["id"]
            ledger.stored(digest(content))
            ids.append((id, digest(content)))
            if len(ids) > 2 * LEAST:
                gone, sha256 = ids.pop(LEAST // 2)
                ledger.deleting(sha256)
                http.delete(f"/v1/images/{gone}").raise_for_status()
                ledger.deleted(sha256)


def check_backup(folder: Path, ledger: Ledger, n: int) -> list[str]:
    """Make a backup (in turn into two folders) and restore it; returns the faults."""
    target, again = folder / f"kept-{n % 2}", folder / "again"
    before, gone = set(ledger.there), set(ledger.gone)
    create_backup(folder / "data", target)
    needed = before & set(ledger.there)
    restore_backup(again, target)
    with closing(open_database(again / "sightline.db")) as database:
        wrong = [f"database: {fault}" for fault in database.read(check_integrity)]
        held = set(database.read(lambda c: {row[0] for row in c.execute("SELECT sha256 FROM images")}))
    wrong += [f"lost {sha256[:8]}" for sha256 in needed - held]
    wrong += [f"back {sha256[:8]}" for sha256 in gone & held]
    for sha256 in held:
        path = again / "media" / sha256[:2] / sha256[2:4] / sha256
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            wrong.append(f"altered {sha256[:8]}")
    shutil.rmtree(again)
    return wrong


def count_refused(folder: Path, whole: Path, damages: int) -> int:
    """Count the damaged copies that are refused without a change of the target."""
    dice = random.Random(18)
    database = next(path.name for path in whole.glob("sightline-*.db"))
    _, held = check_copy(whole / database)
    used = folder / "used"
    restore_backup(used, whole)
    state = read_tree(used)
    count = 0
    for n in range(damages):
        copy, target = folder / "damaged", used if n % 2 else folder / "fresh"
        shutil.copytree(whole, copy)
        damage(copy, database, held, dice)
        try:
            restore_backup(target, copy)
        except StartupError:
            count += read_tree(used) == state and not (folder / "fresh").exists()
        shutil.rmtree(copy)
        shutil.rmtree(folder / "fresh", ignore_errors=True)
    return count


def damage(copy: Path, database: str, held: Sequence[str], dice: random.Random) -> None:
    """Damage one file of a backup."""
    sha256 = dice.choice(held)
    path = copy / dice.choice(("manifest.json", database, f"media/{sha256[:2]}/{sha256[2:4]}/{sha256}"))
    content = bytearray(path.read_bytes())
    kind = dice.choice(("flipped", "cut", "removed"))
    if kind == "removed":
        path.unlink()
        return
    if kind == "flipped":
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    else:
        del content[dice.randrange(len(content)) :]
    path.write_bytes(content)


def read_tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
