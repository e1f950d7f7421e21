"""What the grammars of the languages share: a rule finds an expression of time and says which days it means."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from app.search.time_words.period import FIRST_YEAR, OfYear, Period

MAX_EXPRESSIONS = 16


@dataclass(frozen=True, slots=True)
class PartOfYear:
    """A month, a day or the like without its year. `has_year_by_preposition`: "in July" means the latest July."""

    of_year: OfYear
    has_year_by_preposition: bool = False


Match = re.Match[str]
Meaning = Period | PartOfYear | None


@dataclass(frozen=True)
class Rule:
    """What the matches of an expression mean; None where they mean no time."""

    expression: str
    read: Callable[[Match, date], Meaning]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Compiled when a query first needs it: all of them take a thirtieth of a start."""
        return re.compile(self.expression, re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Expression:
    """What was found from `begin` to `end` of the text."""

    begin: int
    end: int
    meaning: Period | PartOfYear


def mask(text: str, begin: int, end: int) -> str:
    """The text with NUL in place of a part, so that nothing else is found there."""
    return text[:begin] + "\0" * (end - begin) + text[end:]


def find_expressions(text: str, today: date, rules: tuple[Rule, ...]) -> list[Expression]:
    """The expressions of a text in their order; where two overlap, that of the earlier rule.

    None where there are more than MAX_EXPRESSIONS: such a text is no query.
    """
    found: list[Expression] = []
    for rule in rules:
        for match in rule.pattern.finditer(text):
            try:
                meaning = rule.read(match, today)
            except (ValueError, OverflowError):  # there is no such day, so its year means nothing either
                text, meaning = mask(text, *match.span()), None
            if meaning is not None:
                found.append(Expression(match.start(), match.end(), meaning))
            if len(found) > MAX_EXPRESSIONS:
                return []
        for one in found:
            if text[one.begin] != "\0":
                text = mask(text, one.begin, one.end)
    return sorted(found, key=lambda one: one.begin)


def check_year(year: int, today: date) -> int:
    """Raises ValueError for a year of which there are no photographs."""
    if not FIRST_YEAR <= year <= today.year:
        raise ValueError("no year of photographs")
    return year


def complete_year(two_digits: str, today: date) -> int:
    """The latest year that ends so ('19, 23年)."""
    year = today.year // 100 * 100 + int(two_digits)
    return year if year <= today.year else year - 100
