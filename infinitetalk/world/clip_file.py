"""A clip ↔ two files: `NAME.mkv`, lossless picture and sound that players show, and `NAME.safetensors`, the truth.

The Matroska file holds one channel of sound a person. The truth holds every array under its name, and in its header, as
JSON, what is no array, with the SHA-256 of the Matroska file that it belongs to. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from infinitetalk.errors import BadInputError
from infinitetalk.io import reading, sound, turned
from infinitetalk.world.scene import Camera, Clip, Floats, Motion, Person, Phoneme, Pixels, Truth
from infinitetalk.world.speech import RATE

VIDEO, TRUTH = ".mkv", ".safetensors"
VERSION = "2"
"""Of the layout of the truth."""
CODEC, PIXELS, HOW = "libx264rgb", "bgr24", {"qp": "0", "preset": "ultrafast"}
"""Lossless. At 128 pixels 13 kB a frame, 0.5 ms to write and 1.2 ms to read; FFV1 needs 15 kB, 1.4 and 2.3 ms, raw
pixels 49 kB. Lossy H.264 needs 2 kB, but is wrong by up to 50 levels around the lips."""
PER_FRAME = ("visemes", "beats", "mouth", "face")
MOTION = ("units", "head", "torso", "arms", "gaze")
LARGEST = 2 << 30
"""Bytes of a video's pixels: it is whole in memory."""
AGAIN = "Delete it, and render its seed again"


@dataclass(frozen=True)
class Recording:
    """A talking video that was read; what is known of it only where it is of the synthetic world."""

    name: str
    rate: float
    """Frames per second."""
    frames: Pixels
    """(F, H, W, 3)."""
    speech: Floats
    """16 kHz, one track a person of the synthetic world, else the whole sound: (P, M)."""
    seed: int | None = None
    camera: Camera | None = None
    truth: tuple[Truth, ...] = ()
    """One a person; empty where nothing is known."""


def save_clip(clip: Clip, folder: Path, name: str) -> dict[str, str]:
    """Write the two files, the truth last, each whole or not at all → SHA-256 by file name.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    video, truth = folder / f"{name}{VIDEO}", folder / f"{name}{TRUTH}"
    part = video.with_name(f".{video.name}")
    _encode(clip, part)
    digest = sha256(part)
    part.replace(video)
    part = truth.with_name(f".{truth.name}")
    part.write_bytes(_packed(clip, digest))
    part.replace(truth)
    return {video.name: digest, truth.name: sha256(truth)}


def load_clip(folder: Path, name: str) -> Recording:
    """Read both files back: equal to what was written.

    Raises:
        BadInputError: One is absent or damaged, or they do not belong together.
    """
    truth = folder / f"{name}{TRUTH}"
    video = folder / f"{name}{VIDEO}"
    notes, arrays = _unpacked(truth)
    if sha256(video) != notes["video"]:
        raise BadInputError("is not the file that its truth was written for", where=str(video), hint=AGAIN)
    try:
        people = tuple(_truth(notes, arrays, index) for index in range(len(notes["people"])))
        camera = Camera(arrays["camera"], notes["camera"]["kind"], notes["camera"]["framing"])
        seed, rate = int(notes["seed"]), float(notes["rate"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"lacks a part of the truth ({error})", where=str(truth), hint=AGAIN) from error
    found = load_video(video, tracks=len(people))
    _check(found, rate, camera, people, truth)
    return Recording(name, rate, found.frames, found.speech, seed, camera, people)


def load_video(path: Path, tracks: int = 1) -> Recording:
    """A talking video of which nothing is known, whole in memory.

    Args:
        path: Any file with picture and sound, of a constant rate.
        tracks: Channels of sound: 1 mixes them, 2 keeps left and right apart.

    Raises:
        BadInputError: It is absent or damaged, has no picture or no sound, or is too long.
    """
    pictures: list[Pixels] = []
    with reading(path) as container:
        if not container.streams.video or not container.streams.video[0].average_rate:
            raise BadInputError("has no moving picture", where=str(path), hint="Give a video")
        rate = float(container.streams.video[0].average_rate)
        container.streams.video[0].codec_context.thread_count = 1  # of small pictures: waiting for others took longer
        for frame in container.decode(video=0):
            pictures.append(turned(frame.to_ndarray(format="rgb24"), frame.side_data.get("DISPLAYMATRIX")))
            if len(pictures) * pictures[0].nbytes > LARGEST:
                raise BadInputError(f"is too long to be held in memory ({len(pictures) / rate:.0f} s are "
                                    f"{LARGEST >> 20} MiB)", where=str(path),
                                    hint="Cut it into clips of a few seconds, or scale it down")
    if not pictures or len({picture.shape for picture in pictures}) > 1:
        raise BadInputError("has no pictures, or of several sizes", where=str(path), hint="Export it again")
    blocks = list(sound(path, RATE, "mono" if tracks == 1 else "stereo"))
    speech = np.concatenate(blocks, axis=1) if blocks else np.zeros((tracks, 0), np.float32)
    return Recording(path.stem, rate, np.stack(pictures), speech.astype(np.float32))


def sha256(path: Path) -> str:
    """Of a whole file.

    Raises:
        BadInputError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInputError("cannot be read", where=str(path), hint=AGAIN) from error


# -- the video --------------------------------------------------------------------------------------------------------


def _encode(clip: Clip, path: Path) -> None:
    """Picture and sound; bit-exact, so that the same clip is the same file."""
    with av.open(str(path), "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        picture = container.add_stream(CODEC, rate=Fraction(clip.rate).limit_denominator(1001), options=dict(HOW))
        picture.height, picture.width = clip.frames.shape[1:3]
        picture.pix_fmt, picture.thread_count = PIXELS, 1
        picture.codec_context.flags |= av.codec.context.Flags.bitexact
        voices = container.add_stream("flac", rate=RATE, layout="mono" if len(clip.speech) == 1 else "stereo")
        voices.codec_context.flags |= av.codec.context.Flags.bitexact
        samples = np.round(clip.speech.T * 32768).clip(-32768, 32767).astype(np.int16)           # (M, P)
        track = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), format="s16",
                                           layout=voices.layout.name)
        track.sample_rate, track.pts, track.time_base = RATE, 0, Fraction(1, RATE)
        for frame in (av.VideoFrame.from_ndarray(one, format="rgb24") for one in clip.frames):
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        container.mux(voices.encode(track))
        container.mux(voices.encode(None))


# -- the truth --------------------------------------------------------------------------------------------------------


def _packed(clip: Clip, video: str) -> bytes:
    arrays: dict[str, NDArray[Any]] = {"camera": clip.camera.path}
    people = []
    for index, truth in enumerate(clip.truth):
        arrays |= {f"{index}.{name}": getattr(truth, name) for name in PER_FRAME}
        arrays |= {f"{index}.{name}": getattr(truth.motion, name) for name in MOTION}
        arrays[f"{index}.identity"] = truth.person.identity
        looks = {key: value for key, value in asdict(truth.person).items() if key != "identity"}
        people.append({"person": looks, "phonemes": truth.phonemes, "stresses": truth.stresses})
    notes = {"version": VERSION, "seed": clip.seed, "rate": clip.rate, "video": video, "people": people,
             "camera": {"kind": clip.camera.kind, "framing": clip.camera.framing}}
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(whole, {"truth": json.dumps(notes, ensure_ascii=False)})  # one entry: several have no fixed order


def _unpacked(path: Path) -> tuple[dict[str, Any], dict[str, Floats]]:
    """What is no array, and the arrays.

    Raises:
        BadInputError: The file is absent, damaged, or of another version.
    """
    try:
        with safe_open(path, "numpy") as file:
            notes = {"video": "", "version": "", **json.loads((file.metadata() or {})["truth"])}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no dict
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        reason = "its truth is missing" if isinstance(error, FileNotFoundError) else "its truth cannot be read"
        raise BadInputError(reason, where=str(path), hint=AGAIN) from error
    if notes["version"] != VERSION:
        raise BadInputError(f"is of version {notes['version']}, not {VERSION}", where=str(path), hint=AGAIN)
    return notes, arrays


def _truth(notes: Mapping[str, Any], arrays: Mapping[str, Floats], index: int) -> Truth:
    """Raises KeyError or TypeError where something is missing."""
    said = notes["people"][index]
    looks = {key: _tupled(value) for key, value in said["person"].items()}
    motion = Motion(**{name: arrays[f"{index}.{name}"] for name in MOTION}, rate=float(notes["rate"]))
    person = Person(identity=arrays[f"{index}.identity"],
                    **{field.name: looks[field.name] for field in fields(Person) if field.name != "identity"})
    return Truth(**{name: arrays[f"{index}.{name}"] for name in PER_FRAME}, motion=motion, person=person,
                 phonemes=tuple(Phoneme(*phoneme) for phoneme in said["phonemes"]),
                 stresses=tuple(said["stresses"]))


def _tupled(value: Any) -> Any:
    """JSON has lists where the truth has tuples."""
    return tuple(_tupled(one) for one in value) if isinstance(value, list) else value


def _check(found: Recording, rate: float, camera: Camera, people: tuple[Truth, ...], path: Path) -> None:
    """One row of truth a frame, and sound for all of them."""
    frames = len(found.frames)
    rows = {len(camera.path), *(len(getattr(one, name)) for one in people for name in PER_FRAME),
            *(len(getattr(one.motion, name)) for one in people for name in MOTION)}
    if rows != {frames} or not people:
        raise BadInputError(f"has {sorted(rows)} rows for {frames} frames", where=str(path), hint=AGAIN)
    if abs(found.rate - rate) > 1e-3 * rate:
        raise BadInputError(f"says {rate:g} frames a second, its video {found.rate:g}", where=str(path), hint=AGAIN)
    if len(found.speech) != len(people) or abs(found.speech.shape[1] - frames / rate * RATE) > RATE / rate:
        raise BadInputError("its sound is not as long as its picture", where=str(path), hint=AGAIN)
