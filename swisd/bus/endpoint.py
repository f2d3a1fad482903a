"""Where a bus client connects: the embedded broker of the swarm's host, or a broker the user runs."""

import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from swisd.core.errors import BadInput, SwisdError
from swisd.net.secure import dial_blocking, open_outside
from swisd.wire.handshake import Purpose

CONNECT_TIMEOUT_S = 5.0
_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class SwarmBroker:
    """The broker inside a device of the swarm: the connection proves the key first.

    `others` are further addresses of the same device; each is given `timeout` seconds.
    """

    host: str
    port: int
    key: bytes = field(repr=False)
    device: str
    others: tuple[tuple[str, int], ...] = ()
    timeout: float = CONNECT_TIMEOUT_S

    def open(self) -> socket.socket:
        """A connected socket. Raises `WrongKey` or `OSError`, that of the first address."""
        failed: OSError | SwisdError | None = None
        for host, port in ((self.host, self.port), *self.others):
            try:
                return dial_blocking(host, port, self.key, self.device, Purpose.BUS, timeout=self.timeout)
            except (OSError, SwisdError) as error:
                failed = failed or error
        assert failed is not None
        raise failed


@dataclass(frozen=True, slots=True)
class OutsideBroker:
    """An MQTT 3.1.1 broker outside the swarm, from a URL. `tls` trusts the system's CAs, or one CA file."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    def open(self) -> socket.socket:
        """A connected socket, with TLS where asked for. Raises `OSError`."""
        sock = open_outside(self.host, self.port, timeout=CONNECT_TIMEOUT_S)
        if self.tls is None:
            return sock
        try:  # here and not in paho, which leaves the socket of a failed handshake open
            return self.tls.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise


def parse_broker_url(url: str, ca_file: Path | None = None) -> OutsideBroker:
    """Read `mqtt://[user:password@]host[:port]` or `mqtts://...`. Raises `BadInput`."""
    shape = "a broker is given as mqtt://[user:password@]host[:port] or mqtts://..."
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise BadInput(f"the broker's address cannot be read ({error}); {shape}") from None
    # The URL itself stays out of the messages: it may hold a password.
    if parts.scheme not in _PORTS:
        raise BadInput(f"{parts.scheme or 'no scheme'!r} is not a kind of broker; {shape}")
    if not parts.hostname:
        raise BadInput(f"the broker's address names no host; {shape}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadInput(f"the broker's address ends after the port, without {parts.path!r}; {shape}")
    if parts.password is not None and not parts.username:
        raise BadInput(f"the broker's address has a password but no user; {shape}")
    return OutsideBroker(
        parts.hostname,
        port or _PORTS[parts.scheme],
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password is not None else None,
        _tls(ca_file) if parts.scheme == "mqtts" else None,
    )


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"the CA file {ca_file} of the broker cannot be used: {error}") from None
