"""Which models there are, where their files come from, and how one is loaded.

Weights are only ever read from safetensors files: a pickle can run code.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.core.errors import StartupError
from app.encoder import memory_check
from app.encoder.catalogue import full_name, nearest
from app.encoder.dummy import ColoursEncoder
from app.encoder.hub import cached, damaged, fetch, kept, promised
from app.encoder.memory_check import CONVERTING, NOBODY, Crew
from app.encoder.pretrained import architectures, published
from app.encoder.protocol import Encoder
from app.encoder.weights import Parameters, file_digest, parameters

log = logging.getLogger(__name__)

GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # Linux's own, and that of Windows below it
FOR_GPU = "for a GPU"
STARTER = Path(__file__).parent / "starter"
WEIGHTS = "open_clip_model.safetensors"
HUB_NAMES = (WEIGHTS, "open_clip_pytorch_model.safetensors", "model.safetensors")
CONFIG = "open_clip_config.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
PREPROCESS = ("mean", "std", "interpolation", "resize_mode", "fill_color", "size")


@dataclass(frozen=True, slots=True)
class Located:
    """A model whose files are all on this machine. `digest` is the hub's for the weights, where they came from it."""

    name: str
    architecture: str
    weights: Path | None
    preprocess: dict[str, Any] | None = None
    quick_gelu: bool = False
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how an encoder is to run; see Settings for the meaning of each. The memory of the whole crew is
    checked before it is loaded; an empty one is not."""

    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    threads: int = 0
    crew: Crew = NOBODY
    bulk: bool = False  # many pictures at once matter, not the wait for one

    def needs_torch(self) -> str:
        """Why torch must run the model; empty when OpenVINO can."""
        if self.runtime == "torch":
            return "as asked"
        if self.device.startswith("cuda") or (self.device == "auto" and gpu_present()):
            return FOR_GPU
        return "" if self.precision in ("auto", "fp32", "bf16") else f"for {self.precision}"


def gpu_present() -> bool:
    """Whether torch can use a GPU; torch is loaded only where the system has a device of that kind."""
    if not any(path.exists() for path in GPU_DEVICES):
        return False
    import torch

    return bool(torch.cuda.is_available())


def locate(name: str, cache: Path) -> Located:
    """Find the model's files, downloading them into `cache` if they must come from the hub.

    Raises StartupError, with one line that says what to do, when they cannot be had.
    """
    name = full_name(name)
    if name == "colours":
        return Located(name, name, None)
    if name == "starter":
        return _folder(name, STARTER)
    if name.startswith("local-dir:"):
        return _folder(name, Path(name.removeprefix("local-dir:")))
    if name.startswith("hf-hub:"):
        return _hub(name, cache)
    if ":" in name:
        return _file(name)
    if "/" in name:
        return _tag(name, cache)
    hint = nearest(name, []) or ";"
    raise StartupError(f"unknown model {name!r}{hint} `sightline models` lists what there is")


def load(
    name: str,
    cache: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    threads: int = 0,
    crew: Crew = NOBODY,
    bulk: bool = False,
) -> Encoder:
    """Locate and load a model, ready to encode. Raises StartupError when that is impossible."""
    return load_located(locate(name, cache), cache, Placement(device, precision, runtime, threads, crew, bulk))


def load_located(located: Located, cache: Path, placement: Placement, stop: threading.Event | None = None) -> Encoder:
    """Load a located model, ready to encode: with OpenVINO on a CPU, in torch on a GPU and where OpenVINO cannot.

    `cache` keeps what OpenVINO compiled. Raises StartupError when the model's files do not fit together, are damaged
    or not what was downloaded; Stopped when `stop` is set while it is being converted.
    """
    if located.weights is None:
        return ColoursEncoder()
    digest = file_digest(located.weights)
    if located.digest != digest and not kept(located.weights, located.digest):
        raise damaged(located.name, located.weights)
    holds = parameters(located.name, located.weights)
    reason = placement.needs_torch()
    if not reason:
        try:
            return _on_openvino(located, located.weights, digest, holds, cache, placement, stop)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            reason = f"OpenVINO cannot run it: {error}"
            log.warning("model %s: %s", located.name, reason)
    if placement.runtime == "openvino":
        raise StartupError(f"model {located.name} cannot run with OpenVINO: {reason}")
    needed = memory_check.on_gpu(holds) if reason == FOR_GPU else memory_check.in_torch(holds, placement.crew)
    memory_check.check(located.name, needed, placement.crew, "in torch")
    return _in_torch(located, located.weights, digest, cache, placement, reason)


def _on_openvino(
    located: Located,
    weights: Path,
    digest: str,
    holds: Parameters,
    cache: Path,
    placement: Placement,
    stop: threading.Event | None,
) -> Encoder:
    from app.encoder.conversion import Recipe, compiled, opened
    from app.encoder.openvino import native_precision

    precision = native_precision() if placement.precision == "auto" else placement.precision
    recipe = Recipe(
        located.name,
        located.architecture,
        str(weights),
        digest,
        located.preprocess,
        located.quick_gelu,
        half=precision != "fp32",
        cache=str(cache),
    )
    if not compiled(recipe, cache):
        memory_check.check(located.name, memory_check.conversion(holds, placement.crew), placement.crew, CONVERTING)
    memory_check.check(located.name, memory_check.steady(holds, placement.crew, precision), placement.crew, "to run")
    return opened(recipe, cache, precision, placement.threads, stop, bulk=placement.bulk)


def _in_torch(located: Located, weights: Path, digest: str, cache: Path, placement: Placement, reason: str) -> Encoder:
    import torch  # here, not above: `colours`, OpenVINO and the client commands do without it

    from app.encoder import open_clip

    if placement.threads:
        torch.set_num_threads(placement.threads)
    device = open_clip.choose_device(placement.device)
    precision = open_clip.choose_precision(placement.precision, device)
    model = open_clip.build(
        located.name,
        located.architecture,
        weights,
        digest,
        preprocess=located.preprocess,
        quick_gelu=located.quick_gelu,
        cache=str(cache),
    )
    return open_clip.OpenClipEncoder(model, device, precision, reason)


def _folder(name: str, folder: Path, file: str = WEIGHTS) -> Located:
    weights = folder / file
    for path in (folder / CONFIG, weights):
        if not path.is_file():
            raise StartupError(f"model {name}: {path.name} is missing in {folder}")
    return Located(name, f"local-dir:{folder}", weights)


def _file(name: str) -> Located:
    architecture, _, path = name.partition(":")
    weights = Path(path)
    if weights.suffix != ".safetensors":
        raise StartupError(f"model {name}: weights must be a .safetensors file (other formats can run code)")
    if not weights.is_file():
        raise StartupError(f"model {name}: there is no file {weights}")
    _known(f"model {name}", architecture)
    return Located(name, architecture, weights)


def _known(name: str, architecture: str) -> None:
    if architecture not in architectures():
        hint = nearest(architecture, architectures())
        raise StartupError(f"{name}: open_clip knows no architecture {architecture!r}{hint}")


def _tag(name: str, cache: Path) -> Located:
    architecture, _, tag = name.partition("/")
    _known(f"unknown model {name!r}", architecture)
    said = published(architecture, tag, cache)
    if (config := said.config) is None:
        tags = ", ".join(said.tags) or "none"
        raise StartupError(f"unknown model {name!r}: the tags of {architecture} are {tags}")
    repository = str(config.get("hf_hub") or "").rstrip("/")
    if not repository:
        raise StartupError(f"model {name} has no safetensors on the hub; take one of `sightline models`")
    if len(repository.split("/")) > 2:  # org/repo/file: the tag names one file of its repository
        repository, _, file = repository.rpartition("/")
        names: tuple[str, ...] = (str(Path(file).with_suffix(".safetensors")),)
    else:
        names = HUB_NAMES
    preprocess = {key: config[key] for key in PREPROCESS if config.get(key) is not None}
    weights = _weights(name, repository, names, cache)
    return Located(name, architecture, weights, preprocess, bool(config.get("quick_gelu")), promised(weights))


def _hub(name: str, cache: Path) -> Located:
    repository = name.removeprefix("hf-hub:")
    if fetch(name, repository, (CONFIG,), cache) is None:
        raise StartupError(f"model {name}: {repository} has no {CONFIG}; it is no model of open_clip")
    known = cached(repository, HUB_NAMES, cache)
    for extra in TOKENIZER:  # the weights come last: where they are, the hub has been asked for these, and a link says
        if known is None or (known.parent / extra).is_symlink():
            fetch(name, repository, (extra,), cache)
    weights = _weights(name, repository, HUB_NAMES, cache)
    for file in (CONFIG, *TOKENIZER):
        if (path := weights.parent / file).is_file() and not kept(path, promised(path)):
            raise damaged(name, path)
    return replace(_folder(name, weights.parent, weights.name), digest=promised(weights))


def _weights(name: str, repository: str, names: tuple[str, ...], cache: Path) -> Path:
    weights = fetch(name, repository, names, cache)
    if weights is None:
        raise StartupError(f"model {name}: {repository} has no safetensors weights; other formats are not read")
    return weights
