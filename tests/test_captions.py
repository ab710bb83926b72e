"""Subtitles: every rule kept that can be kept, no text lost, and files that other libraries read as they were meant."""

from __future__ import annotations

import io
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from xml.etree import ElementTree as ET

import pysubs2
import pytest
import ttconv.imsc.reader as imsc
import ttconv.srt.writer as srt_writer
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from models.records import Artifact, Line, SpokenLine
from models.timebase import CLOCK, frame_to_ticks
from tasks.captions import GAP, LATE, ROWS, SHORTEST, Cue, Said, breaches, cues, rules_for, said, srt, ttml, vtt
from tasks.rows import measure, parted, plain

RATES = [Fraction(25), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(50)]
LANGUAGES = ["es", "ja", "zh-Hant", "ko", "ar", "th", "sr-Latn"]
TIMES = st.tuples(st.integers(0, 20 * CLOCK), st.integers(CLOCK // 10, 8 * CLOCK))
ANY = st.lists(st.builds(lambda at, text, who: Said(at[0], sum(at), text, who), TIMES, st.text(max_size=200),
                         st.sampled_from("AB")), max_size=8)
WORDS = st.lists(st.sampled_from(["faro", "de", "la", "noche,", "Claro.", "¿Quién?", "extraordinariamente", "灯台。",
                                  "を", "שלום", "é", "👨‍👩‍👧", "<b>&amp;"]), min_size=1, max_size=30).map(" ".join)


def letters(text: str) -> Counter[str]:
    return Counter(text.replace(" ", "").replace("\n", ""))


@settings(max_examples=60)
@given(spoken=ANY, language=st.sampled_from(LANGUAGES), rate=st.sampled_from(RATES))
def test_cues_never_overlap_and_lose_nothing(spoken, language, rate):
    length = frame_to_ticks(round(60 * rate), rate)
    shown = cues(spoken, length, language, rate)
    assert all(0 <= cue.start < cue.end <= length for cue in shown)
    assert all(one.end < other.start for one, other in pairwise(shown))
    assert not {one.rule for one in breaches(shown, language, rate)} & {"rows", "width", "gap", "frames", "longest"}
    more = letters("".join(cue.text for cue in shown))
    more.subtract(letters("".join(plain(one.text) for one in spoken)))
    assert {letter for letter, count in more.items() if count} <= {"-"}


@settings(max_examples=60)
@given(texts=st.lists(WORDS, min_size=1, max_size=6), language=st.sampled_from(LANGUAGES),
       rate=st.sampled_from(RATES), pause=st.integers(0, CLOCK))
def test_where_there_is_time_every_rule_is_kept(texts, language, rate, pause):
    rules, at, spoken = rules_for(language), 0, []
    for number, text in enumerate(texts):  # each has just the time to be read
        parts = parted(plain(text), rules)
        least = [max(SHORTEST, CLOCK * sum(measure(row, rules) for row in rows) / rules.speed) for rows in parts]
        length = round(max(least) * len(parts) + len(parts) * (GAP + 2) * CLOCK / rate)
        spoken.append(Said(at, at + length, text, "AB"[number % 2]))
        at += length + pause
    shown = cues(spoken, at + CLOCK, language, rate)
    assert breaches(shown, language, rate) == []


def test_what_leaves_no_time_to_read_is_shown_and_said():
    fast = Said(0, 2 * CLOCK, "esto va mucho más deprisa de lo que nadie puede leer aquí", "A")
    shown = cues([fast, Said(2 * CLOCK, 4 * CLOCK, fast.text, "B")], 5 * CLOCK, "es", Fraction(25))
    assert [cue.text.replace("\n", " ") for cue in shown] == [fast.text, fast.text]
    found = breaches(shown, "es", Fraction(25))
    assert {one.rule for one in found} == {"speed"}
    assert all(17 < one.value < 30 and one.bar == 17 for one in found)
    assert abs(shown[1].late) <= LATE


def test_a_long_line_is_shown_in_parts_of_its_sentences():
    text = ("The lighthouse keeper climbs the stairs every single evening, and from the top of the tower he looks "
            "for the ships that never come. Nobody knows why.")
    shown = cues([Said(0, 9 * CLOCK, text, "A")], 20 * CLOCK, "en", Fraction(25))
    assert " ".join(" ".join(cue.rows) for cue in shown) == text
    assert [cue.text[-1] for cue in shown] == [",", ".", "."]
    assert (shown[0].start, shown[-1].end) == (0, 9 * CLOCK)


def test_two_speakers_without_time_share_a_cue():
    shown = cues([Said(CLOCK, CLOCK * 5 // 4, "¡No!", "A"), Said(CLOCK * 5 // 4, CLOCK * 3 // 2, "¿Sí?", "B"),
                  Said(5 * CLOCK, 6 * CLOCK, "Claro.", "A")], 10 * CLOCK, "es", Fraction(25))
    assert [cue.text for cue in shown] == ["- ¡No!\n- ¿Sí?", "Claro."]
    assert breaches(shown, "es", Fraction(25)) == []


@pytest.mark.parametrize(("language", "text", "first"), [
    ("ja", "「行こう」と彼は言った。でも、誰も動かなかったのです。", "「行こう」と彼は言った。"),
    ("es", "Nadie sabe dónde está el barco, pero la luz del faro", "Nadie sabe dónde está el barco,"),
    ("th", "ก" * 60, "ก" * 35)])
def test_rows_are_broken_between_phrases(language, text, first):
    rows, = parted(text, rules_for(language))
    assert rows[0] == first


def test_marks_are_never_torn_from_their_letters():
    text = "q̣̇" * 100 + "👨‍👩‍👧" * 60
    rows = [row for cue in parted(plain(text), rules_for("es")) for row in cue]
    assert all(measure(row, rules_for("es")) <= 42 for row in rows)
    assert sum(row.count("👨‍👩‍👧") for row in rows) == 60
    assert all(row[0] in "q👨" for row in rows)


def test_lines_of_a_script_and_of_a_dub():
    nothing = Artifact(sha256="0" * 64, size=0, media_type="audio/flac")
    dubbed = SpokenLine(id="L0001", speaker="A", voice="v", text="Hola", audio=nothing, start=500, length=900,
                        slot=(400, 1500), planned=(400, 1300), natural=900, stretch=1)
    assert said([dubbed]) == [Said(400, 1400, "Hola", "A")]
    assert said([Line(id="L0001", start=5, end=9, text="Hi", speaker="B")]) == [Said(5, 9, "Hi", "B")]


# -- files, read by others --------------------------------------------------------------------------------------------

TRAPS = (Cue(CLOCK, 2 * CLOCK, "a < b && c > d\n{\\an8}<i>no</i> --> ya"), Cue(3 * CLOCK, 4 * CLOCK, "שלום C++\nab"))


def test_subrip_is_read_by_others():
    read = pysubs2.SSAFile.from_string(srt(TRAPS, "he"), format_="srt", keep_unknown_html_tags=True)
    assert [(one.start, one.end) for one in read] == [(1000, 2000), (3000, 4000)]
    assert read[0].plaintext == "\u2067a ‹ b && c › d\u2069\n\u2067(\\an8)‹i›no‹/i› --› ya\u2069"
    assert srt(TRAPS[1:], "es").count("\u2066") == 1  # the row that begins in Hebrew


def test_webvtt_is_read_by_others():
    read = list(webvtt.from_buffer(io.BytesIO(vtt(TRAPS, "es").encode())))
    assert [one.start + one.end for one in read] == ["00:00:01.00000:00:02.000", "00:00:03.00000:00:04.000"]
    assert read[0].raw_text == "a &lt; b &amp;&amp; c &gt; d\n{\\an8}&lt;i&gt;no&lt;/i&gt; --&gt; ya"


@pytest.mark.parametrize("rate", [*RATES, Fraction(25, 2)], ids=str)
def test_imsc_is_read_by_others_to_the_frame(rate):
    shown = tuple(Cue(frame_to_ticks(start, rate), frame_to_ticks(start + 40, rate), text.text)
                  for start, text in zip((7, 107), TRAPS, strict=True))
    document = imsc.to_model(ET.ElementTree(ET.fromstring(ttml(shown, "sr-Latn", rate, "A < B"))))
    assert document.get_lang() == "sr-Latn"
    paragraphs = [one for one in document.get_body().dfs_iterator() if type(one).__name__ == "P"]
    assert [(one.get_begin(), one.get_end()) for one in paragraphs] == [(7 / rate, 47 / rate), (107 / rate, 147 / rate)]
    converted = srt_writer.from_model(document)
    assert "a < b && c > d\n{\\an8}<i>no</i> --> ya" in converted.replace("&lt;", "<")


def test_right_to_left_documents_say_so():
    assert ttml(TRAPS, "ar", Fraction(25)).count('tts:direction="rtl"') == 2
    assert "tts:direction" not in ttml(TRAPS, "az-Latn", Fraction(25))
    assert 'tts:direction="rtl"' in ttml(TRAPS, "az-Arab", Fraction(25))


def test_breaches_name_what_is_wrong():
    bad = [Cue(0, CLOCK, "x" * 50), Cue(CLOCK, CLOCK + CLOCK // 10, "a\nb\nc"), Cue(3 * CLOCK + 777, 12 * CLOCK, "hola",
                                                                                    late=CLOCK)]
    found = {(one.rule, one.at) for one in breaches(bad, "es", Fraction(25))}
    assert found == {("width", 0), ("speed", 0), ("gap", 0), ("rows", CLOCK), ("shortest", CLOCK), ("frames", CLOCK),
                     ("speed", CLOCK), ("longest", 3 * CLOCK + 777), ("frames", 3 * CLOCK + 777),
                     ("sync", 3 * CLOCK + 777)}
    assert ROWS == 2
