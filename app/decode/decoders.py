"""Opens a picture with the decoder of its format: Pillow's own, or a library for HEIC, JPEG XL or RAW files.

The libraries are loaded before a decode child gives up its rights (`app.core.picture_formats.find_modules`): it can
open no file. Here they are imported where they are used, so that a format that is off costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

import numpy as np
from PIL import Image

from app.core.errors import ImageCorrupt
from app.core.picture_formats import Format

Size = tuple[int, int]

_PILLOW_NAMES: dict[Format, tuple[str, ...]] = {"jpeg2000": ("JPEG2000",), "jxl": ("JXL",)}
_TURNS = {0: 1, 3: 3, 5: 8, 6: 6}  # the orientation of EXIF for what LibRaw calls flip


@dataclass(frozen=True, slots=True, eq=False)
class Preview:
    """What a RAW file shows: the bytes of a JPEG, or pixels; `size` is that of the whole upright picture.

    `turn` is how a preview that does not say it itself is to be turned, as EXIF counts.
    """

    content: bytes | Image.Image
    turn: int
    size: Size


def open_image(file: IO[bytes], format: Format) -> Image.Image:
    """The picture, opened but not loaded where the decoder can do that. Raises what decoders raise."""
    if format == "heic":
        return _open_heic(file)
    if format == "jxl":
        import pillow_jxl.JpegXLImagePlugin as plugin

        plugin.DECODE_THREADS = 0
    return Image.open(file, formats=_PILLOW_NAMES.get(format, (format.upper(),)))


def _open_heic(file: IO[bytes]) -> Image.Image:
    """Not by `Image.open`, which knows a HEIC file by fewer brands than the standard has."""
    import pi_heif

    options: Any = pi_heif.options
    options.DECODE_THREADS = 1
    # Thumbnails, depth and gain maps are no pictures of their own.
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    image: Image.Image = pi_heif.HeifImageFile(file)
    return image


def extract_preview(file: IO[bytes]) -> Preview:
    """The largest preview in a RAW file. Raises ImageCorrupt."""
    import rawpy

    file.seek(0)
    try:
        with rawpy.RawPy() as raw:  # `imread` loads modules to look for forks, which a child cannot
            raw.open_buffer(cast(BinaryIO, file))
            sizes = raw.sizes
            thumbnail = raw.extract_thumb()
    except rawpy.LibRawNoThumbnailError as error:
        raise ImageCorrupt("the RAW file holds no preview") from error
    except rawpy.LibRawUnsupportedThumbnailError as error:
        raise ImageCorrupt("the RAW file holds no preview of a kind that can be read") from error
    except rawpy.LibRawError as error:
        raise ImageCorrupt("the RAW file is cut off or damaged, or of an unknown camera") from error
    turn = _TURNS.get(sizes.flip, 1)
    size = (sizes.height, sizes.width) if turn >= 5 else (sizes.width, sizes.height)
    if thumbnail.format == rawpy.ThumbFormat.JPEG:
        return Preview(bytes(thumbnail.data), turn, size)
    return Preview(Image.fromarray(np.asarray(thumbnail.data)), turn, size)
