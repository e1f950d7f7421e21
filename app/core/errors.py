"""The errors that a caller can act on.

`detail` is a sentence for a person, without a path of the server, SQL or a stack trace. The api package turns errors
into problem+json; the worker stores `code` and `detail` with the item.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar


class SightlineError(Exception):
    """Base of all errors. `code` is stable, `status` is the HTTP status of the answer."""

    code: ClassVar[str] = "bad_request"
    status: ClassVar[int] = 400
    title: ClassVar[str] = "Bad request"
    retryable: ClassVar[bool] = False
    retry_after: ClassVar[int | None] = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __reduce__(self) -> tuple[type[SightlineError], tuple[str]]:
        return type(self), (self.detail,)


class BadRequest(SightlineError):
    """The server cannot parse the request."""


class Validation(SightlineError):
    """A value in the request is out of bounds."""

    code, status, title = "validation", 422, "Invalid value"


class NotFound(SightlineError):
    """The picture, text, job or collection does not exist."""

    code, status, title = "not_found", 404, "Not found"


class CollectionMissing(NotFound):
    """The collection does not exist; `near` are names like it, of collections that not every key may see."""

    def __init__(self, detail: str, near: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.near = near


class BlobMissing(NotFound):
    """The row exists, but its file is missing or altered; `sightline verify` lists such pictures."""

    code, status, title = "blob_missing", 410, "File missing"


class IdConflict(SightlineError):
    """Another picture or text has this id."""

    code, status, title = "id_conflict", 409, "Id already used"


class IdempotencyKeyReused(SightlineError):
    """An earlier, different request used this Idempotency-Key."""

    code, status, title = "idempotency_key_reused", 409, "Idempotency-Key already used"


class Rejected(SightlineError):
    """A picture or an archive that is never accepted as it is."""


class ImageTooLarge(Rejected):
    """The picture has more bytes, pixels or pixels a side than the limits allow."""

    code, status, title = "image_too_large", 422, "Picture too large"


class ImageCorrupt(Rejected):
    """The bytes begin like a picture, but cannot be decoded."""

    code, status, title = "image_corrupt", 422, "Picture cannot be decoded"


class UnsupportedMediaType(Rejected):
    """The file is of no format that the server accepts (or no archive, where one is expected)."""

    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class ArchiveLimit(Rejected):
    """The archive expands past the limits."""

    code, status, title = "archive_limit", 422, "Archive exceeds the limits"


class ArchiveCorrupt(Rejected):
    """The archive cannot be read."""

    code, status, title = "archive_corrupt", 422, "Archive cannot be read"


class VideoCorrupt(Rejected):
    """The bytes begin like a video, but no picture of it can be decoded."""

    code, status, title = "video_corrupt", 422, "Video cannot be decoded"


class UrlNotAllowed(Rejected):
    """The URL leads to an address from which this server does not fetch."""

    code, status, title = "url_not_allowed", 422, "URL not allowed"


class UrlUnreachable(Rejected):
    """The server of the URL cannot be reached, is slow, or refuses."""

    code, status, title = "url_unreachable", 422, "URL cannot be fetched"


class HeadRefused(SightlineError):
    """A head was not kept: held-out pairs do not show that it helps, or there are too few pairs."""

    code, status, title = "head_refused", 422, "Head refused"


class PayloadTooLarge(SightlineError):
    """The request body exceeds the limit."""

    code, status, title = "payload_too_large", 413, "Request too large"


class Busy(SightlineError):
    """The request is right, but the service cannot take it now."""

    retryable = True
    retry_after = 1


class InProgress(Busy):
    """The first request with this Idempotency-Key, or a job that does the same, is not finished."""

    code, status, title = "in_progress", 409, "Still under way"


class QueueFull(Busy):
    """As many pictures wait as the limit allows."""

    code, status, title, retry_after = "queue_full", 429, "Queue full", 5


class RateLimited(Busy):
    """The caller sends more than its share."""

    code, status, title = "rate_limited", 429, "Too many requests"


class Overloaded(Busy):
    """Too many requests are in flight."""

    code, status, title = "overloaded", 503, "Overloaded"


class ReadOnly(Busy):
    """The data directory cannot be written now."""

    code, status, title, retry_after = "read_only", 503, "Read only", 30


class ModelUnavailable(Busy):
    """The model is not loaded (yet)."""

    code, status, title, retry_after = "model_unavailable", 503, "Model unavailable", 5


class NotApplied(Busy):
    """This server has not yet seen the write that the caller wants to read."""

    code, status, title = "not_applied", 503, "Not applied yet"


class StorageUnavailable(Busy):
    """The bucket of the pictures does not answer, or refuses; no part of the request was kept."""

    code, status, title, retry_after = "storage_unavailable", 503, "Storage unavailable", 5


class StorageFull(SightlineError):
    """The disk is full; no part of the request was kept."""

    code, status, title, retryable = "storage_full", 507, "Storage full", True


class Timeout(SightlineError):
    """The work took longer than its deadline."""

    code, status, title, retryable = "timeout", 504, "Timed out", True


class StartupError(SightlineError):
    """The service cannot start; `detail` says in one line what to do."""


VALUE_FAULTS = {  # by pydantic's types of errors, with the names of their contexts
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    "string_type": "expected a text",
    "list_type": "expected a list",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "expected an object"),
    "literal_error": "expected {expected}",
    "greater_than_equal": "expected at least {ge}",
    "greater_than": "expected more than {gt}",
    "less_than_equal": "expected at most {le}",
    "too_short": "expected at least {min_length}, got {actual_length}",
    "too_long": "expected at most {max_length}, got {actual_length}",
    "string_too_short": "expected at least {min_length} characters",
    "string_too_long": "expected at most {max_length} characters",
    "string_pattern_mismatch": "expected a text like {pattern}",
    "missing": "required, and not there",
}


def describe_fault(fault: Mapping[str, Any]) -> str:
    """What is wrong with a value, from an error of pydantic, whose own words are those of Python."""
    if words := VALUE_FAULTS.get(fault.get("type", "")):
        return words.format(**fault.get("ctx", {}))
    return str(fault.get("msg", "invalid")).removeprefix("Value error, ")


FULL = (errno.ENOSPC, errno.EDQUOT)
OS_ERRORS: dict[int, tuple[type[SightlineError], str]] = {
    **dict.fromkeys(FULL, (StorageFull, "the disk is full; free some space and try again")),
    **dict.fromkeys(
        (errno.EROFS, errno.EACCES, errno.EPERM), (ReadOnly, "the data directory cannot be written at present")
    ),
    errno.EIO: (ReadOnly, "the disk reports an error; the data directory cannot be written at present"),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE, errno.ENOMEM), (Overloaded, "out of file handles or memory; try again")
    ),
}


@contextmanager
def map_os_errors() -> Iterator[None]:
    """Raise our error for one of `OS_ERRORS`; others, FileNotFoundError among them, pass as they are."""
    try:
        yield
    except OSError as error:
        if error.errno not in OS_ERRORS:
            raise
        raise from_os_error(error) from error


def from_os_error(error: OSError) -> SightlineError:
    """Our error for any error of the system (one with an errno) about the file of a picture or an archive."""
    if error.errno == errno.ENOENT:
        return BlobMissing("the file is gone")
    kind, detail = OS_ERRORS.get(error.errno or 0, (Overloaded, "a file could not be read or written; try again"))
    return kind(detail)


def describe_error(error: BaseException) -> str:
    """A text that may be shown: the detail of our errors; of others the type alone, as their text may hold secrets."""
    return error.detail if isinstance(error, SightlineError) else type(error).__name__
