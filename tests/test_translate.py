"""Translation by line: engine, script and edits; glossary; what is done anew when something changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from models.engines.openai import OpenAICompatible
from models.errors import EngineError, InputError
from models.languages import Guess
from models.ports import Around, Draft, EngineHome
from models.recipe import sha256
from models.records import Candidate, EngineRef, Line, LineEdit, Speaker, Transcript, Translation
from models.text_checks import broken_terms
from tasks.script import read_script
from tasks.step import Work, perform
from tasks.translate import TranslateRequest, translate
from tests.chat_server import Chat, chat_server

ENGINE, IDENTIFIER = EngineRef(name="fake"), EngineRef(name="identifier")
TEXTS = ("Good morning.", "The lighthouse is old.", "Thank you, Daniel.")
SECOND = 48_000


class Engine:
    """Says the text backwards, word by word; `answers` replace its answers by id: texts, best first."""

    def __init__(self, *, again: Mapping[str, str] | None = None, short: Mapping[str, str] | None = None,
                 **answers: str | tuple[str, ...] | None) -> None:
        self.answers, self.calls, self.arounds = answers, list[Mapping[str, str]](), list[Mapping[str, Around]]()
        self.again, self.short, self.drafts = again, short, list[Mapping[str, Draft]]()
        self.REVISES = again is not None or short is not None

    def pairs(self) -> frozenset[tuple[str, str]]:
        return frozenset({("en", "es"), ("fr", "es"), ("de", "es")})

    def translate(self, lines: Mapping[str, str], source: str, target: str, glossary: Mapping[str, str],
                  around: Mapping[str, Around]) -> dict[str, tuple[Candidate, ...]]:
        self.calls.append(lines)
        self.arounds.append(around)
        said = {key: self.answers.get(key, backwards(text)) for key, text in lines.items()}
        return {key: tuple(Candidate(text=each, score=-float(at)) for at, each in enumerate(
            (texts,) if isinstance(texts, str) else texts)) for key, texts in said.items() if texts is not None}

    def revise(self, drafts: Mapping[str, Draft], source: str, target: str,
               glossary: Mapping[str, str]) -> dict[str, tuple[Candidate, ...]]:
        self.drafts.append(drafts)
        given = (self.short if all(each.longest for each in drafts.values()) else self.again) or {}
        return {key: (Candidate(text=given[key], score=0.0),) for key in drafts if key in given}


class Identifier:
    """Knows a language by the words that a test gives for it."""

    def __init__(self, **languages: str) -> None:
        self.languages = languages

    def identify(self, text: str) -> Guess:
        return next((Guess(language, 0.99) for language, word in self.languages.items() if word in text),
                    Guess("es", 0.5))


def backwards(text: str) -> str:
    return " ".join(reversed(text.split()))


def transcript(*texts: str, every: int = 2) -> Transcript:
    lines = [Line(id=f"L{n:04d}", start=n * every * SECOND, end=n * every * SECOND + 40_000 * every, text=text)
             for n, text in enumerate(texts, 1)]
    return Transcript(language="en", lines=tuple(lines))


def run(work: Work, engine: Any = None, texts: tuple[str, ...] = TEXTS, **fields: Any) -> Translation:
    work.engines.by_port["translator"] = engine  # type: ignore[attr-defined]
    work.engines.by_port["language-identifier"] = fields.pop("identify", Identifier())  # type: ignore[attr-defined]
    return perform(work, translate, TranslateRequest(
        transcript=fields.pop("transcript", transcript(*texts)), language=fields.pop("language", "es"),
        translator=fields.pop("translator", ENGINE), identifier=IDENTIFIER, length=20 * SECOND, **fields))


def in_languages(*tags: str, texts: tuple[str, ...] = TEXTS) -> Transcript:
    base = transcript(*texts)
    return base.model_copy(update={"lines": tuple(
        line.model_copy(update={"language": tag}) for line, tag in zip(base.lines, tags, strict=True))})


def edit(text: str, number: int) -> LineEdit:
    return LineEdit(text=text, source=sha256(TEXTS[number].encode()))


def texts(translation: Translation) -> dict[str, str]:
    return {line.id: line.text for line in translation.lines}


def script(work: Work, data: str, kind: str) -> dict[str, Any]:
    return {"script": work.store.put_bytes(data.encode(), "text/plain"), "script_format": kind}


# -- engine -----------------------------------------------------------------------------------------------------------


def test_every_line_is_translated_in_one_call(work):
    engine = Engine()
    assert texts(run(work, engine)) == {f"L{n:04d}": backwards(text) for n, text in enumerate(TEXTS, 1)}
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
    assert texts(moved)["L0004"] == "Daniel. you, Thank"


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
    assert set(texts(run(work, engine, ("Yes, sir.", "No, sir.", "Yes, sir."))).values()) == {"sir. Yes,", "sir. No,"}


def test_a_pair_that_the_engine_does_not_do_lists_those_it_does(work):
    with pytest.raises(InputError, match=r"en → de.*translates into: es"):
        run(work, Engine(), language="de")


def test_the_same_language_stays_as_it_is(work):
    assert texts(run(work, None, language="en-GB"))["L0001"] == TEXTS[0]


def test_silent_lines_are_left_alone(work):
    engine = Engine()
    assert texts(run(work, engine, ("Hello there.", "  ", "…")))["L0003"] == "…"
    assert list(engine.calls[0]) == ["L0001"]
    assert run(work, None, ()).lines == ()


# -- context ----------------------------------------------------------------------------------------------------------

WITH_CONTEXT = EngineRef(name="fake", options={"context": 1})
FIVE = tuple(f"This is {word}." for word in ("bread", "wine", "water", "fish", "meat"))


def test_an_engine_that_wants_context_sees_the_lines_around_and_who_else_speaks(work):
    base = transcript(*FIVE)
    spoken = base.model_copy(update={"lines": tuple(line.model_copy(update={"speaker": who})
                                                    for line, who in zip(base.lines, "AABBB", strict=True))})
    engine = Engine()
    run(work, engine, transcript=spoken, translator=WITH_CONTEXT)
    assert engine.arounds[0]["L0002"] == Around((FIVE[0],), (f"– {FIVE[2]}",))
    assert engine.arounds[0]["L0001"] == Around((), (FIVE[1],))


def test_a_changed_line_is_translated_anew_with_those_that_were_shown_it_and_an_edited_one_alone_changes(work):
    run(work, Engine(), FIVE, translator=WITH_CONTEXT)
    engine = Engine()
    run(work, engine, (*FIVE[:2], "This is oil.", *FIVE[3:]), translator=WITH_CONTEXT)
    assert list(engine.calls[0]) == ["L0002", "L0003", "L0004"]
    engine = Engine()
    edited = LineEdit(text="Es agua.", source=sha256(FIVE[2].encode()))
    assert texts(run(work, engine, FIVE, translator=WITH_CONTEXT, edits={"L0003": edited}))["L0003"] == "Es agua."
    assert engine.calls == []


# -- what is no good --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "why"), [
    ("", "it is empty"), ("…", "it is empty"), (None, "there was no answer"),
    ("The  Lighthouse is old!", "it is the source text"),
    ("Das ist ein alter Leuchtturm", "it is in another language (de)"), ("no " * 50, "it goes on without end")])
def test_a_line_without_usable_translation_is_left_out_and_said_so_beside_it(work, answer, why):
    found = run(work, Engine(L0002=answer), identify=Identifier(de="Leuchtturm"))
    assert texts(found) == {"L0001": "morning. Good", "L0002": "", "L0003": "Daniel. you, Thank"}
    assert found.lines[1].flags == (f"is left out, for want of a translation: {why}",)
    assert found.lines[0].flags == (f"L0002 is left out, for want of a translation: {why}",)
    assert found.lines[1].candidates == ()


def test_what_is_no_good_is_asked_for_again_by_the_next_run_and_what_is_good_is_not(work):
    run(work, Engine(L0002="The lighthouse is old."))
    engine = Engine()
    again = run(work, engine, edits={"L0001": edit("Muy buenas.", 0)})
    assert engine.calls == [{"L0002": "The lighthouse is old."}]
    assert texts(again)["L0002"] == "old. is lighthouse The"


def test_an_engine_that_answers_nothing_usable_at_all_has_failed(work):
    with pytest.raises(EngineError, match="no usable translation of any line"):
        run(work, Engine(L0001="", L0002=None, L0003="Thank you, Daniel. " * 9))
    assert texts(run(work, Engine()))["L0002"]


def test_a_strict_request_refuses_what_others_only_flag(work):
    with pytest.raises(EngineError, match=r"2 translations.*L0002 \(it is empty\), L0003 \(do not translate: Dan"):
        run(work, Engine(L0002="", L0003="Gracias."), glossary={"Daniel": "Daniel"}, strict=True)
    edits = {"L0002": edit("El faro es viejo.", 1), "L0003": edit("Gracias, Daniel.", 2)}
    assert texts(run(work, Engine(), glossary={"Daniel": "Daniel"}, strict=True, edits=edits))["L0001"]


def test_an_engine_that_can_be_told_is_told_once_what_is_wrong(work):
    engine = Engine(L0002="La torre es vieja.", L0003="Thank you, Daniel. ", L0001="Buenos días.",
                    again={"L0002": "El faro es viejo.", "L0003": "Gracias, Daniel."})
    found = run(work, engine, glossary={"lighthouse": "faro"}, identify=Identifier(en="Thank you"))
    assert list(texts(found).values()) == ["Buenos días.", "El faro es viejo.", "Gracias, Daniel."]
    assert engine.drafts[0]["L0002"] == Draft("The lighthouse is old.", "La torre es vieja.",
                                              ("glossary: lighthouse → faro is missing",))
    assert "L0001" not in engine.drafts[0]
    assert len(engine.drafts) == 1


def test_a_broken_rule_is_flagged_when_the_second_answer_breaks_it_too_and_not_kept_for_other_runs(work):
    engine = Engine(L0002="La torre.", again={"L0002": "La torre es vieja."})
    found = run(work, engine, glossary={"lighthouse": "faro"})
    assert found.lines[1].flags == ("glossary: lighthouse → faro is missing",)
    assert found.lines[1].text == "La torre."
    better = Engine(L0002="El faro es viejo.")
    again = run(work, better, glossary={"lighthouse": "faro", "ship": "barco"})
    assert list(better.calls[0]) == ["L0002"]
    assert again.lines[1].flags == ()


def test_a_candidate_that_keeps_everything_is_taken_before_a_better_one_that_does_not(work):
    found = run(work, Engine(L0001=("Son barcos.", "Son 25 barcos.", "Hay veinticinco barcos.")), ("25 ships.", "Hm."))
    assert found.lines[0].text == "Son 25 barcos."
    assert [one.text for one in found.lines[0].candidates] == ["Son 25 barcos.", "Hay veinticinco barcos."]
    assert found.lines[0].flags == ()


def test_dropped_numbers_and_names_are_flagged_wherever_the_text_comes_from(work):
    said = ("We saw Clara at seven.", "Then Clara left with 30 men.")
    found = run(work, Engine(L0001="La vimos.", L0002="Clara se fue con 30 hombres."), said)
    assert found.lines[0].flags == ("number: seven is missing", "name: Clara is missing")
    assert found.lines[1].flags == ()
    data = json.dumps({"L0001": "Vimos a Clara a las 7.", "L0002": "Clara se fue."})
    assert [line.flags for line in run(work, None, said, **script(work, data, "json")).lines] == [
        (), ("number: 30 is missing",)]


# -- length -----------------------------------------------------------------------------------------------------------

LONG = "Muchísimas gracias por todo lo que has hecho por nosotros, querido Daniel."


def test_the_best_candidate_that_fits_its_time_is_taken(work):
    found = run(work, Engine(L0002=(LONG, "El faro es viejo.", "Es viejo.")))
    line = found.lines[1]
    assert line.text == "El faro es viejo."
    assert [one.text for one in line.candidates] == [LONG, "El faro es viejo.", "Es viejo."]
    assert line.flags == ()


def test_a_line_with_a_pause_after_it_may_take_longer(work):
    base = transcript(*TEXTS)
    apart = base.model_copy(update={"lines": (*base.lines[:2], base.lines[2].model_copy(
        update={"start": 12 * SECOND, "end": 14 * SECOND}))})
    assert run(work, Engine(L0002=(LONG, LONG + "!")), transcript=apart).lines[1].flags == ()


def test_where_none_fits_the_shortest_is_taken_and_flagged(work):
    found = run(work, Engine(L0002=(LONG, LONG[:60])))
    assert found.lines[1].text == LONG[:60]
    assert found.lines[1].flags[0].startswith("long: about ")


def test_an_engine_that_can_is_asked_for_fewer_words_in_the_time_there_is(work):
    engine = Engine(L0003=LONG, short={"L0003": "Gracias, Daniel."})
    line = run(work, engine, (*TEXTS, "So long.")).lines[2]
    assert (line.text, line.flags) == ("Gracias, Daniel.", ())
    assert [(one.text, one.score > line.candidates[-1].score) for one in line.candidates] == [
        (LONG, True), ("Gracias, Daniel.", False)]
    draft = engine.drafts[0]["L0003"]
    assert draft.said == LONG
    assert draft.longest
    assert 5 <= draft.longest < len(LONG)
    assert list(engine.drafts[0]) == ["L0003"]


@pytest.mark.parametrize("short", [LONG + " De verdad.", "Thank you, Daniel", "", None])
def test_fewer_words_that_are_no_good_change_nothing_and_are_asked_for_again(work, short):
    lines = (*TEXTS, "So long.")
    engine = Engine(L0003=LONG, short={} if short is None else {"L0003": short})
    line = run(work, engine, lines, glossary={"Daniel": "Daniel"}, identify=Identifier(en="Thank you")).lines[2]
    assert (line.text, len(line.candidates)) == (LONG, 1)
    better = Engine(L0003=LONG, short={"L0003": "Gracias, Daniel."})
    again = run(work, better, lines, glossary={"Daniel": "Daniel", "ship": "barco"})
    assert again.lines[2].text == "Gracias, Daniel."
    assert better.calls == []


def test_fewer_words_are_asked_for_once(work):
    lines = (*TEXTS, "So long.")
    run(work, Engine(L0003=LONG, short={"L0003": "Gracias, Daniel."}), lines)
    engine = Engine(short={})
    run(work, engine, (*lines[:3], "Farewell then."))
    assert list(engine.calls[0]) == ["L0004"]
    assert engine.drafts == []


def test_the_cast_decides_how_long_a_text_takes(work, monkeypatch):
    monkeypatch.setattr("tasks.translate.spoken_seconds",
                        lambda text, language, voice: len(text) * (1.0 if voice == "slow" else 0.01))
    candidates = Engine(L0001=("Muy buenos días.", "Hola."))
    base = transcript("Good morning.", "Bye now.")
    spoken = base.model_copy(update={"lines": (base.lines[0].model_copy(update={"speaker": "A"}), base.lines[1]),
                                     "speakers": (Speaker(id="A", name="Clara"),)})
    assert run(work, candidates, transcript=spoken).lines[0].text == "Muy buenos días."
    assert run(work, candidates, transcript=spoken, cast={"Clara": "slow"}).lines[0].text == "Hola."


# -- languages of lines -----------------------------------------------------------------------------------------------


def test_lines_in_another_language_stay_in_the_voice_of_the_source(work):
    engine = Engine()
    said = ("Good morning.", "Hola.", "Merci beaucoup.")
    found = run(work, engine, transcript=in_languages("", "es-MX", "fr", texts=said))
    assert [(line.text, line.kept) for line in found.lines] == [
        ("morning. Good", False), ("Hola.", True), ("Merci beaucoup.", True)]
    assert list(engine.calls[0]) == ["L0001"]
    assert found.lines[2].flags == ()


def test_or_they_are_dubbed_as_well_and_what_is_in_the_target_language_is_said_as_it_is(work):
    said = ("Good morning.", "Hola.", "Merci beaucoup.", "ありがとうございます")
    found = run(work, Engine(), transcript=in_languages("", "es-MX", "fr", "ja", texts=said), foreign="dub")
    assert [(line.text, line.kept) for line in found.lines] == [
        ("morning. Good", False), ("Hola.", False), ("beaucoup. Merci", False), (said[3], True)]
    assert found.lines[3].flags == ("left in ja: fake does not translate it",)


def test_what_a_person_wrote_for_a_foreign_line_is_dubbed(work):
    spoken = in_languages("", "fr", "fr")
    found = run(work, Engine(), transcript=spoken, edits={"L0002": edit("El faro.", 1)})
    assert [line.kept for line in found.lines] == [False, False, True]
    data = json.dumps({"L0001": "uno", "L0002": "dos", "L0003": ""})
    given = run(work, None, transcript=spoken, **script(work, data, "json"))
    assert [(line.text, line.kept) for line in given.lines] == [("uno", False), ("dos", False), (TEXTS[2], True)]


# -- a model behind a real server -------------------------------------------------------------------------------------

SPANISH = {"Good morning.": "Buenos días.", "The lighthouse is old.": "El faro es viejo.",
           "Thank you, Daniel.": "Gracias, Daniel.", "There are 25 ships.": "Hay 25 barcos."}
FAULTS = {
    "wrong ids": lambda said: [{"id": f"L9{key[2:]}", "text": text} for key, text in said.items()],
    "an id twice": lambda said: [{"id": key, "text": text} for key, text in [*said.items(), *said.items()]],
    "one too few": lambda said: [{"id": key, "text": text} for key, text in said.items() if key != "L0002"],
    "shifted by one": lambda said: [{"id": f"L{int(key[1:]) + 1:04d}", "text": text} for key, text in said.items()],
    "by position": lambda said: list(said.values()),
    "no JSON": lambda said: "Claro, aquí está la traducción.",
    "empty": lambda said: [{"id": key, "text": ""} for key in said],
}


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.setattr(OpenAICompatible, "wait", staticmethod(lambda seconds: None))
    with chat_server() as server:
        yield server


def model(chat: Chat) -> OpenAICompatible:
    return OpenAICompatible(EngineRef(name="openai", options={"model": "test"}), EngineHome(
        weights=Path, connection={"base_url": chat.base_url}))


def good(lines: Mapping[str, str]) -> str:
    return json.dumps({"lines": [{"id": key, "text": SPANISH[text]} for key, text in lines.items()]})


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_that_is_mixed_up_once_costs_a_question_and_never_a_wrong_line(work, chat, fault):
    faults = iter([FAULTS[fault]])

    def answer(lines: dict[str, str]) -> str:
        broken = next(faults, None)
        said = {key: SPANISH[text] for key, text in lines.items()}
        return good(lines) if broken is None else json.dumps({"lines": broken(said)})

    chat.answer = answer
    found = run(work, model(chat), tuple(SPANISH))
    assert [line.text for line in found.lines] == list(SPANISH.values())
    assert len(chat.requests) > 1


@pytest.mark.parametrize("fault", FAULTS)
def test_one_line_for_which_the_answer_is_always_mixed_up_is_left_out_and_the_others_are_not(work, chat, fault):
    def answer(lines: dict[str, str]) -> str:
        said = {key: SPANISH[text] for key, text in lines.items()}
        return json.dumps({"lines": FAULTS[fault](said)}) if "L0002" in lines else good(lines)

    chat.answer = answer
    found = run(work, model(chat), tuple(SPANISH))
    assert [line.text for line in found.lines] == [text if at != 1 else "" for at, text in enumerate(SPANISH.values())]
    assert found.lines[1].flags[0].startswith("is left out, for want of a translation")


@pytest.mark.parametrize(("text", "first", "wrong"), [
    ("The lighthouse is old.", "The lighthouse is old.", "it is the source text"),
    ("There are 25 ships.", "Hay barcos.", "number: 25 is missing"),
    ("The lighthouse is old.", "La torre es vieja.", "glossary: lighthouse → faro is missing"),
    ("Good morning.", "Buenos días y " * 40, "it goes on without end"),
])
def test_a_bad_translation_is_answered_with_what_is_wrong_with_it_and_only_a_good_one_is_kept(
        work, chat, text, first, wrong):
    def answer(lines: dict[str, str]) -> str:
        asked = chat.questions[-1]["lines"]
        told = any("wrong" in line for line in asked)
        return json.dumps({"lines": [{"id": line["id"], "text": first if line["text"] == text and not told
                                      else SPANISH[line["text"]]} for line in asked]})

    chat.answer = answer
    found = run(work, model(chat), tuple(SPANISH), glossary={"lighthouse": "faro"})
    assert [line.text for line in found.lines] == list(SPANISH.values())
    assert [line["wrong"] for line in chat.questions[-1]["lines"]] == [[wrong]]
    asked = len(chat.requests)
    run(work, model(chat), tuple(SPANISH), glossary={"lighthouse": "faro", "whale": "ballena"})
    assert len(chat.requests) == asked


def test_a_translation_that_is_too_long_is_asked_for_in_fewer_characters(work, chat):
    def answer(lines: dict[str, str]) -> str:
        asked = chat.questions[-1]["lines"]
        return json.dumps({"lines": [{"id": line["id"], "text": "Gracias, Daniel." if "longest" in line else
                                      LONG if line["text"] == TEXTS[2] else SPANISH[line["text"]]} for line in asked]})

    chat.answer = answer
    found = run(work, model(chat), (*TEXTS, "Good morning."))
    assert found.lines[2].text == "Gracias, Daniel."
    assert [(one.text, one.origin) for one in found.lines[2].candidates] == [
        (LONG, "engine"), ("Gracias, Daniel.", "shorter")]
    last = chat.questions[-1]["lines"]
    assert [(line["id"], line["translation"]) for line in last] == [("L0003", LONG)]
    assert last[0]["longest"] < len(LONG)


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
    lines = transcript("a", "b", "c", every=1).lines  # 1.00–1.83, 2.00–2.83, 3.00–3.83 s
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
    found = read_script(srt.encode(), "srt", lines, "es")
    assert found.texts == {"L0001": "Uno y medio.", "L0002": "Dos.", "L0003": ""}
    assert found.flags["L0003"] == ["script: the cue at 00:00:09.000 belongs to no line and is left out: Nadie.",
                                    "script: no cue belongs to this line; it stays silent"]


DAPT = """<tt xmlns="http://www.w3.org/ns/ttml" xmlns:daptm="http://www.w3.org/ns/ttml/profile/dapt#metadata"
 xml:lang="es" daptm:scriptType="preRecording" daptm:scriptRepresents="audio.dialogue"><body>
 <div xml:id="{}" begin="1s" end="1.8s"><p xml:lang="en"><span>One</span></p><p><span>Uno</span></p></div>
 <div xml:id="{}" begin="3s" end="3.8s"><p>Dos</p></div></body></tt>"""


@pytest.mark.parametrize(("ids", "texts"), [
    (("L0001", "L0002"), ("Uno", "Dos")), (("d1", "d2"), ("Uno", "", "Dos"))])
def test_a_dapt_script_names_lines_by_id_or_by_time(ids: tuple[str, str], texts: tuple[str, ...]) -> None:
    lines = transcript(*"abc"[:len(texts)], every=1).lines
    assert tuple(read_script(DAPT.format(*ids).encode(), "ttml", lines, "es").texts.values()) == texts
    with pytest.raises(InputError, match="no text in fr"):
        read_script(DAPT.format(*ids).encode(), "ttml", lines, "fr")


def test_a_script_asks_no_engine_and_its_warnings_reach_the_lines(work):
    vtt = "WEBVTT\n\n00:01.000 --> 00:01.800\nBuenos días.\n\n00:02.000 --> 00:02.800\nEl faro es viejo.\n"
    found = run(work, None, transcript=transcript(*TEXTS, every=1), glossary={"old": "antiguo"},
                **script(work, vtt, "vtt"))
    assert [line.flags for line in found.lines] == [
        (), ("glossary: old → antiguo is missing",), ("script: no cue belongs to this line; it stays silent",)]
