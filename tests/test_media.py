"""Media: frames by exact index, sound at exact times, nothing but real containers opened."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import ffmpeg
import numpy as np
import pytest

from models.errors import MediaError, SetupError
from models.records import ColorTags
from models.timebase import CLOCK
from tasks import media
from tasks import sound as sound_module
from tasks.media import (
    FrameReader,
    FrameWriter,
    PictureWriter,
    concat_ffv1,
    copy_pictures,
    frame_count,
    read_audio,
    write_flac,
)
from tests import clips

OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}
CLIPS = {
    "plain.mp4": {},
    "ntsc.mp4": {"rate": Fraction(24000, 1001)},
    "pal50.mkv": {"rate": Fraction(50)},
    "ntsc60.mkv": {"rate": Fraction(60000, 1001), "frames": 90},
    "open-gop.mp4": OPEN_GOP,
    "open-gop.mkv": {**OPEN_GOP, "rate": Fraction(30000, 1001)},
    "hevc.mp4": {"vcodec": "libx265", "x265-params": "keyint=12:bframes=4:log-level=none", "frames": 40},
    "mpeg2.mkv": {"vcodec": "mpeg2video", "bf": 2, "g": 9, "qscale": 3},
    "mpeg4.mp4": {"vcodec": "mpeg4", "bf": 2, "g": 10, "qscale": 3},
    "stream.ts": {"g": 15},
    "fragments.mp4": {"movflags": "frag_keyframe+empty_moov", "g": 20},
}


def made(name: str) -> Path:
    options = dict(CLIPS[name])
    if options.get("vcodec") in {"mpeg2video", "mpeg4"}:
        options["qp"] = -1
    return clips.clip(name, **options)


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_exact_in_order_and_at_random(name):
    path, count = made(name), CLIPS[name].get("frames", 60)
    assert frame_count(path) == count
    with FrameReader(path) as reader:
        assert reader.rate == CLIPS[name].get("rate", 25)
        assert [clips.number_in(image) for image in reader.frames(0, count)] == list(range(count))
        asked = random.Random(name).sample(range(count), 20)
        assert [clips.number_in(reader.frame(index)) for index in asked] == asked


@pytest.mark.parametrize("name", ["plain.mp4", "open-gop.mp4"])
def test_frames_are_counted_from_where_an_edit_list_begins(name):
    path = clips.remade(f"trimmed-{name}", made(name), before={"ss": 0.6})
    assert sum(p.is_discard for p in av.open(str(path)).demux(video=0)) > 0
    count = frame_count(path)
    first = clips.numbers_in(path, 0, 1)[0]
    assert first == 15
    with FrameReader(path) as reader:
        for index in (20, 3, 0, count - 1, 11, 12, 13):
            assert clips.number_in(reader.frame(index)) == index + first


def test_a_frame_that_is_not_there_is_an_error():
    with FrameReader(made("plain.mp4")) as reader, pytest.raises(MediaError, match=r"frame 60 is missing"):
        reader.frame(60)


def test_clips_are_written_without_loss_and_joined(tmp_path):
    images = [np.random.default_rng(n).integers(0, 256, (37, 53, 3), np.uint8) for n in range(9)]
    for name, part in {"a": images[:4], "b": images[4:5], "c": images[5:], "again": images[:4]}.items():
        with FrameWriter(tmp_path / name, 53, 37, Fraction(30000, 1001)) as writer:
            for image in part:
                writer.write(image)
    concat_ffv1([tmp_path / name for name in "abc"], tmp_path / "joined")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "again").read_bytes()
    with FrameReader(tmp_path / "joined") as reader:
        assert (reader.rate, frame_count(tmp_path / "joined")) == (Fraction(30000, 1001), 9)
        assert all((reader.frame(n) == images[n]).all() for n in (8, 0, 4, 3, 5))


def test_clips_of_another_size_are_not_joined(tmp_path):
    for name, width in {"a": 32, "b": 48}.items():
        with FrameWriter(tmp_path / name, width, 32, Fraction(25)) as writer:
            writer.write(np.zeros((32, width, 3), np.uint8))
    with pytest.raises(MediaError, match="48"):
        concat_ffv1([tmp_path / "a", tmp_path / "b"], tmp_path / "joined")


@pytest.mark.parametrize(("matrix", "span"), [("bt709", "tv"), ("smpte170m", "tv"), (None, None), ("bt709", "pc")])
def test_colours_survive_the_way_through_rgb(tmp_path, matrix, span):
    color = ColorTags(matrix=matrix, range=span)
    with FrameReader(clips.pictures()) as reader, PictureWriter(tmp_path / "x", 192, 128, reader.rate, color=color,
                                                                crf=4) as writer:
        for picture in reader.pictures(0, 3):
            writer.write(picture)
    with FrameReader(tmp_path / "x") as encoded:
        assert np.abs(encoded.frame(2)[20:].astype(int) - clips.numbered(2)[20:]).mean() < 1.5
    tags = media.probe(tmp_path / "x").video.color
    assert (tags.matrix, tags.range) == (matrix, span)


def test_encoding_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        with (FrameReader(clips.pictures()) as reader,
              PictureWriter(tmp_path / name, 192, 128, reader.rate, color=ColorTags(), crf=16) as writer):
            for picture in reader.pictures(0, 60):
                writer.write(picture)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", ["ntsc.mp4", "open-gop.mkv", "ntsc60.mkv", "hevc.mp4"])
def test_copied_pictures_keep_frames_and_get_exact_times(tmp_path, name):
    path, count = made(name), CLIPS[name].get("frames", 60)
    assert copy_pictures(path, tmp_path / "copy")
    copy, given = media.probe(tmp_path / "copy").video, media.probe(path).video
    assert (copy.rate, copy.start, copy.frames, copy.codec) == (given.rate, 0, count, given.codec)
    with av.open(str(tmp_path / "copy")) as container:
        times = sorted(p.pts * p.time_base for p in container.demux(video=0) if p.size)
    assert times == [index / given.rate for index in range(count)]
    assert clips.numbers_in(tmp_path / "copy", 0, count) == list(range(count))


def test_pictures_that_do_not_fit_are_not_copied(tmp_path):
    assert not copy_pictures(clips.pictures(), tmp_path / "copy")
    assert not copy_pictures(clips.remade("trimmed-plain.mp4", made("plain.mp4"), before={"ss": 0.6}), tmp_path / "x")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(("options", "name"), [
    ({"acodec": "aac"}, "aac.mp4"), ({"acodec": "libopus"}, "opus.mkv"),
    ({"acodec": "pcm_s16le"}, "pcm.mkv"), ({"acodec": "aac", "channels": 6}, "surround.mp4"),
    ({"acodec": "aac", "channels": 1, "audio_rate": 44100}, "mono44.mp4")])
def test_sound_is_heard_at_its_time(options, name):
    path = clips.clip(name, frames=75, **options)
    heard = clips.click_times(clips.sound_of(path))
    assert heard == pytest.approx([0, 1, 2], abs=0.0005)
    later = clips.click_times(clips.sound_of(path, start=24_000, length=90_000))
    assert later == pytest.approx([0.5, 1.5], abs=0.0005)


def test_a_track_ends_where_its_edit_list_says():
    path = clips.clip("aac.mp4", frames=75, acodec="aac")
    assert len(clips.sound_of(path)) == 144_000
    assert len(clips.sound_of(path, start=100_000)) == 44_000
    assert len(media.read_audio(path, rate=16_000)) == 48_000


def test_parts_of_a_flac_are_exact(tmp_path):
    samples = np.random.default_rng(0).integers(-2**23, 2**23, (300_000, 2)) / np.float64(2**23)
    samples = samples.astype(np.float32)
    media.write_flac(tmp_path / "x", samples)
    assert (media.read_audio(tmp_path / "x", channels=None) == samples).all()
    for start in (0, 1, 4799, 48_000, 250_001):
        part = media.read_audio(tmp_path / "x", channels=None, start=start, length=4000)
        assert (part == samples[start:start + 4000]).all()
    low = media.read_audio(tmp_path / "x", rate=16_000)
    part = media.read_audio(tmp_path / "x", rate=16_000, start=150_000, length=9_000)
    assert np.allclose(part, low[50_000:53_000], atol=1e-6)
    blocks = list(media.audio_blocks(tmp_path / "x", rate=16_000, channels=1, block=1000))
    assert {len(b) for b in blocks} == {1000}
    assert (np.concatenate(blocks)[:, 0] == low).all()


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.1, 1.25])
def test_stretching_keeps_pitch_and_sets_the_length(factor):
    time = np.arange(96_000) / 48_000
    stretched = media.stretch((0.3 * np.sin(2 * np.pi * 220 * time)).astype(np.float32), 48_000, factor)
    assert len(stretched) == round(96_000 / factor)
    spectrum = np.abs(np.fft.rfft(stretched[20_000:60_000]))
    assert np.argmax(spectrum) * 48_000 / 40_000 == pytest.approx(220, abs=2)


def test_stretching_keeps_events_in_place():
    tone = np.zeros(96_000, np.float32)
    tone[48_000:50_400] = np.sin(np.arange(2400) * 0.1) * np.hanning(2400)
    stretched = np.abs(media.stretch(tone, 48_000, 1.2))
    assert np.average(np.arange(len(stretched)), weights=stretched) == pytest.approx(49_200 / 1.2, abs=720)


def test_loudness_of_a_reference_tone(tmp_path):
    tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(480_000) / 48_000)
    media.write_flac(tmp_path / "tone", np.stack([tone, tone], -1).astype(np.float32))
    measured = media.loudness(tmp_path / "tone")
    assert measured.integrated_lufs == pytest.approx(-20, abs=0.15)
    assert measured.true_peak_dbtp == pytest.approx(-20, abs=0.2)
    media.write_flac(tmp_path / "silence", np.zeros(48_000, np.float32))
    assert media.loudness(tmp_path / "silence").true_peak_dbtp == -120


def test_probe_tells_what_is_there():
    path = clips.clip("probed.mp4", rate=Fraction(30000, 1001), channels=6, acodec="aac", colorspace="bt709",
                      color_trc="bt709", color_primaries="bt709", color_range="tv",
                      **{"metadata": "title=A & B", "metadata:s:a:0": "language=eng"})
    found = media.probe(path)
    assert (found.video.width, found.video.height, found.video.rate) == (192, 128, Fraction(30000, 1001))
    assert found.video.color == ColorTags(primaries="bt709", transfer="bt709", matrix="bt709", range="tv")
    assert (found.audio[0].channels, found.audio[0].language, found.title) == (6, "eng", "A & B")


@pytest.mark.parametrize("text", [
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile /etc/passwd\n", "garbage", ""])
def test_playlists_and_garbage_are_refused(tmp_path, text):
    path = tmp_path / hashlib.sha256(text.encode()).hexdigest()
    path.write_text(text)
    for read in (media.probe, frame_count, media.read_audio, media.loudness):
        with pytest.raises(MediaError, match=path.name[:12]) as error:
            read(path)
        assert path.name not in str(error.value)


def test_a_missing_ffmpeg_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="apt-get install ffmpeg"):
        media.run_ffmpeg(ffmpeg.input("x").output("y"), where="x")


def test_where_no_place_is_found_decoding_begins_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "sound.flac"
    sound = (0.1 * np.sin(np.arange(4 * CLOCK) / 20)).astype(np.float32)
    write_flac(path, sound)
    opened = sound_module.reading

    class Unseekable:  # ffmpeg answers so within long silence of some FLACs
        def __init__(self, container: Any) -> None:
            self._container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def seek(self, offset: int, **_: Any) -> None:
            if offset:
                raise av.error.PermissionError(1, "Operation not permitted")

    @contextmanager
    def reading(*arguments: Any, **options: Any) -> Iterator[Any]:
        with opened(*arguments, **options) as container:
            yield Unseekable(container)

    monkeypatch.setattr(sound_module, "reading", reading)
    heard = read_audio(path, start=3 * CLOCK, length=4_800)
    assert np.abs(heard - sound[3 * CLOCK:3 * CLOCK + 4_800]).max() < 1e-3


def test_without_rubberband_nothing_else_changes_the_tempo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "has_rubberband", lambda: False)
    with pytest.raises(SetupError, match="librubberband"):
        media.stretch(np.zeros(4800, np.float32), 48_000, 1.1)
