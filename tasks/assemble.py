"""Assemble: picture, dubbed sound and subtitles → `Assembled`, the localized episode as an MP4; as Matroska, too.

The picture is copied where nothing of it was generated, else encoded once: a step of its own, so that no other change
encodes it again. The dubbed sound comes first and plays by default, the original sound second. `assemble_multi` makes
the other product: the original picture, the original sound first, and every dub as an alternate.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ffmpeg

from models.errors import InputError, MediaError
from models.records import (
    Artifact,
    Assembled,
    Chapter,
    Clips,
    Line,
    Mix,
    Plan,
    PlannedShot,
    Record,
    Request,
    SoundTrack,
    Source,
    Speech,
    SpokenLine,
    TextTrack,
    Transcript,
)
from models.timebase import CLOCK, frame_to_ticks
from tasks.captions import Cue, cues, said, srt, ttml, vtt
from tasks.compose import localized_pictures
from tasks.media import THREADS, FrameReader, PictureWriter, aac, copy_pictures, frame_count, probe, run_ffmpeg
from tasks.step import Work, perform, step
from tasks.tags import alpha3, display_name, mark_matroska, mark_mp4, with_room

MP4, MATROSKA = "video/mp4", "video/x-matroska"
MULTI_CRF = 16


class AssembleRequest(Request):
    """What goes into one language's episode."""

    source: Source
    plan: Plan
    clips: Clips
    mix: Mix
    speech: Speech
    transcript: Transcript
    """For the subtitles in the source language."""
    language: str
    title: str = ""
    crf: int = 16
    """x264's rate factor, where the picture is encoded."""


class Dub(Record):
    """What a language adds to the episode with all languages."""

    mix: Mix
    speech: Speech


class MultiRequest(Request):
    """What goes into the episode with all languages."""

    source: Source
    dubs: tuple[Dub, ...]
    transcript: Transcript
    title: str = ""


class PictureRequest(Request):
    """What is seen of an episode, and nothing else."""

    source: Source
    plan: Plan
    """Without what its shots were asked for with: a clip says what became of that."""
    clips: Clips
    crf: int


class Picture(Record):
    """A localized picture."""

    video: Artifact
    """MP4 with nothing else in it."""
    copied: bool
    """It is the source's own stream."""


class MatroskaRequest(Request):
    """An assembled episode that is wanted as Matroska, too."""

    source: Source
    assembled: Assembled
    title: str = ""


class Matroska(Record):
    """The same tracks in another container; sound as it was mixed, without loss."""

    video: Artifact


@step("assemble", version=6, result=Assembled)
def assemble(work: Work, request: AssembleRequest) -> Assembled:
    """Put one language's episode together.

    Raises:
        InputError: The plan belongs to another source.
        EngineError: A clip is missing or does not fit its shot.
        StorageFullError: The disk is full.
    """
    source, plan, language = request.source, request.plan, request.language
    if (plan.frames, plan.rate) != (source.frames, source.rate):
        raise InputError(f"the plan is for {plan.frames} frames at {plan.rate}, the source has {source.frames} at "
                         f"{source.rate}", hint="Plan the shots of this source anew")
    shown = _shown(request.speech.lines, source, language)
    seen = _picture(work, source, plan, request.clips, request.crf)
    sounds = (_sound(request.mix.mix, language), _original(source, request.transcript))
    texts = tuple(filter(None, (_text(work, shown, language),
                                _text(work, _shown(request.transcript.lines, source, request.transcript.language),
                                      request.transcript.language))))
    video = _mp4(work, source, seen.video, sounds, texts, request.title)
    timed = ttml(shown, language, source.rate, request.title)
    subtitles = {"srt": _put_srt(work, shown, language),
                 "ttml": work.store.put_bytes(timed.encode(), "application/ttml+xml"),
                 "vtt": _put_vtt(work, shown, language)}
    generated = sum(shot.end - shot.start for shot in plan.shots if shot.kind == "generate")
    return Assembled(language=language, video=video, subtitles=subtitles, frames=source.frames, rate=source.rate,
                     generated_frames=generated, video_copied=seen.copied, picture=seen.video, sounds=sounds,
                     texts=texts)


@step("assemble.multi", version=4, result=Assembled)
def assemble_multi(work: Work, request: MultiRequest) -> Assembled:
    """Put the original picture together with the original sound, every dub, and subtitles in every language.

    Raises:
        StorageFullError: The disk is full.
    """
    source, transcript = request.source, request.transcript
    sounds = (_original(source, transcript), *(_sound(dub.mix.mix, dub.mix.language) for dub in request.dubs))
    spoken: list[tuple[str, Sequence[SpokenLine | Line]]] = [(transcript.language, transcript.lines)]
    spoken += [(dub.mix.language, dub.speech.lines) for dub in request.dubs]
    texts = tuple(filter(None, (_text(work, _shown(lines, source, tag), tag) for tag, lines in spoken)))
    whole = Plan(language="", frames=source.frames, rate=source.rate, shots=(
        PlannedShot(shot="S0001", start=0, end=source.frames, kind="passthrough", reason=""),))
    seen = _picture(work, source, whole, Clips(clips=()), MULTI_CRF)
    video = _mp4(work, source, seen.video, sounds, texts, request.title)
    return Assembled(language="mul", video=video, subtitles={}, frames=source.frames, rate=source.rate,
                     generated_frames=0, video_copied=seen.copied, picture=seen.video, sounds=sounds, texts=texts)


# -- tracks -----------------------------------------------------------------------------------------------------------


def _shown(lines: Sequence[SpokenLine | Line], source: Source, language: str) -> tuple[Cue, ...]:
    return cues(said(lines), frame_to_ticks(source.frames, source.rate), language, source.rate)


def _sound(file: Artifact, language: str) -> SoundTrack:
    return SoundTrack(file=file, language=language, name=display_name(language))


def _original(source: Source, transcript: Transcript) -> SoundTrack:
    language = transcript.language
    return SoundTrack(file=source.audio, language=language, name=f"{display_name(language)} (original)")


def _text(work: Work, shown: Sequence[Cue], language: str) -> TextTrack | None:
    """A track of subtitles; None where there are none."""
    if not shown:
        return None
    return TextTrack(srt=_put_srt(work, shown, language), vtt=_put_vtt(work, shown, language), language=language,
                     name=display_name(language))


def _put_srt(work: Work, shown: Sequence[Cue], language: str) -> Artifact:
    return work.store.put_bytes(srt(shown, language).encode(), "application/x-subrip")


def _put_vtt(work: Work, shown: Sequence[Cue], language: str) -> Artifact:
    return work.store.put_bytes(vtt(shown, language).encode(), "text/vtt")


def _picture(work: Work, source: Source, plan: Plan, clips: Clips, crf: int) -> Picture:
    """The localized picture, made once: whoever sees the same shares it, whatever the request of a shot was."""
    shots: list[PlannedShot] = []
    for shot in plan.shots:
        bare = shot.model_copy(update={"reason": "", "request": None})
        if shots and shots[-1].kind == bare.kind == "passthrough":
            bare = shots.pop().model_copy(update={"end": bare.end})
        shots.append(bare)
    seen = plan.model_copy(update={"language": "", "shots": tuple(shots)})
    request = PictureRequest(source=source, plan=seen, clips=clips, crf=crf)
    return perform(work, assemble_picture, request, "picture")


@step("assemble.picture", version=1, result=Picture, unit="track")
def assemble_picture(work: Work, request: PictureRequest) -> Picture:
    """Copy the source's picture, or encode it with the clips in their places.

    Raises:
        EngineError: A clip is missing or does not fit its shot.
    """
    source, given = request.source, work.store.path(request.source.video)
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        out = Path(folder) / "picture.mp4"
        untouched = all(shot.kind == "passthrough" for shot in request.plan.shots)
        if untouched and copy_pictures(given, out):
            return Picture(video=work.store.put_file(out, MP4), copied=True)
        with (FrameReader(given) as reader,
              PictureWriter(out, source.width, source.height, source.rate, color=source.color,
                            crf=request.crf) as writer):
            for picture in localized_pictures(reader, request.plan, request.clips, source.color, work.store.path):
                writer.write(picture)
                if writer.written % 50 == 0:
                    done = writer.written / source.frames
                    work.progress(f"encodes frame {writer.written} of {source.frames}", done)
        return Picture(video=work.store.put_file(out, MP4), copied=False)


# -- containers -------------------------------------------------------------------------------------------------------


def _mp4(work: Work, source: Source, picture: Artifact, sounds: Sequence[SoundTrack], texts: Sequence[TextTrack],
         title: str) -> Artifact:
    with tempfile.TemporaryDirectory(dir=work.scratch) as scratch:
        folder = Path(scratch)
        codecs: dict[str, str | int] = {"c:s": "mov_text", "movflags": "+faststart", "movie_timescale": CLOCK}
        if _codec(work, picture) == "hevc":
            codecs["tag:v"] = "hvc1"
        for number, track in enumerate(sounds):
            codecs |= aac(probe(work.store.path(track.file)).audio[0].channels, f"a:{number}")
        out = _mux(work, folder, source, picture, sounds, texts, title, "mp4", codecs)
        mark_mp4(out, [*(one.language for one in sounds), *(one.language for one in texts)])
        _assert_exact(out, source)
        return work.store.put_file(out, MP4)


@step("assemble.matroska", version=2, result=Matroska)
def assemble_matroska(work: Work, request: MatroskaRequest) -> Matroska:
    """Put the tracks of an assembled episode into a Matroska file; nothing is encoded.

    Raises:
        StorageFullError: The disk is full.
    """
    source, made = request.source, request.assembled
    if made.picture is None:
        raise InputError("the episode was assembled without its picture", hint="Assemble it anew")
    with tempfile.TemporaryDirectory(dir=work.scratch) as scratch:
        # Without checksums, for the tags are written afterwards; time stamps as they are: they begin at 0.
        how: dict[str, str | int] = {"c:a": "copy", "c:s": "srt", "write_crc32": 0, "default_mode": "passthrough",
                                     "avoid_negative_ts": "disabled"}
        out = _mux(work, Path(scratch), source, made.picture, made.sounds, made.texts, request.title, "matroska", how)
        mark_matroska(out, [*(one.language for one in made.sounds), *(one.language for one in made.texts)])
        _assert_exact(out, source)
        return Matroska(video=work.store.put_file(out, MATROSKA))


def _codec(work: Work, picture: Artifact) -> str:
    return probe(work.store.path(picture)).video.codec  # type: ignore[union-attr]


def _mux(work: Work, folder: Path, source: Source, picture: Artifact, sounds: Sequence[SoundTrack],
         texts: Sequence[TextTrack], title: str, container: str, how: dict[str, str | int]) -> Path:
    """Put everything into one file whose bytes depend on nothing else.

    ffmpeg-python orders inputs by their names, and the order of inputs decides how packets are interleaved: hence names
    that are always the same, in `folder`.
    """
    files = [("picture.mp4", picture), *((f"sound-{number:02d}.flac", one.file) for number, one in enumerate(sounds)),
             *((f"text-{number:02d}.srt", one.srt) for number, one in enumerate(texts))]
    for name, file in files:
        (folder / name).symlink_to(work.store.path(file).resolve())
    streams = [ffmpeg.input("picture.mp4").video]
    streams += [ffmpeg.input(name).audio for name, _ in files if name.startswith("sound")]
    streams += [ffmpeg.input(name, format="srt")["s"] for name, _ in files if name.startswith("text")]
    named = _names(source, sounds, texts, container)
    if source.chapters:
        (folder / "chapters.txt").write_text(_chapter_marks(source.chapters), encoding="utf-8")
        streams.append(ffmpeg.input("chapters.txt", format="ffmetadata")["d?"])
    work.progress("puts the file together", 1.0)
    run_ffmpeg(ffmpeg.output(*streams, "episode", fflags="+bitexact", threads=THREADS, format=container,
                             **{"c:v": "copy", "flags:a": "+bitexact", "metadata": f"title={title}", **named, **how}),
               where="the localized episode", folder=folder)
    return folder / "episode"


def _names(source: Source, sounds: Sequence[SoundTrack], texts: Sequence[TextTrack], container: str) -> dict[str, str]:
    """Names, languages and flags of tracks, as options of ffmpeg."""
    key, mp4 = "handler_name" if container == "mp4" else "title", container == "mp4"
    # What is written in a picture is in the language that was spoken before it.
    filmed = next((sound.language for sound in sounds if sound.file == source.audio), "")
    named = {"metadata:s:v:0": f"language={alpha3(filmed, 'T' if mp4 else 'B')}"} if filmed else {}
    named |= {"metadata:s:0": "handler_name=Picture"} if mp4 else {}
    tracks: list[tuple[str, SoundTrack | TextTrack, str]] = []
    for number, sound in enumerate(sounds):
        role = "original" if sound.file == source.audio else "dub"
        tracks.append((f"a:{number}", sound, role if number else f"default+{role}"))
    tracks += [(f"s:{number}", text, "0") for number, text in enumerate(texts)]
    for number, (stream, track, disposition) in enumerate(tracks, 1):
        named |= {f"metadata:s:{stream}": f"language={alpha3(track.language, 'T' if mp4 else 'B')}",
                  f"metadata:s:{number}": f"{key}={with_room(track.name, track.language)}",
                  f"disposition:{stream}": disposition}
    return named


def _assert_exact(path: Path, source: Source) -> None:
    video, frames = probe(path).video, frame_count(path)
    if video is None or video.start or (frames, video.rate) != (source.frames, source.rate):
        raise MediaError(f"came out with {frames} frames at {video and video.rate}, not {source.frames} at "
                         f"{source.rate}", where="the localized episode",
                         hint="Convert the source to an MP4 with H.264 at a constant rate")


def _chapter_marks(chapters: Sequence[Chapter]) -> str:
    """Chapters in ffmpeg's metadata format."""
    return ";FFMETADATA1\n" + "".join(
        f"[CHAPTER]\nTIMEBASE=1/{CLOCK}\nSTART={chapter.start}\nEND={chapter.end}\ntitle={_escaped(chapter.title)}\n"
        for chapter in chapters)


def _escaped(text: str) -> str:
    # A backslash at the end of a line makes ffmpeg swallow the next one, escaped or not.
    return re.sub(r"([=;#\\])", r"\\\1", " ".join(text.split()).rstrip("\\"))
