"""The errors of the engine: what is wrong, where, what to do.

    InfiniteTalkError
    ├── BadInputError      audio, picture, box, prompt, state or argument that cannot be used; nothing was computed
    ├── BadWeightsError    a file of weights is absent, damaged, or not the network it should be
    ├── TooLargeError      it would not fit into this machine's memory; nothing was allocated
    └── BadResultError     a network gave what is no picture; what was made before stands
"""

from __future__ import annotations

from functools import partial
from typing import Any


class InfiniteTalkError(Exception):
    """Base of all errors that a user is meant to read.

    Args:
        what: What is wrong, in one clause.
        where: The file, tensor, field or speaker it is wrong in.
        hint: What to do next.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what, where, hint)

    def __reduce__(self) -> tuple[Any, ...]:
        """Whole from a process that works for another, too: where and hint are given by name only."""
        return partial(type(self), self.what, where=self.where, hint=self.hint), ()

    def __str__(self) -> str:
        """One line: where, what, hint."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}. {self.hint}" if self.hint else head


class BadInputError(InfiniteTalkError):
    """What was given cannot be dubbed."""


class BadWeightsError(InfiniteTalkError):
    """A file of weights is absent, damaged, or holds other tensors than the network has."""


class TooLargeError(InfiniteTalkError):
    """The job needs more memory than there is."""


class BadResultError(InfiniteTalkError):
    """A network gave numbers that are no picture."""
