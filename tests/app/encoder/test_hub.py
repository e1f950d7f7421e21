"""Downloads: only what is asked for, held to the hub's digests, with progress; a fault is one line."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import constants
from huggingface_hub.utils._http import close_session

from app.cli.main import main
from app.core.errors import StartupError
from app.core.locks import StopRequested
from app.encoder import hub as hub_module
from app.encoder.hub import PARTIAL, LoadProgress, expected_digest, matches_digest
from app.encoder.loader import (
    CONFIG,
    HUB_NAMES,
    STARTER,
    TOKENIZER,
    WEIGHTS,
    EncoderOptions,
    load_located,
    locate_model,
)
from app.encoder.pretrained import cache_path
from app.encoder.weights import LocatedModel
from app.storage.database import Database
from app.storage.model_check import check_name
from tests.app.storage.test_model_check import stamp
from tests.support.makers import SPACE
from tests.support.servers import RunningServer, wait_until

NAME = "hf-hub:org/repo"
COMMIT = "a" * 40
CPU = EncoderOptions(device="cpu")


@dataclass
class Hub:
    """As much of a model hub as a download needs, and what it does wrong."""

    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    missing: str = "EntryNotFound"
    status: int = 404
    digest: str = ""
    size: int | None = None
    cut: int = 0  # so many answers end after half of their bytes, without a word
    short: bool = False  # answers that are whole, of half the file
    silent: bool = False
    ranges: bool = True  # whether it knows Range
    pause: float = 0.0  # seconds between two parts of a file, 64 KiB each
    starts: list[int] = field(default_factory=list)  # where the parts of WEIGHTS that were asked for begin

    def digest_of(self, name: str) -> str:
        content = self.files[name]
        if name == CONFIG:  # a small file is kept by git itself, which names it so
            return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return self.digest or hashlib.sha256(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, (_, _, name) = self.hub, self.path.partition("/resolve/main/")
        hub.asked.append(f"{self.command} {self.path}")
        if hub.silent:
            time.sleep(1)
        elif name not in hub.files or not self.path.startswith("/org/repo/"):
            self._send(hub.status, {"X-Error-Code": hub.missing, "X-Repo-Commit": COMMIT})
        else:
            self._file(name, hub.files[name])

    def _file(self, name: str, content: bytes) -> None:
        hub, fetching = self.hub, self.command == "GET"
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if fetching and name == WEIGHTS:
            hub.starts.append(start)
        start *= hub.ranges
        body = content[start : len(content) // 2 if hub.short and fetching else None]
        size = hub.size if hub.size is not None and name in HUB_NAMES else len(content)
        headers = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{hub.digest_of(name)}"', "X-Linked-Size": str(size)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, {**headers, "Content-Length": str(len(body))})
        if fetching and hub.cut and name in HUB_NAMES:
            hub.cut -= 1
            body = body[: len(body) // 2]
        with suppress(OSError):  # whoever asked was killed
            for at in range(0, len(body) if fetching else 0, 1 << 16):
                self.wfile.write(body[at : at + (1 << 16)])
                time.sleep(hub.pause)

    def _send(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has the starter model as org/repo, and is the one that downloads go to."""
    files = {name: (STARTER / name).read_bytes() for name in (CONFIG, "tokenizer.json", WEIGHTS)}
    hub = Hub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHandler", (Handler,), {"hub": hub}))
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    point_to(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield hub
    close_session()
    server.shutdown()
    serving.join()
    server.server_close()


def point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when the hub's client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for scheme in ("http", "https", "all"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    close_session()


def refusal_of(name: str, cache: Path) -> str:
    """The one line with which it was refused; nothing half is left behind."""
    with pytest.raises(StartupError) as raised:
        locate_model(name, cache)
    assert "\n" not in raised.value.detail
    assert not list(cache.rglob("*.incomplete"))
    return raised.value.detail


def test_files_come_from_the_hub_once_and_are_whole(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub_module, "LOG_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    located = locate_model(NAME, tmp_path)
    assert located.weights is not None
    assert (located.architecture, located.weights.name) == (f"local-dir:{located.weights.parent}", WEIGHTS)
    for name, content in hub.files.items():
        assert (located.weights.parent / name).read_bytes() == content
        assert expected_digest(located.weights.parent / name) == hub.digest_of(name)
    assert located.digest == hub.digest_of(WEIGHTS)
    assert {path.split(" ")[1] for path in hub.asked} == {
        f"/org/repo/resolve/main/{name}" for name in (CONFIG, *TOKENIZER, WEIGHTS)
    }  # and nothing is told to anybody
    said = [record.getMessage() for record in caplog.records if record.name.startswith("app")]
    assert f"downloading {WEIGHTS} of org/repo, 11.4 MB, into {tmp_path}" in said
    assert f"downloading {WEIGHTS}: 11.4 MB of 11.4 MB" in said
    assert f"downloaded {WEIGHTS} and verified its digest" in said

    hub.asked.clear()
    assert locate_model(NAME, tmp_path) == located
    assert hub.asked == []


def test_a_terminal_shows_a_bar_and_no_lines_in_between(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(hub_module, "LOG_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    locate_model(NAME, tmp_path)
    assert "100%" in screen.getvalue()
    assert WEIGHTS in screen.getvalue()
    assert "of 11.4 MB" not in caplog.text


def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path, hub: Hub) -> None:
    hub.cut = 1
    located = locate_model(NAME, tmp_path)
    assert located.weights is not None
    assert located.weights.read_bytes() == hub.files[WEIGHTS]
    assert hub.asked.count(f"GET /org/repo/resolve/main/{WEIGHTS}") == 2


def test_what_a_killed_download_left_is_removed_by_the_next(tmp_path: Path, hub: Hub) -> None:
    left = tmp_path / "models--org--repo" / "blobs" / "x.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    locate_model(NAME, tmp_path)
    assert not left.exists()


def leave_partial(cache: Path, hub: Hub, content: bytes) -> Path:
    """What a killed download of the weights leaves."""
    path = cache / PARTIAL / hub.digest_of(WEIGHTS)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ranges", [True, False])
def test_a_killed_download_goes_on_where_it_was(ranges: bool, tmp_path: Path, hub: Hub) -> None:
    """A hub that does not know Range sends everything again."""
    whole, hub.ranges = hub.files[WEIGHTS], ranges
    partial = leave_partial(tmp_path, hub, whole[: len(whole) // 3])
    located = locate_model(NAME, tmp_path)
    assert located.weights is not None
    assert located.weights.read_bytes() == whole
    assert hub.starts == [len(whole) // 3]
    assert not partial.exists()


@pytest.mark.parametrize("left", ["other bytes", "too many"])
def test_what_a_killed_download_left_may_be_of_no_use(left: str, tmp_path: Path, hub: Hub) -> None:
    whole = hub.files[WEIGHTS]
    leave_partial(tmp_path, hub, b"x" * 1000 if left == "other bytes" else whole + b"x")
    located = locate_model(NAME, tmp_path)
    assert located.weights is not None
    assert located.weights.read_bytes() == whole
    assert hub.starts == ([1000, 0] if left == "other bytes" else [0])


def test_a_part_of_another_file_is_kept_for_some_days(tmp_path: Path, hub: Hub) -> None:
    old, young = leave_partial(tmp_path, hub, b"").with_name("old"), tmp_path / PARTIAL / "young"
    for part in (old, young):
        part.write_bytes(b"x")
    os.utime(old, (0, 0))
    locate_model(NAME, tmp_path)
    assert list((tmp_path / PARTIAL).iterdir()) == [young]


def test_a_whole_download_that_was_not_put_in_its_place_is_not_repeated(tmp_path: Path, hub: Hub) -> None:
    leave_partial(tmp_path, hub, hub.files[WEIGHTS])
    assert locate_model(NAME, tmp_path).digest == hub.digest_of(WEIGHTS)
    assert hub.starts == []


def test_a_download_says_how_far_it_is_and_ends_when_it_is_told(tmp_path: Path, hub: Hub) -> None:
    hub.pause = 0.02
    progress = LoadProgress()
    raised: list[BaseException] = []

    def load() -> None:
        try:
            locate_model(NAME, tmp_path, progress)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    wait_until(lambda: re.fullmatch(r"downloading [1-9]\d* of 11 MB", progress.words), 30)
    progress.stop.set()
    thread.join(30)
    assert [type(error) for error in raised] == [StopRequested]
    hub.pause = 0.0
    assert locate_model(NAME, tmp_path).digest == hub.digest_of(WEIGHTS)
    assert hub.starts[0] == 0
    assert hub.starts[1] > 0


def test_a_directory_of_another_model_is_refused_before_the_hub_is_asked(
    tmp_path: Path, hub: Hub, database: Database
) -> None:
    stamp(database, SPACE)
    progress = LoadProgress(before_fetch=lambda: check_name(database, NAME))
    with pytest.raises(StartupError, match=f"belongs to model {SPACE.model}, not {NAME}; serve it with --model"):
        locate_model(NAME, tmp_path, progress)
    assert hub.asked == []


@pytest.mark.slow
def test_a_server_is_alive_while_it_downloads_its_model(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers probes from the first second, says how far it is, and goes on after kill -9."""
    monkeypatch.setenv("HF_ENDPOINT", constants.ENDPOINT)
    hub.pause = 0.05
    settings: dict[str, Any] = {"model": NAME, "models_dir": tmp_path / "models", "ready": False, "workers": 0}
    server = RunningServer(tmp_path / "data", **settings)
    assert server.http.get("/livez").status_code == 200

    def told() -> str | None:
        answer = server.http.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        found = re.search(r"still loading: (downloading [1-9]\d* of 11 MB)", answer.json()["reasons"][0])
        return found and found[1]

    wait_until(told, 60, server.output)
    refused = server.http.get("/v1/search", params={"q": "red"})
    assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
    assert "downloading" in refused.json()["detail"]
    server.kill()
    hub.pause = 0.0
    with RunningServer(tmp_path / "data", **settings):
        wait_until(lambda: len(hub.starts) == 2, 60)
    assert hub.starts[1] > 0


def test_bytes_with_another_digest_are_deleted_and_refused(tmp_path: Path, hub: Hub) -> None:
    hub.digest = "b" * 64
    told = refusal_of(NAME, tmp_path)
    assert "the download of tokenizer.json has another digest than the hub says" in told
    assert "try again" in told
    hub.digest = ""
    assert locate_model(NAME, tmp_path).digest == hub.digest_of(WEIGHTS)


def test_a_hub_without_digests_is_said_to_be_one(tmp_path: Path, hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    hub.digest = "weak-1"
    locate_model(NAME, tmp_path)
    assert "the hub has no digest of it, so only its size was checked" in caplog.text


def test_fewer_bytes_than_announced_are_refused(tmp_path: Path, hub: Hub) -> None:
    hub.short = True
    told = refusal_of(NAME, tmp_path)
    assert f"{CONFIG} cannot be downloaded (Consistency check failed" in told


def test_a_disk_too_small_is_told_before_the_download(tmp_path: Path, hub: Hub) -> None:
    hub.size = 10**18
    told = refusal_of(NAME, tmp_path)
    assert f"{WEIGHTS} has 1000000000000 MB, but {tmp_path} has only " in told
    assert "free some space, or choose a smaller model" in told
    assert f"GET /org/repo/resolve/main/{WEIGHTS}" not in hub.asked


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        (WEIGHTS, "org/repo has no safetensors weights; other formats are not read"),
        (CONFIG, f"org/repo has no {CONFIG}; it is no open_clip model"),
    ],
)
def test_a_repository_without_what_is_needed_is_refused(gone: str, says: str, tmp_path: Path, hub: Hub) -> None:
    hub.files["open_clip_pytorch_model.bin"] = hub.files.pop(gone)
    assert refusal_of(NAME, tmp_path) == f"model {NAME}: {says}"
    assert not any("bin" in path for path in hub.asked)


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (404, "RepoNotFound", "the hub has no repository org/repo, or it is private; for a private one set HF_TOKEN"),
        (403, "GatedRepo", "org/repo requires that you accept its terms on the hub; do so, and set HF_TOKEN"),
        (503, "", "connect to the model hub once, or use a local file with --model NAME:FILE.safetensors"),
    ],
)
def test_a_hub_that_refuses_is_understood(status: int, code: str, says: str, tmp_path: Path, hub: Hub) -> None:
    hub.files.clear()
    hub.status, hub.missing = status, code
    assert says in refusal_of(NAME, tmp_path)


def test_a_hub_that_does_not_answer_is_given_up(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RESPONSE_SECONDS", 0.2)
    hub.silent = True
    told = refusal_of(NAME, tmp_path)
    assert "connect to the model hub once" in told
    assert "--model starter" in told
    assert len(hub.asked) == 1


def test_a_hub_out_of_reach_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    point_to(endpoint, monkeypatch)
    told = refusal_of(NAME, tmp_path)
    assert told.startswith(f"model {NAME}: {CONFIG} cannot be downloaded (")
    close_session()


def test_a_cache_that_cannot_be_locked_is_told(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert "(No locks available); name one on a local disk with SIGHTLINE_MODELS_DIR" in refusal_of(NAME, tmp_path)
    assert hub.asked == []


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "models").write_text("a file")
    assert f"{CONFIG} cannot be downloaded" in refusal_of(NAME, tmp_path / "models")


@pytest.mark.parametrize("damage", ["cut", "altered"])
def test_a_downloaded_file_that_is_no_longer_itself_is_refused_and_mended_as_told(
    damage: str, tmp_path: Path, hub: Hub
) -> None:
    located = locate_model(NAME, tmp_path)
    assert located.weights is not None
    for file in (located.weights, located.weights.parent / CONFIG, located.weights.parent / "tokenizer.json"):
        blob = file.resolve()
        content = blob.read_bytes()
        blob.write_bytes(content[:-5] if damage == "cut" else b"x" + content[1:])
        with pytest.raises(StartupError) as raised:
            load_located(locate_model(NAME, tmp_path), tmp_path, CPU)
        assert f"{file.name} is damaged or was altered since it was downloaded; delete {blob}" in raised.value.detail
        blob.unlink()
        assert locate_model(NAME, tmp_path) == located
        assert blob.read_bytes() == content


def test_nothing_is_downloaded_that_was_not_asked_for(tmp_path: Path, hub: Hub) -> None:
    listed = CliRunner().invoke(main, ["models"])
    assert listed.exit_code == 0, listed.output
    locate_model("starter", tmp_path)
    shutil.copytree(STARTER, tmp_path / "copy")
    locate_model(f"local-dir:{tmp_path / 'copy'}", tmp_path)
    with pytest.raises(StartupError):
        locate_model("vit-b33", tmp_path)
    assert hub.asked == []
    import open_clip  # here: it brings torch

    config = open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")
    repository = config["hf_hub"].rstrip("/")
    kept = cache_path("ViT-B-32", "laion2b_s34b_b79k", tmp_path)  # asked before: only the hub is watched here
    kept.parent.mkdir()
    kept.write_text(json.dumps({"config": config, "tags": []}))
    told = refusal_of("vit-b-32", tmp_path)
    assert told.endswith("has no safetensors weights; other formats are not read")
    assert {path.split("/resolve/")[0] for path in hub.asked} == {f"HEAD /{repository}"}


@pytest.mark.parametrize(
    ("digest", "whole"),
    [
        (hashlib.sha256(b"abc").hexdigest(), True),
        ("f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f", True),  # git hash-object
        ("0" * 64, False),
        ("0" * 40, False),
        ("W/unknown", True),
    ],
)
def test_a_file_is_held_to_the_digest_that_is_known(digest: str, whole: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert matches_digest(tmp_path / "file", digest) == whole


def test_a_file_of_ones_own_has_no_digest_to_be_held_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert expected_digest(tmp_path / "file") == ""
    assert LocatedModel("x", "x", tmp_path / "file").digest == ""
