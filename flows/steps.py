"""The steps by name, and what builds on what: for `redo`, `status` and progress displays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.errors import InputError

if TYPE_CHECKING:
    from flows.settings import Settings

SHARED = ("ingest", "shots", "transcribe", "speakers", "languages")
PER_LANGUAGE = ("translate", "synthesize", "mix", "plan", "generate", "watermark", "assemble", "sign", "inspect")
BEFORE_PICTURE = PER_LANGUAGE.index("generate")
"""How many steps of a language come before its picture."""
OPTIONAL = "watermark"
"""Not done unless it is switched on."""
STAND_INS = {"transcript": "transcribe", "dialogue": "synthesize"}
"""Steps that take the place of another when a studio brings its own files."""
BUILDS_ON = {
    "ingest": (), "shots": ("ingest",), "transcribe": ("ingest",), "speakers": ("transcribe",),
    "languages": ("speakers",), "translate": ("languages",), "synthesize": ("translate",), "mix": ("synthesize",),
    "plan": ("shots", "synthesize"), "generate": ("plan",), "watermark": ("mix",),
    "assemble": ("generate", "watermark"), "sign": ("assemble",), "inspect": ("sign",),
}


def per_language(settings: Settings) -> tuple[str, ...]:
    """The steps of a language that a run does."""
    return tuple(step for step in PER_LANGUAGE if step != OPTIONAL or settings.watermark != "off")


def later_steps(first: str, language: str) -> dict[str, list[str]]:
    """`first` and every step that builds on it, keyed by the language they are counted under ('' is shared).

    Raises:
        InputError: No such step; the message lists them.
    """
    if first not in BUILDS_ON:
        raise InputError(f"no step is called {first!r}", where="--from", hint=f"There are: {', '.join(BUILDS_ON)}")
    again = {first}
    for step, needs in BUILDS_ON.items():
        if again.intersection(needs):
            again.add(step)
    again |= {name for name, instead_of in STAND_INS.items() if instead_of in again}
    shared = {*SHARED, "transcript"}
    return {"": sorted(again & shared), language: sorted(again - shared)}
