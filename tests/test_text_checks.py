"""What a translation must keep, what is none, and in which language a line is."""

from __future__ import annotations

from functools import cache
from itertools import permutations
from pathlib import Path

import pytest

from models.engines.py3langid import Py3Langid
from models.languages import Guess, alike, sure
from models.ports import EngineHome
from models.records import EngineRef, Line, Transcript
from models.text_checks import broken, missing_names, names_in, refusal
from tasks.languages import LanguagesRequest, find_languages
from tasks.step import perform

SAID = {
    "en": ["We cannot stay here any longer.", "The lighthouse has been dark for three days, and nobody knows why."],
    "es": ["No podemos quedarnos aquí más tiempo.", "El faro lleva tres días a oscuras y nadie sabe por qué."],
    "fr": ["Nous ne pouvons plus rester ici.", "Le phare est éteint depuis trois jours et personne ne sait pourquoi."],
    "de": ["Wir können hier nicht länger bleiben.",
           "Der Leuchtturm ist seit drei Tagen dunkel, und niemand weiß, warum."],
    "pt": ["Não podemos ficar aqui mais tempo.", "O farol está apagado há três dias e ninguém sabe por quê."],
    "pl": ["Nie możemy tu dłużej zostać.", "Latarnia jest ciemna od trzech dni i nikt nie wie dlaczego."],
    "ru": ["Мы не можем больше здесь оставаться.", "Маяк не горит уже три дня, и никто не знает почему."],
    "ar": ["لا يمكننا البقاء هنا أكثر.", "المنارة مظلمة منذ ثلاثة أيام ولا أحد يعرف السبب."],
    "he": ["אנחנו לא יכולים להישאר כאן יותר.", "המגדלור חשוך כבר שלושה ימים ואף אחד לא יודע למה."],
    "ja": ["もうここにはいられない。", "灯台は三日間消えたままで、誰も理由を知らない。"],
    "zh": ["我们不能再待在这里了。", "灯塔已经黑了三天，没有人知道为什么。"],
}
UNSURE = Guess("und", 0.0)


@cache
def identifier() -> Py3Langid:
    return Py3Langid(EngineRef(name="py3langid"), EngineHome(weights=Path))


# -- numbers, units ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target", "languages"), [
    ("I need 25 dollars.", "Necesito veinticinco dólares.", "en es"),
    ("Twenty-five men died.", "Murieron 25 hombres.", "en es"),
    ("It costs $3.50.", "Cuesta 3,50 dólares.", "en es"),
    ("1,000,000 people, 1,500 km away", "1.000.000 de personas, a 1500 kilómetros", "en es"),
    ("He was born in 1998.", "Nació en mil novecientos noventa y ocho.", "en es"),
    ("Meet me at 3 pm.", "Nos vemos a las 15.", "en es"), ("Meet me at 10:30.", "A las diez y media.", "en es"),
    ("Er kommt um 15 Uhr.", "He comes at 3 pm.", "de en"), ("Two hundred and fifty", "Deux cent cinquante", "en fr"),
    ("Two hundred and fifty ships.", "Duecento e cinquanta navi", "en it"),
    ("Three thousand two hundred", "Tremila duecento", "en it"), ("A hundred ships", "Cien barcos", "en es"),
    ("The 3rd of May", "El tres de mayo", "en es"), ("It's 90% done", "à quatre-vingt-dix pour cent", "en fr"),
    ("Der Zug ist 3,5 Meter lang", "It is 3.5 metres long", "de en"), ("for three days", "od trzech dni", "en pl"),
    ("One of us lies, you two.", "Alguien miente.", "en es"), ("I have 7 cats", "لدي ٧ قطط", "en ar"),
    ("Sei tu?", "Is that you?", "it en"), ("five days", "사흘", "en ko"), ("Call 555-1234.", "Al 555-1234.", "en es"),
    ("It costs $1,299.99.", "يكلف ١٬٢٩٩٫٩٩ دولارًا.", "en ar"),
    ("It costs €2.5 million.", "250万ユーロかかる。", "en ja"),
    ("It costs €2.5 million.", "Es kostet zweieinhalb Millionen Euro.", "en de"),
    ("On 3/14/2025.", "El 14 de marzo de 2025.", "en es"), ("In the 1980s", "Les années 80", "en fr"),
    ("In the 1980s", "Los años ochenta", "en es"), ("The 21st century", "El siglo XXI", "en es"),
    ("The 19th century", "Le XIXe siècle", "en fr"), ("Twelve hundred men", "Mil doscientos hombres", "en es"),
    ("Ninety-nine problems", "تسع وتسعون مشكلة", "en ar"), ("at 9 p.m.", "في التاسعة مساءً", "en ar"),
    ("Chapter Four", "الفصل الرابع", "en ar"), ("5 km", "٥ كيلومترات", "en ar"),
    ("90% sure", "متأكد بنسبة ٩٠٪", "en ar"),
    ("2.5 hours", "deux heures et demie", "en fr"), ("1½ hours", "anderthalb Stunden", "en de"),
    ("½ a cup", "media taza", "en es"), ("1 ½ hours", "una hora y media", "en es"), ("¾ done", "casi listo", "en es"),
    ("50 m²", "50 metros cuadrados", "en es"), ("½ a cup", "0,5 Tassen", "en de"),
    ("Call 911!", "¡Llama al nueve uno uno!", "en es"), ("It's 12 o'clock.", "Es mediodía.", "en es"),
    ("1 million people", "百万人", "en ja"), ("5 or 6 people", "五、六人", "en ja"),
    ("at 9 p.m.", "午後九時に", "en ja"),
    ("A hundred percent", "Cien por cien", "en es"), ("Three degrees, two pounds.", "Tres títulos, un kilo.", "en es"),
])
def test_numbers_may_be_written_as_the_other_language_does(source, target, languages):
    assert broken(source, target, tuple(languages.split()), {}) == []


@pytest.mark.parametrize(("source", "target", "languages", "warning"), [
    ("It costs €2.5 million.", "Cuesta 25 millones de euros.", "en es", "number: 2.5 is missing"),
    ("Only 100 came.", "300人来た。", "en ja", "number: 100 is missing"),
    ("It's -5°C.", "マイナス15度だ。", "en ja", "number: 5 is missing"),
    ("Two hundred euros", "Doscientos", "en es", "unit: € is missing"),
    ("Twenty dollars", "Veinte euros", "en es", "unit: $ is missing"),
    ("five percent", "cinco", "en es", "unit: % is missing"),
    ("It's 30 miles away.", "Está a 30 kilómetros.", "en es", "unit: mile is missing"),
    ("Chapter Four", "الفصل الخامس", "en ar", "number: four is missing"),
])
def test_another_size_currency_or_unit_is_said(source, target, languages, warning):
    assert broken(source, target, tuple(languages.split()), {}) == [warning]


@pytest.mark.parametrize(("source", "target", "warning"), [
    ("I need 25 dollars.", "Necesito dólares.", "number: 25 is missing"),
    ("Twenty-five men died.", "Murieron 24 hombres.", "number: twenty five is missing"),
    ("Two hundred and fifty", "Doscientos barcos", "number: two hundred fifty is missing"),
    ("Chapter 7", "Capítulo 17", "number: 7 is missing"), ("four", "catorce", "number: four is missing"),
    ("at 10:42", "a las diez y media", "number: 10:42 is missing"), ("5 km", "5 millas", "unit: km is missing"),
    ("It costs $300.", "Cuesta 300.", "unit: $ is missing"), ("90% of them", "90 de ellos", "unit: % is missing"),
    ("The ship sank.", "Se hundió.", "glossary: ship → barco is missing"),
])
def test_what_is_lost_is_said_as_it_stands_in_the_source(source, target, warning):
    assert broken(source, target, ("en", "es"), {"ship": "barco"}) == [warning]


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_are_what_has_a_capital_inside_of_several_sentences_and_is_no_title_nor_day():
    texts = ["Tell Daniel it is Monday.", "I saw Daniel, Captain.", "No, Captain Ahab.", "On Monday, the Captain left.",
             "THEY SAID CLARA CAME", "Yes, CLARA CAME IN", "So Rose left."]
    assert names_in(texts, "en") == {"Daniel"}
    assert names_in(texts, "en", ["Rose"]) == {"Daniel", "Rose"}
    assert names_in(["Der Hund und der Hund", "Ein Hund, ein Hund"], "de") == frozenset()


@pytest.mark.parametrize(("target", "missing"), [
    ("Dile a Daniel que vaya a Londres.", []), ("Powiedz Danielowi o Londynie.", []), ("ダニエルに言って", []),
    ("Dile que vaya a Londres.", ["Daniel"]), ("Díselo.", ["Daniel", "London"])])
def test_names_may_be_inflected_and_cannot_be_followed_into_another_alphabet(target, missing):
    assert missing_names("Tell Daniel to go to London.", target, {"Daniel", "London", "Clara"}) == missing


# -- what is no translation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target", "why"), [
    ("Come here.", "…", "it is empty"), ("Come over here.", "come over HERE!", "it is the source text"),
    ("Come here.", "Ven aquí. " * 5, "it goes on without end"),
    ("Come here.", "Ven " + "palabra y otra, " * 3 + "x" * 90, "it goes on without end"),
    ("Come here.", "Ven aquí.", ""), ("Taxi!", "Taxi!", ""), ("Daniel!", "Daniel!", ""), ("1984", "1984", ""),
    ("No, no, no, no!", "¡No, no, no, no!", ""), ("Grey Island, Daniel.", "Grey Island, Daniel.", ""),
])
def test_what_is_no_translation_is_refused(source, target, why):
    assert refusal(source, target, ("en", "es"), UNSURE, {"Grey Island": "Grey Island"}) == why


def test_another_language_is_refused_unless_it_is_a_term_that_must_stand_there():
    guess, text = Guess("en", 0.99), "the Royal Harbour Company"
    assert refusal("La compañía", text, ("es", "fr"), guess, {}) == "it is in another language (en)"
    assert refusal("La compañía", text, ("es", "fr"), guess, {"La compañía": text}) == ""
    assert refusal("Bom dia a todos", "Bos días a todos", ("pt", "gl"), Guess("es", 0.99), {}) == ""


def test_no_good_translation_is_refused_or_said_to_lack_something():
    for one, other in permutations(SAID, 2):
        for source, target in zip(SAID[one], SAID[other], strict=True):
            guess = identifier().identify(target)
            assert refusal(source, target, (one, other), guess, {}) == "", (one, other)
            assert broken(source, target, (one, other), {}) == [], (one, other)


# -- languages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", SAID)
def test_lines_of_eleven_languages_are_told_apart_right_to_left_and_without_spaces_too(language):
    guesses = [(text, identifier().identify(text)) for text in SAID[language]]
    assert {guess.language for text, guess in guesses if sure(text, guess)} == {language}


@pytest.mark.parametrize("text", ["Yes.", "Ciao, bella!", "Thank you, Giovanni Rossi.", "", "…", "1984", "<>\x00", "🎬",
                                  "Ha ha ha ha ha ha!", "Amsterdam, Rotterdam."])
def test_of_names_and_exclamations_nobody_is_sure(text):
    assert not sure(text, identifier().identify(text))


def test_tags_that_mean_one_language_are_alike():
    assert alike("pt-BR", "pt")
    assert alike("nb", "no")
    assert not alike("es", "pt")


def test_foreign_lines_of_a_transcript_are_marked_and_what_was_marked_before_stays(work):
    texts = [SAID["en"][1], SAID["es"][0], "Hola, Daniel.", SAID["ar"][1], SAID["he"][1], SAID["ja"][1], "Merci."]
    lines = [Line(id=f"L{n:04d}", start=n, end=n + 1, text=text, language="fr" if text == "Merci." else "")
             for n, text in enumerate(texts, 1)]
    work.engines.by_port["language-identifier"] = identifier()
    request = LanguagesRequest(transcript=Transcript(language="en-GB", lines=tuple(lines)),
                               identifier=EngineRef(name="py3langid"))
    found = perform(work, find_languages, request)
    assert [line.language for line in found.lines] == ["", "es", "", "ar", "he", "ja", "fr"]
    assert [line.text for line in found.lines] == texts
    unknown = request.model_copy(update={"transcript": Transcript(language="und", lines=tuple(lines))})
    assert perform(work, find_languages, unknown) == unknown.transcript
