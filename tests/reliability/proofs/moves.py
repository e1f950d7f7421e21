"""`sightline move` that is killed while it runs brings everything over, once, in both directions.

A data directory with pictures, jobs, keys, a waiting upload and rows in every table is moved into PostgreSQL and a
bucket, and back into another directory. The command is killed with -9 in its first 1.5 s of work, and started again
with the same options, until it has ended: most moves are killed once, some more often, some never.

Failing: a row of any table that is not the same at the end, a file with other bytes, a server that starts on a target
that is not finished, a picture that is not found, or that was embedded again.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from app.core.settings import Settings
from app.service.data_dir import open_database
from tests.acceptance.commands import sightline
from tests.app.service.test_move import list_files, read_rows
from tests.reliability.promise import Impossible, Outcome, Promise, Scale
from tests.support.cluster import BUCKET, DURABLE, StoreProcess, has_postgresql
from tests.support.object_stores import WHO
from tests.support.pictures import picture
from tests.support.postgresql import PostgresqlServer
from tests.support.servers import RunningServer

PROMISE = Promise(
    39,
    "moves",
    "A move between places that is killed while it runs goes on when it is started again, and brings everything over"
    " once.",
)
START = 0.8  # seconds that a command takes to import what it needs
LONGEST = 1.5
MAX_KILLS = 6  # of one move, then it may end
PICTURES = 60
# What may differ: who holds a lease, and which installation it is.
CHANGED = {"installation"}


def run(scale: Scale) -> Outcome:
    """2 moves with at least one kill, or 20 with at least 10."""
    if not has_postgresql():
        raise Impossible("PostgreSQL is not installed")
    moves = scale.pick(1, 10)
    dice = random.Random(39)
    os.environ.update(WHO)
    postgresql, store = PostgresqlServer(DURABLE), StoreProcess()
    kills = rows = 0
    faults: list[str] = []
    try:
        with tempfile.TemporaryDirectory() as name:
            first = Path(name, "first")
            fill(first)
            before = read(first)
            for n in range(moves):
                postgresql.execute(f"CREATE DATABASE moved{n}")
                cluster = ["--database", postgresql.address(f"moved{n}"), "--media", f"s3://{BUCKET}/{n}"]
                endpoint = {"SIGHTLINE_S3_ENDPOINT": store.url}
                there = [option.replace("--", "--to-") for option in cluster]
                kills += move_and_kill(["--data-dir", str(first), *there], endpoint, dice)
                back = Path(name, f"back{n}")
                kills += move_and_kill([*cluster, "--to-data-dir", str(back)], endpoint, dice)
                after = read(back)
                rows = sum(map(len, after.values()))
                differing = {table for table in before if before[table] != after[table]} - CHANGED
                faults += [f"{table} differs" for table in differing]
                faults += ["files differ"] if list_files(first) != list_files(back) else []
                faults += search(back)
    finally:
        store.close()
        postgresql.close()
    figure = f"{2 * moves} moves of {rows} rows, {kills} kills: {len(faults)} faults"
    return Outcome(figure + (f"; {faults[0]}" if faults else ""), not faults and kills >= scale.pick(1, 10))


def fill(data: Path) -> None:
    """Pictures that are embedded, and some that wait."""
    with RunningServer(data) as server:
        job = server.bulk([(f"{n}.png", picture(seed=n)) for n in range(PICTURES)])
        server.wait_job(job["id"])
        server.http.post("/v1/texts", json={"texts": [{"id": "t", "text": "red"}]}).raise_for_status()
        server.http.delete(f"/v1/images/{server.upload(picture(seed=1000)).json()['id']}").raise_for_status()
    with RunningServer(data, workers=0) as server:
        server.bulk([(f"{n}.png", picture(seed=2000 + n)) for n in range(PICTURES)])
        server.upload(picture(seed=3000), wait=0).raise_for_status()
    assert sightline("keys", "create", "one", "--scope", "admin", "--data-dir", data).returncode == 0


def read(data: Path) -> dict[str, list[dict[str, object]]]:
    database = open_database(Settings(data_dir=data))
    try:
        return read_rows(database)
    finally:
        database.close()


def move_and_kill(arguments: list[str], variables: dict[str, str], dice: random.Random) -> int:
    """Start a move again and again, and kill it while it runs; how often it was killed."""
    kills = 0
    command = [sys.executable, "-m", "app", "move", *arguments]
    while True:
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            said = process.communicate(timeout=START + dice.uniform(0, LONGEST) if kills < MAX_KILLS else 120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, said  # also where the kill came after the last commit
        return kills


def search(data: Path) -> list[str]:
    """What a server on the moved directory answers otherwise than it should."""
    key = sightline("keys", "create", "two", "--scope", "search", "--data-dir", data).stdout.strip()
    with RunningServer(data, workers=0) as server:
        found = server.http.get("/v1/search", params={"q": "red", "k": 1000}, headers={"X-API-Key": key}).json()["hits"]
    return [] if len(found) == PICTURES else [f"{len(found)} of {PICTURES} found"]
