"""JSON is bounded as it comes, whatever its parts are, and what is parsed is what was sent."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.json_body import LONG, MAX_DEPTH, MAX_MARKS, JsonScan
from app.core.base64_text import decode_base64_file
from app.core.errors import BadRequest, PayloadTooLarge, SightlineError, Validation
from app.core.strict_json import MAX_FIELD_MARKS, load_json

TEXTS = st.lists(st.sampled_from(['"', "\\", ",", "{", "]", "é", "image", ":", "\n"]), max_size=9).map("".join)
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(TEXTS, inside, max_size=4),
    max_leaves=20,
)


def scan(body: bytes, step: int = 1 << 16, folder: Path | None = None, most: int = 1 << 20) -> JsonScan:
    """The scan of a body that comes in parts of so many bytes."""
    scanned = JsonScan(most, None if folder is None else lambda: folder)
    for at in range(0, len(body), step):
        scanned.feed(body[at : at + step])
    scanned.close()
    return scanned


@pytest.mark.parametrize("step", [5, 4096, 1 << 20])
def test_with_anywhere_long_base64_goes_to_a_file_whatever_its_field(tmp_path: Path, step: int) -> None:
    raw = bytes(range(256)) * 40
    text = base64.b64encode(raw).decode()
    sentence = "a red car " * 900
    body = {"input": [text, f"data:image/png;base64,{text}", sentence, "QUJD"], "url": f" DATA:x;base64,{text}"}
    scanned = JsonScan(1 << 20, lambda: tmp_path, anywhere=True)
    written = json.dumps(body).replace("/", "\\/").encode()
    for at in range(0, len(written), step):
        scanned.feed(written[at : at + step])
    scanned.close()
    found = scanned.load()
    assert found["input"][2:] == [sentence, "QUJD"]
    for name in (*found["input"][:2], found["url"]):
        decode_base64_file(scanned.pictures[name], tmp_path / f"{name}.bin")
        assert (tmp_path / f"{name}.bin").read_bytes() == raw


@pytest.mark.parametrize("step", [1, 5, 4096])
@pytest.mark.parametrize("order", [("texts", "images"), ("images", "texts"), ("x", "texts", "y", "images")], ids=str)
def test_the_texts_of_a_wire_stay_where_they_are(tmp_path: Path, step: int, order: tuple[str, ...]) -> None:
    text = base64.b64encode(bytes(range(256)) * 20).decode()
    uri = f"data:image/png;base64,{text}"
    lists = {"texts": ["a", text, uri], "images": [text, uri]}
    body = "{" + ", ".join(f'"{name}" : {json.dumps(lists.get(name))}' for name in order) + "}"
    scanned = JsonScan(1 << 20, lambda: tmp_path, anywhere=True, texts=b"texts")
    for at in range(0, len(body), step):
        scanned.feed(body[at : at + step].encode())
    scanned.close()
    found = scanned.load()
    assert found["texts"] == lists["texts"]
    assert list(scanned.pictures) == found["images"]
    assert len(found["images"]) == 2


def count_marks(value: Any) -> int:
    """Brackets, commas and colons of a value as JSON."""
    if isinstance(value, dict):
        return 2 + max(0, len(value) - 1) + len(value) + sum(map(count_marks, value.values()))
    if isinstance(value, list):
        return 2 + max(0, len(value) - 1) + sum(map(count_marks, value))
    return 0


@given(VALUES, st.integers(1, 9), st.booleans(), st.booleans())
def test_the_value_and_its_marks_are_those_that_were_sent(value: Any, step: int, ascii: bool, pictures: bool) -> None:
    scanned = scan(json.dumps(value, ensure_ascii=ascii).encode(), step, Path() if pictures else None)
    assert scanned.load() == value
    assert scanned.marks == count_marks(value)
    assert scanned.pictures == {}


@pytest.mark.parametrize("step", [5, 4096, 1 << 20])
def test_long_pictures_go_to_files_and_nothing_else_does(tmp_path: Path, step: int) -> None:
    raw = bytes(range(256)) * 40
    text = base64.b64encode(raw).decode()
    body = {"query": [{"image": text}, {"image": "QUJD"}, {"text": text}, {"image": f"data:image/png;base64,{text}"}]}
    written = json.dumps(body).replace("/", "\\/").replace("+", "\\u002B").replace('"image":', '"image" :\n')
    scanned = scan(written.encode(), step, tmp_path)
    parts = scanned.load()["query"]
    assert (parts[1], parts[2]) == ({"image": "QUJD"}, {"text": text})
    assert set(scanned.pictures) == {parts[0]["image"], parts[3]["image"]}
    for n, path in enumerate(scanned.pictures.values()):
        decode_base64_file(path, tmp_path / f"picture-{n}")
        assert (tmp_path / f"picture-{n}").read_bytes() == raw
    assert len(scanned.text) < 2 * len(text)


BOUNDS: dict[str, tuple[bytes, type[SightlineError], str]] = {
    "empty objects": (b"[" + b"{}," * (MAX_MARKS // 3) + b"{}]", PayloadTooLarge, f"may have {MAX_MARKS} brackets"),
    "numbers": (b"[" + b"1," * MAX_MARKS + b"1]", PayloadTooLarge, f"may have {MAX_MARKS} brackets"),
    "names": (b"{" + b'"a":1,' * (MAX_MARKS // 2), PayloadTooLarge, f"may have {MAX_MARKS} brackets"),
    "depth": (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), Validation, "nested too deeply: 64 levels"),
    "a text": (b'"' + b"x" * (1 << 20) + b'"', PayloadTooLarge, "may have 1048576 bytes"),
    "spaces": (b" " * (1 << 20) + b"1", PayloadTooLarge, "may have 1048576 bytes"),
    "a name as long as a picture": (b'{"image' + b"x" * (1 << 20) + b'":1}', PayloadTooLarge, "may have 1048576 bytes"),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_body_past_a_bound_is_refused_at_the_part_that_passes_it(name: str, tmp_path: Path) -> None:
    body, error, sentence = BOUNDS[name]
    for step in (1 << 16, 1 << 21):
        with pytest.raises(error, match=sentence):
            scan(body + b" " * (3 << 20), step)
        with pytest.raises(error):
            scan(body, step, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_as_much_as_the_bounds_allow_is_read() -> None:
    depth = MAX_DEPTH * b"[" + MAX_DEPTH * b"]"
    assert scan(depth).load() == json.loads(depth)
    assert len(scan(b"[" + b"1," * (MAX_MARKS - 2) + b"1]").load()) == MAX_MARKS - 1
    assert scan(json.dumps(",:[]{}" * MAX_MARKS).encode()).marks == 0


def test_an_end_inside_an_escape_is_no_json(tmp_path: Path) -> None:
    for body in (b'"a\\', b'{"image": "' + b"A" * LONG * 2, b"\xff", '{"a": 1}'.encode("utf-16")):
        with pytest.raises(Validation, match="is not JSON"):
            scan(body, 100, tmp_path).load()


def test_json_in_an_address_is_bounded() -> None:
    with pytest.raises(BadRequest, match=f"filter may have {MAX_FIELD_MARKS} brackets"):
        load_json("[" + "{}," * MAX_FIELD_MARKS + "{}]", "filter", BadRequest)
