"""Options of an adapter, checked: what a user writes under `[engines.NAME]` becomes a typed record or an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from models.errors import InputError
from models.records import Record

O = TypeVar("O", bound=Record)  # noqa: E741


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
                         hint=f"Its options are: {', '.join(kind.model_fields)}") from error
