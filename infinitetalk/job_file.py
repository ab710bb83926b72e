"""The published input format (MeiGen-AI/InfiniteTalk at 0107cd96): a JSON that names picture, voices and prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from infinitetalk.errors import BadInputError
from infinitetalk.inputs import check_speakers, published_box
from infinitetalk.job import Job
from infinitetalk.persons import Box
from infinitetalk.tracks import Order

VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".flv", ".wmv", ".webm", ".mpeg", ".mpg"}
"""Suffixes that are taken for video; everything else is a still picture."""
MOST_BYTES = 1 << 20
SILENCE = "None"
"""Path that stands for silence as long as the other's track."""
FIELDS = ("prompt", "cond_video", "cond_audio", "audio_type", "bbox")
PERSONS = ("person1", "person2")


def read_job(path: Path, root: Path | None = None) -> Job:
    """Read a job.

    The file need not be trusted: paths count from `root` and may not lead out of it, links followed.

    Args:
        path: The JSON.
        root: Folder that its paths count from; its own unless given. `/` allows every path.

    Raises:
        BadInputError: It is no such JSON; the message names the field.
    """
    told = _read_json(path)
    unknown = [name for name in told if name not in FIELDS]
    if unknown:
        hint = "Make the speech first, and give it as cond_audio" if "tts_audio" in unknown else ""
        raise BadInputError(f"unknown field {unknown[0][:60]!r}", where=str(path),
                            hint=hint or f"Known are: {', '.join(FIELDS)}")
    if root and not root.is_dir():
        raise BadInputError("is no folder", where=f"--input-root {root}",
                            hint="Name the folder that the paths in the JSON count from")
    folder = (root or path.parent).resolve()
    heard = _object(told, "cond_audio", path)
    persons = _persons(heard, f"{path}: cond_audio")
    audio = tuple(None if heard[name] == SILENCE else _path(heard[name], folder, f"{path}: cond_audio.{name}")
                  for name in persons)
    picture = _path(_given(told, "cond_video", path), folder, f"{path}: cond_video")
    return Job(picture=picture, audio=audio, moving=picture.suffix.lower() in VIDEOS,
               order=_order(told, len(audio), path), boxes=_boxes(told, persons, path),
               prompt=_text(told.get("prompt", ""), f"{path}: prompt"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        told = json.loads(data.decode()) if len(data) <= MOST_BYTES else None
    except OSError as error:
        raise BadInputError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"is no JSON ({str(error)[:80]})", where=str(path)) from error
    if not isinstance(told, dict):
        raise BadInputError("is no JSON object of a sensible size", where=str(path), hint=f"Give {', '.join(FIELDS)}")
    return told


def _given(told: dict[str, Any], name: str, path: Path) -> object:
    if name not in told:
        raise BadInputError("is missing", where=f"{path}: {name}", hint=f"A job has {', '.join(FIELDS[:3])}")
    return told[name]


def _object(told: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = _given(told, name, path)
    if not isinstance(value, dict) or not value:
        raise BadInputError("must be an object", where=f"{path}: {name}", hint=f"Give it {' and '.join(PERSONS)}")
    return value


def _persons(told: dict[str, Any], where: str) -> tuple[str, ...]:
    if len(told) > len(PERSONS):
        check_speakers(len(told))
    persons = PERSONS[:len(told)]
    if set(told) != set(persons):
        raise BadInputError(f"names {', '.join(told)[:80]!r}", where=where, hint=f"Call them {', '.join(persons)}")
    return persons


def _path(value: object, folder: Path, where: str) -> Path:
    text = _text(value, where)
    try:
        path = (folder / text).resolve() if text and text.isprintable() else None
    except (OSError, RuntimeError) as error:  # loops of links, names that are too long
        raise BadInputError("cannot be followed", where=where, hint="Name a file") from error
    if path is None or not path.is_relative_to(folder):
        raise BadInputError(f"{text[:80]!r} is no path inside {folder}", where=where,
                            hint="Put the file there, or name the folder that paths count from with --input-root")
    if not path.exists():
        raise BadInputError(f"{text[:80]!r} is not in {folder}", where=where,
                            hint="Name the folder that paths count from with --input-root")
    return path


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise BadInputError("must be text", where=where, hint="Put it in quotes")
    return value


def _order(told: dict[str, Any], speakers: int, path: Path) -> Order:
    value = told.get("audio_type", "para" if speakers == 1 else None)
    if value not in ("para", "add"):
        raise BadInputError(f"{str(value)[:60]!r} is no way to combine two tracks", where=f"{path}: audio_type",
                            hint="para: both at once; add: first person1, then person2")
    return "add" if value == "add" else "para"


def _boxes(told: dict[str, Any], persons: tuple[str, ...], path: Path) -> tuple[Box, ...]:
    if "bbox" not in told:
        return ()
    boxes = _object(told, "bbox", path)
    if set(boxes) != set(persons):
        raise BadInputError(f"names {', '.join(boxes)[:80]!r}", where=f"{path}: bbox",
                            hint=f"Give a box each of {', '.join(persons)}")
    return tuple(published_box(boxes[name], f"{path}: bbox.{name}") for name in persons)
