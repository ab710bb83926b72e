"""Sound of a media file: decoded piece by piece at exact times, and written as FLAC.

Audio is float32 in [-1, 1], (N,) for one channel and (N, C) for several.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
import soundfile

from models.errors import InfrastructureError, MediaError, StorageFullError
from models.pictures import place
from models.ports import Samples
from models.timebase import CLOCK
from tasks.video import reading

MAX_BROKEN_PACKETS = 20
"""Audio packets that may fail to decode (they become silence) before a file counts as broken."""
JUMP = Fraction(1, 50)
"""Seconds by which audio time stamps may wander before samples are inserted or dropped to follow them."""
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def _decoded(container: Any, stream: Any, layout: str) -> Iterator[tuple[Fraction | None, Samples]]:
    """(time of the first sample, samples (n, C)) of each decoded frame, at the stream's rate, mixed to `layout`."""
    rate, broken = stream.codec_context.sample_rate, 0
    resampler, heard_as = None, None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            broken += 1
            if broken > MAX_BROKEN_PACKETS:
                raise
            continue
        for frame in frames:
            kind = (frame.format.name, frame.layout.name, frame.sample_rate)
            if resampler is None or kind != heard_as:
                resampler, heard_as = av.AudioResampler(format="flt", layout=layout, rate=rate), kind
            at = frame.pts * frame.time_base if frame.pts is not None else None
            yield at, np.concatenate([_samples(part) for part in resampler.resample(frame)])


def _samples(frame: Any) -> Samples:
    return np.asarray(frame.to_ndarray().reshape(-1, len(frame.layout.channels)), np.float32)


def _placed(blocks: Iterator[tuple[Fraction | None, Samples]], rate: int, origin: Fraction) -> Iterator[Samples]:
    """Samples from `origin` on without a hole: gaps become silence, what comes before or twice is dropped."""
    done = 0
    for at, block in blocks:
        ahead = 0 if at is None else round((at - origin) * rate) - done
        if done and abs(ahead) <= JUMP * rate:
            ahead = 0
        for gap in range(0, ahead, rate):
            yield np.zeros((min(rate, ahead - gap), block.shape[1]), np.float32)
        heard = block[max(0, -ahead):]
        if len(heard):
            yield heard
        done += max(0, ahead) + len(heard)


def _resampled(blocks: Iterator[Samples], layout: str, rate_in: int, rate_out: int) -> Iterator[Samples]:
    if rate_in == rate_out:
        yield from blocks
        return
    resampler = av.AudioResampler(format="flt", layout=layout, rate=rate_out)
    for block in blocks:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = rate_in
        yield from map(_samples, resampler.resample(frame))
    yield from map(_samples, resampler.resample(None))


def _blocks(pieces: Iterator[Samples], size: int, skip: int, count: int | None) -> Iterator[Samples]:
    """Cut `pieces` anew into blocks of `size`, without the first `skip` samples, `count` samples in all."""
    held: list[Samples] = []
    have = 0
    for given in pieces:
        piece, skip = given[skip:], max(0, skip - len(given))
        piece = piece if count is None else piece[:count]
        count = None if count is None else count - len(piece)
        held, have = [*held, piece], have + len(piece)
        if have >= size:
            whole = np.concatenate(held)
            for start in range(0, have - have % size, size):
                yield whole[start:start + size]
            held, have = [whole[have - have % size:]], have % size
        if count == 0:
            break
    if have:
        yield np.concatenate(held)


def audio_blocks(path: Path, *, rate: int = CLOCK, channels: int | None = None, block: int = CLOCK, start: int = 0,
                 length: int | None = None, stream: int | None = None, origin: Fraction | None = None,
                 ) -> Iterator[Samples]:
    """Decode a sound track piece by piece; memory does not grow with its length.

    Args:
        path: Any media file with sound.
        rate: Samples per second to convert to.
        channels: 1, 2, 6 or 8 to mix down (or up) to; None keeps the channels of the file.
        block: Samples in each piece; only the last one is shorter.
        start: Tick at which to begin.
        length: Ticks to read; None reads to the end.
        stream: Index of the track in the file; None takes the default one.
        origin: Time stamp (seconds) of tick 0; None takes the file's own start.

    Yields:
        float32 (n, C); gaps in the track are silence.

    Raises:
        MediaError: No sound track, or it cannot be decoded.
    """
    lead = min(start, CLOCK // 10)
    with reading(path) as container:
        track = _track(container, stream, path)
        layout = LAYOUTS[channels] if channels else track.codec_context.layout.name
        native = track.codec_context.sample_rate
        if origin is None:
            origin = max(Fraction(0), Fraction(container.start_time or 0, av.time_base))
        origin += Fraction(start - lead, CLOCK)
        if start > 2 * CLOCK:
            _seek(container, track, origin - 1)
        pieces = _resampled(_placed(_decoded(container, track, layout), native, origin), layout, native, rate)
        count = None if length is None else round(Fraction(length * rate, CLOCK))
        if length is None and "mp4" in container.format.name and track.duration:
            # The edit list ends the track in the middle of its last packet, which the decoder does not know.
            over = ((track.start_time or 0) + track.duration) * track.time_base
            count = max(0, round((over - origin) * rate) - round(Fraction(lead * rate, CLOCK)))
        yield from _blocks(pieces, block, round(Fraction(lead * rate, CLOCK)), count)


def _seek(container: Any, track: Any, time: Fraction) -> None:
    """Go near `time`, or to the beginning where no place is found: long silence does not look like FLAC frames."""
    try:
        container.seek(int(time / track.time_base), stream=track)
    except av.error.FFmpegError:
        container.seek(0, stream=track)


def _track(container: Any, index: int | None, path: Path) -> Any:
    tracks = [s for s in container.streams.audio if index in {None, s.index} and s.codec_context
              and s.codec_context.channels and s.codec_context.sample_rate]
    if not tracks:
        raise MediaError("has no audio stream that can be decoded", where=place(path),
                         hint="Give a file with a sound track")
    return next((s for s in tracks if s.disposition & av.stream.Disposition.default), tracks[0])


def read_audio(path: Path, *, rate: int = CLOCK, channels: int | None = 1, start: int = 0, length: int | None = None,
               ) -> Samples:
    """Decode a sound track, or a part of it, into memory.

    Args:
        path: Any media file with sound.
        rate: Samples per second to convert to.
        channels: 1, 2, 6 or 8 to mix down (or up) to; None keeps the channels of the file.
        start: Tick (1/48000 s, whatever the rate) at which to begin; 0 is the start of the file.
        length: Ticks to read; None reads to the end.

    Returns:
        float32: (N,) when `channels` is 1, else (N, C). N is `length * rate / 48000`, less where the file ends before.

    Raises:
        MediaError: No sound track, or it cannot be decoded.
    """
    blocks = list(audio_blocks(path, rate=rate, channels=channels, start=start, length=length))
    samples = np.concatenate(blocks) if blocks else np.zeros((0, channels or 1), np.float32)
    return samples[:, 0] if channels == 1 else samples


FULL = 1 << 20
"""Bytes free below which a disk counts as full."""


class FlacWriter:
    """Writes a 24-bit FLAC piece by piece."""

    def __init__(self, path: Path, channels: int = 1, rate: int = CLOCK) -> None:
        self.path, self.channels, self.rate = path, channels, rate

    def __enter__(self) -> Self:
        try:
            self._file = soundfile.SoundFile(str(self.path), "w", self.rate, self.channels, "PCM_24", format="FLAC")
        except soundfile.LibsndfileError as error:
            raise self._error(error) from error
        return self

    def write(self, block: Samples) -> None:
        """Append samples, (n,) or (n, C); what is above full scale is clipped.

        Raises:
            InfrastructureError: The file cannot be written.
        """
        try:
            self._file.write(block)
        except soundfile.LibsndfileError as error:
            raise self._error(error) from error

    def _error(self, error: soundfile.LibsndfileError) -> InfrastructureError:
        """libsndfile says only 'System error': whether the disk is full is seen on the disk."""
        if shutil.disk_usage(self.path.parent).free < FULL:
            return StorageFullError("no space left on the disk", where=str(self.path),
                                    hint="Free some space and run the same command again")
        return InfrastructureError(f"cannot be written ({error.error_string})", where=str(self.path))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
                 ) -> None:
        self._file.close()


def write_flac(path: Path, samples: Samples, rate: int = CLOCK) -> None:
    """Write float32 samples, (N,) or (N, C), as 24-bit FLAC.

    Raises:
        InfrastructureError: The file cannot be written.
    """
    with FlacWriter(path, 1 if samples.ndim == 1 else samples.shape[1], rate) as writer:
        writer.write(samples)
