"""What the tests of the trainer need: the atlas, where font and CLDR are installed."""

from __future__ import annotations

import pytest

from training.sprites import CLDR, EMOJI_TEST, FONT, Atlas, load_atlas


@pytest.fixture(scope="session")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """The whole atlas, built afresh so that no kept file can hide a fault."""
    for path in (FONT, CLDR, EMOJI_TEST):
        if not path.exists():
            pytest.skip(f"{path} is not installed (Debian: fonts-noto-color-emoji, unicode-cldr-core, unicode-data)")
    return load_atlas(tmp_path_factory.mktemp("atlas"))
