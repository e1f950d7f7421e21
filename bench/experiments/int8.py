"""Compare int8 with bf16: the starter by the demo gallery, ViT-B/32 with seeded weights by its speed alone.

`.venv/bin/pip install -e '.[int8]'`, then `python -m bench.experiments.int8` (ten minutes). Both precisions run in
turns, the encoder as a worker has it. Decision 82 has the figures.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from app.core.settings import Settings
from app.encoder.int8 import Samples, compare_encoders, quantise_tower, require_nncf
from app.encoder.loader import STARTER
from app.encoder.openvino import IMAGE_FILE, CompiledModelInfo, OpenVinoEncoder, detect_precision
from app.service.factory import open_pool
from app.service.int8 import open_pictures, take_samples
from bench.results import Figures, load_average, save_figures
from bench.weights import ensure_compiled

SAMPLES = 64  # of ViT-B/32, which learnt nothing: more would say no more


def main() -> None:
    require_nncf()
    began = load_average()
    figures = Figures()
    for name, folder in (("starter", STARTER / "compiled"), ("ViT-B/32", ensure_compiled())):
        figures |= compare(name, folder)
    figures["load before, after"] = max(began, load_average())
    save_figures("int8", figures)


def compare(name: str, folder: Path) -> Figures:
    """Quantise the image tower of a converted model, and compare both."""
    settings = Settings(data_dir=Path("none"))
    with tempfile.TemporaryDirectory() as scratch, open_pictures(settings) as sources, open_pool(settings) as pool:
        samples = take_samples(sources, pool, CompiledModelInfo.read(folder).preprocessing)
        if name != "starter":
            samples = cut_samples(samples)
        draft = Path(scratch) / "int8"
        shutil.copytree(folder, draft)
        quantise_tower(folder / IMAGE_FILE, draft / IMAGE_FILE, samples.calibration)
        info = CompiledModelInfo.read(folder)
        info.write(draft)  # with the whole path of its tokenizer
        before = OpenVinoEncoder(folder, detect_precision(), bulk=True)
        report = compare_encoders(before, OpenVinoEncoder(draft, "int8", bulk=True), samples)
    figures: Figures = {
        f"{name}, times as fast, batch 32": report.speed,
        f"{name}, cosine, mean": report.cosine_mean,
        f"{name}, cosine, 5th percentile": report.cosine_p5,
    }
    if name == "starter":
        figures |= {
            "starter, recall@10 in 16 bits": report.recall_before,
            "starter, recall@10 in int8": report.recall,
            "starter, recall@10, every other picture in int8": report.recall_mixed,
        }
    return figures


def cut_samples(samples: Samples) -> Samples:
    pictures = np.concatenate([samples.calibration[:SAMPLES], samples.pictures])[: 2 * SAMPLES]
    return Samples(pictures[:SAMPLES], pictures[SAMPLES:], samples.captions[:SAMPLES], "the gallery", "the gallery")


if __name__ == "__main__":
    main()
