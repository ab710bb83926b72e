"""`infinidub`: parses the command line, and turns errors into one line and an exit code.

Exit codes: 0 ok · 2 usage or bad input · 3 a quality gate failed · 4 some episodes failed · 5 infrastructure, retry
later · 130 stopped by the user · 1 a fault of this program. With `--json`, on every verb, the last line of stdout is
one JSON object, and nothing else is there.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any

import typer

from flows import cli_run, cli_setup, cli_show
from flows.show import error_line, stderr
from models.errors import InfinidubError, InputError

STOPPED = 130
USAGE = 2

UsageError: type[Exception] = typer.BadParameter.__mro__[2]
"""Typer's base of all errors in a command line; it comes from a private copy of click."""

app = typer.Typer(name="infinidub", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  rich_markup_mode=None, help="Dubs whole catalogs of video into many languages, picture included.")
for verb in (cli_run.dub, cli_run.run, cli_show.plan, cli_show.status, cli_run.redo, cli_run.retry, cli_show.trace,
             cli_setup.doctor, cli_setup.config, cli_setup.serve, cli_setup.deploy):
    app.command()(verb)
app.add_typer(cli_setup.models, name="models")
app.add_typer(cli_setup.shard, name="shard")


def _version(wanted: bool) -> None:
    if wanted:
        print(metadata.version("infinidub"))
        raise typer.Exit


@app.callback()
def _global(_version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                                   help="Print the version.")] = False,
            _debug: Annotated[bool, typer.Option("--debug", help="Let errors through, with their traceback "
                                                                 "(works after the verb, too).")] = False) -> None:
    """Dubs whole catalogs of video into many languages, picture included."""


def main() -> None:
    """Entry point of the program."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `docker stop` is a Ctrl-C
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors become one line on stderr (or JSON)."""
    debug, as_json = "--debug" in arguments, "--json" in arguments
    try:
        rest = [argument for argument in arguments if argument != "--debug"]
        return app(rest, prog_name="infinidub", standalone_mode=False, obj=debug) or 0
    except UsageError as error:
        return _fail(InputError(error.format_message(), hint="See `infinidub --help`"), as_json)  # type: ignore[attr-defined]
    except InfinidubError as error:
        if debug:
            raise
        return _fail(error, as_json)
    except (KeyboardInterrupt, typer.Abort):
        stderr.print("stopped; run the same command again to go on", soft_wrap=True)
        return _as_json({"class": "Stopped", "message": "stopped by the user"}, STOPPED, as_json)
    except BrokenPipeError:  # the reader of a pipe had enough
        sys.stdout = None  # type: ignore[assignment]
        return 0
    except Exception as error:
        if debug:
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return _fail(InfinidubError(f"a fault of infinidub: {what}", hint="Run it again with --debug to see where"),
                     as_json, 1)


def _fail(error: InfinidubError, as_json: bool, code: int | None = None) -> int:
    error_line(error)
    details = {"class": type(error).__name__, "message": str(error), "what": error.what, "where": error.where,
               "hint": error.hint, "retryable": error.retryable}
    return _as_json(details, error.exit_code if code is None else code, as_json)


def _as_json(details: dict[str, Any], code: int, wanted: bool) -> int:
    if wanted:
        print(json.dumps({"error": {**details, "exit_code": code}}))
    return code
