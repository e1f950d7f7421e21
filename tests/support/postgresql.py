"""A PostgreSQL server of the tests' own, as a process in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from app.core.process import die_with_parent
from app.storage.address import open_database

BINARIES = Path("/usr/lib/postgresql")  # Debian's; elsewhere they are in the path
ROWS = resources.files("app.storage.postgresql").joinpath("rows.sql").read_text("utf-8")
EMPTY = (
    """
SET lock_timeout = '10s'; SET session_replication_role = replica;
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_version' LOOP
        EXECUTE format('DELETE FROM %I', name);
    END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
        PERFORM setval(name, 1, false);
    END LOOP;
END $$;
"""
    + ROWS
)
QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off", "shared_buffers=32MB")
START_SECONDS = 60.0


def find_binaries() -> Path | None:
    """The folder with `initdb` and `postgres`, of the newest version; None where it is not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = sorted(BINARIES.glob("*/bin/initdb"), key=lambda path: float(path.parent.parent.name))
    return folders[-1].parent if folders else None


def find_user() -> str | None:
    """Whom PostgreSQL runs as where this process is root, which it refuses."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


class PostgresqlServer:
    """A server that listens on a socket in its folder, and on a port of this machine if one is given. `settings` are
    written as `name=value`; without any it is quick, and loses what it has when the machine fails."""

    def __init__(self, settings: Sequence[str] = QUICK, port: int | None = None) -> None:
        binaries = find_binaries()
        assert binaries is not None, "PostgreSQL is not installed"
        self._binaries = binaries
        self._user = find_user()
        self._numbers = count()
        self._free: list[str] = []
        self.folder = Path(tempfile.mkdtemp(prefix="sightline-pg-"))
        self.data = self.folder / "data"
        self._settings = [*settings, f"unix_socket_directories={self.folder}"]
        self._settings += [f"listen_addresses={'127.0.0.1' if port else ''}", *([f"port={port}"] if port else [])]
        self._query = f"host={self.folder}" + (f"&port={port}" if port else "")
        if self._user:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "-D", str(self.data), "-U", "sightline", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server, again after `kill` or `stop`, and wait until it answers."""
        options = [part for setting in self._settings for part in ("-c", setting)]
        parent = os.getpid()
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self.data), *options],
                stdout=log,
                stderr=log,
                user=self._user,
                preexec_fn=lambda: die_with_parent(parent),
                cwd=self.folder,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.address("postgres"), connect_timeout=2).close()
                return self.process
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.02)

    def kill(self) -> None:
        """End the server as a failing machine does; `start` recovers."""
        self._run("pg_ctl", "-D", str(self.data), "stop", "-m", "immediate", "-w")
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def address(self, name: str) -> str:
        return f"postgresql://sightline@/{name}?{self._query}"

    def execute(self, sql: str, name: str = "postgres") -> list[Any]:
        """Run a statement as the owner of everything; its rows."""
        with psycopg.connect(self.address(name), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        """A database with nothing in it; its address."""
        name = f"t{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.address(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def database(self) -> Iterator[str]:
        """A database with Sightline's tables and nothing in them; its address. The next one is the same, emptied."""
        if not self._free:
            name = f"t{next(self._numbers)}"
            self.execute(f"CREATE DATABASE {name}")
            open_database(self.address(name)).close()
            self._free.append(name)
        name = self._free.pop()
        yield self.address(name)
        if self.execute("SELECT to_regclass('moving')", name) == [(None,)]:  # a move that ended half-way: no triggers
            self.execute(EMPTY, name)
            self._free.append(name)  # one that could not be emptied is not used again

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / name), *arguments],
            capture_output=True,
            text=True,
            check=False,
            user=self._user,
            cwd=self.folder,
        )
        assert done.returncode == 0, done.stdout + done.stderr
