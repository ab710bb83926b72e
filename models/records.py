"""What steps hand to each other: frozen records, checked on the way in, hashed on the way out.

Times are integer ticks of 1/48,000 s (`timebase.CLOCK`), pictures are frame indices, spans are half-open. Files are
`Artifact`s: a hash, never a path.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.timebase import Rate, generation_divisor, timecode

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Tick = Annotated[int, Field(ge=0)]
Frame = Annotated[int, Field(ge=0)]
LineId = Annotated[str, Field(pattern=r"^L[0-9]{4,9}[a-z]{0,20}$")]
EpisodeId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$", max_length=200)]
"""`series/id`, or `id`: it becomes folders."""
ShotId = Annotated[str, Field(pattern=r"^S[0-9]{4,9}[a-z]{0,20}$")]
Scalar = str | int | float | bool | None


class Record(BaseModel):
    """Base of everything that is stored or sent: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Request(Record):
    """What a step is asked to do: all of it enters the recipe."""

    take: int = 0
    """Raised by `infinidub redo --from STEP`, so that the same request is done once more."""


class Artifact(Record):
    """A file in the store, named by its content."""

    sha256: Sha256
    size: int = Field(ge=0)
    media_type: str


class EngineRef(Record):
    """An engine as it enters a recipe: its name, its options, and the hashes of the weights it runs on."""

    name: str
    version: int = 1
    """Of its adapter."""
    options: dict[str, Scalar] = {}
    weights: dict[str, Sha256] = {}


# -- ingest and shots -------------------------------------------------------------------------------------------------


class Chapter(Record):
    """A chapter mark of the source."""

    start: Tick
    end: Tick
    title: str


class ColorTags(Record):
    """The source's colour description, as ffmpeg names the values; None where the source says nothing."""

    primaries: str | None = None
    transfer: str | None = None
    matrix: str | None = None
    range: str | None = None


class Source(Record):
    """An episode as everything after ingest sees it: constant frame rate, upright, square pixels."""

    video: Artifact
    """The file that is 'the source' from now on: the given one, or its conformed copy."""
    original: Sha256
    """Hash of the file as given."""
    conformed: tuple[str, ...] = ()
    """What was mended: 'variable frame rate', 'rotation', 'range' …; empty when `video` is the file as given."""
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    rate: Rate
    frames: int = Field(gt=0)
    audio: Artifact
    """All source channels as 48 kHz FLAC; sample 0 is the instant of frame 0, and the length is that of the picture."""
    channels: int = Field(gt=0)
    color: ColorTags = ColorTags()
    chapters: tuple[Chapter, ...] = ()


class FaceTrack(Record):
    """One face followed through one shot."""

    id: int = Field(ge=0)
    boxes: tuple[tuple[int, int, int, int, int], ...]
    """(frame, x, y, width, height) in source pixels, at the frames that were looked at, in order."""


class Shot(Record):
    """Frames [start, end) between two cuts, with the faces seen in them."""

    id: ShotId
    start: Frame
    end: Frame
    faces: tuple[FaceTrack, ...] = ()


class Shots(Record):
    """All shots of an episode: they tile [0, frames) without a gap."""

    frames: int = Field(gt=0)
    shots: tuple[Shot, ...]

    @model_validator(mode="after")
    def _tile(self) -> Self:
        edges = [0, *(s.end for s in self.shots)]
        if [s.start for s in self.shots] != edges[:-1] or edges[-1] != self.frames or any(
            s.end <= s.start for s in self.shots
        ):
            raise ValueError(f"shots must tile frames 0 to {self.frames} without gap or overlap")
        return self


# -- speech -----------------------------------------------------------------------------------------------------------


class Word(Record):
    """A recognised word with its times."""

    text: str
    start: Tick
    end: Tick
    probability: float = 1.0


class Line(Record):
    """One utterance of one speaker: what is translated, voiced, fitted and reviewed as a unit."""

    id: LineId
    start: Tick
    end: Tick
    text: str
    speaker: str = ""
    words: tuple[Word, ...] = ()
    language: str = ""
    """BCP-47, where it differs from the transcript's."""


class Speaker(Record):
    """A voice heard in the episode."""

    id: str
    name: str = ""
    pitch_hz: float | None = None
    """Median fundamental frequency, None when it could not be measured."""
    embedding: tuple[float, ...] = ()
    """His voice as a vector of length 1, by the diarizer's engine; () where it makes none."""


class Transcript(Record):
    """Who says what, when, in the source language."""

    language: str
    lines: tuple[Line, ...]
    speakers: tuple[Speaker, ...] = ()
    dropped: tuple[str, ...] = ()
    """Recognised text that a guard rejected, with the reason: for the report."""

    @model_validator(mode="after")
    def _unique(self) -> Self:
        ids = [line.id for line in self.lines]
        if len(set(ids)) != len(ids):
            raise ValueError("line ids must be unique")
        return self


class LineEdit(Record):
    """A target text set by a person, for as long as the source says what it said then."""

    text: str
    source: str
    """SHA-256 of the source text (UTF-8) that it translates."""


class Candidate(Record):
    """One way to say a line in the target language."""

    text: str
    score: float
    """Of the translator: higher is better, comparable within a line only."""
    origin: Literal["engine", "shorter"] = "engine"
    """'shorter': it was asked for because the others took too long."""


class TranslatedLine(Record):
    """The target text of one line."""

    id: LineId
    text: str
    origin: Literal["engine", "script", "edit"] = "engine"
    flags: tuple[str, ...] = ()
    """Warnings, e.g. 'glossary: lighthouse → faro is missing'."""
    candidates: tuple[Candidate, ...] = ()
    """What `text` was chosen from, best first; none of scripts and edits."""
    kept: bool = False
    """The source's own voice stays: it speaks another language than the episode."""


class Translation(Record):
    """Target texts, keyed by line id."""

    language: str
    lines: tuple[TranslatedLine, ...]


class SpokenLine(Record):
    """One line as it will be heard: voiced, fitted to its slot, silence trimmed, at its place on the time line."""

    id: LineId
    speaker: str
    voice: str
    text: str
    audio: Artifact
    """48 kHz mono FLAC of `length` samples; speech begins at its first samples."""
    start: Tick
    """Where the audio is laid. Its acoustic onset is the line's onset in the source."""
    length: Tick
    slot: tuple[Tick, Tick]
    """Onset and end that were allowed: the source line, plus what was borrowed of the pause after it."""
    planned: tuple[Tick, Tick]
    """Onset and end of the source line."""
    natural: Tick
    """Length of the voice before it was fitted."""
    stretch: float
    """`natural / length`: above 1 the voice was sped up."""
    overflow: Tick = 0
    """Ticks by which the fitted voice would still have passed the slot's end."""
    coverage: float = Field(default=1.0, ge=0, le=1)
    """Share of the source line's time in which the dub speaks."""
    flags: tuple[str, ...] = ()


class CastVoice(Record):
    """Which voice a speaker of an episode has in one language, and who chose it."""

    speaker: str
    member: str
    """M1, M2 …: who he is in the series."""
    name: str
    voice: str
    chosen: Literal["catalog", "person", "default"]


class KeptLine(Record):
    """A line in which the source's own voice stays."""

    id: LineId
    start: Tick
    end: Tick


class Speech(Record):
    """All spoken lines of a language; lines of one speaker never overlap."""

    language: str
    lines: tuple[SpokenLine, ...]
    kept: tuple[KeptLine, ...] = ()


class Loudness(Record):
    """Measured by EBU R 128 (ITU-R BS.1770-4)."""

    integrated_lufs: float
    true_peak_dbtp: float
    range_lu: float = 0.0
    dialogue_lufs: float | None = None
    """Of everything that is heard while somebody speaks (BS.1770-1); None: nobody does, or it was not measured."""
    dialogue_share: float | None = None
    """Part of the time in which somebody speaks; None: not measured."""


class Leak(Record):
    """How much of the source's voice is still heard in the bed, in the line where it is most."""

    db: float
    """Against the voice in the source: 0 is all of it."""
    line: LineId
    at: Tick


BedKind = Literal["given", "separated", "ducked"]


class Mix(Record):
    """The dubbed sound: 48 kHz FLACs with 24 bits, each exactly as long as the picture; dialogue + bed = mix,
    but for the watermark in it."""

    language: str
    mix: Artifact
    dialogue: Artifact
    """DX: the dub's voices, one channel, as in the mix: in both sides of stereo, in the centre of 5.1 and 7.1."""
    bed: Artifact
    """ME: music and effects, all channels, as in the mix; and the source's own voice where it is kept."""
    bed_kind: BedKind
    loudness: Loudness
    gain_db: float
    leak: Leak | None = None
    """None: no line of the source could be compared."""


# -- picture ----------------------------------------------------------------------------------------------------------


class Placement(Record):
    """Where a clip belongs in the source frame, in source pixels; assemble scales and pastes it there."""

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)


class HeardLine(Record):
    """A part of a voiced line as a shot hears it."""

    audio: Artifact
    at: int
    """Tick, relative to the shot's first frame, at which the line's audio begins; negative when it began before."""


class SpeakerTrack(Record):
    """What the generator hears of one speaker during one shot, before any mix; silence elsewhere."""

    speaker: str
    face: int | None = None
    """Index of the face track that speaks; None: the only face, or not known."""
    lines: tuple[HeardLine, ...]


class ShotRequest(Request):
    """Everything a generator needs to re-generate one shot: the item 'generate.shot', also inside SHARD.json."""

    shot: ShotId
    source: Artifact
    start: Frame
    end: Frame
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    rate: Rate
    tracks: tuple[SpeakerTrack, ...]
    faces: tuple[FaceTrack, ...] = ()
    prompt: str = ""
    reference: Literal["source", "image", "i2v", "fl2v"] = "source"
    region: Literal["frame", "person"] = "frame"
    seed: int = 0
    profile: str = "default"
    generator: EngineRef

    @model_validator(mode="after")
    def _span(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"shot {self.shot} ends at frame {self.end}, before it starts ({self.start})")
        return self

    @property
    def generated_frames(self) -> int:
        """Pictures to generate: the shot's frames at the generation rate (≤ 30 frames per second)."""
        return -(-(self.end - self.start) // generation_divisor(self.rate))


class Clip(Record):
    """A finished shot: exactly `frames` pictures at the generator's size, and where they belong."""

    shot: ShotId
    video: Artifact
    """FFV1 in Matroska."""
    frames: int = Field(gt=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    placement: Placement
    region: Literal["frame", "person"] = "frame"
    chunks: int = Field(ge=0)
    joins: tuple[Frame, ...] | None = None
    """First frames of all chunks but the first; None: not known."""


class Clips(Record):
    """The finished clips of one episode and language, in order."""

    clips: tuple[Clip, ...]


class PlannedShot(Record):
    """What happens to one shot, and why."""

    shot: ShotId
    start: Frame
    end: Frame
    kind: Literal["generate", "passthrough"]
    reason: str
    request: ShotRequest | None = None


class Plan(Record):
    """Every shot of the episode in order; what is to be generated carries its request."""

    language: str
    frames: int
    rate: Rate
    shots: tuple[PlannedShot, ...]


class Shard(Record):
    """SHARD.json: a dispatch list of missing shots of one episode and language for one GPU job. Enters no hash."""

    schema_version: Literal[1] = 1
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    episode: EpisodeId
    language: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    people: tuple[str, ...] | None = None
    """Real people whose picture is made anew; None where nobody said."""
    requests: tuple[ShotRequest, ...] = Field(min_length=1)


class ShotFailure(Record):
    """Why a shot of a shard was not made."""

    error_class: str
    error: str
    flagged: bool = False
    """It failed with two seeds: not to be tried again until somebody asks for it."""


class ShardResult(Record):
    """What `infinidub shard run` reports: finished clips, and shots that failed with their error."""

    id: str
    clips: tuple[Clip, ...]
    shots_run: int
    shots_reused: int
    chunks_run: int
    seconds: float
    failed: dict[str, ShotFailure] = {}
    """By shot."""


# -- delivery ---------------------------------------------------------------------------------------------------------


class SoundTrack(Record):
    """A sound track of an episode."""

    file: Artifact
    """48 kHz FLAC, exactly as long as the picture."""
    language: str
    """BCP-47."""
    name: str


class TextTrack(Record):
    """Subtitles of an episode."""

    srt: Artifact
    vtt: Artifact
    language: str
    """BCP-47."""
    name: str


class Assembled(Record):
    """The localized episode as files in the store."""

    language: str
    video: Artifact
    """MP4 with all tracks."""
    subtitles: dict[str, Artifact]
    """By file suffix: 'srt', 'ttml', 'vtt'."""
    frames: int
    rate: Rate
    generated_frames: int
    video_copied: bool
    """True when the picture was copied without encoding, because nothing of it was generated."""
    picture: Artifact | None = None
    """The picture alone, as it is in `video`."""
    sounds: tuple[SoundTrack, ...] = ()
    """What is heard, the default first."""
    texts: tuple[TextTrack, ...] = ()


class Package(Record):
    """Files that belong together, by their paths in a folder."""

    files: dict[str, Artifact]
    main: str
    """Path of the one that is opened."""


class Check(Record):
    """One thing that was measured on the finished files, against its bar."""

    name: str
    what: str = ""
    """What it says, in one plain sentence."""
    value: float | None = None
    """None where it could not be measured."""
    unit: str = ""
    bar: str = ""
    passed: bool
    """False, too, where it was not measured: `state` tells."""
    worst: str = ""
    """Where it is worst, in words: a line id, a shot."""
    at: Tick | None = None
    """When that is."""
    gate: bool = True
    """Whether it holds a delivery up; else it informs."""
    why: str = ""
    """Why it was not measured."""

    @property
    def state(self) -> Literal["passed", "failed", "not measured"]:
        """What came of it."""
        return "not measured" if self.value is None else "passed" if self.passed else "failed"

    @property
    def failed(self) -> bool:
        """Whether it holds the delivery up."""
        return self.gate and self.state == "failed"

    @property
    def data(self) -> dict[str, object]:
        """Plain JSON, for reports: with its state, and the worst place as a timecode."""
        return {**self.model_dump(mode="json"), "state": self.state,
                "at": None if self.at is None else timecode(self.at)}

    @property
    def mark(self) -> str:
        """Its state as one sign."""
        return {"passed": "✓", "failed": "✗" if self.gate else "!", "not measured": "–"}[self.state]

    @property
    def words(self) -> str:
        """Value and bar, for people."""
        if self.value is None:
            return f"{self.name} was not measured: {self.why}"
        worst = f", worst at {self.worst}" if self.worst else ""
        return f"{self.name} is {self.measured}, the bar is {self.bar}{worst}"

    @property
    def measured(self) -> str:
        """Value and unit, for people."""
        if self.value is None:
            return "–"
        value = f"{self.value:.1%}" if self.unit.startswith("of ") else \
            f"{self.value:.4g}" if abs(self.value) < 10_000 else f"{self.value:.0f}"
        return f"{value} {self.unit}".strip()


class HeardBack(Record):
    """Lines as a recognizer hears them in the dialogue stem; several where they cannot be heard apart."""

    lines: tuple[LineId, ...]
    text: str
    """What was to be said."""
    heard: str
    wer: float
    """Words that differ, over the words of `text`."""
    at: Tick


class Inspection(Record):
    """What was measured on the finished files."""

    language: str
    checks: tuple[Check, ...]
    loudness: Loudness
    back_wer: float | None
    """Word error rate of the dialogue stem transcribed back; None when no recognizer speaks the language."""
    onset_within_120ms: float
    stretched_over_1_15: float
    overflow_lines: int
    heard: tuple[HeardBack, ...] = ()
    """Every line as it was heard, the worst first."""

    @property
    def passed(self) -> bool:
        """True when no gate failed."""
        return not any(c.failed for c in self.checks)

    @property
    def measured(self) -> int:
        """How many of the checks could be made."""
        return sum(c.state != "not measured" for c in self.checks)


class Deliverable(Record):
    """One language of one episode, as `--json` and the closing table show it."""

    episode: str
    language: str
    video: str
    subtitles: tuple[str, ...]
    others: tuple[str, ...] = ()
    """The same in other formats: a Matroska file, the main playlist of HLS."""
    report: str
    frames: int
    fps: float
    duration_s: float
    generated_s: float
    passthrough_s: float
    loudness_lufs: float
    true_peak_dbtp: float
    back_wer: float | None
    onset_within_120ms: float
    max_stretch: float
    passed: bool
