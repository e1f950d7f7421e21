"""A terminal that runs the samples of one page, one after the other."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx2 as httpx
from PIL import Image

from tests.docs.samples import ROOT, Block
from tests.support.servers import wait_until

SECONDS = 90.0
START_SECONDS = 150.0  # torch, on a machine that may have much else to do
STOP_SECONDS = 30.0
SHOWN = ("localhost:8000", "127.0.0.1:8000")  # the address in the samples
PICTURES = {"cat.jpg": "a cat", "other.jpg": "a cat next to a birthday cake", "car.jpg": "a red car"}
FOLDER = 8  # pictures of the folder Pictures, and of photos.zip
GALLERY = ROOT / "demo/gallery.zip"
SCRIPT = """#!/bin/sh\nexec env PYTHONPATH='{root}' '{python}' {module}"$@"\n"""  # the code that is being tested
CURLRC = "fail-with-body\nsilent\nshow-error\n"  # an answer of 4xx is a failure of the sample


def prepare(folder: Path) -> None:
    """Give the folder what a reader has: pictures, an installed `sightline`, python and curl."""
    scripts = folder / ".venv/bin"
    scripts.mkdir(parents=True)
    for name, module in (("sightline", "-m app "), ("python", "")):
        script = scripts / name
        script.write_text(SCRIPT.format(root=ROOT, python=sys.executable, module=module), "utf-8")
        script.chmod(0o755)
    (folder / ".curlrc").write_text(CURLRC, "utf-8")
    lay_out_pictures(folder)


def lay_out_pictures(folder: Path) -> None:
    """Make the pictures that the samples name, from the demo gallery."""
    below = folder / "Pictures/2026"
    below.mkdir(parents=True)
    with zipfile.ZipFile(GALLERY) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".webp"))
        for name in names[40 : 40 + FOLDER]:
            archive.extract(name, below)
        with zipfile.ZipFile(folder / "photos.zip", "w") as photos:
            for name in names[60 : 60 + FOLDER]:
                photos.writestr(name, archive.read(name))
        lines = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        captioned = {line["caption"]: line["file"] for line in lines}
        for name, caption in PICTURES.items():
            with archive.open(captioned[caption]) as file:
                Image.open(file).convert("RGB").save(folder / name, quality=92)


class Terminal:
    """Runs blocks in `folder`; `localhost:8000` in them is `server`, or the page's own server once it has one."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self.server = server
        self._process: subprocess.Popen[str] | None = None
        prepare(folder)

    def close(self) -> None:
        """Stop the page's own server, if there is one, as Ctrl-C does."""
        if (process := self._process) is None:
            return
        self._process = None
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(STOP_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert code == 0, f"the server of the page ended with {code}"

    def run(self, block: Block) -> str:
        """Run a shell or Python block to its end; returns its output. Fails on an exit code other than 0."""
        if block.mark == "stopped":
            self.close()
        if block.language == "python":
            return self._run_to_end(block, [sys.executable, "-"], block.text)
        printed = ""
        for command, expected in split_commands(block):
            said = self._run_to_end(block, ["bash", "-euo", "pipefail", "-c", self.insert_address(command)], "")
            assert expected.search(said), f"{block.location} prints\n{said}"
            printed += said
        return printed

    def serve(self, block: Block) -> None:
        """Run a block in the background, and wait until its server answers searches."""
        self.close()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.server = f"http://127.0.0.1:{port}"
        log = self.folder / "server.log"
        lines = block.text.replace("\\\n", " ").strip().splitlines()
        command = "\n".join([*lines[:-1], "exec " + lines[-1]])
        with open(log, "w", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=self.folder,
                env=self._environment(SIGHTLINE_PORT=port, SIGHTLINE_MODEL="colours"),
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )

        def ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"{block.location} ended: {log.read_text('utf-8')}"
            try:
                return httpx.get(f"{self.server}/readyz", trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(ready, START_SECONDS, lambda: log.read_text("utf-8"))

    def insert_address(self, text: str) -> str:
        """Replace the address in a sample by the server's."""
        for shown in SHOWN:
            text = text.replace(f"http://{shown}", self.server).replace(shown, self.server.removeprefix("http://"))
        return text

    def _run_to_end(self, block: Block, command: list[str], typed: str) -> str:
        ended = subprocess.run(
            command,
            input=self.insert_address(typed),
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert ended.returncode == 0, f"{block.location} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def _environment(self, **settings: object) -> dict[str, str]:
        ours = {
            "PATH": f"{self.folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder),
            "CURL_HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "SIGHTLINE_SERVER": self.server,
            "COLUMNS": "120",
            **{name: str(value) for name, value in settings.items()},
        }
        return {**os.environ, **ours}


def split_commands(block: Block) -> list[tuple[str, re.Pattern[str]]]:
    """The commands of a block, each with a pattern for its output; `…` in the shown output matches anything."""
    if block.language != "console":
        return [(block.text, re.compile(""))]
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not parts[0].strip(), f"{block.location}: output stands before the first command"
    found = []
    for part in parts[1:]:
        command, _, output = part.partition("\n")
        shown = ".*?".join(re.escape(piece.strip()) for piece in output.split("…"))
        found.append((command, re.compile(shown, re.DOTALL)))
    return found


def missing_programs() -> list[str]:
    """Programs that the samples need and this machine lacks."""
    return [name for name in ("curl", "bash") if shutil.which(name) is None]
