"""HLS: an assembled episode → fragmented MP4 (CMAF) in segments of about six seconds, with its playlists (RFC 8216).

Every track is a step of its own, so that a language that is added, or a line that is changed, leaves the others as they
are, to the byte. Segments carry their hash in their name: new ones never take the place of old ones, and a player that
still reads the old playlist is not disturbed.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import ffmpeg
from pydantic import Field

from models.errors import InputError, MediaError
from models.pictures import picture_stream
from models.records import Artifact, Assembled, Package, Record, Request, SoundTrack, Source, TextTrack
from models.timebase import Rate
from tasks.media import (
    THREADS,
    FrameReader,
    PictureWriter,
    aac,
    frame_count,
    probe,
    reading,
    run_ffmpeg,
    segmentable,
)
from tasks.step import Work, perform, step
from tasks.tags import alpha3

SEGMENT_S = 6
MAIN, PLAYLIST = "main.m3u8", "index.m3u8"
PLAYLIST_TYPE, SEGMENT_TYPE = "application/vnd.apple.mpegurl", "video/iso.segment"
CRF = 16
"""x264's rate factor, where a picture cannot be cut into segments as it is."""
EXTINF = re.compile(r"#EXTINF:([0-9.]+),[^\n]*\n([^\n#]+)")
CUE = re.compile(r"(?m)^(\d+):(\d\d):(\d\d\.\d{3}) --> (\d+):(\d\d):(\d\d\.\d{3})$")


class HlsRequest(Request):
    """An assembled episode that is wanted as HLS, too."""

    assembled: Assembled
    source: Source
    titles: dict[str, str] = Field({})
    """By language."""


class Rendition(Record):
    """A track as HLS: its media playlist `PLAYLIST`, and the files that this names."""

    files: dict[str, Artifact]
    peak: int
    """Bits per second of its heaviest stretch (RFC 8216, 4.1)."""
    average: int
    codecs: str = ""
    """RFC 6381."""
    channels: int = 0


class PictureRequest(Request):
    """A picture to cut into segments."""

    picture: Artifact
    rate: Rate


class SoundRequest(Request):
    """A sound track to encode, and cut into segments."""

    sound: Artifact
    language: str


class TextRequest(Request):
    """Subtitles (WebVTT) to cut into segments."""

    text: Artifact
    frames: int
    rate: Rate


@step("hls", version=1, result=Package)
def hls(work: Work, request: HlsRequest) -> Package:
    """Package an episode: its picture, all its sound and text tracks, and the playlist above them.

    Raises:
        InputError: The episode was assembled by a version that kept no tracks.
        StorageFullError: The disk is full.
    """
    made, source = request.assembled, request.source
    if made.picture is None:
        raise InputError("the episode was assembled without its tracks", hint="Assemble it anew")
    picture = perform(work, hls_picture, PictureRequest(picture=made.picture, rate=source.rate), "picture")
    sounds = {f"sound-{one.language}": perform(work, hls_sound, SoundRequest(sound=one.file, language=one.language),
                                               one.language) for one in made.sounds}
    texts = {f"text-{one.language}": perform(work, hls_text, TextRequest(
        text=one.vtt, frames=source.frames, rate=source.rate), one.language) for one in made.texts}
    main = _main(request, picture, tuple(sounds.values()), tuple(texts.values()))
    files = {f"{folder}/{name}": file for folder, rendition in {"picture": picture, **sounds, **texts}.items()
             for name, file in rendition.files.items()}
    return Package(files={**files, MAIN: work.store.put_bytes(main.encode(), PLAYLIST_TYPE)}, main=MAIN)


# -- tracks -----------------------------------------------------------------------------------------------------------


@step("hls.picture", version=1, result=Rendition, unit="track")
def hls_picture(work: Work, request: PictureRequest) -> Rendition:
    """The picture as it is; encoded anew only where it has no key frames to cut at, or a codec that players refuse."""
    given = work.store.path(request.picture)
    with tempfile.TemporaryDirectory(dir=work.scratch) as scratch:
        folder = Path(scratch)
        if segmentable(given):
            (folder / "picture.mp4").symlink_to(given.resolve())
        else:
            _encoded(given, folder / "picture.mp4", work)
        codec = probe(folder / "picture.mp4").video.codec  # type: ignore[union-attr]
        how = {"c": "copy", "hls_flags": "independent_segments", **({"tag:v": "hvc1"} if codec == "hevc" else {})}
        files = _segments(work, folder, ffmpeg.input("picture.mp4").video, how)
        return _rendition(work, files, _codecs(folder / "picture.mp4", codec))


@step("hls.sound", version=2, result=Rendition, unit="track")
def hls_sound(work: Work, request: SoundRequest) -> Rendition:
    """A sound track as AAC."""
    given = work.store.path(request.sound)
    channels = probe(given).audio[0].channels
    with tempfile.TemporaryDirectory(dir=work.scratch) as scratch:
        folder = Path(scratch)
        (folder / "sound.flac").symlink_to(given.resolve())
        files = _segments(work, folder, ffmpeg.input("sound.flac").audio, {
            **aac(channels), "flags:a": "+bitexact", "metadata:s:a:0": f"language={alpha3(request.language)}"})
        return _rendition(work, files, "mp4a.40.2").model_copy(update={"channels": channels})


@step("hls.text", version=1, result=Rendition, unit="track")
def hls_text(work: Work, request: TextRequest) -> Rendition:
    """Subtitles in segments; a cue stands in each one that it is shown in (RFC 8216, 3.5)."""
    data = work.store.path(request.text).read_text(encoding="utf-8")
    length = Fraction(request.frames) / request.rate
    shown = [(_seconds(*match.groups()[:3]), _seconds(*match.groups()[3:]), data[match.start():].partition("\n\n")[0])
             for match in CUE.finditer(data)]
    files, lines = {}, []
    for number, start in enumerate(range(0, -(-length.numerator // length.denominator), SEGMENT_S)):
        end = min(Fraction(start + SEGMENT_S), length)
        cues = "".join(f"\n{text.rstrip()}\n" for begins, over, text in shown if begins < end and over > start)
        files[f"{number:05d}.vtt"] = f"WEBVTT\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0\n{cues}".encode()
        lines.append(f"#EXTINF:{float(end - start):.6f},\n{number:05d}.vtt\n")
    files[PLAYLIST] = (f"#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{SEGMENT_S}\n#EXT-X-MEDIA-SEQUENCE:0\n"
                       f"#EXT-X-PLAYLIST-TYPE:VOD\n{''.join(lines)}#EXT-X-ENDLIST\n").encode()
    return _rendition(work, files, "")


def _seconds(hours: str, minutes: str, seconds: str) -> Fraction:
    return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)


def _encoded(given: Path, out: Path, work: Work) -> None:
    total, color = frame_count(given), probe(given).video.color  # type: ignore[union-attr]
    with (FrameReader(given) as reader,
          PictureWriter(out, reader.width, reader.height, reader.rate, color=color, crf=CRF) as writer):
        for picture in reader.pictures(0, total):
            writer.write(picture)
            if writer.written % 50 == 0:
                work.progress(f"encodes frame {writer.written} of {total}", writer.written / total)


def _segments(work: Work, folder: Path, stream: object, how: Mapping[str, str]) -> dict[str, bytes]:
    """What ffmpeg's HLS muxer makes of a track.

    Time stamps may begin below zero: what an encoder needs before the first sample, and the order of B-frames, are then
    in the edit list, and picture and sound begin at 0 together.
    """
    made = folder / "made"
    made.mkdir()
    work.progress("hls: cuts segments", 0.5)
    run_ffmpeg(ffmpeg.output(
        stream, f"made/{PLAYLIST}", format="hls", hls_time=SEGMENT_S, hls_playlist_type="vod",
        hls_segment_type="fmp4", hls_fmp4_init_filename="init.mp4", hls_segment_filename="made/%05d.m4s",
        avoid_negative_ts="disabled", fflags="+bitexact", threads=THREADS, **how), where="HLS", folder=folder)
    return {path.name: path.read_bytes() for path in sorted(made.iterdir())}


def _rendition(work: Work, files: Mapping[str, bytes], codecs: str) -> Rendition:
    """A track's files in the store, each segment named by number and content, with its measured rates."""
    playlist, stored = files[PLAYLIST].decode(), dict[str, Artifact]()
    for name, data in files.items():
        if name != PLAYLIST:
            file = work.store.put_bytes(data, "text/vtt" if name.endswith(".vtt") else SEGMENT_TYPE)
            stem, _, suffix = name.rpartition(".")
            stored[f"{stem}-{file.sha256[:8]}.{suffix}"] = file
            playlist = re.sub(rf"(?m)(^|URI=\"){re.escape(name)}", rf"\g<1>{stem}-{file.sha256[:8]}.{suffix}", playlist)
    segments = [(float(length), len(files[name])) for length, name in EXTINF.findall(files[PLAYLIST].decode())]
    target = max(round(length) for length, _ in segments)
    playlist = re.sub(r"#EXT-X-TARGETDURATION:\d+", f"#EXT-X-TARGETDURATION:{target}", playlist)
    stored[PLAYLIST] = work.store.put_bytes(playlist.encode(), PLAYLIST_TYPE)
    total = sum(length for length, _ in segments)
    return Rendition(files=stored, peak=_peak(segments, target), codecs=codecs,
                     average=round(8 * sum(size for _, size in segments) / total))


def _peak(segments: Sequence[tuple[float, int]], target: float) -> int:
    """The largest bit rate of any run of segments that lasts from a half to one and a half of the target duration."""
    worst = 0.0
    for first in range(len(segments)):
        length, size = 0.0, 0
        for more, bytes_ in segments[first:]:
            length, size = length + more, size + bytes_
            if length > 1.5 * target:
                break
            if length >= target / 2 or len(segments) == 1:
                worst = max(worst, 8 * size / length)
    return round(worst)


def _codecs(path: Path, codec: str) -> str:
    """What a picture needs of a decoder, from its configuration record (ISO/IEC 14496-15, annex E; RFC 6381)."""
    with reading(path) as container:
        record = bytes(picture_stream(container, path).codec_context.extradata or b"")
    if codec == "h264":
        return f"avc1.{record[1:4].hex()}"
    profile, flags, level = record[1], int.from_bytes(record[2:6], "big"), record[12]
    constraints = record[6:12].rstrip(b"\0")
    space, tier = ["", "A", "B", "C"][profile >> 6], "H" if profile & 0x20 else "L"
    backwards = int(f"{flags:032b}"[::-1], 2)
    return ".".join([f"hvc1.{space}{profile & 0x1F}", f"{backwards:X}", f"{tier}{level}",
                     *(f"{byte:X}" for byte in constraints)])


# -- the multivariant playlist ----------------------------------------------------------------------------------------


def _main(request: HlsRequest, picture: Rendition, sounds: Sequence[Rendition], texts: Sequence[Rendition]) -> str:
    made, source = request.assembled, request.source
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    lines += [f'#EXT-X-SESSION-DATA:DATA-ID="com.apple.hls.title",VALUE={_quoted(title)},LANGUAGE="{tag}"'
              for tag, title in sorted(request.titles.items()) if title]
    lines += [f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="sound",{name},CHANNELS="{rendition.channels}",'
              f'DEFAULT={"NO" if number else "YES"},AUTOSELECT=YES,URI="sound-{track.language}/{PLAYLIST}"'
              for number, (track, name, rendition) in enumerate(zip(made.sounds, _named(made.sounds), sounds,
                                                                    strict=True))]
    lines += [f'#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="text",{name},DEFAULT=NO,AUTOSELECT=YES,FORCED=NO,'
              f'URI="text-{track.language}/{PLAYLIST}"' for track, name in zip(made.texts, _named(made.texts),
                                                                               strict=True)]
    peak, average = (getattr(picture, rate) + max((getattr(one, rate) for one in sounds), default=0)
                     + max((getattr(one, rate) for one in texts), default=0) for rate in ("peak", "average"))
    codecs = ",".join(dict.fromkeys([picture.codecs, *(one.codecs for one in sounds)]))
    groups = 'AUDIO="sound"' + (',SUBTITLES="text"' if texts else "")
    lines += [f'#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS="{codecs}",'
              f"RESOLUTION={source.width}x{source.height},FRAME-RATE={float(source.rate):.3f},{groups}",
              f"picture/{PLAYLIST}", ""]
    return "\n".join(lines)


def _named(tracks: Sequence[SoundTrack | TextTrack]) -> Iterator[str]:
    """NAME and LANGUAGE of tracks; a name stands once in a group, and a group has one track a language."""
    names = Counter(track.name for track in tracks)
    if len({track.language for track in tracks}) < len(tracks):
        raise MediaError("has two tracks in one language", where="HLS")
    for track in tracks:
        name = track.name if names[track.name] == 1 else f"{track.name} [{track.language}]"
        yield f'NAME={_quoted(name)},LANGUAGE="{track.language}"'


def _quoted(text: str) -> str:
    """A quoted string, which can hold no quotation mark and no line break."""
    return '"' + " ".join(text.replace('"', "”").split()) + '"'
