"""Publish: finished artifacts → files under OUT/EPISODE/LANGUAGE, each there whole or not at all.

It has no recipe: what counts is what lies in the folder. Files that are as they should be are not touched; what is
missing, outdated or altered is written anew, and of what a person deleted or changed it is said. What was delivered
into the folder before and is none of its files any more is removed: it would say what was so once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from models import tables as t
from models.errors import InfrastructureError, InputError
from models.recipe import sha256
from models.records import (
    Artifact,
    Assembled,
    CastVoice,
    Deliverable,
    Inspection,
    Mix,
    Package,
    Plan,
    PlannedShot,
    Source,
    Speech,
    SpokenLine,
)
from models.timebase import frame_to_ticks, seconds, timecode
from tasks.contact_sheet import contact_sheet
from tasks.qc_page import qc_page
from tasks.step import Work
from tasks.store import disk_error, hash_file, writing

QC_PAGE = "qc.html"
MULTI = "multi"
"""Folder of the product that holds all languages."""
HLS = "hls"
"""Folder of the episode as HLS."""
SUBTITLES = ("srt", "vtt", "ttml")
AT_ONCE = 1000
"""Paths that a query asks for."""


@dataclass(frozen=True)
class Item:
    """A file to deliver, and what it must contain."""

    path: Path
    content: Artifact | bytes

    @property
    def sha256(self) -> str:
        """Of what it must contain."""
        return sha256(self.content) if isinstance(self.content, bytes) else self.content.sha256


def publish(work: Work, *, out: Path, episode: str, language: str, assembled: Assembled, mix: Mix, speech: Speech,
            plan: Plan, inspection: Inspection, source: Source, cast: Sequence[CastVoice] = (),
            stems: bool = True, subtitles: Sequence[str] = SUBTITLES, matroska: Artifact | None = None,
            package: Package | None = None) -> Deliverable:
    """Make sure that a language's files are there and whole.

    Args:
        work: Store, ledger, and whom to tell.
        out: The output folder.
        episode: Id such as 'harbor-lights/s01e01'.
        language: BCP-47.
        assembled: Video and subtitles.
        mix: Stems and loudness.
        speech: For the timing report.
        plan: For the list of shots and the contact sheet.
        inspection: What was measured.
        source: For the contact sheet.
        cast: Who speaks with which voice, for the report.
        stems: Deliver dialogue (DX), music and effects (ME) and the whole mix as FLAC.
        subtitles: Which of their formats to deliver.
        matroska: The episode as Matroska.
        package: The episode as HLS.

    Returns:
        What was delivered, with absolute paths.

    Raises:
        InputError: The id leads out of `out`, or `out` cannot be written to.
        StorageFullError: The disk is full.
    """
    folder = _folder(out, episode, language)
    stem = f"{folder.parent.name}.{language}"
    texts = {folder / f"{stem}.{kind}": file for kind, file in sorted(assembled.subtitles.items()) if kind in subtitles}
    others = _others(folder, stem, matroska, package)
    delivered = _deliverable(folder, stem, episode, assembled, inspection, speech, tuple(map(str, texts)))
    delivered = delivered.model_copy(update={"others": tuple(map(str, others))})
    sounds = {"dialogue": mix.dialogue, "me": mix.bed, "mix": mix.mix} if stems else {}
    files = {Path(delivered.video): assembled.video, **texts, **others,
             **{folder / f"{stem}.{name}.flac": sound for name, sound in sounds.items()},
             folder / "contact-sheet.png": contact_sheet(work, source, plan, speech, assembled),
             folder / QC_PAGE: qc_page(work, f"{episode} · {language}", inspection, source, assembled.video)}
    names = [str(path.relative_to(folder)) for path in files]
    report = _report(delivered, inspection, mix, speech, plan, source, names, cast)
    items = [Item(path, content) for path, content in files.items()]
    record = delivered.model_dump(mode="json")
    _deliver_package(work, folder, package, episode, language, record)
    items.append(Item(Path(delivered.report), report))
    _deliver(work, items, episode, language, record)
    _remove_old(work, folder, episode, items, package)
    return delivered


def altered(work: Work, episode: str, language: str, out: Path) -> list[str]:
    """Delivered files that are there and are no longer what was delivered, by their paths."""
    query = sa.select(t.Delivery).where(t.Delivery.episode == episode, t.Delivery.language == language)
    with work.ledger.session() as session:
        known = {Path(row.path): row.sha256 for row in session.scalars(query)}
    return sorted(str(path) for path, digest in known.items()
                  if path.is_relative_to(out.resolve()) and path.exists() and _content(work, path) != digest)


def publish_multi(work: Work, *, out: Path, episode: str, assembled: Assembled, matroska: Artifact | None = None,
                  package: Package | None = None) -> Path:
    """Make sure that the file with the original picture and all dubs is there and whole, also in other formats.

    Returns:
        Its absolute path.

    Raises:
        InputError: The id leads out of `out`, or `out` cannot be written to.
        StorageFullError: The disk is full.
    """
    folder = _folder(out, episode, MULTI)
    video = folder / f"{folder.parent.name}.{MULTI}.mp4"
    files = {video: assembled.video, **_others(folder, video.stem, matroska, package)}
    record = {"episode": episode, "language": assembled.language, "video": str(video)}
    _deliver_package(work, folder, package, episode, assembled.language, record)
    items = [Item(path, content) for path, content in files.items()]
    _deliver(work, items, episode, assembled.language, record)
    _remove_old(work, folder, episode, items, package)
    return video


def _others(folder: Path, stem: str, matroska: Artifact | None, package: Package | None) -> dict[Path, Artifact]:
    """The files that people open, of formats besides MP4."""
    found = {folder / f"{stem}.mkv": matroska} if matroska else {}
    return found | ({folder / HLS / package.main: package.files[package.main]} if package else {})


def _folder(out: Path, episode: str, name: str) -> Path:
    """OUT/EPISODE/NAME, absolute, and surely inside `out` (also where folders are links)."""
    root = out.resolve()
    parts = [*episode.split("/"), name]
    tame = all(part and part[0] != "." and not {"/", "\\", "\0"} & set(part) for part in parts)
    if not tame or not root.joinpath(*parts).resolve().is_relative_to(root):
        raise InputError(f"the episode id {episode!r} leads out of the output folder", where=str(out),
                         hint="An id is made of names and single slashes, such as harbor-lights/s01e01")
    return root.joinpath(*parts)


# -- files ------------------------------------------------------------------------------------------------------------


def _deliver(work: Work, items: Sequence[Item], episode: str, language: str, record: dict[str, Any]) -> None:
    """Write what is not there, and note what was delivered."""
    known, noted = _known(work, items), []
    for item in items:
        row = known.get(str(item.path))
        found = _content(work, item.path)
        if found != item.sha256:
            _write(work, item)
            if row is not None and found != row.sha256:
                what = "was deleted" if found is None else "was changed"
                work.progress(f"publish: {item.path.name} {what} since it was delivered, and is restored", 1.0)
        if row is None or (row.sha256, row.record) != (item.sha256, record):
            noted.append(t.Delivery(path=str(item.path), episode=episode, language=language, sha256=item.sha256,
                                    record=record, updated=datetime.now(UTC)))
    work.ledger.save(noted)


def _deliver_package(work: Work, folder: Path, package: Package | None, episode: str, language: str,
                     record: dict[str, Any]) -> None:
    """Write the files of a package but the main one, playlists after what they name.

    Names of segments say what is in them: until a playlist is replaced, all that it names stays there.
    """
    if package is None:
        return
    root = folder / HLS
    names = sorted(package.files.keys() - {package.main}, key=lambda name: (name.endswith(".m3u8"), name))
    paths = {root.joinpath(*name.split("/")): package.files[name] for name in names}
    if not all(path.resolve().is_relative_to(folder.resolve()) for path in paths):
        raise InputError("a file of the package leads out of its folder", where=str(root))
    _deliver(work, [Item(path, file) for path, file in paths.items()], episode, language, record)


def _remove_old(work: Work, folder: Path, episode: str, items: Sequence[Item], package: Package | None) -> None:
    """Remove what was delivered of an episode into a folder before and no longer is; what a person changed stays."""
    named = {str(item.path) for item in items}
    named |= {str((folder / HLS).joinpath(*name.split("/"))) for name in (package.files if package else ())}
    query = sa.select(t.Delivery).where(t.Delivery.episode == episode,
                                        t.Delivery.path.startswith(f"{folder}/", autoescape=True))
    with work.ledger.session() as session:
        old = {row.path: row.sha256 for row in session.scalars(query) if row.path not in named}
    for path in (Path(path) for path, digest in old.items() if _content(work, Path(path)) == digest):
        path.unlink()
        if path.parent == folder:
            work.progress(f"publish: {path.name} is no longer delivered, and is removed", 1.0)
        for parent in path.parents:
            if folder not in parent.parents or any(parent.iterdir()):
                break
            parent.rmdir()
    with work.ledger.session() as session:
        for gone in old:
            session.execute(sa.delete(t.Delivery).where(t.Delivery.path == gone))


def _known(work: Work, items: Sequence[Item]) -> Mapping[str, t.Delivery]:
    """What was delivered to these paths before."""
    paths, rows = [str(item.path) for item in items], dict[str, t.Delivery]()
    with work.ledger.session() as session:
        for first in range(0, len(paths), AT_ONCE):
            query = sa.select(t.Delivery).where(t.Delivery.path.in_(paths[first:first + AT_ONCE]))
            rows |= {row.path: row for row in session.scalars(query)}
    return rows


def _content(work: Work, path: Path) -> str | None:
    """Hash of what lies at a path, None for nothing; a file that did not change since is not read again."""
    try:
        if not path.exists():
            return None
        if not path.is_file():
            raise InputError("is in the way of a delivered file", where=str(path), hint="Move it elsewhere")
        digest = work.ledger.known_hash(path)
        if digest is None:
            digest = hash_file(path)
            work.ledger.remember_hash(path, digest)
    except OSError as error:
        raise disk_error(error, path) from error
    return digest


def _write(work: Work, item: Item) -> None:
    with writing(item.path) as partial:
        if isinstance(item.content, bytes):
            partial.write_bytes(item.content)
        else:
            shutil.copyfile(work.store.path(item.content), partial)
            if hash_file(partial) != item.sha256:
                raise InfrastructureError(f"artifact {item.sha256[:12]}… was altered", where="store",
                                          hint="Delete it there and run the command again: it is made anew")
    work.ledger.remember_hash(item.path, item.sha256)


# -- report -----------------------------------------------------------------------------------------------------------


def _deliverable(folder: Path, stem: str, episode: str, assembled: Assembled, inspection: Inspection, speech: Speech,
                 subtitles: tuple[str, ...]) -> Deliverable:
    rate, untouched = assembled.rate, assembled.frames - assembled.generated_frames
    return Deliverable(
        episode=episode, language=folder.name, video=str(folder / f"{stem}.mp4"), subtitles=subtitles,
        report=str(folder / "report.json"), frames=assembled.frames, fps=round(float(rate), 5),
        duration_s=round(float(assembled.frames / rate), 3),
        generated_s=round(float(assembled.generated_frames / rate), 3),
        passthrough_s=round(float(untouched / rate), 3), loudness_lufs=inspection.loudness.integrated_lufs,
        true_peak_dbtp=inspection.loudness.true_peak_dbtp, back_wer=inspection.back_wer,
        onset_within_120ms=inspection.onset_within_120ms, passed=inspection.passed,
        max_stretch=round(max((line.stretch for line in speech.lines), default=1.0), 4))


def _report(delivered: Deliverable, inspection: Inspection, mix: Mix, speech: Speech, plan: Plan, source: Source,
            files: Sequence[str], cast: Sequence[CastVoice]) -> bytes:
    """report.json: the same bytes for the same results, so that nothing is written twice."""
    report = {
        "deliverable": delivered.model_dump(mode="json"),
        "files": list(files),
        "inspection": {"passed": inspection.passed, **inspection.model_dump(mode="json"),
                       "checks": [check.data for check in inspection.checks]},
        "source": {"sha256": source.original, "conformed": source.conformed},
        "mix": {"bed": mix.bed_kind, "gain_db": mix.gain_db, "loudness": mix.loudness.model_dump(mode="json"),
                "leak": mix.leak.model_dump(mode="json") if mix.leak else None},
        "cast": [{**one.model_dump(mode="json"), "flags": ["voice by default: nobody chose it"] *
                  (one.chosen == "default")} for one in cast],
        "lines": [_line(line) for line in speech.lines],
        "kept": [{"id": line.id, "planned": [round(seconds(line.start), 3), round(seconds(line.end), 3)]}
                 for line in speech.kept],
        "shots": [_shot(shot, plan) for shot in plan.shots],
    }
    return (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode()


def _line(line: SpokenLine) -> dict[str, Any]:
    """What was planned for a line and what became of it, in seconds."""
    planned, slot = ([round(seconds(edge), 3) for edge in span] for span in (line.planned, line.slot))
    return {"id": line.id, "speaker": line.speaker, "voice": line.voice, "text": line.text, "planned": planned,
            "slot": slot, "spoken": [round(seconds(line.start), 3), round(seconds(line.start + line.length), 3)],
            "natural": round(seconds(line.natural), 3), "stretch": round(line.stretch, 4),
            "overflow": round(seconds(line.overflow), 3), "coverage": line.coverage, "flags": list(line.flags)}


def _shot(shot: PlannedShot, plan: Plan) -> dict[str, Any]:
    return {"id": shot.shot, "at": timecode(frame_to_ticks(shot.start, plan.rate)), "start": shot.start,
            "end": shot.end, "kind": shot.kind, "reason": shot.reason}
