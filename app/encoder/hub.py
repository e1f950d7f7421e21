"""Files of the model hub: fetched once, when a model that was asked for needs them, and held to the hub's digests."""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.errors import StartupError
from app.core.locks import hold_lock
from app.encoder.weights import sha256_file

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0  # for the hub to answer at all
TELL_SECONDS = 10.0  # between two lines about a download, where there is no terminal for a bar
SPARE = 64 << 20  # bytes of the disk that a download leaves to everything else
SHA256, BLOB = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")


def disable_hf_telemetry() -> None:
    """Have the hub's client say nothing about this machine: left alone it asks the hub which tools to report."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


def find_cached(repository: str, files: tuple[str, ...], cache: Path) -> Path | None:
    """The first of `files` that was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    for file in files:
        if isinstance(found := try_to_load_from_cache(repository, file, cache_dir=cache), str):
            return Path(found)
    return None


def fetch_file(name: str, repository: str, files: tuple[str, ...], cache: Path) -> Path | None:
    """The first of `files` that the repository has, from `cache` or else the hub; None when it has none of them.

    Raises StartupError when it cannot be had, or is not what the hub said it is.
    """
    from huggingface_hub.errors import EntryNotFoundError

    if (found := find_cached(repository, files, cache)) is not None:
        return found
    disable_hf_telemetry()
    log.info("looking for %s of %s on the model hub", " or ".join(files), repository)
    for file in files:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with hold_lock(cache / "downloads.lock"):
                return find_cached(repository, (file,), cache) or _download(name, repository, file, cache)
        except EntryNotFoundError:
            continue
        except StartupError:
            raise
        except Exception as error:  # whatever the hub's client raises, the person needs advice
            raise StartupError(f"model {name}: {_advice(error, repository, file)}") from error
    return None


def expected_digest(path: Path) -> str:
    """The digest that the hub gave for a downloaded file, by which the cache names it; empty when it is not known."""
    return path.readlink().name if path.is_symlink() else ""


def matches_digest(path: Path, digest: str) -> bool:
    """Whether a file still has its digest: SHA-256, or that of git for small files. Any other cannot be checked."""
    if SHA256.fullmatch(digest):
        return sha256_file(path) == digest
    if BLOB.fullmatch(digest):
        sha1 = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        sha1.update(path.read_bytes())
        return sha1.hexdigest() == digest
    return True


def damaged_file_error(name: str, path: Path) -> StartupError:
    """What to say of a file that is no longer what was downloaded."""
    return StartupError(
        f"model {name}: {path.name} is damaged or was altered since it was downloaded; delete {path.resolve()}, and"
        " the next start downloads it again"
    )


def _download(name: str, repository: str, file: str, cache: Path) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    # Asked here as well: a download of one that does not answer tries on and on.
    said = get_hf_file_metadata(hf_hub_url(repository, file), timeout=ANSWER_SECONDS)
    _clear(cache)
    _need_space(name, file, said, cache)
    log.info("downloading %s of %s, %s, into %s", file, repository, _size(said.size), cache)
    path = Path(hf_hub_download(repository, file, cache_dir=cache, tqdm_class=_progress(file)))
    digest = expected_digest(path) or said.etag or ""
    if not matches_digest(path, digest):
        path.resolve().unlink()
        raise StartupError(
            f"model {name}: what came as {file} is not what the hub promised (its digest is not {digest[:12]}…); it was"
            " deleted, try again"
        )
    if SHA256.fullmatch(digest) or BLOB.fullmatch(digest):
        log.info("downloaded %s; its digest is the hub's", file)
    else:
        log.warning("downloaded %s; the hub gives no digest for it, only its size was checked", file)
    return path


def _clear(cache: Path) -> None:
    """Remove what killed downloads left: the hub's client begins anew each time. Only under the lock."""
    for left in cache.glob("models--*/blobs/*.incomplete"):
        left.unlink(missing_ok=True)


def _need_space(name: str, file: str, said: HfFileMetadata, cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if said.size is not None and free < said.size + SPARE:
        raise StartupError(
            f"model {name}: {file} has {_size(said.size)}, but {cache} has only {_size(free)} free; free some space, or"
            " choose a smaller model"
        )


def _progress(file: str) -> Any:
    """The hub's progress bar, which shows itself on a terminal only; elsewhere a line is logged now and then."""
    from huggingface_hub.utils.tqdm import tqdm

    class Progress(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
            self.done, self.whole = int(kwargs.get("initial") or 0), kwargs.get("total")
            self.told = time.monotonic()

        def update(self, n: float | None = 1) -> bool | None:
            self.done += int(n or 0)
            if self.disable and time.monotonic() - self.told >= TELL_SECONDS:
                self.told = time.monotonic()
                log.info("downloading %s: %s of %s", file, _size(self.done), _size(self.whole))
            shown: bool | None = super().update(n)
            return shown

    return Progress


def _advice(error: Exception, repository: str, file: str) -> str:
    """What went wrong and what to do, in one line."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return f"{repository} is given only to who accepted its terms on the hub; do so, and set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no repository {repository}, or shows it only to its members (set HF_TOKEN then)"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{file} cannot be downloaded: the disk is full; free some space, or choose a smaller model"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{file} cannot be downloaded: {error.filename} cannot be written"
    why = (str(error).splitlines() or [""])[0][:100] or type(error).__name__
    return (
        f"{file} cannot be downloaded ({why}); connect to the model hub once, or use a local file with"
        " --model NAME:FILE.safetensors, or --model starter"
    )


def _size(count: int | None) -> str:
    if count is None:
        return "of unknown size"
    return f"{count / 1e6:.1f} MB" if count < 1e8 else f"{count / 1e6:.0f} MB"
