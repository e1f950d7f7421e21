"""Muon in float32, for processors without bfloat16: torch's own computes in that alone."""

from __future__ import annotations

import torch
import torch.optim._muon
from torch import Tensor


def orthogonalise(gradient: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """The iterations of `torch.optim.Muon` (Newton and Schulz) in float32."""
    a, b, c = coefficients
    is_tall = gradient.shape[0] > gradient.shape[1]
    out = (gradient.T if is_tall else gradient).float()
    out = out / out.norm().clamp(min=eps)
    for _ in range(steps):
        gram = out @ out.T
        out = torch.addmm(out, torch.addmm(gram, gram, gram, beta=b, alpha=c), out, beta=a)
    return out.T if is_tall else out


def compute_in_float32() -> None:
    """Let every Muon of this process do so: it has no option for it."""
    torch.optim._muon._zeropower_via_newtonschulz = orthogonalise  # type: ignore[assignment]  # names of arguments
