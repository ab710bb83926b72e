"""Sign: the localized episode → the same with content credentials (C2PA) that say what was done to it, and by what.

A signature is never the same twice: what counts is the stored result. The certificate enters the recipe, its key never.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from models.credentials import IPTC, PROVENANCE
from models.errors import InputError
from models.ports import SignedIngredient, Signer
from models.records import Artifact, Assembled, EngineRef, Frame, Mix, Record, Request, Source
from tasks.step import Work, step

RULES = frozenset({"apertium", "espeak"})
"""Engines that are made of rules: what they make is synthetic, but comes from no trained model."""
SOURCE = "source"


class SignedDub(Record):
    """A dubbed sound track of the file."""

    mix: Mix
    translator: EngineRef | None = None
    """None: a script was given."""
    synthesizer: EngineRef | None = None
    """None: finished dialogue was given."""
    watermarker: EngineRef | None = None
    """None: the sound is not marked."""


class SignRequest(Request):
    """A file to sign, and what went into it."""

    assembled: Assembled
    original: Artifact
    """The source as it was given."""
    source: Source
    source_language: str
    title: str = ""
    dubs: tuple[SignedDub, ...]
    generator: EngineRef | None = None
    generated: tuple[tuple[Frame, Frame], ...] = ()
    """Frames that it made."""
    signer: EngineRef


@step("sign", version=1, result=Assembled)
def sign(work: Work, request: SignRequest) -> Assembled:
    """Put the credentials in.

    Raises:
        InputError: Certificate or key cannot be used.
        InfrastructureError: The time stamp authority does not answer.
        EngineError: The library did not sign.
    """
    engine: Signer = work.engines.get("signer", request.signer)
    certificate = request.signer.weights.get("certificate")
    if not certificate:
        raise InputError("names no certificate", where="sign")
    work.progress("sign", 0.0)
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        signed = Path(folder) / "signed.mp4"
        engine.sign(work.store.path(request.assembled.video), signed, _manifest(request),
                    tuple(_ingredients(work, request)), certificate)
        video = work.store.put_file(signed, request.assembled.video.media_type)
    return request.assembled.model_copy(update={"video": video})


def _ingredients(work: Work, request: SignRequest) -> Iterator[SignedIngredient]:
    """The source and every dubbed sound."""
    yield SignedIngredient(work.store.path(request.original), request.title or "source", "parentOf", SOURCE,
                           f"sha256:{request.original.sha256}")
    for dub in request.dubs:
        yield SignedIngredient(work.store.path(dub.mix.mix), f"dubbed sound ({dub.mix.language})", "componentOf",
                               _label(dub), f"sha256:{dub.mix.mix.sha256}", "audio/flac")


def _label(dub: SignedDub) -> str:
    return f"dub-{dub.mix.language}"


def _manifest(request: SignRequest) -> dict[str, Any]:
    """Definition of the manifest; its vocabulary is that of C2PA 2.4, "Actions", and IPTC's digital source types."""
    used = {dub.mix.language: {role: _engine(ref) for role in ("translator", "synthesizer", "watermarker")
                               if (ref := getattr(dub, role))} for dub in request.dubs}
    provenance = {
        "source": request.original.sha256, "dubs": {dub.mix.language: dub.mix.mix.sha256 for dub in request.dubs},
        "generated_s": round(float(_frames(request) / request.source.rate), 3),
        "duration_s": round(float(request.assembled.frames / request.source.rate), 3), "engines": used,
        **({"generator": _engine(request.generator)} if request.generator and request.generated else {})}
    return {
        "title": request.title or "episode", "format": request.assembled.video.media_type,
        "claim_generator_info": [{"name": "infinidub", "version": metadata.version("infinidub")}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": list(_actions(request))}},
                       {"label": PROVENANCE, "data": provenance}]}


def _engine(ref: EngineRef) -> dict[str, Any]:
    return {"name": ref.name, "version": ref.version, "weights": ref.weights}


def _frames(request: SignRequest) -> int:
    return sum(end - start for start, end in request.generated)


def _actions(request: SignRequest) -> Iterator[dict[str, Any]]:
    yield {"action": "c2pa.opened", "parameters": {"ingredientIds": [SOURCE]}}
    for dub in request.dubs:
        yield {"action": "c2pa.translated", **_made_by(dub.translator, "trainedAlgorithmicMedia", "algorithmicMedia"),
               "parameters": {"sourceLanguage": request.source_language, "targetLanguage": dub.mix.language}}
        yield {"action": "c2pa.dubbed", "parameters": {"ingredientIds": [_label(dub)]},
               **_made_by(dub.synthesizer, "compositeWithTrainedAlgorithmicMedia", "compositeSynthetic")}
        if dub.watermarker:
            yield {"action": "c2pa.watermarked.unbound", "softwareAgent": _agent(dub.watermarker)}
    if request.generator and request.generated:
        rate = request.source.rate
        yield {"action": "c2pa.edited", "description": "the speakers' picture was generated anew",
               **_made_by(request.generator, "compositeWithTrainedAlgorithmicMedia", ""),
               "changes": [{"region": [{"type": "temporal", "time": {
                   "type": "npt", "start": f"{float(start / rate):.3f}", "end": f"{float(end / rate):.3f}"}}]}
                   for start, end in request.generated]}


def _made_by(ref: EngineRef | None, trained: str, ruled: str) -> dict[str, Any]:
    """Who did an action, and that it was a machine; nothing where people gave the result."""
    if ref is None:
        return {}
    return {"softwareAgent": _agent(ref), "digitalSourceType": IPTC + (ruled if ref.name in RULES else trained)}


def _agent(ref: EngineRef) -> dict[str, str]:
    return {"name": ref.name, "version": str(ref.version)}
