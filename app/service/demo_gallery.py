"""The demo gallery: where its pictures and texts lie, beside the package in a checkout, inside it when installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.core.errors import StartupError

ARCHIVE = "gallery.zip"
TEXTS = "texts.jsonl"


def find_gallery() -> Path:
    """The folder that holds `ARCHIVE` and `TEXTS`. Raises StartupError when it is not installed."""
    package = Path(__file__).parents[1]
    for folder in (package / "gallery", package.parent / "demo"):
        if (folder / ARCHIVE).is_file():
            return folder
    raise StartupError("the demo gallery is not installed; run the demo from a checkout")


def read_gallery_texts(path: Path) -> list[dict[str, Any]]:
    """The texts that pictures of the gallery can be asked about, as POST /v1/texts takes them."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
