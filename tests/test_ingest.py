"""Ingest: compliant files stay as they are, others are mended once, the rest is refused by name."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from fractions import Fraction
from pathlib import Path

import ffmpeg
import numpy as np
import pytest

from models.errors import InputError, MediaError
from models.records import Source
from models.timebase import CLOCK, frame_to_ticks
from tasks import media
from tasks.ingest import IngestRequest, ingest
from tasks.step import Work, perform
from tests import clips


def ingested(work: Work, path: Path, span: tuple[int, int] | None = None) -> Source:
    original = work.store.put_file(path, "video/mp4")
    source = perform(work, ingest, IngestRequest(original=original, range=span))
    video, audio = work.store.path(source.video), work.store.path(source.audio)
    found = media.probe(video).video
    assert media.frame_count(video) == source.frames
    assert (found.width, found.height, found.rate) == (source.width, source.height, source.rate)
    assert len(media.read_audio(audio)) == frame_to_ticks(source.frames, source.rate)
    assert media.probe(audio).audio[0].channels == source.channels
    assert (source.video == original) == (not source.conformed)
    assert source.original == original.sha256
    return source


def shown(work: Work, source: Source) -> list[int]:
    return clips.numbers_in(work.store.path(source.video), 0, source.frames)


def heard(work: Work, source: Source) -> list[float]:
    return clips.click_times(clips.sound_of(work.store.path(source.audio)))


def plain() -> Path:
    return clips.clip("ingest.mp4", frames=75)


@pytest.mark.parametrize("rate", clips.RATES, ids=str)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_constant_rates_stay_as_they_are(work, rate, suffix):
    frames = int(rate * 2)
    source = ingested(work, clips.clip(f"rate-{rate.numerator}.{suffix}", rate=rate, frames=frames))
    assert (source.rate, source.frames, source.conformed) == (rate, frames, ())
    assert heard(work, source) == pytest.approx([0, 1], abs=0.0011)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("audio_rate", [48_000, 44_100])
def test_all_channels_are_kept(work, channels, audio_rate):
    path = clips.clip(f"channels-{channels}-{audio_rate}.mp4", channels=channels, audio_rate=audio_rate)
    source = ingested(work, path)
    assert (source.channels, source.conformed) == (channels, ())


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_late_sound_track_stays_late(work, suffix):
    path = clips.clip(f"late.{suffix}", frames=75, audio_offset=0.25)
    source = ingested(work, path)
    assert heard(work, source) == pytest.approx([0.25, 1.25, 2.25], abs=0.0011)


def test_a_late_picture_begins_at_zero(work):
    late = clips.remade("late-picture.mkv", clips.clip("late.mkv", frames=75, audio_offset=0.25), before={"ss": 0})
    shifted = clips.FOLDER / "picture-later.mp4"
    video = ffmpeg.input(str(plain()), itsoffset=0.4).video
    media.run_ffmpeg(ffmpeg.output(video, ffmpeg.input(str(plain())).audio, str(shifted), c="copy"),
                     where="x")
    source = ingested(work, shifted)
    assert shown(work, source) == list(range(75))
    assert heard(work, source) == pytest.approx([0.6, 1.6], abs=0.001)
    assert ingested(work, late).frames == 75


def test_an_edit_list_that_cuts_is_mended(work):
    path = clips.remade("ingest-trimmed.mp4", plain(), before={"ss": 0.6})
    source = ingested(work, path)
    assert source.conformed == ("edit list",)
    assert shown(work, source) == list(range(15, 75))
    assert heard(work, source) == pytest.approx([0.4, 1.4], abs=0.001)


def test_variable_rate_is_laid_on_a_constant_one(work):
    drops = (("select", {"expr": "lt(n,20)+not(mod(n,3))"}),)
    path = clips.clip("variable.mp4", rate=Fraction(30), frames=90, filters=drops, vsync="vfr")
    source = ingested(work, path)
    assert source.conformed == ("variable frame rate",)
    assert (source.rate, source.frames) == (30, pytest.approx(90, abs=2))
    expected = [max(kept for kept in range(n + 1) if kept < 20 or kept % 3 == 0) for n in range(source.frames)]
    assert shown(work, source) == expected
    assert heard(work, source) == pytest.approx([0, 1, 2], abs=0.001)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_honoured(work, degrees):
    path = clips.remade(f"turned-{degrees}.mp4", clips.clip("upright.mp4"),
                        **{"metadata:s:v:0": f"rotate={degrees}"})
    source = ingested(work, path)
    assert source.conformed == ("rotation",)
    assert (source.width, source.height) == ((192, 128) if degrees == 180 else (128, 192))
    with media.FrameReader(work.store.path(source.video)) as reader:
        image = np.rot90(reader.frame(30), -degrees // 90)
    assert clips.number_in(image) == 30


def test_odd_dimensions_lose_a_row_and_a_column(work):
    source = ingested(work, clips.clip("odd.mp4", size=(193, 129), vcodec="mpeg4", qp=-1, qscale=2))
    assert (source.conformed, source.width, source.height) == (("odd dimensions",), 192, 128)
    assert shown(work, source) == list(range(60))


@pytest.mark.parametrize(("name", "options"), [
    ("packed.avi", {"vcodec": "mpeg4", "bf": 2, "qp": -1, "qscale": 2}), ("stream.ts", {}),
    ("flash.flv", {"audio_rate": 44_100})])
def test_other_containers_are_put_into_mp4(work, name, options):
    source = ingested(work, clips.clip(f"ingest-{name}", frames=75, **options))
    assert source.conformed == ("container",)
    assert shown(work, source) == list(range(75))


def test_a_missing_duration_does_no_harm(work):
    path = clips.remade("live.mkv", plain(), live=1)
    assert media.probe(path).duration is None
    source = ingested(work, path)
    assert (source.frames, source.conformed) == (75, ())


def test_a_cover_image_is_not_the_picture(work):
    cover = clips.FOLDER / "cover.png"
    media.run_ffmpeg(ffmpeg.input(str(plain())).output(str(cover), vframes=1), where="cover")
    with_cover = clips.FOLDER / "cover.mp4"
    inputs = [ffmpeg.input(str(cover)).video, ffmpeg.input(str(plain()))]
    media.run_ffmpeg(ffmpeg.output(inputs[0], inputs[1].video, inputs[1].audio, str(with_cover), c="copy",
                                         **{"disposition:v:0": "attached_pic"}), where="cover")
    assert ingested(work, with_cover).frames == 75
    only = clips.FOLDER / "cover-only.m4a"
    media.run_ffmpeg(ffmpeg.output(inputs[0], inputs[1].audio, str(only), c="copy",
                                         **{"disposition:v:0": "attached_pic"}), where="cover")
    with pytest.raises(MediaError, match="no video stream"):
        ingested(work, only)


def test_the_default_sound_track_is_taken(work):
    path = clips.FOLDER / "two-tracks.mp4"
    tracks = [ffmpeg.input(str(clips.sound(3.0, n))).audio for n in (1, 2)]
    media.run_ffmpeg(ffmpeg.output(ffmpeg.input(str(plain())).video, *tracks, str(path), vcodec="copy",
                                         **{"disposition:a:0": "0", "disposition:a:1": "default"}), where="x")
    assert ingested(work, path).channels == 2


def test_a_range_is_cut_to_the_frame(work):
    source = ingested(work, clips.clip("ntsc-range.mp4", rate=Fraction(30000, 1001), frames=120),
                      (CLOCK * 3 // 2, CLOCK * 5 // 2))
    assert source.conformed == ("range",)
    assert shown(work, source) == list(range(44, 75))
    begins = 44 * 1001 / 30000
    assert heard(work, source) == pytest.approx([2 - begins], abs=0.0005)


@pytest.mark.parametrize("span", [(CLOCK * 9, CLOCK * 10), (CLOCK, CLOCK)])
def test_a_range_outside_is_refused(work, span):
    with pytest.raises(InputError, match=r"00:00:03\.000.*--range"):
        ingested(work, plain(), span)


def test_chapters_and_colours_are_kept(work):
    marks = clips.FOLDER / "marks.txt"
    marks.write_text(";FFMETADATA1\n" + "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={start + 1000}\ntitle=Part {start}\n" for start in (0, 1000)))
    path = clips.FOLDER / "marks.mp4"
    clip = clips.clip("coloured.mp4", frames=75, colorspace="bt709", color_primaries="bt709", color_trc="bt709",
                      color_range="tv")
    both = [ffmpeg.input(str(clip)), ffmpeg.input(str(marks))["d?"]]
    media.run_ffmpeg(ffmpeg.output(*both, str(path), c="copy", map_chapters=1), where="marks")
    source = ingested(work, path)
    assert [(c.start, c.end, c.title) for c in source.chapters] == [
        (0, CLOCK, "Part 0"), (CLOCK, 2 * CLOCK, "Part 1000")]
    assert source.color.model_dump() == {"primaries": "bt709", "transfer": "bt709", "matrix": "bt709", "range": "tv"}
    part = ingested(work, path, (CLOCK // 2, CLOCK * 3 // 2))
    begins = frame_to_ticks(12, part.rate)
    assert [(c.start, c.title) for c in part.chapters] == [(0, "Part 0"), (CLOCK - begins, "Part 1000")]
    assert part.color == source.color


REFUSED = {
    "silent.mp4": ({"channels": 0}, "no sound track"),
    "sound-only.m4a": ({"picture": False, "acodec": "aac"}, "no video stream"),
    "interlaced.mp4": ({"vcodec": "mpeg2video", "flags": "+ilme+ildct", "qp": -1, "qscale": 3}, "interlaced"),
    "interlaced264.mp4": ({"x264-params": "tff=1"}, "interlaced"),
    "ten-bits.mp4": ({"pix_fmt": "yuv420p10le"}, "10 bits"),
    "hdr.mp4": ({"vcodec": "libx265", "pix_fmt": "yuv420p10le", "color_trc": "smpte2084", "color_primaries": "bt2020",
                 "colorspace": "bt2020nc", "x265-params": "log-level=none", "frames": 5}, "HDR"),
    "hlg.mp4": ({"color_trc": "arib-std-b67"}, "HDR"),
    "anamorphic.mp4": ({"filters": (("setsar", {"sar": "4/3"}),)}, "anamorphic"),
    "alpha.mov": ({"vcodec": "qtrle", "pix_fmt": "argb", "qp": -1, "frames": 10}, "alpha"),
    "still.mp4": ({"frames": 1}, "single picture"),
    "encrypted.mp4": ({"encryption_scheme": "cenc-aes-ctr", "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
                       "encryption_kid": "a7e61c373e219033c21091fa607bf3b8"}, "encrypted"),
    "many-channels.mkv": ({}, "10 channels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_dubbed_is_refused_by_name(work, name):
    options, reason = REFUSED[name]
    path = clips.many_channels(name, 10) if name == "many-channels.mkv" else clips.clip(f"no-{name}", **options)
    with pytest.raises(MediaError, match=reason) as error:
        ingested(work, path)
    assert error.value.hint
    assert "…" in error.value.where
    assert not list(work.scratch.iterdir())


@pytest.mark.parametrize("kept", [0, 300, 0.5, 0.94])
def test_cut_off_files_are_refused(work, tmp_path, kept):
    whole = clips.clip("whole.mp4", frames=250, movflags="faststart").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(MediaError):
        ingested(work, tmp_path / "cut.mp4")


def test_a_cut_off_matroska_is_refused(work, tmp_path):
    whole = clips.clip("whole.mkv", frames=250).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(MediaError, match="cut short"):
        ingested(work, tmp_path / "cut.mkv")


def test_an_index_at_the_end_that_is_lost_is_refused(work, tmp_path):
    whole = plain().read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(MediaError, match="cannot be read"):
        ingested(work, tmp_path / "cut.mp4")


@pytest.mark.parametrize(("old", "new", "reason"), [
    (b"avc1", b"zzz1", "unknown codec"), (b"moov", b"zzz2", "cannot be read")])
def test_altered_headers_are_refused(work, tmp_path, old, new, reason):
    (tmp_path / "altered.mp4").write_bytes(plain().read_bytes().replace(old, new))
    with pytest.raises(MediaError, match=reason):
        ingested(work, tmp_path / "altered.mp4")


@pytest.mark.parametrize("seed", range(12))
def test_damage_is_refused_or_mended_but_never_crashes(work, tmp_path, seed):
    data = bytearray(clips.clip("damaged.mkv" if seed % 2 else "damaged.mp4", frames=20).read_bytes())
    chance = random.Random(seed)
    for _ in range(40):
        data[chance.randrange(len(data))] = chance.randrange(256)
    (tmp_path / "damaged").write_bytes(data)
    with contextlib.suppress(MediaError):
        ingested(work, tmp_path / "damaged")


def test_memory_does_not_grow_with_the_length(work, tmp_path):
    peaks = []
    for frames in (100, 500):
        path = clips.clip(f"long-{frames}.mp4", frames=frames, size=(192, 32))
        original = work.store.put_file(path, "video/mp4")
        tracemalloc.start()
        perform(work, ingest, IngestRequest(original=original))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000
