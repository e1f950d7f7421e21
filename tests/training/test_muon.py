"""Muon in float32 does what torch's own does in bfloat16."""

from __future__ import annotations

import pytest
import torch

from training.muon import compute_in_float32, orthogonalise

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # torch's


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (48, 48)])
def test_a_gradient_keeps_its_directions_and_loses_its_lengths(shape: tuple[int, int]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 1e-3
    found = orthogonalise(gradient, COEFFICIENTS, 5, 1e-7)
    assert (found.shape, found.dtype) == (gradient.shape, torch.float32)
    lengths = torch.linalg.svdvals(found)
    assert lengths.min() > 0.4
    assert lengths.max() < 1.3
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    assert ((left @ right) * found).sum() > 0.95 * (left @ right).norm() * found.norm()


def test_one_step_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch.optim._muon._zeropower_via_newtonschulz
    moved = []
    for is_float32 in (False, True):
        monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", own)  # and so it is afterwards
        if is_float32:
            compute_in_float32()
        weight = torch.nn.Parameter(torch.zeros(16, 32))
        weight.grad = torch.randn(16, 32, generator=torch.Generator().manual_seed(2))
        torch.optim.Muon([weight], lr=0.1, adjust_lr_fn="match_rms_adamw").step()  # type: ignore[no-untyped-call]
        moved.append(weight.detach())
    one, other = (each.flatten() for each in moved)
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.999
    assert float(moved[1].norm()) == pytest.approx(float(moved[0].norm()), rel=0.02)
