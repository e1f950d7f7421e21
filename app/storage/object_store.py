"""Opens object stores, and does with one bucket what the files of pictures need.

Settings name the endpoint; obstore reads credentials, region and all else from the usual variables of the environment
(`AWS_...`, `GOOGLE_...`), from the machine's role or from a web identity. No error and no line of the log holds more of
an answer of the store than its code.
"""

from __future__ import annotations

import io
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import IO, TYPE_CHECKING, Any, TypeVar

from app.core.errors import SightlineError, StorageFull, StorageUnavailable
from app.core.metrics import ProcessMetrics

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ClientConfig, GCSStore, RetryConfig, S3Store

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger(__name__)

ENDPOINT = re.compile(r"(https?://[^\s/?#@]+(/[^\s?#]*)?)?")
BACKOFF = timedelta(seconds=0.2), timedelta(seconds=5)  # before the first retry, and at most
CODE = re.compile(r"<Code>(\w{1,64})</Code>")
STATUS = re.compile(r"(?:status code: |non-2xx status code: )(\d{3})")
METADATA_ADDRESS = "169.254.169.254"
NO_CREDENTIALS, WRONG_REGION = "NoCredentials", "WrongRegion"  # codes of ours
REGION_CODES = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
FULL = frozenset({"XMinioStorageFull", "InsufficientStorage", "QuotaExceeded", "507"})

PART_BYTES = 8 << 20  # an object of more bytes is sent in parts of so many
PARTS_AT_ONCE = 2  # of one object, in memory
AT_ONCE = 32  # requests of one process
LIST_PAGE = 1_000  # objects: no store lists more in one answer
CONNECT_SECONDS = 3.0
REQUEST_SECONDS = 60.0  # for one request, a part of an object for example
SILENCE_SECONDS = 10.0  # without a byte of an answer
RETRIES = 3
RETRY_SECONDS = 10.0
SIGNED_SECONDS = 300.0  # that a presigned URL is valid
READ_AHEAD = 4 << 20


def open_store(
    scheme: str, bucket: str, endpoint: str, client: ClientConfig, retries: int, retry_seconds: float
) -> S3Store | GCSStore:
    """The client of a bucket; an empty endpoint is Amazon's or Google's. Raises obstore's errors."""
    from obstore.store import GCSStore, S3Store

    endpoint = endpoint.rstrip("/")
    if endpoint:
        client["allow_http"] = endpoint.startswith("http://")
    first, most = BACKOFF
    retry: RetryConfig = {
        "max_retries": retries,
        "retry_timeout": timedelta(seconds=retry_seconds),
        "backoff": {"init_backoff": first, "max_backoff": most, "base": 2},
    }
    if scheme == "s3":
        at: Any = {"endpoint": endpoint, "virtual_hosted_style_request": False} if endpoint else {}
        return S3Store(bucket, client_options=client, retry_config=retry, **at)
    at = {"base_url": endpoint} if endpoint else {}
    return GCSStore(bucket, client_options=client, retry_config=retry, **at)


def find_code(error: BaseException) -> str | None:
    """The code of S3 in an error of obstore, or the HTTP status if there is none; NO_CREDENTIALS, WRONG_REGION."""
    text = str(error)
    if METADATA_ADDRESS in text:  # which obstore asks when nothing else names credentials
        return NO_CREDENTIALS
    if said := CODE.search(text):
        return WRONG_REGION if said[1] in REGION_CODES else said[1]
    if "incorrectly configured region" in text:
        return WRONG_REGION
    return said[1] if (said := STATUS.search(text)) else None


def describe_store_error(error: BaseException) -> str:
    """A line for the log: what failed and the code, without the rest of the store's answer."""
    first = re.split(r"[<\n?]", str(error), maxsplit=1)[0].strip(" :")
    return f"{first} ({code})" if (code := find_code(error)) else first


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """An object as the store lists it."""

    key: str
    bytes: int
    changed_at: datetime
    etag: str

    @property
    def name(self) -> str:
        """What follows the last slash of the key."""
        return self.key.rpartition("/")[2]

    @classmethod
    def of(cls, meta: Any) -> ObjectMeta:
        return cls(meta["path"], meta["size"], meta["last_modified"], (meta["e_tag"] or "").strip('"'))


class Bucket:
    """The objects below a prefix of a bucket; keys are without the prefix.

    Every method raises StorageUnavailable when the store does not answer or refuses, and StorageFull.
    """

    def __init__(
        self, bucket: str, path: str, endpoint: str = "", user_agent: str = "", metrics: ProcessMetrics | None = None
    ) -> None:
        client: ClientConfig = {
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=SILENCE_SECONDS),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "pool_idle_timeout": timedelta(seconds=20),
        }
        if user_agent:
            client["user_agent"] = user_agent
        self.name = f"s3://{bucket}" + (f"/{path}" if path else "")
        self.endpoint = endpoint.rstrip("/")
        self._path = f"{path}/" if path else ""
        self._metrics = metrics or ProcessMetrics()
        self._store = open_store("s3", bucket, endpoint, client, RETRIES, RETRY_SECONDS)
        self._is_conditional = True  # until the store says that it knows no conditional writes
        self.is_exclusive = False  # whether it has proved that `create` replaces nothing (`check_exclusive`)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bucket")
        self._clock: tuple[float, float] | None = None  # the monotonic clock and the store's, at one moment
        self._lock = threading.Lock()
        self.fault: str | None = None  # why the last request failed
        self.fault_code: str | None = None  # of the last request that failed

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def run_all(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Call `function` for all items, some at a time, and return its results in their order.

        Raises the first error once nothing runs any more.
        """
        listed = list(items)
        if len(listed) < 2:
            return [function(one) for one in listed]
        futures = [self._threads.submit(function, one) for one in listed]
        errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error
        return [future.result() for future in futures]

    def create(self, key: str, data: bytes, media_type: str) -> bool:
        """Write an object unless there is one of this key; whether it was written.

        Unless `is_exclusive`, the store may have replaced one that was there.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        if not self._is_conditional:
            return self.put(key, data, media_type)
        try:
            with self._map_errors("put"):
                obstore.put(self._store, self._path + key, data, attributes={"Content-Type": media_type}, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return False
        except NotSupportedError:
            log.warning("the store of %s knows no conditional writes; objects are written again", self.name)
            self._is_conditional = self.is_exclusive = False
            return self.put(key, data, media_type)
        return True

    def check_exclusive(self, key: str) -> None:
        """Note whether the store refuses to create an object that is there. Stores exist that ignore the condition."""
        self.is_exclusive = not self.create(key, b"sightline", "application/octet-stream")

    def put(self, key: str, data: bytes | IO[bytes] | Iterator[bytes], media_type: str) -> bool:
        """Write an object, a large one in parts; it is there whole or not at all. True."""
        import obstore

        with self._map_errors("put"):
            obstore.put(
                self._store,
                self._path + key,
                data,
                attributes={"Content-Type": media_type},
                use_multipart=not isinstance(data, bytes),
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
        return True

    def head(self, key: str) -> ObjectMeta | None:
        """What the store says of an object; None if there is none."""
        import obstore

        try:
            with self._map_errors("head"):
                return ObjectMeta.of(obstore.head(self._store, self._path + key))
        except FileNotFoundError:
            return None

    def read(self, key: str) -> bytes | None:
        """The bytes of a small object; None if there is none."""
        buffer = io.BytesIO()
        return buffer.getvalue() if self.read_into(key, buffer.write) else None

    def read_into(self, key: str, write: Callable[[bytes], object], most: int | None = None) -> ObjectMeta | None:
        """Pass the bytes of an object on, block by block; None if there is none.

        Of an object of more than `most` bytes nothing is read.
        """
        import obstore

        try:
            with self._map_errors("get"):
                result: GetResult = obstore.get(self._store, self._path + key)
                meta = ObjectMeta.of(result.meta)
                if most is not None and meta.bytes > most:
                    return meta
                size = 0
                for block in result.stream(1 << 20):
                    size += len(block)
                    write(bytes(block))
                if size != meta.bytes:
                    raise StorageUnavailable("the store of the pictures sent only a part of an object; try again")
                return meta
        except FileNotFoundError:
            return None

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """A part of an object. Raises FileNotFoundError."""
        import obstore

        with self._map_errors("get"):
            return bytes(obstore.get_range(self._store, self._path + key, start=start, length=length))

    def list_pages(self, below: str) -> Iterator[Sequence[ObjectMeta]]:
        """List the objects whose keys begin with the folder `below`, a page at a time."""
        import obstore

        with self._map_errors("list"):
            pages = iter(obstore.list(self._store, self._path + below, chunk_size=LIST_PAGE))
        while True:
            with self._map_errors("list"):
                page = next(pages, None)
            if page is None:
                return
            found = [ObjectMeta.of(meta) for meta in page]
            yield [replace(one, key=one.key.removeprefix(self._path)) for one in found]

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there count as deleted."""
        import obstore

        if keys:
            with self._map_errors("delete"):
                for key in keys if len(keys) == 1 else ():
                    obstore.delete(self._store, self._path + key)
                if len(keys) > 1:
                    obstore.delete(self._store, [self._path + key for key in keys])

    def sign(self, key: str) -> str:
        """A URL that anybody may read the object with for SIGNED_SECONDS."""
        import obstore

        with self._map_errors("sign"):
            return obstore.sign(self._store, "GET", self._path + key, timedelta(seconds=SIGNED_SECONDS))

    def measure_age(self, meta: ObjectMeta) -> float:
        """How many seconds ago an object was written, by the store's own clock: those of machines may differ."""
        with self._lock:
            if self._clock is None or time.monotonic() - self._clock[0] > 3600:
                self.put(".clock", b"", "application/octet-stream")
                probe = self.head(".clock")
                assert probe is not None
                self._clock = time.monotonic(), probe.changed_at.timestamp()
            now = self._clock[1] + time.monotonic() - self._clock[0]
        return now - meta.changed_at.timestamp()

    @contextmanager
    def _map_errors(self, operation: str) -> Iterator[None]:
        """Raise our errors for those of obstore; FileNotFoundError of an object, and those of conditions, pass.

        A write finds nothing where the store has forgotten an upload in parts, whose answers were lost, say.
        """
        from obstore import exceptions

        passing = (exceptions.AlreadyExistsError, exceptions.PreconditionError, exceptions.NotSupportedError)
        began = time.monotonic()
        try:
            yield
        except (SightlineError, *passing):
            raise
        except Exception as error:
            code = find_code(error)
            if isinstance(error, FileNotFoundError) and code != "NoSuchBucket" and operation != "put":
                raise
            if code == "NotImplemented":
                raise exceptions.NotSupportedError(code) from None
            is_local = isinstance(error, OSError) and error.errno is not None  # our own disk, while it was written
            if is_local or not isinstance(error, exceptions.BaseError | OSError | ValueError):
                raise
            self._metrics.object_store_errors.labels(operation).inc()
            log.warning("%s: %s", self.name, describe_store_error(error))
            mapped = map_store_error(error, code)
            self.fault, self.fault_code = mapped.detail, code
            raise mapped from None
        else:
            self.fault = None
        finally:
            self._metrics.object_store.labels(operation).observe(time.monotonic() - began)


def map_store_error(error: BaseException, code: str | None) -> SightlineError:
    """Our error for one of obstore."""
    from obstore import exceptions

    if code == "NoSuchBucket":
        return StorageUnavailable("the bucket of the pictures is gone")
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return StorageUnavailable("the store of the pictures refuses this server" + (f" ({code})" if code else ""))
    if code in FULL:
        return StorageFull("the store of the pictures is full; free some space and try again")
    said = f"answers {code}" if code else "does not answer"
    return StorageUnavailable(f"the store of the pictures {said}; try again")


class RemoteFile(io.RawIOBase):
    """An object that is read in parts, as they are asked for."""

    def __init__(self, bucket: Bucket, meta: ObjectMeta, key: str) -> None:
        self._bucket = bucket
        self._meta = meta
        self._at = 0
        self.name = key

    @property
    def size(self) -> int:
        return self._meta.bytes

    @property
    def changed_at(self) -> float:
        return self._meta.changed_at.timestamp()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self.size - self._at)
        if length <= 0:
            return 0
        data = self._bucket.read_range(self.name, self._at, length)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
