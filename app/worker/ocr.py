"""The second pass `ocr`: the words that are read in a picture become its `ocr_text`, and their boxes are kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from app.core.types import Image
from app.decode.pool import DecodePool
from app.encoder.text_recognition import TextLine, TextRecogniser
from app.storage.tables.enrichments import Enrichment
from app.worker.pixels import read_pixels

SIDE = 2_000  # pixels of the longer side in which text is read
MAX_CHARS = 10_000  # of the text of a picture
MEMORY = 6 << 30  # bytes of address space


class OcrEnricher:
    """Reads the words in pictures."""

    kind = "ocr"
    seconds = 300.0  # of a process that others may keep waiting
    memory: int | None = MEMORY

    def __init__(self, pool: DecodePool) -> None:
        self._pool = pool
        self._recogniser = TextRecogniser()

    def enrich(self, image: Image, path: Path) -> Enrichment:
        """A line of `ocr_text` for each line in the picture; None where there is none."""
        lines = cap_lines(self._recogniser.read(read_pixels(self._pool, image, path, SIDE)))
        text = "\n".join(line.text for line in lines)
        return Enrichment({"ocr_text": text or None}, {"lines": [asdict(line) for line in lines]})


def cap_lines(lines: list[TextLine]) -> list[TextLine]:
    """As many of the first lines as have MAX_CHARS together."""
    room, kept = MAX_CHARS, []
    for line in lines:
        room -= len(line.text) + 1
        if room < 0:
            break
        kept.append(line)
    return kept
