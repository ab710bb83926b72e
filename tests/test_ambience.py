"""The noise that stands in for a source's room."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import butter, lfilter

from tasks.ambience import EDGE, SHORTEST, Ambience, pauses
from tasks.levels import Sound

RATE = 48_000
SPOKEN = [(2 * RATE, 5 * RATE), (7 * RATE, 9 * RATE)]


def room(count: int, channels: int = 2, level: float = 0.02) -> Sound:
    """Dark, steady noise, the same on all channels but for a little."""
    rng = np.random.default_rng(5)
    common, own = rng.standard_normal((count, 1)), rng.standard_normal((count, channels)) * 0.3
    return np.asarray(lfilter(*butter(1, 800, fs=RATE), common + own, axis=0) * level, np.float32)


def of(sound: Sound, spoken: list[tuple[int, int]] = SPOKEN) -> Ambience:
    return Ambience(spoken, len(sound), lambda start, end: sound[start:end])


def spectrum(sound: Sound) -> np.ndarray:
    """Power in dB in octave bands."""
    power = (np.abs(np.fft.rfft(sound[:, 0])) ** 2)[1:]
    edges = (np.array([62, 125, 250, 500, 1000, 2000, 4000, 8000]) * len(sound) / RATE).astype(int)
    return np.array([10 * np.log10(power[a:b].mean()) for a, b in pairwise(edges)])


@given(st.lists(st.tuples(st.integers(0, 900_000), st.integers(0, 200_000)), max_size=6), st.integers(1, 1_000_000))
def test_pauses_are_clear_of_speech(spans: list[tuple[int, int]], length: int) -> None:
    spoken = [(start, start + count) for start, count in spans]
    for first, last in pauses(spoken, length):
        assert last - first >= SHORTEST
        assert first >= EDGE
        assert last <= length - EDGE
        assert all(last <= start - EDGE or first >= end + EDGE for start, end in spoken)


def test_it_sounds_like_the_room_wherever_it_is_made() -> None:
    sound = room(11 * RATE)
    sound[2 * RATE:5 * RATE] += 0.5
    made = of(sound).block(2 * RATE, 3 * RATE, 2)
    assert spectrum(made) == pytest.approx(spectrum(room(11 * RATE)[2 * RATE:5 * RATE]), abs=2)
    assert np.corrcoef(made.T)[0, 1] == pytest.approx(np.corrcoef(sound[:2 * RATE].T)[0, 1], abs=0.1)


def test_it_follows_a_room_that_changes() -> None:
    sound = room(11 * RATE) * np.linspace(0.1, 1, 11 * RATE, dtype=np.float32)[:, None]
    made = of(sound)
    early, late = (float(np.std(made.block(at, RATE, 2))) for at in (2 * RATE, 9 * RATE))
    assert late / early == pytest.approx(float(np.std(sound[9 * RATE:10 * RATE]) / np.std(sound[2 * RATE:3 * RATE])),
                                         rel=0.35)


def test_a_shout_in_a_pause_is_not_spread() -> None:
    sound = room(11 * RATE)
    sound[int(5.5 * RATE):int(5.9 * RATE)] += np.random.default_rng(1).standard_normal((int(0.4 * RATE), 2)) * 0.5
    made = of(sound).block(3 * RATE, 2 * RATE, 2)
    assert float(np.std(made)) < 2 * float(np.std(room(RATE)))


def test_blocks_do_not_show() -> None:
    ambience = of(room(11 * RATE))
    whole = ambience.block(100_000, 200_000, 2)
    parts = [ambience.block(100_000 + at, 40_000, 2) for at in range(0, 200_000, 40_000)]
    assert np.allclose(np.concatenate(parts), whole, atol=1e-5)


def test_surround_and_silence() -> None:
    silent = np.zeros((4 * RATE, 6), np.float32)
    assert not of(silent, [(RATE, 2 * RATE)]).block(RATE, RATE, 6).any()
    never_quiet = of(room(4 * RATE), [(0, 4 * RATE)])
    assert not never_quiet.block(0, RATE, 2).any()
