"""How often the starter answers questions about drawn scenes right, by the form in which question and answer reach it.

`python -m bench.experiments.questions [COUNT]` draws COUNT scenes for each kind of question (200; a minute).
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from app.encoder.loader import EncoderOptions, load_encoder
from app.encoder.protocol import Encoder
from app.search.statements import make_statements
from training.palette import CHINESE, COLOURS, PAINTS
from training.render import Renderer
from training.scenes import Scene, sample_scene
from training.sprites import Glyph, load_atlas

SEED = 2_200_000_000
CHOICES = 4
FORMS = ("statement", "question and answer", "answer alone", "statement and answer")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a scene; the first of the answers is right."""

    kind: str
    scene: Scene
    question: str
    answers: tuple[str, ...]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as scratch:
        atlas = load_atlas(Path(scratch))
        encoder = load_encoder("starter", Path(scratch), EncoderOptions(threads=1))
        renderer, asked = Renderer(atlas), []
        for n in range(count):
            asked += list(ask(SEED + n, atlas.glyphs))
        right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        for one in asked:
            image = encoder.encode_images(renderer.draw(one.scene)[None])[0]
            for form in FORMS:
                right[one.kind][form].append(is_right(encoder, image, one, form))
    print(f"{count} drawn scenes a kind, {CHOICES} answers (yes or no: 2); share of right answers")
    print(f"{'':24}" + "".join(f"{form:>22}" for form in FORMS))
    for kind, forms in right.items():
        print(f"{kind:24}" + "".join(f"{np.mean(forms[form]):22.3f}" for form in FORMS))


def is_right(encoder: Encoder, image: np.ndarray, one: Asked, form: str) -> bool:
    """Whether the first answer is the nearest one."""
    statements, answers = make_statements(one.question, one.answers), list(one.answers)
    texts = {
        "statement": [statements],
        "question and answer": [[f"{one.question} {answer}" for answer in answers]],
        "answer alone": [answers],
        "statement and answer": [statements, answers],
    }[form]
    vectors = np.sum([encoder.encode_texts(some) for some in texts], axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return int(np.argmax(vectors @ image)) == 0


def ask(seed: int, glyphs: Sequence[Glyph]) -> Iterator[Asked]:
    """Questions about the scenes of a seed, in two languages."""
    rng = np.random.default_rng(seed)
    alone, pair = (sample_scene(seed, glyphs, styled=0.0, count=count) for count in (1, 2))
    [thing] = alone.objects
    others = [int(n) for n in rng.choice(len(glyphs), CHOICES - 1, replace=False)]
    for language, what, there, beside, shade, ground in (
        ("en", "What is this?", "Is there a {}?", "What is next to the {}?", "What colour is the {}?", "background"),
        ("zh", "这是什么？", "有{}吗？", "{}旁边是什么？", "{}是什么颜色的？", "背景"),
    ):
        names = [glyph.names[language] for glyph in glyphs]
        yield Asked(f"what, {language}", alone, what, tuple(names[n] for n in (thing.glyph, *others)))
        is_there = bool(rng.integers(2))
        name = names[thing.glyph if is_there else others[0]]
        yes, no = ("yes", "no") if language == "en" else ("有", "没有")
        answers = (yes, no) if is_there else (no, yes)
        yield Asked(f"yes or no, {language}", alone, there.format(name), answers)
        first, second = pair.objects
        choices = tuple(names[n] for n in (second.glyph, *others))
        yield Asked(f"what is beside, {language}", pair, beside.format(names[first.glyph]), choices)
        colours = [str(one) for one in rng.permutation(PAINTS)[:CHOICES]]
        painted = replace(alone, objects=(replace(thing, paint=colours[0]),))
        said = tuple(colours if language == "en" else [f"{CHINESE[one]}色" for one in colours])
        if glyphs[thing.glyph].paintable:
            yield Asked(f"colour of a thing, {language}", painted, shade.format(names[thing.glyph]), said)
        if alone.colour is not None:
            rest = [str(one) for one in rng.permutation([one for one in COLOURS if one != alone.colour])]
            colours = [alone.colour, *rest[: CHOICES - 1]]
            said = tuple(colours if language == "en" else [f"{CHINESE[one]}色" for one in colours])
            yield Asked(f"colour behind, {language}", alone, shade.format(ground), said)


if __name__ == "__main__":
    main()
