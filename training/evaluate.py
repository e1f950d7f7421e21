"""Measure a model on scenes that training did not use: `python -m training.evaluate [folder]` prints a table.

Each query describes exactly one of the candidates: a scene is taken only if no caption so far is true of it and its
captions are true of no scene so far. Recall at k is the share of queries with their own scene among the first k.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import open_clip.model
import torch
from tokenizers import Tokenizer

from training.captions import Caption, Captioner, Fact
from training.hands import HANDS, PACKAGES, draw_svg
from training.model import SIDE, STARTER, load
from training.render import Renderer
from training.scenes import HELD_OUT_STYLES, Object, Scene, sample_scene
from training.sprites import LANGUAGES, SYMBOLA, Atlas, Pixels, draw_symbol, load_atlas, on_paper
from training.stamps import Stamp, list_stamps
from training.towers import encode_images, encode_texts
from training.vocabulary import tokenize
from training.wide import find_hand, load_wide_atlas

FIRST_SEED = 1_000_000
_FIGURES = """## Figures
Recall among the candidates of the same row, from `python -m training.evaluate --card`; t2i is text to image.
"""
_LARGE = 224  # drawn at this size and shrunk as an upload would be


@dataclass(frozen=True)
class Trial:
    """images uint8 [n, side, side, 3] and one text for each of them in each language."""

    images: npt.NDArray[np.uint8]
    texts: dict[str, list[str]]
    scenes: tuple[Scene, ...] = ()


@dataclass(frozen=True)
class Model:
    """Encodes raw pictures and texts to unit vectors, float32 [n, d]."""

    clip: open_clip.model.CLIP
    tokenizer: Tokenizer

    def images(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [n, side, side, 3] of the model's own side."""
        out = []
        with torch.inference_mode():
            for start in range(0, len(pictures), 128):
                part = torch.from_numpy(pictures[start : start + 128]).permute(0, 3, 1, 2).float()
                out.append(encode_images(self.clip, part / 127.5 - 1).numpy())
        return np.concatenate(out)

    def texts(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Any number of texts in any mixture of languages."""
        out = []
        with torch.inference_mode():
            for start in range(0, len(texts), 128):
                tokens = torch.from_numpy(tokenize(self.tokenizer, texts[start : start + 128]))
                out.append(encode_texts(self.clip, tokens).numpy())
        return np.concatenate(out)


def shrink(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """To the model's side, by area."""
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)


class _Chooser:
    """Takes scenes as long as every caption is true of its own scene only."""

    def __init__(self) -> None:
        self._holders: dict[Fact, set[int]] = {}
        self._needs: dict[Fact, list[frozenset[Fact]]] = {}
        self.count = 0

    def take(self, facts: frozenset[Fact], captions: list[Caption]) -> bool:
        for caption in captions:
            if set.intersection(*(self._holders.get(fact, set()) for fact in caption.facts)):
                return False
        if any(need <= facts for fact in facts for need in self._needs.get(fact, ())):
            return False
        for fact in facts:
            self._holders.setdefault(fact, set()).add(self.count)
        for caption in captions:
            self._needs.setdefault(min(caption.facts), []).append(caption.facts)
        self.count += 1
        return True


def make_trial(
    atlas: Atlas, count: int = 1000, first_seed: int = FIRST_SEED, styled: float = 0.2, *, larger: bool = False
) -> Trial:
    """`count` scenes, each with an English and a Chinese caption that describe no other. With `larger`
    the pictures stay as they were drawn, 224 pixels a side."""
    captioner, renderer, chooser = Captioner(atlas.glyphs), Renderer(atlas), _Chooser()
    images, scenes = list[npt.NDArray[np.uint8]](), list[Scene]()
    texts = {language: list[str]() for language in LANGUAGES}
    seed = first_seed
    while len(scenes) < count:
        scene, rng = sample_scene(seed, atlas.glyphs, styled=styled), np.random.default_rng((seed, 4))
        seed += 1
        captions = [captioner.full(scene, language, rng, plain=True) for language in LANGUAGES]
        if chooser.take(captioner.facts(scene), captions):
            scenes.append(scene)
            picture = renderer.draw(scene, _LARGE)
            images.append(picture if larger else shrink(picture))
            for language, caption in zip(LANGUAGES, captions, strict=True):
                texts[language].append(caption.text)
    return Trial(np.stack(images), texts, tuple(scenes))


def style_trial(atlas: Atlas, style: str, count: int = 1000) -> Trial:
    """`count` different single glyphs in one style, with their names."""
    renderer, images, scenes = Renderer(atlas), [], []
    order = np.random.default_rng(FIRST_SEED - 1).permutation(len(atlas))[:count]
    for index in order:
        thing = Object(int(index), 0.5, 0.5, 0.8)
        scene = Scene(FIRST_SEED - 10_000 + int(index), (thing,), "plain", "white", style)
        scenes.append(scene)
        images.append(shrink(renderer.draw(scene, _LARGE)))
    texts = {language: [atlas.glyphs[int(i)].names[language] for i in order] for language in LANGUAGES}
    return Trial(np.stack(images), texts, tuple(scenes))


def _named_trial(atlas: Atlas, drawn: Iterable[tuple[int, Pixels | None]]) -> Trial:
    """Drawings of glyphs, each with the glyph's name."""
    images, texts = [], {language: list[str]() for language in LANGUAGES}
    for index, picture in drawn:
        if picture is not None:
            images.append(shrink(on_paper(picture)))
            for language in LANGUAGES:
                texts[language].append(atlas.glyphs[index].names[language])
    return Trial(np.stack(images), texts)


def symbol_trial(atlas: Atlas) -> Trial:
    """Every glyph of the monochrome Symbola font, whose shapes differ from the training font's, with its name."""
    return _named_trial(atlas, ((i, draw_symbol(glyph.text)) for i, glyph in enumerate(atlas.glyphs)))


def hand_trial(atlas: Atlas, name: str, count: int = 1000) -> Trial:
    """Up to `count` glyphs as the emoji set `name` draws them, with their names."""
    bodies = find_hand(name, atlas.glyphs)
    order = np.random.default_rng(FIRST_SEED - 2).permutation(sorted(bodies))[:count]
    return _named_trial(atlas, ((int(i), draw_svg(bodies[int(i)])) for i in order))


def thing_trial(wide: Atlas, first: int) -> Trial:
    """Each thing beside the emoji (glyph `first` and those after it) in one of its drawings, with its name."""
    rng = np.random.default_rng(FIRST_SEED - 3)
    chosen = [(i, wide.drawings[i]) for i in range(first, len(wide)) if wide.drawings[i]]
    return _named_trial(wide, ((i, wide.images[own[int(rng.integers(len(own)))].row]) for i, own in chosen))


def stamp_trial(stamps: Sequence[Stamp]) -> Trial:
    """Stamps with their own descriptions, in both languages."""
    drawn = [(stamp, picture) for stamp in stamps if (picture := stamp.draw()) is not None]
    texts = {language: [stamp.texts[language] for stamp, _ in drawn] for language in LANGUAGES}
    return Trial(np.stack([shrink(picture) for _, picture in drawn]), texts)


def recall(queries: npt.NDArray[np.float32], candidates: npt.NDArray[np.float32], k: int) -> float:
    """Share of queries [n, d] whose own candidate (same row of [n, d]) is among the best k."""
    scores = queries @ candidates.T
    better = (scores > np.diagonal(scores)[:, None]).sum(axis=1)
    return float((better < k).mean())


def score(model: Model, trial: Trial) -> dict[str, float]:
    """Recall at 1 and 10, both languages, both directions: "en t2i R@1", …"""
    images = model.images(trial.images)
    out = {}
    for language, texts in trial.texts.items():
        words = model.texts(texts)
        for way, (queries, candidates) in {"t2i": (words, images), "i2t": (images, words)}.items():
            for k in (1, 10):
                out[f"{language} {way} R@{k}"] = recall(queries, candidates, k)
    return out


def _count_rows(name: str, trial: Trial | None) -> dict[str, Trial]:
    return {} if trial is None else {f"{name} ({len(trial.images)})": trial}


def report(folder: Path = STARTER) -> str:
    """The table for the model in `folder`."""
    atlas = load_atlas()
    model = Model(*load(folder))
    rows = {"1,000 unseen scenes": make_trial(atlas)}
    rows |= {f"single, {style} (held out)": style_trial(atlas, style) for style in HELD_OUT_STYLES}
    rows["single, as the font draws"] = style_trial(atlas, "none")
    rows |= _count_rows("single, Symbola font", symbol_trial(atlas) if SYMBOLA.exists() else None)
    for hand in HANDS if PACKAGES.exists() else ():
        if hand.is_held_out:
            rows |= _count_rows(f"single, {hand.name}", hand_trial(atlas, hand.name))
    if PACKAGES.exists():
        rows |= _count_rows("things as training saw them", thing_trial(load_wide_atlas(), len(atlas)))
    stamps = list_stamps()
    for kind in sorted({stamp.kind for stamp in stamps}):
        rows |= _count_rows(f"stamps, {kind}", stamp_trial([stamp for stamp in stamps if stamp.kind == kind]))
    lines: list[str] = []
    for name, trial in rows.items():
        figures = score(model, trial)
        if not lines:
            lines.append(f"{'':32}" + "".join(f"{key:>12}" for key in figures))
        lines.append(f"{name:32}" + "".join(f"{value:12.3f}" for value in figures.values()))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=STARTER)
    parser.add_argument("--card", action="store_true", help="also write the table into the folder's README.md")
    arguments = parser.parse_args()
    table = report(arguments.folder)
    print(table, end="")
    if arguments.card:
        card = arguments.folder / "README.md"
        text = card.read_text(encoding="utf-8").split(_FIGURES)[0]
        card.write_text(f"{text}{_FIGURES}\n```\n{table}```\n", encoding="utf-8")


if __name__ == "__main__":
    main()
