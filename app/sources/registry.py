"""The kinds of source, by the word before the colon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from app.core.errors import Validation, translated
from app.core.types import Asked
from app.sources.base import Allowed, Kind, Line, Stopping, Tools
from app.sources.clip_retrieval import ClipRetrieval
from app.sources.folder import Folder
from app.sources.img2dataset import Img2dataset
from app.sources.object_store import Bucket, GoogleBucket
from app.sources.table import Table
from app.sources.urls import Urls
from app.sources.webdataset import Webdataset
from app.storage.blobs import discard
from app.storage.manifest import FETCHED, write_manifest

KINDS: dict[str, type[Kind]] = {
    "urls": Urls,
    "folder": Folder,
    "webdataset": Webdataset,
    "table": Table,
    "s3": Bucket,
    "gs": GoogleBucket,
    "clip-retrieval": ClipRetrieval,
    "img2dataset": Img2dataset,
}
FORMS = ", ".join(kind.FORM for kind in KINDS.values())


def asked_of(source: str, options: Mapping[str, Any], allowed: Allowed) -> Asked:
    """What a request asks for, checked. Raises Validation, UrlNotAllowed."""
    word, _, place = source.partition(":")
    kind = KINDS.get(word)
    if kind is None:
        raise Validation(f"source must be one of: {FORMS}")
    if wrong := sorted(options.keys() - kind.TAKES):
        raise Validation(f"{wrong[0]} does not belong to the source {kind.FORM}")
    return kind.checked(Asked(word, place, dict(options)), allowed)


def opened(asked: Asked, tools: Tools) -> Kind:
    """What reads the source."""
    return KINDS[asked.kind](asked, tools)


def never() -> bool:
    """For who is not to be stopped."""
    return False


class Gathering:
    """Writes the manifests of sources, and brings what they name, part by part."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def open(self, asked: Asked) -> Kind:
        """What reads a source; the caller closes it."""
        return opened(asked, self._tools)

    def scan(self, kind: Kind, folder: Path, collection: str, stopping: Stopping = never) -> None:
        """Write the manifest of `folder`, whole or not at all. Raises what the kind does."""
        write_manifest(folder, kind.scan(folder, collection, stopping))

    def bring(self, kind: Kind, folder: Path, lines: Sequence[Line], stopping: Stopping = never) -> list[Line]:
        """The lines, each with its `file` in `folder`, or with an `error`. Raises Overloaded when it is `stopping`."""
        target = folder / FETCHED
        discard(target)
        with translated():
            target.mkdir()
        wanted = [line for line in lines if not line.get("error")]
        came = iter(kind.bring(target, wanted, stopping) if wanted else ())
        return [line if line.get("error") else next(came) for line in lines]

    def done(self, folder: Path) -> None:
        """Remove what was brought; what was taken in has a name of its own."""
        discard(folder / FETCHED)


def write_list(folder: Path, items: Iterable[Line], most: int) -> int:
    """Write what a worker is to fetch as the manifest of `folder`, durably; returns how many items there are.

    Each has a `name` and a `url`. Raises Validation for none, and for more than `most`.
    """
    count = write_manifest(folder, islice(items, most + 1))
    if not 1 <= count <= most:
        raise Validation(f"send 1 to {most} URLs" + ("" if count else ", got none"))
    return count
