"""Build models of open_clip from their files, and run them in torch, on CUDA if there is a GPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor

from app.core.errors import StartupError
from app.core.types import EmbeddingSpace, Preprocessing
from app.encoder.cuda_graphs import CudaGraphRunner
from app.encoder.protocol import Embeddings, Pixels, normalise
from app.encoder.tokenizer import Tokenization
from app.encoder.towers import Tower, make_text_tower
from app.encoder.weights import LocatedModel

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CLIP_VOCABULARY, CLIP_LENGTH = 49_408, 77  # of open_clip's own tokenizer


@dataclass(frozen=True, slots=True)
class OpenClipModel:
    """An open_clip model with its tokenizer, embedding space and preprocessing."""

    clip: Any
    tokenization: Tokenization
    space: EmbeddingSpace
    preprocessing: Preprocessing
    temperature: float
    logit_bias: float | None


class OpenClipEncoder:
    """Any open_clip model in torch, with its own tokenizer and preprocessing."""

    def __init__(self, model: OpenClipModel, device: str, precision: str, reason: str = "") -> None:
        self.space = model.space
        self.preprocessing = model.preprocessing
        self.temperature = model.temperature
        self.logit_bias = model.logit_bias
        self.device = device
        self.runtime = f"torch {precision}" + (f" ({reason})" if reason else "")
        self._dtype = PRECISIONS[precision]
        model.clip.to(device=device, dtype=self._dtype).to(memory_format=torch.channels_last)  # as the pixels
        self._images = Tower(model.clip, "encode_image")
        self._texts, _, _ = make_text_tower(model.clip)
        self.max_tokens: int | None = model.tokenization.length
        self._tokenize = model.tokenization.tokenizer()
        self._tokenizing = threading.Lock()  # one thread uses the tokenizer
        self._lock = threading.Lock()  # one forward pass at a time; more would share the same cores
        self._mean = torch.tensor(model.preprocessing.mean, device=device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(model.preprocessing.std, device=device).view(1, 3, 1, 1) * 255
        size = model.preprocessing.size
        on_gpu = device.startswith("cuda")
        self._graphs = CudaGraphRunner(self.forward, (size, size, 3), model.space.d, device) if on_gpu else None

    def count_words_read(self, text: str) -> int | None:
        with self._tokenizing:
            return self._tokenize.count_words_read(text)

    def count_tokens(self, texts: Sequence[str]) -> int:
        with self._tokenizing:
            return sum(map(self._tokenize.count, texts))

    @torch.inference_mode()
    def encode_images(self, pixels: Pixels) -> Embeddings:
        """uint8 [n, size, size, 3] to float32 [n, d], rows of length 1."""
        with self._lock:
            if self._graphs is not None:
                return normalise(self._graphs(pixels))
            return normalise(self.forward(torch.from_numpy(np.ascontiguousarray(pixels))).numpy())

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 [n, size, size, 3] to float32 [n, d] of any length, both on the encoder's device."""
        batch = (pixels.permute(0, 3, 1, 2).float() - self._mean) / self._std
        features: Tensor = self._images(batch.to(self._dtype))
        return features.float()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """n texts to float32 [n, d], rows of length 1. Longer texts are cut to the length of the model."""
        with self._lock:
            with self._tokenizing:
                tokens = torch.from_numpy(self._tokenize(texts)).to(self.device)
            return normalise(self._texts(tokens).float().cpu().numpy())


def create_clip(spec: LocatedModel) -> Any:
    """The module of a model, on the CPU. Raises StartupError if weights and architecture do not fit."""
    architecture, local = spec.architecture, spec.folder
    try:
        clip = open_clip.create_model(
            architecture,
            pretrained=None if local else str(spec.weights),
            force_preprocess_cfg=spec.preprocess,
            force_quick_gelu=spec.quick_gelu,
            pretrained_image=False,
            pretrained_text=False,
            require_pretrained=True,
        )
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise StartupError(f"model {spec.name}: {spec.weights.name} does not fit {architecture} ({reason})") from error
    return clip.eval().requires_grad_(False)


def build_model(spec: LocatedModel) -> OpenClipModel:
    """Build a model on the CPU. Raises StartupError if weights and architecture do not fit."""
    clip = create_clip(spec)
    preprocessing = map_preprocessing(open_clip.get_model_preprocess_cfg(clip))
    tokenization = find_tokenization(clip, spec.architecture, spec.folder, spec.cache)
    with torch.inference_mode():
        d = int(clip.encode_text(torch.zeros((1, tokenization.length), dtype=torch.int64)).shape[-1])
    space = EmbeddingSpace(spec.name, spec.digest, d, preprocessing.digest)
    bias = None if getattr(clip, "logit_bias", None) is None else float(clip.logit_bias)
    return OpenClipModel(clip, tokenization, space, preprocessing, float(clip.logit_scale.float().exp()), bias)


def find_tokenization(clip: Any, architecture: str, folder: Path | None, cache: str = "") -> Tokenization:
    """The tokenizer of a model. The `tokenizer.json` of a folder is used if open_clip has no tokenizer for the model:
    its configuration names none of the hub, and its vocabulary is not that of CLIP."""
    _, pool, eos = make_text_tower(clip)
    text_config = (open_clip.get_model_config(architecture) or {}).get("text_cfg", {})
    source = architecture
    if folder is not None and (folder / "tokenizer.json").is_file():
        vocabulary = getattr(getattr(clip, "text", clip), "vocab_size", 0)
        if not text_config.get("hf_tokenizer_name") and vocabulary != CLIP_VOCABULARY:
            source = str(folder / "tokenizer.json")
    return Tokenization(source, int(text_config.get("context_length", CLIP_LENGTH)), pool, eos, cache)


def map_preprocessing(config: dict[str, Any]) -> Preprocessing:
    """open_clip's preprocess configuration as our type."""
    settings = asdict(open_clip.transform.PreprocessCfg(**config))
    size = settings["size"]
    if isinstance(size, Sequence):
        if size[0] != size[1]:
            raise StartupError(
                f"models with an input of {size[0]} × {size[1]} pixels are not supported; only square ones are"
            )
        size = size[0]
    return Preprocessing(
        size=int(size),
        resize=settings["resize_mode"],
        interpolation=settings["interpolation"],
        fill=int(settings["fill_color"]),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )


def choose_device(device: str) -> str:
    """`auto` is the first CUDA device, else the CPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise StartupError("no CUDA device was found; use --device cpu, or check the driver with nvidia-smi")
    return device


def choose_precision(precision: str, device: str) -> str:
    """`auto` is bf16 on a GPU (fp16 if it has no bf16) and fp32 on a CPU."""
    if precision not in ("auto", "int8"):  # which a captioner does not have
        return precision
    if not device.startswith("cuda"):
        return "fp32"
    if torch.cuda.is_bf16_supported(including_emulation=False):  # older GPUs emulate it slowly
        return "bf16"
    return "fp16"
