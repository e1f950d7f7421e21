"""What a model makes of a text: emoji become their names, and warnings say what it does not know or read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import emoji

from app.core.types import AnswerWarning
from app.encoder.catalogue import find_facts
from app.encoder.protocol import Encoder, check_vectors
from app.encoder.tokenizer import find_word_ends

LANGUAGE_NAMES = {"en": "English", "zh": "Chinese"}
SCRIPTS = {"en": {"LATIN"}, "zh": {"CJK"}}  # the first word of Unicode's names of letters
SCRIPT_NAMES = {"CJK": "Chinese"}
KANA = ("HIRAGANA", "KATAKANA")
LANGUAGES_OF_SCRIPTS = {"CJK": "zh", "HANGUL": "ko", "THAI": "th", "GREEK": "el", "HEBREW": "he"}
FOREIGN = {  # languages in Latin letters for which `emoji` has names
    "de": "German",
    "es": "Spanish",
    "fr": "French",
    "id": "Indonesian",
    "it": "Italian",
    "pt": "Portuguese",
    "tr": "Turkish",
}
SIGNS = "©®™"  # Unicode counts them as emoji
SIGNS_AWAY = str.maketrans(dict.fromkeys(SIGNS, " "))
SKIN_TONES = dict.fromkeys(range(0x1F3FB, 0x1F400))
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|(?:(?![\u3040-\u30ff\u3400-\u9fff])[^\W_])+")
SMALL_WORDS = (  # any text may have them, whatever it is about
    "a an and any are as at be by drawing for from her his i icon image in into is it its my near no not of off on or"
    " our out over photo picture s some that the their them there these this those to two three under up was we were"
    " with without you your 的 个 只 张 条 头 辆 位 们 了 着 和 与 及 在 是 有 很"
)
STOP_WORDS = frozenset(SMALL_WORDS.split())
MAX_NAMED = 5  # unknown words in a sentence
MAX_SHOWN = 60  # characters of a text in a sentence


class TextReader:
    """Reads texts for one model: `warn` tells what is wrong with a text, `replace_emoji` is what the model gets."""

    def __init__(self, encoder: Encoder) -> None:
        facts = find_facts(encoder.space.model)
        self._name = facts.name
        self._encoder = encoder
        self._languages = [language for language in facts.languages if language in SCRIPTS]
        self._known = load_starter_words() if facts.name == "starter" else None

    def replace_emoji(self, text: str) -> str:
        """The text with the English name in place of each emoji: models are trained on words."""
        return text if text.isascii() else name_emoji(text)

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """The vectors of texts as the log stores them. Raises ValueError."""
        if not texts:
            return []
        vectors = check_vectors(self._encoder.encode_texts([self.replace_emoji(text) for text in texts]))
        return [vector.astype("<f4").tobytes() for vector in vectors]

    def is_truncated(self, text: str) -> bool:
        """Whether the model reads only the beginning of a text."""
        return self._count_words_read(self.replace_emoji(text)) is not None

    def _count_words_read(self, text: str) -> int | None:
        """How many words the model reads of a text that is too long for it; None if it reads all of it."""
        most = self._encoder.max_tokens
        if most is None or len(text.encode()) <= most - 2:  # a token is a byte or more
            return None
        return self._encoder.count_words_read(text)

    def warn(self, text: str, field: str | None = None, sentence: str | None = None) -> list[AnswerWarning]:
        """What the sender of a text should know about what the model makes of it, alone or as part of a sentence."""
        named = self.replace_emoji(text)
        found = []
        if named != text:
            detail = f"the model gets emoji by their names: {shorten(named)}"
            found.append(AnswerWarning("emoji_named", detail, field))
        if not split_words(named):
            detail = "the text has no words, so what is found for it means nothing"
            return [*found, AnswerWarning("no_words", detail, field)]
        if self._languages and (unknown := self._find_unknown(named)):
            found.append(AnswerWarning(*unknown, field))
        whole = named if sentence is None else self.replace_emoji(sentence)
        if (read := self._count_words_read(whole)) is not None:
            most = f"the first {read} of {count_words(whole)} words"
            detail = f"the text is too long for the model {self._name}, which read {most}"
            found.append(AnswerWarning("text_truncated", detail, field))
        return found

    def measure_unknown(self, text: str) -> float:
        """The share of a text's telling words that the model is known not to know; 1 in a language it does not read."""
        words = split_words(self.replace_emoji(text))
        if not self._languages or not words:
            return 0.0
        if describe_foreign_script(text, self._languages) or describe_foreign_language(words):
            return 1.0
        content, unknown = self._list_unknown(words)
        return len(unknown) / len(content) if content else 0.0

    def _list_unknown(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """The telling words, each once, and those of them that the model does not know."""
        content = [word for word in dict.fromkeys(words) if word not in STOP_WORDS]
        return content, [word for word in content if self._known is not None and not is_known(word, self._known)]

    def _find_unknown(self, text: str) -> tuple[str, str] | None:
        """A code and a sentence for a text in another language, or of words that the model does not know."""
        reads = " and ".join(LANGUAGE_NAMES[language] for language in self._languages)
        words = split_words(text)
        language = describe_foreign_script(text, self._languages) or describe_foreign_language(words)
        if language is not None:
            return (
                "language_unknown",
                f"the model {self._name} reads {reads}, and this {language}: what is found may mean nothing;"
                " `sightline models` lists models for other languages",
            )
        content, unknown = self._list_unknown(words)
        if not unknown or 2 * len(unknown) < len(content):
            return None
        typed = {
            word: given for given in WORD.findall(unicodedata.normalize("NFC", text)) for word in split_words(given)
        }
        named = ", ".join(f'"{shorten(typed.get(word, word))}"' for word in unknown[:MAX_NAMED])
        more = f" and {len(unknown) - MAX_NAMED} more" if len(unknown) > MAX_NAMED else ""
        return (
            "words_unknown",
            f"the model {self._name} does not know {named}{more}: it knows the words of emoji in {reads}, and what is"
            " found may mean nothing",
        )


def name_emoji(text: str) -> str:
    """The text with the English name in place of each emoji, without the tone of its skin."""

    def name(characters: str, _: object) -> str:
        if characters in SIGNS:
            return characters
        plain = characters.translate(SKIN_TONES) or characters
        return f" {emoji.demojize(plain, delimiters=('', '')).replace('_', ' ')} "

    named = emoji.replace_emoji(text, name)
    return text if named == text else " ".join(named.split())


def split_words(text: str) -> list[str]:
    """The words of a text in lower case and without accents; a Chinese or Japanese character is a word."""
    spread = unicodedata.normalize("NFKD", text.translate(SIGNS_AWAY).replace("’", "'").replace("'s", ""))
    bare = "".join(character for character in spread if not unicodedata.combining(character))
    return WORD.findall(unicodedata.normalize("NFKC", bare).lower())


def count_words(text: str) -> int:
    return len(find_word_ends(text))


def shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def is_known(word: str, known: frozenset[str]) -> bool:
    """Whether a vocabulary has an English word, in the singular or the plural."""
    forms = {word, word.removesuffix("s"), word.removesuffix("es"), word + "s"}
    if word.endswith("ies"):
        forms.add(word.removesuffix("ies") + "y")
    return not known.isdisjoint(forms)


def describe_foreign_script(text: str, languages: Iterable[str]) -> str | None:
    """What most letters of a text are, if they are of a script that none of the languages is written in."""
    own = set().union(*(SCRIPTS[language] for language in languages))
    if text.isascii() and "LATIN" in own:
        return None
    letters = [letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha()]
    scripts = [unicodedata.name(letter, "").partition(" ")[0] for letter in letters]
    foreign = [script for script in scripts if script not in own]
    kana = [script for script in foreign if script in KANA]
    if 5 * len(kana) >= len(scripts) > 0:  # Japanese, which has Chinese characters between them
        return "looks like Japanese"
    if 2 * len(foreign) <= len(scripts):
        return None
    most = max(foreign, key=foreign.count)
    return "looks like Korean" if most == "HANGUL" else f"is in {SCRIPT_NAMES.get(most, most.capitalize())} letters"


def describe_foreign_language(words: list[str]) -> str | None:
    """What a text is in that is not English, by its words."""
    language = find_foreign_language(words)
    return None if language is None else f"looks like {FOREIGN[language]}"


def guess_language(text: str) -> str:
    """The code of the language that a text seems to be in (a script's name where several are written in it); "en" for
    Latin letters unless the words say otherwise."""
    letters = [letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha()]
    scripts = [unicodedata.name(letter, "").partition(" ")[0] for letter in letters]
    if 5 * sum(script in KANA for script in scripts) >= len(scripts) > 0:
        return "ja"
    script = max(scripts, key=scripts.count, default="LATIN")
    if script == "LATIN":
        return find_foreign_language(split_words(text)) or "en"
    return LANGUAGES_OF_SCRIPTS.get(script, script.lower())


def find_foreign_language(words: list[str]) -> str | None:
    """The code of the language that most of the words belong to, where English explains fewer of them."""
    if all(word in STOP_WORDS or word in load_starter_words() for word in words):
        return None
    english, others = load_names_of_emoji()
    best = max(others, key=lambda language: sum(word in others[language] for word in words))
    own = sum(word in others[best] for word in words)
    foreign = sum(word in others[best] and word not in english for word in words)
    english_only = sum(word in english and word not in others[best] for word in words)
    if 2 * own > len(words) and 2 * foreign >= len(words) and foreign > english_only:
        return best
    return None


@cache
def load_starter_words() -> frozenset[str]:
    """The words that the starter model was trained on: common ones of English, and Chinese characters."""
    return frozenset((Path(__file__).parent / "starter" / "words.txt").read_text("utf-8").split())


@cache
def load_names_of_emoji() -> tuple[frozenset[str], dict[str, frozenset[str]]]:
    """The words in the names of emoji, in English and in each language of FOREIGN: what people look for.

    It takes a while, so it waits for a text with a word that is not common.
    """
    lists: dict[str, set[str]] = {language: set() for language in ("en", *FOREIGN)}
    for language in lists:
        emoji.config.load_language(language)
    for characters, names in emoji.EMOJI_DATA.items():
        is_flag = "\U0001f1e6" <= characters[0] <= "\U0001f1ff"  # the names of countries are in every language
        if (
            is_flag
            or names["status"] != emoji.STATUS["fully_qualified"]
            or characters != characters.translate(SKIN_TONES)
        ):
            continue
        for language, words in lists.items():
            words.update(split_words(names.get(language, "").replace("_", " ")))
    english = frozenset(lists.pop("en") | STOP_WORDS | load_starter_words())
    return english, {language: frozenset(word for word in words if len(word) > 1) for language, words in lists.items()}
