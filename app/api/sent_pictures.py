"""Pictures that come in JSON, as base64 or data URIs: into files, and how many pixels they may have."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from app.api.json_body import STORED_PICTURES
from app.core.base64_text import decode_base64, decode_base64_file
from app.core.errors import PayloadTooLarge, SightlineError, Validation, map_os_errors
from app.core.settings import Settings
from app.decode.headers import read_header
from app.service.data_dir import picture_limits


def write_picture(text: str, path: Path) -> None:
    """Write the bytes of base64 or of a data URI, which may lie in a file already. Raises Validation."""
    stored = STORED_PICTURES.get().get(text)
    try:
        with map_os_errors():
            if stored is None:
                path.write_bytes(decode_base64(text))
            else:
                decode_base64_file(stored, path)
    except ValueError as error:
        raise Validation(str(error)) from None


def check_pixels(paths: Iterable[Path], settings: Settings) -> None:
    """Raise PayloadTooLarge where the pictures of a request have too many pixels in all, by their headers."""
    limits = picture_limits(settings)
    pixels = 0
    for path in paths:
        with suppress(SightlineError), open(path, "rb") as file:  # what is no picture is refused by the decoder
            header = read_header(file, limits)
            pixels += header.width * header.height * limits.max_pixels // limits.pixels_of(header.format)
    if pixels > (most := settings.max_query_pixels):
        raise PayloadTooLarge(f"the pictures of one request may have {most} pixels in all, these have {pixels}")
