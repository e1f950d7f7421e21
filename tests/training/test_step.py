"""A step on several threads gives the gradient of the whole batch; the towers give open_clip's results."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.feed import Batch
from training.guide import Guide
from training.model import SIDE, create_model
from training.step import Stepper, contrast
from training.towers import encode_images, encode_texts

WORDS = 50


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _tokens(n: int, length: int) -> torch.Tensor:
    tokens = torch.zeros(n, length, dtype=torch.long)
    for i in range(n):
        end = 2 + i % (length - 2)
        tokens[i, :end] = torch.randint(3, WORDS - 1, (end,))
        tokens[i, end] = WORDS - 1
    return tokens


def _labels(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    labels = np.random.default_rng(1).integers(-1, 7, shape)
    labels[..., 0] = 2
    return labels


def test_towers_agree_with_open_clip() -> None:
    model = create_model(WORDS).eval()
    images, tokens = torch.randn(4, 3, SIDE, SIDE), _tokens(6, 12)
    padded = torch.nn.functional.pad(tokens, (0, 28))
    with torch.no_grad():
        assert torch.allclose(encode_images(model, images), model.encode_image(images, normalize=True), atol=1e-5)
        assert torch.allclose(encode_texts(model, tokens), model.encode_text(padded, normalize=True), atol=1e-5)


def test_gradients_are_those_of_the_whole_batch() -> None:
    model = create_model(WORDS)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (80, SIDE, SIDE, 3), dtype=np.uint8)  # more than one chunk
    tokens = (_tokens(80, 9).numpy(), _tokens(80, 14).numpy())
    batch = Batch(images, tokens, np.zeros((2, 80, 80), np.bool_), _labels(3, 80, 3), _labels(80, 49))
    stepper = Stepper(model, Guide(7, 256, 192), threads=2)
    stepper.gradients(batch)  # with the guide, whose traces must not remain
    stepper.guidance = 0.0
    losses = stepper.gradients(batch)
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        seen = encode_images(model, torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1))
        read = [encode_texts(model, torch.from_numpy(tokens)) for tokens in batch.tokens]
    also = torch.zeros(80, 80, dtype=torch.bool)
    whole = torch.stack([contrast(seen, part, also, model.logit_scale.exp()) for part in read])
    whole.mean().backward()  # type: ignore[no-untyped-call]
    assert losses == pytest.approx(whole.tolist(), rel=1e-3)
    for name, parameter in model.named_parameters():
        gradient = found[name]
        assert gradient is not None
        assert parameter.grad is not None
        assert (gradient - parameter.grad).norm() <= 0.05 * parameter.grad.norm() + 1e-7, name


def test_the_guide_teaches_names_of_pictures_texts_and_patches() -> None:
    model, guide = create_model(WORDS), Guide(7, 256, 192)
    images = np.zeros((8, SIDE, SIDE, 3), np.uint8)
    tokens = (_tokens(8, 9).numpy(), _tokens(8, 9).numpy())
    batch = Batch(images, tokens, np.zeros((2, 8, 8), np.bool_), _labels(3, 8, 3), _labels(8, 49))
    Stepper(model, guide, threads=1).gradients(batch)
    for name, parameter in guide.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_vector_at_its_prototype_names_its_object() -> None:
    guide = Guide(7, 256, 192)
    vectors = torch.nn.functional.normalize(guide.prototypes[:2], dim=-1)
    right, wrong = torch.tensor([[0, -1, -1], [1, -1, -1]]), torch.tensor([[3, -1, -1], [4, -1, -1]])
    assert guide.name_objects(vectors, right) < 0.1 < guide.name_objects(vectors, wrong)


def test_texts_true_of_another_picture_too_are_left_out() -> None:
    vectors = torch.eye(3)
    scale = torch.tensor(1.0)
    also = torch.zeros(3, 3, dtype=torch.bool)
    plain = contrast(vectors, vectors, also, scale)
    also[0, 1] = True
    assert contrast(vectors, vectors, also, scale) < plain
