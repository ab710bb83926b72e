"""The verbs `cast …` and `consent …`: who speaks in a series, with which voice, and who agreed to what."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from flows.options import By, Config, Json, Out, Set, State, answer, flags, who
from flows.settings import load_settings
from models.errors import InputError

if TYPE_CHECKING:
    from flows.wiring import Workspace
    from tasks.cast import Member
    from tasks.consent import Consent

Series = Annotated[str, typer.Argument(help="The series, as the catalog names it.", show_default=False)]
Someone = Annotated[str, typer.Argument(help="M1, M2 … or a name.", show_default=False)]
Kind = Literal["voice", "likeness"]


# -- cast -------------------------------------------------------------------------------------------------------------


def cast_list(series: Annotated[str, typer.Argument(help="Only this series.", show_default=False)] = "",
              out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
              as_json: Json = False) -> int:
    """Show who speaks in a series, where, and with which voices."""
    from tasks.cast import members

    return _shown(members(_space(out, state, config, assignments).ledger, series), as_json)


def cast_set(series: Series, member: Someone,
             voice: Annotated[list[str] | None, typer.Option("--voice", metavar="TAG=VOICE", show_default=False, help=
                              "His voice in a language from now on, e.g. es=ef_dora. Repeatable.")] = None,
             gender: Annotated[Literal["female", "male"] | None, typer.Option(
                 help="Over what his pitch says; for voices still to be chosen.", show_default=False)] = None,
             person: Annotated[str | None, typer.Option(
                 help="The real person who is seen and heard; '' for nobody.", show_default=False)] = None,
             by: By = None, out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
             as_json: Json = False) -> int:
    """Decide about a member of the cast: his voices, his gender, who he really is.

    It holds for all episodes, and from the next run on: what he says is then voiced anew.
    """
    from flows.jobs import parse_tag
    from tasks.cast import describe_member, find_member, set_voice, synthesizer_key

    if not voice and gender is None and person is None:
        raise InputError("say what to set", hint="Give --voice TAG=VOICE, --gender or --person")
    space = _space(out, state, config, assignments)
    one, ref, wanted = find_member(space.ledger, series, member), space.engine("synthesizer"), dict[str, str]()
    engine: Any = space.engines.get("synthesizer", ref) if voice else None
    for assignment in voice or ():
        tag, equals, name = assignment.partition("=")
        if not equals or not name:
            raise InputError(f"{assignment!r} is no TAG=VOICE", where="--voice", hint="Write for example es=ef_dora")
        language = parse_tag(tag, "--voice")
        engine.check_voice(name, language)
        wanted[language] = name
    for language, name in wanted.items():
        set_voice(space.ledger, one, language, synthesizer_key(ref), name, who(by))
    if gender is not None or person is not None:
        describe_member(space.ledger, one, who(by), gender=gender, person=_line(person, "--person"))
    return _shown([find_member(space.ledger, series, one.id)], as_json)


def cast_rename(series: Series, member: Someone,
                name: Annotated[str, typer.Argument(help="What he is called from now on.", show_default=False)],
                by: By = None, out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
                as_json: Json = False) -> int:
    """Give a member of the cast a name; transcripts and catalogs may use it."""
    from tasks.cast import describe_member, find_member

    space = _space(out, state, config, assignments)
    one = find_member(space.ledger, series, member)
    describe_member(space.ledger, one, who(by), name=_line(name, "NAME"))
    return _shown([find_member(space.ledger, series, one.id)], as_json)


def cast_merge(series: Series, member: Someone,
               into: Annotated[str, typer.Argument(help="Who he is: his voices stay.", show_default=False)],
               by: By = None, out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
               as_json: Json = False) -> int:
    """Say that two members of the cast are one."""
    from tasks.cast import find_member, merge

    space = _space(out, state, config, assignments)
    one, other = (find_member(space.ledger, series, name) for name in (member, into))
    merge(space.ledger, one, other, who(by))
    return _shown([find_member(space.ledger, series, other.id)], as_json)


def cast_assign(episode: Annotated[str, typer.Argument(help="series/id", show_default=False)],
                speaker: Annotated[str, typer.Argument(help="As the episode calls him, e.g. A.", show_default=False)],
                member: Annotated[str, typer.Argument(help="M1, a name, or 'new' for somebody else than it seemed.",
                                                      show_default=False)],
                by: By = None, out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
                as_json: Json = False) -> int:
    """Say who a speaker of one episode is."""
    from tasks.cast import assign

    space = _space(out, state, config, assignments)
    return _shown([assign(space.ledger, episode, speaker, member, who(by))], as_json)


def _shown(found: Sequence[Member], as_json: bool) -> int:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("series", "", "name", "person", "gender", "pitch", "voices", "heard in"):
        table.add_column(name, justify="right" if name == "pitch" else "left")
    for one in found:
        voices = "\n".join(f"{v.language} {escape(v.voice)}" + " [yellow]by default[/]" * (v.chosen == "default")
                           for v in one.voices)
        heard = "\n".join(f"{escape(h.episode.rpartition('/')[2])} {escape(h.speaker)}"
                          + (f" [dim]{h.found}{'' if h.likeness is None else f' {h.likeness:.2f}'}[/]")
                          for h in one.heard)
        table.add_row(escape(one.series), one.id, escape(one.name), escape(one.person), one.gender,
                      "" if one.pitch_hz is None else f"{one.pitch_hz:.0f} Hz", voices, heard)
    plain = [{"id": one.id, **one.model_dump(mode="json", exclude={"number"})} for one in found]
    answer(as_json, {"members": plain}, table if found else "Nobody yet: the cast is filled by `infinidub run`")
    return 0


# -- consent ----------------------------------------------------------------------------------------------------------


def consent_add(person: Annotated[str, typer.Option(help="Who agreed.", show_default=False)],
                kind: Annotated[Kind, typer.Option(help="That a voice is imitated, or a picture made anew.",
                                                   show_default=False)],
                scope: Annotated[str, typer.Option(help="A series, an episode (series/id), or '*' for everything.",
                                                   show_default=False)],
                lang: Annotated[list[str] | None, typer.Option(metavar="TAG", show_default=False, help=
                                                               "Only for this language. Repeatable.")] = None,
                expires: Annotated[str, typer.Option(metavar="DATE", show_default=False,
                                                     help="Its last day, e.g. 2027-12-31.")] = "",
                evidence: Annotated[str, typer.Option(help="What proves it: a contract's number, a letter.",
                                                      show_default=False)] = "",
                file: Annotated[Path | None, typer.Option(help="A file that proves it; its hash is noted.",
                                                          show_default=False)] = None,
                by: By = None, out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
                as_json: Json = False) -> int:
    """Record that a person agreed to be imitated or shown."""
    from flows.jobs import parse_tag
    from tasks.consent import record_consent
    from tasks.store import hash_file

    try:
        last = date.fromisoformat(expires) if expires else None
    except ValueError:
        raise InputError(f"{expires!r} is no date", where="--expires", hint="Write for example 2027-12-31") from None
    languages = [parse_tag(tag, "--lang") for tag in lang or ()]
    digest = hash_file(file) if file else ""
    space = _space(out, state, config, assignments, existing=False)
    return _consents([record_consent(space.ledger, person, kind, scope, who(by), languages=languages,
                                     expires=last, evidence=evidence, evidence_sha256=digest)], as_json)


def consent_list(person: Annotated[str, typer.Option(help="Only this person's.", show_default=False)] = "",
                 out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
                 as_json: Json = False) -> int:
    """Show who agreed to what."""
    from tasks.consent import consents

    return _consents(consents(_space(out, state, config, assignments).ledger, person), as_json)


def consent_revoke(number: Annotated[int, typer.Argument(help="Number of the record.", show_default=False)],
                   by: By = None, out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
                   as_json: Json = False) -> int:
    """Take a consent back: nothing more is made that needs it. Delivered files stay where they are."""
    from tasks.consent import revoke

    return _consents([revoke(_space(out, state, config, assignments).ledger, number, who(by))], as_json)


def _consents(found: Sequence[Consent], as_json: bool) -> int:
    table, today = Table(box=None, header_style="bold", pad_edge=False), datetime.now(UTC).date()
    for name in ("", "person", "kind", "for", "languages", "until", "proved by", "recorded", "state"):
        table.add_column(name)
    for one in found:
        state = f"[red]revoked {one.revoked:%Y-%m-%d} by {escape(one.revoked_by)}[/]" if one.revoked else \
            "[red]expired[/]" if one.expired(today) else "[green]holds[/]"
        proof = " ".join(filter(None, [escape(one.evidence), one.evidence_sha256[:12]]))
        table.add_row(str(one.id), escape(one.person), one.kind, escape(one.scope), " ".join(one.languages) or "all",
                      one.expires or "–", proof, f"{one.recorded:%Y-%m-%d} by {escape(one.recorded_by)}", state)
    answer(as_json, {"consents": [one.model_dump(mode="json") for one in found]},
           table if found else "No consent is recorded")
    return 0


def _space(out: Path | None, state: Path | None, config: Path | None, assignments: Sequence[str] | None, *,
           existing: bool = True) -> Workspace:
    from flows.wiring import open_workspace

    given: dict[str, Any] = flags(out, state, None, assignments)
    return open_workspace(load_settings(config, given), existing=existing)


def _line(text: str | None, where: str) -> str | None:
    """One line of printable text."""
    if text is None:
        return None
    if not text.isprintable() or len(text) > 200:
        raise InputError("must be one line of printable text", where=where)
    return text.strip()
