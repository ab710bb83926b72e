"""Weights that a user keeps somewhere of his own: their path stays out of recipes, their hash goes in.

The hash is an option of the engine, written down by the user once; it is checked when the engine loads, so that other
weights under the same path are an error and never a different result under the same recipe.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from models.errors import InputError, SetupError
from models.ports import EngineHome
from models.records import EngineRef


def checked_path(ref: EngineRef, home: EngineHome, main_file: str = "") -> Path:
    """The engine's `path` setting, once the SHA-256 of what lies there is that of its option `sha256`.

    Args:
        ref: The engine, with the option.
        home: Its `connection` holds 'path', a file, or a folder with `main_file` in it.
        main_file: The file that makes the weights what they are.

    Raises:
        SetupError: The setting is missing, or the option is; then the message holds the line to write.
        InputError: There is no such file, or it is another one.
    """
    where = f"options.{ref.name}"
    if not home.connection.get("path"):
        raise SetupError("where are its weights?", where=where, hint=f'Set {where}.path in infinidub.toml')
    path = Path(str(home.connection["path"])).expanduser()
    file = path / main_file if path.is_dir() else path
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror})", where=f"{where}.path") from error
    wanted = ref.options.get("sha256")
    if not wanted:
        raise SetupError(f"the hash of {file.name} must be written down, since results depend on it", where=where,
                         hint=f'Under [{where}] in infinidub.toml: sha256 = "{digest}"')
    if wanted != digest:
        raise InputError(f"{file} is not the file it was: its SHA-256 is {digest}", where=f"{where}.sha256",
                         hint="Bring the file back, or write the new hash down and dub anew")
    return path
