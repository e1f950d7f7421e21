"""Reads the words in a picture: RapidOCR's detector and recogniser (PP-OCRv6), by OpenVINO on one thread.

The weights are in the wheel of `rapidocr`; each model gets its path, so that nothing is looked for on the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.encoder.protocol import Pixels

Corners = tuple[tuple[float, float], ...]

DETECTOR, RECOGNISER = "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"
DETECTION_SIDE = 1_280  # pixels of the longer side in which text is looked for; it is read in all that there are
MIN_SCORE = 0.6  # of a line: below, it is mostly texture that looks like text
MAX_LINES = 300  # of a picture: 4 s of one core
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
        import cv2  # an extra, as rapidocr
        import rapidocr
        from rapidocr import EngineType, RapidOCR

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

    def read(self, pixels: Pixels) -> list[TextLine]:
        """The lines in a picture (uint8 [height, width, 3], RGB), in the order in which people read them."""
        from rapidocr.ch_ppocr_det import TextDetOutput

        picture = np.ascontiguousarray(pixels[..., ::-1])
        found = self._engine(self._add_grain(picture), use_rec=False)
        if not isinstance(found, TextDetOutput) or found.boxes is None or not len(found.boxes):
            return []
        boxes = found.boxes[order_boxes(found.boxes)]
        read = self._engine.recognize_txt(self._engine.crop_text_regions(picture, boxes.astype(np.float32)))
        scale = np.array([pixels.shape[1], pixels.shape[0]], np.float64)
        return [
            TextLine(text.strip(), round(float(score), 4), to_corners(box / scale))
            for text, score, box in zip(read.txts or (), read.scores, boxes, strict=True)
            if score >= MIN_SCORE and text.strip()
        ]

    def _add_grain(self, picture: Pixels) -> Pixels:
        height, width = picture.shape[:2]
        tiled = np.tile(self._grain, (-(-height // TILE), -(-width // TILE), 1))[:height, :width]
        grainy: Pixels = np.clip(picture + tiled, 0, 255).astype(np.uint8)
        return grainy


def to_corners(box: npt.NDArray[np.float64]) -> Corners:
    return tuple((round(float(x), 4), round(float(y), 4)) for x, y in np.clip(box, 0.0, 1.0))


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
