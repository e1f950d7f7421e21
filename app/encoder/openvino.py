"""An encoder on OpenVINO: both towers compiled for this processor, from files that `conversion` wrote.

It runs without torch. It takes pictures as uint8; the compiled tower scales and normalises them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from app.core.types import EmbeddingSpace, Preprocessing
from app.encoder.memory_check import available_memory
from app.encoder.protocol import Embeddings, Pixels, normalise
from app.encoder.tokenizer import TOKENIZER, TextTokenizer, Tokenization

log = logging.getLogger(__name__)

INFO_FILE, IMAGE_FILE, TEXT_FILE = "card.json", "image.xml", "text.xml"
HINTS = {"fp32": "f32", "bf16": "bf16"}  # int8 is in the tower itself; what it leaves runs as the processor is fastest
STREAMS = 4  # forward passes at once; further cores share them
MANY = 64  # pictures that came together: making another tower takes as long as encoding as many
ROOM = 4  # times the weights: memory that must be left for another tower of them
ROWS_PER_PASS = 8  # as fast as more, and all passes end at nearly the same time


def load_openvino() -> Any:
    """Import `openvino` with its usage reports to the vendor switched off; by default they are on."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None forbids the import
    import openvino

    return openvino


def detect_precision() -> str:
    """`bf16` if the processor multiplies in it, else `fp32`."""
    capabilities = load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in capabilities else "fp32"


@dataclass(frozen=True, slots=True)
class CompiledModelInfo:
    """What an encoder needs besides the compiled towers; stored beside them."""

    space: EmbeddingSpace
    preprocessing: Preprocessing
    tokenization: Tokenization
    temperature: float
    configuration: str = ""  # the SHA-256 of the model's configuration, where both are in one folder
    precision: str = ""  # `int8` if the image tower is in it
    made_of: str = ""  # the SHA-256 of the weights, where vectors in int8 are a space of their own

    def write(self, folder: Path) -> None:
        (folder / INFO_FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> CompiledModelInfo:
        """Raises OSError or ValueError if the file is damaged."""
        info = TypeAdapter(CompiledModelInfo).validate_json((folder / INFO_FILE).read_bytes())
        source = info.tokenization.source
        if Path(source).name != TOKENIZER:
            return info
        path = Path(os.path.normpath(folder / source))  # beside it, or in the folder around it
        return replace(info, tokenization=replace(info.tokenization, source=str(path)))


class CompiledTower:
    """A tower compiled for `streams` forward passes at once, each on its own cores.

    The threads of one pass all wait when another process takes the core of one of them; separate passes do not.
    """

    def __init__(self, core: Any, model: Any, settings: dict[str, Any], streams: int = 1) -> None:
        self._streams = streams
        self._compiled = core.compile_model(model, "CPU", {**settings, "NUM_STREAMS": streams})
        self._requests = [self._compiled.create_infer_request() for _ in range(streams)]

    def split_rows(self, rows: int) -> list[slice]:
        """Share `rows` rows among the passes."""
        size = max(1, rows if self._streams == 1 else min(ROWS_PER_PASS, -(-rows // self._streams)))
        return [slice(start, start + size) for start in range(0, max(1, rows), size)]

    def encode(self, parts: Sequence[npt.NDArray[Any]]) -> Embeddings:
        """The vectors of all parts in their order, rows of length 1."""
        done: list[Embeddings] = []
        for number, part in enumerate(parts):
            request = self._requests[number % self._streams]
            if number >= self._streams:
                done.append(wait_for_result(request))
            # share_inputs=False copies the part. A stream keeps the buffer that one request shared with it and writes
            # to it for the next request, when the part is already freed. Workers crashed of that (OpenVINO 2026.4.1).
            request.start_async({0: part}, share_inputs=False)
        done += [wait_for_result(self._requests[n % self._streams]) for n in range(len(parts))[-self._streams :]]
        return normalise(np.concatenate(done))


def wait_for_result(request: Any) -> Embeddings:
    request.wait()
    rows: Embeddings = request.get_output_tensor(0).data.copy()
    return rows


class OpenVinoEncoder:
    """The towers of one folder at one precision. The text tower is compiled for the first text.

    One pass uses all cores, so that a query waits least. With `bulk`, pictures are encoded in several passes at once,
    which is faster while other processes run. The vectors are the same. Without `bulk` several pictures that come
    together are encoded so, too, by a second tower: after MANY of them a thread makes it, where memory suffices.
    """

    device = "cpu"

    def __init__(
        self, folder: Path, precision: str, threads: int = 0, *, bulk: bool = False, logit_bias: float | None = None
    ) -> None:
        card = CompiledModelInfo.read(folder)
        self.space = card.space
        self.preprocessing = card.preprocessing
        self.temperature = card.temperature
        self.logit_bias = logit_bias
        self.runtime = f"OpenVINO {precision}"
        self.max_tokens: int | None = card.tokenization.length
        self._tokenization = card.tokenization
        self._tokenizing = threading.Lock()  # one thread loads and uses the tokenizer
        self._lock = threading.Lock()  # one batch at a time; more would share the same cores
        self._core = load_openvino().Core()
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[detect_precision() if precision == "int8" else precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._streams = min(STREAMS, threads or len(os.sched_getaffinity(0)))
        self._image_tower = self._core.read_model(folder / IMAGE_FILE)
        self._images = CompiledTower(self._core, self._image_tower, self._settings, self._streams if bulk else 1)
        self._several: CompiledTower | None = self._images if bulk or self._streams == 1 else None
        self._compiling: threading.Thread | None = None
        self._together = 0  # pictures that did not come alone
        self._weights_bytes = (folder / IMAGE_FILE).with_suffix(".bin").stat().st_size
        self._text_tower = self._core.read_model(folder / TEXT_FILE)  # mapped now, so that the folder may be removed

    @cached_property
    def _texts(self) -> CompiledTower:
        return CompiledTower(self._core, self._text_tower, self._settings)

    @cached_property
    def _tokenize(self) -> TextTokenizer:
        return self._tokenization.tokenizer()

    def count_words_read(self, text: str) -> int | None:
        with self._tokenizing:
            return self._tokenize.count_words_read(text)

    def count_tokens(self, texts: Sequence[str]) -> int:
        with self._tokenizing:
            return sum(map(self._tokenize.count, texts))

    def encode_images(self, pixels: Pixels) -> Embeddings:
        """uint8 [n, size, size, 3] to float32 [n, d], rows of length 1."""
        pixels = np.ascontiguousarray(pixels)
        with self._lock:
            tower = self._images if len(pixels) == 1 else self._choose_tower(len(pixels))
            return tower.encode([pixels[part] for part in tower.split_rows(len(pixels))])

    def _choose_tower(self, rows: int) -> CompiledTower:
        """The tower for several pictures: the one of several passes, as soon as there is one."""
        self._together += rows
        if self._several is None and self._compiling is None and self._together >= MANY:
            self._compiling = threading.Thread(target=self._compile_several, name="compile")  # seconds at most
            self._compiling.start()
        return self._several or self._images

    def _compile_several(self) -> None:
        room = available_memory()
        if room is not None and room < ROOM * self._weights_bytes:
            log.info("no second image tower for several pictures at once: little memory is left")
            return
        self._several = CompiledTower(self._core, self._image_tower, self._settings, self._streams)

    def encode_texts(self, texts: Sequence[str]) -> Embeddings:
        """n texts to float32 [n, d], rows of length 1. Longer texts are cut to the length of the model."""
        with self._lock:
            with self._tokenizing:
                tokens = self._tokenize(texts)
            return self._texts.encode([tokens])
