"""Captions of a scene in English and Chinese, each with the facts it claims.

A caption is true of a scene if the scene has all facts of the caption. Training uses this to leave out false
negatives, and evaluation to make sure that a query has exactly one right answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from training.palette import CHINESE
from training.scenes import Object, Scene
from training.sprites import LANGUAGES, Glyph

Fact = tuple[str, ...]
CLEAR = 5  # a keyword shared by more glyphs than this does not single one out


@dataclass(frozen=True)
class Caption:
    """A text, what must be in a picture for it to be true, and the glyphs it speaks of."""

    text: str
    facts: frozenset[Fact]
    glyphs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Noun:
    """One object in a caption: its word, and its colour (English name) if the caption names it."""

    word: str
    colour: str | None
    where: int  # index into the scene's objects


class Captioner:
    """Writes captions for scenes over a fixed list of glyphs."""

    def __init__(self, glyphs: Sequence[Glyph]) -> None:
        self.glyphs = tuple(glyphs)
        shared = {language: Counter[str]() for language in LANGUAGES}
        for glyph in self.glyphs:
            for language in LANGUAGES:
                shared[language].update(set(_all_words(glyph, language)))
        self._clear = {
            language: [tuple(w for w in glyph.words[language] if shared[language][w] <= CLEAR) for glyph in self.glyphs]
            for language in LANGUAGES
        }

    def facts(self, scene: Scene) -> frozenset[Fact]:
        """All facts that a true caption of `scene` can claim."""
        out: set[Fact] = set()
        for thing in scene.objects:
            glyph = self.glyphs[thing.glyph]
            colours = _colours(scene, thing, glyph)
            for language in LANGUAGES:
                for word in _all_words(glyph, language):
                    out.add((language, word))
                    out.update((language, word, colour) for colour in colours)
        if scene.colour is not None and scene.colourful:
            out.add(("background", scene.colour))
        for i, first in enumerate(scene.objects):
            for j, second in enumerate(scene.objects):
                relation = _relation(first, second) if i != j else None
                if relation is not None:
                    out.add((relation, str(first.glyph), str(second.glyph)))
        return frozenset(out)

    def full(self, scene: Scene, language: str, rng: np.random.Generator, *, plain: bool = False) -> Caption:
        """A caption with every object in it. With `plain`, objects have only their names, as evaluation asks."""
        nouns = [self._noun(scene, i, language, rng, plain=plain) for i in range(len(scene.objects))]
        relation = _relation(scene.objects[0], scene.objects[1]) if len(nouns) == 2 else None
        said = relation if relation is not None and rng.random() < 0.55 else None
        if said is not None and rng.random() < 0.5:  # the same relation told from the other end
            nouns.reverse()
            said = {"above": "below", "below": "above", "left": "right", "right": "left"}[said]
        elif said is None and len(nouns) > 1:
            nouns = [nouns[int(k)] for k in rng.permutation(len(nouns))]
        backed = scene.colourful and scene.colour is not None and rng.random() < 0.45
        background = scene.colour if backed else None
        join = _join_english if language == "en" else _join_chinese
        spoken = tuple(thing.glyph for thing in scene.objects)
        return Caption(
            join(nouns, said, background, rng), self._claims(scene, nouns, language, said, background), spoken
        )

    def part(self, scene: Scene, language: str, rng: np.random.Generator) -> Caption:
        """A keyword, name or topic of one object, as people type into a search box."""
        which = int(rng.integers(len(scene.objects)))
        glyph = self.glyphs[scene.objects[which].glyph]
        if rng.random() < 0.25:
            colour = self._colour(scene, which, rng, 1.0)
            noun = Noun(_pick(rng, (glyph.names[language], *glyph.words[language])), colour, which)
        else:
            noun = Noun(_pick(rng, _all_words(glyph, language)), None, which)
        spoken = _english(noun, rng, bare=rng.random() < 0.6) if language == "en" else _chinese(noun, rng)
        return Caption(spoken, self._claims(scene, [noun], language, None, None), (scene.objects[which].glyph,))

    def sample(self, scene: Scene, language: str, rng: np.random.Generator) -> Caption:
        """A caption as training uses it: mostly full, sometimes a part."""
        if rng.random() < 0.18:
            return self.part(scene, language, rng)
        return self.full(scene, language, rng)

    def tags(self, scene: Scene) -> list[str]:
        """English and Chinese names and first keywords of everything in the scene."""
        out: list[str] = []
        for thing in scene.objects:
            glyph = self.glyphs[thing.glyph]
            for language in LANGUAGES:
                out += [glyph.names[language], *glyph.words[language][:3]]
        return list(dict.fromkeys(out))

    def _noun(self, scene: Scene, where: int, language: str, rng: np.random.Generator, *, plain: bool) -> Noun:
        index = scene.objects[where].glyph
        word, others = self.glyphs[index].names[language], self._clear[language][index]
        if not plain and others and rng.random() < 0.28:
            word = _pick(rng, others)
        painted = scene.objects[where].paint is not None
        return Noun(word, self._colour(scene, where, rng, 0.8 if painted else 0.12), where)

    def _colour(self, scene: Scene, where: int, rng: np.random.Generator, share: float) -> str | None:
        colours = _colours(scene, scene.objects[where], self.glyphs[scene.objects[where].glyph])
        return colours[0] if colours and rng.random() < share else None

    def _claims(
        self, scene: Scene, nouns: Sequence[Noun], language: str, relation: str | None, background: str | None
    ) -> frozenset[Fact]:
        out: set[Fact] = set()
        for noun in nouns:
            out.add((language, noun.word) if noun.colour is None else (language, noun.word, noun.colour))
        if relation is not None:
            pair = [str(scene.objects[noun.where].glyph) for noun in nouns]
            out.add((relation, *pair))
        if background is not None:
            out.add(("background", background))
        return frozenset(out)


@cache
def _words_of(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _all_words(glyph: Glyph, language: str) -> tuple[str, ...]:
    return _words_of((glyph.names[language], *glyph.words[language], *glyph.topics[language]))


def _colours(scene: Scene, thing: Object, glyph: Glyph) -> tuple[str, ...]:
    if not scene.colourful:
        return ()
    if thing.paint is not None:
        return (thing.paint,)
    return glyph.colours if thing.drawing is None else thing.drawing.colours


def _relation(first: Object, second: Object) -> str | None:
    """Where `first` is, seen from `second`; None where the picture does not make it clear."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > 1.4 * abs(dy):
        return "left" if dx < 0 else "right"
    if abs(dy) > 1.4 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _english(noun: Noun, rng: np.random.Generator, bare: bool) -> str:
    words = noun.word if noun.colour is None else f"{noun.colour} {noun.word}"
    many = noun.word.endswith("s") and not noun.word.endswith(("ss", "us", "is"))
    if bare or many or noun.word.startswith(("a ", "the ")):
        return words
    if rng.random() < 0.12:
        return "the " + words
    return ("an " if words[0] in "aeiou" else "a ") + words


_ENGLISH_RELATIONS = {
    "left": (
        "{0} to the left of {1}",
        "{0} left of {1}",
        "{0} on the left, {1} on the right",
        "{0} next to {1}",
        "{0} beside {1}",
    ),
    "right": (
        "{0} to the right of {1}",
        "{0} right of {1}",
        "{0} on the right and {1} on the left",
        "{0} next to {1}",
        "{0} beside {1}",
    ),
    "above": ("{0} above {1}", "{0} over {1}", "{0} on top of {1}", "{0} at the top, {1} at the bottom"),
    "below": ("{0} below {1}", "{0} under {1}", "{0} beneath {1}", "{0} at the bottom and {1} at the top"),
}
_ENGLISH_LISTS = {
    1: ("{0}",),
    2: ("{0} and {1}", "{0} with {1}", "{0}, {1}", "{0} next to {1}", "{0} near {1}"),
    3: ("{0}, {1} and {2}", "{0}, {1}, {2}", "{0} with {1} and {2}", "{0} and {1} and {2}"),
}
_ENGLISH_BACKGROUNDS = (
    "{0} on a {1} background",
    "{0} on {1}",
    "{0}, {1} background",
    "{0} in front of a {1} background",
    "{0} against {1}",
)
_ENGLISH_OPENINGS = ("a picture of ", "an image of ", "a drawing of ", "an icon of ", "this is ", "there is ")


def _join_english(nouns: Sequence[Noun], relation: str | None, background: str | None, rng: np.random.Generator) -> str:
    bare = rng.random() < 0.35
    spoken = [_english(noun, rng, bare) for noun in nouns]
    forms = _ENGLISH_LISTS[len(nouns)] if relation is None else _ENGLISH_RELATIONS[relation]
    text = _pick(rng, forms).format(*spoken)
    if background is not None:
        text = _pick(rng, _ENGLISH_BACKGROUNDS).format(text, background).replace(" a orange", " an orange")
    return _pick(rng, _ENGLISH_OPENINGS) + text if rng.random() < 0.15 else text


_CHINESE_RELATIONS = {
    "left": ("{0}在{1}左边", "{0}在{1}的左侧", "左边是{0},右边是{1}", "{0}在{1}旁边", "{1}旁边的{0}"),
    "right": ("{0}在{1}右边", "{0}在{1}的右侧", "右边是{0},左边是{1}", "{0}在{1}旁边", "{1}旁边的{0}"),
    "above": ("{0}在{1}上面", "{0}在{1}上方", "上面是{0},下面是{1}", "{1}上面的{0}"),
    "below": ("{0}在{1}下面", "{0}在{1}下方", "下面是{0},上面是{1}", "{1}下面的{0}"),
}
_CHINESE_LISTS = {
    1: ("{0}", "一个{0}"),
    2: ("{0}和{1}", "{0}与{1}", "{0},{1}", "{0}旁边有{1}", "{0} {1}"),
    3: ("{0}、{1}和{2}", "{0},{1},{2}", "{0}和{1}和{2}", "{0} {1} {2}", "有{0}、{1}与{2}"),
}
_CHINESE_BACKGROUNDS = ("{1}色背景上的{0}", "{1}色背景,{0}", "{0},{1}色背景", "{0},背景是{1}色", "{1}色的背景上有{0}")
_CHINESE_OPENINGS = ("一张图片:", "图中有", "这是", "一幅画:", "图片里是")


def _chinese(noun: Noun, rng: np.random.Generator) -> str:
    if noun.colour is None:
        return noun.word
    return CHINESE[noun.colour] + ("色的" if rng.random() < 0.6 else "色" if rng.random() < 0.7 else "") + noun.word


def _join_chinese(nouns: Sequence[Noun], relation: str | None, background: str | None, rng: np.random.Generator) -> str:
    spoken = [_chinese(noun, rng) for noun in nouns]
    forms = _CHINESE_LISTS[len(nouns)] if relation is None else _CHINESE_RELATIONS[relation]
    text = _pick(rng, forms).format(*spoken)
    clause = text.startswith(
        ("左边是", "右边是", "上面是", "下面是", "有")
    )  # a sentence of its own: nothing may enclose it
    if background is not None:
        ways = _CHINESE_BACKGROUNDS[1:4] if clause else _CHINESE_BACKGROUNDS
        text = _pick(rng, ways).format(text, CHINESE[background])
        clause = True
    return _pick(rng, _CHINESE_OPENINGS) + text if not clause and rng.random() < 0.15 else text
