"""W3C DAPT, the profile of TTML2 for dubbing scripts (https://www.w3.org/TR/dapt/): written, and read from others too.

A line is a script event: a `div` with its times, its character, the source's text and the translation. Of other TTML
files, a timed `p` outside of such a `div` counts as one. Entities, external or not, are refused with the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lxml import etree

from models.errors import InputError
from models.review import Review, ReviewLine
from models.timebase import ticks, timecode
from tasks.subtitles import decode, portable, spoken_text

TT = "http://www.w3.org/ns/ttml"
TTM, TTP = f"{TT}#metadata", f"{TT}#parameter"
DAPTM = f"{TT}/profile/dapt#metadata"
PROFILE = f"{TT}/profile/dapt1.0/content"
XML = "http://www.w3.org/XML/1998/namespace"
OURS = "urn:infinidub:review"
"""Namespace of `version`: others' programs keep it or drop it, as they like."""
MAX_DEPTH = 64

CLOCK_TIME = re.compile(r"(\d{2,}):(\d{2}):(\d{2})(?:\.(\d+)|:(\d{2,}))?")
OFFSET_TIME = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|f|t)")
UNITS = {"h": Fraction(3600), "m": Fraction(60), "s": Fraction(1), "ms": Fraction(1, 1000)}
UNSPOKEN = {f"{{{TT}}}{name}" for name in ("metadata", "audio", "source", "data", "image", "set", "animate")}


@dataclass(frozen=True)
class Found:
    """What a file has for one line; times in ticks, None where it names none."""

    id: str
    start: int | None
    end: int | None
    text: str
    line: int
    """Line of the file, from 1."""
    version: str = ""


# -- writing ----------------------------------------------------------------------------------------------------------


def write(review: Review, source_language: str, version: Callable[[ReviewLine], str]) -> bytes:
    """A translated transcript: every line with what is said and what is to be said.

    Args:
        review: The lines.
        source_language: BCP-47 of what is spoken.
        version: Of a line, for `Found.version`.
    """
    root = etree.Element(_tag(TT, "tt"), {
        _tag(TTP, "contentProfiles"): PROFILE, _tag(TTP, "timeBase"): "media", _tag(XML, "lang"): review.language,
        _tag(DAPTM, "langSrc"): source_language, _tag(DAPTM, "scriptRepresents"): "audio.dialogue",
        _tag(DAPTM, "scriptType"): "translatedTranscript",
    }, nsmap={None: TT, "ttm": TTM, "ttp": TTP, "daptm": DAPTM, "idub": OURS})
    agents = _agents(etree.SubElement(root, _tag(TT, "head")), review)
    body = etree.SubElement(root, _tag(TT, "body"))
    for line in review.lines:
        event = etree.SubElement(body, _tag(TT, "div"), {
            _tag(XML, "id"): line.id, "begin": timecode(line.start), "end": timecode(line.end),
            _tag(DAPTM, "represents"): "audio.dialogue", _tag(OURS, "version"): version(line)})
        if line.speaker in agents:
            event.set(_tag(TTM, "agent"), agents[line.speaker])
        for language, text in ((source_language, line.source), (review.language, line.text)):
            said = etree.SubElement(event, _tag(TT, "p"), {_tag(XML, "lang"): language,
                                                           _tag(DAPTM, "langSrc"): source_language})
            etree.SubElement(said, _tag(TT, "span")).text = portable(text)
    written: bytes = etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)
    return written


def _agents(head: Any, review: Review) -> dict[str, str]:
    """Speaker → xml:id of his character."""
    agents: dict[str, str] = {}
    metadata = etree.SubElement(head, _tag(TT, "metadata"))
    for name in dict.fromkeys(line.speaker for line in review.lines if portable(line.speaker)):
        agents[name] = f"character_{len(agents) + 1}"
        agent = etree.SubElement(metadata, _tag(TTM, "agent"), {"type": "character", _tag(XML, "id"): agents[name]})
        etree.SubElement(agent, _tag(TTM, "name"), {"type": "alias"}).text = portable(name)
    return agents


def _tag(space: str, name: str) -> str:
    return f"{{{space}}}{name}"


# -- reading ----------------------------------------------------------------------------------------------------------


def read(data: bytes, language: str, where: str) -> list[Found]:
    """The events of a DAPT or other TTML file, with their texts in one language.

    Args:
        data: The file.
        language: BCP-47 of the texts that are asked for.
        where: Its name, for errors.

    Raises:
        InputError: It is no such file, a time in it is none, or nothing in it is in that language.
    """
    root = _parsed(data, where)
    rates = _Rates.of(root, where)
    events = list(_events(root, rates, Fraction(0), None, "", where))
    spoken = {tag for event in events for tag in event.texts}
    chosen = next((tag for tag in sorted(spoken) if tag.lower() == language.lower()), None) or \
        next((tag for tag in sorted(spoken) if _primary(tag) == _primary(language)), None)
    if chosen is None and events:
        raise InputError(f"has no text in {language}; it has {', '.join(sorted(spoken)) or 'none at all'}",
                         where=f"{where}, line {events[0].line}", hint="Say in xml:lang which language a text is in")
    return [Found(event.id, event.start, event.end, " ".join(event.texts.get(chosen or "", ())), event.line,
                  event.version) for event in events]


@dataclass(frozen=True)
class _Event:
    id: str
    start: int | None
    end: int | None
    texts: dict[str, list[str]]
    line: int
    version: str


@dataclass(frozen=True)
class _Rates:
    """What 'f' and 't' mean in times."""

    frame: Fraction
    tick: Fraction

    @classmethod
    def of(cls, root: Any, where: str) -> _Rates:
        try:
            given = root.get(_tag(TTP, "frameRate"))
            above, _, below = (root.get(_tag(TTP, "frameRateMultiplier")) or "1 1").partition(" ")
            frame = Fraction(_count(given or "30")) * Fraction(_count(above), _count(below or "1"))
            ticks_given = root.get(_tag(TTP, "tickRate"))
            tick = Fraction(_count(ticks_given)) if ticks_given else frame if given else Fraction(1)
        except ValueError as error:
            raise InputError("its frame rate or tick rate is none", where=f"{where}, line {root.sourceline}") from error
        return cls(frame, tick)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or int(text) == 0:
        raise ValueError(text)
    return int(text)


def _parsed(data: bytes, where: str) -> Any:
    """The root element; nothing outside the file is ever opened, and no entity is expanded: there may be none."""
    text = decode(data, where)
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        line = text[:re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE).start()].count("\n") + 1  # type: ignore[union-attr]
        raise InputError("document types and entities are refused", where=f"{where}, line {line}",
                         hint="Remove the DOCTYPE; a script needs none")
    text = re.sub(r"^\s*<\?xml[^>]*\?>", lambda found: "\n" * found[0].count("\n"), text)  # it is no longer so encoded
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False,
                             remove_comments=True, remove_pis=True, encoding="utf-8")
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        what = str(error).partition(", line")[0]
        raise InputError(f"is no XML ({what})", where=f"{where}, line {error.lineno or 1}") from error
    if root.tag != _tag(TT, "tt"):
        raise InputError("is no TTML: its root is not tt in the namespace http://www.w3.org/ns/ttml",
                         where=f"{where}, line {root.sourceline}")
    return root


def _events(element: Any, rates: _Rates, begin: Fraction, end: Fraction | None, language: str, where: str,
            depth: int = 0) -> Iterator[_Event]:
    """Events in an element that begins at a time (s), in order of the document."""
    if depth > MAX_DEPTH:
        raise InputError("is nested too deeply", where=f"{where}, line {element.sourceline}")
    language = element.get(_tag(XML, "lang"), language)
    timed = element.get("begin") is not None or element.get("end") is not None or element.get("dur") is not None
    begin, end = _times(element, rates, begin, end, where)
    texts = [child for child in element if child.tag == _tag(TT, "p")]
    if element.tag == _tag(TT, "div") and (timed or element.get(_tag(XML, "id"))) and texts and not any(
            child.get("begin") for child in texts):
        yield _event(element, texts, begin, end, language)
    elif element.tag == _tag(TT, "p"):
        yield _event(element, [element], begin, end, language)
    else:
        for child in element:
            yield from _events(child, rates, begin, end, language, where, depth + 1)


def _event(element: Any, paragraphs: list[Any], begin: Fraction, end: Fraction | None, language: str) -> _Event:
    texts: dict[str, list[str]] = {}
    for one in paragraphs:
        for tag, said in _said(one, one.get(_tag(XML, "lang"), language), 0):
            texts.setdefault(tag, []).append(said)
    joined = {tag: ["".join(parts)] for tag, parts in texts.items()}
    return _Event(element.get(_tag(XML, "id"), ""), ticks(begin), None if end is None else ticks(end),
                  {tag: parts for tag, parts in joined.items() if tag or spoken_text(parts[0])},
                  element.sourceline, element.get(_tag(OURS, "version"), ""))


def _said(element: Any, language: str, depth: int) -> Iterator[tuple[str, str]]:
    """Texts with their languages; paragraphs and line breaks are blanks."""
    yield language, element.text or ""
    for child in element if depth < MAX_DEPTH else ():
        if child.tag == _tag(TT, "br"):
            yield language, " "
        elif child.tag not in UNSPOKEN and not str(child.tag).startswith(f"{{{TTM}}}"):
            yield from _said(child, child.get(_tag(XML, "lang"), language), depth + 1)
        yield language, child.tail or ""
    if element.tag == _tag(TT, "p"):
        yield language, " "


def _times(element: Any, rates: _Rates, begin: Fraction, end: Fraction | None, where: str,
           ) -> tuple[Fraction, Fraction | None]:
    """When an element is active, in seconds of the programme; its own times count from where its parent begins."""
    values = {}
    for name in ("begin", "end", "dur"):
        given = element.get(name)
        if given is not None:
            values[name] = _time(given.strip(), rates)
            if values[name] is None:
                raise InputError(f"{given[:40]!r} is no time", where=f"{where}, line {element.sourceline}",
                                 hint="Write for example 00:00:01.000 or 1.5s")
    first = begin + (values.get("begin") or 0)
    last = begin + values["end"] if values.get("end") is not None else end
    if values.get("dur") is not None:
        last = first + values["dur"] if last is None or "end" not in values else min(last, first + values["dur"])
    if last is not None and last < first:
        raise InputError("ends before it starts", where=f"{where}, line {element.sourceline}")
    return first, last


def _time(text: str, rates: _Rates) -> Any:
    """Seconds of a TTML time expression; None where it is none."""
    if len(text) > 32:
        return None
    if found := CLOCK_TIME.fullmatch(text):
        hours, minutes, secs, fraction, frames = found.groups()
        if int(minutes) > 59 or int(secs) > 60:
            return None
        whole = Fraction(int(hours) * 3600 + int(minutes) * 60 + int(secs))
        return whole + (Fraction(f"0.{fraction}") if fraction else 0) + (int(frames) / rates.frame if frames else 0)
    if found := OFFSET_TIME.fullmatch(text):
        unit = UNITS.get(found[2]) or 1 / (rates.frame if found[2] == "f" else rates.tick)
        return Fraction(found[1]) * unit
    return None


def _primary(tag: str) -> str:
    return tag.partition("-")[0].lower()
