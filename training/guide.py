"""A guide for the first part of training: labels that the renderer knows and a caption only implies.

From captions alone, a model must find out by itself which word belongs to which place in a picture. The guide says so:
its losses pull pictures and captions to the prototype of each glyph they contain, the same for both towers, and make
each patch name its glyph. The guide's weight falls to zero before the end; the model does not contain the guide.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SHARPNESS = 20.0


class Guide(nn.Module):
    """Prototypes [classes, d] and a classifier of patches; only training uses them."""

    def __init__(self, classes: int, d: int, width: int) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(classes, d) * d**-0.5)
        self.patches = nn.Linear(width, classes)

    def name_objects(self, vectors: Tensor, objects: Tensor) -> Tensor:
        """Loss of unit vectors [n, d] against the prototypes of their `objects` [n, 3], -1 for none."""
        chances = (_SHARPNESS * vectors @ F.normalize(self.prototypes, dim=-1).T).float().log_softmax(-1)
        present = objects >= 0
        picked = chances.gather(1, objects.clamp(min=0)) * present
        return -(picked.sum(dim=1) / present.sum(dim=1).clamp(min=1)).mean()

    def name_patches(self, tokens: Tensor, cells: Tensor) -> Tensor:
        """Loss of patches [n, patches, width] against the glyphs `cells` [n, patches] that they show, -1 for none."""
        shown = cells >= 0
        return F.cross_entropy(self.patches(tokens[shown]).float(), cells[shown])
