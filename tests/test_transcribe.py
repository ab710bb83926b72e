from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InputError
from models.ports import HeardSegment, HeardWord, Recognition, Samples
from models.records import EngineRef, Line, Speaker, Transcript, Word
from models.timebase import CLOCK, timecode
from models.wording import word_errors
from tasks import lines as dubbing
from tasks import transcribe as module
from tasks.media import read_audio, write_flac
from tasks.step import Work, perform
from tasks.subtitles import read_cues, to_transcript
from tasks.transcribe import TranscribeRequest, TranscriptFileRequest, read_transcript, transcribe
from tests.embedded import EXAMPLES, cache, engine

REF = EngineRef(name="faster-whisper")
SECOND = CLOCK


def word(text: str, start: float, end: float, probability: float = 0.95) -> HeardWord:
    return HeardWord(text, start, end, probability)


def said(text: str, start: float = 0.0, pace: float = 0.3, gap: float = 0.0) -> list[HeardWord]:
    return [word(t, start + i * (pace + gap), start + i * (pace + gap) + pace) for i, t in enumerate(text.split())]


def segment(text: str, start: float, end: float, probability: float = 0.9, **figures: float) -> HeardSegment:
    texts = text.split()
    pace = (end - start) / max(1, len(texts))
    words = tuple(word(t, start + i * pace, start + (i + 1) * pace, probability) for i, t in enumerate(texts))
    return replace(HeardSegment(text, start, end, words), **figures)


def voice(*spans: tuple[float, float], length: float, bed: float = 0.002) -> Samples:
    """Buzzing voices in `spans` (s) over faint noise, 16 kHz."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0, bed, int(length * 16_000))
    for start, end in spans:
        t = np.arange(int((end - start) * 16_000)) / 16_000
        samples[int(start * 16_000):int(start * 16_000) + len(t)] += 0.2 * np.sign(np.sin(2 * np.pi * 120 * t))
    return samples.astype(np.float32)


class Given:
    """A recognizer that hears what it is told to, and notes what it was asked."""

    def __init__(self, *answers: Recognition) -> None:
        self.answers, self.asked = list(answers), list[tuple[int, str | None]]()

    def recognize(self, samples: Samples, language: str | None) -> Recognition:
        self.asked.append((len(samples), language))
        return self.answers.pop(0) if self.answers else Recognition("", 0.0, ())


def transcribed(work: Work, samples: Samples, *answers: Recognition, language: str | None = "en") -> Transcript:
    path = work.scratch / "a.flac"
    write_flac(path, np.repeat(samples, 3))
    work.engines.by_port["recognizer"] = Given(*answers)
    audio = work.store.put_file(path, "audio/flac")
    return perform(work, transcribe, TranscribeRequest(audio=audio, language=language, recognizer=REF))


# -- edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [-0.15, -0.05, 0.0, 0.05, 0.12])
@pytest.mark.parametrize("bed", [0.0, 0.002, 0.01])
def test_edges_move_to_the_sound(error: float, bed: float) -> None:
    curve = dubbing.level(voice((0.5, 0.9), (1.6, 2.0), length=3.0, bed=bed))
    yes, no = dubbing.settle([word("Yes.", 0.5 + error, 0.9 - abs(error)), word("No.", 1.6 + error, 2.0)], curve)
    assert (yes.start, yes.end) == pytest.approx((0.5, 0.9), abs=0.03)
    assert (no.start, no.end) == pytest.approx((1.6, 2.0), abs=0.03)


def test_word_that_swallowed_a_pause_begins_where_it_is_heard() -> None:
    curve = dubbing.level(voice((0.2, 0.8), (2.5, 2.9), length=4.0))
    _, two = dubbing.settle([word("One.", 0.2, 0.8), word("Two.", 0.9, 2.9)], curve)
    assert two.start == pytest.approx(2.5, abs=0.03)


def test_without_a_pause_nothing_moves() -> None:
    words = [word("one,", 0.3, 0.7), word("two,", 0.7, 1.1), word("three,", 1.1, 1.5)]
    settled = dubbing.settle(words, dubbing.level(voice((0.0, 2.0), length=2.0)))
    assert [w.start for w in settled] == [w.start for w in words]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1.5), st.floats(0, 1.5)), min_size=1, max_size=12), st.integers(0, 3))
def test_settled_words_are_in_order_and_not_empty(gaps: list[tuple[float, float]], seed: int) -> None:
    at, words = 0.0, []
    for gap, length in gaps:
        words.append(word("so.", at + gap, at + gap + length))
        at = words[-1].end
    noise = np.random.default_rng(seed).normal(0, 0.1, int(at * 16_000) + 100).astype(np.float32)
    settled = dubbing.settle(words, dubbing.level(noise))
    edges = [t for w in settled for t in (w.start, w.end)]
    assert edges == sorted(edges)
    assert all(w.end - w.start > 0.01 for w in settled)


# -- lines ------------------------------------------------------------------------------------------------------------


def texts(groups: list[list[HeardWord]]) -> list[str]:
    return [" ".join(w.text for w in line) for line in groups]


def test_sentences_with_short_pauses_are_one_line() -> None:
    words = said("Good morning. My name is Clara.") + said("I live here.", start=2.2)
    assert texts(dubbing.group(words)) == ["Good morning. My name is Clara. I live here."]


def test_pause_after_a_sentence_begins_a_line() -> None:
    words = said("Good morning.") + said("I live here.", start=0.6 + 0.7)
    assert texts(dubbing.group(words)) == ["Good morning.", "I live here."]


def test_sentence_goes_on_over_a_short_pause_but_not_over_a_long_one() -> None:
    assert len(dubbing.group(said("I think that") + said("you are right.", start=0.9 + 0.8))) == 1
    assert len(dubbing.group(said("I think that") + said("you are right.", start=0.9 + 1.2))) == 2


def test_lines_end_before_they_grow_too_long() -> None:
    words = said("One two three four. " * 12, pace=0.25)
    lines = dubbing.group(words)
    assert len(lines) == 2
    assert all(line[-1].end - line[0].start <= dubbing.LONGEST_LINE for line in lines)
    assert all(line[-1].text == "four." for line in lines)


def test_long_sentence_is_cut_at_its_commas() -> None:
    words = said("and so we went on, " * 10, pace=0.3)
    assert all(line[-1].text == "on," for line in dubbing.group(words))
    assert all(line[-1].end - line[0].start <= dubbing.LONGEST_LINE for line in dubbing.group(words))


@pytest.mark.parametrize("text", ["Mr. Smith went home.", "It costs 3.50 euros.", "J. R. Smith is here.",
                                  "He said ... nothing."])
def test_dots_within_a_sentence_do_not_end_it(text: str) -> None:
    words = said(text) + said("Next one.", start=len(text.split()) * 0.3)
    assert len(list(dubbing._sentences(words))) == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["so", "yes,", "well.", "no!", "and"]), st.floats(0, 2), st.floats(0.05, 2)),
                max_size=60))
def test_lines_hold_every_word_once_and_in_order(spec: list[tuple[str, float, float]]) -> None:
    at, words = 0.0, []
    for text, gap, length in spec:
        words.append(word(text, at + gap, at + gap + length))
        at = words[-1].end
    lines = dubbing.group(words)
    assert [w for line in lines for w in line] == words
    assert all(lines)
    assert all(line[-1].end - line[0].start <= dubbing.LONGEST_LINE for line in lines if len(line) > 3)


# -- guards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("doubtful", "reason"), [
    (segment("♪ ♪", 4, 5), "no words"),
    (segment("[Music] (applause)", 4, 5), "no words"),
    (segment("who is there", 4, 5, no_speech=0.9, log_probability=-1.2), "probably no speech"),
    (segment("who is there", 4, 5, log_probability=-1.8), "too uncertain"),
    (segment("who is there", 6, 7, 0.3), "nothing to hear"),
    (segment("Thanks for watching!", 4, 5, 0.3), "invent"),
])
def test_what_nobody_said_is_dropped_with_its_reason(doubtful: HeardSegment, reason: str) -> None:
    curve = dubbing.level(voice((0, 6), length=8, bed=1e-6))
    words, dropped = dubbing.keep_spoken([segment("I am really here", 0, 2), doubtful], curve)
    assert [w.text for w in words] == ["I", "am", "really", "here"]
    assert reason in dubbing.describe_dropped(*dropped[0], 60.0)
    assert dubbing.describe_dropped(*dropped[0], 60.0).startswith("00:01:0")


@pytest.mark.parametrize("spoken", [segment("Thank you for watching.", 1, 2), segment("Bye.", 1, 2),
                                    segment("I am (almost) sure", 1, 2), segment("no no no no", 1, 2),
                                    segment("hm", 1, 2, 0.3), segment("yes", 1, 2, no_speech=0.9)])
def test_what_was_said_is_kept(spoken: HeardSegment) -> None:
    words, dropped = dubbing.keep_spoken([spoken], dubbing.level(voice((0, 6), length=8)))
    assert words == list(spoken.words)
    assert dropped == []


def test_endless_repetition_is_said_once() -> None:
    curve = dubbing.level(voice((0, 20), length=20))
    words, dropped = dubbing.keep_spoken([segment("Well. " + "I don't know. " * 9 + "Really?", 0, 20)], curve)
    assert " ".join(w.text for w in words) == "Well. I don't know. Really?"
    assert "over and over" in dropped[0][1]


# -- the step ---------------------------------------------------------------------------------------------------------


def test_lines_have_ids_ticks_and_words(work: Work) -> None:
    heard = Recognition("en", 0.99, (segment("Hello there.", 0.5, 0.9), segment("Who are you?", 2.0, 3.0)))
    transcript = transcribed(work, voice((0.5, 0.9), (2.0, 3.0), length=4), heard)
    assert [(line.id, line.text, line.speaker) for line in transcript.lines] == [
        ("L0001", "Hello there.", ""), ("L0002", "Who are you?", "")]
    assert transcript.lines[1].start == pytest.approx(2 * SECOND, abs=0.03 * SECOND)
    assert [w.text for w in transcript.lines[1].words] == ["Who", "are", "you?"]
    assert transcript.lines[1].start == transcript.lines[1].words[0].start


def test_no_speech_gives_no_lines(work: Work) -> None:
    assert transcribed(work, np.zeros(16_000, np.float32)).lines == ()
    assert transcribed(work, np.zeros(32_000, np.float32), language=None).language == "und"


def test_language_is_found_out(work: Work) -> None:
    heard = Recognition("es", 0.7, (segment("¿Quién eres?", 0, 1),))
    assert transcribed(work, voice((0, 1), length=2), heard, language=None).language == "es"


@pytest.mark.parametrize(("given_tag", "heard_tag", "fine"), [
    ("en-GB", "en", True), ("nb", "no", True), ("zh-TW", "zh", True), ("es-419", "es", True), ("es", "en", False)])
def test_given_language_must_be_the_one_that_is_spoken(work: Work, given_tag: str, heard_tag: str, fine: bool) -> None:
    heard = Recognition(heard_tag, 0.98, (segment("one two three four five", 0, 1),))
    if fine:
        assert transcribed(work, voice((0, 1), length=2), heard, language=given_tag).language == given_tag
    else:
        with pytest.raises(InputError, match="English is spoken"):
            transcribed(work, voice((0, 1), length=2), heard, language=given_tag)


def test_given_language_is_believed_where_the_engine_is_unsure(work: Work) -> None:
    heard = Recognition("en", 0.6, (segment("one two three four five", 0, 1),))
    assert transcribed(work, voice((0, 1), length=2), heard, language="gl").language == "gl"


def test_languages_without_spaces_are_joined_without(work: Work) -> None:
    heard = Recognition("ja", 0.9, (segment("これ は 本 です。", 0, 1),))
    assert transcribed(work, voice((0, 1), length=2), heard, language="ja").lines[0].text == "これは本です。"


def test_long_sound_is_recognised_in_pieces_cut_in_silence(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 4 * 16_000)
    monkeypatch.setattr(module, "SEAM", 2 * 16_000)
    samples = voice((0, 2.4), (3.1, 5.9), length=6, bed=1e-4)
    first = Recognition("en", 0.9, (segment("One.", 0.0, 2.4),))
    second = Recognition("en", 0.9, (segment("Two.", 0.35, 3.15),))
    transcript = transcribed(work, samples, first, second, language=None)
    asked = work.engines.by_port["recognizer"].asked
    assert 2.4 * 16_000 < asked[0][0] < 3.1 * 16_000
    assert sum(count for count, _ in asked) == len(samples)
    assert [language for _, language in asked] == [None, "en"]
    assert transcript.lines[1].start == pytest.approx(3.1 * SECOND, abs=0.03 * SECOND)


def test_request_decides_the_recipe_and_a_second_run_reuses(work: Work) -> None:
    heard = Recognition("en", 0.9, (segment("Hello.", 0, 1),))
    first = transcribed(work, voice((0, 1), length=2), heard)
    assert transcribed(work, voice((0, 1), length=2)) == first


@pytest.mark.models
@pytest.mark.parametrize("episode", ["harbor-lights-s01e01", "harbor-lights-s01e02"])
def test_example_is_heard_as_it_was_made(work: Work, episode: str) -> None:
    work.engines = cache("whisper-base")
    path = work.scratch / "a.flac"
    write_flac(path, read_audio(EXAMPLES / f"{episode}.mp4", channels=None))
    request = TranscribeRequest(audio=work.store.put_file(path, "audio/flac"), language="en",
                                recognizer=engine("recognizer", "faster-whisper", "whisper-base")[1])
    transcript = perform(work, transcribe, request)
    truth = json.loads((EXAMPLES / f"{episode}.truth.json").read_text())
    wanted = " ".join(u["text"] for u in truth["utterances"])
    assert word_errors(wanted, " ".join(line.text for line in transcript.lines), "en").rate <= 0.08
    onsets = np.array([s["start_s"] for u in truth["utterances"] for s in u["sentences"]])
    assert all(np.abs(onsets - line.start / SECOND).min() <= 0.06 for line in transcript.lines)
    assert all(line.end - line.start <= 8 * SECOND for line in transcript.lines)


# -- given transcripts ------------------------------------------------------------------------------------------------


def given_file(work: Work, data: bytes, kind: Any = "srt", language: str = "en",
               length: int = 60 * SECOND) -> Transcript:
    file = work.store.put_bytes(data, "text/plain")
    request = TranscriptFileRequest(file=file, format=kind, language=language, length=length)
    return perform(work, read_transcript, request)


SRT = """1
00:00:01,000 --> 00:00:02,500
Good morning.

2
00:00:03,000 --> 00:00:04,000
My name
is Clara.
"""


def test_srt_becomes_lines(work: Work) -> None:
    lines = given_file(work, SRT.encode()).lines
    assert [(line.id, line.start, line.end, line.text) for line in lines] == [
        ("L0001", SECOND, 5 * SECOND // 2, "Good morning."), ("L0002", 3 * SECOND, 4 * SECOND, "My name is Clara.")]


@pytest.mark.parametrize("encode", [
    lambda t: t.encode("utf-8-sig"), lambda t: t.encode("utf-16"), lambda t: t.encode("cp1252"),
    lambda t: t.replace("\n", "\r\n").encode(), lambda t: t.replace("\n", "\r").encode("latin-1"),
    lambda t: t.replace("\n\n", "\n").encode(), lambda t: t.replace("\n\n", "\n\n\n\n").encode(),
    lambda t: "\n".join(line for line in t.split("\n") if not line.isdigit()).encode(),
    lambda t: re.sub(r"(\d),(\d)", r"\1.\2", t).encode(), lambda t: t.replace("00:00:0", "0:0:0").encode(),
    lambda t: t.replace("--> 00:00:02,500", "--> 00:00:02,500 X1:100 X2:200").encode()])
def test_srt_from_the_wild_reads_the_same(encode: Any) -> None:
    text = SRT.replace("Good morning.", "¡Buenos días, señor!")
    wanted = read_cues(text.encode(), "srt", "x.srt")
    assert [(c.start, c.end, c.text) for c in read_cues(encode(text), "srt", "x.srt")] == [
        (c.start, c.end, c.text) for c in wanted]


VTT = """WEBVTT - a title

STYLE
::cue { color: red }

NOTE to self
00:00 is not a time

intro
00:01.000 --> 00:02.500 align:start position:10%
<v.loud Anna Smith>Good <i>morning</i>.</v>

00:00:03.000 --> 00:00:04.000
Rock &amp; roll<00:00:03.500><c> now</c>

01:00:00.000 --> 01:00:01.000
far away
"""


def test_vtt_has_speakers_styles_notes_and_short_times() -> None:
    cues = read_cues(VTT.encode(), "vtt", "x.vtt")
    assert [(c.start, c.text, c.speaker) for c in cues] == [
        (SECOND, "Good morning.", "Anna Smith"), (3 * SECOND, "Rock & roll now", ""), (3600 * SECOND, "far away", "")]


@pytest.mark.parametrize(("text", "plain", "speaker"), [
    (r"{\an8}Look <b>up</b>!", "Look up!", ""), (r"one\Ntwo\hthree", "one two three", ""),
    ("JOHN: Come here.", "Come here.", "John"), ("MRS. O'NEIL: Yes.", "Yes.", "Mrs. O'Neil"),
    ("Note: this stays", "Note: this stays", ""), ("[door creaks] Who is there?", "Who is there?", ""),
    ("(sighs)", "", ""), ("♪ la la la ♪", "", ""), ("- Hi.", "Hi.", ""), ("\u200eHi\u00a0there\ufeff", "Hi there", ""),
    ("5 < 6 and 7 > 3", "5 < 6 and 7 > 3", ""), ("<font color=\"#fff\">white</font>", "white", ""),
    ("e\u0301tude", "étude", ""), ("...", "", "")])
def test_texts_are_cleaned(text: str, plain: str, speaker: str) -> None:
    cue, = read_cues(f"1\n00:00:01,000 --> 00:00:02,000\n{text}\n".encode(), "srt", "x.srt")
    assert (cue.text, cue.speaker) == (plain, speaker)


def test_two_dashes_are_two_speakers() -> None:
    one, two = read_cues(b"1\n00:00:01,000 --> 00:00:04,000\n- Who?\n- Me, of course.\n", "srt", "x.srt")
    assert (one.text, two.text) == ("Who?", "Me, of course.")
    assert one.start < one.end == two.start < two.end == 4 * SECOND


@pytest.mark.parametrize(("data", "kind", "message"), [
    (b"1\n00:00:01,000 --> soon\nHi\n", "srt", "line 2: not a pair of times"),
    (b"1\n00:00:01,000 to 00:00:02,000\nHi\n", "srt", "has no line such as"),
    (b"\n\n1\n00:00:05,000 --> 00:00:01,000\nHi\n", "srt", "line 4: ends before it starts"),
    (b"1\n00:61:05,000 --> 00:62:01,000\nHi\n", "srt", "line 2: .*more than 59"),
    (b"1\n00:00:05,000 --> 00:00:06,000\n" + b"blah " * 900, "srt", "line 2: has .* characters"),
    (b"\x7fELF\0\0\0", "srt", "not a text file"),
    (b"just some words", "vtt", "has no line such as"),
    (b"{", "json", "not JSON"), (b"[" * 100_000, "json", "not JSON"), (b'{"a": 1}', "json", "neither a list"),
    (b'[{"start": 1, "end": 2}]', "json", "item 1: has no text"),
    (b'[{"start": "1", "end": 2, "text": "a"}]', "json", "item 1, start: '1' is not a time"),
    (b'[{"start": 1, "end": NaN, "text": "a"}]', "json", "item 1, end: nan"),
    (b'[{"start": 3, "end": 2, "text": "a"}]', "json", "item 1: ends before"),
    (b'[{"start": -3, "end": 2, "text": "a"}]', "json", "-3 is not a time"),
    (b'{"language": "???", "lines": []}', "json", "'[?]{3}' is not a BCP-47"),
    (b'{"language": "en", "lines": [{"id": "L0001", "start": 0, "end": 1, "text": "x", "language": "e n"}]}', "json",
     "'e n' is not a BCP-47"),
    (b'{"language": "en", "lines": [{"id": "7", "start": 0, "end": 1, "text": ""}]}', "json", "lines.0.id"),
])
def test_what_cannot_be_used_is_named_with_its_line(work: Work, data: bytes, kind: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        given_file(work, data, kind)


def transcript_of(*cues: tuple[float, float, str], length: float = 60) -> Transcript:
    body = "\n\n".join(f"{timecode(round(a * SECOND), mark=',')} --> {timecode(round(b * SECOND), mark=',')}\n{text}"
                       for a, b, text in cues)
    return to_transcript(read_cues(body.encode(), "srt", "x.srt"), "en", round(length * SECOND), "x.srt")


def spans(transcript: Transcript) -> list[tuple[float, float, str]]:
    return [(line.start / SECOND, line.end / SECOND, line.text) for line in transcript.lines]


def test_order_overlap_and_no_length_are_mended() -> None:
    assert spans(transcript_of((5, 7, "second"), (1, 6, "first"), (8, 8, "third"), (9, 10, "last"))) == [
        (1, 5, "first"), (5, 7, "second"), (8, 9, "third"), (9, 10, "last")]


def test_overlap_of_two_people_stays() -> None:
    assert spans(transcript_of((1, 4, "ANNA: Wait!"), (3, 5, "BEN: No."))) == [(1, 4, "Wait!"), (3, 5, "No.")]


def test_same_text_twice_counts_once() -> None:
    assert spans(transcript_of((1, 2, "Hi"), (1, 2, "Hi"))) == [(1, 2, "Hi")]


def test_ends_beyond_the_episode_are_cut_and_a_few_cues_dropped() -> None:
    said = [(i, i + 1, f"line {i}") for i in range(19)]
    found = transcript_of(*said, (19, 25, "the end"), (30, 31, "credits"), length=20)
    assert spans(found)[-1] == (19, 20, "the end")
    assert "after the episode's end" in found.dropped[0]


def test_another_cut_is_refused() -> None:
    with pytest.raises(InputError, match="another cut"):
        transcript_of((1, 2, "a"), (30, 31, "b"), (40, 41, "c"), length=20)


def test_what_has_no_words_is_dropped_with_its_line() -> None:
    assert transcript_of((1, 2, "[music]"), (3, 4, "Hi")).dropped == ("00:00:01.000 line 1: no words",)


def test_names_become_speakers_in_order_of_appearance() -> None:
    found = transcript_of((1, 2, "ANNA: Hi."), (3, 4, "BEN: Hi."), (5, 6, "ANNA: Well."))
    assert [s.id for s in found.speakers] == ["Anna", "Ben"]
    assert [line.speaker for line in found.lines] == ["Anna", "Ben", "Anna"]


def test_own_transcript_comes_back_as_it_is(work: Work) -> None:
    own = Transcript(language="en", speakers=(Speaker(id="A", name="Anna"),), lines=(
        Line(id="L0004a", start=10, end=SECOND, text="Hi.", speaker="A", words=(Word(text="Hi.", start=10, end=20),)),))
    assert given_file(work, own.model_dump_json().encode(), "json") == own
    with pytest.raises(InputError, match="is in 'en'"):
        given_file(work, own.model_dump_json().encode(), "json", language="de")
    with pytest.raises(InputError, match="L0004a"):
        given_file(work, own.model_dump_json().encode(), "json", length=100)


def test_lists_and_whisper_json_are_read(work: Work) -> None:
    items = [{"start": 1.0, "end": 2.5, "text": "Hi all.", "speaker": "B",
              "words": [{"word": " Hi", "start": 1, "end": 1.5}]}]
    for value in (items, {"segments": items, "language": "en"}):
        line, = given_file(work, json.dumps(value).encode(), "json").lines
        assert (line.start, line.speaker) == (SECOND, "B")
        assert line.words == (Word(text="Hi", start=SECOND, end=3 * SECOND // 2),)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 100), st.text("abc é?.<&-", min_size=1, max_size=20)),
                min_size=1, max_size=20))
def test_any_cues_make_a_transcript_in_order_within_the_episode(cues: list[tuple[int, int, str]]) -> None:
    found = transcript_of(*((a / 10, (a + n) / 10, text) for a, n, text in cues), length=95)
    starts = [line.start for line in found.lines]
    assert starts == sorted(starts)
    assert all(0 <= line.start < line.end <= 95 * SECOND for line in found.lines)
    assert all(a.end <= b.start for a, b in zip(found.lines, found.lines[1:], strict=False))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["srt", "vtt", "json"]))
def test_any_bytes_are_read_or_refused(data: bytes, kind: Any) -> None:
    with suppress(InputError):
        read_cues(data, kind, "x")
