"""Generators: the small weights that come with the program, run by the engine of the package `infinitetalk`.

**They know nothing but the synthetic world**: they were trained on people that this project renders, and on nobody
else. Given real people they make mush of the face. Their place is the demonstration, tests, and experiments on a CPU.

*Where.* Their pictures are square, of 64 (`lite`) or 128 (`nano`) pixels, and they were trained on heads. So what they
generate is always a square around one head, for the region `frame` too: a whole frame in 64 pixels would be worth
nothing, and what is not generated stays as it was filmed. The square is `AROUND` times the face as the detector boxes
it, holds it wherever it moves in the shot, and is shifted to lie in the frame; without a face it is the middle of the
frame. Within the square the lower face alone is made anew, follows the face, and is laid upon the source's own pixels;
where no face is seen, all of the square.

*Who.* One head, and its voice: of those who are heard, the one whose face is largest, since where a shot is
generated must be known before it is listened to. Where no speaker's face is seen, the loudest voice drives.

*What enters recipes.* The SHA-256 of the weights, which the option `sha256` is filled with; where they lie does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from models.engines.infinitetalk import told
from models.engines.infinitetalk_cast import area, cast, cut_out, face_box, loudest
from models.engines.local_weights import weights_hash
from models.engines.options import Adapter, read_options
from models.errors import InputError, SetupError
from models.ports import Chunk, ChunkGeometry, EngineHome, Frames, ShotInput
from models.records import EngineRef, FaceTrack, Placement, Record, ShotRequest
from models.timebase import generation_divisor

if TYPE_CHECKING:
    from infinitetalk.engine import Engine, Take
    from infinitetalk.shot import Box
    from infinitetalk.stream import GeneratedChunk, StreamSettings

LIBRARIES = ("torch", "safetensors", "PIL")
AROUND = 1.4
"""Sides of the square against the face's box: brows to chin with a little around them, as in training."""
MOUTH = (0.5, 0.8)
"""Where the mouth's middle lies in a face's box, in its widths and heights (median of 80 rendered faces; 0.44 to 0.57
and 0.74 to 0.90)."""
SOFT = 0.3
"""Share of the way from the middle of a lower face to its edge over which it fades into what was filmed."""
STEPS: Mapping[str, int] = {"default": 8, "best": 24, "fast-8": 8, "fast-4": 4}
"""Profile → steps of the sampler."""
SIZES: Mapping[str, tuple[int, int, int]] = {"lite": (64, 33, 9), "nano": (128, 81, 9)}
"""Name → pixels along a side, frames of a chunk, of them context; those of the weights are checked against them."""


FILES = ("dit.safetensors", "codec.safetensors", "speech.safetensors", "config.json")
"""What the weights of one size are."""


class SmallOptions(Record):
    """What may be set."""

    SIZE: ClassVar[str]
    path: str = ""
    """Folder of other weights of the same size, e.g. your own; empty: those that come with the program."""
    sha256: str = ""
    """Of the weights; filled in."""
    steps: int = Field(0, ge=0)
    """Over the profile's; 0: as it says."""
    guidance: float = Field(3.0, ge=0)
    """How far mouths go beyond what the weights say by themselves; other than 1 it takes twice the time."""
    color: float = Field(1.0, ge=0, le=1)
    """How much colours are held to those of the shot's first picture."""
    device: str = "auto"
    """'auto': the machine's `device`."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """With the hash of the weights, where they are here and it is not given."""
        found = folder_of(cls.SIZE, str(told.get("path", "")))
        return told if told.get("sha256") or not _whole(found) else {**told, "sha256": _hash(found)}


class LiteOptions(SmallOptions):
    """For 64 pixels."""

    SIZE: ClassVar[str] = "lite"


class NanoOptions(SmallOptions):
    """For 128 pixels."""

    SIZE: ClassVar[str] = "nano"


OPTIONS: Mapping[str, type[SmallOptions]] = {"lite": LiteOptions, "nano": NanoOptions}


def folder_of(size: str, path: str) -> Path:
    """Where weights lie: at `path`, else in the package."""
    import infinitetalk

    return Path(path).expanduser() if path else Path(infinitetalk.__path__[0]) / "weights" / size


def _whole(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _hash(folder: Path) -> str:
    return weights_hash(folder / FILES[0], *FILES[1:])


class Small(Adapter):
    """One of the sizes; `Lite` and `Nano` say which."""

    SIZE: ClassVar[str]
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"path", "device"})
    CAUTION: ClassVar[str] = "It knows only the rendered people of the synthetic world; real faces will not be kept"

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        self._options: SmallOptions = read_options(OPTIONS[self.SIZE], ref.name, ref.options, home.connection)
        self._home = home
        self._where = f"generator {self.SIZE}"
        self._loaded: Engine | None = None
        self._side, *chunk = SIZES[self.SIZE]
        self.geometry = ChunkGeometry(*chunk)

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """Libraries, or the weights."""
        absent = [name for name in LIBRARIES if find_spec(name) is None]
        if absent:
            return f"the libraries {', '.join(absent)} are missing. Install them: pip install 'infinidub[infinitetalk]'"
        folder = folder_of(cls.SIZE, str(options.get("path", "")))
        return "" if _whole(folder) else f"there are no whole weights in {folder}. Train them (infinidub train), or " \
            f"name their folder: options.{cls.SIZE}.path"

    # -- where --------------------------------------------------------------------------------------------------------

    def placement(self, request: ShotRequest) -> tuple[int, int, Placement]:
        """The square around the head of whom is driven.

        Raises:
            InputError: The request's profile or reference is not one that shots are dubbed with.
        """
        self._check(request)
        seen = foremost(request)
        place = square(seen and seen[1], request.width, request.height)
        return place.width, place.height, place

    def _check(self, request: ShotRequest) -> None:
        if request.reference not in {"source", "image"}:
            raise InputError(f"the reference {request.reference!r} is for comparison, not for dubbing",
                             where=self._where, hint="Take 'source' or 'image'")
        if request.profile not in STEPS:
            raise InputError(f"there is no profile {request.profile!r}", where=self._where,
                             hint=f"There are: {', '.join(STEPS)}")

    # -- making it ----------------------------------------------------------------------------------------------------

    def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
        """Dub the shot (see `models.ports.Generator`).

        Raises:
            InputError: The state belongs to another shot, something of the request cannot be used, or the weights are
                not those that were planned with.
            SetupError: The weights are absent or damaged.
        """
        from infinitetalk.state import ChunkState

        self._check(shot.request)
        with told():
            before = None if state is None else ChunkState.load(state)
            done = start_chunk and self.geometry.frames + (start_chunk - 1) * (
                self.geometry.frames - self.geometry.context)
            region = self._region(shot.request)
            for chunk in self._engine().dub(self._take(shot, region), self._settings(shot.request), before):
                frames = self._laid(shot, chunk, done, region)
                done += len(frames)
                yield Chunk(index=chunk.index, frames=frames, state=chunk.state.save())

    def _laid(self, shot: ShotInput, chunk: GeneratedChunk, first: int, region: Callable[[int], Box] | None) -> Frames:
        """New frames of a chunk upon the source's own pixels, as large as these: (F, H, W, 3); `first` is the first."""
        width, height, place = self.placement(shot.request)
        made = np.stack([enlarged(frame, (width, height)) for frame in chunk.frames])  # (F, H, W, 3)
        if chunk.made is None or region is None:
            return made
        share = np.stack([enlarged(one * oval(region(first + at), self._side), (width, height))
                          for at, one in enumerate(chunk.made)]).clip(0, 1)[..., None]  # (F, H, W, 1)
        filmed = np.stack([cut_out(shot.frame(first + at), place, (width, height)) for at in range(len(made))])
        frames: Frames = np.rint(filmed + share * (made.astype(np.float32) - filmed)).astype(np.uint8)
        return frames

    def _region(self, request: ShotRequest) -> Callable[[int], Box] | None:
        """Frame of the shot → what of the square is made anew; None: all, since no face is seen."""
        seen, divisor, place = foremost(request), generation_divisor(request.rate), self.placement(request)[2]
        return seen and (lambda index: lower_face(seen[1], request.start + index * divisor, place, self._side))

    def _settings(self, request: ShotRequest) -> StreamSettings:
        from infinitetalk.reference import Image as StillReference
        from infinitetalk.small.config import PRESETS
        from infinitetalk.small.load import settings

        streamed = settings(PRESETS[self.SIZE], self._options.steps or STEPS[request.profile], self._options.guidance,
                            self._options.color)
        return streamed if request.reference == "source" else replace(streamed, reference=StillReference())

    def _take(self, shot: ShotInput, region: Callable[[int], Box] | None) -> Take:
        from infinitetalk.engine import Speaker, Take

        request = shot.request
        side, place = self._side, self.placement(request)[2]
        return Take(frame=lambda index: cut_out(shot.frame(index), place, (side, side)),
                    frames=request.generated_frames, rate=request.rate / generation_divisor(request.rate),
                    size=(side, side), speakers=(Speaker(shot.tracks[driven(shot)]),), seed=request.seed, region=region)

    def load(self, request: ShotRequest) -> None:
        """Load the networks."""
        with told():
            self._engine()

    def _engine(self) -> Engine:
        """The loaded engine."""
        import torch

        from infinitetalk.small.config import SmallConfig
        from infinitetalk.small.load import load

        if self._loaded is None:
            folder = folder_of(self.SIZE, self._options.path)
            if self._options.sha256 and (not _whole(folder) or self._options.sha256 != _hash(folder)):
                raise InputError(f"the weights in {folder} are not those that were planned with", where=self._where,
                                 hint="Bring the old files back, or plan anew")
            config = SmallConfig.read(folder)
            if (config.side, config.frames, config.context) != SIZES[self.SIZE]:
                raise SetupError(f"{folder} holds weights of another size, {config.name}", where=self._where,
                                 hint=f"Name a folder of {self.SIZE}: options.{self.SIZE}.path")
            device = self._options.device if self._options.device != "auto" else self._home.device
            if device == "cpu":
                torch.set_num_threads(1)  # too small to share: beside other work four took ten times as long
            self._loaded = load(folder, device)
        return self._loaded


class Lite(Small):
    """64 pixels, in chunks of 33 frames."""

    SIZE: ClassVar[str] = "lite"
    OPTIONS: ClassVar[type[Record]] = LiteOptions


class Nano(Small):
    """128 pixels, in chunks of 81 frames."""

    SIZE: ClassVar[str] = "nano"
    OPTIONS: ClassVar[type[Record]] = NanoOptions


def foremost(request: ShotRequest) -> tuple[str, FaceTrack] | None:
    """Who is driven: of those who are heard, the one whose face is largest; None where no face of theirs is seen."""
    faces = [(speaker, request.faces[face]) for speaker, face in cast(request).items() if face is not None]
    return max((one for one in faces if one[1].boxes), key=lambda one: area(one[1]), default=None)


def driven(shot: ShotInput) -> str:
    """Whose voice drives the picture."""
    seen = foremost(shot.request)
    return seen[0] if seen else loudest(shot.tracks, 1)[0]


def lower_face(face: FaceTrack, frame: int, place: Placement, side: int) -> Box:
    """What of a face is made anew in a frame of the source: left, top, right, bottom in pixels of the generated square.

    Args:
        face: With the frames at which it was looked for; between them it moves evenly.
        frame: Of the source.
        place: The square.
        side: Pixels along it as it is generated.
    """
    from infinitetalk.region import LOWER_FACE

    at = [box[0] for box in face.boxes]
    x, y, width, height = (float(np.interp(frame, at, [box[axis] for box in face.boxes])) for axis in (1, 2, 3, 4))
    middle = (x + MOUTH[0] * width - place.x, y + MOUTH[1] * height - place.y)
    scale, reach = side / place.width, AROUND * max(width, height)
    left, top, right, bottom = ((middle[edge % 2] + reach * LOWER_FACE[edge]) * scale for edge in range(4))
    return left, top, right, bottom


def oval(box: Box, side: int) -> NDArray[np.float32]:
    """What of the generated square a lower face fills, (S, S), 0 to 1: hair and walls beside it stay as filmed."""
    at = np.arange(side) + 0.5
    across, down = ((2 * at - low - high) / (high - low) for low, high in ((box[0], box[2]), (box[1], box[3])))
    away = np.hypot(across[None], down[:, None])  # 1 at the edge
    share: NDArray[np.float32] = np.clip((1 - away) / SOFT, 0, 1).astype(np.float32)
    return share


def enlarged(picture: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A picture (H, W, 3) of bytes or (H, W) of float32 at another (width, height)."""
    from PIL import Image as Pictures

    return np.asarray(Pictures.fromarray(picture).resize(size, Pictures.Resampling.BICUBIC))


def square(face: FaceTrack | None, width: int, height: int) -> Placement:
    """A square around a face, inside a frame of `width` × `height`; its side and corner are even.

    Args:
        face: With all places where it was seen; None: the middle of the frame.
        width: Of the source frame.
        height: Of the source frame.
    """
    most = min(width, height)
    x, y, wide, high = face_box(face) if face is not None else (0, 0, width, height)
    side = most
    if face is not None:
        side = min(most, 2 + round(max(wide, high) + (AROUND - 1) * max(max(box[3:]) for box in face.boxes)))
    side = max(side - side % 2, min(most, 2))
    left, top = (min(max(round(low + length / 2 - side / 2), 0), size - side)
                 for low, length, size in ((x, wide, width), (y, high, height)))
    return Placement(x=left - left % 2, y=top - top % 2, width=side, height=side)
