"""The types of source by the word before the colon, and how an importer reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from app.core.errors import Validation, map_os_errors
from app.core.files import atomic_write
from app.core.types import SourceSpec
from app.decode.left_out import LEFT_OUT_FILE
from app.sources.base import Source, SourceContext, SourceItem, SourcePolicy
from app.sources.clip_retrieval import ClipRetrievalSource
from app.sources.folder import FolderSource
from app.sources.img2dataset import Img2datasetSource
from app.sources.object_store import BucketSource, GoogleBucketSource
from app.sources.stop_signal import ShouldStop, never_stop
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
SOURCE_FORMS = ", ".join(source_type.FORM for source_type in SOURCE_TYPES.values())


def parse_source(source: str, options: Mapping[str, Any], policy: SourcePolicy) -> SourceSpec:
    """Parse and check what a request names. Raises Validation, UrlNotAllowed."""
    kind, _, place = source.partition(":")
    source_type = SOURCE_TYPES.get(kind)
    if source_type is None:
        raise Validation(f"source must be one of: {SOURCE_FORMS}")
    if wrong := sorted(options.keys() - source_type.OPTIONS):
        raise Validation(f"{wrong[0]} does not belong to the source {source_type.FORM}")
    return source_type.resolve(SourceSpec(kind, place, dict(options)), policy)


def open_source(spec: SourceSpec, context: SourceContext) -> Source:
    """Make the reader of a source; the caller closes it."""
    return SOURCE_TYPES[spec.kind](spec, context)


class SourceReader:
    """Writes the manifests of sources, and fetches their items, part by part."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context

    def open(self, spec: SourceSpec) -> Source:
        return open_source(spec, self._context)

    def write_manifest(
        self, source: Source, folder: Path, collection: str, should_stop: ShouldStop = never_stop
    ) -> None:
        """Write the manifest of `folder`, whole or not at all, and what was left out beside it.

        Raises what `Source.scan` raises.
        """

        def lines() -> Iterator[SourceItem]:
            yield from source.scan(folder, collection, should_stop)
            if source.left_out:
                with map_os_errors(), atomic_write(folder / LEFT_OUT_FILE) as file:
                    json.dump(source.left_out.to_json(), file)

        write_manifest(folder, lines())

    def fetch(
        self, source: Source, folder: Path, items: Sequence[SourceItem], should_stop: ShouldStop = never_stop
    ) -> list[SourceItem]:
        """The items, each with its `file` in `folder` or with an `error`. Raises Overloaded when the worker stops."""
        target = folder / FETCHED_DIR
        remove_path(target)
        with map_os_errors():
            target.mkdir()
        wanted = [item for item in items if not item.get("error")]
        fetched = iter(source.fetch(target, wanted, should_stop) if wanted else ())
        return [item if item.get("error") else next(fetched) for item in items]

    def clear(self, folder: Path) -> None:
        """Remove what was fetched; the library has renamed what it took."""
        remove_path(folder / FETCHED_DIR)


def write_url_list(folder: Path, items: Iterable[SourceItem], max_items: int) -> int:
    """Write URLs for a worker as the manifest of `folder`, durably; returns how many there are.

    Each item has a `name` and a `url`. Raises Validation for no items, and for more than `max_items`.
    """
    count = write_manifest(folder, islice(items, max_items + 1))
    if not 1 <= count <= max_items:
        raise Validation(f"send 1 to {max_items} URLs" + ("" if count else ", got none"))
    return count
