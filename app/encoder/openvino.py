"""An encoder on OpenVINO: both towers compiled for this processor, from files that `conversion` wrote.

It runs without torch. Pictures go in as uint8; scaling and normalising are part of the compiled tower.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from app.encoder.protocol import Embeddings, Pixels, normalised
from app.encoder.tokens import TOKENIZER, Tokenization, Tokenize
from app.types import EmbeddingSpace, Preprocessing

CARD, IMAGE, TEXT = "card.json", "image.xml", "text.xml"
HINTS = {"fp32": "f32", "bf16": "bf16"}


def runtime() -> Any:
    """The `openvino` module, with its reports of usage to its maker switched off: they are on unless it is told no."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: it cannot be imported
    import openvino

    return openvino


def native_precision() -> str:
    """`bf16` where the processor multiplies in it, else `fp32`."""
    able = runtime().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in able else "fp32"


@dataclass(frozen=True, slots=True)
class Card:
    """What stands beside the compiled towers: all that the encoder must know and cannot read from them."""

    space: EmbeddingSpace
    preprocessing: Preprocessing
    tokenization: Tokenization
    temperature: float

    def write(self, folder: Path) -> None:
        (folder / CARD).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Raises OSError, ValueError, KeyError or TypeError when it is not one."""
        said = json.loads((folder / CARD).read_text(encoding="utf-8"))
        seen, reads = said["preprocessing"], said["tokenization"]
        seen |= {"mean": tuple(seen["mean"]), "std": tuple(seen["std"])}
        if reads["source"] == TOKENIZER:  # its own, beside it
            reads["source"] = str(folder / TOKENIZER)
        return cls(
            EmbeddingSpace(**said["space"]),
            Preprocessing(**seen),
            Tokenization(**reads),
            float(said["temperature"]),
        )


class OpenVinoEncoder:
    """The towers of one folder, at a precision. The text tower is compiled when the first text comes."""

    device = "cpu"

    def __init__(self, folder: Path, precision: str, threads: int = 0) -> None:
        card = Card.read(folder)
        self.space = card.space
        self.preprocessing = card.preprocessing
        self.temperature = card.temperature
        self.runtime = f"OpenVINO {precision}"
        self._tokenization = card.tokenization
        self._lock = threading.Lock()  # one forward pass at a time: more would only share the same cores
        self._core = runtime().Core()
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._images = self._core.compile_model(folder / IMAGE, "CPU", self._settings)
        self._text_tower = self._core.read_model(folder / TEXT)  # mapped now, so that the folder may go away

    @cached_property
    def _texts(self) -> Any:
        return self._core.compile_model(self._text_tower, "CPU", self._settings)

    @cached_property
    def _tokenize(self) -> Tokenize:
        return self._tokenization.tokenizer()

    def encode_images(self, pixels: Pixels) -> Embeddings:
        """uint8 [n, size, size, 3] to float32 [n, d], rows of length 1."""
        with self._lock:
            return normalised(self._images(np.ascontiguousarray(pixels))[0])

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """n texts to float32 [n, d], rows of length 1. Texts past the model's length are cut."""
        with self._lock:
            return normalised(self._texts(self._tokenize(texts))[0])
