"""Text → rows that can be read: broken between phrases, in every script.

The rules are those of a large streaming service's Timed Text Style Guides (general requirements, and the pages of each
language), which most others took over.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import regex
from langcodes import Language

ROWS = 2


@dataclass(frozen=True)
class Rules:
    """What can be read of one script."""

    width: int = 42
    """Characters in a row."""
    speed: float = 17.0
    """Characters per second."""
    wide: bool = False
    """Full-width characters are counted; others are half a character."""


SCRIPTS = {"Jpan": Rules(16, 7, wide=True), "Hans": Rules(16, 9, wide=True), "Hant": Rules(16, 9, wide=True),
           "Kore": Rules(16, 12, wide=True), "Thai": Rules(35, 17), "Cyrl": Rules(39, 17)}
"""By ISO 15924; other scripts are read as Latin ones are. Japanese: as for the hard of hearing, since what is written
is what is said."""
RIGHT_TO_LEFT = frozenset({"Adlm", "Arab", "Hebr", "Mand", "Nkoo", "Rohg", "Samr", "Syrc", "Thaa"})


def rules_for(language: str) -> Rules:
    """The rules of a language (BCP-47) by the script it is written in."""
    return SCRIPTS.get(_script(language), Rules())


def _script(language: str) -> str:
    return Language.get(language or "und").maximize().script or "Latn"


def right_to_left(language: str) -> bool:
    """Whether a language (BCP-47) is written from right to left."""
    return _script(language) in RIGHT_TO_LEFT


SENTENCE, CLAUSE = tuple(".!?…。！？؟।۔።"), tuple(",;:–—،؛、，；：")
CLOSERS = "\"'”’»)]}」』】〉》）"
"""What may stand after the end of a sentence."""
NOT_FIRST = "、。，．・：；？！ー々ゝヽ…‥」』】〉》〕）］｝゛゜ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ)]}!?,.:;%"
NOT_LAST = "「『【〈《〔（［｛([{¥$£＄￥"
"""No row begins or ends with these (JIS X 4051)."""
IDEOGRAPHIC = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
PHRASE_ENDS, PHRASE_BEGINS = regex.compile(r"\p{Hiragana}$"), regex.compile(r"[\p{Han}\p{Katakana}]")
"""A Japanese phrase begins with an ideograph or in Katakana, and ends in Hiragana."""
UNSEEN = regex.compile(r"[\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}\u202A-\u202E\u2066-\u2069]")
"""Controls, halves of characters, and marks that would turn the direction of what stands around the text."""
SENTENCE_COST, CLAUSE_COST, PHRASE_COST, WORD_COST, SHORT_COST = 0.0, 1.0, 2.5, 4.0, 6.0
"""Of a break after a sentence, a clause, a phrase, a word; and after a short word: an article or a preposition that
belongs to the next one."""
CUE_COST = 3.0


def plain(text: str) -> str:
    """Text as one line of composed characters, each of which can be shown."""
    spaced = " ".join(text.split())
    return " ".join(UNSEEN.sub("", unicodedata.normalize("NFC", spaced)).split())


@dataclass(frozen=True)
class Unit:
    """Text within which no row is broken, with the space after it."""

    text: str
    size: float
    """Without that space."""
    space: float
    cost: float
    """Of a break after it."""


def _clusters(text: str) -> list[str]:
    """What a reader takes for one character: a letter with its marks, a flag, a family (Unicode, annex 29)."""
    if text.isascii():
        return list(text)
    found: list[str] = regex.findall(r"\X", text)
    return found


def measure(text: str, rules: Rules) -> float:
    """Characters as the rules count them."""
    found = _clusters(text)
    if not rules.wide:
        return len(found)
    return sum(1.0 if any(unicodedata.east_asian_width(c) in "WF" for c in one) else 0.5 for one in found)


def _units(text: str, rules: Rules) -> list[Unit]:
    units: list[Unit] = []
    for word in text.split():
        parts = [part for whole in _syllables(word) for part in _chopped(whole, rules)]
        units += [Unit(part, measure(part, rules), measure(after, rules) if after == " " else 0, _cost(part, after))
                  for part, after in pairwise([*parts, " "])]
    return units


def _syllables(word: str) -> Iterator[str]:
    """A word as parts between which a row may be broken: between ideographs it may."""
    if word.isascii():
        yield word
        return
    part = ""
    for one in _clusters(word):
        ideographs = part and (IDEOGRAPHIC.search(part[-1]) or IDEOGRAPHIC.match(one))
        closed = part and (part[-1] in NOT_FIRST and not part[-1].isascii() and one[0] not in NOT_FIRST)
        if (ideographs or closed) and one[0] not in NOT_FIRST and part[-1] not in NOT_LAST:
            yield part
            part = ""
        part += one
    yield part


def _chopped(part: str, rules: Rules) -> Iterator[str]:
    """What is longer than a row, as rows."""
    if measure(part, rules) <= rules.width:
        yield part
        return
    row, size = "", 0.0
    for one in _clusters(part):
        more = measure(one, rules)
        if row and size + more > rules.width:
            yield row
            row, size = "", 0.0
        row, size = row + one, size + more
    yield row


def _cost(text: str, after: str) -> float:
    """Of a break between two texts."""
    bare = text.rstrip(CLOSERS)
    if bare.endswith(SENTENCE):
        return SENTENCE_COST
    if bare.endswith(CLAUSE):
        return CLAUSE_COST
    if after == " ":
        return SHORT_COST if len(text) <= 3 and not IDEOGRAPHIC.search(text) else WORD_COST
    if PHRASE_ENDS.search(text) and PHRASE_BEGINS.match(after):
        return PHRASE_COST
    return WORD_COST if IDEOGRAPHIC.search(text[-1:] + after[:1]) else SHORT_COST


def parted(text: str, rules: Rules) -> list[tuple[str, ...]]:
    """Text as the rows of cues, at most `ROWS` each: as few cues as possible, of like length, broken between phrases.

    Args:
        text: As `plain` makes it.
        rules: Of its script.
    """
    units = _units(text, rules)
    widths = list(accumulate((unit.size + unit.space for unit in units), initial=0.0))

    def width(first: int, over: int) -> float:
        return widths[over] - widths[first] - units[over - 1].space

    def broken(first: int, over: int) -> tuple[float, int] | None:
        """Cost of showing units [first, over) in one cue, and where the second row begins (`over`: nowhere)."""
        if width(first, over) <= rules.width:
            return 0.0, over
        best = None
        for middle in range(over - 1, first, -1):
            upper, lower = width(first, middle), width(middle, over)
            if lower > rules.width:
                break
            if upper <= rules.width:
                cost = units[middle - 1].cost + 2 * abs(upper - lower) / rules.width + 0.3 * (upper > lower)
                best = min(best or (cost, middle), (cost, middle))
        return best

    costs, back = [0.0] + [math.inf] * len(units), [(0, 0)] * (len(units) + 1)
    one_cue = bool(units) and width(0, len(units)) <= ROWS * rules.width and broken(0, len(units)) is not None
    for first in range(1 if one_cue else len(units)):
        for over in range(len(units) if one_cue else first + 1, len(units) + 1):
            if width(first, over) > ROWS * rules.width:
                break
            shown = broken(first, over)
            if shown is None:
                continue
            short = 1 - width(first, over) / (ROWS * rules.width)
            cost = costs[first] + CUE_COST + shown[0] / 2 + 3 * short * short
            cost += 2 * units[over - 1].cost if over < len(units) else 0
            if cost < costs[over]:
                costs[over], back[over] = cost, (first, shown[1])
    made, over = list[tuple[str, ...]](), len(units)
    while over:
        first, middle = back[over]
        rows = (_text(units[first:middle]), _text(units[middle:over]))
        made.append(tuple(row for row in rows if row))
        over = first
    return made[::-1]


def _text(units: Sequence[Unit]) -> str:
    return "".join(unit.text + " " * bool(unit.space) for unit in units).rstrip(" ")


