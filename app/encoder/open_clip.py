"""An encoder on open_clip: torch, on CUDA when there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from tokenizers import Tokenizer

from app.encoder.protocol import Embeddings, Pixels, normalised
from app.errors import StartupError
from app.types import EmbeddingSpace, Preprocessing

Tokenize = Callable[[Sequence[str]], torch.Tensor]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class OpenClipEncoder:
    """Any open_clip model with its own tokenizer and preprocessing."""

    def __init__(
        self,
        model: Any,
        tokenize: Tokenize,
        space: EmbeddingSpace,
        preprocessing: Preprocessing,
        device: str,
        precision: str,
    ) -> None:
        self.space = space
        self.preprocessing = preprocessing
        self.device = device
        self._dtype = PRECISIONS[precision]
        self._model = model.to(device=device, dtype=self._dtype).eval().requires_grad_(False)
        self._tokenize = tokenize
        self._lock = threading.Lock()  # one forward pass at a time: more would only share the same cores
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1) * 255
        self.temperature = float(self._model.logit_scale.float().exp())

    @torch.inference_mode()
    def encode_images(self, pixels: Pixels) -> Embeddings:
        """uint8 [n, size, size, 3] to float32 [n, d], rows of length 1."""
        with self._lock:
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(0, 3, 1, 2)
            batch = ((batch.float() - self._mean) / self._std).to(self._dtype)
            return normalised(self._model.encode_image(batch).float().cpu().numpy())

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """n texts to float32 [n, d], rows of length 1. Texts past the model's length are cut."""
        with self._lock:
            tokens = self._tokenize(list(texts)).to(self.device)
            return normalised(self._model.encode_text(tokens).float().cpu().numpy())


def build(
    name: str,
    architecture: str,
    weights: Path,
    digest: str,
    *,
    preprocess: dict[str, Any] | None,
    device: str,
    precision: str,
    quick_gelu: bool = False,
) -> OpenClipEncoder:
    """Build the model `architecture` (open_clip's name, or `local-dir:PATH`) with these weights.

    `digest` is the SHA-256 of the weights file, `preprocess` overrides what the architecture says.
    Raises StartupError when weights and architecture do not fit.
    """
    device = choose_device(device)
    precision = choose_precision(precision, device)
    local = architecture.removeprefix("local-dir:") if architecture.startswith("local-dir:") else None
    try:
        model = open_clip.create_model(
            architecture,
            pretrained=None if local else str(weights),
            force_preprocess_cfg=preprocess,
            force_quick_gelu=quick_gelu,
            pretrained_image=False,
            pretrained_text=False,
            require_pretrained=True,
        )
    except Exception as error:
        why = _first_line(error)
        raise StartupError(f"model {name}: {weights.name} does not fit {architecture} ({why})") from error
    settings = preprocessing_of(open_clip.get_model_preprocess_cfg(model))
    tokenizer_file = Path(local) / "tokenizer.json" if local else None
    if tokenizer_file is not None and tokenizer_file.is_file():
        tokenize = file_tokenizer(tokenizer_file, context_length(model))
    else:
        tokenize = open_clip.get_tokenizer(architecture)
    d = int(model.encode_text(tokenize(["a"])).shape[-1])
    space = EmbeddingSpace(name, digest, d, settings.digest)
    return OpenClipEncoder(model, tokenize, space, settings, device, precision)


def preprocessing_of(config: dict[str, Any]) -> Preprocessing:
    """open_clip's preprocess configuration in our words."""
    known = open_clip.transform.PreprocessCfg(**config)
    settings = asdict(known)
    size = settings["size"]
    if isinstance(size, Sequence):
        if size[0] != size[1]:
            raise StartupError(f"models that see {size[0]} × {size[1]} pixels are not supported, only square ones")
        size = size[0]
    return Preprocessing(
        size=int(size),
        resize=settings["resize_mode"],
        interpolation=settings["interpolation"],
        fill=int(settings["fill_color"]),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )


def file_tokenizer(path: Path, length: int) -> Tokenize:
    """A tokenizer from a `tokenizer.json`: ids int64 [n, length], padded with 0, the end kept when cut."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_padding(pad_id=0, length=length)
    tokenizer.enable_truncation(max_length=length)

    def tokenize(texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(list(texts))], dtype=torch.int64)

    return tokenize


def context_length(model: Any) -> int:
    """How many tokens a text may have."""
    tower = getattr(model, "text", model)
    return int(tower.context_length)


def choose_device(device: str) -> str:
    """`auto` is the first CUDA device, else the CPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise StartupError("no CUDA device was found; use --device cpu, or check the driver with nvidia-smi")
    return device


def choose_precision(precision: str, device: str) -> str:
    """`auto` is bf16 on a GPU (fp16 on those without it) and fp32 on a CPU."""
    if precision != "auto":
        return precision
    if not device.startswith("cuda"):
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
