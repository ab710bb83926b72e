"""One suite for every translator that can run here, and what each of them does by itself."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from models.engines import apertium as apertium_module
from models.engines import describe
from models.engines.apertium import Apertium
from models.engines.apertium_text import split_sentences
from models.engines.ctranslate2 import CTranslate2, combined, flores
from models.engines.local_weights import weights_hash
from models.engines.openai import OpenAICompatible, read_answer
from models.errors import EngineError, InfrastructureError, InputError, SetupError
from models.ports import Around, Draft, EngineHome, Translator
from models.records import Candidate, EngineRef
from tests.chat_server import Chat, chat_server, translated
from tests.tiny_translator import build

LINES = {"L0007": "Good morning. My name is Clara.", "L0003": "The lighthouse is old.", "L0012b": "Yes."}
ENGINES = ("apertium", "ctranslate2", "openai")


def told(engine: Translator, lines: dict[str, str], source: str = "en", target: str = "es",
         glossary: dict[str, str] | None = None) -> dict[str, str]:
    """The best candidate of every line that has one."""
    found = engine.translate(lines, source, target, glossary or {}, {})
    assert all(len({one.text for one in each}) == len(each) > 0 for each in found.values())
    assert all([one.score for one in each] == sorted((one.score for one in each), reverse=True)
               for each in found.values())
    return {key: each[0].text for key, each in found.items()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("tiny")
    return folder, build(folder)


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    monkeypatch.setattr(OpenAICompatible, "wait", staticmethod(lambda seconds: None))
    with chat_server() as server:
        yield server


def home(**connection: Any) -> EngineHome:
    return EngineHome(weights=lambda name: Path("/nowhere"), connection=connection, threads=1,
                      secret=lambda name: "s3cret-key" if name == "openai_api_key" else "")


def ctranslate2(tiny: tuple[Path, str], **options: Any) -> CTranslate2:
    return CTranslate2(EngineRef(name="ctranslate2", options={"sha256": tiny[1], **options}), home(path=str(tiny[0])))


def openai(chat: Chat, **connection: Any) -> OpenAICompatible:
    return OpenAICompatible(EngineRef(name="openai", options={"model": "test"}),
                            home(base_url=chat.base_url, **connection))


def new_apertium() -> Apertium:
    if not shutil.which("apertium"):
        pytest.skip("needs apertium")
    return Apertium(EngineRef(name="apertium"), home())


apertium = cache(new_apertium)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Translator:
    if request.param == "apertium":
        return apertium()
    if request.param == "ctranslate2":
        return ctranslate2(request.getfixturevalue("tiny"))
    return openai(request.getfixturevalue("chat"))


# -- every translator -------------------------------------------------------------------------------------------------


def test_exactly_the_given_ids_come_back(engine):
    found = told(engine, LINES, "en", "es", {})
    assert list(found) == list(LINES)
    assert all(text.strip() == text != "" for text in found.values())
    assert told(engine, {}, "en", "es", {}) == {}


def test_lines_do_not_influence_each_other(engine):
    alone = {key: told(engine, {key: text}, "en", "es", {})[key] for key, text in LINES.items()}
    assert told(engine, LINES, "en", "es", {}) == alone


def test_the_same_question_has_the_same_answer(engine):
    assert told(engine, LINES, "en", "es-419", {}) == told(engine, LINES, "en", "es-419", {})


def test_odd_lines_pass(engine):
    odd = {"L0001": "line\nbreak\n\nand blank line", "L0002": "…", "L0003": "<b>[x] {y}</b> \\ ^a/b$ @ # *",
           "L0004": "\x00\x1b[31m", "L0005": "你好 🎬", "L0006": "yes " * 300}
    found = told(engine, odd, "en", "es", {})
    assert set(found) <= set(odd)
    assert {"L0001", "L0005", "L0006"} <= set(found)
    assert not any("\n" in text for text in found.values())


# -- apertium ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "wanted"), [
    ("it", "Buon giorno. Il mio nome è Clara."), ("pt-BR", "Bom dia. O meu nome é Clara."),
    ("ca", "Bon dia. El meu nom és Clara."), ("gl", "Bo día. O meu nome é Clara."),
])
def test_apertium_languages(target, wanted):
    assert told(apertium(), {"L0001": LINES["L0007"]}, "en-GB", target, {}) == {"L0001": wanted}


SPANISH = {
    LINES["L0007"]: r"^Buenos días\. Mi nombre es Clara\.$",
    "Do you know the captain?": r"^¿.*\?$", 'She said: "Open the door!"': r'"¡[^¡]*!"$', "It's raining!": "^¡Está llov",
    "Today I met Rose.": r"\bRose\.$", "The water is cold.": "^El agua", "Do not open the windows.": "^No puedes abrir",
    "Let's go!": "^¡Vamos!$", "It costs 3.5 million in 1998.": "3.5 .*1998", "Thank you, Daniel.": "^Gracias, Daniel.$",
    "Wait, please.": ", por favor.$", "Mr. Smith sleeps.": r"^Señor Smith \w+\.$", "I can't xyzzy.": r"xyzzy\.$",
}
FRENCH = {
    LINES["L0007"]: r"^Bonjour\. Mon nom est Clara\.$",
    "Today, I visit the lighthouse.": "^Aujourd'hui, je visite", "Yes, I know him.": "^Oui, je",
    "Do not open the windows.": "^N'ouvrez pas", "The night is quiet.": "tranquille", "I open the door.": "^J'ouvre",
}


@pytest.mark.parametrize(("target", "cases"), [("es", SPANISH), ("fr", FRENCH)])
def test_apertium_is_mended(target, cases):
    lines = {f"L{n:04d}": text for n, text in enumerate(cases, 1)}
    found = told(apertium(), lines, "en", target, {})
    wrong = {text: found[key] for key, text in lines.items() if not re.search(cases[text], found[key])}
    assert wrong == {}


def test_apertium_keeps_the_glossary():
    found = told(apertium(), {"L0001": "The Lighthouse and the harbor of Grey Island."}, "en", "es",
                                 {"lighthouse": "farola", "Grey Island": "Grey Island", "ship": "nave"})
    assert "farola" in found["L0001"]
    assert "Grey Island" in found["L0001"]


def test_apertium_lacking_a_pair_says_how_to_get_it(monkeypatch):
    engine = new_apertium()
    monkeypatch.setattr(engine, "_installed", frozenset({"eng-cat"}))
    with pytest.raises(SetupError, match="apt-get install apertium apertium-fra-cat"):
        told(engine, {"L0001": "Yes."}, "en", "fr", {})
    with pytest.raises(InputError, match="en → de"):
        told(engine, {"L0001": "Yes."}, "en", "de", {})
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "apt-get install apertium apertium-" in Apertium.missing({})


def test_apertium_counts_its_paragraphs(monkeypatch):
    """An answer with a paragraph too few is not trusted: each is asked for alone, and an empty one is none."""
    calls = []

    def call(command: list[str], text: str) -> str:
        if command[-1] == "-l":
            return "eng-spa"
        calls.append(text)
        return text.replace("\n\n", "\n", 1) if "\n\n" in text else "" if "old" in text else f"sí {text}"

    monkeypatch.setattr(apertium_module, "_call", call)
    engine = new_apertium()
    assert list(told(engine, LINES)) == ["L0007", "L0012b"]
    assert calls[-1] == "Yes."


@pytest.mark.parametrize(("text", "parts"), [
    ("One. Two! Three? Four", 4), ("Mr. Smith and Dr. Who. Both.", 2), ("J. R. R. Tolkien wrote.", 1),
    ("3.5 is it. ok", 1), ('"Stop!" He ran.', 2), ("", 0), ("  \n ", 0),
])
def test_sentences(text, parts):
    assert len(split_sentences(text)) == parts


# -- ctranslate2 ------------------------------------------------------------------------------------------------------


def test_languages_reach_the_model(tiny):
    """The token of the target language changes the answer, and is not part of it."""
    madlad = ctranslate2(tiny)
    answers = [told(madlad, {"L0001": "good morning"}, "en", target, {})["L0001"] for target in ("es", "fr")]
    assert answers[0] != answers[1]
    nllb = told(ctranslate2(tiny, style="nllb"), {"L0001": "good morning"}, "en", "es", {})["L0001"]
    assert "Latn" not in nllb
    assert nllb not in answers
    with pytest.raises(InputError, match="does not know de"):
        told(madlad, {"L0001": "good"}, "en", "de", {})


def test_a_line_has_as_many_candidates_as_are_asked_for_each_said_once_and_the_first_is_what_one_would_be(tiny):
    lines = {"L0001": "good morning. the lighthouse is old.", "L0002": "yes"}
    several = ctranslate2(tiny, candidates=3).translate(lines, "en", "es", {}, {})
    assert 1 < len(several["L0001"]) <= 3
    assert told(ctranslate2(tiny, candidates=3), lines) == told(ctranslate2(tiny, candidates=1), lines)
    assert len(ctranslate2(tiny, candidates=20, beam_size=2).translate(lines, "en", "es", {}, {})["L0002"]) <= 2
    assert not ctranslate2(tiny).REVISES


def test_candidates_of_a_line_are_the_best_combinations_of_those_of_its_sentences():
    first = [Candidate(text="Hola.", score=-0.1), Candidate(text="Buenas.", score=-0.5)]
    second = [Candidate(text="Adiós.", score=-0.2), Candidate(text="Chao.", score=-0.3), Candidate(text="", score=-9)]
    assert [(one.text, one.score) for one in combined([first, second], " ", 4)] == [
        ("Hola. Adiós.", -0.15), ("Hola. Chao.", -0.2), ("Buenas. Adiós.", -0.35), ("Buenas. Chao.", -0.4)]
    assert [one.text for one in combined([first, second], "", 1)] == ["Hola.Adiós."]
    assert combined([[Candidate(text=" ", score=0)]], " ", 4) == combined([], " ", 4) == ()


def test_weights_are_known_by_their_hash(tiny, tmp_path):
    folder, digest = tiny
    options = {"path": str(folder), "sha256": digest}
    assert describe("translator", "ctranslate2", options, lambda name: {}).options == {
        "sha256": digest, "style": "madlad", "beam_size": 4, "candidates": 4, "compute_type": "default"}
    with pytest.raises(SetupError, match=digest):
        CTranslate2(EngineRef(name="ctranslate2"), home(path=str(folder)))
    with pytest.raises(InputError, match=digest):
        ctranslate2((folder, "0" * 64))
    with pytest.raises(SetupError, match=r"options.ctranslate2.path"):
        CTranslate2(EngineRef(name="ctranslate2"), home())
    with pytest.raises(InputError, match=r"model.bin cannot be read"):
        CTranslate2(EngineRef(name="ctranslate2"), home(path=str(tmp_path)))


def test_names_are_judged_by_the_pair_that_translates_them_whatever_else_is_installed(monkeypatch):
    engine, modes = new_apertium(), list[str]()
    monkeypatch.setattr(apertium_module, "_paragraphs", lambda mode, texts: (modes.append(mode), list(texts))[1])
    told(engine, {"L0001": "We met Pearl there."}, "en", "fr", {})
    assert set(modes) == {"eng-cat", "cat-fra"}


@pytest.mark.parametrize("file", ["model.bin", "config.json", "shared_vocabulary.json", "more/tokenizer.json"])
def test_every_file_of_the_folder_counts_before_anything_is_loaded(tmp_path, file):
    build(tmp_path)
    (tmp_path / "more").mkdir()
    for extra in ("more/tokenizer.json", ".note"):
        (tmp_path / extra).write_text("{}")
    before = weights_hash(tmp_path)
    (tmp_path / ".note").write_text("hidden files do not")
    assert ctranslate2((tmp_path, before))
    (tmp_path / file).write_bytes(b"something else")
    with pytest.raises(InputError, match="is not what it was"):
        ctranslate2((tmp_path, before))


def test_what_is_no_model_is_an_error(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"nothing")
    (tmp_path / "shared_vocabulary.json").write_text('["<2es>"]')
    engine = ctranslate2((tmp_path, weights_hash(tmp_path)))
    with pytest.raises(InputError, match="no tokenizer"):
        told(engine, {"L0001": "yes"}, "en", "es", {})
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError):
        told(engine, {"L0001": "yes"}, "en", "es", {})


@pytest.mark.parametrize(("tag", "name"), [("es-419", "spa_Latn"), ("en", "eng_Latn"), ("zh-TW", "zho_Hant"),
                                           ("zh", "zho_Hans"), ("ar", "arb_Arab"), ("sr", "srp_Cyrl")])
def test_flores_names(tag, name):
    assert flores(tag) == name


# -- openai -----------------------------------------------------------------------------------------------------------


def test_the_question_holds_what_a_translator_needs(chat):
    lines = {f"L{n:04d}": f"Line {n}." for n in range(1, 46)}
    found = told(openai(chat), lines, "en", "es-419", {"line": "línea", "ship": "barco"})
    assert found == {key: f"es {text}" for key, text in lines.items()}
    first, second = chat.questions
    assert (first["source_language"], first["target_language"], first["glossary"]) == ("en", "es-419",
                                                                                       {"line": "línea"})
    assert (len(first["lines"]), len(second["lines"])) == (40, 5)
    assert first["lines"][0] == {"id": "L0001", "text": "Line 1."}
    assert first.keys() == {"source_language", "target_language", "glossary", "lines"}
    assert chat.requests[0]["temperature"] == 0
    assert chat.keys[0] == "Bearer s3cret-key"


def test_what_is_said_around_a_line_is_shown_with_it_and_never_taken_for_a_line(chat):
    around = {"L0003": Around(("– Who is there?", "It is me."), ("– Come in.",)), "L0007": Around()}
    found = openai(chat).translate(LINES, "en", "es", {}, around)
    assert {key: each[0].text for key, each in found.items()} == {key: f"es {text}" for key, text in LINES.items()}
    assert chat.questions[0]["lines"] == [
        {"id": "L0007", "text": LINES["L0007"]},
        {"id": "L0003", "text": LINES["L0003"], "before": ["– Who is there?", "It is me."], "after": ["– Come in."]},
        {"id": "L0012b", "text": "Yes."}]


def test_a_revision_is_told_what_was_said_what_is_wrong_and_how_long_it_may_be(chat):
    chat.answer = lambda lines: json.dumps({"lines": [{"id": key, "text": "El faro."} for key in lines]})
    drafts = {"L0003": Draft(LINES["L0003"], "La torre es vieja.", ("glossary: lighthouse → faro is missing",))}
    engine = openai(chat)
    assert engine.REVISES
    found = engine.revise(drafts, "en", "es", {"lighthouse": "faro"})
    assert [(one.text, one.origin) for one in found["L0003"]] == [("El faro.", "engine")]
    assert chat.questions[0]["lines"] == [{"id": "L0003", "text": "The lighthouse is old.",
                                           "translation": "La torre es vieja.",
                                           "wrong": ["glossary: lighthouse → faro is missing"]}]
    short = engine.revise({"L0003": Draft("The lighthouse is old.", "El faro es muy viejo.", ("too long",), 10)},
                          "en", "es", {})
    assert chat.questions[1]["lines"][0]["longest"] == 10
    assert short["L0003"][0].origin == "shorter"


@pytest.mark.parametrize("wrap", ["Sure! Here you are:\n```json\n%s\n```\nAnything else?", "%s", "<think>…</think> %s"])
def test_prose_around_json_is_read_over(chat, wrap):
    chat.answer = lambda lines: wrap % translated(lines)
    assert told(openai(chat), LINES, "en", "es", {})["L0003"] == "es The lighthouse is old."
    assert len(chat.requests) == 1


@pytest.mark.parametrize("first", [
    '{"lines": [{"id": "L0007", "text": "x"}]}',
    '{"lines": [{"id": "L0007", "text": "x"}, {"id": "L0007", "text": "y"}]}',
    '{"lines": [{"id": "L0001", "text": "x"}, {"id": "L0003", "text": "y"}, {"id": "L0012b", "text": "z"}]}',
    '{"lines": [{"id": "L0007", "text": ""}, {"id": "L0003", "text": " "}, {"id": "L0012b", "text": null}]}',
    '{"lines": "none"}', "I cannot do that.", "", "[1, 2]", '{"lines": [{"id": ["L0007"], "text": "x"}]}',
    '{"lines": ' + "[" * 50_000,
])
def test_bad_answers_are_asked_for_again_one_by_one(chat, first):
    answers = iter([first])
    chat.answer = lambda lines: next(answers, None) or translated(lines)
    found = told(openai(chat), LINES, "en", "es", {})
    assert list(found) == list(LINES)
    assert found["L0003"] == "es The lighthouse is old."
    assert all(len(question["lines"]) == 1 for question in chat.questions[1:])


def test_lines_that_never_come_have_no_translation_and_the_others_do(chat):
    chat.answer = lambda lines: translated({key: text for key, text in lines.items() if key != "L0003"})
    assert list(told(openai(chat), LINES)) == ["L0007", "L0012b"]
    assert len(chat.requests) == 3
    assert len(chat.requests) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(chat, status):
    answers = iter([(status, "busy"), (status, "busy")])
    chat.answer = lambda lines: next(answers, None) or translated(lines)
    assert told(openai(chat), LINES, "en", "es", {})["L0012b"] == "es Yes."
    assert len(chat.requests) == 3


def test_a_server_that_stays_down_is_an_infrastructure_error(chat):
    chat.answer = lambda lines: (500, "down")
    with pytest.raises(InfrastructureError, match="status 500"):
        told(openai(chat), LINES, "en", "es", {})
    assert len(chat.requests) == 4


def test_a_server_that_hangs_or_is_not_there_is_an_infrastructure_error(chat):
    chat.answer = lambda lines: None
    with pytest.raises(InfrastructureError, match="Timeout"):
        told(openai(chat, timeout=0.05), LINES)
    with pytest.raises(InfrastructureError, match="ConnectError"):
        OpenAICompatible(EngineRef(name="openai", options={"model": "test"}),
                         home(base_url="http://127.0.0.1:9/v1")).translate(LINES, "en", "es", {}, {})


@pytest.mark.parametrize(("status", "error", "why"), [(401, SetupError, "INFINIDUB_SECRETS__OPENAI_API_KEY"),
                                                      (404, InputError, "no model s"), (400, InputError, "model")])
def test_refusals_are_not_repeated_and_show_no_key(chat, status, error, why):
    chat.answer = lambda lines: (status, "no model s3cret-key")
    with pytest.raises(error) as raised:
        told(openai(chat), LINES, "en", "es", {})
    assert len(chat.requests) == 1
    assert "s3cret-key" not in str(raised.value)
    assert why.removesuffix(" s") in str(raised.value)


def test_an_answer_without_end_is_cut_off(chat):
    chat.answer = lambda lines: "x" * 5_000_000
    with pytest.raises(EngineError, match="larger than"):
        told(openai(chat), LINES, "en", "es", {})


def test_an_address_must_be_one():
    engine = OpenAICompatible(EngineRef(name="openai", options={"model": "m"}), home(base_url="nonsense"))
    with pytest.raises(InputError, match="base_url"):
        told(engine, LINES, "en", "es", {})


def test_model_and_address_must_be_set():
    assert OpenAICompatible.missing({}) == "set options.openai.base_url and options.openai.model in infinidub.toml"
    assert OpenAICompatible.missing({"base_url": "http://x/v1", "model": "m"}) == ""
    options = {"model": "m", "base_url": "http://x/v1", "timeout": 3.0, "api_key": "mine"}
    assert describe("translator", "openai", options, lambda name: {}).options == {"model": "m", "context": 2}


def test_answers_are_never_taken_for_another_line():
    assert read_answer('{"lines": [{"id": "L0002", "text": "x"}, {"id": "L0001", "text": "y"}]}', ["L0001"]) == {}
