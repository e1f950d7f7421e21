"""Periods of whole days, and how years, seasons and holidays lie in the calendar.

Seasons are those of the northern hemisphere, each of three whole months. The winter of a year begins in it.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta

FIRST_YEAR = 1840  # there are no older photographs
DAY = timedelta(days=1)
OPEN_FIRST, OPEN_LAST = date.min, date.max  # of a period without a first or a last day
EARLY, MIDDLE, LATE = (0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)  # shares of a period
BEGINNING, END = (0, 1 / 6), (5 / 6, 1)
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "winter": 12}  # the first month
# By the lunar calendar: Chinese New Year, the dragon boat festival and the mid-autumn festival of 1970 to 2050.
LUNAR_DAYS = (
    "206 608 915;127 528 1003;215 615 922;203 605 911;123 624 930;211 614 920;131 602 908;218 621 927;207 610 917;"
    "128 530 1005;216 617 923;205 606 912;125 625 1001;213 615 921;202 604 910;220 622 929;209 611 918;129 531 1007;"
    "217 618 925;206 608 914;127 528 1003;215 616 922;204 605 911;123 624 930;210 613 920;131 602 909;219 620 927;"
    "207 609 916;128 530 1005;216 618 924;205 606 912;124 625 1001;212 615 921;201 604 911;122 622 928;209 611 918;"
    "129 531 1006;218 619 925;207 608 914;126 528 1003;214 616 922;203 606 912;123 623 930;210 612 919;131 602 908;"
    "219 620 927;208 609 915;128 530 1004;216 618 924;205 607 913;125 625 1001;212 614 921;201 603 910;122 622 929;"
    "210 610 917;129 531 1006;217 619 925;206 609 915;126 528 1003;213 616 922;203 605 912;123 624 1001;211 612 919;"
    "131 601 908;219 620 927;208 610 916;128 530 1004;215 618 924;204 607 913;124 527 1002;212 614 920;201 603 910;"
    "122 622 928;210 611 917;130 531 1005;217 619 925;206 608 915;126 529 1004;214 615 922;202 604 911;123 623 930"
)
LUNAR = LUNAR_DAYS.split(";")
LUNAR_FIRST_YEAR = 1970


@dataclass(frozen=True, slots=True)
class Period:
    """From its first day to its last, both included."""

    first: date
    last: date

    def contains(self, other: Period) -> bool:
        return self.first <= other.first and other.last <= self.last


OfYear = Callable[[int], Period]  # a part of a year, like July or Christmas. Raises ValueError where it has none


def of_day(year: int, month: int, day: int) -> Period:
    """Raises ValueError."""
    return Period(date(year, month, day), date(year, month, day))


def of_months(year: int, month: int, count: int = 1) -> Period:
    """`count` months from one on; the months of `year` go on past 12, and before 1."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    last_year, last_month = year + (month + count - 2) // 12, (month + count - 2) % 12 + 1
    return Period(date(year, month, 1), date(last_year, last_month, monthrange(last_year, last_month)[1]))


def of_years(year: int, count: int = 1) -> Period:
    return Period(date(year, 1, 1), date(year + count - 1, 12, 31))


def of_week(day: date) -> Period:
    """The week from Monday on that the day is in."""
    monday = day - day.weekday() * DAY
    return Period(monday, monday + 6 * DAY)


def day_of_year(month: int, day: int, count: int = 1) -> OfYear:
    """`count` days of each year, from one on."""

    def of_year(year: int) -> Period:
        first = date(year, month, day)
        return Period(first, first + (count - 1) * DAY)

    return of_year


def months_of_year(month: int, count: int = 1) -> OfYear:
    return lambda year: of_months(year, month, count)


def lunar_day(column: int, begins: int = 0, count: int = 1) -> OfYear:
    """`count` days from a festival of LUNAR on, or from so many days after it."""

    def of_year(year: int) -> Period:
        if not 0 <= (row := year - LUNAR_FIRST_YEAR) < len(LUNAR):
            raise ValueError("no such year in the table")
        number = int(LUNAR[row].split()[column])
        first = date(year, number // 100, number % 100) + begins * DAY
        return Period(first, first + (count - 1) * DAY)

    return of_year


def easter(year: int) -> Period:
    """From Good Friday to Easter Monday (the Gregorian computus of Meeus, Jones and Butcher)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    h = (19 * a + b - d - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    i, k = divmod(c, 4)
    n = (32 + 2 * e + 2 * i - h - k) % 7
    month, day = divmod(h + n - 7 * ((a + 11 * h + 22 * n) // 451) + 114, 31)
    sunday = date(year, month, day + 1)
    return Period(sunday - 2 * DAY, sunday + DAY)


def thanksgiving(year: int) -> Period:
    """The fourth Thursday of November."""
    first = date(year, 11, 1)
    thursday = first + ((3 - first.weekday()) % 7 + 21) * DAY
    return Period(thursday, thursday)


def cut(period: Period, begin: float, end: float) -> Period:
    """A share of a decade in whole years, of a year or a season in whole months, of a month in days."""
    first, last = period.first, period.last
    if (years := last.year - first.year + 1) >= 10:
        lowest, highest = round(begin * years + 0.4), round(end * years + 0.4)
        return of_years(first.year + lowest, highest - lowest)
    if (months := (last.year - first.year) * 12 + last.month - first.month + 1) >= 3:
        lowest, highest = round(begin * months), round(end * months)
        return of_months(first.year, first.month + lowest, max(highest - lowest, 1))
    lowest, highest = round(begin * 30), round(end * 30)
    return Period(first + lowest * DAY, last if end == 1 else first + (highest - 1) * DAY)


def latest(of_year: OfYear, today: date, *, ended: bool) -> Period:
    """The latest that has begun, or that has `ended`, before today. Raises ValueError."""
    for year in (today.year, today.year - 1, today.year - 2):
        found = of_year(year)
        if (found.last < today) if ended else (found.first <= today):
            return found
    raise ValueError("there is no such day in the last years")
