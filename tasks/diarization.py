"""Diarization from elsewhere: RTTM and JSON → turns.

RTTM (NIST RT-09 evaluation plan, appendix A): lines of `SPEAKER file channel onset duration <NA> <NA> name …`, parted
by blanks. Other types of line, comments after `;` and empty lines are passed over; channels are put together. Where
the file is about several recordings, the one named like the video or the episode is read.

JSON: a list of {"start": 1.2, "end": 3.4, "speaker": "…"}, in seconds.

Turns may overlap and come in any order; those of no length are dropped, and those that reach beyond the episode's end
are cut there. Errors name the line, or the item of the list.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from models.errors import InputError
from models.ports import Turn

Format = Literal["rttm", "json"]

MAX_BYTES = 16 << 20
MAX_TURNS = 50_000
MAX_SPEAKERS = 500
MAX_NAME = 100
LONGEST_S = 360_000.0
"""No recording lasts a hundred hours."""
FIELDS = range(8, 11)
"""RTTM has nine fields, ten with a look-ahead time; some tools leave the last one out."""
OTHER_TYPES = {"SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "SU", "IP",
               "CB", "A/P", "SPKR-INFO"}
NAMELESS = re.compile(r"(?:speakers?|spk|spkr|person|voice|s)?[\s_#-]*\d+|[A-Z]{1,2}|unknown|unk|none|<?na>?", re.I)
"""Labels that a diarizer gave: they say who is who within one episode only."""


@dataclass(frozen=True)
class _Given:
    """A turn as it stands in the file."""

    line: int
    start: float
    end: float
    speaker: str
    recording: str = ""


def read_diarization(data: bytes, kind: Format, names: Sequence[str], length: float, where: str) -> tuple[Turn, ...]:
    """Turns of a file, in order of time, within the episode.

    Args:
        data: The file.
        kind: 'rttm' or 'json'.
        names: What its recording may be called, where it is about several.
        length: Of the episode, in seconds.
        where: Its name, for errors.

    Raises:
        InputError: It is no such file, or belongs to another episode; the message names the line.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"is larger than {MAX_BYTES >> 20} MiB; that is no diarization", where=where)
    text = _decoded(data, where)
    given = list(_json_turns(text, where) if kind == "json" else _one_recording(_rttm_turns(text, where), names, where))
    if not given:
        raise InputError("holds no turn of any speaker", where=where, hint=
                         'Write [{"start": 1.0, "end": 2.5, "speaker": "Anna"}]' if kind == "json" else
                         "Write lines such as SPEAKER episode 1 1.00 1.50 <NA> <NA> Anna <NA> <NA>")
    if len(given) > MAX_TURNS or len({turn.speaker for turn in given}) > MAX_SPEAKERS:
        raise InputError(f"has more than {MAX_TURNS} turns or {MAX_SPEAKERS} speakers", where=where)
    beyond = [turn for turn in given if turn.start >= length]
    if len(beyond) > max(1, len(given) // 10):
        raise InputError(f"{len(beyond)} of {len(given)} turns begin after the episode's end ({length:.1f} s), "
                         f"the first in line {beyond[0].line}", where=where, hint="It belongs to another cut")
    turns = (Turn(turn.start, min(turn.end, length), turn.speaker) for turn in given if turn.end > turn.start)
    return tuple(sorted((turn for turn in turns if turn.end > turn.start),
                        key=lambda turn: (turn.start, turn.end, turn.speaker)))


def is_name(label: str) -> bool:
    """Whether a label says who somebody is, in all episodes, and is not just a diarizer's `SPEAKER_01`."""
    return not NAMELESS.fullmatch(label)


def _decoded(data: bytes, where: str) -> str:
    encoding = "utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b"\n") + 1
        raise InputError("is not UTF-8 text", where=f"{where}, line {line}") from None
    if "\0" in text:
        raise InputError("is not a text file", where=where)
    return text


def _rttm_turns(text: str, where: str) -> Iterator[_Given]:
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.partition(";")[0].split()
        if not fields or fields[0].upper() != "SPEAKER":
            if fields and fields[0].upper() not in OTHER_TYPES:
                raise InputError(f"{fields[0][:40]!r} is no type of an RTTM line", where=f"{where}, line {number}",
                                 hint="Is it an RTTM file?")
            continue
        place = f"{where}, line {number}"
        if len(fields) not in FIELDS:
            raise InputError(f"has {len(fields)} fields, a SPEAKER line has nine or ten", where=place,
                             hint="Names must be without blanks")
        start, duration = (_seconds(fields[i], f"{place}, {what}") for i, what in ((3, "onset"), (4, "duration")))
        yield _Given(number, start, start + duration, _label(fields[7], place), fields[1])


def _one_recording(turns: Iterator[_Given], names: Sequence[str], where: str) -> list[_Given]:
    """Turns of the recording that is meant."""
    found = list(turns)
    recordings = list(dict.fromkeys(turn.recording for turn in found))
    if len(recordings) <= 1:
        return found
    wanted = {name.casefold() for name in names}
    mine = [name for name in recordings if name.casefold() in wanted]
    if len(mine) != 1:
        raise InputError(f"is about {len(recordings)} recordings, and {'more than one' if mine else 'none'} is "
                         f"called {' or '.join(names)}", where=where,
                         hint=f"There are: {', '.join(recordings[:20])}. Keep the lines of one")
    return [turn for turn in found if turn.recording == mine[0]]


def _json_turns(text: str, where: str) -> Iterator[_Given]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", where=where) from None
    if not isinstance(items, list):
        raise InputError("is no list of {start, end, speaker}", where=where)
    for number, item in enumerate(items, 1):
        place = f"{where}, item {number}"
        if not isinstance(item, dict):
            raise InputError("is no {start, end, speaker}", where=place)
        start, end = (_seconds(item.get(key), f"{place}, {key}") for key in ("start", "end"))
        if end < start:
            raise InputError("ends before it starts", where=place)
        yield _Given(number, start, end, _label(item.get("speaker"), place))


def _seconds(value: object, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(str(value))
    except ValueError:
        number = math.nan
    if not 0 <= number < LONGEST_S:
        raise InputError(f"{str(value)[:40]!r} is not a time in seconds", where=where)
    return number


def _label(value: object, where: str) -> str:
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text or len(text) > MAX_NAME or not text.isprintable():
        raise InputError(f"{str(value)[:40]!r} is no name of a speaker", where=where)
    return text
