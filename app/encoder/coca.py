"""Captions by a CoCa of open_clip.

open_clip's own `generate` needs parts of transformers that version 5 no longer has, and refuses without them; it also
computes every token anew at each step. So decoding and beam search are here (docs/decisions/0062-captions.md).
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
from torch.nn.functional import linear, scaled_dot_product_attention

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
BEAMS, CPU_BEAMS = 4, 2  # captions that are followed at once, on a GPU and on a processor, which is slow
MIN_TOKENS, MAX_TOKENS = 5, 30  # of a caption, as open_clip's own defaults


class CocaCaptioner:
    """A loaded CoCa. It encodes pictures and writes in one thread at a time."""

    def __init__(self, name: str, coca: Any, device: str, precision: str, beams: int) -> None:
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
        _, tokens = self._coca._encode_image(((batch - self._mean) / self._std).to(self._dtype))
        found = search_beams(CaptionDecoder(self._coca, tokens, self._beams), len(pixels), self._beams, self.device)
        return [self._words.decode(one).strip() for one in found]


class CaptionDecoder:
    """The text tower and the decoder of a CoCa, a token at a time: keys and values of what is written are kept.

    The modules of open_clip would compute everything again for each token, with the keys of all parts of the picture.
    """

    def __init__(self, coca: Any, image_tokens: Tensor, beams: int) -> None:
        """`image_tokens` [n, m, d] are those of the pictures; each has `beams` texts."""
        self._text, self._decoder = coca.text, coca.text_decoder
        self._pictures = [
            _project(block.attn, block.ln_1_kv(image_tokens).repeat_interleave(beams, 0))
            for block in self._decoder.cross_attn
        ]
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._length = 0

    def keep(self, rows: Tensor) -> None:
        """Go on with these texts; one may be there several times."""
        self._kept = [(keys[rows], values[rows]) for keys, values in self._kept]

    def read(self, words: Tensor) -> Tensor:
        """Add a token to each text [b]; the logits of the next one [b, vocabulary]."""
        x = self._text.token_embedding(words)[:, None] + self._text.positional_embedding[self._length]
        kept, self._kept = iter(self._kept), []
        for block in self._text.transformer.resblocks:
            x = self._attend_to_text(block, x, next(kept, None))
        for block, cross, picture in zip(
            self._decoder.resblocks, self._decoder.cross_attn, self._pictures, strict=True
        ):
            x = self._attend_to_text(block, x, next(kept, None))
            x = _finish(cross, x, _attend(cross.attn, cross.ln_1(x), *picture))
        self._length += 1
        logits: Tensor = self._decoder.ln_final(x)[:, 0] @ self._decoder.text_projection
        return logits

    def _attend_to_text(self, block: Any, x: Tensor, kept: tuple[Tensor, Tensor] | None) -> Tensor:
        normed = block.ln_1(x)
        keys, values = _project(block.attn, normed)
        if kept is not None:
            keys, values = torch.cat([kept[0], keys], 1), torch.cat([kept[1], values], 1)
        self._kept.append((keys, values))
        return _finish(block, x, _attend(block.attn, normed, keys, values))


def _project(attn: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The keys and the values of x [b, t, d]."""
    keys, values = linear(x, attn.in_proj_weight[attn.embed_dim :], attn.in_proj_bias[attn.embed_dim :]).chunk(2, -1)
    return keys, values


def _attend(attn: Any, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The attention of x [b, 1, d] to keys and values [b, t, d]."""
    queries = linear(x, attn.in_proj_weight[: attn.embed_dim], attn.in_proj_bias[: attn.embed_dim])
    split = [one.view(*one.shape[:2], attn.num_heads, -1).transpose(1, 2) for one in (queries, keys, values)]
    mixed = scaled_dot_product_attention(split[0], split[1], split[2])
    found: Tensor = attn.out_proj(mixed.transpose(1, 2).flatten(2))
    return found


def _finish(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a block after its attention."""
    x = x + block.ls_1(attended)
    rest: Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return rest


def search_beams(decoder: CaptionDecoder, n: int, beams: int, device: str = "cpu") -> list[list[int]]:
    """The likeliest caption of each of `n` pictures, as tokens without FIRST and LAST; likely is the mean logarithm of
    the probability of a token."""
    texts = torch.empty((n * beams, 0), dtype=torch.int64, device=device)
    words = torch.full((n * beams,), FIRST, device=device)
    scores = torch.full((n, beams), -torch.inf, device=device)
    scores[:, 0] = 0.0  # at first all beams are the same
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(n)]
    for length in range(1, MAX_TOKENS):
        steps = torch.log_softmax(decoder.read(words).float(), -1)
        steps[:, [FIRST, PADDING]] = -torch.inf
        if length < MIN_TOKENS:
            steps[:, LAST] = -torch.inf
        best, places = (scores.view(-1, 1) + steps).view(n, -1).topk(2 * beams)  # enough if each beam ends once
        picked = [_pick(best[row].tolist(), places[row].tolist(), beams, steps.shape[-1]) for row in range(n)]
        for row, (_, finished) in enumerate(picked):
            for score, beam in finished if len(ended[row]) < beams else ():
                ended[row].append((score / length, texts[row * beams + beam].tolist()))
        if all(len(one) >= beams for one in ended):
            break
        scores = torch.tensor([[score for score, _, _ in kept] for kept, _ in picked], device=device)
        rows = [row * beams + beam for row, (kept, _) in enumerate(picked) for _, beam, _ in kept]
        chosen = torch.tensor(rows, device=device)
        words = torch.tensor([token for kept, _ in picked for _, _, token in kept], device=device)
        decoder.keep(chosen)
        texts = torch.cat([texts[chosen], words[:, None]], 1)
    for row, one in enumerate(ended):
        if not one:  # it does not end: it is cut
            one.append((0.0, texts[row * beams + int(scores[row].argmax())].tolist()))
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
    embedding = getattr(coca.text, "token_embedding", None)
    if embedding is None or embedding.num_embeddings != CLIP_VOCABULARY:
        raise StartupError(f"captioner {captioner}: its vocabulary is not that of CLIP")
    device = choose_device(options.device)
    beams = BEAMS if device.startswith("cuda") else CPU_BEAMS
    return CocaCaptioner(located.name, coca, device, choose_precision(options.precision, device), beams)
