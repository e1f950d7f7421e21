"""The kinds of source, by the word before the colon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from app.core.errors import Validation, map_os_errors
from app.core.types import SourceSpec
from app.sources.base import ShouldStop, Source, SourceContext, SourceItem, SourcePolicy
from app.sources.clip_retrieval import ClipRetrievalSource
from app.sources.folder import FolderSource
from app.sources.img2dataset import Img2datasetSource
from app.sources.object_store import BucketSource, GoogleBucketSource
from app.sources.table import TableSource
from app.sources.urls import UrlSource
from app.sources.webdataset import WebdatasetSource
from app.storage.blobs import remove_path
from app.storage.manifest import FETCHED_DIR, write_manifest

SOURCE_TYPES: dict[str, type[Source]] = {
    "urls": UrlSource,
    "folder": FolderSource,
    "webdataset": WebdatasetSource,
    "table": TableSource,
    "s3": BucketSource,
    "gs": GoogleBucketSource,
    "clip-retrieval": ClipRetrievalSource,
    "img2dataset": Img2datasetSource,
}
SOURCE_FORMS = ", ".join(kind.FORM for kind in SOURCE_TYPES.values())


def parse_source(source: str, options: Mapping[str, Any], allowed: SourcePolicy) -> SourceSpec:
    """What a request asks for, checked. Raises Validation, UrlNotAllowed."""
    word, _, place = source.partition(":")
    kind = SOURCE_TYPES.get(word)
    if kind is None:
        raise Validation(f"source must be one of: {SOURCE_FORMS}")
    if wrong := sorted(options.keys() - kind.TAKES):
        raise Validation(f"{wrong[0]} does not belong to the source {kind.FORM}")
    return kind.checked(SourceSpec(word, place, dict(options)), allowed)


def open_source(asked: SourceSpec, tools: SourceContext) -> Source:
    """What reads the source."""
    return SOURCE_TYPES[asked.kind](asked, tools)


def never_stop() -> bool:
    """For who is not to be stopped."""
    return False


class SourceReader:
    """Writes the manifests of sources, and brings what they name, part by part."""

    def __init__(self, tools: SourceContext) -> None:
        self._tools = tools

    def open(self, asked: SourceSpec) -> Source:
        """What reads a source; the caller closes it."""
        return open_source(asked, self._tools)

    def scan(self, kind: Source, folder: Path, collection: str, stopping: ShouldStop = never_stop) -> None:
        """Write the manifest of `folder`, whole or not at all. Raises what the kind does."""
        write_manifest(folder, kind.scan(folder, collection, stopping))

    def bring(
        self, kind: Source, folder: Path, lines: Sequence[SourceItem], stopping: ShouldStop = never_stop
    ) -> list[SourceItem]:
        """The lines, each with its `file` in `folder`, or with an `error`. Raises Overloaded when it is `stopping`."""
        target = folder / FETCHED_DIR
        remove_path(target)
        with map_os_errors():
            target.mkdir()
        wanted = [line for line in lines if not line.get("error")]
        came = iter(kind.bring(target, wanted, stopping) if wanted else ())
        return [line if line.get("error") else next(came) for line in lines]

    def done(self, folder: Path) -> None:
        """Remove what was brought; what was taken in has a name of its own."""
        remove_path(folder / FETCHED_DIR)


def write_url_list(folder: Path, items: Iterable[SourceItem], most: int) -> int:
    """Write what a worker is to fetch as the manifest of `folder`, durably; returns how many items there are.

    Each has a `name` and a `url`. Raises Validation for none, and for more than `most`.
    """
    count = write_manifest(folder, islice(items, most + 1))
    if not 1 <= count <= most:
        raise Validation(f"send 1 to {most} URLs" + ("" if count else ", got none"))
    return count
