"""Assemble: picture, dubbed sound and subtitles → `Assembled`, the localized episode as an MP4.

The picture is copied where nothing of it was generated, else encoded once. The dubbed sound comes first and plays by
default, the original sound second. `assemble_multi` makes the other product: the original picture, the original sound
first, and every dub as an alternate.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import ffmpeg
from langcodes import Language

from models.errors import InputError, MediaError
from models.records import Artifact, Assembled, Chapter, Clips, Mix, Plan, PlannedShot, Request, Source, Speech
from models.timebase import CLOCK, frame_to_ticks
from tasks.captions import cues, said, srt, ttml, vtt
from tasks.compose import localized_pictures
from tasks.media import THREADS, FrameReader, PictureWriter, copy_pictures, frame_count, probe, run_ffmpeg
from tasks.step import Work, step

MP4 = "video/mp4"
BITRATE = 192_000
"""Bits per second of a mono or stereo track …"""
CHANNEL_BITRATE = 64_000
"""… and of each channel where there are more."""
MULTI_CRF = 16


class AssembleRequest(Request):
    """What goes into one language's episode."""

    source: Source
    plan: Plan
    clips: Clips
    mix: Mix
    speech: Speech
    source_language: str
    language: str
    title: str = ""
    crf: int = 16
    """x264's rate factor, where the picture is encoded."""


class MultiRequest(Request):
    """What goes into the episode with all languages."""

    source: Source
    mixes: tuple[Mix, ...]
    source_language: str
    title: str = ""


@dataclass(frozen=True)
class Track:
    """A sound track or subtitles."""

    path: Path
    language: str
    """BCP-47."""
    name: str = ""


@step("assemble", version=3, result=Assembled)
def assemble(work: Work, request: AssembleRequest) -> Assembled:
    """Put one language's episode together.

    Raises:
        InputError: The plan belongs to another source.
        EngineError: A clip is missing or does not fit its shot.
        StorageFullError: The disk is full.
    """
    source, plan = request.source, request.plan
    if (plan.frames, plan.rate) != (source.frames, source.rate):
        raise InputError(f"the plan is for {plan.frames} frames at {plan.rate}, the source has {source.frames} at "
                         f"{source.rate}", hint="Plan the shots of this source anew")
    shown = cues(said(request.speech.lines), frame_to_ticks(source.frames, source.rate), request.language, source.rate)
    timed = ttml(shown, request.language, source.rate, request.title)
    subtitles = {"srt": work.store.put_bytes(srt(shown, request.language).encode(), "application/x-subrip"),
                 "ttml": work.store.put_bytes(timed.encode(), "application/ttml+xml"),
                 "vtt": work.store.put_bytes(vtt(shown, request.language).encode(), "text/vtt")}
    tracks = (Track(work.store.path(request.mix.mix), request.language, _name(request.language)),
              Track(work.store.path(source.audio), request.source_language,
                    f"{_name(request.source_language)} (original)"))
    text = Track(work.store.path(subtitles["srt"]), request.language, _name(request.language)) if shown else None
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        picture, copied = _picture(work, Path(folder), source, plan, request.clips, request.crf)
        video = _mux(work, Path(folder), source, picture, tracks, text, request.title)
    generated = sum(shot.end - shot.start for shot in plan.shots if shot.kind == "generate")
    return Assembled(language=request.language, video=video, subtitles=subtitles, frames=source.frames,
                     rate=source.rate, generated_frames=generated, video_copied=copied)


@step("assemble.multi", version=1, result=Assembled)
def assemble_multi(work: Work, request: MultiRequest) -> Assembled:
    """Put the original picture together with the original sound and every dub.

    Raises:
        StorageFullError: The disk is full.
    """
    source = request.source
    tracks = (Track(work.store.path(source.audio), request.source_language,
                    f"{_name(request.source_language)} (original)"),
              *(Track(work.store.path(mix.mix), mix.language, _name(mix.language)) for mix in request.mixes))
    whole = Plan(language="mul", frames=source.frames, rate=source.rate, shots=(
        PlannedShot(shot="S0001", start=0, end=source.frames, kind="passthrough", reason="original picture"),))
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        picture, copied = _picture(work, Path(folder), source, whole, Clips(clips=()), MULTI_CRF)
        video = _mux(work, Path(folder), source, picture, tracks, None, request.title)
    return Assembled(language="mul", video=video, subtitles={}, frames=source.frames, rate=source.rate,
                     generated_frames=0, video_copied=copied)


# -- picture ----------------------------------------------------------------------------------------------------------


def _picture(work: Work, folder: Path, source: Source, plan: Plan, clips: Clips, crf: int) -> tuple[Path, bool]:
    """The localized picture alone, as an MP4; and whether it is the source's own stream."""
    out, given = folder / "picture.mp4", work.store.path(source.video)
    if all(shot.kind == "passthrough" for shot in plan.shots) and copy_pictures(given, out):
        return out, True
    with (FrameReader(given) as reader,
          PictureWriter(out, source.width, source.height, source.rate, color=source.color, crf=crf) as writer):
        for picture in localized_pictures(reader, plan, clips, source.color, work.store.path):
            writer.write(picture)
            if writer.written % 50 == 0:
                work.progress(f"encodes frame {writer.written} of {source.frames}", writer.written / source.frames)
    return out, False


# -- sound, subtitles, chapters ---------------------------------------------------------------------------------------


def _mux(work: Work, folder: Path, source: Source, picture: Path, tracks: Sequence[Track], text: Track | None,
         title: str) -> Artifact:
    """Put everything into one MP4 whose bytes depend on nothing else, and store it.

    ffmpeg-python orders inputs by their names, and the order of inputs decides how packets are interleaved: hence names
    that are always the same, in `folder`.
    """
    streams, options = [ffmpeg.input(picture.name).video], {"c:v": "copy", "metadata": f"title={title}"}
    if probe(picture).video.codec == "hevc":  # type: ignore[union-attr]
        options["tag:v"] = "hvc1"
    for number, track in enumerate(tracks):
        streams.append(ffmpeg.input(_linked(folder, f"sound-{number}.flac", track.path)).audio)
        options |= _sound_options(number, track)
    if text:
        streams.append(ffmpeg.input(_linked(folder, "lines.srt", text.path), format="srt")["s"])
        options |= {"c:s": "mov_text", "disposition:s:0": "0", "metadata:s:s:0": f"language={_alpha3(text.language)}",
                    f"metadata:s:{len(streams) - 1}": f"handler_name={text.name}"}
    if source.chapters:
        (folder / "chapters.txt").write_text(_chapter_marks(source.chapters), encoding="utf-8")
        streams.append(ffmpeg.input("chapters.txt", format="ffmetadata")["d?"])
    work.progress("encodes the sound and puts the file together", 1.0)
    run_ffmpeg(ffmpeg.output(*streams, "episode.mp4", fflags="+bitexact", threads=THREADS,
                             movflags="+faststart", movie_timescale=CLOCK, format="mp4",
                             **{"flags:a": "+bitexact", "metadata:s:0": "handler_name=Picture", **options}),
               where="the localized episode", folder=folder)
    _switch_subtitles_off(folder / "episode.mp4")
    _assert_exact(folder / "episode.mp4", source)
    return work.store.put_file(folder / "episode.mp4", MP4)


def _linked(folder: Path, name: str, target: Path) -> str:
    (folder / name).symlink_to(target.resolve())
    return name


def _sound_options(number: int, track: Track) -> dict[str, str]:
    """How the sound track `number`, which is stream `number + 1`, is encoded and marked."""
    channels = probe(track.path).audio[0].channels
    return {f"c:a:{number}": "aac", f"b:a:{number}": str(max(BITRATE, CHANNEL_BITRATE * channels)),
            f"disposition:a:{number}": "0" if number else "default",
            f"metadata:s:a:{number}": f"language={_alpha3(track.language)}",
            f"metadata:s:{number + 1}": f"handler_name={track.name}"}


def _switch_subtitles_off(path: Path) -> None:
    """Clear the flag 'enabled' in the header of every subtitle track.

    ffmpeg's MP4 writer sets it on the first track of each kind, whatever its disposition; players then show subtitles
    that nobody asked for.
    """
    with path.open("r+b") as file:
        moov = next(box for box in _boxes(file, 0, path.stat().st_size) if box[0] == b"moov")
        for _, start, stop in [box for box in _boxes(file, *moov[1:]) if box[0] == b"trak"]:
            parts = {kind: (at, over) for kind, at, over in _boxes(file, start, stop)}
            handler = next(at for kind, at, _ in _boxes(file, *parts[b"mdia"]) if kind == b"hdlr")
            file.seek(handler + 8)
            if file.read(4) == b"sbtl":
                file.seek(parts[b"tkhd"][0] + 3)
                flags = file.read(1)[0]
                file.seek(-1, 1)
                file.write(bytes([flags & ~1]))


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of the content, end) of the boxes of an MP4 between two offsets."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        head = 8
        if size == 1:
            size, head = int.from_bytes(file.read(8), "big"), 16
        size = size or end - start
        yield kind, start + head, start + size
        start += size


def _assert_exact(path: Path, source: Source) -> None:
    video, frames = probe(path).video, frame_count(path)
    if video is None or video.start or (frames, video.rate) != (source.frames, source.rate):
        raise MediaError(f"came out with {frames} frames at {video and video.rate}, not {source.frames} at "
                         f"{source.rate}", where="the localized episode",
                         hint="Convert the source to an MP4 with H.264 at a constant rate")


def _language(tag: str) -> Language:
    try:
        return Language.get(tag)
    except ValueError as error:
        raise InputError(f"{tag!r} is no language tag", hint="Give a BCP-47 tag such as es or pt-BR") from error


def _alpha3(tag: str) -> str:
    """ISO 639-2/T, which is all that an MP4 holds of a language; 'und' where there is none."""
    try:
        code = _language(tag).to_alpha3()
    except LookupError:
        return "und"
    return code if len(code) == 3 else "und"


def _name(tag: str) -> str:
    return str(_language(tag).display_name())


def _chapter_marks(chapters: Sequence[Chapter]) -> str:
    """Chapters in ffmpeg's metadata format."""
    return ";FFMETADATA1\n" + "".join(
        f"[CHAPTER]\nTIMEBASE=1/{CLOCK}\nSTART={chapter.start}\nEND={chapter.end}\ntitle={_escaped(chapter.title)}\n"
        for chapter in chapters)


def _escaped(text: str) -> str:
    # A backslash at the end of a line makes ffmpeg swallow the next one, escaped or not.
    return re.sub(r"([=;#\\])", r"\\\1", " ".join(text.split()).rstrip("\\"))
