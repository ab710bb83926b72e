"""Transcripts and subtitles from the wild: SRT, WebVTT and JSON → cues → a `Transcript`.

What is mended, and how:

- encoding: a byte order mark decides; else UTF-8; else Windows-1252;
- missing blank lines and counters, times without a fraction, arrows that are none; notes, styles and regions go;
- tags (`<i>`, `{\\an8}`, `\\N`), entities and invisible characters go; `<v Anna>` and `ANNA:` name a speaker;
- `[door creaks]`, `(sighs)` and songs between ♪ go; a cue of which nothing is left is dropped, with the reason;
- a cue with two lines that begin with dashes is two speakers: it is parted by their lengths of text;
- cues are put in order of time; the same text twice at the same time counts once;
- a cue of no length lasts until the next one, at most two seconds;
- where cues of one speaker overlap, the first ends where the second begins;
- a cue that reaches beyond the episode's end is cut there; up to a tenth of the cues may lie wholly beyond and are
  dropped.

Errors, with the line of the file: a broken time, an end before its start, text that is too long; and a file of which
more lies beyond the end than a tenth, for it belongs to another cut or frame rate.
"""

from __future__ import annotations

import codecs
import html
import json
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import langcodes
from pydantic import ValidationError

from models.errors import InputError
from models.records import Line, Speaker, Transcript, Word
from models.timebase import CLOCK, ticks, timecode

Format = Literal["srt", "vtt", "json"]

MAX_BYTES = 32 << 20
MAX_TEXT = 2000
"""Characters of one cue: five minutes of speech."""
NO_LENGTH = 2 * CLOCK
"""Ticks that a cue of no length may last."""

TIME = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})(?:[,.:](\d{1,3}))?"
EXACT = TIME.replace("(?:[,.:](\\d{1,3}))?", "[,.:](\\d{1,3})")
TIMING = re.compile(rf"^\s*{TIME}\s*-->\s*{TIME}(?:\s.*)?$")
ODD_TIMING = re.compile(rf"^\s*{EXACT}\s*(?:-{{1,2}}\s?>|[–—]{{1,2}}>|→)\s*{EXACT}(?:\s.*)?$")
"""With an arrow that was typed or mended by a word processor; times to the millisecond, for else it is dialogue."""
SECTION = re.compile(r"^(NOTE|STYLE|REGION)(\s|$)")
TAG = re.compile(r"</?[A-Za-z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}|\{[A-Za-z]:[^{}]*\}")
VOICE = re.compile(r"<v(?:\.[\w.-]+)?\s+([^<>]{1,60})>")
LABEL = re.compile(r"^[-–—\s]*([A-ZÀ-ÖØ-Þ][A-ZÀ-ÖØ-Þ0-9 .'’-]{1,30}):\s+(?=\S)")
SOUND = re.compile(r"\[[^\]]*\]|\([^)]*\)|[♪♫][^♪♫]*[♪♫]|[♪♫].*$")
DASH = re.compile(r"^\s*[-–—]\s*(?=\S)")


@dataclass(frozen=True)
class Cue:
    """One timed text; times in ticks."""

    start: int
    end: int
    text: str
    speaker: str = ""
    line: int = 0
    """Line of the file (of a JSON list: the number of the item), from 1."""
    words: tuple[Word, ...] = ()


# -- reading ----------------------------------------------------------------------------------------------------------


def read_cues(data: bytes, kind: Format, where: str) -> list[Cue]:
    """Cues of a file, in its own order, texts cleaned; those of which nothing was left have an empty text.

    Args:
        data: The file.
        kind: 'srt', 'vtt' or 'json'.
        where: Its name, for errors.

    Raises:
        InputError: It is not such a file; the message names the line.
    """
    cues = list(_json_cues(decode(data, where), where)) if kind == "json" else raw_cues(data, kind, where)
    return [part for cue in cues for part in _clean(cue, where)]


def raw_cues(data: bytes, kind: Literal["srt", "vtt"], where: str) -> list[Cue]:
    """Cues of a subtitle file with their texts as they stand there, tags and all; `where` is its name, for errors.

    Raises:
        InputError: It is not such a file; the message names the line.
    """
    text = decode(data, where)
    cues = list(_timed_cues(text, kind, where))
    if not cues and text.strip():
        raise InputError("has no line such as 00:00:01,000 --> 00:00:02,500", where=where,
                         hint="Is it an SRT or WebVTT file?")
    return cues


def read_shown(data: bytes, kind: Format, where: str) -> list[Cue]:
    """Cues of an SRT or WebVTT file as viewers see them: rows stay, tags go.

    Raises:
        InputError: It is not such a file; the message names the line.
    """
    cues = _timed_cues(decode(data, where), kind, where)
    return [replace(cue, text="\n".join(_plain(row) for row in TAG.sub("", cue.text).split("\n"))) for cue in cues]


def decode(data: bytes, where: str) -> str:
    """Text of unknown encoding, with newlines made one kind."""
    for mark, encoding in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"),
                           (codecs.BOM_UTF16_BE, "utf-16"), (b"", "utf-8")):
        if data.startswith(mark):
            try:
                text = data.decode(encoding)
                break
            except UnicodeDecodeError:
                continue
    else:
        text = data.decode("cp1252", errors="replace")
    if "\0" in text:
        raise InputError("is not a text file", where=where, hint="Save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _timed_cues(text: str, kind: Format, where: str) -> Iterator[Cue]:
    """A line of times begins a cue; its text lasts until the next one (in WebVTT until an empty line)."""
    cue: Cue | None = None
    body: list[str] = []
    skipping, count = False, 0
    for number, line in enumerate([*text.split("\n"), "00:00:00,000 --> 00:00:00,000"], 1):
        times = TIMING.match(line) or ODD_TIMING.match(line)
        if times:
            count += 1
            if cue:
                yield replace(cue, text="\n".join(_without_index(body, count)))
            cue, body, skipping = Cue(*_span(times, f"{where}, line {number}"), "", line=number), [], False
        elif "-->" in line:
            raise InputError(f"not a pair of times: {line.strip()[:60]!r}", where=f"{where}, line {number}",
                             hint="Write for example 00:00:01,000 --> 00:00:02,500")
        elif kind == "vtt" and (not line.strip() or SECTION.match(line)):
            skipping = True
        elif not skipping:
            body.append(line)


def _without_index(body: list[str], count: int) -> list[str]:
    """Text without blank lines, and without the number of the next cue, which is the `count`-th (from 0 or 1)."""
    lines = [line.strip() for line in body if line.strip()]
    if lines and lines[-1].isdigit() and body[-1].strip():
        alone = len(body) > 1 and not body[-2].strip()
        return lines[:-1] if alone or lines[-1] in {str(count), str(count - 1)} else lines
    return lines


def _span(found: re.Match[str], where: str) -> tuple[int, int]:
    times = []
    for hours, minutes, secs, fraction in (found.groups()[:4], found.groups()[4:]):
        if int(minutes) > 59 or int(secs) > 59:
            raise InputError(f"{found[0].strip()[:60]!r} has more than 59 minutes or seconds", where=where)
        ms = ((int(hours or 0) * 60 + int(minutes)) * 60 + int(secs)) * 1000 + int((fraction or "").ljust(3, "0"))
        times.append(ms * CLOCK // 1000)
    if times[1] < times[0]:
        raise InputError("ends before it starts", where=where, hint="Correct the times of this cue")
    return times[0], times[1]


def _json_cues(text: str, where: str) -> Iterator[Cue]:
    """A list of {start, end, text, speaker?, words?} in seconds, also as 'segments' of an object."""
    value = _json(text, where)
    items = value.get("segments") if isinstance(value, dict) else value
    if not isinstance(items, list):
        raise InputError("is neither a list of {start, end, text, speaker} nor a Transcript", where=where)
    for number, item in enumerate(items, 1):
        place = f"{where}, item {number}"
        if not isinstance(item, dict) or not isinstance(item.get("text"), str):
            raise InputError("has no text", where=place, hint='Write {"start": 1.0, "end": 2.5, "text": "…"}')
        start, end = (_seconds(item.get(key), f"{place}, {key}") for key in ("start", "end"))
        if end < start:
            raise InputError("ends before it starts", where=place)
        words = tuple(_words(item.get("words"), place))
        yield Cue(start, end, item["text"], str(item.get("speaker") or ""), number, words)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", where=where) from error


def read_record(data: bytes, length: int, where: str) -> Transcript | None:
    """A `Transcript` as this project writes it, ids and all; None when the JSON is something else.

    Raises:
        InputError: A field is wrong, or a line does not lie within the episode.
    """
    value = _json(decode(data, where), where)
    if not isinstance(value, dict) or "lines" not in value:
        return None
    try:
        transcript = Transcript.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", where=where) from error
    for tag in (transcript.language, *(line.language or "und" for line in transcript.lines)):
        if not langcodes.tag_is_valid(tag):
            raise InputError(f"{tag!r} is not a BCP-47 language tag", where=f"{where}, language")
    for line in transcript.lines:
        if not line.start < line.end <= length:
            raise InputError(f"{timecode(line.start)} to {timecode(line.end)} is not a span within the episode",
                             where=f"{where}, line {line.id}")
    return transcript


def _words(items: object, where: str) -> Iterator[Word]:
    for item in items if isinstance(items, list) else []:
        text = item.get("text") or item.get("word") if isinstance(item, dict) else None
        if isinstance(text, str) and text.strip() and "start" in item and "end" in item:
            start, end = (_seconds(item[key], f"{where}, word {text.strip()[:20]!r}") for key in ("start", "end"))
            yield Word(text=text.strip(), start=start, end=max(start, end))


def _seconds(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) \
            or not 0 <= value < 360_000:
        raise InputError(f"{value!r} is not a time in seconds", where=where)
    return ticks(value)


# -- cleaning ---------------------------------------------------------------------------------------------------------


def _clean(cue: Cue, where: str) -> Iterator[Cue]:
    """The cue's speakers, each with a plain text."""
    if len(cue.text) > MAX_TEXT:
        raise InputError(f"has {len(cue.text)} characters; no line of dialogue is that long",
                         where=f"{where}, line {cue.line}")
    voice = VOICE.search(cue.text)
    lines = [_plain(line) for line in _untagged(cue.text).split("\n")]
    dashes = [i for i, line in enumerate(lines) if DASH.match(line)]
    if len(dashes) == 2 and dashes[0] == 0:
        texts = [" ".join(lines[:dashes[1]]), " ".join(lines[dashes[1]:])]
    else:
        texts = [" ".join(lines)]
    share = len(texts[0]) / max(1, sum(map(len, texts)))
    cut = cue.start + round((cue.end - cue.start) * share)
    edges = [cue.start, cut, cue.end] if len(texts) == 2 else [cue.start, cue.end]
    for i, text in enumerate(texts):
        label = LABEL.match(text)
        speaker = cue.speaker or (label[1].strip().title() if label else _plain(voice[1]) if voice else "")
        spoken = " ".join(SOUND.sub(" ", DASH.sub("", text[label.end():] if label else text)).split())
        yield replace(cue, start=edges[i], end=edges[i + 1], speaker=speaker,
                      text=spoken if any(c.isalnum() for c in spoken) else "",
                      words=cue.words if len(texts) == 1 else ())


def portable(text: str) -> str:
    """A text as every file format can carry it: one line, no control characters, nothing that looks like a timing."""
    shown = text if text.isprintable() else "".join(
        " " if c.isspace() else c for c in text
        if c.isspace() or unicodedata.category(c) not in {"Cc", "Cs", "Co", "Cn"})
    return " ".join(shown.split()).replace("-->", "→")


def spoken_text(text: str) -> str:
    """What of a text is said, whatever file it came from: no tags, entities or invisible characters, single blanks.

    `spoken_text(portable(text)) == spoken_text(text)`: what a format cannot carry makes no difference.
    """
    return portable(_plain(_untagged(portable(text))))


def _untagged(text: str) -> str:
    return TAG.sub("", text).replace(r"\N", "\n").replace(r"\h", " ")


def _plain(text: str) -> str:
    """No entities, no invisible or control characters, one Unicode form, single blanks."""
    meant = html.unescape(text)
    shown = meant if meant.isprintable() else "".join(
        " " if c.isspace() else c for c in meant
        if c.isspace() or unicodedata.category(c) not in {"Cc", "Cf", "Co", "Cn"} or c in "\u200c\u200d")
    return " ".join(unicodedata.normalize("NFC", shown).split())


# -- to a transcript --------------------------------------------------------------------------------------------------


def to_transcript(cues: Sequence[Cue], language: str, length: int, where: str) -> Transcript:
    """Cues as a transcript of an episode of `length` ticks, one line a cue, mended as the module says.

    Raises:
        InputError: More than a tenth of the cues begin after the episode's end, or the language is no BCP-47 tag.
    """
    if not langcodes.tag_is_valid(language):
        raise InputError(f"{language!r} is not a BCP-47 language tag", where=where)
    beyond = [cue for cue in cues if cue.start >= length]
    if len(beyond) > max(1, len(cues) // 10):
        raise InputError(f"{len(beyond)} of {len(cues)} cues begin after the episode's end "
                         f"({timecode(length)}), the first in line {beyond[0].line}", where=where,
                         hint="It belongs to another cut, or was timed for another frame rate")
    dropped = [_why(cue, "begins after the episode's end") for cue in beyond]
    dropped += [_why(cue, "no words") for cue in cues if not cue.text and cue.start < length]
    kept = _mended([cue for cue in cues if cue.text and cue.start < length], length)
    names = list(dict.fromkeys(cue.speaker for cue in kept if cue.speaker))
    lines = tuple(Line(id=f"L{n:04d}", start=cue.start, end=cue.end, text=cue.text, speaker=cue.speaker,
                       words=tuple(w for w in cue.words if w.end <= cue.end)) for n, cue in enumerate(kept, 1))
    return Transcript(language=langcodes.standardize_tag(language), lines=lines, dropped=tuple(dropped),
                      speakers=tuple(Speaker(id=name, name=name) for name in names))


def _why(cue: Cue, reason: str) -> str:
    return f"{timecode(cue.start)} line {cue.line}: {reason}"


def _mended(cues: list[Cue], length: int) -> list[Cue]:
    """In order, each of some length, within the episode, none of one speaker over another of his."""
    ordered = sorted({(c.start, c.end, c.text): c for c in cues}.values(), key=lambda c: c.start)
    result: list[Cue] = []
    for i, cue in enumerate(ordered):
        following = ordered[i + 1].start if i + 1 < len(ordered) else length
        end = cue.end if cue.end > cue.start else min(cue.start + NO_LENGTH, max(following, cue.start + CLOCK // 2))
        last = next((k for k in range(len(result) - 1, -1, -1) if result[k].speaker == cue.speaker), None)
        if last is not None and result[last].end > cue.start:
            if cue.start > result[last].start:
                result[last] = replace(result[last], end=cue.start)
            else:  # two lines of one speaker that begin together are one
                text = f"{result[last].text} {cue.text}"
                result[last] = replace(result[last], end=max(result[last].end, min(end, length)), text=text, words=())
                continue
        result.append(replace(cue, end=min(end, length)))
    return result
