"""Converts a model for OpenVINO, in a process of its own, so that torch is never loaded where queries are answered.

`converted` gives the folder of a model's compiled form, made on the first call and kept under a name that
changes with the weights, the configuration and every library that has a part in it.
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
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from app.core.errors import StartupError
from app.core.locks import hold_lock, pause_unless_stopped
from app.core.process import child_env, die_with_parent
from app.encoder.openvino import IMAGE_FILE, INFO_FILE, TEXT_FILE, CompiledModelInfo, OpenVinoEncoder, load_openvino

log = logging.getLogger(__name__)

FORMAT = 2  # of what is written; a new number makes every model be converted anew
LIBRARIES = ("openvino", "torch", "open_clip_torch", "timm")
MIN_COSINE = 0.999  # least cosine between a converted tower and torch's own, over PROBES
PROBES = ("a red car", "two cats next to a cake, by the sea", "笑脸", "x")
DAMAGE_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError)  # what a damaged compiled form raises
EXIT_MISFIT = 3  # exit status of a conversion whose weights do not fit: torch would fail too


@dataclass(frozen=True, slots=True)
class ConversionSpec:
    """What a conversion is made from. `half` keeps weights in 16 bits, exact for weights that were published so."""

    name: str
    architecture: str
    weights: str
    digest: str
    preprocess: dict[str, Any] | None = None
    quick_gelu: bool = False
    half: bool = False
    cache: str = ""

    @property
    def key(self) -> str:
        """16 hex digits over everything that decides the outcome; the name is no part of it."""
        configuration = ""
        if self.architecture.startswith("local-dir:"):
            file = Path(self.architecture.removeprefix("local-dir:")) / "open_clip_config.json"
            configuration = file.read_text(encoding="utf-8")
        made_by = [f"{library} {version(library)}" for library in LIBRARIES]
        said = json.dumps([FORMAT, asdict(replace(self, name="", cache="", weights="")), configuration, made_by])
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def open_encoder(
    recipe: ConversionSpec,
    cache: Path,
    precision: str,
    threads: int,
    stop: threading.Event | None = None,
    *,
    bulk: bool = False,
) -> OpenVinoEncoder:
    """The recipe's model, ready to encode. What was compiled before but cannot be read is made anew.

    Raises what `converted` raises.
    """
    folder = ensure_converted(recipe, cache, stop)
    try:
        return OpenVinoEncoder(folder, precision, threads, bulk=bulk)
    except DAMAGE_ERRORS:
        pass
    with hold_lock(_lock(folder), stop):
        try:
            # Perhaps another process has seen it too, and made it anew.
            return OpenVinoEncoder(folder, precision, threads, bulk=bulk)
        except DAMAGE_ERRORS as error:
            log.warning("the compiled form of %s is damaged (%s); making it anew", recipe.name, type(error).__name__)
            _run(recipe, folder, stop)
            return OpenVinoEncoder(folder, precision, threads, bulk=bulk)


def ensure_converted(recipe: ConversionSpec, cache: Path, stop: threading.Event | None = None) -> Path:
    """The folder with the recipe's compiled form below `cache`, made if it is not there.

    Raises StartupError when weights and architecture do not fit, ValueError with the reason when this model
    cannot be converted, OSError when `cache` cannot be written, Stopped when `stop` is set before it is there.
    """
    folder = _home(recipe, cache)
    if is_converted(recipe, cache):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(_lock(folder), stop):  # server and worker start together; one of them converts, the other waits
        if not (folder / INFO_FILE).is_file():
            log.info("preparing %s for this processor, once", recipe.name)
            _run(recipe, folder, stop)
    return folder


def is_converted(recipe: ConversionSpec, cache: Path) -> bool:
    """Whether `converted` has nothing to do."""
    return (_home(recipe, cache) / INFO_FILE).is_file()


def _home(recipe: ConversionSpec, cache: Path) -> Path:
    return cache / "compiled" / recipe.key


def _lock(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def _run(recipe: ConversionSpec, folder: Path, stop: threading.Event | None) -> None:
    """Convert in a child process, which is killed when `stop` is set."""
    said = json.dumps([asdict(recipe), str(folder)])
    command = [sys.executable, "-m", "app.encoder.conversion", said, str(os.getpid())]
    with (
        TemporaryFile("w+") as output,
        subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=output,
            env=child_env(os.environ),
            start_new_session=True,  # Ctrl-C is for us, who end it; by itself it would look like a fault of the model
        ) as child,
    ):
        try:
            while child.poll() is None:
                pause_unless_stopped(stop)
        except BaseException:  # Stopped, or Ctrl-C
            child.kill()
            child.wait()
            shutil.rmtree(_draft(folder), ignore_errors=True)
            raise
        if child.returncode == 0:
            return
        output.seek(0)
        lines = output.read().strip().splitlines()
    if child.returncode == -signal.SIGKILL:
        raise ValueError("the conversion was killed, which is what the system does when memory runs out")
    why = lines[-1] if lines else f"the conversion ended with {child.returncode}"
    raise StartupError(why) if child.returncode == EXIT_MISFIT else ValueError(why)


def convert(recipe: ConversionSpec, folder: Path) -> None:
    """Build the model in torch, write its compiled form, and keep it only if it gives the same vectors."""
    from app.encoder.open_clip import OpenClipEncoder, build_model
    from app.encoder.tokenizer_export import export_tokenizer
    from app.encoder.towers import ImageTower, make_text_tower

    model = build_model(
        recipe.name,
        recipe.architecture,
        Path(recipe.weights),
        recipe.digest,
        preprocess=recipe.preprocess,
        quick_gelu=recipe.quick_gelu,
        cache=recipe.cache,
    )
    size, reads = model.preprocessing.size, model.tokenization
    torch_encoder = OpenClipEncoder(model, "cpu", "fp32")
    tower, pool, _ = make_text_tower(model.clip)
    tokens = reads.tokenizer()(PROBES[:2])
    with _written(folder) as draft:
        pictures = _traced(ImageTower(model.clip), np.zeros((2, 3, size, size), np.float32), [-1, 3, size, size])
        _save(_from_uint8(pictures, model.preprocessing), draft / IMAGE_FILE, recipe.half)
        length = reads.length if pool == "whole" else -1
        _save(_traced(tower, tokens, [-1, length]), draft / TEXT_FILE, recipe.half)
        CompiledModelInfo(model.space, model.preprocessing, export_tokenizer(reads, draft), model.temperature).write(
            draft
        )
        seen = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
        done = OpenVinoEncoder(draft, "fp32")
        for ours, theirs in (
            (done.encode_images(seen), torch_encoder.encode_images(seen)),
            (done.encode_texts(PROBES), torch_encoder.encode_texts(PROBES)),
        ):
            least = float((ours * theirs).sum(axis=1).min())
            if not least >= MIN_COSINE:
                raise ValueError(f"the converted model differs from the original (cosine {least:.4f})")


@contextmanager
def _written(folder: Path) -> Iterator[Path]:
    """A draft that becomes `folder` at the end, whole or not at all."""
    draft = _draft(folder)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draft(folder: Path) -> Path:
    return folder.with_suffix(".draft")


def _traced(tower: Any, example: np.ndarray[Any, Any], shape: list[int]) -> Any:
    """The module as OpenVINO's model, with one input of this shape (-1 is any length)."""
    import torch

    openvino = load_openvino()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused layer cannot be traced
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            given = torch.from_numpy(example)
            return openvino.convert_model(tower, example_input=given, input=[openvino.PartialShape(shape)])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _from_uint8(tower: Any, preprocessing: Any) -> Any:
    """The tower taking uint8 [n, size, size, 3] instead of normalised floats [n, 3, size, size]."""
    openvino = load_openvino()
    steps = openvino.preprocess.PrePostProcessor(tower)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    mean, std = ([value * 255 for value in values] for values in (preprocessing.mean, preprocessing.std))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(mean).scale(std)
    return steps.build()


def _save(model: Any, path: Path, half: bool) -> None:
    load_openvino().save_model(model, path, compress_to_fp16=half)


def main() -> None:
    """The child: a recipe and a folder as JSON, and the parent to die with."""
    recipe, folder = json.loads(sys.argv[1])
    die_with_parent(int(sys.argv[2]))
    logging.disable(logging.WARNING)
    try:
        convert(ConversionSpec(**recipe), Path(folder))
    except StartupError as error:
        print(error.detail, file=sys.stderr)
        raise SystemExit(EXIT_MISFIT) from None
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        print(f"{type(error).__name__}: {first}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
