"""SSH certificates: what we make, OpenSSH reads; what OpenSSH or an attacker makes, we judge."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.errors import BadRequest, ProofInvalid, StoreUnavailable
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.ssh_certificates import (
    CertificateWanted,
    authority_line,
    certificate_serial,
    key_fingerprint,
    public_key_line,
    sign_certificate,
    verify_certificate,
)
from dev.settings import search_path
from tests.fakes.clock import START
from tests.fakes.signer import MemoryKeys, MemorySigner

VECTORS: Final = json.loads((Path(__file__).resolve().parents[3] / "vectors/ssh/certificates.json").read_text())
SSH_KEYGEN: Final = shutil.which("ssh-keygen", path=search_path())
LOGIN: Final = "ses_x"
KEYS: Final = MemoryKeys()
SIGNER: Final = KEYS.signer(KeyPurpose.SSH_USER.value)
AUTHORITIES: Final = KEYS.public_keys(KeyPurpose.SSH_USER.value)


def line_of(key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


ED25519: Final = line_of(ed25519.Ed25519PrivateKey.generate().public_key())
WANTED: Final = CertificateWanted(
    public_key=ED25519,
    key_id="txn:t ses:s hop:h",
    serial=7,
    principals=(LOGIN,),
    valid_after=START,
    valid_before=START + timedelta(minutes=5),
)
GOOD: Final = sign_certificate(SIGNER, WANTED)


def blob_of(line: str) -> bytearray:
    return bytearray(base64.b64decode(line.split(" ")[1]))


def with_blob(line: str, blob: bytes) -> str:
    return f"{line.split(' ')[0]} {base64.b64encode(blob).decode()}"


def refused(
    line: str, *, authorities: Mapping[str, Mapping[str, str]] = AUTHORITIES, now: datetime = START, login: str = LOGIN
) -> str:
    """Return why it is refused, for the log; outside there is one text for all."""
    with pytest.raises(ProofInvalid) as refusal:
        verify_certificate(line, authorities, now=now, login=login)
    assert refusal.value.public == "the certificate is not one for this session"
    return str(refusal.value.detail["why"])


def public_keys() -> dict[str, str]:
    curves: tuple[ec.EllipticCurve, ...] = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
    elliptic = {curve.name: line_of(ec.generate_private_key(curve).public_key()) for curve in curves}
    return {
        "ed25519": ED25519,
        "rsa": line_of(rsa.generate_private_key(public_exponent=65537, key_size=3072).public_key()),
        **elliptic,
    }


PUBLIC_KEYS: Final = public_keys()


@pytest.mark.parametrize("kind", PUBLIC_KEYS)
def test_what_is_signed_says_what_was_wanted(kind: str) -> None:
    """Each kind of key that a client may have, there and back."""
    line = sign_certificate(SIGNER, replace(WANTED, public_key=PUBLIC_KEYS[kind]))
    said = verify_certificate(line, AUTHORITIES, now=START, login=LOGIN)
    assert said.public_key == PUBLIC_KEYS[kind]
    assert (said.key_id, said.serial, said.principals) == (WANTED.key_id, 7, (LOGIN,))
    assert (said.valid_after, said.valid_before) == (WANTED.valid_after, WANTED.valid_before)
    assert said.extensions == ("permit-pty",)
    assert said.authority == SIGNER.kid


@pytest.mark.skipif(SSH_KEYGEN is None, reason="ssh-keygen is not installed")
@pytest.mark.parametrize("kind", PUBLIC_KEYS)
def test_openssh_reads_what_we_sign(kind: str, tmp_path: Path) -> None:
    """Our encoder is our own: the reference must agree on each field, the signature's encoding among them."""
    file = tmp_path / "id-cert.pub"
    for attempt in range(3):  # an mpint's length varies with its number: one in two needs a zero byte in front
        file.write_text(sign_certificate(SIGNER, replace(WANTED, public_key=PUBLIC_KEYS[kind], serial=attempt)))
        shown = subprocess.run(
            [str(SSH_KEYGEN), "-L", "-f", str(file)], capture_output=True, text=True, check=True, env={"TZ": "UTC"}
        ).stdout
        fields = [line.strip() for line in shown.splitlines()]
        assert 'Key ID: "txn:t ses:s hop:h"' in fields
        assert f"Serial: {attempt}" in fields
        assert "Valid: from 2026-11-02T09:30:00 to 2026-11-02T09:35:00" in fields
        assert f"Public key: {kind_name(kind)}-CERT {key_fingerprint(PUBLIC_KEYS[kind])}" in fields
        assert (
            f"Signing CA: ECDSA {key_fingerprint(authority_line(SIGNER.jwk()))} (using ecdsa-sha2-nistp256)" in fields
        )
        assert fields[-5:] == ["Principals:", LOGIN, "Critical Options: (none)", "Extensions:", "permit-pty"]


def kind_name(kind: str) -> str:
    return {"ed25519": "ED25519", "rsa": "RSA"}.get(kind, "ECDSA")


def vector_authorities() -> Mapping[str, Mapping[str, str]]:
    key = load_ssh_public_key(VECTORS["authority"].encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    numbers = key.public_numbers()
    return {"vector": {"kty": "EC", "crv": "P-256", "x": number(numbers.x), "y": number(numbers.y), "kid": "vector"}}


def number(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()


OPENSSH: Final = vector_authorities()


def test_an_authoritys_line_is_opensshs() -> None:
    """It goes into ``TrustedUserCAKeys`` as it is."""
    assert authority_line(OPENSSH["vector"]) == VECTORS["authority"]


@pytest.mark.parametrize("name", [name for name in VECTORS["certificates"] if name.startswith("good")])
def test_what_openssh_signs_we_read(name: str) -> None:
    """Golden vectors: a certificate in the form of PROTOCOL.certkeys, and not only in ours."""
    vector = VECTORS["certificates"][name]
    said = verify_certificate(vector["line"], OPENSSH, now=START, login=LOGIN)
    assert (said.authority, said.key_id, said.serial) == ("vector", "txn:t ses:s hop:h", 7)
    assert said.public_key == vector["public_key"]


ATTACKS: Final = {
    "another authority": "none of ours",
    "an ed25519 authority": "none of ours",
    "an rsa authority": "none of ours",
    "a host certificate": "host",
    "no principals": "exactly this login",
    "two principals": "exactly this login",
    "another principal": "exactly this login",
    "expired": "expired",
    "not yet valid": "not valid yet",
    "force-command": "critical option",
    "source-address": "critical option",
    "verify-required": "critical option",
    "an unknown critical option": "critical option",
    "an rsa key of 1024 bits": "too short",
    "an rsa key of 2048 bits": "too short",
}


def test_there_is_an_attack_for_each_vector() -> None:
    """A vector that nobody reads holds nothing."""
    assert set(ATTACKS) == {name for name in VECTORS["certificates"] if not name.startswith("good")}


@pytest.mark.parametrize("attack", ATTACKS)
def test_certificate_attack_is_refused(attack: str) -> None:
    """paramiko proves that the client has the key, and nothing else: all of this is ours to check."""
    assert ATTACKS[attack] in refused(VECTORS["certificates"][attack]["line"], authorities=OPENSSH)


@pytest.mark.parametrize(("after_s", "valid"), [(-1, False), (0, True), (299, True), (300, False)])
def test_a_certificate_is_valid_until_just_before_its_end(after_s: int, valid: bool) -> None:
    """PROTOCOL.certkeys: valid after <= now < valid before."""
    now = START + timedelta(seconds=after_s)
    if valid:
        assert verify_certificate(GOOD, AUTHORITIES, now=now, login=LOGIN).serial == 7
    else:
        assert "expired" in refused(GOOD, now=now)


@pytest.mark.parametrize("seconds", [601, 86_400])
def test_a_certificate_for_longer_than_ours_is_refused(seconds: int) -> None:
    """``ssh-keygen`` without ``-V`` signs for ever: whoever did that had the key, and was not us."""
    end = int(START.timestamp()) + seconds
    assert "longer than any of ours" in refused(forged(valid_before=end))
    assert "longer than any of ours" in refused(forged(valid_before=2**64 - 1))
    assert verify_certificate(forged(valid_before=end - seconds + 600), AUTHORITIES, now=START, login=LOGIN).serial == 1


def test_a_certificate_of_another_session_is_refused() -> None:
    """Each session has its own login: a certificate for one opens no other."""
    assert "exactly this login" in refused(GOOD, login="ses_y")
    assert "exactly this login" in refused(GOOD, login="")


def test_a_jws_signature_transplanted() -> None:
    """The numbers of a JWS that the same key made are a good signature, over something else."""
    both = MemorySigner("both")  # a key that signs JWS: what the SSH keys are never given to do
    signature = base64.urlsafe_b64decode(both.sign("at+jwt", b"{}").split(".")[2] + "==")
    line = forged(signature=signature, authority=both.jwk())
    assert "signature" in refused(line, authorities={"both": both.jwk()})


def test_an_authority_that_is_a_certificate_itself() -> None:
    """A chained certificate would let whoever holds one certificate sign others."""
    inner = bytes(blob_of(GOOD))
    assert refused(forged(authority_blob=inner))


@pytest.mark.parametrize("bit", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_anywhere_is_refused(bit: int) -> None:
    """No byte of a certificate is outside of what is checked: each of them, one after the other."""
    blob = blob_of(GOOD)
    for index in range(len(blob)):
        changed = bytearray(blob)
        changed[index] ^= bit
        refused(with_blob(GOOD, bytes(changed)))


@given(st.data())
def test_any_change_is_refused(data: st.DataObject) -> None:
    """Cut, grown, spliced: whatever it is, it is a refusal, and never another exception."""
    blob = bytes(blob_of(GOOD))
    start = data.draw(st.integers(0, len(blob)))
    end = data.draw(st.integers(start, len(blob)))
    put = data.draw(st.binary(max_size=40))
    changed = blob[:start] + put + blob[end:]
    if changed != blob:
        refused(with_blob(GOOD, changed))


@given(st.text(max_size=200) | st.from_regex(r"\Assh-ed25519-cert-v01@openssh\.com [A-Za-z0-9+/]{0,400}={0,2}\Z"))
def test_junk_is_only_a_refusal(junk: str) -> None:
    """Whatever a client sends before it is known."""
    refused(junk)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=14))
def test_junk_fields_are_only_a_refusal(fields: list[bytes]) -> None:
    """Well-framed nonsense behind the right type gets past the first checks of a parser."""
    kind = "ssh-ed25519-cert-v01@openssh.com"
    refused(with_blob(f"{kind} x", string(kind.encode()) + b"".join(map(string, fields))))


SPELLINGS: Final = {
    "nothing": "",
    "a key": ED25519,
    "a comment": f"{GOOD} comment",
    "a space before": f" {GOOD}",
    "a line end": f"{GOOD}\n",
    "another type": GOOD.replace("ssh-ed25519", "ssh-rsa", 1),
    "a hardware key's type": GOOD.replace("ssh-ed25519-cert-v01", "sk-ssh-ed25519-cert-v01", 1),
    "two spaces": GOOD.replace(" ", "  "),
    "another domain": GOOD.replace("openssh.com", "openssh.org"),
    "too long": "x" * 100_000,
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_one_spelling(name: str) -> None:
    """A certificate in a second spelling is one that a deny list, or a log, does not know."""
    refused(SPELLINGS[name])


def test_base64_with_bits_left_over() -> None:
    """The last character's unused bits make another line of the same certificate."""
    # A signature's own length varies from one to the next, so the length that leaves bits over is looked for.
    lines = (sign_certificate(SIGNER, replace(WANTED, key_id="k" * length)) for length in range(1, 100))
    padded = next(line for line in lines if line.endswith("="))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = padded.rstrip("=")
    other = body[:-1] + letters[letters.index(body[-1]) ^ 1] + padded[len(body) :]
    assert blob_of(other) == blob_of(padded)
    refused(other)


NO_KEYS: Final = {
    "nothing": "",
    "a type alone": "ssh-ed25519",
    "a key cut short": "ssh-ed25519 AAAA",
    "another type": ED25519.replace("ssh-ed25519", "ssh-rsa", 1),
    "two keys": f"{ED25519}\nssh-ed25519 AAAA",
    "escapes in the comment": f"{ED25519} comment\x1b[2J",
    "an option before it": f"command=x {ED25519}",
    "two spaces": f"ssh-ed25519  {ED25519.split(' ')[1]}",
    "2048 bits of RSA": VECTORS["certificates"]["an rsa key of 2048 bits"]["public_key"],
    "a certificate": GOOD,
    "DSA": "ssh-dss AAAAB3NzaC1kc3MAAAABAQ==",
    "a hardware key": "sk-ssh-ed25519@openssh.com AAAA",
    "too long": f"{ED25519} {'c' * 9000}",
}


@pytest.mark.parametrize("name", NO_KEYS)
def test_a_public_key_that_is_none(name: str) -> None:
    """What a caller sends goes into a certificate: one key of a kind that is strong enough, in one spelling."""
    with pytest.raises(BadRequest):
        public_key_line(NO_KEYS[name])


def test_a_comment_is_dropped() -> None:
    """``ssh-keygen`` writes ``user@host`` there, which is nobody's business."""
    assert public_key_line(f"{ED25519} ada@laptop") == ED25519


@pytest.mark.parametrize(
    "changed",
    [
        {"principals": ()},
        {"principals": ("a", "b")},
        {"principals": ("",)},
        {"principals": ("a,b",)},
        {"serial": -1},
        {"serial": 1 << 63},
        {"key_id": ""},
        {"key_id": "a\nb"},
        {"valid_before": START},
        {"valid_before": START + timedelta(seconds=601)},
        {"extensions": ("permit-agent-forwarding",)},
        {"extensions": ("permit-pty", "permit-port-forwarding")},
    ],
)
def test_what_we_never_grant_is_never_signed(changed: dict[str, Any]) -> None:
    """A certificate without principals is anybody's; agents, ports and X11 are ways around the record."""
    with pytest.raises(ValueError, match=r"certificate|extension"):
        sign_certificate(SIGNER, replace(WANTED, **changed))


def test_the_signatures_numbers_have_one_spelling() -> None:
    """RFC 4251 section 5: an mpint has no byte too many. OpenSSH takes such a one; a stricter target need not."""
    for _ in range(40):  # one number in two needs a zero byte in front, one in 256 is shorter
        signed = bytes(blob_of(sign_certificate(SIGNER, WANTED)))
        _, numbers = fields(fields(signed[signed.rindex(b"\0\0\0\x13ecdsa-sha2-nistp256") - 4 :])[0])
        assert all(string(number) == mpint(number) for number in fields(numbers))


def fields(data: bytes) -> list[bytes]:
    """Return the length-prefixed fields that ``data`` is."""
    found = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        found.append(data[4:end])
        data = data[end:]
    return found


def test_two_certificates_differ() -> None:
    """The nonce is ours: nobody who chooses a key chooses what is signed."""
    assert sign_certificate(SIGNER, WANTED) != GOOD


class ChangingSigner(MemorySigner):
    """A signer whose alias comes to mean another key between a look and a signature."""

    def sign_bytes(self, message: bytes) -> bytes:
        return MemorySigner("other", KeyPurpose.SSH_USER).sign_bytes(message)


def test_a_key_that_changes_meanwhile_signs_nothing() -> None:
    """Handing out what no broker takes would look like an attack of the client's."""
    with pytest.raises(StoreUnavailable):
        sign_certificate(ChangingSigner("ssh", KeyPurpose.SSH_USER), WANTED)


def test_a_serial_is_63_bits_of_a_hash() -> None:
    """It must be the same for ever: sshd's log is matched with it."""
    assert certificate_serial("01k9vq3v5000000000000000aa") == 0x4AC037D967B7B1E5


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def forged(
    *,
    valid_before: int = int((START + timedelta(minutes=5)).timestamp()),
    signature: bytes | None = None,
    authority: Mapping[str, str] = SIGNER.jwk(),
    authority_blob: bytes = b"",
) -> str:
    """Return a certificate with a field that we would not write, signed by our own key unless told otherwise."""
    kind = "ssh-ed25519-cert-v01@openssh.com"
    body = b"".join(
        (
            string(kind.encode()),
            string(b"n" * 32),
            string(base64.b64decode(ED25519.split(" ")[1])[-32:]),
            struct.pack(">QI", 1, 1),
            string(b"id"),
            string(string(LOGIN.encode())),
            struct.pack(">QQ", int(START.timestamp()), valid_before),
            string(b""),
            string(b""),
            string(b""),
            string(authority_blob or base64.b64decode(authority_line(authority).split(" ")[1])),
        )
    )
    raw = SIGNER.sign_bytes(body) if signature is None else signature
    numbers = mpint(raw[:32]) + mpint(raw[32:])
    return with_blob(f"{kind} x", body + string(string(b"ecdsa-sha2-nistp256") + string(numbers)))


def mpint(half: bytes) -> bytes:
    value = int.from_bytes(half, "big")
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big"))


def test_a_moment_is_utc() -> None:
    """A validity in local time is off by hours on somebody's machine."""
    assert verify_certificate(GOOD, AUTHORITIES, now=START, login=LOGIN).valid_after.tzinfo is UTC
