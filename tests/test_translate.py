"""Translation by line: engine, script and edits; glossary; what is done anew when something changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from models.errors import EngineError, InputError
from models.recipe import sha256
from models.records import EngineRef, Line, LineEdit, Transcript, Translation
from tasks.script import read_script
from tasks.step import Work, perform
from tasks.translate import TranslateRequest, broken_terms, translate

ENGINE = EngineRef(name="fake")
TEXTS = ("Good morning.", "The lighthouse is old.", "Thank you, Daniel.")


class Engine:
    """Says the text in capitals; `answers` replace its answers by id."""

    def __init__(self, **answers: str | None) -> None:
        self.answers, self.calls = answers, list[Mapping[str, str]]()

    def pairs(self) -> frozenset[tuple[str, str]]:
        return frozenset({("en", "es"), ("fr", "es")})

    def translate(self, lines: Mapping[str, str], source: str, target: str,
                  glossary: Mapping[str, str]) -> dict[str, str]:
        self.calls.append(lines)
        answers = {key: self.answers.get(key, f"{source}→{target}: {text.upper()}") for key, text in lines.items()}
        return {key: text for key, text in answers.items() if text is not None}


def transcript(*texts: str, **fields: Any) -> Transcript:
    lines = [Line(id=f"L{n:04d}", start=n * 48_000, end=n * 48_000 + 40_000, text=text)
             for n, text in enumerate(texts, 1)]
    return Transcript(language=fields.pop("language", "en"), lines=tuple(lines))


def run(work: Work, engine: Any = None, texts: tuple[str, ...] = TEXTS, **fields: Any) -> Translation:
    work.engines.by_port["translator"] = engine  # type: ignore[attr-defined]
    return perform(work, translate, TranslateRequest(
        transcript=fields.pop("transcript", transcript(*texts)), language=fields.pop("language", "es"),
        translator=ENGINE, **fields))


def edit(text: str, number: int) -> LineEdit:
    return LineEdit(text=text, source=sha256(TEXTS[number].encode()))


def texts(translation: Translation) -> dict[str, str]:
    return {line.id: line.text for line in translation.lines}


def script(work: Work, data: str, kind: str) -> dict[str, Any]:
    return {"script": work.store.put_bytes(data.encode(), "text/plain"), "script_format": kind}


# -- engine -----------------------------------------------------------------------------------------------------------


def test_every_line_is_translated_in_one_call(work):
    engine = Engine()
    assert texts(run(work, engine)) == {f"L{n:04d}": f"en→es: {text.upper()}" for n, text in enumerate(TEXTS, 1)}
    assert len(engine.calls) == 1


def test_one_changed_line_translates_one_line(work):
    run(work, Engine())
    engine = Engine()
    work.counts.clear()
    run(work, engine, ("Good morning.", "The lighthouse is NEW.", "Thank you, Daniel."))
    assert engine.calls == [{"L0002": "The lighthouse is NEW."}]
    assert (work.counts["texts_run"], work.counts["texts_reused"]) == (1, 2)


def test_lines_that_got_other_ids_are_not_translated_again(work):
    run(work, Engine())
    engine = Engine()
    moved = run(work, engine, ("A new beginning.", *TEXTS))
    assert list(engine.calls[0]) == ["L0001"]
    assert texts(moved)["L0004"] == "en→es: THANK YOU, DANIEL."


def test_a_new_glossary_term_touches_only_lines_with_it(work):
    run(work, Engine())
    engine = Engine()
    run(work, engine, glossary={"lighthouse": "faro", "ship": "barco"})
    assert list(engine.calls[0]) == ["L0002"]


def test_another_take_is_done_anew(work):
    run(work, Engine())
    engine = Engine()
    run(work, engine, take=1)
    assert len(engine.calls[0]) == 3


def test_repeated_lines_are_translated_alike(work):
    engine = Engine()
    assert set(texts(run(work, engine, ("Yes.", "No.", "Yes."))).values()) == {"en→es: YES.", "en→es: NO."}


@pytest.mark.parametrize("answer", ["", "  ", None])
def test_a_line_without_translation_is_an_error_that_names_it(work, answer):
    with pytest.raises(EngineError, match="L0002"):
        run(work, Engine(L0002=answer))
    assert texts(run(work, Engine()))["L0002"]


def test_a_pair_that_the_engine_does_not_do_lists_those_it_does(work):
    with pytest.raises(InputError, match=r"en → de.*translates into: es"):
        run(work, Engine(), language="de")


def test_the_same_language_stays_as_it_is(work):
    assert texts(run(work, None, language="en-GB"))["L0001"] == TEXTS[0]


def test_lines_know_their_own_language(work):
    base = transcript("Good morning.", "Hola.", "Merci.")
    lines = [line.model_copy(update={"language": tag})
             for line, tag in zip(base.lines, ("", "es-MX", "fr"), strict=True)]
    found = run(work, Engine(), transcript=Transcript(language="en", lines=tuple(lines)))
    assert list(texts(found).values()) == ["en→es: GOOD MORNING.", "Hola.", "fr→es: MERCI."]


def test_silent_lines_are_left_alone(work):
    engine = Engine()
    assert texts(run(work, engine, ("Hello.", "  ")))["L0002"].strip() == ""
    assert list(engine.calls[0]) == ["L0001"]
    assert run(work, None, ()).lines == ()


# -- glossary ---------------------------------------------------------------------------------------------------------


def test_broken_glossary_terms_are_flagged(work):
    found = run(work, Engine(L0002="El faro es viejo.", L0003="Gracias."),
                glossary={"Lighthouse": "faro", "Daniel": "Daniel", "old": "antiguo"})
    assert [line.flags for line in found.lines] == [
        (), ("glossary: old → antiguo is missing",), ("do not translate: Daniel is missing",)]


def test_terms_are_whole_words_and_targets_may_be_inflected():
    assert broken_terms("The shipment", "La carga", {"ship": "barco"}) == []
    assert broken_terms("The ships' ship", "Los Barcos", {"ship": "barco"}) == []
    assert broken_terms("A (ship)", "Un submarco", {"ship": "marco"}) == ["glossary: ship → marco is missing"]


# -- edits ------------------------------------------------------------------------------------------------------------


def test_an_edit_wins_over_engine_and_script(work):
    edits = {"L0001": edit(" Muy buenas. ", 0)}
    assert run(work, Engine(), edits=edits).lines[0].model_dump(include={"text", "origin"}) == {
        "text": "Muy buenas.", "origin": "edit"}
    data = json.dumps({f"L{n:04d}": "texto" for n in (1, 2, 3)})
    both = run(work, None, edits=edits, **script(work, data, "json"))
    assert [line.origin for line in both.lines] == ["edit", "script", "script"]


def test_an_edit_asks_the_engine_nothing(work):
    run(work, Engine())
    engine = Engine()
    run(work, engine, edits={"L0002": edit("Otra cosa.", 1)})
    assert engine.calls == []


def test_an_edit_of_what_is_not_said_any_more_is_flagged_and_ignored(work):
    found = run(work, Engine(), edits={"L0002": edit("Otra cosa.", 0), "L0004": edit("Fin.", 0)})
    assert [line.origin for line in found.lines] == ["engine"] * 3
    assert [line.flags for line in found.lines] == [
        (), ("edit ignored: the source says something else since",), ("edit of L0004 ignored: no such line",)]


# -- scripts ----------------------------------------------------------------------------------------------------------

IDS = {"L0001": "uno", "L0002": "dos", "L0003": ""}


@pytest.mark.parametrize(("kind", "data"), [
    ("json", json.dumps(IDS)),
    ("json", json.dumps([{"id": key, "text": text} for key, text in IDS.items()])),
    ("json", json.dumps({"language": "es", "lines": [{"id": k, "text": t} for k, t in IDS.items()]})),
    ("csv", "id,text\nL0001,uno\nL0002,dos\nL0003,\n"),
    ("csv", "\ufeffId;Speaker;Text\r\nL0001;A;uno\r\nL0002;B;dos\r\nL0003;A;\r\n"),
    ("csv", 'text\tid\n"uno"\tL0001\ndos\tL0002\n\tL0003\n'),
])
def test_scripts_by_id(work, kind, data):
    found = run(work, None, **script(work, data, kind))
    assert texts(found) == IDS
    assert {line.origin for line in found.lines} == {"script"}


@pytest.mark.parametrize(("kind", "data", "why"), [
    ("json", json.dumps({**IDS, "L0007": "siete"}), "L0007"),
    ("json", json.dumps({"L0001": "uno"}), "lacks the lines L0002, L0003"),
    ("json", '{"L0001": "uno", "L0001": "dos"}', "twice"),
    ("json", '[{"id": "L0001", "text": 3}]', "item 1"),
    ("json", "[1]", "neither"),
    ("json", "{", "no JSON"),
    ("json", "[" * 100_000, "no JSON"),
    ("csv", "L0001,uno\n", "columns id and text"),
    ("csv", "id,text\nL0001,uno\nL0001,dos\n", "twice"),
    ("csv", "id,text\nL0001\n", "item 1"),
    ("csv", 'id,text\nL0001,"uno\n', "CSV"),
    ("csv", "id,text\nL0001," + "x" * 3000, "3000 characters"),
    ("srt", "no subtitles", "00:00:01,000"),
    ("docx", "PK", "no format"),
    ("", "x", "no format"),
])
def test_broken_scripts_are_errors(work, kind, data, why):
    with pytest.raises(InputError, match=why):
        run(work, None, **script(work, data, kind))


def test_subtitles_go_to_the_lines_they_overlap():
    lines = transcript("a", "b", "c").lines  # 1.00–1.83, 2.00–2.83, 3.00–3.83 s
    srt = """1
00:00:01,100 --> 00:00:01,500
<i>Uno</i>

2
00:00:01,500 --> 00:00:02,100
y medio.

3
00:00:01,900 --> 00:00:03,100
Dos.

4
00:00:09,000 --> 00:00:10,000
Nadie.
"""
    found = read_script(srt.encode(), "srt", lines)
    assert found.texts == {"L0001": "Uno y medio.", "L0002": "Dos.", "L0003": ""}
    assert found.flags["L0003"] == ["script: the cue at 00:00:09.000 belongs to no line and is left out: Nadie.",
                                    "script: no cue belongs to this line; it stays silent"]


def test_a_script_asks_no_engine_and_its_warnings_reach_the_lines(work):
    vtt = "WEBVTT\n\n00:01.000 --> 00:01.800\nBuenos días.\n\n00:02.000 --> 00:02.800\nEl faro es viejo.\n"
    found = run(work, None, glossary={"old": "antiguo"}, **script(work, vtt, "vtt"))
    assert [line.flags for line in found.lines] == [
        (), ("glossary: old → antiguo is missing",), ("script: no cue belongs to this line; it stays silent",)]
