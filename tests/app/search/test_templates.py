from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from app.encoder.protocol import Embeddings, normalise
from app.search.templates import average, do_templates_help, fill, is_short

RNG = np.random.default_rng(0)
PICTURES = normalise(RNG.standard_normal((200, 16)))
BLURRED = normalise(PICTURES + 1.2 * normalise(RNG.standard_normal((200, 16))))


def encode(texts: Sequence[str]) -> Embeddings:
    """Sentences are nearer to their picture than words alone."""
    return np.stack([PICTURES[int(text.split()[-1].removeprefix("n"))] for text in texts])


def encode_badly(texts: Sequence[str]) -> Embeddings:
    return -encode(texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("red car", True), ("a car and a cat", False), ("猫", True), ("x" * 33, False)],
)
def test_few_words_are_short(text: str, expected: bool) -> None:
    assert is_short(text) is expected


def test_the_text_is_put_in_every_blank() -> None:
    assert fill("{} and {label} {}", "a {} b") == "a {} b and {label} a {} b"


def test_the_mean_is_a_unit_vector() -> None:
    one, other = PICTURES[:2]
    assert average([one]) is one
    np.testing.assert_allclose(average([one, other]), normalise((one + other)[None])[0], atol=1e-6)
    assert average([one, -one]) is one


def test_templates_are_taken_where_they_help() -> None:
    texts = {n: f"thing n{n}" for n in range(150)}
    plain = dict(enumerate(BLURRED[:150]))
    assert do_templates_help(encode, texts, plain, PICTURES)
    assert not do_templates_help(encode_badly, texts, plain, PICTURES)
    assert not do_templates_help(encode, dict(list(texts.items())[:20]), plain, PICTURES)
    assert not do_templates_help(encode, {n: f"a long text about n{n}" for n in range(150)}, plain, PICTURES)
