"""The manifest's JSON: what goes in comes out, and nothing else goes in."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.types import Op, SnapshotFile, SnapshotManifest

MANIFEST = SnapshotManifest(
    name="default/images",
    space="f00d",
    kind="exact",
    d=16,
    ntotal=3,
    applied_seq=9,
    created_at="2026-01-02T03:04:05Z",
    files=(SnapshotFile("ids.npy", 24, "a" * 64), SnapshotFile("vectors.npy", 192, "b" * 64)),
)


def written(fields: dict[str, Any]) -> bytes:
    """JSON as `to_json` writes it, so that the fields alone are refused."""
    return json.dumps(fields, sort_keys=True, indent=1).encode() + b"\n"


def change_manifest(**fields: Any) -> bytes:
    return written({**json.loads(MANIFEST.to_json()), **fields})


def changed_file(**fields: Any) -> bytes:
    rows = json.loads(MANIFEST.to_json())["files"]
    return change_manifest(files=[{**rows[0], **fields}, rows[1]])


def test_manifest_survives_json() -> None:
    assert SnapshotManifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_a_mark_survives_json_and_manifests_of_before_have_none() -> None:
    marked = replace(MANIFEST, mark="9:-4611686018427387904")
    assert SnapshotManifest.from_json(marked.to_json()) == marked
    assert b"mark" not in MANIFEST.to_json()
    assert SnapshotManifest.from_json(MANIFEST.to_json()).mark == ""


def test_any_name_survives_json() -> None:
    names = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=20)

    @given(names, st.integers(0, 2**63 - 1))
    def check_round_trip(name: str, seq: int) -> None:
        manifest = SnapshotManifest(name, "s", "exact", 1, 0, seq, MANIFEST.created_at, ())
        assert SnapshotManifest.from_json(manifest.to_json()) == manifest

    check_round_trip()


REFUSED = {
    "not JSON": b"{",
    "not UTF-8": b"\xff\xfe",
    "empty": b"",
    "a list": b"[]",
    "a number": b"7",
    "nested deep": b"[" * 200_000,
    "no mark": change_manifest(mark=""),
    "a mark that is none": change_manifest(mark="9:x"),
    "another format": change_manifest(format=2),
    "format as text": change_manifest(format="1"),
    "format as truth": change_manifest(format=True),
    "unknown field": change_manifest(extra=1),
    "field twice": MANIFEST.to_json().replace(b'"d": 16', b'"d": 16, "d": 16'),
    "d of zero": change_manifest(d=0),
    "d too wide": change_manifest(d=10**9),
    "d as float": change_manifest(d=16.0),
    "d as truth": change_manifest(d=True),
    "d not a number": MANIFEST.to_json().replace(b"16", b"NaN"),
    "ntotal negative": change_manifest(ntotal=-1),
    "seq past int64": change_manifest(applied_seq=2**63),
    "name empty": change_manifest(name=""),
    "name a number": change_manifest(name=1),
    "name with control characters": change_manifest(name="a\nb"),
    "kind unlike a word": change_manifest(kind="Exact Index"),
    "time unlike RFC 3339": change_manifest(created_at="yesterday"),
    "files not a list": change_manifest(files={}),
    "file not an object": change_manifest(files=["ids.npy"]),
    "file with unknown field": changed_file(mode=7),
    "file outside": changed_file(name="../ids.npy"),
    "file absolute": changed_file(name="/ids.npy"),
    "file hidden": changed_file(name=".npy"),
    "file twice": changed_file(name="vectors.npy"),
    "size negative": changed_file(size=-1),
    "hash short": changed_file(sha256="a" * 63),
    "hash in capitals": changed_file(sha256="A" * 64),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_manifest_refuses(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        SnapshotManifest.from_json(REFUSED[name])


@pytest.mark.parametrize("field", sorted(json.loads(MANIFEST.to_json())))
def test_manifest_refuses_a_missing_field(field: str) -> None:
    fields = json.loads(MANIFEST.to_json())
    del fields[field]
    with pytest.raises(ValueError):  # noqa: PT011 - each says something else
        SnapshotManifest.from_json(written(fields))


def test_op_is_its_word() -> None:
    assert Op("add") is Op.ADD
    assert str(Op.REMOVE) == "remove"
