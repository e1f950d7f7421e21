"""What a weights file is, told from its own header before anything is loaded."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from app.core.errors import StartupError

PICKLES = (b"\x80", b"PK\x03\x04")  # how a pickle begins, and the zip that torch packs it in


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """How many numbers a model has, and how many of them are its image tower's."""

    whole: int
    image: int


def count_parameters(name: str, path: Path) -> ParameterCount:
    """What the file holds. Reads the header alone.

    Raises StartupError when it is no safetensors file, or does not hold all that its header says.
    """
    whole = image = 0
    try:
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 (it is no mapping)
                count = math.prod(file.get_slice(key).get_shape())
                whole += count
                image += count if key.startswith("visual.") else 0
    except (SafetensorError, OSError) as error:
        raise StartupError(f"model {name}: {path} {_fault(path, error)}") from error
    return ParameterCount(whole, image)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fault(path: Path, error: Exception) -> str:
    """What is wrong with the file and what to do."""
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error}); check its owner and mode"
    with open(path, "rb") as file:
        begins = file.read(4)
    if begins.startswith(PICKLES):
        return "is a pickle, whatever its name says: it could run code and is not read; take the model's safetensors"
    return f"is cut short or is no safetensors file ({str(error).splitlines()[0][:100]}); download or copy it again"
