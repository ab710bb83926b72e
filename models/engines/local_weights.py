"""Weights that a user keeps somewhere of his own: their path stays out of recipes, their hash goes in.

The hash is an option of the engine, written down by the user once; it is checked before the engine loads anything, so
that other weights under the same path are an error and never a different result under the same recipe.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from models.errors import InputError, SetupError
from models.ports import EngineHome
from models.records import EngineRef


def file_hash(path: Path) -> str:
    """SHA-256 of a file; it is read once a process, as long as its size and time of change stay.

    Raises:
        OSError: It cannot be read.
    """
    now = path.stat()
    return _file_hash(path, now.st_size, now.st_mtime_ns, now.st_ino)


@cache
def _file_hash(path: Path, _size: int, _changed: int, _inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_hash(path: Path, *beside: str) -> str:
    """SHA-256 over names and hashes of all files of a folder, hidden ones left out; or of a file and those `beside` it.

    Raises:
        OSError: Something cannot be read.
    """
    root = path if path.is_dir() else path.parent
    files = path.rglob("*") if path.is_dir() else [path, *(root / name for name in beside)]
    named = {file.relative_to(root).as_posix(): file for file in files if file.is_file()}
    lines = [f"{name} {file_hash(file)}\n" for name, file in sorted(named.items()) if "/." not in f"/{name}"]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def checked_path(ref: EngineRef, home: EngineHome, main_file: str, *beside: str) -> Path:
    """The engine's `path` setting, once what lies there has the hash that its option `sha256` says.

    Args:
        ref: The engine, with the option.
        home: Its `connection` holds 'path', a folder with `main_file` in it, or such a file.
        main_file: The file without which there are no weights.
        beside: Files that count as well where the path is a file.

    Raises:
        SetupError: The setting is missing, or the option is; then the message holds the line to write.
        InputError: There is no such file, or something there is not what it was.
    """
    where = f"options.{ref.name}"
    if not home.connection.get("path"):
        raise SetupError("where are its weights?", where=where, hint=f'Set {where}.path in infinidub.toml')
    path = Path(str(home.connection["path"])).expanduser()
    file = path / main_file if path.is_dir() else path
    try:
        file.stat()
        digest = weights_hash(path, *beside)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})", where=f"{where}.path") from error
    wanted = ref.options.get("sha256")
    if not wanted:
        raise SetupError(f"the hash of {path.name} must be written down, since results depend on it", where=where,
                         hint=f'Under [{where}] in infinidub.toml: sha256 = "{digest}"')
    if wanted != digest:
        raise InputError(f"{path} is not what it was: its SHA-256 is now {digest}", where=f"{where}.sha256",
                         hint="Bring the old files back, or write the new hash down and dub anew")
    return path
