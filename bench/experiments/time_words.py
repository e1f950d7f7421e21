"""How well words of time are read: right ranges of phrases, wrong times in phrases without one, and what a query costs.

.venv/bin/python -m bench.experiments.time_words
"""

from __future__ import annotations

import csv
import timeit
from collections import Counter
from datetime import date
from pathlib import Path

from app.search.time_words.finder import find_time

PHRASES = Path(__file__).parents[2] / "tests/app/search/time_words/phrases.tsv"
TODAY = date(2024, 3, 13)  # for which the phrases were written
QUERIES = (
    *("a red car", "penguins on the snow near the sea in winter", "march of penguins", "the last supper"),
    *("2001 a space odyssey", "一只狗在雪地里", "beach july 2023", "去年夏天的海"),
)
CALLS = 2_000


def main() -> None:
    right: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    with PHRASES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            found = find_time(row["phrase"], TODAY)
            days = ("", "") if found is None else (str(found.first or ""), str(found.last or ""))
            rest = row["phrase"] if found is None else found.rest
            group = (row["language"], row["half"])
            total[group] += 1
            right[group] += (rest, *days) == (row["rest"], row["from"], row["to"])
    for (language, half), count in sorted(total.items()):
        what = "without a time" if language == "none" else language
        print(f"{what}, {half}: {right[language, half]} of {count} right")
    for query in QUERIES:
        seconds = min(timeit.repeat(lambda query=query: find_time(query, TODAY), number=CALLS, repeat=3))  # type: ignore[misc]
        print(f"{seconds / CALLS * 1e6:6.1f} µs  {query}")


if __name__ == "__main__":
    main()
