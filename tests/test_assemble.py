"""Assemble: exact frames, sound to the millisecond, subtitles that can be read, the same bytes twice."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import EngineError, InputError
from models.records import (
    Artifact,
    Assembled,
    Chapter,
    Clip,
    Clips,
    ColorTags,
    EngineRef,
    Line,
    Loudness,
    Mix,
    Placement,
    Plan,
    PlannedShot,
    ShotRequest,
    Source,
    Speech,
    SpokenLine,
    Transcript,
)
from models.timebase import CLOCK, frame_to_ticks
from tasks import media
from tasks.assemble import (
    AssembleRequest,
    Dub,
    MatroskaRequest,
    MultiRequest,
    assemble,
    assemble_matroska,
    assemble_multi,
)
from tasks.compose import feather, in_between
from tasks.ingest import IngestRequest, ingest
from tasks.step import Work, perform
from tests import clips

NOTHING = Artifact(sha256="0" * 64, size=0, media_type="audio/flac")
TWO = (("passthrough", 0, 20), ("generate", 20, 50), ("passthrough", 50, 60))


HEARD = Transcript(language="en", lines=(Line(id="L0001", start=CLOCK // 2, end=CLOCK, text="Who lights the lamp?"),))


def source_of(work: Work, path: Path) -> Source:
    return perform(work, ingest, IngestRequest(original=work.store.put_file(path, "video/mp4")))


def planned(work: Work, source: Source, shots=(), language="es") -> Plan:
    made = []
    for number, (kind, start, end) in enumerate(shots or (("passthrough", 0, source.frames),), 1):
        name = f"S{number:04d}"
        request = ShotRequest(shot=name, source=source.video, start=start, end=end, width=source.width,
                              height=source.height, rate=source.rate, tracks=(), generator=EngineRef(name="files"))
        made.append(PlannedShot(shot=name, start=start, end=end, kind=kind, reason="test",
                                request=request if kind == "generate" else None))
    return Plan(language=language, frames=source.frames, rate=source.rate, shots=tuple(made))


def clip_of(work: Work, images: list, placement: Placement, shot="S0002", rate=Fraction(25)) -> Clip:
    height, width = images[0].shape[:2]
    path = work.scratch / f"{shot}.mkv"
    with media.FrameWriter(path, width, height, rate) as writer:
        for image in images:
            writer.write(image)
    video = work.store.put_file(path, "video/x-matroska")
    path.unlink()
    return Clip(shot=shot, video=video, frames=len(images), width=width, height=height, placement=placement, chunks=1)


def mixed(work: Work, source: Source, language="es", at=0.0, channels=2) -> Mix:
    """A dub with a click at every full second plus `at`."""
    length = frame_to_ticks(source.frames, source.rate)
    samples = np.zeros((length, channels), np.float32)
    samples[round(at * CLOCK)::CLOCK] = 0.9
    path = work.scratch / "mix.flac"
    media.write_flac(path, samples)
    sound = work.store.put_file(path, "audio/flac")
    path.unlink()
    return Mix(language=language, mix=sound, dialogue=sound, bed=sound, bed_kind="ducked", gain_db=0,
               loudness=Loudness(integrated_lufs=-23, true_peak_dbtp=-1))


def line(number: int, start: int, end: int, text: str) -> SpokenLine:
    return SpokenLine(id=f"L{number:04d}", speaker="A", voice="v", text=text, audio=NOTHING, start=start,
                      length=end - start, slot=(start, end), planned=(start, end), natural=end - start, stretch=1.0)


def asked(work: Work, source: Source, shots=(), made=(), **options) -> AssembleRequest:
    speech = Speech(language="es", lines=(line(1, CLOCK // 2, CLOCK, "¿Quién enciende el faro?"),
                                          line(2, CLOCK, 3 * CLOCK // 2, "Yo <b>misma</b>.")))
    return AssembleRequest(**{"source": source, "plan": planned(work, source, shots), "clips": Clips(clips=made),
                              "mix": mixed(work, source, at=0.25), "speech": speech, "transcript": HEARD,
                              "language": "es", "title": "Harbor Lights", **options})


def tracks(path: Path) -> list[tuple[str, str, bool]]:
    with av.open(str(path)) as container:
        return [(s.type, s.language, bool(s.disposition & av.stream.Disposition.default))
                for s in container.streams if s.type != "data"]


def exact(work: Work, source: Source, path: Path) -> None:
    """What holds of every delivered file."""
    video = media.probe(path).video
    assert (media.frame_count(path), video.rate, video.start) == (source.frames, source.rate, 0)
    assert (video.width, video.height, video.pix_fmt) == (source.width, source.height, "yuv420p")
    length = frame_to_ticks(source.frames, source.rate)
    with av.open(str(path)) as container:
        shown = float(source.frames / source.rate)
        assert container.duration / av.time_base == pytest.approx(shown, abs=float(1 / source.rate))
        for stream in container.streams.audio:
            assert stream.start_time == 0
            assert abs(stream.duration * stream.time_base * CLOCK - length) <= 1
            heard = sum(len(b) for b in media.audio_blocks(path, stream=stream.index))
            assert abs(heard - length) <= 1


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255 ** 2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9))


def yuv(path: Path, start: int, end: int) -> list[np.ndarray]:
    with media.FrameReader(path) as reader:
        return [picture.to_ndarray() for picture in reader.pictures(start, end)]


@pytest.mark.parametrize("rate", clips.RATES, ids=str)
def test_an_unchanged_picture_is_copied(work, rate):
    path = clips.clip(f"rate-{rate.numerator}.mkv", rate=rate, frames=int(rate * 2))
    source = source_of(work, path)
    done = perform(work, assemble, asked(work, source))
    episode = work.store.path(done.video)
    exact(work, source, episode)
    assert (done.video_copied, done.generated_frames, done.frames) == (True, 0, source.frames)
    assert all((a == b).all() for a, b in zip(yuv(path, 0, source.frames), yuv(episode, 0, source.frames), strict=True))
    assert tracks(episode) == [("video", "eng", True), ("audio", "spa", True), ("audio", "eng", False),
                               ("subtitle", "spa", False), ("subtitle", "eng", False)]


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_sound_begins_with_the_picture(work, channels):
    source = source_of(work, clips.clip(f"sound-{channels}.mp4", channels=channels))
    request = asked(work, source, mix=mixed(work, source, at=0.25, channels=channels))
    episode = work.store.path(perform(work, assemble, request).video)
    exact(work, source, episode)
    for index, expected in ((1, [0.25, 1.25, 2.25]), (2, [0, 1, 2])):
        heard = np.concatenate(list(media.audio_blocks(episode, stream=index)))
        assert heard.shape[1] == channels
        assert clips.click_times(heard[:, 0]) == pytest.approx(expected, abs=0.0005)
    with av.open(str(episode)) as made:  # 5.1 by its number: what only the stream describes is not played everywhere
        assert [one.layout.name for one in made.streams.audio] == [{1: "mono", 2: "stereo", 6: "5.1"}[channels]] * 2
    assert media.loudness(episode).integrated_lufs > -70


def test_a_late_picture_is_copied_to_zero(work):
    path = clips.FOLDER / "assemble-later.mp4"
    given_clip = clips.clip("sound-2.mp4", channels=2)
    inputs = [media.ffmpeg.input(str(given_clip), itsoffset=0.4).video, media.ffmpeg.input(str(given_clip)).audio]
    media.run_ffmpeg(media.ffmpeg.output(*inputs, str(path), c="copy"), where="x")
    source = source_of(work, path)
    episode = work.store.path(perform(work, assemble, asked(work, source)).video)
    exact(work, source, episode)
    heard = np.concatenate(list(media.audio_blocks(episode, stream=2)))
    assert clips.click_times(heard[:, 0]) == pytest.approx([0.6, 1.6], abs=0.0005)


def test_generated_shots_replace_the_frame_and_others_stay(work):
    source = source_of(work, clips.clip("assembled.mp4", **{"color_primaries": "bt709", "color_trc": "bt709",
                                                            "colorspace": "bt709", "color_range": "tv"}))
    half = [clips.numbered(1000 + n)[::2, ::2].copy() for n in range(30)]
    made = clip_of(work, half, Placement(x=0, y=0, width=192, height=128))
    done = perform(work, assemble, asked(work, source, TWO, (made,)))
    episode = work.store.path(done.video)
    exact(work, source, episode)
    assert (done.video_copied, done.generated_frames) == (False, 30)
    assert media.probe(episode).video.color == source.color == ColorTags(primaries="bt709", transfer="bt709",
                                                                         matrix="bt709", range="tv")
    assert clips.numbers_in(episode, 0, 60) == [*range(20), *range(1020, 1050)][:20] + [
        1000 + n for n in range(30)] + list(range(50, 60))
    before, after = yuv(work.store.path(source.video), 0, 60), yuv(episode, 0, 60)
    worst = min(psnr(before[n], after[n]) for n in [*range(20), *range(50, 60)])
    assert worst >= 42


def test_a_small_placement_leaves_the_rest_untouched(work):
    source = source_of(work, clips.clip("assembled.mp4"))
    grey = [np.full((40, 48, 3), 200, np.uint8)] * 30
    made = clip_of(work, grey, Placement(x=63, y=41, width=81, height=61))
    episode = work.store.path(perform(work, assemble, asked(work, source, TWO, (made,), crf=4)).video)
    with media.FrameReader(episode) as after, media.FrameReader(work.store.path(source.video)) as before:
        one, other = before.frame(35).astype(int), after.frame(35).astype(int)
    assert np.abs(other[50:93, 72:135] - 200).max() <= 8
    outside = np.ones(one.shape[:2], bool)
    outside[36:107, 58:149] = False
    assert np.abs(one - other)[outside].mean() < 1.5
    assert clips.numbers_in(episode, 0, 60) == list(range(60))


def test_fast_pictures_get_in_between_frames(work):
    source = source_of(work, clips.clip("fast.mp4", rate=Fraction(50), frames=41))
    images = [np.full((128, 192, 3), 40 + 10 * n, np.uint8) for n in range(11)]
    made = clip_of(work, images, Placement(x=0, y=0, width=192, height=128), rate=Fraction(25))
    shots = (("passthrough", 0, 20), ("generate", 20, 41))
    episode = work.store.path(perform(work, assemble, asked(work, source, shots, (made,))).video)
    exact(work, source, episode)
    with media.FrameReader(episode) as reader:
        levels = [int(reader.frame(n).mean().round()) for n in range(20, 41)]
    assert levels == pytest.approx([40 + 5 * n for n in range(21)], abs=2)


@pytest.mark.parametrize(("frames", "divisor"), [(7, 1), (7, 2), (8, 2), (1, 2), (9, 4)])
def test_in_between_frames_are_weighted_means(frames, divisor):
    images = [np.full((2, 2, 3), 100 + 8 * n, np.uint8) for n in range(frames)]
    shown = [int(image[0, 0, 0]) for image in in_between(iter(images), divisor)]
    last = 100 + 8 * (frames - 1)
    assert shown == [min(last, 100 + 8 * n // divisor) for n in range(frames * divisor)]


@given(x=st.integers(0, 60), y=st.integers(0, 60), width=st.integers(2, 40), height=st.integers(2, 40),
       enlarged=st.floats(0.5, 20))
def test_a_feather_fades_inside_its_placement_only(x, y, width, height, enlarged):
    mask = feather(Placement(x=x, y=y, width=width, height=height), 100, 100, enlarged)
    inside = np.zeros((100, 100), bool)
    inside[y:y + height, x:x + width] = True
    assert (mask[~inside] == 0).all()
    assert ((mask[inside] > 0) & (mask[inside] <= 1)).all()
    assert mask[y + height // 2, x + width // 2] > 0.2


def test_a_much_enlarged_clip_has_a_soft_edge():
    place = Placement(x=100, y=100, width=256, height=256)
    sharp, soft = ((feather(place, 640, 480, enlarged)[228, 100:356] < 1).sum() // 2 for enlarged in (1, 4))
    assert (sharp, soft) == (16, 32)


def test_the_same_request_gives_the_same_bytes(work):
    source = source_of(work, clips.clip("assembled.mp4"))
    source = source.model_copy(update={"chapters": (Chapter(start=0, end=CLOCK, title="A=B\\C; #1\\"), Chapter(
        start=CLOCK, end=115_200, title="Зоря"))})
    made = clip_of(work, [clips.numbered(n) for n in range(30)], Placement(x=10, y=10, width=100, height=80))
    request = asked(work, source, TWO, (made,))
    first = perform(work, assemble, request)
    second = perform(work, assemble, request.model_copy(update={"take": 1}))
    assert first == second
    found = media.probe(work.store.path(first.video))
    assert [(c.start, c.end, c.title) for c in found.chapters] == [
        (0, CLOCK, "A=B\\C; #1"), (CLOCK, 115_200, "Зоря")]
    assert found.title == "Harbor Lights"
    head = work.store.path(first.video).read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")


def test_subtitles_are_inside_and_beside(work):
    source = source_of(work, clips.clip("assembled.mp4"))
    done = perform(work, assemble, asked(work, source))
    assert set(done.subtitles) == {"srt", "ttml", "vtt"}
    text = work.store.path(done.subtitles["srt"]).read_text()
    both = "¿Quién enciende el faro? Yo ‹b›misma‹/b›."
    assert text == f"1\n00:00:00,240 --> 00:00:02,400\n{both}\n"  # one after the other, neither could be read
    assert "Yo &lt;b&gt;misma" in work.store.path(done.subtitles["vtt"]).read_text()
    with av.open(str(work.store.path(done.video))) as container:
        inside = [bytes(p)[2:].decode() for p in container.demux(subtitles=0) if p.size > 2]
    assert inside == [both]


def test_nothing_said_gives_no_subtitles(work):
    source = source_of(work, clips.clip("assembled.mp4"))
    nothing = Transcript(language="en", lines=())
    done = perform(work, assemble, asked(work, source, speech=Speech(language="es", lines=()), transcript=nothing))
    assert [kind for kind, *_ in tracks(work.store.path(done.video))] == ["video", "audio", "audio"]
    assert work.store.path(done.subtitles["srt"]).read_text() == ""


@pytest.mark.parametrize(("made", "reason"), [
    ((), "clip is missing"),
    (([np.zeros((16, 16, 3), np.uint8)] * 29, Placement(x=0, y=0, width=192, height=128)), "29 frames, 30"),
    (([np.zeros((16, 16, 3), np.uint8)] * 30, Placement(x=100, y=0, width=100, height=128)), "leaves the frame")])
def test_clips_that_do_not_fit_are_errors(work, made, reason):
    source = source_of(work, clips.clip("assembled.mp4"))
    made = (clip_of(work, *made),) if made else ()
    with pytest.raises(EngineError, match=reason) as error:
        perform(work, assemble, asked(work, source, TWO, made))
    assert "S0002" in str(error.value)
    assert not list(work.scratch.iterdir())


def test_a_plan_for_another_source_is_refused(work):
    source = source_of(work, clips.clip("assembled.mp4"))
    other = planned(work, source_of(work, clips.clip("fast.mp4", rate=Fraction(50), frames=41)))
    with pytest.raises(InputError, match="41 frames at 50"):
        perform(work, assemble, asked(work, source, plan=other))


def test_all_languages_in_one_file(work):
    source = source_of(work, clips.clip("assembled.mp4"))
    speech = asked(work, source).speech
    dubs = tuple(Dub(mix=mixed(work, source, language, at), speech=speech) for language, at in
                 (("fr", 0.1), ("pt-BR", 0.2), ("es-419", 0.3)))
    done = perform(work, assemble_multi, MultiRequest(source=source, dubs=dubs, transcript=HEARD))
    episode = work.store.path(done.video)
    exact(work, source, episode)
    assert (done.language, done.video_copied, done.subtitles) == ("mul", True, {})
    assert tracks(episode) == [
        ("video", "eng", True), ("audio", "eng", True), ("audio", "fra", False), ("audio", "por", False),
        ("audio", "spa", False), *(("subtitle", language, False) for language in ("eng", "fra", "por", "spa"))]
    for index, at in enumerate((0, 0.1, 0.2, 0.3), 1):
        heard = np.concatenate(list(media.audio_blocks(episode, stream=index)))
        assert clips.click_times(heard[:, 0])[0] == pytest.approx(at, abs=0.0005)


def test_a_codec_that_does_not_fit_is_encoded(work):
    source = source_of(work, clips.clip("ffv1.mkv", rate=Fraction(24000, 1001), vcodec="ffv1", qp=-1, acodec="flac"))
    done = perform(work, assemble, asked(work, source))
    exact(work, source, work.store.path(done.video))
    assert not done.video_copied
    before, after = yuv(work.store.path(source.video), 0, 60), yuv(work.store.path(done.video), 0, 60)
    assert min(psnr(a, b) for a, b in zip(before, after, strict=True)) >= 42


# -- several tracks, and what their languages are called --------------------------------------------------------------

TAGS = ("es-419", "zh-Hant", "sr-Latn", "de")


def many(work: Work, source: Source) -> Assembled:
    speech = asked(work, source).speech
    dubs = tuple(Dub(mix=mixed(work, source, tag), speech=speech) for tag in TAGS)
    return perform(work, assemble_multi, MultiRequest(source=source, dubs=dubs, transcript=HEARD, title="Häfen"))


def boxes(data: bytes, *path: bytes) -> list[bytes]:
    """Contents of all boxes at a path of an MP4."""
    found, at = [], 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at:at + 4], "big")
        assert size >= 8
        if data[at + 4:at + 8] == path[0]:
            found += boxes(data[at + 8:at + size], *path[1:]) if path[1:] else [data[at + 8:at + size]]
        at += size
    return found


def test_mp4_names_languages_in_full(work):
    source = source_of(work, clips.clip("assembled.mp4"))
    path = work.store.path(many(work, source).video)
    exact(work, source, path)
    extended = [box[4:-1].decode() for box in boxes(path.read_bytes(), b"moov", b"trak", b"mdia", b"elng")]
    assert extended == ["en", *TAGS] * 2
    with av.open(str(path)) as container:
        assert [(s.language, s.metadata["handler_name"]) for s in container.streams.audio] == [
            ("eng", "English (original)"), ("spa", "Spanish (Latin America)"), ("zho", "Chinese (Traditional)"),
            ("srp", "Serbian (Latin)"), ("deu", "German")]


def test_matroska_holds_the_same_without_loss(work):
    source = source_of(work, clips.clip("assembled.mp4")).model_copy(update={"chapters": (
        Chapter(start=0, end=CLOCK, title="Zoë"), Chapter(start=CLOCK, end=2 * CLOCK, title="B"))})
    made = many(work, source)
    request = MatroskaRequest(source=source, assembled=made, title="Häfen")
    first = perform(work, assemble_matroska, request).video
    assert perform(work, assemble_matroska, request.model_copy(update={"take": 1})).video == first
    path = work.store.path(first)
    shown = media.probe(path).video
    assert (media.frame_count(path), shown.rate, shown.start) == (source.frames, source.rate, 0)
    assert clips.numbers_in(path, 0, 60) == list(range(60))
    for number, track in enumerate(made.sounds, 1):
        heard = np.concatenate(list(media.audio_blocks(path, stream=number)))
        assert (heard == np.concatenate(list(media.audio_blocks(work.store.path(track.file))))).all()
    found = media.probe(path)
    assert (found.title, [c.title for c in found.chapters]) == ("Häfen", ["Zoë", "B"])
    data = path.read_bytes()
    assert [data.split(b"\x22\xb5\x9d")[n + 1][1:].split(b"\xd7")[0][:len(tag)].decode()
            for n, tag in enumerate(["en", *TAGS] * 2)] == ["en", *TAGS] * 2
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type != "video"]
        assert [s.language for s in streams] == ["eng", "spa", "chi", "srp", "ger"] * 2
        assert [s.metadata["title"] for s in streams[:2]] == ["English (original)", "Spanish (Latin America)"]
        marks = av.stream.Disposition
        assert [s.disposition & (marks.default | marks.forced) for s in streams] == [marks.default] + [marks(0)] * 9
        assert streams[0].disposition & marks.original


def test_only_what_is_seen_encodes_the_picture_again(work):
    source = source_of(work, clips.clip("assembled.mp4"))
    made = clip_of(work, [clips.numbered(n) for n in range(30)], Placement(x=0, y=0, width=192, height=128))
    request = asked(work, source, TWO, (made,))
    first = perform(work, assemble, request)
    assert work.counts["tracks_run"] == 1
    other = request.plan.shots[1].request.model_copy(update={"seed": 7})
    shots = [shot.model_copy(update={"reason": "another"} | ({"request": other} if shot.request else {}))
             for shot in request.plan.shots]
    changed = request.model_copy(update={
        "title": "Other", "mix": mixed(work, source, at=0.5), "speech": Speech(language="es", lines=()),
        "plan": request.plan.model_copy(update={"shots": tuple(shots)})})
    second = perform(work, assemble, changed)
    assert (work.counts["tracks_run"], work.counts["tracks_reused"]) == (1, 1)
    assert (second.picture, second.video == first.video) == (first.picture, False)
    perform(work, assemble, changed.model_copy(update={"crf": 20}))
    assert work.counts["tracks_run"] == 2
