"""Objects: what a bucket of S3 or Google Cloud Storage holds, listed as a stream and fetched a few at a time.

Where a store lies, and who we are there, only the operator says: by settings for the endpoints, by the usual variables
of the environment (`AWS_...`, `GOOGLE_...`) for all else. Here obstore, which reads these, knows what it may talk to;
everything else about a bucket is told by its caller, who has checked it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from app.core.errors import ImageTooLarge, Overloaded, SightlineError, UrlUnreachable, map_os_errors
from app.sources.bucket_prefix import BucketPrefix
from app.sources.fetch.http import STOP_POLL_SECONDS, USER_AGENT, FetchLimits, FetchRequest, FetchResult

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import ClientConfig, GCSStore, RetryConfig, S3Store

T = TypeVar("T")

log = logging.getLogger(__name__)

PAGE = 1_000  # objects of one answer to a listing: more no store gives at once
MAX_CONCURRENT = 8
BLOCK = 1 << 20
RETRIES = 6
BACKOFF = timedelta(seconds=0.2), timedelta(seconds=5)  # before the first retry, and at most
LIST_SECONDS = 60.0  # for one page, with its retries
MAX_UNANSWERED = 2 * MAX_CONCURRENT  # objects in a row that get no answer: then the store is away, and the rest is left
CODE = re.compile(r"<Code>(\w{1,64})</Code>")
STATUS = re.compile(r"status code: (\d{3})")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing tells of it; `tag` changes when its bytes do."""

    url: str
    bytes: int
    tag: str


class NoAnswer(UrlUnreachable):
    """The store gave no answer, or one of its own faults: the object may be well."""


class ObjectStoreClient:
    """Reads object stores. `s3` and `gcs` are the endpoints of stores that are not Amazon's and Google's own."""

    def __init__(self, limits: FetchLimits | None = None, s3: str = "", gcs: str = "") -> None:
        self._limits = limits or FetchLimits()
        self._endpoints = {"s3": s3.rstrip("/"), "gs": gcs.rstrip("/")}
        self._stores: dict[tuple[str, str], S3Store | GCSStore] = {}

    def listed(
        self, prefix: BucketPrefix, stopping: Callable[[], bool] = lambda: False
    ) -> Iterator[Sequence[ObjectInfo]]:
        """What lies below a prefix, at most PAGE at a time.

        Raises UrlUnreachable when the store does not tell, Overloaded when it is `stopping`.
        """
        import obstore

        store = self._store(prefix)
        stream = aiter(obstore.list(store, prefix.path or None, chunk_size=PAGE))
        with asyncio.Runner() as runner:
            while page := runner.run(_unless(stopping, _page(stream))):
                yield [_listed(prefix, one) for one in page]

    def fetch_all(
        self, wanted: Sequence[FetchRequest], stopping: Callable[[], bool] = lambda: False
    ) -> list[FetchResult]:
        """What came of each, in their order, TOGETHER at a time. Where nothing answers all the rest is left.

        Raises UrlUnreachable when the store is away, Overloaded when it is `stopping`.
        """
        return asyncio.run(_unless(stopping, self._fetch_all(wanted)))

    async def _fetch_all(self, wanted: Sequence[FetchRequest]) -> list[FetchResult]:
        came: dict[int, FetchResult] = {}
        waiting = iter(enumerate(wanted))
        silent = 0

        async def work() -> None:
            nonlocal silent
            for n, one in waiting:
                came[n] = got = await self._fetch(one)
                silent = silent + 1 if isinstance(got.error, NoAnswer) else 0
                if silent >= MAX_UNANSWERED:
                    raise UrlUnreachable("the store does not answer; what is missing comes when it is asked for again")

        workers = [asyncio.ensure_future(work()) for _ in range(MAX_CONCURRENT)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [came[n] for n in range(len(wanted))]

    async def _fetch(self, wanted: FetchRequest) -> FetchResult:
        """One object. Never raises what a store can bring about."""
        import obstore

        place = BucketPrefix.split(wanted.url)
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._take(wanted, await obstore.get_async(self._store(place), place.path))
        except TimeoutError:
            return FetchResult(wanted, error=NoAnswer(f"it took longer than {self._limits.seconds:.0f} s"))
        except SightlineError as error:
            if error.retryable:  # our own disk, say
                raise
            return FetchResult(wanted, error=error)
        except Exception as error:
            return FetchResult(wanted, error=_told(error, "the object"))

    async def _take(self, wanted: FetchRequest, result: GetResult) -> FetchResult:
        most = self._limits.bytes
        refusal = ImageTooLarge(f"a picture may have {most} bytes")
        if result.meta["size"] > most:
            raise refusal
        size = 0
        with map_os_errors(), open(wanted.path, "wb") as file:  # noqa: ASYNC230 (a local file, a block at a time)
            async for part in result.stream(BLOCK):
                size += len(part)
                if size > most:
                    raise refusal
                file.write(part)
        if size != result.meta["size"]:
            raise NoAnswer("the object came only in part")
        return FetchResult(wanted, _tag(result.meta))

    def _store(self, prefix: BucketPrefix) -> S3Store | GCSStore:
        """The client of a bucket. Raises UrlUnreachable when what the environment says of it makes no sense."""
        if (store := self._stores.get((prefix.scheme, prefix.bucket))) is None:
            try:
                store = self._open(prefix)
            except Exception as error:
                raise _told(error, "the bucket") from None
            self._stores[prefix.scheme, prefix.bucket] = store
        return store

    def _open(self, prefix: BucketPrefix) -> S3Store | GCSStore:
        from obstore.store import GCSStore, S3Store

        endpoint = self._endpoints[prefix.scheme]
        client: ClientConfig = {"timeout": timedelta(seconds=self._limits.seconds), "user_agent": USER_AGENT}
        if endpoint:
            client["allow_http"] = endpoint.startswith("http://")
        first, most = BACKOFF
        retry: RetryConfig = {
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=LIST_SECONDS),
            "backoff": {"init_backoff": first, "max_backoff": most, "base": 2},
        }
        if prefix.scheme == "s3":
            at: Any = {"endpoint": endpoint, "virtual_hosted_style_request": False} if endpoint else {}
            return S3Store(prefix.bucket, client_options=client, retry_config=retry, **at)
        at = {"base_url": endpoint} if endpoint else {}
        return GCSStore(prefix.bucket, client_options=client, retry_config=retry, **at)


async def _page(stream: AsyncIterator[Sequence[ObjectMeta]]) -> Sequence[ObjectMeta]:
    """The next objects of a listing; none after the last."""
    try:
        async with asyncio.timeout(LIST_SECONDS):
            return await anext(stream)
    except StopAsyncIteration:
        return ()
    except TimeoutError:
        raise UrlUnreachable("the bucket took too long to list") from None
    except Exception as error:
        raise _told(error, "the listing of the bucket") from None


async def _unless(stopping: Callable[[], bool], work: Awaitable[T]) -> T:
    """What comes of `work`. Raises Overloaded, and ends it, when it is `stopping` before."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=STOP_POLL_SECONDS))[0]:
            if stopping():
                raise Overloaded("the worker is stopping")
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _listed(prefix: BucketPrefix, meta: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(f"{prefix.scheme}://{prefix.bucket}/{meta['path']}", meta["size"], _tag(meta))


def _tag(meta: ObjectMeta) -> str:
    return meta["e_tag"] or f"{meta['last_modified'].timestamp()}-{meta['size']}"


def _told(error: Exception, what: str) -> UrlUnreachable:
    """An error of obstore in our words; its own hold addresses and answers, which go to the log alone."""
    from obstore import exceptions

    log.warning("%s cannot be read: %s", what, str(error).partition("\n")[0])
    if isinstance(error, FileNotFoundError):
        return UrlUnreachable(f"{what} is not there (any more)")
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return UrlUnreachable(f"{what} may not be read with what this server's operator has given it")
    if isinstance(error, exceptions.InvalidPathError):
        return UrlUnreachable(f"{what} holds a key with an empty step, . or .., or a control character")
    if said := CODE.search(str(error)) or STATUS.search(str(error)):
        return NoAnswer(f"{what} cannot be read: the store says {said[1]}")
    return NoAnswer(f"{what} cannot be read: the store cannot be reached, or does not answer as it should")
