"""Run real servers: `sightline serve` in its own process, on a free port of the loopback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import httpx2 as httpx

from app.storage.tables import images

START_SECONDS = 180.0  # the machine may be busy
ADDRESS = re.compile(r"at (http://\S+)")


class RunningServer:
    """A server on `data_dir`. Keywords are settings (`workers=2`, `max_k=5`).

    `under` is a command that runs the server, such as (`strace`, `-D`, …); the server must stay our child.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        model: str = "colours",
        ready: bool = True,
        under: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        self.data_dir = data_dir
        self.lines: list[str] = []
        chosen = {"model": model, "data_dir": data_dir, "port": 0, **settings}
        environment = {f"SIGHTLINE_{name.upper()}": str(value) for name, value in chosen.items()}
        self.process = subprocess.Popen(
            [*under, sys.executable, "-m", "app", "serve"],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        try:
            self.url = self._address()
            self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
            if ready:
                self.wait_ready()
        except BaseException:  # nothing else would end the process
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self) -> None:
        """Wait until /readyz answers 200."""
        wait_until(lambda: self.http.get("/readyz").status_code == 200, START_SECONDS, self.output)

    def wait_job(self, id: str, seconds: float = 120.0) -> dict[str, Any]:
        """Wait until the job has ended; returns it."""

        def finished_job() -> dict[str, Any] | None:
            job: dict[str, Any] = self.http.get(f"/v1/jobs/{id}").json()
            return job if job["state"] not in ("queued", "running", "paused") else None

        ended_job: dict[str, Any] = wait_until(finished_job, seconds, self.output)
        return ended_job

    def upload(self, content: bytes, name: str = "picture.png", wait: float = 30, **fields: Any) -> httpx.Response:
        """POST /v1/images with one file."""
        return self.http.post("/v1/images", params={"wait": wait}, files={"file": (name, content)}, data=fields)

    def bulk(self, files: list[tuple[str, bytes]]) -> dict[str, Any]:
        """POST /v1/images/bulk; returns the Job."""
        response = self.http.post("/v1/images/bulk", files=[("files", file) for file in files])
        assert response.status_code == 202, response.text
        job: dict[str, Any] = response.json()
        return job

    def pids(self) -> list[int]:
        """Process ids of the server's workers."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def kill(self) -> None:
        """Kill the server process alone with SIGKILL."""
        self.process.kill()
        self.process.wait()
        self.http.close()
        self._reading.join(60)
        if self.process.stderr:
            self.process.stderr.close()

    def stop(self) -> int:
        """Send SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.http.close()
        self._reading.join(60)
        if self.process.stderr:
            self.process.stderr.close()
        return code

    def output(self) -> str:
        """Everything that the server and its workers have written to stderr."""
        return "".join(self.lines)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def _address(self) -> str:
        def find_address() -> str | None:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.output()}")
            match = ADDRESS.search(self.output())
            return match.group(1) if match else None

        return str(wait_until(find_address, START_SECONDS, self.output))


def wait_until(condition: Any, seconds: float, why: Any = lambda: "") -> Any:
    """Call `condition` until it is true; returns its value. Fails with `why()` after `seconds`.

    The longer it has waited, the longer it pauses: who asks without end takes the time of the one that works.
    """
    began = time.monotonic()
    while (waited := time.monotonic() - began) < seconds:
        value = condition()
        if value:
            return value
        time.sleep(min(max(waited / 10, 0.02), 0.25))
    raise AssertionError(f"not within {seconds} s: {why()}")


def set_taken_at(server: RunningServer, times: Mapping[str, str]) -> None:
    """Give stored pictures of the collection `default`, by id, their times, as if the files carried them."""
    with closing(apsw.Connection(str(server.data_dir / "sightline.db"))) as c:
        c.set_busy_timeout(10_000)
        for id, taken_at in times.items():
            image = images.get(c, "default", id)
            assert image is not None
            images.set_carried(c, image.key, {"taken_at": taken_at})
