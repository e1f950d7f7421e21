"""An image tower in int8: NNCF quantises it after training. A comparison with 16 bits decides whether it is kept.

The text tower stays as it is: a single query gains little (docs/decisions/0082-int8-for-pictures.md).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from app.core.errors import StartupError
from app.core.files import sha256_file
from app.encoder.golden import encode_golden, is_same_model
from app.encoder.openvino import IMAGE_FILE, CompiledModelInfo, OpenVinoEncoder, detect_precision, load_openvino
from app.encoder.protocol import Embeddings, Encoder, Pixels

BATCH = 32
ROUNDS = 5  # of the comparison of speeds
FIRST = 10  # of the recall
LEAST_RECALL = 0.97  # of int8's recall to that of 16 bits; below it int8 is refused
SAME_RECALL, SAME_COSINE = 0.99, 0.99  # from these on, vectors of both precisions may be in one index
LEAST_KNOWN = 5.0  # times as good as chance: else the model knows too little of these pictures to be judged by them
WITHOUT_NNCF = (
    "int8 needs NNCF, which is not installed here: pip install 'sightline-search[int8]'. What it writes is served"
    " without it"
)


@dataclass(frozen=True, slots=True)
class Samples:
    """Pictures to calibrate by, and others with captions to judge by: `captions[n]` is that of `pictures[n]`."""

    calibration: Pixels
    pictures: Pixels
    captions: Sequence[str]
    calibrated_on: str
    judged_by: str


@dataclass(frozen=True, slots=True)
class Int8Report:
    """How int8 compares with 16 bits. The recalls are shares of the captions whose own picture is among the first ten:
    in 16 bits, in int8, and where every other picture is in int8, as in an index that changes its precision."""

    calibrated_on: str
    judged_by: str
    captions: int
    recall_before: float
    recall: float
    recall_mixed: float
    cosine_p5: float
    cosine_mean: float
    speed: float
    has_same_golden: bool

    @property
    def ratio(self) -> float:
        return self.recall / self.recall_before if self.recall_before else 0.0

    @property
    def is_known(self) -> bool:
        """Whether the model knows enough of these pictures to be judged by them."""
        return self.recall_before >= min(0.5, LEAST_KNOWN * FIRST / self.captions)

    @property
    def is_same_space(self) -> bool:
        """Whether the vectors of both precisions can be compared as if one model had made them."""
        mixed = self.recall_mixed >= SAME_RECALL * self.recall_before
        return self.is_known and mixed and self.cosine_p5 >= SAME_COSINE and self.has_same_golden

    def find_fault(self) -> str | None:
        """Why int8 is refused; None if it is good enough."""
        if not self.is_known:
            return (
                f"the model finds {self.recall_before:.3f} of {self.captions:,} captions' own pictures among the first"
                f" {FIRST}, so these pictures ({self.judged_by}) cannot tell what int8 loses"
            )
        if self.ratio < LEAST_RECALL:
            return (
                f"int8 finds {self.recall:.3f} of {self.captions:,} captions' own pictures among the first {FIRST},"
                f" 16 bits {self.recall_before:.3f}: that is {self.ratio:.3f} of it, less than {LEAST_RECALL}"
            )
        return None


def require_nncf() -> None:
    """Raise StartupError where it is not installed."""
    if find_spec("nncf") is None:
        raise StartupError(WITHOUT_NNCF)


def add_int8(folder: Path, samples: Samples, *, force: bool = False) -> Int8Report:
    """Replace the image tower in the folder of a converted model by one in int8, which then has its own space unless
    its vectors are the same (`is_same_space`).

    Raises StartupError where the comparison refuses it, unless `force`.
    """
    draft = folder.with_name(folder.name + ".int8")
    shutil.copytree(folder, draft)
    try:
        quantise_tower(folder / IMAGE_FILE, draft / IMAGE_FILE, samples.calibration)
        before = OpenVinoEncoder(folder, detect_precision(), bulk=True)
        report = compare_encoders(before, OpenVinoEncoder(draft, "int8", bulk=True), samples)
        fault = report.find_fault()
        if fault is not None and not force:
            raise StartupError(f"{fault}; --force writes it nevertheless")
        _write_card(folder, draft, is_same_space=report.is_same_space)
        shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return report


def _write_card(before: Path, folder: Path, *, is_same_space: bool) -> None:
    info = CompiledModelInfo.read(before)
    space = info.space
    if not is_same_space:
        made = f"{space.weights} int8 {sha256_file((folder / IMAGE_FILE).with_suffix('.bin'))}"
        space = replace(space, weights=hashlib.sha256(made.encode()).hexdigest())
    # The path of the tokenizer is relative in the file, and not in what was read.
    tokenization = replace(info.tokenization, source=os.path.relpath(info.tokenization.source, before))
    replace(info, space=space, tokenization=tokenization, precision="int8", made_of=info.space.weights).write(folder)


def quantise_tower(tower: Path, target: Path, pixels: Pixels) -> None:
    """Write the tower in int8. `pixels` are uint8 [n, size, size, 3]; their values set the ranges of each layer."""
    openvino = load_openvino()
    os.environ["NNCF_CI"] = "1"  # else it sends reports of its use to its vendor
    import nncf

    nncf.set_log_level("ERROR")
    done = nncf.quantize(
        openvino.Core().read_model(tower),
        nncf.Dataset([one[None] for one in pixels]),
        model_type=nncf.ModelType.TRANSFORMER,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(pixels),
    )
    openvino.save_model(done, target)


def compare_encoders(before: Encoder, after: Encoder, samples: Samples) -> Int8Report:
    """Judge `after` by `before`."""
    count = len(samples.captions)
    rows = range(0, count, BATCH)
    texts = np.concatenate([before.encode_texts(samples.captions[n : n + BATCH]) for n in rows])
    old, new = (
        np.concatenate([one.encode_images(samples.pictures[n : n + BATCH]) for n in rows]) for one in (before, after)
    )
    mixed = np.where((np.arange(count) % 2 == 0)[:, None], old, new)
    cosines = (old * new).sum(axis=1)
    golden = (encode_golden(after, texts=False), encode_golden(before, texts=False))
    return Int8Report(
        samples.calibrated_on,
        samples.judged_by,
        count,
        measure_recall(texts, old),
        measure_recall(texts, new),
        measure_recall(texts, mixed),
        float(np.quantile(cosines, 0.05)),
        float(cosines.mean()),
        compare_speeds(before, after, samples.pictures[:BATCH]),
        is_same_model(*golden),
    )


def measure_recall(texts: Embeddings, pictures: Embeddings) -> float:
    """The share of texts whose own picture, that of the same row, is among the first ten."""
    scores = texts @ pictures.T
    return float(((scores > np.diagonal(scores)[:, None]).sum(axis=1) < FIRST).mean())


def compare_speeds(before: Encoder, after: Encoder, pixels: Pixels) -> float:
    """How many times as fast `after` encodes a batch, measured in turns."""
    taken: dict[Any, list[float]] = {before: [], after: []}
    for turn in range(ROUNDS + 1):
        for encoder, seconds in taken.items():
            began = time.perf_counter()
            encoder.encode_images(pixels)
            if turn:
                seconds.append(time.perf_counter() - began)
    return statistics.median(taken[before]) / statistics.median(taken[after])
