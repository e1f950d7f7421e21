"""Training batches, drawn in separate processes: pictures, captions in two languages, and pairs to ignore."""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.queues
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from queue import Full

import cv2
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from training.captions import Caption, Captioner, Fact
from training.model import GRID
from training.render import Renderer
from training.scenes import COLOURLESS, INKS, STYLES, Scene, redraw, sample_scene, vary_scene
from training.sprites import LANGUAGES, Atlas, load_atlas
from training.vocabulary import load_tokenizer, tokenize
from training.wide import load_wide_atlas

FIRST_SEED = 1 << 32  # seeds below belong to evaluation, gallery and vocabulary
_SIBLING_EVERY = 4  # every fourth scene differs from the one before it in a single thing
_DRAINED = 0.35  # of the scenes in the font's own style get a style without colour
_DRAINED_WIDE = 0.25  # of the scenes by many hands that have no style
_DRAINED_STYLES = (*(style for style in STYLES if style in COLOURLESS), *INKS)
_WORN = 0.3  # of those: worn by a second style on top
_WORN_STYLES = ("blur", "coarse", "jpeg", "faded", "grainy", "shadow", "bright")
_WIDE = 0.5  # of the batch's groups of siblings: drawn by many hands
_THINGS = 0.4  # of those may show things that are no emoji
_ALONE = 0.6  # of those show one object alone
_OTHER_HAND = 0.85  # of the objects in those are drawn by another hand than the font's
_LARGER = 0.12  # of a batch: drawn larger and shrunk, as pictures from elsewhere are


@dataclass(frozen=True)
class Batch:
    """n scenes. images uint8 [n, side, side, 3]; tokens int64 [n, length] for each language;
    also bool [languages, n captions, n scenes], True where a caption is true of another scene too.
    Labels, -1 where there is none: objects int64 [1 + languages, n, 3], the glyphs in each picture and
    in each caption; cells int64 [n, patches], the glyph each patch of the picture shows."""

    images: npt.NDArray[np.uint8]
    tokens: tuple[npt.NDArray[np.int64], ...]
    also: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int64]

    def parts(self, count: int) -> Iterator[Batch]:
        """The batch cut into `count` equal smaller ones."""
        size = len(self.images) // count
        for k in range(count):
            part = slice(k * size, (k + 1) * size)
            yield Batch(
                self.images[part],
                tuple(tokens[part] for tokens in self.tokens),
                self.also[:, part, part],
                self.objects[:, part],
                self.cells[part],
            )


def _labels(rows: Sequence[tuple[int, ...]]) -> npt.NDArray[np.int64]:
    """int64 [n, 3], padded with -1."""
    return np.array([(*row, -1, -1)[:3] for row in rows], dtype=np.int64)


def _cells(scene: Scene) -> npt.NDArray[np.int64]:
    """The glyph in each cell of the model's grid of patches, row by row; -1 where the background shows."""
    middle = (np.arange(GRID) + 0.5) / GRID
    out = np.full((GRID, GRID), -1, np.int64)
    for thing in scene.objects:
        out[np.hypot(middle[None, :] - thing.x, middle[:, None] - thing.y) < 0.42 * thing.size] = thing.glyph
    return out.ravel()


def also_true(captions: Sequence[Caption], facts: Sequence[frozenset[Fact]]) -> npt.NDArray[np.bool_]:
    """bool [n, n]: caption i is true of scene j, j not i."""
    holders: dict[Fact, set[int]] = {}
    for j, known in enumerate(facts):
        for fact in known:
            holders.setdefault(fact, set()).add(j)
    out = np.zeros((len(captions), len(facts)), np.bool_)
    for i, caption in enumerate(captions):
        found = set.intersection(*(holders.get(fact, set()) for fact in caption.facts))
        out[i, list(found - {i})] = True
    return out


class Maker:
    """Makes batches from seeds. Each drawing process has one."""

    def __init__(self, size: int, side: int, base: Atlas, wide: Atlas, tokenizer: Tokenizer) -> None:
        """`wide` begins with the glyphs of `base`, the font's."""
        self._size, self._side, self._tokenizer = size, side, tokenizer
        self._base, self._wide = base.glyphs, wide.glyphs
        self._drawings, self._fonts = wide.drawings, range(len(base))
        self._renderer, self._captioner = Renderer(wide), Captioner(wide.glyphs)

    def _scenes(self, first: int, rng: np.random.Generator) -> list[Scene]:
        """Groups of siblings, each in the font's hand or by many hands."""
        scenes: list[Scene] = []
        is_wide = False
        for seed in range(first, first + self._size):
            place = len(scenes) % _SIBLING_EVERY
            is_wide = rng.random() < _WIDE if place == 0 else is_wide
            if place == 1:
                scene = vary_scene(scenes[-1], seed, self._wide if is_wide else self._base)
            elif is_wide:
                count = 1 if rng.random() < _ALONE else None
                choices = None if rng.random() < _THINGS else self._fonts
                scene = sample_scene(seed, self._wide, styled=0.3, count=count, choices=choices)
            else:
                scene = sample_scene(seed, self._base)
            scene = self._by_hands(scene, rng) if is_wide else scene
            scenes.append(self._drain(scene, rng, _DRAINED_WIDE if is_wide else _DRAINED))
        return scenes

    def _by_hands(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """Draw the objects by other hands, those that the font lacks always."""
        scene = redraw(scene, self._drawings, rng, _OTHER_HAND)
        if any(thing.drawing is None and thing.glyph not in self._fonts for thing in scene.objects):
            return redraw(scene, self._drawings, rng, 1.0)
        return scene

    def make(self, number: int) -> Batch:
        """Batch `number`, counted from 0; the same number always gives the same batch."""
        first = FIRST_SEED + number * self._size
        rng = np.random.default_rng((first, 3))
        scenes = self._scenes(first, rng)
        facts = [self._captioner.facts(scene) for scene in scenes]
        tokens, also = [], []
        objects = [_labels([tuple(thing.glyph for thing in scene.objects) for scene in scenes])]
        for language in LANGUAGES:
            captions = [self._captioner.sample(scene, language, rng) for scene in scenes]
            tokens.append(tokenize(self._tokenizer, [caption.text for caption in captions]))
            also.append(also_true(captions, facts))
            objects.append(_labels([caption.glyphs for caption in captions]))
        images = np.stack([self._draw(scene, rng) for scene in scenes])
        cells = np.stack([_cells(scene) for scene in scenes])
        return Batch(images, tuple(tokens), np.stack(also), np.stack(objects), cells)

    def _drain(self, scene: Scene, rng: np.random.Generator, share: float) -> Scene:
        """Remove the colour from some scenes. Otherwise the model often needs colour alone, and learns no shapes."""
        if scene.style != "none" or rng.random() >= share:
            return scene
        style = str(rng.choice(_DRAINED_STYLES))
        if rng.random() < _WORN:
            style += "+" + str(rng.choice(_WORN_STYLES))
        return replace(scene, style=style)

    def _draw(self, scene: Scene, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        if rng.random() >= _LARGER:
            return self._renderer.draw(scene, self._side)
        large = self._renderer.draw(scene, int(rng.integers(140, 240)))
        way = cv2.INTER_AREA if rng.random() < 0.7 else cv2.INTER_LINEAR
        return cv2.resize(large, (self._side, self._side), interpolation=way).astype(np.uint8)


def _serve(queue: multiprocessing.queues.Queue[Batch], size: int, side: int, numbers: Iterator[int]) -> None:
    cv2.setNumThreads(1)
    base = load_atlas()
    maker = Maker(size, side, base, load_wide_atlas(), load_tokenizer(base.glyphs))
    parent = os.getppid()
    for number in numbers:
        batch = maker.make(number)
        while os.getppid() == parent:  # ends when the trainer was killed
            try:
                queue.put(batch, timeout=5)
                break
            except Full:
                continue
        else:
            return


def stream(size: int, side: int, first: int = 0, processes: int = 1) -> Iterator[Batch]:
    """Batches `first`, first + 1, … without end. Other processes draw them ahead."""
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(maxsize=3) for _ in range(processes)]
    for k, queue in enumerate(queues):
        context.Process(
            target=_serve, args=(queue, size, side, itertools.count(first + k, processes)), daemon=True
        ).start()
    for queue in itertools.cycle(queues):
        yield queue.get()
