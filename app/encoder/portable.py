"""`sightline convert`: a model in a folder that can be copied to any machine, and served there without torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from app.core.errors import StartupError
from app.encoder.conversion import COMPILED, CONFIG, convert_into, replace_folder
from app.encoder.hub import LoadProgress
from app.encoder.loader import TOKENIZER, WEIGHTS, check_weights, locate_model
from app.encoder.pretrained import find_architecture, require_torch
from app.encoder.weights import LocatedModel


def export_model(
    name: str,
    cache: Path,
    folder: Path,
    progress: LoadProgress | None = None,
    improve: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write configuration, weights, tokenizer and the converted towers of a model into a new folder.

    `improve` gets the folder of the towers before the new folder is in its place. Raises StartupError, and what
    `improve` raises. A folder that holds something already, or a conversion that fails, changes nothing.
    """
    require_torch(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StartupError(f"{folder} holds something already; name a new folder")
    located = locate_model(name, cache, progress)
    if located.name == "colours":
        raise StartupError("colours has no weights: nothing needs to be converted")
    digest = check_weights(located)
    spec = LocatedModel(
        located.name, located.architecture, located.weights, digest, located.preprocess, located.quick_gelu
    )
    with replace_folder(folder) as draft:
        (draft / CONFIG).write_text(_read_configuration(spec), "utf-8")
        shutil.copy(spec.weights, draft / WEIGHTS)
        for file in TOKENIZER:
            if spec.folder is not None and (spec.folder / file).is_file():
                shutil.copy(spec.folder / file, draft)
        try:
            convert_into(spec, draft)
        except ValueError as error:
            raise StartupError(f"model {name} cannot be converted: {error}") from error
        improve(draft / COMPILED)


def _read_configuration(spec: LocatedModel) -> str:
    """The configuration of a folder, or that of open_clip's architecture with what the weights change of it."""
    if spec.folder is not None:
        return (spec.folder / CONFIG).read_text("utf-8")
    path = find_architecture(spec.architecture)
    if path is None:
        raise StartupError(f"open_clip knows no architecture {spec.architecture!r}")
    model = json.loads(path.read_text("utf-8"))
    if spec.quick_gelu:
        model["quick_gelu"] = True
    return json.dumps({"model_cfg": model, "preprocess_cfg": spec.preprocess or {}}, indent=2) + "\n"
