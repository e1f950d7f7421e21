"""Captions by a CoCa of open_clip.

open_clip's own `generate` needs parts of transformers that version 5 no longer has, and refuses without them. The beam
search here uses the model's two towers and its decoder as they are (docs/decisions/0062-captions.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from app.core.errors import StartupError
from app.encoder.loader import EncoderOptions, check_weights, find_captioner_name, locate_model
from app.encoder.memory_check import check_memory, estimate_torch
from app.encoder.open_clip import (
    CLIP_VOCABULARY,
    PRECISIONS,
    choose_device,
    choose_precision,
    create_clip,
    map_preprocessing,
)
from app.encoder.protocol import Pixels
from app.encoder.weights import count_parameters

FIRST, LAST, PADDING = 49_406, 49_407, 0  # tokens: before the first word, after the last one, and none
BEAMS = 4  # captions that are followed at once
MIN_TOKENS, MAX_TOKENS = 5, 30  # of a caption, as open_clip's own defaults


class CocaCaptioner:
    """A loaded CoCa. It encodes pictures and writes in one thread at a time."""

    def __init__(self, name: str, coca: Any, device: str, precision: str, beams: int = BEAMS) -> None:
        self.name = name
        self.device = device
        self.preprocessing = map_preprocessing(open_clip.get_model_preprocess_cfg(coca))
        self._dtype = PRECISIONS[precision]
        self._coca = coca.to(device=device, dtype=self._dtype)
        self._words = SimpleTokenizer()
        self._beams = beams
        self._mean = torch.tensor(self.preprocessing.mean, device=device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(self.preprocessing.std, device=device).view(1, 3, 1, 1) * 255

    @torch.inference_mode()
    def caption(self, pixels: Pixels) -> list[str]:
        """uint8 [n, size, size, 3] to n captions."""
        batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(0, 3, 1, 2).float()
        latent, tokens = self._coca._encode_image(((batch - self._mean) / self._std).to(self._dtype))
        found = search_beams(self._coca, latent, tokens, self._beams)
        return [self._words.decode(one).strip() for one in found]


def search_beams(coca: Any, latent: Tensor, image_tokens: Tensor, beams: int) -> list[list[int]]:
    """The likeliest caption of each picture, as tokens without FIRST and LAST; a probability is the mean per token.

    `latent` [n, d] and `image_tokens` [n, m, d] are those of the pictures.
    """
    n, device = len(latent), latent.device
    latent, image_tokens = latent.repeat_interleave(beams, 0), image_tokens.repeat_interleave(beams, 0)
    texts = torch.full((n * beams, 1), FIRST, device=device)
    scores = torch.full((n, beams), -torch.inf, device=device)
    scores[:, 0] = 0.0  # at first all beams are the same
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(n)]
    for length in range(1, MAX_TOKENS):
        logits = coca(None, texts, image_latent=latent, image_embs=image_tokens, output_labels=False)["logits"]
        steps = torch.log_softmax(logits[:, -1].float(), -1)
        steps[:, [FIRST, PADDING]] = -torch.inf
        if length < MIN_TOKENS:
            steps[:, LAST] = -torch.inf
        best, places = (scores.view(-1, 1) + steps).view(n, -1).topk(2 * beams)  # enough if each beam ends once
        picked = [_pick(best[row].tolist(), places[row].tolist(), beams, steps.shape[-1]) for row in range(n)]
        for row, (_, finished) in enumerate(picked):
            for score, beam in finished if len(ended[row]) < beams else ():
                ended[row].append((score / length, texts[row * beams + beam, 1:].tolist()))
        scores = torch.tensor([[score for score, _, _ in kept] for kept, _ in picked], device=device)
        rows = [row * beams + beam for row, (kept, _) in enumerate(picked) for _, beam, _ in kept]
        words = torch.tensor([[token] for kept, _ in picked for _, _, token in kept], device=device)
        texts = torch.cat([texts[rows], words], 1)
        if all(len(one) >= beams for one in ended):
            break
    for row, one in enumerate(ended):  # a caption that does not end is cut
        one.extend(
            (float(scores[row, beam]) / texts.shape[1], texts[row * beams + beam, 1:].tolist())
            for beam in range(beams if not one else 0)
        )
    return [max(one)[1] for one in ended]


def _pick(
    scores: Sequence[float], places: Sequence[int], beams: int, vocabulary: int
) -> tuple[list[tuple[float, int, int]], list[tuple[float, int]]]:
    """The beams to go on with (score, beam, token), and those that end among the best (score, beam)."""
    kept: list[tuple[float, int, int]] = []
    finished: list[tuple[float, int]] = []
    for rank, (score, place) in enumerate(zip(scores, places, strict=True)):
        beam, token = divmod(place, vocabulary)
        if token != LAST:
            kept.append((score, beam, token))
        elif rank < beams:
            finished.append((score, beam))
    return kept[:beams], finished


def load_captioner(captioner: str, cache: Path, options: EncoderOptions) -> CocaCaptioner:
    """Find the model of the setting `captioner`, download it if needed, and load it. Raises StartupError."""
    located = locate_model(find_captioner_name(captioner), cache)
    check_weights(located)
    size = count_parameters(located.name, located.weights)
    check_memory(located.name, estimate_torch(size, options.processes), options.processes, "to write captions")
    if options.threads:
        torch.set_num_threads(options.threads)
    coca = create_clip(located)
    if not hasattr(coca, "text_decoder"):
        raise StartupError(f"captioner {captioner}: this model has no decoder, which writes; a CoCa has one")
    if coca.text.token_embedding.num_embeddings != CLIP_VOCABULARY:
        raise StartupError(f"captioner {captioner}: its vocabulary is not that of CLIP")
    device = choose_device(options.device)
    return CocaCaptioner(located.name, coca, device, choose_precision(options.precision, device))
