"""An encoder on OpenVINO: both towers compiled for this processor, from files that `conversion` wrote.

It runs without torch. Pictures go in as uint8; scaling and normalising are part of the compiled tower.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.core.types import EmbeddingSpace, Preprocessing
from app.encoder.protocol import Embeddings, Pixels, normalise
from app.encoder.tokenizer import TOKENIZER, Tokenization, Tokenize

INFO_FILE, IMAGE_FILE, TEXT_FILE = "card.json", "image.xml", "text.xml"
HINTS = {"fp32": "f32", "bf16": "bf16"}
STREAMS = 4  # forward passes at once; more cores than that share them
ROWS_PER_PASS = 8  # rows of one of them: as fast as more, and all end nearly together


def load_openvino() -> Any:
    """The `openvino` module, with its reports of usage to its maker switched off: they are on unless it is told no."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: it cannot be imported
    import openvino

    return openvino


def detect_precision() -> str:
    """`bf16` where the processor multiplies in it, else `fp32`."""
    able = load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in able else "fp32"


@dataclass(frozen=True, slots=True)
class CompiledModelInfo:
    """What stands beside the compiled towers: all that the encoder must know and cannot read from them."""

    space: EmbeddingSpace
    preprocessing: Preprocessing
    tokenization: Tokenization
    temperature: float

    def write(self, folder: Path) -> None:
        (folder / INFO_FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> CompiledModelInfo:
        """Raises OSError, ValueError, KeyError or TypeError when it is not one."""
        said = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
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


class CompiledTower:
    """A tower compiled for `streams` forward passes at once, each on cores of its own.

    None of them waits for another that lost its core to somebody else for a moment, as the threads of one pass do.
    """

    def __init__(self, core: Any, model: Any, settings: dict[str, Any], streams: int = 1) -> None:
        self._streams = streams
        self._compiled = core.compile_model(model, "CPU", {**settings, "NUM_STREAMS": streams})
        self._requests = [self._compiled.create_infer_request() for _ in range(streams)]

    def parts(self, rows: int) -> list[slice]:
        """How that many rows are shared among the passes."""
        size = max(1, rows if self._streams == 1 else min(ROWS_PER_PASS, -(-rows // self._streams)))
        return [slice(start, start + size) for start in range(0, max(1, rows), size)]

    def encode(self, parts: Sequence[npt.NDArray[Any]]) -> Embeddings:
        """The tower's answers for all parts, in their order, rows of length 1."""
        done: list[Embeddings] = []
        for number, part in enumerate(parts):
            request = self._requests[number % self._streams]
            if number >= self._streams:
                done.append(wait_for_result(request))
            # The part is copied: a stream goes on writing to what one request shared with it when it serves another,
            # and by then the part is gone. Workers died of that (2026.4.1).
            request.start_async({0: part}, share_inputs=False)
        done += [wait_for_result(self._requests[n % self._streams]) for n in range(len(parts))[-self._streams :]]
        return normalise(np.concatenate(done))


def wait_for_result(request: Any) -> Embeddings:
    """What a request that was begun comes to."""
    request.wait()
    rows: Embeddings = request.get_output_tensor(0).data.copy()
    return rows


class OpenVinoEncoder:
    """The towers of one folder, at a precision. The text tower is compiled when the first text comes.

    One pass takes all cores, so that a query waits least. In `bulk` pictures go in several passes at once, which is
    faster beside other work. The vectors are the same.
    """

    device = "cpu"

    def __init__(self, folder: Path, precision: str, threads: int = 0, *, bulk: bool = False) -> None:
        card = CompiledModelInfo.read(folder)
        self.space = card.space
        self.preprocessing = card.preprocessing
        self.temperature = card.temperature
        self.runtime = f"OpenVINO {precision}"
        self._tokenization = card.tokenization
        self._lock = threading.Lock()  # one batch at a time: more would only share the same cores
        self._core = load_openvino().Core()
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        streams = min(STREAMS, threads or len(os.sched_getaffinity(0))) if bulk else 1
        self._images = CompiledTower(self._core, folder / IMAGE_FILE, self._settings, streams)
        self._text_tower = self._core.read_model(folder / TEXT_FILE)  # mapped now, so that the folder may go away

    @cached_property
    def _texts(self) -> CompiledTower:
        return CompiledTower(self._core, self._text_tower, self._settings)

    @cached_property
    def _tokenize(self) -> Tokenize:
        return self._tokenization.tokenizer()

    def encode_images(self, pixels: Pixels) -> Embeddings:
        """uint8 [n, size, size, 3] to float32 [n, d], rows of length 1."""
        pixels = np.ascontiguousarray(pixels)
        with self._lock:
            return self._images.encode([pixels[part] for part in self._images.parts(len(pixels))])

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """n texts to float32 [n, d], rows of length 1. Texts past the model's length are cut."""
        with self._lock:
            return self._texts.encode([self._tokenize(texts)])
