from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path

import pytest

import app
from app.search.time_words.finder import TimeWords, find_time

TODAY = date(2024, 3, 13)  # a Wednesday
CAPTIONS = Path(app.__file__).with_name("search") / "generic_captions.txt"
PHRASES = Path(__file__).with_name("phrases.tsv")


def find(query: str, today: date = TODAY) -> str:
    """The rest and the days, as one text; "" for none."""
    found = find_time(query, today)
    return "" if found is None else f"{found.rest}|{found.first or ''}|{found.last or ''}"


@pytest.mark.parametrize("language", ["english", "chinese", "none"])
@pytest.mark.parametrize("half", ["development", "held out", "third"])
def test_phrases_have_the_time_that_people_mean(language: str, half: str) -> None:
    with PHRASES.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row["half"] == half]
    rows = [row for row in rows if row["language"] == language]
    assert len(rows) >= 20
    wanted = [f"{row['rest']}|{row['from']}|{row['to']}" if row["from"] or row["to"] else "" for row in rows]
    assert [(row["phrase"], find(row["phrase"])) for row in rows] == [
        (row["phrase"], one) for row, one in zip(rows, wanted, strict=True)
    ]


def test_descriptions_of_pictures_are_no_time() -> None:
    captions = CAPTIONS.read_text(encoding="utf-8").splitlines()
    assert [caption for caption in captions if find_time(caption, TODAY)] == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("２０２３年０７月０４日の海", "の海|2023-07-04|2023-07-04"),
        ("ＪＵＬＹ　２０２３", "|2023-07-01|2023-07-31"),
        ("cat the year before last", "cat|2022-01-01|2022-12-31"),
        ("the week before last", "|2024-02-26|2024-03-03"),
        ("new york this summer", "new york|2024-06-01|2024-08-31"),
        ("beach a couple of months ago", "beach|2024-01-01|2024-01-31"),
        ("summer of '69", "|1969-06-01|1969-08-31"),
        ("2019 onwards", "|2019-01-01|"),
        ("2012 or earlier", "||2012-12-31"),
        ("since July", "|2023-07-01|"),
        ("before last summer", "||2023-05-31"),
        ("between christmas 2022 and easter 2023", "|2022-12-24|2023-04-10"),
        ("from November to February", "|2023-11-01|2024-02-29"),
        ("from December 2022 to January", "|2022-12-01|2023-01-31"),
        ("summer 2019 in rome, july 2019", "in rome|2019-07-01|2019-07-31"),
        ("in march", "|2024-03-01|2024-03-31"),
        ("on March 20", "|2023-03-20|2023-03-20"),
        ("late 1990s kitchen", "kitchen|1997-01-01|1999-12-31"),
        ("last mid-autumn festival", "|2023-09-29|2023-09-29"),
        ("chinese new year 2024", "|2024-02-09|2024-02-15"),
        ("2022 and earlier 🐈", "🐈||2022-12-31"),
        ("תמונות 2023-07-04", "תמונות|2023-07-04|2023-07-04"),
        ("صور البحر July 2023", "صور البحر|2023-07-01|2023-07-31"),
        ("a sign “july 2023” in 2022", "a sign “july 2023”|2022-01-01|2022-12-31"),
        ("我们去年在海边", "我们 海边|2023-01-01|2023-12-31"),
        ("23年7月的海", "海|2023-07-01|2023-07-31"),
        ("这个夏天", "|2024-06-01|2024-08-31"),
        ("上个夏天的海", "海|2023-06-01|2023-08-31"),
        ("2024年寒假", "|2024-01-15|2024-02-15"),
        ("在七月的海", "海|2023-07-01|2023-07-31"),
        ("最近半年", "|2023-09-13|2024-03-13"),
        ("21世纪10年代的手机", "手机|2010-01-01|2019-12-31"),
    ],
)
def test_forms_of_time(query: str, found: str) -> None:
    assert find(query) == found


@pytest.mark.parametrize(
    "query",
    [
        "",
        "2019 in paris and 2021 in rome",  # two periods: neither is meant alone
        "from 2021 to 2019",
        "2023-02-30",
        "31.04.2023",
        "31 april 2023",
        "4 july 5 2023",
        "2023-13",
        "04/07/2019",  # by one custom in April, by the other in July
        "winter 2019/22",
        "december 2031",
        "dragon boat festival 1950",  # not in the table
        "2023年13月",
        "2023年2月30日",
        "半天前",
        "1000 years ago",
        "一百年",
        "March for our lives in march for peace",
        "last Feb 30",
        "from 30 February to 31 June",
        "on 30 february",
        "beach 1066",
        "IMG_20190704_1200",
        "192.168.2019.1",
        "v2019-07-1",
        "$2019",
        "may " * 250,
        "上" * 1000,
    ],
)
def test_what_is_no_time(query: str) -> None:
    assert find(query) == ""


def test_a_long_query_keeps_its_other_words() -> None:
    words = "a very long description of a beach " * 28
    found = find_time(words + "July 2023", TODAY)
    assert found == TimeWords("July 2023", date(2023, 7, 1), date(2023, 7, 31), words.strip())


def test_the_words_of_time_are_told_as_they_were_written() -> None:
    assert [
        getattr(find_time(query, TODAY), "text", None) for query in ("sea in JULY 2023", "海 去年", "since 2020 cat")
    ] == [
        "JULY 2023",
        "去年",
        "since 2020",
    ]


@pytest.mark.parametrize(
    ("today", "query", "found"),
    [
        ("2024-03-09", "last weekend", "|2024-03-02|2024-03-03"),  # a Saturday: this one has not ended
        ("2024-03-10", "last weekend", "|2024-03-02|2024-03-03"),
        ("2024-03-11", "last weekend", "|2024-03-09|2024-03-10"),
        ("2024-03-13", "last wednesday", "|2024-03-06|2024-03-06"),
        ("2024-01-01", "yesterday", "|2023-12-31|2023-12-31"),
        ("2024-01-15", "last month", "|2023-12-01|2023-12-31"),
        ("2024-02-29", "past year", "|2023-02-28|2024-02-29"),
        ("2024-08-31", "last summer", "|2023-06-01|2023-08-31"),  # not yet ended
        ("2024-09-01", "last summer", "|2024-06-01|2024-08-31"),
        ("2024-12-25", "last christmas", "|2023-12-24|2023-12-26"),
        ("2024-01-01", "上个月", "|2023-12-01|2023-12-31"),
    ],
)
def test_relative_words_go_by_the_day(today: str, query: str, found: str) -> None:
    assert find(query, date.fromisoformat(today)) == found


def test_no_day_breaks_the_grammar() -> None:
    with PHRASES.open(encoding="utf-8", newline="") as file:
        phrases = [row["phrase"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    for today in (date(1970, 1, 1), date(2023, 12, 31), date(2024, 2, 29), date(2100, 12, 31)):
        for phrase in phrases:
            found = find_time(phrase, today)
            assert found is None or (found.last or today) >= (found.first or found.last or today) - timedelta(days=0)
