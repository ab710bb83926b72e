"""Translate: Transcript → Translation, line by line, keyed by line id; a script or an edit replaces the engine.

A line's own recipe holds its text, the two languages, the engine and the glossary terms that occur in it: neither its
id nor its neighbours, so that one changed source line translates one line anew.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Mapping, Sequence

from pydantic import Field

from models.errors import EngineError, InfinidubError, InputError
from models.recipe import sha256
from models.records import (
    Artifact,
    EngineRef,
    Line,
    LineEdit,
    LineId,
    Record,
    Request,
    Transcript,
    TranslatedLine,
    Translation,
)
from tasks.script import Script, read_script
from tasks.step import Work, perform_many, step


class TranslateRequest(Request):
    """A transcript, and where the words of the other language come from."""

    transcript: Transcript
    language: str
    """BCP-47 of the target."""
    translator: EngineRef
    glossary: dict[str, str] = Field(default={})
    """Source term → required target term; the same term: do not translate."""
    edits: dict[LineId, LineEdit] = Field(default={})
    """Texts set by a person; they win over everything while the source text stays what it was."""
    script: Artifact | None = None
    """Texts of the whole episode by a person: the engine is not asked at all."""
    script_format: str = ""
    """'srt', 'vtt', 'csv' or 'json'."""


class LineRequest(Request):
    """One line for the engine."""

    text: str
    source: str
    target: str
    translator: EngineRef
    glossary: dict[str, str] = Field(default={})
    """The terms that occur in the text."""
    id: LineId = Field(exclude=True)
    """Names the line to the engine and in errors; enters no recipe."""


class LineText(Record):
    """What an engine made of a line."""

    text: str


def _translate_lines(work: Work, requests: Sequence[LineRequest]) -> list[LineText]:
    """Have the lines translated, in one call per source language."""
    texts: dict[LineId, str] = {}
    for source in sorted({request.source for request in requests}):
        group = [request for request in requests if request.source == source]
        first = group[0]
        glossary = {term: wanted for request in group for term, wanted in request.glossary.items()}
        engine = work.engines.get("translator", first.translator)
        _check_pair(engine.pairs(), first)
        found = engine.translate({r.id: r.text for r in group}, source, first.target, glossary)
        empty = [r.id for r in group if not found.get(r.id, "").strip()]
        if empty:
            raise EngineError(f"{first.translator.name} gave no translation", where=", ".join(empty))
        texts |= {r.id: found[r.id].strip() for r in group}
    return [LineText(text=texts[request.id]) for request in requests]


def _check_pair(pairs: frozenset[tuple[str, str]] | None, request: LineRequest) -> None:
    pair = primary(request.source), primary(request.target)
    if pairs is not None and pair not in pairs:
        known = sorted(target for source, target in pairs if source == pair[0])
        does = f"From {pair[0]} it translates into: {', '.join(known)}" if known else f"It knows nothing of {pair[0]}"
        raise InputError(f"{request.translator.name} does not translate {request.source} → {request.target}",
                         hint=f"{does}. Or choose another translator, or give a script")


@step("translate.line", version=1, result=LineText, unit="text", batch=_translate_lines)
def translate_line(work: Work, request: LineRequest) -> LineText:
    """Translate one line."""
    return _translate_lines(work, [request])[0]


@step("translate", version=1, result=Translation)
def translate(work: Work, request: TranslateRequest) -> Translation:
    """Text of every line in the target language, with warnings where a glossary term is not in it.

    Raises:
        InputError: A script is for a line that does not exist, or the engine does not do this pair.
        EngineError: A line came back empty.
    """
    lines = request.transcript.lines
    script = _script(work, request)
    by_engine = _by_engine(work, request) if script is None else {}
    homeless = _homeless_edits(request)
    return Translation(language=request.language, lines=tuple(
        _line(line, request, script, by_engine, homeless.get(line.id, [])) for line in lines))


def _edit(line: Line, request: TranslateRequest) -> str | None:
    """The text that a person set for a line, unless its source says something else since."""
    edit = request.edits.get(line.id)
    return edit.text.strip() if edit and edit.source == sha256(line.text.encode()) else None


def _homeless_edits(request: TranslateRequest) -> dict[LineId, list[str]]:
    """Warnings for edits of lines that are gone, at the line before the place where each was."""
    present = sorted(line.id for line in request.transcript.lines)
    flags: dict[LineId, list[str]] = {}
    for gone in sorted(set(request.edits) - set(present)) if present else ():
        flags.setdefault(present[max(0, bisect(present, gone) - 1)], []).append(f"edit of {gone} ignored: no such line")
    return flags


def _script(work: Work, request: TranslateRequest) -> Script | None:
    if request.script is None:
        return None
    try:
        return read_script(work.store.path(request.script).read_bytes(), request.script_format,
                           request.transcript.lines)
    except InfinidubError as error:
        raise error.at(f"script for {request.language}") from error.__cause__


def _by_engine(work: Work, request: TranslateRequest) -> dict[str, LineText]:
    """What the engine makes of every line that needs one; it is not even loaded when none does."""
    needed = [line for line in request.transcript.lines
              if line.text.strip() and _edit(line, request) is None and not _spoken_in_target(line, request)]
    work.progress(f"translate {len(needed)} lines", 0.0)
    return perform_many(work, translate_line, {
        line.id: LineRequest(id=line.id, text=line.text, source=line.language or request.transcript.language,
                             target=request.language, translator=request.translator, take=request.take,
                             glossary=terms_in(line.text, request.glossary))
        for line in needed})


def _spoken_in_target(line: Line, request: TranslateRequest) -> bool:
    return primary(line.language or request.transcript.language) == primary(request.language)


def _line(line: Line, request: TranslateRequest, script: Script | None,
          by_engine: Mapping[str, LineText], warnings: Sequence[str]) -> TranslatedLine:
    flags, edit = list(warnings), _edit(line, request)
    if edit is None and line.id in request.edits:
        flags.append("edit ignored: the source says something else since")
    if edit is not None:
        text, origin = edit, "edit"
    elif script is not None:
        text, origin = script.texts.get(line.id, ""), "script"
        flags += script.flags.get(line.id, ())
    else:
        text, origin = by_engine[line.id].text if line.id in by_engine else line.text, "engine"
    flags += broken_terms(line.text, text, request.glossary)
    return TranslatedLine.model_validate({"id": line.id, "text": text, "origin": origin, "flags": tuple(flags)})


# -- glossary ---------------------------------------------------------------------------------------------------------


def terms_in(text: str, glossary: Mapping[str, str]) -> dict[str, str]:
    """The glossary terms that occur in a text as whole words, in whatever case."""
    return {term: wanted for term, wanted in glossary.items()
            if re.search(rf"(?<!\w){re.escape(term)}(?!\w)", text, re.IGNORECASE)}


def broken_terms(source: str, target: str, glossary: Mapping[str, str]) -> list[str]:
    """Warnings for terms of the source whose required translation is not in the target (endings may be added)."""
    return [f"glossary: {term} → {wanted} is missing" if term != wanted else f"do not translate: {term} is missing"
            for term, wanted in terms_in(source, glossary).items()
            if target and not re.search(rf"(?<!\w){re.escape(wanted)}", target, re.IGNORECASE)]


def primary(language: str) -> str:
    """The primary subtag of a BCP-47 tag, lower case."""
    return language.partition("-")[0].lower()
