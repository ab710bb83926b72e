"""Scripts: given texts of a whole episode in its target language (SRT, WebVTT, CSV, JSON, DAPT) → text by line id.

CSV, JSON and DAPT that was written here name lines by id, and must name each of them once. Subtitles and others' DAPT
have only times: every cue goes to the line that it overlaps most; what cannot be placed is said on the nearest line.
"""

from __future__ import annotations

import csv
import io
import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

from models.errors import InputError
from models.records import Line, LineId
from models.timebase import timecode
from tasks import dapt
from tasks.subtitles import MAX_BYTES, MAX_TEXT, Cue, Format, decode, read_cues

TIMED: dict[str, Format] = {"srt": "srt", "vtt": "vtt"}
FORMATS = (*TIMED, "csv", "json", "ttml")


@dataclass(frozen=True)
class Script:
    """Texts and warnings by line id; '' where a line says nothing."""

    texts: dict[LineId, str]
    flags: dict[LineId, list[str]] = field(default_factory=dict)


def read_script(data: bytes, kind: str, lines: Sequence[Line], language: str) -> Script:
    """Read a script for `lines`.

    Args:
        data: The file.
        kind: One of `FORMATS`.
        lines: The transcript's.
        language: BCP-47 of the texts; a DAPT file may have them in several.

    Raises:
        InputError: It cannot be read, or it does not name exactly the lines there are.
    """
    if kind not in FORMATS:
        raise InputError(f"{kind or 'no format'!r} is no format of scripts", hint=f"There are: {', '.join(FORMATS)}")
    if len(data) > MAX_BYTES:
        raise InputError(f"is larger than {MAX_BYTES >> 20} MiB")
    if kind in TIMED:
        return by_time(read_cues(data, TIMED[kind], kind), lines)
    if kind == "ttml":
        return _by_event(dapt.read(data, language, kind), lines)
    rows = _csv_rows(decode(data, kind)) if kind == "csv" else _json_rows(decode(data, kind))
    return Script(_by_id(rows, lines))


def _by_event(events: Sequence[dapt.Found], lines: Sequence[Line]) -> Script:
    """By id where events have ids of lines, else by time."""
    if {line.id for line in lines} & {event.id for event in events}:
        return Script(_by_id([(event.id, event.text) for event in events], lines))
    cues = []
    for event in events:
        if event.start is None or event.end is None:
            raise InputError("has neither the id of a line nor begin and end", where=f"line {event.line}")
        cues.append(Cue(event.start, event.end, " ".join(event.text.split())))
    return by_time(cues, lines)


def _csv_rows(text: str) -> list[tuple[object, object]]:
    """Columns 'id' and 'text', among any others; parted by commas, semicolons or tabs."""
    head = text.partition("\n")[0]
    mark = max(",;\t", key=head.count)
    try:
        reader = csv.DictReader(io.StringIO(text), delimiter=mark, strict=True)
        names = {str(name).strip().lower(): name for name in reader.fieldnames or ()}
        if not {"id", "text"} <= names.keys():
            raise InputError("has no columns id and text", where="line 1", hint="Begin with: id,text")
        return [(row[names["id"]], row[names["text"]]) for row in reader]
    except csv.Error as error:
        raise InputError(f"is no CSV ({error})") from error


def _json_rows(text: str) -> list[tuple[object, object]]:
    """{"L0001": "text"}, or [{"id", "text"}], or the latter as "lines" of an object; no key twice."""
    try:
        value: Any = json.loads(text, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is no JSON ({error})") from error
    if isinstance(value, dict) and isinstance(value.get("lines"), list):
        value = value["lines"]
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return [(item.get("id"), item.get("text")) for item in value]
    raise InputError("is neither an object of id and text nor a list of {id, text}")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"{', '.join(twice)} stands there twice")
    return dict(pairs)


def _by_id(rows: Iterable[tuple[object, object]], lines: Sequence[Line]) -> dict[LineId, str]:
    texts: dict[LineId, str] = {}
    for number, (key, text) in enumerate(rows, 1):
        if not isinstance(key, str) or not isinstance(text, str):
            raise InputError("has no id or no text", where=f"item {number}")
        if len(text) > MAX_TEXT:
            raise InputError(f"has {len(text)} characters; no line of dialogue is that long", where=key.strip()[:20])
        if key.strip() in texts:
            raise InputError(f"{key.strip()} stands there twice")
        texts[key.strip()] = " ".join(text.split())
    known = {line.id for line in lines}
    foreign, missing = sorted(texts.keys() - known), sorted(known - texts.keys())
    if foreign:
        raise InputError(f"names lines that do not exist: {', '.join(foreign[:10])}")
    if missing:
        raise InputError(f"lacks the lines {', '.join(missing[:10])}{' …' if len(missing) > 10 else ''}",
                         hint="Add them, with an empty text where nothing is to be said")
    return texts


def by_time(cues: Sequence[Cue], lines: Sequence[Line]) -> Script:
    """Give every cue to the line it overlaps most."""
    texts: dict[LineId, list[str]] = {line.id: [] for line in lines}
    flags: dict[LineId, list[str]] = defaultdict(list)
    slots = Slots(lines)
    for cue in sorted((cue for cue in cues if cue.text), key=lambda cue: cue.start):
        if not lines:
            raise InputError("has cues, but the episode has no lines of dialogue")
        best = slots.best(cue.start, cue.end)
        if best is not None:
            texts[best[0]].append(cue.text)
        else:
            flags[slots.near(cue.start, cue.end)].append(
                f"script: the cue at {timecode(cue.start)} belongs to no line and is left out: {cue.text[:60]}")
    for line in lines:
        if line.text.strip() and not texts[line.id]:
            flags[line.id].append("script: no cue belongs to this line; it stays silent")
    return Script({key: " ".join(parts) for key, parts in texts.items()}, flags)


class Slot(Protocol):
    """When a line is said."""

    @property
    def id(self) -> LineId:
        """Its id."""
        ...

    @property
    def start(self) -> int:
        """Tick."""
        ...

    @property
    def end(self) -> int:
        """Tick, exclusive."""
        ...


class Slots:
    """Finds lines by time; among ten thousand as fast as among ten."""

    def __init__(self, lines: Sequence[Slot]) -> None:
        self._lines = sorted(lines, key=lambda line: line.start)
        self._starts = [line.start for line in self._lines]
        self._reach = list(accumulate((line.end for line in self._lines), max))
        """Where the last of all lines so far ends."""

    def best(self, start: int, end: int) -> tuple[LineId, int] | None:
        """The line that shares most of [start, end), and how many ticks of it; None where no line does."""
        found: tuple[LineId, int] | None = None
        at = bisect_left(self._starts, end) - 1
        while at >= 0 and self._reach[at] > start:
            line = self._lines[at]
            shared = min(line.end, end) - max(line.start, start)
            if shared > 0 and (found is None or shared >= found[1]):  # of equals, the first
                found = line.id, shared
            at -= 1
        return found

    def near(self, start: int, end: int) -> LineId:
        """The line with the smallest gap to [start, end); there must be one."""
        return min(self._lines, key=lambda line: max(line.start, start) - min(line.end, end)).id
