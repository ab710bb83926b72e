"""Reads content credentials by the C2PA library, which also judges them. Nothing is asked for over the network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.credentials import IPTC, PROVENANCE, CredentialAction, CredentialIngredient, Credentials
from models.errors import InputError

SHOWN = 200
"""Entries of a list and characters of a text that are taken over from a manifest, which anybody may have written."""
UNTRUSTED = "signingCredential.untrusted"
BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""UUID of the MP4 box that holds a manifest (C2PA 2.x, "Embedding manifests into BMFF-based assets") …"""
HEAD = 1 << 20
"""… near the beginning."""


def read_credentials(path: Path, roots: Path | None = None) -> Credentials | None:
    """What the content credentials in a file say.

    Args:
        path: Any file.
        roots: PEM file with the certificates of those who are trusted; without one nobody is.

    Returns:
        None where there are none.

    Raises:
        InputError: A file cannot be read.
    """
    import c2pa

    try:
        trust = {"trust": {"trust_anchors": roots.read_text(encoding="ascii")}} if roots else {}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read as PEM", where=str(roots), hint="Set options.c2pa.trust") from error
    context = c2pa.Context(c2pa.Settings.from_dict(
        {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}, **trust}))
    kind = _container(path)
    if not kind:
        return None
    try:
        with path.open("rb") as file, c2pa.Reader(kind, file, context=context) as reader:
            return _credentials(json.loads(reader.json()), str(reader.get_validation_state()))
    except c2pa.C2paError as error:
        if str(error).startswith(("ManifestNotFound", "NotSupported")) or not _has_box(path):
            return None  # a file that is broken otherwise is not for us to judge
        return Credentials(state="invalid", trusted=False, problems=(_text(error),))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error


def _container(path: Path) -> str:
    """Media type by the first bytes; '' for what cannot hold credentials."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error
    if head[4:8] == b"ftyp":
        return "video/mp4"
    kinds = {b"fLaC": "audio/flac", b"RIFF": "audio/wav", b"ID3": "audio/mpeg", b"\x89PNG": "image/png",
             b"\xff\xd8\xff": "image/jpeg"}
    return next((kind for magic, kind in kinds.items() if head.startswith(magic)), "")


def _has_box(path: Path) -> bool:
    with path.open("rb") as file:
        return BOX in file.read(HEAD)


def _credentials(store: Mapping[str, Any], state: str) -> Credentials:
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    signature, data = manifest.get("signature_info") or {}, _assertions(manifest)
    problems = [f"{one.get('code')}: {one.get('explanation')}" for one in store.get("validation_status") or []
                if one.get("code") != UNTRUSTED]
    invalid = state not in {"Valid", "Trusted"}
    claim = (manifest.get("claim_generator_info") or [{}])[0]
    return Credentials(
        state="invalid" if invalid else "valid", trusted=state == "Trusted",
        problems=tuple(map(_text, problems[:SHOWN])) if invalid else (),
        signer=_text(signature.get("common_name")), issuer=_text(signature.get("issuer")),
        algorithm=_text(signature.get("alg")), time=_text(signature.get("time")), title=_text(manifest.get("title")),
        generator=_text(f"{claim.get('name', '')} {claim.get('version', '')}".strip()),
        actions=tuple(_actions(data)), ingredients=tuple(_ingredients(manifest)),
        provenance=data.get(PROVENANCE) or {})


def _assertions(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Label → data."""
    return {one["label"]: one.get("data") for one in manifest.get("assertions") or [] if "label" in one}


def _actions(data: Mapping[str, Any]) -> Iterator[CredentialAction]:
    actions = next((value for label, value in data.items() if label.startswith("c2pa.actions")), None) or {}
    for one in (actions.get("actions") or [])[:SHOWN]:
        agent, given = one.get("softwareAgent") or "", one.get("parameters") or {}
        if isinstance(agent, Mapping):
            agent = f"{agent.get('name', '')} {agent.get('version', '')}".strip()
        languages = [given.get("sourceLanguage"), given.get("targetLanguage")]
        yield CredentialAction(
            action=_text(one.get("action")), agent=_text(agent),
            source_type=_text(one.get("digitalSourceType")).removeprefix(IPTC),
            languages=_text(" → ".join(map(str, languages))) if all(languages) else "")


def _ingredients(manifest: Mapping[str, Any]) -> Iterator[CredentialIngredient]:
    for one in (manifest.get("ingredients") or [])[:SHOWN]:
        yield CredentialIngredient(title=_text(one.get("title")), relationship=_text(one.get("relationship")),
                                   id=_text(one.get("instance_id")), signed=bool(one.get("active_manifest")))


def _text(value: object) -> str:
    """A manifest's text on one line, control characters taken out."""
    return "".join(c if c.isprintable() else " " for c in str(value if value is not None else ""))[:SHOWN]
