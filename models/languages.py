"""Languages of texts: which tags mean the same to us, and when a guess at a text's language can be trusted. Pure."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import langcodes

from models.wording import UNSPACED

ALIKE = (frozenset({"no", "nb", "nn", "da"}), frozenset({"hr", "sr", "bs"}), frozenset({"id", "ms"}),
         frozenset({"zh", "yue"}), frozenset({"hi", "ur"}), frozenset({"gl", "pt"}))
"""Languages that are taken for each other when they are heard or read."""
SURE = 0.9
"""Probability from which a guess counts."""
SHORTEST = 12
"""Letters from which a guess counts; a third of that where a letter is a syllable or more."""


@dataclass(frozen=True)
class Guess:
    """What language a text seems to be in."""

    language: str
    """ISO 639-1 or -3; 'zxx' for what is no language."""
    probability: float


def primary(language: str) -> str:
    """The primary subtag of a BCP-47 tag, lower case."""
    return language.partition("-")[0].lower()


def alike(one: str, other: str) -> bool:
    """Whether two BCP-47 tags name one language, or two that nobody tells apart for certain."""
    a, b = (langcodes.get(tag).prefer_macrolanguage().language or "" for tag in (one, other))
    return a == b or any({a, b} <= group for group in ALIKE)


def letters(text: str) -> int:
    """Letters of a text; marks that combine with them are none."""
    return sum(char.isalpha() for char in unicodedata.normalize("NFC", text))


def sure(text: str, guess: Guess) -> bool:
    """Whether a text is long enough, and the guess at its language good enough, to act upon.

    'Thank you, Daniel.' is not: names and short words are at home everywhere.
    """
    dense = guess.language in UNSPACED or guess.language == "ko"
    enough = letters(text) >= SHORTEST // 3 if dense else letters(text) >= SHORTEST and len(text.split()) > 2
    return enough and guess.probability >= SURE and guess.language != "zxx"
