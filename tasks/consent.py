"""Consent: what people agreed to, who may therefore be imitated or shown, and what stood behind a delivered file.

To imitate a person's voice from a sample needs his consent, always; to make the picture of a named person anew needs it
in production. A record says who, what (voice or likeness), for which series or episode, which languages and until when,
and what proves it. It is looked at when the work is asked for, whether that is done already or not; neither it nor the
day enters a recipe. Records are never deleted: they are revoked, and `trace` shows what once counted.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Literal

import sqlalchemy as sa
from pydantic import ConfigDict
from sqlalchemy.orm import Session

from models import tables as t
from models.errors import ConsentError, InputError
from models.records import Record
from tasks.ledger import Ledger, batches

Kind = Literal["voice", "likeness"]
EVERYTHING = "*"
MEANING: dict[str, str] = {"voice": "that the voice is imitated", "likeness": "that the picture is made anew"}


class Consent(Record):
    """What a person agreed to."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)

    id: int
    person: str
    kind: Kind
    scope: str
    """A series, an episode (series/id), or '*' for everything."""
    languages: tuple[str, ...]
    """BCP-47; 'es' holds for es-MX too. None: all."""
    expires: str
    """ISO date of its last day, in UTC; '' for never."""
    evidence: str
    evidence_sha256: str
    """Of a file that proves it, '' where none is noted."""
    recorded_by: str
    recorded: datetime
    revoked_by: str
    revoked: datetime | None

    def expired(self, today: date) -> bool:
        """Whether its last day is over."""
        return bool(self.expires) and date.fromisoformat(self.expires) < today

    def covers(self, episode: str, language: str) -> bool:
        """Whether it is about this episode in this language."""
        about = self.scope in {EVERYTHING, episode} or episode.startswith(f"{self.scope}/")
        spoken = [tag.lower() for tag in self.languages]
        return about and (not spoken or any(f"{language.lower()}-".startswith(f"{tag}-") for tag in spoken))


class Need(Record):
    """A consent without which something must not be made."""

    person: str
    kind: Kind


def likenesses(people: Iterable[str]) -> list[Need]:
    """What must be agreed to before the pictures of people are made anew."""
    return [Need(person=person, kind="likeness") for person in people]


def record_consent(ledger: Ledger, person: str, kind: Kind, scope: str, by: str, *, languages: Sequence[str] = (),
                   expires: date | None = None, evidence: str = "", evidence_sha256: str = "",
                   now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Consent:
    """Write down that a person agreed.

    Raises:
        InputError: Nothing proves it, it has expired already, or nobody is named.
    """
    person = " ".join(person.split())
    if not person or not person.isprintable() or len(person) > 200:
        raise InputError("must be the name of a person, on one line", where="--person")
    if not scope.strip() or not scope.isprintable():
        raise InputError("must be a series, an episode (series/id), or * for everything", where="--scope")
    if not evidence.strip() and not evidence_sha256:
        raise InputError("what proves it is not said", where="--evidence",
                         hint="Name the contract with --evidence, or the file that holds it with --file")
    if expires and expires < now().date():
        raise InputError(f"{expires.isoformat()} is over", where="--expires")
    row = t.ConsentRow(person=person, kind=kind, scope=scope.strip(), languages=list(languages),
                       expires=expires.isoformat() if expires else "", evidence=evidence.strip(),
                       evidence_sha256=evidence_sha256, recorded_by=by, recorded=now(), revoked_by="", revoked=None)
    with ledger.session() as session:
        session.add(row)
        session.flush()
        return Consent.model_validate(row)


def consents(ledger: Ledger, person: str = "") -> tuple[Consent, ...]:
    """All records, or those of one person, the oldest first."""
    with ledger.session() as session:
        rows = session.scalars(sa.select(t.ConsentRow).order_by(t.ConsentRow.id)).all()
    return tuple(Consent.model_validate(row) for row in rows if not person or _same(row.person, person))


def revoke(ledger: Ledger, number: int, by: str) -> Consent:
    """Take a consent back: from now on nothing is made that needs it.

    Raises:
        InputError: There is no such record, or it was revoked before.
    """
    with ledger.session() as session:
        row = session.get(t.ConsentRow, number)
        if row is None or row.revoked:
            said = "was revoked already" if row else "is not there"
            raise InputError(f"consent {number} {said}", where="consent",
                             hint="`infinidub consent list` shows all")
        row.revoked, row.revoked_by = datetime.now(UTC), by
        session.flush()
        return Consent.model_validate(row)


def require(ledger: Ledger, needs: Iterable[Need], episode: str, language: str, *,
            now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> tuple[Consent, ...]:
    """The consents that stand behind what is about to be made.

    Raises:
        ConsentError: One is missing, expired or revoked; the message names the person and the command that mends it.
    """
    wanted = sorted(set(needs), key=lambda need: (need.person, need.kind))
    if not wanted:
        return ()
    known, today = consents(ledger), now().date()
    found = list[Consent]()
    for need in wanted:
        his = [one for one in known if one.kind == need.kind and _same(one.person, need.person)]
        good = [one for one in his if one.covers(episode, language) and not one.revoked and not one.expired(today)]
        if not good:
            raise _refusal(need, his, episode, language, today)
        found.append(good[-1])
    return tuple(found)


def _refusal(need: Need, his: Sequence[Consent], episode: str, language: str, today: date) -> ConsentError:
    """What is wrong with the newest record that is about this, or else with all of them."""
    near = [one for one in his if one.covers(episode, language)]
    if near:
        last = near[-1]
        why = f"was revoked on {last.revoked:%Y-%m-%d}" if last.revoked else f"expired on {last.expires}"
        why = f"consent {last.id} {why}"
    else:
        why = f"what is recorded holds for {', '.join(map(_extent, his[-3:]))}" if his else "none is recorded"
    scope = episode.rpartition("/")[0] or episode
    return ConsentError(
        f"{need.person} has not agreed {MEANING[need.kind]} ({need.kind}): {why}",
        hint=f"If there is a consent: infinidub consent add --person {shlex.quote(need.person)} --kind {need.kind} "
             f'--scope {shlex.quote(scope)}{f" --lang {language}" if language else ""} --evidence "…"')


def _extent(consent: Consent) -> str:
    return f"{consent.scope} in {'/'.join(consent.languages) or 'all languages'}"


def _same(one: str, other: str) -> bool:
    return " ".join(one.casefold().split()) == " ".join(other.casefold().split())


# -- provenance -------------------------------------------------------------------------------------------------------


def note_uses(ledger: Ledger, recipe: str, behind: Iterable[Consent], run_id: str) -> None:
    """Note which consents stood behind a result when it was asked for."""
    with ledger.session() as session:
        known = set(session.scalars(sa.select(t.ConsentUse.consent).where(t.ConsentUse.recipe == recipe)))
        session.add_all(t.ConsentUse(recipe=recipe, consent=one.id, run_id=run_id, noted=datetime.now(UTC))
                        for one in behind if one.id not in known)


def consents_behind(session: Session, recipes: Iterable[str]) -> dict[str, tuple[Consent, ...]]:
    """Recipe → the consents that were noted for it."""
    found: dict[str, tuple[Consent, ...]] = {}
    for some in batches(recipes):
        rows = session.execute(sa.select(t.ConsentUse.recipe, t.ConsentRow).join(
            t.ConsentRow, t.ConsentRow.id == t.ConsentUse.consent).where(t.ConsentUse.recipe.in_(some))
            .order_by(t.ConsentRow.id))
        for recipe, row in rows:
            found[recipe] = (*found.get(recipe, ()), Consent.model_validate(row))
    return found
