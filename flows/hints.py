"""Commands that people are told work as they stand: with the folders and settings that were given."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from shutil import which
from typing import Any

from models.errors import InfinidubError

_COMMAND = re.compile(r"`infinidub ([^`]+)`|(?<=: )infinidub ([^`]+)$")
"""In backticks, or at the end after a colon."""
PROGRAM = "infinidub"
_NOTED = ("redo", "retry", "review", "qc", "status")
"""Verbs that take all but the folders from the run that they go on with."""


def completed(words: str, flags: Mapping[str, Any], config: str = "") -> str:
    """`words` with what was given (dotted name → value, and the settings file) added to every command in them."""

    def whole(found: re.Match[str]) -> str:
        quote, command = ("`", found[1]) if found[1] else ("", found[2])
        return f"{quote}{command_line(command, flags, config)}{quote}"

    return _COMMAND.sub(whole, words)


def complete(error: InfinidubError, flags: Mapping[str, Any], config: str = "") -> None:
    """The same for what an error says is to be done."""
    error.hint = completed(error.hint, flags, config)
    error.args = (error.what, error.where, error.hint)


def command_line(command: str, flags: Mapping[str, Any], config: str = "") -> str:
    """A verb with its arguments as it is to be typed here."""
    me = sys.argv[0]
    # a worker's process is named after what started it, and those who read its hints sit elsewhere
    program = near(me) if Path(me).name == PROGRAM and not which(PROGRAM) else PROGRAM
    return " ".join([program, command, *_options(command, flags, config)])


def near(path: str | Path) -> str:
    """A path as one would type it from here."""
    short = os.path.relpath(path)
    return shlex.quote(str(path) if short.startswith("..") else short)


def shared(verb: Callable[..., Any]) -> set[str]:
    """Which of the options for folders and settings a verb takes, and not one of its own that is called the same."""
    from flows import options

    kinds = {"out": options.Out, "state": options.State, "config": options.Config, "assignments": options.Set}
    return {name for name, kind in kinds.items() if getattr(sys.modules[verb.__module__], verb.__annotations__.get(
        name, ""), None) is kind}


def _options(command: str, flags: Mapping[str, Any], config: str) -> Iterator[str]:
    """Those that the command's verb knows and needs, and that the command does not have yet."""
    from flows.cli import VERBS

    first, second = (*command.split(), "")[:2]
    verb: Any = VERBS.get(f"{first} {second}") or VERBS.get(first)
    takes = shared(verb) if verb else set()
    given = {"config": config, **{name: flags.get(name) for name in ("out", "state")}}
    yield from (f"--{name} {near(value)}" for name, value in given.items()
                if value and name in takes and f"--{name}" not in command.split())
    if "assignments" in takes and first not in _NOTED:
        yield from (f"--set {shlex.quote(f'{name}={_value(value)}')}" for name, value in flags.items()
                    if name not in {*given, "engines.generator"}
                    and not re.search(rf"--set '?{re.escape(name)}=", command))


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):  # a deployment's settings are JSON
        return ",".join(map(_value, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
