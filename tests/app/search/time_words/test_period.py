from __future__ import annotations

from datetime import date

import pytest

from app.search.time_words.period import (
    DAY,
    Period,
    cut,
    easter,
    latest,
    lunar_day,
    months_of_year,
    of_months,
    of_years,
    thanksgiving,
)


@pytest.mark.parametrize(
    ("year", "sunday"), [(1961, "04-02"), (2000, "04-23"), (2008, "03-23"), (2011, "04-24"), (2038, "04-25")]
)
def test_easter_is_on_its_sunday(year: int, sunday: str) -> None:
    day = date.fromisoformat(f"{year}-{sunday}")
    assert easter(year) == Period(day - 2 * DAY, day + DAY)


@pytest.mark.parametrize(("year", "day"), [(2018, 22), (2019, 28), (2020, 26), (2024, 28)])
def test_thanksgiving_is_the_fourth_thursday(year: int, day: int) -> None:
    assert thanksgiving(year).first == date(year, 11, day)


@pytest.mark.parametrize(
    ("column", "year", "day"),
    [(0, 1970, "02-06"), (0, 2024, "02-10"), (1, 2023, "06-22"), (2, 2020, "10-01"), (0, 2050, "01-23")],
)
def test_lunar_festivals(column: int, year: int, day: str) -> None:
    assert lunar_day(column)(year).first == date.fromisoformat(f"{year}-{day}")


@pytest.mark.parametrize("year", [1969, 2051])
def test_there_are_no_festivals_outside_the_table(year: int) -> None:
    with pytest.raises(ValueError, match="no such year"):
        lunar_day(0)(year)


def test_months_go_past_the_year() -> None:
    assert of_months(2023, 12, 3) == Period(date(2023, 12, 1), date(2024, 2, 29))
    assert of_months(2024, 0) == Period(date(2023, 12, 1), date(2023, 12, 31))
    assert of_months(2024, -11) == Period(date(2023, 1, 1), date(2023, 1, 31))


@pytest.mark.parametrize(
    ("period", "shares", "days"),
    [
        (of_years(1990, 10), (0, 1 / 3), "1990-01-01 1993-12-31"),
        (of_years(1990, 10), (1 / 3, 2 / 3), "1994-01-01 1996-12-31"),
        (of_years(2023), (5 / 6, 1), "2023-11-01 2023-12-31"),
        (of_months(2023, 6, 3), (0, 1 / 6), "2023-06-01 2023-06-30"),
        (of_months(2023, 2), (2 / 3, 1), "2023-02-21 2023-02-28"),
    ],
)
def test_parts_of_periods(period: Period, shares: tuple[float, float], days: str) -> None:
    part = cut(period, *shares)
    assert f"{part.first} {part.last}" == days


def test_the_latest_may_have_to_have_ended() -> None:
    summer, today = months_of_year(6, 3), date(2024, 7, 1)
    assert latest(summer, today, ended=False) == summer(2024)
    assert latest(summer, today, ended=True) == summer(2023)
    with pytest.raises(ValueError, match="no such day"):
        latest(lambda year: summer(year + 9), today, ended=True)
