"""Scripts under review as files: out to CSV, SRT or DAPT, and back in, checked against the lines they are for.

CSV and DAPT name lines by id and must name each of them once; SRT and WebVTT have only times, as have the TTML files of
others: a cue belongs to the line whose time it has, or else of which it has the most. What a line says is compared as
it would be said, so tags, invisible characters and Unicode forms are no changes.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from models.errors import InputError
from models.recipe import sha256
from models.records import LineId
from models.review import Review, ReviewLine
from models.timebase import CLOCK, timecode
from tasks import dapt
from tasks.dapt import Found
from tasks.review import MAX_TEXT, locked
from tasks.script import Slots
from tasks.subtitles import MAX_BYTES, decode, portable, raw_cues, spoken_text

Format = Literal["csv", "srt", "dapt"]
FORMATS: tuple[Format, ...] = ("csv", "srt", "dapt")
SUFFIXES = {".csv": "csv", ".srt": "srt", ".vtt": "vtt", ".dapt": "dapt", ".ttml": "dapt", ".xml": "dapt"}
NAMES: dict[Format, str] = {"csv": ".csv", "srt": ".srt", "dapt": ".ttml"}
"""Format → suffix of its files."""
COLUMNS = ("id", "start", "end", "speaker", "source", "text", "notes", "approved", "locked", "version")
FORMULA = "=+-@＝＋－＠\t\r'"
"""What a cell must not begin with: spreadsheets would compute it. An apostrophe is put before, and taken away again."""
NEAR = CLOCK // 10
"""Ticks by which a time may be off in a file that names its lines: formats round."""


# -- out --------------------------------------------------------------------------------------------------------------


def write(review: Review, kind: Format, source_language: str) -> bytes:
    """A script as a file.

    Args:
        review: The lines.
        kind: One of `FORMATS`; SRT leaves out lines that say nothing.
        source_language: BCP-47 of what is spoken.
    """
    if kind == "csv":
        return _csv(review)
    if kind == "dapt":
        return dapt.write(review, source_language, version)
    said = [line for line in review.lines if spoken_text(line.text)]
    return "\n".join(f"{number}\n{timecode(line.start, mark=',')} --> {timecode(line.end, mark=',')}\n"
                     f"{portable(line.text)}\n" for number, line in enumerate(said, 1)).encode()


def version(line: ReviewLine) -> str:
    """Of a line's text and source, as a file carries it: what was changed since, and by whom of the two, shows."""
    return f"{_short(line.text)}-{_short(line.source)}"


@lru_cache(1 << 15)
def _short(text: str) -> str:
    return sha256(spoken_text(text).encode())[:12]


def _csv(review: Review) -> bytes:
    """With a byte order mark, without which a spreadsheet does not know UTF-8."""
    file = io.StringIO()
    table = csv.writer(file)  # RFC 4180: commas, quotes, CRLF
    table.writerow(COLUMNS)
    for line in review.lines:
        said = [f"{one.who} {one.at:%Y-%m-%d %H:%M}" if one else "" for one in (line.approved, line.locked)]
        table.writerow([line.id, timecode(line.start), timecode(line.end), *(
            _cell(text) for text in (line.speaker, line.source, line.text, "; ".join(line.flags), *said)),
            version(line)])
    return file.getvalue().encode("utf-8-sig")


def _cell(text: str) -> str:
    plain = portable(text)
    return f"'{plain}" if plain[:1] in FORMULA and plain else plain


# -- in ---------------------------------------------------------------------------------------------------------------


def kind_of(path: Path) -> str:
    """What a file's name says that it is.

    Raises:
        InputError: Nothing that is known.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path.suffix or 'no suffix'} is no format of scripts", where=path.name,
                         hint=f"There are: {', '.join(SUFFIXES)}")
    return kind


def changes(data: bytes, kind: str, review: Review, where: str) -> dict[LineId, str]:
    """What a file says otherwise than the lines do.

    Args:
        data: The file.
        kind: 'csv', 'srt', 'vtt' or 'dapt'.
        review: The lines as they are now.
        where: The file's name, for errors.

    Returns:
        New text by line; '' where it says nothing. A line that the file has as it was when it was written is none,
        whatever somebody else changed of it since.

    Raises:
        InputError: It cannot be read, names lines that do not exist, one twice, or not all; it changes a locked line,
            or one that somebody else changed since the file was written. The message names the line of the file.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"is larger than {MAX_BYTES >> 20} MiB", where=where)
    if kind == "csv":
        found, timed = _read_csv(decode(data, where), where), False
    elif kind == "dapt":
        found = dapt.read(data, review.language, where)
        timed = not any(one.id in review.by_id for one in found)
    else:
        cues = raw_cues(data, "vtt" if kind == "vtt" else "srt", where)
        found, timed = [Found("", cue.start, cue.end, cue.text, cue.line) for cue in cues], True
    problems: list[InputError] = []

    def refuse(line: int, what: str, hint: str = "") -> None:
        problems.append(InputError(what, where=f"{where}, line {line}", hint=hint))

    for one in found:
        if len(one.text) > MAX_TEXT:
            refuse(one.line, f"has {len(one.text)} characters; no line of dialogue is that long")
        if "\ufffd" in one.text:
            refuse(one.line, "has a character that cannot be read", "Save the file as UTF-8")
    by_line = (_by_time if timed else _by_id)(found, review, refuse)
    changed = _changed(by_line, review, refuse)
    if problems:
        first, more = problems[0], len(problems) - 1
        raise InputError(first.what + (f" (and {more} more)" if more else ""), where=first.where,
                         hint=first.hint or "Nothing was changed")
    _complete(by_line, review, where, timed=timed)
    return changed


Refuse = Callable[..., None]


def _read_csv(text: str, where: str) -> list[Found]:
    head = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=head.count), strict=True)
    found, names, line = list[Found](), list[str](), 1
    try:
        for row in rows:
            first, line = line, rows.line_num + 1
            if not names:
                names = [name.strip().lower() for name in row]
                if names.count("id") != 1 or names.count("text") != 1:
                    raise InputError("has no columns id and text, or two of them", where=f"{where}, line 1",
                                     hint=f"Begin with: {','.join(COLUMNS)}")
            elif any(cell.strip() for cell in row):
                if len(row) != len(names):
                    raise InputError(f"has {len(row)} cells where the first line has {len(names)}",
                                     where=f"{where}, line {first}", hint="Put quotes around texts with commas")
                cells = dict(zip(names, map(_uncell, row), strict=True))
                found.append(Found(cells["id"].strip(), None, None, cells["text"], first, cells.get("version", "")))
    except csv.Error as error:
        raise InputError(f"is no CSV ({error})", where=f"{where}, line {line}") from error
    return found


def _uncell(text: str) -> str:
    return text[1:] if text[:1] == "'" and text[1:2] and text[1:2] in FORMULA else text


def _by_id(found: Sequence[Found], review: Review, refuse: Refuse) -> dict[LineId, Found]:
    named: dict[LineId, Found] = {}
    for one in found:
        line = review.by_id.get(one.id)
        if line is None:
            refuse(one.line, f"{one.id[:40]!r} is no line of {review.episode}")
        elif one.id in named:
            refuse(one.line, f"{one.id} stands there twice, first in line {named[one.id].line}")
        else:
            named[one.id] = one
            if one.start is not None and one.end is not None and (
                    abs(one.start - line.start) > NEAR or abs(one.end - line.end) > NEAR):
                refuse(one.line, f"{one.id} is said at {_span(line.start, line.end)}, and not at "
                                 f"{_span(one.start, one.end)}", "An import changes texts, not times")
    return named


def _by_time(found: Sequence[Found], review: Review, refuse: Refuse) -> dict[LineId, Found]:
    exact: dict[tuple[int, int], deque[LineId]] = defaultdict(deque)
    for said in review.lines:
        if spoken_text(said.text):
            exact[_ms(said.start), _ms(said.end)].append(said.id)
    placed: dict[LineId, Found] = {}
    left = []
    for one in found:
        same = exact.get((_ms(one.start or 0), _ms(one.end or 0)))
        if same:
            placed[same.popleft()] = one
        else:
            left.append(one)
    slots = Slots(review.lines)
    for one in left:
        start, end = one.start or 0, one.end or 0
        name, shared = slots.best(start, end) or ("", 0)
        line = review.by_id.get(name)
        if line is None or 2 * shared < min(end - start, line.end - line.start):
            refuse(one.line, f"no line is said at {_span(start, end)}")
        elif name in placed:
            refuse(one.line, f"the times of this cue and of that in line {placed[name].line} both lie in {name} "
                             f"({_span(line.start, line.end)})", "Give each line one cue")
        else:
            placed[name] = one
    return placed


def _complete(by_line: dict[LineId, Found], review: Review, where: str, *, timed: bool) -> None:
    missing = [line for line in review.lines if line.id not in by_line and not (timed and not spoken_text(line.text))]
    if missing:
        after = max((one.line for name, one in by_line.items() if review.by_id[name].start <= missing[0].start),
                    default=1)
        names = ", ".join(f"{line.id} ({timecode(line.start)})" for line in missing[:5])
        hint = "To have a line say nothing, use CSV" if timed else "Leave the text empty where nothing is to be said"
        raise InputError(f"lacks {names}{' …' if len(missing) > 5 else ''}", where=f"{where}, after line {after}",
                         hint=f"{hint}. Nothing was changed")


def _changed(by_line: dict[LineId, Found], review: Review, refuse: Refuse) -> dict[LineId, str]:
    changed = {}
    for name, one in by_line.items():
        line, text = review.by_id[name], spoken_text(one.text)
        was, _, source = one.version.partition("-")
        if text == spoken_text(line.text) or _short(text) == was:
            continue
        if line.locked:
            error = locked(name, line.locked.who, review.episode, review.language)
            refuse(one.line, f"{name} {error.what}", error.hint)
        elif was and was != _short(line.text):
            refuse(one.line, f"{name} was changed here since the file was written: {line.text[:60]!r}",
                   "Export it anew")
        elif source and source != _short(line.source):
            refuse(one.line, f"the source of {name} says something else since the file was written: "
                             f"{line.source[:60]!r}", "Export it anew")
        changed[name] = text
    return changed


def _ms(tick: int) -> int:
    return round(tick * 1000 / CLOCK)


def _span(start: int, end: int) -> str:
    return f"{timecode(start)} – {timecode(end)}"
