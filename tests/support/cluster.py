"""A cluster on this machine: PostgreSQL, an S3, servers and workers, each in processes of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
import psycopg

from app.core.process import die_with_parent
from tests.support.object_stores import WHO
from tests.support.postgresql import PostgresqlServer, find_binaries
from tests.support.processes import descendants, is_running
from tests.support.servers import RunningServer, wait_until

BUCKET = "sightline"
DURABLE = ("shared_buffers=64MB", "max_connections=200")
LEASE_SECONDS = 5.0
SECONDS = 180.0  # of a machine that does much else


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class StoreProcess:
    """moto's S3 with an empty bucket."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        parent = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: die_with_parent(parent),
        )
        wait_until(lambda: can_connect(self.port), SECONDS)
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=WHO["AWS_REGION"],
            aws_access_key_id=WHO["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=WHO["AWS_SECRET_ACCESS_KEY"],
        )
        self.client.create_bucket(Bucket=BUCKET)

    def list_keys(self, below: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=below)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def close(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()


class RunningWorker:
    """`sightline worker` with these variables."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.lines: list[str] = []
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "worker"],
            env={**os.environ, **self._environment},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reading = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reading.start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            self.lines += lines

    def restart(self) -> None:
        self.kill()
        self.process = self._start()

    def kill(self) -> None:
        kill_tree(self.process)
        self._reading.join(SECONDS)

    def freeze(self) -> None:
        """Stop it, with its decoders, as a machine does that is suspended."""
        for pid in (self.process.pid, *descendants(self.process.pid)):
            os.kill(pid, signal.SIGSTOP)

    def wake(self) -> None:
        for pid in (*descendants(self.process.pid), self.process.pid):
            os.kill(pid, signal.SIGCONT)


def kill_tree(process: subprocess.Popen[str]) -> None:
    """kill -9, and wait until everything that belonged to it has ended."""
    below = descendants(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_running, below)), SECONDS, lambda: f"still there: {below}")


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Cluster:
    """Servers and workers over one PostgreSQL and one bucket. `endpoint` is a proxy in front of the store, if any."""

    def __init__(
        self,
        servers: int,
        workers: int,
        store: StoreProcess | None = None,
        endpoint: str | None = None,
        **settings: Any,
    ) -> None:
        self._held = tempfile.TemporaryDirectory(prefix="sightline-cluster-")
        self.folder = Path(self._held.name)
        self.postgresql = PostgresqlServer(DURABLE)
        self.postgresql.execute("CREATE DATABASE sightline")
        self.address = self.postgresql.address("sightline")
        self.store = store or StoreProcess()
        self._sizes = servers, workers
        self._settings = {
            "model": "colours",
            "database": self.address,
            "media": f"s3://{BUCKET}/prod",
            "s3_endpoint": endpoint or self.store.url,
            "lease_seconds": LEASE_SECONDS,
            "threads": 1,
            **settings,
        }
        self._numbers = 0
        self.servers: list[RunningServer] = []
        self.workers: list[RunningWorker] = []

    def __enter__(self) -> Self:
        servers, workers = self._sizes
        os.environ.update(WHO)
        try:
            starting = [threading.Thread(target=self.add_server) for _ in range(servers)]
            for thread in starting:
                thread.start()
            for thread in starting:
                thread.join()
            assert len(self.servers) == servers, "a server did not start"
            for _ in range(workers):
                self.add_worker()
            if servers:
                wait_until(lambda: self.count_workers() == workers, SECONDS, lambda: "a worker did not start")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            for one in self.servers:
                print(one.output()[-3000:], file=sys.stderr)
            for worker in self.workers:
                print("".join(worker.lines)[-3000:], file=sys.stderr)
        self.close()

    def environment(self) -> dict[str, str]:
        """The variables of one more process."""
        self._numbers += 1
        own = self.folder / str(self._numbers)
        settings = {**self._settings, "data_dir": own, "cache_dir": own}
        return {f"SIGHTLINE_{name.upper()}": str(value) for name, value in settings.items()}

    def add_server(self, **settings: Any) -> RunningServer:
        self._numbers += 1
        own = self.folder / str(self._numbers)
        server = RunningServer(own, cache_dir=own, workers=0, **{**self._settings, **settings})
        self.servers.append(server)
        return server

    def replace_server(self, server: RunningServer) -> RunningServer:
        """Start a server in the place of one that was killed, on its port and with its cache."""
        port = int(server.url.rpartition(":")[2])
        settings = {**self._settings, "cache_dir": server.data_dir, "port": port}
        new = RunningServer(server.data_dir, workers=0, ready=False, **settings)
        self.servers[self.servers.index(server)] = new
        return new

    def add_worker(self) -> RunningWorker:
        worker = RunningWorker(self.environment())
        self.workers.append(worker)
        return worker

    def count_workers(self) -> int:
        """How many workers the first server knows of."""
        members = self.servers[0].http.get("/v1/stats").json()["cluster"]
        return sum(member["kind"] == "worker" for member in members)

    def query(self, sql: str) -> list[Any]:
        """Rows of the database."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            return connection.execute(sql.encode()).fetchall()

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        for server in self.servers:
            if server.process.poll() is None:
                below = descendants(server.process.pid)
                server.kill()
                wait_until(lambda below=below: not any(map(is_running, below)), SECONDS)
        self.store.close()
        self.postgresql.close()
        self._held.cleanup()


def has_postgresql() -> bool:
    return find_binaries() is not None
