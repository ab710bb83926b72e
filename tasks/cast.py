"""The cast of a series: who its speakers are, from episode to episode, and which voice each has in each language.

A speaker that an episode names is the member of that name. One that it does not name is the member whose voice, as
heard in other episodes, is like his: embeddings of the same engine are compared by cosine, no two speakers of an
episode are the same member, and who is nearly as much like another is taken for somebody new. What was once noted
stays: later episodes join the cast, they change nothing in it. What a person decides wins over all that is found.

Voices are chosen once for all episodes: best first, by gender, another one for each member while there are enough.
Two runs that write at the same time are kept apart by the tables' keys: the second looks again at what the first left.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Literal, TypeVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models import tables as t
from models.errors import InfrastructureError, InputError
from models.ports import Voice
from models.recipe import canonical, sha256
from models.records import CastVoice, EngineRef, Record, ShotRequest, Speaker
from tasks.casting import default_voice, gender_of
from tasks.ledger import Ledger

R = TypeVar("R")
Gender = Literal["female", "male"]

MARGIN = 0.03
"""Cosine by which a member must be more like a speaker than the next one is, of those whom nobody else is."""
TRIES = 20
"""How often a change is begun anew because another writer was first."""
NUMBER = re.compile(r"M([1-9][0-9]{0,6})")
MOST_TOLD = 20
"""Members named in one message."""


class MemberVoice(Record):
    """A member's voice in one language."""

    language: str
    synthesizer: str
    voice: str
    chosen: Literal["default", "person"]


class Heard(Record):
    """Where a member was heard."""

    episode: str
    speaker: str
    found: Literal["voice", "name", "new", "person"]
    """How it is known that it is he: by his voice, by his name, not at all, or since a person says so."""
    likeness: float | None


class Member(Record):
    """Somebody who speaks in a series."""

    series: str
    number: int
    name: str = ""
    gender: str = ""
    """'female', 'male' or '': as a person says, else by the pitch."""
    pitch_hz: float | None = None
    """Median over the episodes."""
    person: str = ""
    """Name of the real person who is seen and heard; set by a person only."""
    names: tuple[str, ...] = ()
    """What episodes call him."""
    voices: tuple[MemberVoice, ...] = ()
    heard: tuple[Heard, ...] = ()

    @property
    def id(self) -> str:
        """M1, M2 … in the order in which they were first heard."""
        return f"M{self.number}"

    @property
    def label(self) -> str:
        """His name, with his number; for people."""
        return f"{self.name} ({self.id})" if self.name else self.id


def series_of(episode: str) -> str:
    """The series of an episode; one that has none is its own."""
    return episode.rpartition("/")[0] or episode


def engine_space(ref: EngineRef) -> str:
    """What embeddings of a diarizer can be compared with: those of the same weights."""
    own = {"engine": ref.name, "version": ref.version, "weights": ref.weights,
           "options": {name: ref.options[name] for name in ("model", "sha256") if name in ref.options}}
    return sha256(canonical(own))[:16]


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass
class _Register:
    """The rows of a series, those of members that were merged away followed to whom they are now."""

    members: dict[int, t.CastMember]
    speakers: list[t.CastSpeaker]
    voices: list[t.CastVoiceRow]

    @classmethod
    def of(cls, session: Session, series: str) -> _Register:
        # Read first: who comes meanwhile is not seen at all, so that his number is taken again, which the key refuses.
        rows = session.scalars(sa.select(t.CastMember).where(t.CastMember.series == series)
                               .order_by(t.CastMember.number)).all()
        members = {row.number: row for row in rows}
        speakers = session.scalars(sa.select(t.CastSpeaker).where(t.CastSpeaker.series == series)
                                   .order_by(t.CastSpeaker.episode, t.CastSpeaker.speaker)).all()
        voices = session.scalars(sa.select(t.CastVoiceRow).where(t.CastVoiceRow.series == series).order_by(
            t.CastVoiceRow.member, t.CastVoiceRow.language, t.CastVoiceRow.synthesizer)).all()
        return cls(members, [row for row in speakers if row.member in members],
                   [row for row in voices if row.member in members])

    def live(self, number: int) -> int:
        """Whom a member turned out to be."""
        while (into := self.members[number].merged_into) is not None:
            number = into
        return number

    def named(self, name: str) -> int | None:
        """The member of a name: one that a person gave, or that an episode uses."""
        wanted = _folded(name)
        given = [row.number for row in self.members.values() if _folded(row.name) == wanted]
        used = [row.member for row in self.speakers if _folded(row.name) == wanted]
        return next((self.live(number) for number in [*given, *used]), None) if wanted else None

    def sounds(self, space: str, without: Iterable[int]) -> dict[int, NDArray[np.float64]]:
        """Member → what his voice is like: the mean over all episodes, of length 1."""
        vectors: dict[int, list[list[float]]] = {}
        for row in self.speakers:
            if row.space == space and row.embedding and (number := self.live(row.member)) not in set(without):
                vectors.setdefault(number, []).append(row.embedding)
        return {number: _unit(np.mean(vectors[number], axis=0)) for number in sorted(vectors)}

    def member(self, number: int) -> Member:
        row = self.members[number]
        heard = [one for one in self.speakers if self.live(one.member) == number]
        pitches = [one.pitch_hz for one in heard if one.pitch_hz is not None]
        pitch = round(median(pitches), 1) if pitches else None
        names = tuple(dict.fromkeys(one.name for one in heard if one.name))
        return Member(series=row.series, number=number, name=row.name or (names[0] if names else ""),
                      gender=row.gender or gender_of(pitch), pitch_hz=pitch, person=row.person, names=names,
                      heard=tuple(Heard.model_validate({key: getattr(one, key) for key in Heard.model_fields})
                                  for one in heard),
                      voices=tuple(MemberVoice.model_validate({key: getattr(one, key) for key in
                                                               MemberVoice.model_fields})
                                   for one in self.voices if one.member == number))


def members(ledger: Ledger, series: str = "") -> tuple[Member, ...]:
    """The cast of a series, or of all; those that were merged into another are not listed."""
    with ledger.session() as session:
        names = [series] if series else session.scalars(sa.select(t.CastMember.series).distinct()
                                                        .order_by(t.CastMember.series)).all()
        registers = [_Register.of(session, name) for name in names]
        return tuple(one.member(number) for one in registers for number, row in one.members.items()
                     if row.merged_into is None)


def cast_of(ledger: Ledger, episode: str) -> dict[str, Member]:
    """Speaker → member, of an episode; empty where it was not looked at yet."""
    with ledger.session() as session:
        register = _Register.of(session, series_of(episode))
        return {row.speaker: register.member(register.live(row.member))
                for row in register.speakers if row.episode == episode}


# -- who is who -------------------------------------------------------------------------------------------------------


def match(voices: Mapping[str, Sequence[float]], known: Mapping[int, NDArray[np.float64]],
          same_voice: float) -> dict[str, tuple[int, float]]:
    """Which known voice each voice is, if any: no two are the same one.

    Args:
        voices: Speaker → embedding of length 1.
        known: Member → embedding of length 1.
        same_voice: Cosine from which two may be one voice.

    Returns:
        Speaker → (member, cosine), of those that are clearly one of them: by `MARGIN` more like him than like any other
        whom nobody else is.
    """
    from scipy.optimize import linear_sum_assignment

    names, numbers = sorted(voices), sorted(known)
    if not names or not numbers:
        return {}
    likeness = np.round(np.array([voices[name] for name in names]) @ np.array([known[n] for n in numbers]).T, 6)
    rows, columns = linear_sum_assignment(np.maximum(likeness - same_voice, 0), maximize=True)
    pairs = {int(i): int(k) for i, k in zip(rows, columns, strict=True) if likeness[i, k] >= same_voice}
    free = [k for k in range(len(numbers)) if k not in pairs.values()]
    return {names[i]: (numbers[k], float(likeness[i, k])) for i, k in pairs.items()
            if likeness[i, k] - max((likeness[i, other] for other in free), default=-1.0) >= MARGIN}


def enrol(ledger: Ledger, episode: str, speakers: Sequence[Speaker], space: str, same_voice: float,
          ) -> dict[str, Member]:
    """Note who the speakers of an episode are; what is noted stays, unless the label means another voice by now.

    Args:
        ledger: Where the cast is kept.
        episode: Full id.
        speakers: In order of appearance.
        space: Of their embeddings (see `engine_space`).
        same_voice: Cosine from which two of them are one voice.

    Returns:
        Speaker → member.
    """
    return _settled(ledger, lambda session: _enrol(session, episode, speakers, space, same_voice))


def _enrol(session: Session, episode: str, speakers: Sequence[Speaker], space: str, same_voice: float,
           ) -> dict[str, Member]:
    series = series_of(episode)
    register = _Register.of(session, series)
    by_id = {speaker.id: speaker for speaker in speakers}
    stale = [row for row in register.speakers if row.episode == episode and row.found != "person"
             and (row.speaker not in by_id or _another(row, by_id[row.speaker], space, same_voice))]
    rows = {row.speaker: row for row in register.speakers if row.episode == episode and row not in stale}
    taken = {register.live(row.member) for row in rows.values()}
    sounds = register.sounds(space, taken)  # also as heard under labels that mean another voice by now
    for row in stale:
        register.speakers.remove(row)
        session.delete(row)
    session.flush()
    fresh = [speaker for speaker in speakers if speaker.id not in rows]
    found: dict[str, tuple[int | None, str, float | None]] = {}
    for speaker in fresh:
        number = register.named(speaker.name)
        if number is not None and number not in taken:
            found[speaker.id] = number, "name", None
            taken.add(number)
    sounds = {number: sound for number, sound in sounds.items() if number not in taken}
    unknown = [speaker for speaker in fresh if speaker.id not in found and speaker.embedding]
    for name, (number, likeness) in match({s.id: s.embedding for s in unknown}, sounds, same_voice).items():
        if not (by_id[name].name and register.member(number).name):  # both are named, and not alike
            found[name] = number, "voice", round(likeness, 4)
    for speaker in fresh:
        number, how, like = found.get(speaker.id, (None, "new", None))
        if number is None:
            number = max(register.members, default=0) + 1
            register.members[number] = t.CastMember(series=series, number=number, name="", gender="", person="",
                                                    merged_into=None, author="", updated=_now())
            session.add(register.members[number])
            session.flush()  # one by one, in order: of two writers the second stops here, before it holds anything
        rows[speaker.id] = t.CastSpeaker(episode=episode, speaker=speaker.id, series=series, member=number, found=how,
                                         likeness=like, name="", pitch_hz=None, embedding=[], space="", updated=_now())
        session.add(rows[speaker.id])
        register.speakers.append(rows[speaker.id])
    for speaker in speakers:
        _measured(rows[speaker.id], speaker, space)
    session.flush()
    _forget(session, register, {row.member for row in stale})
    return {speaker.id: register.member(register.live(rows[speaker.id].member)) for speaker in speakers}


def _another(row: t.CastSpeaker, speaker: Speaker, space: str, same_voice: float) -> bool:
    """Whether a label means somebody else than it did: he has another name, or clearly another voice."""
    if row.name != speaker.name:
        return True
    if row.space != space or not row.embedding or not speaker.embedding:
        return False
    return float(np.dot(row.embedding, speaker.embedding)) < same_voice


def _measured(row: t.CastSpeaker, speaker: Speaker, space: str) -> None:
    """Write down what a speaker is like, where it is not what is written."""
    now = {"name": speaker.name, "pitch_hz": speaker.pitch_hz, "embedding": list(speaker.embedding),
           "space": space if speaker.embedding else ""}
    if any(getattr(row, key) != value for key, value in now.items()):
        for key, value in {**now, "updated": _now()}.items():
            setattr(row, key, value)


def _forget(session: Session, register: _Register, numbers: Set[int]) -> None:
    """Remove those members of whom nothing is heard any more and of whom nobody said anything."""
    left = {row.member for row in register.speakers} | {row.merged_into for row in register.members.values()}
    said = {row.member for row in register.voices if row.chosen == "person"}
    for number in numbers - left - said:
        if not register.members[number].author:
            for voice in [voice for voice in register.voices if voice.member == number]:
                register.voices.remove(voice)
                session.delete(voice)
            session.flush()
            session.delete(register.members.pop(number))
            session.flush()


# -- voices -----------------------------------------------------------------------------------------------------------


def synthesizer_key(ref: EngineRef) -> str:
    """Whose voices are meant: an engine's, or those of one model of it where it may have any."""
    model = str(ref.options.get("sha256") or "")
    return f"{ref.name}:{model[:12]}" if model else ref.name


def voices_of(ledger: Ledger, episode: str, speakers: Sequence[Speaker], language: str, synthesizer: str,
              given: Mapping[str, str], offered: Callable[[], Sequence[Voice]] | None) -> tuple[CastVoice, ...] | None:
    """Every speaker's voice in one language: the catalog's, else the member's; who has none gets one for good.

    Args:
        ledger: Where the cast is kept.
        episode: Full id; its speakers are enrolled.
        speakers: Who needs a voice.
        language: BCP-47.
        synthesizer: Whose voices (see `synthesizer_key`).
        given: The catalog's cast: speaker id, name or member (M1) → voice.
        offered: Says which voices there are, best first; None: nothing is chosen, only looked up.

    Returns:
        In the order of `speakers`; None where one has no voice yet and none is chosen.
    """
    known, found = cast_of(ledger, episode), list[CastVoice]()
    for speaker in speakers:
        member = known.get(speaker.id)
        if member is None:
            return None
        keys = (speaker.id, speaker.name, *((member.name, *member.names)), member.id)
        voice = next((given[key] for key in keys if key in given), "")
        own = next(((one.voice, one.chosen) for one in member.voices
                    if (one.language, one.synthesizer) == (language, synthesizer)), None)
        if not voice and own is None:
            if offered is None:
                return None
            own = _choose(ledger, member, language, synthesizer, offered(), list(given.values())), "default"
        chosen = ("catalog", voice) if voice else (own[1], own[0]) if own else ("", "")
        found.append(CastVoice.model_validate({"speaker": speaker.id, "member": member.id, "name": member.name,
                                               "chosen": chosen[0], "voice": chosen[1]}))
    return tuple(found)


def refuse_defaults(cast: Sequence[CastVoice], series: str, language: str) -> None:
    """Refuse voices that nobody chose.

    Raises:
        InputError: There are such; the message names who has them, and the commands that keep them.
    """
    open_ = [one for one in cast if one.chosen == "default"]
    if open_:
        first = open_[:MOST_TOLD]
        names = ", ".join(f"{one.name} ({one.member})" if one.name else one.member for one in first)
        more = f" and {len(open_) - len(first)} more" if len(open_) > len(first) else ""
        kept = ", ".join(f"`infinidub cast set {series} {one.member} --voice "
                         f"{shlex.quote(f'{language}={one.voice}')}`" for one in first)
        raise InputError(f"nobody chose a voice for {names}{more}", where="cast",
                         hint=f"Choose one each, or keep what is proposed: {kept}")


def people_of(known: Mapping[str, Member], given: Mapping[str, str]) -> dict[str, str]:
    """Speaker → the real person that he is, of those of whom it is known.

    Args:
        known: Speaker → member.
        given: The catalog's: speaker id, name or member (M1) → person; it wins over the register.
    """
    found = {speaker: next((given[key] for key in (speaker, member.name, *member.names, member.id) if key in given),
                           member.person) for speaker, member in known.items()}
    return {speaker: person for speaker, person in found.items() if person}


def shown(ledger: Ledger, episode: str, requests: Iterable[ShotRequest], given: Mapping[str, str]) -> tuple[str, ...]:
    """The real people whose picture these shots make anew, as far as somebody named them.

    They are those who speak in a shot; and of the catalog's those whom nobody in the series is heard as, for they may
    be seen in any.

    Args:
        ledger: The database.
        episode: Full id.
        requests: Its shots that are generated.
        given: The catalog's people.
    """
    speaking = {track.speaker for request in requests for track in request.tracks}
    if not speaking:
        return ()
    known, heard = people_of(cast_of(ledger, episode), given), names_of(ledger, series_of(episode))
    return tuple(sorted({known[speaker] for speaker in speaking & known.keys()}
                        | {person for name, person in given.items() if name not in heard}))


def names_of(ledger: Ledger, series: str) -> frozenset[str]:
    """Whatever the cast of a series goes by."""
    return frozenset(name for one in members(ledger, series)
                     for name in (one.id, one.name, *one.names, *(h.speaker for h in one.heard)))


def _choose(ledger: Ledger, member: Member, language: str, synthesizer: str, offered: Sequence[Voice],
            reserved: Sequence[str]) -> str:
    """The default voice of a member, noted; whoever was first decides."""

    def choose(session: Session) -> str:
        rows = _voice_rows(session, member.series, language, synthesizer)
        own = next((row for row in rows if row.member == member.number), None)
        if own is None:
            voice = default_voice(member.gender, offered, [*reserved, *(row.voice for row in rows)])
            own = _voice_row(member, language, synthesizer, voice, rows)
            session.add(own)
            session.flush()
        return own.voice

    return _settled(ledger, choose)


def _voice_rows(session: Session, series: str, language: str, synthesizer: str) -> list[t.CastVoiceRow]:
    return list(session.scalars(sa.select(t.CastVoiceRow).where(
        t.CastVoiceRow.series == series, t.CastVoiceRow.language == language,
        t.CastVoiceRow.synthesizer == synthesizer).order_by(t.CastVoiceRow.member)))


def _voice_row(member: Member, language: str, synthesizer: str, voice: str, rows: Sequence[t.CastVoiceRow],
               author: str = "") -> t.CastVoiceRow:
    shares = {row.share for row in rows if row.voice == voice}
    return t.CastVoiceRow(series=member.series, member=member.number, language=language, synthesizer=synthesizer,
                          voice=voice, share=min(set(range(len(shares) + 1)) - shares), author=author,
                          chosen="person" if author else "default", updated=_now())


# -- what people decide -----------------------------------------------------------------------------------------------


def find_member(ledger: Ledger, series: str, who: str) -> Member:
    """The member that a person means by M1 or a name.

    Raises:
        InputError: There is none, or more than one; the message lists them.
    """
    there = members(ledger, series)
    if not there:
        known = sorted({one.series for one in members(ledger)})
        raise InputError(f"nobody is known of a series {series!r}", where="cast",
                         hint=f"There are: {', '.join(known)}" if known else "Run a catalog first")
    number, wanted = NUMBER.fullmatch(who), _folded(who)
    found = [one for one in there if number and one.number == int(number[1])] or [
        one for one in there if wanted and wanted in {_folded(name) for name in (one.name, *one.names)}]
    if len(found) != 1:
        raise InputError(f"{'nobody' if not found else 'more than one'} in {series} is called {who!r}", where="cast",
                         hint=f"There are: {', '.join(one.label for one in there[:40])}")
    return found[0]


def describe_member(ledger: Ledger, member: Member, author: str, *, name: str | None = None,
                    gender: Gender | None = None, person: str | None = None) -> None:
    """Say who a member is; None leaves a field as it is, and '' takes it back.

    Raises:
        InputError: Another member has the name.
    """
    if name:
        twin = next((one for one in members(ledger, member.series) if one.number != member.number
                     and _folded(name) in {_folded(other) for other in (one.name, *one.names)}), None)
        if twin:
            raise InputError(f"{twin.label} is called so already", where="cast",
                             hint=f"If they are one: infinidub cast merge {member.series} {member.id} {twin.id}")
    values = {key: value for key, value in (("name", name), ("gender", gender), ("person", person))
              if value is not None}
    with ledger.session() as session:
        session.execute(sa.update(t.CastMember).where(
            t.CastMember.series == member.series, t.CastMember.number == member.number)
            .values(**values, author=author, updated=_now()))


def set_voice(ledger: Ledger, member: Member, language: str, synthesizer: str, voice: str, author: str) -> None:
    """Give a member a voice for good."""

    def change(session: Session) -> None:
        rows = _voice_rows(session, member.series, language, synthesizer)
        for row in [row for row in rows if row.member == member.number]:
            rows.remove(row)
            session.delete(row)
        session.flush()
        session.add(_voice_row(member, language, synthesizer, voice, rows, author))
        session.flush()

    _settled(ledger, change)


def merge(ledger: Ledger, one: Member, into: Member, author: str) -> None:
    """Say that two members are one: `into` keeps his voices, and takes over those that only the other has.

    Raises:
        InputError: They are one already.
    """
    if one.number == into.number:
        raise InputError(f"{one.label} and {into.label} are one already", where="cast")

    def change(session: Session) -> None:
        session.execute(sa.select(t.CastMember.number).where(t.CastMember.series == one.series)
                        .order_by(t.CastMember.number).with_for_update())  # two merges must not make a circle
        register = _Register.of(session, one.series)
        if register.live(into.number) != into.number or register.live(one.number) != one.number:
            raise InputError("somebody else merged one of them just now", where="cast", hint="Look at `cast list`")
        kept = {(row.language, row.synthesizer) for row in register.voices if row.member == into.number}
        for row in [row for row in register.voices if row.member == one.number]:
            if (row.language, row.synthesizer) in kept:
                session.delete(row)
            else:
                row.member = into.number
        old, new = register.members[one.number], register.members[into.number]
        old.merged_into, old.author, old.updated = into.number, author, _now()
        for field in ("name", "gender", "person"):
            setattr(new, field, getattr(new, field) or getattr(old, field))
        new.author, new.updated = author, _now()
        session.flush()

    _settled(ledger, change)


def assign(ledger: Ledger, episode: str, speaker: str, who: str, author: str) -> Member:
    """Say who a speaker of an episode is: a member, or 'new' for somebody else than it seemed.

    Raises:
        InputError: There is no such speaker, or no such member.
    """
    there = cast_of(ledger, episode)
    if speaker not in there:
        raise InputError(f"{episode} has no speaker {speaker!r}", where="cast",
                         hint=f"There are: {', '.join(there)}" if there else "Run it first, as far as its speakers")
    series = series_of(episode)
    chosen = None if who == "new" else find_member(ledger, series, who).number

    def change(session: Session) -> int:
        number = chosen
        if number is None:
            highest = session.scalar(sa.select(sa.func.max(t.CastMember.number)).where(t.CastMember.series == series))
            number = (highest or 0) + 1
            session.add(t.CastMember(series=series, number=number, name="", gender="", person="", merged_into=None,
                                     author=author, updated=_now()))
            session.flush()
        session.execute(sa.update(t.CastSpeaker).where(
            t.CastSpeaker.episode == episode, t.CastSpeaker.speaker == speaker)
            .values(member=number, found="person", likeness=None, updated=_now()))
        return number

    return find_member(ledger, series, f"M{_settled(ledger, change)}")


def _settled(ledger: Ledger, change: Callable[[Session], R]) -> R:
    """Make a change in one transaction; where another writer was first, anew from what he left."""
    for _ in range(TRIES):
        try:
            with ledger.session() as session:
                return change(session)
        except InfrastructureError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
    raise InfrastructureError("others change the cast all the time", where="database", hint="Run the command again")


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = vector / max(1e-9, float(np.linalg.norm(vector)))
    return scaled


def _now() -> datetime:
    return datetime.now(UTC)
