"""Questions with their answers as statements, in two languages."""

from __future__ import annotations

import pytest

from app.search.statements import make_statement, make_statements, read_yes_or_no

ENGLISH = [
    ("What colour is the car?", "red", "the car is red"),
    ("what color is this", "Red", "this is Red"),
    ("What is the colour of the car?", "red", "the car is red"),
    ("How many cats are there?", "two", "two cats"),
    ("How many dogs can you see in the picture?", "3", "3 dogs"),
    ("What is this?", "a cat", "this is a cat"),
    ("What animal is in the picture?", "cat", "this is cat"),
    ("Which fruit is shown here?", "apple", "this is apple"),
    ("What can you see?", "a dog", "there is a dog"),
    ("What animal can we see?", "a dog", "there is a dog"),
    ("What is the man doing?", "running", "the man is running"),
    ("What does the man do?", "runs", "the man runs"),
    ("Where is the cat?", "on the sofa", "the cat is on the sofa"),
    ("Where can you see the cat?", "on the sofa", "the cat on the sofa"),
    ("What is on the table?", "a cake", "a cake is on the table"),
    ("Which animal is next to the cake?", "a dog", "a dog is next to the cake"),
    ("Who is riding the horse?", "a girl", "a girl is riding the horse"),
    ("Who has a hat?", "a girl", "a girl has a hat"),
    ("What is the man holding?", "a cup", "the man is holding a cup"),
    ("What instrument does the man play?", "the guitar", "the man play the guitar"),
    ("What is the weather?", "sunny", "the weather is sunny"),
    ("How is the weather?", "sunny", "the weather is sunny"),
    ("When was this taken?", "night", "this is night"),
    ("Is it day or night?", "day", "it is day"),
    ("Why?", "because", "why? because"),
]
YES_OR_NO = [
    ("Is there a dog?", "there is a dog", "there is no dog"),
    ("Are there any birds?", "there is birds", "there is no birds"),
    ("Can you see a dog?", "there is a dog", "there is no dog"),
    ("Is the car red?", "the car is red", "the car is not red"),
    ("Is this a cat?", "this is a cat", "this is not a cat"),
    ("Does the man wear a hat?", "the man wear a hat", "the man not wear a hat"),
]
CHINESE = [
    ("这是什么？", "猫", "这是猫"),
    ("这是什么动物?", "猫", "这是猫"),
    ("车是什么颜色的？", "红色", "车是红色的"),
    ("图里有几只猫？", "两", "图里有两只猫"),
    ("人在做什么？", "骑马", "人在骑马"),
    ("他在干什么呢", "吃饭", "他在吃饭"),
    ("猫在哪里？", "桌子上", "猫在桌子上"),
    ("谁在骑马？", "女孩", "女孩在骑马"),
    ("天气怎么样？", "晴朗", "天气晴朗"),
    ("有狗吗？", "有", "有狗"),
    ("有狗吗？", "没有", "没有狗"),
    ("图里有没有狗？", "没有", "图里没有狗"),
    ("这是不是猫？", "是", "这是猫"),
    ("这是不是猫？", "不是", "这不是猫"),
    ("汽车是红色的吗？", "不是", "汽车不是红色的"),
    ("白天还是晚上？", "白天", "白天还是晚上：白天"),
]


@pytest.mark.parametrize(("question", "answer", "statement"), ENGLISH + CHINESE)
def test_makes_a_statement(question: str, answer: str, statement: str) -> None:
    assert make_statement(question, answer) == statement


@pytest.mark.parametrize(("question", "positive", "negative"), YES_OR_NO)
def test_decides_yes_and_no(question: str, positive: str, negative: str) -> None:
    assert make_statements(question, ["yes", "no"]) == [positive, negative]


def test_takes_yes_as_a_word_where_the_question_asks_for_another() -> None:
    assert make_statement("What colour is the car?", "yes") == "the car is yes"
    assert make_statement("这是什么？", "是") == "这是是"


def test_knows_the_words_for_yes_and_no() -> None:
    assert [read_yes_or_no(word) for word in ("Yes.", "NO", "没有", "perhaps")] == [True, False, False, None]


@pytest.mark.parametrize("question", ["?" * 900, "什么" * 400, "is " * 300, "what " * 200 + "is this", "is a " * 9_000])
def test_takes_any_question(question: str) -> None:
    assert make_statement(question, "red")
