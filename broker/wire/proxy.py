"""The PROXY protocol, version 2: what a balancer says of the client before the client's own bytes.

Rules: exactly the header's bytes are asked for, so that none of the client's is taken; the signature is checked as it
comes, so that a client which speaks without a balancer is refused at its first byte and not at the deadline; version,
command, family and length are checked before anything is kept; additional fields (TLVs) are bounded and not read. What
is not relayed for a client (LOCAL: the balancer's own health checks; a family that was not told) has no client.
It does not decide whether the sender may be believed: the listener asks for it only where a balancer stands before it.

Source: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt section 2.2; AWS, Network Load Balancers, "Proxy
protocol" (version 2 only; a header without a client on health checks).
"""

from __future__ import annotations

import ipaddress
from typing import Final

from broker.wire.violation import RemoteViolation

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED_BYTES: Final = 16
# Two addresses are 36 bytes, and AWS adds one field of some twenty (its endpoint's name); the format would allow 64 KiB
# of a stranger's.
MAX_REST: Final = 1024
_VERSION: Final = 2
_LOCAL: Final = 0
_PROXY: Final = 1
_UNSPECIFIED: Final = 0x00
_ADDRESS_BYTES: Final = {0x11: 4, 0x21: 16}  # TCP over IPv4, over IPv6; each has two addresses and two ports
_PORTS_BYTES: Final = 4
LOCAL_HEADER: Final = SIGNATURE + bytes((_VERSION << 4 | _LOCAL, _UNSPECIFIED, 0, 0))  # what a health check sends


class ProxyHeader:
    """One transport's header, in whichever pieces it comes."""

    def __init__(self) -> None:
        self._got = b""
        self._whole = FIXED_BYTES
        self.client: str | None = None

    @property
    def wanted(self) -> int:
        """How many bytes to take next, at most; 0 once the header is whole, and :attr:`client` is the client's address
        then, None where there is none."""
        return self._whole - len(self._got)

    def take(self, data: bytes) -> None:
        """Take what was read. Raises RemoteViolation where it is no header, or more than was wanted."""
        if len(data) > self.wanted:
            raise RemoteViolation("more than the PROXY header was taken")
        self._got += data
        if not self._got.startswith(SIGNATURE[: len(self._got)]):
            raise RemoteViolation("no PROXY header")
        if self._whole == FIXED_BYTES == len(self._got):
            self._whole += self._rest()
        if not self.wanted:
            self.client = self._client()

    def _rest(self) -> int:
        version, command = self._got[12] >> 4, self._got[12] & 0x0F
        if version != _VERSION or command not in (_LOCAL, _PROXY):
            raise RemoteViolation("a PROXY header of another version or command")
        length = int.from_bytes(self._got[14:16])
        if length > MAX_REST:
            raise RemoteViolation("the PROXY header is too long")
        family = self._got[13]
        if command == _PROXY and family != _UNSPECIFIED:
            if family not in _ADDRESS_BYTES:
                raise RemoteViolation("a PROXY header for something else than TCP")
            if length < 2 * _ADDRESS_BYTES[family] + _PORTS_BYTES:
                raise RemoteViolation("the PROXY header is too short")
        return length

    def _client(self) -> str | None:
        size = _ADDRESS_BYTES.get(self._got[13])
        if self._got[12] & 0x0F == _LOCAL or size is None:
            return None
        address = ipaddress.ip_address(self._got[FIXED_BYTES : FIXED_BYTES + size])
        # One client behind two balancers, one of them dual-stack, is one client: its sessions are for one address.
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return str(mapped or address)
