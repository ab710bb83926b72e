"""The errors of infinidub: what failed, on which item, what to do next.

    InfinidubError
    ├── InputError               bad catalog, media, subtitle, shard or argument     exit 2, never retried
    │   ├── MediaError           a file that cannot be dubbed, with the reason
    │   ├── SourceChangedError   the source is not the file that was dubbed before
    │   └── ConsentError         somebody has not agreed to what is asked for
    ├── SetupError               a missing program, engine, voice or weight; says the command that mends it   exit 2
    ├── GateError                a quality gate failed                               exit 3
    ├── AwaitingReviewError      a person is to look at a language first: no failure, the others go on   exit 0
    ├── EngineError              a model or program gave nonsense for one item       exit 4, retried once
    └── InfrastructureError      database, store, disk or network failed             exit 5, retried
        ├── StorageFullError     no space left; retrying alone does not help
        ├── CapacityError        the GPU memory that is needed is not free now; another machine or hour may have it
        └── LostCheckpointError  another process has gone on with this shot; this one must stop
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """'Did you mean …? ', where a name is nearly one of those that there are."""
    found = get_close_matches(name, list(known), 1, 0.75)
    return f"Did you mean {found[0]}? " if found else ""


class InfinidubError(Exception):
    """Base of all errors that a user is meant to read.

    Args:
        what: What went wrong, in one clause.
        where: The file, field, episode, line or shot it happened on.
        hint: What to do next: a command, or what to change.
    """

    exit_code = 4
    retryable = False

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what, where, hint)

    def __str__(self) -> str:
        """One line: where, what, hint."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}. {self.hint}" if self.hint else head

    def at(self, where: str) -> InfinidubError:
        """Prefix the place with an outer one (`harbor-lights/s01e01`, `es`), and return self for `raise`."""
        self.where = f"{where}: {self.where}" if self.where else where
        self.args = (self.what, self.where, self.hint)
        return self


class InputError(InfinidubError):
    """Something the user gave is wrong."""

    exit_code = 2


class MediaError(InputError):
    """A media file that cannot be dubbed."""


class SourceChangedError(InputError):
    """A source file differs from the one its finished dub was made of."""


class ConsentError(InputError):
    """A person's voice or picture is asked for without a consent that holds."""


class SetupError(InfinidubError):
    """A program, engine, voice or weight is missing on this machine."""

    exit_code = 2


class GateError(InfinidubError):
    """A quality gate failed."""

    exit_code = 3


class AwaitingReviewError(InfinidubError):
    """A language goes on when its texts are approved."""

    exit_code = 0


class EngineError(InfinidubError):
    """An engine failed on an item, or answered with something unusable."""

    retryable = True


class InfrastructureError(InfinidubError):
    """Database, object store, disk or network failed; the same call may succeed later."""

    exit_code = 5
    retryable = True


class StorageFullError(InfrastructureError):
    """No space left where the results are written."""

    retryable = False


class CapacityError(InfrastructureError):
    """The GPU memory that an engine needs is not free on this machine now."""


class LostCheckpointError(InfrastructureError):
    """The unfinished work of a shot was changed by another process, which holds the shot by now."""

    retryable = False
