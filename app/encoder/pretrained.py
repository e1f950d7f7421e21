"""The pretrained weights that open_clip lists for its architectures.

Importing open_clip imports torch, which takes many seconds from a cold disk and stays in the process. So a child
process imports open_clip's list alone, and a file keeps the answer.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from app.core.errors import StartupError
from app.core.files import atomic_write
from app.core.process import spawn

CHILD_SECONDS = 60.0  # enough for a cold disk and a busy machine
CONFIG_KEYS = ("mean", "std", "interpolation", "resize_mode", "fill_color", "size", "quick_gelu", "hf_hub")


@dataclass(frozen=True, slots=True)
class PretrainedConfig:
    """The configuration of one tag of an architecture (None if it has no such tag), and all tags."""

    config: dict[str, Any] | None
    tags: list[str]


def has_torch() -> bool:
    """Whether this is no installation of `TORCH=none`. Does not import torch."""
    return find_spec("torch") is not None and find_spec("open_clip") is not None


def require_torch(name: str) -> None:
    """Raise StartupError, which says how to get it, where torch is not installed."""
    if not has_torch():
        raise StartupError(
            f"model {name} needs torch, which is not installed here: run `TORCH=cpu scripts/install` (or install"
            f" open_clip_torch), or convert the model on another machine by `sightline convert {name} FOLDER`"
        )


def _find_folders() -> list[str]:
    """Where open_clip is installed."""
    spec = find_spec("open_clip")
    return list((spec and spec.submodule_search_locations) or ())


@cache
def _find_configurations() -> dict[str, Path]:
    return {path.stem: path for folder in _find_folders() for path in Path(folder, "model_configs").glob("*.json")}


def list_architectures() -> list[str]:
    """The names of all architectures, from the files of open_clip."""
    return sorted(_find_configurations())


def find_architecture(name: str) -> Path | None:
    """The file of open_clip that configures an architecture."""
    return _find_configurations().get(name)


def find_pretrained(architecture: str, tag: str, cache: Path) -> PretrainedConfig:
    """Ask open_clip about a tag, or take its earlier answer from the folder `cache`. Raises StartupError."""
    path = cache_path(architecture, tag, cache)
    with suppress(OSError, ValueError, TypeError):
        return PretrainedConfig(**json.loads(path.read_text("utf-8")))
    answer = _ask_open_clip(architecture, tag)
    if answer.config is not None:
        with suppress(OSError):  # the next start asks again
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, durable=False) as file:
                json.dump(asdict(answer), file)
    return answer


def cache_path(architecture: str, tag: str, cache: Path) -> Path:
    """The file of the answer; each version of open_clip has its own."""
    question = json.dumps([version("open_clip_torch"), architecture, tag])
    return cache / "published" / f"{hashlib.sha256(question.encode()).hexdigest()[:16]}.json"


def _ask_open_clip(architecture: str, tag: str) -> PretrainedConfig:
    with spawn("app.encoder.pretrained", architecture, tag, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            answer, errors = child.communicate(timeout=CHILD_SECONDS)
        except BaseException:  # it takes too long, or Ctrl-C
            child.kill()
            raise
    try:
        return PretrainedConfig(**json.loads(answer))
    except (ValueError, TypeError):
        reason = (errors.decode(errors="replace").strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise StartupError(f"open_clip cannot be asked about {architecture}/{tag}: {reason}") from None


def main() -> None:
    """The child. Its arguments: an architecture and a tag. Prints the answer as JSON."""
    architecture, tag = sys.argv[1:]
    published = import_list()
    found = published.get_pretrained_cfg(architecture, tag)
    config = {key: found[key] for key in CONFIG_KEYS if found.get(key) is not None} if found else None
    print(json.dumps(asdict(PretrainedConfig(config, published.list_pretrained_tags_by_model(architecture)))))


def import_list() -> ModuleType:
    """open_clip's module of pretrained weights without torch. Nothing else of open_clip works in this process then."""
    package = ModuleType("open_clip")
    package.__path__ = _find_folders()
    sys.modules["open_clip"] = package  # instead of its __init__, which imports torch
    sys.modules["safetensors.torch"] = None  # type: ignore[assignment]  # the same; the list does without it
    return import_module("open_clip.pretrained")


if __name__ == "__main__":
    main()
