"""One suite for every diarizer that can run here, and what is particular to the embedded one."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.engines import ge2e
from models.errors import InputError, SetupError
from models.ports import EngineHome, Samples, Turn
from models.records import EngineRef
from tasks.media import read_audio
from tests.embedded import EXAMPLES, engine

ENGINES = ("ge2e", "pyannote")
Span = tuple[float, float]


@cache
def loaded(name: str) -> Any:
    if name == "pyannote":
        if not find_spec("pyannote"):
            pytest.skip("needs the environment of `make test-extras`")
        pytest.skip("needs weights that are given out on request only: see docs of the engine")
    return engine("diarizer", name, "ge2e")[0]


@cache
def scene(*episodes: int) -> tuple[Samples, list[tuple[Span, str]]]:
    """Dialogue over its music, one episode after the other, with (span, speaker) of each sentence."""
    sound, said, at = [], [], 0.0
    for number in episodes:
        path = EXAMPLES / f"harbor-lights-s01e0{number}"
        samples = read_audio(path.with_suffix(".mp4"), rate=16_000, channels=1)
        truth = json.loads(path.with_suffix(".truth.json").read_text())
        said += [((at + s["start_s"], at + s["end_s"]), u["speaker"])
                 for u in truth["utterances"] for s in u["sentences"]]
        sound.append(samples)
        at += len(samples) / 16_000
    return np.concatenate(sound), said


def right(turns: tuple[Turn, ...], said: list[tuple[Span, str]]) -> float:
    """Share of speech time under the right label, each voice being the label that it has for longest."""
    def shared(span: Span, label: str) -> float:
        return sum(max(0.0, min(span[1], t.end) - max(span[0], t.start)) for t in turns if t.speaker == label)

    labels = {t.speaker for t in turns}
    best = {voice: max(labels, key=lambda label: sum(shared(span, label) for span, v in said if v == voice))
            for voice in {v for _, v in said}}
    if len(set(best.values())) < len(best):
        return 0.0
    return sum(shared(span, best[voice]) for span, voice in said) / sum(b - a for (a, b), _ in said)


@pytest.mark.models
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("episodes", "voices"), [((1,), 2), ((2,), 1), ((1, 2), 3)])
def test_voices_are_told_apart(name: str, episodes: tuple[int, ...], voices: int) -> None:
    sound, said = scene(*episodes)
    turns = loaded(name).diarize(sound, [span for span, _ in said])
    assert len({t.speaker for t in turns}) == voices
    assert right(turns, said) >= 0.9


@pytest.mark.models
@pytest.mark.parametrize("name", ENGINES)
def test_turns_are_in_order_and_named_by_appearance(name: str) -> None:
    sound, said = scene(1)
    turns = loaded(name).diarize(sound, [span for span, _ in said])
    assert [t.start for t in turns] == sorted(t.start for t in turns)
    assert list(dict.fromkeys(t.speaker for t in turns)) == ["A", "B"]
    assert all(0 <= t.start < t.end <= len(sound) / 16_000 for t in turns)


@pytest.mark.models
@pytest.mark.parametrize("name", ENGINES)
def test_no_speech_no_turns(name: str) -> None:
    assert loaded(name).diarize(np.zeros(16_000, np.float32), []) == ()
    assert loaded(name).diarize(np.zeros(0, np.float32), [(0.0, 1.0)]) == ()


@pytest.mark.models
@pytest.mark.parametrize("name", ENGINES)
def test_same_sound_same_turns(name: str) -> None:
    sound, said = scene(2)
    spans = [span for span, _ in said]
    assert loaded(name).diarize(sound, spans) == loaded(name).diarize(sound, spans)


# -- the embedded one -------------------------------------------------------------------------------------------------


@pytest.mark.models
def test_embedding_is_of_the_voice_not_of_the_words() -> None:
    sound, said = scene(1, 2)
    longer = [(span, voice) for span, voice in said if span[1] - span[0] > 0.8]
    vectors = loaded("ge2e").embed([sound[int(a * 16_000):int(b * 16_000)] for (a, b), _ in longer])
    alike = vectors @ vectors.T
    same = np.array([[v == w for _, w in longer] for _, v in longer])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert np.median(alike[same]) > np.percentile(alike[~same], 99) + 0.05


@pytest.mark.models
def test_loudness_does_not_change_the_voice() -> None:
    sound, _ = scene(2)
    a, b = loaded("ge2e").embed([sound[8_000:40_000] * gain for gain in (0.05, 1.0)])
    assert float(a @ b) > 0.97


@pytest.mark.models
def test_company_does_not_change_the_voice() -> None:
    sound, _ = scene(2)
    stretches = [sound[8_000:8_000 + n] for n in (12_000, 40_000, 16_000)]
    apart = [loaded("ge2e").embed([stretch])[0] for stretch in stretches]
    assert np.allclose(loaded("ge2e").embed(stretches), apart, atol=1e-4)


def test_mel_bands_cover_the_spectrum_with_equal_areas() -> None:
    bands = ge2e.mel_bands()
    assert bands.shape == (40, 201)
    assert np.allclose(bands.sum(axis=1) * 40.0, 1, rtol=0.35)  # bins of 40 Hz are coarse for the lowest bands
    assert (np.diff(bands.argmax(axis=1)) > 0).all()
    assert ge2e._from_mel(np.array([15.0, 42.0])) == pytest.approx([1000.0, 6400.0])


def test_weights_of_something_else_are_a_set_up_error(tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"model_state": {"lstm.weight": torch.zeros(2)}}, tmp_path / "pretrained.pt")
    with pytest.raises(SetupError, match="GE2E"):
        ge2e.Ge2e(EngineRef(name="ge2e"), EngineHome(weights=lambda name: tmp_path))


def test_long_talk_is_embedded_in_groups(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    lstm, linear = torch.nn.LSTM(40, 256, num_layers=3, batch_first=True), torch.nn.Linear(256, 256)
    state = {f"lstm.{name}": value for name, value in lstm.state_dict().items()}
    state |= {f"linear.{name}": value for name, value in linear.state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "pretrained.pt")
    engine = ge2e.Ge2e(EngineRef(name="ge2e"), EngineHome(weights=lambda name: tmp_path))
    talk = [np.random.default_rng(n).normal(0, 0.1, 4000 + 1500 * n).astype(np.float32) for n in range(7)]
    together, sizes = engine.embed(talk), list[int]()
    whole = engine._embed
    monkeypatch.setattr(engine, "_embed", lambda some: (sizes.append(len(some)), whole(some))[1])
    monkeypatch.setattr(ge2e, "GROUP", 3)
    assert np.allclose(engine.embed(talk), together, atol=1e-5)
    assert sizes == [3, 3, 1]


def test_unknown_option_is_an_error() -> None:
    with pytest.raises(InputError, match="threshold"):
        ge2e.Ge2e.required_weights({"treshold": 0.5})


def unit(*angles: float) -> Any:
    return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)


def row(*lengths: float, gap: float = 0.2) -> list[Span]:
    starts = np.cumsum([0, *(n + gap for n in lengths)])
    return [(float(s), float(s) + n) for s, n in zip(starts, lengths, strict=False)]


def test_short_stretch_takes_its_neighbours_voice_unless_it_clearly_differs() -> None:
    spans = [*row(2, 2, 0.4), (6.0, 8.0), (8.2, 10.2)]
    first = ge2e.assign(spans, unit(0.01, 0.01, 0.01, 1.5, 1.5), 0.7)[0]
    assert ge2e.assign(spans, unit(0.01, 0.01, 0.76, 1.5, 1.5), 0.7)[2] == first
    assert ge2e.assign(spans, unit(0.01, 0.01, 1.4, 1.5, 1.5), 0.7)[2] != first


def test_only_short_stretches_are_clustered_all_the_same() -> None:
    assert len(set(ge2e.assign(row(0.5, 0.5, 0.5), unit(0, 0.01, 1.5), 0.7))) == 2


def test_voices_can_be_limited() -> None:
    vectors = unit(0, 0.7, 1.4, 2.1)
    assert len(set(ge2e.assign(row(2, 2, 2, 2), vectors, 0.95))) == 4
    assert len(set(ge2e.assign(row(2, 2, 2, 2), vectors, 0.95, most=2))) == 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 3), st.floats(0, 6)), min_size=1, max_size=25), st.floats(0.1, 0.95))
def test_every_stretch_gets_a_voice(stretches: list[tuple[float, float]], threshold: float) -> None:
    spans = row(*(length for length, _ in stretches))
    labels = ge2e.assign(spans, unit(*(angle for _, angle in stretches)), threshold)
    assert len(labels) == len(spans)
    assert min(labels) >= 0


@pytest.mark.parametrize(("index", "name"), [(0, "A"), (25, "Z"), (26, "AA"), (53, "BB")])
def test_names(index: int, name: str) -> None:
    assert ge2e.speaker_name(index) == name
