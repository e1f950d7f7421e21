"""What every kind of source can do: list what is there as lines of a manifest, and bring a part of them to files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, TypeVarTuple

from app.core.errors import ArchiveCorrupt, ArchiveLimit, Overloaded, SightlineError
from app.core.types import SourceSpec
from app.decode.limits import PictureLimits
from app.sources.bucket_prefix import AllowedBuckets
from app.sources.fetch.object_store import ObjectStoreClient
from app.sources.local_files import AllowedFolders

if TYPE_CHECKING:
    from app.decode.pool import DecodePool
    from app.encoder.protocol import Encoder
    from app.sources.fetch.http import HttpFetcher
    from app.storage.blobs import BlobStore
    from app.storage.database import Database

# One item: its `name`, what is said of it (`id`, `caption`, `tags`, `metadata`), and what its kind needs to bring it.
# With an `error` ({"code", "detail"}) it is reported as it is. What `bring` gives back has a `file`, named from the
# folder of the job, or an `error`; and, if it should not come again unchanged, an `origin` and its `tag`. With `given`,
# a space and a vector of it (float32, little endian), the picture is not embedded.
SourceItem = dict[str, Any]
ShouldStop = Callable[[], bool]

Args = TypeVarTuple("Args")
T = TypeVar("T")

STOP_POLL_SECONDS = 0.2  # between two looks at whether to stop


@dataclass(frozen=True, slots=True)
class SourcePolicy:
    """What the operator lets sources read, and how much of it."""

    roots: AllowedFolders = field(default_factory=lambda: AllowedFolders(()))
    fetch: bool = False
    most_items: int = 1_000_000
    most_bytes: int = PictureLimits().max_bytes
    buckets: AllowedBuckets = field(default_factory=AllowedBuckets)


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What kinds read with. There is no fetcher where URLs are not allowed."""

    database: Database
    blobs: BlobStore
    allowed: SourcePolicy
    fetcher: HttpFetcher | None = None
    pool: DecodePool | None = None
    seconds: float = 300.0
    objects: ObjectStoreClient = field(default_factory=ObjectStoreClient)
    encoder: Encoder | None = None

    def read(self, stopping: ShouldStop, function: Callable[[*Args], T], *args: *Args) -> T:
        """What a function gives that reads something large, in a decode child and within `seconds`.

        Raises ArchiveCorrupt when the child does not survive it, Overloaded when it is `stopping`.
        """
        assert self.pool is not None
        future = self.pool.submit(function, *args, seconds=self.seconds)
        while True:
            try:
                return future.result(STOP_POLL_SECONDS)
            except TimeoutError:
                if stopping():
                    future.cancel()
                    raise_if_stopping(stopping)
            except CancelledError:
                raise ArchiveCorrupt("it was not read to its end") from None


class Source:
    """One kind of source, made for one source while somebody takes it in; what it opens it keeps until `close`."""

    FORM: ClassVar[str]  # how a request names it
    TAKES: ClassVar[frozenset[str]] = frozenset()  # options, by the names of their fields in a request

    def __init__(self, asked: SourceSpec, tools: SourceContext) -> None:
        self.asked = asked
        self.tools = tools

    @classmethod
    def checked(cls, asked: SourceSpec, allowed: SourcePolicy) -> SourceSpec:
        """What is asked, its place as it is to be remembered. Raises Validation, UrlNotAllowed; reads no file."""
        raise NotImplementedError

    def scan(self, folder: Path, collection: str, stopping: ShouldStop) -> Iterator[SourceItem]:
        """A line for each item that is there, always in the same order; `folder` is for files of its own meanwhile.

        Raises a SightlineError when nothing can be read, Overloaded when it is `stopping`.
        """
        raise NotImplementedError

    def bring(self, target: Path, lines: Sequence[SourceItem], stopping: ShouldStop) -> list[SourceItem]:
        """The lines, in their order, each with the `file` in `target` (see `named`) that it gave, or with an `error`.

        Raises Overloaded when it is `stopping`.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what is open."""


def path_in_job(target: Path) -> str:
    """A file that was brought, as its line names it: from the folder of the job."""
    return f"{target.parent.name}/{target.name}"


def with_error(line: SourceItem, error: SightlineError) -> SourceItem:
    """A line with the reason why nothing came."""
    return {**line, "error": {"code": error.code, "detail": error.detail}}


def limit_items(lines: Iterable[SourceItem], most: int) -> Iterator[SourceItem]:
    """The lines. Raises ArchiveLimit for more than `most`."""
    for count, line in enumerate(lines, start=1):
        if count > most:
            raise ArchiveLimit(f"this source holds more than {most:,} items; name a part of it")
        yield line


def raise_if_stopping(stopping: ShouldStop) -> None:
    """Raise Overloaded when it is `stopping`."""
    if stopping():
        raise Overloaded("the worker is stopping")
