"""How long a voice will take to say a text, estimated without running it: from rates that were measured. Pure.

The table `rates.json` is made by `infra/rates/measure_rates.py`, which also says how far the estimates are off.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

from pydantic import Field

from models.records import Record
from models.wording import spell_numbers

TABLE = Path(__file__).with_name("rates.json")
WIDE = 2.5
"""Letters of an alphabet that one ideograph, kana or hangul syllable counts for: it is a syllable."""
STOP = re.compile(r"[.!?…:;।。！？](?=\s|$)|[。！？]")
COMMA = re.compile(r"[,–—،、，](?=\s|$)|[、，]")


class Pace(Record):
    """Seconds of a text = (start + letters · letter + commas · comma + stops · stop) · the voice's share."""

    start: float
    """What every line takes, however short."""
    letter: float
    comma: float
    """Pause inside of a line, at a comma or dash."""
    stop: float
    """Pause inside of a line, between sentences."""
    voices: dict[str, float] = Field(default={})
    """Voice → how slow it is against the middle of the others."""


class Rates(Record):
    """The table."""

    default: Pace
    """For languages that were not measured."""
    languages: dict[str, dict[str, Pace]]
    """Primary language → synthesizer → pace; the first one holds where a voice is not known."""


@cache
def rates() -> Rates:
    """The table that comes with the program."""
    return Rates.model_validate_json(TABLE.read_bytes())


def spoken_seconds(text: str, language: str, voice: str = "") -> float:
    """How long `text` will take, silence around it trimmed, at the voice's natural tempo.

    Args:
        text: Anything; figures count as they are read out. What says nothing takes 0.
        language: BCP-47; of its region nothing is known.
        voice: As the synthesizer knows it; one that was not measured speaks like the middle of its language.
    """
    letters, commas, stops = measures(text, language)
    if not letters:
        return 0.0
    known = rates().languages.get(_primary(language), {})
    pace = next((pace for pace in known.values() if voice in pace.voices), next(iter(known.values()), rates().default))
    seconds = pace.start + letters * pace.letter + commas * pace.comma + stops * pace.stop
    return round(seconds * pace.voices.get(voice, 1.0), 3)


def measures(text: str, language: str) -> tuple[float, int, int]:
    """Letters of a text (figures spelled out), and the commas and stops within it: those at its end take no time."""
    said = spell_numbers(unicodedata.normalize("NFC", text).casefold(), language)
    letters = sum(WIDE if unicodedata.east_asian_width(c) == "W" else 1.0 for c in said if c.isalnum())
    inner = re.sub(r"\W+$", "", said)
    return letters, len(COMMA.findall(inner)), len(STOP.findall(inner))


def _primary(language: str) -> str:
    return language.partition("-")[0].lower()
