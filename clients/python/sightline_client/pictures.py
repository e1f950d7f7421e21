"""Pictures in the forms that people have them: a path, bytes, an open file, a Pillow image, or a URL."""

from __future__ import annotations

import io
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
else:
    PillowImage = Any

MAX_DOWNLOAD = 256 << 20


@dataclass(frozen=True, slots=True)
class NamedPicture:
    """A picture with the name that the server shows. `content` is a path, bytes or an open file."""

    name: str
    content: str | os.PathLike[str] | bytes | IO[bytes]


Picture = str | os.PathLike[str] | bytes | IO[bytes] | NamedPicture | PillowImage
"""A path, an `http(s)://` URL (which this client fetches), bytes, an open file, a NamedPicture, or a Pillow image."""


def is_url(picture: Any) -> bool:
    return isinstance(picture, str) and picture.lower().startswith(("http://", "https://"))


def name_of_url(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2] or "picture"


def open_picture(picture: Picture, opened: ExitStack) -> tuple[str, IO[bytes] | bytes]:
    """The name of a picture and its content; `opened` closes the file. URLs must be fetched before."""
    if isinstance(picture, NamedPicture):
        return picture.name, open_picture(picture.content, opened)[1]
    if isinstance(picture, bytes | bytearray | memoryview):
        return "picture", bytes(picture)
    if isinstance(picture, str | os.PathLike):
        path = Path(picture)
        return path.name, opened.enter_context(path.open("rb"))
    return read_open_picture(picture)


def is_stream(picture: Any) -> bool:
    """Whether the picture is a file that can be read only once, such as a pipe."""
    content: Any = picture.content if isinstance(picture, NamedPicture) else picture
    return hasattr(content, "read") and not content.seekable()


def read_stream(picture: Any) -> NamedPicture:
    """A picture that can be read only once, with its bytes in memory: a call that is sent again needs them again."""
    if isinstance(picture, NamedPicture):
        return NamedPicture(picture.name, read_stream(picture.content).content)
    return NamedPicture(name_of_file(picture), picture.read())


def name_of_file(file: Any) -> str:
    name = getattr(file, "name", None)
    return Path(name).name if isinstance(name, str) else "picture"  # that of a pipe is a number


def read_open_picture(picture: Any) -> tuple[str, IO[bytes] | bytes]:
    if hasattr(picture, "save") and hasattr(picture, "mode"):
        return "picture.png", encode_pillow(picture)
    if hasattr(picture, "read"):
        if is_stream(picture):
            return name_of_file(picture), picture.read()
        picture.seek(0)
        return name_of_file(picture), picture
    raise TypeError(f"a picture is a path, a URL, bytes, an open file or a Pillow image, not {type(picture).__name__}")


def encode_pillow(image: Any) -> bytes:
    """The picture as PNG, with all of its pixels."""
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
