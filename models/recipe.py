"""Recipes: the canonical JSON of what a step is asked to do, and its SHA-256, which names the result.

Same recipe, same result: nothing runs twice. Paths, devices, thread counts, library versions and times never enter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from models.records import Artifact


def canonical(value: BaseModel | dict[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no blanks, defaults filled in, rationals as strings, no NaN.

    Raises:
        ValueError: A float that is NaN or infinite.
    """
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def recipe_of(step: str, version: int, request: BaseModel) -> str:
    """The name of the result of `step` for `request`.

    Args:
        step: The step's name, e.g. 'translate.line'.
        version: Raised by hand whenever the step's code gives other results for the same request.
        request: Inputs (by hash), parameters, engine name and weight hashes.
    """
    return sha256(canonical({"step": step, "version": version, "request": request.model_dump(mode="json")}))


def shot_seed(seed: int, shot: str, take: int = 0) -> int:
    """A seed for one shot: the same on every machine, another for every shot and take; 0 ≤ seed < 2³¹."""
    return int(sha256(f"{seed}/{shot}/{take}".encode())[:8], 16) >> 1


def artifacts_in(value: object) -> Iterator[Artifact]:
    """Every artifact that a record refers to, however deeply."""
    if isinstance(value, Artifact):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from artifacts_in(getattr(value, name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from artifacts_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from artifacts_in(item)


def hashes_in(request: BaseModel) -> set[str]:
    """SHA-256 of everything a request builds on: artifacts anywhere in it, and each record it holds as a field.

    A field that is another step's result hashes to that result's artifact, which is what links a delivered file to
    every step behind it (`infinidub trace`).
    """
    fields = (getattr(request, name) for name in type(request).model_fields)
    records = {sha256(canonical(field)) for field in fields if isinstance(field, BaseModel)}
    return records | {artifact.sha256 for artifact in artifacts_in(request)}
