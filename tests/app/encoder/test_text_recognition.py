from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
from PIL import Image

from app.encoder.protocol import Pixels
from app.encoder.text_recognition import LINE_HEIGHT, TextRecogniser, count_within, order_boxes
from tests.support.printed import CHINESE, find_font, printed


@cache
def recogniser() -> TextRecogniser:
    return TextRecogniser()


def pixels_of(content: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_lines_are_read_with_their_places() -> None:
    pixels = pixels_of(printed("Harbour lantern", "open daily", size=24))
    lines = recogniser().read(pixels)
    assert [line.text for line in lines] == ["Harbour lantern", "open daily"]
    left, top = lines[0].box[0]
    assert 20 < left * 640 < 50
    assert 30 < top * 360 < 55
    assert all(line.score > 0.9 for line in lines)


@pytest.mark.parametrize("turn", [-15.0, 15.0])
def test_turned_words_are_read(turn: float) -> None:
    lines = recogniser().read(pixels_of(printed("quarterly", size=28, at=(250, 160), turn=turn)))
    assert [line.text for line in lines] == ["quarterly"]


def test_chinese_is_read() -> None:
    font = find_font(CHINESE)
    if font is None:
        pytest.skip("no font of this machine has Chinese characters")
    assert [line.text for line in recogniser().read(pixels_of(printed("图书馆", font=font)))] == ["图书馆"]


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 2), (64, 64)])
def test_even_pictures_have_no_words(size: tuple[int, int]) -> None:
    assert recogniser().read(np.full((*size, 3), 200, np.uint8)) == []


def test_noise_has_no_words() -> None:
    dice = np.random.default_rng(3)
    assert recogniser().read(dice.integers(0, 256, (320, 480, 3), dtype=np.uint8)) == []


def box(x: float, y: float, width: float = 100, height: float = 20, slope: float = 0.0) -> list[list[float]]:
    return [
        [x, y],
        [x + width, y + slope * width],
        [x + width, y + slope * width + height],
        [x, y + height],
    ]


def test_boxes_are_in_the_order_of_reading() -> None:
    upright = [box(300, 12), box(10, 60), box(10, 8), box(160, 66)]
    assert order_boxes(np.array(upright)) == [2, 0, 1, 3]
    slope = 0.2  # the right end of the first line is lower than the left end of the second
    turned = [
        box(10, 50, 300, slope=slope),
        box(320, 50 + slope * 310 - 40, 200, slope=slope),
        box(10, 10, 300, slope=slope),
    ]
    assert order_boxes(np.array(turned)) == [2, 1, 0]


def test_the_lines_of_a_picture_have_a_width_together() -> None:
    boxes = np.array([box(0, 30 * n, width=100, height=20) for n in range(4)])
    each = 5 * LINE_HEIGHT
    assert [count_within(boxes, width) for width in (0, each, 2 * each + 1, 99 * each)] == [1, 1, 2, 4]
