"""Reads the words in a picture: RapidOCR's detector and recogniser (PP-OCRv6), by OpenVINO on one thread.

The weights are in the wheel of `rapidocr`, an extra: only what reads text imports this module. Each model gets its
path, so that nothing is looked for on the network.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import rapidocr
from rapidocr import EngineType, RapidOCR
from rapidocr.ch_ppocr_det import TextDetOutput
from rapidocr.ch_ppocr_rec import TextRecInput, TextRecognizer

from app.encoder.protocol import Pixels

Corners = tuple[tuple[float, float], ...]

DETECTOR, RECOGNISER = "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"
DETECTION_SIDE = 1_280  # pixels of the longer side in which text is looked for; it is read in all that there are
MIN_SCORE = 0.6  # of a line: below, it is mostly texture that looks like text
MAX_LINES = 300  # of a picture
# The time of a line, and its memory, grow with its width when it is as high as the recogniser wants it. A page of small
# print has lines that are thousands of pixels wide then.
LINE_HEIGHT = 48
# OpenVINO keeps what it compiles for each shape, so there are few: pictures are padded to multiples of STEP, lines to
# one of WIDTHS; longer ones are squeezed.
STEP = 320
WIDTHS = [round(320 * 1.25**n) for n in range(13)]
MAX_WIDTH = 300_000  # of all lines of a picture together: 10 to 20 s of one core
# The detector overlooks small words that stand alone on an even ground: half of those of 24 pixels. With grain it finds
# them all; they are read without it.
GRAIN = 12.0  # levels of 255, the standard deviation
TILE = 256  # pixels a side of the grain that is repeated


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text, its score from 0 to 1, and its four corners, clockwise from where it begins, as shares of width
    and height."""

    text: str
    score: float
    box: Corners


class TextRecogniser:
    """Not for several threads at once."""

    def __init__(self) -> None:
        models = Path(rapidocr.__file__).parent / "models"
        cv2.setNumThreads(1)
        self._grain = np.random.default_rng(0).normal(0.0, GRAIN, (TILE, TILE, 3)).astype(np.int16)
        self._engine = RapidOCR(
            params={
                "Global.log_level": "error",  # it warns of pictures without text
                "Global.use_cls": False,  # EXIF has turned the picture upright
                "EngineConfig.openvino.inference_num_threads": 1,
                "Det.engine_type": EngineType.OPENVINO,
                "Det.model_path": str(models / DETECTOR),
                "Det.limit_type": "max",
                "Det.limit_side_len": DETECTION_SIDE,
                "Det.max_candidates": MAX_LINES,
                "Rec.engine_type": EngineType.OPENVINO,
                "Rec.model_path": str(models / RECOGNISER),
            }
        )
        self._reader: TextRecognizer = self._engine._load_rec_model()  # type: ignore[no-untyped-call]

    def read(self, pixels: Pixels) -> list[TextLine]:
        """The lines in a picture (uint8 [height, width, 3], RGB), in the order in which people read them."""
        picture = np.ascontiguousarray(pixels[..., ::-1])
        found = self._find_boxes(picture)
        if not len(found):
            return []
        boxes = found[order_boxes(found)]
        boxes = boxes[: count_within(boxes, MAX_WIDTH)]
        crops = self._engine.crop_text_regions(picture, boxes.astype(np.float32))
        scale = np.array([pixels.shape[1], pixels.shape[0]], np.float64)
        return [
            TextLine(text, score, to_corners(box / scale))
            for (text, score), box in zip(map(self._read_line, crops), boxes, strict=True)
            if score >= MIN_SCORE and text
        ]

    def _read_line(self, crop: Pixels) -> tuple[str, float]:
        """Its text and score. Several lines at once would take as long, and more memory."""
        wanted = crop.shape[1] / crop.shape[0] * LINE_HEIGHT
        width = WIDTHS[min(bisect_left(WIDTHS, wanted), len(WIDTHS) - 1)]
        self._reader.rec_image_shape = [3, LINE_HEIGHT, width]
        found = self._reader(TextRecInput(img=crop))
        return (found.txts or ("",))[0].strip(), round(float(found.scores[0]), 4)

    def _find_boxes(self, picture: Pixels) -> npt.NDArray[np.float64]:
        """The corners [n, 4, 2] of the lines, in pixels of the picture."""
        height, width = picture.shape[:2]
        ratio = min(1.0, DETECTION_SIDE / max(height, width))
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        below, beside = -size[1] % STEP, -size[0] % STEP
        middle = [float(level) for level in small.mean(axis=(0, 1))]
        padded = cv2.copyMakeBorder(small, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=middle)
        found = self._engine(self._add_grain(np.asarray(padded, np.uint8)), use_rec=False)
        if not isinstance(found, TextDetOutput) or found.boxes is None or not len(found.boxes):
            return np.empty((0, 4, 2))
        boxes = np.asarray(found.boxes, np.float64)
        inside = (boxes.mean(axis=1) < size).all(axis=1)
        return np.asarray(np.minimum(boxes[inside] / ratio, (width, height)), np.float64)

    def _add_grain(self, picture: Pixels) -> Pixels:
        height, width = picture.shape[:2]
        tiled = np.tile(self._grain, (-(-height // TILE), -(-width // TILE), 1))[:height, :width]
        grainy: Pixels = np.clip(picture + tiled, 0, 255).astype(np.uint8)
        return grainy


def to_corners(box: npt.NDArray[np.float64]) -> Corners:
    return tuple((round(float(x), 4), round(float(y), 4)) for x, y in np.clip(box, 0.0, 1.0))


def count_within(boxes: npt.NDArray[np.float64], width: float) -> int:
    """How many of the first boxes have lines of no more than this width together; one at least."""
    across, down = (np.linalg.norm(boxes[:, n] - boxes[:, 0], axis=1) for n in (1, 3))
    sums = np.cumsum(across / np.maximum(down, 1.0) * LINE_HEIGHT)
    return max(1, int(np.searchsorted(sums, width, side="right")))


def order_boxes(boxes: npt.NDArray[np.float64]) -> list[int]:
    """The numbers of the boxes [n, 4, 2] from top to bottom, and from left to right where they are side by side.

    A box is beside another if its middle is within the height of that one, along the slope of the text.
    """
    boxes = np.asarray(boxes, np.float64)
    along = boxes[:, 1] - boxes[:, 0]
    slope = float(np.median(along[:, 1] / np.maximum(np.abs(along[:, 0]), 1.0) * np.sign(along[:, 0])))
    middles = boxes.mean(axis=1)
    heights = np.linalg.norm(boxes[:, 3] - boxes[:, 0], axis=1)
    level = middles[:, 1] - slope * middles[:, 0]  # of the middle if the text were turned upright
    rows: list[list[int]] = []
    for n in np.argsort(level, kind="stable").tolist():
        if rows and level[n] - level[rows[-1][0]] < 0.5 * min(heights[n], heights[rows[-1][0]]):
            rows[-1].append(n)
        else:
            rows.append([n])
    return [n for row in rows for n in sorted(row, key=lambda n: middles[n, 0])]
