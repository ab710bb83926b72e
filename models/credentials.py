"""Content credentials (C2PA 2.x) as they are read from a file: who says how it was made, and whether that holds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from models.records import Record

DEVELOPMENT = "infinidub development certificate"
"""Common name of a certificate that was made on the spot: it shows that a file was not altered, not who made it."""
PROVENANCE = "org.infinidub.provenance"
"""Label of our own assertion: hashes, engines with their weights, seconds of generated picture."""
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
"""Vocabulary in which a manifest says where content comes from."""


class CredentialAction(Record):
    """Something that was done to the content."""

    action: str
    """E.g. 'c2pa.dubbed'."""
    agent: str = ""
    """Engine and version."""
    source_type: str = ""
    """IPTC digital source type, e.g. 'trainedAlgorithmicMedia'."""
    languages: str = ""
    """'en → es' of a translation."""


class CredentialIngredient(Record):
    """Something that went into the content."""

    title: str
    relationship: str
    id: str
    """`sha256:…` where we signed."""
    signed: bool = False
    """It brought content credentials of its own."""


class Credentials(Record):
    """What a file's manifest says, and whether the file still is what was signed."""

    state: Literal["valid", "invalid"]
    trusted: bool
    """The signer's certificate leads to one of the given roots."""
    problems: tuple[str, ...] = ()
    """Why it is invalid."""
    signer: str = ""
    """Common name in the certificate."""
    issuer: str = ""
    algorithm: str = ""
    time: str = ""
    """By a time stamp authority."""
    title: str = ""
    generator: str = ""
    """Program that made the claim."""
    actions: tuple[CredentialAction, ...] = ()
    ingredients: tuple[CredentialIngredient, ...] = ()
    provenance: dict[str, Any] = Field({})
    """Our own assertion."""

    @property
    def development(self) -> bool:
        """Signed with a certificate that anybody can make."""
        return self.signer == DEVELOPMENT
