"""The verbs of review: texts out to a file and back, approvals, locks, the log, and the page to do it all on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from flows.hints import completed
from flows.options import By, Config, Json, Out, Set, State, answer, config_path, flags, who
from flows.review import go_on, reviewed, spoken_language
from models.errors import InputError

if TYPE_CHECKING:
    from flows.review import Rerun

Episode = Annotated[str, typer.Argument(help="Full id, e.g. harbor-lights/s01e01.", show_default=False)]
Language = Annotated[str, typer.Option(metavar="TAG", help="Language of the texts.", show_default=False)]
Lines = Annotated[list[str] | None, typer.Option("--line", metavar="ID", show_default=False,
                                                 help="Only this line, e.g. L0003. Repeatable.")]


def review_export(episode: Episode, lang: Language,
                  file: Annotated[Path | None, typer.Argument(
                      help="The file; else one here, named after the episode.", show_default=False)] = None,
                  kind: Annotated[Literal["csv", "srt", "dapt"], typer.Option(
                      "--format", help="A table, subtitles, or W3C DAPT.")] = "csv",
                  by: By = None, out: Out = None, state: State = None, config: Config = None,
                  assignments: Set = None, as_json: Json = False) -> int:
    """Write the texts of one language to a file."""
    from tasks import review
    from tasks.review_files import NAMES, write
    from tasks.store import writing

    space, known = reviewed(flags(out, state, None, assignments), config, episode)
    found = review.load(space.ledger, episode, lang)
    target = file or Path(f"{episode.rpartition('/')[2]}.{lang}{NAMES[kind]}")
    if file is None and target.exists():
        raise InputError("is there already, and may hold somebody's work", where=str(target),
                         hint="Move it, or name another file")
    with writing(target) as partial:
        partial.write_bytes(write(found, kind, spoken_language(space, known, found)))
    review.note_export(space.ledger, found, who(by), target.name)
    answer(as_json, {"file": str(target), "lines": len(found.lines), "state": found.state},
           f"{len(found.lines)} lines in {escape(str(target))}")
    return 0


def review_import(episode: Episode,
                  file: Annotated[Path, typer.Argument(help="CSV, SRT, WebVTT, or DAPT (.ttml).", show_default=False)],
                  lang: Language,
                  approve: Annotated[bool, typer.Option("--approve", help="All of it is approved, then.")] = False,
                  by: By = None, out: Out = None, state: State = None, config: Config = None,
                  assignments: Set = None, as_json: Json = False) -> int:
    """Take over what somebody changed in a file: all of it, or, where something is wrong, nothing."""
    from tasks import review
    from tasks.review_files import changes, kind_of

    given = flags(out, state, None, assignments)
    space, _ = reviewed(given, config, episode)
    found = review.load(space.ledger, episode, lang)
    changed = changes(_read(file), kind_of(file), found, file.name)
    author = who(by)
    review.change(space.ledger, episode, lang, changed, {line.id: line.source for line in found.lines}, author,
                  how="import")
    done = review.approve(space.ledger, episode, lang, None, author) if approve else None
    waits = found.state != "open" and bool(review.load(space.ledger, episode, lang).unapproved)
    rerun = go_on(space, episode, lang) if (done.opened if done else changed and not waits) else None
    said = [f"{len(changed)} of {len(found.lines)} lines changed" + (f": {', '.join(list(changed)[:20])}" if changed
                                                                    else "")]
    if waits:
        said += [completed(f"now it awaits approval: infinidub review approve {episode} --lang {lang}", given,
                           config_path(config))]
    answer(as_json, {"changed": list(changed), "lines": len(found.lines), "approved": done.lines if done else 0,
                     "awaiting": waits,
                     "rerun": _plain(rerun)}, *said, rerun.words if rerun else "")
    return 0


def _on_lines(done: Literal["approved", "locked", "unlocked"], words: str) -> Callable[..., int]:
    """The verb that does this to lines."""

    def verb(episode: Episode, lang: Language, line: Lines = None, by: By = None, out: Out = None, state: State = None,
             config: Config = None, assignments: Set = None, as_json: Json = False) -> int:
        from tasks import review

        if not line and done != "approved":
            raise InputError("no line is named", where="--line", hint="Write for example --line L0003")
        space, _ = reviewed(flags(out, state, None, assignments), config, episode)
        author = who(by)
        if done == "approved":
            came = review.approve(space.ledger, episode, lang, line or None, author)
        else:
            came = (review.lock if done == "locked" else review.unlock)(space.ledger, episode, lang, line or [], author)
        rerun = go_on(space, episode, lang) if came.opened else None
        answer(as_json, {done: came.lines, "rerun": _plain(rerun)}, f"{came.lines} lines {done}",
               rerun.words if rerun else "")
        return 0

    verb.__doc__ = words
    return verb


review_approve = _on_lines("approved", "Find texts right as they are; once all are, the language goes on.")
review_lock = _on_lines("locked", "Keep the texts of lines as they are, whatever engines, scripts and imports say.")
review_unlock = _on_lines("unlocked", "Let the texts of locked lines be changed again.")


def review_log(episode: Episode,
               lang: Annotated[str | None, typer.Option(metavar="TAG", help="Only this language.",
                                                        show_default=False)] = None,
               out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
               as_json: Json = False) -> int:
    """Show who did what to an episode's texts, and when."""
    from tasks import review

    space, _ = reviewed(flags(out, state, None, assignments), config, episode)
    events = review.log(space.ledger, episode, lang or "")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("when", "who", "what", "lang", "line", ""):
        table.add_column(name)
    for one in events:
        told = ", ".join(f"{name} {value}" if name != "text" else str(value) for name, value in one.details.items())
        table.add_row(f"{one.at:%Y-%m-%d %H:%M:%S}", escape(one.who), one.what, one.language, one.line, escape(told))
    answer(as_json, {"events": [{**asdict(one), "at": one.at.isoformat()} for one in events]}, table)
    return 0


def review_serve(port: Annotated[int, typer.Option(help="Port of the page; any free one unless given.")] = 0,
                 catalog: Annotated[Path | None, typer.Option(help="Only its episodes.", show_default=False)] = None,
                 by: By = None, out: Out = None, state: State = None, config: Config = None,
                 assignments: Set = None, as_json: Json = False) -> int:
    """Review texts on a page of this machine: listen, compare, edit, approve."""
    from flows.jobs import catalog_jobs
    from flows.review_server import serve
    from models.catalog import load_catalog

    space, _ = reviewed(flags(out, state, None, assignments), config, catalog=catalog)
    only = None if catalog is None else [job.id for job in catalog_jobs(load_catalog(catalog), space.settings.out)]
    with suppress(KeyboardInterrupt):  # the only way to end it
        serve(space, who(by), port, only,
              lambda url: answer(as_json, {"url": url}, f"Review at {url}\nCtrl-C ends it. The address is a key:"
                                                        " keep it to yourself."))
    return 0


def _plain(rerun: Rerun | None) -> dict[str, Any] | None:
    return None if rerun is None else {"flow_run": rerun.flow_run, "command": ["infinidub", *rerun.command],
                                       "why": rerun.why}


def _read(file: Path) -> bytes:
    from tasks.subtitles import MAX_BYTES

    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(file)) from error

