"""Which models there are, where their files come from, and how one is loaded.

Weights are only ever read from safetensors files: a pickle can run code.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.encoder.catalogue import full_name, nearest
from app.encoder.colours import ColoursEncoder
from app.encoder.protocol import Encoder
from app.errors import StartupError

log = logging.getLogger(__name__)

GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # Linux's own, and that of Windows below it
STARTER = Path(__file__).parent / "starter"
WEIGHTS = "open_clip_model.safetensors"
HUB_NAMES = (WEIGHTS, "open_clip_pytorch_model.safetensors", "model.safetensors")
HUB_SECONDS = 10.0  # for the hub to answer at all
PREPROCESS = ("mean", "std", "interpolation", "resize_mode", "fill_color", "size")


@dataclass(frozen=True, slots=True)
class Located:
    """A model whose files are all on this machine."""

    name: str
    architecture: str
    weights: Path | None
    preprocess: dict[str, Any] | None = None
    quick_gelu: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how an encoder is to run; see Settings for the meaning of each."""

    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    threads: int = 0

    def needs_torch(self) -> str:
        """Why torch must run the model; empty when OpenVINO can."""
        if self.runtime == "torch":
            return "as asked"
        if self.device.startswith("cuda") or (self.device == "auto" and gpu_present()):
            return "for a GPU"
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
    name: str, cache: Path, *, device: str = "auto", precision: str = "auto", runtime: str = "auto", threads: int = 0
) -> Encoder:
    """Locate and load a model, ready to encode. Raises StartupError when that is impossible."""
    return load_located(locate(name, cache), cache, Placement(device, precision, runtime, threads))


def load_located(located: Located, cache: Path, placement: Placement) -> Encoder:
    """Load a located model, ready to encode: with OpenVINO on a CPU, in torch on a GPU and where OpenVINO cannot.

    `cache` keeps what OpenVINO compiled. Raises StartupError when the model's files do not fit together.
    """
    if located.weights is None:
        return ColoursEncoder()
    reason = placement.needs_torch()
    if not reason:
        try:
            return _on_openvino(located, located.weights, cache, placement)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            reason = f"OpenVINO cannot run it: {error}"
            log.warning("model %s: %s", located.name, reason)
    if placement.runtime == "openvino":
        raise StartupError(f"model {located.name} cannot run with OpenVINO: {reason}")
    return _in_torch(located, located.weights, cache, placement, reason)


def _on_openvino(located: Located, weights: Path, cache: Path, placement: Placement) -> Encoder:
    from app.encoder.conversion import Recipe, opened
    from app.encoder.openvino import native_precision

    precision = native_precision() if placement.precision == "auto" else placement.precision
    recipe = Recipe(
        located.name,
        located.architecture,
        str(weights),
        file_digest(weights),
        located.preprocess,
        located.quick_gelu,
        half=precision != "fp32",
        cache=str(cache),
    )
    return opened(recipe, cache, precision, placement.threads)


def _in_torch(located: Located, weights: Path, cache: Path, placement: Placement, reason: str) -> Encoder:
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
        file_digest(weights),
        preprocess=located.preprocess,
        quick_gelu=located.quick_gelu,
        cache=str(cache),
    )
    return open_clip.OpenClipEncoder(model, device, precision, reason)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(name: str, folder: Path) -> Located:
    weights = folder / WEIGHTS
    for path in (folder / "open_clip_config.json", weights):
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
    import open_clip

    if architecture not in open_clip.list_models():
        hint = nearest(architecture, open_clip.list_models())
        raise StartupError(f"model {name}: open_clip knows no architecture {architecture!r}{hint}")
    return Located(name, architecture, weights)


def _tag(name: str, cache: Path) -> Located:
    import open_clip

    architecture, _, tag = name.partition("/")
    if architecture not in open_clip.list_models():
        hint = nearest(architecture, open_clip.list_models())
        raise StartupError(f"unknown model {name!r}: open_clip knows no architecture {architecture!r}{hint}")
    config = open_clip.get_pretrained_cfg(architecture, tag)
    if not config:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
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
    return Located(
        name, architecture, _download(name, repository, names, cache), preprocess, bool(config.get("quick_gelu"))
    )


def _hub(name: str, cache: Path) -> Located:
    repository = name.removeprefix("hf-hub:")
    weights = _download(name, repository, HUB_NAMES, cache)
    for extra in ("open_clip_config.json", "tokenizer.json", "tokenizer_config.json"):
        try:
            _download(name, repository, (extra,), cache)
        except StartupError:
            if extra == "open_clip_config.json":
                raise
    return Located(name, f"local-dir:{weights.parent}", weights)


def _download(name: str, repository: str, files: tuple[str, ...], cache: Path) -> Path:
    """The first of `files` that the repository has, from the cache or the hub."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in files:
        with suppress(LocalEntryNotFoundError):
            return Path(hf_hub_download(repository, file, cache_dir=cache, local_files_only=True))
    log.info("looking for the weights of %s", name)
    reached = True
    for file in files:
        try:
            get_hf_file_metadata(hf_hub_url(repository, file), timeout=HUB_SECONDS)  # a download tries on and on
            return Path(hf_hub_download(repository, file, cache_dir=cache))
        except EntryNotFoundError:
            continue
        except Exception:  # whatever the hub's client raises, the person needs the same advice
            reached = False
            break
    if reached:
        raise StartupError(f"model {name}: {repository} has no safetensors weights; other formats are not read")
    raise StartupError(
        f"model {name}: the weights cannot be downloaded; connect to the model hub once, or use a local file with"
        f" --model NAME:FILE.safetensors, or --model starter"
    )
