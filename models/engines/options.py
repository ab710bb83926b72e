"""What adapters have in common: options that are checked, and plain answers where an adapter has nothing to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from models.errors import InputError
from models.ports import EngineHome
from models.records import EngineRef, Record, ShotRequest

O = TypeVar("O", bound=Record)  # noqa: E741

PATHS = frozenset({"path", "folder", "samples", "aligner_path", "nltk_path", "certificates", "key", "trust"})
"""Options that name a file or folder, whatever adapter has them: in a settings file they count from its folder."""


class Adapter:
    """Base of the adapters: no options, no connection, no weights, nothing missing (see `models.ports.Engine`)."""

    VERSION: ClassVar[int] = 1
    OPTIONS: ClassVar[type[Record]] = Record
    CONNECTION: ClassVar[frozenset[str]] = frozenset()
    OWN_FILES: ClassVar[str] = ""
    CAUTION: ClassVar[str] = ""

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        """Needs nothing of its home."""

    @classmethod
    def required_weights(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """None of the lock."""
        return ()

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """Nothing."""
        return ""

    @classmethod
    def clones(cls, voice: str) -> str:
        """Nobody's voice is imitated."""
        return ""

    @classmethod
    def gpu_seconds(cls, request: ShotRequest) -> float | None:
        """No generator, or none with a model of its own cost."""
        return None

    def check_memory(self) -> None:
        """Fits everywhere."""

    def load(self, request: ShotRequest) -> None:
        """Nothing."""


def read_options(kind: type[O], engine: str, *options: Mapping[str, Any]) -> O:
    """The options of `engine` as a `kind`; later mappings win.

    Raises:
        InputError: An unknown option or a wrong value; the message names it and lists what there is.
    """
    merged = {key: value for given in options for key, value in given.items()}
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(f"option {name}: {first['msg']}", where=f"engine {engine}",
                         hint=f"Its options are: {', '.join(kind.model_fields) or 'none'}") from error
