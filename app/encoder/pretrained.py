"""What open_clip publishes: its architectures and the weights of each. open_clip itself brings torch, which would
stay in a server for good, so it is asked in a process of its own, and its answer is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache as once
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.core.errors import StartupError
from app.core.process import child_env

SECONDS = 300.0  # a cold disk and a busy machine
KEPT = ("mean", "std", "interpolation", "resize_mode", "fill_color", "size", "quick_gelu", "hf_hub")


@dataclass(frozen=True, slots=True)
class PretrainedConfig:
    """What open_clip says of one tag of an architecture: `config` is None when it has no such tag."""

    config: dict[str, Any] | None
    tags: list[str]


@once
def list_architectures() -> list[str]:
    """The names of all architectures, read from open_clip's files."""
    spec = find_spec("open_clip")
    folders = (spec and spec.submodule_search_locations) or []
    return sorted(path.stem for folder in folders for path in Path(folder, "model_configs").glob("*.json"))


def find_pretrained(architecture: str, tag: str, cache: Path) -> PretrainedConfig:
    """What open_clip says of this tag, from `cache` when this version was asked before. Raises StartupError."""
    path = cache_path(architecture, tag, cache)
    with suppress(OSError, ValueError, TypeError):
        return PretrainedConfig(**json.loads(path.read_text("utf-8")))
    answer = _ask(architecture, tag)
    if answer.config is not None:
        with suppress(OSError):  # then it is asked again the next time
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(asdict(answer)), "utf-8")
            draft.replace(path)
    return answer


def cache_path(architecture: str, tag: str, cache: Path) -> Path:
    """The file of the answer; another version of open_clip is asked anew."""
    asked = json.dumps([version("open_clip_torch"), architecture, tag])
    return cache / "published" / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"


def _ask(architecture: str, tag: str) -> PretrainedConfig:
    command = [sys.executable, "-m", "app.encoder.pretrained", architecture, tag]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=SECONDS, env=child_env(os.environ)
    )
    try:
        return PretrainedConfig(**json.loads(ended.stdout))
    except (ValueError, TypeError):
        why = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
        raise StartupError(f"open_clip cannot be asked about {architecture}/{tag}: {why}") from None


def main() -> None:
    """The child: an architecture and a tag; prints the answer as JSON."""
    import open_clip

    architecture, tag = sys.argv[1:]
    found = open_clip.get_pretrained_cfg(architecture, tag)
    config = {key: found[key] for key in KEPT if found.get(key) is not None} if found else None
    print(json.dumps(asdict(PretrainedConfig(config, open_clip.list_pretrained_tags_by_model(architecture)))))


if __name__ == "__main__":
    main()
