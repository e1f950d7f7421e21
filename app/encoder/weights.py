"""The files of a model: what it is built from, and a check of its weights by their header."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from app.core.errors import StartupError

PICKLES = (b"\x80", b"PK\x03\x04")  # the first bytes of a pickle, and of the zip in which torch packs one


@dataclass(frozen=True, slots=True)
class LocatedModel:
    """A model whose files are on this machine; `colours` has none.

    `architecture` is open_clip's name or `local-dir:FOLDER`; `preprocess` overrides its configuration. `digest` is that
    of the hub for the weights, empty without one, and once they are read their SHA-256. `half` stores converted weights
    in 16 bits, exactly for weights that were published in 16. `cache` keeps tokenizer files of the hub.
    """

    name: str
    architecture: str
    weights: Path = Path()
    digest: str = ""
    preprocess: dict[str, Any] | None = None
    quick_gelu: bool = False
    half: bool = False
    cache: str = ""

    @property
    def folder(self) -> Path | None:
        """The folder of a `local-dir:` architecture."""
        local = self.architecture.startswith("local-dir:")
        return Path(self.architecture.removeprefix("local-dir:")) if local else None


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """The number of parameters of a model, and of its image tower."""

    whole: int
    image: int


def count_parameters(name: str, path: Path) -> ParameterCount:
    """Count the parameters in a file; reads the header only.

    Raises StartupError for no safetensors file, and for one that is shorter than its header says.
    """
    whole = image = 0
    try:
        with safe_open(path, framework="numpy") as file:
            for key in file.keys():  # noqa: SIM118 (it is no mapping)
                count = math.prod(file.get_slice(key).get_shape())
                whole += count
                image += count if key.startswith("visual.") else 0
    except (SafetensorError, OSError) as error:
        raise StartupError(f"model {name}: {path} {_describe_fault(path, error)}") from error
    return ParameterCount(whole, image)


def read_logit_bias(path: Path) -> float | None:
    """The bias of a model that was trained by a sigmoid of each pair (SigLIP); None without one."""
    with suppress(SafetensorError, OSError), safe_open(path, framework="numpy") as file:
        return float(file.get_tensor("logit_bias").reshape(()))
    return None


def _describe_fault(path: Path, error: Exception) -> str:
    """What is wrong with the file, and what to do."""
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error}); check its owner and mode"
    with open(path, "rb") as file:
        head = file.read(4)
    if head.startswith(PICKLES):
        return (
            "is a pickle in spite of its name; pickles can run code and are not read; use the safetensors of the model"
        )
    return f"is cut short or is no safetensors file ({str(error).splitlines()[0][:100]}); download or copy it again"
