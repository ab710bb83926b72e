"""Signs content credentials by the C2PA library (specification 2.x)."""

from __future__ import annotations

import json
import wave
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, ClassVar
from urllib.parse import urlsplit

from pydantic import field_validator

from models.engines.c2pa_identity import Identity, read_identity, read_key, read_key_file
from models.engines.c2pa_reader import read_credentials
from models.engines.options import Adapter, read_options
from models.errors import EngineError, InfrastructureError, InputError
from models.ports import EngineHome, SignedIngredient
from models.records import EngineRef, Record

CERTIFICATE = "certificate"
"""Name under which the certificate's fingerprint stands among the weights of an `EngineRef`."""
SECRET = "c2pa_key"  # noqa: S105 - its name
SETTINGS = {
    "verify": {"remote_manifest_fetch": False, "verify_after_sign": False},  # verified here, from the finished file
    "builder": {"thumbnail": {"enabled": False}},
    "core": {"backing_store_memory_threshold_in_mb": 16},  # 512 otherwise
}


class C2paOptions(Record):
    """What may be set."""

    certificates: str = ""
    """PEM file: the signer's certificate, each followed by its issuer's; '' makes a development certificate."""
    key: str = ""
    """PEM file with its key; or the key itself is the secret `c2pa_key`."""
    timestamps: str = ""
    """Address of an RFC 3161 time stamp authority: signatures then outlive the certificate."""
    trust: str = ""
    """PEM file with the roots that `infinidub trace` trusts."""

    @field_validator("timestamps")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc):
            raise ValueError("is no address of a server. Write http(s)://HOST/PATH")
        return value


class C2paSigner(Adapter):
    """A `Signer` for MP4."""

    OPTIONS: ClassVar[type[Record]] = C2paOptions
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"certificates", "key", "trust"})
    OWN_FILES: ClassVar[str] = CERTIFICATE

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        self._options = read_options(C2paOptions, ref.name, ref.options, home.connection)
        self._secret = home.secret
        self._works = False

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """The C2PA library."""
        return "" if find_spec("c2pa") else "the C2PA library is not installed. pip install c2pa-python==0.38.1"

    def sign(self, source: Path, target: Path, manifest: Mapping[str, Any], ingredients: Sequence[SignedIngredient],
             certificate: str) -> None:
        """Write `target`, and read it back."""
        identity = read_identity(Path(self._options.certificates))
        if identity.fingerprint != certificate:
            raise InputError("the certificate is another one than was asked for", where=self._options.certificates,
                             hint="It was changed since the run began; run the same command again")
        with source.open("rb") as given, target.open("w+b") as signed:
            self._sign(identity, manifest, ingredients, "video/mp4", given, signed)
        found = read_credentials(target)
        if found is None or found.state != "valid":
            raise EngineError(f"what was signed does not verify ({', '.join(found.problems) if found else 'nothing'})",
                              where=self._options.certificates)

    def check(self) -> None:
        """Sign a moment of silence, in memory; once, since each episode asks, and each time a time stamp is fetched."""
        if self._works:
            return
        action = {"action": "c2pa.created", "digitalSourceType": "http://c2pa.org/digitalsourcetype/empty"}
        manifest = {"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]}
        silence = BytesIO()
        with wave.open(silence, "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(160))
        try:
            self._sign(read_identity(Path(self._options.certificates)), manifest, (), "audio/wav", silence, BytesIO())
        except EngineError as error:
            raise InputError(error.what, where=error.where, hint=error.hint) from error
        self._works = True

    def _sign(self, identity: Identity, manifest: Mapping[str, Any], ingredients: Sequence[SignedIngredient], kind: str,
              given: BinaryIO, signed: BinaryIO) -> None:
        import c2pa

        info = c2pa.C2paSignerInfo(identity.algorithm.encode(), identity.pem, self._key(identity),
                                   self._options.timestamps.encode() or None)
        try:
            with (c2pa.Signer.from_info(info) as signer,
                  c2pa.Builder(json.dumps(manifest), context=c2pa.Context(c2pa.Settings.from_dict(SETTINGS))) as made):
                for one in ingredients:
                    _add(made, one)
                made.sign(signer, kind, given, signed)
        except c2pa.C2paError as error:
            if self._options.timestamps and "http" in str(error):
                raise InfrastructureError("the time stamp authority does not answer", where=self._options.timestamps,
                                          hint="Run the command again, or leave options.c2pa.timestamps out") from error
            raise EngineError(f"the C2PA library did not sign ({error})", where=self._options.certificates,
                              hint="It must be issued by another certificate than itself, with the key usage"
                              " digitalSignature and, as extended key usage, emailProtection or C2PA's own") from error

    def _key(self, identity: Identity) -> bytes:
        if secret := self._secret(SECRET):
            return read_key(identity, secret.encode(), f"secret {SECRET}")
        if not self._options.key:
            raise InputError("its key is not given", where=self._options.certificates,
                             hint="Set options.c2pa.key to a file, or INFINIDUB_SECRETS__C2PA_KEY to the key")
        return read_key(identity, read_key_file(Path(self._options.key)), self._options.key)


def _add(builder: Any, one: SignedIngredient) -> None:
    """Add an ingredient with the credentials it has, if the library knows the format; else what we say of it."""
    import c2pa

    record = {"title": one.title, "relationship": one.relationship, "label": one.label, "instance_id": one.id}
    with one.path.open("rb") as file:
        head = file.read(8)
        kind = "video/mp4" if head[4:] == b"ftyp" else "audio/flac" if head[:4] == b"fLaC" else ""
        try:
            builder.add_ingredient({**record, "format": kind or one.media_type}, kind or one.media_type, file)
        except c2pa.C2paError:  # what ffmpeg reads, the library need not
            file.seek(0)
            builder.add_ingredient({**record, "format": one.media_type}, one.media_type, file)
