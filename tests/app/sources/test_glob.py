from __future__ import annotations

from pathlib import Path

import pytest

from app.core.errors import Validation
from app.sources.glob import MAX_NAMES, expand_braces, match_files, resolve_pattern
from app.sources.local_files import AllowedFolders


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    shards = tmp_path / "shards"
    for name in ("00000.tar", "00001.tar", "00002.TAR", "notes.txt", ".hidden.tar", "deep/00003.tar", "a{1..2}.tar"):
        path = shards / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return shards


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("x-{9..11}", ["x-9", "x-10", "x-11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("plain.tar", ["plain.tar"]),
        ("{a..b}", ["{a..b}"]),
    ],
)
def test_braces_stand_for_numbers(name: str, names: list[str]) -> None:
    assert list(expand_braces(name)) == names


@pytest.mark.parametrize("name", [f"{{0..{MAX_NAMES}}}", "{0..999999999}", "{0..1}{0..1}"])
def test_braces_stand_for_a_bounded_number(name: str) -> None:
    with pytest.raises(Validation):
        list(expand_braces(name))


def test_a_place_is_a_file_a_folder_or_a_pattern_in_one(shards: Path) -> None:
    roots = AllowedFolders((shards,))

    def names(place: str) -> list[str]:
        place = resolve_pattern(f"{shards}/{place}", roots)
        return [str(path.relative_to(shards)) for path in match_files(place, roots, (".tar",), print)]

    assert names("00001.tar") == ["00001.tar"]
    assert names("") == ["00000.tar", "00001.tar", "00002.TAR", "a{1..2}.tar", "deep/00003.tar"]
    assert names("*.tar") == [".hidden.tar", "00000.tar", "00001.tar", "a{1..2}.tar"]
    assert names("{00000..00001}.tar") == ["00000.tar", "00001.tar"]
    assert names("a{1..2}.tar") == ["a{1..2}.tar"]
    assert names("deep/../gone-{1..2}.tar") == ["gone-1.tar", "gone-2.tar"]


@pytest.mark.parametrize(
    "place", ["", "/", "/etc/{0..1}.tar", "/etc", "{}/*/a.tar", "a.tar", "{}/..", "{}/\0", "/etc/*"]
)
def test_only_below_the_roots(place: str, shards: Path) -> None:
    with pytest.raises(Validation):
        resolve_pattern(place.replace("{}", str(shards)), AllowedFolders((shards,)))
    with pytest.raises(Validation):
        list(match_files(place.replace("{}", str(shards)), AllowedFolders((shards,)), (".tar",), print))
