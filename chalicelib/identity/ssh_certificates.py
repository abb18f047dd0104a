"""OpenSSH user certificates: made here, since no library signs through KMS; read with ``cryptography``'s parser.

A certificate says whose session a key may enter: its one principal is the login, its key id carries ``txn``, and it
lives for minutes. It is made field by field (nonce, key, serial, type, key id, principals, validity, options, reserved,
authority, signature; the signature's two numbers as RFC 5656 writes them), never holds an option that we do not know,
and is parsed and verified again before it leaves.

Rules for reading one, in the order in which they are applied: size and shape, one spelling only; an authority of ours,
by its whole key; the authority's signature over everything before it; a user's certificate, for exactly one principal,
the login; its time, and no more of it than we ever give; no critical option at all, since each is a promise that
somebody must keep; a key that is strong enough. Whoever presents one must still prove its key: the transport does that,
and its caller compares the keys.

Source: PROTOCOL.certkeys of OpenSSH (draft-miller-ssh-cert), RFC 4251 section 5, RFC 5656 section 3.1.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from chalicelib.domain.errors import BadRequest, ProofInvalid, StoreUnavailable
from chalicelib.domain.store import Signer

PERMIT_PTY: Final = "permit-pty"
MIN_RSA_BITS: Final = 3072  # 128 bits of strength (NIST SP 800-57 part 1, table 2), as the other keys have
MAX_RSA_BITS: Final = 8192  # a larger one makes a certificate that KMS does not sign at once
MAX_LINE: Final = 8192  # characters: twice what a certificate over the largest key has
MAX_KEY_ID: Final = 256  # three ids with their prefixes are 110 characters; sshd logs all of it
MAX_LIFETIME_S: Final = 600  # twice the longest that we sign: one for ever was made by whoever had the key
NONCE_BYTES: Final = 32  # as ssh-keygen: what is signed cannot be foretold by whoever chose the key
_CERTIFICATE: Final = "-cert-v01@openssh.com"
_AUTHORITY: Final = "ecdsa-sha2-nistp256"
_USER: Final = 1
_KEY_LINE: Final = re.compile(
    r"(?P<type>ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa) (?P<blob>[A-Za-z0-9+/]+={0,2})(?: [\x20-\x7e]*)?\Z"
)
_CERTIFICATE_LINE: Final = re.compile(
    r"(?:ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa)-cert-v01@openssh\.com (?P<blob>[A-Za-z0-9+/]+={0,2})\Z"
)
_PRINCIPAL: Final = re.compile(r"[A-Za-z0-9_$.@-]{1,64}\Z")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]{1,256}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class CertificateWanted:
    """What a certificate is to say. ``public_key`` is one ``TYPE BASE64`` line; ``serial`` has 63 bits at most, so that
    it is a positive number wherever it is read; times are whole seconds, from ``valid_after`` until just before
    ``valid_before``; ``extensions`` are what the session may do beside running a command."""

    public_key: str
    key_id: str
    serial: int
    principals: tuple[str, ...]
    valid_after: datetime
    valid_before: datetime
    extensions: tuple[str, ...] = (PERMIT_PTY,)


@dataclass(frozen=True, kw_only=True, slots=True)
class UserCertificate:
    """What a verified certificate says. ``authority`` is the ``kid`` of the key that signed it; ``public_key`` the
    ``TYPE BASE64`` line of the key that whoever presents it must prove."""

    authority: str
    key_id: str
    serial: int
    principals: tuple[str, ...]
    public_key: str
    valid_after: datetime
    valid_before: datetime
    extensions: tuple[str, ...]


def authority_line(jwk: Mapping[str, str]) -> str:
    """Return the OpenSSH line of an authority's key, as ``TrustedUserCAKeys`` takes it. Pure."""
    return f"{_AUTHORITY} {base64.b64encode(_authority_blob(jwk)).decode()}"


def certificate_serial(text: str) -> int:
    """Return the 63-bit serial of a certificate for what ``text`` names: the first 63 bits of its SHA-256, so that a
    serial in sshd's log is found again from the target hop's, and tells nobody the other. Pure."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def key_fingerprint(line: str) -> str:
    """Return the fingerprint of the key in a ``TYPE BASE64`` line as OpenSSH writes it (``SHA256:...``). Pure."""
    blob = base64.b64decode(line.split(" ")[1])
    return f"SHA256:{base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip('=')}"


def public_key_line(text: str) -> str:
    """Return the ``TYPE BASE64`` of the key in ``text``, its comment dropped. Raises BadRequest on anything but one
    Ed25519, NIST P-256, P-384 or P-521 key, or an RSA key of 3,072 to 8,192 bits, in its one spelling. Pure."""
    try:
        return _plain_line(text)
    except Exception as error:  # noqa: BLE001 - whatever the parser raises is a refusal
        why = str(error)
    raise BadRequest(
        "the public key is not an OpenSSH line of an Ed25519, an ECDSA, or an RSA key of 3072 to 8192 bits",
        hint="Make one with ssh-keygen -t ed25519, and send its .pub file's line.",
        why=why,
    )


def _plain_line(text: str) -> str:
    found = _KEY_LINE.match(text) if len(text) <= MAX_LINE else None
    if found is None:
        raise ValueError("not a line of a kind of key that is accepted")
    plain = f"{found['type']} {found['blob']}"
    if _strong_key_line(load_ssh_public_identity(plain.encode())) != plain:
        raise ValueError("not the key's one spelling")
    return plain


def sign_certificate(signer: Signer, wanted: CertificateWanted) -> str:
    """Return the certificate as one OpenSSH line, signed by the SSH key of ``signer``.

    Raises BadRequest on a public key that is none, ValueError where ``wanted`` is not what we ever grant (a mistake of
    ours), StoreUnavailable where the key cannot be used, or was changed for another one just now.
    """
    _check(wanted)
    jwk = signer.public_jwk
    kind, _, key = public_key_line(wanted.public_key).partition(" ")
    before_signature = b"".join(
        (
            _string(f"{kind}{_CERTIFICATE}".encode()),
            _string(secrets.token_bytes(NONCE_BYTES)),
            base64.b64decode(key)[4 + len(kind) :],  # the key's own fields follow its type
            struct.pack(">QI", wanted.serial, _USER),
            _string(wanted.key_id.encode()),
            _string(b"".join(_string(name.encode()) for name in wanted.principals)),
            struct.pack(">QQ", int(wanted.valid_after.timestamp()), int(wanted.valid_before.timestamp())),
            _string(b""),  # critical options
            _string(b"".join(_string(name.encode()) + _string(b"") for name in sorted(wanted.extensions))),
            _string(b""),  # reserved
            _string(_authority_blob(jwk)),
        )
    )
    raw = signer.sign_bytes(before_signature)
    signature = _string(_AUTHORITY.encode()) + _string(_mpint(raw[:32]) + _mpint(raw[32:]))
    line = f"{kind}{_CERTIFICATE} {base64.b64encode(before_signature + _string(signature)).decode()}"
    try:
        verify_certificate(line, {jwk["kid"]: jwk}, now=wanted.valid_after, login=wanted.principals[0])
    except ProofInvalid as error:  # the alias came to mean another key between reading it and signing
        raise StoreUnavailable("a certificate could not be signed", why=error.detail.get("why", "")) from None
    return line


def verify_certificate(
    line: str, authorities: Mapping[str, Mapping[str, str]], *, now: datetime, login: str
) -> UserCertificate:
    """Return what the certificate in ``line`` (``TYPE BASE64``) says, where one of ``authorities`` (``kid`` to public
    JWK) signed it for exactly ``login`` and it is valid at ``now``.

    Raises ProofInvalid on anything else, in one text for all, and nothing but it. Pure.
    """
    try:
        certificate = _parsed(line)
        authority = _authority_of(certificate, authorities)
        certificate.verify_cert_signature()
        return _said(certificate, authority, now, login)
    except Exception as error:  # noqa: BLE001 - whatever the parser raises (NotImplementedError too) is a refusal
        why = "the signature does not verify" if isinstance(error, InvalidSignature) else str(error)
    raise ProofInvalid(
        "the certificate is not one for this session",
        hint="Ask for the session's certificate again; it lives for minutes.",
        why=why,
    )


def _parsed(line: str) -> SSHCertificate:
    found = _CERTIFICATE_LINE.match(line) if len(line) <= MAX_LINE else None
    if found is None:
        raise ValueError("not a line of a kind of certificate that is accepted")
    if base64.b64encode(base64.b64decode(found["blob"])).decode() != found["blob"]:
        raise ValueError("not the one spelling of its base64")  # bits left over would make another line of the same one
    certificate = load_ssh_public_identity(line.encode())
    if isinstance(certificate, SSHCertificate):
        return certificate
    raise ValueError("a key and no certificate")


def _authority_of(certificate: SSHCertificate, authorities: Mapping[str, Mapping[str, str]]) -> str:
    signed_by = certificate.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    for kid, jwk in authorities.items():
        if authority_line(jwk) == signed_by:
            return kid
    raise ValueError("the authority is none of ours")


def _said(certificate: SSHCertificate, authority: str, now: datetime, login: str) -> UserCertificate:
    if certificate.type is not SSHCertificateType.USER:
        raise ValueError("a host's certificate")
    if certificate.valid_principals != [login.encode()]:
        raise ValueError("not for exactly this login")  # an empty list is anybody's in this format
    if not certificate.valid_after <= now.timestamp() < certificate.valid_before:
        raise ValueError("expired, or not valid yet")
    if certificate.valid_before - certificate.valid_after > MAX_LIFETIME_S:
        raise ValueError("valid for longer than any of ours")
    if certificate.critical_options:
        raise ValueError("a critical option that nobody here keeps")
    return UserCertificate(
        authority=authority,
        key_id=_text(certificate.key_id),
        serial=certificate.serial,
        principals=(login,),
        public_key=_strong_key_line(certificate.public_key()),
        valid_after=datetime.fromtimestamp(certificate.valid_after, UTC),
        valid_before=datetime.fromtimestamp(certificate.valid_before, UTC),
        extensions=tuple(_text(name) for name in certificate.extensions),
    )


def _strong_key_line(key: object) -> str:
    """Return the ``TYPE BASE64`` line of a key of a kind and size that is accepted. Raises ValueError."""
    if isinstance(key, rsa.RSAPublicKey) and not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise ValueError("an RSA key that is too short, or too long")
    if isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    raise ValueError("a kind of key that is not accepted")


def _check(wanted: CertificateWanted) -> None:
    """Raise ValueError where it would say more than any certificate of ours does."""
    if len(wanted.principals) != 1 or not all(_PRINCIPAL.match(name) for name in wanted.principals):
        raise ValueError("a certificate is for one login")
    if not 0 <= wanted.serial < 1 << 63 or not _PRINTABLE.match(wanted.key_id):
        raise ValueError("a certificate's serial or key id is not one")
    if not 0 < wanted.valid_before.timestamp() - wanted.valid_after.timestamp() <= MAX_LIFETIME_S:
        raise ValueError("a certificate that is never valid, or for too long")
    if not set(wanted.extensions) <= {PERMIT_PTY}:  # agents, ports, X11 and start-up files are ways around the record
        raise ValueError("an extension that we never grant")


def _authority_blob(jwk: Mapping[str, str]) -> bytes:
    """Return the key as RFC 5656 section 3.1 writes it: the type, the curve, the uncompressed point."""
    point = b"\x04" + _coordinate(jwk["x"]) + _coordinate(jwk["y"])
    return _string(_AUTHORITY.encode()) + _string(b"nistp256") + _string(point)


def _coordinate(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _string(data: bytes) -> bytes:
    """RFC 4251 section 5: the length in 32 bits, then the bytes."""
    return struct.pack(">I", len(data)) + data


def _mpint(number: bytes) -> bytes:
    """RFC 4251 section 5: two's complement, no more bytes than it takes: a first bit that is set needs a zero byte."""
    short = number.lstrip(b"\0")
    return _string(b"\0" + short if short[:1] >= b"\x80" else short)


def _text(data: bytes) -> str:
    text = data.decode("ascii")
    if len(text) > MAX_KEY_ID or not text.isprintable():
        raise ValueError("a name that is too long or not printable")
    return text
