"""This version opens data of former versions in whole; it refuses data of a newer version and leaves it unchanged.

The tests keep a data directory of every schema that was ever served (`tests/acceptance/schemas`). The proof starts a
server on a copy of each: the server must serve every picture of its list, a search must find the ready ones, and
`sightline verify` must find nothing wrong. A database that claims a newer version must be refused with exit code 2, and
no byte of it may change. (`scripts/prove kills` kills a server in the middle of a migration.)

Failing: anything else.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import apsw

from tests.acceptance.commands import sightline
from tests.reliability.client import digest, pictures
from tests.reliability.promise import Impossible, Outcome, Promise, Scale
from tests.reliability.results import ROOT
from tests.support.servers import RunningServer

PROMISE = Promise(20, "upgrades", "Upgrades keep the data; data of a newer version is refused by older code.")
FOLDER = ROOT / "tests" / "acceptance" / "schemas"


def run(scale: Scale) -> Outcome:
    """Every schema that was ever served."""
    kept = sorted(FOLDER.glob("schema-*.zip"))
    if not kept:
        raise Impossible("no data directory of a former version is kept")
    chosen = kept[: scale.pick(1, len(kept))]
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for archive in chosen:
            data = Path(name) / archive.stem
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(data)
            wrong += [f"{archive.stem}: {why}" for why in check_former_opens(data)]
        wrong += check_newer_is_refused(Path(name) / chosen[0].stem)
    figure = f"{len(chosen)} former schemas opened, 1 newer refused: {len(wrong)} faults"
    if wrong:
        figure += f"; {wrong[0]}"
    return Outcome(figure, not wrong)


def check_former_opens(data: Path) -> list[str]:
    """Faults of a server of this version on this directory."""
    connection = apsw.Connection(str(data / "sightline.db"))
    before = {row[0] for row in connection.execute("SELECT sha256 FROM images")}
    connection.close()
    with RunningServer(data, workers=0) as server:
        there = pictures(server)
        wrong = [] if {image["sha256"] for image in there} == before else [f"{len(there)} of {len(before)} pictures"]
        for image in there:
            content = server.http.get(f"/v1/images/{image['id']}/file").content
            if digest(content) != image["sha256"]:
                wrong.append(f"{image['id']} is altered")
        hits = server.http.get("/v1/search", params={"q": "red", "k": 1000}).json()["hits"]
        if {hit["id"] for hit in hits} != {image["id"] for image in there if image["status"] == "ready"}:
            wrong.append(f"{len(hits)} found")
    checked = sightline("verify", "--data-dir", data)
    return wrong + ([] if checked.returncode == 0 else [checked.stdout[-300:]])


def check_newer_is_refused(data: Path) -> list[str]:
    """Faults in the refusal of a database of a newer version."""
    path = data / "sightline.db"
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 999)
    connection.close()
    before = path.read_bytes()
    ended = sightline("serve", "--data-dir", data, "--port", "0", "--model", "colours")
    if ended.returncode != 2 or "newer Sightline" not in ended.stderr:
        return [f"newer data: code {ended.returncode}: {ended.stderr[-200:]}"]
    return [] if path.read_bytes() == before else ["newer data was changed"]
