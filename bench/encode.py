"""Compare ViT-B/32's speed, by batch and precision, with plain open_clip and with the processor's matrix product.

`python -m bench.encode`, two minutes. The candidates run in turns, so that other load on the machine affects all of
them alike. open_clip gets prepared tensors; ours takes bytes and normalises them itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from app.encoder.openvino import OpenVinoEncoder, detect_precision
from bench.results import Figures, load_average, save_figures
from bench.weights import ARCHITECTURE, GFLOP, SIDE, ensure_compiled, ensure_weights

BATCHES = (1, 8, 32, 64)
TEXT_BATCHES = (1, 8, 32)
SECONDS = 100.0
LEAST, MOST = 3, 15
MATRIX = 2048
TEXT = "a photograph of a red car by the sea"  # 9 words: 11 tokens with both ends
Work = Callable[[], object]


def main() -> None:
    began = load_average()
    work, amounts = list_tasks()
    seconds = time_in_turns(work)
    rates = {name: amounts[name] / seconds[name] for name in work}
    figures: Figures = {name: rate for name, rate in rates.items() if not name.startswith("text ") or " 32" in name}
    figures |= {f"{name}, ms": seconds[name] * 1000 for name in work if name.startswith("text ") or name.endswith(" 1")}
    best = max(rate for name, rate in rates.items() if name.startswith(f"pictures {detect_precision()}"))
    figures["floor, pictures"] = floor = rates["matrix bf16"] / GFLOP
    figures["over open_clip, batch 32"] = rates[f"pictures {detect_precision()} 32"] / rates["pictures open_clip 32"]
    figures["over open_clip, best of each"] = best / max(
        rate for name, rate in rates.items() if name.startswith("pictures open_clip")
    )
    figures["of the floor, best batch"] = best / floor
    figures["load before, after"] = max(began, load_average())
    save_figures("encode", figures)


def list_tasks() -> tuple[dict[str, Work], dict[str, float]]:
    """The calls to time, and how much work one call does: pictures, texts, or GFLOP."""
    work: dict[str, Work] = {}
    amounts: dict[str, float] = {}
    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCHES), SIDE, SIDE, 3), dtype=np.uint8)
    folder = ensure_compiled()
    for precision in dict.fromkeys((detect_precision(), "fp32")):
        encoder, bulk = OpenVinoEncoder(folder, precision), OpenVinoEncoder(folder, precision, bulk=True)
        for n in BATCHES if precision != "fp32" else (1, 32):
            work[f"pictures {precision} {n}"] = partial((bulk if n > 1 else encoder).encode_images, pixels[:n])
        for n in TEXT_BATCHES:
            work[f"text {precision} {n}"] = partial(encoder.encode_texts, [TEXT] * n)
    add_open_clip(work)
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        one = torch.randn(MATRIX, MATRIX).to(dtype)
        work[f"matrix {name}"] = partial(torch.matmul, one, one)
        amounts[f"matrix {name}"] = 2 * MATRIX**3 / 1e9
    for name in work:
        amounts.setdefault(name, float(name.split()[-1]) if name[0] != "m" else 0.0)
    return work, amounts


def add_open_clip(work: dict[str, Work]) -> None:
    """Add open_clip as its README runs it: torch in fp32, texts at full length, tensors prepared beforehand."""
    import open_clip

    clip = open_clip.create_model(ARCHITECTURE, pretrained=str(ensure_weights())).eval()
    tensors = torch.randn(max(BATCHES), 3, SIDE, SIDE)
    tokens = open_clip.get_tokenizer(ARCHITECTURE)([TEXT] * max(TEXT_BATCHES))

    def pictures(n: int) -> object:
        with torch.inference_mode():
            return clip.encode_image(tensors[:n], normalize=True)

    def texts(n: int) -> object:
        with torch.inference_mode():
            return clip.encode_text(tokens[:n], normalize=True)

    for n in BATCHES:
        work[f"pictures open_clip {n}"] = partial(pictures, n)
    for n in TEXT_BATCHES:
        work[f"text open_clip {n}"] = partial(texts, n)


def time_in_turns(work: dict[str, Work]) -> dict[str, float]:
    """Median seconds of each call. Run all calls in turns, round after round, until the time is over."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    until = time.perf_counter() + SECONDS
    for turn in range(MOST + 1):
        for name, one in work.items():
            if name.startswith("matrix"):
                one()  # wake its threads, which have slept since the last turn
            began = time.perf_counter()
            one()
            if turn:  # the first turn is a warm-up
                taken[name].append(time.perf_counter() - began)
        if turn >= LEAST and time.perf_counter() > until:
            break
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


if __name__ == "__main__":
    main()
