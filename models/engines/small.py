"""Generators: the small weights that come with the program, run by the engine of the package `infinitetalk`.

**They know nothing but the synthetic world**: they were trained on people that this project renders, and on nobody
else. Given real people they make mush of the face. Their place is the demonstration, tests, and experiments on a CPU.

*Where.* Their pictures are square, of 64 (`lite`) or 128 (`nano`) pixels, and they were trained on close-ups. So what
they see is a square that follows one face from frame to frame (`infinitetalk.closeup`), for the region `frame` too: a
whole frame in 64 pixels would be worth nothing. In it the lower face alone is made anew, and laid where it was upon the
source's own pixels. What is handed on is the area that holds the square wherever it moves in the shot. Where no face is
seen it is a square in the middle of the frame, and all of it is made anew.

*Who.* One head, and its voice: of those who are heard, the one whose face is largest, since where a shot is
generated must be known before it is listened to. Where no speaker's face is seen, the loudest voice drives.

*What enters recipes.* The SHA-256 of the weights, which the option `sha256` is filled with; where they lie does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from infinitetalk import closeup
from models.engines.infinitetalk import told
from models.engines.infinitetalk_cast import area, cast, covering, cut_out, loudest
from models.engines.local_weights import weights_hash
from models.engines.options import Adapter, read_options
from models.errors import InputError, SetupError
from models.ports import Chunk, ChunkGeometry, EngineHome, Frames, ShotInput
from models.records import EngineRef, FaceTrack, Placement, Record, ShotRequest
from models.timebase import generation_divisor

if TYPE_CHECKING:
    from infinitetalk.engine import Engine, Take
    from infinitetalk.stream import GeneratedChunk, StreamSettings

LIBRARIES = ("torch", "safetensors", "PIL")
REACH = 3
"""Pixels around the lower face into which it is laid: so far bicubic interpolation reaches."""
STEPS: Mapping[str, int] = {"default": 4, "best": 24, "fast-8": 8, "fast-4": 4}
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
    guidance: float = Field(2.0, ge=0)
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
        """The area around the face of whom is driven.

        Raises:
            InputError: The request's profile or reference is not one that shots are dubbed with.
        """
        self._check(request)
        place = placed(self._squares(request), request)
        return place.width, place.height, place

    def _squares(self, request: ShotRequest) -> NDArray[np.float32] | None:
        """Left, top, right, bottom of what is seen of each generated frame, in pixels of the source, (F, 4); None: no
        face is seen."""
        seen = foremost(request)
        if seen is None:
            return None
        looks = np.array(seen[1].boxes, np.float64)  # (n, 5): frame, x, y, width, height
        size = np.array([request.width, request.height])  # a request may come from elsewhere, and tell of any place
        low = looks[:, 1:3].clip(0, size - 1)
        boxes = np.concatenate((low, (looks[:, 1:3] + looks[:, 3:]).clip(low + 1, size)), 1)
        frames = request.start + np.arange(request.generated_frames) * generation_divisor(request.rate)
        return closeup.follow(looks[:, 0], boxes, frames)

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
            squares = self._squares(shot.request)
            place = placed(squares, shot.request)
            for chunk in self._engine().dub(self._take(shot, squares), self._settings(shot.request), before):
                frames = self._laid(shot, chunk, done, squares, place)
                done += len(frames)
                yield Chunk(index=chunk.index, frames=frames, state=chunk.state.save())

    def _laid(self, shot: ShotInput, chunk: GeneratedChunk, first: int, squares: NDArray[np.float32] | None,
              place: Placement) -> Frames:
        """New frames of a chunk upon the source's own pixels, as large as these: (F, H, W, 3); `first` is the first."""
        width, height = place.width, place.height
        if chunk.made is None or squares is None:
            return np.stack([enlarged(frame, (width, height)) for frame in chunk.frames])
        inside = squares - np.array([place.x, place.y] * 2, np.float32)  # (n, 4)
        lower = closeup.lower_face(self._side)
        soft = closeup.share(self._side)  # (S, S)
        pixel = (inside[:, 2:3] - inside[:, :1]) / self._side  # (n, 1)
        edges = inside[:, [0, 1, 0, 1]] + pixel * (np.array(lower) + np.repeat([-REACH, REACH], 2))  # (n, 4)
        limits = edges.round().astype(int).clip(0, [width, height] * 2)
        laid = np.empty((len(chunk.frames), height, width, 3), np.uint8)
        for at, (picture, frame, made) in enumerate(zip(laid, chunk.frames, chunk.made, strict=True), start=first):
            picture[:] = cut_out(shot.frame(at), place, (width, height))
            left, top, right, bottom = limits[at]
            seen, box = picture[top:bottom, left:right], inside[at] - np.array([left, top, left, top])
            if seen.size:  # else the lower face is outside of the frame
                share = closeup.lay((made * soft).astype(np.float32), box, seen.shape[:2]).clip(0, 1)[..., None]
                new = closeup.lay(frame, box, seen.shape[:2]).astype(np.float32)
                seen[:] = np.rint(seen + share * (new - seen))
        return laid

    def _settings(self, request: ShotRequest) -> StreamSettings:
        from infinitetalk.reference import Image as StillReference
        from infinitetalk.small.config import PRESETS
        from infinitetalk.small.load import settings

        streamed = settings(PRESETS[self.SIZE], self._options.steps or STEPS[request.profile], self._options.guidance,
                            self._options.color)
        return streamed if request.reference == "source" else replace(streamed, reference=StillReference())

    def _take(self, shot: ShotInput, squares: NDArray[np.float32] | None) -> Take:
        from infinitetalk.engine import Speaker, Take

        request, side = shot.request, self._side
        place = placed(squares, request)
        edges = place.x, place.y, place.x + place.width, place.y + place.height
        seen = squares if squares is not None else np.tile(np.array(edges, np.float32), (request.generated_frames, 1))
        return Take(frame=lambda index: closeup.cut(shot.frame(index), seen[index], side),
                    frames=request.generated_frames, rate=request.rate / generation_divisor(request.rate),
                    size=(side, side), speakers=(Speaker(shot.tracks[driven(shot)]),), seed=request.seed,
                    region=None if squares is None else lambda index: closeup.lower_face(side))

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


def enlarged(picture: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """A picture (H, W, 3) at another (width, height)."""
    from PIL import Image as Pictures

    return np.asarray(Pictures.fromarray(picture).resize(size, Pictures.Resampling.BICUBIC))


def placed(squares: NDArray[np.float32] | None, request: ShotRequest) -> Placement:
    """What is handed on of a shot whose frames are seen through squares (F, 4); None: no face is seen."""
    return middle(request.width, request.height) if squares is None else area_of(squares, request.width, request.height)


def area_of(squares: NDArray[np.float32], width: int, height: int) -> Placement:
    """What holds squares (F, 4), as far as it lies in a frame of `width` × `height`; corners and sides are even."""
    left, top = (int(edge) for edge in np.floor(squares[:, :2].min(0)))
    right, bottom = (int(edge) for edge in np.ceil(squares[:, 2:].max(0)))
    return covering((left, top, right - left, bottom - top), width - width % 2, height - height % 2)


def middle(width: int, height: int) -> Placement:
    """The largest square in the middle of a frame of `width` × `height`; its side and corner are even."""
    most = min(width, height)
    side = max(most - most % 2, min(most, 2))
    left, top = ((size - side) // 4 * 2 for size in (width, height))
    return Placement(x=left, y=top, width=side, height=side)
