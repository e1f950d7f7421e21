"""What a decode child says is checked: it may have been taken over."""

from __future__ import annotations

import json
import os
import pkgutil
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.core.errors import ImageCorrupt, ImageTooLarge, Overloaded
from app.core.types import Preprocessing
from app.decode import child
from app.decode.child_pool import read_error
from app.decode.limits import PictureLimits
from app.decode.picture import DecodedPicture, decode_picture
from app.decode.pool import DecodePool, read_result
from app.decode.task_channel import (
    MAX_ANSWER,
    Answer,
    ChannelClosed,
    Task,
    TaskChannel,
    TaskFile,
    name_function,
    pack_answer,
    with_descriptors,
)
from tests.support import hostile_files

Ends = tuple[TaskChannel, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The service's end of a channel, and the socket of a child."""
    ours, childs = socket.socketpair()
    with ours, childs:
        yield TaskChannel(ours), childs


def soon() -> float:
    return time.monotonic() + 5


def test_an_answer_comes_as_it_was_sent(ends: Ends) -> None:
    channel, childs = ends
    childs.sendall(pack_answer({"value": ["ü", 1, None]}, b"block"))
    assert channel.receive_answer(soon()) == Answer({"value": ["ü", 1, None]}, b"block")


def test_a_task_comes_with_its_open_files(ends: Ends, tmp_path: Path) -> None:
    channel, childs = ends
    (tmp_path / "a").write_text("content")
    with open(tmp_path / "a", "rb") as file:
        channel.send(Task(1, name_function(read_file), (TaskFile("a.png"), 2)), [file.fileno()])
    task, descriptors = TaskChannel(childs).receive()
    content = pkgutil.resolve_name(task.function)(*with_descriptors(task.args, descriptors))
    assert content == ["a.png", ".png", "content", 2]
    os.close(descriptors[0])


def read_file(file: TaskFile, n: int) -> list[Any]:
    with file.open("r") as opened:
        return [file.name, file.suffix, opened.read(), n]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x80\x04.",
        struct.pack("=QI", MAX_ANSWER + 1, 2) + b"{}",
        struct.pack("=QI", 2, 3) + b"{}",
        struct.pack("=QI", 2, 0) + b"{}",
        struct.pack("=QI", 2, 2) + b"[]",
        struct.pack("=QI", 2, 2) + b"{x",
        struct.pack("=QI", 200_000, 200_000) + b"[" * 200_000,
        struct.pack("=QI", 9, 9) + b"1" * 5,
    ],
)
def test_what_is_no_answer_counts_as_the_end_of_the_child(ends: Ends, said: bytes) -> None:
    channel, childs = ends

    def say() -> None:
        childs.sendall(said)
        childs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=say)
    thread.start()
    with pytest.raises(ChannelClosed):
        channel.receive_answer(soon())
    thread.join()


def test_a_child_that_stops_in_the_middle_of_its_answer_is_late(ends: Ends) -> None:
    channel, childs = ends
    childs.sendall(pack_answer({"value": 1})[:-1])
    with pytest.raises(TimeoutError):
        channel.receive_answer(time.monotonic() + 0.1)


def test_a_closed_channel_is_seen_before_a_task_is_sent(ends: Ends) -> None:
    channel, childs = ends
    assert not channel.is_closed()
    childs.close()
    assert channel.is_closed()
    with pytest.raises(ChannelClosed):
        channel.send(1)


PIXELS = np.zeros((2, 2, 3), np.uint8)
GOOD = {"side": 2, "width": 20, "height": 10, "format": "png", "animated": False}


@pytest.mark.parametrize(
    "wrong",
    [
        {"side": 3},
        {"side": -2},
        {"side": 2.0},
        {"side": True},
        {"width": 0},
        {"width": 1 << 40},
        {"height": "10"},
        {"format": "svg"},
        {"format": ["png"]},
        {"animated": 1},
        {"width": None},
        {"perceptual_hash": "00"},
        {"perceptual_hash": "x" * 112},
        {"perceptual_hash": int("1" * 112)},
    ],
)
def test_a_picture_that_no_decoder_could_have_made_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ImageCorrupt, match="could not be read"):
        read_answer({"picture": GOOD | wrong}, PIXELS.tobytes())
    with pytest.raises(ImageCorrupt):
        read_answer({"picture": GOOD}, PIXELS.tobytes() + b"0")


def test_a_picture_and_the_errors_of_a_task_come_through() -> None:
    assert read_answer({"picture": GOOD}, PIXELS.tobytes()).width == 20
    for hashed in (bytes(56), b"", None):
        said = {"perceptual_hash": None if hashed is None else hashed.hex()}
        assert read_answer({"picture": GOOD | said}, PIXELS.tobytes()).perceptual_hash == hashed
    with pytest.raises(ImageTooLarge, match=r"^x{1000}$"):
        read_answer({"error": "ImageTooLarge", "detail": "x" * 5_000})
    for fields in ({"error": "SystemExit", "detail": ""}, {"error": "StartupError"}, {"error": 1, "detail": ""}, {}):
        with pytest.raises(ImageCorrupt, match="could not be read"):
            read_answer(fields)


def test_a_picture_is_expected_of_the_decoder_of_pictures() -> None:
    with pytest.raises(ImageCorrupt, match="could not be read"):
        read_answer({"value": "no picture"})
    with pytest.raises(ImageCorrupt, match="could not be read"):
        read_answer({"picture": GOOD}, PIXELS.tobytes(), function=sorted)


def read_answer(fields: dict[str, Any], block: bytes = b"", function: Callable[..., Any] = decode_picture) -> Any:
    """What the caller of a picture's task gets for this answer."""
    if not {"value", "picture"} & fields.keys():
        raise read_error(fields, ImageCorrupt)
    return read_result(function, Answer(fields, block), ImageCorrupt)


def test_a_task_answers_with_its_result_or_its_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)

    def answer_of(function: Any, *args: Any, opens: bool = False) -> Any:
        return json.loads(child.run_task(partial(function, *args), 60, opens=opens)[12:])

    try:
        assert answer_of(sorted, [2, 1]) == {"value": [1, 2]}
        assert answer_of(Path, "a") == {"value": "a"}
        assert "odd" in answer_of(object)
        assert "odd" in answer_of(hostile_files.raise_odd)
        assert "odd" in answer_of(hostile_files.leave_by_exit)
        assert answer_of(raising, MemoryError()) == {"memory": True}
        assert answer_of(raising, PermissionError()) == {"refused": True}
        assert "odd" in answer_of(raising, PermissionError(), opens=True)
        assert answer_of(raising, ImageTooLarge("big")) == {"error": "ImageTooLarge", "detail": "big"}
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    packed = child.encode_result(DecodedPicture(PIXELS, 20, 10, "png", False))
    assert packed.endswith(PIXELS.tobytes())


def raising(error: BaseException) -> None:
    raise error


def test_a_task_that_cannot_be_sent_fails_alone() -> None:
    with DecodePool(1) as pool:
        with pytest.raises(Overloaded):
            pool.submit(lambda: 1).result(60)
        with pytest.raises(Overloaded):
            pool.submit(sorted, threading.Lock()).result(60)
        assert pool.submit(time.monotonic).result(60) > 0


def test_the_broker_loads_no_decoder(tmp_path: Path) -> None:
    """It stays small: half of its memory was numpy, Pillow and what metrics import."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    others = list_brokers()  # of pools that other tests share
    with DecodePool(1) as pool:
        decoded = pool.submit(decode_picture, tmp_path / "a.png", Preprocessing(32), PictureLimits()).result(60)
        assert decoded.width == 64
        (broker,) = list_brokers() - others
        mapped = Path("/proc", broker, "maps").read_text()
    assert "socket" in mapped
    assert not [name for name in ("numpy", "/PIL/", "_ssl") if name in mapped]


def list_brokers() -> set[str]:
    """The process ids of the brokers that this process has."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(os.getpid()) and b"app.decode.broker" in (path / "cmdline").read_bytes():
                found.add(path.name)
    return found
