"""What a decode child says of its tasks; `test_sandbox.py` tries real children."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.errors import ArchiveLimit, from_os_error
from app.decode.child import run_task
from app.decode.picture import DecodedPicture
from app.decode.sandbox import PACKAGE, list_libraries
from app.decode.task_channel import TaskFile, with_descriptors


def say(function: Callable[..., Any], *args: Any, opens: bool = False, files: tuple[int, ...] = ()) -> dict[str, Any]:
    """The fields of the answer to a task, and `block` if it has one."""
    limits = resource.getrlimit(resource.RLIMIT_CPU)
    packed = run_task(partial(function, *with_descriptors(args, files)), 60, opens=opens)
    assert resource.getrlimit(resource.RLIMIT_CPU) == (limits[1], limits[1])
    size, count = struct.unpack("=QI", packed[:12])
    assert len(packed) == 12 + size
    return dict(json.loads(packed[12 : 12 + count])) | ({"block": packed[12 + count :]} if size > count else {})


def fail(error: BaseException, cause: BaseException | None = None) -> Callable[[], None]:
    def raise_it() -> None:
        raise error from cause

    return raise_it


def test_a_value_is_said_as_json_and_a_picture_as_a_block() -> None:
    assert say(lambda: [1, Path("a")]) == {"value": [1, "a"]}
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    fields = {"side": 2, "width": 9, "height": 8, "format": "png", "animated": False}
    for digest, text in ((None, None), (b"\x01\xff", "01ff")):
        said = say(lambda digest=digest: DecodedPicture(pixels, 9, 8, "png", False, digest))
        assert said == {"picture": {**fields, "perceptual_hash": text}, "block": bytes(range(12))}


@pytest.mark.parametrize(
    ("error", "cause", "said"),
    [
        (MemoryError(), None, {"memory": True}),
        (PermissionError(), None, {"refused": True}),
        (ArchiveLimit("x"), PermissionError(), {"refused": True}),
        (OSError(errno.EFBIG, ""), None, {"file": True}),
        (from_os_error(OSError(errno.EFBIG, "")), OSError(errno.EFBIG, ""), {"file": True}),
        (ArchiveLimit("too much"), None, {"error": "ArchiveLimit", "detail": "too much"}),
        (KeyError("a" * 500), None, {"odd": "KeyError('" + "a" * 190}),
        (SystemExit(), None, {"odd": "SystemExit()"}),
    ],
)
def test_an_error_is_said_by_its_kind(error: BaseException, cause: BaseException | None, said: dict[str, Any]) -> None:
    assert say(fail(error, cause)) == said


def test_a_child_that_opens_files_may_find_one_that_it_cannot_read() -> None:
    assert say(fail(PermissionError(13, "no")), opens=True) == {"odd": "PermissionError(13, 'no')"}


def test_open_files_take_the_places_of_their_names() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        file, other = with_descriptors((TaskFile("a"), 5), [ours.fileno()])
        assert (file.name, other) == ("a", 5)
        assert say(lambda one: os.fstat(one.descriptor).st_ino, TaskFile("a"), files=(ours.fileno(),)) == {
            "value": os.fstat(ours.fileno()).st_ino
        }


def test_the_libraries_that_a_child_may_read_hold_no_folder_of_ours_but_the_code() -> None:
    found = list(list_libraries())
    assert PACKAGE in found
    assert not [path for path in found if path in (Path("/"), Path("/tmp"), Path.home(), PACKAGE.parent)]
