"""The dubbed sound: sample-exact, as loud as asked, the source's voice out of the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.errors import InputError
from models.loudness import PRESETS, Anchor, Preset, PresetName
from models.records import Artifact, EngineRef, KeptLine, Line, Loudness, Mix, Speech, SpokenLine, Transcript
from tasks.leak import LEAK_DB, find_leak
from tasks.levels import Sound, centre, loudness_of
from tasks.media import loudness, read_audio, write_flac
from tasks.mix import MixRequest, mix
from tasks.step import Work
from tests.conftest import GivenEngines

RATE = 48_000
SPANS, LENGTH = ((12_000, 42_000), (66_001, 96_003)), 132_000
PAUSE = slice(118_000, LENGTH)
"""After the ducking of the last line."""
HELD = RATE // 5
"""Samples after its last loud one that still count as speech."""


@pytest.fixture
def work(module_work: Work) -> Work:
    """Sounds of all tests lie in one store."""
    return replace(module_work, engines=GivenEngines(), counts=Counter())


@cache
def voice(count: int, level: float = 0.1, pitch: float = 140, seed: int = 0) -> NDArray[np.float32]:
    """Speech-like: a buzz in syllables of a fifth of a second, with breath."""
    t = np.arange(count) / RATE
    buzz = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 12))
    breath = np.random.default_rng(seed).standard_normal(count) * 0.05
    sound = ((buzz + breath) * (0.55 - 0.45 * np.cos(2 * np.pi * 5 * t)) * level).astype(np.float32)
    sound.setflags(write=False)
    return sound


def hum(count: int, channels: int, level: float) -> Sound:
    return (np.random.default_rng(7).standard_normal((count, channels)) * level).astype(np.float32)


def put(work: Work, samples: NDArray[np.float32], rate: int = RATE) -> Artifact:
    path = work.scratch / "given.flac"
    write_flac(path, samples, rate)
    return work.store.put_file(path, "audio/flac")


@pytest.fixture
def by_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """A meter that starts no process, for tests that do not ask how loud a mix is."""

    def measured(path: Path) -> Loudness:
        sound = read_audio(path, channels=None)
        peak = 20 * np.log10(float(np.abs(sound).max()) + 1e-6)
        return Loudness(integrated_lufs=db(sound), true_peak_dbtp=peak, range_lu=0)

    monkeypatch.setattr("tasks.mix.loudness", measured)


def spoken(work: Work, number: int, start: int, samples: NDArray[np.float32]) -> SpokenLine:
    end = start + len(samples)
    return SpokenLine(id=f"L{number:04d}", speaker="A", voice="v", text="x", audio=put(work, samples), start=start,
                      length=len(samples), slot=(start, end), planned=(start, end), natural=len(samples), stretch=1.0)


def ask(work: Work, length: int = LENGTH, *, channels: int = 2, level: float = 0.1, background: float = 0.01,
        dub_level: float = 0.03, bed: Artifact | None = None, loudness: Preset = PRESETS["r128"]) -> MixRequest:
    """An episode of two lines over noise, and two dubbed lines in their places."""
    source = hum(length, channels, background)
    for start, end in SPANS:
        said = voice(end - start, level, seed=1)[:length - start]
        source[start:end] += centre(said, channels) if channels in {2, 6, 8} else said[:, None]
    lines = [Line(id=f"L{i:04d}", start=a, end=b, text="x", speaker="A") for i, (a, b) in enumerate(SPANS)]
    dub = [spoken(work, i, a, voice(b - a - 5000, dub_level, 190, seed=2)) for i, (a, b) in enumerate(SPANS)]
    return MixRequest(source_audio=put(work, source), channels=channels, bed=bed, length=length,
                      speech=Speech(language="es", lines=tuple(dub)),
                      transcript=Transcript(language="en", lines=tuple(lines)), loudness=loudness)


def loud(target: float) -> Preset:
    return Preset(programme=Anchor(lufs=target, tolerance_lu=0.2), true_peak_dbtp=-1)


def heard(work: Work, artifact: Artifact) -> Sound:
    return read_audio(work.store.path(artifact), channels=None)


def independent(work: Work, result: Mix) -> float:
    """Integrated loudness by another meter than the one that the mix goes by."""
    import pyloudnorm

    return float(pyloudnorm.Meter(RATE).integrated_loudness(heard(work, result.mix)))


def db(sound: Sound) -> float:
    return float(10 * np.log10((sound.astype(np.float64) ** 2).mean() + 1e-20))


@pytest.fixture(scope="module")
def soft(module_work: Work) -> tuple[MixRequest, Mix]:
    """An episode whose dub is far softer than its source, and its mix."""
    request = ask(module_work, dub_level=0.005)
    return request, mix.function(module_work, request)


@pytest.fixture(scope="module")
def clicking(module_work: Work) -> Mix:
    """A mix whose peaks had to be limited."""
    request = ask(module_work)
    clicks = request.speech.lines[0]
    sound = voice(clicks.length, 0.03).copy()
    sound[::4000] = 0.9
    line = spoken(module_work, 0, clicks.start, sound)
    return mix.function(module_work, request.model_copy(update={
        "speech": Speech(language="es", lines=(line, request.speech.lines[1])), "loudness": loud(-15.0)}))


@pytest.mark.usefixtures("by_power")
@pytest.mark.parametrize("length", [131_999, 131_072, 131_073])
def test_everything_is_exactly_as_long_as_the_picture(work: Work, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.mix.BLOCK", 65_536)
    result = mix.function(work, ask(work, length))
    assert [len(heard(work, a)) for a in (result.mix, result.dialogue, result.bed)] == [length] * 3
    assert heard(work, result.mix).shape[1] == 2
    assert heard(work, result.dialogue).shape[1] == 1


@pytest.mark.parametrize(("level", "background", "dub", "target"),
                         [(0.2, 0.01, 0.3, -23.0), (0.01, 0.002, 0.05, -23.0), (0.1, 0.05, 0.001, -16.0)])
def test_loudness_is_as_asked(work: Work, level: float, background: float, dub: float, target: float) -> None:
    asked = ask(work, level=level, background=background, dub_level=dub, loudness=loud(target))
    result = mix.function(work, asked)
    measured = loudness(work.store.path(result.mix))
    assert result.loudness.integrated_lufs == measured.integrated_lufs == pytest.approx(target, abs=0.21)
    assert independent(work, result) == pytest.approx(target, abs=0.25)
    assert result.loudness.true_peak_dbtp <= -1.0


def test_true_peak_is_limited_where_the_gain_would_pass_it(clicking: Mix) -> None:
    assert clicking.loudness.true_peak_dbtp <= -1.0
    assert clicking.loudness.integrated_lufs == pytest.approx(-15.0, abs=0.21)


@pytest.mark.usefixtures("by_power")
def test_lines_lie_sample_exactly(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.mix.BLOCK", 65_536)
    length = 100_000
    click = np.zeros(4000, np.float32)
    click[1000] = 0.5
    places = [0, 65_500, 65_536, 30_001, length - 2000]
    lines = tuple(spoken(work, i, place, click) for i, place in enumerate(places))
    request = MixRequest(source_audio=put(work, hum(length, 2, 1e-3)), channels=2, bed=None, length=length,
                         speech=Speech(language="es", lines=lines), transcript=Transcript(language="en", lines=()),
                         loudness=PRESETS["r128"])
    stem = heard(work, mix.function(work, request).dialogue)[:, 0]
    assert set(np.flatnonzero(np.abs(stem) > np.abs(stem).max() / 2)) == {place + 1000 for place in places}


def test_stems_add_up_to_the_mix(work: Work, clicking: Mix) -> None:
    parts = [heard(work, a) for a in (clicking.mix, clicking.dialogue, clicking.bed)]
    assert np.abs(parts[0] - parts[1] - parts[2]).max() < 1e-6


def test_each_line_is_as_loud_as_the_source_there(work: Work, soft: tuple[MixRequest, Mix]) -> None:
    request, result = soft
    source, stem, gain = heard(work, request.source_audio), heard(work, result.dialogue), result.gain_db
    for line in request.speech.lines:
        there = slice(line.start, line.start + line.length)
        wanted = loudness_of(source[line.planned[0]:line.planned[1]]) + gain
        assert loudness_of(np.repeat(stem[there], 2, axis=1)) == pytest.approx(wanted, abs=1)


def test_the_voice_of_the_source_is_far_down_and_its_room_stays(work: Work, soft: tuple[MixRequest, Mix]) -> None:
    request, result = soft
    source, bed = heard(work, request.source_audio), heard(work, result.bed)
    room, gain = hum(LENGTH, 2, 0.01), result.gain_db
    assert result.bed_kind == "ducked"
    assert result.leak is not None
    assert result.leak.db < LEAK_DB
    for start, end in SPANS:
        wanted = voice(end - start, 0.1, seed=1)
        left = float(wanted @ bed[start:end, 0] / (wanted @ wanted))
        assert 20 * np.log10(abs(left)) - gain < -35
        assert db(bed[start:end]) - db(room) == pytest.approx(gain, abs=1)
    for untouched in (slice(0, 3000), PAUSE):
        assert np.allclose(bed[untouched], source[untouched] * 10 ** (gain / 20), atol=1e-4)


@pytest.mark.usefixtures("by_power")
def test_a_source_line_that_is_not_dubbed_stays(work: Work) -> None:
    request = ask(work)
    request = request.model_copy(update={"speech": Speech(language="es", lines=request.speech.lines[:1])})
    result = mix.function(work, request)
    source, bed = heard(work, request.source_audio), heard(work, result.bed)
    start, end = SPANS[1]
    assert db(bed[start:end]) - db(source[start:end]) == pytest.approx(result.gain_db, abs=0.1)


@pytest.mark.usefixtures("by_power")
@pytest.mark.parametrize(("channels", "rate"), [(1, 48_000), (2, 44_100), (6, 48_000)])
def test_a_given_bed_keeps_its_level(work: Work, channels: int, rate: int) -> None:
    t = np.arange(rate * LENGTH // RATE - 2000) / rate
    bed = np.repeat((0.02 * np.sin(2 * np.pi * 500 * t)).astype(np.float32)[:, None], channels, axis=1)
    if channels == 6:
        bed[:, 2:] = 0
    result = mix.function(work, ask(work, bed=put(work, bed, rate)))
    laid = heard(work, result.bed)
    assert result.bed_kind == "given"
    assert laid.shape == (LENGTH, 2)
    assert db(laid[1000:120_000]) == pytest.approx(db(bed[1000:100_000, :2]) + result.gain_db, abs=0.2)
    assert not laid[LENGTH - 1000:].any()


def test_a_bed_of_another_length_is_refused_with_both_lengths(work: Work) -> None:
    with pytest.raises(InputError, match=r"1\.500 s long, the episode 2\.750 s"):
        mix.function(work, ask(work, bed=put(work, hum(72_000, 2, 0.01))))


@pytest.mark.parametrize("channels", [6, 8])
def test_surround_keeps_its_layout_with_the_voice_in_the_centre(work: Work, channels: int) -> None:
    request = ask(work, channels=channels)
    result = mix.function(work, request)
    whole, bed, stem, source = (heard(work, a) for a in (result.mix, result.bed, result.dialogue, request.source_audio))
    others = [c for c in range(channels) if c != 2]
    assert whole.shape == (LENGTH, channels)
    assert np.abs(whole[:, 2] - bed[:, 2] - stem[:, 0]).max() < 1e-6
    assert np.abs(whole[:, others] - bed[:, others]).max() < 1e-6
    assert np.allclose(whole[PAUSE, 3], source[PAUSE, 3] * 10 ** (result.gain_db / 20), atol=1e-4)
    assert result.loudness.integrated_lufs == pytest.approx(-23, abs=0.21)


@pytest.mark.usefixtures("by_power")
def test_mono_sources_become_stereo(work: Work) -> None:
    result = mix.function(work, ask(work, channels=1))
    whole = heard(work, result.mix)
    assert np.allclose(whole[:, 0], whole[:, 1], atol=1e-6)


@pytest.mark.parametrize("level", [0.0, 2e-4])
def test_a_silent_programme_does_not_explode(work: Work, level: float) -> None:
    said: list[str] = []
    work.progress = lambda text, _done: said.append(text)
    request = MixRequest(source_audio=put(work, hum(96_000, 2, level)), channels=2, bed=None, length=96_000,
                         speech=Speech(language="es", lines=()), transcript=Transcript(language="en", lines=()),
                         loudness=PRESETS["r128"])
    result = mix.function(work, request)
    assert 0 <= result.gain_db <= 24
    assert result.loudness.integrated_lufs < -40
    assert any("nearly silent" in text for text in said)


def test_a_silent_line_stays_silent(work: Work) -> None:
    request = ask(work)
    silent = spoken(work, 0, SPANS[0][0], np.zeros(25_000, np.float32))
    request = request.model_copy(update={"speech": Speech(language="es", lines=(silent, request.speech.lines[1]))})
    result: Mix = mix.function(work, request)
    assert not heard(work, result.dialogue)[:SPANS[1][0]].any()
    assert result.loudness.integrated_lufs == pytest.approx(-23, abs=0.21)


# -- presets ----------------------------------------------------------------------------------------------------------


def dialogue_by_hand(work: Work, result: Mix, spans: list[tuple[int, int]]) -> float:
    """Of what is heard in spans, by pyloudnorm's filters and no gate."""
    import pyloudnorm

    filters = pyloudnorm.Meter(RATE)._filters.values()
    sound = heard(work, result.mix).astype(np.float64)
    for side in (0, 1):
        for stage in filters:
            sound[:, side] = stage.apply_filter(sound[:, side])
    said = np.concatenate([sound[a:b] for a, b in spans])
    return float(10 * np.log10((said**2).mean(axis=0).sum()) - 0.691)


def test_netflix_goes_by_the_dialogue_and_by_the_programme_where_there_is_little(work: Work) -> None:
    much = ask(work, background=0.05, loudness=PRESETS["netflix"])
    result = mix.function(work, much)
    assert result.loudness.dialogue_share == pytest.approx((50_000 + 2 * HELD) / LENGTH, abs=0.05), "pauses are speech"
    assert result.loudness.dialogue_lufs == pytest.approx(-27, abs=0.11)
    spans = [(line.start, line.start + line.length + HELD) for line in much.speech.lines]
    assert dialogue_by_hand(work, result, spans) == pytest.approx(-27, abs=0.3)
    little = much.model_copy(update={"speech": Speech(language="es", lines=(
        spoken(work, 0, SPANS[0][0], voice(8000, 0.03, 190)),))})
    result = mix.function(work, little)
    assert 0 < (result.loudness.dialogue_share or 0) < 0.15
    assert result.loudness.integrated_lufs == pytest.approx(-24, abs=0.11)
    assert result.loudness.true_peak_dbtp <= -2


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(preset=st.sampled_from(sorted(PRESETS)), level=st.floats(0.01, 0.9), background=st.floats(0.001, 0.3),
       dub=st.floats(0.005, 0.9), channels=st.sampled_from([1, 2, 6, 8]), inverted=st.booleans())
def test_presets_hold_for_any_programme(work: Work, preset: PresetName, level: float, background: float, dub: float,
                                        channels: int, inverted: bool) -> None:
    request = ask(work, 100_000, channels=channels, level=level, background=background, dub_level=dub,
                  loudness=PRESETS[preset])
    if inverted:  # one side against the other, and clipping
        sound = np.clip(heard(work, request.source_audio) * np.resize([3, -3], channels), -1, 1).astype(np.float32)
        request = request.model_copy(update={"source_audio": put(work, sound)})
    result = mix.function(work, request)
    _, found, wanted = PRESETS[preset].judge(result.loudness)
    assert abs(found - wanted.lufs) <= wanted.tolerance_lu
    assert result.loudness.true_peak_dbtp <= PRESETS[preset].true_peak_dbtp
    parts = [heard(work, artifact) for artifact in (result.mix, result.dialogue, result.bed)]
    assert db(parts[0] - centre(parts[1][:, 0], parts[0].shape[1]) - parts[2]) < -100


def test_a_second_that_is_all_dialogue(work: Work) -> None:
    length = 48_000
    said = voice(length, 0.2)
    whole = Line(id="L0000", start=0, end=length, text="x", speaker="A")
    request = MixRequest(source_audio=put(work, centre(said, 2)), channels=2, bed=None, length=length,
                         speech=Speech(language="es", lines=(spoken(work, 0, 0, voice(length, 0.2, 190)),)),
                         transcript=Transcript(language="en", lines=(whole,)), loudness=PRESETS["netflix"])
    result = mix.function(work, request)
    assert result.loudness.dialogue_lufs == pytest.approx(-27, abs=0.11)
    assert result.loudness.dialogue_share == pytest.approx(1, abs=0.05)
    assert result.leak is None, "without a pause nothing can be compared"


# -- the source's own voice -------------------------------------------------------------------------------------------


def leaky(db: float) -> Sound:
    """A bed into which the source's voice leaks with so many dB."""
    bed = hum(LENGTH, 2, 0.01)
    for start, end in SPANS:
        bed[start:end] += centre(voice(end - start, 0.1, seed=1), 2) * np.float32(10 ** (db / 20))
    return bed


LINES = {f"L{i:04d}": span for i, span in enumerate(SPANS)}


@pytest.mark.parametrize(("leaks", "late", "gain"), [(-10, 0, 1), (-20, 0, -1), (-20, 300, 1), (-30, 0, 1),
                                                     (-200, 0, 1)])
def test_a_leaking_bed_is_found_out(work: Work, leaks: float, late: int, gain: float) -> None:
    request = ask(work)
    bed = put(work, np.roll(leaky(leaks) * np.float32(gain / 2), late, axis=0))
    leak = find_leak(work.store.path(request.source_audio), work.store.path(bed), 20 * np.log10(1 / 2), LINES,
                     SPANS, request.length)
    assert leak is not None
    if leaks < -100:
        assert leak.db < LEAK_DB - 10, "a clean bed"
    else:
        assert leak.db == pytest.approx(leaks, abs=0.7)
        assert (leak.line, leak.at) in {(name, start) for name, (start, _) in LINES.items()}


@pytest.mark.usefixtures("by_power")
def test_it_is_said_when_the_bed_is_the_source(work: Work) -> None:
    said: list[str] = []
    work.progress = lambda text, _done: said.append(text)
    leak = mix.function(work, ask(work, bed=put(work, leaky(0)))).leak
    assert leak is not None
    assert leak.db == 0
    assert any("the source's voice is heard in the bed, at 0 dB" in text for text in said)


@pytest.mark.usefixtures("by_power")
@pytest.mark.parametrize("given_bed", [True, False])
def test_where_a_voice_is_kept_the_source_is_heard_as_it_is(work: Work, given_bed: bool) -> None:
    request = ask(work, bed=put(work, hum(LENGTH, 2, 0.005)) if given_bed else None)
    start, end = SPANS[1]
    over = spoken(work, 5, start + 20_000, voice(9000, 0.03, 190))  # somebody is dubbed at the same time
    request = request.model_copy(update={"speech": Speech(
        language="es", lines=(request.speech.lines[0], over), kept=(KeptLine(id="L0001", start=start, end=end),))})
    result = mix.function(work, request)
    source, bed = heard(work, request.source_audio), heard(work, result.bed)
    assert np.allclose(bed[start:end], source[start:end] * 10 ** (result.gain_db / 20), atol=1e-3)
    assert np.abs(np.diff(bed[start - 2000:start + 2000], axis=0)).max() < 0.3, "no click"
    assert result.leak is None or result.leak.line != "L0001"
    said = request.speech.lines[0].length + HELD + over.start + over.length + HELD - start
    assert result.loudness.dialogue_share == pytest.approx(said / LENGTH, abs=0.05)
    if given_bed:
        assert db(bed[SPANS[0][0]:SPANS[0][1]]) < db(source[SPANS[0][0]:SPANS[0][1]]) + result.gain_db - 15


def test_a_separated_bed_lies_below_and_is_named(work: Work) -> None:
    class Engines:
        def get(self, port: str, ref: EngineRef) -> Any:
            assert (port, ref.name) == ("separator", "fake")
            return SimpleNamespace(sample_rate=44_100, voices=lambda sound: sound * 0.0)

    work.engines = Engines()
    request = ask(work).model_copy(update={"separator": EngineRef(name="fake")})
    result = mix.function(work, request)
    source, bed = heard(work, request.source_audio), heard(work, result.bed)
    assert result.bed_kind == "separated"
    assert np.allclose(bed, source * 10 ** (result.gain_db / 20), atol=1e-3)
    assert result.leak is not None
    assert result.leak.db == 0, "nothing was taken out"
    again = mix.function(work, request.model_copy(update={"loudness": PRESETS["web"]}))
    assert (work.counts["stems_run"], work.counts["stems_reused"]) == (1, 1)
    assert again.loudness.integrated_lufs == pytest.approx(-16, abs=0.11)
