"""What is told about a text: its language, words that the model does not know, emoji, and what is cut off."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import pytest

from app.encoder.dummy import DummyEncoder
from app.encoder.loader import STARTER
from app.encoder.reading import MAX_NAMED, TextReader, guess_language
from app.encoder.tokenizer import TextTokenizer, load_tokenizer_file
from app.service.demo_gallery import find_gallery

CONTEXT = 40


class Named(DummyEncoder):
    """Encodes nothing that matters here; it has the name of a model, and reads as much of a text as the starter."""

    max_tokens = CONTEXT

    def __init__(self, model: str) -> None:
        super().__init__()
        self.space = replace(self.space, model=model)
        self.tokenizer: TextTokenizer = load_tokenizer_file(STARTER / "tokenizer.json", CONTEXT)

    def count_words_read(self, text: str) -> int | None:
        return self.tokenizer.count_words_read(text)


@pytest.fixture(scope="module")
def starter() -> TextReader:
    return TextReader(Named("starter"))


@pytest.fixture(scope="module")
def english() -> TextReader:
    return TextReader(Named("ViT-B-32/laion2b_s34b_b79k"))


def codes(reader: TextReader, text: str) -> list[str]:
    return [warning.code for warning in reader.warn(text)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("красная машина", "Cyrillic"),
        ("سيارة حمراء", "Arabic"),
        ("ένα αυτοκίνητο", "Greek"),
        ("रेड कार", "Devanagari"),
        ("赤い車", "Japanese"),
        ("빨간 차", "Korean"),
        ("rotes Auto", "German"),
        ("ein rotes Auto", "rotes"),
        ("voiture rouge", "French"),
        ("carro vermelho", "Portuguese"),
        ("coche rojo", "Spanish"),
        ("macchina rossa", "Italian"),
        ("kırmızı araba", "Turkish"),
        ("röd bil", '"röd", "bil"'),
        ("rode auto", '"rode"'),
        ("красная машина red", "Cyrillic"),
    ],
)
def test_another_language_is_told(text: str, said: str, starter: TextReader) -> None:
    (warning,) = starter.warn(text, "q")
    assert warning.code == ("words_unknown" if said.startswith('"') or said == "rotes" else "language_unknown")
    assert said in warning.detail
    assert "English and Chinese" in warning.detail
    assert warning.field == "q"


@pytest.mark.parametrize(
    "text", ["красная машина", "红色的汽车", "赤い車", "voiture rouge", "Katze und Hund", "gato negro"]
)
def test_a_model_for_english_alone_tells_of_other_languages(text: str, english: TextReader) -> None:
    assert codes(english, text) == ["language_unknown"]


@pytest.mark.parametrize(
    "text",
    ["red car", "a dachshund in Berlin", "Eiffel tower at night", "taj mahal", "BMW M3", "UML diagram"],
)
def test_english_and_names_are_no_other_language(text: str, english: TextReader) -> None:
    assert codes(english, text) == []


@pytest.mark.parametrize("model", ["ViT-B-32-SigLIP2-256/webli", "hf-hub:somebody/something"])
@pytest.mark.parametrize("text", ["красная машина", "rotes Auto", "qqqzzz"])
def test_a_model_of_many_or_unknown_languages_tells_nothing_of_them(model: str, text: str) -> None:
    assert codes(TextReader(Named(model)), text) == []


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("qqqzzz xxyyzz", ["qqqzzz", "xxyyzz"]),
        ("quarterly tax form 1040", ["quarterly", "tax", "form", "1040"]),
        ("skyscraper", ["skyscraper"]),
        ("a red xylofon", ["xylofon"]),
        ("自動車", ["動", "車"]),  # it knows simplified characters
        ("🇫🇷", ["France"]),  # a flag is not among what it was trained on
    ],
)
def test_unknown_words_are_named(text: str, unknown: list[str], starter: TextReader) -> None:
    warning = starter.warn(text)[-1]
    assert warning.code == "words_unknown"
    quoted = ", ".join(f'"{word}"' for word in unknown)
    assert f"does not know {quoted}: " in warning.detail


def test_many_and_long_unknown_words_make_a_short_sentence(starter: TextReader) -> None:
    (warning, _) = starter.warn(" ".join(f"{n}{'x' * 90}" for n in range(9)))
    assert f" and {9 - MAX_NAMED} more" in warning.detail
    assert len(warning.detail) < 600


@pytest.mark.parametrize(
    "text",
    [
        *(
            "red car",
            "cats",
            "two dogs",
            "A photo of a cat.",
            "blue whale",
            "strawberries",
            "the cat's hat",
            "生日蛋糕",
        ),
        *("一只在海滩上奔跑的狗", "ＣＡＴ", "鲜の每日蛋糕", "smiling face", "red car x"),
    ],
)
def test_a_short_normal_text_has_no_warning(text: str, starter: TextReader) -> None:
    assert starter.warn(text) == []


def test_what_the_starter_was_made_for_has_no_warning(starter: TextReader) -> None:
    texts = [json.loads(line)["text"] for line in (find_gallery() / "texts.jsonl").read_text("utf-8").splitlines()]
    with zipfile.ZipFile(find_gallery() / "evaluation.zip") as archive:
        rows = [json.loads(line) for line in archive.read("captions.jsonl").splitlines()]
    texts += [row[language] for row in rows for language in ("en", "zh")]
    assert len(texts) > 1_000
    assert {text: found for text in texts if (found := starter.warn(text))} == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("🐈", "cat"),
        ("🚗🔴", "automobile red circle"),
        ("a 🐈 on a 🛏️", "a cat on a bed"),
        ("👍🏽", "thumbs up"),
        ("👨‍👩‍👧", "family man woman girl"),
        ("❤", "red heart"),
    ],
)
def test_emoji_are_read_by_their_names(text: str, named: str, starter: TextReader) -> None:
    assert starter.replace_emoji(text) == named
    warning = starter.warn(text, "q")[0]
    assert (warning.code, warning.field) == ("emoji_named", "q")
    assert named in warning.detail


@pytest.mark.parametrize("text", ["red  car", "Sightline™ ©2026", "5 # *", "生日 蛋糕", "→"])
def test_a_text_without_emoji_stays_as_it_is(text: str, starter: TextReader) -> None:
    assert starter.replace_emoji(text) == text


@pytest.mark.parametrize("text", ['"', "?!", " - ", "。", "…", "→ ∞"])
def test_signs_without_words_are_told(text: str, starter: TextReader, english: TextReader) -> None:
    assert codes(starter, text) == codes(english, text) == ["no_words"]


@pytest.mark.parametrize(
    ("text", "read", "total"),
    [
        ("a house with a tree and a cloud and a bird " * 15, 38, 165),
        ("红色的汽车" * 20, 38, 100),
        ("cat " * 39, 38, 39),
        ("🐈" * 40, 38, 40),
    ],
)
def test_a_text_that_is_cut_says_how_much_was_read(text: str, read: int, total: int, starter: TextReader) -> None:
    warning = starter.warn(text, "q")[-1]
    assert warning.code == "text_truncated"
    assert f"the first {read} of {total} words" in warning.detail
    assert starter.is_truncated(text)


def test_a_label_may_be_short_and_its_sentence_too_long(starter: TextReader) -> None:
    (warning,) = starter.warn("cat", "labels.0", "cat " * 50)
    assert (warning.code, warning.field) == ("text_truncated", "labels.0")


@pytest.mark.parametrize("text", ["cat " * 38, "红" * 38, "cat", '"' * 30])
def test_a_text_that_fits_is_not_truncated(text: str, starter: TextReader) -> None:
    assert not starter.is_truncated(text)


def test_what_a_model_reads_whole_is_never_truncated() -> None:
    assert not TextReader(DummyEncoder()).is_truncated("red " * 1_000)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a red car", "en"),
        ("一辆红色的车", "zh"),
        ("赤い車", "ja"),
        ("빨간 자동차", "ko"),
        ("красная машина", "cyrillic"),
        ("รถสีแดง", "th"),
        ("rotes Auto", "de"),
        ("voiture rouge", "fr"),
        ("IMG_2034", "en"),
        ("🚗", "en"),
    ],
)
def test_the_language_of_a_text_is_guessed(text: str, language: str) -> None:
    assert guess_language(text) == language


@pytest.mark.parametrize(
    ("text", "share"),
    [("a red car", 0.0), ("красная машина", 1.0), ("tax return", 1.0), ("a red xylofon", 0.5), ("", 0.0), ("the", 0.0)],
)
def test_how_much_of_a_text_is_unknown(text: str, share: float, starter: TextReader, english: TextReader) -> None:
    assert starter.measure_unknown(text) == share
    assert english.measure_unknown(text) == (1.0 if text == "красная машина" else 0.0)
