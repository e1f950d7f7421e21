"""Lists the objects of a bucket as a stream, and downloads them, some at a time.

Only the operator says where a store is, and with which credentials the server reads it: settings name the endpoints,
and obstore reads all else from the usual variables of the environment (`AWS_...`, `GOOGLE_...`). The caller
checks prefixes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from app.core.errors import SightlineError, UrlUnreachable, map_os_errors
from app.sources.bucket_prefix import BucketPrefix
from app.sources.fetch.http import STOP_POLL_SECONDS, USER_AGENT, FetchLimits, FetchRequest, FetchResult
from app.sources.local_files import BLOCK_BYTES, require_size
from app.sources.stop_signal import ShouldStop, never_stop, raise_if_stopping
from app.storage.object_store import describe_store_error, find_code, open_store

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import ClientConfig, GCSStore, S3Store

T = TypeVar("T")

log = logging.getLogger(__name__)

PAGE = 1_000  # objects: no store lists more in one answer
MAX_CONCURRENT = 8
RETRIES = 6
LIST_SECONDS = 60.0  # for one page, with its retries
MAX_UNANSWERED = 2 * MAX_CONCURRENT  # objects in a row; after them the client takes the store for unreachable


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as the store lists it; `tag` changes when its bytes do."""

    url: str
    bytes: int
    tag: str


class NoAnswer(UrlUnreachable):
    """The store gave no answer, or failed itself; the object may be well."""


class ObjectStoreClient:
    """Reads object stores. `s3` and `gcs` are the endpoints of stores that are not Amazon's and Google's own."""

    def __init__(self, limits: FetchLimits | None = None, s3: str = "", gcs: str = "", user_agent: str = "") -> None:
        self._limits = limits or FetchLimits()
        self._user_agent = user_agent.strip() or USER_AGENT
        self._endpoints = {"s3": s3.rstrip("/"), "gs": gcs.rstrip("/")}
        self._stores: dict[tuple[str, str], S3Store | GCSStore] = {}

    def list_pages(self, prefix: BucketPrefix, should_stop: ShouldStop = never_stop) -> Iterator[Sequence[ObjectInfo]]:
        """List the objects below a prefix, at most PAGE at a time.

        Raises UrlUnreachable when the store does not list them, Overloaded when the worker stops.
        """
        import obstore

        store = self._store(prefix)
        stream = aiter(obstore.list(store, prefix.path or None, chunk_size=PAGE))
        with asyncio.Runner() as runner:
            while page := runner.run(_run_unless_stopping(should_stop, _next_page(stream))):
                yield [_object_info(prefix, meta) for meta in page]

    def download_all(self, requests: Sequence[FetchRequest], should_stop: ShouldStop = never_stop) -> list[FetchResult]:
        """Download objects, MAX_CONCURRENT at a time; the results are in the order of the requests.

        Raises UrlUnreachable when the store no longer answers, Overloaded when the worker stops.
        """
        return asyncio.run(_run_unless_stopping(should_stop, self._download_all(requests)))

    async def _download_all(self, requests: Sequence[FetchRequest]) -> list[FetchResult]:
        results: dict[int, FetchResult] = {}
        waiting = iter(enumerate(requests))
        unanswered = 0

        async def work() -> None:
            nonlocal unanswered
            for n, request in waiting:
                results[n] = result = await self._download(request)
                unanswered = unanswered + 1 if isinstance(result.error, NoAnswer) else 0
                if unanswered >= MAX_UNANSWERED:
                    raise UrlUnreachable("the store does not answer; take the source again to get what is missing")

        workers = [asyncio.ensure_future(work()) for _ in range(MAX_CONCURRENT)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [results[n] for n in range(len(requests))]

    async def _download(self, request: FetchRequest) -> FetchResult:
        """Download one object. Returns every error that a store can cause, raises our own disk's."""
        import obstore

        place = BucketPrefix.from_url(request.url)
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._write(request, await obstore.get_async(self._store(place), place.path))
        except TimeoutError:
            return FetchResult(request, error=NoAnswer(f"it took longer than {self._limits.seconds:.0f} s"))
        except SightlineError as error:
            if error.retryable:
                raise
            return FetchResult(request, error=error)
        except Exception as error:
            return FetchResult(request, error=_map_store_error(error, "the object"))

    async def _write(self, request: FetchRequest, result: GetResult) -> FetchResult:
        require_size(result.meta["size"], self._limits.bytes)
        size = 0
        with map_os_errors(), open(request.path, "wb") as file:  # noqa: ASYNC230 (a local file, a block at a time)
            async for block in result.stream(BLOCK_BYTES):
                size += len(block)
                require_size(size, self._limits.bytes)
                file.write(block)
        if size != result.meta["size"]:
            raise NoAnswer("the store sent only a part of the object")
        return FetchResult(request, _tag(result.meta))

    def _store(self, prefix: BucketPrefix) -> S3Store | GCSStore:
        """The client of a bucket. Raises UrlUnreachable when the environment configures it wrongly."""
        if (store := self._stores.get((prefix.scheme, prefix.bucket))) is None:
            try:
                store = self._open(prefix)
            except Exception as error:
                raise _map_store_error(error, "the bucket") from None
            self._stores[prefix.scheme, prefix.bucket] = store
        return store

    def _open(self, prefix: BucketPrefix) -> S3Store | GCSStore:
        client: ClientConfig = {"timeout": timedelta(seconds=self._limits.seconds), "user_agent": self._user_agent}
        endpoint = self._endpoints[prefix.scheme]
        return open_store(prefix.scheme, prefix.bucket, endpoint, client, RETRIES, LIST_SECONDS)


async def _next_page(stream: AsyncIterator[Sequence[ObjectMeta]]) -> Sequence[ObjectMeta]:
    """The next objects of a listing; none at its end."""
    try:
        async with asyncio.timeout(LIST_SECONDS):
            return await anext(stream)
    except StopAsyncIteration:
        return ()
    except TimeoutError:
        raise UrlUnreachable("the bucket took too long to list") from None
    except Exception as error:
        raise _map_store_error(error, "the listing of the bucket") from None


async def _run_unless_stopping(should_stop: ShouldStop, work: Awaitable[T]) -> T:
    """Await `work`. Cancels it and raises Overloaded when the worker stops."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=STOP_POLL_SECONDS))[0]:
            raise_if_stopping(should_stop)
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _object_info(prefix: BucketPrefix, meta: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(f"{prefix.scheme}://{prefix.bucket}/{meta['path']}", meta["size"], _tag(meta))


def _tag(meta: ObjectMeta) -> str:
    return meta["e_tag"] or f"{meta['last_modified'].timestamp()}-{meta['size']}"


def _map_store_error(error: Exception, what: str) -> UrlUnreachable:
    """Turn an error of obstore into ours; obstore's text, which holds addresses and answers, goes to the log only."""
    from obstore import exceptions

    log.warning("%s cannot be read: %s", what, describe_store_error(error))
    if isinstance(error, FileNotFoundError):
        return UrlUnreachable(f"{what} does not exist (any more)")
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return UrlUnreachable(f"the credentials of this server do not allow it to read {what}")
    if isinstance(error, exceptions.InvalidPathError):
        return UrlUnreachable(f"{what} has a key with an empty step, . or .., or a control character")
    if code := find_code(error):
        return NoAnswer(f"{what} cannot be read: the store answers {code}")
    return NoAnswer(f"{what} cannot be read: the store cannot be reached, or gives no valid answer")
