"""One suite for everything that hides a number in sound; the attacks are those that a copy meets on its way."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
import pytest
from scipy.signal import resample_poly

from flows.wiring import watermarkers
from models.engines import ENGINES
from models.errors import InputError
from models.ports import Samples
from tasks.media import audio_blocks, read_audio, run_ffmpeg, write_flac
from tests.embedded import EXAMPLES

RATE = 48_000
PAYLOAD = 0xC0FFEE42
NAMES = tuple(ENGINES["watermarker"])


def pieces(samples: Samples, length: int = 70_001) -> Iterator[Samples]:
    yield from (samples[at:at + length] for at in range(0, len(samples), length))


@cache
def original(episode: int = 2) -> Samples:
    return read_audio(EXAMPLES / f"harbor-lights-s01e0{episode}.mp4", channels=2)


@cache
def marked(name: str, episode: int = 2) -> Samples:
    return np.concatenate(list(watermarkers()[name].embed(pieces(original(episode)), PAYLOAD)))


def found(name: str, samples: Samples) -> int | None:
    mark = watermarkers()[name].detect(pieces(samples if samples.ndim == 1 else samples.mean(1)))
    return mark.payload if mark else None


def through(codec: str, container: str, folder: Path, samples: Samples, **options: Any) -> Samples:
    write_flac(folder / "in.flac", samples, RATE)
    run_ffmpeg(ffmpeg.output(ffmpeg.input(str(folder / "in.flac")), str(folder / f"out.{container}"), acodec=codec,
                             **options), where="the copy")
    return read_audio(folder / f"out.{container}", channels=1)


@pytest.mark.parametrize("name", NAMES)
def test_a_mark_survives_codecs(name: str, tmp_path: Path) -> None:
    part = marked(name)[:15 * RATE]
    heard = {
        "AAC, 128 kbit/s": through("aac", "m4a", tmp_path, part, audio_bitrate="128k"),
        "MP3, 128 kbit/s": through("libmp3lame", "mp3", tmp_path, part, audio_bitrate="128k"),
        "Opus, 48 kbit/s": through("libopus", "ogg", tmp_path, part, audio_bitrate="48k"),
    }
    assert {how: found(name, samples) for how, samples in heard.items()} == dict.fromkeys(heard, PAYLOAD)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("episode", [1, 2])
def test_a_mark_survives_what_is_done_to_copies(name: str, episode: int) -> None:
    mono = marked(name, episode).mean(1)
    noise = np.random.default_rng(5).standard_normal(len(mono)) * np.sqrt((mono ** 2).mean() / 100)
    heard = {"6 dB softer": mono / 2, "resampled to 22 kHz": resample_poly(resample_poly(mono, 147, 320), 320, 147),
             "10 seconds of it": mono[100_003:580_003], "the last 10 seconds": mono[-480_000:],
             "noise at 20 dB": mono + noise, "upside down": -mono}
    assert {how: found(name, samples.astype(np.float32)) for how, samples in heard.items()} == \
        dict.fromkeys(heard, PAYLOAD)


@pytest.mark.parametrize("name", NAMES)
def test_where_there_is_no_mark_none_is_found(name: str) -> None:
    files = [*EXAMPLES.glob("*s01e02*.flac"), *EXAMPLES.glob("*.mp4")]
    assert len(files) == 4
    for path in files:
        heard = (block[:, 0] for block in audio_blocks(path, channels=1))
        assert watermarkers()[name].detect(heard) is None, path
    assert found(name, np.zeros(5 * RATE, np.float32)) is None
    assert found(name, marked(name)[:RATE]) is None  # too short to tell
    assert found(name, np.zeros(0, np.float32)) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_mark_changes_neither_length_nor_place_nor_much(name: str) -> None:
    before, after = original().astype(np.float64), marked(name).astype(np.float64)
    assert after.shape == before.shape
    levels = [10 * np.log10((np.abs(np.fft.rfft(x, axis=0)) ** 2).sum(1) + 1e-12) for x in (before, after - before)]
    hertz = np.fft.rfftfreq(len(before), 1 / RATE)
    for low in (50, 100, 200, 400, 800, 1600, 3200, 6400, 12800):
        band = (hertz >= low) & (hertz < 2 * low)
        power = [10 * np.log10((10 ** (level[band] / 10)).sum()) for level in levels]
        assert power[0] - power[1] > 22, f"at {low} Hz"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 1023, 1024, 3000, 10_000])
def test_however_sound_comes_in_pieces_the_mark_is_the_same(name: str, length: int) -> None:
    sound = original()[:10_000]
    whole = np.concatenate(list(watermarkers()[name].embed([sound], PAYLOAD)))
    parts = np.concatenate(list(watermarkers()[name].embed(pieces(sound, max(length, 500)), PAYLOAD)))
    np.testing.assert_array_equal(whole, parts)
    short = np.concatenate([np.zeros((0, 2)), *watermarkers()[name].embed([sound[:length]], PAYLOAD)])
    assert len(short) == length


@pytest.mark.parametrize("name", NAMES)
def test_silence_stays_silent(name: str) -> None:
    assert not np.concatenate(list(watermarkers()[name].embed([np.zeros((9000, 6), np.float32)], PAYLOAD))).any()


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_has_32_bits(name: str) -> None:
    with pytest.raises(InputError, match="32 bits"):
        list(watermarkers()[name].embed([original()[:5000]], 2 ** 32))
