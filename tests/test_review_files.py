"""Scripts out to files and back: nothing changes by itself, one edit changes one line, and bad files change nothing."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from models.errors import InputError
from models.review import Review, ReviewLine, Said
from models.timebase import CLOCK, ticks, timecode
from tasks import dapt
from tasks.review_files import FORMATS, changes, write
from tasks.subtitles import spoken_text

TEXTS = ("Buenos días.", "La lámpara, es \"vieja\".", "Nos vamos; ya.")


def line(number: int, text: str, start: float = 0.0, speaker: str = "A", source: str = "What is said.") -> ReviewLine:
    at = ticks(start or 2.0 * number)
    return ReviewLine(f"L{number:04d}", at, at + CLOCK, speaker, source, text)


def review(*texts: str, language: str = "es") -> Review:
    return Review("s/e1", language, "open", tuple(line(number, text) for number, text in enumerate(texts, 1)))


def read(data: bytes | str, kind: str = "csv", of: Review | None = None) -> dict[str, str]:
    return changes(data.encode() if isinstance(data, str) else data, kind, of or review(*TEXTS), f"es.{kind}")


def refused(data: bytes | str, kind: str = "csv", of: Review | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read(data, kind, of)
    return str(caught.value)


def table(*rows: tuple[str, str]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows([("id", "text"), *rows])
    return file.getvalue()


WHOLE = [(f"L000{number}", text) for number, text in enumerate(TEXTS, 1)]
PLAIN = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
TRICKY = st.sampled_from([
    "=1+1", "'=1+1", "'Tis", "-Hola", "@x", "--> 00:00:01,000 --> 00:00:02,000", "7", "<i>a</i>", "a < b",
    "{\\an8}Hola", "&amp;lt;b&gt;", "שלום, עולם", "\u202eabc", "e\u0301", "\ufeffx", "a\0b", "NOTE x", "<\x01b>",
    "a\nb", "[risas]", "ANA: hola", "♪ la", "]]>", "", "\u200b", "a;b\tc,\"d\""])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(PLAIN | TRICKY, PLAIN, st.integers(0, 3)), min_size=1, max_size=6),
       st.sampled_from(FORMATS), st.sampled_from(["es", "ar", "pt-BR"]))
@example([(text, "x", 0) for text in ("=1", "7", "--> a", "<\x01b>", "ANA: hola", "&amp;lt;b&gt;")], "srt", "es")
def test_what_is_written_and_read_back_changes_nothing_and_one_edit_changes_that_line(said, kind, language):
    lines = tuple(line(number, text, 1.0 + number // 2 * 2.5, f"{speaker}", source)  # two speakers at a time
                  for number, (text, source, speaker) in enumerate(said, 1))
    there = Review("s/e1", language, "open", lines)
    data = write(there, kind, "en")
    assert read(data, kind, there) == {}
    edited = next((one for one in lines if kind != "srt" or spoken_text(one.text)), None)
    if edited is not None:
        other = tuple(replace(one, text="¡Otra cosa!") if one is edited else one for one in lines)
        data = write(replace_lines(there, other), kind, "en")
        if kind != "srt":  # these carry what they were written from: as if somebody typed into the file
            data = data.replace(version_of(other, edited), version_of(lines, edited))
        assert read(data, kind, there) == {edited.id: "¡Otra cosa!"}


def replace_lines(there: Review, lines: tuple[ReviewLine, ...]) -> Review:
    return Review(there.episode, there.language, there.state, lines)


def version_of(lines: tuple[ReviewLine, ...], wanted: ReviewLine) -> bytes:
    from tasks.review_files import version

    return version(next(one for one in lines if one.id == wanted.id)).encode()


# -- what is written --------------------------------------------------------------------------------------------------


def test_no_cell_is_a_formula_and_the_text_comes_back():
    there = review("=HYPERLINK(\"http://x\")", "+1", "-Hola", "@ana", "'=x", "'Tis")
    cells = [row["text"] for row in csv.DictReader(io.StringIO(write(there, "csv", "en").decode("utf-8-sig")))]
    assert cells == ["'=HYPERLINK(\"http://x\")", "'+1", "'-Hola", "'@ana", "''=x", "''Tis"]
    assert read(table(*((one.id, cell) for one, cell in zip(there.lines, cells, strict=True))), "csv", there) == {}


def test_a_dapt_file_says_what_the_standard_asks_for():
    root = etree.fromstring(write(review(*TEXTS), "dapt", "en"))
    ns = {"tt": dapt.TT, "ttm": dapt.TTM}
    assert root.get(f"{{{dapt.TTP}}}contentProfiles") == "http://www.w3.org/ns/ttml/profile/dapt1.0/content"
    assert {name: root.get(f"{{{dapt.DAPTM}}}{name}") for name in ("scriptRepresents", "scriptType", "langSrc")} == {
        "scriptRepresents": "audio.dialogue", "scriptType": "translatedTranscript", "langSrc": "en"}
    first = root.find(".//tt:div", ns)
    assert (first.get(f"{{{dapt.XML}}}id"), first.get("begin"), first.get("end")) == (
        "L0001", "00:00:02.000", "00:00:03.000")
    agent = root.find(".//ttm:agent", ns)
    assert (agent.get("type"), agent.find("ttm:name", ns).text) == ("character", "A")
    assert first.get(f"{{{dapt.TTM}}}agent") == agent.get(f"{{{dapt.XML}}}id")
    assert [("".join(p.itertext()).strip(), p.get(f"{{{dapt.XML}}}lang")) for p in first] == [
        ("What is said.", "en"), ("Buenos días.", "es")]


# -- files of others --------------------------------------------------------------------------------------------------


OTHERS = """<?xml version="1.0" encoding="UTF-8"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttm="http://www.w3.org/ns/ttml#metadata"
    xmlns:ttp="http://www.w3.org/ns/ttml#parameter" xmlns:daptm="http://www.w3.org/ns/ttml/profile/dapt#metadata"
    ttp:contentProfiles="http://www.w3.org/ns/ttml/profile/dapt1.0/content" ttp:frameRate="25" xml:lang="es"
    daptm:langSrc="en" daptm:scriptRepresents="audio.dialogue" daptm:scriptType="preRecording">
  <head><metadata><ttm:agent type="character" xml:id="c1"><ttm:name type="alias">ANA</ttm:name></ttm:agent></metadata>
  </head>
  <body begin="1s">
    <div xml:id="scene1" begin="0.5s">
      <div xml:id="d1" begin="00:00:00:13" end="1.5s" ttm:agent="c1" daptm:represents="audio.dialogue">
        <ttm:desc daptm:descType="scene">a pier</ttm:desc>
        <p xml:lang="en"><span>Good morning.</span></p>
        <p><span begin="0s">¡Hola,</span><span begin="500ms"> <!-- breath -->buenos<br/>días!</span></p>
      </div>
    </div>
    <div xml:id="d2" begin="75f" dur="1s"><p xml:lang="es-ES">La lámpara, es "vieja".</p></div>
    <div><p begin="5s" end="6000ms"><ttm:desc>whispered</ttm:desc>Nos vamos; ya.</p></div>
  </body>
</tt>"""


def test_dapt_of_others_is_matched_by_its_times():
    assert [(one.id, timecode(one.start or 0), timecode(one.end or 0), spoken_text(one.text))
            for one in dapt.read(OTHERS.replace("es-ES", "es").encode(), "es", "x")] == [
        ("d1", "00:00:02.020", "00:00:03.000", "¡Hola, buenos días!"),
        ("d2", "00:00:04.000", "00:00:05.000", "La lámpara, es \"vieja\"."),
        ("", "00:00:06.000", "00:00:07.000", "Nos vamos; ya.")]
    assert read(OTHERS.replace("es-ES", "es"), "dapt") == {"L0001": "¡Hola, buenos días!"}
    assert "has no text in fr; it has en, es" in refused(OTHERS.replace("es-ES", "es"), "dapt",
                                                         review(*TEXTS, language="fr"))


BOMB = '<?xml version="1.0"?>\n<!DOCTYPE tt [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>\n<tt>&b;</tt>'
THEFT = '<?xml version="1.0"?>\n<!doctype tt SYSTEM "file:///etc/passwd">\n<tt/>'


@pytest.mark.parametrize(("data", "message"), [
    (BOMB, "es.dapt, line 2: document types and entities are refused"),
    (THEFT, "es.dapt, line 2: document types and entities are refused"),
    (BOMB.encode("utf-16"), "es.dapt, line 2: document types and entities are refused"),
    ("<tt xmlns='http://www.w3.org/ns/ttml'>&x;</tt>", "line 1: is no XML"),
    ("<tt>\n<p>\n</tt>", "line 3: is no XML"), ("", "line 1: is no XML"),
    ("<html/>", "is no TTML"),
    (OTHERS.replace("75f", "soon"), "line 16: 'soon' is no time"),
    (OTHERS.replace('dur="1s"', 'end="2s"'), "line 16: ends before it starts"),
    (OTHERS.replace('"25"', '"0"'), "frame rate or tick rate is none"),
    (OTHERS.replace("75f", "60s"), "line 16: no line is said at 00:01:01.000 – 00:01:02.000"),
    ("<tt xmlns='http://www.w3.org/ns/ttml'>" + "<div>" * 300 + "</div>" * 300 + "</tt>", "is no XML|nested too deep"),
])
def test_xml_that_is_not_right_is_refused(data, message):
    import re

    assert re.search(message, refused(data.replace("es-ES", "es") if isinstance(data, str) else data, "dapt"))


@pytest.mark.parametrize("data", [
    table(*WHOLE).encode("utf-8-sig"), table(*WHOLE).encode("utf-16"), table(*WHOLE).encode("latin-1"),
    table(*WHOLE).replace("\r\n", "\r").encode(), table(*WHOLE).replace("\r\n", "\n").encode(),
    ("id;text\n" + "\n".join(f'{name};"{text.replace(chr(34), chr(34) * 2)}"' for name, text in WHOLE)).encode(),
])
def test_a_table_is_read_in_every_encoding_and_with_every_kind_of_newline(data):
    assert read(data) == {}
    assert read(data.replace("Buenos".encode("utf-16-le"), "Buenas".encode("utf-16-le")).replace(b"Buenos", b"Buenas"),
                ) == {"L0001": "Buenas días."}


def test_tags_and_invisible_characters_are_no_changes_and_are_not_spoken():
    dressed = [("L0001", "<i>Buenos</i> di\u0301as."), ("L0002", "{\\an8}\u200fLa lámpara, es \"vieja\"."),
               ("L0003", "Nos\xa0vamos;\nya.")]
    assert read(table(*dressed)) == {}
    assert read(table(("L0001", "<b>¡Hola!</b>"), *dressed[1:])) == {"L0001": "¡Hola!"}
    hebrew = review("שלום, עולם", language="he")
    assert read(table(("L0001", "\u202bשלום, <i>עולם</i>\u202c")), "csv", hebrew) == {}


WILD = """1
00:00:02,000 --> 00:00:03,000 X1:100 X2:200 Y1:50 Y2:90
{\\an8}<font color="red">¡Hola!</font>
00:00:04.000 --> 00:00:05.000
La lámpara, es
"vieja".

7
00:00:06 --> 00:00:07
Nos vamos; ya."""


def test_subtitles_from_the_wild_are_read():
    assert read(WILD, "srt") == {"L0001": "¡Hola!"}
    assert read(WILD.replace(" --> ", " -> ", 1).encode("latin-1"), "srt") == {"L0001": "¡Hola!"}
    vtt = "WEBVTT - x\n\nSTYLE\n::cue { color: red }\n\nREGION\nid:a\n\nNOTE\nNos vamos\n\n" + WILD.replace(
        "\n7\n", "\n").replace("1\n", "intro\n", 1) + "\n\nNOTE the end"
    assert read(vtt, "vtt") == {"L0001": "¡Hola!"}
    assert read(WILD.replace("00:00:04.000", "00:00:04.300"), "srt") == {"L0001": "¡Hola!"}  # moved by some program


@pytest.mark.parametrize(("data", "kind", "message"), [
    (table(*WHOLE[:2]), "csv", "es.csv, after line 3: lacks L0003 (00:00:06.000)"),
    (table(*WHOLE, ("L0001", "No.")), "csv", "es.csv, line 5: L0001 stands there twice, first in line 2"),
    (table(*WHOLE, ("L0099", "No.")), "csv", "es.csv, line 5: 'L0099' is no line of s/e1"),
    (table(("L0001", "a\nb\nc"), ("X", ""), ("Y", ""), *WHOLE[1:]), "csv",
     "es.csv, line 5: 'X' is no line of s/e1 (and 1 more)"),
    ("id,text\nL0001,Hola, ana\n", "csv", "es.csv, line 2: has 3 cells where the first line has 2"),
    ("number,words\n1,a\n", "csv", "es.csv, line 1: has no columns id and text"), ("", "csv", "lacks L0001"),
    ('id,text\nL0001,"Hola\n', "csv", "is no CSV"),
    (table(("L0001", "x" * 2001), *WHOLE[1:]), "csv", "es.csv, line 2: has 2001 characters"),
    (table(("L0001", "Bu\x81enos"), *WHOLE[1:]).encode("latin-1"), "csv",
     "line 2: has a character that cannot be read"),
    (b"PK\x03\x04\0\0\0", "csv", "es.csv: is not a text file. Save it as UTF-8"),
    (WILD.replace("00:00:06 -->", "-00:00:06 -->"), "srt", "es.srt, line 9: not a pair of times"),
    (WILD.replace("00:00:07", "00:00:01"), "srt", "es.srt, line 9: ends before it starts"),
    (WILD.replace("00:00:06", "00:00:04").replace("00:00:07", "00:00:05"), "srt",
     "es.srt, line 9: the times of this cue and of that in line 4 both lie in L0002"),
    (WILD.replace("00:00:06", "00:01:06").replace("00:00:07", "00:01:07"), "srt",
     "line 9: no line is said at 00:01:06"),
    (WILD.partition("7\n")[0], "srt", "es.srt, after line 4: lacks L0003"),
    ("hello", "srt", "has no line such as"),
])
def test_bad_files_are_refused_with_their_line(data, kind, message):
    assert message in refused(data, kind)


def test_a_locked_line_and_one_that_changed_meanwhile_are_kept():
    first, second, third = review(*TEXTS).lines
    said = Said("ana", datetime(2026, 1, 1, tzinfo=UTC))
    held = Review("s/e1", "es", "open", (replace(first, locked=said), second, third))
    assert "line 2: L0001 is locked by ana" in refused(table(("L0001", "No."), *WHOLE[1:]), "csv", held)
    assert read(table(*WHOLE[:2], ("L0003", "No.")), "csv", held) == {"L0003": "No."}
    for kind in ("csv", "dapt"):
        written = write(review(*TEXTS), kind, "en")
        meanwhile = Review("s/e1", "es", "open", (first, replace(second, text="Otra."), third))
        assert read(written, kind, meanwhile) == {}  # whoever wrote into the file left that line alone
        assert "L0002 was changed here since the file was written: 'Otra.'" in refused(
            written.replace("La lámpara".encode(), b"El farol"), kind, meanwhile)
        moved = Review("s/e1", "es", "open", (first, replace(second, source="Something else."), third))
        assert "the source of L0002 says something else" in refused(
            written.replace("La lámpara".encode(), b"El farol"), kind, moved)


def test_ten_thousand_lines_are_matched_by_id_and_by_time():
    many = review(*(f"Línea {number}." for number in range(10_000)))
    data = write(many, "dapt", "en").replace("Línea 77.".encode(), b"La otra.")
    assert read(data, "dapt", many) == {"L0078": "La otra."}
    moved = write(many, "srt", "en").replace(b",000 -->", b",200 -->")  # none has the very time of its line
    assert read(moved, "srt", many) == {}
