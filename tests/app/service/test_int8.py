"""Which pictures calibrate a model in int8, and which judge it."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from app.core.errors import CollectionMissing, StartupError
from app.core.settings import Settings
from app.core.types import Preprocessing
from app.decode.pool import DecodePool
from app.service import int8
from app.service.int8 import GALLERY, Pictures, convert_to_int8, open_pictures, spread, take_samples
from app.storage.blobs import LocalFile
from app.storage.library import Library
from tests.support import makers
from tests.support.pictures import picture

COLOURS = ("red", "green", "blue", "white", "black", "yellow", "purple")


def draw(folder: Path) -> list[Path]:
    """A picture of each colour."""
    paths = []
    for colour in COLOURS:
        paths.append(folder / f"{colour}.png")
        paths[-1].write_bytes(picture(colour))
    return paths


def test_no_picture_both_calibrates_and_judges_and_unreadable_ones_are_left_out(tmp_path: Path) -> None:
    paths = draw(tmp_path)
    paths[1].write_bytes(b"no picture")
    own = Pictures("own", [partial(LocalFile, path) for path in paths], COLOURS)
    with DecodePool(1) as pool:
        samples = take_samples([own], pool, Preprocessing(8))
        bare = take_samples([Pictures("bare", own.openers[2:]), own], pool, Preprocessing(8))
        with pytest.raises(StartupError, match="no picture of gone can be read"):
            take_samples([Pictures("gone", [partial(LocalFile, tmp_path / "none")], ("x",))], pool, Preprocessing(8))
    assert samples.captions == ["white", "yellow", "purple"]  # the first, third and fifth calibrate
    assert samples.pictures[:, 4, 4].argmax(axis=1).tolist() == [0, 0, 2]
    assert samples.calibration[:, 4, 4].argmax(axis=1).tolist() == [0, 2, 0]
    assert samples.calibrated_on == "own (3 pictures)"
    assert (bare.calibrated_on, bare.judged_by) == ("bare (2 pictures)", "own")
    assert len(bare.captions) == 6  # all that can be read


def test_values_are_spread_evenly() -> None:
    assert spread(range(10), 5) == [0, 2, 4, 6, 8]
    assert spread(range(3), 5) == [0, 1, 2]
    assert spread(range(7), 3) == [0, 2, 4]
    assert spread(range(3), 0) == []


def test_a_collection_with_enough_pictures_comes_before_the_gallery(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n, colour in enumerate(COLOURS[:5]):
        added = makers.add(library, picture(colour), caption=colour if n < 3 else None)
        assert added
    for lease in makers.claim(library.database):
        makers.finish(library.database, lease)

    def names(least: int) -> list[tuple[str, int, tuple[str, ...]]]:
        monkeypatch.setattr(int8, "ENOUGH", least)
        found = int8._open_collection(library, "default")
        return [(one.name, len(one.openers), tuple(one.captions)) for one in found]

    described = "collection default"
    assert names(6) == []
    assert names(4) == [(described, 5, ())]
    assert names(3) == [(described, 3, COLOURS[:3]), (described, 5, ())]
    with int8._open_collection(library, "default")[0].openers[0]() as file:
        assert file.path.read_bytes() == picture("red")
    with pytest.raises(CollectionMissing):
        int8._open_collection(library, "none")


def test_without_a_data_directory_the_gallery_is_all(tmp_path: Path) -> None:
    with open_pictures(Settings(data_dir=tmp_path / "none")) as sources:
        assert [one.name for one in sources] == [GALLERY]
        assert len(sources[0].captions) == len(sources[0].openers) > 1000
        with sources[0].openers[0]() as file:
            assert file.path.is_file()
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(find_spec("nncf") is not None, reason="NNCF is installed")
def test_without_nncf_nothing_is_written_and_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"sightline-search\[int8\]"):
        convert_to_int8(Settings(data_dir=tmp_path), "starter", tmp_path / "new")
    assert not (tmp_path / "new").exists()
