"""Questions with their answers as statements, which a model of pictures and texts can compare with a picture.

"What colour is the car?" and "red" become "the car is red"; "图里有几只猫？" and "两" become "图里有两只猫". A rule
that does not fit costs little, because such models hardly read the order of words. `bench.experiments.questions`
compares this with other forms.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

HAN = re.compile(r"[\u3400-\u9fff]")
ENDS = " \t\n?？!！.。:："
BE = "is|are|was|were"
DO = "do|does|did"
WANT = (
    "(?:can|could|do|does|did) (?:you|we|i) see|is shown|is visible|is there|are there|do you think (?:it|this|that) is"
)
PLACE = "in|on|at|under|above|below|behind|beside|near|next|between|left|right|over|inside|around|with"
THIS = "this|that|it|these|those|they|here|shown|(?:in|on) (?:this|the) (?:picture|photo|image|drawing)"
SUBJECT = (  # of a sentence, as far as a pattern can tell
    r"(?:it|he|she|they|(?:this|that|these|those)(?= (?:an?|the)\b))"
    r"|(?:the|a|an|this|that|these|those|his|her|its|their|my|your) \S+(?: of (?:the |a )?\S+)?|\S+"
)
YES = frozenset(["yes", "y", "yeah", "true", "是", "是的", "有", "有的", "对", "会", "能", "在", "可以"])
NO = frozenset(
    ["no", "n", "nope", "false", "否", "不", "不是", "没有", "没", "不对", "不会", "不能", "不在", "无", "不可以"]
)

MAX_QUESTION = 1_000  # characters that the patterns are tried with

# Each question becomes the statement in which `{}` is the answer.
ENGLISH = [
    (rf"(?:what|which) (?:colou?r|shape|size) (?:{BE}) (.+)", r"\1 is {}"),
    (r"(?:what|which) (?:is|are) the (?:colou?r|shape|size) of (.+)", r"\1 is {}"),
    (rf"how many (.+?)(?: (?:{WANT}|{BE})(?: .*)?)?", r"{} \1"),
    (rf"(?:what|which|who)(?: (?!(?:{BE}|{DO})\b)\S+)*? (?:{BE}) (?:{THIS})(?: .*)?", "this is {}"),
    (rf"(?:what|who|which)(?: .+?)? (?:{WANT})(?: .*)?", "there is {}"),
    (rf"what (?:{BE}) (.+?) doing", r"\1 is {}"),
    (r"what do(?:es)? (.+?) do", r"\1 {}"),
    (rf"where (?:{BE}) (.+)", r"\1 is {}"),
    (r"where (?:can (?:you|we|i) see|do(?:es)?) (.+?)", r"\1 {}"),
    (rf"when (?:{BE}) (?:{THIS})(?: .*)?", "this is {}"),
    (rf"how (?:{BE}) (.+)", r"\1 is {}"),
    (rf"(?:what|which|who)(?: (?!(?:{BE}|{DO})\b)\S+)? ((?:{BE}) (?:{PLACE})\b.*)", r"{} \1"),
    (r"(?:who|which \S+) ((?:has|have|can) .+)", r"{} \1"),
    (rf"who (?:{BE}) (\S+ing\b.*)", r"{} is \1"),
    (rf"(?:what|which|who)(?: \S+)?? ({BE}) ({SUBJECT}) (\S+ing\b.*)", r"\2 \1 \3 {}"),
    (rf"(?:what|which)(?: \S+)?? (?:{DO}) ({SUBJECT}) (.+)", r"\1 \2 {}"),
    (rf"(?:what|who) (?:{BE}) (.+)", r"\1 is {}"),
    (rf"({BE}) (?:it|this|that|there) (.+)(?:,| or) .+", r"it is {}"),
]
# The word of a Chinese question whose place the answer takes. Longer ones come first.
CHINESE = re.compile(
    "(?:在)?(?:做|干)(?:什么|啥)(?:呢)?|什么样|什么颜色|什么形状|什么地方|什么东西|什么动物|什么时候|什么人|是不是什么|什么|啥"
    "|哪里|哪儿|哪边|哪一?[个种只位]|谁|多少|几|怎么样|怎样|怎么"
)
CHINESE_TAIL = re.compile("(?:[呢吗啊呀]|(?<![什怎])么)+$")
CHINESE_CHOICE = re.compile("有没有|是不是|在不在|会不会|能不能|还是.*$")
ENGLISH_YES = [
    (rf"(?:{BE}) there (?:any )?(an? )?(.+)", r"there is \1\2", r"there is no \2"),
    (r"(?:can|could|do|did) (?:you|we|i) see (?:any )?(an? )?(.+)", r"there is \1\2", r"there is no \2"),
    (rf"({BE}|has|have|can) ({SUBJECT}) (.+)", r"\2 \1 \3", r"\2 \1 not \3"),
    (rf"(?:{DO}) ({SUBJECT}) (.+)", r"\1 \2", r"\1 not \2"),
]


def clean_question(question: str) -> str:
    """One line in lower case, without what ends it."""
    return " ".join(unicodedata.normalize("NFKC", question).lower().split()).strip(ENDS)


def make_statements(question: str, answers: Sequence[str]) -> list[str]:
    """The statement of each answer."""
    return [make_statement(question, answer) for answer in answers]


def make_statement(question: str, answer: str) -> str:
    """What is so if this is the answer."""
    asked, said = clean_question(question), " ".join(answer.split()).strip(ENDS) or answer
    if (is_yes := read_yes_or_no(said)) is not None and (statement := make_decision(asked, is_yes=is_yes)):
        return statement
    if HAN.search(asked):
        return make_chinese(asked, said)
    template = find_template(asked)
    return f"{asked}? {said}" if template is None else template.replace("{}", said)


def read_yes_or_no(answer: str) -> bool | None:
    """Whether an answer says yes (True) or no; None if it says something else."""
    word = clean_question(answer)
    return True if word in YES else False if word in NO else None


def find_template(question: str) -> str | None:
    """The statement of an English question, with `{}` in place of its answer; None if no rule fits."""
    for pattern, statement in ENGLISH if len(question) <= MAX_QUESTION else ():
        if found := re.fullmatch(pattern, question):
            return found.expand(statement)
    return None


def make_decision(question: str, *, is_yes: bool) -> str | None:
    """The statement of a question that is answered by yes or no; None if it is another question."""
    if HAN.search(question):
        if CHINESE.search(question):
            return None
        plain = CHINESE_CHOICE.sub(lambda found: found[0][0] if found[0][1:2] in "没不" else "", question)
        plain = CHINESE_TAIL.sub("", plain)
        if is_yes:
            return plain
        return plain.replace("有", "没有", 1) if "有" in plain else plain.replace("是", "不是", 1)
    for pattern, positive, negative in ENGLISH_YES if len(question) <= MAX_QUESTION else ():
        if found := re.fullmatch(pattern, question):
            return found.expand(positive if is_yes else negative)
    return None


def make_chinese(question: str, answer: str) -> str:
    """A Chinese question with the answer in place of its question word, where Chinese has it."""
    plain = CHINESE_TAIL.sub("", question)
    if CHINESE.search(plain):
        return CHINESE.sub(lambda found: ("在" if found[0].startswith("在") else "") + answer, plain, count=1)
    return f"{plain}：{answer}"
