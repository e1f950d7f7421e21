"""Find the files of a model by its name, and load it.

Weights are read from safetensors files only; a pickle can run code.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from app.core.errors import StartupError
from app.core.files import sha256_file
from app.core.settings import Settings
from app.encoder.catalogue import resolve_alias, suggest_names
from app.encoder.dummy import DummyEncoder
from app.encoder.hub import (
    LoadProgress,
    damaged_file_error,
    ensure_downloaded,
    expected_digest,
    find_cached,
    matches_digest,
)
from app.encoder.memory_check import (
    CONVERTING,
    NO_PROCESSES,
    ModelProcesses,
    check_memory,
    estimate_conversion,
    estimate_gpu_loading,
    estimate_openvino,
    estimate_torch,
)
from app.encoder.pretrained import find_architecture, find_pretrained, has_torch, list_architectures, require_torch
from app.encoder.protocol import Encoder
from app.encoder.weights import LocatedModel, ParameterCount, count_parameters

log = logging.getLogger(__name__)

GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # of Linux, and of WSL
ON_GPU = "for a GPU"
STARTER = Path(__file__).parent / "starter"
WEIGHTS = "open_clip_model.safetensors"
HUB_NAMES = (WEIGHTS, "open_clip_pytorch_model.safetensors", "model.safetensors")
CONFIG = "open_clip_config.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
CAPTIONER = "open_clip:"  # before the name of a model that writes captions
PREPROCESS = ("mean", "std", "interpolation", "resize_mode", "fill_color", "size")


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """Where and how to run an encoder; see Settings. Before it is loaded, the memory for all `processes` is checked."""

    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    threads: int = 0
    processes: ModelProcesses = NO_PROCESSES
    bulk: bool = False  # optimise for many pictures, not for one query

    @classmethod
    def of(cls, settings: Settings, processes: ModelProcesses, *, bulk: bool = False) -> Self:
        """As set; `processes` are ignored where the memory is not to be checked."""
        known = NO_PROCESSES if settings.ignore_memory else processes
        return cls(settings.device, settings.precision, settings.runtime, settings.threads, known, bulk)

    def reason_for_torch(self) -> str:
        """Why torch must run the model; empty if OpenVINO can. Raises StartupError for int8 where OpenVINO may not."""
        if self.precision == "int8":
            if self.runtime == "torch" or self.device.startswith("cuda"):
                raise StartupError("int8 runs on a CPU, in OpenVINO: set neither another device nor another runtime")
            return ""
        if self.runtime == "torch":
            return "as set"
        if self.device.startswith("cuda") or (self.device == "auto" and has_gpu()):
            return ON_GPU
        return "" if self.precision in ("auto", "fp32", "bf16") else f"for {self.precision}"


def has_gpu() -> bool:
    """Whether torch can use a GPU. Imports torch only if the system has such a device."""
    if not any(path.exists() for path in GPU_DEVICES) or not has_torch():
        return False
    import torch

    return bool(torch.cuda.is_available())


def is_on_hub(name: str) -> bool:
    """Whether a name stands for a model of the hub. Its files may be in the cache already."""
    name = resolve_alias(name)
    return name.startswith("hf-hub:") or ("/" in name and ":" not in name)


def check_model_name(name: str, cache: Path) -> None:
    """Raise StartupError if this machine alone can tell that there is no such model. Asks nobody."""
    name = resolve_alias(name)
    if not is_on_hub(name):
        locate_model(name, cache)
    elif not name.startswith("hf-hub:"):
        _require_architecture(f"unknown model {name!r}", name.partition("/")[0])


def find_captioner_name(captioner: str) -> str:
    """The loader's name of `open_clip:ARCHITECTURE/TAG_OR_PATH`. Raises StartupError if that is no CoCa, and without
    torch."""
    require_torch(captioner)
    name = captioner.removeprefix(CAPTIONER)
    if name.startswith(("local-dir:", "hf-hub:")):
        return name
    architecture, _, place = name.replace(":", "/", 1).partition("/")
    if not architecture.lower().startswith("coca_"):
        raise StartupError(f"captioner {captioner}: only a CoCa of open_clip writes captions (coca_ViT-L-14/TAG)")
    if (folder := Path(place)).is_absolute() and folder.is_dir():
        place = next(
            (str(folder / file) for file in HUB_NAMES if (folder / file).is_file()), str(folder / HUB_NAMES[0])
        )
    is_file = Path(place).suffix or Path(place).is_absolute()
    return f"{architecture}{':' if is_file else '/'}{place}"


def locate_model(name: str, cache: Path, progress: LoadProgress | None = None) -> LocatedModel:
    """Find the files of a model; downloads them into `cache` if needed.

    Raises StartupError, which says what to do, if there is no such model or a file is missing; StopRequested.
    """
    name = resolve_alias(name)
    if name == "colours":
        return LocatedModel(name, name)
    if name == "starter":
        return _locate_folder(name, STARTER)
    if name.startswith("local-dir:"):
        return _locate_folder(name, Path(name.removeprefix("local-dir:")))
    if name.startswith("hf-hub:"):
        return _locate_on_hub(name, cache, progress)
    if ":" in name:
        return _locate_file(name)
    if "/" in name:
        return _locate_tag(name, cache, progress)
    hint = suggest_names(name, []) or ";"
    raise StartupError(f"unknown model {name!r}{hint} `sightline models` lists the models")


def load_encoder(
    name: str, cache: Path, options: EncoderOptions | None = None, progress: LoadProgress | None = None
) -> Encoder:
    """Locate and load a model. Raises StartupError if that is impossible."""
    return load_located(locate_model(name, cache, progress), cache, options or EncoderOptions(), progress)


def load_located(
    located: LocatedModel, cache: Path, options: EncoderOptions, progress: LoadProgress | None = None
) -> Encoder:
    """Load a located model: in OpenVINO on a CPU, in torch on a GPU and where OpenVINO cannot run it.

    `cache` keeps the converted model. Raises StartupError if the files do not fit together, are damaged or altered;
    StopRequested if `progress.stop` is set during a conversion.
    """
    if located.name == "colours":
        return DummyEncoder()
    digest = check_weights(located)
    size = count_parameters(located.name, located.weights)
    reason = options.reason_for_torch()
    spec = replace(located, digest=digest, cache=str(cache))
    if not reason:
        try:
            return _load_in_openvino(spec, size, cache, options, progress or LoadProgress())
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            reason = f"OpenVINO cannot run it: {error}"
            log.warning("model %s: %s", located.name, reason)
    if options.runtime == "openvino":
        raise StartupError(f"model {located.name} cannot run with OpenVINO: {reason}")
    processes = options.processes
    need = estimate_gpu_loading(size) if reason == ON_GPU else estimate_torch(size, processes)
    check_memory(located.name, need, processes, "in torch")
    return _load_in_torch(spec, options, reason)


def check_weights(located: LocatedModel) -> str:
    """The SHA-256 of the weights. Raises StartupError where the hub says another one."""
    digest = sha256_file(located.weights)
    if located.digest != digest and not matches_digest(located.weights, located.digest):
        raise damaged_file_error(located.name, located.weights)
    return digest


def estimate_memory(located: LocatedModel, cache: Path, options: EncoderOptions) -> int:
    """Least bytes of memory for all processes of `options` to load a located model. Raises StartupError."""
    if located.name == "colours":
        return 0
    size = count_parameters(located.name, located.weights)
    reason = options.reason_for_torch()
    if reason:
        return estimate_gpu_loading(size) if reason == ON_GPU else estimate_torch(size, options.processes)
    from app.encoder.openvino import detect_precision

    precision = detect_precision() if options.precision == "auto" else options.precision
    running = estimate_openvino(size, options.processes, precision)
    return max(running, estimate_conversion(size, options.processes))


def read_width(located: LocatedModel) -> int | None:
    """The number of dimensions that the configuration of a located model states; None if it states none."""
    if located.name == "colours":
        return DummyEncoder().space.d
    folder = located.folder
    path = folder / CONFIG if folder else find_architecture(located.architecture)
    try:
        config = json.loads(path.read_text("utf-8")) if path else {}
        return int(config.get("model_cfg", config)["embed_dim"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_trained_widths(name: str, cache: Path) -> tuple[int, ...]:
    """To how many dimensions the vectors of a model may be cut, because it was trained for that (Matryoshka): the
    `matryoshka_dimensions` of its configuration. Asks nobody."""
    if name.startswith("local-dir:"):
        path: Path | None = Path(name.removeprefix("local-dir:")) / CONFIG
    else:
        path = find_cached(name.removeprefix("hf-hub:"), (CONFIG,), cache) if name.startswith("hf-hub:") else None
    try:
        config = json.loads(path.read_text("utf-8")) if path else {}
        return tuple(sorted(int(width) for width in config.get("matryoshka_dimensions", ()) if int(width) > 0))
    except (OSError, ValueError, TypeError, AttributeError):
        return ()


def _load_in_openvino(
    spec: LocatedModel, size: ParameterCount, cache: Path, options: EncoderOptions, progress: LoadProgress
) -> Encoder:
    from app.encoder.conversion import choose_precision, is_converted, open_encoder

    precision = choose_precision(spec, options.precision)
    spec = replace(spec, half=precision != "fp32")
    if not is_converted(spec, cache, precision):
        check_memory(spec.name, estimate_conversion(size, options.processes), options.processes, CONVERTING)
        progress.words = "converting it for this processor, once"
    check_memory(spec.name, estimate_openvino(size, options.processes, precision), options.processes, "to run")
    return open_encoder(spec, cache, precision, options.threads, progress.stop, bulk=options.bulk)


def _load_in_torch(spec: LocatedModel, options: EncoderOptions, reason: str) -> Encoder:
    require_torch(spec.name)
    import torch  # here, because `colours`, OpenVINO and the client commands work without it

    from app.encoder import open_clip

    if options.threads:
        torch.set_num_threads(options.threads)
    device = open_clip.choose_device(options.device)
    precision = open_clip.choose_precision(options.precision, device)
    return open_clip.OpenClipEncoder(open_clip.build_model(spec), device, precision, reason)


def _locate_folder(name: str, folder: Path, file: str = WEIGHTS) -> LocatedModel:
    weights = folder / file
    for path in (folder / CONFIG, weights):
        if not path.is_file():
            raise StartupError(f"model {name}: {path.name} is missing in {folder}")
    return LocatedModel(name, f"local-dir:{folder}", weights)


def _locate_file(name: str) -> LocatedModel:
    architecture, _, path = name.partition(":")
    weights = Path(path)
    if weights.suffix != ".safetensors":
        raise StartupError(f"model {name}: weights must be a .safetensors file; other formats can run code")
    if not weights.is_file():
        raise StartupError(f"model {name}: there is no file {weights}")
    _require_architecture(f"model {name}", architecture)
    return LocatedModel(name, architecture, weights)


def _require_architecture(name: str, architecture: str) -> None:
    require_torch(name.split()[-1].strip("'"))
    if architecture not in list_architectures():
        hint = suggest_names(architecture, list_architectures())
        raise StartupError(f"{name}: open_clip knows no architecture {architecture!r}{hint}")


def _locate_tag(name: str, cache: Path, progress: LoadProgress | None) -> LocatedModel:
    architecture, _, tag = name.partition("/")
    _require_architecture(f"unknown model {name!r}", architecture)
    pretrained = find_pretrained(architecture, tag, cache)
    if (config := pretrained.config) is None:
        tags = ", ".join(pretrained.tags) or "none"
        raise StartupError(f"unknown model {name!r}: the tags of {architecture} are {tags}")
    repository = str(config.get("hf_hub") or "").rstrip("/")
    if not repository:
        raise StartupError(f"model {name} has no safetensors on the hub; choose one of `sightline models`")
    if len(repository.split("/")) > 2:  # org/repo/file: the tag names one file of its repository
        repository, _, file = repository.rpartition("/")
        names: tuple[str, ...] = (str(Path(file).with_suffix(".safetensors")),)
    else:
        names = HUB_NAMES
    preprocess = {key: config[key] for key in PREPROCESS if config.get(key) is not None}
    weights = _fetch_weights(name, repository, names, cache, progress)
    quick_gelu = bool(config.get("quick_gelu"))
    return LocatedModel(name, architecture, weights, expected_digest(weights), preprocess, quick_gelu)


def _locate_on_hub(name: str, cache: Path, progress: LoadProgress | None) -> LocatedModel:
    repository = name.removeprefix("hf-hub:")
    if ensure_downloaded(name, repository, (CONFIG,), cache, progress) is None:
        raise StartupError(f"model {name}: {repository} has no {CONFIG}; it is no open_clip model")
    downloaded = find_cached(repository, HUB_NAMES, cache)
    # The weights come last: if they are in the cache, the hub was asked for the tokenizer, and its files are links.
    for extra in TOKENIZER:
        if downloaded is None or (downloaded.parent / extra).is_symlink():
            ensure_downloaded(name, repository, (extra,), cache, progress)
    weights = _fetch_weights(name, repository, HUB_NAMES, cache, progress)
    for file in (CONFIG, *TOKENIZER):
        if (path := weights.parent / file).is_file() and not matches_digest(path, expected_digest(path)):
            raise damaged_file_error(name, path)
    return replace(_locate_folder(name, weights.parent, weights.name), digest=expected_digest(weights))


def _fetch_weights(
    name: str, repository: str, names: tuple[str, ...], cache: Path, progress: LoadProgress | None
) -> Path:
    weights = ensure_downloaded(name, repository, names, cache, progress)
    if weights is None:
        raise StartupError(f"model {name}: {repository} has no safetensors weights; other formats are not read")
    return weights
