"""Who signs: a certificate chain and its key, a user's own or made on first use. Errors show nothing of a key."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.credentials import DEVELOPMENT
from models.errors import InfrastructureError, InputError

if TYPE_CHECKING:
    from cryptography import x509

CHAIN, KEY = "certificates.pem", "key.pem"
"""Files of a development certificate, in a folder of its own."""
LARGEST = 1 << 20
"""Bytes of a PEM file."""
YEARS = timedelta(days=3650)
EC_ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
RENEW = "Renew it and set options.c2pa.certificates and options.c2pa.key"


@dataclass(frozen=True)
class Identity:
    """A certificate chain that may sign now."""

    pem: bytes
    """Leaf first; the root may be absent."""
    algorithm: str
    """'es256', 'ps256' …: what the leaf's key signs with."""
    fingerprint: str
    """SHA-256 of the leaf."""
    name: str
    leaf: x509.Certificate

    @property
    def development(self) -> bool:
        """Made on the spot."""
        return self.name == DEVELOPMENT


def read_identity(path: Path, now: datetime | None = None) -> Identity:
    """Read and check a certificate chain.

    Args:
        path: PEM file, the signer's certificate first, each followed by its issuer's.
        now: When it must be valid.

    Raises:
        InputError: It cannot be read, is in no order, not valid now, or of a kind that C2PA does not allow.
    """
    from cryptography import x509

    data, where = _read(path), str(path)
    try:
        chain = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise InputError("holds no certificates in PEM", where=where,
                         hint="Put the signer's first, each followed by its issuer's") from error
    for lower, upper in pairwise(chain):
        try:
            lower.verify_directly_issued_by(upper)
        except Exception as error:  # ValueError, TypeError or InvalidSignature: whatever is wrong, it is not the issuer
            raise InputError(f"{_name(lower)!r} was not issued by {_name(upper)!r}, which follows it", where=where,
                             hint="Put the signer's certificate first, each followed by its issuer's") from error
    for certificate in chain:
        _check_dates(certificate, where, now or datetime.now(UTC))
    leaf = chain[0]
    return Identity(pem=data, algorithm=_algorithm(leaf, where), fingerprint=_fingerprint(leaf), name=_name(leaf),
                    leaf=leaf)


def read_key(identity: Identity, pem: bytes, where: str) -> bytes:
    """The private key of `identity` as PKCS 8.

    Args:
        identity: The certificate that it must belong to.
        pem: As given, not encrypted.
        where: Where it comes from: for errors, which never show anything of it.

    Raises:
        InputError: It is no key, encrypted, or another certificate's.
    """
    from cryptography.hazmat.primitives import serialization as to

    try:
        key: Any = to.load_pem_private_key(pem, None)
    except TypeError:
        raise InputError("is encrypted", where=where, hint="Give it unencrypted, as a secret of the environment:"
                         " INFINIDUB_SECRETS__C2PA_KEY") from None
    except Exception:  # what the library says could quote the key
        raise InputError("holds no private key in PEM", where=where) from None
    spki = to.Encoding.DER, to.PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*spki) != identity.leaf.public_key().public_bytes(*spki):
        raise InputError(f"is not the key of the certificate {identity.name!r}", where=where,
                         hint="Set options.c2pa.certificates and options.c2pa.key to a pair")
    return bytes(key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))


def read_key_file(path: Path) -> bytes:
    """A key as it lies in a file.

    Raises:
        InputError: It cannot be read.
    """
    return _read(path)


def make_development_identity(folder: Path) -> None:
    """Make a root, a certificate under it and its key in `folder`, unless they are there; the root's key is forgotten.

    Processes may do so at once: the first one's stays.

    Raises:
        InfrastructureError: The folder cannot be written.
    """
    if (folder / CHAIN).exists():
        return
    made = folder.with_name(f".{folder.name}-{secrets.token_hex(8)}")
    try:
        made.mkdir(mode=0o700, parents=True)
        for name, data in zip((CHAIN, KEY), _development(), strict=True):
            with os.fdopen(os.open(made / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
        made.rename(folder)
    except OSError as error:
        if not (folder / CHAIN).exists():  # another process's, otherwise
            raise InfrastructureError(f"cannot be written ({error.strerror})", where=str(folder)) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path),
                         hint="Set options.c2pa.certificates and options.c2pa.key, or neither") from error
    if len(data) > LARGEST:
        raise InputError("is too large for a PEM file", where=str(path))
    return data


def _name(certificate: x509.Certificate) -> str:
    from cryptography.x509.oid import NameOID

    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def _fingerprint(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.hashes import SHA256

    return certificate.fingerprint(SHA256()).hex()


def _check_dates(certificate: x509.Certificate, where: str, now: datetime) -> None:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > last:
        raise InputError(f"the certificate {_name(certificate)!r} expired on {last:%Y-%m-%d}", where=where, hint=RENEW)
    if now < first:
        raise InputError(f"the certificate {_name(certificate)!r} is valid from {first:%Y-%m-%d} only", where=where,
                         hint="Is the clock of this machine right?")


def _algorithm(leaf: x509.Certificate, where: str) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    key = leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in EC_ALGORITHMS:
        return EC_ALGORITHMS[key.curve.name]
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return "ps256"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519"
    raise InputError(f"the certificate {_name(leaf)!r} has a key that C2PA does not allow", where=where,
                     hint="Use EC P-256, P-384 or P-521, RSA of 2048 bits or more, or Ed25519")


def _development() -> tuple[bytes, bytes]:
    """Chain and key as PEM: EC P-256, for signing alone."""
    from cryptography.hazmat.primitives import serialization as to
    from cryptography.hazmat.primitives.asymmetric import ec

    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = "infinidub development root"
    chain = (_certificate(DEVELOPMENT, leaf.public_key(), issuer, root, authority=False),
             _certificate(issuer, root.public_key(), issuer, root, authority=True))
    return (b"".join(one.public_bytes(to.Encoding.PEM) for one in chain),
            leaf.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))


def _certificate(name: str, public: Any, issuer: str, key: Any, *, authority: bool,
                 valid: tuple[datetime, datetime] | None = None) -> x509.Certificate:
    """A certificate as C2PA's profile wants it (C2PA 2.x, "X.509 Certificates"), valid for ten years if not told."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def called(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "infinidub"),
                          x509.NameAttribute(NameOID.COMMON_NAME, common)])

    now = datetime.now(UTC)
    first, last = valid or (now - timedelta(days=1), now + YEARS)
    usage = x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority,
                          content_commitment=False, key_encipherment=False, data_encipherment=False,
                          key_agreement=False, encipher_only=False, decipher_only=False)
    made = (x509.CertificateBuilder().subject_name(called(name)).issuer_name(called(issuer)).public_key(public)
            .serial_number(x509.random_serial_number()).not_valid_before(first).not_valid_after(last)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False))
    if not authority:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return made.sign(key, SHA256())
