"""GenerateRequest → Clips: runs a generator over shots, chunk by chunk, and resumes where a killed run stopped.

`generate` is the step, `generate_shot` its item, `run_shard` the same work as a GPU job gets it: a list of shots.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from models.errors import EngineError, InfinidubError, InputError
from models.ports import Chunk, Frames, Generator, Image, Samples, ShotInput
from models.recipe import shot_seed
from models.records import Clip, Clips, Placement, Request, Shard, ShardResult, ShotFailure, ShotRequest
from models.timebase import CLOCK, generation_divisor
from tasks.checkpoint import Checkpoint
from tasks.media import FrameReader, read_audio
from tasks.step import Work, find, perform, step
from tasks.store import alone

HEARING_RATE = 16_000
"""Samples per second of what a generator hears."""
HEARING_LUFS = -23.0
SHORTEST_LOUDNESS = 0.4
"""Seconds: one block of ITU-R BS.1770; what is shorter is measured by its power."""
INAUDIBLE = 1e-3
FRAME_CACHE = 16
"""Source frames kept: generators look back at a chunk's context, and a seek decodes from the key frame."""
RATES_DIFFER = 5000
"""Rates that differ by less than this part are one rate, told from rounded time stamps; 24 and 24000/1001 are two."""
LARGEST_SHARD = 32 * 1024 * 1024


class GenerateRequest(Request):
    """The shots to generate, in order; a new `take` joins them anew, a new seed in them makes new pictures."""

    requests: tuple[ShotRequest, ...]


@step("generate", version=1, result=Clips)
def generate(work: Work, request: GenerateRequest) -> Clips:
    """Generate all shots of an episode in one language, or take over those that were made before.

    Raises:
        InputError: The source is not what a shot request says.
        EngineError: The generator failed on a shot, or handed back nonsense.
    """
    return Clips(clips=tuple(_finished(part, shot) for part, shot in _in_turn(work, request.requests)))


@step("generate.shot", version=1, result=Clip, unit="shot")
def generate_shot(work: Work, request: ShotRequest) -> Clip:
    """Generate one shot, going on after the last chunk that an earlier, killed run finished.

    What a generator makes nonsense of is tried once more with another seed; both follow from the request, so that it
    still names one result.

    Raises:
        EngineError: It failed with both seeds; not to be tried again by itself.
    """
    there = work.counts["chunks_there"]
    try:
        try:
            return _generate_shot(work, request)
        except EngineError:
            work.counts["chunks_there"] = there
            other = reseeded(request)
            work.note_seed(other.seed)
            return _generate_shot(work, other)
    except InfinidubError as error:
        if isinstance(error, EngineError):
            error.retryable = False
        error.at(f"shot {request.shot}")
        raise


def missing_shots(work: Work, requests: Sequence[ShotRequest]) -> dict[str, ShotRequest]:
    """Recipe → request of those of which there is no result, in the same order."""
    asked = {generate_shot.recipe(request): request for request in requests}
    recorded = work.ledger.find_many(asked)  # one look for all, since of a new plan nothing is there
    return {recipe: request for recipe, request in asked.items()
            if recipe not in recorded or find(work, generate_shot, request) is None}


def chunks_of(work: Work, requests: Sequence[ShotRequest]) -> int:
    """How many chunks shots take; `work.counts["chunks_there"]` counts up to it, whoever made them.

    Raises:
        SetupError, InputError: Their generator is not here.
    """
    return sum(work.engines.get("generator", request.generator).geometry.chunks(request.generated_frames)
               for request in requests)


def reseeded(request: ShotRequest) -> ShotRequest:
    """The same shot with the seed of its second try; its unfinished work is kept under a recipe of its own."""
    return request.model_copy(update={"seed": shot_seed(request.seed, request.shot, 1)})


def _generate_shot(work: Work, request: ShotRequest) -> Clip:
    generator: Generator = work.engines.get("generator", request.generator)
    width, height, placement = _placement(generator, request)
    checkpoint = Checkpoint(work.store, generate_shot.recipe(request), width, height,
                            request.rate / generation_divisor(request.rate))
    _make_chunks(work, generator, request, checkpoint)
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        joined = Path(folder) / "clip.mkv"
        checkpoint.join(joined)
        video = work.store.put_file(joined, "video/x-matroska")
    return Clip(shot=request.shot, video=video, frames=checkpoint.frames, width=width, height=height,
                placement=placement, region=request.region, chunks=len(checkpoint.chunks),
                joins=tuple(accumulate(chunk.frames for chunk in checkpoint.chunks[:-1])))


def _make_chunks(work: Work, generator: Generator, request: ShotRequest, checkpoint: Checkpoint) -> None:
    needed = request.generated_frames
    work.counts["chunks_there"] += len(checkpoint.chunks)
    if checkpoint.frames >= needed:
        return
    with FrameReader(work.store.path(request.source)) as reader:
        shot = _shot_input(work, request, reader)
        for chunk in generator.generate(shot, checkpoint.state, len(checkpoint.chunks)):
            frames = _checked(chunk, len(checkpoint.chunks), checkpoint)
            checkpoint.add(frames[:needed - checkpoint.frames], chunk.state)
            work.counts.update(("chunks_run", "chunks_there"))
            work.counts["frames_run"] += checkpoint.chunks[-1].frames
            work.progress(f"generating {request.shot}, {checkpoint.frames} of {needed} frames",
                          checkpoint.frames / needed)
            if checkpoint.frames >= needed:
                return
    raise EngineError(f"the generator stopped after {checkpoint.frames} of {needed} frames",
                      hint="This is a fault of the generator; try another with --generator")


def _placement(generator: Generator, request: ShotRequest) -> tuple[int, int, Placement]:
    width, height, place = generator.placement(request)
    if width < 1 or height < 1 or place.x + place.width > request.width or place.y + place.height > request.height:
        raise EngineError(f"the generator's {width}x{height} picture, put at {place.x},{place.y} as "
                          f"{place.width}x{place.height}, leaves the {request.width}x{request.height} frame")
    return width, height, place


def _checked(chunk: Chunk, expected: int, checkpoint: Checkpoint) -> Frames:
    size = (checkpoint.height, checkpoint.width, 3)
    if chunk.index != expected:
        raise EngineError(f"the generator handed back chunk {chunk.index} where {expected} was next")
    if chunk.frames.dtype != np.uint8 or chunk.frames.shape[1:] != size or not len(chunk.frames):
        raise EngineError(f"chunk {expected} holds {chunk.frames.dtype} pictures of shape {chunk.frames.shape}, "
                          f"not uint8 of (n, {size[0]}, {size[1]}, 3)")
    return chunk.frames


# -- what a generator sees and hears ----------------------------------------------------------------------------------


def _shot_input(work: Work, request: ShotRequest, reader: FrameReader) -> ShotInput:
    """Raises InputError when the source is not what the request says: a shard file comes from elsewhere."""
    if (reader.width, reader.height) != (request.width, request.height):
        raise InputError(f"the source is {reader.width}x{reader.height}, the request says "
                         f"{request.width}x{request.height}", hint="Plan the shots of this source anew")
    if abs(reader.rate - request.rate) * RATES_DIFFER > request.rate:
        raise InputError(f"the source has {reader.rate} frames a second, the request says {request.rate}",
                         hint="Plan the shots of this source anew")
    reader.picture(request.end - 1)  # no such frame: fails here, before anything of the shot's length is allocated
    return ShotInput(request=request, frame=_frame_source(reader, request), tracks=hear(work, request),
                     faces=request.faces)


def _frame_source(reader: FrameReader, request: ShotRequest) -> Callable[[int], Image]:
    divisor = generation_divisor(request.rate)

    @lru_cache(maxsize=FRAME_CACHE)
    def frame(index: int) -> Image:
        picture = reader.frame(min(request.start + max(index, 0) * divisor, request.end - 1))
        picture.flags.writeable = False  # it is shared by all who ask for it
        return picture

    return frame


def hear(work: Work, request: ShotRequest) -> dict[str, Samples]:
    """What is heard of each speaker during a shot: 16 kHz, exactly the shot's length, silence where he is silent."""
    length = round((request.end - request.start) / request.rate * HEARING_RATE)
    tracks: dict[str, Samples] = {}
    for track in request.tracks:
        samples = tracks.setdefault(track.speaker, np.zeros(length, np.float32))
        for line in track.lines:
            voice = at_hearing_level(read_audio(work.store.path(line.audio), rate=HEARING_RATE))
            _lay(samples, voice, round(line.at * HEARING_RATE / CLOCK))
    return tracks


def _lay(track: Samples, voice: Samples, at: int) -> None:
    start, end = max(at, 0), min(at + len(voice), len(track))
    if end > start:
        track[start:end] += voice[start - at:end - at]


def at_hearing_level(voice: Samples) -> Samples:
    """One line at −23 LUFS, by itself, so that no other line can change what a shot hears; (N,) at 16 kHz."""
    import pyloudnorm

    peak = float(np.abs(voice).max(initial=0.0))
    if peak < INAUDIBLE:
        return voice
    if len(voice) >= SHORTEST_LOUDNESS * HEARING_RATE:
        level = float(pyloudnorm.Meter(HEARING_RATE).integrated_loudness(voice))
    else:
        level = 10 * float(np.log10(np.mean(voice.astype(np.float64) ** 2)))
    if not np.isfinite(level):
        return voice
    gain = min(10 ** ((HEARING_LUFS - level) / 20), 1 / peak)
    return (voice * gain).astype(np.float32)


# -- several shots ----------------------------------------------------------------------------------------------------


def _in_turn(work: Work, requests: Sequence[ShotRequest]) -> Iterator[tuple[Work, ShotRequest]]:
    """Each shot with a `Work` whose progress counts over all of them, by frames."""
    total, done = sum(r.generated_frames for r in requests), 0
    for request in requests:
        share, before = request.generated_frames / total, done / total

        def progress(what: str, part: float, share: float = share, before: float = before) -> None:
            work.progress(what, before + share * part)

        yield replace(work, progress=progress), request
        done += request.generated_frames


def _finished(work: Work, request: ShotRequest) -> Clip:
    """The shot's clip; its unfinished work goes once the clip is recorded, and not a moment before."""
    recipe, there = generate_shot.recipe(request), work.counts["chunks_there"]
    with alone(work.scratch / f"{recipe}.lock"):  # another process here that makes this shot hands its clip over
        clip = perform(work, generate_shot, request, request.shot)
        work.counts["chunks_there"] = there + clip.chunks  # also of one that was there already
        for kept in (recipe, generate_shot.recipe(reseeded(request))):
            work.store.drop(kept)
    return clip


def run_shard(work: Work, shard: Shard) -> ShardResult:
    """Generate the shots of a shard; one that fails does not stop the others.

    Raises:
        SetupError: The generator cannot run on this machine.
        InfrastructureError: Store or database failed; the finished shots are kept, run the shard again.
    """
    started, before = time.monotonic(), work.counts.copy()
    clips, failed = [], {}
    for part, request in _in_turn(replace(work, episode=shard.episode, language=shard.language), shard.requests):
        try:
            clips.append(_finished(part, request))
        except (EngineError, InputError) as error:
            failed[request.shot] = ShotFailure(error_class=type(error).__name__, error=str(error),
                                               flagged=isinstance(error, EngineError))
    ran = work.counts - before
    return ShardResult(id=shard.id, clips=tuple(clips), shots_run=ran["shots_run"], shots_reused=ran["shots_reused"],
                       chunks_run=ran["chunks_run"], seconds=time.monotonic() - started, failed=failed)


def load_shard(path: Path) -> Shard:
    """Read a SHARD.json, which may come from anywhere.

    Raises:
        InputError: It cannot be read, is too large, or is no shard; the message names the field.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_SHARD + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error
    if len(data) > LARGEST_SHARD:
        raise InputError(f"is larger than {LARGEST_SHARD >> 20} MiB", where=str(path), hint="Split it")
    try:
        shard = Shard.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{field}: {first['msg']}" if field else first["msg"], where=str(path),
                         hint="Write shards with `infinidub plan`") from error
    shots = [request.shot for request in shard.requests]
    if len(set(shots)) < len(shots):
        raise InputError("requests: a shot is named twice", where=str(path))
    return shard
