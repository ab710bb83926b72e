"""The review of translated texts: edits, approvals, locks, the gate after translation, and the log of it all.

A line is approved as it is: its approval lapses where its source or its text changes. A language may go on when all of
its lines are approved or locked. Every change is one transaction that holds the language's row, so that of two who
approve the last lines only one is told that the language may go on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from models import tables as t
from models.errors import AwaitingReviewError, InputError
from models.recipe import canonical, sha256
from models.records import Line, LineEdit, LineId, Request, Transcript, TranslatedLine, Translation
from models.review import Review, ReviewLine, Said, State, digest
from tasks.ledger import Ledger
from tasks.step import Work, step

TIME_OUT = "time-out"
"""Who approves what nobody looked at in time."""
HOUR = 3600
MAX_TEXT = 2000
"""Characters of one line: five minutes of speech."""


@dataclass(frozen=True)
class Event:
    """An entry of the log."""

    at: datetime
    who: str
    what: str
    episode: str
    language: str
    line: str
    details: dict[str, Any]


@dataclass(frozen=True)
class Approved:
    """What came of an approval, a lock or its end."""

    lines: int
    """How many were not approved (locked, unlocked) before."""
    opened: bool
    """All is approved now, and something waits for a run: whoever is told so starts it."""


# -- looking ----------------------------------------------------------------------------------------------------------


def load(ledger: Ledger, episode: str, language: str) -> Review:
    """A language as it stands.

    Raises:
        InputError: It was not translated yet.
    """
    with ledger.session() as session:
        return _load(session, episode, language)


def reviews(ledger: Ledger, episodes: Collection[str] | None = None) -> list[tuple[str, str, State]]:
    """Episode, language and state of everything that was translated, in order."""
    with ledger.session() as session:
        rows = session.scalars(sa.select(t.Review).order_by(t.Review.episode, t.Review.language))
        return [(row.episode, row.language, _state(row)) for row in rows if episodes is None or row.episode in episodes]


def log(ledger: Ledger, episode: str, language: str = "") -> list[Event]:
    """Everything that was done to an episode's texts, oldest first."""
    query = sa.select(t.ReviewEvent).where(t.ReviewEvent.episode == episode).order_by(t.ReviewEvent.id)
    with ledger.session() as session:
        return [Event(row.at, row.who, row.what, row.episode, row.language, row.line, row.details)
                for row in session.scalars(query.where(t.ReviewEvent.language == language) if language else query)]


def spoken(ledger: Ledger, episode: str, language: str) -> dict[LineId, dict[str, Any]]:
    """How lines were voiced when the language was finished last: `SpokenLine` as JSON, by line."""
    with ledger.session() as session:
        return {name: row.report for name, row in _rows(session, t.LineRow, episode, language).items()}


def source_record(ledger: Ledger, episode: str) -> dict[str, Any] | None:
    """The episode's `Source` as JSON, once it was read in."""
    with ledger.session() as session:
        row = session.get(t.Episode, episode)
        return row.source if row else None


def _load(session: Session, episode: str, language: str, *, change: bool = False) -> Review:
    """Args: change: hold the language's row until the transaction ends."""
    row = session.get(t.Review, (episode, language), with_for_update=change)
    if row is None:
        raise InputError(f"{episode} was not translated into {language} yet", where="review",
                         hint="Run it; what it says is then here")
    edits, locks, approvals = (_rows(session, table, episode, language) for table in (t.Edit, t.Lock, t.Approval))
    found = session.scalars(_mine(t.TargetLine, episode, language).order_by(t.TargetLine.place))
    lines = tuple(_line(one, edits.get(one.line), locks.get(one.line), approvals.get(one.line)) for one in found)
    left = None if row.deadline is None else max(0.0, row.deadline - (session.scalar(sa.select(t.clock())) or 0.0))
    return Review(episode, language, _state(row), lines, row.since, left, row.on_timeout)


def _state(row: t.Review) -> State:
    return "awaiting" if row.state == "awaiting" else "approved" if row.state == "approved" else "open"


def _line(row: t.TargetLine, edit: t.Edit | None, lock: t.Lock | None, approval: t.Approval | None) -> ReviewLine:
    text, origin = row.text, row.origin
    if lock is not None:
        text, origin = lock.text, "edit"
    elif edit is not None and edit.source == sha256(row.source.encode()):
        text, origin = edit.text, "edit"
    stands = approval is not None and approval.digest == digest(row.source, text)
    return ReviewLine(
        row.line, row.start, row.end, row.speaker, row.source, text, origin, tuple(row.flags), tuple(row.candidates),
        Said(approval.who, approval.updated) if approval and stands else None,
        Said(lock.who, lock.updated) if lock else None, lock is not None and lock.source != row.source,
        text != row.text)


def _mine(table: Any, episode: str, language: str) -> Any:
    return sa.select(table).where(table.episode == episode, table.language == language)


def _rows(session: Session, table: Any, episode: str, language: str) -> dict[str, Any]:
    return {row.line: row for row in session.scalars(_mine(table, episode, language))}


# -- what a run asks --------------------------------------------------------------------------------------------------


def edits(ledger: Ledger, episode: str, language: str, lines: Sequence[Line]) -> dict[LineId, LineEdit]:
    """Texts that persons set, as the translate step takes them; a locked one stands whatever its source says now.

    Raises:
        InputError: A locked line is gone, or another one bears its id.
    """
    found, here = ledger.edits(episode, language), {line.id: line for line in lines}
    with ledger.session() as session:
        locks = _rows(session, t.Lock, episode, language)
    for name, lock in locks.items():
        line = here.get(name)
        if line is None or not _same_place(lock, line):
            what = "is gone from the transcript" if line is None else "bears what was said elsewhere now"
            raise InputError(f"{name} is locked, and {what}",
                             hint=f"Unlock it: infinidub review unlock {episode} --lang {language} --line {name}")
        found[name] = LineEdit(text=lock.text, source=sha256(line.text.encode()))
    return found


def _same_place(lock: t.Lock, line: Line) -> bool:
    shared = min(lock.end, line.end) - max(lock.start, line.start)
    return lock.source == line.text or 2 * shared > min(lock.end - lock.start, line.end - line.start)


def note_translation(ledger: Ledger, episode: str, transcript: Transcript, translation: Translation) -> None:
    """Keep what was translated for review; nothing is written where it is what is kept already."""
    language, script = translation.language, _script(transcript, translation)
    with ledger.session() as session:
        row = session.get(t.Review, (episode, language), with_for_update=True)
        if row is not None and row.script == script:
            return
        if row is None:
            session.add(t.Review(episode=episode, language=language, script=script, state="open", since=None,
                                 deadline=None, on_timeout="wait"))
        else:
            row.script = script
        session.execute(sa.delete(t.TargetLine).where(t.TargetLine.episode == episode,
                                                      t.TargetLine.language == language))
        texts = {line.id: line for line in translation.lines}
        session.add_all(_target(episode, language, place, line, texts[line.id])
                        for place, line in enumerate(transcript.lines) if line.id in texts)


def _target(episode: str, language: str, place: int, line: Line, target: TranslatedLine) -> t.TargetLine:
    others = dict.fromkeys(one.text for one in target.candidates if one.text != target.text)
    return t.TargetLine(episode=episode, language=language, line=line.id, place=place, speaker=line.speaker,
                        start=line.start, end=line.end, source=line.text, text=target.text, origin=target.origin,
                        flags=list(target.flags), candidates=list(others))


def _script(transcript: Transcript, translation: Translation) -> str:
    return sha256(canonical(transcript) + canonical(translation))


def gate(ledger: Ledger, episode: str, transcript: Transcript, translation: Translation) -> bool:
    """Whether a language may go on with a translation: True, or False where nobody was asked to review this one yet.

    Writes nothing.

    Raises:
        AwaitingReviewError: Its review was asked for, and is not done.
    """
    with ledger.session() as session:
        row = session.get(t.Review, (episode, translation.language))
        if row is None or row.script != _script(transcript, translation):
            return False
        review = _load(session, episode, translation.language)
    if not review.unapproved or (review.left_s == 0 and review.on_timeout == "approve" and not review.held):
        return True
    if review.state == "awaiting":
        raise awaited(review)
    return False


def awaited(review: Review) -> AwaitingReviewError:
    """What a run says of a language that waits."""
    count, all_of = len(review.unapproved), len(review.lines)
    left = "" if review.left_s is None else f", {review.left_s / HOUR:.1f} h are left" if review.left_s else \
        ", its time is over"
    return AwaitingReviewError(
        f"awaiting review ({count} of {all_of} lines{left})",
        hint=f"Look at it with `infinidub review serve` or `infinidub review export {review.episode} --lang "
             f"{review.language}`, then: infinidub review approve {review.episode} --lang {review.language}")


def ask(ledger: Ledger, episode: str, language: str, *, timeout_h: float, on_timeout: Literal["approve", "wait"],
        ) -> Review:
    """Have a language wait for its review; where it waits already, its time goes on.

    Args:
        ledger: The database.
        episode: Full id.
        language: BCP-47 tag.
        timeout_h: Hours that it waits.
        on_timeout: Whether its lines without flags then count as approved, or all of it waits on.
    """
    with ledger.session() as session:
        row = session.get_one(t.Review, (episode, language), with_for_update=True)
        if row.state != "awaiting":
            row.state, row.since, row.on_timeout = "awaiting", _now(), on_timeout
            session.flush()
            session.execute(sa.update(t.Review).where(t.Review.episode == episode, t.Review.language == language)
                            .values(deadline=t.clock() + timeout_h * HOUR))
            session.expire(row)
            _note(session, episode, language, "ask", "run", timeout_h=timeout_h, on_timeout=on_timeout)
        return _load(session, episode, language)


def time_out(ledger: Ledger, only: tuple[str, str] | None = None) -> list[tuple[str, str, str]]:
    """Settle reviews whose time is over, each once: lines without flags are approved, flagged ones wait on.

    Args:
        ledger: The database.
        only: Episode and language of the only one to look at. If it waits on, that is not settled: it is for somebody
            to hear.

    Returns:
        Episode, language, and 'approve' (of all lines) or 'wait'.
    """
    over: list[tuple[str, str, str]] = []
    query = sa.select(t.Review.episode, t.Review.language).where(t.Review.state == "awaiting",
                                                                 t.Review.deadline <= t.clock())
    if only:
        query = query.where(t.Review.episode == only[0], t.Review.language == only[1],
                            t.Review.on_timeout == "approve")
    with ledger.session() as session:
        due = session.execute(query).tuples().all()
    for episode, language in due:
        with ledger.session() as session:
            row = session.get_one(t.Review, (episode, language), with_for_update=True)
            now = session.scalar(sa.select(t.clock())) or 0.0
            if row.state != "awaiting" or row.deadline is None or row.deadline > now:
                continue
            held = _load(session, episode, language).held
            then = "wait" if held else row.on_timeout
            if row.on_timeout == "approve":
                _approve(session, episode, language, None, TIME_OUT)
            if then == "wait" and only:
                continue
            row.deadline = None
            _note(session, episode, language, TIME_OUT, TIME_OUT, then=then, flagged=len(held))
            over.append((episode, language, then))
    return over


def approved(ledger: Ledger, episode: str, transcript: Transcript, translation: Translation) -> tuple[LineId, ...]:
    """The lines that a person approved or locked as they are, and for which the engine had other texts, too."""
    with ledger.session() as session:
        held, approvals = (_rows(session, table, episode, translation.language) for table in (t.Lock, t.Approval))
    sources = {line.id: line.text for line in transcript.lines}
    return tuple(line.id for line in translation.lines if line.candidates and (line.id in held or (
        line.id in approvals and approvals[line.id].who != TIME_OUT
        and approvals[line.id].digest == digest(sources[line.id], line.text))))


class ReviewedRequest(Request):
    """A translation, and the lines of it that a person approved."""

    translation: Translation
    approved: tuple[LineId, ...]


@step("translate.reviewed", version=1, result=Translation)
def settle(work: Work, request: ReviewedRequest) -> Translation:
    """A translation as it is voiced: what a person approved or locked is said as it is, and in no shorter way."""
    return request.translation.model_copy(update={"lines": tuple(
        line.model_copy(update={"candidates": ()}) if line.id in request.approved else line
        for line in request.translation.lines)})


# -- what a person does -----------------------------------------------------------------------------------------------


def change(ledger: Ledger, episode: str, language: str, texts: Mapping[LineId, str], sources: Mapping[LineId, str],
           who: str, *, how: Literal["edit", "import"] = "edit", approve: bool = False,
           was: str | None = None) -> None:
    """Set the texts of some lines: all of them, or none.

    Args:
        ledger: The database.
        episode: Full id.
        language: BCP-47 tag.
        texts: By line; '' has the line say nothing.
        sources: What the source says there: for as long as it does, the text holds.
        who: For the log.
        how: For the log.
        approve: The texts are approved by him, too.
        was: Of a single line: what the person saw before; refused where that is no longer so.

    Raises:
        InputError: A line is locked, a text is not one line, or somebody else changed it since.
    """
    for name, text in texts.items():
        if len(text) > MAX_TEXT or not text.isprintable():
            raise InputError(f"must be one line of at most {MAX_TEXT} characters", where=name)
    with ledger.session() as session:
        session.get(t.Review, (episode, language), with_for_update=True)
        locks, before = _rows(session, t.Lock, episode, language), _rows(session, t.Edit, episode, language)
        for name in texts:
            if name in locks:
                raise locked(name, locks[name].who, episode, language)
        for name in texts if was is not None else ():
            row = session.get(t.TargetLine, (episode, language, name))
            if row is not None and _line(row, before.get(name), None, None).text != was:
                raise InputError("was changed by somebody else meanwhile", where=name, hint="Load it again")
        for name, text in texts.items():
            edit = before.get(name) or t.Edit(episode=episode, language=language, line=name)
            edit.text, edit.source = text.strip(), sha256(sources[name].encode())
            edit.author, edit.updated = who, _now()
            session.add(edit)
            _note(session, episode, language, how, who, name, text=text.strip())
            if approve:
                said = session.get(t.Approval, (episode, language, name)) or t.Approval(
                    episode=episode, language=language, line=name)
                said.digest, said.who, said.updated = digest(sources[name], text.strip()), who, _now()
                session.add(said)


def locked(line: LineId, who: str, episode: str, language: str) -> InputError:
    """What is said to whoever wants to change a locked line."""
    return InputError(f"is locked by {who}", where=line,
                      hint=f"Unlock it first: infinidub review unlock {episode} --lang {language} --line {line}")


def undo(ledger: Ledger, episode: str, language: str, line: LineId, who: str) -> None:
    """Take back the text that was set for a line.

    Raises:
        InputError: None was set, or the line is locked.
    """
    with ledger.session() as session:
        session.get(t.Review, (episode, language), with_for_update=True)
        lock, edits_there = session.get(t.Lock, (episode, language, line)), _rows(session, t.Edit, episode, language)
        if lock is not None:
            raise locked(line, lock.who, episode, language)
        if line not in edits_there:
            raise InputError(f"{line} was not edited in {language}", where="--line",
                             hint=f"There are edits of: {', '.join(edits_there)}" if edits_there
                             else "There is no edit at all")
        session.delete(edits_there[line])
        _note(session, episode, language, "undo", who, line)


def approve(ledger: Ledger, episode: str, language: str, lines: Collection[LineId] | None, who: str) -> Approved:
    """Find lines right as they are now; all of them where None is given.

    Raises:
        InputError: There is no such line, or the language was not translated yet.
    """
    with ledger.session() as session:
        done = _approve(session, episode, language, lines, who)
    return _with_time(ledger, episode, language, done)


def _approve(session: Session, episode: str, language: str, lines: Collection[LineId] | None, who: str) -> Approved:
    review = _load(session, episode, language, change=True)
    _known(review, lines or ())
    left, rows = set(review.unapproved), _rows(session, t.Approval, episode, language)
    fresh = [line for line in review.lines if line.id in left and (lines is None or line.id in lines)
             and not (who == TIME_OUT and line.flags)]
    for line in fresh:
        row = rows.get(line.id) or t.Approval(episode=episode, language=language, line=line.id)
        row.digest, row.who, row.updated = digest(line.source, line.text), who, _now()
        session.add(row)
        if lines is not None:
            _note(session, episode, language, "approve", who, line.id, text=line.text)
    if lines is None and who != TIME_OUT:
        _note(session, episode, language, "approve", who, lines=len(fresh))
    return _opened(session, review, fresh)


def _opened(session: Session, review: Review, fresh: Sequence[ReviewLine]) -> Approved:
    """Let a language go on of which these lines were the last that were not approved."""
    if set(review.unapproved) - {line.id for line in fresh}:
        return Approved(len(fresh), opened=False)
    row = session.get_one(t.Review, (review.episode, review.language))
    waited, row.state, row.deadline = row.state == "awaiting", "approved", None
    return Approved(len(fresh), waited or (bool(fresh) and any(line.changed for line in review.lines)))


def lock(ledger: Ledger, episode: str, language: str, lines: Collection[LineId], who: str) -> Approved:
    """Keep the texts of lines as they are now; they count as approved.

    Raises:
        InputError: There is no such line.
    """
    with ledger.session() as session:
        review = _load(session, episode, language, change=True)
        _known(review, lines)
        fresh = [line for line in review.lines if line.id in lines and not line.locked]
        for line in fresh:
            session.add(t.Lock(episode=episode, language=language, line=line.id, text=line.text, source=line.source,
                               start=line.start, end=line.end, who=who, updated=_now()))
            _note(session, episode, language, "lock", who, line.id, text=line.text)
        done = _opened(session, review, fresh)
    return _with_time(ledger, episode, language, done)


def _with_time(ledger: Ledger, episode: str, language: str, done: Approved) -> Approved:
    """What came of it, where the rest is approved by a time that is over: after the person's own word, not before."""
    return replace(done, opened=bool(time_out(ledger, only=(episode, language))) or done.opened)


def unlock(ledger: Ledger, episode: str, language: str, lines: Collection[LineId], who: str) -> Approved:
    """Let texts be changed again: they stay what they are, as edits of a person. Tells how many were locked.

    Raises:
        InputError: There is no such line, nor a lock of one.
    """
    with ledger.session() as session:
        review = _load(session, episode, language, change=True)
        locks = _rows(session, t.Lock, episode, language)
        _known(review, set(lines) - locks.keys())
        freed = [name for name in lines if name in locks]
        for name in freed:
            source = review.by_id[name].source if name in review.by_id else locks[name].source
            edit = session.get(t.Edit, (episode, language, name)) or t.Edit(episode=episode, language=language,
                                                                            line=name)
            edit.text, edit.source = locks[name].text, sha256(source.encode())
            edit.author, edit.updated = locks[name].who, _now()
            session.add(edit)
            session.delete(locks[name])
            _note(session, episode, language, "unlock", who, name)
        return Approved(len(freed), opened=False)


def note_export(ledger: Ledger, review: Review, who: str, file: str) -> None:
    """Log that a script was handed out."""
    with ledger.session() as session:
        _note(session, review.episode, review.language, "export", who, file=file, lines=len(review.lines))


def _known(review: Review, lines: Collection[LineId]) -> None:
    foreign = sorted(set(lines) - review.by_id.keys())
    if foreign:
        raise InputError(f"{review.episode} has no line {foreign[0]!r}", where="--line",
                         hint=f"There are: {', '.join(list(review.by_id)[:40])}")


def _note(session: Session, episode: str, language: str, what: str, who: str, line: str = "", **details: Any) -> None:
    session.add(t.ReviewEvent(episode=episode, language=language, line=line, what=what, who=who, at=_now(),
                              details=details))


def _now() -> datetime:
    return datetime.now(UTC)
