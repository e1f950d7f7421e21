"""The service never loads code from a model's file.

The proof puts pickles and TorchScript archives, which would make a folder when loaded, wherever the service may look
for a model: named files, folders of models, the caches of torch, CLIP and the hub. It starts a server with each, under
strace.

Failing: a server starts with one of them; the folder appears; the server opens a file with a pickle's name; it explains
the refusal in more than one line.
"""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tests.reliability.promise import Outcome, Promise, Scale
from tests.reliability.traced import require

PROMISE = Promise(23, "models", "Model files are verified before use, and code is never loaded from them.")
SECONDS = 120.0


class Evil:
    """Makes a folder when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def run(scale: Scale) -> Outcome:
    """One start for each place. The short form skips the caches, which the tests cover."""
    strace = require()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        root, mark = Path(scratch), Path(scratch) / "mark"
        laid = write_evil_files(root, mark)
        names = [
            f"ViT-B-32:{root / 'weights.pt'}",
            f"ViT-B-32:{root / 'renamed.safetensors'}",
            f"local-dir:{root / 'folder'}",
            "ViT-B-32/openai",
            "hf-hub:evil/repo",
        ][: scale.pick(3, 5)]
        opened = 0
        for n, name in enumerate(names):
            trace = root / f"trace{n}"
            told, code = start(strace, trace, root, name)
            if code == 0 or "Traceback" in told or len(told.strip().splitlines()) > 2:
                wrong.append(f"{name}: ended with {code}, {told.strip()[-120:]!r}")
            text = trace.read_text(errors="replace")
            opened += sum(1 for path in laid if f'"{path}"' in text)
        made = mark.exists()
    figure = (
        f"{len(laid)} pickles and TorchScript archives, {len(names)} starts: {len(names) - len(wrong)} refused,"
        f" {opened} opened, {int(made)} run{'; ' + '; '.join(wrong[:2]) if wrong else ''}"
    )
    return Outcome(figure, not wrong and not opened and not made)


def write_evil_files(root: Path, mark: Path) -> list[Path]:
    """Put evil files everywhere; returns those with a pickle's name, which no process may open."""
    evil = pickle.dumps(Evil(mark))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", evil)
        archive.writestr("archive/constants.pkl", evil)
        archive.writestr("archive/version", "3\n")
    hub = root / "home/.cache/huggingface/hub/models--evil--repo"
    places = [
        root / "weights.pt",
        root / "folder/open_clip_pytorch_model.bin",
        root / "folder/pytorch_model.bin",
        root / "home/.cache/clip/ViT-B-32.pt",
        root / "home/.cache/torch/hub/checkpoints/ViT-B-32.pt",
        root / "home/.cache/torch/hub/checkpoints/open_clip_pytorch_model.bin",
        hub / "snapshots/0/open_clip_pytorch_model.bin",
        hub / "snapshots/0/pytorch_model.bin",
        root / "data/models/models--evil--repo/snapshots/0/open_clip_pytorch_model.bin",
    ]
    for n, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(evil if n % 2 else file.getvalue())
    (root / "data").chmod(0o700)  # a wider one is told in a line of its own
    (root / "folder/open_clip_config.json").write_text("{}")
    (hub / "refs").mkdir()
    (hub / "refs/main").write_text("0")
    (root / "renamed.safetensors").write_bytes(evil)  # this one is opened, for its header
    return places


def start(strace: str, trace: Path, root: Path, model: str) -> tuple[str, int]:
    """Start a server with this model; returns its output and exit code (0 if the proof had to end it)."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SIGHTLINE_", "HF_", "XDG_"))},
        "HOME": str(root / "home"),
        "HF_HUB_OFFLINE": "1",
        "SIGHTLINE_MODEL": model,
        "SIGHTLINE_DATA_DIR": str(root / "data"),
        "SIGHTLINE_PORT": "0",
    }
    calls = "trace=open,openat,openat2,execve"
    command = [strace, "-f", "--seccomp-bpf", "-qq", "-e", calls, "-o", str(trace)]
    try:
        ended = subprocess.run(
            [*command, sys.executable, "-m", "app", "serve"],
            env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return str(error.stderr or ""), 0
    return ended.stderr, ended.returncode
