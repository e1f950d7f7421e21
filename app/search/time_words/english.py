"""English words of time, and dates in digits alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

from app.search.time_words.period import (
    DAY,
    SEASONS,
    OfYear,
    Period,
    day_of_year,
    easter,
    latest,
    lunar_day,
    months_of_year,
    of_day,
    of_months,
    of_week,
    of_years,
    thanksgiving,
)
from app.search.time_words.rules import Match, Meaning, PartOfYear, Rule, check_year, complete_year

MONTHS = {
    name: number
    for number, names in enumerate(
        (
            *("january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul", "august aug"),
            *("september sept sep", "october oct", "november nov", "december dec"),
        ),
        1,
    )
    for name in names.split()
}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SEASON_NAMES = {**SEASONS, "fall": SEASONS["autumn"]}
HOLIDAYS: dict[str, OfYear] = {
    "christmas eve": day_of_year(12, 24),
    "christmas day": day_of_year(12, 25),
    "christmas": day_of_year(12, 24, 3),
    "xmas": day_of_year(12, 24, 3),
    "chinese new year": lunar_day(0, begins=-1, count=7),
    "lunar new year": lunar_day(0, begins=-1, count=7),
    "spring festival": lunar_day(0, begins=-1, count=7),
    "dragon boat festival": lunar_day(1),
    "mid-autumn festival": lunar_day(2),
    "new year's eve": day_of_year(12, 31),
    "new years eve": day_of_year(12, 31),
    "new year's day": day_of_year(1, 1),
    "new year's": day_of_year(1, 1),
    "new year": day_of_year(1, 1),
    "easter": easter,
    "halloween": day_of_year(10, 31),
    "thanksgiving": thanksgiving,
    "valentine's day": day_of_year(2, 14),
    "valentines day": day_of_year(2, 14),
    "first half": months_of_year(1, 6),
    "second half": months_of_year(7, 6),
    **{f"q{n}": months_of_year(3 * n - 2, 3) for n in (1, 2, 3, 4)},
}
NUMBERS = {
    name: number
    for number, names in enumerate(
        ("a|an|one", "two|a couple of|couple of", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), 1
    )
    for name in names.split("|")
}
DECADES = {
    name: 10 * number
    for number, name in enumerate(
        ("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties"), 2
    )
}


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def one_of(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))


DAY_NUMBER = r"(?:0?[1-9]|[12]\d|3[01])"
MONTH = rf"(?P<month>{one_of(MONTHS)})\b\.?"
PART = (
    rf"(?:(?:(?P<before>{DAY_NUMBER})(?:st|nd|rd|th)? (?:of )?)?{MONTH}"
    rf"(?: (?:the )?(?P<after>{DAY_NUMBER})(?P<ordinal>st|nd|rd|th)?\b(?!['/.:]\d))?"
    rf"|(?P<season>{one_of(SEASON_NAMES)})\b|(?P<holiday>{one_of(HOLIDAYS)})(?!\w|'s)(?: day)?)"
)
BEFORE = r"(?:(?<=\bmid-)|(?<![\w.,:/#$€£¥+-]))"  # of a word or a number that is not part of another
AFTER = r"(?![\w%°:/+]|-\w|[.,]\d)"
YEAR = rf"(?:(?P<year>1[89]\d\d|20\d\d){AFTER}|'(?P<short>\d\d)\b|(?P<which>last|this) year(?:'s)?\b)"
COUNT = rf"(?P<count>\d{{1,3}}|{one_of(NUMBERS)})"
UNITS = r"(?P<unit>day|week|month|year)s?\b"
# A number beside one of these words is no year, unless a preposition makes it one.
NOT_AFTER_YEAR = word_set(  # in the singular
    "model edition version poster movie film book novel album song logo calendar a an odyssey league bc bce piece"
    " people px pixel m km cm mm meter metre feet ft foot mile kg g lb ml l dollar usd euro eur pound yen yuan yr year"
    " calorie kcal rpm mah mhz ghz hp w watt kw v volt gb mb dpi iso ad step point x by degree block series"
    " class coupe sedan vintage style fashion look"
)
NOT_BEFORE_YEAR = word_set(
    "windows office area route room number no nr top psalm channel bus flight train highway gate level model version"
    " edition runner odyssey race fifa nba pes iso rtx gtx rx px type peugeot boeing airbus nokia dell psalms bmw ww"
    " page chapter lot unit apartment apt suite building street zip code pin class series vintage catalog sku part"
    " plate licence license about than over under almost nearly"
)
NAMED = word_set(  # beside a year anywhere in the query: cars, whose models have years, and works with a year as title
    "album movie film novel odyssey orwell audi bmw buick cadillac chevrolet chevy chrysler corvette dodge ferrari"
    " fiat ford gmc harley honda hyundai jaguar jeep"
    " kia lamborghini lexus mazda mercedes mini mustang nissan opel peugeot porsche renault skoda subaru suzuki"
    " tesla toyota volkswagen volvo vw yamaha kawasaki ducati camaro impala corolla civic"
)
PREPOSITIONS = {"in", "of", "from", "since", "during", "before", "after", "until", "till", "year", "between"}
FIRST_BARE_YEAR = 1970  # no camera wrote an older one: it is a name as often as a year
FIRST_LEADING_YEAR = 1990  # "1984 poster": before it a number at the beginning is a title or a model as often as a year
WORD = re.compile(r"[^\W_]+")


def part_of_year(match: Match) -> PartOfYear:
    """Raises ValueError for a day that no month has."""
    if holiday := match["holiday"]:
        return PartOfYear(HOLIDAYS[holiday.lower()])
    if season := match["season"]:
        return PartOfYear(months_of_year(SEASON_NAMES[season.lower()], 3))
    month, day = MONTHS[match["month"].lower()], match["before"] or match["after"]
    if match["before"] and match["after"]:
        raise ValueError("two days of one month")
    return PartOfYear(day_of_year(month, int(day)) if day else months_of_year(month), has_year_by_preposition=True)


def year_of(match: Match, today: date) -> int:
    """Raises ValueError."""
    if year := match["year"]:
        return check_year(int(year), today)
    if short := match["short"]:
        return complete_year(short, today)
    return today.year - (match["which"].lower() == "last")


def read_part_and_year(match: Match, today: date) -> Meaning:
    return part_of_year(match).of_year(year_of(match, today))


def read_part(match: Match, today: date) -> Meaning:
    """Last and this of a part of a year; a part alone has its year from what is around it."""
    part = part_of_year(match)
    if (which := (match["near"] or "").lower()) == "this":
        return part.of_year(today.year)
    return latest(part.of_year, today, ended=True) if which else part


def read_winter(match: Match, today: date) -> Meaning:
    """A winter with both of its years (2020/21)."""
    first = check_year(int(match["year"]), today)
    return of_months(first, 12, 3) if int(match["to"]) in (first + 1, (first + 1) % 100) else None


def read_day(match: Match, today: date) -> Meaning:
    return of_day(check_year(int(match["year"]), today), int(match["month"]), int(match["day"]))


def read_slashes(match: Match, today: date) -> Meaning:
    """Day/month/year or month/day/year where but one of them is possible."""
    one, two, year = int(match["one"]), int(match["two"]), check_year(int(match["year"]), today)
    if one != two and one <= 12 and two <= 12:
        return None
    return of_day(year, two, one) if one > 12 else of_day(year, one, two)


def read_month(match: Match, today: date) -> Meaning:
    return of_months(check_year(int(match["year"]), today), int(match["month"]))


def read_years(match: Match, today: date) -> Meaning:
    first, last = (check_year(int(match[name]), today) for name in ("year", "to"))
    return of_years(first, last - first + 1) if first < last else None


def read_decade(match: Match, today: date) -> Meaning:
    """A decade with a preposition; without one it is a style ("80s hair")."""
    if not DECADE_BEFORE.search(match.string, 0, match.start()):
        return None
    if match["decade"]:
        digits = match["decade"]
        first = int(digits) if len(digits) == 4 else complete_year(digits, today)
    else:
        first = complete_year(str(DECADES[match["name"].lower()]), today)
    return of_years(check_year(first, today), 10)


def count_back(today: date, count: int, unit: str) -> Period:
    """The day, week, month or year that is `count` back. Raises ValueError, OverflowError."""
    if unit == "day":
        return Period(today - count * DAY, today - count * DAY)
    if unit == "week":
        return of_week(today - 7 * count * DAY)
    if unit == "month":
        return of_months(today.year, today.month - count)
    return of_years(check_year(today.year - count, today))


def last_units(today: date, count: int, unit: str) -> Period:
    """The days from so many days, weeks, months or years ago on. Raises ValueError, OverflowError."""
    if unit in ("month", "year"):
        then = of_months(today.year, today.month - count * (12 if unit == "year" else 1))
        return Period(min(then.first + (today.day - 1) * DAY, then.last), today)
    return Period(today - count * (7 if unit == "week" else 1) * DAY, today)


def parse_count(text: str) -> int:
    return int(text) if text.isdigit() else NUMBERS[text.lower()]


def read_ago(match: Match, today: date) -> Meaning:
    return count_back(today, parse_count(match["count"]), match["unit"].lower())


def read_last_units(match: Match, today: date) -> Meaning:
    return last_units(today, parse_count(match["count"] or "1"), match["unit"].lower())


def read_near_unit(match: Match, today: date) -> Meaning:
    back = 0 if match["near"].lower() == "this" else 1
    if (unit := match["unit"].lower()) != "weekend":
        return count_back(today, back, unit)
    saturday = of_week(today).first + 5 * DAY
    if back and today <= saturday + DAY:
        saturday -= 7 * DAY
    return Period(saturday, saturday + DAY)


def read_before_last(match: Match, today: date) -> Meaning:
    return count_back(today, 2, match["unit"].lower())


def read_weekday(match: Match, today: date) -> Meaning:
    day = today - ((today.weekday() - WEEKDAYS.index(match["weekday"].lower()) - 1) % 7 + 1) * DAY
    return Period(day, day)


def read_near_day(match: Match, today: date) -> Meaning:
    name = match["name"].lower()
    back = 2 if name.endswith("before yesterday") else name in ("yesterday", "last night")
    return count_back(today, int(back), "day")


def read_year(match: Match, today: date) -> Meaning:
    """A year that stands alone."""
    year, text = check_year(int(match["year"]), today), match.string
    before, after = WORD.findall(text[: match.start()].lower()), WORD.findall(text[match.end() :].lower())
    if (
        after
        and not NOT_AFTER_YEAR.isdisjoint((after[0], after[0].removesuffix("s")))
        and text[match.end() :].startswith(" ")
    ):
        return None
    if before and before[-1] in PREPOSITIONS:
        return of_years(year)
    if (before and before[-1] in NOT_BEFORE_YEAR) or not NAMED.isdisjoint(before + after):
        return None
    return of_years(year) if year >= (FIRST_BARE_YEAR if before else FIRST_LEADING_YEAR) else None


DECADE_BEFORE = re.compile(
    r"\b(?:(?:in|from|of|during|since|before|after|around) (?:the )?(?:(?:early|late) |mid[ -])?"
    r"|(?:early|late) |mid[ -])$",
    re.IGNORECASE,
)
END_OR_PLACE = r"(?='s\b|[\s,.;!?]*$|,| (?:at|in|on|with|morning|afternoon|evening|night)\b)"
NO_STYLE = r"(?!-| (?:style|styled|fashion|look|decor|music|clothes|clothing|hairstyles?|dress|costumes?|theme)\b)"
RULES: tuple[Rule, ...] = (
    Rule(rf"{BEFORE}(?P<year>\d{{4}})([-/.])(?P<month>\d\d?)\2(?P<day>\d\d?)(?![\w:/-])", read_day),
    Rule(rf"{BEFORE}(?P<day>\d\d?)\.(?P<month>\d\d?)\.(?P<year>\d{{4}})(?![\w:/-])", read_day),
    Rule(rf"{BEFORE}(?P<year>(?:19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)(?![\w%:/.-])", read_day),
    Rule(rf"{BEFORE}(?P<one>\d\d?)/(?P<two>\d\d?)/(?P<year>\d{{4}})(?![\w:/-])", read_slashes),
    Rule(r"\bwinter (?:of )?(?P<year>\d{4})[/–-](?P<to>\d{4}|\d\d)\b", read_winter),
    Rule(rf"{BEFORE}(?P<year>(?:19|20)\d\d)[-/](?P<month>0[1-9]|1[0-2])(?![\w:/-])", read_month),
    Rule(rf"{BEFORE}(?P<month>0?[1-9]|1[0-2])/(?P<year>(?:19|20)\d\d)(?![\w:/-])", read_month),
    Rule(rf"{BEFORE}(?P<year>\d{{4}}) ?(?:[-–—~到至]|(?= \d)) ?(?P<to>\d{{4}})(?!\d|[-/.]\d|[%:])", read_years),
    Rule(rf"{BEFORE}{PART}(?:,? (?:of |in )?(?:the )?|,){YEAR}", read_part_and_year),
    Rule(rf"{BEFORE}{YEAR},? (?:the )?{PART}", read_part_and_year),
    Rule(r"\b(?P<name>(?:the )?day before yesterday|last night|this (?:morning|afternoon|evening))\b", read_near_day),
    Rule(rf"\b(?P<name>yesterday|today){END_OR_PLACE}", read_near_day),
    Rule(rf"\b{COUNT} {UNITS} ago\b", read_ago),
    Rule(
        rf"\b(?:the )?(?:past|last(?= (?:\d|[a-z]+ \w+s\b))) (?:{COUNT} )?{UNITS}",
        read_last_units,
    ),
    Rule(r"\b(?P<near>last|this) (?P<unit>week|weekend|month|year)\b", read_near_unit),
    Rule(r"\b(?P<unit>week|month|year) before last\b", read_before_last),
    Rule(rf"\blast (?P<weekday>{'|'.join(WEEKDAYS)})\b", read_weekday),
    Rule(
        rf"\b(?:(?P<decade>(?:1[89]|20)\d0|\d0)'?s|(?P<name>{one_of(DECADES)}))\b{NO_STYLE}",
        read_decade,
    ),
    Rule(rf"(?:(?P<near>last|this|past) )?{BEFORE}{PART}", read_part),
    Rule(rf"{BEFORE}(?P<year>1[89]\d\d|20\d\d){AFTER}", read_year),
)
