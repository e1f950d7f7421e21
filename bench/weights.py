"""ViT-B/32 with seeded random weights, for all measurements of speed: speed does not depend on the weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from app.core.types import EmbeddingSpace

WORK = Path(__file__).parent / "work"
ARCHITECTURE = "ViT-B-32"
SIDE = 224
GFLOP = 8.8  # of one picture through its image tower


def ensure_weights(folder: Path = WORK) -> Path:
    """The weights file in fp32, like published ones; made once (600 MB)."""
    path = folder / f"{ARCHITECTURE}.safetensors"
    if not path.exists():
        import open_clip
        import torch
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        state = open_clip.create_model(ARCHITECTURE, pretrained=None).state_dict()
        draft = path.with_suffix(".draft")
        save_file({name: value.contiguous() for name, value in state.items()}, str(draft), metadata={"format": "pt"})
        draft.rename(path)
    return path


def model_name() -> str:
    """The model's name for `--model`."""
    return f"{ARCHITECTURE}:{ensure_weights()}"


@cache
def load_space() -> EmbeddingSpace:
    from app.encoder.openvino import CompiledModelInfo

    return CompiledModelInfo.read(ensure_compiled()).space


def ensure_compiled() -> Path:
    """The folder with both towers for OpenVINO; converted once."""
    from app.core.files import sha256_file
    from app.encoder.conversion import ensure_converted
    from app.encoder.loader import locate_model

    located = locate_model(model_name(), WORK)
    digest = sha256_file(ensure_weights())
    return ensure_converted(replace(located, digest=digest, half=True, cache=str(WORK)), WORK)
