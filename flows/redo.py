"""What is asked for anew: from a step on, or one line. The command line, Prefect's form and events all come here."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.steps import later_steps
from models.errors import InputError

if TYPE_CHECKING:  # the command line reads this before it knows whether it needs a database
    from flows.wiring import Workspace


@dataclass(frozen=True)
class Anew:
    """A wish for one language of one episode.

    Raises:
        InputError: It is none, or more than one; or there is no such step.
    """

    step: str = ""
    """This step and those that build on it."""
    line: str = ""
    """Or else: id of a line to change."""
    text: str = ""
    """What it says from now on."""
    undo: bool = False
    """Or else: take back what was said of it before."""

    def __post_init__(self) -> None:
        if bool(self.step) == bool(self.line) or bool(self.text) + self.undo != bool(self.line):
            raise InputError("say what to redo", hint="Either --from STEP, or --line ID together with --text TEXT"
                             " or with --undo")
        if self.step:
            later_steps(self.step, "")

    def ask(self, space: Workspace, episode: str, language: str) -> None:
        """Note it for the next run; shots that were given up are tried again, too.

        Args:
            space: Whose database notes it.
            episode: Full id.
            language: BCP-47 tag.

        Raises:
            InputError: There is no such line, or the text cannot be used.
        """
        from tasks.shards import unflag

        for tag, names in later_steps(self.step, language).items() if self.step else ():
            space.ledger.raise_takes(episode, tag, names)
        if self.undo:
            self._undo(space, episode, language)
        elif self.line:
            self._edit(space, episode, language)
        unflag(space.ledger, episode, language)

    def _edit(self, space: Workspace, episode: str, language: str) -> None:
        from tasks import review
        from tasks.history import source_lines

        known = source_lines(space.ledger, episode)
        if self.line not in known:
            raise InputError(f"{episode} has no line {self.line!r}", where="--line",
                             hint=f"There are: {', '.join(list(known)[:40])}" if known else
                             "It was not transcribed yet; run it")
        if not self.text.strip() or not self.text.isprintable():
            raise InputError("must be one line of text, and not empty", where="--text")
        review.change(space.ledger, episode, language, {self.line: self.text}, known, getpass.getuser(), approve=True)

    def _undo(self, space: Workspace, episode: str, language: str) -> None:
        from tasks import review

        review.undo(space.ledger, episode, language, self.line, getpass.getuser())
