"""Voicing and fitting: casting, what is done anew, onsets, and cutting a finished track."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import EngineError, InputError
from models.fit import EASY, FASTEST, GAP, MAX_SHIFT, SLOWEST
from models.onset import audible_span, spoken_spans, trim
from models.ports import Samples, Voice
from models.records import (
    Candidate,
    EngineRef,
    KeptLine,
    Line,
    Speaker,
    Speech,
    Transcript,
    TranslatedLine,
    Translation,
)
from models.timebase import CLOCK, ticks
from tasks.casting import cast_voices
from tasks.media import FlacWriter, read_audio, write_flac
from tasks.step import Work, perform
from tasks.synthesize import DialogueRequest, SynthesizeRequest, read_dialogue, synthesize
from tests.fakes import tone

LENGTH = 20 * CLOCK
RATE = 24_000
SPEAKERS = (Speaker(id="A", name="Clara", pitch_hz=210), Speaker(id="B", name="Daniel", pitch_hz=120))


class Engine:
    """Buzzes for a tenth of a second per character, between silences."""

    sample_rate = RATE

    def __init__(self, *, mute: str = "", takes: Mapping[str, float] | None = None) -> None:
        self.mute, self.takes, self.said = mute, takes or {}, list[tuple[str, str]]()

    def voices(self, language: str) -> tuple[Voice, ...]:
        return tuple(Voice(name, language, gender) for name, gender in
                     (("ana", "female"), ("eva", "female"), ("bob", "male"))) if language == "es" else ()

    def weights_of(self, voice: str) -> frozenset[str]:
        return frozenset({"model", f"{voice}.bin"})

    def speak(self, text: str, voice: str, language: str, speed: float = 1.0) -> Samples:
        if voice not in {"ana", "eva", "bob"}:
            raise InputError(f"no voice {voice!r}", hint="There are: ana, eva, bob")
        self.said.append((text, voice))
        quiet = np.zeros(RATE // 4, np.float32)
        voice = tone(self.takes.get(text, len(text) / 10), 200.0, RATE)
        return np.concatenate([quiet, voice * (text != self.mute), quiet])


def line(number: int, start: float, end: float, speaker: str = "A") -> Line:
    return Line(id=f"L{number:04d}", start=ticks(start), end=ticks(end), text="source", speaker=speaker)


LINES = (line(1, 1.0, 2.0), line(2, 3.0, 4.0, "B"), line(3, 4.2, 5.0), line(4, 10.0, 11.0))
TEXTS = ("x" * 10, "y" * 12, "z" * 20, "w" * 9)


def translation(*texts: str, **flags: tuple[str, ...]) -> Translation:
    return Translation(language="es", lines=tuple(
        TranslatedLine(id=f"L{n:04d}", text=text, flags=flags.get(f"L{n:04d}", ()))
        for n, text in enumerate(texts, 1)))


def run(work: Work, texts: tuple[str, ...] = TEXTS, engine: Engine | None = None, **fields: Any) -> Speech:
    weights = fields.pop("weights", {})
    work.engines.by_port["synthesizer"] = engine or Engine()  # type: ignore[attr-defined]
    return perform(work, synthesize, SynthesizeRequest(
        transcript=Transcript(language="en", lines=fields.pop("lines", LINES), speakers=SPEAKERS),
        translation=fields.pop("translation", translation(*texts)), synthesizer=EngineRef(name="fake", weights=weights),
        length=LENGTH, **fields))


def sound(work: Work, spoken: Any) -> Samples:
    return read_audio(work.store.path(spoken.audio))


# -- fitting ----------------------------------------------------------------------------------------------------------


def test_every_line_begins_with_its_source_and_its_sound_at_once(work):
    speech = run(work)
    assert [spoken.id for spoken in speech.lines] == ["L0001", "L0002", "L0003", "L0004"]
    for spoken, source in zip(speech.lines, LINES, strict=True):
        assert spoken.start == source.start
        samples = sound(work, spoken)
        assert len(samples) == spoken.length
        first, last = audible_span(samples, CLOCK)
        assert first <= ticks(0.01)
        assert len(samples) - last <= ticks(0.03)


def test_slot_stretch_and_overflow_are_reported(work):
    first, second, third, fourth = run(work).lines
    assert first.natural == pytest.approx(ticks(1.0), abs=ticks(0.02))
    assert (first.stretch, first.overflow, first.flags) == (1.0, 0, ())
    assert second.slot == (ticks(3.0), ticks(4.2) - GAP)
    assert 1.1 < second.stretch <= FASTEST
    assert second.start + second.length == second.slot[1]
    assert third.slot == (ticks(4.2), ticks(10.0) - GAP)
    assert third.stretch == 1.0
    assert SLOWEST < fourth.stretch < 0.93
    assert fourth.length == ticks(1.0)
    assert all(spoken.voice for spoken in (first, second, third, fourth))


def test_what_does_not_fit_is_flagged_and_a_speaker_never_overlaps_himself(work):
    lines = (line(1, 1.0, 2.0), line(2, 2.1, 3.0), line(3, 3.1, 4.0, "B"))
    first, second, third = run(work, ("x" * 30, "y" * 20, "z" * 5), lines=lines).lines
    assert second.start == ticks(2.1) + MAX_SHIFT
    assert first.start + first.length == second.start
    assert [flag.split(":")[0] for flag in first.flags] == ["overflow", "cut"]
    assert [flag.split(":")[0] for flag in second.flags] == ["overflow"]
    assert second.start + second.length > third.start
    assert abs(sound(work, first)[-1]) < 0.01


def test_the_share_of_a_line_in_which_the_dub_speaks_is_reported(work):
    whole, half = run(work, ("x" * 10, "y" * 5), lines=LINES[:2]).lines
    assert whole.coverage == pytest.approx(1, abs=0.02)
    assert half.coverage == pytest.approx(0.5, abs=0.02)


def test_a_line_without_room_is_named_on_its_neighbour(work):
    lines = tuple(line(n, 1.0, 2.0) for n in (1, 2, 3))
    speech = run(work, ("x" * 10,) * 3, lines=lines)
    assert [spoken.id for spoken in speech.lines] == ["L0001", "L0003"]
    assert speech.lines[1].flags == ("left out: there is no room for L0002",)


def test_warnings_of_the_translation_stay_with_the_line(work):
    assert run(work, translation=translation(*TEXTS, L0002=("glossary: a → b is missing",))).lines[1].flags == (
        "glossary: a → b is missing",)


def test_lines_that_say_nothing_are_left_out(work):
    assert [spoken.id for spoken in run(work, ("x" * 10, "", " … ", "w" * 9)).lines] == ["L0001", "L0004"]
    assert run(work, (), lines=()).lines == ()


def test_a_translation_of_another_episode_is_an_error(work):
    with pytest.raises(InputError, match="lacks L0004"):
        run(work, TEXTS[:3])


# -- other words ------------------------------------------------------------------------------------------------------


def choices(number: int, *texts: str) -> TranslatedLine:
    """A line with candidates, the best one first."""
    return TranslatedLine(id=f"L{number:04d}", text=texts[0], candidates=tuple(
        Candidate(text=text, score=-float(n)) for n, text in enumerate(texts)))


def say(work: Work, *targets: TranslatedLine, lines: tuple[Line, ...], engine: Engine) -> Speech:
    return run(work, translation=Translation(language="es", lines=targets), lines=lines, engine=engine)


def test_what_takes_too_long_is_said_in_other_words_though_there_is_a_pause(work):
    engine = Engine()
    spoken, = say(work, choices(1, "x" * 20, "y" * 9, "z" * 5), lines=LINES[:1], engine=engine).lines
    assert engine.said == [("y" * 9, "ana")], "what is too long by estimate is not voiced"
    assert spoken.text == "y" * 9
    assert spoken.start + spoken.length <= LINES[0].end
    assert spoken.flags[0].startswith("rewritten: 'xxxx")


def test_a_voice_that_does_not_fit_after_all_gives_way_to_other_words(work):
    """By estimate it fits the second that there is; the voice takes 1.3 s, and would be hurried."""
    lines, engine = (line(1, 1.0, 2.0), line(2, 2.2, 4.0, "B")), Engine(takes={"x" * 9: 1.3})
    first, _ = say(work, choices(1, "x" * 9, "y" * 5), choices(2, "w" * 18), lines=lines, engine=engine).lines
    assert engine.said == [("x" * 9, "ana"), ("w" * 18, "bob"), ("y" * 5, "ana")]
    assert (first.text, first.overflow) == ("y" * 5, 0)
    assert first.stretch <= EASY
    assert first.flags == ("rewritten: 'xxxxxxxxx' takes 1.30 s",)


def test_three_wordings_are_voiced_at_most_and_that_is_said_which_fits_best(work):
    """Each time the voice is slower than the one before made hope."""
    lines = (line(1, 1.0, 2.0), line(2, 2.0, 4.0, "B"))
    engine = Engine(takes={"a" * 9: 1.8, "ff": 1.2, "g": 1.5})
    first, _ = say(work, choices(1, "a" * 9, "b" * 8, "ff", "g"), choices(2, "w" * 20), lines=lines,
                   engine=engine).lines
    assert [text for text, voice in engine.said if voice == "ana"] == ["a" * 9, "ff", "g"]
    assert first.text == "ff"


def test_the_translations_choice_is_said_where_it_fits(work):
    engine = Engine()
    spoken, = say(work, choices(1, "x" * 10, "y" * 9, "z" * 5), lines=LINES[:1], engine=engine).lines
    assert (spoken.text, spoken.flags) == ("x" * 10, ())
    assert len(engine.said) == 1


def test_candidates_that_nobody_needs_voice_nothing_anew(work):
    before = say(work, choices(1, "x" * 10), lines=LINES[:1], engine=Engine())
    engine = Engine()
    after = say(work, choices(1, "x" * 10, "y" * 8, "…"), lines=LINES[:1], engine=engine)
    assert engine.said == []
    assert after == before


# -- lines that are kept ----------------------------------------------------------------------------------------------


def test_a_kept_line_is_not_voiced_and_nobody_takes_its_time(work):
    targets = list(translation(*TEXTS).lines)
    targets[2] = TranslatedLine(id="L0003", text="", kept=True)
    engine = Engine()
    speech = say(work, targets[0], targets[1], targets[2], targets[3], lines=LINES, engine=engine)
    assert speech.kept == (KeptLine(id="L0003", start=LINES[2].start, end=LINES[2].end),)
    assert [spoken.id for spoken in speech.lines] == ["L0001", "L0002", "L0004"]
    assert speech.lines[1].slot[1] == LINES[2].start - GAP
    assert len(engine.said) == 3


def test_an_episode_of_which_all_is_kept_says_nothing(work):
    kept = tuple(TranslatedLine(id=each.id, text=each.text, kept=True) for each in LINES)
    speech = say(work, *kept, lines=LINES, engine=Engine())
    assert (len(speech.lines), len(speech.kept)) == (0, 4)


# -- reuse ------------------------------------------------------------------------------------------------------------


def test_one_changed_line_voices_one_line(work):
    before = run(work)
    work.counts.clear()
    engine = Engine()
    after = run(work, (TEXTS[0], TEXTS[1], "z" * 15, TEXTS[3]), engine)
    assert engine.said == [("z" * 15, "ana")]
    assert (work.counts["lines_run"], work.counts["lines_reused"]) == (1, 3)
    same = [a.audio == b.audio for a, b in zip(before.lines, after.lines, strict=True)]
    assert same == [True, True, False, True]


def test_other_times_change_fits_but_voice_nothing(work):
    before = run(work)
    engine = Engine()
    after = run(work, engine=engine, lines=(*LINES[:2], line(3, 4.3, 5.1), LINES[3]))
    assert engine.said == []
    same = [a.audio == b.audio for a, b in zip(before.lines, after.lines, strict=True)]
    assert same == [True, False, True, True]
    assert before.lines[0] == after.lines[0]


def test_the_same_request_makes_the_same_bytes(work):
    assert run(work) == run(work, take=1)


def test_a_line_on_which_nothing_was_said_is_an_error_that_names_it(work):
    with pytest.raises(EngineError, match=r"^L0003: "):
        run(work, engine=Engine(mute=TEXTS[2]))
    engine = Engine()
    run(work, engine=engine)
    assert engine.said == [(TEXTS[2], "ana"), (TEXTS[3], "ana")]


# -- casting ----------------------------------------------------------------------------------------------------------

VOICES = tuple(Voice(name, "es", gender) for name, gender in
               (("f1", "female"), ("m1", "male"), ("f2", "female"), ("m2", "male")))


def cast(*speakers: tuple[str, float | None], **given: str) -> dict[str, str]:
    known = [Speaker(id=name, pitch_hz=pitch) for name, pitch in speakers]
    return cast_voices([s.id for s in known], known, VOICES, given)


def test_pitch_chooses_the_voice():
    assert cast(("A", 120.0), ("B", 210.0), ("C", 164.9), ("D", 165.0)) == {"A": "m1", "B": "f1", "C": "m2", "D": "f2"}


def test_voices_are_shared_evenly_when_there_are_too_few():
    assert cast(*((name, 100.0) for name in "ABCDE")) == {"A": "m1", "B": "m2", "C": "m1", "D": "m2", "E": "m1"}
    assert cast(("A", None), ("B", None), ("C", 100.0)) == {"A": "f1", "B": "m1", "C": "m2"}


def test_the_cast_wins_by_id_or_name_and_others_keep_off():
    assert cast(("A", 210.0), ("B", 210.0), A="m1") == {"A": "m1", "B": "f1"}
    assert cast(("A", 210.0), ("B", 210.0), B="f1") == {"A": "f2", "B": "f1"}
    assert cast_voices(["A"], SPEAKERS, VOICES, {"Clara": "m2"})["A"] == "m2"
    assert cast_voices(["?"], (), VOICES, {})["?"] == "f1"


def test_a_voice_that_there_is_not_is_an_error(work):
    with pytest.raises(InputError, match=r"^L0001: .*'max'.*ana, eva, bob"):
        run(work, cast={"A": "max"})


def test_the_cast_reaches_the_lines(work):
    assert [spoken.voice for spoken in run(work).lines] == ["ana", "bob", "ana", "ana"]
    assert [spoken.voice for spoken in run(work, cast={"Clara": "eva"}).lines] == ["eva", "bob", "eva", "eva"]


def test_a_language_not_spoken_names_engines_that_speak_it(work):
    base = translation(*TEXTS).model_copy(update={"language": "de"})
    with pytest.raises(InputError, match=r"does not speak de.*coqui"):
        run(work, translation=base)


# -- a finished track -------------------------------------------------------------------------------------------------


def track(work: Work, *spans: tuple[float, float, float], channels: int = 1) -> Any:
    """A file with buzzes of some level at (start, end) over faint noise."""
    samples = np.random.default_rng(0).normal(0, 1e-4, LENGTH).astype(np.float32)
    for start, end, level in spans:
        samples[ticks(start):ticks(end)] += level * tone(end - start, 150, CLOCK)
    path = Path(work.scratch) / "dialogue.flac"
    write_flac(path, samples if channels == 1 else np.stack([samples] * channels, axis=1), CLOCK)
    return work.store.put_file(path, "audio/flac")


def cut(work: Work, dialogue: Any) -> Speech:
    return perform(work, read_dialogue, DialogueRequest(
        dialogue=dialogue, transcript=Transcript(language="en", lines=LINES, speakers=SPEAKERS),
        translation=translation(*TEXTS), length=LENGTH))


@pytest.mark.parametrize("channels", [1, 2])
def test_a_finished_track_is_cut_where_it_is_quiet(work, channels):
    """Lines that begin early or run into the next one's time stay whole."""
    spans = ((1.1, 2.4, 1.0), (2.8, 4.25, 0.3), (4.35, 6.0, 1.0), (10.0, 12.0, 0.5))
    speech = cut(work, track(work, *spans, channels=channels))
    assert [spoken.id for spoken in speech.lines] == ["L0001", "L0002", "L0003", "L0004"]
    for spoken, (start, end, _) in zip(speech.lines, spans, strict=True):
        assert spoken.start == pytest.approx(ticks(start), abs=ticks(0.012))
        assert spoken.length == pytest.approx(ticks(end - start) + ticks(0.04), abs=ticks(0.03))
        assert audible_span(sound(work, spoken), CLOCK)[0] <= ticks(0.01)
        assert (spoken.voice, spoken.stretch, spoken.overflow) == ("given", 1.0, 0)


def test_lines_silent_in_the_track_are_named(work):
    speech = cut(work, track(work, (1.1, 2.4, 1.0), (10.0, 11.0, 1.0)))
    assert [spoken.id for spoken in speech.lines] == ["L0001", "L0004"]
    assert len(speech.lines[1].flags) == 2
    last = cut(work, track(work, (1.1, 2.4, 1.0)))
    assert len(last.lines[0].flags) == 3


def test_a_kept_line_that_the_track_lacks_stays_as_it_is(work):
    kept = [each.model_copy(update={"kept": each.id in {"L0001", "L0002"}}) for each in translation(*TEXTS).lines]
    dialogue = track(work, (1.1, 2.4, 1.0), (4.35, 6.0, 1.0), (10.0, 12.0, 0.5))
    speech = perform(work, read_dialogue, DialogueRequest(
        dialogue=dialogue, transcript=Transcript(language="en", lines=LINES, speakers=SPEAKERS),
        translation=Translation(language="es", lines=tuple(kept)), length=LENGTH))
    assert [spoken.id for spoken in speech.lines] == ["L0001", "L0003", "L0004"], "what is in the track is heard"
    assert [each.id for each in speech.kept] == ["L0002"]
    assert not any(spoken.flags for spoken in speech.lines)


def test_a_pause_of_minutes_after_a_line_is_not_held_in_memory(work):
    path, length = Path(work.scratch) / "long.flac", 240 * CLOCK
    with FlacWriter(path, channels=1) as writer:
        for second in range(240):
            writer.write(tone(1.0, 150, CLOCK) if second in {1, 2} else np.zeros(CLOCK, np.float32))
    request = DialogueRequest(dialogue=work.store.put_file(path, "audio/flac"), translation=translation("x"),
                              transcript=Transcript(language="en", lines=LINES[:1]), length=length)
    tracemalloc.start()
    spoken = perform(work, read_dialogue, request).lines[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
    assert spoken.start == pytest.approx(CLOCK, abs=ticks(0.012))
    assert spoken.length == pytest.approx(2 * CLOCK, abs=ticks(0.08))


def test_a_silent_track_is_an_error(work):
    path = Path(work.scratch) / "silent.flac"
    write_flac(path, np.zeros(LENGTH, np.float32), CLOCK)
    with pytest.raises(InputError, match="nothing is heard"):
        cut(work, work.store.put_file(path, "audio/flac"))


# -- onsets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 22_050, 48_000])
def test_silence_and_noise_around_a_voice_are_cut_off(rate):
    noise = np.random.default_rng(1).normal(0, 5e-4, rate * 3).astype(np.float32)
    noise[rate:2 * rate] += tone(1.0, 180, rate)
    first, last = audible_span(noise, rate)
    assert abs(first / rate - 1) < 0.01
    assert abs(last / rate - 2) < 0.01
    assert len(trim(noise, rate)) == last - first
    assert len(trim(np.zeros(100, np.float32), rate)) == 0
    assert audible_span(np.zeros(0, np.float32), rate) == (0, 0)


def test_pauses_part_what_is_spoken_and_stops_do_not():
    burst, rate = tone(0.5, 180, 16_000), 16_000
    quiet = [np.zeros(round(gap * rate), np.float32) for gap in (0.2, 0.1, 0.6)]
    spans = spoken_spans(np.concatenate([quiet[0], burst, quiet[1], burst, quiet[2], burst]), rate)
    assert [(round(a / rate, 1), round(b / rate, 1)) for a, b in spans] == [(0.2, 1.3), (1.9, 2.4)]
    assert spoken_spans(np.zeros(0, np.float32), rate) == []


def test_a_voice_that_is_added_or_changed_voices_no_line_of_another_anew(work: Work) -> None:
    weights = {"model": "a" * 64, "ana.bin": "b" * 64, "bob.bin": "c" * 64}
    cast, first, second = {"A": "ana", "B": "bob"}, Engine(), Engine()
    run(work, engine=first, cast=cast, weights=weights)
    run(work, engine=second, cast=cast, weights=weights | {"eva.bin": "d" * 64, "bob.bin": "e" * 64})
    assert {voice for _, voice in first.said} == {"ana", "bob"}
    assert {voice for _, voice in second.said} == {"bob"}
