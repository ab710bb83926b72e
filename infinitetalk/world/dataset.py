"""A folder of clips: written by many processes and resumed, read with what is damaged left out and counted.

    manifest.jsonl    the settings, then a line a clip: name, seed, frames, SHA-256 of its files
    NAME.mkv          picture and sound        } see `clip_file`
    NAME.safetensors  truth                    }

A folder without manifest is one of real talking video: every video in it is read, and nothing is known of it.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infinitetalk.errors import BadInputError
from infinitetalk.world.clip import SUPERSAMPLE, make_clip
from infinitetalk.world.clip_file import TRUTH, VIDEO, Recording, load_clip, load_video, save_clip, sha256
from infinitetalk.world.renderer import Renderer
from infinitetalk.world.scene import Framing

MANIFEST = "manifest.jsonl"
BATCH = 4
"""Most clips that a process makes before they are entered; so many are lost where it is killed."""
VIDEOS = frozenset({".mkv", ".mp4", ".mov", ".webm", ".avi", ".m4v"})


@dataclass(frozen=True)
class Settings:
    """What all clips of a folder have in common."""

    seconds: float
    height: int
    width: int
    rate: float = 25
    people: int = 1
    framing: Framing | None = None
    """None: drawn for every clip."""


@dataclass(frozen=True)
class Written:
    """What `write` did."""

    made: int
    kept: int
    """Finished before."""
    frames: int
    """Of those made."""
    bytes: int
    """On the disk, of all clips asked for."""


@dataclass(frozen=True)
class Entry:
    """A line of the manifest."""

    name: str
    seed: int
    frames: int
    files: dict[str, str]
    """SHA-256 by file name."""


def write(folder: Path, seeds: Sequence[int], settings: Settings, workers: int = 1,
          report: Callable[[int, int], None] = lambda done, total: None) -> Written:
    """Make the clips of some seeds; those that are finished are kept.

    Args:
        folder: Where to; made if it is not there.
        seeds: One a clip (`clip.clip_seed`).
        settings: Of all clips in the folder.
        workers: Processes.
        report: Is told how many are done, of how many.

    Raises:
        BadInputError: The folder holds clips of other settings, or no clip can be so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = _resumed(folder, settings)
    wanted = list(dict.fromkeys(seeds))
    missing = [seed for seed in wanted if not _finished(folder, known.get(clip_name(seed)))]
    kept, frames, done = len(wanted) - len(missing), 0, len(wanted) - len(missing)
    report(done, len(wanted))
    for entries in _made(folder, missing, settings, workers):
        for entry in entries:
            _append(folder, asdict(entry))
            frames += entry.frames
        done += len(entries)
        report(done, len(wanted))
    names = {f"{clip_name(seed)}{suffix}" for seed in wanted for suffix in (VIDEO, TRUTH)}
    return Written(len(missing), kept, frames, sum((folder / name).stat().st_size for name in names))


def clip_name(seed: int) -> str:
    """What the files of a seed's clip are called."""
    return f"{seed:08d}"


def _made(folder: Path, seeds: list[int], settings: Settings, workers: int) -> Iterator[list[Entry]]:
    each = min(BATCH, -(-len(seeds) // max(workers, 1)) or 1)
    batches = [seeds[i: i + each] for i in range(0, len(seeds), each)]
    if workers < 2 or len(batches) < 2:
        yield from (_make(folder, batch, settings) for batch in batches)
        return
    spawn = multiprocessing.get_context("spawn")  # a forked process cannot use its parent's OpenGL
    with ProcessPoolExecutor(min(workers, len(batches)), mp_context=spawn) as pool:
        jobs: list[Future[list[Entry]]] = [pool.submit(_make, folder, batch, settings) for batch in batches]
        try:
            yield from (job.result() for job in as_completed(jobs))
        finally:
            pool.shutdown(cancel_futures=True)


def _make(folder: Path, seeds: list[int], settings: Settings) -> list[Entry]:
    entries = []
    with Renderer((settings.height, settings.width), SUPERSAMPLE) as renderer:
        for seed in seeds:
            clip = make_clip(seed, settings.seconds, (settings.height, settings.width), settings.rate, settings.people,
                             settings.framing, renderer)
            entries.append(Entry(clip_name(seed), seed, len(clip.frames), save_clip(clip, folder, clip_name(seed))))
    return entries


# -- the manifest -----------------------------------------------------------------------------------------------------


def _resumed(folder: Path, settings: Settings) -> dict[str, Entry]:
    """Entries by name; a new manifest is begun where there is none.

    Raises:
        BadInputError: The manifest is of other settings.
    """
    if not (folder / MANIFEST).exists():
        _append(folder, {"settings": asdict(settings)})
        return {}
    found, entries = _manifest(folder)
    if found != asdict(settings):
        raise BadInputError(f"holds clips of other settings ({json.dumps(found)})", where=str(folder),
                            hint="Give another folder, or the same settings")
    text = (folder / MANIFEST).read_text()
    if not text.endswith("\n"):  # a line was cut off: lines that follow must not be joined to it
        (folder / MANIFEST).write_text(text[: text.rfind("\n") + 1])
    return {entry.name: entry for entry in entries}


def _manifest(folder: Path) -> tuple[dict[str, Any], list[Entry]]:
    """Settings and entries; a last line that was cut off is left out.

    Raises:
        BadInputError: It is no manifest.
    """
    path = folder / MANIFEST
    try:
        first, *rest = path.read_text().split("\n")
        lines = [json.loads(line) for line in rest[:-1] if line]
        return json.loads(first)["settings"], list({line["name"]: Entry(**line) for line in lines}.values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError("cannot be read", where=str(path), hint="Delete it, and write the folder again") from error


def _append(folder: Path, line: dict[str, Any]) -> None:
    with (folder / MANIFEST).open("a") as file:
        file.write(json.dumps(line) + "\n")


def _finished(folder: Path, entry: Entry | None) -> bool:
    """The manifest has it, and its files are there and whole."""
    try:
        return entry is not None and all(sha256(folder / file) == digest for file, digest in entry.files.items())
    except BadInputError:
        return False


# -- reading ----------------------------------------------------------------------------------------------------------


class Recordings:
    """The clips of a folder, one after the other; what cannot be used is left out, and said in `skipped`."""

    def __init__(self, folder: Path, rate: float | None = None, need_truth: bool = True) -> None:
        """Looks for the clips; none is opened yet.

        Args:
            folder: Written by `write`, or full of videos.
            rate: Frames per second that clips must have; any where none is given.
            need_truth: Whether clips without truth are left out.

        Raises:
            BadInputError: There is no clip at all.
        """
        self.folder, self.rate, self.need_truth = folder, rate, need_truth
        self.skipped: dict[str, str] = {}
        """Why, by name, of those met so far."""
        written = (folder / MANIFEST).exists()
        self._entries = {entry.name: entry for entry in _manifest(folder)[1]} if written else {}
        self._videos = [] if written else sorted(path for path in folder.glob("*") if path.suffix in VIDEOS)
        if not len(self):
            raise BadInputError("holds no clips", where=str(folder), hint="Render some: infinidub world render --out …")

    def __len__(self) -> int:
        """Clips that there are, good or bad."""
        return len(self._entries) or len(self._videos)

    def names(self) -> list[str]:
        """Of all clips, good or bad, in order."""
        return sorted(self._entries) or [path.name for path in self._videos]

    def __iter__(self) -> Iterator[Recording]:
        """The good ones, in the order of their names."""
        for name in self.names():
            try:
                recording = self.load(name)
            except BadInputError as error:
                self.skipped[name] = str(error)
            else:
                self.skipped.pop(name, None)
                yield recording

    def load(self, name: str) -> Recording:
        """One clip.

        Raises:
            BadInputError: It is damaged, of another rate, or lacks its truth.
        """
        entry = self._entries.get(name)
        found = self._known(entry) if entry else load_video(self.folder / name)
        if self.need_truth and not found.truth:
            raise BadInputError("has no truth", where=str(self.folder / name), hint="Train without it, or render clips")
        if self.rate is not None and abs(found.rate - self.rate) > 1e-3 * self.rate:
            raise BadInputError(f"has {found.rate:g} frames a second, not {self.rate:g}",
                                where=str(self.folder / name), hint="Convert it")
        return found

    def _known(self, entry: Entry) -> Recording:
        for file, digest in entry.files.items():
            if not (self.folder / file).exists():
                what = "its truth is missing" if file.endswith(TRUTH) else "is missing"
                raise BadInputError(what, where=str(self.folder / file), hint="Render its seed again")
            if sha256(self.folder / file) != digest:
                raise BadInputError("was damaged (its SHA-256 is not the manifest's)", where=str(self.folder / file),
                                    hint="Delete it, and render its seed again")
        return load_clip(self.folder, entry.name)
