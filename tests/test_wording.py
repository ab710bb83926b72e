"""Word error rates count what is heard, not how it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.wording import word_error_rate, word_errors, words

SAME = [
    ("es", "3 barcos, ¡vamos!", "Tres barcos vamos"),
    ("es", "Hay 21 barcos y 1 faro.", "hay veintiún barcos y un faro"),
    ("es", "Vale 3,5 y no 1.000.", "vale tres coma cinco y no mil"),
    ("es", "500 casas", "quinientas casas"),
    ("es", "el 1.º y el 2º", "el primero y el segundo"),
    ("es", "el 10 %", "el diez por ciento"),
    ("es-419", "2 luces", "dos luces"),
    ("fr", "L’homme a 80 ans", "l'homme a quatre-vingts ans"),
    ("fr", "Le 1er jour", "le premier jour"),
    ("fr", "la 1re fois, 1 200 fois", "la première fois, mille deux cents fois"),
    ("fr", "peut-être cœur", "peut être coeur"),
    ("it", "L'isola ha 121 case", "l’isola ha centoventuno case"),
    ("pt", "16 barcos e 2 luzes", "dezesseis barcos e duas luzes"),
    ("pt-PT", "16 barcos", "dezasseis barcos"),
    ("en", "It's 3rd, isn't it?", "its third isnt it"),
    ("en", "In 1998 there were 1,500 ships.", "in nineteen ninety-eight there were one thousand five hundred ships"),
    ("en", "1,000.5 miles", "one thousand point five miles"),
    ("es", "1.234,5", "mil doscientos treinta y cuatro coma cinco"),
    ("en", "105 lamps", "one hundred five lamps"),
    ("en", "a hundred and five lamps", "105 lamps"),
    ("en", "10 percent", "10%"),
    ("de", "Straße 21", "STRASSE einundzwanzig"),
    ("ca", "21 llums", "vint-i-un llums"),
    ("en", "e\u0301tude", "\u00e9tude"),
]


@pytest.mark.parametrize(("language", "one", "other"), SAME)
def test_same_speech_is_no_error(language: str, one: str, other: str) -> None:
    assert word_error_rate(one, other, language) == 0, (words(one, language), words(other, language))
    assert word_error_rate(other, one, language) == 0


def test_other_words_count() -> None:
    found = word_errors("el faro viejo se apaga", "el barco viejo apaga hoy", "es")
    assert (found.errors, found.words) == (3, 5)
    assert found.rate == pytest.approx(0.6)
    assert word_error_rate("3 barcos", "cuatro barcos", "es") == 0.5


def test_elided_words_count_apart_only_where_they_are_two() -> None:
    assert words("l'homme", "fr") == ["l", "homme"]
    assert words("don't", "en") == ["dont"]


def test_unspaced_languages_are_compared_by_character() -> None:
    assert words("灯台、 です。", "ja") == list("灯台です")
    assert word_error_rate("灯台です", "灯火です", "ja") == 0.25


def test_empty_texts() -> None:
    assert word_error_rate("", "", "es") == 0
    assert word_error_rate("…", "", "es") == 0
    assert word_error_rate("", "hola", "es") == 1
    assert word_error_rate("hola tú", "", "es") == 1


def test_a_language_without_number_words_keeps_its_figures() -> None:
    assert words("3 barcos", "gl") == ["3", "barcos"]


def test_endless_figures_are_read_digit_by_digit() -> None:
    assert words("6" * 5000, "en") == ["six"] * 5000


@given(st.text(max_size=60), st.sampled_from(["en", "es", "fr", "it", "pt", "de", "ja", "gl", "xx"]))
def test_any_text_equals_itself(text: str, language: str) -> None:
    assert word_error_rate(text, text, language) == 0
