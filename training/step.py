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

from app.encoder.openvino import detect_precision
from training.feed import Batch
from training.guide import Guide
from training.towers import encode_texts, see

HAS_BF16 = detect_precision() == "bf16"  # elsewhere it is emulated, forty times slower than float32
_IMAGES = 64  # in a chunk
_TEXTS = 128


@dataclass(frozen=True)
class _Chunk:
    """A piece of work: `rows` of the vectors it computes, of `target` (0 for pictures, then languages).

    `encode` gives the vectors [rows, d] and, for pictures, the guide's loss over their patches."""

    target: int
    rows: Tensor
    encode: Callable[[], tuple[Tensor, Tensor | None]]


def contrast(images: Tensor, texts: Tensor, also: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss over [n, d] pairs, leaving out texts i that are true of image j too (`also` [i, j])."""
    logits = (scale * texts @ images.T).masked_fill(also, -torch.inf)
    labels = torch.arange(len(images))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


class Stepper:
    """Computes gradients of a model and its guide with a team of threads.

    `guidance` is the weight of the guide's losses; at 0 they are not computed."""

    def __init__(self, model: open_clip.model.CLIP, guide: Guide, threads: int) -> None:
        self._model, self._guide = model, guide
        self.guidance = 1.0
        self.team = ThreadPoolExecutor(threads)
        seen = [parameter for name, parameter in model.named_parameters() if name.startswith("visual.")]
        read = [p for name, p in model.named_parameters() if not name.startswith("visual.") and name != "logit_scale"]
        self._parameters = ([*seen, *guide.patches.parameters()], read)

    def _image_work(self, pictures: Tensor, cells: Tensor, share: float) -> Callable[[], tuple[Tensor, Tensor | None]]:
        def encode() -> tuple[Tensor, Tensor | None]:
            vectors, tokens = see(self._model, pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1))
            if self.guidance == 0:
                return vectors, None
            return vectors, self._guide.name_patches(tokens, cells) * (share * self.guidance / 2)

        return encode

    def _text_work(self, tokens: Tensor) -> Callable[[], tuple[Tensor, Tensor | None]]:
        return lambda: (encode_texts(self._model, tokens), None)

    def _chunks(self, batch: Batch) -> list[_Chunk]:
        """The chunks of a batch. Texts are sorted by length, so that padding costs little."""
        pictures, cells, out = torch.from_numpy(batch.images), torch.from_numpy(batch.cells), list[_Chunk]()
        for rows in torch.split(torch.arange(len(pictures)), _IMAGES):
            out.append(_Chunk(0, rows, self._image_work(pictures[rows], cells[rows], len(rows) / len(pictures))))
        for language, padded in enumerate(batch.tokens, start=1):
            tokens = torch.from_numpy(padded)
            lengths = (tokens != 0).sum(dim=1)
            for rows in torch.split(lengths.argsort(), _TEXTS):
                out.append(_Chunk(language, rows, self._text_work(tokens[rows, : int(lengths[rows].max())])))
        return out

    def _forward(self, chunk: _Chunk) -> tuple[Tensor, Tensor | None]:
        with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BF16):
            return chunk.encode()

    def gradients(self, batch: Batch) -> tuple[float, ...]:
        """Set `.grad` of every parameter; returns the contrastive loss of each language."""
        chunks = self._chunks(batch)
        outputs = list(self.team.map(self._forward, chunks))
        joined = [torch.empty(len(batch.images), outputs[0][0].shape[1]) for _ in range(1 + len(batch.tokens))]
        for chunk, (vectors, _) in zip(chunks, outputs, strict=True):
            joined[chunk.target][chunk.rows] = vectors.detach()
        for part in joined:
            part.requires_grad_()
        self._model.logit_scale.grad = self._guide.prototypes.grad = None
        losses = self._losses(joined, batch)
        pulls = [joined[chunk.target].grad for chunk in chunks]
        found = self.team.map(self._backward, chunks, outputs, pulls)
        for parameters in self._parameters:
            for parameter in parameters:
                parameter.grad = None
        for chunk, gradients in zip(chunks, found, strict=True):
            for parameter, gradient in zip(self._parameters[min(chunk.target, 1)], gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return losses

    def _losses(self, joined: list[Tensor], batch: Batch) -> tuple[float, ...]:
        """The losses from whole vectors, propagated back to the vectors and to the parameters of the losses alone."""
        images, *texts = joined
        scale = self._model.logit_scale.exp()
        losses = [
            contrast(images, text, torch.from_numpy(also), scale) for text, also in zip(texts, batch.also, strict=True)
        ]
        total = torch.stack(losses).mean()
        if self.guidance > 0:
            with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BF16):
                objects = torch.from_numpy(batch.objects)
                named = [self._guide.name_objects(part, own) for part, own in zip(joined, objects, strict=True)]
            total = total + torch.stack(named).mean() * (self.guidance / 2)
        total.backward()  # type: ignore[no-untyped-call]
        return tuple(float(loss.detach()) for loss in losses)

    def _backward(
        self, chunk: _Chunk, output: tuple[Tensor, Tensor | None], pull: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        assert pull is not None
        vectors, extra = output
        parameters = self._parameters[min(chunk.target, 1)]
        if extra is None:
            return torch.autograd.grad(vectors, parameters, pull[chunk.rows], allow_unused=True)
        return torch.autograd.grad((vectors, extra), parameters, (pull[chunk.rows], torch.ones_like(extra)))
