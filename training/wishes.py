"""Scenes and labels that the demo must have: answers to a visitor's first searches, and everyday labels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wish:
    """One to three emoji in a set arrangement: side by side, or one above the other."""

    caption: str
    emoji: tuple[str, ...]
    paints: tuple[str | None, ...]
    colour: str = "white"
    background: str = "plain"
    upright: bool = False


def _one(caption: str, emoji: str, paint: str | None = None, colour: str = "white") -> Wish:
    return Wish(caption, (emoji,), (paint,), colour)


def _two(caption: str, emoji: str, other: str, colour: str = "white", upright: bool = False) -> Wish:
    return Wish(caption, (emoji, other), (None, None), colour, "plain" if colour == "white" else "gradient", upright)


WISHES: tuple[Wish, ...] = (
    _one("a red car", "🚗"),
    _one("a red car on a grey background", "🚗", None, "grey"),
    _one("a blue car", "🚗", "blue"),
    _one("a green car", "🚗", "green"),
    _one("a purple car on a yellow background", "🚗", "purple", "yellow"),
    _one("a red sport utility vehicle", "🚙", "red"),
    _one("a red racing car on a blue background", "🏎", None, "blue"),
    _two("a red car next to a traffic light", "🚗", "🚦"),
    _two("a red car next to a house", "🚗", "🏠", "green"),
    _two("a cat next to a birthday cake", "🐈", "🎂"),
    _two("a cat next to a shortcake on a pink background", "🐈", "🍰", "pink"),
    _two("a cat face next to a birthday cake on a blue background", "🐱", "🎂", "blue"),
    _two("a birthday cake above a cat", "🎂", "🐈", "yellow", upright=True),
    _two("a dog next to a birthday cake", "🐕", "🎂"),
    _two("a dog and a cat", "🐕", "🐈", "green"),
    _two("a dog face and a bone", "🐶", "🦴"),
    _two("a rabbit face above a carrot", "🐰", "🥕", upright=True),
    _two("a monkey and a banana", "🐒", "🍌", "blue"),
    _two("a panda above bamboo", "🐼", "🎋", upright=True),
    _two("coffee and a croissant", "☕", "🥐", "brown"),
    _two("a hamburger with french fries", "🍔", "🍟", "red"),
    _two("a rocket above the earth", "🚀", "🌍", "black", upright=True),
    _two("a bicycle under the sun", "🚲", "☀", "blue"),
    _two("a guitar and a musical note", "🎸", "🎵", "purple"),
    _two("a smiling face next to a red heart", "😊", "❤"),
    Wish("an apple, a banana and grapes", ("🍎", "🍌", "🍇"), (None, None, None)),
    Wish("a wrapped gift, balloons and a birthday cake", ("🎁", "🎈", "🎂"), (None, None, None), "yellow"),
    Wish("a house, a tree and the sun", ("🏠", "🌳", "☀"), (None, None, None), "blue", "gradient"),
    Wish("a Christmas tree, Santa Claus and a gift", ("🎄", "🎅", "🎁"), (None, None, None), "white"),
)

# Everyday things whose names serve as labels for image-to-text.
LABELS = tuple(
    "🐈🐕🐎🐄🐖🐑🐘🐒🐼🐻🦁🐯🐰🦊🐺🐭🐸🐢🐍🐊🐬🐳🐟🐙🦋🐝🐞🕷🐔🦆🦉🐧🦅🌹🌻🌷🌵🌲🌳🍄🍎🍌🍇🍓🍊🍋🍉🍒🍑🍍"
    "🥑🥕🌽🍅🥦🍞🧀🍕🍔🍟🌭🍣🍜🍚🍦🍩🍪🎂🍫🍬☕🍵🍺🍷🚗🚕🚌🚑🚒🚓🚲🏍🚂✈🚀🚁⛵🚢🏠🏥🏫🏰⛪🌋🏝🌈☀🌙⭐☁❄🔥💧"
    "⚽🏀🏈⚾🎾🎱🎮🎲🎨🎸🎹🎺🎻🥁🎵📷📺💻⌨📱☎⌚📖✏✂🔑🔒🔨🔧💡🕯🛏🪑🚪🚿👕👖👗👟👠👒👓💍👑🎒🌂💰💳✉📦🎁🎈"
    "🎄🎃😀😂😍😎😢😡😱😴🤖👻💀👽👶👮👸🎅❤👍👋🙏💪👀👃👂🦷🧠🦴"
)
