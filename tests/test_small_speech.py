"""The small speech encoder: what it hears is near, and the engine's `AudioFeatures` takes it as it is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from infinitetalk.audio import AudioFeatures, windows
from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.small.config import LITE, SpeechConfig
from infinitetalk.small.speech import WEIGHTS, LogMel, SpeechFeatures, SpeechNetwork, mel_filters
from infinitetalk.train.loop import Recipe
from infinitetalk.train.speech import SPAN, Utterance, correlated, correlations, train_speech

SIZES = SpeechConfig(mels=20, hidden=16, channels=8)
TINY = replace(LITE, name="tiny", speech=SIZES)


@pytest.fixture
def heard() -> SpeechFeatures:
    torch.manual_seed(0)
    return SpeechFeatures(SpeechNetwork(SIZES))


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16_000)).astype(np.float32)


@pytest.mark.parametrize(("samples", "states"), [(640, 1), (641, 1), (16_000, 25), (29 * 640 + 1, 29),
                                                   (16_000 * 61, 1525)])
def test_25_states_a_second(heard: SpeechFeatures, samples: int, states: int) -> None:
    found = heard(np.zeros(samples, np.float32))
    assert found.shape == (states, 1, 8)
    assert found.dtype == torch.float32


def test_silence_is_a_number_and_the_same_everywhere(heard: SpeechFeatures) -> None:
    found = heard(np.zeros(16_000, np.float32))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[5:20], found[5:6].expand(15, -1, -1))


def test_too_little_is_refused(heard: SpeechFeatures) -> None:
    for bad in (np.zeros(639, np.float32), np.zeros((2, 16_000), np.float32)):
        with pytest.raises(BadInputError):
            heard(bad)


def test_what_lies_seconds_later_or_earlier_is_not_heard(heard: SpeechFeatures) -> None:
    one = sound(6)
    two, three = one.copy(), one.copy()
    two[3 * 16_000:] *= 30
    three[:3 * 16_000] = 0
    torch.testing.assert_close(heard(one)[:72], heard(two)[:72])
    torch.testing.assert_close(heard(one)[80:], heard(three)[80:])
    assert not torch.allclose(heard(one)[75], heard(two)[75])


def test_a_state_hears_its_own_40_milliseconds(heard: SpeechFeatures) -> None:
    silence, tone = np.zeros(16_000, np.float32), np.zeros(16_000, np.float32)
    tone[10 * 640:11 * 640] = 0.3 * np.sin(np.arange(640) * 0.4)
    changed = (heard(silence) - heard(tone)).abs().amax((1, 2)) > 1e-4
    assert changed[10]
    assert not changed[:7].any()
    assert not changed[15:].any()


def test_the_engine_takes_it(heard: SpeechFeatures) -> None:
    speech = sound(70)
    features = AudioFeatures(heard, speech, Fraction(25), 70 * 25)
    assert windows(features.at, 1000, 33, 70 * 25 - 1).shape == (33, 5, 1, 8)
    at = torch.arange(1240, 1300)  # both windows' middle
    torch.testing.assert_close(features.at(at), heard(speech)[at], rtol=1e-3, atol=1e-4)


def test_every_frequency_is_in_one_or_two_filters() -> None:
    filters = mel_filters(40)
    assert filters.shape == (257, 40)
    assert (filters.sum(0) > 0).all()
    assert ((filters > 0).sum(1) <= 2).all()
    tone = torch.sin(torch.arange(16_000) * 2 * torch.pi * 1000 / 16_000)[None]
    loudest = LogMel(40)(tone, 25)[0, :, 40].argmax()
    assert filters[32, loudest] == filters[32].max()  # bin 32 is 1000 Hz


def test_weights_survive_files_and_refuse_others(tmp_path, heard: SpeechFeatures) -> None:
    save_file(heard.network.state_dict(), tmp_path / WEIGHTS)
    speech = sound(1)
    assert torch.equal(SpeechFeatures.read(tmp_path / WEIGHTS, SIZES)(speech), heard(speech))
    with pytest.raises(BadWeightsError):
        SpeechFeatures.read(tmp_path / WEIGHTS, replace(SIZES, channels=16))


# -- training ---------------------------------------------------------------------------------------------------------


def said(count: int = 4) -> list[Utterance]:
    """Noise that comes and goes, and a jaw that follows its loudness."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        loud = np.repeat(rng.random(40), 5).astype(np.float32)[:2 * SPAN]
        visemes = np.zeros((2 * SPAN, 11), np.float32)
        visemes[:, 0] = loud
        noise = rng.normal(0, 1, 2 * SPAN * 640) * np.repeat(10 ** (2 * loud - 3), 640)
        found.append(Utterance(noise.astype(np.float32), visemes))
    return found


class CutError(Exception):
    pass


def run(folder, steps: int | None = None, recipe: Recipe | None = None) -> list[float]:
    losses: list[float] = []

    def told(step: int, loss: float) -> None:
        losses.append(loss)
        if step == steps:
            raise CutError

    with suppress(CutError):
        train_speech(TINY, said(), folder, 1, recipe=recipe or Recipe(steps=5, warmup=1, batch=2, save_every=1),
                     told=told)
    return losses


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(tmp_path) -> None:
    whole = run(tmp_path / "whole")
    first = run(tmp_path / "cut", steps=3)
    rest = run(tmp_path / "cut")
    assert first + rest == whole
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_it_learns_to_hear(tmp_path) -> None:
    run(tmp_path, recipe=Recipe(steps=60, rate=5e-3, warmup=5, batch=4, ema=0.9))
    found = correlations(SpeechFeatures.read(tmp_path / WEIGHTS, SIZES), said(6)[4:])
    assert set(found) == {"jawOpen"}
    assert found["jawOpen"] > 0.6


def test_nothing_long_enough_is_refused(tmp_path) -> None:
    short = [Utterance(np.zeros(640, np.float32), np.zeros((1, 11), np.float32))]
    with pytest.raises(BadInputError, match="64 frames"):
        train_speech(TINY, short, tmp_path, 1)


def test_correlation_leaves_out_what_never_moves() -> None:
    true = np.zeros((50, 11), np.float32)
    true[:, 0], true[:, 3] = np.sin(np.arange(50)), np.cos(np.arange(50))
    told = true.copy()
    told[:, 3] = 0
    assert correlated(told, true) == {"jawOpen": pytest.approx(1), "mouthPucker": 0}
