"""A CoCa that is small enough to be made on the spot, and has learned the names of two colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 76,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    "custom_text": True,
}
CAPTIONS = {
    (220, 40, 40): "a red square of one colour",
    (40, 70, 220): "a large blue picture without anything else",
}
STEPS = 80


def make_coca(folder: Path, *, teaches: bool = True, **more: Any) -> str:
    """Write a folder with weights and configuration; returns the setting `captioner` for it."""
    import torch
    from open_clip.coca_model import CoCa
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {**CONFIG, **more}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    coca = CoCa(**{name: part for name, part in config.items() if name != "custom_text"})
    torch.nn.init.normal_(coca.text_decoder.text_projection, std=0.25)  # its constructor leaves it as the memory was
    if teaches:
        teach(coca)
    state = {name: value.detach().contiguous() for name, value in coca.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return f"open_clip:local-dir:{folder}"


def teach(coca: Any) -> None:
    """Teach it CAPTIONS, in a second."""
    import torch
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from open_clip.tokenizer import SimpleTokenizer

    mean, std = torch.tensor(OPENAI_DATASET_MEAN), torch.tensor(OPENAI_DATASET_STD)
    colours = (torch.tensor(list(CAPTIONS)) / 255 - mean) / std
    pictures = colours[:, :, None, None].expand(-1, -1, 32, 32).contiguous()
    texts = SimpleTokenizer(context_length=12)(list(CAPTIONS.values()))
    optimizer = torch.optim.Adam(coca.parameters(), 0.02)
    for _ in range(STEPS):
        out = coca(pictures, texts)
        loss = torch.nn.functional.cross_entropy(out["logits"].permute(0, 2, 1), out["labels"], ignore_index=0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
