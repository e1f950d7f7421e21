from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.core.errors import Validation
from app.decode.pool import DecodePool
from app.encoder.dummy import DummyEncoder
from app.sources.base import SourceItem
from app.sources.embedding_check import SAMPLE_SIZE, ItemSample, embed_files, require_agreement
from tests.app.sources.moved import paint, vectors

AXES = np.eye(4, dtype=np.float32)


def refusal(reason: str) -> str:
    return f"no: {reason}"


def test_a_sample_is_from_all_over_and_of_lines_with_vectors_alone() -> None:
    lines: list[SourceItem] = [{"part": "a", "row": n} for n in range(1_000)]
    others: list[SourceItem] = [{"row": -1}, {"part": "a", "row": -2, "error": {}}] * 1_000
    sample = ItemSample()
    assert len(list(sample.pass_through([*others, *lines]))) == 3_000
    rows = [line["row"] for line in sample.items]
    assert len(set(rows)) == SAMPLE_SIZE
    assert min(rows) >= 0
    assert min(rows) < 500 < max(rows)
    few = ItemSample()
    list(few.pass_through(lines[:3]))
    assert few.items == lines[:3]


def test_pictures_are_embedded_in_their_order_and_what_is_none_has_no_vector(pool: DecodePool, tmp_path: Path) -> None:
    paths = paint(tmp_path, 5)
    expected = vectors(paths)
    paths[2].write_bytes(b"no picture")
    made = embed_files(DummyEncoder(), pool, paths)
    assert [one is None for one in made] == [False, False, True, False, False]
    assert all(float(one @ expected[n]) > 0.999 for n, one in enumerate(made) if one is not None)
    assert embed_files(DummyEncoder(), pool, paths[2:3]) == [None]


def test_the_median_decides() -> None:
    same, other = AXES[0], AXES[1]
    require_agreement([same] * 5, [same, same, same, other, other], refusal)
    require_agreement([same] * 3, [same, None, None], refusal)
    near = np.array([0.985, (1 - 0.985**2) ** 0.5, 0, 0], np.float32)
    for given, made in (([same] * 5, [same, same, other, other, other]), ([near], [same])):
        with pytest.raises(Validation, match=r"no: the model embedded \d of the pictures, .* another model"):
            require_agreement(given, made, refusal)
    with pytest.raises(Validation, match="no: no picture could be decoded"):
        require_agreement([same], [None], refusal)
    with pytest.raises(Validation, match="no: no picture could be decoded"):
        require_agreement([], [], refusal)
