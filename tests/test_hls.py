"""HLS: read by another library and played by ffmpeg; a language that is added changes no byte of the others."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import m3u8
import numpy as np
import pytest

from models.records import Assembled, Package, SoundTrack, Source, TextTrack
from models.timebase import CLOCK, frame_to_ticks
from tasks import media
from tasks.captions import Cue, vtt
from tasks.encode import copy_pictures, segmentable
from tasks.hls import HlsRequest, hls
from tasks.ingest import IngestRequest, ingest
from tasks.step import Work, perform
from tests import clips

RATE = Fraction(12000, 1001)
FRAMES = 190


def source_of(work: Work) -> Source:
    path = clips.clip("segments.mkv", rate=RATE, frames=FRAMES, g=24)
    return perform(work, ingest, IngestRequest(original=work.store.put_file(path, "video/x-matroska")))


def assembled(work: Work, source: Source, *tags: str, line: str = "Hola & adiós <1>") -> Assembled:
    """An episode with a click at every full second plus a tenth of its language's place."""
    path, length = work.scratch / "part", frame_to_ticks(source.frames, source.rate)
    copy_pictures(work.store.path(source.video), path)
    picture = work.store.put_file(path, "video/mp4")
    sounds, texts = [], []
    for number, tag in enumerate(tags):
        samples = np.zeros((length, 2), np.float32)
        samples[round((0.1 + number / 10) * CLOCK)::CLOCK] = 0.9
        media.write_flac(path, samples)
        sounds.append(SoundTrack(file=work.store.put_file(path, "audio/flac"), language=tag, name=f"Name {number % 2}"))
        text = work.store.put_bytes(vtt((Cue(5 * CLOCK, 7 * CLOCK, line), Cue(14 * CLOCK, 15 * CLOCK, tag))).encode(),
                                    "text/vtt")
        texts.append(TextTrack(srt=text, vtt=text, language=tag, name=f"Name {number % 2}"))
    path.unlink()
    return Assembled(language=tags[0], video=picture, subtitles={}, frames=source.frames, rate=source.rate,
                     generated_frames=0, video_copied=True, picture=picture, sounds=tuple(sounds), texts=tuple(texts))


def written(work: Work, package: Package, folder: Path) -> Path:
    for name, file in package.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(work.store.path(file).read_bytes())
    return folder / package.main


@pytest.fixture(scope="module")
def made(module_work: Work) -> tuple[Work, Source, Package]:
    """An episode in two languages."""
    source = source_of(module_work)
    return module_work, source, perform(module_work, hls, HlsRequest(
        assembled=assembled(module_work, source, "es-419", "en"), source=source,
        titles={"es": 'El "faro"', "en": "The lighthouse"}))


def test_other_libraries_read_and_play_it(made, tmp_path):
    work, source, package = made
    main = m3u8.load(str(written(work, package, tmp_path)))
    video, = main.playlists
    info = video.stream_info
    assert (info.resolution, info.frame_rate, info.codecs) == ((192, 128), 11.988, "avc1.64000a,mp4a.40.2")
    heard = [one for one in main.media if one.type == "AUDIO"]
    assert [(one.language, one.name, one.default, one.autoselect, one.channels) for one in heard] == [
        ("es-419", "Name 0", "YES", "YES", "2"), ("en", "Name 1", "NO", "YES", "2")]
    texts = [(one.language, one.forced) for one in main.media if one.type == "SUBTITLES"]
    assert texts == [("es-419", "NO"), ("en", "NO")]
    assert {one.language: one.value for one in main.session_data} == {"es": "El ”faro”", "en": "The lighthouse"}
    total, sizes = Fraction(FRAMES) / RATE, {}
    for one in (video, *main.media):
        listed = m3u8.load(str(tmp_path / one.uri))
        assert (listed.is_endlist, listed.playlist_type) == (True, "vod")
        lasts = [segment.duration for segment in listed.segments]
        assert sum(lasts) == pytest.approx(float(total), abs=0.05)
        assert all(4 <= length <= 8 for length in lasts[:-1])
        assert max(map(round, lasts)) <= listed.target_duration
        files = [(tmp_path / one.uri).parent / segment.uri for segment in listed.segments]
        sizes[one.uri] = [8 * file.stat().st_size / length for file, length in zip(files, lasts, strict=True)]
    most = [max(rates[:-1]) for uri, rates in sizes.items() if "picture" in uri or "es" in uri]
    assert sum(most) <= info.bandwidth <= 1.3 * sum(most)
    assert info.average_bandwidth <= info.bandwidth
    shown = media.frame_count  # the project opens no playlists: PyAV does, for a test
    with av.open(str(tmp_path / package.main)) as played:
        at = [frame.time for frame in played.decode(video=0)]
        assert len(at) == FRAMES == shown(work.store.path(source.video))
        assert np.abs(np.array(at) - np.arange(FRAMES) / float(RATE)).max() < 1e-4
    for number, uri in enumerate(("sound-es-419/index.m3u8", "sound-en/index.m3u8")):
        with av.open(str(tmp_path / uri)) as played:
            blocks = [(frame.time, frame.to_ndarray()[0]) for frame in played.decode(audio=0)]
        samples = np.concatenate([block for _, block in blocks])
        clicks = np.array(clips.click_times(samples)) + blocks[0][0]
        assert clicks == pytest.approx(0.1 + number / 10 + np.arange(len(clicks)), abs=0.001)
        assert abs(len(samples) / CLOCK - total) < 0.03


def test_subtitles_stand_in_every_segment_they_are_shown_in(made):
    work, _, package = made
    texts = [work.store.path(file).read_text() for name, file in sorted(package.files.items())
             if name.startswith("text-es-419/") and name.endswith("vtt")]
    assert ["Hola &amp; adiós &lt;1&gt;" in text for text in texts] == [True, True, False]
    assert all(text.startswith("WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0\n") for text in texts)
    assert "00:00:14.000 --> 00:00:15.000\nes-419\n" in texts[2]


def test_a_language_more_leaves_the_others_as_they_are(work):
    source = source_of(work)
    first = perform(work, hls, HlsRequest(assembled=assembled(work, source, "en", "es", "fr"), source=source))
    assert work.counts["tracks_run"] == 7
    request = HlsRequest(assembled=assembled(work, source, "en", "es", "fr", "pt-BR"), source=source)
    second = perform(work, hls, request)
    assert (work.counts["tracks_run"], work.counts["tracks_reused"]) == (9, 7)
    old = first.files.keys() - {first.main}
    assert all(second.files[name] == first.files[name] for name in old)
    assert {name.partition("/")[0] for name in second.files.keys() - old} == {"sound-pt-BR", "text-pt-BR", "main.m3u8"}
    names = [one.name for one in m3u8.loads(work.store.path(second.files["main.m3u8"]).read_text()).media]
    assert names == ["Name 0 [en]", "Name 1 [es]", "Name 0 [fr]", "Name 1 [pt-BR]"] * 2
    changed = assembled(work, source, "en", "es", "fr", "pt-BR", line="Otra")
    perform(work, hls, request.model_copy(update={"assembled": changed}))
    assert (work.counts["tracks_run"], work.counts["tracks_reused"]) == (13, 12)  # subtitles of four, and nothing else
    again = perform(work, hls, request.model_copy(update={"take": 1}))
    assert again == second


@pytest.mark.parametrize(("options", "can"), [
    ({"g": 10}, True), ({"g": 1000, "sc_threshold": 0}, False), ({"vcodec": "mpeg4"}, False),
    ({"g": 10, "x264-params": "open-gop=1:bframes=3:b-adapt=0"}, False)])
def test_what_cannot_be_cut_is_encoded(work, tmp_path, options, can):
    name = "-".join(map(str, options.values())).replace(":", "-")
    path = clips.clip(f"cut-{name}.mkv", rate=Fraction(5), frames=60, **options)
    picture = tmp_path / "picture.mp4"
    copy_pictures(path, picture)
    assert segmentable(picture) == can
    if "mpeg4" in options.values():
        file = work.store.put_file(picture, "video/mp4")
        source = perform(work, ingest, IngestRequest(original=work.store.put_file(path, "video/x-matroska")))
        made = Assembled(language="es", video=file, subtitles={}, frames=60, rate=Fraction(5), generated_frames=0,
                         video_copied=True, picture=file)
        package = perform(work, hls, HlsRequest(assembled=made, source=source))
        with av.open(str(written(work, package, tmp_path / "out"))) as played:
            assert played.streams.video[0].codec_context.name == "h264"
            assert sum(1 for _ in played.decode(video=0)) == 60
