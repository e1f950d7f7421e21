"""`sightline demo`: runs the whole service on the built-in model and gallery, in a temporary directory."""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rich.console import Console

from app.cli import ServerError
from app.cli.client import Client
from app.cli.output import show_hits
from app.cli.upload import show_report, upload_paths
from app.core.errors import StartupError
from app.core.listeners import open_listeners
from app.core.process import spawn
from app.core.settings import Settings
from app.service.demo_gallery import ARCHIVE, TEXTS, find_gallery, read_gallery_texts

START_SECONDS = 120.0
END_SECONDS = 20.0
SEARCHES = ("red car", "a cat next to a cake", "笑脸")
TEXTS_PER_CALL = 500


def demo(settings: Settings, console: Console, *, once: bool) -> None:
    """Start a server, load the gallery, show three searches, and keep serving unless `once`."""
    folder = find_gallery()
    with tempfile.TemporaryDirectory(prefix="sightline-demo-") as scratch:
        port = free_port(settings.host, settings.port)
        with run_server(Path(scratch), settings.host, port) as process:
            with Client(f"http://{settings.host}:{port}") as client:
                with console.status("loading the starter model"):
                    wait_until_ready(client, process)
                began = time.monotonic()
                report = upload_paths(client, [str(folder / ARCHIVE)], console, {})
                show_report(report, console)
                console.print(f"the gallery was loaded in {time.monotonic() - began:.1f} s")
                load_texts(client, folder / TEXTS)
                for words in SEARCHES:
                    console.print(f"\n{search_command(words, client.server)}", soft_wrap=True, highlight=False)
                    show_hits(client.search(words, 5), console)
            if report.failed:
                raise ServerError(f"{report.failed} pictures of the gallery could not be loaded")
            if not once:
                console.print(f"\nSearch it yourself at http://{settings.host}:{port}/ (Ctrl-C ends the demo)")
                with contextlib.suppress(KeyboardInterrupt):
                    process.wait()


def search_command(words: str, server: str) -> str:
    """The command of a search, to paste into another terminal."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "sightline" else "sightline"
    return shlex.join([program, "search", words, "--server", server])


@contextlib.contextmanager
def run_server(
    data_dir: Path, host: str, port: int, model: str = "starter", stderr: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process of its own until the block ends; its log goes to `stderr`, by default to ours."""
    process = spawn(
        "app",
        "serve",
        env={
            "SIGHTLINE_DATA_DIR": str(data_dir),
            "SIGHTLINE_HOST": host,
            "SIGHTLINE_PORT": str(port),
            "SIGHTLINE_MODEL": model,
            "SIGHTLINE_LOG_LEVEL": "warning",
        },
        stderr=stderr,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(client: Client, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers searches. Raises StartupError when it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartupError("the server ended before it was ready; see its message above")
        with contextlib.suppress(ServerError):
            if not client.readiness()["reasons"]:
                return
        time.sleep(0.1)
    raise StartupError(f"the server was not ready within {START_SECONDS:.0f} s")


def load_texts(client: Client, path: Path) -> None:
    """Store the texts that a picture of the gallery can find."""
    known = read_gallery_texts(path)
    for start in range(0, len(known), TEXTS_PER_CALL):
        client.add_texts(known[start : start + TEXTS_PER_CALL])


def free_port(host: str, wanted: int) -> int:
    """The wanted port, or any free one if another process listens there."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            probes = [opened.enter_context(probe) for probe in open_listeners(host, port)]
            return int(probes[0].getsockname()[1])
    raise StartupError(f"no port of {host} is free")
