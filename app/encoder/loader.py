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
from app.encoder.catalogue import resolve_alias, suggest_names
from app.encoder.dummy import DummyEncoder
from app.encoder.hub import damaged_file_error, expected_digest, fetch_file, find_cached, matches_digest
from app.encoder.memory_check import CONVERTING, NO_PROCESSES, ModelProcesses
from app.encoder.pretrained import find_pretrained, list_architectures
from app.encoder.protocol import Encoder
from app.encoder.weights import ParameterCount, count_parameters, sha256_file

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
class LocatedModel:
    """A model whose files are all on this machine. `digest` is the hub's for the weights, where they came from it."""

    name: str
    architecture: str
    weights: Path | None
    preprocess: dict[str, Any] | None = None
    quick_gelu: bool = False
    digest: str = ""


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """Where and how an encoder is to run; see Settings for the meaning of each. The memory of the whole crew is
    checked before it is loaded; an empty one is not."""

    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    threads: int = 0
    crew: ModelProcesses = NO_PROCESSES
    bulk: bool = False  # many pictures at once matter, not the wait for one

    def needs_torch(self) -> str:
        """Why torch must run the model; empty when OpenVINO can."""
        if self.runtime == "torch":
            return "as asked"
        if self.device.startswith("cuda") or (self.device == "auto" and has_gpu()):
            return FOR_GPU
        return "" if self.precision in ("auto", "fp32", "bf16") else f"for {self.precision}"


def has_gpu() -> bool:
    """Whether torch can use a GPU; torch is loaded only where the system has a device of that kind."""
    if not any(path.exists() for path in GPU_DEVICES):
        return False
    import torch

    return bool(torch.cuda.is_available())


def locate_model(name: str, cache: Path) -> LocatedModel:
    """Find the model's files, downloading them into `cache` if they must come from the hub.

    Raises StartupError, with one line that says what to do, when they cannot be had.
    """
    name = resolve_alias(name)
    if name == "colours":
        return LocatedModel(name, name, None)
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
    hint = suggest_names(name, []) or ";"
    raise StartupError(f"unknown model {name!r}{hint} `sightline models` lists what there is")


def load_encoder(
    name: str,
    cache: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    threads: int = 0,
    crew: ModelProcesses = NO_PROCESSES,
    bulk: bool = False,
) -> Encoder:
    """Locate and load a model, ready to encode. Raises StartupError when that is impossible."""
    return load_located(
        locate_model(name, cache), cache, EncoderOptions(device, precision, runtime, threads, crew, bulk)
    )


def load_located(
    located: LocatedModel, cache: Path, placement: EncoderOptions, stop: threading.Event | None = None
) -> Encoder:
    """Load a located model, ready to encode: with OpenVINO on a CPU, in torch on a GPU and where OpenVINO cannot.

    `cache` keeps what OpenVINO compiled. Raises StartupError when the model's files do not fit together, are damaged
    or not what was downloaded; Stopped when `stop` is set while it is being converted.
    """
    if located.weights is None:
        return DummyEncoder()
    digest = sha256_file(located.weights)
    if located.digest != digest and not matches_digest(located.weights, located.digest):
        raise damaged_file_error(located.name, located.weights)
    holds = count_parameters(located.name, located.weights)
    reason = placement.needs_torch()
    if not reason:
        try:
            return _on_openvino(located, located.weights, digest, holds, cache, placement, stop)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            reason = f"OpenVINO cannot run it: {error}"
            log.warning("model %s: %s", located.name, reason)
    if placement.runtime == "openvino":
        raise StartupError(f"model {located.name} cannot run with OpenVINO: {reason}")
    needed = (
        memory_check.estimate_gpu_loading(holds)
        if reason == FOR_GPU
        else memory_check.estimate_torch(holds, placement.crew)
    )
    memory_check.check_memory(located.name, needed, placement.crew, "in torch")
    return _in_torch(located, located.weights, digest, cache, placement, reason)


def _on_openvino(
    located: LocatedModel,
    weights: Path,
    digest: str,
    holds: ParameterCount,
    cache: Path,
    placement: EncoderOptions,
    stop: threading.Event | None,
) -> Encoder:
    from app.encoder.conversion import ConversionSpec, is_converted, open_encoder
    from app.encoder.openvino import detect_precision

    precision = detect_precision() if placement.precision == "auto" else placement.precision
    recipe = ConversionSpec(
        located.name,
        located.architecture,
        str(weights),
        digest,
        located.preprocess,
        located.quick_gelu,
        half=precision != "fp32",
        cache=str(cache),
    )
    if not is_converted(recipe, cache):
        memory_check.check_memory(
            located.name, memory_check.estimate_conversion(holds, placement.crew), placement.crew, CONVERTING
        )
    memory_check.check_memory(
        located.name, memory_check.estimate_openvino(holds, placement.crew, precision), placement.crew, "to run"
    )
    return open_encoder(recipe, cache, precision, placement.threads, stop, bulk=placement.bulk)


def _in_torch(
    located: LocatedModel, weights: Path, digest: str, cache: Path, placement: EncoderOptions, reason: str
) -> Encoder:
    import torch  # here, not above: `colours`, OpenVINO and the client commands do without it

    from app.encoder import open_clip

    if placement.threads:
        torch.set_num_threads(placement.threads)
    device = open_clip.choose_device(placement.device)
    precision = open_clip.choose_precision(placement.precision, device)
    model = open_clip.build_model(
        located.name,
        located.architecture,
        weights,
        digest,
        preprocess=located.preprocess,
        quick_gelu=located.quick_gelu,
        cache=str(cache),
    )
    return open_clip.OpenClipEncoder(model, device, precision, reason)


def _folder(name: str, folder: Path, file: str = WEIGHTS) -> LocatedModel:
    weights = folder / file
    for path in (folder / CONFIG, weights):
        if not path.is_file():
            raise StartupError(f"model {name}: {path.name} is missing in {folder}")
    return LocatedModel(name, f"local-dir:{folder}", weights)


def _file(name: str) -> LocatedModel:
    architecture, _, path = name.partition(":")
    weights = Path(path)
    if weights.suffix != ".safetensors":
        raise StartupError(f"model {name}: weights must be a .safetensors file (other formats can run code)")
    if not weights.is_file():
        raise StartupError(f"model {name}: there is no file {weights}")
    _known(f"model {name}", architecture)
    return LocatedModel(name, architecture, weights)


def _known(name: str, architecture: str) -> None:
    if architecture not in list_architectures():
        hint = suggest_names(architecture, list_architectures())
        raise StartupError(f"{name}: open_clip knows no architecture {architecture!r}{hint}")


def _tag(name: str, cache: Path) -> LocatedModel:
    architecture, _, tag = name.partition("/")
    _known(f"unknown model {name!r}", architecture)
    said = find_pretrained(architecture, tag, cache)
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
    return LocatedModel(
        name, architecture, weights, preprocess, bool(config.get("quick_gelu")), expected_digest(weights)
    )


def _hub(name: str, cache: Path) -> LocatedModel:
    repository = name.removeprefix("hf-hub:")
    if fetch_file(name, repository, (CONFIG,), cache) is None:
        raise StartupError(f"model {name}: {repository} has no {CONFIG}; it is no model of open_clip")
    known = find_cached(repository, HUB_NAMES, cache)
    for extra in TOKENIZER:  # the weights come last: where they are, the hub has been asked for these, and a link says
        if known is None or (known.parent / extra).is_symlink():
            fetch_file(name, repository, (extra,), cache)
    weights = _weights(name, repository, HUB_NAMES, cache)
    for file in (CONFIG, *TOKENIZER):
        if (path := weights.parent / file).is_file() and not matches_digest(path, expected_digest(path)):
            raise damaged_file_error(name, path)
    return replace(_folder(name, weights.parent, weights.name), digest=expected_digest(weights))


def _weights(name: str, repository: str, names: tuple[str, ...], cache: Path) -> Path:
    weights = fetch_file(name, repository, names, cache)
    if weights is None:
        raise StartupError(f"model {name}: {repository} has no safetensors weights; other formats are not read")
    return weights
