from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from app.encoder.dummy import PALETTE, DummyEncoder
from app.encoder.protocol import Encoder, Pixels, check_vectors


@pytest.fixture(scope="module")
def encoder() -> DummyEncoder:
    return DummyEncoder()


def plain(*colour: int) -> Pixels:
    return np.full((1, 32, 32, 3), colour, np.uint8)


def test_it_is_an_encoder_whose_space_says_what_a_vector_means(encoder: DummyEncoder) -> None:
    some: Encoder = encoder
    assert some.space.d == 60
    assert some.space == DummyEncoder().space
    assert some.space.preprocessing == some.preprocessing.digest


@pytest.mark.parametrize("names", list(PALETTE))
def test_each_colour_is_found_by_each_of_its_names_before_all_others(
    encoder: DummyEncoder, names: tuple[str, ...]
) -> None:
    pictures = encoder.encode_images(np.concatenate([plain(*colour) for colour in PALETTE.values()]))
    words = encoder.encode_texts(list(names))
    for row in words @ pictures.T:
        assert list(PALETTE)[int(row.argmax())] == names


def test_vectors_have_length_1_also_for_no_colour_and_for_odd_texts(encoder: DummyEncoder) -> None:
    check_vectors(encoder.encode_texts(["", "a cat", "red", "red and blue", "\ud800", "red" * 1000]))
    check_vectors(encoder.encode_images(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)))


def test_more_of_a_colour_is_nearer_to_its_name(encoder: DummyEncoder) -> None:
    half, whole = plain(220, 30, 30), plain(220, 30, 30)
    half[:, :16] = (30, 60, 220)
    scores = encoder.encode_images(np.concatenate([half, whole])) @ encoder.encode_texts(["red"])[0]
    assert scores[1] > scores[0] > 0.5


def test_the_same_colours_in_other_places_are_another_vector(encoder: DummyEncoder) -> None:
    left, right = plain(250, 250, 250), plain(250, 250, 250)
    left[:, :, :16] = right[:, :, 16:] = (10, 10, 10)
    one, two = encoder.encode_images(np.concatenate([left, right]))
    assert 0.8 < float(one @ two) < 0.9999


def test_a_batch_gives_what_each_gives_alone(encoder: DummyEncoder) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    alone = np.concatenate([encoder.encode_images(pixels[n : n + 1]) for n in range(4)])
    np.testing.assert_allclose(encoder.encode_images(pixels), alone, atol=1e-6)


def test_nothing_in_gives_nothing_out(encoder: DummyEncoder) -> None:
    assert encoder.encode_texts([]).shape == (0, 60)


def test_it_loads_without_torch() -> None:
    code = "import sys; from app.encoder.loader import load_encoder\n"
    code += "load_encoder('colours', None); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
