"""Write the generic captions that ship with the service: `python -m training.generic_captions`.

They stand for what people ask of any collection, whatever its model: whole captions, and words as they are typed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.captions import Captioner
from training.scenes import sample_scene
from training.sprites import load_atlas

OUTPUT = Path(__file__).parents[1] / "app/search/generic_captions.txt"
FIRST_SEED = 3_000_000
COUNT = 1_000
WHOLE = 0.6  # the share of whole captions


def main() -> None:
    atlas = load_atlas()
    captioner, texts, seed = Captioner(atlas.glyphs), dict[str, None](), FIRST_SEED
    while len(texts) < COUNT:
        scene, rng = sample_scene(seed, atlas.glyphs, styled=0), np.random.default_rng((seed, 7))
        language = "zh" if seed % 3 == 0 else "en"
        make = captioner.full if rng.random() < WHOLE else captioner.part
        texts[make(scene, language, rng).text] = None
        seed += 1
    OUTPUT.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


if __name__ == "__main__":
    main()
