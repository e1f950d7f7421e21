from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from app.core.errors import ImageCorrupt, Overloaded
from app.core.types import CameraData
from app.service.camera_data import read_data


def answer(value: Any) -> Future[Any]:
    said: Future[Any] = Future()
    if isinstance(value, Exception):
        said.set_exception(value)
    else:
        said.set_result(value)
    return said


def test_what_a_child_says_is_checked_and_a_fault_of_the_machine_passes_on() -> None:
    assert read_data(answer({"camera": "X100"})) == CameraData(camera="X100")
    for odd in ({"camera": 5}, "x", None, ImageCorrupt("cut off")):
        assert read_data(answer(odd)) is None
    with pytest.raises(Overloaded):
        read_data(answer(Overloaded("no decoder")))
