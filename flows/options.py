"""Command-line options that several verbs share, and how a verb answers."""

from __future__ import annotations

import getpass
import json
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from flows.show import stdout
from models.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the results; ./dubbed unless set.", show_default=False)]
State = Annotated[Path | None, typer.Option(help="Folder of database and artifacts; OUT/.infinidub unless set.",
                                            show_default=False)]
Config = Annotated[Path | None, typer.Option(help="Settings file; ./infinidub.toml if it is there.",
                                             show_default=False)]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", show_default=False,
                                               help="A setting, e.g. engines.synthesizer=espeak. Repeatable.")]
Generator = Annotated[str | None, typer.Option(help="Makes the picture of speaking shots.", show_default=False)]
Episodes = Annotated[list[str] | None, typer.Option("--episode", metavar="ID", show_default=False,
                                                    help="Only this episode. Repeatable.")]
Languages = Annotated[list[str] | None, typer.Option("--lang", metavar="TAG", show_default=False,
                                                     help="Only this language. Repeatable.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", show_default=False,
                                        help="Who says so; the account's name unless given.")]
AcceptSource = Annotated[bool, typer.Option("--accept-new-source",
                                            help="Dub anew an episode whose file is no longer the one it was.")]

UNSETTABLE = ("secrets", "database")


def refuse_secrets(names: Iterable[str], where: str = "settings: ") -> None:
    """Raise `InputError` where a secret is named in what others can read: a command line, or a flow's parameters."""
    for name in names:
        if name.partition(".")[0] in UNSETTABLE:
            raise InputError("does not belong where others can read it", where=f"{where}{name}",
                             hint=f"Set INFINIDUB_{name.replace('.', '__').upper()} in the environment")


def flags(out: Path | None = None, state: Path | None = None, generator: str | None = None,
          assignments: Sequence[str] | None = None) -> dict[str, Any]:
    """Dotted setting name → value, plain JSON, as `load_settings` and the runs table take it.

    Raises:
        InputError: An assignment that is none, or of something that does not belong on a command line.
    """
    values: dict[str, Any] = {"out": out and str(out.absolute()), "state": state and str(state.absolute()),
                              "engines.generator": generator}
    for assignment in assignments or ():
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise InputError(f"{assignment!r} is no NAME=VALUE", where="--set")
        refuse_secrets([name], "--set ")
        values[name] = _value(text)
    return {name: value for name, value in values.items() if value is not None}


def config_path(config: Path | None) -> str:
    """A settings file as a run remembers it: findable from any folder; '' for none."""
    return str(config.absolute()) if config else ""


def who(by: str | None) -> str:
    """Whose word it is, for the log.

    Raises:
        InputError: That is no name.
    """
    if by is not None and not (by.strip() and by.isprintable() and len(by) <= 100):
        raise InputError("must be a name on one line", where="--by")
    return by.strip() if by else getpass.getuser()


def answer(as_json: bool, data: dict[str, Any], *parts: RenderableType) -> None:
    """Print a verb's result: one JSON object, or what a person reads."""
    if as_json:
        print(json.dumps(data, ensure_ascii=False))
        return
    for part in parts:
        if part:
            stdout.print(part, soft_wrap=isinstance(part, str), highlight=False)  # commands and paths stay whole


def _value(text: str) -> Any:
    """A number, true, false or "text" as in TOML; anything else is the text itself."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text
