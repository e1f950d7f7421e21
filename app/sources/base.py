"""What every type of source does: it lists its items as a manifest, and fetches them into files, a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from app.core.errors import ArchiveCorrupt, ArchiveLimit, BlobMissing, SightlineError, map_os_errors
from app.core.files import link_or_copy
from app.core.picture_formats import default_formats
from app.core.types import ItemError, SourceSpec
from app.decode.left_out import LeftOut
from app.decode.limits import PictureLimits, VideoLimits
from app.sources.bucket_prefix import AllowedBuckets
from app.sources.fetch.object_store import ObjectStoreClient
from app.sources.local_files import AllowedFolders
from app.sources.stop_signal import ShouldStop, raise_if_stopping

if TYPE_CHECKING:
    from app.decode.pool import DecodePool
    from app.encoder.protocol import Encoder
    from app.sources.fetch.http import FetchResult, HttpFetcher
    from app.storage.blobs import BlobStore
    from app.storage.database import Database

# One line of a manifest: the `name` of the item, its attributes (`id`, `caption`, `tags`, `metadata`), and what its
# type of source needs to fetch it. An item with an `error` ({"code", "detail"}) has failed. `Source.fetch` adds a
# `file`, relative to the folder of the job, or an `error`. An item with an `origin` and a `tag` is skipped the next
# time, unless its tag has changed. With `given`, a space and a vector (float32, little endian), no model embeds it.
SourceItem = dict[str, Any]

T = TypeVar("T")

STOP_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class SourcePolicy:
    """What the operator allows sources to read, and how much of it."""

    folders: AllowedFolders = field(default_factory=lambda: AllowedFolders(()))
    fetch: bool = False
    max_items: int = 1_000_000
    max_bytes: int = PictureLimits().max_bytes
    buckets: AllowedBuckets = field(default_factory=AllowedBuckets)
    bound_folders: Mapping[str, AllowedFolders] = field(default_factory=dict)  # by collection
    formats: frozenset[str] = field(default_factory=default_formats)  # of pictures that are accepted
    videos: VideoLimits = field(default_factory=VideoLimits)

    def restrict(self, collections: Collection[str]) -> SourcePolicy:
        """The policy for a key that is bound to collections: what belongs to none of them is not for it."""
        own = [self.bound_folders[name] for name in sorted(collections) if name in self.bound_folders]
        return replace(self, folders=sum(own, AllowedFolders(())), buckets=AllowedBuckets())


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What sources read with. `fetcher` is None where the operator does not allow URLs."""

    database: Database
    blobs: BlobStore
    policy: SourcePolicy
    fetcher: HttpFetcher | None = None
    pool: DecodePool | None = None
    read_seconds: float = 300.0
    object_store: ObjectStoreClient = field(default_factory=ObjectStoreClient)
    encoder: Encoder | None = None

    def run_in_child(self, should_stop: ShouldStop, function: Callable[..., T], *args: Any) -> T:
        """`run_in_child`, for at most `read_seconds`."""
        assert self.pool is not None
        return run_in_child(self.pool, self.read_seconds, should_stop, function, *args)

    def link_blob(self, sha256: str, target: Path) -> bool:
        """Link the stored bytes of this digest to `target`; False when they are gone."""
        try:
            with self.blobs.fetch(sha256) as file, map_os_errors():
                link_or_copy(file.path, target)
        except (BlobMissing, FileNotFoundError):
            return False
        return True


class Source:
    """Reads one source of its type; it keeps files open until `close`."""

    FORM: ClassVar[str]  # how a request names it
    OPTIONS: ClassVar[frozenset[str]] = frozenset()  # by the names of their fields in a request

    def __init__(self, spec: SourceSpec, context: SourceContext) -> None:
        self.spec = spec
        self.context = context
        self.left_out = LeftOut()  # what `scan` left out so far

    @classmethod
    def resolve(cls, spec: SourceSpec, policy: SourcePolicy) -> SourceSpec:
        """Check what a request names, without reading files; returns it with its place in the form that is stored.

        Raises Validation, UrlNotAllowed.
        """
        raise NotImplementedError

    def scan(self, folder: Path, collection: str, should_stop: ShouldStop) -> Iterator[SourceItem]:
        """List the items, always in the same order; `folder` is for temporary files.

        Raises a SightlineError when nothing can be read, Overloaded when the worker stops.
        """
        raise NotImplementedError

    def fetch(self, target: Path, items: Sequence[SourceItem], should_stop: ShouldStop) -> list[SourceItem]:
        """The items in their order, each with a `file` in `target` (see `path_in_job`) or with an `error`.

        Raises Overloaded when the worker stops.
        """
        raise NotImplementedError

    def report_nothing(self, name: str) -> Iterator[SourceItem]:
        """For a place without pictures: an item that failed if it holds files of other kinds, else a warning."""
        if reason := self.left_out.describe():
            reason = "; ".join([reason, *(one.detail for one in self.left_out.warnings)])
            error = ItemError("unsupported_media_type", f"there are no pictures of an accepted format: {reason}")
            yield with_error({"name": name}, error)
        else:
            self.left_out.warn("nothing_found", f"there are no pictures in {name}")

    def close(self) -> None:
        """Close open files."""


def run_in_child(
    pool: DecodePool, seconds: float, should_stop: ShouldStop, function: Callable[..., T], *args: Any
) -> T:
    """Call a function that reads a large file in a child (see `DecodePool.submit`).

    Raises ArchiveCorrupt when the child dies of it, Overloaded when the caller stops.
    """
    raise_if_stopping(should_stop)
    future = pool.submit(function, *args, seconds=seconds)
    while True:
        try:
            return future.result(STOP_POLL_SECONDS)
        except TimeoutError:
            if should_stop():
                future.cancel()
                raise_if_stopping(should_stop)
        except CancelledError:
            raise ArchiveCorrupt("it was not read to its end") from None


def path_in_job(path: Path) -> str:
    """The `file` of an item: the path of a fetched file, relative to the folder of the job."""
    return f"{path.parent.name}/{path.name}"


def with_error(item: SourceItem, error: SightlineError | ItemError) -> SourceItem:
    """The item with the reason why it failed."""
    return {**item, "error": {"code": error.code, "detail": error.detail}}


def with_result(item: SourceItem, result: FetchResult) -> SourceItem:
    """The item with the file and the tag, or the error, of its download."""
    if result.error is not None:
        return with_error(item, result.error)
    return {**item, "file": path_in_job(result.request.path), "tag": result.etag}


def limit_items(items: Iterable[SourceItem], max_items: int) -> Iterator[SourceItem]:
    """Pass the items on. Raises ArchiveLimit after `max_items`."""
    for count, item in enumerate(items, start=1):
        if count > max_items:
            raise ArchiveLimit(f"this source holds more than {max_items:,} items; name a part of it")
        yield item
