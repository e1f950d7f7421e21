"""Finds the words of time in a query, the days they mean, and the rest of the query.

A query has words of time if it names one period: "2019 in paris and 2021 in rome" names two, and is left as it is.
What is in quotes is no time. docs/explanation/time-words.md says how each form is read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from app.search.time_words import chinese, english
from app.search.time_words.period import (
    BEGINNING,
    DAY,
    EARLY,
    END,
    LATE,
    MIDDLE,
    OPEN_FIRST,
    OPEN_LAST,
    Period,
    cut,
    latest,
)
from app.search.time_words.rules import Expression, PartOfYear, find_expressions, mask

HINT = re.compile(  # without one of these there is no time: most queries end here
    rf"\d|[年昨]|[今前]天|今[早晚晨夜日]|[上本这个](?:周|月|星期|礼拜|週)|[周週天月拜期](?:之|以)?前|[\d一二三四五六七八九十]月|最近|过去|過去|[上这這]一?[个個]"
    rf"|\b(?:last|this|past|ago|yesterday|today|before|{'|'.join(english.MONTHS)}|{'|'.join(english.DECADES)})\b",
    re.IGNORECASE,
)
QUOTED = re.compile(r'"[^"]*"|“[^”]*”|「[^」]*」|『[^』]*』|«[^»]*»|„[^“”]*[“”]')
SHARES = {
    "early": EARLY,
    "mid": MIDDLE,
    "middle of": MIDDLE,
    "late": LATE,
    "beginning of": BEGINNING,
    "start of": BEGINNING,
    "end of": END,
}
SHARE_BEFORE = re.compile(rf"\b({'|'.join(SHARES)})[ -](?:in )?(?:the )?$", re.IGNORECASE)
RANGE_BEFORE = re.compile(r"(?:\b(?:from|between) (?:the )?|从|自|從)$", re.IGNORECASE)
JOINED = re.compile(r" ?(?:to|until|till|through|thru|-|–|—|~|到|至) ?(?:the )?", re.IGNORECASE)
JOINED_BETWEEN = re.compile(r" ?(?:and|和|与) ?(?:the )?", re.IGNORECASE)
BOUND_BEFORE = re.compile(r"\b(since|after|before|until|till|up to|prior to) (?:the )?(?:year )?$", re.IGNORECASE)
BOUND_AFTER = re.compile(
    r"(?: (?:and|or) (later|after|newer|onwards?|earlier|before|older)\b| (onwards?)\b"
    r"|年?(以后|之后|以来|至今|后(?=的|\s|$)|起(?=的|\s|$)|以前|之前|前(?=的|\s|$)))",
    re.IGNORECASE,
)
NOT_BEFORE = ("before", "prior to", "until", "till", "up to", "earlier", "older", "以前", "之前", "前")
PREPOSITION = re.compile(
    r"(?:\b(?:taken|shot|made|dated|back) )?"
    r"(?:\b(in|during|on|from|of|at|around|over) |(?:拍摄?|摄)?([在于从自從])\s?)?(?:\bthe )?(?:\byear )?"
    rf"(?:\b(?:{'|'.join(english.WEEKDAYS)}),? (?:the )?)?$",
    re.IGNORECASE,
)
GIVES_YEAR = ("in", "during", "on", "from", "在", "于")
ALSO_WORDS = re.compile(r"(?:march|may|mar|dec|jan|jun|sun)\b", re.IGNORECASE)  # months that are other words, too
SUFFIX = re.compile(r"'s\b|\s?(?:我们?)?(?:拍摄?|照|摄)?的(?:时候)?|\s?(?:我们?)?在(?=[㐀-鿿])|期间的?|里的?(?=\s|$)")
GENERIC = english.word_set(
    "photo photos picture pictures pic pics image images shot shots photograph photographs snapshot snapshots snap"
    " snaps everything all my our the in of from taken"
)
GENERIC_CHINESE = re.compile(r"(?:所有|全部|我们?|拍摄?|的|照片|相片|图片|图像|圖片|照)+")
EDGES = " ,;:·、，。-–—"


@dataclass(frozen=True, slots=True)
class TimeWords:
    """Words of time, the days that they mean (None: open), and the rest of the query, which may be empty."""

    text: str
    first: date | None
    last: date | None
    rest: str


@dataclass(frozen=True, slots=True)
class _Found:
    """A period, where its words are, and where what belongs to them is (a preposition)."""

    period: Period
    words: tuple[int, int]
    whole: tuple[int, int]


def find_time(query: str, today: date) -> TimeWords | None:
    """The words of time of a query; None if it has none, or names several periods."""
    if not HINT.search(query) and query.isascii():
        return None
    text = " ".join(unicodedata.normalize("NFKC", query).split())
    if not HINT.search(text):
        return None
    masked = text.replace("’", "'").translate(chinese.SIMPLIFIED)
    for quoted in QUOTED.finditer(masked):
        masked = mask(masked, *quoted.span())
    rules = english.RULES if masked.isascii() else chinese.RULES + english.RULES
    expressions = find_expressions(masked, today, rules)
    found = [one for one in (_complete(masked, one, today) for one in _join(masked, expressions, today)) if one]
    if not found:
        return None
    narrow = min(found, key=lambda one: one.period.last - one.period.first)
    if not all(one.period.contains(narrow.period) for one in found):
        return None
    words = " ".join(text[slice(*one.words)] for one in found)
    first = None if narrow.period.first == OPEN_FIRST else narrow.period.first
    last = None if narrow.period.last == OPEN_LAST else narrow.period.last
    return TimeWords(words, first, last, _cut_out(text, [one.whole for one in found]))


def _join(text: str, expressions: Sequence[Expression], today: date) -> list[Expression]:
    """The expressions, with two that are the ends of a range as one ("June to August 2021")."""
    joined: list[Expression] = []
    for one in expressions:
        if joined and (period := _join_two(text, joined[-1], one, today)):
            joined[-1] = Expression(joined[-1].begin, one.end, period)
        else:
            joined.append(one)
    return joined


def _join_two(text: str, one: Expression, two: Expression, today: date) -> Period | None:
    """The days from one to the other, if the words between say so; an end without a year has the other's."""
    between, introduction = text[one.end : two.begin], RANGE_BEFORE.search(text, 0, one.begin)
    if not (JOINED.fullmatch(between) or (introduction and JOINED_BETWEEN.fullmatch(between))):
        return None
    first, last = one.meaning, two.meaning
    try:
        if isinstance(first, PartOfYear) and isinstance(last, PartOfYear):
            if not introduction:
                return None
            last = latest(last.of_year, today, ended=False)
        if isinstance(first, PartOfYear):
            assert isinstance(last, Period)
            begins = (first.of_year(last.first.year - years) for years in (0, 1))
            return next((Period(begin.first, last.last) for begin in begins if begin.first <= last.last), None)
        if isinstance(last, PartOfYear):
            ends = (last.of_year(first.first.year + years) for years in (0, 1))
            return next((Period(first.first, end.last) for end in ends if end.last >= first.first), None)
    except (ValueError, OverflowError):
        return None
    return Period(first.first, last.last) if first.first <= last.last else None


def _complete(text: str, one: Expression, today: date) -> _Found | None:
    """An expression with the words around it that belong to it. None if it needs a year and has none."""
    begin, end, meaning = one.begin, one.end, one.meaning
    preposition = PREPOSITION.search(text, 0, begin)
    bound = BOUND_BEFORE.search(text, 0, begin)
    if isinstance(meaning, PartOfYear):
        says_when = bool(bound) or bool(preposition and (preposition[1] or preposition[2] or "").lower() in GIVES_YEAR)
        if not (meaning.has_year_by_preposition and says_when) or (
            ALSO_WORDS.match(text, begin) and text[end:].strip(EDGES)
        ):
            return None
        try:
            meaning = latest(meaning.of_year, today, ended=False)
        except (ValueError, OverflowError):
            return None
    if share := SHARE_BEFORE.search(text, 0, begin):
        begin, meaning = share.start(), cut(meaning, *SHARES[share[1].lower()])
        bound = BOUND_BEFORE.search(text, 0, begin)
    if after := BOUND_AFTER.match(text, end):
        end, word = after.end(), next(filter(None, after.groups())).lower()
        meaning = _open(meaning, word, includes=not word.endswith(("后", "前")))
    elif bound:
        begin, meaning = (
            bound.start(),
            _open(meaning, bound[1].lower(), includes=bound[1].lower() in ("since", "until", "till", "up to")),
        )
    words = (begin, end)
    if introduction := RANGE_BEFORE.search(text, 0, begin):
        begin = introduction.start()
    elif before := PREPOSITION.search(text, 0, begin):
        begin = before.start()
    if suffix := SUFFIX.match(text, end):
        end = suffix.end()
    return _Found(meaning, words, (begin, end))


def _open(period: Period, word: str, *, includes: bool) -> Period:
    """All days up to a period, or from it on."""
    if word in NOT_BEFORE:
        return Period(OPEN_FIRST, period.last if includes else period.first - DAY)
    return Period(period.first if includes else period.last + DAY, OPEN_LAST)


def _is_said(character: str) -> bool:
    """Whether a character says something: a letter, a digit, an emoji."""
    return character.isalnum() or unicodedata.category(character) == "So"


def _cut_out(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text without some of its parts; empty if it says no more than that pictures are looked for."""
    pieces, end = [], 0
    for begin, stop in spans:
        pieces.append(text[end : max(begin, end)])
        end = max(stop, end)
    pieces.append(text[end:])
    rest = " ".join(filter(None, (piece.strip(EDGES) for piece in pieces)))
    if not any(map(_is_said, rest)) or GENERIC_CHINESE.fullmatch(rest) or GENERIC.issuperset(rest.lower().split()):
        return ""
    return rest
