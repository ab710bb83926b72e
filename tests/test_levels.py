"""Layouts, ducking, limiting and loudness of short sounds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dialogue import dialogue_loudness, speech_frames
from tasks.levels import (
    ATTACK,
    CONTEXT,
    RELEASE,
    Ducking,
    Sound,
    centre,
    layout_of,
    limiter_gain,
    loudness_of,
    regular,
    to_layout,
    windows,
)
from tasks.media import write_flac

RATE = 48_000


def noise(count: int, channels: int = 2, level: float = 0.1, seed: int = 1) -> Sound:
    return (np.random.default_rng(seed).standard_normal((count, channels)) * level).astype(np.float32)


def test_layouts_keep_the_level_of_what_they_keep() -> None:
    mono = noise(100, 1)
    assert np.array_equal(to_layout(mono, 2), np.repeat(mono, 2, axis=1))
    surround = noise(100, 6)
    assert np.array_equal(to_layout(surround, 6), surround)
    assert np.array_equal(to_layout(noise(100, 2), 6)[:, :2], noise(100, 2))
    voice_only = np.zeros((10, 6), np.float32)
    voice_only[:, 2] = 1
    assert np.allclose(to_layout(voice_only, 2), math.sqrt(0.5))
    assert all(to_layout(noise(9, n), c).shape == (9, c) for n in range(1, 9) for c in (2, 6, 8))
    assert [layout_of(n) for n in range(1, 9)] == [2, 2, 2, 2, 2, 6, 6, 8]
    wide = to_layout(surround, 8)
    assert np.array_equal(wide[:, [0, 1, 2, 3, 6, 7]], surround)
    assert not wide[:, 4:6].any()


def test_a_voice_goes_to_the_middle() -> None:
    voice = noise(50)[:, 0]
    assert np.array_equal(centre(voice, 2), np.column_stack([voice, voice]))
    assert np.array_equal(centre(voice, 6)[:, 2], voice)
    assert not centre(voice, 6)[:, [0, 1, 3, 4, 5]].any()
    assert np.array_equal(centre(voice, 8)[:, 2], voice)


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 17), st.integers(0, 150))
def test_regular_blocks_have_the_wanted_length(sizes: list[int], size: int, length: int) -> None:
    parts = [noise(n, seed=i) for i, n in enumerate(sizes)] or [noise(0)]
    blocks = list(regular(iter(parts), size, length))
    assert all(len(b) == size for b in blocks[:-1])
    whole, given_sound = np.concatenate([*blocks, noise(0)]), np.concatenate(parts)
    assert whole.shape == (length, 2)
    assert np.array_equal(whole[:len(given_sound)], given_sound[:length])
    assert not whole[len(given_sound):].any()


@given(st.integers(1, 50), st.integers(1, 4))
def test_windows_show_each_block_its_neighbours(count: int, context: int) -> None:
    sound = noise(count)
    seen = list(windows(regular(iter([sound]), 5, count), context))
    padded = np.pad(sound, ((context, context), (0, 0)))
    for number, window in enumerate(seen):
        assert np.array_equal(window, padded[number * 5:number * 5 + len(window)])
    assert np.array_equal(np.concatenate([w[context:-context] for w in seen]), sound)


def test_ducking_is_complete_in_its_spans_and_smooth_outside() -> None:
    duck = Ducking([(RATE, 2 * RATE), (4 * RATE, 5 * RATE), (5 * RATE + 1000, 6 * RATE)], 30)
    db = duck.gain_db(0, 8 * RATE)
    assert np.all(db[RATE:2 * RATE] == -30)
    assert np.all(db[4 * RATE:6 * RATE] == -30), "near spans are one"
    assert np.all(db[:RATE - ATTACK] == 0)
    assert np.all(db[2 * RATE + RELEASE:4 * RATE - ATTACK] == 0)
    assert np.abs(np.diff(db)).max() <= 30 / ATTACK + 1e-9
    assert np.array_equal(duck.gain_db(RATE - 500, 900), db[RATE - 500:RATE + 400])
    assert not Ducking([], 30).gain_db(0, 100).any()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 3), st.integers(0, 99), st.sampled_from([1, 2, 6]))
def test_limiter_holds_the_true_peak(level: float, seed: int, channels: int) -> None:
    from scipy.signal import resample_poly

    limit = 0.5
    sound = noise(6000, channels, 0.1, seed)
    sound[2000:2100] *= 10 * level
    window = np.pad(sound, ((CONTEXT, CONTEXT), (0, 0)))
    gain = limiter_gain(window, limit)
    assert gain.shape == (6000,)
    finer = np.abs(resample_poly(sound * gain[:, None], 8, 1, axis=0))
    assert finer.max() <= limit * 1.05, "0.4 dB: noise, seen twice as finely"
    assert np.abs(sound).max() > limit / 2 or np.all(gain == 1)


def test_limiter_does_not_see_block_edges() -> None:
    sound = noise(9000, 2, 0.6)
    whole = limiter_gain(np.pad(sound, ((CONTEXT, CONTEXT), (0, 0))), 0.5)
    pieces = [limiter_gain(w, 0.5) for w in windows(regular(iter([sound]), 3000, 9000), CONTEXT)]
    assert np.allclose(np.concatenate(pieces), whole, atol=1e-5)


def test_loudness_of_known_tones() -> None:
    tone = np.sin(2 * np.pi * 997 * np.arange(2 * RATE) / RATE).astype(np.float32)
    assert loudness_of(tone[:, None]) == pytest.approx(-3.0, abs=0.1)  # BS.1770: a full-scale sine in one channel
    assert loudness_of(np.column_stack([tone, tone])) == pytest.approx(0.0, abs=0.1)
    short = tone[:RATE // 5, None] * 0.1
    assert loudness_of(short) == pytest.approx(-23.0, abs=0.4)
    effects = np.zeros((RATE, 6), np.float32)
    effects[:, 3] = tone[:RATE]
    assert loudness_of(effects) == -math.inf
    assert loudness_of(np.zeros((RATE, 2), np.float32)) == -math.inf
    assert loudness_of(tone[:10, None]) == -math.inf


def test_loudness_of_dialogue_is_that_of_the_time_in_which_somebody_speaks(tmp_path: Path) -> None:
    speaks = [(RATE, 2 * RATE), (3 * RATE, 4 * RATE)]
    stem, heard = noise(6 * RATE, 1, 1e-4), noise(6 * RATE, 2, 0.3)
    tone = 0.05 * np.sin(2 * np.pi * 997 * np.arange(6 * RATE) / RATE).astype(np.float32)
    for (start, end), level in zip(speaks, (0.1, 0.03), strict=True):
        stem[start:end] = noise(end - start, 1, level)
    for start, end in speaks:
        heard[start:end + RATE // 5 + 480] = tone[:end - start + RATE // 5 + 480, None]
    write_flac(tmp_path / "stem.flac", stem)
    write_flac(tmp_path / "heard.flac", heard)
    speech = speech_frames(tmp_path / "stem.flac")
    assert [int(n) for n in np.flatnonzero(np.diff(speech.astype(int)))] == [99, 219, 299, 419], "and 0.2 s after"
    found, share = dialogue_loudness(tmp_path / "heard.flac", speech)
    assert share == pytest.approx(0.4, abs=0.001)
    assert found == pytest.approx(-26.0, abs=0.15)  # BS.1770: a full-scale sine of 997 Hz on both sides is 0 LKFS
    assert speech_frames(tmp_path / "stem.flac", [(5 * RATE, 6 * RATE)])[500:].all(), "kept voices are not in the stem"


@pytest.mark.parametrize(("channel", "wanted"), [(0, -29.0), (2, -29.0), (3, None), (4, -27.5)])
def test_channels_count_as_bs_1770_says(tmp_path: Path, channel: int, wanted: float | None) -> None:
    sound = np.zeros((RATE, 6), np.float32)
    sound[:, channel] = 0.05 * np.sin(2 * np.pi * 997 * np.arange(RATE) / RATE)
    write_flac(tmp_path / "heard.flac", sound)
    found, _ = dialogue_loudness(tmp_path / "heard.flac", np.ones(100, bool))
    assert found == (wanted if wanted is None else pytest.approx(wanted, abs=0.1))


def test_nobody_speaks_in_silence(tmp_path: Path) -> None:
    write_flac(tmp_path / "stem.flac", np.zeros(RATE // 2 + 7, np.float32))
    speech = speech_frames(tmp_path / "stem.flac")
    assert (len(speech), speech.any()) == (51, False)
    assert dialogue_loudness(tmp_path / "stem.flac", speech) == (None, 0.0)
