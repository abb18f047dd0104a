"""What anybody may look at: the API's address, certificate, clock and keys, where people log in, the broker's doors.

Needs the base install and no credential. The broker's addresses come from the variables that the deployment itself is
given (``COUNTERSIGN_BROKER_HOST`` and those beside it; `terraform output` names them).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from chalicelib.domain.clock import Clock
from chalicelib.domain.signature import KeyPurpose
from countersign.address import Address
from countersign.doctor.asking import Answer, Peer, ask, ssh_banner, tls_peer
from countersign.doctor.checks import Check, Told, ok, unknown, warn, wrong
from countersign.printable import counted, safe_line

CONTRACT: Final = (
    "1"  # of the paths' /v1; a service with another one has endpoints that this command line does not know
)
# Proofs live 60 s either way (RFC 9449): half of that is no network delay; 5 s off is a clock that nobody keeps.
_CLOCK_WRONG_S: Final = 30.0
_CLOCK_WARN_S: Final = 5.0
_ENDS_SOON_S: Final = 14 * 86_400.0  # ACM renews 60 days before: two weeks before the end, that has failed for long
_MOST_KEYS: Final = 2  # the key of now and the one before; a third is one that nobody took away
_DISCOVERY: Final = "/.well-known/openid-configuration"


class ServiceChecks:
    """The checks of one service, at ``address``. ``told`` are the environment's variables."""

    def __init__(self, address: Address, told: Mapping[str, str], clock: Clock) -> None:
        self._address = address
        self._told = told
        self._clock = clock

    def checks(self) -> list[Check]:
        return [
            Check(name="api", look=self._api),
            Check(name="certificate", look=self._certificate),
            Check(name="clock", look=self._clocks),
            Check(name="contract", look=self._contract),
            Check(name="public keys", look=self._keys),
            Check(name="login", look=self._login),
            Check(name="broker", look=self._broker),
        ]

    def _get(self, path: str) -> Answer:
        return ask(self._address.url(path), headers={"Accept": "application/json"})

    def _api(self) -> Iterator[Told]:
        where = self._address.origin + self._address.path
        try:
            answer = self._get("/healthz")
        except OSError as error:
            yield wrong(f"{where} cannot be reached: {_why(error)}", "Check the address, its DNS name and the network.")
            return
        if 300 <= answer.status < 400:
            yield wrong(f"{where} redirects, which no client of ours follows", "Set COUNTERSIGN_API to where it leads.")
        elif answer.status == 200 and answer.json_object().get("status") == "ok":
            yield ok(f"{where} answers")
        else:
            yield wrong(
                f"{where} answered {answer.status}, and not as Countersign does",
                "Is the stage's path missing? `chalice url --stage STAGE` prints the address; else read the API's log.",
            )

    def _certificate(self) -> Iterator[Told]:
        if self._address.origin.startswith("http://"):
            yield ok("plain http on this machine: there is no certificate to look at")
            return
        parts = urlsplit(self._address.origin)
        try:
            peer = tls_peer(parts.hostname or "", parts.port or 443)
        except ssl.SSLCertVerificationError as error:
            yield _not_trusted("the API", error)
            return
        if peer is not None:
            yield self._ends("the API", peer, "Renew it: in ACM, or wherever the custom domain's certificate is.")

    def _clocks(self) -> Iterator[Told]:
        before = self._clock.now()
        answer = self._get("/healthz")
        after = self._clock.now()
        try:
            there = parsedate_to_datetime(answer.headers.get("date", ""))
        except (TypeError, ValueError):
            yield unknown("the service does not say what time it has", "Compare the clocks by hand (`date -u`).")
            return
        # Its Date is in whole seconds, made somewhere between the two looks at our clock.
        off_s = max((before - there).total_seconds() - 1, (there - after).total_seconds(), 0.0)
        if off_s > _CLOCK_WRONG_S:
            fix = "Set this machine's clock (NTP): proofs of a key are refused when they are 60 s old."
            yield wrong(f"this machine's clock and the service's are {off_s:.0f} s apart", fix)
        elif off_s > _CLOCK_WARN_S:
            yield warn(f"this machine's clock and the service's are {off_s:.0f} s apart", "Keep it by NTP.")
        else:
            yield ok("this machine's clock agrees with the service's")

    def _contract(self) -> Iterator[Told]:
        info = self._get("/openapi.json").json_object().get("info")
        found = str(info.get("version", "")) if isinstance(info, dict) else ""
        if found == CONTRACT:
            yield ok(f"it speaks version {CONTRACT} of the API, as this command line does")
        else:
            what = f"it speaks version {safe_line(found, 20) or '?'} of the API, this command line {CONTRACT}"
            yield wrong(what, "`pip install -U countersign`, or upgrade the service.")

    def _keys(self) -> Iterator[Told]:
        told = self._get("/v1/keys").json_object()
        published = self._get("/.well-known/jwks.json").json_object().get("keys")
        faults = list(_key_faults(told))
        if not isinstance(published, list) or _ids(published) != _ids(_listed(told, KeyPurpose.TOKEN)):
            faults.append(
                wrong("/.well-known/jwks.json is not the token keys of /v1/keys", "Redeploy the API: two versions run.")
            )
        yield from faults
        if not faults:
            yield ok(f"{counted(len(KeyPurpose), 'purpose')}, each with ES256 keys of its own")

    def _login(self) -> Iterator[Told]:
        issuers = self._get("/v1/login").json_object().get("issuers")
        if not isinstance(issuers, list):
            yield wrong("the service cannot say where people log in", "Is a configuration active? Read the API's log.")
            return
        if not issuers:
            yield ok("no issuer for people is declared: only pipelines come in")
        for issuer in issuers:
            url = str(issuer.get("issuer", "")) if isinstance(issuer, dict) else ""
            yield discovered(url, safe_line(str(issuer.get("name", "")), 64) if isinstance(issuer, dict) else "?")

    def _broker(self) -> Iterator[Told]:
        host = self._told.get("COUNTERSIGN_BROKER_HOST", "")
        postgres, ssh = (self._told.get(f"COUNTERSIGN_BROKER_{name}_PORT", "") for name in ("POSTGRES", "SSH"))
        if not host or not (postgres.isdigit() or ssh.isdigit()):
            yield unknown(
                "nobody said where the broker is", "Set COUNTERSIGN_BROKER_HOST, ..._POSTGRES_PORT, ..._SSH_PORT."
            )
            return
        if postgres.isdigit():
            yield self._postgres_door(host, int(postgres))
        if ssh.isdigit() and int(ssh):
            yield _ssh_door(host, int(ssh))

    def _postgres_door(self, host: str, port: int) -> Told:
        authority = self._told.get("COUNTERSIGN_BROKER_CA_PEM", "").replace("\\n", "\n")
        name = f"the broker's PostgreSQL door ({host}:{port})"
        try:
            peer = tls_peer(host, port, authority=authority, postgres=True)
        except ssl.SSLCertVerificationError as error:
            return _not_trusted(name, error)
        except OSError as error:
            return _shut(name, error)
        if peer is None:
            return wrong(
                f"{name} speaks no TLS", "What listens there is no broker of ours: check the balancer's target."
            )
        return self._ends(name, peer, "Put a new certificate into its secret, and restart the broker.")

    def _ends(self, name: str, peer: Peer, fix: str) -> Told:
        left_s = peer.ends_at_s - self._clock.now().timestamp()
        days = counted(int(left_s // 86_400), "day")
        if left_s < _ENDS_SOON_S:
            return warn(f"the certificate of {name} ends in {days}", fix)
        return ok(f"{name}: trusted, for {days}")


def discovered(url: str, name: str) -> Told:
    """Return whether the issuer at ``url`` answers discovery as itself. Raises nothing. Source: OpenID Connect
    Discovery 1.0 section 4."""
    try:
        answer = ask(f"{url.rstrip('/')}{_DISCOVERY}", headers={"Accept": "application/json"})
    except OSError as error:
        return wrong(f"issuer {name} cannot be reached: {_why(error)}", "Nobody can begin a chain there meanwhile.")
    told = answer.json_object()
    if answer.status != 200 or told.get("issuer") != url:
        return wrong(
            f"issuer {name} answers discovery with {answer.status}, not as {safe_line(url, 200)}",
            "Correct its `url` in issuers.yaml: it is compared with the token's iss, letter by letter.",
        )
    return ok(f"issuer {name} answers as itself")


def _key_faults(told: Mapping[str, object]) -> Iterator[Told]:
    for purpose in KeyPurpose:
        keys = _listed(told, purpose)
        if not keys:
            yield wrong(f"there is no {purpose} key", "Is its KMS key enabled, and may the API read it?")
        elif len(keys) > _MOST_KEYS:
            yield warn(f"{len(keys)} {purpose} keys are published", "Take away the alias of those before the last.")
        for key in keys:
            if not isinstance(key, dict) or (key.get("kty"), key.get("crv"), key.get("alg")) != (
                "EC",
                "P-256",
                "ES256",
            ):
                yield wrong(f"a {purpose} key is not of P-256 and ES256", "Sign with a key of ECC_NIST_P256 alone.")
            elif "d" in key:
                yield wrong(f"the private part of a {purpose} key is public", "Revoke everything; rotate the key now.")


def _listed(told: Mapping[str, object], purpose: KeyPurpose) -> list[object]:
    found = told.get(purpose.value)
    keys = found.get("keys") if isinstance(found, dict) else None
    return keys if isinstance(keys, list) else []


def _ids(keys: list[object]) -> set[str]:
    return {str(key.get("kid", "")) for key in keys if isinstance(key, dict)}


def _ssh_door(host: str, port: int) -> Told:
    name = f"the broker's ssh door ({host}:{port})"
    try:
        banner = ssh_banner(host, port)
    except OSError as error:
        return _shut(name, error)
    if not banner:
        return wrong(
            f"{name} does not speak SSH", "What listens there is no broker of ours: check the balancer's target."
        )
    return ok(f"{name} answers")


def _shut(name: str, error: OSError) -> Told:
    return wrong(
        f"{name} cannot be reached: {_why(error)}", "Is a broker's task healthy, and the way there open from here?"
    )


def _not_trusted(name: str, error: ssl.SSLCertVerificationError) -> Told:
    fix = "Set SSL_CERT_FILE (the API) or COUNTERSIGN_BROKER_CA_PEM to its authority, or renew it."
    return wrong(f"the certificate of {name} is not trusted: {error.verify_message}", fix)


def _why(error: OSError) -> str:
    return safe_line(error.strerror or str(error) or type(error).__name__, 200)
