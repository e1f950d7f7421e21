from __future__ import annotations

import errno
import inspect
import pickle
import re
from collections.abc import Iterator

import pytest

from app.core import errors
from app.core.errors import (
    BlobMissing,
    NotFound,
    Overloaded,
    ReadOnly,
    Rejected,
    SightlineError,
    StorageFull,
    from_os_error,
    map_os_errors,
)

# Clients rely on these codes and statuses.
TREE = """
    SightlineError                 code, status, retryable, retry_after
    ├── BadRequest                 400 bad_request
    ├── Validation                 422 validation
    ├── NotFound                   404 not_found
    │   ├── BlobMissing            410 blob_missing
    │   └── CollectionMissing      404 not_found
    ├── IdConflict                 409 id_conflict
    ├── IdempotencyKeyReused       409 idempotency_key_reused
    ├── Rejected                   a picture or an archive that is not accepted
    │   ├── ImageTooLarge          422 image_too_large
    │   ├── ImageCorrupt           422 image_corrupt
    │   ├── UnsupportedMediaType   415 unsupported_media_type
    │   ├── ArchiveLimit           422 archive_limit
    │   ├── ArchiveCorrupt         422 archive_corrupt
    │   ├── VideoCorrupt           422 video_corrupt
    │   ├── UrlNotAllowed          422 url_not_allowed
    │   └── UrlUnreachable         422 url_unreachable
    ├── PayloadTooLarge            413 payload_too_large
    ├── Busy                       the request may succeed later
    │   ├── InProgress             409 in_progress
    │   ├── QueueFull              429 queue_full
    │   ├── RateLimited            429 rate_limited
    │   ├── Overloaded             503 overloaded
    │   ├── ReadOnly               503 read_only
    │   ├── ModelUnavailable       503 model_unavailable
    │   ├── NotApplied             503 not_applied
    │   └── StorageUnavailable     503 storage_unavailable
    ├── StorageFull                507 storage_full
    ├── HeadRefused                422 head_refused
    ├── Timeout                    504 timeout
    └── StartupError               the service cannot start; the command prints one line, no traceback
"""


def tree(cls: type[SightlineError] = SightlineError) -> Iterator[type[SightlineError]]:
    for below in cls.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from tree(below)


@pytest.mark.parametrize("cls", list(tree()))
def test_every_error_survives_the_way_from_a_child_process(cls: type[SightlineError]) -> None:
    again = pickle.loads(pickle.dumps(cls("what went wrong")))
    assert type(again) is cls
    assert (again.detail, str(again)) == ("what went wrong", "what went wrong")


@pytest.mark.parametrize("cls", list(tree()))
def test_every_error_is_in_the_tree_with_its_code_and_status(cls: type[SightlineError]) -> None:
    line = re.search(rf"\b{cls.__name__} +(.+)", TREE)
    assert line is not None
    if told := re.fullmatch(r"(\d{3}) (\w+)", line.group(1)):
        assert (cls.status, cls.code) == (int(told.group(1)), told.group(2))


def test_every_error_of_the_tree_exists() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", TREE))
    assert drawn == {cls.__name__ for cls in tree()}


def test_what_is_retryable_later_says_so() -> None:
    later = {cls.code for cls in tree() if cls.retryable and cls.status != 400}
    assert later == {
        "in_progress",
        "queue_full",
        "rate_limited",
        "overloaded",
        "read_only",
        "model_unavailable",
        "not_applied",
        "storage_unavailable",
        "storage_full",
        "timeout",
    }
    assert all(cls.retry_after for cls in tree() if cls.status in (429, 503))


def test_a_missing_file_is_a_kind_of_not_found_and_a_bad_picture_is_not() -> None:
    assert issubclass(BlobMissing, NotFound)
    assert not issubclass(Rejected, NotFound)


def test_every_error_has_a_docstring_of_its_own() -> None:
    assert all(inspect.getdoc(cls) != inspect.getdoc(cls.__base__) for cls in tree())


SYSTEM = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EROFS: ReadOnly,
    errno.EIO: ReadOnly,
    errno.EACCES: ReadOnly,
    errno.EPERM: ReadOnly,
    errno.EMFILE: Overloaded,
    errno.ENFILE: Overloaded,
    errno.ENOMEM: Overloaded,
}


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_error_of_the_system_becomes_the_same_of_ours_in_both_maps_and_tells_no_path(number: int) -> None:
    raised = OSError(number, "as the system words it", "/secret/path")
    ours = from_os_error(raised)
    assert type(ours) is SYSTEM.get(number, BlobMissing if number == errno.ENOENT else Overloaded)
    assert "/secret" not in ours.detail
    with pytest.raises((SightlineError, OSError)) as mapped, map_os_errors():
        raise raised
    if number in SYSTEM:
        assert (type(mapped.value), str(mapped.value)) == (type(ours), ours.detail)
    else:
        assert mapped.value is raised
