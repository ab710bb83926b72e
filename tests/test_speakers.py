from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.ports import Samples, Turn
from models.records import EngineRef, Line, Speaker, Transcript, Word
from models.timebase import CLOCK
from tasks.media import read_audio, write_flac
from tasks.speakers import SpeakersRequest, _labelled, find_speakers, pitches
from tasks.step import Work, perform
from tasks.transcribe import TranscribeRequest, transcribe
from tests.embedded import EXAMPLES, cache, engine

REF = EngineRef(name="ge2e")


class Given:
    """A diarizer that answers what it is told to, and notes the spans."""

    def __init__(self, *turns: tuple[float, float, str]) -> None:
        self.turns, self.spans = tuple(Turn(*turn) for turn in turns), list[tuple[float, float]]()

    def diarize(self, samples: Samples, speech: Sequence[tuple[float, float]]) -> tuple[Turn, ...]:
        self.spans = list(speech)
        return self.turns

    def embed(self, stretches: Sequence[Samples]) -> NDArray[np.float32]:
        """Loudness and length, of length 1: enough to see which stretches were looked at."""
        both = np.array([[np.sqrt(np.mean(part ** 2)), len(part) / 160_000] for part in stretches], np.float32)
        return both / np.linalg.norm(both, axis=1, keepdims=True)


def line(number: int, start: float, text: str, pace: float = 0.5, speaker: str = "", words: bool = True) -> Line:
    """Words of half a second each, one after the other."""
    timed = tuple(Word(text=t, start=round((start + i * pace) * CLOCK), end=round((start + (i + 1) * pace) * CLOCK))
                  for i, t in enumerate(text.split()))
    return Line(id=f"L{number:04d}", start=timed[0].start, end=timed[-1].end, text=text, speaker=speaker,
                words=timed if words else ())


def told_apart(work: Work, lines: list[Line], *turns: tuple[float, float, str], samples: Samples | None = None,
               speakers: tuple[Speaker, ...] = ()) -> Transcript:
    path = work.scratch / "a.flac"
    write_flac(path, np.zeros(12 * CLOCK, np.float32) if samples is None else samples)
    work.engines.by_port["diarizer"] = Given(*turns)
    request = SpeakersRequest(audio=work.store.put_file(path, "audio/flac"), diarizer=REF,
                              transcript=Transcript(language="en", lines=tuple(lines), speakers=speakers))
    return perform(work, find_speakers, request)


def shown(transcript: Transcript) -> list[tuple[str, str, str]]:
    return [(line.id, line.speaker, line.text) for line in transcript.lines]


# -- who says what ----------------------------------------------------------------------------------------------------


def test_lines_take_the_speaker_of_their_turn(work: Work) -> None:
    found = told_apart(work, [line(1, 0, "Who is there?"), line(2, 3, "It is me.")], (0, 1.5, "A"), (3, 4.5, "B"))
    assert shown(found) == [("L0001", "A", "Who is there?"), ("L0002", "B", "It is me.")]
    assert [s.id for s in found.speakers] == ["A", "B"]


def test_line_is_split_where_the_speaker_changes(work: Work) -> None:
    found = told_apart(work, [line(1, 0, "Who are you? I am Daniel. Good.")],
                       (0, 1.5, "A"), (1.5, 3.0, "B"), (3.0, 3.5, "A"))
    assert shown(found) == [("L0001a", "A", "Who are you?"), ("L0001b", "B", "I am Daniel."), ("L0001c", "A", "Good.")]
    assert [(part.start, part.end) for part in found.lines] == [
        (0, 72_000), (72_000, 144_000), (144_000, 168_000)]
    assert all(part.words[0].start == part.start and part.words[-1].end == part.end for part in found.lines)


def test_turn_that_cuts_into_a_sentence_does_not_split_it(work: Work) -> None:
    found = told_apart(work, [line(1, 0, "This is quite a long sentence here.")], (0, 2.9, "A"), (2.9, 3.5, "B"))
    assert shown(found) == [("L0001", "A", "This is quite a long sentence here.")]


def test_two_voices_in_one_breath_are_split_when_both_speak_long_enough(work: Work) -> None:
    found = told_apart(work, [line(1, 0, "one two three four five six")], (0, 1.5, "A"), (1.5, 3.0, "B"))
    assert shown(found) == [("L0001a", "A", "one two three"), ("L0001b", "B", "four five six")]


def test_diarizer_hears_of_sentences_and_pauses(work: Work) -> None:
    told_apart(work, [line(1, 0, "Hello. It is me."), line(2, 4, "no words here", words=False)], (0, 6, "A"))
    assert work.engines.by_port["diarizer"].spans == [(0, 0.5), (0.5, 2.0), (4.0, 5.5)]


def test_line_without_words_is_not_split(work: Work) -> None:
    found = told_apart(work, [line(1, 0, "Who are you? I am.", words=False)], (0, 1.4, "A"), (1.4, 2.5, "B"))
    assert shown(found) == [("L0001", "A", "Who are you? I am.")]


def test_line_under_no_turn_takes_the_nearest_voice(work: Work) -> None:
    found = told_apart(work, [line(1, 0, "One."), line(2, 5, "Two."), line(3, 6, "Three.")],
                       (0, 0.5, "A"), (6, 6.5, "B"))
    assert [part.speaker for part in found.lines] == ["A", "B", "B"]


def test_without_any_turn_there_is_one_speaker(work: Work) -> None:
    assert [part.speaker for part in told_apart(work, [line(1, 0, "One."), line(2, 5, "Two.")]).lines] == ["A", "A"]


def test_names_go_by_appearance_whatever_the_engine_calls_them(work: Work) -> None:
    found = told_apart(work, [line(1, 0, "One."), line(2, 5, "Two.")], (0, 0.5, "SPEAKER_07"), (5, 5.5, "SPEAKER_01"))
    assert [part.speaker for part in found.lines] == ["A", "B"]


def test_given_speakers_are_kept_and_only_measured(work: Work) -> None:
    t = np.arange(3 * CLOCK) / CLOCK
    tone = np.concatenate([np.sign(np.sin(2 * np.pi * f * t)) * 0.1 for f in (110, 220)]).astype(np.float32)
    found = told_apart(work, [line(1, 0, "a b c d e f", speaker="Anna"), line(2, 3, "a b c d e f", speaker="Ben")],
                       samples=tone, speakers=(Speaker(id="Anna", name="Anna K."), Speaker(id="Ben", name="Ben")))
    assert work.engines.by_port["diarizer"].spans == []
    assert [(s.id, s.name) for s in found.speakers] == [("Anna", "Anna K."), ("Ben", "Ben")]
    assert [s.pitch_hz for s in found.speakers] == pytest.approx([110, 220], rel=0.03)


def test_given_names_spread_to_lines_of_the_same_voice(work: Work) -> None:
    lines = [line(1, 0, "One.", speaker="Anna"), line(2, 2, "Two."), line(3, 4, "Three.")]
    found = told_apart(work, lines, (0, 0.5, "A"), (2, 2.5, "B"), (4, 4.5, "A"), speakers=(Speaker(id="Anna"),))
    assert [part.speaker for part in found.lines] == ["Anna", "A", "Anna"]


def test_empty_transcript_stays_empty(work: Work) -> None:
    assert told_apart(work, []).lines == ()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 4), st.sampled_from("XYZ")), max_size=12),
       st.lists(st.sampled_from(["So it goes on.", "No.", "One two three four five six"]), min_size=1, max_size=5))
def test_any_turns_keep_every_word_in_order(turns: list[tuple[float, float, str]], texts: list[str]) -> None:
    lines = [line(n, 4.0 * n, text) for n, text in enumerate(texts)]
    found = _labelled(lines, [Turn(a, a + n, who) for a, n, who in turns])
    assert [w for part in found for w in part.words] == [w for whole in lines for w in whole.words]
    assert len({part.id for part in found}) == len(found)
    assert sorted(part.id for part in found) == [part.id for part in found]
    assert all(part.speaker for part in found)


# -- pitch ------------------------------------------------------------------------------------------------------------


def buzz(hertz: float, seconds: float = 1.0) -> Samples:
    """A voice-like tone: harmonics that fall off, its pitch swaying a little."""
    t = np.arange(int(16_000 * seconds)) / 16_000
    phase = 2 * np.pi * hertz * t + 0.5 * np.sin(2 * np.pi * 5 * t)
    return np.asarray(0.1 * sum(np.sin(k * phase) / k for k in range(1, 12)), np.float32)


@pytest.mark.parametrize("hertz", [75, 100, 120, 160, 210, 260, 330])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_pitch_of_a_voice(hertz: float, noise: float) -> None:
    samples = buzz(hertz) + np.random.default_rng(0).normal(0, noise, 16_000).astype(np.float32)
    assert np.median(pitches(samples)) == pytest.approx(hertz, rel=0.03)


def test_noise_and_silence_have_no_pitch() -> None:
    assert len(pitches(np.zeros(16_000, np.float32))) == 0
    assert len(pitches(np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32))) == 0
    assert len(pitches(np.zeros(10, np.float32))) == 0


# -- the example ------------------------------------------------------------------------------------------------------


@pytest.mark.models
def test_example_has_its_two_speakers(work: Work) -> None:
    work.engines = cache("whisper-base", "ge2e")
    path = work.scratch / "a.flac"
    write_flac(path, read_audio(EXAMPLES / "harbor-lights-s01e01.mp4", channels=None))
    audio = work.store.put_file(path, "audio/flac")
    _, recognizer = engine("recognizer", "faster-whisper", "whisper-base")
    heard = perform(work, transcribe, TranscribeRequest(audio=audio, language="en", recognizer=recognizer))
    _, diarizer = engine("diarizer", "ge2e", "ge2e")
    found = perform(work, find_speakers, SpeakersRequest(audio=audio, transcript=heard, diarizer=diarizer))
    truth = json.loads((EXAMPLES / "harbor-lights-s01e01.truth.json").read_text())
    names = {"clara": "A", "daniel": "B"}
    total = right = 0.0
    for said in truth["utterances"]:
        for sentence in said["sentences"]:
            start, end = sentence["start_s"], sentence["end_s"]
            total += end - start
            right += sum(max(0.0, min(end, part.end / CLOCK) - max(start, part.start / CLOCK))
                         for part in found.lines if part.speaker == names[said["speaker"]])
    assert right >= 0.9 * total
    pitch = {s.id: s.pitch_hz or 0.0 for s in found.speakers}
    assert set(pitch) == {"A", "B"}
    assert 160 < pitch["A"] < 260
    assert 80 < pitch["B"] < 150
