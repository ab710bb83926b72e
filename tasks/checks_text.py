"""Checks of words: what a recognizer hears in the stem, terms of the glossary, and subtitles as they were delivered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from models.records import Check, HeardBack, SpokenLine, TranslatedLine
from models.timebase import timecode
from tasks import captions
from tasks.captions import Breach
from tasks.checks import at_most, check, not_made
from tasks.listening import Back
from tasks.subtitles import Cue

BACK_WER = 0.12
MISHEARD = 0.5
"""Of a line's words, above which it counts as misunderstood."""
TERMS = ("glossary: ", "do not translate: ")
"""How flags of terms begin."""
SUBTITLES: Mapping[str, tuple[str, ...]] = {
    "subtitle_speed": ("speed",), "subtitle_width": ("width",), "subtitle_rows": ("rows",),
    "subtitle_time": ("shortest", "longest"), "subtitle_gap": ("gap",)}
"""Check → the rules that it stands for."""


def check_heard(back: Back | None, why: str) -> Iterator[Check]:
    """Word errors of everything, and lines that were misunderstood; `why` nobody listened."""
    if back is None:
        yield from (not_made(name, why) for name in ("back_wer", "back_wer_lines"))
        return
    worst = back.lines[0] if back.lines and back.lines[0].wer else None
    yield at_most("back_wer", back.rate, BACK_WER, _heard(worst) if worst else "", worst.at if worst else None)
    lost = [line for line in back.lines if line.wer > MISHEARD]
    yield at_most("back_wer_lines", len(lost), 0, _heard(lost[0]) if lost else "", lost[0].at if lost else None)


def _heard(line: HeardBack) -> str:
    return f"{'+'.join(line.lines)} heard as {line.heard[:80]!r} ({100 * line.wer:.0f} %)"


def check_terms(translated: Sequence[TranslatedLine] | None, lines: Sequence[SpokenLine]) -> Check:
    """Whether terms of the glossary are where they belong, by what the translation was flagged with."""
    if translated is None:
        return not_made("glossary", "it is not known what was translated")
    places = {line.id: line.start for line in lines}
    broken = [(line.id, flag) for line in translated for flag in line.flags if flag.startswith(TERMS)]
    lost = list(dict.fromkeys(name for name, _ in broken))
    at = places.get(lost[0]) if lost else None
    where = f", at {timecode(at)}" if at is not None else ""
    return at_most("glossary", len(lost), 0, f"{broken[0][0]}, {broken[0][1]}{where}" if broken else "", at)


def check_subtitles(shown: Sequence[Cue] | None, language: str, rate: Fraction) -> Iterator[Check]:
    """Whether subtitles keep the rules of their language.

    Args:
        shown: Cues as they were read from the file, rows kept; None: there is none.
        language: BCP-47.
        rate: Frames per second: gaps are counted in frames.
    """
    if shown is None:
        yield from (not_made(name, "there are no subtitles") for name in SUBTITLES)
        return
    ordered = sorted((captions.Cue(cue.start, cue.end, cue.text) for cue in shown), key=lambda cue: cue.start)
    broken = captions.breaches(ordered, language, rate)
    rules = captions.rules_for(language)
    bars = {"subtitle_speed": f"above {rules.speed:g} characters/s",
            "subtitle_width": f"above {rules.width} characters",
            "subtitle_rows": f"above {captions.ROWS} rows", "subtitle_time": "outside 5/6 to 7 s",
            "subtitle_gap": f"nearer than {captions.GAP} frames"}
    for name, mine in SUBTITLES.items():
        found = [breach for breach in broken if breach.rule in mine]
        worst = max(found, default=None, key=lambda breach: abs(breach.value - breach.bar))
        yield check(name, len(found), f"= 0 {bars[name]}", not found, _named(worst), worst.at if worst else None)


def _named(worst: Breach | None) -> str:
    if worst is None:
        return ""
    text = " / ".join(worst.text.split("\n"))[:60]
    return f"{timecode(worst.at)} {text!r}, {worst.value:.3g}"
