"""`infinidub`: parses the command line, and turns errors into one line and an exit code.

Exit codes: 0 ok · 2 usage or bad input · 3 a quality gate failed · 4 some episodes failed · 5 infrastructure, retry
later · 130 stopped · 1 a fault of this program. With `--json`, on every verb, the last line of stdout is
one JSON object, and nothing else is there.
"""

from __future__ import annotations

import functools
import json
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Annotated, Any

import typer

from flows import (
    cli_bench,
    cli_cast,
    cli_evaluate,
    cli_experiment,
    cli_gc,
    cli_generate,
    cli_pool,
    cli_qc,
    cli_review,
    cli_run,
    cli_setup,
    cli_show,
    cli_train,
    cli_world,
)
from flows.hints import complete, shared
from flows.options import config_path, flags
from flows.show import error_line, stderr
from models.errors import InfinidubError, InputError

STOPPED = 130

UsageError: type[Exception] = typer.BadParameter.__mro__[2]
"""Typer's base of all errors in a command line; it comes from a private copy of click."""

VERBS = {
    "dub": cli_run.dub, "run": cli_run.run, "plan": cli_show.plan, "status": cli_show.status, "redo": cli_run.redo,
    "qc": cli_qc.qc,
    "retry": cli_run.retry, "trace": cli_show.trace, "models list": cli_setup.models_list,
    "models pull": cli_setup.models_pull, "models verify": cli_setup.models_verify, "doctor": cli_setup.doctor,
    "config": cli_setup.config, "serve": cli_setup.serve, "deploy": cli_setup.deploy,
    "cancel": cli_pool.cancel, "shard run": cli_pool.shard_run, "shard work": cli_pool.shard_work,
    "bench engine": cli_bench.bench_engine, "generate": cli_generate.generate,
    "cast list": cli_cast.cast_list, "cast set": cli_cast.cast_set, "cast rename": cli_cast.cast_rename,
    "cast merge": cli_cast.cast_merge, "cast assign": cli_cast.cast_assign,
    "consent add": cli_cast.consent_add, "consent list": cli_cast.consent_list,
    "consent revoke": cli_cast.consent_revoke,
    "review export": cli_review.review_export, "review import": cli_review.review_import,
    "review approve": cli_review.review_approve, "review lock": cli_review.review_lock,
    "review unlock": cli_review.review_unlock, "review log": cli_review.review_log,
    "review serve": cli_review.review_serve,
    "train codec": cli_train.train_codec, "train speech": cli_train.train_speech, "train dit": cli_train.train_dit,
    "train reader": cli_train.train_reader,
    "world render": cli_world.render, "evaluate": cli_evaluate.evaluate,
    "experiment conditioning": cli_experiment.conditioning, "gc": cli_gc.gc,
}
GROUPS = {"models": "Weights of the engines: list, pull, verify.", "shard": "What a GPU job runs.",
          "cast": "Who speaks in a series, with which voices.",
          "consent": "Who agreed that his voice is imitated, or his picture made anew.",
          "review": "Texts before they are voiced: out, in, approve, lock.",
          "train": "The small generator's networks, a stage each.",
          "bench": "How fast it is on this machine.",
          "experiment": "The paper's experiments, repeated on small weights.",
          "world": "People who do not exist: data to train and measure on."}


class StoppedError(Exception):
    """Ctrl-C or SIGTERM, past Typer, which would print a word of its own; a verb may add what was kept."""


def _stoppable(verb: Any) -> Callable[..., int]:
    @functools.wraps(verb)
    def run(*args: Any, **options: Any) -> int:
        try:
            return int(verb(*args, **options))
        except KeyboardInterrupt as error:
            raise StoppedError(*error.args) from None
        except InfinidubError as error:
            _complete(error, {name: options.get(name) for name in shared(verb)})
            raise

    return run


def _complete(error: InfinidubError, options: dict[str, Any]) -> None:
    """A command in its hint is given what this one was."""
    with suppress(InputError):  # what is no assignment is the error itself
        given = flags(options.get("out"), options.get("state"), None, options.get("assignments"))
        complete(error, given, config_path(options.get("config")))


def _typer(words: str) -> typer.Typer:
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help=words)


@functools.cache
def _build() -> Any:
    """The command; made once, since tests call it hundreds of times."""
    program = _typer("Dubs whole catalogs of video into many languages, picture included.")
    groups = {name: _typer(words) for name, words in GROUPS.items()}
    for name, verb in VERBS.items():
        first, _, last = name.rpartition(" ")
        (groups[first] if first else program).command(last)(_stoppable(verb))
    for name, group in groups.items():
        program.add_typer(group, name=name)
    program.callback()(_program)
    return typer.main.get_command(program)


def _version(wanted: bool) -> None:
    if wanted:
        print(metadata.version("infinidub"))
        raise typer.Exit


def _program(_version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
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
        rest = [argument for argument in arguments if argument != "--debug"] or ["--help"]
        return _build()(rest, prog_name="infinidub", standalone_mode=False, obj=debug) or 0
    except UsageError as error:
        what = str(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
        return _fail(InputError(what, hint="See `infinidub --help`"), as_json)
    except InfinidubError as error:
        if debug:
            raise
        return _fail(error, as_json)
    except (StoppedError, KeyboardInterrupt) as error:
        hint = str(error) or "run the same command again to go on"
        stderr.print(f"stopped; {hint}", soft_wrap=True)
        return _as_json({"class": "Stopped", "message": "stopped", "hint": hint}, STOPPED, as_json)
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


if __name__ == "__main__":
    main()
