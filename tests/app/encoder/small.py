"""A CLIP of random weights, small enough to be made on the spot, in a folder with a tokenizer of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ("[pad]", "[unk]", "red", "blue", "green", "car", "cat", "cake", "two", "the", "[end]")
CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": len(WORDS), "width": 32, "heads": 2, "layers": 2},
}


def make_model(folder: Path, seed: int = 0, **more: Any) -> str:
    """Write the folder; returns the model's name. `more` goes into its configuration."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    end = len(WORDS) - 1
    tokenizer.post_processor = processors.TemplateProcessing(single="$A [end]", special_tokens=[("[end]", end)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG | more, "preprocess_cfg": {}}))
    torch.manual_seed(seed)
    state = open_clip.model.CLIP(**CONFIG | more).state_dict()
    state["token_embedding.weight"] = state["token_embedding.weight"] * 30  # so that texts differ
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"
