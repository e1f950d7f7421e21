"""The starter model: its open_clip configuration, and how its folder is written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip.model
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from training.vocabulary import CONTEXT

STARTER = Path(__file__).parents[1] / "app" / "encoder" / "starter"
SIDE = 112
GRID = 7  # patches along a side
MEAN = STD = (0.5, 0.5, 0.5)


def configuration(words: int) -> dict[str, Any]:
    """open_clip's configuration for a vocabulary of `words` tokens."""
    return {
        "model_cfg": {
            "embed_dim": 256,
            "vision_cfg": {"image_size": SIDE, "layers": 6, "width": 192, "head_width": 64, "patch_size": SIDE // GRID},
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": words,
                "width": 192,
                "heads": 3,
                "layers": 4,
                "pad_id": 0,
            },
        },
        "preprocess_cfg": {
            "size": SIDE,
            "mode": "RGB",
            "mean": list(MEAN),
            "std": list(STD),
            "interpolation": "bicubic",
            "resize_mode": "squash",
            "fill_color": 255,
        },
    }


def create_model(words: int) -> open_clip.model.CLIP:
    """The model with fresh weights."""
    parts = configuration(words)["model_cfg"]
    return open_clip.model.CLIP(parts["embed_dim"], parts["vision_cfg"], parts["text_cfg"])


def export(state: dict[str, torch.Tensor], tokenizer: Tokenizer, folder: Path = STARTER) -> None:
    """Writes configuration, half-precision weights and tokenizer into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer.get_vocab_size()
    text = json.dumps(configuration(words), indent=2)
    (folder / "open_clip_config.json").write_text(text + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    halves = {name: value.to(torch.float16).contiguous() for name, value in state.items()}
    weights = folder / "open_clip_model.safetensors"
    save_file(halves, str(weights), metadata={"format": "pt"})
    weights.chmod(0o644)


def load(folder: Path = STARTER) -> tuple[open_clip.model.CLIP, Tokenizer]:
    """The exported model in float32 and evaluation mode, and its tokenizer."""
    parts = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
    model = open_clip.model.CLIP(parts["embed_dim"], parts["vision_cfg"], parts["text_cfg"])
    model.load_state_dict(load_file(str(folder / "open_clip_model.safetensors")))
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))
