"""Chinese words of time. Traditional characters are read as simplified ones (`SIMPLIFIED`), each one as one."""

from __future__ import annotations

from datetime import date

from app.search.time_words.english import count_back, last_units
from app.search.time_words.period import (
    BEGINNING,
    DAY,
    EARLY,
    END,
    LATE,
    MIDDLE,
    OfYear,
    Period,
    cut,
    day_of_year,
    latest,
    lunar_day,
    months_of_year,
    of_months,
    of_week,
    of_years,
)
from app.search.time_words.rules import Match, Meaning, PartOfYear, Rule, check_year, complete_year

SIMPLIFIED = str.maketrans(
    "週個國聖誕禮號兩過後從節幾內暑間晝陽慶勞動兒萬聖開結來", "周个国圣诞礼号两过后从节几内暑间昼阳庆劳动儿万圣开结来"
)
DIGITS = {digit: n for n, digit in enumerate("〇一二三四五六七八九")} | {
    "零": 0,
    "○": 0,
    "两": 2,
    "日": 7,
    "天": 7,
    "末": 6,
}
SEASONS = {"春": 3, "夏": 6, "秋": 9, "冬": 12}
HOLIDAYS: dict[str, OfYear] = {
    "国庆": day_of_year(10, 1, 7),
    "十一": day_of_year(10, 1, 7),
    "春节": lunar_day(0, begins=-1, count=7),
    "过年": lunar_day(0, begins=-1, count=7),
    "除夕": lunar_day(0, begins=-1),
    "元宵": lunar_day(0, begins=14),
    "端午": lunar_day(1),
    "中秋": lunar_day(2),
    "清明": day_of_year(4, 4, 3),
    "五一": day_of_year(5, 1, 5),
    "劳动": day_of_year(5, 1, 5),
    "六一": day_of_year(6, 1),
    "儿童": day_of_year(6, 1),
    "元旦": day_of_year(1, 1),
    "新年": day_of_year(1, 1),
    "圣诞": day_of_year(12, 24, 3),
    "平安夜": day_of_year(12, 24),
    "情人": day_of_year(2, 14),
    "万圣": day_of_year(10, 31),
    "暑假": months_of_year(7, 2),
    "寒假": day_of_year(1, 15, 32),
    "上半年": months_of_year(1, 6),
    "下半年": months_of_year(7, 6),
}
SHARES = {
    "初": BEGINNING,
    "中": MIDDLE,
    "底": END,
    "末": END,
    "上旬": EARLY,
    "中旬": MIDDLE,
    "下旬": LATE,
}
YEARS_BACK = {"今": 0, "本": 0, "去": 1, "前": 2, "大前": 3}
DAYS_BACK = {"今": 0, "昨": 1, "前": 2, "大前": 3}
UNITS = {"天": "day", "日": "day", "周": "week", "星期": "week", "礼拜": "week", "月": "month", "年": "year"}

NUMBER = "[〇零○一二三四五六七八九十两]"
COUNT = rf"(?P<count>\d{{1,3}}|{NUMBER}{{1,3}}|半)"
UNIT = r"(?P<unit>天|日|个?周|个?星期|个?礼拜|个月|年)"
YEAR = (
    rf"(?:(?:(?<!\d)(?P<digits>\d{{4}})|(?<!{NUMBER})(?P<words>[一二][〇零○一二三四五六七八九]{{3}}))年"
    r"|(?P<near>大前|(?<![过以之])去|(?<![以之])前|今|(?<!日)本)年(?![轻龄级代报会]))"
)
MONTH = rf"(?P<month>(?<!\d)\d\d?|(?<!{NUMBER}){NUMBER}{{1,2}})月(?!亮|饼|球|光|牙|季|票|色|嫂)"
PART = (
    rf"(?:{MONTH}份?(?:(?P<day>\d\d?|{NUMBER}{{1,3}})[日号]|(?P<share>[上中下]旬|初|底|末|中(?![国秋学午])))?"
    r"|(?P<season>[春夏秋冬])(?:天|季|日)?(?![节晚装游衣裤裙令虫瓜])"
    rf"|(?P<holiday>{'|'.join(HOLIDAYS)})(?:节|假期|长假)?"
    r"|第?(?P<quarter>[一二三四1-4])季度)"
)


def parse_number(text: str) -> int:
    """A number in digits or in words, up to 99; a year digit by digit. Raises ValueError."""
    if text.isdigit() and text.isascii():
        return int(text)
    if "十" not in text:
        return int("".join(str(DIGITS[digit]) for digit in text))
    tens, _, ones = text.partition("十")
    return 10 * (DIGITS[tens] if tens else 1) + (DIGITS[ones] if ones else 0)


def year_of(match: Match, today: date) -> int:
    if near := match["near"]:
        return today.year - YEARS_BACK[near]
    return check_year(parse_number(match["digits"] or match["words"]), today)


def part_of_year(match: Match) -> PartOfYear:
    """Raises ValueError."""
    if holiday := match["holiday"]:
        return PartOfYear(HOLIDAYS[holiday])
    if season := match["season"]:
        return PartOfYear(months_of_year(SEASONS[season], 3))
    if quarter := match["quarter"]:
        return PartOfYear(months_of_year(3 * parse_number(quarter) - 2, 3))
    if not 1 <= (month := parse_number(match["month"])) <= 12:
        raise ValueError("no such month")
    if day := match["day"]:
        return PartOfYear(day_of_year(month, parse_number(day)), has_year_by_preposition=True)
    if share := match["share"]:
        return PartOfYear(lambda year: cut(of_months(year, month), *SHARES[share]))
    return PartOfYear(months_of_year(month), has_year_by_preposition=True)


def read_years(match: Match, today: date) -> Meaning:
    first, last = (check_year(parse_number(match[name]), today) for name in ("first", "last"))
    return of_years(first, last - first + 1) if first < last else None


def read_part_and_year(match: Match, today: date) -> Meaning:
    return part_of_year(match).of_year(year_of(match, today))


def read_part_and_short_year(match: Match, today: date) -> Meaning:
    return part_of_year(match).of_year(complete_year(match["short"], today))


def read_near_part(match: Match, today: date) -> Meaning:
    """这个夏天, 上个冬天."""
    part = part_of_year(match)
    return latest(part.of_year, today, ended=True) if match["which"] == "上" else part.of_year(today.year)


def read_part(match: Match, today: date) -> Meaning:
    """A day needs no year; a month has one by a preposition, everything else by what is around it."""
    part = part_of_year(match)
    return latest(part.of_year, today, ended=False) if match["day"] else part


def read_year(match: Match, today: date) -> Meaning:
    year = of_years(year_of(match, today))
    return cut(year, *SHARES[match["share"]]) if match["share"] else year


def read_day(match: Match, today: date) -> Meaning:
    return count_back(today, DAYS_BACK[match["near"]], "day")


def read_week(match: Match, today: date) -> Meaning:
    monday = of_week(today - 7 * (match["which"].count("上")) * DAY).first
    if not (weekday := match["weekday"]):
        return of_week(monday)
    first = monday + (DIGITS[weekday] - 1) * DAY
    return Period(first, first + DAY if weekday == "末" else first)


def read_month(match: Match, today: date) -> Meaning:
    month = of_months(today.year, today.month - match["which"].count("上"))
    return cut(month, *SHARES[match["share"]]) if match["share"] else month


def read_ago(match: Match, today: date) -> Meaning:
    unit = UNITS[match["unit"].lstrip("个")]
    if match["count"] != "半":
        return count_back(today, parse_number(match["count"]), unit)
    return count_back(today, 6, "month") if unit == "year" else None


def read_last_units(match: Match, today: date) -> Meaning:
    unit = UNITS[match["unit"].lstrip("个")]
    if match["count"] != "半":
        return last_units(today, parse_number(match["count"]), unit)
    return last_units(today, 6, "month") if unit == "year" else None


def read_decade(match: Match, today: date) -> Meaning:
    tens = parse_number(match["decade"])
    if match["century"]:
        century = 2000 if match["century"] in ("本", "21", "二十一") else 1900
        return of_years(check_year(century + tens, today), 10)
    return of_years(check_year(tens if tens > 99 else complete_year(f"{tens:02d}", today), today), 10)


START = r"(?<![㐀-鿿])"  # no Chinese character before: 海上月光 has no 上月
SPEAKER = r"(?:(?<![㐀-鿿])|(?<=[我们在是于从自的你他她到]))"
RULES: tuple[Rule, ...] = (
    Rule(r"(?<!\d)(?P<first>\d{4})年? ?[到至~–—-] ?(?P<last>\d{4})年", read_years),
    Rule(rf"{YEAR}的? ?{PART}", read_part_and_year),
    Rule(rf"{PART} ?{YEAR}", read_part_and_year),
    Rule(rf"(?<!\d)(?P<short>\d\d)年{PART}", read_part_and_short_year),
    Rule(
        r"(?:(?P<century>上|本|20|21|二十|二十一)世纪)?(?P<decade>(?<!\d)(?:1[89]\d0|20\d0|\d0)|[一二三四五六七八九]十)年代"
        r"(?=的|[\s,，。]*$|[\s,，]|上海|北京|拍)",
        read_decade,
    ),
    Rule(rf"{YEAR}(?:年?(?P<share>初|底|末|中(?![国秋学])))?(?!前(?!的|\s*$)|历史|古|老|陈|款|版|代)", read_year),
    Rule(r"(?P<near>昨|今)(?:晚|早|晨|夜)[上间里]?", read_day),
    Rule(
        r"(?P<near>大前|(?<![以之目眼])前|昨|今)天(?:早上|上午|中午|下午|傍晚|晚上|夜里|凌晨)?"
        r"(?![气空下堂使线井子文])",
        read_day,
    ),
    Rule(r"(?<![㐀-鿿])(?P<near>昨|今)日(?=的|\s|$)", read_day),
    Rule(
        rf"{SPEAKER}(?P<which>上上|上|本|这)(?:一个|一|个)?(?:周|星期|礼拜)(?![朝代王公岁年])(?P<weekday>[一二三四五六日天末])?",
        read_week,
    ),
    Rule(
        rf"{SPEAKER}(?P<which>上上|上|本|这)(?:一?个月|月(?![亮光色球饼夜]))(?P<share>初|底|末|中(?![国秋学])|[上中下]旬)?",
        read_month,
    ),
    Rule(rf"(?<!\d)(?<!{NUMBER}){COUNT}{UNIT}(?:之前|以前|前(?![台排卫往后面]))", read_ago),
    Rule(rf"(?:最近|过去|近)的?{COUNT}{UNIT}(?:内|里|以?来)?", read_last_units),
    Rule(rf"(?P<which>这|上)一?个{PART}", read_near_part),
    Rule(PART, read_part),
)
