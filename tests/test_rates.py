"""Estimated lengths against real voices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.onset import trim
from models.rates import rates, spoken_seconds
from tests.embedded import engine

RATES = Path(__file__).parents[1] / "infra" / "rates"
SENTENCES: dict[str, list[str]] = json.loads((RATES / "sentences.json").read_text())
LENGTHS: dict[str, list[float | None]] = json.loads((RATES / "lengths.json").read_text())
"""What every voice took for each of the sentences."""


@pytest.mark.parametrize("synthesizer", ["kokoro", "espeak"])
def test_estimates_are_near_what_was_measured(synthesizer):
    errors = []
    for key, lengths in LENGTHS.items():
        name, language, voice = key.split("/", 2)
        said = [(spoken_seconds(text, language, voice), seconds)
                for text, seconds in zip(SENTENCES[language], lengths, strict=True) if seconds is not None]
        if name == synthesizer:
            errors += [abs(guess / seconds - 1) for guess, seconds in said]
            whole = sum(guess for guess, _ in said) / sum(seconds for _, seconds in said)
            assert 0.9 < whole < 1.1, key
    assert np.median(errors) < 0.06


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="needs espeak-ng")
@pytest.mark.parametrize(("language", "text"), [
    ("es", "Mañana por la mañana hablaremos con el capitán del puerto."),
    ("en", "Tomorrow morning we are going to talk to the harbour master."),
    ("de", "Morgen früh sprechen wir mit dem Kapitän im Hafen."),
])
def test_a_text_that_was_never_measured_takes_about_what_was_estimated(language, text):
    espeak, _ = engine("synthesizer", "espeak")
    real = len(trim(espeak.speak(text, "f2", language), espeak.sample_rate)) / espeak.sample_rate
    assert spoken_seconds(text, language, "f2") == pytest.approx(real, rel=0.2)


def test_a_voice_or_region_that_was_not_measured_speaks_like_its_language():
    text = "El barco sale a las siete."
    assert spoken_seconds(text, "es", "somebody") == spoken_seconds(text, "es") == spoken_seconds(text, "es-MX")
    assert spoken_seconds(text, "es", "f2") != spoken_seconds(text, "es")
    assert 1 < spoken_seconds("A hajó hétkor indul el.", "hu") < 3
    assert spoken_seconds("船は七時に出ます。", "ja") == pytest.approx(spoken_seconds("x" * 20, "ja"), rel=0.2)


def test_what_says_nothing_takes_no_time():
    assert [spoken_seconds(text, "es") for text in ("", " … ", "¡¿!?", "♪")] == [0, 0, 0, 0]


def test_figures_take_as_long_as_they_are_read_out():
    assert spoken_seconds("en 1912", "es") == spoken_seconds("en mil novecientos doce", "es")
    assert spoken_seconds("3 barcos", "es") == spoken_seconds("tres barcos", "es")


def test_pauses_count_within_a_line_and_not_at_its_end():
    plain = spoken_seconds("no espera", "es", "f2")
    assert spoken_seconds("no espera.", "es", "f2") == spoken_seconds("¡no espera!", "es", "f2") == plain
    assert spoken_seconds("no. espera", "es", "f2") > spoken_seconds("no, espera", "es", "f2") > plain


@given(st.text(max_size=60), st.text("abcdefgh ", max_size=20), st.sampled_from(["es", "fr", "en", "xx", ""]))
def test_more_text_takes_no_less_time(text, more, language):
    assert 0 <= spoken_seconds(f"{text} ", language) <= spoken_seconds(f"{text} {more}", language)


def test_every_pace_is_that_of_speech():
    for paces in rates().languages.values():
        for pace in paces.values():
            assert 0.03 < pace.letter < 0.15  # of Hindi only consonants count
            assert all(0.5 < share < 2 for share in pace.voices.values())
