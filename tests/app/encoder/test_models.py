"""Names of models and where their files come from. What they compute is in test_open_clip.py."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.encoder import models
from app.encoder.colours import ColoursEncoder
from app.encoder.models import HUB_NAMES, STARTER, WEIGHTS, Located, Placement, file_digest, load, locate
from app.errors import StartupError

LOCATE = """
import sys
from pathlib import Path
from app.encoder.models import locate
from app.errors import StartupError
try:
    located = locate(sys.argv[1], Path(sys.argv[2]))
    print(located.architecture, located.weights.read_text())
except StartupError as error:
    print("refused:", error.detail)
"""


def refused(name: str, cache: Path) -> str:
    with pytest.raises(StartupError) as raised:
        locate(name, cache)
    assert "\n" not in raised.value.detail
    return raised.value.detail


def test_colours_needs_no_files(tmp_path: Path) -> None:
    assert locate("colours", tmp_path) == Located("colours", "colours", None)
    assert isinstance(load("colours", tmp_path), ColoursEncoder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "clip", "Starter"])
def test_an_unknown_name_points_to_the_list(name: str, tmp_path: Path) -> None:
    assert "sightline models" in refused(name, tmp_path)


def test_the_starter_is_a_folder_of_ours(tmp_path: Path) -> None:
    if not (STARTER / WEIGHTS).is_file():
        assert "is missing in" in refused("starter", tmp_path)
        return
    assert locate("starter", tmp_path) == Located("starter", f"local-dir:{STARTER}", STARTER / WEIGHTS)


@pytest.mark.parametrize("present", [(), ("open_clip_config.json",), (WEIGHTS,)])
def test_a_folder_without_its_files_says_which_is_missing(present: tuple[str, ...], tmp_path: Path) -> None:
    for name in present:
        (tmp_path / name).touch()
    (first, *_) = [name for name in ("open_clip_config.json", WEIGHTS) if name not in present]
    assert f"{first} is missing in {tmp_path}" in refused(f"local-dir:{tmp_path}", tmp_path)


def test_a_folder_with_its_files_is_found(tmp_path: Path) -> None:
    for name in ("open_clip_config.json", WEIGHTS):
        (tmp_path / name).touch()
    located = locate(f"local-dir:{tmp_path}", tmp_path)
    assert (located.architecture, located.weights) == (f"local-dir:{tmp_path}", tmp_path / WEIGHTS)


@pytest.mark.parametrize("suffix", ["pt", "bin", "pth", "ckpt", "safetensors.pt", ""])
def test_weights_that_could_run_code_are_refused_unread(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    assert "must be a .safetensors file (other formats can run code)" in refused(f"ViT-B-32:{path}", tmp_path)


def test_a_weights_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    assert f"there is no file {path}" in refused(f"ViT-B-32:{path}", tmp_path)


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert file_digest(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as a download needs."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        _, _, name = self.path.partition("/resolve/main/")
        content = self.files.get(name)
        self.send_response(200 if content is not None else 404)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", f'"{len(content or b"")}-{name}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if body and content:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, dict[str, bytes]]]:
    files: dict[str, bytes] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {"files": files}))
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}", files
    server.shutdown()
    serving.join()
    server.server_close()


def located(name: str, cache: Path, endpoint: str) -> str:
    """In a process of its own: the hub's address is read when its client is imported."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {k: v for k, v in environment.items() if not k.lower().endswith("_proxy") and k != "HF_HUB_OFFLINE"}
    ran = subprocess.run(
        [sys.executable, "-c", LOCATE, name, str(cache)], capture_output=True, text=True, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_weights_come_from_the_hub_and_afterwards_from_the_cache(
    tmp_path: Path, hub: tuple[str, dict[str, bytes]]
) -> None:
    endpoint, files = hub
    files |= {"open_clip_config.json": b"{}", HUB_NAMES[1]: b"weights"}
    architecture, weights = located("hf-hub:org/repo", tmp_path, endpoint).split()
    assert weights == "weights"
    assert (Path(architecture.removeprefix("local-dir:")) / "open_clip_config.json").read_text() == "{}"
    files.clear()
    assert located("hf-hub:org/repo", tmp_path, "http://127.0.0.1:9").split() == [architecture, "weights"]


def test_a_repository_without_safetensors_is_refused(tmp_path: Path, hub: tuple[str, dict[str, bytes]]) -> None:
    endpoint, files = hub
    files |= {"open_clip_config.json": b"{}", "open_clip_pytorch_model.bin": b"pickle"}
    told = located("hf-hub:org/repo", tmp_path, endpoint)
    assert told == "refused: model hf-hub:org/repo: org/repo has no safetensors weights; other formats are not read"


def test_a_hub_out_of_reach_says_what_to_do(tmp_path: Path) -> None:
    told = located("hf-hub:org/repo", tmp_path, "http://127.0.0.1:9")
    assert told.startswith("refused: model hf-hub:org/repo: the weights cannot be downloaded; connect to the model hub")
    assert "--model NAME:FILE.safetensors" in told
    assert "--model starter" in told


def test_a_gpu_is_looked_for_in_torch_only_where_there_is_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(models, "GPU_DEVICES", (tmp_path / "none",))
    assert not models.gpu_present()
    monkeypatch.setattr(models, "GPU_DEVICES", (tmp_path,))
    assert models.gpu_present() == torch.cuda.is_available()


@pytest.mark.parametrize(
    ("placement", "reason"),
    [
        (Placement(device="cpu"), ""),
        (Placement(device="cpu", precision="bf16"), ""),
        (Placement(device="cpu", precision="fp16"), "for fp16"),
        (Placement(device="cuda:1"), "for a GPU"),
        (Placement(device="cpu", runtime="torch"), "as asked"),
    ],
    ids=str,
)
def test_torch_runs_what_is_meant_for_it(placement: Placement, reason: str) -> None:
    assert placement.needs_torch() == reason
