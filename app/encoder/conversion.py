"""Convert a model for OpenVINO, in a process of its own, so that the server never imports torch.

`ensure_converted` returns the folder of the converted model. Its name depends on the weights, the configuration and the
versions of all libraries that take part; the first call converts, later calls find the folder. A folder with a model
may bring the converted model with it (`convert_into`): then nobody who serves it needs torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from app.core.errors import StartupError
from app.core.files import sha256_file
from app.core.locks import hold_lock, pause_unless_stopped
from app.core.process import die_with_parent, spawn
from app.encoder.openvino import (
    IMAGE_FILE,
    INFO_FILE,
    TEXT_FILE,
    CompiledModelInfo,
    OpenVinoEncoder,
    detect_precision,
    load_openvino,
)
from app.encoder.pretrained import has_torch, require_torch
from app.encoder.tokenizer import TOKENIZER
from app.encoder.weights import LocatedModel, read_logit_bias

log = logging.getLogger(__name__)

FORMAT = 2  # of the files; with a new number every model is converted again
COMPILED = "compiled"  # the folder of a converted model, in that of its files and in the cache
CONFIG = "open_clip_config.json"
LIBRARIES = ("openvino", "torch", "open_clip_torch", "timm")
MIN_COSINE = 0.999  # between the vectors of a converted tower and those of torch, over PROBES
PROBES = ("a red car", "two cats next to a cake, by the sea", "笑脸", "x")
DAMAGE_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError)  # raised for a damaged converted model
NO_INT8 = (
    "model {0} has no int8 towers; `sightline convert {0} FOLDER --precision int8` writes a model that has"
    " them, if int8 is good enough for your pictures"
)
EXIT_MISFIT = 3  # exit status if the weights do not fit the architecture; torch would fail as well


def key_of(spec: LocatedModel) -> str:
    """16 hex digits over everything that the converted model depends on; the name is no part of it."""
    configuration = (spec.folder / CONFIG).read_text("utf-8") if spec.folder else ""
    versions = [f"{library} {version(library)}" for library in LIBRARIES]
    fields = {**asdict(spec), "name": "", "weights": "", "cache": ""}
    inputs = json.dumps([FORMAT, fields, configuration, versions])
    return hashlib.sha256(inputs.encode()).hexdigest()[:16]


def open_encoder(
    spec: LocatedModel,
    cache: Path,
    precision: str,
    threads: int,
    stop: threading.Event | None = None,
    *,
    bulk: bool = False,
) -> OpenVinoEncoder:
    """Convert the model if needed, and load it; a damaged conversion is made again. Raises as `ensure_converted`."""
    bias = read_logit_bias(spec.weights)  # of the weights, so that a conversion of an older version has it too

    def load(folder: Path) -> OpenVinoEncoder:
        encoder = OpenVinoEncoder(folder, precision, threads, bulk=bulk, logit_bias=bias)
        encoder.space = replace(encoder.space, model=spec.name)  # models of other names may share a conversion
        return encoder

    if (enclosed := find_enclosed(spec, precision)) is not None:
        try:
            return load(enclosed)
        except DAMAGE_ERRORS as error:
            if precision == "int8":
                raise StartupError(f"the int8 towers in {enclosed} are damaged; write them again") from error
            log.warning("the converted model in %s is damaged (%s); converting it", enclosed, type(error).__name__)
    folder = ensure_converted(spec, cache, stop)
    with suppress(*DAMAGE_ERRORS):
        return load(folder)
    with hold_lock(folder.with_suffix(".lock"), stop):
        try:
            return load(folder)  # another process may have repaired it meanwhile
        except DAMAGE_ERRORS as error:
            log.warning("the converted model %s is damaged (%s); converting it again", spec.name, type(error).__name__)
            _convert_in_child(spec, folder, stop)
            return load(folder)


def choose_precision(spec: LocatedModel, asked: str) -> str:
    """The precision to run in: for `auto` int8 where the model's folder brings it, else the fastest of the processor.

    Raises StartupError for int8 that it does not bring.
    """
    brings = find_enclosed(spec, "int8") is not None
    if asked == "int8" and not brings:
        raise StartupError(NO_INT8.format(spec.name))
    return asked if asked != "auto" else "int8" if brings else detect_precision()


def find_enclosed(spec: LocatedModel, precision: str = "") -> Path | None:
    """The converted model in the folder of a model, if it was made of these weights and this configuration, and has
    int8 as `precision` says."""
    if spec.folder is None:
        return None
    folder = spec.folder / COMPILED
    try:
        info = CompiledModelInfo.read(folder)
        made_of = (info.made_of or info.space.weights, info.configuration)
        fits = made_of == (spec.digest, sha256_file(spec.folder / CONFIG))
    except (OSError, ValueError):
        return None
    return folder if fits and (info.precision == "int8") == (precision == "int8") else None


def convert_into(spec: LocatedModel, model: Path) -> None:
    """Convert a model into the folder `model`, which holds its configuration and weights, so that a copy of the whole
    can be served without torch.

    Raises StartupError, also where its tokenizer cannot do without open_clip, and ValueError as `ensure_converted`.
    """
    folder = model / COMPILED
    _convert_in_child(replace(spec, half=True), folder, None)
    info = CompiledModelInfo.read(folder)
    tokenization = info.tokenization
    if Path(tokenization.source).name != TOKENIZER:
        raise StartupError(f"the tokenizer of {spec.name} exists in open_clip alone, which needs torch")
    source = os.path.relpath(tokenization.source, folder)
    if not (folder / source).resolve().is_relative_to(model.resolve()):
        shutil.copy(tokenization.source, folder / TOKENIZER)
        source = TOKENIZER
    tokenization = replace(tokenization, source=source, cache="")
    replace(info, tokenization=tokenization, configuration=sha256_file(model / CONFIG)).write(folder)


def ensure_converted(spec: LocatedModel, cache: Path, stop: threading.Event | None = None) -> Path:
    """The folder of the converted model below `cache`; converts it if it does not exist.

    Raises StartupError if weights and architecture do not fit, ValueError with the reason if the model cannot be
    converted, OSError if `cache` cannot be written, StopRequested if `stop` is set meanwhile.
    """
    require_torch(spec.name)
    folder = _folder_of(spec, cache)
    if (folder / INFO_FILE).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Server and workers start together: one converts, the others wait.
    with hold_lock(folder.with_suffix(".lock"), stop):
        if not (folder / INFO_FILE).is_file():
            log.info("converting %s for this processor, once", spec.name)
            _convert_in_child(spec, folder, stop)
    return folder


def is_converted(spec: LocatedModel, cache: Path, precision: str) -> bool:
    """Whether the model can be opened without a conversion."""
    return find_enclosed(spec, precision) is not None or (
        has_torch() and (_folder_of(spec, cache) / INFO_FILE).is_file()
    )


def _folder_of(spec: LocatedModel, cache: Path) -> Path:
    return cache / COMPILED / key_of(spec)


def _convert_in_child(spec: LocatedModel, folder: Path, stop: threading.Event | None) -> None:
    """Convert in a child process, and kill it if `stop` is set."""
    job = json.dumps([asdict(spec), str(folder)], default=str)
    with (
        TemporaryFile() as output,
        spawn("app.encoder.conversion", job, str(os.getpid()), stdout=subprocess.DEVNULL, stderr=output) as child,
    ):
        try:
            while child.poll() is None:
                pause_unless_stopped(stop)
        except BaseException:  # StopRequested or Ctrl-C
            child.kill()
            child.wait()
            shutil.rmtree(folder.with_suffix(".draft"), ignore_errors=True)
            raise
        if child.returncode == 0:
            return
        output.seek(0)
        lines = output.read().decode(errors="replace").strip().splitlines()
    if child.returncode == -signal.SIGKILL:
        raise ValueError("the conversion was killed, most likely because the memory ran out")
    reason = lines[-1] if lines else f"the conversion ended with exit status {child.returncode}"
    raise StartupError(reason) if child.returncode == EXIT_MISFIT else ValueError(reason)


def convert(spec: LocatedModel, folder: Path) -> None:
    """Build the model in torch, convert it, and keep the result only if it gives the same vectors."""
    from app.encoder.open_clip import OpenClipEncoder, build_model
    from app.encoder.tokenizer_export import export_tokenizer
    from app.encoder.towers import Tower, make_text_tower

    model = build_model(spec)
    size, tokenization = model.preprocessing.size, model.tokenization
    torch_encoder = OpenClipEncoder(model, "cpu", "fp32")
    tower, pool, _ = make_text_tower(model.clip)
    tokens = tokenization.tokenizer()(PROBES[:2])
    save_model = partial(load_openvino().save_model, compress_to_fp16=spec.half)
    with replace_folder(folder) as draft:
        image_tower = _trace(
            Tower(model.clip, "encode_image"), np.zeros((2, 3, size, size), np.float32), [-1, 3, size, size]
        )
        save_model(_accept_uint8(image_tower, model.preprocessing), draft / IMAGE_FILE)
        length = tokenization.length if pool == "whole" else -1
        save_model(_trace(tower, tokens, [-1, length]), draft / TEXT_FILE)
        CompiledModelInfo(
            model.space, model.preprocessing, export_tokenizer(tokenization, draft), model.temperature
        ).write(draft)
        pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
        converted = OpenVinoEncoder(draft, "fp32")
        for converted_vectors, torch_vectors in (
            (converted.encode_images(pixels), torch_encoder.encode_images(pixels)),
            (converted.encode_texts(PROBES), torch_encoder.encode_texts(PROBES)),
        ):
            cosine = float((converted_vectors * torch_vectors).sum(axis=1).min())
            if not cosine >= MIN_COSINE:
                raise ValueError(f"the converted model differs from the original (cosine {cosine:.4f})")


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """A draft folder that replaces `folder` at the end, as a whole or not at all."""
    draft = folder.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _trace(tower: Any, example: np.ndarray[Any, Any], shape: list[int]) -> Any:
    """Trace a module into an OpenVINO model with one input of this shape (-1 is any length)."""
    import torch

    openvino = load_openvino()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused layer cannot be traced
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            tensor = torch.from_numpy(example)
            return openvino.convert_model(tower, example_input=tensor, input=[openvino.PartialShape(shape)])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _accept_uint8(tower: Any, preprocessing: Any) -> Any:
    """Let the tower take uint8 [n, size, size, 3] instead of normalised floats [n, 3, size, size]."""
    openvino = load_openvino()
    steps = openvino.preprocess.PrePostProcessor(tower)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    mean, std = ([value * 255 for value in values] for values in (preprocessing.mean, preprocessing.std))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(mean).scale(std)
    return steps.build()


def main() -> None:
    """The child. Its arguments: spec and folder as JSON, and the process id of its parent."""
    spec, folder = json.loads(sys.argv[1])
    die_with_parent(int(sys.argv[2]))
    logging.disable(logging.WARNING)
    try:
        convert(LocatedModel(**{**spec, "weights": Path(spec["weights"])}), Path(folder))
    except StartupError as error:
        print(error.detail, file=sys.stderr)
        raise SystemExit(EXIT_MISFIT) from None
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        print(f"{type(error).__name__}: {first}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
