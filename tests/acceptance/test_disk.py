"""A full disk: uploads are refused, searches go on, nothing acknowledged is lost, and space mends it all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pictures import picture
from tests.servers import RunningServer, until

SIZE = "24m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    at = tmp_path / "disk"
    at.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", at], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def fill(path: Path) -> None:
    """Take every byte that is left."""
    with open(path, "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            while True:
                try:
                    file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break


def test_a_full_disk_refuses_uploads_and_loses_nothing(small_disk: Path) -> None:
    filler = small_disk / "filler"
    with RunningServer(small_disk / "data") as server:
        kept = [server.upload(picture(seed=n)).json()["id"] for n in range(5)]
        (worker,) = (pid for pid in server.pids() if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(worker, signal.SIGSTOP)
        try:
            waiting = [server.upload(picture("blue", seed=n), wait=0).json()["id"] for n in range(10)]
            for round in range(3):
                fill(filler)
                for n in range(5):
                    response = server.upload(picture("green", seed=100 * round + n, size=(400, 300)), wait=0)
                    assert response.status_code == 507, response.text
                    problem = response.json()
                    assert (problem["code"], problem["retryable"]) == ("storage_full", True)
                bulk = server.http.post("/v1/images/bulk", files={"files": ("a.png", picture("green", seed=round))})
                assert bulk.status_code == 507, bulk.text
                search = server.http.get("/v1/search", params={"q": "red"})
                assert {hit["id"] for hit in search.json()["hits"]} == set(kept)
                parts = server.http.post("/v1/search", json={"query": [{"text": "red"}]})
                assert parts.status_code == 200, parts.text
                small = server.http.get(f"/v1/images/{kept[0]}/thumbnail", params={"size": 64 << round})
                assert small.status_code in (200, 507), small.text
                filler.unlink()
                assert server.upload(picture("yellow", seed=round), wait=0).status_code == 202
            fill(filler)
        finally:
            os.kill(worker, signal.SIGCONT)

        def stuck() -> bool:
            stats = server.http.get("/v1/stats").json()["images"]
            return stats["failed"] > 0 or "waiting:" in server.output() or stats["queued"] + stats["processing"] == 0

        until(stuck, 30, server.output)
        assert server.http.get("/v1/stats").json()["images"]["failed"] == 0
        filler.unlink()
        for id in [*kept, *waiting]:
            until(lambda id=id: server.http.get(f"/v1/images/{id}").json()["status"] == "ready", 60, server.output)
        assert server.upload(picture("purple", seed=1)).json()["status"] == "ready"
        assert server.process.poll() is None
        assert "Traceback" not in server.output()
        assert not list((server.data_dir / "media" / ".incoming").iterdir())
    with RunningServer(small_disk / "data") as server:
        for id in [*kept, *waiting]:
            assert server.http.get(f"/v1/images/{id}/file").status_code == 200
