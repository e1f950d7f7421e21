"""One step of training on several processor threads.

Each thread works through whole chunks of a batch and they meet only at the loss, not at every operation:
on a machine that does other work too, this is far faster than splitting every operation between threads.
The gradient is that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import open_clip.model
import torch
import torch.nn.functional as F
from torch import Tensor

from training.feed import Batch
from training.towers import encode_images, encode_texts

_IMAGES = 64  # in a chunk
_TEXTS = 128


@dataclass(frozen=True)
class _Chunk:
    """A piece of work: `rows` of the embeddings it computes, of `target` (0 for pictures, then languages)."""

    target: int
    rows: Tensor
    encode: Callable[[], Tensor]


def contrast(images: Tensor, texts: Tensor, also: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss over [n, d] pairs, leaving out texts i that are true of image j too (`also` [i, j])."""
    logits = (scale * texts @ images.T).masked_fill(also, -torch.inf)
    labels = torch.arange(len(images))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def _chunks(model: open_clip.model.CLIP, batch: Batch) -> list[_Chunk]:
    """All of a batch; texts in order of their length, so that padding costs little."""
    pictures = torch.from_numpy(batch.images)

    def image_work(rows: Tensor) -> Callable[[], Tensor]:
        return lambda: encode_images(model, pictures[rows].permute(0, 3, 1, 2).float().div(127.5).sub(1))

    def text_work(tokens: Tensor) -> Callable[[], Tensor]:
        return lambda: encode_texts(model, tokens)

    out = [_Chunk(0, rows, image_work(rows)) for rows in torch.split(torch.arange(len(pictures)), _IMAGES)]
    for language, padded in enumerate(batch.tokens, start=1):
        tokens = torch.from_numpy(padded)
        lengths = (tokens != 0).sum(dim=1)
        for rows in torch.split(lengths.argsort(), _TEXTS):
            out.append(_Chunk(language, rows, text_work(tokens[rows, : int(lengths[rows].max())])))
    return out


class Stepper:
    """Computes gradients of one model with a team of threads."""

    def __init__(self, model: open_clip.model.CLIP, threads: int) -> None:
        self._model = model
        self.team = ThreadPoolExecutor(threads)
        seen = [parameter for name, parameter in model.named_parameters() if name.startswith("visual.")]
        read = [p for name, p in model.named_parameters() if not name.startswith("visual.") and name != "logit_scale"]
        self._parameters = (seen, read)

    def _forward(self, chunk: _Chunk) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return chunk.encode()

    def gradients(self, batch: Batch) -> tuple[float, ...]:
        """Sets `.grad` of every parameter; the loss of each language."""
        chunks = _chunks(self._model, batch)
        outputs = list(self.team.map(self._forward, chunks))
        joined = [torch.empty(len(batch.images), outputs[0].shape[1]) for _ in range(1 + len(batch.tokens))]
        for chunk, output in zip(chunks, outputs, strict=True):
            joined[chunk.target][chunk.rows] = output.detach()
        images, *texts = (part.requires_grad_() for part in joined)
        self._model.logit_scale.grad = None
        scale = self._model.logit_scale.exp()
        losses = [
            contrast(images, text, torch.from_numpy(also), scale) for text, also in zip(texts, batch.also, strict=True)
        ]
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
        pulls = [joined[chunk.target].grad for chunk in chunks]
        found = self.team.map(self._backward, chunks, outputs, pulls)
        for parameters in self._parameters:
            for parameter in parameters:
                parameter.grad = None
        for chunk, gradients in zip(chunks, found, strict=True):
            for parameter, gradient in zip(self._parameters[min(chunk.target, 1)], gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return tuple(float(loss.detach()) for loss in losses)

    def _backward(self, chunk: _Chunk, output: Tensor, pull: Tensor | None) -> tuple[Tensor, ...]:
        assert pull is not None
        return torch.autograd.grad(output, self._parameters[min(chunk.target, 1)], pull[chunk.rows])
