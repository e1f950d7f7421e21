"""Files of the model hub: downloaded once, when a model needs them, and verified by the digests of the hub."""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.errors import StartupError
from app.core.files import sha256_file
from app.core.locks import StopRequested, hold_lock

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

log = logging.getLogger(__name__)

RESPONSE_SECONDS = 10.0  # for the first response of the hub
LOG_SECONDS = 10.0  # between two log lines about a download, where no terminal shows a bar
SPARE_BYTES = 64 << 20  # of the disk, which a download must leave free
SHA256, GIT_SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")
PARTIAL = "partial"  # the folder of downloads that are not whole yet
PARTIAL_DAYS = 7.0  # that a part is kept


@dataclass(slots=True)
class LoadProgress:
    """What the loading of a model is at, in `words` that another thread may read. It ends soon after `stop` is set.

    `before_fetch` is called before the hub is asked for anything, and may raise StartupError.
    """

    before_fetch: Callable[[], None] = lambda: None
    words: str = ""
    stop: threading.Event = field(default_factory=threading.Event)


def disable_hf_telemetry() -> None:
    """Keep the client of the hub from sending facts about this machine."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True


def find_cached(repository: str, files: tuple[str, ...], cache: Path) -> Path | None:
    """The first of `files` that is in the cache."""
    from huggingface_hub import try_to_load_from_cache

    for file in files:
        if isinstance(found := try_to_load_from_cache(repository, file, cache_dir=cache), str):
            return Path(found)
    return None


def ensure_downloaded(
    name: str, repository: str, files: tuple[str, ...], cache: Path, progress: LoadProgress | None = None
) -> Path | None:
    """The first of `files` that the repository has, from `cache` or the hub; None if it has none of them.

    Raises StartupError if the download fails or has another digest than the hub says; StopRequested.
    """
    from huggingface_hub.errors import EntryNotFoundError

    if (found := find_cached(repository, files, cache)) is not None:
        return found
    progress = progress or LoadProgress()
    progress.before_fetch()
    disable_hf_telemetry()
    progress.words = f"looking for {files[0]} on the model hub"
    log.info("looking for %s of %s on the model hub", " or ".join(files), repository)
    for file in files:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with hold_lock(cache / "downloads.lock", progress.stop):
                return find_cached(repository, (file,), cache) or _download(name, repository, file, cache, progress)
        except EntryNotFoundError:
            continue
        except (StartupError, StopRequested):
            raise
        except Exception as error:  # the client of the hub raises many kinds
            raise StartupError(f"model {name}: {_explain_error(error, repository, file)}") from error
    return None


def expected_digest(path: Path) -> str:
    """The digest of the hub for a downloaded file, which is its name in the cache; empty if unknown."""
    return path.readlink().name if path.is_symlink() else ""


def matches_digest(path: Path, digest: str) -> bool:
    """Whether a file has this digest, a SHA-256 or git's SHA-1 for small files. Any other digest is not checked."""
    if SHA256.fullmatch(digest):
        return sha256_file(path) == digest
    if GIT_SHA1.fullmatch(digest):
        sha1 = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        sha1.update(path.read_bytes())
        return sha1.hexdigest() == digest
    return True


def damaged_file_error(name: str, path: Path) -> StartupError:
    return StartupError(
        f"model {name}: {path.name} is damaged or was altered since it was downloaded; delete {path.resolve()}, and"
        " the next start downloads it again"
    )


def _download(name: str, repository: str, file: str, cache: Path, progress: LoadProgress) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    # Asked here with a timeout, because a download from a hub that does not respond never ends.
    url = hf_hub_url(repository, file)
    metadata = get_hf_file_metadata(url, timeout=RESPONSE_SECONDS)
    digest = metadata.etag or ""
    has_digest = bool(SHA256.fullmatch(digest) or GIT_SHA1.fullmatch(digest))
    if has_digest:
        _fetch_blob(name, repository, file, url, metadata, cache, progress)
    else:
        _require_space(name, file, metadata, cache)
    # It finds the bytes in their place, unless the hub gave no digest to know them by.
    path = Path(hf_hub_download(repository, file, cache_dir=cache, tqdm_class=_make_progress(file, progress)))
    if has_digest:
        log.info("downloaded %s and verified its digest", file)
    else:
        log.warning("downloaded %s; the hub has no digest of it, so only its size was checked", file)
    return path


def _fetch_blob(
    name: str, repository: str, file: str, url: str, metadata: HfFileMetadata, cache: Path, progress: LoadProgress
) -> None:
    """Put the bytes of a file where the client of the hub keeps them; goes on with what a killed download has left.

    The client itself begins every download anew. The caller holds the lock of the cache.
    """
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils._headers import build_hf_headers

    digest = metadata.etag or ""
    blob = cache / repo_folder_name(repo_id=repository, repo_type="model") / "blobs" / digest
    partial = cache / PARTIAL / digest
    _remove_leftovers(cache)
    for folder in (blob.parent, partial.parent):
        folder.mkdir(parents=True, exist_ok=True)
    have = partial.stat().st_size if partial.exists() else 0
    for start in dict.fromkeys((have if have <= (metadata.size or 0) else 0, 0)):
        _require_space(name, file, metadata, cache, start)
        size = format_size(metadata.size)
        log.info("downloading %s of %s, %s, into %s%s", file, repository, size, cache, f", from {start}" * bool(start))
        with open(partial, "ab") as bytes_so_far:
            bytes_so_far.truncate(start)
            http_get(
                url,
                bytes_so_far,
                resume_size=start,
                headers=build_hf_headers(),
                expected_size=metadata.size,
                displayed_filename=file,
                tqdm_class=_make_progress(file, progress),
            )
        if matches_digest(partial, digest):
            partial.replace(blob)
            return
        partial.unlink()
        if start:
            log.warning("%s has another digest than the hub says: downloading it again, from its beginning", file)
    raise StartupError(
        f"model {name}: the download of {file} has another digest than the hub says ({digest[:12]}…) and was"
        " deleted; try again"
    )


def _remove_leftovers(cache: Path) -> None:
    """Remove the parts that nobody has gone on with, and those of the client, which it never resumes.

    The caller holds the lock.
    """
    old = time.time() - PARTIAL_DAYS * 24 * 3600
    for partial in cache.glob("models--*/blobs/*.incomplete"):
        partial.unlink(missing_ok=True)
    for partial in (cache / PARTIAL).glob("*"):
        if partial.stat().st_mtime < old:
            partial.unlink()


def _require_space(name: str, file: str, metadata: HfFileMetadata, cache: Path, have: int = 0) -> None:
    free = shutil.disk_usage(cache).free
    if metadata.size is not None and free < metadata.size - have + SPARE_BYTES:
        raise StartupError(
            f"model {name}: {file} has {format_size(metadata.size)}, but {cache} has only {format_size(free)};"
            " free some space, or choose a smaller model"
        )


def _make_progress(file: str, progress: LoadProgress) -> Any:
    """The progress bar of the hub's client, which also tells `progress`, and logs a line now and then where no terminal
    shows it."""
    from huggingface_hub.utils.tqdm import tqdm

    class Progress(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
            self.done, self.total_bytes = int(kwargs.get("initial") or 0), kwargs.get("total")
            self.logged_at = time.monotonic()

        def update(self, n: float | None = 1) -> bool | None:
            if progress.stop.is_set():
                raise StopRequested
            self.done += int(n or 0)
            progress.words = f"downloading {self.done / 1e6:.0f} of {(self.total_bytes or 0) / 1e6:.0f} MB"
            if self.disable and time.monotonic() - self.logged_at >= LOG_SECONDS:
                self.logged_at = time.monotonic()
                log.info("downloading %s: %s of %s", file, format_size(self.done), format_size(self.total_bytes))
            shown: bool | None = super().update(n)
            return shown

    return Progress


def _explain_error(error: Exception, repository: str, file: str) -> str:
    """One line: what went wrong, and what to do."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return f"{repository} requires that you accept its terms on the hub; do so, and set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no repository {repository}, or it is private; for a private one set HF_TOKEN"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{file} cannot be downloaded: the disk is full; free some space, or choose a smaller model"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{file} cannot be downloaded: {error.filename} cannot be written"
    if isinstance(error, OSError) and error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
        return (
            f"{file} cannot be downloaded: the folder of models cannot be used ({error.strerror}); name one on a local"
            " disk with SIGHTLINE_MODELS_DIR"
        )
    reason = (str(error).splitlines() or [""])[0][:100] or type(error).__name__
    return (
        f"{file} cannot be downloaded ({reason}); connect to the model hub once, or use a local file with"
        " --model NAME:FILE.safetensors, or --model starter"
    )


def format_size(count: int | None) -> str:
    if count is None:
        return "of unknown size"
    return f"{count / 1e6:.1f} MB" if count < 1e8 else f"{count / 1e6:.0f} MB"
