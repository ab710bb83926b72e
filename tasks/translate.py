"""Translate: Transcript → Translation, line by line, keyed by line id; a script or an edit replaces the engine.

A line's own recipe holds its text, the two languages, the engine, the glossary terms that occur in it and, where the
engine asks for context, as many lines around it: not its id, nor its place. So one changed source line translates one
line anew, and with context those that it was shown with. What the engine answers is checked (`models.text_checks`),
asked for again once where it is not good, and kept for other runs only when it is. Then, of what is left, the words are
chosen that fit the line's time; where none do, an engine that can is asked for fewer: an item of its own.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from models.errors import EngineError, InfinidubError, InputError
from models.fit import Means, choose_words, means_for, slots
from models.languages import alike, primary
from models.ports import Around, Draft, LanguageIdentifier, Translator
from models.rates import spoken_seconds
from models.recipe import sha256
from models.records import (
    Artifact,
    Candidate,
    EngineRef,
    Line,
    LineEdit,
    LineId,
    Record,
    Request,
    Tick,
    Transcript,
    TranslatedLine,
    Translation,
)
from models.text_checks import broken, missing_names, names_in, refusal, terms_in
from models.timebase import seconds, ticks
from tasks.script import Script, read_script
from tasks.step import Work, perform_many, step

STRIDE = 5
"""Characters in which a length is asked for: slots that differ by less ask the same."""


class TranslateRequest(Request):
    """A transcript, and where the words of the other language come from."""

    transcript: Transcript
    language: str
    """BCP-47 of the target."""
    translator: EngineRef
    identifier: EngineRef
    """Tells the language of what the translator answers."""
    length: Tick
    """Of the episode."""
    cast: dict[str, str] = Field(default={})
    """Speaker (id or name) → voice id: how long a text takes depends on it."""
    foreign: Literal["keep", "dub"] = "keep"
    """What becomes of lines in another language than the transcript's."""
    strict: bool = False
    """A line whose translation is not good is an error, instead of flagged."""
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
    identifier: EngineRef
    glossary: dict[str, str] = Field(default={})
    """The terms that occur in the text."""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    """See `models.ports.Around`."""
    id: LineId = Field(exclude=True)
    """Names the line to the engine and in errors; enters no recipe."""

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target."""
        return self.source, self.target


class ShorterRequest(LineRequest):
    """One line for the engine, to be said in fewer words."""

    said: str
    """A translation that takes too long."""
    longest: int
    """Characters."""


class LineText(Record):
    """What an engine made of a line."""

    candidates: tuple[Candidate, ...] = ()
    """Those that can be used, best first."""
    refused: str = ""
    """Why there are none."""
    good: bool = True
    """They keep everything that they must; only then the answer is kept for other runs."""


# -- items ------------------------------------------------------------------------------------------------------------


@dataclass
class Answers:
    """What came back for one line, sorted by what it is worth."""

    request: LineRequest
    good: list[Candidate] = field(default_factory=list)
    faulty: list[tuple[list[str], Candidate]] = field(default_factory=list)
    """What is wrong, and with which."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Why, and which text."""

    def sort_in(self, candidates: Iterable[Candidate], identifier: LanguageIdentifier) -> None:
        """Check candidates."""
        for candidate in candidates:
            text, glossary = candidate.text.strip(), self.request.glossary
            why = refusal(self.request.text, text, self.request.languages, identifier.identify(text), glossary)
            if why:
                self.refused.append((why, text))
            elif faults := broken(self.request.text, text, self.request.languages, glossary):
                self.faulty.append((faults, candidate.model_copy(update={"text": text})))
            else:
                self.good.append(candidate.model_copy(update={"text": text}))

    def draft(self) -> Draft:
        """What to tell the engine of its answer."""
        if self.faulty:
            faults, candidate = self.faulty[0]
            return Draft(self.request.text, candidate.text, tuple(faults))
        why, text = self.refused[0] if self.refused else ("there was no answer", "")
        return Draft(self.request.text, text, (why,))

    def result(self) -> LineText:
        """The good ones; else those with the fewest faults."""
        least = min((len(faults) for faults, _ in self.faulty), default=0)
        usable = self.good or [candidate for faults, candidate in self.faulty if len(faults) == least]
        why = "" if usable else self.refused[0][0] if self.refused else "there was no answer"
        return LineText(candidates=tuple(sorted(usable, key=lambda one: -one.score)), refused=why,
                        good=bool(self.good))


def _translate_lines(work: Work, requests: Sequence[LineRequest]) -> list[LineText]:
    """Have the lines translated, in one call per source language, and what is not good once more."""
    found: dict[LineId, LineText] = {}
    for source in sorted({request.source for request in requests}):
        group = {request.id: request for request in requests if request.source == source}
        first, glossary = next(iter(group.values())), _glossary(group.values())
        engine: Translator = work.engines.get("translator", first.translator)
        identifier: LanguageIdentifier = work.engines.get("language-identifier", first.identifier)
        _check_pair(engine.pairs(), first)
        answers = {key: Answers(request) for key, request in group.items()}
        said = engine.translate({key: request.text for key, request in group.items()}, source, first.target, glossary,
                                {key: Around(request.before, request.after) for key, request in group.items()})
        for key, each in answers.items():
            each.sort_in(said.get(key, ()), identifier)
        drafts = {key: each.draft() for key, each in answers.items() if not each.good} if engine.REVISES else {}
        again = engine.revise(drafts, source, first.target, glossary) if drafts else {}
        for key in drafts:
            answers[key].sort_in(again.get(key, ()), identifier)
        found |= {key: each.result() for key, each in answers.items()}
    return [found[request.id] for request in requests]


def _shorten_lines(work: Work, requests: Sequence[ShorterRequest]) -> list[LineText]:
    """Have lines said in fewer words, in one call per source language; what is not good or not shorter is nothing."""
    found: dict[LineId, LineText] = {}
    for source in sorted({request.source for request in requests}):
        group = {request.id: request for request in requests if request.source == source}
        first = next(iter(group.values()))
        engine: Translator = work.engines.get("translator", first.translator)
        identifier: LanguageIdentifier = work.engines.get("language-identifier", first.identifier)
        said = engine.revise({key: Draft(request.text, request.said, ("it takes too long to say",), request.longest)
                              for key, request in group.items()}, source, first.target, _glossary(group.values()))
        for key, request in group.items():
            answers = Answers(request)
            answers.sort_in((one for one in said.get(key, ()) if len(one.text) < len(request.said)), identifier)
            found[key] = LineText(candidates=tuple(answers.good), good=bool(answers.good))
    return [found[request.id] for request in requests]


def _glossary(requests: Iterable[LineRequest]) -> dict[str, str]:
    return {term: wanted for request in requests for term, wanted in request.glossary.items()}


def _check_pair(pairs: frozenset[tuple[str, str]] | None, request: LineRequest) -> None:
    pair = primary(request.source), primary(request.target)
    if pairs is not None and pair not in pairs:
        known = sorted(target for source, target in pairs if source == pair[0])
        does = f"From {pair[0]} it translates into: {', '.join(known)}" if known else f"It knows nothing of {pair[0]}"
        raise InputError(f"{request.translator.name} does not translate {request.source} → {request.target}",
                         hint=f"{does}. Or choose another translator, or give a script")


@step("translate.line", version=4, result=LineText, unit="text", batch=_translate_lines,
      lasting=lambda result: result.good)
def translate_line(work: Work, request: LineRequest) -> LineText:
    """Translate one line."""
    return _translate_lines(work, [request])[0]


@step("translate.shorter", version=3, result=LineText, unit="text", batch=_shorten_lines,
      lasting=lambda result: result.good)
def shorten_line(work: Work, request: ShorterRequest) -> LineText:
    """Translate one line in fewer words."""
    return _shorten_lines(work, [request])[0]


# -- the step ---------------------------------------------------------------------------------------------------------


@step("translate", version=6, result=Translation)
def translate(work: Work, request: TranslateRequest) -> Translation:
    """Text of every line in the target language, with warnings where something of the source is not in it.

    A line for which the engine has nothing usable is left out and flagged, on the line before it too. Lines in
    another language than the transcript's stay in the source's own voice, or are translated as well, by policy; what a
    person wrote for them is always dubbed.

    Raises:
        InputError: A script is for a line that does not exist, or the engine does not do this pair.
        EngineError: No line came back usable; or one did not that is good, and the request is strict.
    """
    script, lines = _script(work, request), request.transcript.lines
    kept = {line.id: why for line in lines if (why := _why_kept(work, line, request, script)) is not None}
    answers = _by_engine(work, request, kept) if script is None else {}
    _see_to(answers, request, work.episode)
    choices = _choices(work, request, answers)
    homeless, silent = _homeless_edits(request), _silent(lines, answers)
    names = names_in((line.text for line in lines), request.transcript.language,
                     (word for speaker in request.transcript.speakers for word in speaker.name.split()))
    return Translation(language=request.language, lines=tuple(
        _line(line, request, script, choices, kept.get(line.id),
              [*homeless.get(line.id, ()), *silent.get(line.id, ())], names) for line in lines))


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
                           request.transcript.lines, request.language)
    except InfinidubError as error:
        raise error.at(f"script for {request.language}") from error.__cause__


def _source(line: Line, request: TranslateRequest) -> str:
    return line.language or request.transcript.language


def _foreign(line: Line, request: TranslateRequest) -> bool:
    return not alike(_source(line, request), request.transcript.language)


def _why_kept(work: Work, line: Line, request: TranslateRequest, script: Script | None) -> str | None:
    """Why a line stays in the source's own voice ('' goes without saying); None where it does not."""
    written = _edit(line, request) is not None or (script is not None and bool(script.texts.get(line.id, "").strip()))
    if written or not _foreign(line, request):
        return None
    if request.foreign == "keep":
        return ""
    if script is None and primary(_source(line, request)) != primary(request.language):
        engine: Translator = work.engines.get("translator", request.translator)
        pairs = engine.pairs()
        if pairs is not None and (primary(_source(line, request)), primary(request.language)) not in pairs:
            return f"left in {line.language}: {request.translator.name} does not translate it"
    return None


def _by_engine(work: Work, request: TranslateRequest, kept: Mapping[LineId, str]) -> dict[LineId, LineText]:
    """What the engine makes of every line that needs one; it is not even loaded when none does."""
    needed = [line for line in request.transcript.lines
              if any(map(str.isalnum, line.text)) and line.id not in kept and _edit(line, request) is None
              and primary(_source(line, request)) != primary(request.language)]
    work.progress(f"translate {len(needed)} lines", 0.0)
    around = _around(request)
    return perform_many(work, translate_line, {
        line.id: LineRequest(id=line.id, text=line.text, source=_source(line, request), target=request.language,
                             translator=request.translator, identifier=request.identifier, take=request.take,
                             before=around[line.id].before, after=around[line.id].after,
                             glossary=terms_in(line.text, request.glossary))
        for line in needed})


def _around(request: TranslateRequest) -> dict[LineId, Around]:
    """What is said around each line, as much as the engine asks for: its option `context`."""
    size = int(request.translator.options.get("context") or 0)
    lines = [line for line in request.transcript.lines if line.text.strip()] if size else []

    def shown(line: Line, others: Sequence[Line]) -> tuple[str, ...]:
        return tuple(other.text if other.speaker == line.speaker else f"– {other.text}" for other in others)

    found = {line.id: Around(shown(line, lines[max(0, at - size):at]), shown(line, lines[at + 1:at + 1 + size]))
             for at, line in enumerate(lines)}
    return {line.id: found.get(line.id, Around()) for line in request.transcript.lines}


def _see_to(answers: Mapping[LineId, LineText], request: TranslateRequest, episode: str) -> None:
    """Refuse what nobody can use: nothing for any line; in a strict request, any translation that is not good."""
    nothing = {key: each.refused for key, each in answers.items() if not each.candidates}
    if len(answers) > 1 and len(nothing) == len(answers):
        key, why = next(iter(nothing.items()))
        raise EngineError(f"{request.translator.name} gave no usable translation of any line ({key}: {why})")
    lines = {line.id: line for line in request.transcript.lines}
    wrong = {key: each.refused or "; ".join(_broken(lines[key], each.candidates[0].text, request))
             for key, each in answers.items() if not each.good}
    if wrong and request.strict:
        listed = ", ".join(f"{key} ({why})" for key, why in list(wrong.items())[:10])
        raise EngineError(f"{len(wrong)} translations are not good: {listed}", where=request.translator.name,
                          hint=f"Run again, or write them yourself: infinidub redo {episode} --lang {request.language} "
                               f'--line {next(iter(wrong))} --text "…"')


def _broken(line: Line, text: str, request: TranslateRequest) -> list[str]:
    """Warnings for what a text must keep of its source line and did not."""
    return broken(line.text, text, (_source(line, request), request.language), request.glossary)


def _silent(lines: Sequence[Line], answers: Mapping[LineId, LineText]) -> dict[LineId, list[str]]:
    """Warnings for lines that say nothing, for want of a translation: on the line before, else on the one after."""
    flags: dict[LineId, list[str]] = {}
    spoken = [line.id for line in lines if line.id not in answers or answers[line.id].candidates]
    for line in lines:
        if line.id in answers and not answers[line.id].candidates:
            near = max((key for key in spoken if key < line.id), default=min(spoken, default=line.id))
            flags.setdefault(near, []).append(f"{line.id} {_unusable(answers[line.id])}")
    return flags


def _unusable(answer: LineText) -> str:
    return f"is left out, for want of a translation: {answer.refused}"


# -- length -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """The words for a line, what they were chosen from, and a warning where they are too many."""

    text: str
    candidates: tuple[Candidate, ...]
    flags: tuple[str, ...]


def _choices(work: Work, request: TranslateRequest, answers: Mapping[LineId, LineText]) -> dict[LineId, Choice]:
    """Of every line's candidates the one that fits its time; where none does, fewer words, if the engine has some."""
    lines = {line.id: line for line in request.transcript.lines if line.id in answers}
    allowed = slots(request.transcript.lines, request.length)
    voices = _voices(request)

    def length(key: LineId, candidate: Candidate) -> Tick:
        return ticks(spoken_seconds(candidate.text, request.language, voices.get(lines[key].speaker, "")))

    found = {key: each.candidates for key, each in answers.items() if each.candidates}
    long = {key: shortest for key, candidates in found.items() if means_for(length(key, shortest := min(
        candidates, key=lambda one: length(key, one))), lines[key], allowed[key]) > Means.BORROWED}
    if long and work.engines.get("translator", request.translator).REVISES:
        shorter = perform_many(work, shorten_line, {
            key: ShorterRequest(
                id=key, text=lines[key].text, source=_source(lines[key], request), target=request.language,
                translator=request.translator, identifier=request.identifier, take=request.take,
                glossary=terms_in(lines[key].text, request.glossary), said=said.text,
                longest=_longest(said.text, allowed[key][1] - allowed[key][0], length(key, said)))
            for key, said in long.items() if answers[key].good})
        for key, each in shorter.items():
            last = min(one.score for one in found[key])
            found[key] += tuple(one.model_copy(update={"score": last - 1 - number})
                                for number, one in enumerate(each.candidates))
    return {key: _choice(found[key], [length(key, one) for one in found[key]], lines[key], allowed[key])
            if key in found else Choice("", (), (_unusable(each),)) for key, each in answers.items()}


def _longest(said: str, room: Tick, takes: Tick) -> int:
    """Characters that can be said in `room`, at the pace of a text whose length is known."""
    return max(STRIDE, int(len(said) * room / takes) // STRIDE * STRIDE)


def _choice(candidates: tuple[Candidate, ...], lengths: Sequence[Tick], line: Line, slot: tuple[Tick, Tick]) -> Choice:
    at = choose_words(lengths, line, slot)
    hurried = means_for(lengths[at], line, slot) >= Means.HURRIED
    return Choice(candidates[at].text, candidates, (
        f"long: about {seconds(lengths[at]):.1f} s where there are {seconds(slot[1] - slot[0]):.1f} s",) * hurried)


def _voices(request: TranslateRequest) -> dict[str, str]:
    """Speaker id → voice, of those that the cast names."""
    names = {speaker.id: speaker.name for speaker in request.transcript.speakers}
    heard = {line.speaker for line in request.transcript.lines}
    return {key: request.cast.get(key) or request.cast.get(names.get(key, ""), "") for key in heard}


# -- lines ------------------------------------------------------------------------------------------------------------


def _line(line: Line, request: TranslateRequest, script: Script | None, choices: Mapping[LineId, Choice],
          kept: str | None, warnings: Sequence[str], names: frozenset[str]) -> TranslatedLine:
    flags, edit = list(warnings), _edit(line, request)
    if edit is None and line.id in request.edits:
        flags.append("edit ignored: the source says something else since")
    if kept is not None:
        return TranslatedLine(id=line.id, text=line.text, kept=True, flags=(*flags, *filter(None, [kept])))
    origin: Literal["engine", "script", "edit"] = "engine"
    choice = Choice("", (), ())
    if edit is not None:
        text, origin = edit, "edit"
    elif script is not None:
        text, origin = script.texts.get(line.id, ""), "script"
        flags += script.flags.get(line.id, ())
    elif line.id in choices:
        choice = choices[line.id]
        text = choice.text
    else:
        text = line.text
    flags += _broken(line, text, request)
    flags += [f"name: {name} is missing" for name in missing_names(line.text, text, names)]
    return TranslatedLine(id=line.id, text=text, origin=origin, flags=(*flags, *choice.flags),
                          candidates=choice.candidates)
