"""How long a CoCa takes for a caption: random weights of a real size, so the words are nonsense and the time is real.

`python -m bench.experiments.captions [ARCHITECTURE]` (coca_ViT-B-32; coca_ViT-L-14 needs 4 GB of memory). A caption of
random weights seldom ends by itself: each has 29 tokens, while real captions have about 12.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import open_clip
import torch

from app.encoder.coca import BEAMS, CPU_BEAMS, CocaCaptioner
from app.encoder.open_clip import choose_device, choose_precision


def main() -> None:
    architecture = sys.argv[1] if len(sys.argv) > 1 else "coca_ViT-B-32"
    torch.manual_seed(0)
    coca = open_clip.create_model(architecture).eval().requires_grad_(False)
    torch.nn.init.normal_(coca.text_decoder.text_projection, std=0.02)
    parameters = sum(one.numel() for one in coca.parameters())
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    threads = torch.get_num_threads()
    print(f"{architecture}, {parameters / 1e6:.0f} million parameters, {precision} on {device}, {threads} threads")
    rng = np.random.default_rng(0)
    for beams in (1, CPU_BEAMS, BEAMS):
        captioner = CocaCaptioner(architecture, coca, device, precision, beams)
        size = captioner.preprocessing.size
        for batch in (1, 4) if device == "cpu" else (1, 16, 64):
            pixels = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
            captioner.caption(pixels[:1])
            began = time.perf_counter(), time.process_time()
            captioner.caption(pixels)
            seconds, worked = (time.perf_counter() - began[0]) / batch, (time.process_time() - began[1]) / batch
            print(f"{beams} beams, {batch:2} at once: {seconds:.2f} s a picture, {worked:.2f} s of processor time")


if __name__ == "__main__":
    main()
